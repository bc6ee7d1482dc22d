"""The CPU's kernels: Numba functions that only index and compute; outputs are given.

A convolution builds im2col for a few image rows at a time, so that cols stay in cache until they are multiplied. Every
kernel does part `part` of `parts` (parallel.py): every element of an output has one owner, and sums over images are
added up part by part in a fixed order.
"""

import numpy as np

from .block import copy_window, pool_image, sum_of_squares
from .matmul import ROWS, multiply, multiply_transposed, pack
from .parallel import inner, kernel
from .simd import LANES

FEW = 10  # images for which packing a matrix pays
UNPACKED = 16  # rows of a matrix that fewer images are multiplied with at a time
INPUTS = 96  # of a dense layer whose weights are computed together


@inner
def share(total, part, parts):
    """The half-open range of `total` items that a part owns."""
    return total * part // parts, total * (part + 1) // parts


# -- convolution -----------------------------------------------------------------------------------------------------


@inner
def im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols):
    """Rows r0 to r1 of output pixels of image n -> cols ((r1 - r0)*OW, kh*kw*C)."""
    flat, length = cols.reshape(-1), kh * kw * x.shape[3]
    for r in range(r0, r1):
        for c in range(OW):
            copy_window(x, n, r * sh - top, c * sw - left, kh, kw, flat, ((r - r0) * OW + c) * length)


@kernel
def conv2d(part, parts, x, w, b, y, kh, kw, sh, sw, top, left, rows):
    """y = im2col(x) w + b, `rows` rows of output pixels at a time; w (kh*kw*C, K rounded up to whole vectors)."""
    N, OH, OW, K = y.shape
    L, columns = w.shape
    bands = (OH + rows - 1) // rows
    pixels, w = y.reshape(-1, K), w.reshape(-1)
    cols, tile = np.empty((rows * OW, L), x.dtype), np.empty((rows * OW, columns), x.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n, r0 = item // bands, item % bands * rows
        r1 = min(r0 + rows, OH)
        im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
        out = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW]
        multiply(cols.reshape(-1), 0, L, 1, w, 0, columns, tile.reshape(-1), 0, columns, len(out), columns, L, False)
        for q in range(len(out)):
            for k in range(K):
                out[q, k] = tile[q, k] + b[k]


