"""conv -> bias -> relu -> max-pool in one pass over the images, by Winograd's minimal filtering.

A k x k convolution computes a 4 x 4 tile of outputs from an n x n tile of inputs, n = 3 + k. Sampling both as
polynomials at n points makes the convolution a product point by point (Lavin and Gray 2015, arXiv:1509.09308):

    y = A' [ (G w G') * (B' x B) ] A    n^2 products for 16 outputs, not 16 k^2: 4 times fewer for 3x3, 6.25 for 5x5

The points are 0, 1, -1, 2, -2, then for 5x5 1/2, -1/2, and infinity. For C input channels each pair of them is a matrix
product (tiles, C)(C, K). The adjoint gives the gradients (dw for 3x3 alone; for 5x5 sparse.py does better):

    dw = G' [ (B' x B)' (A dy A') ] G, summed over tiles;    dx = the convolution of dy with the flipped weights

A group of images is taken through the block at a time: its convolution output is pooled while it is in cache. The
transforms enlarge rounding errors: in float32 to 2e-6 to 8e-6 of the largest output, and beyond all proportion to it
where channels cancel (exact.py).
"""

import functools
import operator
from types import SimpleNamespace

import numpy as np
from numba import njit

from .block import locate, pool_image, sum_of_squares, unpool_image
from .exact import limits, mend, settle, slacks
from .kernels import share
from .parallel import PARTS, inner, kernel, run, threads
from .simd import LANES, products4, products6, round_up, rowwise, whole_vectors

TILES = 48  # that are taken together, a multiple of 6: what they are transformed to stays in the last cache
FEWER = 24  # the same where the weights' gradient is read and written for each of these chunks

G = {
    3: np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
                 [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]),
    5: np.array([[1 / 4, 0, 0, 0, 0],
                 [1 / 18, 1 / 18, 1 / 18, 1 / 18, 1 / 18], [1 / 18, -1 / 18, 1 / 18, -1 / 18, 1 / 18],
                 [1 / 360, 1 / 180, 1 / 90, 1 / 45, 2 / 45], [1 / 360, -1 / 180, 1 / 90, -1 / 45, 2 / 45],
                 [16 / 45, 8 / 45, 4 / 45, 2 / 45, 1 / 45], [16 / 45, -8 / 45, 4 / 45, -2 / 45, 1 / 45],
                 [0, 0, 0, 0, 1 / 4]]),
}  # fmt: skip


def forward(x, w, b, y, switches, corner, pool, work, exact=False):
    """Fill y and switches with the pooled block; `corner` is the padding (top, left), `pool` as in block.py."""
    k, weights = len(w), whole_vectors(w)
    U, per, least = transform_weights(weights), np.empty_like(b), np.empty_like(b)
    filters = np.empty((0,) * 4, w.dtype)
    if exact:
        filters = np.ascontiguousarray(w.transpose(3, 0, 1, 2))
        slacks(U, _kernels(k).points.astype(w.dtype), w, b, per, least)
    args = (x, U, weights, limits(w, b), exact, filters, per, least, b, y, switches, corner, pool)
    run(_kernels(k).forward, *args, scratch=_scratch(x, w.shape[3], k, work))


def backward_weights(x, w, y, switches, dy, corner, pool, work):
    """Return (dw, db) of a 3x3 block for a gradient dy at the pooled output y."""
    C, K = w.shape[2:]
    dU, dbs = work("dU", (PARTS, 36, round_up(C, 4), round_up(K)), x.dtype), np.zeros((PARTS, K), x.dtype)
    scratch = _scratch(x, K, 3, work, FEWER)
    run(_kernels(3).backward_weights, x, y, switches, dy, dU, dbs, corner, pool, scratch=scratch)
    dU = dU.sum(0)
    dw = np.empty((3, 3, *dU.shape[1:]), dU.dtype)
    _kernels(3).weights_back(dU.reshape(-1), dU[0].size, dw.reshape(-1))
    return np.ascontiguousarray(dw[:, :, :C, :K]), dbs.sum(0)


def backward_data(w, y, switches, dy, dx, corner, pool, work):
    """Fill dx, the gradient at the input, for a gradient dy at the pooled output y."""
    flipped = whole_vectors(w[::-1, ::-1].transpose(0, 1, 3, 2))
    U, corner = transform_weights(flipped), (len(w) - 1 - corner[0], len(w) - 1 - corner[1])
    args = (U, flipped, limits(w, np.zeros(1, w.dtype)), y, switches, dy, dx, corner, pool)
    run(_kernels(len(w)).backward_data, *args, scratch=_scratch(dx, w.shape[3], len(w), work))


