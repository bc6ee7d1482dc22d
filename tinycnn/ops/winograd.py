"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes an m x m tile of outputs from a 6 x 6 tile of inputs, m = 7 - k. Sampling both as
polynomials at the six points 0, 1, -1, 2, -2 and infinity makes the convolution a product point by point (Lavin and
Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A        36 products for m^2 outputs, not (m k)^2: 4 times fewer for 3x3, 2.8 for 5x5

For C input channels each of the 36 points is a matrix product (tiles, C)(C, K). B depends on the points alone, so 3x3
and 5x5 share it. The adjoint gives the gradients (for 3x3; for 5x5 sparse.py does better):

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

A group of images is taken through the whole block at a time: its convolution output lives in a scratch array per thread
and is pooled while it is in cache. The transforms enlarge rounding errors: to about 1e-6 relative in float32.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_tn
from .kernels import pool_image, share, unpool_image
from .parallel import PARTS, run, threads

TILES = 144  # a matrix product of so many rows is efficient, and its operands stay in the last cache
SLACK = 1024  # times the rounding unit and an image's largest output: ten times the largest error seen
CONTRACT = {"contract"}  # a * b + c may round once

G = {
    3: np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]),
    5: np.array([[1 / 4, 0, 0, 0, 0], [-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3], [1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3], [0, 0, 0, 0, 1]]),
}  # fmt: skip


def applies(w, stride, padding):
    """Whether a convolution has a shape that these kernels know: 3x3 or (forward alone) 5x5, stride 1, SAME."""
    return w.shape[0] == w.shape[1] and w.shape[0] in G and tuple(stride) == (1, 1) and padding == "SAME"


def transform_weights(w):
    """w (k, k, C, K) -> U (36, C, K) = G w G' for every pair of channels."""
    g = G[len(w)]
    return (np.kron(g, g).astype(w.dtype) @ w.reshape(-1, w.shape[2] * w.shape[3])).reshape(36, *w.shape[2:])


def transform_weights_back(dU, k):
    """dU (36, C, K) -> dw (k, k, C, K) = G' dU G: the adjoint of `transform_weights`."""
    g = np.kron(G[k], G[k]).astype(dU.dtype)
    return (g.T @ dU.reshape(36, -1)).reshape(k, k, *dU.shape[1:])


def forward(x, w, b, y, switches, pool, work, exact=False):
    """Fill y and switches with the pooled block; `pool` is (kh, kw, sh, sw, top, left) of the pool.

    exact: decide by plain sums which of a window is the first maximum and whether the ReLU is on, where the transforms'
    rounding might: what ties in a plain convolution ties here too.
    """
    m = 7 - len(w)
    scratch = _scratch(x, w.shape[3], m, work)
    filters = np.ascontiguousarray(w.transpose(3, 0, 1, 2)) if exact else np.empty((0,) * 4, w.dtype)
    slack = x.dtype.type(SLACK * np.finfo(x.dtype).eps)
    run(_forward, x, transform_weights(w), filters, slack, b, y, switches, (0,) * m, *pool, scratch=scratch)


def backward(x, w, y, switches, dy, pool, need_dx, work):
    """Return (dw, db, dx or None) of a 3x3 block for a gradient dy at the pooled output y."""
    k, m = 3, 4
    C, K = w.shape[2:]
    scratch = _scratch(x, K, m, work)
    dU, dbs = work("dU", (PARTS, 36, C, K), x.dtype), np.zeros((PARTS, K), x.dtype)
    dx = work("dx", x.shape if need_dx else (0, 0, 0, 0), x.dtype)
    flipped = transform_weights(np.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2)))
    run(_backward, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, (0,) * m, *pool, scratch=scratch)
    return transform_weights_back(dU.sum(0), k), dbs.sum(0), dx if need_dx else None


