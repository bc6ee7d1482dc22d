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
# A tile is read from, or written to, a flat array: pixel (i, j) stands at base + i * row + j * C, be that an image or a
# scratch tile for what hangs over the border. One body serves both, which halves the time to compile. Inner loops run
# over whole slices with their own index: Numba lets an index count from the end, and a sum that might be negative keeps
# the compiler from using vectors.


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


# -- three channels or fewer: the product with U belongs to the inverse transform ------------------------------------


@njit(fastmath=CONTRACT)
def _thin_rows(x, n, planes, t):
    """t (H + 4, 6, 3, tiles) = the first half of B' x B for every row of image n, two pixels of zeros around it.

    Neighbouring tiles of a row are two pixels apart: with even and odd columns apart (planes (2, tiles + 2)), the
    same column of all tiles is contiguous.
    """
    H, W, C = x.shape[1:]
    tiles = t.shape[3]
    t[:2] = 0
    t[H + 2 :] = 0
    even, odd = planes[0], planes[1]
    for h in range(H):
        for k in range(C):
            for c in range(W):
                planes[c % 2, c // 2 + 1] = x[n, h, c, k]
            d0, d2, d4 = even[:tiles], even[1 : tiles + 1], even[2 : tiles + 2]
            d1, d3, d5 = odd[:tiles], odd[1 : tiles + 1], odd[2 : tiles + 2]
            v = t[h + 2]
            _points(d0, d1, d2, d3, d4, d5, v[0, k], v[1, k], v[2, k], v[3, k], v[4, k], v[5, k])


@njit(fastmath=CONTRACT)
def _thin_columns(t, r, v):
    """v (36, 3, tiles) = the second half of B' x B for the row of tiles whose outputs start at row r."""
    for j in range(6):
        for k in range(t.shape[2]):
            d0, d1, d2 = t[r, j, k], t[r + 1, j, k], t[r + 2, j, k]
            d3, d4, d5 = t[r + 3, j, k], t[r + 4, j, k], t[r + 5, j, k]
            v0, v1, v2, v3 = v[j, k], v[6 + j, k], v[12 + j, k], v[18 + j, k]
            _points(d0, d1, d2, d3, d4, d5, v0, v1, v2, v3, v[24 + j, k], v[30 + j, k])


@njit(fastmath=CONTRACT)
def _thin_product(v, q, U, d):
    """d (2, 6, K) = A' [sum over 3 channels of v[..., q] * U], the columns of the inverse transform; U (36, 3, K)."""
    two = d.dtype.type(2)
    for j in range(6):
        a0, a1, a2 = v[j, 0, q], v[j, 1, q], v[j, 2, q]
        b0, b1, b2 = v[6 + j, 0, q], v[6 + j, 1, q], v[6 + j, 2, q]
        c0, c1, c2 = v[12 + j, 0, q], v[12 + j, 1, q], v[12 + j, 2, q]
        u0, u1, u2 = U[j, 0], U[j, 1], U[j, 2]
        p0, p1, p2 = U[6 + j, 0], U[6 + j, 1], U[6 + j, 2]
        s0, s1, s2 = U[12 + j, 0], U[12 + j, 1], U[12 + j, 2]
        y0, y1 = d[0, j], d[1, j]
        for k in range(len(y0)):
            m1 = b0 * p0[k] + b1 * p1[k] + b2 * p2[k]
            m2 = c0 * s0[k] + c1 * s1[k] + c2 * s2[k]
            y0[k] = a0 * u0[k] + a1 * u1[k] + a2 * u2[k] + (m1 + m2)
            y1[k] = m1 - m2
        a0, a1, a2 = v[18 + j, 0, q], v[18 + j, 1, q], v[18 + j, 2, q]
        b0, b1, b2 = v[24 + j, 0, q], v[24 + j, 1, q], v[24 + j, 2, q]
        c0, c1, c2 = v[30 + j, 0, q], v[30 + j, 1, q], v[30 + j, 2, q]
        u0, u1, u2 = U[18 + j, 0], U[18 + j, 1], U[18 + j, 2]
        p0, p1, p2 = U[24 + j, 0], U[24 + j, 1], U[24 + j, 2]
        s0, s1, s2 = U[30 + j, 0], U[30 + j, 1], U[30 + j, 2]
        for k in range(len(y0)):
            m3 = a0 * u0[k] + a1 * u1[k] + a2 * u2[k]
            m4 = b0 * p0[k] + b1 * p1[k] + b2 * p2[k]
            y0[k] += m3 + m4
            y1[k] += two * (m3 - m4) + (c0 * s0[k] + c1 * s1[k] + c2 * s2[k])


# -- the block, forward ----------------------------------------------------------------------------------------------


@njit
def _pool_image(conv, g, b, y, switches, n, where, kh, kw, sh, sw, top, left):
    """Pool scratch image g into y[n] and switches[n], then bias and ReLU: the maximum commutes with both."""
    OH, OW, K = y.shape[1:]
    places = np.arange(kh * kw).astype(y.dtype)
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
    rows, tiles = (H + 1) // 2, (W + 1) // 2
    planes, t = np.zeros((2, tiles + 2), x.dtype), np.zeros((2 * rows + 4, 6, THIN, tiles), x.dtype)
    v, d = np.empty((36, THIN, tiles), x.dtype), np.empty((2, 6, K), x.dtype)
    tile, where = np.empty(4 * K, x.dtype), np.empty(K, x.dtype)
    first, last = share(N, part, parts)
    for n in range(first, last):
        _thin_rows(x, n, planes, t)
        for r in range(rows):
            _thin_columns(t, 2 * r, v)
            for q in range(tiles):
                _thin_product(v, q, U, d)
                _output_rows(d, image, 0, 2 * r, 2 * q, tile, 2)
        _pool_image(image, 0, b, y, switches, n, where, kh, kw, sh, sw, top, left)


# -- the block, backward ---------------------------------------------------------------------------------------------


@njit
def _unpool_image(y, switches, dy, n, signal, g, db, offsets, sh, sw, top, left):
    """signal[g] (H, W, K) = dy[n] put where the switches say, where the ReLU was on; its sum is added to db."""
    OH, OW, K = dy.shape[1:]
    W = signal.shape[2]
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
    padded = np.zeros((H + 2 * pad) * width, x.dtype)
    first, last = share(N, part, parts)
    for n in range(first, last):
        for h in range(H):
            row = padded[(h + pad) * width + pad * C : (h + pad) * width + (pad + W) * C]
            row[:] = x[n, h].reshape(-1)
        for r in range(OH):
            for c in range(OW):
                corner = (r * sh - top) * width + (c * sw - left) * C
                value, signals, switch, db = y[n, r, c], dy[n, r, c], switches[n, r, c], dbs[part]
                for f in range(K):
                    if value[f] > 0:
                        signal, dw = signals[f], dws[part, f]
                        db[f] += signal
                        for i in range(k):
                            seen = np.uintp(corner + offsets[switch[f]] + i * width)
                            for q in range(ROW):
                                dw[i, q] += signal * padded[seen + np.uintp(q)]
