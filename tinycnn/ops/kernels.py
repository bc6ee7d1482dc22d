"""The CPU's kernels: Numba functions that only index and compute; outputs are given, matrix products are BLAS.

A convolution never builds im2col for a whole batch: a few image rows at a time, so that the tile of cols stays in cache
between being written and being multiplied.

Every kernel does part `part` of `parts` (parallel.py runs them): every element of an output has one owner, and sums
over images are added up part by part in a fixed order.

Compiled code is cached on disk by file: after a change in blas.py or here, touch the files that call it.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_nt, gemm_tn


@njit
def share(total, part, parts):
    """The half-open range of `total` items that a part owns."""
    return total * part // parts, total * (part + 1) // parts


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
                        row[np.uintp(o + q)] = 0
                elif v >= 0 and v + kw <= W:
                    src, to = np.uintp(((n * H + h) * W + v) * C), np.uintp(o)
                    for q in range(kw * C):
                        row[to + np.uintp(q)] = flat[src + np.uintp(q)]
                else:
                    for j in range(kw):
                        inside = 0 <= v + j < W
                        for a in range(C):
                            row[o + j * C + a] = x[n, h, v + j, a] if inside else 0


@njit(nogil=True, cache=True)
def conv2d(part, parts, x, w, b, y, kh, kw, sh, sw, top, left, rows):
    """y = im2col(x) w + b, `rows` rows of output pixels at a time; w (kh*kw*C, K)."""
    N, OH, OW, K = y.shape
    bands = (OH + rows - 1) // rows
    pixels = y.reshape(-1, K)
    cols = np.empty((rows * OW, len(w)), x.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n, r0 = item // bands, item % bands * rows
        r1 = min(r0 + rows, OH)
        im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
        out = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW]
        for q in range(len(out)):
            for k in range(K):
                out[q, k] = b[k]
        gemm(cols[: len(out)], w, 1, out)


@njit(nogil=True, cache=True)
def conv2d_backward_data(part, parts, dy, w, dx, kh, kw, sh, sw, top, left, bands, rows):
    """dx = col2im(dy w'), `rows` rows of output pixels at a time; an item owns one of `bands` bands of rows of dx."""
    N, OH, OW, K = dy.shape
    H, W, C = dx.shape[1:]
    pixels, flat = dy.reshape(-1, K), dx.reshape(-1)
    dcols = np.empty((rows * OW, len(w)), dy.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n = item // bands
        h0, h1 = share(H, item % bands, bands)
        dx[n, h0:h1] = 0
        end = min(OH, (h1 - 1 + top) // sh + 1)
        for r0 in range(max(0, (h0 + top - kh + sh) // sh), end, rows):
            r1 = min(r0 + rows, end)
            gemm_nt(pixels[(n * OH + r0) * OW : (n * OH + r1) * OW], w, 0, dcols[: (r1 - r0) * OW])
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


@njit(nogil=True, cache=True)
def conv2d_backward_weights(part, parts, x, dy, dws, dbs, kh, kw, sh, sw, top, left, rows):
    """dws[part] (kh*kw*C, K) += im2col(x)' dy and dbs[part] (K,) += dy over this part's images."""
    N, OH, OW, K = dy.shape
    bands = (OH + rows - 1) // rows
    pixels = dy.reshape(-1, K)
    cols = np.empty((rows * OW, dws.shape[1]), x.dtype)
    first, last = share(N * bands, part, parts)
    for item in range(first, last):
        n, r0 = item // bands, item % bands * rows
        r1 = min(r0 + rows, OH)
        im2col(x, n, r0, r1, kh, kw, sh, sw, top, left, OW, cols)
        signal, db = pixels[(n * OH + r0) * OW : (n * OH + r1) * OW], dbs[part]
        gemm_tn(cols[: len(signal)], signal, 1, dws[part])
        for q in range(len(signal)):
            for k in range(K):
                db[k] += signal[q, k]


# -- pooling ---------------------------------------------------------------------------------------------------------


@njit
def _larger(value, here, best, where):
    larger = value > best
    return value if larger else best, here if larger else where


@njit
def _pool_2x2(v0, v1, v2, v3, places, best, where):
    zero, one, two, three = places[0], places[1], places[2], places[3]
    for k in range(len(best)):
        b, w = _larger(v1[k], one, v0[k], zero)
        b, w = _larger(v2[k], two, b, w)
        best[k], where[k] = _larger(v3[k], three, b, w)


@njit
def _pool_3x3(v0, v1, v2, v3, v4, v5, v6, v7, v8, places, best, where):
    zero, one, two, three, four = places[0], places[1], places[2], places[3], places[4]
    five, six, seven, eight = places[5], places[6], places[7], places[8]
    for k in range(len(best)):
        b, w = _larger(v1[k], one, v0[k], zero)
        b, w = _larger(v2[k], two, b, w)
        b, w = _larger(v3[k], three, b, w)
        b, w = _larger(v4[k], four, b, w)
        b, w = _larger(v5[k], five, b, w)
        b, w = _larger(v6[k], six, b, w)
        b, w = _larger(v7[k], seven, b, w)
        best[k], where[k] = _larger(v8[k], eight, b, w)


@njit
def pool_window(x, n, h, v, kh, kw, places, best, where):
    """Maximum over the window of image n whose corner is (h, v), and its index in the window, for every channel.

    The first maximum wins, padding never. `where` (C,) and `places` = 0, 1, 2, ... have the dtype of x, so that value
    and place are selected by the same mask. The usual windows, where they lie inside, are kept in registers.
    """
    H, W, C = x.shape[1:]
    i0, i1, j0, j1 = max(0, -h), min(kh, H - h), max(0, -v), min(kw, W - v)
    whole = i1 - i0 == kh and j1 - j0 == kw
    if whole and kh == 3 and kw == 3:
        a, b, c = x[n, h], x[n, h + 1], x[n, h + 2]
        v0, v1, v2, v3, v4, v5 = a[v], a[v + 1], a[v + 2], b[v], b[v + 1], b[v + 2]
        _pool_3x3(v0, v1, v2, v3, v4, v5, c[v], c[v + 1], c[v + 2], places, best, where)
        return 0
    if whole and kh == 2 and kw == 2:
        a, b = x[n, h], x[n, h + 1]
        _pool_2x2(a[v], a[v + 1], b[v], b[v + 1], places, best, where)
        return 0
    value = x[n, h + i0, v + j0]
    first = i0 * kw + j0
    for k in range(C):
        best[k] = value[k]
        where[k] = places[first]
    for i in range(i0, i1):
        for j in range(j0, j1):
            value = x[n, h + i, v + j]
            here = places[i * kw + j]
            for k in range(C):
                best[k], where[k] = _larger(value[k], here, best[k], where[k])
    return first


@njit(nogil=True, cache=True)
def maxpool2d(part, parts, x, y, switches, kh, kw, sh, sw, top, left):
    N, OH, OW, C = y.shape
    where, places = np.empty(C, x.dtype), np.arange(kh * kw).astype(x.dtype)
    first, last = share(N * OH, part, parts)
    for row in range(first, last):
        n, r = row // OH, row % OH
        for c in range(OW):
            pool_window(x, n, r * sh - top, c * sw - left, kh, kw, places, y[n, r, c], where)
            switch = switches[n, r, c]
            for k in range(C):
                switch[k] = np.uint8(where[k])


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def unpool2d_repeat(part, parts, dy, dx, sh, sw, top, left):
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    first, last = share(N * H, part, parts)
    for row in range(first, last):
        n, h = row // H, row % H
        r = (h + top) // sh
        for v in range(W):
            c = (v + left) // sw
            inside = r < OH and c < OW
            for k in range(C):
                dx[n, h, v, k] = dy[n, r, c, k] if inside else 0


@njit(nogil=True, cache=True)
def unpool2d_center(part, parts, dy, dx, kh, kw, sh, sw, top, left):
    N, OH, OW, C = dy.shape
    H, W = dx.shape[1:3]
    first, last = share(N, part, parts)
    for n in range(first, last):
        dx[n] = 0
        for r in range(OH):
            h = min(max(r * sh - top + (kh - 1) // 2, 0), H - 1)
            for c in range(OW):
                v = min(max(c * sw - left + (kw - 1) // 2, 0), W - 1)
                for k in range(C):
                    dx[n, h, v, k] += dy[n, r, c, k]


# -- the two ends of a fused block (winograd.py, thin.py, sparse.py) --------------------------------------------------


@njit
def pad_image(x, n, kh, kw, width, padded):
    """Copy image n inside the border of zeros of the flat `padded`, rows of `width`; SAME's smaller half is before."""
    H, W, C = x.shape[1:]
    for h in range(H):
        o = np.uintp((h + (kh - 1) // 2) * width + (kw - 1) // 2 * C)
        for v in range(W):
            for k in range(C):
                padded[o + np.uintp(v * C + k)] = x[n, h, v, k]


@njit
def pool_image(conv, g, b, y, switches, n, kh, kw, sh, sw, top, left):
    """Pool scratch image g into y[n] and switches[n], then bias and ReLU: the maximum commutes with both."""
    OH, OW, K = y.shape[1:]
    where, places = np.empty(K, y.dtype), np.arange(kh * kw).astype(y.dtype)
    for r in range(OH):
        for c in range(OW):
            best, switch = y[n, r, c], switches[n, r, c]
            first = places[pool_window(conv, g, r * sh - top, c * sw - left, kh, kw, places, best, where)]
            for k in range(K):
                a = best[k] + b[k]
                best[k] = 0 if a <= 0 else a
                where[k] = first if a <= 0 else where[k]  # a window that the ReLU turned off is all zeros
            for k in range(K):
                switch[k] = np.uint8(where[k])


@njit
def unpool_image(y, switches, dy, n, signal, g, db, kh, kw, sh, sw, top, left):
    """signal[g] (H, W, K) = dy[n] put where the switches say, where the ReLU was on; its sum is added to db."""
    OH, OW, K = dy.shape[1:]
    W = signal.shape[2]
    offsets = np.array([s // kw * W * K + s % kw * K for s in range(kh * kw)])
    image = signal[g].reshape(-1)
    image[:] = 0
    for r in range(OH):
        for c in range(OW):
            corner = ((r * sh - top) * W + c * sw - left) * K
            value, d, switch = y[n, r, c], dy[n, r, c], switches[n, r, c]
            for k in range(K):
                if value[k] > 0:
                    image[np.uintp(corner + offsets[switch[k]] + k)] += d[k]
                    db[k] += d[k]


# -- elementwise -----------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def relu(part, parts, x, y):
    first, last = share(len(x), part, parts)
    x, y = x[first:last], y[first:last]
    for i in range(len(x)):
        y[i] = 0 if x[i] <= 0 else x[i]  # NaN stays NaN, to be seen in the loss


@njit(nogil=True, cache=True)
def relu_backward(part, parts, dy, y, dx, mask, rectify):
    first, last = share(len(dy), part, parts)
    dy, y, dx = dy[first:last], y[first:last], dx[first:last]
    for i in range(len(dy)):
        keep = (y[i] > 0 or not mask) and (dy[i] > 0 or not rectify)
        dx[i] = dy[i] if keep else 0


@njit(nogil=True, cache=True)
def largest(part, parts, dx, out):
    """out (N, H, W) = max(out, |dx| over colours and signals)."""
    N, H, W = out.shape
    C = dx.shape[3]
    first, last = share(N * H, part, parts)
    for row in range(first, last):
        n, h = row // H, row % H
        best = out[n, h]
        for s in range(n, len(dx), N):
            pixels = dx[s, h].reshape(-1)
            for v in range(W):
                for k in range(C):
                    best[v] = max(best[v], abs(pixels[np.uintp(v * C + k)]))


# -- dense -----------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def dense(part, parts, x, w, partial):
    """partial[part] = this part's share of the sum over inputs in x w, so that each weight is read once."""
    first, last = share(len(w), part, parts)
    if first < last:
        gemm(x[:, first:last], w[first:last], 0, partial[part])
    else:
        partial[part] = 0


@njit(nogil=True, cache=True)
def dense_backward_data(part, parts, dy, w, dx):
    first, last = share(len(w), part, parts)
    if first < last:
        gemm_nt(dy, w[first:last], 0, dx[:, first:last])


@njit(nogil=True, cache=True, fastmath={"contract"})
def dense_few(part, parts, x, w, partial):
    """`dense` for few rows of x: each weight is read once, and not packed as BLAS would; four rows of w at a time."""
    first, last = share(len(w), part, parts)
    partial[part] = 0
    zero = x.dtype.type(0)
    for i in range(first, last, 4):
        i1, i2, i3 = min(i + 1, last - 1), min(i + 2, last - 1), min(i + 3, last - 1)
        w0, w1, w2, w3 = w[i], w[i1], w[i2], w[i3]
        for n in range(len(x)):
            y, x0 = partial[part, n], x[n, i]
            x1, x2, x3 = x[n, i1] if i1 > i else zero, x[n, i2] if i2 > i1 else zero, x[n, i3] if i3 > i2 else zero
            for u in range(len(y)):
                y[u] += x0 * w0[u] + x1 * w1[u] + x2 * w2[u] + x3 * w3[u]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def dense_backward_data_few(part, parts, dy, w, dx):
    """`dense_backward_data` for few rows of dy, in the same way."""
    first, last = share(len(w), part, parts)
    for i in range(first, last, 4):
        i1, i2, i3 = min(i + 1, last - 1), min(i + 2, last - 1), min(i + 3, last - 1)
        w0, w1, w2, w3 = w[i], w[i1], w[i2], w[i3]
        for n in range(len(dy)):
            d = dy[n]
            x0 = x1 = x2 = x3 = dx.dtype.type(0)
            for u in range(len(d)):
                x0 += d[u] * w0[u]
                x1 += d[u] * w1[u]
                x2 += d[u] * w2[u]
                x3 += d[u] * w3[u]
            dx[n, i], dx[n, i1], dx[n, i2], dx[n, i3] = x0, x1, x2, x3


@njit(nogil=True, cache=True)
def dense_backward_weights(part, parts, x, dy, dw):
    first, last = share(len(dw), part, parts)
    if first < last:
        gemm_tn(x[:, first:last], dy, 0, dw[first:last])


# -- optimizers ------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def adam_step(part, parts, p, g, m, v, rate, gain1, gain2, correction2, eps, keep):
    first, last = share(len(p), part, parts)
    p, g, m, v = p[first:last], g[first:last], m[first:last], v[first:last]
    for i in range(len(p)):
        m[i] += gain1 * (g[i] - m[i])
        v[i] += gain2 * (g[i] * g[i] - v[i])
        p[i] = p[i] * keep - rate * m[i] / (np.sqrt(v[i] * correction2) + eps)


@njit(nogil=True, cache=True)
def sgd_step(part, parts, p, g, v, lr, momentum):
    first, last = share(len(p), part, parts)
    p, g, v = p[first:last], g[first:last], v[first:last]
    for i in range(len(p)):
        v[i] = momentum * v[i] + g[i]
        p[i] -= lr * v[i]


@njit(nogil=True, cache=True)
def average(part, parts, mean, p, rate):
    first, last = share(len(p), part, parts)
    mean, p = mean[first:last], p[first:last]
    for i in range(len(p)):
        mean[i] += rate * (p[i] - mean[i])
