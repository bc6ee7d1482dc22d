"use strict";

// What one sees and does. The network itself is in engine.js, which works in a worker, so that the page never freezes.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

const data = JSON.parse(one("#data").textContent);
const [H, W, C] = data.shape;
const layers = Engine.load(data.layers, Object.fromEntries(Object.entries(data.weights).filter(([name]) => isMap(layerOf(name, data.layers)))));
const untrained = Engine.load(data.layers, data.untrained);
const shownLayers = data.layers.filter((layer) => !["Flatten", "Dropout"].includes(layer.type));
const classLayer = shownLayers.at(-1);

function isMap(layer) { return layer.to.length === 3; }
function layerOf(name, some = layers) { return some.find((layer) => layer.name === name); }
const mapsOf = (layer) => layer.to.at(-1);

// -- what is looked at; it stands in the address, so that a view can be linked ---------------------------------------------

const state = { image: 0, layer: shownLayers[1].name, unit: 0, place: null, rule: "deconvnet", unpool: "switches", trained: true };
let own = null; // an image of one's own, or a changed one: Float32Array (H, W, C)
let changes = 0;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (name, most) => {
    const text = given.get(name) ?? "";
    return /^\d{1,7}$/.test(text) && Number(text) < most ? Number(text) : null;
  };
  state.image = whole("image", data.images.count) ?? state.image;
  if (shownLayers.some((layer) => layer.name === given.get("layer"))) state.layer = given.get("layer");
  state.unit = whole("unit", mapsOf(layerOf(state.layer))) ?? Math.min(state.unit, mapsOf(layerOf(state.layer)) - 1);
  state.place = isMap(layerOf(state.layer)) ? whole("place", layerOf(state.layer).to[0] * layerOf(state.layer).to[1]) : null;
  if (given.get("rule") in Engine.RULES) state.rule = given.get("rule");
  if (Engine.UNPOOLS.includes(given.get("unpool"))) state.unpool = given.get("unpool");
  if (given.has("trained")) state.trained = given.get("trained") !== "0";
}

function writeAddress() {
  const { image, layer, unit, place, rule, unpool } = state;
  const parts = { image, layer, unit, rule, unpool, trained: Number(state.trained), ...(place === null ? {} : { place }) };
  history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
}

// -- stored images --------------------------------------------------------------------------------------------------------

async function decode({ uri, columns, count, size: [h, w] }) {
  const picture = new Image();
  picture.src = uri;
  await picture.decode();
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return {
    count, h, w,
    cut: (i, y = 0, x = 0, height = h, width = w) => context.getImageData((i % columns) * w + x, Math.trunc(i / columns) * h + y, width, height),
  };
}

const stored = {}; // "images", and each layer's "ascents"
const pixels = (i) => {
  const { data: raw } = stored.images.cut(i);
  return Float32Array.from({ length: H * W * C }, (_, n) => raw[Math.trunc(n / C) * 4 + (n % C)] / 255);
};
const current = () => own ?? pixels(state.image);

