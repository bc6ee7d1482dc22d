"""The way back through conv -> relu -> max-pool, gradient by gradient: the switches say where the few of them are.

A 2x2 pool leaves a gradient at one convolution output in four, the ReLU at half of those. Each is one product of a
number with a window: dw[k] += g * x[window] and dx[window] += g * w[k], whose rows of kw * C elements are contiguous.
For 5x5 windows that is less work than any dense way; for 3x3 and dw Winograd's filtering (winograd.py) does better.

Pictures need dx alone, by any rule, often of many signals through the same switches (a class each): `backward_data`
lists the units of each convolution output once, then sums their filters in registers, signal by signal.
"""

import numpy as np
from numba import njit

from .kernels import pad_image, share
from .parallel import PARTS, run, threads
from .simd import BLOCK, LANES, add_window, sum_rows

SIGNALS = 1 << 16  # elements of the rows of images that a thread has at work: half of a usual L2 cache


def applies(w, stride, padding):
    """Whether a convolution is one that this way back suits: stride 1, SAME, larger than 3x3."""
    return tuple(stride) == (1, 1) and padding == "SAME" and w.shape[0] * w.shape[1] > 9


def applies_to_data(w, stride, padding):
    """Whether a convolution is one that `backward_data` knows: stride 1, SAME."""
    return tuple(stride) == (1, 1) and padding == "SAME"


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


