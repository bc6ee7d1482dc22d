"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes an m x m tile of outputs from a 6 x 6 tile of inputs, m = 7 - k. Sampling both as
polynomials at the six points 0, 1, -1, 2, -2 and infinity makes the convolution a product point by point (Lavin and
Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A        36 products for m^2 outputs, not (m k)^2: 4 times fewer for 3x3, 2.8 for 5x5

For C input channels each of the 36 points is a matrix product (tiles, C)(C, K). B depends on the points alone, so 3x3
and 5x5 share it. The adjoint gives the gradients:

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

With one to three input channels (pixels) a matrix product is too thin: there the product is done while the tile is
transformed back, and dw is gathered directly from where the switches say that a gradient is.

A group of images is taken through the whole block at a time: its convolution output lives in a scratch array per thread
and is pooled while it is in cache. The transforms enlarge rounding errors: to about 1e-6 relative in float32.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_tn
from .kernels import pool_window, share
from .parallel import PARTS, run, threads

THIN = 3  # at most so many input channels are multiplied during the inverse transform
ROW = 16  # elements of one kernel row (kw * C) in the sparse gradient of a thin layer, rounded up to whole vectors
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
    if C <= THIN:
        border = (5 - k) // 2  # a 3x3 kernel is a 5x5 one with a border of zeros
        w = np.pad(w, ((border, border), (border, border), (0, THIN - C), (0, 0)))
        conv = work("conv", (threads(), 1, H, W, K), x.dtype)
        run(_forward_thin, x, transform_weights(w), b, y, switches, *pool, scratch=(conv,))
        return
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
    if C <= THIN and k * C <= ROW and not need_dx:
        dws = np.zeros((PARTS, K, k, ROW), x.dtype)
        run(_backward_thin, x, y, switches, dy, dws, dbs, *pool)
        return (
            np.ascontiguousarray(dws.sum(0)[..., : k * C].reshape(K, k, k, C).transpose(1, 2, 3, 0)),
            dbs.sum(0),
            None,
        )
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
# A tile is read from, or written to, a flat array: element (i, j, k) stands at base + i * row + j * C + k, be that an
# image or a scratch tile for what hangs over the border. One body serves both, which halves the time to compile.


@njit
def _fetch(x, n, r, c, size, tile):
    """Copy the size x size window of image n at (r, c) into the flat `tile`, zero outside the image."""
    H, W, C = x.shape[1:]
    for i in range(size):
        for j in range(size):
            inside = 0 <= r + i < H and 0 <= c + j < W
            for k in range(C):
                tile[(i * size + j) * C + k] = x[n, r + i, c + j, k] if inside else 0


@njit
def _locate(x, n, r, c, size, tile):
    """(flat array, base, row) of the window of image n at (r, c): x where it lies inside, else `tile`, filled."""
    H, W, C = x.shape[1:]
    if r >= 0 and c >= 0 and r + size <= H and c + size <= W:
        return x.reshape(-1), ((n * H + r) * W + c) * C, W * C
    _fetch(x, n, r, c, size, tile)
    return tile, 0, size * C


@njit(fastmath=CONTRACT)
def _input_tile(x, n, r, c, tile, d, v, q):
    """v[:, q] (36, C) = B' x B of the 6 x 6 window of image n at (r, c)."""
    C = x.shape[3]
    src, base, row = _locate(x, n, r, c, 6, tile)
    two, four, five = x.dtype.type(2), x.dtype.type(4), x.dtype.type(5)
    for i in range(6):
        o = base + i * row
        for k in range(C):
            d0, d1, d2 = src[o + k], src[o + C + k], src[o + 2 * C + k]
            d3, d4, d5 = src[o + 3 * C + k], src[o + 4 * C + k], src[o + 5 * C + k]
            even1, odd1, even2, odd2 = d4 - four * d2, d3 - four * d1, d4 - d2, two * (d3 - d1)
            d[i, 0, k] = four * d0 - five * d2 + d4
            d[i, 1, k], d[i, 2, k] = even1 + odd1, even1 - odd1
            d[i, 3, k], d[i, 4, k] = even2 + odd2, even2 - odd2
            d[i, 5, k] = four * d1 - five * d3 + d5
    for j in range(6):
        for k in range(C):
            d0, d1, d2, d3, d4, d5 = d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k], d[4, j, k], d[5, j, k]
            even1, odd1, even2, odd2 = d4 - four * d2, d3 - four * d1, d4 - d2, two * (d3 - d1)
            v[j, q, k] = four * d0 - five * d2 + d4
            v[6 + j, q, k], v[12 + j, q, k] = even1 + odd1, even1 - odd1
            v[18 + j, q, k], v[24 + j, q, k] = even2 + odd2, even2 - odd2
            v[30 + j, q, k] = four * d1 - five * d3 + d5