function put(canvas, image) {
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Numbers (h, w) or (h, w, 3) as a picture: `tone` makes 0 to 255 of a number.
function picture(values, h, w, channels, tone) {
  const image = new ImageData(w, h);
  for (let n = 0; n < h * w; n++) {
    for (let k = 0; k < 3; k++) image.data[4 * n + k] = tone(values[n * channels + (channels === 3 ? k : 0)]);
    image.data[4 * n + 3] = 255;
  }
  return image;
}

const percentile = (values, share) => Float64Array.from(values, Math.abs).sort()[Math.floor(share * (values.length - 1))];

// -- the worker -----------------------------------------------------------------------------------------------------------

function serve() {
  let nets = {};
  const traces = {};
  onmessage = ({ data: m }) => {
    if (m.job === "load") {
      nets = { trained: Engine.load(m.layers, m.weights), untrained: Engine.load(m.layers, m.untrained) };
      return;
    }
    const which = m.trained ? "trained" : "untrained";
    const net = nets[which];
    const layer = net.find((l) => l.name === m.layer);
    if (m.job === "ascend") {
      const image = m.image;
      for (let i = 0; i <= m.steps; i++) {
        const score = Engine.ascend(net, image, layer, m.unit, m.rate, 0.02);
        if (i % 5 === 0 || i === m.steps) postMessage({ id: m.id, step: i, of: m.steps, score, image: image.slice() });
      }
      return;
    }
    if (traces[which]?.key !== m.key) traces[which] = { key: m.key, trace: Engine.forward(net, m.image) };
    const { trace } = traces[which];
    if (!trace[m.layer]) {
      postMessage({ id: m.id, missing: true });
      return;
    }
    const below = net[net.indexOf(layer) - 1];
    const last = net.at(-1).name;
    const dy = Engine.seed(trace, layer, m.unit, m.place);
    postMessage({
      id: m.id,
      y: trace[m.layer].y,
      x: below ? trace[below.name].y : m.image,
      logits: trace[last] ? trace[last].y : null,
      projection: Engine.backward(net, trace, dy, m.layer, m.rule, m.unpool),
    });
  };
}

const code = `${one("#engine").textContent}\n(${serve})();`;
const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
worker.postMessage({ job: "load", layers: data.layers, weights: data.weights, untrained: data.untrained });
let asked = 0;
let found = null; // the last answer
worker.onerror = (event) => { one("#layer-about").textContent = `The page cannot compute: ${event.message}`; };
worker.onmessage = ({ data: answer }) => {
  if (answer.id !== asked) return;
  if ("step" in answer) return showAscent(answer);
  found = answer;
  drawAnswer();
};

function look() {
  const key = own ? `own ${changes}` : `stored ${state.image}`;
  const { layer, unit, place, rule, unpool, trained } = state;
  began = performance.now();
  worker.postMessage({ job: "look", id: ++asked, key, image: current(), layer, unit, place, rule, unpool, trained });
}
let began = 0;

// -- drawing --------------------------------------------------------------------------------------------------------------

function drawAnswer() {
  const layer = layerOf(state.layer);
  const missing = Boolean(found.missing);
  one("#untrained-note").textContent = missing ? "The untrained network has its convolutions alone here: choose a layer of maps, or trained." : "";
  one("#maps").hidden = one("#right").hidden = one("#chosen").hidden = missing;
  if (missing) return;
  drawMaps(layer);
  drawScores();
  const limit = percentile(found.projection, 0.995) || 1;
  put(one("#projection"), picture(found.projection, H, W, C, (v) => 127.5 + (127.5 * v) / limit));
  drawImage();
  drawChosen(layer);
  drawPatches(layer);
  drawAscent(layer);
  python();
  document.documentElement.dataset.drawn = String(asked); // tests wait for it
  document.documentElement.dataset.took = String(Math.round(performance.now() - began));
}

const grey = (largest) => (v) => (255 * Math.max(v, 0)) / (largest || 1);

function mapOf(y, layer, unit) {
  const K = mapsOf(layer);
  return Float32Array.from({ length: y.length / K }, (_, n) => y[n * K + unit]);
}

function drawMaps(layer) {
  const box = one("#maps");
  const K = mapsOf(layer);
  box.classList.toggle("units", !isMap(layer));
  if (box.children.length !== K || box.dataset.layer !== layer.name) {
    box.dataset.layer = layer.name;
    box.replaceChildren(...Array.from({ length: K }, (_, k) => {
      const button = element("button", { type: "button" }, element("canvas", { "aria-hidden": "true" }));
      button.addEventListener("click", () => go({ unit: k, place: null }));
      return button;
    }));
  }
  const largest = found.y.reduce((a, b) => Math.max(a, b), 0);
  [...box.children].forEach((button, k) => {
    const strength = isMap(layer) ? mapOf(found.y, layer, k) : [found.y[k]];
    const [h, w] = isMap(layer) ? layer.to : [1, 1];
    const most = isMap(layer) ? strength.reduce((a, b) => Math.max(a, b), 0) : largest;
    put(one("canvas", button), picture(strength, h, w, 1, grey(most)));
    button.setAttribute("aria-pressed", String(k === state.unit));
    button.setAttribute("aria-label", `${nameOf(layer, k)}, ${isMap(layer) ? "largest value" : "value"} ${most_(strength)}`);
  });
}

const most_ = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity).toPrecision(3);
const nameOf = (layer, k) => (layer === layerOf(classLayer.name) ? `class ${data.classes[k]}` : `${isMap(layer) ? "map" : "unit"} ${k}`);

