"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes an m x m tile of outputs from a 6 x 6 tile of inputs, m = 7 - k. Sampling both as
polynomials at the six points 0, 1, -1, 2, -2 and infinity makes the convolution a product point by point (Lavin and
Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A        36 products for m^2 outputs, not (m k)^2: 4 times fewer for 3x3, 2.8 for 5x5

For C input channels each of the 36 points is a matrix product (tiles, C)(C, K). B depends on the points alone, so 3x3
and 5x5 share it. The adjoint gives the gradients:

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

A group of images is taken through the whole block at a time: its convolution output lives in a scratch array per thread
and is pooled while it is in cache. The transforms enlarge rounding errors: to about 1e-6 relative in float32.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_tn
from .kernels import pool_image, share, unpool_image
from .parallel import PARTS, run, threads

CONTRACT = {"contract"}  # a * b + c may round once

G = {
    3: np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]),
    5: np.array([[1 / 4, 0, 0, 0, 0], [-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3], [1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3], [0, 0, 0, 0, 1]]),
}  # fmt: skip


def applies(w, stride, padding):
    """Whether a convolution has a shape that these kernels know: 3x3 or 5x5, stride 1, SAME."""
    return w.shape[0] == w.shape[1] and w.shape[0] in G and tuple(stride) == (1, 1) and padding == "SAME"


def transform_weights(w):
    """w (k, k, C, K) -> U (36, C, K) = G w G' for every pair of channels."""
    g = G[len(w)]
    return (np.kron(g, g).astype(w.dtype) @ w.reshape(-1, w.shape[2] * w.shape[3])).reshape(36, *w.shape[2:])


def transform_weights_back(dU, k):
    """dU (36, C, K) -> dw (k, k, C, K) = G' dU G: the adjoint of `transform_weights`."""
    g = np.kron(G[k], G[k]).astype(dU.dtype)
    return (g.T @ dU.reshape(36, -1)).reshape(k, k, *dU.shape[1:])


def forward(x, w, b, y, switches, pool, work):
    """Fill y and switches with the pooled block; `pool` is (kh, kw, sh, sw, top, left) of the pool."""
    N, H, W, C = x.shape
    k, K = len(w), w.shape[3]
    m = 7 - k
    group, chunk = _grouping(H, W, m)
    U = transform_weights(w)
    conv = work("conv", (threads(), group, H, W, K), x.dtype)
    V = work("V", (threads(), 36, chunk, max(C, K)), x.dtype)
    M = work("M", (threads(), 36, chunk, max(C, K)), x.dtype)
    run(_forward, x, U, b, y, switches, m, *pool, scratch=(conv, V, M))


def backward(x, w, y, switches, dy, pool, need_dx, work):
    """Return (dw, db, dx or None) of the block for a gradient dy at the pooled output y."""
    N, H, W, C = x.shape
    k, K = len(w), w.shape[3]
    m = 7 - k
    dbs = np.zeros((PARTS, K), x.dtype)
    group, chunk = _grouping(H, W, m)
    signal = work("conv", (threads(), group, H, W, K), x.dtype)
    V = work("V", (threads(), 36, chunk, max(C, K)), x.dtype)
    M = work("M", (threads(), 36, chunk, max(C, K)), x.dtype)
    dU = work("dU", (PARTS, 36, C, K), x.dtype)
    dx = work("dx", x.shape if need_dx else (0, 0, 0, 0), x.dtype)
    flipped = transform_weights(np.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2)))
    run(_backward, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, m, *pool, scratch=(signal, V, M))
    return transform_weights_back(dU.sum(0), k), dbs.sum(0), dx if need_dx else None