@njit(fastmath=CONTRACT)
def _signal_tile(dy, n, r, c, tile, d, s, q, m):
    """s[:, q] (36, K) = A dy A' of the m x m tile of image n at (r, c)."""
    K = dy.shape[3]
    src, base, row = _locate(dy, n, r, c, m, tile)
    two, four, eight, zero = dy.dtype.type(2), dy.dtype.type(4), dy.dtype.type(8), dy.dtype.type(0)
    right = K if m == 4 else 0  # a 2 x 2 tile is a 4 x 4 one without its right and lower half, but for the last point
    for i in range(m):
        o = base + i * row
        for k in range(K):
            y0, y1 = src[o + k], src[o + K + k]
            y2, y3 = (src[o + 2 * right + k], src[o + 3 * right + k]) if m == 4 else (zero, zero)
            even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + four * y2, two * y1 + eight * y3
            d[i, 0, k], d[i, 5, k] = y0, y3 if m == 4 else y1
            d[i, 1, k], d[i, 2, k] = even1 + odd1, even1 - odd1
            d[i, 3, k], d[i, 4, k] = even2 + odd2, even2 - odd2
    for j in range(6):
        for k in range(K):
            y0, y1 = d[0, j, k], d[1, j, k]
            y2, y3 = (d[2, j, k], d[3, j, k]) if m == 4 else (zero, zero)
            even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + four * y2, two * y1 + eight * y3
            s[j, q, k], s[30 + j, q, k] = y0, y3 if m == 4 else y1
            s[6 + j, q, k], s[12 + j, q, k] = even1 + odd1, even1 - odd1
            s[18 + j, q, k], s[24 + j, q, k] = even2 + odd2, even2 - odd2


@njit(fastmath=CONTRACT)
def _inverse_rows(d, y, n, r, c, tile, m):
    """The second half of A' M A: d (m, 6, K) -> the m x m tile of image n at (r, c), as far as it lies inside."""
    H, W, K = y.shape[1:]
    inside = r + m <= H and c + m <= W
    out, base, row = (y.reshape(-1), ((n * H + r) * W + c) * K, W * K) if inside else (tile, 0, m * K)
    two, four, eight = y.dtype.type(2), y.dtype.type(4), y.dtype.type(8)
    for i in range(m):
        o = base + i * row
        if m == 4:
            for k in range(K):
                m0, m1, m2, m3, m4, m5 = (
                    d[i, 0, k],
                    d[i, 1, k],
                    d[i, 2, k],
                    d[i, 3, k],
                    d[i, 4, k],
                    d[i, 5, k],
                )
                even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                out[o + k] = m0 + even1 + even2
                out[o + K + k] = odd1 + two * odd2
                out[o + 2 * K + k] = even1 + four * even2
                out[o + 3 * K + k] = odd1 + eight * odd2 + m5
        else:
            for k in range(K):
                m0, m1, m2, m3, m4, m5 = (
                    d[i, 0, k],
                    d[i, 1, k],
                    d[i, 2, k],
                    d[i, 3, k],
                    d[i, 4, k],
                    d[i, 5, k],
                )
                out[o + k] = m0 + (m1 + m2) + (m3 + m4)
                out[o + K + k] = (m1 - m2) + two * (m3 - m4) + m5
    if not inside:
        for i in range(min(m, H - r)):
            for j in range(min(m, W - c)):
                for k in range(K):
                    y[n, r + i, c + j, k] = tile[(i * m + j) * K + k]