function drawScores() {
  const box = one("#scores");
  const logits = found.logits ?? (!own && state.trained && data.logits ? data.logits[state.image] : null);
  if (!logits) {
    box.replaceChildren();
    one("#named").textContent = state.trained ? "The scores of this image are not known in this page." : "Scores: trained only.";
    return;
  }
  const p = Engine.softmax(logits);
  const best = p.indexOf(Math.max(...p));
  const right = own ? "an image of your own" : `a test image of ${data.classes[data.labels[state.image]]}`;
  one("#named").textContent = `This is ${right}; the network says ${data.classes[best]}, ${Math.round(100 * p[best])} %.`;
  box.replaceChildren(...p.flatMap((share, k) => {
    const bar = element("i");
    bar.style.width = `${100 * share}%`;
    return [element("span", {}, data.classes[k]), bar, element("span", {}, `${Math.round(100 * share)} %`)];
  }));
}

// The place that is asked about: the chosen one, or where the map is largest.
function placeOf(layer) {
  if (!isMap(layer)) return null;
  const map = mapOf(found.y, layer, state.unit);
  return state.place ?? map.indexOf(map.reduce((a, b) => Math.max(a, b), -Infinity));
}

function drawImage() {
  const canvas = one("#image");
  const zoom = Math.ceil(320 / Math.max(H, W));
  const small = new OffscreenCanvas(W, H);
  small.getContext("2d").putImageData(picture(current(), H, W, C, (v) => 255 * v), 0, 0);
  [canvas.width, canvas.height] = [W * zoom, H * zoom];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, W * zoom, H * zoom);
  const layer = layerOf(state.layer);
  if (found && !found.missing && isMap(layer)) {
    const place = placeOf(layer);
    const [r, c] = [Math.trunc(place / layer.to[1]), place % layer.to[1]];
    const { size, stride, offset } = layer.field;
    context.lineWidth = 3;
    for (const [colour, inset] of [["#000000", 0], ["#ffd400", 2]]) {
      context.strokeStyle = colour;
      context.strokeRect((offset[1] + stride[1] * c) * zoom + inset, (offset[0] + stride[0] * r) * zoom + inset, size[1] * zoom - 2 * inset, size[0] * zoom - 2 * inset);
    }
  }
  canvas.setAttribute("aria-label", own ? "Your image" : `Stored image ${state.image}, ${data.classes[data.labels[state.image]]}`);
}

function drawChosen(layer) {
  one("#layer-name").textContent = `${layer.name}: ${layer.type}, ${layer.to.join(" \u00d7 ")}`;
  one("#layer-about").textContent = isMap(layer)
    ? `Each of its ${mapsOf(layer)} maps has ${layer.to[0]} \u00d7 ${layer.to[1]} places; a place sees ${layer.field.size.join(" \u00d7 ")} pixels of the image (the frame).`
    : `${mapsOf(layer)} units, each of which sees the whole image; brighter is larger.`;
  one("#unit-name").textContent = `${layer.name}, ${nameOf(layer, state.unit)}`;
  const canvas = one("#chosen");
  canvas.hidden = !isMap(layer);
  if (!isMap(layer)) {
    one("#sum").textContent = `Its value: ${found.y[state.unit].toPrecision(4)}.`;
    return;
  }
  const [h, w] = layer.to;
  const map = mapOf(found.y, layer, state.unit);
  const zoom = Math.max(1, Math.ceil(280 / w));
  const small = new OffscreenCanvas(w, h);
  small.getContext("2d").putImageData(picture(map, h, w, 1, grey(map.reduce((a, b) => Math.max(a, b), 0))), 0, 0);
  [canvas.width, canvas.height] = [w * zoom, h * zoom];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, w * zoom, h * zoom);
  const place = placeOf(layer);
  context.strokeStyle = "#ffd400";
  context.lineWidth = 2;
  context.strokeRect((place % w) * zoom, Math.trunc(place / w) * zoom, zoom, zoom);
  canvas.setAttribute("aria-label", `${nameOf(layer, state.unit)}, large; the arrow keys move the place that is explained`);
  arithmetic(layer, place);
}