def _scratch(x, K, m, work):
    """Per thread: the convolution's side of a group of images (output or signal), and two transforms of its tiles.

    So many images are taken together that their tiles make an efficient matrix product.
    """
    _, H, W, C = x.shape
    tiles = -(-H // m) * -(-W // m)
    group = max(1, TILES // tiles)
    transformed = (threads(), min(TILES, group * tiles), 36, max(C, K))
    conv = work("conv", (threads(), group, H, W, K), x.dtype)
    return conv, work("V", transformed, x.dtype), work("M", transformed, x.dtype)


# -- transforms of one tile ------------------------------------------------------------------------------------------
#
# A tile is read from, or written to, a flat array: element (i, j, k) stands at base + i * row + j * C + k, be that an
# image or a scratch tile for what hangs over the border. One body serves both, which halves the time to compile. The
# sums are unsigned (uintp): Numba lets a signed index count from the end, which keeps the compiler from using vectors.


@njit
def _fetch(x, n, r, c, size, tile):
    """Copy the size x size window of image n at (r, c) into the flat `tile`, zero outside the image."""
    H, W, C = x.shape[1:]
    for i in range(size):
        for j in range(size):
            o = np.uintp((i * size + j) * C)
            if 0 <= r + i < H and 0 <= c + j < W:
                for k in range(C):
                    tile[o + np.uintp(k)] = x[n, r + i, c + j, k]
            else:
                for k in range(C):
                    tile[o + np.uintp(k)] = 0


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
    """v[q] (36, C) = B' x B of the 6 x 6 window of image n at (r, c)."""
    C = x.shape[3]
    src, base, row = _locate(x, n, r, c, 6, tile)
    two, four, five = x.dtype.type(2), x.dtype.type(4), x.dtype.type(5)
    for i in range(6):
        o0, o1, o2, o3, o4, o5 = _offsets(base + i * row, C)
        for k in range(C):
            u = np.uintp(k)
            d0, d1, d2, d3, d4, d5 = src[o0 + u], src[o1 + u], src[o2 + u], src[o3 + u], src[o4 + u], src[o5 + u]
            even1, odd1, even2, odd2 = d4 - four * d2, d3 - four * d1, d4 - d2, two * (d3 - d1)
            d[i, 0, k] = four * d0 - five * d2 + d4
            d[i, 1, k], d[i, 2, k] = even1 + odd1, even1 - odd1
            d[i, 3, k], d[i, 4, k] = even2 + odd2, even2 - odd2
            d[i, 5, k] = four * d1 - five * d3 + d5
    for j in range(6):
        for k in range(C):
            d0, d1, d2, d3, d4, d5 = d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k], d[4, j, k], d[5, j, k]
            even1, odd1, even2, odd2 = d4 - four * d2, d3 - four * d1, d4 - d2, two * (d3 - d1)
            v[q, j, k] = four * d0 - five * d2 + d4
            v[q, 6 + j, k], v[q, 12 + j, k] = even1 + odd1, even1 - odd1
            v[q, 18 + j, k], v[q, 24 + j, k] = even2 + odd2, even2 - odd2
            v[q, 30 + j, k] = four * d1 - five * d3 + d5


@njit(inline="always")
def _offsets(base, C):
    """Where six neighbouring pixels of C elements start."""
    o, step = np.uintp(base), np.uintp(C)
    return o, o + step, o + step + step, o + step + step + step, o + np.uintp(4 * C), o + np.uintp(5 * C)


@njit(fastmath=CONTRACT)
def _signal_tile(dy, n, r, c, tile, d, s, q):
    """s[q] (36, K) = A dy A' of the 4 x 4 tile of image n at (r, c)."""
    K = dy.shape[3]
    src, base, row = _locate(dy, n, r, c, 4, tile)
    two, four, eight = dy.dtype.type(2), dy.dtype.type(4), dy.dtype.type(8)
    for i in range(4):
        o0, o1, o2, o3, _, _ = _offsets(base + i * row, K)
        for k in range(K):
            u = np.uintp(k)
            y0, y1, y2, y3 = src[o0 + u], src[o1 + u], src[o2 + u], src[o3 + u]
            even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + four * y2, two * y1 + eight * y3
            d[i, 0, k], d[i, 5, k] = y0, y3
            d[i, 1, k], d[i, 2, k] = even1 + odd1, even1 - odd1
            d[i, 3, k], d[i, 4, k] = even2 + odd2, even2 - odd2
    for j in range(6):
        for k in range(K):
            y0, y1, y2, y3 = d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k]
            even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + four * y2, two * y1 + eight * y3
            s[q, j, k], s[q, 30 + j, k] = y0, y3
            s[q, 6 + j, k], s[q, 12 + j, k] = even1 + odd1, even1 - odd1
            s[q, 18 + j, k], s[q, 24 + j, k] = even2 + odd2, even2 - odd2


@njit(fastmath=CONTRACT)
def _output_tile(p, q, d, y, n, r, c, tile, zeros):
    """The m x m outputs of image n at (r, c) = A' p[q] A, as far as they lie inside; m = len(zeros)."""
    H, W, K = y.shape[1:]
    m = len(zeros)
    inside = r + m <= H and c + m <= W
    out, base, row = (y.reshape(-1), ((n * H + r) * W + c) * K, W * K) if inside else (tile, 0, m * K)
    two, four, eight = y.dtype.type(2), y.dtype.type(4), y.dtype.type(8)
    if m == 4:
        for j in range(6):
            for k in range(K):
                m0, m1, m2 = p[q, j, k], p[q, 6 + j, k], p[q, 12 + j, k]
                m3, m4, m5 = p[q, 18 + j, k], p[q, 24 + j, k], p[q, 30 + j, k]
                even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                d[0, j, k] = m0 + even1 + even2
                d[1, j, k] = odd1 + two * odd2
                d[2, j, k] = even1 + four * even2
                d[3, j, k] = odd1 + eight * odd2 + m5
        for i in range(4):
            o0, o1, o2, o3, _, _ = _offsets(base + i * row, K)
            for k in range(K):
                u = np.uintp(k)
                m0, m1, m2, m3, m4, m5 = d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k], d[i, 4, k], d[i, 5, k]
                even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
                out[o0 + u] = m0 + even1 + even2
                out[o1 + u] = odd1 + two * odd2
                out[o2 + u] = even1 + four * even2
                out[o3 + u] = odd1 + eight * odd2 + m5
    else:
        for j in range(6):
            for k in range(K):
                m0, m1, m2 = p[q, j, k], p[q, 6 + j, k], p[q, 12 + j, k]
                m3, m4, m5 = p[q, 18 + j, k], p[q, 24 + j, k], p[q, 30 + j, k]
                d[0, j, k] = m0 + (m1 + m2) + (m3 + m4)
                d[1, j, k] = (m1 - m2) + two * (m3 - m4) + m5
        for i in range(2):
            o0, o1, _, _, _, _ = _offsets(base + i * row, K)
            for k in range(K):
                u = np.uintp(k)
                m0, m1, m2, m3, m4, m5 = d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k], d[i, 4, k], d[i, 5, k]
                out[o0 + u] = m0 + (m1 + m2) + (m3 + m4)
                out[o1 + u] = (m1 - m2) + two * (m3 - m4) + m5
    if not inside:
        for i in range(min(m, H - r)):
            for j in range(min(m, W - c)):
                o = np.uintp((i * m + j) * K)
                for k in range(K):
                    y[n, r + i, c + j, k] = tile[o + np.uintp(k)]


