"""The way back through conv -> relu -> max-pool, gradient by gradient: the switches say where the few of them are.

A 2x2 pool leaves a gradient at one convolution output in four, the ReLU at half of those. Each is one product of a
number with a window: dw[k] += g * x[window] and dx[window] += g * w[k], whose rows of kw * C elements are contiguous.
For 5x5 windows that is less work than any dense way; for 3x3 Winograd's filtering (winograd.py) does better.
"""

import numpy as np
from numba import njit

from .kernels import pad_image, share
from .parallel import PARTS, run, threads


def applies(w, stride, padding):
    """Whether a convolution is one that this way back suits: stride 1, SAME, larger than 3x3."""
    return tuple(stride) == (1, 1) and padding == "SAME" and w.shape[0] * w.shape[1] > 9


def backward(x, w, y, switches, dy, pool, need_dx, work):
    """Return (dw, db, dx or None) of the block; `pool` is (kh, kw, sh, sw, top, left) of the pool."""
    _, H, W, C = x.shape
    kh, kw, _, K = w.shape
    width = (W + kw - 1) * C
    padded = work("padded", (threads(), (H + kh - 1) * width), x.dtype)
    padded[:] = 0
    back = work("back", padded.shape, x.dtype)
    by_filter = np.ascontiguousarray(w.transpose(3, 0, 1, 2)).reshape(K, kh, kw * C)
    dws, dbs = np.zeros((PARTS, *by_filter.shape), x.dtype), np.zeros((PARTS, K), x.dtype)
    dx = work("dx", x.shape if need_dx else (0, 0, 0, 0), x.dtype)
    run(_backward, x, by_filter, y, switches, dy, dws, dbs, dx, need_dx, kh, kw, *pool, scratch=(padded, back))
    dw = np.ascontiguousarray(dws.sum(0).reshape(K, kh, kw, C).transpose(1, 2, 3, 0))
    return dw, dbs.sum(0), dx if need_dx else None


@njit(nogil=True, cache=True, fastmath={"contract"})
def _backward(
    part, parts, padded, back, x, w, y, switches, dy, dws, dbs, dx, need_dx, ch, cw, kh, kw, sh, sw, top, left
):  # fmt: skip
    N, H, W, C = x.shape
    OH, OW, K = dy.shape[1:]
    width, L = (W + cw - 1) * C, cw * C
    offsets = np.array([s // kw * width + s % kw * C for s in range(kh * kw)])
    first, last = share(N, part, parts)
    for n in range(first, last):
        pad_image(x, n, ch, cw, width, padded)
        back[:] = 0
        for k in range(K):  # one filter at a time: its rows of dw and w stay in the first cache
            dw, wk, total = dws[part, k], w[k], dbs[part, k]
            for r in range(OH):
                for c in range(OW):
                    if y[n, r, c, k] > 0:
                        g = dy[n, r, c, k]
                        total += g
                        corner = (r * sh - top) * width + (c * sw - left) * C + offsets[switches[n, r, c, k]]
                        for i in range(ch):
                            o = np.uintp(corner + i * width)
                            for q in range(L):
                                dw[i, q] += g * padded[o + np.uintp(q)]
                            if need_dx:
                                for q in range(L):
                                    back[o + np.uintp(q)] += g * wk[i, q]
            dbs[part, k] = total
        if need_dx:
            for h in range(H):
                o = np.uintp((h + (ch - 1) // 2) * width + (cw - 1) // 2 * C)
                for v in range(W):
                    for k in range(C):
                        dx[n, h, v, k] = back[o + np.uintp(v * C + k)]