// How one number of a map comes to be.
function arithmetic(layer, place) {
  const [, w, K] = layer.to;
  const [r, c, k] = [Math.trunc(place / w), place % w, state.unit];
  const value = found.y[place * K + k];
  const at = `Row ${r}, column ${c}: `;
  const said = (v) => v.toPrecision(4).replace("-", "\u2212");
  let text = "";
  if (layer.type === "Conv2D") {
    const { w: weights, b } = layerOf(layer.name, state.trained ? layers : untrained).params;
    const [Cin, products] = [layer.from[2], []];
    Engine.window(layer, r, c, (where, pixel) => {
      for (let m = 0; m < Cin; m++) products.push(found.x[pixel * Cin + m] * weights[(where * Cin + m) * K + k]);
    });
    const sum = products.reduce((a, v) => a + v, 0);
    const largest = [...products].sort((a, v) => Math.abs(v) - Math.abs(a)).slice(0, 3).map(said);
    text = `${at}the window times the filter, ${products.length} products (the largest: ${largest.join(", ")}), add up to ${said(sum)}; plus the bias ${said(b[k])} is ${said(sum + b[k])}.`;
  } else if (layer.type === "ReLU") {
    const before = found.x[place * K + k];
    text = `${at}${said(before)} ${before > 0 ? "is above 0 and stays" : "is not above 0 and becomes 0"}.`;
  } else if (layer.type === "AvgPool2D") {
    const seen = [];
    Engine.window(layer, r, c, (_, pixel) => seen.push(found.x[pixel * K + k]));
    const count = layer.whole ? layer.kernel[0] * layer.kernel[1] : seen.length;
    text = `${at}${seen.map(said).join(" + ")}, divided by ${count}, is ${said(value)}.`;
  } else if (["BatchNorm", "Normalize"].includes(layer.type)) {
    const [mean, scale, beta] = Engine.channel(layerOf(layer.name, state.trained ? layers : untrained), k);
    text = `${at}${said(found.x[place * K + k])} less the mean ${said(mean)}, times ${said(scale)}, plus ${said(beta)} is ${said(value)}.`;
  } else {
    const seen = [];
    Engine.window(layer, r, c, (_, pixel) => seen.push([found.x[pixel * K + k], Math.trunc(pixel / layer.from[1]), pixel % layer.from[1]]));
    const best = seen.reduce((a, b) => (b[0] > a[0] ? b : a));
    text = `${at}of ${seen.map(([v]) => said(v)).join(", ")} the largest is ${said(value)}, at row ${best[1]}, column ${best[2]} below; its switch remembers that.`;
  }
  one("#sum").textContent = text;
}

function drawPatches(layer) {
  const top = (state.trained ? data.top : data.top_untrained)[layer.name];
  one("#patches-box").hidden = !top;
  if (!top) return;
  one("#patches-name").textContent = `What excites it most in ${data.images.count} stored images`;
  one("#patches").replaceChildren(...top[state.unit].map(([image, r, c]) => {
    const canvas = element("canvas", { role: "img", "aria-label": `from stored image ${image}, ${data.classes[data.labels[image]]}` });
    if (r === undefined) put(canvas, stored.images.cut(image));
    else {
      const { size, stride, offset } = layer.field;
      const [y, x] = [offset[0] + stride[0] * r, offset[1] + stride[1] * c];
      [canvas.width, canvas.height] = [size[1], size[0]];
      canvas.getContext("2d").putImageData(stored.images.cut(image), -x, -y);
    }
    return canvas;
  }));
}

function drawAscent(layer) {
  const conv = layer.type === "Conv2D" || layer === layerOf(classLayer.name) ? layer : layers[layers.indexOf(layer) - 1];
  const kept = state.trained && layer.type !== "MaxPool2D" && conv && stored.ascents[conv.name];
  one("#ascent").hidden = !kept;
  one("#ascend").hidden = H * W > 1600;
  one("#ascent-said").textContent = kept ? "Made beforehand, by gradient ascent." : state.trained ? "None was made beforehand." : "Stored for the trained network only.";
  if (!kept) return;
  put(one("#ascent"), kept.cut(state.unit));
}

function showAscent({ step, of, score, image }) {
  one("#ascent").hidden = false;
  put(one("#ascent"), picture(image, H, W, C, (v) => 255 * v));
  one("#ascent-said").textContent = `Step ${step} of ${of}: ${isMap(layerOf(state.layer)) ? "the map's sum" : "its value"} is ${score.toPrecision(4)}.`;
  document.documentElement.dataset.step = String(step);
}

