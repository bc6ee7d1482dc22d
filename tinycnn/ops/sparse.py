"""The way back through conv -> relu -> max-pool, gradient by gradient: the switches say where the few of them are.

A 2x2 pool leaves a gradient at one convolution output in four, the ReLU at half of those. Each is one product of a
number with a window: dw[k] += g * x[window] and dx[window] += g * w[k], whose rows of kw * C elements are contiguous.
They are listed first, then summed in registers: by filter for dw, by convolution output for dx. For dw of 5x5 windows,
and those of pixels, that is less work than any dense way; else winograd.py does better. Pictures need dx alone, by any
rule, often of many signals through the same switches. The deconvnet's lists are full, and still right.
"""

import llvmlite.ir as ir
import numba
import numpy as np

from . import simd
from .block import copy_window
from .kernels import share
from .parallel import PARTS, inner, kernel, run, threads
from .simd import LANES, add_window, int64, intrinsic, number, round_up, vector_at

VECTORS = 5  # summed together: 10 of AVX2's 16 registers
BLOCK = VECTORS * LANES
CACHED = 1 << 16  # elements of the rows of images that a thread has at work: half of a usual L2 cache
UNITS = 1 << 14  # pooled units that a thread has listed for dw


def _sums(onto):
    """Make `sum_rows` and, which adds the sum `onto` what is there, `add_rows`."""

    @intrinsic
    def sums(typingctx, out, o, rows, r, step, chosen, first, apart, factors, f, places, p, count):
        """Sum VECTORS vectors, `step` apart, of `count` chosen rows, each row times its factor, to out[o : o + BLOCK].

        >>> for v in range(VECTORS):
        ...     total = out[o + v * LANES :][:LANES]
        ...     vectors = (rows[r + chosen[first + e] * apart + v * step :][:LANES] for e in range(count))
        ...     products = (row * factors[f + places[p + e]] for e, row in enumerate(vectors))
        ...     total[:] = sum(products, total.copy() if onto else 0)
        """
        signature = numba.void(
            out, int64, rows, int64, int64, chosen, int64, int64, factors, int64, places, int64, int64
        )  # fmt: skip

        def codegen(context, builder, sig, args):
            out, rows, chosen, factors, places = simd.pointers(context, builder, sig, args, 0, 2, 5, 8, 10)
            step, apart, count = args[4], args[7], args[12]
            real, item = simd.element(context, sig)
            vector = ir.VectorType(real, LANES)
            offsets = [builder.mul(step, number(v)) for v in range(VECTORS)]
            results = [vector_at(builder, out, number(v * LANES), vector) for v in range(VECTORS)]
            begin = [builder.load(result, align=item) if onto else simd.zero(vector) for result in results]

            def add(e, totals):
                row, place = (builder.sext(builder.load(builder.gep(a, [e])), simd.I64) for a in (chosen, places))
                row, factor = builder.gep(rows, [builder.mul(row, apart)]), builder.load(builder.gep(factors, [place]))
                factor = simd.spread(builder, factor, vector)
                values = (builder.load(vector_at(builder, row, offset, vector), align=item) for offset in offsets)
                products = (builder.fmul(value, factor, flags=simd.CONTRACT) for value in values)
                return [builder.fadd(total, product, flags=simd.CONTRACT) for total, product in zip(totals, products)]

            for result, value in zip(results, simd.sum_loop(builder, count, begin, add, "rows")):
                builder.store(value, result, align=item)
            return context.get_dummy_value()

        return signature, codegen

    return sums


sum_rows, add_rows = _sums(False), _sums(True)


# -- dw: a list of windows for each filter ---------------------------------------------------------------------------


