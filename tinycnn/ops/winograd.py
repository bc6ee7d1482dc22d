"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes a 4 x 4 tile of outputs from an n x n tile of inputs, n = 3 + k. Sampling both as
polynomials at n points makes the convolution a product point by point (Lavin and Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A    n^2 products for 16 outputs, not 16 k^2: 4 times fewer for 3x3, 6.25 for 5x5

The points are 0, 1, -1, 2, -2, then for 5x5 1/2, -1/2, and infinity. For C input channels each pair of them is a matrix
product (tiles, C)(C, K). The adjoint gives the gradients (for 3x3; for 5x5 sparse.py does better):

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

A group of images is taken through the whole block at a time: its convolution output lives in a scratch array per thread
and is pooled while it is in cache. The transforms enlarge rounding errors: to about 1e-6 relative in float32.
"""

import numpy as np
from numba import njit

from .blas import gemm, gemm_tn
from .kernels import pool_image, share, unpool_image
from .parallel import PARTS, run, threads

ELEMENTS = 5184  # points of the tiles taken together: efficient matrix products, whose operands stay in the last cache
SLACK = 256  # times the rounding unit and an image's largest output: three times the largest error seen
CONTRACT = {"contract"}  # a * b + c may round once

G = {
    3: np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]),
    5: np.array([[1 / 4, 0, 0, 0, 0],
                 [1 / 18, 1 / 18, 1 / 18, 1 / 18, 1 / 18], [1 / 18, -1 / 18, 1 / 18, -1 / 18, 1 / 18],
                 [1 / 360, 1 / 180, 1 / 90, 1 / 45, 2 / 45], [1 / 360, -1 / 180, 1 / 90, -1 / 45, 2 / 45],
                 [16 / 45, 8 / 45, 4 / 45, 2 / 45, 1 / 45], [16 / 45, -8 / 45, 4 / 45, -2 / 45, 1 / 45],
                 [0, 0, 0, 0, 1 / 4]]),
}  # fmt: skip


def applies(w, stride, padding):
    """Whether a convolution has a shape that these kernels know: 3x3 or (forward alone) 5x5, stride 1, SAME."""
    return w.shape[0] == w.shape[1] and w.shape[0] in G and tuple(stride) == (1, 1) and padding == "SAME"


def transform_weights(w):
    """w (k, k, C, K) -> U (n^2, C, K) = G w G' for every pair of channels."""
    g = G[len(w)]
    return (np.kron(g, g).astype(w.dtype) @ w.reshape(-1, w.shape[2] * w.shape[3])).reshape(-1, *w.shape[2:])


def transform_weights_back(dU, k):
    """dU (36, C, K) -> dw (k, k, C, K) = G' dU G: the adjoint of `transform_weights`."""
    g = np.kron(G[k], G[k]).astype(dU.dtype)
    return (g.T @ dU.reshape(36, -1)).reshape(k, k, *dU.shape[1:])


def forward(x, w, b, y, switches, pool, work, exact=False):
    """Fill y and switches with the pooled block; `pool` is (kh, kw, sh, sw, top, left) of the pool.

    exact: decide by plain sums which of a window is the first maximum and whether the ReLU is on, where the transforms'
    rounding might: what ties in a plain convolution ties here too.
    """
    n = 3 + len(w)
    scratch = _scratch(x, w.shape[3], n, work)
    filters = np.ascontiguousarray(w.transpose(3, 0, 1, 2)) if exact else np.empty((0,) * 4, w.dtype)
    slack = x.dtype.type(SLACK * np.finfo(x.dtype).eps)
    run(_forward, x, transform_weights(w), filters, slack, b, y, switches, (0,) * n, *pool, scratch=scratch)


def backward(x, w, y, switches, dy, pool, need_dx, work):
    """Return (dw, db, dx or None) of a 3x3 block for a gradient dy at the pooled output y."""
    k, n = 3, 6
    C, K = w.shape[2:]
    scratch = _scratch(x, K, n, work)
    dU, dbs = work("dU", (PARTS, 36, C, K), x.dtype), np.zeros((PARTS, K), x.dtype)
    dx = work("dx", x.shape if need_dx else (0, 0, 0, 0), x.dtype)
    flipped = transform_weights(np.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2)))
    run(_backward, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, (0,) * n, *pool, scratch=scratch)
    return transform_weights_back(dU.sum(0), k), dbs.sum(0), dx if need_dx else None