function python() {
  const layer = layerOf(state.layer);
  const net = state.trained ? 'net = Network.load("weights.safetensors")' : "net = ...  # the network as it was before training: its seed is in run.json";
  const image = own ? "x = ...  # your image, (1, H, W, C)" : `x = images[${state.image}:${state.image + 1}]  # of those stored here`;
  const dy = state.place === null ? `dy[..., ${state.unit}] = trace["${layer.name}"][..., ${state.unit}]`
    : `at = (0, ${Math.trunc(state.place / layer.to[1])}, ${state.place % layer.to[1]}, ${state.unit})\ndy[at] = trace["${layer.name}"][at]`;
  one("#python").textContent = `import numpy as np\nfrom tinycnn import Network\n\n${net}\n${image}\ntrace = net.forward(x, upto="${layer.name}")\ndy = np.zeros_like(trace["${layer.name}"])\n${dy}\nprojection = net.backward(trace, dy, rule="${state.rule}", unpool="${state.unpool}")`;
}

// -- what one does ---------------------------------------------------------------------------------------------------------

function go(change) {
  if ("layer" in change && change.layer !== state.layer) change = { unit: Math.min(state.unit, mapsOf(layerOf(change.layer)) - 1), place: null, ...change };
  if ("image" in change) own = null;
  Object.assign(state, change);
  show();
}

function show() {
  writeAddress();
  one("#trained").checked = state.trained;
  [one("#rule").value, one("#unpool").value] = [state.rule, state.unpool];
  for (const button of all("#strip button")) button.setAttribute("aria-pressed", String(button.dataset.layer === state.layer));
  all("#thumbs button").forEach((button, i) => button.setAttribute("aria-pressed", String(!own && i === state.image)));
  drawImage();
  look();
}

function change(image) {
  own = image;
  changes++;
  state.place = null;
  show();
}

for (const layer of shownLayers) {
  const button = element("button", { type: "button", "data-layer": layer.name }, layer.name, element("small", {}, `${layer.to.join(" \u00d7 ")}${isMap(layer) ? `, sees ${layer.field.size.join(" \u00d7 ")}` : ""}`));
  button.addEventListener("click", () => go({ layer: layer.name }));
  one("#strip").append(button);
}
for (const [id, names] of [["rule", Object.keys(Engine.RULES)], ["unpool", Engine.UNPOOLS]]) {
  one(`#${id}`).append(...names.map((name) => element("option", {}, name)));
  one(`#${id}`).addEventListener("change", (event) => go({ [id]: event.target.value }));
}
one("#trained").addEventListener("change", (event) => go({ trained: event.target.checked }));
one("#restore").addEventListener("click", () => go({ image: state.image }));
one("#erase").addEventListener("click", () => press("erase"));
one("#blank")?.addEventListener("click", () => {
  change(new Float32Array(H * W * C));
  press("draw");
});

let brush = null; // "draw" or "erase"
function press(kind) {
  brush = brush === kind && kind === "erase" ? null : kind;
  one("#erase").setAttribute("aria-pressed", String(brush === "erase"));
}

const pointed = (event, canvas, h, w) => {
  const box = canvas.getBoundingClientRect();
  return [Math.floor(((event.clientY - box.top) / box.height) * h), Math.floor(((event.clientX - box.left) / box.width) * w)];
};

function paint(event) {
  if (!event.buttons || !brush) return;
  const [row, column] = pointed(event, one("#image"), H, W);
  const [image, radius] = [current().slice(), Math.max(H, W) / (brush === "draw" ? 20 : 10)];
  const value = brush === "draw" ? 1 : C === 1 ? 0 : 0.5;
  for (let r = Math.floor(row - radius); r <= row + radius; r++) for (let c = Math.floor(column - radius); c <= column + radius; c++) {
    const far = Math.hypot(r - row, c - column);
    if (r < 0 || r >= H || c < 0 || c >= W || far > radius) continue;
    for (let k = 0; k < C; k++) {
      const at = (r * W + c) * C + k;
      image[at] = brush === "draw" ? Math.max(image[at], Math.min(1, 1.4 - far / radius)) : value;
    }
  }
  change(image);
}
one("#image").addEventListener("pointerdown", paint);
one("#image").addEventListener("pointermove", paint);

