"""The primitives on a CPU: Numba kernels that index and compute, and BLAS for the matrix products.

A convolution never builds im2col for a whole batch: a few image rows at a time, so that the tile of cols stays in cache
between being written and being multiplied.

Deterministic: work is cut into PARTS fixed pieces whatever the number of threads, sums over images are added up piece by
piece in a fixed order, and every element of an output has one owner.
"""

import numba
import numpy as np
from numba import njit, prange

from . import reference
from .blas import gemm, gemm_nt, gemm_tn, single_threaded
from .geometry import windows

PARTS = 8
TILE = 1 << 16  # elements of cols that a tile may have: 256 kB of float32, half of a usual L2 cache


class Ops(reference.Ops):
    """See `tinycnn.ops.reference.Ops`: the same contract, fast."""

    name = "cpu"

    def conv2d(self, x, w, b, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = w.shape
        OH, OW, top, left = windows(x.shape[1:], (kh, kw), stride, padding)
        y = np.empty((len(x), OH, OW, K), x.dtype)
        rows = min(OH, max(1, TILE // (OW * kh * kw * C)))
        with single_threaded():
            _conv2d(x, w.reshape(-1, K), b, y, kh, kw, *stride, top, left, rows)
        return y

    def conv2d_backward_data(self, dy, w, shape, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = w.shape
        _, _, top, left = windows(shape[1:], (kh, kw), stride, padding)
        dx = np.empty(shape, dy.dtype)
        bands = -(-PARTS // max(len(dy), 1))  # a batch smaller than PARTS is cut further, by image rows
        with single_threaded():
            _conv2d_backward_data(dy, w.reshape(-1, K), dx, kh, kw, *stride, top, left, bands)
        return dx

    def conv2d_backward_weights(self, x, dy, shape, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = shape
        OH, OW, top, left = windows(x.shape[1:], (kh, kw), stride, padding)
        rows = min(OH, max(1, TILE // (OW * kh * kw * C)))
        dws, dbs = np.zeros((PARTS, kh * kw * C, K), dy.dtype), np.zeros((PARTS, K), dy.dtype)
        with single_threaded():
            _conv2d_backward_weights(x, dy, dws, dbs, kh, kw, *stride, top, left, rows)
        return dws.sum(0).reshape(shape), dbs.sum(0)

    def maxpool2d(self, x, window, stride, padding="SAME"):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        y = np.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        switches = np.empty(y.shape, np.uint8)
        _maxpool2d(x, y, switches, *window, *stride, top, left)
        return y, switches

    def unpool2d(self, dy, switches, shape, window, stride, padding="SAME", how="switches"):
        _, _, top, left = windows(shape[1:], window, stride, padding)
        dx = np.empty(shape, dy.dtype)
        if how == "repeat":
            _unpool2d_repeat(dy, dx, *stride, top, left)
        elif how == "center":
            _unpool2d_center(dy, dx, *window, *stride, top, left)
        else:
            _unpool2d(dy, switches, dx, *window, *stride, top, left)
        return dx

    def relu(self, x):
        y = np.empty_like(x)
        _relu(x.reshape(-1), y.reshape(-1))
        return y

    def relu_backward(self, dy, y, mask=True, rectify=False):
        dx = np.empty_like(dy)
        _relu_backward(dy.reshape(-1), y.reshape(-1), dx.reshape(-1), mask, rectify)
        return dx

    def dense(self, x, w, b):
        y = np.empty((len(x), w.shape[1]), x.dtype)
        partial = np.empty((PARTS, *y.shape), x.dtype)
        with single_threaded():
            _dense(x, w, b, y, partial)
        return y

    def dense_backward_data(self, dy, w):
        dx = np.empty((len(dy), len(w)), dy.dtype)
        with single_threaded():
            _dense_backward_data(dy, w, dx)
        return dx

    def dense_backward_weights(self, x, dy):
        dw = np.empty((x.shape[1], dy.shape[1]), dy.dtype)
        with single_threaded():
            _dense_backward_weights(x, dy, dw)
        return dw, dy.sum(0)

    def adam_step(self, p, g, m, v, lr, beta1, beta2, eps, t):
        constants = (lr / (1 - beta1**t), 1 - beta1, 1 - beta2, 1 / (1 - beta2**t), eps)
        _adam_step(p.reshape(-1), g.reshape(-1), m.reshape(-1), v.reshape(-1), *map(self.dtype.type, constants))

    def sgd_step(self, p, g, v, lr, momentum):
        _sgd_step(p.reshape(-1), g.reshape(-1), v.reshape(-1), self.dtype.type(lr), self.dtype.type(momentum))


# -- convolution -----------------------------------------------------------------------------------------------------


@njit
def im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols):
    """Rows r0 to r1 of output pixels of image n -> cols ((r1 - r0)*OW, kh*kw*C)."""
    H, W, C = x.shape[1:]
    flat = x.reshape(-1)
    for r in range(r0, r1):
        for i in range(kh):
            h = r * sh - top + i
            for c in range(OW):
                row = cols[(r - r0) * OW + c]
                o = i * kw * C
                v = c * sw - left
                if h < 0 or h >= H:
                    for q in range(kw * C):
                        row[o + q] = 0
                elif v >= 0 and v + kw <= W:
                    src = ((n * H + h) * W + v) * C
                    for q in range(kw * C):
                        row[o + q] = flat[src + q]
                else:
                    for j in range(kw):
                        inside = 0 <= v + j < W
                        for a in range(C):
                            row[o + j * C + a] = x[n, h, v + j, a] if inside else 0


@njit(parallel=True, cache=True)
def _conv2d(x, w, b, y, kh, kw, sh, sw, top, left, rows):
    N, OH, OW, K = y.shape
    bands = (OH + rows - 1) // rows
    pixels = y.reshape(-1, K)
    for part in prange(PARTS):
        cols = np.empty((rows * OW, len(w)), x.dtype)
        for item in range(N * bands * part // PARTS, N * bands * (part + 1) // PARTS):
            n, r0 = item // bands, item % bands * rows
            r1 = min(r0 + rows, OH)
            im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
            out = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW]
            for q in range(len(out)):
                out[q] = b
            gemm(cols[: len(out)], w, 1, out)


@njit(parallel=True, cache=True)
def _conv2d_backward_data(dy, w, dx, kh, kw, sh, sw, top, left, bands):
    N, OH, OW, K = dy.shape
    H, W, C = dx.shape[1:]
    pixels = dy.reshape(-1, K)
    for part in prange(PARTS):
        dcols = np.empty((OW, len(w)), dy.dtype)
        for item in range(N * bands * part // PARTS, N * bands * (part + 1) // PARTS):
            n, band = item // bands, item % bands
            h0, h1 = H * band // bands, H * (band + 1) // bands  # the rows of dx that this item owns
            dx[n, h0:h1] = 0
            for r in range(max(0, (h0 + top - kh + sh) // sh), min(OH, (h1 - 1 + top) // sh + 1)):
                gemm_nt(pixels[(n * OH + r) * OW : (n * OH + r + 1) * OW], w, 0, dcols)
                for i in range(kh):
                    h = r * sh - top + i
                    if h0 <= h < h1:
                        for c in range(OW):
                            for j in range(max(0, left - c * sw), min(kw, W + left - c * sw)):
                                o = (i * kw + j) * C
                                for a in range(C):
                                    dx[n, h, c * sw - left + j, a] += dcols[c, o + a]


@njit(parallel=True, cache=True)
def _conv2d_backward_weights(x, dy, dws, dbs, kh, kw, sh, sw, top, left, rows):
    N, OH, OW, K = dy.shape
    bands = (OH + rows - 1) // rows
    pixels = dy.reshape(-1, K)
    for part in prange(PARTS):
        cols = np.empty((rows * OW, dws.shape[1]), x.dtype)
        for item in range(N * bands * part // PARTS, N * bands * (part + 1) // PARTS):
            n, r0 = item // bands, item % bands * rows
            r1 = min(r0 + rows, OH)
            im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
            signal = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW]
            gemm_tn(cols[: len(signal)], signal, 1, dws[part])
            for q in range(len(signal)):
                for k in range(K):
                    dbs[part, k] += signal[q, k]


# -- pooling ---------------------------------------------------------------------------------------------------------


@njit
def pool_row(x, n, r, y, switches, m, kh, kw, sh, sw, top, left):
    """Row r of the pooled map m of y from image n of x; the first maximum wins, padding never."""
    H, W, C = x.shape[1:]
    i0, i1 = max(0, top - r * sh), min(kh, H + top - r * sh)
    for c in range(y.shape[2]):
        j0, j1 = max(0, left - c * sw), min(kw, W + left - c * sw)
        best, switch = y[m, r, c], switches[m, r, c]
        for k in range(C):
            best[k] = x[n, r * sh - top + i0, c * sw - left + j0, k]
            switch[k] = i0 * kw + j0
        for i in range(i0, i1):
            for j in range(j0, j1):
                value = x[n, r * sh - top + i, c * sw - left + j]
                here = np.uint8(i * kw + j)
                for k in range(C):
                    larger = value[k] > best[k]
                    best[k] = value[k] if larger else best[k]
                    switch[k] = here if larger else switch[k]


@njit(parallel=True, cache=True)
def _maxpool2d(x, y, switches, kh, kw, sh, sw, top, left):
    N, OH = y.shape[:2]
    for row in prange(N * OH):
        pool_row(x, row // OH, row % OH, y, switches, row // OH, kh, kw, sh, sw, top, left)


@njit(parallel=True, cache=True)
def _unpool2d(dy, switches, dx, kh, kw, sh, sw, top, left):
    """A pixel collects from every window that covers it and whose switch names it."""
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    for row in prange(N * H):
        n, h = row // H, row % H
        for v in range(W):
            out = dx[n, h, v]
            for k in range(C):
                out[k] = 0
            for r in range(max(0, (h + top - kh + sh) // sh), min(OH, (h + top) // sh + 1)):
                for c in range(max(0, (v + left - kw + sw) // sw), min(OW, (v + left) // sw + 1)):
                    here = np.uint8((h + top - r * sh) * kw + v + left - c * sw)
                    signal, switch = dy[n, r, c], switches[n, r, c]
                    for k in range(C):
                        out[k] += signal[k] if switch[k] == here else 0


@njit(parallel=True, cache=True)
def _unpool2d_repeat(dy, dx, sh, sw, top, left):
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    for row in prange(N * H):
        n, h = row // H, row % H
        r = (h + top) // sh
        for v in range(W):
            c = (v + left) // sw
            inside = r < OH and c < OW
            for k in range(C):
                dx[n, h, v, k] = dy[n, r, c, k] if inside else 0


@njit(parallel=True, cache=True)
def _unpool2d_center(dy, dx, kh, kw, sh, sw, top, left):
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    for n in prange(N):
        dx[n] = 0
        for r in range(OH):
            h = min(max(r * sh - top + (kh - 1) // 2, 0), H - 1)
            for c in range(OW):
                v = min(max(c * sw - left + (kw - 1) // 2, 0), W - 1)
                for k in range(C):
                    dx[n, h, v, k] += dy[n, r, c, k]


# -- elementwise -----------------------------------------------------------------------------------------------------


@njit(parallel=True, cache=True)
def _relu(x, y):
    for i in prange(len(x)):
        y[i] = x[i] if x[i] > 0 else 0


@njit(parallel=True, cache=True)
def _relu_backward(dy, y, dx, mask, rectify):
    for i in prange(len(dy)):
        keep = (y[i] > 0 or not mask) and (dy[i] > 0 or not rectify)
        dx[i] = dy[i] if keep else 0


# -- dense -----------------------------------------------------------------------------------------------------------


@njit(parallel=True, cache=True)
def _dense(x, w, b, y, partial):
    """The sum over inputs is cut into PARTS, so that each weight is read once, by one thread."""
    D = len(w)
    for part in prange(PARTS):
        d0, d1 = D * part // PARTS, D * (part + 1) // PARTS
        if d0 < d1:
            gemm(x[:, d0:d1], w[d0:d1], 0, partial[part])
        else:
            partial[part] = 0
    for n in range(len(y)):
        y[n] = b
        for part in range(PARTS):
            for k in range(len(b)):
                y[n, k] += partial[part, n, k]


@njit(parallel=True, cache=True)
def _dense_backward_data(dy, w, dx):
    D = len(w)
    for part in prange(PARTS):
        d0, d1 = D * part // PARTS, D * (part + 1) // PARTS
        if d0 < d1:
            gemm_nt(dy, w[d0:d1], 0, dx[:, d0:d1])


@njit(parallel=True, cache=True)
def _dense_backward_weights(x, dy, dw):
    D = len(dw)
    for part in prange(PARTS):
        d0, d1 = D * part // PARTS, D * (part + 1) // PARTS
        if d0 < d1:
            gemm_tn(x[:, d0:d1], dy, 0, dw[d0:d1])


# -- optimizers ------------------------------------------------------------------------------------------------------


@njit(parallel=True, cache=True)
def _adam_step(p, g, m, v, rate, gain1, gain2, correction2, eps):
    for i in prange(len(p)):
        m[i] += gain1 * (g[i] - m[i])
        v[i] += gain2 * (g[i] * g[i] - v[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i] * correction2) + eps)


@njit(parallel=True, cache=True)
def _sgd_step(p, g, v, lr, momentum):
    for i in prange(len(p)):
        v[i] = momentum * v[i] + g[i]
        p[i] -= lr * v[i]