def _scratch(x, K, n, work):
    """Per thread: the convolution's side of a group of images (output or signal), and two transforms of its tiles.

    So many images are taken together that their tiles make an efficient matrix product.
    """
    _, H, W, C = x.shape
    tiles, most = -(-H // 4) * -(-W // 4), ELEMENTS // n**2
    group = max(1, most // tiles)
    transformed = (threads(), min(most, group * tiles), n * n, max(C, K))
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


@njit
def _constants(x):
    """2, 4, 5, 8, 17, 21 and 1/2 in the dtype of x."""
    two, four, five, eight = x.dtype.type(2), x.dtype.type(4), x.dtype.type(5), x.dtype.type(8)
    return two, four, five, eight, x.dtype.type(17), x.dtype.type(21), x.dtype.type(0.5)


@njit(fastmath=CONTRACT)
def _six(d0, d1, d2, d3, d4, d5, constants):
    """B' d for the six points of a 3x3 convolution."""
    two, four, five, _, _, _, _ = constants
    even1, odd1, even2, odd2 = d4 - four * d2, d3 - four * d1, d4 - d2, two * (d3 - d1)
    first, last = four * d0 - five * d2 + d4, four * d1 - five * d3 + d5
    return first, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, last


@njit(fastmath=CONTRACT)
def _eight(d0, d1, d2, d3, d4, d5, d6, d7, constants):
    """B' d for the eight points of a 5x5 convolution."""
    two, four, five, _, seventeen, twenty_one, _ = constants
    even1, odd1 = seventeen * d4 - four * (d2 + d6), seventeen * d3 - four * (d1 + d5)
    even2, odd2 = d2 - five * d4 + four * d6, two * (d1 - five * d3 + four * d5)
    even3, odd3 = two * (four * d2 - five * d4 + d6), four * d1 - five * d3 + d5
    first, last = four * (d0 - d6) + twenty_one * (d4 - d2), four * (d7 - d1) + twenty_one * (d3 - d5)
    return first, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, even3 + odd3, even3 - odd3, last


@njit(fastmath=CONTRACT)
def _signal(y0, y1, y2, y3, constants):
    """A y for six points."""
    two, four, _, eight, _, _, _ = constants
    even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + four * y2, two * y1 + eight * y3
    return y0, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, y3


@njit(fastmath=CONTRACT)
def _four_of_six(m0, m1, m2, m3, m4, m5, constants):
    """A' m for six points."""
    two, four, _, eight, _, _, _ = constants
    even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + even1 + even2, odd1 + two * odd2, even1 + four * even2, odd1 + eight * odd2 + m5


@njit(fastmath=CONTRACT)
def _four_of_eight(m0, m1, m2, m3, m4, m5, m6, m7, constants):
    """A' m for eight points."""
    two, four, _, eight, _, _, half = constants
    even1, odd1, even2, odd2, even3, odd3 = m1 + m2, m1 - m2, m3 + m4, m3 - m4, m5 + m6, m5 - m6
    return (
        m0 + even1 + even2 + even3,
        odd1 + two * odd2 + half * odd3,
        even1 + four * even2 + half * half * even3,
        odd1 + eight * odd2 + half * half * half * odd3 + m7,
    )


@njit(inline="always")
def _offsets(base, C):
    """Where eight neighbouring pixels of C elements start."""
    o, step = np.uintp(base), np.uintp(C)
    o2, o4 = o + step + step, o + np.uintp(4 * C)
    return o, o + step, o2, o2 + step, o4, o4 + step, o4 + step + step, o + np.uintp(7 * C)


@njit(fastmath=CONTRACT)
def _input_tile(x, n, r, c, tile, d, v, q, points):
    """v[q] (len(points)^2, C) = B' x B of the window of image n at (r, c)."""
    C = x.shape[3]
    src, base, row = _locate(x, n, r, c, len(points), tile)
    constants = _constants(x)
    if len(points) == 6:
        for i in range(6):
            o0, o1, o2, o3, o4, o5, _, _ = _offsets(base + i * row, C)
            for k in range(C):
                u = np.uintp(k)
                x0, x1, x2, x3 = src[o0 + u], src[o1 + u], src[o2 + u], src[o3 + u]
                a = _six(x0, x1, x2, x3, src[o4 + u], src[o5 + u], constants)
                d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k], d[i, 4, k], d[i, 5, k] = a
        for j in range(6):
            for k in range(C):
                a = _six(d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k], d[4, j, k], d[5, j, k], constants)
                v[q, j, k], v[q, 6 + j, k], v[q, 12 + j, k], v[q, 18 + j, k], v[q, 24 + j, k], v[q, 30 + j, k] = a
    else:
        for i in range(8):
            o0, o1, o2, o3, o4, o5, o6, o7 = _offsets(base + i * row, C)
            for k in range(C):
                u = np.uintp(k)
                x0, x1, x2, x3 = src[o0 + u], src[o1 + u], src[o2 + u], src[o3 + u]
                b = _eight(x0, x1, x2, x3, src[o4 + u], src[o5 + u], src[o6 + u], src[o7 + u], constants)
                d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k] = b[0], b[1], b[2], b[3]
                d[i, 4, k], d[i, 5, k], d[i, 6, k], d[i, 7, k] = b[4], b[5], b[6], b[7]
        for j in range(8):
            for k in range(C):
                d0, d1, d2, d3 = d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k]
                b = _eight(d0, d1, d2, d3, d[4, j, k], d[5, j, k], d[6, j, k], d[7, j, k], constants)
                v[q, j, k], v[q, 8 + j, k], v[q, 16 + j, k], v[q, 24 + j, k] = b[0], b[1], b[2], b[3]
                v[q, 32 + j, k], v[q, 40 + j, k], v[q, 48 + j, k], v[q, 56 + j, k] = b[4], b[5], b[6], b[7]