async function bring(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const canvas = new OffscreenCanvas(W, H);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const scale = Math.max(W / bitmap.width, H / bitmap.height); // as tinycnn.data.images: covers, cropped at its centre
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, W, H);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (W - w) / 2, (H - h) / 2, w, h);
    const { data: raw } = context.getImageData(0, 0, W, H);
    const tone = (n, k) => (C === 1 ? (raw[4 * n] * 299 + raw[4 * n + 1] * 587 + raw[4 * n + 2] * 114) / 1000 : raw[4 * n + k]);
    change(Float32Array.from({ length: H * W * C }, (_, i) => tone(Math.trunc(i / C), i % C) / 255));
  } catch {
    one("#named").textContent = `${file.name} is no picture that this browser can open; choose a PNG, JPEG or WebP file.`;
  }
}
one("#file").addEventListener("change", (event) => { if (event.target.files[0]) bring(event.target.files[0]); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) bring(event.dataTransfer.files[0]);
});

one("#chosen").addEventListener("pointermove", (event) => {
  const layer = layerOf(state.layer);
  if (!found || found.missing || !isMap(layer)) return;
  const [r, c] = pointed(event, one("#chosen"), layer.to[0], layer.to[1]);
  if (r >= 0 && c >= 0 && r < layer.to[0] && c < layer.to[1]) arithmetic(layer, r * layer.to[1] + c);
});
one("#chosen").addEventListener("click", (event) => {
  const layer = layerOf(state.layer);
  const [r, c] = pointed(event, one("#chosen"), layer.to[0], layer.to[1]);
  go({ place: r * layer.to[1] + c });
});

one("#ascend").addEventListener("click", () => {
  const image = Float32Array.from({ length: H * W * C }, () => 0.5 + 0.05 * (Math.random() - 0.5));
  worker.postMessage({ job: "ascend", id: ++asked, image, layer: state.layer, unit: state.unit, trained: state.trained, steps: 60, rate: 0.03 });
});

const next = (values, value, step = 1) => values[(values.indexOf(value) + step + values.length) % values.length];
const keys = {
  ArrowRight: () => go({ unit: (state.unit + 1) % mapsOf(layerOf(state.layer)), place: null }),
  ArrowLeft: () => go({ unit: (state.unit + mapsOf(layerOf(state.layer)) - 1) % mapsOf(layerOf(state.layer)), place: null }),
  ArrowDown: () => go({ layer: next(shownLayers.map((l) => l.name), state.layer) }),
  ArrowUp: () => go({ layer: next(shownLayers.map((l) => l.name), state.layer, -1) }),
  r: () => go({ rule: next(Object.keys(Engine.RULES), state.rule) }),
  u: () => go({ unpool: next(Engine.UNPOOLS, state.unpool) }),
  t: () => go({ trained: !state.trained }),
  n: () => go({ image: (state.image + 1) % data.shown }),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const layer = layerOf(state.layer);
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  if (event.target.id === "chosen" && event.key in moves && found && !found.missing) {
    const [h, w] = layer.to;
    const place = placeOf(layer);
    const [r, c] = [Math.trunc(place / w) + moves[event.key][0], (place % w) + moves[event.key][1]];
    event.preventDefault();
    if (r >= 0 && c >= 0 && r < h && c < w) go({ place: r * w + c });
  } else if (event.key in keys) {
    event.preventDefault();
    keys[event.key]();
  }
});
addEventListener("hashchange", () => {
  readAddress();
  own = null;
  show();
});

// -- the tour: what it says was computed when the page was made -------------------------------------------------------------

let stop = -1;
one("#tour-start").addEventListener("click", () => {
  stop = (stop + 1) % data.tour.length;
  const { said, ...view } = data.tour[stop];
  one("#tour-said").hidden = false;
  one("#tour-said").textContent = `${stop + 1} of ${data.tour.length}. ${said}`;
  one("#tour-start").textContent = stop === data.tour.length - 1 ? "The tour once more" : "Next";
  go(view);
});

// -- begin ------------------------------------------------------------------------------------------------------------------

(async () => {
  stored.images = await decode(data.images);
  stored.ascents = {};
  for (const [name, sprite] of Object.entries(data.ascents)) stored.ascents[name] = await decode(sprite);
  for (let i = 0; i < data.shown; i++) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    put(canvas, stored.images.cut(i));
    const button = element("button", { type: "button", "aria-label": `image ${i}, ${data.classes[data.labels[i]]}` }, canvas);
    button.addEventListener("click", () => go({ image: i }));
    one("#thumbs").append(button);
  }
  readAddress();
  show();
})();
