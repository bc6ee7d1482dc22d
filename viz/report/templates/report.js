"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// Colours: the system's, or one's choice, which the browser keeps where it may; the head of the page reads it.
const theme = one(".theme");
theme.hidden = false;
one("select", theme).value = document.documentElement.dataset.theme ?? "";
one("select", theme).addEventListener("change", (event) => {
  document.documentElement.dataset.theme = event.target.value;
  try { localStorage.setItem("tinycnn-theme", event.target.value); } catch { /* then it holds until the page is left */ }
});

// Contents: on a phone they start closed, and close after a choice; the section in view is marked.
const contents = one("nav details");
const phone = matchMedia("(max-width: 40rem)");
contents.open = !phone.matches;
if (phone.matches) for (const details of all("figcaption details")) details.open = false;
contents.addEventListener("click", (event) => { if (phone.matches && event.target.matches("a")) contents.open = false; });
const links = new Map(all("a", contents).map((link) => [link.hash.slice(1), link]));
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) links.get(target.id).setAttribute("aria-current", "true");
    else links.get(target.id).removeAttribute("aria-current");
  }
}, { rootMargin: "-30% 0px -60% 0px" });
for (const id of links.keys()) inView.observe(document.getElementById(id));

// A figure opens large in a dialog, which brings its own keyboard handling: Escape closes, the focus returns.
const dialog = one("dialog");
const zooms = all(".zoom");
let shown = 0;
function enlarge(i) {
  shown = (i + zooms.length) % zooms.length;
  const figure = zooms[shown].closest("figure");
  const { src, alt } = one(".picture", figure);
  const image = element("img", { src, alt });
  const plot = one(".plot", figure);
  one("#large-title").textContent = figure.dataset.title;
  one(".large").replaceChildren(plot ? element("div", { class: "plot" }, image) : image);
  if (plot) scatter(one(".large .plot"), sprite(plot), figure.dataset.title);
  one(".said").replaceChildren(...all("figcaption > :not(.tools)", figure).map((part) => part.cloneNode(true)));
  for (const link of all(".said .anchor")) link.remove();
  for (const details of all(".said details")) details.open = false;
  for (const box of all(".large, .said")) box.scrollTo(0, 0);
  if (!dialog.open) {
    dialog.showModal();
    one("[data-step='0']", dialog).focus();
  }
}
zooms.forEach((button, i) => button.addEventListener("click", () => enlarge(i)));
dialog.addEventListener("click", (event) => {
  const step = Number(event.target.dataset.step ?? 0);
  if (step) enlarge(shown + step);
  else if (event.target === dialog || "step" in event.target.dataset) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !event.target.matches(".large, .large *")) enlarge(shown + step);
});

// Figures of one group lie under tabs: https://www.w3.org/WAI/ARIA/apg/patterns/tabs/
for (const group of all(".group")) {
  const figures = all("figure", group);
  if (figures.length < 2) continue;
  const tabs = figures.map((figure) => element("button", { type: "button", role: "tab", "aria-controls": figure.id }, figure.dataset.tab));
  const show = (chosen) => figures.forEach((figure, i) => {
    tabs[i].setAttribute("aria-selected", i === chosen);
    tabs[i].tabIndex = i === chosen ? 0 : -1;
    figure.hidden = i !== chosen;
  });
  tabs.forEach((tab, i) => {
    tab.id = `${figures[i].id}-tab`;
    figures[i].setAttribute("role", "tabpanel");
    figures[i].setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => show(i));
    tab.addEventListener("keydown", (event) => {
      const last = tabs.length - 1;
      const to = { ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
      tabs[to].focus();
    });
  });
  figures.forEach((figure, i) => figure.addEventListener("reveal", () => show(i)));
  group.prepend(element("div", { role: "tablist", "aria-label": group.getAttribute("aria-label") }, ...tabs));
  show(0);
}

// A link to what is hidden, under a tab or folded away, brings it to light.
function reveal() {
  const target = all("[id]").find(({ id }) => new URL(`#${id}`, location).hash === location.hash);
  if (!target) return;
  for (let part = target; part; part = part.parentElement) {
    if (part.matches("details")) part.open = true;
    if (part.matches("[role=tabpanel]")) part.dispatchEvent(new Event("reveal"));
  }
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {  // to the place where one is already
  if (event.target.closest("a")?.hash === location.hash && location.hash) reveal();
});
reveal();

// Many images lie in one file, in cells; this returns a function that draws image i, or its part from x = from to x = to.
function sprite(root) {
  const data = JSON.parse(one("script[type='application/json']", root).textContent);
  const sheet = one(".sprite", root);
  const { columns, cell: [W, H], size: [w, h] } = data.sprite;
  const draw = (canvas, i, from = 0, to = 1) => {
    const context = canvas.getContext("2d");
    const x = Math.round(from * canvas.width), width = Math.round(to * canvas.width) - x;
    context.imageSmoothingEnabled = false;
    context.drawImage(sheet, (i % columns) * W + (x / canvas.width) * w, Math.floor(i / columns) * H,
      (width / canvas.width) * w, h, x, 0, width, canvas.height);
  };
  const fit = (canvas, least) => {  // a pixel of the image is a whole square
    const zoom = Math.ceil(least / w);
    canvas.width = zoom * w;
    canvas.height = zoom * h;
  };
  return { data, draw, fit, ready: sheet.decode() };
}