@njit(fastmath=CONTRACT)
def _signal_tile(dy, n, r, c, tile, d, s, q):
    """s[q] (36, K) = A dy A' of the 4 x 4 tile of image n at (r, c)."""
    K = dy.shape[3]
    src, base, row = _locate(dy, n, r, c, 4, tile)
    constants = _constants(dy)
    for i in range(4):
        o0, o1, o2, o3, _, _, _, _ = _offsets(base + i * row, K)
        for k in range(K):
            u = np.uintp(k)
            a = _signal(src[o0 + u], src[o1 + u], src[o2 + u], src[o3 + u], constants)
            d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k], d[i, 4, k], d[i, 5, k] = a
    for j in range(6):
        for k in range(K):
            a = _signal(d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k], constants)
            s[q, j, k], s[q, 6 + j, k], s[q, 12 + j, k], s[q, 18 + j, k], s[q, 24 + j, k], s[q, 30 + j, k] = a


@njit(fastmath=CONTRACT)
def _output_tile(p, q, d, y, n, r, c, tile, points):
    """The 4 x 4 outputs of image n at (r, c) = A' p[q] A, as far as they lie inside."""
    H, W, K = y.shape[1:]
    inside = r + 4 <= H and c + 4 <= W
    out, base, row = (y.reshape(-1), ((n * H + r) * W + c) * K, W * K) if inside else (tile, 0, 4 * K)
    constants = _constants(y)
    for j in range(len(points)):
        for k in range(K):
            if len(points) == 6:
                m0, m1, m2 = p[q, j, k], p[q, 6 + j, k], p[q, 12 + j, k]
                a = _four_of_six(m0, m1, m2, p[q, 18 + j, k], p[q, 24 + j, k], p[q, 30 + j, k], constants)
            else:
                m0, m1, m2, m3 = p[q, j, k], p[q, 8 + j, k], p[q, 16 + j, k], p[q, 24 + j, k]
                m4, m5, m6, m7 = p[q, 32 + j, k], p[q, 40 + j, k], p[q, 48 + j, k], p[q, 56 + j, k]
                a = _four_of_eight(m0, m1, m2, m3, m4, m5, m6, m7, constants)
            d[0, j, k], d[1, j, k], d[2, j, k], d[3, j, k] = a
    for i in range(4):
        o0, o1, o2, o3, _, _, _, _ = _offsets(base + i * row, K)
        for k in range(K):
            u = np.uintp(k)
            m0, m1, m2, m3, m4, m5 = d[i, 0, k], d[i, 1, k], d[i, 2, k], d[i, 3, k], d[i, 4, k], d[i, 5, k]
            if len(points) == 6:
                a = _four_of_six(m0, m1, m2, m3, m4, m5, constants)
            else:
                a = _four_of_eight(m0, m1, m2, m3, m4, m5, d[i, 6, k], d[i, 7, k], constants)
            out[o0 + u], out[o1 + u], out[o2 + u], out[o3 + u] = a
    if not inside:
        for i in range(min(4, H - r)):
            for j in range(min(4, W - c)):
                o = np.uintp((i * 4 + j) * K)
                for k in range(K):
                    y[n, r + i, c + j, k] = tile[o + np.uintp(k)]


# -- the block, forward ----------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, fastmath=CONTRACT)
def _forward(part, parts, image, v, out, x, U, filters, slack, b, y, switches, points, kh, kw, sh, sw, top, left):
    N, H, W, C = x.shape
    K = y.shape[3]
    size = len(points)  # a tuple's length is known to the compiler, which then leaves out what other sizes need
    group, chunk, pad = len(image), len(v), size // 2 - 2
    tw = (W + 3) // 4
    per_image = (H + 3) // 4 * tw
    tile, d = np.empty(size * size * max(C, K), x.dtype), np.empty((size, size, max(C, K)), x.dtype)
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for q0 in range(0, images * per_image, chunk):
            count = min(chunk, images * per_image - q0)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _input_tile(x, n0 + g, r - pad, c - pad, tile, d, v, q, points)
            for e in range(size * size):
                gemm(v[:count, e, :C], U[e], 0, out[:count, e, :K])
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _output_tile(out, q, d, image, g, r, c, tile, points)
        for g in range(images):
            pool_image(image, g, b, y, switches, n0 + g, kh, kw, sh, sw, top, left)
            if len(filters):
                _settle(image, g, x, n0 + g, filters, slack, b, y, switches, kh, kw, sh, sw, top, left)


