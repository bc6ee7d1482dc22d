"""Which value of a window is the first maximum, decided as the layers decide it.

They compare y = ReLU(s + b), s the plain sum of an output, all of it rounded. The first of the largest y of a window
wins; where all are 0, the first of the window. So outputs that see the same pixels (a black background) tie, and so do
those that the bias rounds to one number. Winograd's transforms (winograd.py) round otherwise: what ties comes out
different in its last bits, and a switch names another than the first. Three stages mend this, in the windows where an
error could decide (`near`, of `pool_image`):

1. List the candidates: outputs within `slack` of the largest. Those that see the same pixels have one sum: the first of
   them stands for all (a `twin`).
2. Recompute them by plain sums, where there are several or the ReLU may be off.
3. The first of the largest wins.

Promised: where all plain sums are exact in any order (small integers), and where they tie because outputs see the same
numbers, the switch is that of the layers. Elsewhere it is a maximum to the rounding of plain sums, whose order is free.

The bound (`slacks`). With V = B' x B and U = G w G' the error of an output is a sum over points e of a_e times that of
(U V)_e, of the size u |U_e| |V_e|: u the rounding unit, |.| the Euclidean norm over channels, a the entries of A', b the
norms of the rows of B', |V_e| <= b_e F, F the norm of a whole tile of x. Errors of different points are as good as
independent, so that their squares add up:

    |error| <= BOUND u F sqrt(sum over e of a_e^2 b_e^2 |U_e|^2)

It scales with |x| |w|, as the errors do, whatever cancels in the sum. The largest seen is 0.95 of it for BOUND = 1 (one
channel, single bright pixels), usually 0.1 to 0.4. (All roundings in one direction would be some hundred times more;
they never are.) Two outputs differ by two errors, and the bias adds its own rounding.
"""

import numpy as np
from numba import njit

from .block import locate
from .simd import dots1

BOUND = 1.5


def slacks(U, B, A, w, b):
    """(per, least), each (K,): outputs of filter k that differ by more than F per[k] + least[k] differ in plain sums.

    U (n, n, C, K or more) are the transformed weights, B' (n, n) and A' (4, n) the other transforms.
    """
    unit = np.finfo(w.dtype).eps / 2
    points = (A**2 * (B**2).sum(1)).astype(w.dtype)  # (4, n): squares of a b
    squares = np.square(U).sum(2)[..., : len(b)]
    errors = np.sqrt(np.einsum("pi,qj,ijk->pqk", points, points, squares, optimize=True).max((0, 1)))
    sizes = np.sqrt(np.square(w).sum((0, 1, 2)))  # no output is more than F times this
    return unit * (2 * BOUND * errors + 4 * sizes), 4 * unit * abs(b)