@njit(fastmath=CONTRACT)
def _output_tile(p, q, d, y, n, r, c, tile, m):
    """The m x m outputs of image n at (r, c) = A' p[:, q] A."""
    K = y.shape[3]
    two, four, eight = y.dtype.type(2), y.dtype.type(4), y.dtype.type(8)
    for j in range(6):
        if m == 4:
            for k in range(K):
                m0, m1, m2 = p[j, q, k], p[6 + j, q, k], p[12 + j, q, k]
                m3, m4, m5 = p[18 + j, q, k], p[24 + j, q, k], p[30 + j, q, k]
                even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                d[0, j, k] = m0 + even1 + even2
                d[1, j, k] = odd1 + two * odd2
                d[2, j, k] = even1 + four * even2
                d[3, j, k] = odd1 + eight * odd2 + m5
        else:
            for k in range(K):
                m0, m1, m2 = p[j, q, k], p[6 + j, q, k], p[12 + j, q, k]
                m3, m4, m5 = p[18 + j, q, k], p[24 + j, q, k], p[30 + j, q, k]
                d[0, j, k] = m0 + (m1 + m2) + (m3 + m4)
                d[1, j, k] = (m1 - m2) + two * (m3 - m4) + m5
    _inverse_rows(d, y, n, r, c, tile, m)


@njit(fastmath=CONTRACT)
def _thin_tile(v, U, d, y, n, r, c, tile):
    """The 2 x 2 outputs of image n at (r, c) = A' [sum over 3 channels of v * U] A; v (36, 1, 3), U (36, 3, K)."""
    K = y.shape[3]
    two = y.dtype.type(2)
    for j in range(6):
        v0, v1, v2, v3, v4, v5 = v[j, 0], v[6 + j, 0], v[12 + j, 0], v[18 + j, 0], v[24 + j, 0], v[30 + j, 0]
        for k in range(K):
            m0 = v0[0] * U[j, 0, k] + v0[1] * U[j, 1, k] + v0[2] * U[j, 2, k]
            m1 = v1[0] * U[6 + j, 0, k] + v1[1] * U[6 + j, 1, k] + v1[2] * U[6 + j, 2, k]
            m2 = v2[0] * U[12 + j, 0, k] + v2[1] * U[12 + j, 1, k] + v2[2] * U[12 + j, 2, k]
            m3 = v3[0] * U[18 + j, 0, k] + v3[1] * U[18 + j, 1, k] + v3[2] * U[18 + j, 2, k]
            m4 = v4[0] * U[24 + j, 0, k] + v4[1] * U[24 + j, 1, k] + v4[2] * U[24 + j, 2, k]
            m5 = v5[0] * U[30 + j, 0, k] + v5[1] * U[30 + j, 1, k] + v5[2] * U[30 + j, 2, k]
            d[0, j, k] = m0 + (m1 + m2) + (m3 + m4)
            d[1, j, k] = (m1 - m2) + two * (m3 - m4) + m5
    _inverse_rows(d, y, n, r, c, tile, 2)


# -- the block, forward ----------------------------------------------------------------------------------------------


