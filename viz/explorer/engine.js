// A trained network in the browser: forward, and back to the pixels by three rules and three ways to unpool.
//
// To be read beside tinycnn/ops/reference.py, which defines the same primitives under the same names for N images; here
// there is one. Arrays are flat and typed: an image is (H, W, C), rows first, channels last; weights of a convolution
// are (kh, kw, C, K), those of a dense layer (in, out). Where windows lie was decided in Python (tinycnn/ops/geometry.py):
// a layer comes with `from` and `to`, the shapes of its input and output, `kernel`, `stride` and `pad`, [top, left].

const Engine = (() => {
  "use strict";

  const size = (shape) => shape.reduce((a, b) => a * b, 1);

  // Call f(place in the kernel, place in the image) for each pixel of the window at row r, column c of the output.
  function window(layer, r, c, f) {
    const { from: [H, W], kernel: [kh, kw], stride, pad } = layer;
    const [top, left] = [r * stride[0] - pad[0], c * stride[1] - pad[1]];
    for (let i = Math.max(0, -top); i < kh && top + i < H; i++) {
      for (let j = Math.max(0, -left); j < kw && left + j < W; j++) f(i * kw + j, (top + i) * W + left + j);
    }
  }

  // -- convolution: y[r, c, k] = b[k] + sum over the window and its channels of x * w[., k] ----------------------------

  function conv2d(x, { w, b }, layer) {
    const { from: [, , C], to: [OH, OW, K], kernel: [kh, kw] } = layer;
    const y = new x.constructor(OH * OW * K);
    const [values, rows] = [new Float64Array(kh * kw * C + 3), new Int32Array(kh * kw * C + 3)];
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const at = (r * OW + c) * K;
      let count = 0; // of the window's values that are not 0: behind a ReLU, and on a black background, most are
      window(layer, r, c, (place, pixel) => {
        for (let m = 0; m < C; m++) {
          const value = x[pixel * C + m];
          if (value === 0) continue;
          values[count] = value;
          rows[count++] = (place * C + m) * K;
        }
      });
      values.fill(0, count, count + 3);
      y.set(b, at);
      for (let n = 0; n < count; n += 4) { // four at a time: y is read and written once for four products
        const [v0, v1, v2, v3] = [values[n], values[n + 1], values[n + 2], values[n + 3]];
        const [w0, w1, w2, w3] = [rows[n], rows[n + 1], rows[n + 2], rows[n + 3]];
        for (let k = 0; k < K; k++) y[at + k] += v0 * w[w0 + k] + v1 * w[w1 + k] + v2 * w[w2 + k] + v3 * w[w3 + k];
      }
    }
    return y;
  }

  // Its adjoint: dx[pixel, m] is the sum over all windows that saw the pixel of dy[., k] * w[., m, k].
  function conv2dBackwardData(dy, { w }, layer) {
    const { from: [H, W, C], to: [OH, OW, K] } = layer;
    const dx = new dy.constructor(H * W * C);
    const [maps, values] = [new Int32Array(K), new dy.constructor(K)];
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const at = (r * OW + c) * K;
      let count = 0; // a pool sends each signal to one place: most are 0
      for (let k = 0; k < K; k++) {
        if (dy[at + k] !== 0) {
          maps[count] = k;
          values[count++] = dy[at + k];
        }
      }
      if (count === 0) continue;
      window(layer, r, c, (place, pixel) => {
        for (let m = 0; m < C; m++) {
          const first = (place * C + m) * K;
          let sum = 0;
          for (let n = 0; n < count; n++) sum += values[n] * w[first + maps[n]];
          dx[pixel * C + m] += sum;
        }
      });
    }
    return dx;
  }

  // -- pooling ---------------------------------------------------------------------------------------------------------

  // The maxima, and where they were: the place in its window of the FIRST maximum. Padding never wins.
  function maxpool2d(x, layer) {
    const { from: [, , C], to: [OH, OW] } = layer;
    const y = new x.constructor(OH * OW * C).fill(-Infinity);
    const switches = new Uint8Array(y.length);
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const at = (r * OW + c) * C;
      window(layer, r, c, (place, pixel) => {
        for (let k = 0; k < C; k++) {
          const value = x[pixel * C + k];
          if (value > y[at + k]) {
            y[at + k] = value;
            switches[at + k] = place;
          }
        }
      });
    }
    return { y, switches };
  }

  // Each value goes back to its window: by "switches" to the place of the maximum, by "repeat" to every pixel of its
  // block (stride x stride pixels from where the window starts), by "center" to the middle of the window.
  function unpool2d(dy, switches, layer, how) {
    const { from: [H, W, C], to: [OH, OW], kernel: [kh, kw], stride: [sh, sw], pad } = layer;
    const dx = new dy.constructor(H * W * C);
    const inside = (value, n) => Math.min(Math.max(value, 0), n - 1);
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const [top, left, at] = [r * sh - pad[0], c * sw - pad[1], (r * OW + c) * C];
      if (how === "repeat") {
        for (let i = Math.max(top, 0); i < Math.min(top + sh, H); i++) {
          for (let j = Math.max(left, 0); j < Math.min(left + sw, W); j++) {
            for (let k = 0; k < C; k++) dx[(i * W + j) * C + k] = dy[at + k];
          }
        }
        continue;
      }
      const middle = inside(top + ((kh - 1) >> 1), H) * W + inside(left + ((kw - 1) >> 1), W);
      for (let k = 0; k < C; k++) {
        const place = switches[at + k];
        const pixel = how === "center" ? middle : (top + Math.trunc(place / kw)) * W + left + (place % kw);
        dx[pixel * C + k] += dy[at + k];
      }
    }
    return dx;
  }

  // The means over windows; `whole`: padding counts as zeros, else the pixels of the image alone.
  function avgpool2d(x, layer) {
    const { from: [, , C], to: [OH, OW], kernel: [kh, kw], whole } = layer;
    const y = new x.constructor(OH * OW * C);
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const at = (r * OW + c) * C;
      let count = 0;
      window(layer, r, c, (_, pixel) => {
        count++;
        for (let k = 0; k < C; k++) y[at + k] += x[pixel * C + k];
      });
      for (let k = 0; k < C; k++) y[at + k] /= whole ? kh * kw : count;
    }
    return y;
  }

  // Its adjoint: an equal share for each pixel of a window.
  function avgpool2dBackward(dy, layer) {
    const { from: [H, W, C], to: [OH, OW], kernel: [kh, kw], whole } = layer;
    const dx = new dy.constructor(H * W * C);
    for (let r = 0; r < OH; r++) for (let c = 0; c < OW; c++) {
      const pixels = [];
      window(layer, r, c, (_, pixel) => pixels.push(pixel));
      for (const pixel of pixels) {
        for (let k = 0; k < C; k++) dx[pixel * C + k] += dy[(r * OW + c) * C + k] / (whole ? kh * kw : pixels.length);
      }
    }
    return dx;
  }

  const everywhere = (layer) => ({ ...layer, to: [1, 1], kernel: layer.from, stride: [1, 1], pad: [0, 0] });

  // -- the others ------------------------------------------------------------------------------------------------------

  const relu = (x) => x.map((value) => Math.max(value, 0));

  // mask: keep a signal where the ReLU was on; rectify: keep it where it is positive itself.
  const reluBackward = (dy, y, { mask, rectify }) =>
    dy.map((value, i) => ((!mask || y[i] > 0) && (!rectify || value > 0) ? value : 0));

  // A channel's mean, what its differences from that are multiplied by, and what is added: of a BatchNorm or Normalize.
  function channel({ params, mean, std, epsilon }, k) {
    const of = (a) => a[k % a.length];
    if (!params) return [of(mean), 1 / of(std), 0];
    return [of(params.mean), of(params.gamma) / Math.sqrt(of(params.variance) + epsilon), of(params.beta)];
  }

  function normalize(x, layer) {
    const each = Array.from({ length: layer.to.at(-1) }, (_, k) => channel(layer, k));
    return x.map((value, i) => {
      const [mean, scale, beta] = each[i % each.length];
      return (value - mean) * scale + beta;
    });
  }

  function normalizeBackward(dy, layer) {
    const each = Array.from({ length: layer.to.at(-1) }, (_, k) => channel(layer, k)[1]);
    return dy.map((value, i) => value * each[i % each.length]);
  }

  function dense(x, { w, b }, { to: [K] }) {
    const y = new x.constructor(b);
    for (let i = 0; i < x.length; i++) {
      if (x[i] === 0) continue;
      for (let k = 0; k < K; k++) y[k] += x[i] * w[i * K + k];
    }
    return y;
  }

  function denseBackwardData(dy, { w }, { from: [I], to: [K] }) {
    const dx = new dy.constructor(I);
    for (let i = 0; i < I; i++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += dy[k] * w[i * K + k];
      dx[i] = sum;
    }
    return dx;
  }

  // -- one walk forward, one back --------------------------------------------------------------------------------------

  const RULES = {
    gradient: { mask: true, rectify: false },
    deconvnet: { mask: false, rectify: true },
    guided: { mask: true, rectify: true },
  };
  const UNPOOLS = ["switches", "repeat", "center"];

  const FORWARD = {
    Conv2D: (x, layer) => ({ y: conv2d(x, layer.params, layer) }),
    MaxPool2D: (x, layer) => maxpool2d(x, layer),
    AvgPool2D: (x, layer) => ({ y: avgpool2d(x, layer) }),
    GlobalAvgPool2D: (x, layer) => ({ y: avgpool2d(x, everywhere(layer)) }),
    BatchNorm: (x, layer) => ({ y: normalize(x, layer) }),
    Normalize: (x, layer) => ({ y: normalize(x, layer) }),
    ReLU: (x) => ({ y: relu(x) }),
    Dense: (x, layer) => ({ y: dense(x, layer.params, layer) }),
    Flatten: (x) => ({ y: x }),
    Dropout: (x) => ({ y: x }),
  };
  const BACKWARD = {
    Conv2D: (dy, layer) => conv2dBackwardData(dy, layer.params, layer),
    MaxPool2D: (dy, layer, cache, rule, unpool) => unpool2d(dy, cache.switches, layer, unpool),
    AvgPool2D: (dy, layer) => avgpool2dBackward(dy, layer),
    GlobalAvgPool2D: (dy, layer) => avgpool2dBackward(dy, everywhere(layer)),
    BatchNorm: (dy, layer) => normalizeBackward(dy, layer),
    Normalize: (dy, layer) => normalizeBackward(dy, layer),
    ReLU: (dy, layer, cache, rule) => reluBackward(dy, cache.y, rule),
    Dense: (dy, layer) => denseBackwardData(dy, layer.params, layer),
    Flatten: (dy) => dy,
    Dropout: (dy) => dy,
  };

  // The output of every layer up to `upto` (default: all that have weights), {name: {y, switches}}. What `known` has
  // already is not computed again.
  function forward(layers, image, upto, known = {}) {
    const trace = {};
    let x = image;
    for (const layer of layers) {
      if (["Conv2D", "Dense", "BatchNorm"].includes(layer.type) && !layer.params) break; // its weights stayed at home
      trace[layer.name] = known[layer.name] ?? FORWARD[layer.type](x, layer);
      x = trace[layer.name].y;
      if (layer.name === upto) break;
    }
    return trace;
  }

  // Send a signal dy from the output of layer `at` back to the pixels.
  function backward(layers, trace, dy, at, rule, unpool = "switches") {
    const last = layers.findIndex((layer) => layer.name === at);
    for (const layer of layers.slice(0, last + 1).reverse()) {
      dy = BACKWARD[layer.type](dy, layer, trace[layer.name], RULES[rule], unpool);
    }
    return dy;
  }

  // A signal at one map or unit: its activations (a projection), or, with ones, the gradient of their sum. `place`, a
  // row times the width plus a column, keeps one of a map.
  function seed(trace, layer, unit, place = null, ones = false) {
    const { y } = trace[layer.name];
    const K = layer.to.at(-1);
    return y.map((value, i) => (i % K === unit && (place === null || Math.trunc(i / K) === place) ? (ones ? 1 : value) : 0));
  }

  // Probabilities of logits.
  function softmax(logits) {
    const largest = Math.max(...logits);
    const e = Array.from(logits, (value) => Math.exp(value - largest));
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map((value) => value / sum);
  }

  // One step of gradient ascent on an image, in place: as large in the mean square as `rate`, then decay, then [0, 1].
  // Returns the score before it.
  function ascend(layers, image, layer, unit, rate, decay) {
    const trace = forward(layers, image, layer.name);
    const gradient = backward(layers, trace, seed(trace, layer, unit, null, true), layer.name, "gradient");
    const length = Math.sqrt(gradient.reduce((a, g) => a + g * g, 0) / gradient.length);
    const K = layer.to.at(-1);
    const score = trace[layer.name].y.reduce((a, value, i) => (i % K === unit ? a + value : a), 0);
    for (let i = 0; i < image.length; i++) {
      const moved = image[i] + (length > 0 ? (rate * gradient[i]) / length : 0);
      image[i] = Math.min(Math.max(0.5 + (moved - 0.5) * (1 - decay), 0), 1);
    }
    return score;
  }

  // -- numbers as they are kept in the page ------------------------------------------------------------------------------

  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  // Half-precision numbers (IEEE 754 binary16), little-endian, as float32.
  function halves(raw) {
    const [bits, found] = [new Uint16Array(raw.buffer), new Float32Array(raw.length / 2)];
    for (let i = 0; i < bits.length; i++) {
      const [sign, exponent, fraction] = [bits[i] >> 15 ? -1 : 1, (bits[i] >> 10) & 31, bits[i] & 1023];
      found[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (fraction / 1024) * 2 ** -14);
    }
    return found;
  }

  // Layers with their weights, {"w": ..., "b": ...} each; `kinds` says of what numbers they are kept.
  function load(layers, weights, Real = Float32Array) {
    const decode = { float16: halves, float32: (raw) => new Float32Array(raw.buffer), float64: (raw) => new Float64Array(raw.buffer) };
    return layers.map((layer) => {
      const own = weights[layer.name];
      if (!own) return layer;
      const params = Object.fromEntries(Object.entries(own).map(([name, { kind, data }]) => [name, new Real(decode[kind](bytes(data)))]));
      return { ...layer, params };
    });
  }

  return { RULES, UNPOOLS, size, window, channel, forward, backward, seed, softmax, ascend, bytes, halves, load };
})();