# -- the block, forward ----------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _forward(part, parts, image, v, out, x, U, filters, slack, b, y, switches, zeros, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    K = y.shape[3]
    m = len(zeros)  # a tuple's length is known to the compiler, which then leaves out what other sizes need
    group, chunk, pad = len(image), len(v), (6 - m) // 2
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
                gemm(v[:size, e, :C], U[e], 0, out[:size, e, :K])
            for q in range(size):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                _output_tile(out, q, d, image, g, r, c, tile, zeros)
        for g in range(images):
            pool_image(image, g, b, y, switches, n0 + g, kh, kw, sh, sw, top, left)
            if len(filters):
                _settle(image, g, x, n0 + g, filters, slack, b, y, switches, kh, kw, sh, sw, top, left)


@njit(fastmath=CONTRACT)
def _settle(conv, g, x, n, filters, slack, b, y, switches, kh, kw, sh, sw, top, left):
    """Decide by plain sums where rounding might: several of a window near its maximum, or that near zero."""
    H, W, K = conv.shape[1:]
    OH, OW = y.shape[1:3]
    flat = conv[g].reshape(-1)
    largest = x.dtype.type(0)
    for i in range(len(flat)):
        largest = max(largest, abs(flat[i]))
    slack *= largest
    best, rivals, partial = np.empty(K, x.dtype), np.empty(K, x.dtype), np.empty(x.shape[3], x.dtype)
    one = x.dtype.type(1)
    for r in range(OH):
        i0, i1 = max(0, r * sh - top), min(H, r * sh - top + kh)
        for c in range(OW):
            j0, j1 = max(0, c * sw - left), min(W, c * sw - left + kw)
            best[:] = conv[g, i0, j0]
            rivals[:] = -one
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        best[k] = max(best[k], value[k])
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        rivals[k] += one if value[k] >= best[k] - slack else 0
            for k in range(K):
                a = best[k] + b[k]
                if a >= -slack and (rivals[k] > 0 or a <= slack):
                    highest = -np.inf
                    for i in range(i0, i1):
                        for j in range(j0, j1):
                            if conv[g, i, j, k] >= best[k] - slack:
                                a = _plain_sum(x, n, i, j, filters[k], partial) + b[k]
                                if a > highest:
                                    highest, h, v = a, i, j
                    if highest <= 0:
                        highest, h, v = 0, i0, j0
                    y[n, r, c, k] = highest
                    switches[n, r, c, k] = (h - r * sh + top) * kw + v - c * sw + left


@njit(fastmath=CONTRACT)
def _plain_sum(x, n, h, v, w, partial):
    """The convolution at (h, v) of image n with one filter w (k, k, C), always added up in the same order."""
    H, W, C = x.shape[1:]
    size = len(w)
    h, v = h - size // 2, v - size // 2
    partial[:] = 0
    for i in range(max(0, -h), min(size, H - h)):
        for j in range(max(0, -v), min(size, W - v)):
            a, b = x[n, h + i, v + j], w[i, j]
            for k in range(C):
                partial[k] += a[k] * b[k]
    total = partial[0]
    for k in range(1, C):
        total += partial[k]
    return total


# -- the block, backward ---------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _backward(
    part, parts, signal, v, s, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, zeros, kh, kw, sh, sw, top, left
):
    N, H, W, C = x.shape
    K = y.shape[3]
    m = len(zeros)
    group, chunk, pad = len(signal), len(v), (6 - m) // 2
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
                _signal_tile(signal, g, r, c, tile, d, s, q)
            for e in range(36):
                gemm_tn(v[:size, e, :C], s[:size, e, :K], 1, du[e])
            if need_dx:
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                    _input_tile(signal, g, r - pad, c - pad, tile, d, v, q)
                for e in range(36):
                    gemm(v[:size, e, :K], flipped[e], 0, s[:size, e, :C])
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * m, (q0 + q) % tw * m
                    _output_tile(s, q, d, dx, n0 + g, r, c, tile, zeros)