@njit
def _pool_image(conv, g, b, y, switches, n, where, kh, kw, sh, sw, top, left):
    """Pool scratch image g into y[n] and switches[n], then bias and ReLU: the maximum commutes with both."""
    OH, OW, K = y.shape[1:]
    for r in range(OH):
        for c in range(OW):
            best, switch = y[n, r, c], switches[n, r, c]
            first = pool_window(conv, g, r * sh - top, c * sw - left, kh, kw, best, where)
            for k in range(K):
                a = best[k] + b[k]
                best[k] = 0 if a <= 0 else a
                where[k] = first if a <= 0 else where[k]  # a window that the ReLU turned off is all zeros
            for k in range(K):
                switch[k] = np.uint8(where[k])


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _forward(part, parts, image, v, out, x, U, b, y, switches, m, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    K = y.shape[3]
    group, chunk, pad = len(image), v.shape[1], (6 - m) // 2
    tw = (W + m - 1) // m
    per_image = (H + m - 1) // m * tw
    tile, d = np.empty(36 * max(C, K), x.dtype), np.empty((6, 6, max(C, K)), x.dtype)
    where = np.empty(K, x.dtype)
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
            _pool_image(image, g, b, y, switches, n0 + g, where, kh, kw, sh, sw, top, left)


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _forward_thin(part, parts, image, x, U, b, y, switches, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    K = y.shape[3]
    d, v = np.empty((6, 6, max(C, K)), x.dtype), np.zeros((36, 1, THIN), x.dtype)
    tile, tile_out, where = np.empty(36 * C, x.dtype), np.empty(4 * K, x.dtype), np.empty(K, x.dtype)
    first, last = share(N, part, parts)
    for n in range(first, last):
        for r in range(0, H, 2):
            for c in range(0, W, 2):
                _input_tile(x, n, r - 2, c - 2, tile, d, v, 0)
                _thin_tile(v, U, d, image, 0, r, c, tile_out)
        _pool_image(image, 0, b, y, switches, n, where, kh, kw, sh, sw, top, left)


# -- the block, backward ---------------------------------------------------------------------------------------------


@njit
def _unpool_image(y, switches, dy, n, signal, g, db, offsets, sh, sw, top, left):
    """signal[g] (H, W, K) = dy[n] put where the switches say, where the ReLU was on; its sum is added to db."""
    OH, OW, K = dy.shape[1:]
    H, W = signal.shape[1:3]
    image = signal[g].reshape(-1)
    image[:] = 0
    for r in range(OH):
        for c in range(OW):
            corner = ((r * sh - top) * W + c * sw - left) * K
            for k in range(K):
                if y[n, r, c, k] > 0:
                    image[corner + offsets[switches[n, r, c, k]] + k] += dy[n, r, c, k]
                    db[k] += dy[n, r, c, k]


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _backward(
    part, parts, signal, v, s, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, m, kh, kw, sh, sw, top, left
):
    N, H, W, C = x.shape
    K = y.shape[3]
    group, chunk, pad = len(signal), v.shape[1], (6 - m) // 2
    tw = (W + m - 1) // m
    per_image = (H + m - 1) // m * tw
    offsets = np.array([(s // kw * W + s % kw) * K for s in range(kh * kw)])
    du, db = dU[part], dbs[part]
    tile, d = np.empty(36 * max(C, K), x.dtype), np.empty((6, 6, max(C, K)), x.dtype)
    du[:] = 0
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for g in range(images):
            _unpool_image(y, switches, dy, n0 + g, signal, g, db, offsets, sh, sw, top, left)
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


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _backward_thin(part, parts, x, y, switches, dy, dws, dbs, kh, kw, sh, sw, top, left):
    """dws (PARTS, K, k, ROW): for each gradient that a switch lets through, g times the k rows of pixels it saw."""
    N, H, W, C = x.shape
    OH, OW, K = dy.shape[1:]
    k = dws.shape[2]
    pad = (k - 1) // 2
    width = (W + 2 * pad) * C + ROW
    offsets = np.array([s // kw * width + s % kw * C for s in range(kh * kw)])
    dw, db = dws[part], dbs[part]
    padded = np.zeros(((H + 2 * pad) * width,), x.dtype)
    first, last = share(N, part, parts)
    for n in range(first, last):
        for h in range(H):
            row = x[n, h].reshape(-1)
            for q in range(W * C):
                padded[(h + pad) * width + pad * C + q] = row[q]
        for r in range(OH):
            for c in range(OW):
                corner = (r * sh - top) * width + (c * sw - left) * C
                for f in range(K):
                    if y[n, r, c, f] > 0:
                        signal = dy[n, r, c, f]
                        db[f] += signal
                        seen = corner + offsets[switches[n, r, c, f]]
                        for i in range(k):
                            for q in range(ROW):
                                dw[f, i, q] += signal * padded[seen + i * width + q]
