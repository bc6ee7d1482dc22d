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

A bound by a tile's norm is a poor one for an output that does not see what is large in the tile. So an odd tile, one
that outshines its image, or is not finite, or would overflow on the way, is done again by plain sums (`mend`): a bright
pixel's error stays with it, and NaN and infinity spread as far as windows reach.
"""

import numpy as np

from .block import locate, sum_of_squares
from .parallel import inner, kernel
from .simd import dots1

BOUND = 0.75
BRIGHT = 128  # times the norm of a usual window: what outshines an image
FEW = 5  # not more than one in so many rows, or columns, is not what an image is like
GROWTH = 1e7  # no number on the way is more than this times F |w|


@kernel
def slacks(U, points, w, b, per, least):
    """Fill per and least (K,): outputs of filter k that differ by more than F per[k] + least[k] differ in plain sums.

    U (n^2, C, K or more) are the transformed weights, points (16, n^2) the squares of a b for each output of a tile.
    """
    (_, C, width), K, unit = U.shape, len(b), np.finfo(w.dtype).eps / 2
    square, sums, most = np.empty(K, w.dtype), np.zeros((len(points), K), w.dtype), np.zeros(K, w.dtype)
    transformed, weights = U.reshape(-1), w.reshape(-1)
    for e in range(len(U)):
        _squares(transformed, e * C * width, (e + 1) * C * width, width, square)
        for p in range(len(points)):
            for k in range(K):
                sums[p, k] += points[p, e] * square[k]
                most[k] = max(most[k], sums[p, k])
    _squares(weights, 0, len(weights), K, square)
    for k in range(K):  # no output is more than F times its filter's size
        per[k] = unit * (2 * BOUND * np.sqrt(most[k]) + 4 * np.sqrt(square[k]))
        least[k] = 4 * unit * abs(b[k])


@inner
def _squares(numbers, first, last, width, sums):
    """sums (K) = the sums of squares of the columns of numbers[first:last], which are `width` wide."""
    sums[:] = 0
    for o in range(first, last, width):
        for k in range(len(sums)):
            sums[k] += numbers[np.uintp(o + k)] * numbers[np.uintp(o + k)]


@kernel
def limits(w, b):
    """(the norm of windows that the largest bias outweighs, the F at which a tile might overflow on the way)."""
    limit, largest = np.finfo(w.dtype), b.dtype.type(0)
    size = max(np.sqrt(sum_of_squares(w.reshape(-1), 0, w.size)), limit.tiny)
    for bias in b:
        largest = max(largest, abs(bias))
    return largest * np.sqrt(len(b)) / size, limit.max / (GROWTH * size)


@inner
def mend(x, n, y, g, w, corner, limits, exact):
    """Do the odd tiles of image n again, by plain sums to y[g]; return (F of the others, if `exact`; were there any).

    A tile is as wide as 4 windows; tiles begin 4 apart. It is odd beyond BRIGHT times what a bias outweighs, or windows
    have in one of FEW rows and columns; what is black does not count. w (k, k, C, K or more) are the weights.
    """
    H, W, C = x.shape[1:]
    size, flat, squares = len(w) + 3, x.reshape(-1), np.empty((H, W), x.dtype)
    each, rows, columns = squares.reshape(-1), np.zeros((H, 1), x.dtype), np.zeros((1, W), x.dtype)
    for h in range(H):
        for v in range(W):
            p = h * W + v
            o = (n * H * W + p) * C
            dots1(flat, o, 0, flat, o, 0, each, p, 0, C)
            rows[h, 0] += squares[h, v]
            columns[0, v] += squares[h, v]
    if not exact and _sum(rows, 0, H, 0, 1) < np.inf:  # neither NaN nor infinite
        most = x.dtype.type(0)  # no tile has more
        for h in range(H):
            most = max(most, _sum(rows, h, h + size, 0, 1))
        if _usual(most, rows, columns, len(w), limits):
            return most, False
    largest, odd = x.dtype.type(0), False
    for r in range(0, H, 4):
        for c in range(0, W, 4):
            h0, v0 = r - corner[0], c - corner[1]
            total = _sum(squares, h0, h0 + size, v0, v0 + size)
            if _usual(total, rows, columns, len(w), limits):
                largest = max(largest, total)
                continue
            odd = True
            for h in range(r, min(r + 4, H)):
                for v in range(c, min(c + 4, W)):
                    _convolve(x, n, h - corner[0], v - corner[1], w, y[g, h, v])
    return np.sqrt(largest), odd


@inner
def _sum(numbers, h0, h1, v0, v1):
    """The sum of a part of numbers (H, W), as far as it lies inside."""
    (H, W), total = numbers.shape, numbers.dtype.type(0)
    for h in range(max(0, h0), min(h1, H)):
        for v in range(max(0, v0), min(v1, W)):
            total += numbers[h, v]
    return total


@inner
def _usual(square, rows, columns, k, limits):
    """Whether a tile of this squared norm is like the rest of its image; no comparison with NaN holds."""
    if not np.sqrt(square) < limits[1]:
        return False
    pixel, H, W = square / (BRIGHT * k) ** 2, len(rows), columns.shape[1]
    return square <= (BRIGHT * limits[0]) ** 2 or (_reached(rows, pixel * W) and _reached(columns, pixel * H))


@inner
def _reached(lines, square):
    """Whether more than one line, and one in FEW, of those that are not black have at least so much."""
    count = lit = 0
    for line in lines.reshape(-1):
        lit += line > 0
        count += line >= square
    return count > max(lit // FEW, min(lit - 1, 1))


@inner
def _convolve(x, n, r, c, w, y):
    """y (K or more) = the products of all filters with the window of image n at (r, c)."""
    (H, W), (kh, kw, C) = x.shape[1:3], w.shape[:3]
    y[:] = 0
    for i in range(max(0, -r), min(kh, H - r)):
        for j in range(max(0, -c), min(kw, W - c)):
            for q in range(C):
                value = x[n, r + i, c + j, q]
                for k in range(len(y)):
                    y[k] += value * w[i, j, q, k]


@inner
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
                if rivals[k] == 0 or y[n, r, c, k] != y[n, r, c, k]:
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


@inner
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


@inner
def _first_twin(x, n, places, e, filters, corner, tiles):
    """The first output of the window that sees the same pixels as output e."""
    for t in range(e):
        if _same(x, n, places[e], places[t], filters, corner, tiles):
            return t
    return e


@inner
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


@inner
def _recompute(x, n, places, filters, corner, k, bias, chosen, tile, rows):
    """Stages 2 and 3: (the largest by plain sums of what is chosen, after the ReLU; the first place that has it)."""
    best, first = x.dtype.type(0), 0
    for e in range(len(chosen)):
        if chosen[e]:
            value = _plain_sum(x, n, places[e, 0] - corner[0], places[e, 1] - corner[1], filters, k, tile, rows) + bias
            if value > best:
                best, first = value, e
    return best, first


@inner
def _plain_sum(x, n, r, c, filters, k, tile, rows):
    """The product of filter k and the window of image n at (r, c), always added up in the same order."""
    kh, kw, C = filters.shape[1:]
    flat, base, row = locate(x, n, r, c, kh, kw, tile)
    total = x.dtype.type(0)
    for i in range(kh):
        dots1(flat, base + i * row, 0, filters.reshape(-1), (k * kh + i) * kw * C, 0, rows, i, 0, kw * C)
        total += rows[i]
    return total
