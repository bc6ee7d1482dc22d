"""Which value of a window is the first maximum, decided as the layers decide it.

They compare y = ReLU(s + b), s the plain sum of an output, all of it rounded. The first of the largest y of a window
wins; where all are 0, the first of the window. So outputs that see the same pixels (a black background) tie, and so do
those that the bias rounds to one number. Winograd's transforms (winograd.py) round otherwise: what ties comes out
different in its last bits, and a switch names another than the first. Three stages mend this, in the windows where an
error could decide (`near`, of `pool_image`):

1. List the candidates: outputs within `slack` of the largest; of those that see the same pixels the first (a `twin`).
2. Recompute them by plain sums, where there are several or the ReLU may be off.
3. The first of the largest wins.

Promised: where all plain sums are exact in any order (small integers), and where they tie because outputs see the same
numbers, the switch is that of the layers. Elsewhere it is a maximum to the rounding of plain sums, whose order is free.

The bound (`slacks`). With V = B' x B and U = G w G' the error of an output is a sum over points e of a_e times that of
(U V)_e, of the size u |U_e| |V_e|: u the rounding unit, |.| the norm over channels, a entries of A', b the norms of the
rows of B', |V_e| <= b_e F, F the norm of a whole tile of x. Errors of different points are as good as independent:

    |error| <= BOUND u F sqrt(sum over e of a_e^2 b_e^2 |U_e|^2)

It scales with |x| |w|, as the errors do, whatever cancels. With 1 for BOUND the largest seen is 0.47 of it, usually 0.1
to 0.3. (All roundings in one direction would be some hundred times more; they never are.) Two outputs differ by two
errors, and the bias adds its own rounding.
"""

import numpy as np
from numba import njit

from .block import locate
from .simd import dots1

BOUND = 0.75


def slacks(U, B, A, w, b):
    """(per, least), each (K,): outputs of filter k that differ by more than F per[k] + least[k] differ in plain sums.

    U (n, n, C, K or more) are the transformed weights, B' (n, n) and A' (4, n) the other transforms.
    """
    unit = np.finfo(w.dtype).eps / 2
    points = (A**2 * (B**2).sum(1)).astype(w.dtype)  # (4, n): squares of a b
    squares = np.einsum("ijck,ijck->ijk", U, U)[..., : len(b)]  # no BLAS: its threads would keep the cores busy
    squares = np.einsum("pi,qik->pqk", points, np.einsum("qj,ijk->qik", points, squares))
    sizes = np.sqrt(np.einsum("ijck,ijck->k", w, w))  # no output is more than F times this
    return unit * (2 * BOUND * np.sqrt(squares.max((0, 1))) + 4 * sizes), 4 * unit * abs(b)


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
    flat, tiles, rows = conv.reshape(-1), np.empty((2, filters[0].size), x.dtype), np.empty(filters.shape[1], x.dtype)
    # of the outputs of a window: row and column, where they begin in conv, their first twins, which are candidates
    places, starts = np.empty((kh * kw, 2), np.int64), np.empty(kh * kw, np.int64)
    twins, chosen = np.empty(kh * kw, np.int64), np.empty(kh * kw, np.bool_)
    best, rivals = np.empty(K, x.dtype), np.empty(K, x.dtype)
    for r in range(OH):
        for c in range(OW):
            if not near[r, c]:
                continue
            size, h0, v0 = 0, r * sh - top, c * sw - left
            for h in range(max(0, h0), min(H, h0 + kh)):
                for v in range(max(0, v0), min(W, v0 + kw)):
                    places[size, 0], places[size, 1], starts[size] = h, v, (h * W + v) * width
                    size += 1
            if not _count_rivals(flat, starts[:size], b, slack, best, rivals):
                continue
            twins[:] = -1
            for k in range(K):
                if rivals[k] == 0:
                    continue
                chosen[:], candidates, first = False, 0, kh * kw
                for e in range(size):
                    if flat[starts[e] + k] + b[k] >= best[k] - slack[k]:
                        if rivals[k] > 1 and twins[e] < 0:
                            twins[e] = _first_twin(x, n, places, e, filters, corner, tiles)
                        twin = twins[e] if rivals[k] > 1 else e
                        candidates += not chosen[twin]
                        chosen[twin], first = True, min(first, twin)
                if candidates > 1 or best[k] <= slack[k]:
                    found = _recompute(x, n, places, filters, corner, k, b[k], chosen, tiles[0], rows)
                    y[n, r, c, k], first = found
                switches[n, r, c, k] = (places[first, 0] - h0) * kw + places[first, 1] - v0


@njit
def _count_rivals(conv, starts, b, slack, best, rivals):
    """By channel the largest output, and how many equal it but for `slack`, 0 without doubt; how many are in doubt."""
    best[:], rivals[:], one = -np.inf, 0, best.dtype.type(1)
    for start in starts:
        outputs = conv[start : start + len(b)]
        for k in range(len(b)):
            value = outputs[k] + b[k]
            best[k] = value if value > best[k] else best[k]
    for start in starts:
        outputs = conv[start : start + len(b)]
        for k in range(len(b)):
            rivals[k] += one if outputs[k] + b[k] >= best[k] - slack[k] else 0
    found = 0
    for k in range(len(b)):
        doubt = (best[k] >= -slack[k]) & ((rivals[k] > 1) | (best[k] <= slack[k]))
        rivals[k] = rivals[k] if doubt else 0
        found += doubt
    return found


@njit
def _first_twin(x, n, places, e, filters, corner, tiles):
    """The first output of the window that sees the same pixels as output e."""
    for t in range(e):
        if _same(x, n, places[e], places[t], filters, corner, tiles):
            return t
    return e


@njit
def _same(x, n, place, other, filters, corner, tiles):
    """Whether two outputs see the same."""
    kh, kw, C = filters.shape[1:]
    for k in range(C):  # the pixels they stand at: seldom more has to be seen
        if x[n, place[0], place[1], k] != x[n, other[0], other[1], k]:
            return False
    a, a0, ai = locate(x, n, place[0] - corner[0], place[1] - corner[1], kh, kw, tiles[0])
    b, b0, bi = locate(x, n, other[0] - corner[0], other[1] - corner[1], kh, kw, tiles[1])
    for i in range(kh):
        for q in range(kw * C):
            if a[np.uintp(a0 + i * ai + q)] != b[np.uintp(b0 + i * bi + q)]:
                return False
    return True


@njit
def _recompute(x, n, places, filters, corner, k, bias, chosen, tile, rows):
    """Stages 2 and 3: (the largest by plain sums of what is chosen, after the ReLU; the first place that has it)."""
    best, first = x.dtype.type(0), 0
    for e in range(len(chosen)):
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