def transform_weights(w):
    """w (k, k, C, K) -> U (n^2, C, K) = G w G' for every pair of channels."""
    U = np.empty(((3 + len(w)) ** 2, *w.shape[2:]), w.dtype)
    _kernels(len(w)).weights(w.reshape(-1), w[0, 0].size, U.reshape(-1))
    return U


def _scratch(x, K, k, work, tiles=TILES):
    """Per thread: output or signal of a group of images, whose tiles make whole chunks, and two transforms of them."""
    _, H, W, C = x.shape
    group = max(1, tiles // (-(-H // 4) * -(-W // 4)))
    # One point more than there are: tiles a power of two apart would share a few lines of the cache.
    transformed = (threads(), tiles, (3 + k) ** 2 + 1, round_up(max(C, K)))
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

    return formula


def _both_ways(formula, m, n):
    """Make a transform of a tile by a formula T of m numbers and n results: y (n, n) = T x T', x (m, m)."""
    once = rowwise(formula, m)

    @njit(inline="always")
    def transform(x, x0, row, step, d, y, y0, y_row, y_step, length):
        """x[i, j] is `length` channels from x[x0 + i * row + j * step], y likewise; d holds n * m * step numbers."""
        once(x, x0, row, d, 0, m * step, m * step)
        for i in range(n):
            once(d, i * m * step, step, y, y0 + i * y_row, y_step, length)

    return transform


# -- products of many tiles, point by point --------------------------------------------------------------------------


@inner
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


@inner
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


# -- the kernels -----------------------------------------------------------------------------------------------------


@inner
def _place(q, H, W):
    """(image, row, column) where tile q of a group of images begins."""
    down, across = (H + 3) // 4, (W + 3) // 4
    return q // (down * across), q // across % down * 4, q % across * 4


@functools.cache
def _kernels(k):
    """The kernels of k x k convolutions, which take tiles of n = k + 3 pixels: all sizes are known to the compiler."""
    n = k + 3
    formulas = {3: (_six, _four_of_six), 5: (_eight, _four_of_eight)}[k]
    B, A = (np.array(formula(*np.eye(n))) for formula in formulas)  # B' (n, n) and A' (4, n)
    to_points, from_points = _both_ways(formulas[0], n, n), _both_ways(formulas[1], n, 4)
    transform, transform_back = _both_ways(_times(G[k]), k, n), _both_ways(_times(G[k].T), n, k)
    signal_to_points = _both_ways(_signal, 4, 6)  # of 3x3 alone, as what goes back to weights

    def sized(function):
        """Compiled code that is read from disk is found by its name alone, so that each size needs names of its own."""
        function.__qualname__ += str(k)
        return function

    @kernel
    @sized
    def weights(w, size, U):
        transform(w, 0, k * size, size, np.empty(n * k * size, w.dtype), U, 0, n * size, size, size)

    @kernel
    @sized
    def weights_back(dU, size, dw):
        transform_back(dU, 0, n * size, size, np.empty(n * k * size, dU.dtype), dw, 0, k * size, size, size)

    @njit(inline="always")
    def take_tile(x, g, r, c, tile, d, v, q):
        """v[q] (n^2, :C) = B' x B of the tile of image g at (r, c)."""
        C, width = x.shape[3], v.shape[2]
        src, base, row = locate(x, g, r, c, n, n, tile)
        to_points(src, base, row, C, d, v.reshape(-1), q * v.shape[1] * width, n * width, width, C)

    @njit(inline="always")
    def put_tile(m, q, d, y, g, r, c, tile):
        """The 4 x 4 outputs of image g at (r, c) = A' m[q] A, as far as they lie inside."""
        H, W, K = y.shape[1:]
        width, flat = m.shape[2], y.reshape(-1)
        inside = r + 4 <= H and c + 4 <= W and K >= LANES
        out, base, row = (flat, ((g * H + r) * W + c) * K, W * K) if inside else (tile, 0, 4 * K)
        from_points(m.reshape(-1), q * m.shape[1] * width, n * width, width, d, out, base, row, K, K)
        if not inside:
            for i in range(min(4, H - r)):
                o, to = np.uintp(i * 4 * K), np.uintp(((g * H + r + i) * W + c) * K)
                for p in range(min(4, W - c) * K):
                    flat[to + np.uintp(p)] = tile[o + np.uintp(p)]

    @inner
    @sized
    def convolve(x, x0, y, y0, images, U, corner, v, out, tile, d):
        """Images x0 on of x, convolved to images y0 on of y, len(v) tiles at a time."""
        H, W = x.shape[1:3]
        tiles = images * ((H + 3) // 4) * ((W + 3) // 4)
        for q0 in range(0, tiles, len(v)):
            count = min(len(v), tiles - q0)
            for q in range(count):
                g, r, c = _place(q0 + q, H, W)
                take_tile(x, x0 + g, r - corner[0], c - corner[1], tile, d, v, q)
            _multiply(v, U, out, count)
            for q in range(count):
                g, r, c = _place(q0 + q, H, W)
                put_tile(out, q, d, y, y0 + g, r, c, tile)

    @kernel
    @sized
    def forward(part, parts, conv, v, out, x, U, w, limits, exact, filters, per, least, b, y, switches, corner, pool):
        tile, d = np.empty(n * n * v.shape[2], x.dtype), np.empty(n * n * v.shape[2], x.dtype)
        near, slack = np.empty(y.shape[1:3], np.bool_), np.empty(round_up(len(least)), x.dtype)
        slack[:] = -1
        first, last = share(len(x), part, parts)
        for n0 in range(first, last, len(conv)):
            images = min(len(conv), last - n0)
            convolve(x, n0, conv, 0, images, U, corner, v, out, tile, d)
            for g in range(images):
                largest, odd = mend(x, n0 + g, conv, g, w, corner, limits, exact)
                if not exact:
                    pool_image(conv[g], b, True, odd, None, None, y, switches, n0 + g, pool)
                else:
                    for k in range(len(least)):
                        slack[k] = least[k] + per[k] * largest
                    pool_image(conv[g], b, True, odd, slack, near, y, switches, n0 + g, pool)
                    settle(conv[g], x, n0 + g, filters, corner, b, slack, near, y, switches, pool)

    @kernel
    @sized
    def backward_data(part, parts, signal, v, out, U, w, limits, y, switches, dy, dx, corner, pool):
        tile, d = np.empty(n * n * v.shape[2], dx.dtype), np.empty(n * n * v.shape[2], dx.dtype)
        db, flat, size = np.zeros(dy.shape[3], dy.dtype), dy.reshape(-1), dy[0].size
        first, last = share(len(dx), part, parts)
        for n0 in range(first, last, len(signal)):
            images = min(len(signal), last - n0)
            for g in range(images):
                unpool_image(y, switches, dy, n0 + g, signal, g, db, pool)
            convolve(signal, 0, dx, n0, images, U, corner, v, out, tile, d)
            for g in range(images):
                size_of_signal = np.sqrt(sum_of_squares(flat, (n0 + g) * size, size))
                if not size_of_signal < limits[1]:  # bright ones are left: a signal is often that of one unit
                    mend(signal, g, dx, n0 + g, w, corner, limits, False)

    @kernel
    @sized
    def backward_weights(part, parts, signal, v, s, x, y, switches, dy, dU, dbs, corner, pool):
        H, W, _ = x.shape[1:]
        tile, d = np.empty(n * n * v.shape[2], x.dtype), np.empty(n * n * v.shape[2], x.dtype)
        dU[part] = 0
        first, last = share(len(x), part, parts)
        for n0 in range(first, last, len(signal)):
            images = min(len(signal), last - n0)
            for g in range(images):
                unpool_image(y, switches, dy, n0 + g, signal, g, dbs[part], pool)
            tiles = images * ((H + 3) // 4) * ((W + 3) // 4)
            for q0 in range(0, tiles, len(v)):
                count = min(len(v), tiles - q0)
                for q in range(count):
                    g, r, c = _place(q0 + q, H, W)
                    take_tile(x, n0 + g, r - corner[0], c - corner[1], tile, d, v, q)
                    src, base, row = locate(signal, g, r, c, 4, 4, tile)
                    K, width = signal.shape[3], s.shape[2]
                    o = q * s.shape[1] * width
                    signal_to_points(src, base, row, K, d, s.reshape(-1), o, n * width, width, K)
                _correlate(v, s, dU[part], count)

    return SimpleNamespace(
        points=np.kron(*[A**2 * (B**2).sum(1)] * 2), weights=weights, weights_back=weights_back,
        forward=forward, backward_data=backward_data, backward_weights=backward_weights,
    )  # fmt: skip