def _grouping(H, W, m):
    """(images taken together, tiles multiplied together): enough tiles for an efficient matrix product."""
    tiles = -(-H // m) * -(-W // m)
    return max(1, 96 // tiles), min(144, tiles * max(1, 96 // tiles))


# -- transforms of one tile ------------------------------------------------------------------------------------------
#
# A tile is read from, or written to, a flat array: pixel (i, j) stands at base + i * row + j * C, be that an image or a
# scratch tile for what hangs over the border. One body serves both, which halves the time to compile. Inner loops run
# over whole slices with their own index: Numba lets an index count from the end, and a sum that might be negative keeps
# the compiler from using vectors.


@njit
def _fetch(x, n, r, c, size, tile):
    """Copy the size x size window of image n at (r, c) into the flat `tile`, zero outside the image."""
    H, W, C = x.shape[1:]
    tile[: size * size * C] = 0
    for i in range(max(0, -r), min(size, H - r)):
        for j in range(max(0, -c), min(size, W - c)):
            o = (i * size + j) * C
            tile[o : o + C] = x[n, r + i, c + j]


@njit
def _locate(x, n, r, c, size, tile):
    """(flat array, base, row) of the window of image n at (r, c): x where it lies inside, else `tile`, filled."""
    H, W, C = x.shape[1:]
    if r >= 0 and c >= 0 and r + size <= H and c + size <= W:
        return x.reshape(-1), ((n * H + r) * W + c) * C, W * C
    _fetch(x, n, r, c, size, tile)
    return tile, 0, size * C


@njit(fastmath=CONTRACT)
def _points(d0, d1, d2, d3, d4, d5, v0, v1, v2, v3, v4, v5):
    """(v0 ... v5) = B' (d0 ... d5), elementwise over arrays."""
    two, four, five = d0.dtype.type(2), d0.dtype.type(4), d0.dtype.type(5)
    for k in range(len(v0)):
        even1, odd1 = d4[k] - four * d2[k], d3[k] - four * d1[k]
        even2, odd2 = d4[k] - d2[k], two * (d3[k] - d1[k])
        v0[k] = four * d0[k] - five * d2[k] + d4[k]
        v1[k], v2[k] = even1 + odd1, even1 - odd1
        v3[k], v4[k] = even2 + odd2, even2 - odd2
        v5[k] = four * d1[k] - five * d3[k] + d5[k]


@njit(fastmath=CONTRACT)
def _input_tile(x, n, r, c, tile, d, v, q):
    """v[:, q] (36, C) = B' x B of the 6 x 6 window of image n at (r, c)."""
    C = x.shape[3]
    src, base, row = _locate(x, n, r, c, 6, tile)
    for i in range(6):
        o = base + i * row
        d0, d1, d2 = src[o : o + C], src[o + C : o + 2 * C], src[o + 2 * C : o + 3 * C]
        d3, d4, d5 = src[o + 3 * C : o + 4 * C], src[o + 4 * C : o + 5 * C], src[o + 5 * C : o + 6 * C]
        _points(d0, d1, d2, d3, d4, d5, d[i, 0, :C], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5])
    for j in range(6):
        v0, v1, v2, v3, v4, v5 = v[j, q, :C], v[6 + j, q], v[12 + j, q], v[18 + j, q], v[24 + j, q], v[30 + j, q]
        _points(d[0, j], d[1, j], d[2, j], d[3, j], d[4, j], d[5, j], v0, v1, v2, v3, v4, v5)


@njit(fastmath=CONTRACT)
def _signal_points(y0, y1, y2, y3, s0, s1, s2, s3, s4, s5):
    """(s0 ... s5) = A (y0 ... y3), elementwise over arrays."""
    two, four, eight = y0.dtype.type(2), y0.dtype.type(4), y0.dtype.type(8)
    for k in range(len(y0)):
        even1, odd1 = y0[k] + y2[k], y1[k] + y3[k]
        even2, odd2 = y0[k] + four * y2[k], two * y1[k] + eight * y3[k]
        s0[k], s5[k] = y0[k], y3[k]
        s1[k], s2[k] = even1 + odd1, even1 - odd1
        s3[k], s4[k] = even2 + odd2, even2 - odd2


@njit(fastmath=CONTRACT)
def _signal_points2(y0, y1, s0, s1, s2, s3, s4, s5):
    """(s0 ... s5) = A (y0, y1), elementwise over arrays."""
    two = y0.dtype.type(2)
    for k in range(len(y0)):
        s0[k], s5[k] = y0[k], y1[k]
        s1[k], s2[k] = y0[k] + y1[k], y0[k] - y1[k]
        s3[k], s4[k] = y0[k] + two * y1[k], y0[k] - two * y1[k]


@njit(fastmath=CONTRACT)
def _signal_tile(dy, n, r, c, tile, d, s, q, m):
    """s[:, q] (36, K) = A dy A' of the m x m tile of image n at (r, c)."""
    K = dy.shape[3]
    src, base, row = _locate(dy, n, r, c, m, tile)
    for i in range(m):
        o = base + i * row
        y0, y1 = src[o : o + K], src[o + K : o + 2 * K]
        if m == 4:
            y2, y3 = src[o + 2 * K : o + 3 * K], src[o + 3 * K : o + 4 * K]
            _signal_points(y0, y1, y2, y3, d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5])
        else:
            _signal_points2(y0, y1, d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5])
    for j in range(6):
        s0, s1, s2, s3, s4, s5 = s[j, q], s[6 + j, q], s[12 + j, q], s[18 + j, q], s[24 + j, q], s[30 + j, q]
        if m == 4:
            _signal_points(d[0, j, :K], d[1, j], d[2, j], d[3, j], s0, s1, s2, s3, s4, s5)
        else:
            _signal_points2(d[0, j, :K], d[1, j], s0, s1, s2, s3, s4, s5)


@njit(fastmath=CONTRACT)
def _values(m0, m1, m2, m3, m4, m5, y0, y1, y2, y3):
    """(y0 ... y3) = A' (m0 ... m5), elementwise over arrays."""
    two, four, eight = y0.dtype.type(2), y0.dtype.type(4), y0.dtype.type(8)
    for k in range(len(y0)):
        even1, odd1, even2, odd2 = m1[k] + m2[k], m1[k] - m2[k], m3[k] + m4[k], m3[k] - m4[k]
        y0[k] = m0[k] + even1 + even2
        y1[k] = odd1 + two * odd2
        y2[k] = even1 + four * even2
        y3[k] = odd1 + eight * odd2 + m5[k]