// A scatter shows the image at the mark nearest to the pointer; arrow keys step to the nearest mark that way.
function scatter(plot, { data, draw, fit }, title) {
  const { places, classes, names } = data;
  const ring = element("div", { class: "ring", hidden: "" });
  const canvas = element("canvas", { "aria-hidden": "true" });
  const label = element("output");
  const tip = element("div", { class: "tip", hidden: "" }, canvas, label);
  let at = -1;
  fit(canvas, 96);
  plot.append(ring, tip);
  plot.tabIndex = 0;
  plot.setAttribute("role", "application");
  plot.setAttribute("aria-roledescription", "scatter of images");
  plot.setAttribute("aria-label", `${title}: arrow keys step to the nearest image, Page Up and Page Down through all ${places.length}`);
  const show = (i) => {
    at = i;
    const [x, y] = places[i];
    for (const box of [ring, tip]) {
      box.hidden = false;
      box.style.left = `${100 * x}%`;
      box.style.top = `${100 * y}%`;
    }
    tip.style.translate = `${x > 0.5 ? "calc(-100% - .8rem)" : ".8rem"} ${y > 0.5 ? "calc(-100% - .8rem)" : ".8rem"}`;
    draw(canvas, i);
    label.textContent = names[classes[i]];
  };
  const hide = () => { ring.hidden = tip.hidden = true; };
  const nearest = (distance) => {
    const far = places.map(distance);
    const i = far.indexOf(Math.min(...far));
    return far[i] < Infinity ? i : at;
  };
  const ratio = () => plot.clientHeight / plot.clientWidth;
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    const [px, py] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    show(nearest(([x, y]) => Math.hypot(x - px, (y - py) * ratio())));
  };
  const step = (dx, dy) => nearest(([x, y]) => {
    const [u, v] = [x - places[at][0], (y - places[at][1]) * ratio()];
    const ahead = u * dx + v * dy;
    return ahead > 0 && ahead >= Math.abs(u * dy + v * dx) ? Math.hypot(u, v) : Infinity;
  });
  const N = places.length;
  const keys = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    PageUp: () => (at + N - 1) % N, PageDown: () => (at + 1) % N, Home: () => 0, End: () => N - 1,
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(Math.max(at, 0)); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    show(at < 0 ? 0 : keys[event.key]());
  });
}
for (const linked of all(".linked")) one(".tools", linked.closest("figure")).hidden = false;
for (const plot of all("figure .plot")) {
  const images = sprite(plot);
  const figure = plot.closest("figure");
  images.ready.then(() => {
    one(".tools", figure).hidden = false;
    scatter(plot, images, figure.dataset.title);
  });
}

// A table of numbers is put in the order of a column by its head: falling, then rising, then as it was; dashes stay last.
for (const table of all(".numbers table")) {
  const [heads, body] = [all("thead th", table), one("tbody", table)];
  const rows = all("tr", body);
  if (!heads.length || rows.length < 3) continue;
  const value = (row, i) => {
    const text = row.cells[i + 1].textContent.trim().replaceAll(",", "");
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? (text.startsWith("\u2013") ? "" : text) : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  heads.forEach((head, i) => {
    const button = element("button", { type: "button", class: "order" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const order = { descending: "ascending", ascending: "none" }[head.ariaSort] ?? "descending";
      for (const other of heads) other.ariaSort = other === head ? order : "none";
      const sign = order === "descending" ? -1 : 1;
      const [known, none] = [rows.filter((row) => value(row, i) !== ""), rows.filter((row) => value(row, i) === "")];
      const sorted = known.sort((a, b) => sign * compare(value(a, i), value(b, i)));
      body.replaceChildren(...(order === "none" ? rows : [...sorted, ...none]));
    });
  });
}

// Two methods on one image, a border between them to drag.
for (const box of all(".compare")) {
  const { data, draw, fit, ready } = sprite(box);
  const N = data.labels.length;
  const canvas = one("canvas", box);
  const [left, right] = all("select", box);
  const border = one("input[type=range]", box);
  const images = all("input[type=radio]", box);
  fit(canvas, 320);
  const update = () => {
    const i = images.findIndex((image) => image.checked);
    const [a, b] = [Number(left.value), Number(right.value)];
    const x = border.value / 100;
    draw(canvas, a * N + i, 0, x);
    draw(canvas, b * N + i, x, 1);
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(x * canvas.width - 1, 0, 2, canvas.height);
    canvas.setAttribute("aria-label", `${data.labels[i]}: ${data.methods[a]} up to ${border.value} % of the width, ${data.methods[b]} from there`);
  };
  const drag = (event) => {
    if (!event.buttons) return;
    const { left: start, width } = canvas.getBoundingClientRect();
    border.value = 100 * (event.clientX - start) / width;
    update();
  };
  ready.then(() => {
    box.hidden = false;
    images.forEach((image, i) => {
      const small = one("canvas", image.parentElement);
      fit(small, 48);
      draw(small, i);
    });
    box.addEventListener("input", update);
    canvas.addEventListener("pointerdown", drag);
    canvas.addEventListener("pointermove", drag);
    update();
  });
}
