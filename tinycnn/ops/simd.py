"""Inner loops as LLVM vectors: sums that stay in registers, as no compiler finds by itself.

All arrays are flat and come with an offset: a slice would cost as much as the sum. Only their address is used. A
vector of LANES elements becomes as many registers as the processor needs.
"""

import llvmlite.binding
import llvmlite.ir as ir
import numba
import numpy as np
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

LANES = 16
VECTORS = 5  # summed together by sum_rows: 10 of AVX2's 16 registers
BLOCK = VECTORS * LANES
REGISTER = 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32  # bytes
_I64 = ir.IntType(64)
_CONTRACT = ("contract",)  # a * b + c may round once


@register_jitable
def round_up(size, multiple=LANES):
    """Return `size` rounded up to whole vectors."""
    return -(-size // multiple) * multiple


def whole_vectors(w):
    """Return w (..., K), contiguous, with zeros up to whole vectors of K."""
    out = np.zeros((*w.shape[:-1], round_up(w.shape[-1])), w.dtype)
    out[..., : w.shape[-1]] = w
    return out


def _data(context, builder, array_type, array):
    return context.make_array(array_type)(context, builder, array).data


def _vector(builder, pointer, offset, vector):
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def _spread(builder, number, vector):
    """A vector of equal elements."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def _zero(vector):
    return ir.Constant(vector, [0.0] * vector.count)


def _sum_loop(builder, count, begin, add, name):
    """Return `begin`, changed by ``add(i, values)`` for i from 0 to `count` - 1; all stay in registers."""
    before, loop = builder.block, builder.append_basic_block(name)
    after = builder.append_basic_block(f"after {name}")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_I64, 0)), loop, after)
    builder.position_at_end(loop)
    i, sums = builder.phi(_I64), [builder.phi(value.type) for value in begin]
    new = add(i, sums)
    end, following = builder.block, builder.add(i, ir.Constant(_I64, 1))
    for phi, first, value in zip([i, *sums], [ir.Constant(_I64, 0), *begin], [following, *new]):
        phi.add_incoming(first, before)
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in begin]
    for result, first, value in zip(results, begin, new):
        result.add_incoming(first, before)
        result.add_incoming(value, end)
    return results


def _sum_rows(keep):
    """Make `sum_rows` and, to `keep` what is there already, `add_rows`."""

    @intrinsic
    def kernel(typingctx, out, o, rows, r, step, which, w, length, factors, f, places, p, count):
        """Sum VECTORS vectors of many rows, each row times its factor, to out[o : o + BLOCK].

        Vector v of row e < count is rows[r + which[w + e] * length + v * step :], its factor is
        factors[f + places[p + e]].
        """
        i64 = numba.int64
        signature = numba.void(out, i64, rows, i64, i64, which, i64, i64, factors, i64, places, i64, i64)

        def codegen(context, builder, sig, args):
            out, rows, which, factors, places = (
                builder.gep(_data(context, builder, sig.args[i], args[i]), [args[j]])
                for i, j in ((0, 1), (2, 3), (5, 6), (8, 9), (10, 11))
            )
            step, length, count = args[4], args[7], args[12]
            real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
            vector = ir.VectorType(real, LANES)
            offsets = [builder.mul(step, ir.Constant(_I64, v)) for v in range(VECTORS)]
            sums = [_vector(builder, out, ir.Constant(_I64, v * LANES), vector) for v in range(VECTORS)]
            begin = [builder.load(total, align=item) if keep else _zero(vector) for total in sums]

            def add(e, totals):
                row, place = (builder.sext(builder.load(builder.gep(a, [e])), _I64) for a in (which, places))
                row, factor = builder.gep(rows, [builder.mul(row, length)]), builder.load(builder.gep(factors, [place]))
                factor = _spread(builder, factor, vector)
                values = (builder.load(_vector(builder, row, offset, vector), align=item) for offset in offsets)
                products = (builder.fmul(value, factor, flags=_CONTRACT) for value in values)
                return [builder.fadd(total, product, flags=_CONTRACT) for total, product in zip(totals, products)]

            for total, value in zip(sums, _sum_loop(builder, count, begin, add, "rows")):
                builder.store(value, total, align=item)
            return context.get_dummy_value()

        return signature, codegen

    return kernel


sum_rows, add_rows = _sum_rows(False), _sum_rows(True)


@intrinsic
def add_window(typingctx, image, at, width, window, w, rows, length):
    """image[at + i * width + q] += window[w + i * length + q] for i < rows, q < length, a multiple of LANES."""
    i64 = numba.int64
    signature = numba.void(image, i64, i64, window, i64, i64, i64)

    def codegen(context, builder, sig, args):
        image, at, width, window, w, rows, length = args
        vector, item = ir.VectorType(context.get_value_type(sig.args[0].dtype), LANES), sig.args[0].dtype.bitwidth // 8
        image = builder.gep(_data(context, builder, sig.args[0], image), [at])
        window = builder.gep(_data(context, builder, sig.args[3], window), [w])
        with cgutils.for_range(builder, rows) as row:
            to = builder.gep(image, [builder.mul(row.index, width)])
            source = builder.gep(window, [builder.mul(row.index, length)])
            with cgutils.for_range(builder, builder.udiv(length, ir.Constant(_I64, LANES))) as part:
                offset = builder.mul(part.index, ir.Constant(_I64, LANES))
                to_q, from_q = _vector(builder, to, offset, vector), _vector(builder, source, offset, vector)
                total = builder.fadd(builder.load(to_q, align=item), builder.load(from_q, align=item))
                builder.store(total, to_q, align=item)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def deal(typingctx, row, r, out, o, step, count):
    """out[o + v * step + q] = row[r + v * LANES + q] for v < count, q < LANES."""
    i64 = numba.int64
    signature = numba.void(row, i64, out, i64, i64, i64)

    def codegen(context, builder, sig, args):
        row, out = (builder.gep(_data(context, builder, sig.args[i], args[i]), [args[i + 1]]) for i in (0, 2))
        vector, item = ir.VectorType(context.get_value_type(sig.args[0].dtype), LANES), sig.args[0].dtype.bitwidth // 8
        with cgutils.for_range(builder, args[5]) as part:
            source = _vector(builder, row, builder.mul(part.index, ir.Constant(_I64, LANES)), vector)
            target = _vector(builder, out, builder.mul(part.index, args[4]), vector)
            builder.store(builder.load(source, align=item), target, align=item)
        return context.get_dummy_value()

    return signature, codegen


def _products(rows):
    """Make `products1`, `products4`, `products6`: they differ in the number of `rows` of c that stay in registers."""

    @intrinsic
    def products(typingctx, a, a0, ai, ak, b, b0, bk, c, c0, ci, inner, keep):
        """c[i, :] = sum over k < inner of a[i, k] * b[k, :] (plus c if `keep`), LANES wide.

        Element (i, k) of a is a[a0 + i * ai + k * ak], row k of b starts at b[b0 + k * bk], row i of c at
        c[c0 + i * ci]: a matrix product, of whatever order in memory. In place of a number, `ak` may be an array of
        offsets, a[a0 + i * ai + ak[k]]: a convolution.
        """
        i64, listed = numba.int64, isinstance(ak, numba.types.Array)
        signature = numba.void(
            a, i64, i64, ak if listed else i64, b, i64, i64, c, i64, i64, i64, numba.boolean
        )  # fmt: skip

        def codegen(context, builder, sig, args):
            ai, ak, bk, ci, inner, keep = (args[i] for i in (2, 3, 6, 9, 10, 11))
            a, b, c = (builder.gep(_data(context, builder, sig.args[i], args[i]), [args[i + 1]]) for i in (0, 4, 7))
            offsets = _data(context, builder, sig.args[3], ak) if listed else None
            real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
            vector = ir.VectorType(real, LANES)
            starts = [builder.gep(a, [builder.mul(ai, ir.Constant(_I64, i))]) for i in range(rows)]
            out = [_vector(builder, c, builder.mul(ci, ir.Constant(_I64, i)), vector) for i in range(rows)]
            begin = [builder.select(keep, builder.load(row, align=item), _zero(vector)) for row in out]

            def add(k, sums):
                values = builder.load(_vector(builder, b, builder.mul(k, bk), vector), align=item)
                offset, results = builder.load(builder.gep(offsets, [k])) if listed else builder.mul(k, ak), []
                for total, start in zip(sums, starts):
                    factor = _spread(builder, builder.load(builder.gep(start, [offset])), vector)
                    product = builder.fmul(factor, values, flags=_CONTRACT)
                    results.append(builder.fadd(total, product, flags=_CONTRACT))
                return results

            for row, value in zip(out, _sum_loop(builder, inner, begin, add, "inner")):
                builder.store(value, row, align=item)
            return context.get_dummy_value()

        return signature, codegen

    return products


products1, products4, products6 = _products(1), _products(4), _products(6)


def _dots(rows, columns):
    """Make `dots1` and `dots2`, which keep one and 2 x 4 (`rows` x `columns`) sums in registers."""

    @intrinsic
    def dots(typingctx, a, a0, ai, b, b0, bj, c, c0, ci, length):
        """c[i, j] = the sum over k < length of a[i, k] * b[j, k], for rows of a and rows of b.

        Row i of a starts at a[a0 + i * ai], row j of b at b[b0 + j * bj], row i of c at c[c0 + i * ci].
        """
        i64 = numba.int64
        signature = numba.void(a, i64, i64, b, i64, i64, c, i64, i64, i64)

        def codegen(context, builder, sig, args):
            a, b, c = (builder.gep(_data(context, builder, sig.args[i], args[i]), [args[i + 1]]) for i in (0, 3, 6))
            real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
            wide = REGISTER // item
            vector = ir.VectorType(real, wide)

            def starts(array, step, count):
                return [builder.gep(array, [builder.mul(step, ir.Constant(_I64, i))]) for i in range(count)]

            a, b, c = starts(a, args[2], rows), starts(b, args[5], columns), starts(c, args[8], rows)

            def add(load):
                def add(k, sums):
                    left, right = [load(start, k) for start in a], [load(start, k) for start in b]
                    products = (builder.fmul(x, y, flags=_CONTRACT) for x in left for y in right)
                    return [builder.fadd(total, product, flags=_CONTRACT) for total, product in zip(sums, products)]

                return add

            def vectors(start, k):
                at = _vector(builder, start, builder.mul(k, ir.Constant(_I64, wide)), vector)
                return builder.load(at, align=item)

            whole = builder.sdiv(args[9], ir.Constant(_I64, wide))
            sums = _sum_loop(builder, whole, [_zero(vector)] * (rows * columns), add(vectors), "vectors")
            done = builder.mul(whole, ir.Constant(_I64, wide))

            def single(start, k):
                return builder.load(builder.gep(start, [builder.add(done, k)]))

            sums = [_total(builder, total) for total in sums]
            sums = _sum_loop(builder, builder.sub(args[9], done), sums, add(single), "rest")
            for i, value in enumerate(sums):
                builder.store(value, builder.gep(c[i // columns], [ir.Constant(_I64, i % columns)]))
            return context.get_dummy_value()

        return signature, codegen

    return dots


def _total(builder, vector):
    """The sum of a vector's elements, half by half."""
    size = vector.type.count
    while size > 1:
        size //= 2
        undefined = ir.Constant(vector.type, ir.Undefined)
        halves = (
            ir.Constant(ir.VectorType(ir.IntType(32), size), list(range(first, first + size))) for first in (0, size)
        )
        low, high = (builder.shuffle_vector(vector, undefined, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


dots1, dots2 = _dots(1, 1), _dots(2, 4)


def _pool(size):
    """Make `pool1`, `pool2` and `pool3`, for windows of 1x1, 2x2 and 3x3 whose corner lies inside the image."""

    @intrinsic
    def pool(typingctx, x, x0, row, down, pixel, right, b, rectify, slack, y, y0, switches, s0, length):
        """y[k] = the largest of a window for k < length, and switches[k] = its number in the window.

        Number i * size + j of channel k is x[x0 + i * row + j * pixel + k]. The first of equals wins. What hangs over
        the image, farther than `down` or `right`, is replaced by the last inside, which has had its turn. To `rectify`,
        y[k] = ReLU(the largest + b[k]); where the ReLU turns a window off, the first of all wins.

        Returns whether rounding by `slack` might decide otherwise: a rival so near to the largest, that so near to 0.
        """
        i64, real = numba.int64, x.dtype
        signature = numba.boolean(
            x, i64, i64, i64, i64, i64, b, numba.boolean, real, y, i64, switches, i64, i64
        )  # fmt: skip

        def codegen(context, builder, sig, args):
            x, b, y, switches = (_data(context, builder, sig.args[i], args[i]) for i in (0, 6, 9, 11))
            x, y, switches = (builder.gep(array, [args[i]]) for array, i in ((x, 1), (y, 10), (switches, 12)))
            rectify, slack, length = args[7], args[8], args[13]
            real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
            number, byte = ir.IntType(32), ir.IntType(8)
            near = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(1), 0))

            def offsets(step, most):
                steps = [builder.mul(step, ir.Constant(_I64, i)) for i in range(size)]
                return [builder.select(builder.icmp_signed("<", o, most), o, most) for o in steps]

            downs, rights = offsets(args[2], args[3]), offsets(args[4], args[5])
            places = [builder.gep(x, [builder.add(o, q)]) for o in downs for q in rights]

            def loop(first, last, wide):
                def of(element):
                    return ir.VectorType(element, wide) if wide > 1 else element

                def constant(element, value):
                    return ir.Constant(of(element), [value] * wide if wide > 1 else value)

                def at(array, k, element):
                    return builder.bitcast(builder.gep(array, [k]), of(element).as_pointer())

                def larger(a, b):
                    return builder.fcmp_ordered(">", a, b)

                every = _spread(builder, slack, of(real)) if wide > 1 else slack
                with cgutils.for_range_slice(builder, first, last, ir.Constant(_I64, wide), _I64) as (k, _):
                    best, where = builder.load(at(places[0], k, real), align=item), constant(number, 0)
                    second = constant(real, float("-inf"))
                    for i, place in enumerate(places[1:], 1):
                        value = builder.load(at(place, k, real), align=item)
                        wins = larger(value, best)
                        loser, best = builder.select(wins, best, value), builder.select(wins, value, best)
                        where = builder.select(wins, constant(number, i), where)
                        second = builder.select(larger(loser, second), loser, second)
                    rectified = builder.fadd(best, builder.load(at(b, k, real), align=item))
                    close = builder.fcmp_ordered("<=", builder.fsub(best, second), every)
                    close = builder.or_(close, builder.fcmp_ordered("<=", rectified, every))
                    on = builder.fcmp_ordered(">=", rectified, builder.fsub(constant(real, 0.0), every))
                    close = builder.and_(close, on)
                    if wide > 1:
                        close = builder.bitcast(close, ir.IntType(wide))
                        close = builder.icmp_unsigned("!=", close, ir.Constant(ir.IntType(wide), 0))
                    builder.store(builder.or_(builder.load(near), close), near)
                    limit = builder.select(rectify, constant(real, 0.0), constant(real, float("-inf")))
                    best = builder.select(rectify, rectified, best)
                    off = builder.fcmp_ordered("<=", best, limit)
                    best, where = builder.select(off, limit, best), builder.select(off, constant(number, 0), where)
                    builder.store(best, at(y, k, real), align=item)
                    builder.store(builder.trunc(where, of(byte)), at(switches, k, byte), align=1)

            whole = builder.and_(length, ir.Constant(_I64, -(REGISTER // item)))
            loop(ir.Constant(_I64, 0), whole, REGISTER // item)
            loop(whole, length, 1)
            return builder.load(near)

        return signature, codegen

    return pool


pool1, pool2, pool3 = _pool(1), _pool(2), _pool(3)


class _Number:
    """A vector (or a single number) that is added, subtracted and scaled like a Python number."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def _new(self, operation, other):
        return _Number(self.builder, operation(self.value, other.value, flags=_CONTRACT))

    def __add__(self, other):
        return self._new(self.builder.fadd, other)

    def __sub__(self, other):
        return self._new(self.builder.fsub, other)

    def __rmul__(self, factor):
        type_ = self.value.type
        value = ir.Constant(type_, [factor] * type_.count if isinstance(type_, ir.VectorType) else factor)
        return self._new(self.builder.fmul, _Number(self.builder, value))


def rowwise(formula, count=None):
    """Make a kernel of `formula`, which takes `count` numbers and returns several, sums of them with constant factors.

    The kernel applies it to rows: ``kernel(x, x0, x_step, y, y0, y_step, length)`` reads row i < count at
    ``x[x0 + i * x_step]`` and writes row j of the results at ``y[y0 + j * y_step]``, `length` elements of each.
    """
    count = count or formula.__code__.co_argcount

    @intrinsic
    def kernel(typingctx, x, x0, x_step, y, y0, y_step, length):
        i64 = numba.int64
        signature = numba.void(x, i64, i64, y, i64, i64, i64)

        def codegen(context, builder, sig, args):
            x = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
            y = builder.gep(_data(context, builder, sig.args[3], args[3]), [args[4]])
            real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8

            def row(array, step, i, at, type_):
                start = builder.gep(array, [builder.mul(step, ir.Constant(_I64, i))])
                return builder.bitcast(builder.gep(start, [at]), type_.as_pointer())

            def loop(first, last, type_, step):
                with cgutils.for_range_slice(builder, first, last, ir.Constant(_I64, step), _I64) as (q, _):
                    values = (builder.load(row(x, args[2], i, q, type_), align=item) for i in range(count))
                    for j, result in enumerate(formula(*(_Number(builder, value) for value in values))):
                        builder.store(result.value, row(y, args[5], j, q, type_), align=item)

            wide = REGISTER // item
            whole = builder.and_(args[6], ir.Constant(_I64, -wide))
            loop(ir.Constant(_I64, 0), whole, ir.VectorType(real, wide), wide)
            loop(whole, args[6], real, 1)
            return context.get_dummy_value()

        return signature, codegen

    return kernel