def backward_data(w, y, switches, dy, dx, pool, mask, rectify, work):
    """Fill dx (S*N, H, W, C) for S signals dy (S*N, OH, OW, K) per image: signal s of image n is number s * N + n.

    `pool` is (kh, kw, sh, sw, top, left) of the pool; mask and rectify are the ReLU's rule.
    """
    kh, kw, C, K = w.shape
    _, H, W, _ = dx.shape
    length = -(-kw * C // LANES) * LANES  # of a window's row, and of all of them
    filters = _aligned(K, -(-kh * length // BLOCK) * BLOCK, w.dtype)
    filters[:, : kh * length].reshape(K, kh, length)[:, :, : kw * C] = w.transpose(3, 0, 1, 2).reshape(K, kh, kw * C)
    signals, size = len(dy) // len(y), kh * (W + kw - 1) * C + length
    group = max(1, min(signals, SIGNALS // size))
    ring = (threads(), pool[0] * W, -(-pool[0] // pool[2]) * -(-pool[1] // pool[3]) * K)
    scratch = (
        work("back", (threads(), group, size), dy.dtype),
        work("units", ring, np.int32),
        work("channels", ring, np.int32),
        work("counts", ring[:2], np.int64),
        work("factors", (threads(), group, ring[2]), dy.dtype),
        work("sums", (threads(), group, filters.shape[1]), dy.dtype),
        work("totals", (threads(), K), dy.dtype),
    )
    args = (filters, y, switches, dy, dx, mask, rectify, kh, kw, length, *pool)
    run(_backward_data, *args, scratch=scratch, blas=False)


def _aligned(rows, columns, dtype):
    """Zeros (rows, columns) on a cache line's boundary: vectors that cross one cost a quarter of the speed."""
    flat = np.zeros(rows * columns + LANES, dtype)
    start = -(flat.ctypes.data // flat.itemsize) % LANES
    return flat[start : start + rows * columns].reshape(rows, columns)


@njit
def _list_units(y, switches, dy, n, r, off, nothing, table, units, channels, longest, counts, sw):
    """Append the units of pooled row r of image n, as far as they send something back, to their outputs' lists."""
    OW, K = y.shape[2:]
    for c in range(OW):
        value, d, switch, unit = y[n, r, c], dy[n, r, c], switches[n, r, c], (r * OW + c) * K
        for k in range(K):  # without a branch: what is not kept is overwritten by the next
            p = np.uintp(table[switch[k]] + c * sw)
            count = counts[p]
            to = p * np.uintp(longest) + np.uintp(count)
            units[to], channels[to] = unit + k, k
            counts[p] = count + ((value[k] > off) & (d[k] != nothing))


@njit
def _rectify(signals, signal, units, channels, first, count, totals, factors, f):
    """factors[f:] = what the units of one convolution output send back, rectified where those of one channel add up."""
    signal, first, f = np.uintp(signal), np.uintp(first), np.uintp(f)
    for i in range(count):
        e = first + np.uintp(i)
        totals[channels[e]] += signals[signal + np.uintp(units[e])]
    for i in range(count):
        k = channels[first + np.uintp(i)]
        factors[f + np.uintp(i)] = totals[k] if totals[k] > 0 else 0
        totals[k] = 0  # the first of a channel stands for all of them


@njit(nogil=True, cache=True)
def _backward_data(
    part, parts, back, units, channels, counts, factors, sums, totals,
    w, y, switches, dy, dx, mask, rectify, ch, cw, length, kh, kw, sh, sw, top, left,
):  # fmt: skip
    N, OH, OW, K = y.shape
    H, W, C = dx.shape[1:]
    group, size, P, width = back.shape[0], back.shape[1], w.shape[1], (W + cw - 1) * C
    longest = units.shape[1]
    S = len(dy) // N
    groups = (S + group - 1) // group
    table, order = np.empty(kh * kw, np.int64), np.arange(longest).astype(np.int32)
    off = dy.dtype.type(0 if mask else -1)  # no unit is below 0, ...
    nothing = dy.dtype.type(0 if S == 1 else np.nan)  # ... and no signal equals NaN: of several, all are taken
    # all flat: a slice costs more than what is done with it
    back, units, channels, factors, sums = (
        back.reshape(-1), units.reshape(-1), channels.reshape(-1), factors.reshape(-1), sums.reshape(-1)
    )  # fmt: skip
    w, signals, pixels = w.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    first, last = share(N * groups, part, parts)
    for item in range(first, last):
        n, s0 = item // groups, item % groups * group
        s1 = min(s0 + group, S)
        back[:] = 0
        counts[:], totals[:] = 0, 0
        h0 = 0
        for r in range(OH):
            # A ring of kh rows of lists: the windows of row r end what those before have begun.
            for s in range(kh * kw):
                table[s] = (r * sh - top + s // kw) % kh * W + s % kw - left
            _list_units(y, switches, dy, n, r, off, nothing, table, units, channels, longest, counts, sw)
            h1 = min(H, (r + 1) * sh - top) if r < OH - 1 else H
            for h in range(h0, h1):
                turn, lists = h % ch, h % kh * W
                for v in range(W):
                    p = lists + v
                    count = counts[p]
                    if count == 0:
                        continue
                    counts[p] = 0
                    p *= longest
                    if rectify:
                        for s in range(s1 - s0):
                            o = ((s0 + s) * N + n) * OH * OW * K
                            _rectify(signals, o, units, channels, p, count, totals, factors, s * longest)
                    for q in range(0, P, BLOCK):
                        for s in range(s1 - s0):
                            if rectify:
                                sum_rows(sums, s * P + q, w, P, q, channels, p, factors, s * longest, order, 0, count)
                            else:
                                o = ((s0 + s) * N + n) * OH * OW * K
                                sum_rows(sums, s * P + q, w, P, q, channels, p, signals, o, units, p, count)
                    for s in range(s1 - s0):  # in the ring of image rows: from row h to its end, then from its start
                        o = s * size + v * C
                        add_window(back, o + turn * width, width, sums, s * P, ch - turn, length)
                        add_window(back, o, width, sums, s * P + (ch - turn) * length, turn, length)
                for s in range(s1 - s0):
                    _end_row(back, s * size, h, ch, cw, width, pixels, (s0 + s) * N + n, H, W, C)
            h0 = h1
        for h in range(H, H + (ch - 1) // 2):
            for s in range(s1 - s0):
                _end_row(back, s * size, h, ch, cw, width, pixels, (s0 + s) * N + n, H, W, C)


@njit
def _end_row(back, start, h, ch, cw, width, pixels, n, H, W, C):
    """Move row h of the padded image n, to which no window adds any more, from the ring to its place."""
    row = start + h % ch * width
    o, to = np.uintp(row + (cw - 1) // 2 * C), np.uintp((n * H + max(0, h - (ch - 1) // 2)) * W * C)
    if h >= (ch - 1) // 2:
        for q in range(W * C):
            pixels[to + np.uintp(q)] = back[o + np.uintp(q)]
    for q in range(width):
        back[np.uintp(row) + np.uintp(q)] = 0