@njit(fastmath=CONTRACT)
def _values2(m0, m1, m2, m3, m4, m5, y0, y1):
    """(y0, y1) = A' (m0 ... m5), elementwise over arrays."""
    two = y0.dtype.type(2)
    for k in range(len(y0)):
        y0[k] = m0[k] + (m1[k] + m2[k]) + (m3[k] + m4[k])
        y1[k] = (m1[k] - m2[k]) + two * (m3[k] - m4[k]) + m5[k]


@njit(fastmath=CONTRACT)
def _output_rows(d, y, n, r, c, tile, m):
    """The second half of A' M A: d (m, 6, K) -> the m x m tile of image n at (r, c), as far as it lies inside."""
    H, W, K = y.shape[1:]
    inside = r + m <= H and c + m <= W
    out, base, row = (y.reshape(-1), ((n * H + r) * W + c) * K, W * K) if inside else (tile, 0, m * K)
    for i in range(m):
        o = base + i * row
        y0, y1 = out[o : o + K], out[o + K : o + 2 * K]
        if m == 4:
            y2, y3 = out[o + 2 * K : o + 3 * K], out[o + 3 * K : o + 4 * K]
            _values(d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5], y0, y1, y2, y3)
        else:
            _values2(d[i, 0], d[i, 1], d[i, 2], d[i, 3], d[i, 4], d[i, 5], y0, y1)
    if not inside:
        for i in range(min(m, H - r)):
            for j in range(min(m, W - c)):
                for k in range(K):
                    y[n, r + i, c + j, k] = tile[(i * m + j) * K + k]


@njit(fastmath=CONTRACT)
def _output_tile(p, q, d, y, n, r, c, tile, m):
    """The m x m outputs of image n at (r, c) = A' p[:, q] A, as far as they lie inside."""
    K = y.shape[3]
    for j in range(6):
        m0, m1, m2, m3, m4, m5 = p[j, q], p[6 + j, q], p[12 + j, q], p[18 + j, q], p[24 + j, q], p[30 + j, q]
        if m == 4:
            _values(m0, m1, m2, m3, m4, m5, d[0, j, :K], d[1, j], d[2, j], d[3, j])
        else:
            _values2(m0, m1, m2, m3, m4, m5, d[0, j, :K], d[1, j])
    _output_rows(d, y, n, r, c, tile, m)


# -- the block, forward ----------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _forward(part, parts, image, v, out, x, U, b, y, switches, m, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    K = y.shape[3]
    group, chunk, pad = len(image), v.shape[1], (6 - m) // 2
    tw = (W + m - 1) // m
    per_image = (H + m - 1) // m * tw
    tile, d = np.empty(36 * max(C, K), x.dtype), np.empty((6, 6, max(C, K)), x.dtype)
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for q0 in range(0, images * per_image, chunk):
            size = min(chunk, images * per_image - q0)
            for q in range(size):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                _input_tile(x, n0 + g, r - pad, c - pad, tile, d, v, q)
            for e in range(36):
                gemm(v[e, :size, :C], U[e], 0, out[e, :size, :K])
            for q in range(size):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                _output_tile(out, q, d, image, g, r, c, tile, m)
        for g in range(images):
            pool_image(image, g, b, y, switches, n0 + g, kh, kw, sh, sw, top, left)


# -- the block, backward ---------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _backward(
    part, parts, signal, v, s, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, m, kh, kw, sh, sw, top, left
):
    N, H, W, C = x.shape
    K = y.shape[3]
    group, chunk, pad = len(signal), v.shape[1], (6 - m) // 2
    tw = (W + m - 1) // m
    per_image = (H + m - 1) // m * tw
    du, db = dU[part], dbs[part]
    tile, d = np.empty(36 * max(C, K), x.dtype), np.empty((6, 6, max(C, K)), x.dtype)
    du[:] = 0
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for g in range(images):
            unpool_image(y, switches, dy, n0 + g, signal, g, db, kh, kw, sh, sw, top, left)
        for q0 in range(0, images * per_image, chunk):
            size = min(chunk, images * per_image - q0)
            for q in range(size):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                _input_tile(x, n0 + g, r - pad, c - pad, tile, d, v, q)
                _signal_tile(signal, g, r, c, tile, d, s, q, m)
            for e in range(36):
                gemm_tn(v[e, :size, :C], s[e, :size, :K], 1, du[e])
            if need_dx:
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                    _input_tile(signal, g, r - pad, c - pad, tile, d, v, q)
                for e in range(36):
                    gemm(v[e, :size, :K], flipped[e], 0, s[e, :size, :C])
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                    _output_tile(s, q, d, dx, n0 + g, r, c, tile, m)