def backward_weights(x, w, y, switches, dy, corner, pool, work):
    """Return (dw, db) of the block; `corner` is the convolution's padding (top, left), `pool` as in block.py."""
    _, H, W, C = x.shape
    kh, kw, _, K = w.shape
    OH, OW = dy.shape[1:3]
    # VECTORS vectors are summed at a time: of a window's row, or, where one is enough for it, of so many rows.
    rows, length = (round_up(kh, VECTORS), LANES) if kw * C <= LANES else (kh, round_up(kw * C, BLOCK))
    band = min(OH, max(1, UNITS // (OW * K)))
    size = (H + rows - 1) * (W + kw - 1) * C + length
    padded = work("padded", (threads(), round_up(size)), x.dtype)
    padded[:] = 0
    lists = (threads(), K, band * OW)
    scratch = (
        padded,
        work("corners", lists, np.int32),
        work("gradients", lists, x.dtype),
        work("counts", lists[:2], np.int64),
    )
    dws, dbs = work("dws", (PARTS, K, rows, length), x.dtype), np.zeros((PARTS, K), x.dtype)
    dws[:] = 0
    run(_backward_weights, x, y, switches, dy, dws, dbs, band, (kh, kw), corner, pool, scratch=scratch)
    dw = dws.sum(0)[:, :kh, : kw * C].reshape(K, kh, kw, C).transpose(1, 2, 3, 0)
    return np.ascontiguousarray(dw), dbs.sum(0)


@kernel
def _backward_weights(
    part, parts, padded, corners, gradients, counts, x, y, switches, dy, dws, dbs, band, window, corner, pool
):
    (N, H, W, C), (OH, OW, K) = x.shape, dy.shape[1:]
    (ch, cw), (kh, kw, sh, sw, top, left) = window, pool
    width, most, (rows, length) = (W + cw - 1) * C, corners.shape[1], dws.shape[2:]
    down, along, step = (VECTORS, LANES, width) if length == LANES else (1, BLOCK, LANES)
    offsets = np.empty(kh * kw, np.int64)
    for s in range(kh * kw):
        offsets[s] = s // kw * width + s % kw * C
    corners, gradients, order = corners.reshape(-1), gradients.reshape(-1), np.arange(most).astype(np.int32)
    out, db = dws.reshape(-1), dbs[part]
    first, last = share(N, part, parts)
    for n in range(first, last):
        copy_window(x, n, -corner[0], -corner[1], H + ch - 1, W + cw - 1, padded, 0)
        for r0 in range(0, OH, band):
            counts[:] = 0
            for r in range(r0, min(r0 + band, OH)):
                for c in range(OW):
                    begin = (r * sh - top) * width + (c * sw - left) * C
                    value, d, switch = y[n, r, c], dy[n, r, c], switches[n, r, c]
                    for k in range(K):  # without a branch: what is not taken is overwritten by the next
                        to = np.uintp(k * most) + np.uintp(counts[k])
                        corners[to], gradients[to] = begin + offsets[switch[k]], d[k]
                        counts[k] += value[k] > 0
                    for k in range(K):
                        db[k] += d[k] if value[k] > 0 else 0
            for k in range(K):  # one filter at a time: the sum stays in registers
                f = k * most
                for i in range(0, ch, down):
                    for q in range(0, length, along):
                        o, start = ((part * K + k) * rows + i) * length + q, i * width + q
                        add_rows(out, o, padded, start, step, corners, f, 1, gradients, f, order, 0, counts[k])


# -- dx: a list of units for each convolution output -----------------------------------------------------------------
#
# Rows come to an end in order, so two rings hold all that is under way:
#
#     pooled row r     ->  lists, kh rows of convolution outputs     ->  back, ch rows of the image inside its padding
#     its units go to      row h is complete when no later window        row h is complete when the outputs of row h,
#     the outputs that     covers it: h < (r + 1) sh - top; it is        whose windows begin there, have been added: it
#     their switches name  summed up and stands at h % kh                is moved to dx and stands at h % ch


def backward_data(w, y, switches, dy, dx, corner, pool, mask, rectify, work):
    """Fill dx (S*N, H, W, C) for S signals dy (S*N, OH, OW, K) per image: signal s of image n is number s * N + n.

    `corner` is the convolution's padding (top, left), `pool` as in block.py; mask and rectify are the ReLU's rule.
    Returns whether dx is finite: what is not, times the zeros behind a window's row, has gone beyond it.
    """
    kh, kw, C, K = w.shape
    _, H, W, _ = dx.shape
    length = round_up(kw * C)  # of a window's row
    filters = work("filters", (K, round_up(kh * length, BLOCK)), w.dtype)
    filters[:] = 0
    filters[:, : kh * length].reshape(K, kh, length)[:, :, : kw * C] = w.transpose(3, 0, 1, 2).reshape(K, kh, kw * C)
    signals, size = len(dy) // len(y), kh * (W + kw - 1) * C + length
    group = max(1, min(signals, CACHED // size))
    ring = (threads(), pool[0] * W, -(-pool[0] // pool[2]) * -(-pool[1] // pool[3]) * K)
    scratch = (
        work("back", (threads(), group, size), dy.dtype),
        work("units", ring, np.int32),
        work("channels", ring, np.int32),
        work("counts of outputs", ring[:2], np.int64),
        work("factors", (threads(), group, ring[2]), dy.dtype),
        work("sums", (threads(), group, filters.shape[1]), dy.dtype),
        work("totals", (threads(), K), dy.dtype),
    )
    args, odd = (filters, y, switches, dy, dx, mask, rectify, (kh, kw), length, corner, pool), np.zeros(1, np.bool_)
    run(_backward_data, *args, odd, scratch=scratch)
    return not odd[0]


@inner
def _list_units(y, switches, dy, n, r, floor, idle, table, units, channels, longest, counts, sw):
    """Append the units of pooled row r of image n, as far as they send something back, to their outputs' lists.

    Those do whose value lies above `floor` and whose signal is not `idle`.
    """
    OW, K = y.shape[2:]
    for c in range(OW):
        value, d, switch, unit = y[n, r, c], dy[n, r, c], switches[n, r, c], (r * OW + c) * K
        for k in range(K):  # without a branch: what is not taken is overwritten by the next
            p = np.uintp(table[switch[k]] + c * sw)
            count = counts[p]
            to = p * np.uintp(longest) + np.uintp(count)
            units[to], channels[to] = unit + k, k
            counts[p] = count + ((value[k] > floor) & (d[k] != idle))


@inner
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


@inner
def _end_row(back, start, h, window, corner, width, pixels, n, H, W, C):
    """Move row h of the padded image n, to which no window adds any more, from the ring to its place; is it finite?"""
    row, finite = start + h % window[0] * width, True
    if corner[0] <= h < H + corner[0]:
        o, to = np.uintp(row + corner[1] * C), np.uintp((n * H + h - corner[0]) * W * C)
        for q in range(W * C):
            value = back[o + np.uintp(q)]
            pixels[to + np.uintp(q)] = value
            finite &= abs(value) < np.inf
    for q in range(width):
        back[np.uintp(row) + np.uintp(q)] = 0
    return finite


@kernel
def _backward_data(
    part, parts, back, units, channels, counts, factors, sums, totals,
    w, y, switches, dy, dx, mask, rectify, window, length, corner, pool, odd,
):  # fmt: skip
    (N, OH, OW, K), (H, W, C) = y.shape, dx.shape[1:]
    (ch, cw), (kh, kw, sh, sw, top, left) = window, pool
    group, size, P, width = back.shape[0], back.shape[1], w.shape[1], (W + cw - 1) * C
    longest = units.shape[1]
    S = len(dy) // N
    groups = (S + group - 1) // group
    table, order = np.empty(kh * kw, np.int64), np.arange(longest).astype(np.int32)
    floor = dy.dtype.type(0 if mask else -1)  # a ReLU's output is never below 0: without a mask every unit is above it
    idle = dy.dtype.type(0 if S == 1 else np.nan)  # nothing equals NaN: of several signals every unit sends something
    # all flat: a slice costs more than what is done with it
    back, units, channels, factors, sums = (
        back.reshape(-1), units.reshape(-1), channels.reshape(-1), factors.reshape(-1), sums.reshape(-1)
    )  # fmt: skip
    w, signals, pixels = w.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    finite = True
    first, last = share(N * groups, part, parts)
    for item in range(first, last):
        n, s0 = item // groups, item % groups * group
        count_of_signals = min(group, S - s0)
        back[:] = 0
        counts[:], totals[:] = 0, 0
        h0 = 0
        for r in range(OH):
            for s in range(kh * kw):
                table[s] = (r * sh - top + s // kw) % kh * W + s % kw - left
            _list_units(y, switches, dy, n, r, floor, idle, table, units, channels, longest, counts, sw)
            h1 = min(H, (r + 1) * sh - top) if r < OH - 1 else H
            for h in range(h0, h1):
                turn = h % ch
                for v in range(W):
                    p = h % kh * W + v
                    count = counts[p]
                    if count == 0:
                        continue
                    counts[p] = 0
                    p *= longest
                    if rectify:
                        for s in range(count_of_signals):
                            o = ((s0 + s) * N + n) * OH * OW * K
                            _rectify(signals, o, units, channels, p, count, totals, factors, s * longest)
                    for q in range(0, P, BLOCK):
                        for s in range(count_of_signals):
                            o, to, f = ((s0 + s) * N + n) * OH * OW * K, s * P + q, s * longest
                            if rectify:
                                sum_rows(sums, to, w, q, LANES, channels, p, P, factors, f, order, 0, count)
                            else:
                                sum_rows(sums, to, w, q, LANES, channels, p, P, signals, o, units, p, count)
                    for s in range(count_of_signals):  # from the ring's row of h to its end, then from its start
                        o = s * size + v * C
                        add_window(back, o + turn * width, width, sums, s * P, ch - turn, length)
                        add_window(back, o, width, sums, s * P + (ch - turn) * length, turn, length)
                for s in range(count_of_signals):
                    finite &= _end_row(back, s * size, h, window, corner, width, pixels, (s0 + s) * N + n, H, W, C)
            h0 = h1
        for h in range(H, H + corner[0]):
            for s in range(count_of_signals):
                finite &= _end_row(back, s * size, h, window, corner, width, pixels, (s0 + s) * N + n, H, W, C)
    if not finite:
        odd[0] = True
