"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes a 4 x 4 tile of outputs from an n x n tile of inputs, n = 3 + k. Sampling both as
polynomials at n points makes the convolution a product point by point (Lavin and Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A    n^2 products for 16 outputs, not 16 k^2: 4 times fewer for 3x3, 6.25 for 5x5

The points are 0, 1, -1, 2, -2, then for 5x5 1/2, -1/2, and infinity. For C input channels each pair of them is a matrix
product (tiles, C)(C, K). The adjoint gives the gradients (dw for 3x3 alone; for 5x5 sparse.py does better):

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

A group of images is taken through the whole block at a time: its convolution output lives in a scratch array per thread
and is pooled while it is in cache. The transforms enlarge rounding errors: to about 1e-6 relative in float32.
"""

import functools
import operator

import numpy as np
from numba import njit

from .kernels import pool_image, share, unpool_image
from .parallel import PARTS, kernel, run, threads
from .simd import LANES, products4, products6, round_up, rowwise, whole_vectors

TILES = 48  # that are taken together, a multiple of 6: what they are transformed to stays in the last cache
FEWER = 24  # the same where the weights' gradient is read and written for each of these chunks
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
    """Whether a convolution has a shape that these kernels know: 3x3 or 5x5 (but for dw), stride 1, SAME."""
    return w.shape[0] == w.shape[1] and w.shape[0] in G and tuple(stride) == (1, 1) and padding == "SAME"


def transform_weights(w):
    """w (k, k, C, K) -> U (n^2, C, K) = G w G' for every pair of channels."""
    k, U = len(w), np.empty(((3 + len(w)) ** 2, *w.shape[2:]), w.dtype)
    _both_ways(w.reshape(-1), k, U.reshape(-1), w[0, 0].size, (0,) * (3 + k))
    return U


def transform_weights_back(dU):
    """dU (36, C, K) -> dw (3, 3, C, K) = G' dU G: the adjoint of `transform_weights`."""
    dw = np.empty((3, 3, *dU.shape[1:]), dU.dtype)
    _both_ways(dU.reshape(-1), 6, dw.reshape(-1), dU[0].size, (0,) * 3)
    return dw


def forward(x, w, b, y, switches, pool, work, exact=False):
    """Fill y and switches with the pooled block; `pool` is (kh, kw, sh, sw, top, left) of the pool.

    exact: decide by plain sums which of a window is the first maximum and whether the ReLU is on, where the transforms'
    rounding might: what ties in a plain convolution ties here too.
    """
    n = 3 + len(w)
    scratch = _scratch(x, w.shape[3], n, work)
    filters = np.ascontiguousarray(w.transpose(3, 0, 1, 2)) if exact else np.empty((0,) * 4, w.dtype)
    slack = x.dtype.type(SLACK * np.finfo(x.dtype).eps)
    args = (x, transform_weights(whole_vectors(w)), filters, slack, b, y, switches, (0,) * n, *pool)
    run(_forward, *args, scratch=scratch)


def backward_weights(x, w, y, switches, dy, pool, work):
    """Return (dw, db) of a 3x3 block for a gradient dy at the pooled output y."""
    n, (C, K) = 6, w.shape[2:]
    dU, dbs = work("dU", (PARTS, n * n, round_up(C, 4), round_up(K)), x.dtype), np.zeros((PARTS, K), x.dtype)
    run(_backward_weights, x, y, switches, dy, dU, dbs, (0,) * n, *pool, scratch=_scratch(x, K, n, work, FEWER))
    return np.ascontiguousarray(transform_weights_back(dU.sum(0))[:, :, :C, :K]), dbs.sum(0)


def backward_data(w, y, switches, dy, dx, pool, work):
    """Fill dx, the gradient at the input, for a gradient dy at the pooled output y."""
    n = 3 + len(w)
    flipped = transform_weights(whole_vectors(w[::-1, ::-1].transpose(0, 1, 3, 2)))
    scratch = _scratch(dx, w.shape[3], n, work)
    run(_backward_data, flipped, y, switches, dy, dx, (0,) * n, *pool, scratch=scratch)


def _scratch(x, K, n, work, tiles=TILES):
    """Per thread: the convolution's side of a group of images (output or signal), and two transforms of its tiles.

    So many images are taken together that their tiles make whole chunks.
    """
    _, H, W, C = x.shape
    group = max(1, tiles // (-(-H // 4) * -(-W // 4)))
    # One point more than there are: tiles a power of two apart would share a few lines of the cache.
    transformed = (threads(), tiles, n * n + 1, round_up(max(C, K)))
    conv = work("conv", (threads(), group, H, W, round_up(K)), x.dtype)
    return conv, work("V", transformed, x.dtype), work("M", transformed, x.dtype)


# -- transforms of one tile ------------------------------------------------------------------------------------------
#
# Each is applied down the columns, then along the rows: B' x B = (B' (B' x)')'. What is a number in these formulas is,
# in the kernels that simd.py makes of them, a vector of channels.


def _six(d0, d1, d2, d3, d4, d5):
    """B' d for the six points of a 3x3 convolution."""
    even1, odd1, even2, odd2 = d4 - 4 * d2, d3 - 4 * d1, d4 - d2, 2 * (d3 - d1)
    first, last = 4 * d0 - 5 * d2 + d4, 4 * d1 - 5 * d3 + d5
    return first, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, last


def _eight(d0, d1, d2, d3, d4, d5, d6, d7):
    """B' d for the eight points of a 5x5 convolution."""
    even1, odd1 = 17 * d4 - 4 * (d2 + d6), 17 * d3 - 4 * (d1 + d5)
    even2, odd2 = d2 - 5 * d4 + 4 * d6, 2 * (d1 - 5 * d3 + 4 * d5)
    even3, odd3 = 2 * (4 * d2 - 5 * d4 + d6), 4 * d1 - 5 * d3 + d5
    first, last = 4 * (d0 - d6) + 21 * (d4 - d2), 4 * (d7 - d1) + 21 * (d3 - d5)
    return first, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, even3 + odd3, even3 - odd3, last


def _signal(y0, y1, y2, y3):
    """A y for six points."""
    even1, odd1, even2, odd2 = y0 + y2, y1 + y3, y0 + 4 * y2, 2 * y1 + 8 * y3
    return y0, even1 + odd1, even1 - odd1, even2 + odd2, even2 - odd2, y3


def _four_of_six(m0, m1, m2, m3, m4, m5):
    """A' m for six points."""
    even1, odd1, even2, odd2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return m0 + even1 + even2, odd1 + 2 * odd2, even1 + 4 * even2, odd1 + 8 * odd2 + m5


def _four_of_eight(m0, m1, m2, m3, m4, m5, m6, m7):
    """A' m for eight points."""
    even1, odd1, even2, odd2, even3, odd3 = m1 + m2, m1 - m2, m3 + m4, m3 - m4, m5 + m6, m5 - m6
    return (
        m0 + even1 + even2 + even3,
        odd1 + 2 * odd2 + 1 / 2 * odd3,
        even1 + 4 * even2 + 1 / 4 * even3,
        odd1 + 8 * odd2 + 1 / 8 * odd3 + m7,
    )


def _times(matrix):
    """A formula: the product with a constant matrix."""

    def formula(*numbers):
        sums = [[(float(a), d) for a, d in zip(row, numbers) if a] for row in matrix]
        return [functools.reduce(operator.add, (a * d for a, d in terms)) for terms in sums]

    return rowwise(formula, matrix.shape[1])


_weights6, _weights8, _weights_back = _times(G[3]), _times(G[5]), _times(G[3].T)
_input6, _input8, _signal6 = rowwise(_six), rowwise(_eight), rowwise(_signal)
_output6, _output8 = rowwise(_four_of_six), rowwise(_four_of_eight)


@kernel
def _both_ways(x, m, y, size, points):
    """y (n, n) = T x (m, m) T' for numbers that are rows of `size`; n = len(points) says which T: G or, for 3, G'."""
    n = len(points)
    half = np.empty(n * m * size, x.dtype)
    if n == 6:
        _weights6(x, 0, m * size, half, 0, m * size, m * size)
        for i in range(n):
            _weights6(half, i * m * size, size, y, i * n * size, size, size)
    elif n == 8:
        _weights8(x, 0, m * size, half, 0, m * size, m * size)
        for i in range(n):
            _weights8(half, i * m * size, size, y, i * n * size, size, size)
    else:
        _weights_back(x, 0, m * size, half, 0, m * size, m * size)
        for i in range(n):
            _weights_back(half, i * m * size, size, y, i * n * size, size, size)


@njit
def _fetch(x, n, r, c, size, tile):
    """Copy the size x size window of image n at (r, c) into the flat `tile`, zero outside the image."""
    H, W, C = x.shape[1:]
    flat, j0, j1 = x.reshape(-1), max(0, -c), min(size, W - c)
    tile[: size * size * C] = 0
    for i in range(max(0, -r), min(size, H - r)):
        src, o = np.uintp(((n * H + r + i) * W + c + j0) * C), np.uintp((i * size + j0) * C)
        for q in range((j1 - j0) * C):
            tile[o + np.uintp(q)] = flat[src + np.uintp(q)]


@njit
def _locate(x, n, r, c, size, tile):
    """(flat array, base, row) of the window of image n at (r, c): x where it lies inside, else `tile`, filled."""
    H, W, C = x.shape[1:]
    if r >= 0 and c >= 0 and r + size <= H and c + size <= W:
        return x.reshape(-1), ((n * H + r) * W + c) * C, W * C
    _fetch(x, n, r, c, size, tile)
    return tile, 0, size * C


@njit
def _input_tile(x, n, r, c, tile, d, v, q, points):
    """v[q] (len(points)^2, :C) = B' x B of the window of image n at (r, c)."""
    size, C, width = len(points), x.shape[3], v.shape[2]
    src, base, row = _locate(x, n, r, c, size, tile)
    out, o = v.reshape(-1), q * v.shape[1] * width
    if size == 6:
        _input6(src, base, row, d, 0, 6 * C, 6 * C)
        for i in range(6):
            _input6(d, i * 6 * C, C, out, o + i * 6 * width, width, C)
    else:
        _input8(src, base, row, d, 0, 8 * C, 8 * C)
        for i in range(8):
            _input8(d, i * 8 * C, C, out, o + i * 8 * width, width, C)


@njit
def _signal_tile(dy, n, r, c, tile, d, s, q):
    """s[q] (36, :K) = A dy A' of the 4 x 4 tile of image n at (r, c)."""
    K, width = dy.shape[3], s.shape[2]
    src, base, row = _locate(dy, n, r, c, 4, tile)
    out, o = s.reshape(-1), q * s.shape[1] * width
    _signal6(src, base, row, d, 0, 4 * K, 4 * K)
    for i in range(6):
        _signal6(d, i * 4 * K, K, out, o + i * 6 * width, width, K)


@njit
def _output_tile(m, q, d, y, n, r, c, tile, points):
    """The 4 x 4 outputs of image n at (r, c) = A' m[q] A, as far as they lie inside."""
    H, W, K = y.shape[1:]
    size, width, flat = len(points), m.shape[2], y.reshape(-1)
    inside = r + 4 <= H and c + 4 <= W
    out, base, row = (flat, ((n * H + r) * W + c) * K, W * K) if inside else (tile, 0, 4 * K)
    src, o = m.reshape(-1), q * m.shape[1] * width
    if size == 6:
        _output6(src, o, 6 * width, d, 0, 6 * width, 6 * width)
        for i in range(4):
            _output6(d, i * 6 * width, width, out, base + i * row, K, K)
    else:
        _output8(src, o, 8 * width, d, 0, 8 * width, 8 * width)
        for i in range(4):
            _output8(d, i * 8 * width, width, out, base + i * row, K, K)
    if not inside:
        for i in range(min(4, H - r)):
            o, to = np.uintp(i * 4 * K), np.uintp(((n * H + r + i) * W + c) * K)
            for q in range(min(4, W - c) * K):
                flat[to + np.uintp(q)] = tile[o + np.uintp(q)]


# -- products of many tiles, point by point --------------------------------------------------------------------------


@njit
def _multiply(v, U, out, count):
    """out[q, e] (K) = v[q, e] (C) U[e] for the first `count` tiles q, rounded up to a multiple of 6."""
    C, K = U.shape[1:]
    tile, point = v.shape[1] * v.shape[2], v.shape[2]
    v, u, out = v.reshape(-1), U.reshape(-1), out.reshape(-1)
    for e in range(len(U)):
        for k in range(0, K, LANES):
            for q in range(0, count, 6):
                o = q * tile + e * point
                products6(v, o, tile, 1, u, e * C * K + k, K, out, o + k, tile, C, False)


@njit
def _correlate(v, s, dU, count):
    """dU[e] (C, K) += the sum over the first `count` tiles q of v[q, e] (C) s[q, e]' (K)."""
    C, K = dU.shape[1:]
    tile, point = v.shape[1] * v.shape[2], v.shape[2]
    v, s, du = v.reshape(-1), s.reshape(-1), dU.reshape(-1)
    for e in range(len(dU)):
        for k in range(0, K, LANES):
            for c in range(0, C, 4):
                o, to = e * point, (e * C + c) * K + k
                products4(v, o + c, 1, tile, s, o + k, tile, du, to, K, count, True)


# -- the block, forward ----------------------------------------------------------------------------------------------


@kernel
def _forward(part, parts, image, v, out, x, U, filters, slack, b, y, switches, points, kh, kw, sh, sw, top, left):
    N, H, W, _ = x.shape
    size = len(points)  # a tuple's length is known to the compiler, which then leaves out what other sizes need
    group, chunk, pad = len(image), len(v), size // 2 - 2
    tw = (W + 3) // 4
    per_image = (H + 3) // 4 * tw
    tile, d = np.empty(size * size * v.shape[2], x.dtype), np.empty(size * size * v.shape[2], x.dtype)
    near = np.empty(y.shape[1:3], np.bool_)
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for q0 in range(0, images * per_image, chunk):
            count = min(chunk, images * per_image - q0)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _input_tile(x, n0 + g, r - pad, c - pad, tile, d, v, q, points)
            _multiply(v, U, out, count)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _output_tile(out, q, d, image, g, r, c, tile, points)
        for g in range(images):
            doubt = x.dtype.type(-1)
            if len(filters):
                doubt = slack * _largest(image[g])
            pool_image(image[g], b, True, doubt, near, y, switches, n0 + g, kh, kw, sh, sw, top, left)
            if doubt > 0:  # not of zeros
                _settle(image, g, x, n0 + g, filters, doubt, near, b, y, switches, kh, kw, sh, sw, top, left)


@njit
def _largest(image):
    """The largest absolute value of an image (H, W, K)."""
    H, W, K = image.shape
    best, pixels = np.zeros(K, image.dtype), image.reshape(H * W, K)
    for q in range(H * W):
        value = pixels[q]
        for k in range(K):
            best[k] = abs(value[k]) if abs(value[k]) > best[k] else best[k]
    return best.max()


@njit(fastmath=CONTRACT)
def _settle(conv, g, x, n, filters, slack, near, b, y, switches, kh, kw, sh, sw, top, left):
    """Decide by plain sums in the windows that are `near`: several values near the maximum, or that near zero.

    Where outputs see the same inputs (a plain background) the first of them stands for all: `twin` names it.
    """
    H, W = conv.shape[1:3]
    OH, OW, K = y.shape[1:]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    best, rivals, partial = np.empty(K, x.dtype), np.empty(K, x.dtype), np.empty(x.shape[3], x.dtype)
    twin = np.empty(kh * kw, np.int64)
    for r in range(OH):
        i0, i1 = max(0, r * sh - top), min(H, r * sh - top + kh)
        for c in range(OW):
            if not near[r, c]:
                continue
            j0, j1 = max(0, c * sw - left), min(W, c * sw - left + kw)
            width = j1 - j0
            value = conv[g, i0, j0]
            for k in range(K):
                best[k], rivals[k] = value[k], zero
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        best[k] = value[k] if value[k] > best[k] else best[k]
            for i in range(i0, i1):
                for j in range(j0, j1):
                    value = conv[g, i, j]
                    for k in range(K):
                        rivals[k] += one if value[k] >= best[k] - slack else zero
            twin[0] = -1
            for k in range(K):
                a = best[k] + b[k]
                if not ((a >= -slack) & ((rivals[k] > one) | (a <= slack))):  # one branch, seldom taken
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


@kernel
def _backward_weights(
    part, parts, signal, v, s, x, y, switches, dy, dU, dbs, points, kh, kw, sh, sw, top, left
):  # fmt: skip
    N, H, W, _ = x.shape
    group, chunk = len(signal), len(v)
    tw = (W + 3) // 4
    per_image = (H + 3) // 4 * tw
    tile, d = np.empty(36 * v.shape[2], x.dtype), np.empty(36 * v.shape[2], x.dtype)
    dU[part] = 0
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for g in range(images):
            unpool_image(y, switches, dy, n0 + g, signal, g, dbs[part], kh, kw, sh, sw, top, left)
        for q0 in range(0, images * per_image, chunk):
            count = min(chunk, images * per_image - q0)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _input_tile(x, n0 + g, r - 1, c - 1, tile, d, v, q, points)
                _signal_tile(signal, g, r, c, tile, d, s, q)
            _correlate(v, s, dU[part], count)


@kernel
def _backward_data(
    part, parts, signal, v, out, U, y, switches, dy, dx, points, kh, kw, sh, sw, top, left
):  # fmt: skip
    N, H, W, _ = dx.shape
    size = len(points)
    group, chunk, pad = len(signal), len(v), size // 2 - 2
    tw = (W + 3) // 4
    per_image = (H + 3) // 4 * tw
    tile, d = np.empty(size * size * v.shape[2], dx.dtype), np.empty(size * size * v.shape[2], dx.dtype)
    db = np.zeros(dy.shape[3], dy.dtype)
    first, last = share(N, part, parts)
    for n0 in range(first, last, group):
        images = min(group, last - n0)
        for g in range(images):
            unpool_image(y, switches, dy, n0 + g, signal, g, db, kh, kw, sh, sw, top, left)
        for q0 in range(0, images * per_image, chunk):
            count = min(chunk, images * per_image - q0)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _input_tile(signal, g, r - pad, c - pad, tile, d, v, q, points)
            _multiply(v, U, out, count)
            for q in range(count):
                g, r, c = (q0 + q) // per_image, (q0 + q) % per_image // tw * 4, (q0 + q) % tw * 4
                _output_tile(out, q, d, dx, n0 + g, r, c, tile, points)