@kernel
def conv2d_backward_data(part, parts, dy, w, dx, kh, kw, sh, sw, top, left, bands, rows):
    """dx = col2im(dy w), `rows` rows of output pixels at a time; an item owns one of `bands` bands of rows of dx.

    w (K, kh*kw*C rounded up to whole vectors) is the transposed one.
    """
    N, OH, OW, K = dy.shape
    H, W, C = dx.shape[1:]
    columns = w.shape[1]
    signal, w, flat = dy.reshape(-1), w.reshape(-1), dx.reshape(-1)
    dcols = np.empty((rows * OW, columns), dy.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n = item // bands
        h0, h1 = share(H, item % bands, bands)
        dx[n, h0:h1] = 0
        end = min(OH, (h1 - 1 + top) // sh + 1)
        for r0 in range(max(0, (h0 + top - kh + sh) // sh), end, rows):
            r1 = min(r0 + rows, end)
            o, pixels, out = (n * OH + r0) * OW * K, (r1 - r0) * OW, dcols.reshape(-1)
            multiply(signal, o, K, 1, w, 0, columns, out, 0, columns, pixels, columns, K, False)
            for r in range(r0, r1):
                for i in range(kh):
                    h = r * sh - top + i
                    if h0 <= h < h1:
                        for c in range(OW):
                            j0, j1 = max(0, left - c * sw), min(kw, W + left - c * sw)
                            to = ((n * H + h) * W + c * sw - left + j0) * C
                            out = flat[to : to + (j1 - j0) * C]
                            add = dcols[(r - r0) * OW + c, (i * kw + j0) * C : (i * kw + j1) * C]
                            for a in range(len(out)):
                                out[a] += add[a]


@kernel
def conv2d_backward_weights(part, parts, x, dy, dws, dbs, kh, kw, sh, sw, top, left, rows):
    """dws[part] (kh*kw*C, K or more) += im2col(x)' dy and dbs[part] (K,) += dy over this part's images."""
    N, OH, OW, K = dy.shape
    L, columns = dws.shape[1:]
    bands = (OH + rows - 1) // rows
    pixels, dw, db = dy.reshape(-1, K), dws.reshape(-1), dbs[part]
    cols, signal = np.empty((rows * OW, L), x.dtype), np.zeros((rows * OW, columns), x.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n, r0 = item // bands, item % bands * rows
        r1 = min(r0 + rows, OH)
        im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
        own = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW]
        for q in range(len(own)):
            for k in range(K):
                signal[q, k] = own[q, k]
                db[k] += own[q, k]
        flat, to = signal.reshape(-1), part * L * columns
        multiply(cols.reshape(-1), 0, 1, L, flat, 0, columns, dw, to, columns, L, columns, len(own), True)


# -- pooling ---------------------------------------------------------------------------------------------------------


@kernel
def maxpool2d(part, parts, x, y, switches, kh, kw, sh, sw, top, left):
    """The channels of y, the first of x's, of which there are at least LANES."""
    b = np.full(y.shape[3], x.dtype.type(-0.0))  # which, added, leaves a zero's sign as it is
    flat, size = x.reshape(-1), x[0].size
    first, last = share(len(x), part, parts)
    for n in range(first, last):
        odd = not sum_of_squares(flat, n * size, size) < np.inf
        pool_image(x[n], b, False, odd, None, None, y, switches, n, (kh, kw, sh, sw, top, left))


@kernel
def unpool2d(part, parts, dy, switches, dx, kh, kw, sh, sw, top, left):
    """A pixel collects from every window that covers it and whose switch names it."""
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    first, last = share(N * H, part, parts)
    for row in range(first, last):
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


@kernel
def avgpool2d(part, parts, x, y, kh, kw, sh, sw, top, left, whole):
    """A sum is divided by `whole`, or, where that is 0, by the pixels of the image in its window."""
    (H, W), (N, OH, OW, C) = x.shape[1:3], y.shape
    first, last = share(N * OH, part, parts)
    for row in range(first, last):
        n, r = row // OH, row % OH
        h0, h1 = max(0, r * sh - top), min(H, r * sh - top + kh)
        for c in range(OW):
            v0, v1 = max(0, c * sw - left), min(W, c * sw - left + kw)
            out, count = y[n, r, c], x.dtype.type(whole or (h1 - h0) * (v1 - v0))
            for k in range(C):
                out[k] = 0
            for h in range(h0, h1):
                for v in range(v0, v1):
                    pixel = x[n, h, v]
                    for k in range(C):
                        out[k] += pixel[k]
            for k in range(C):
                out[k] /= count


@kernel
def avgpool2d_backward(part, parts, dy, dx, kh, kw, sh, sw, top, left, whole):
    """A pixel collects its share of every window that covers it."""
    (OH, OW), (N, H, W, C) = dy.shape[1:3], dx.shape
    first, last = share(N * H, part, parts)
    for row in range(first, last):
        n, h = row // H, row % H
        for v in range(W):
            out = dx[n, h, v]
            for k in range(C):
                out[k] = 0
            for r in range(max(0, (h + top - kh + sh) // sh), min(OH, (h + top) // sh + 1)):
                rows = min(H, r * sh - top + kh) - max(0, r * sh - top)
                for c in range(max(0, (v + left - kw + sw) // sw), min(OW, (v + left) // sw + 1)):
                    columns = min(W, c * sw - left + kw) - max(0, c * sw - left)
                    signal, count = dy[n, r, c], dx.dtype.type(whole or rows * columns)
                    for k in range(C):
                        out[k] += signal[k] / count


# -- elementwise -----------------------------------------------------------------------------------------------------


@kernel
def largest(part, parts, dx, out):
    """out (N, H, W) = max(out, |dx| over colours and signals), both seen as whole numbers of their bits.

    Without their sign these are in the order of the floats, and NaN comes last.
    """
    N, H, W = out.shape
    C, unsigned = dx.shape[3], np.iinfo(dx.dtype).max
    first, last = share(N * H, part, parts)
    for row in range(first, last):
        n, h = row // H, row % H
        best = out[n, h]
        for s in range(n, len(dx), N):
            pixels = dx[s, h].reshape(-1)
            for v in range(W):
                for k in range(C):
                    best[v] = max(best[v], pixels[np.uintp(v * C + k)] & unsigned)


# -- dense -----------------------------------------------------------------------------------------------------------


@kernel
def dense(part, parts, x, w, partial):
    """partial[part] = this part's share of the sum over inputs in x w, so that each weight is read once.

    Its columns are rounded up to whole vectors. For few rows of x it does not pay to pack w.
    """
    (N, I), (U, columns) = x.shape, (w.shape[1], partial.shape[2])
    direct = N < FEW and U == columns
    rows = UNPACKED if direct else ROWS
    first, last = share(I, part, parts)
    partial[part] = 0
    x, weights, y = x.reshape(-1), w.reshape(-1), partial[part].reshape(-1)
    packed = np.empty(0 if direct else rows * columns, x.dtype)
    for i in range(first, last, rows):
        count = min(rows, last - i)
        if direct:
            multiply(x, i, I, 1, weights, i * U, U, y, 0, U, N, U, count, True)
        else:
            pack(w, i, i + count, packed, rows)
            for u in range(0, columns, LANES):
                multiply(x, i, I, 1, packed, u * rows, LANES, y, u, columns, N, LANES, count, True)


@kernel
def dense_backward_data(part, parts, dy, w, dx):
    (N, U), I = dy.shape, len(w)
    first, last = share(I, part, parts)
    dy, w, dx = dy.reshape(-1), w.reshape(-1), dx.reshape(-1)
    multiply_transposed(dy, 0, U, w, first * U, U, dx, first, I, N, last - first, U)


@inner
def _gradient(x, dy, i0, i1, own, tile):
    """tile[: (i1 - i0) * U] = x' dy for inputs i0 to i1; rows are U rounded up to whole vectors apart."""
    N, columns, signal = len(x), len(dy) * LANES, dy.reshape(-1)
    for n in range(N):  # copied: rows of x may lie a power of two apart and share a few lines of the cache
        row = x[n]
        for i in range(i0, i1):
            own[n * INPUTS + i - i0] = row[i]
    for i in range(0, i1 - i0, 6):
        for c in range(0, columns, LANES):
            rows, to = min(6, i1 - i0 - i), i * columns + c
            multiply(own, i, 1, INPUTS, signal, c * N, LANES, tile, to, columns, rows, LANES, N, False)


@kernel
def dense_backward_weights(part, parts, x, dy, dw):
    """dw = x' dy; dy is packed as by `pack`, (U / LANES rounded up, N, LANES)."""
    columns, U = len(dy) * LANES, dw.shape[1]
    own, tile = np.empty(len(x) * INPUTS, x.dtype), np.empty(INPUTS * columns, x.dtype)
    first, last = share(len(dw), part, parts)
    for i0 in range(first, last, INPUTS):
        i1 = min(i0 + INPUTS, last)
        _gradient(x, dy, i0, i1, own, tile)
        for i in range(i0, i1):
            row, out = (i - i0) * columns, dw[i]
            for u in range(U):
                out[u] = tile[np.uintp(row) + np.uintp(u)]


@kernel
def dense_adam_step(part, parts, x, dy, p, m, v, rate, gain1, gain2, correction2, eps, shrink):
    """`adam_step` for g = x' dy, some rows at a time: the gradient is used up before it leaves the cache."""
    columns, U = len(dy) * LANES, p.shape[1]
    own, tile = np.empty(len(x) * INPUTS, x.dtype), np.empty(INPUTS * columns, x.dtype)
    first, last = share(len(p), part, parts)
    for i0 in range(first, last, INPUTS):
        i1 = min(i0 + INPUTS, last)
        _gradient(x, dy, i0, i1, own, tile)
        for i in range(i0, i1):
            row = (i - i0) * columns
            _adam(p[i], tile[row : row + U], m[i], v[i], rate, gain1, gain2, correction2, eps, shrink)


# -- optimizers ------------------------------------------------------------------------------------------------------


@kernel
def adam_step(part, parts, p, g, m, v, rate, gain1, gain2, correction2, eps, shrink):
    first, last = share(len(p), part, parts)
    p, g, m, v = p[first:last], g[first:last], m[first:last], v[first:last]
    _adam(p, g, m, v, rate, gain1, gain2, correction2, eps, shrink)


@inner
def _adam(p, g, m, v, rate, gain1, gain2, correction2, eps, shrink):
    for i in range(len(p)):
        m[i] += gain1 * (g[i] - m[i])
        v[i] += gain2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * shrink - rate * m[i] / (np.sqrt(v[i] * correction2) + eps)


@kernel
def average(part, parts, mean, p, rate):
    first, last = share(len(p), part, parts)
    mean, p = mean[first:last], p[first:last]
    for i in range(len(p)):
        mean[i] += rate * (p[i] - mean[i])