@njit
def largest_tile(x, n, size, top, left):
    """F: the largest norm of the tiles of image n, which are `size` wide and begin 4 apart."""
    H, W, C = x.shape[1:]
    flat, square, sums = x.reshape(-1), np.empty(1, x.dtype), np.zeros(((H + 3) // 4, (W + 3) // 4), x.dtype)
    for h in range(H):
        for v in range(W):
            o = ((n * H + h) * W + v) * C
            dots1(flat, o, 0, flat, o, 0, square, 0, 0, C)
            for r in range(max(0, (h + top - size + 4) // 4), min(len(sums), (h + top) // 4 + 1)):
                for c in range(max(0, (v + left - size + 4) // 4), min(sums.shape[1], (v + left) // 4 + 1)):
                    sums[r, c] += square[0]
    return np.sqrt(sums.max())


@njit
def settle(conv, x, n, filters, corner, b, slack, near, y, switches, pool):
    """Decide again in the windows of image n that are `near`.

    conv (H, W, K or more) is its convolution with filters (K, kh, kw, C), `corner` the padding (top, left).
    """
    kh, kw, sh, sw, top, left = pool
    H, W, width = conv.shape
    OH, OW, K = y.shape[1:]
    flat, tile, rows = conv.reshape(-1), np.empty(filters[0].size, x.dtype), np.empty(filters.shape[1], x.dtype)
    # of every output of a window: its place, where it begins in conv, its twin, and whether it is a candidate
    places, starts = np.empty((kh * kw, 2), np.int64), np.empty(kh * kw, np.int64)
    twins, chosen = np.empty(kh * kw, np.int64), np.empty(kh * kw, np.bool_)
    for r in range(OH):
        for c in range(OW):
            if not near[r, c]:
                continue
            size = 0
            for h in range(max(0, r * sh - top), min(H, r * sh - top + kh)):
                for v in range(max(0, c * sw - left), min(W, c * sw - left + kw)):
                    places[size, 0], places[size, 1], starts[size] = h, v, (h * W + v) * width
                    size += 1
            twins[0] = -1
            for k in range(K):
                best, rivals = _rivals(flat, starts[:size], k, b[k], slack[k])
                if rivals == 0 or (rivals == 1 and best > slack[k]):  # 0: off for sure, or infinite
                    continue
                if twins[0] < 0:
                    _find_twins(x, n, places[:size], filters, corner, twins)
                first, candidates = _choose(flat, starts[:size], k, b[k], best - slack[k], twins, chosen)
                if candidates > 1 or best <= slack[k]:
                    best, first = _recompute(x, n, places[:size], filters, corner, k, b[k], chosen, tile, rows)
                    y[n, r, c, k] = best
                i, j = places[first, 0] - r * sh + top, places[first, 1] - c * sw + left
                switches[n, r, c, k] = i * kw + j


@njit
def _rivals(conv, starts, k, bias, slack):
    """(the largest output of a window, how many are as large but for `slack`: none if the ReLU is off for sure)."""
    best, rivals = conv[starts[0] + k] + bias, 0
    for start in starts:
        best = max(best, conv[start + k] + bias)
    if best >= -slack:
        for start in starts:
            rivals += conv[start + k] + bias >= best - slack
    return best, rivals


@njit
def _find_twins(x, n, places, filters, corner, twins):
    """twins[e] = the first output of the window that sees the same pixels as output e."""
    for e in range(len(places)):
        twins[e] = 0
        while twins[e] < e and not _same(x, n, places[e], places[twins[e]], filters, corner):
            twins[e] += 1


@njit
def _same(x, n, place, other, filters, corner):
    """Whether two outputs see the same pixels; one whose window hangs over the border is like no other."""
    (H, W, C), (kh, kw) = x.shape[1:], filters.shape[1:3]
    h, v, h0, v0 = place[0] - corner[0], place[1] - corner[1], other[0] - corner[0], other[1] - corner[1]
    if min(h, v, h0, v0) < 0 or max(h, h0) + kh > H or max(v, v0) + kw > W:
        return False
    for i in range(kh):
        for j in range(kw):
            a, b = x[n, h + i, v + j], x[n, h0 + i, v0 + j]
            for k in range(C):
                if a[k] != b[k]:
                    return False
    return True


@njit
def _choose(conv, starts, k, bias, least, twins, chosen):
    """Stage 1: mark the twins of all outputs of at least `least`; (the first of them, how many there are)."""
    chosen[:] = False
    for e in range(len(starts)):
        if conv[starts[e] + k] + bias >= least:
            chosen[twins[e]] = True
    return np.argmax(chosen), chosen.sum()


@njit
def _recompute(x, n, places, filters, corner, k, bias, chosen, tile, rows):
    """Stages 2 and 3: (the largest by plain sums of what is marked, after the ReLU; the first place that has it)."""
    best, first = x.dtype.type(0), 0
    for e in range(len(places)):
        if chosen[e]:
            value = _plain_sum(x, n, places[e, 0] - corner[0], places[e, 1] - corner[1], filters, k, tile, rows) + bias
            if value > best:
                best, first = value, e
    return best, first


@njit
def _plain_sum(x, n, r, c, filters, k, tile, rows):
    """The product of filter k and the window of image n at (r, c), always added up in the same order."""
    kh, kw, C = filters.shape[1:]
    flat, base, row = locate(x, n, r, c, kh, kw, tile)
    total = x.dtype.type(0)
    for i in range(kh):
        dots1(flat, base + i * row, 0, filters.reshape(-1), (k * kh + i) * kw * C, 0, rows, i, 0, kw * C)
        total += rows[i]
    return total
