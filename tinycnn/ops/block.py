"""The two ends of a fused block, an image at a time: windows are copied in, and pooled maps come out and go back.

`pool` is (kh, kw, sh, sw, top, left), the windows of the max-pool.
"""

import numpy as np

from .parallel import inner
from .simd import LANES, dots1, pool1, pool2, pool3


@inner
def sum_of_squares(flat, o, size):
    """Of `size` numbers from o on; not finite if one of them is not, or where the sum overflows."""
    square = np.empty(1, flat.dtype)
    dots1(flat, o, 0, flat, o, 0, square, 0, 0, size)
    return square[0]


@inner
def copy_window(x, n, r, c, kh, kw, out, o):
    """Copy the window (kh, kw, C) of image n whose corner is (r, c) to the flat `out` at o; zero outside the image."""
    H, W, C = x.shape[1:]
    flat, j0, j1 = x.reshape(-1), min(max(0, -c), kw), max(0, min(kw, W - c))
    for i in range(kh):
        to, h = np.uintp(o + i * kw * C), r + i
        for q in range(kw * C):
            out[to + np.uintp(q)] = 0
        if 0 <= h < H:
            source, to = np.uintp(((n * H + h) * W + c + j0) * C), to + np.uintp(j0 * C)
            for q in range((j1 - j0) * C):
                out[to + np.uintp(q)] = flat[source + np.uintp(q)]


@inner
def locate(x, n, r, c, kh, kw, tile):
    """(flat array, base, row) of the window of image n at (r, c): x where it lies inside, else `tile`, filled."""
    H, W, C = x.shape[1:]
    if r >= 0 and c >= 0 and r + kh <= H and c + kw <= W:
        return x.reshape(-1), ((n * H + r) * W + c) * C, W * C
    copy_window(x, n, r, c, kh, kw, tile, 0)
    return tile, 0, kw * C


@inner
def pool_image(x, b, rectify, odd, slack, near, y, switches, n, pool):
    """Pool an image x (H, W, K or more, LANES or more) plus b into y[n] and switches[n], with a ReLU to `rectify`.

    Values compare as the layers compare them, after the bias and rounded. The first of equals wins, NaN before all,
    padding never; a window that the ReLU turns off is all zeros, and its first place wins. The usual windows are kept
    in registers, unless the image is `odd`: it may hold NaN.

    near (OH, OW) tells where an error of slack (K or LANES or more, whose rest is below 0) might decide otherwise; both
    may be None.
    """
    kh, kw, sh, sw, top, left = pool
    H, W, width = x.shape
    OH, OW, K = y.shape[1:]
    flat, pooled, switched = x.reshape(-1), y.reshape(-1), switches.reshape(-1)
    short, values, places = K < LANES, np.empty(LANES, x.dtype), np.empty(LANES, np.uint8)
    bias = np.zeros(max(K, LANES), x.dtype)
    for k in range(K):
        bias[k] = b[k]
    for r in range(OH):
        for c in range(OW):
            h, v = r * sh - top, c * sw - left
            if kh == kw and kh <= 3 and h >= 0 and v >= 0 and not odd:
                row, o, to = W * width, (h * W + v) * width, ((n * OH + r) * OW + c) * K
                down, right = min(kh - 1, H - 1 - h) * row, min(kw - 1, W - 1 - v) * width
                out = (values, 0, places, 0, LANES) if short else (pooled, to, switched, to, K)
                args = (flat, o, row, down, width, right, bias, 0, rectify, slack, 0, *out)
                doubt = pool1(*args) if kh == 1 else pool2(*args) if kh == 2 else pool3(*args)
                if short:  # it was pooled to a whole vector
                    for k in range(K):
                        pooled[to + k], switched[to + k] = values[k], places[k]
                if near is not None:
                    near[r, c] = doubt
                continue
            if near is not None:
                near[r, c] = True
            i0, i1, j0, j1 = max(0, -h), min(kh, H - h), max(0, -v), min(kw, W - v)
            for k in range(K):
                first = i0 * kw + j0
                best, where = x[h + i0, v + j0, k] + b[k], first
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        value = x[h + i, v + j, k] + b[k]
                        if value > best or (value != value and best == best):
                            best, where = value, i * kw + j
                if rectify and best <= 0:
                    best, where = x.dtype.type(0), first
                y[n, r, c, k], switches[n, r, c, k] = best, where


@inner
def unpool_image(y, switches, dy, n, signal, g, db, pool):
    """signal[g] (H, W, K or more) = dy[n] put where the switches say, where the ReLU was on; its sum is added to db."""
    kh, kw, sh, sw, top, left = pool
    OH, OW, K = dy.shape[1:]
    W, width = signal.shape[2:]
    offsets = np.empty(kh * kw, np.int64)
    for s in range(kh * kw):
        offsets[s] = (s // kw * W + s % kw) * width
    image = signal[g].reshape(-1)
    image[:] = 0
    for r in range(OH):
        for c in range(OW):
            corner = ((r * sh - top) * W + c * sw - left) * width
            value, d, switch = y[n, r, c], dy[n, r, c], switches[n, r, c]
            for k in range(K):
                if value[k] > 0:
                    image[np.uintp(corner + offsets[switch[k]] + k)] += d[k]
                    db[k] += d[k]