@njit(fastmath=CONTRACT)
def _settle(conv, g, x, n, filters, slack, b, y, switches, kh, kw, sh, sw, top, left):
    """Decide by plain sums where rounding might: several of a window near its maximum, or that near zero.

    Where outputs see the same inputs (a plain background) the first of them stands for all: `twin` names it.
    """
    H, W, K = conv.shape[1:]
    OH, OW = y.shape[1:3]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    best, near, partial = np.zeros(K, x.dtype), np.empty(K, x.dtype), np.empty(x.shape[3], x.dtype)
    for h in range(H):
        for v in range(W):
            value = conv[g, h, v]
            for k in range(K):
                best[k] = abs(value[k]) if abs(value[k]) > best[k] else best[k]
    largest = best.max()
    if largest == 0:  # of zeros
        return
    slack *= largest
    twin = np.empty(kh * kw, np.int64)
    for r in range(OH):
        i0, i1 = max(0, r * sh - top), min(H, r * sh - top + kh)
        for c in range(OW):
            j0, j1 = max(0, c * sw - left), min(W, c * sw - left + kw)
            width = j1 - j0
            value = conv[g, i0, j0]
            for k in range(K):
                best[k], near[k] = value[k], zero
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        best[k] = value[k] if value[k] > best[k] else best[k]
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        near[k] += one if value[k] >= best[k] - slack else zero
            twin[0] = -1
            for k in range(K):
                a = best[k] + b[k]
                if not ((a >= -slack) & ((near[k] > one) | (a <= slack))):  # one branch, seldom taken
                    continue
                if twin[0] < 0:
                    for e in range((i1 - i0) * width):
                        twin[e] = 0
                        while not _same(x, n, i0 + e // width, j0 + e % width, twin[e], i0, j0, width, len(filters[0])):
                            twin[e] += 1
                first, several = -1, False
                for e in range((i1 - i0) * width):
                    if conv[g, i0 + e // width, j0 + e % width, k] >= best[k] - slack:
                        first = e if first < 0 else first
                        several |= twin[e] != twin[first]
                if first < 0:  # infinite weights
                    continue
                if several or a <= slack:
                    a = -np.inf
                    for e in range((i1 - i0) * width):
                        h, v, t = i0 + e // width, j0 + e % width, twin[e]
                        seen = t < e and conv[g, i0 + t // width, j0 + t % width, k] >= best[k] - slack
                        if conv[g, h, v, k] >= best[k] - slack and not seen:
                            here = _plain_sum(x, n, h, v, filters[k], partial) + b[k]
                            if here > a:
                                a, first = here, e
                    if a <= 0:
                        a, first = 0, 0
                    y[n, r, c, k] = a
                h, v = i0 + first // width - r * sh + top, j0 + first % width - c * sw + left
                switches[n, r, c, k] = h * kw + v


@njit
def _same(x, n, h, v, e, i0, j0, width, size):
    """Whether the outputs (h, v) and number e of a window at (i0, j0) see the same inputs."""
    H, W, C = x.shape[1:]
    h0, v0 = i0 + e // width, j0 + e % width
    if h == h0 and v == v0:
        return True
    pad = size // 2
    if min(h, v, h0, v0) < pad or max(h, h0) >= H - pad or max(v, v0) >= W - pad:
        return False
    for i in range(-pad, pad + 1):
        for j in range(-pad, pad + 1):
            a, b = x[n, h + i, v + j], x[n, h0 + i, v0 + j]
            for k in range(C):
                if a[k] != b[k]:
                    return False
    return True


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
    part, parts, signal, v, s, x, flipped, y, switches, dy, dU, dbs, dx, need_dx, points, kh, kw, sh, sw, top, left
):
    N, H, W, C = x.shape
    K = y.shape[3]
    group, chunk, pad = len(signal), len(v), 1
    tw = (W + 3) // 4
    per_image = (H + 3) // 4 * tw
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
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _input_tile(x, n0 + g, r - pad, c - pad, tile, d, v, q, points)
                _signal_tile(signal, g, r, c, tile, d, s, q)
            for e in range(36):
                gemm_tn(v[:size, e, :C], s[:size, e, :K], 1, du[e])
            if need_dx:
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                    _input_tile(signal, g, r - pad, c - pad, tile, d, v, q, points)
                for e in range(36):
                    gemm(v[:size, e, :K], flipped[e], 0, s[:size, e, :C])
                for q in range(size):
                    g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                    _output_tile(s, q, d, dx, n0 + g, r, c, tile, points)
