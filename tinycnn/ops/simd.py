"""Inner loops as LLVM vectors: sums that stay in registers, as no compiler finds by itself.

All arrays are flat, and the offset where to begin follows each: a slice would cost as much as the sum. Only their
address is used, so `intrinsic` refuses what is not contiguous or of another dtype. A vector of LANES elements becomes
as many registers as the processor needs. Every loop's docstring says it in plain NumPy; tests/test_kernels.py runs
both.
"""

import contextlib
import functools
import inspect

import llvmlite.binding
import llvmlite.ir as ir
import numba
import numpy as np
from numba import extending, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import register_jitable

LANES = 16
REGISTER = 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32  # bytes
CONTRACT = ("contract",)  # a * b + c may round once
I64 = ir.IntType(64)
int64 = numba.int64
INDICES = {  # names of arrays that hold whole numbers, and the dtypes that they may have; all others hold the real ones
    "ak": (numba.int32, numba.int64),
    "chosen": (numba.int32,),
    "places": (numba.int32,),
    "switches": (numba.uint8,),
}


def intrinsic(function):
    """Numba's, whose arrays must be contiguous, those of real numbers of one dtype: else a TypingError."""
    names = [*inspect.signature(function).parameters][1:]

    @functools.wraps(function)
    def checked(typingctx, *args):
        arrays = {name: a for name, a in zip(names, args) if isinstance(a, types.Array)}
        first = next(iter(arrays.values()), None)
        for name, a in arrays.items():
            allowed = INDICES.get(name, {numba.float32, numba.float64} & {first.dtype})
            if a.dtype not in allowed or a.layout != "C":
                kind = " or ".join(map(str, allowed)) or "float32 or float64"
                raise TypingError(f"{function.__name__}: {name} must be a contiguous array of {kind}, got {a}")
        return function(typingctx, *args)

    return extending.intrinsic(checked)


@register_jitable
def round_up(size, multiple=LANES):
    """Return `size` rounded up to whole vectors."""
    return -(-size // multiple) * multiple


def whole_vectors(w):
    """Return w (..., K), contiguous, with zeros up to whole vectors of K."""
    out = np.zeros((*w.shape[:-1], round_up(w.shape[-1])), w.dtype)
    out[..., : w.shape[-1]] = w
    return out


def number(i):
    """An LLVM integer."""
    return ir.Constant(I64, i)


def pointers(context, builder, sig, args, *positions):
    """Where the arrays among the arguments at `positions` begin: each from the offset that follows it."""
    for i in positions:
        data = context.make_array(sig.args[i])(context, builder, args[i]).data
        yield builder.gep(data, [args[i + 1]])


def element(context, sig):
    """(LLVM's type of the first array's elements, their size in bytes)."""
    return context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8


def vector_at(builder, pointer, offset, vector):
    """The vector (or number: its type is `vector`) at an offset from a pointer."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def spread(builder, value, vector):
    """A vector of equal elements."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)


def zero(vector):
    """A vector of zeros."""
    return ir.Constant(vector, [0.0] * vector.count)


def sum_loop(builder, count, begin, add, name):
    """Return `begin`, changed by ``add(i, values)`` for i from 0 to `count` - 1; all stay in registers."""
    before, loop = builder.block, builder.append_basic_block(name)
    after = builder.append_basic_block(f"after {name}")
    builder.cbranch(builder.icmp_signed(">", count, number(0)), loop, after)
    builder.position_at_end(loop)
    i, sums = builder.phi(I64), [builder.phi(value.type) for value in begin]
    new = add(i, sums)
    end, following = builder.block, builder.add(i, number(1))
    for phi, first, value in zip([i, *sums], [number(0), *begin], [following, *new]):
        phi.add_incoming(first, before)
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in begin]
    for result, first, value in zip(results, begin, new):
        result.add_incoming(first, before)
        result.add_incoming(value, end)
    return results


@contextlib.contextmanager
def each_vector(builder, length, wide):
    """Where each vector of a row of `length` begins: the last ends with the row, and overlaps the one before."""
    last = builder.sub(length, number(wide))
    last = builder.select(builder.icmp_signed(">", last, number(0)), last, number(0))
    with cgutils.for_range_slice(builder, number(0), length, number(wide), I64) as (k, _):
        yield builder.select(builder.icmp_signed("<", k, last), k, last)


@intrinsic
def add_window(typingctx, image, at, width, window, w, rows, length):
    """Add a window, its rows one after another, to an image; `length` is a multiple of LANES.

    >>> for i in range(rows):
    ...     image[at + i * width :][:length] += window[w + i * length :][:length]
    """
    signature = numba.void(image, int64, int64, window, int64, int64, int64)

    def codegen(context, builder, sig, args):
        (image, window), (width, rows, length) = pointers(context, builder, sig, args, 0, 3), (args[2], *args[5:])
        real, item = element(context, sig)
        vector = ir.VectorType(real, LANES)
        with cgutils.for_range(builder, rows) as row:
            to = builder.gep(image, [builder.mul(row.index, width)])
            source = builder.gep(window, [builder.mul(row.index, length)])
            with cgutils.for_range(builder, builder.udiv(length, number(LANES))) as part:
                offset = builder.mul(part.index, number(LANES))
                to_q, from_q = vector_at(builder, to, offset, vector), vector_at(builder, source, offset, vector)
                total = builder.fadd(builder.load(to_q, align=item), builder.load(from_q, align=item))
                builder.store(total, to_q, align=item)
        return context.get_dummy_value()

    return signature, codegen


def _products(rows):
    """Make `products1`, `products4`, `products6`: they differ in the number of `rows` of c that stay in registers."""

    @intrinsic
    def products(typingctx, a, a0, ai, ak, b, b0, bk, c, c0, ci, inner, onto):
        """A matrix product c = a b, or c += a b if `onto`, of `rows` rows and LANES columns.

        A row of b and c is contiguous; a may lie in memory in any order. In place of a number, `ak` may be an array of
        offsets, a[a0 + i * ai + ak[k]]: a convolution.

        >>> for i in range(rows):
        ...     products = (a[a0 + i * ai + k * ak] * b[b0 + k * bk :][:LANES] for k in range(inner))
        ...     c[c0 + i * ci :][:LANES] = sum(products, c[c0 + i * ci :][:LANES] if onto else 0)
        """
        listed = isinstance(ak, numba.types.Array)
        step = ak if listed else int64
        signature = numba.void(a, int64, int64, step, b, int64, int64, c, int64, int64, int64, numba.boolean)

        def codegen(context, builder, sig, args):
            ai, ak, bk, ci, inner, onto = (args[i] for i in (2, 3, 6, 9, 10, 11))
            a, b, c = pointers(context, builder, sig, args, 0, 4, 7)
            offsets = context.make_array(sig.args[3])(context, builder, ak).data if listed else None
            real, item = element(context, sig)
            vector = ir.VectorType(real, LANES)
            starts = [builder.gep(a, [builder.mul(ai, number(i))]) for i in range(rows)]
            out = [vector_at(builder, c, builder.mul(ci, number(i)), vector) for i in range(rows)]
            begin = [builder.select(onto, builder.load(row, align=item), zero(vector)) for row in out]

            def add(k, sums):
                values = builder.load(vector_at(builder, b, builder.mul(k, bk), vector), align=item)
                offset, results = builder.load(builder.gep(offsets, [k])) if listed else builder.mul(k, ak), []
                for total, start in zip(sums, starts):
                    factor = spread(builder, builder.load(builder.gep(start, [offset])), vector)
                    product = builder.fmul(factor, values, flags=CONTRACT)
                    results.append(builder.fadd(total, product, flags=CONTRACT))
                return results

            for row, value in zip(out, sum_loop(builder, inner, begin, add, "inner")):
                builder.store(value, row, align=item)
            return context.get_dummy_value()

        return signature, codegen

    return products


products1, products4, products6 = _products(1), _products(4), _products(6)


def _dots(rows, columns):
    """Make `dots1` and `dots2`, which keep one and 2 x 4 (`rows` x `columns`) sums in registers."""

    @intrinsic
    def dots(typingctx, a, a0, ai, b, b0, bj, c, c0, ci, length):
        """A matrix product c = a b' of `rows` rows of a and `columns` rows of b, each contiguous.

        >>> for i, j in np.ndindex(rows, columns):
        ...     c[c0 + i * ci + j] = a[a0 + i * ai :][:length] @ b[b0 + j * bj :][:length]
        """
        signature = numba.void(a, int64, int64, b, int64, int64, c, int64, int64, int64)

        def codegen(context, builder, sig, args):
            (a, b, c), length = pointers(context, builder, sig, args, 0, 3, 6), args[9]
            real, item = element(context, sig)
            wide = REGISTER // item
            vector = ir.VectorType(real, wide)

            def starts(array, step, count):
                return [builder.gep(array, [builder.mul(step, number(i))]) for i in range(count)]

            a, b, c = starts(a, args[2], rows), starts(b, args[5], columns), starts(c, args[8], rows)

            def add(load):
                def add(k, sums):
                    left, right = [load(start, k) for start in a], [load(start, k) for start in b]
                    products = (builder.fmul(x, y, flags=CONTRACT) for x in left for y in right)
                    return [builder.fadd(total, product, flags=CONTRACT) for total, product in zip(sums, products)]

                return add

            def vectors(start, k):
                return builder.load(vector_at(builder, start, builder.mul(k, number(wide)), vector), align=item)

            whole = builder.sdiv(length, number(wide))
            sums = sum_loop(builder, whole, [zero(vector)] * (rows * columns), add(vectors), "vectors")
            done = builder.mul(whole, number(wide))

            def single(start, k):
                return builder.load(builder.gep(start, [builder.add(done, k)]))

            sums = [_total(builder, total) for total in sums]
            sums = sum_loop(builder, builder.sub(length, done), sums, add(single), "rest")
            for i, value in enumerate(sums):
                builder.store(value, builder.gep(c[i // columns], [number(i % columns)]))
            return context.get_dummy_value()

        return signature, codegen

    return dots


def _total(builder, vector):
    """The sum of a vector's elements, half by half."""
    size, undefined = vector.type.count // 2, ir.Constant(vector.type, ir.Undefined)
    if size == 0:
        return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
    masks = (ir.Constant(ir.VectorType(ir.IntType(32), size), [*range(first, first + size)]) for first in (0, size))
    return _total(builder, builder.fadd(*(builder.shuffle_vector(vector, undefined, mask) for mask in masks)))


dots1, dots2 = _dots(1, 1), _dots(2, 4)


def _pool(size):
    """Make `pool1`, `pool2` and `pool3`, for windows of 1x1, 2x2 and 3x3 whose corner lies inside the image."""

    @intrinsic
    def pool(typingctx, x, x0, row, down, pixel, right, b, b0, rectify, slack, slack0, y, y0, switches, s0, length):
        """Pool one window, all channels: bias, the FIRST maximum and, to `rectify`, ReLU, after which all may be 0.

        NaN is not looked for, and `length` is at least a vector.

        What hangs over the image, farther than `down` or `right`, never wins. Returns whether an error of slack[k]
        might decide otherwise somewhere: see `_near`. It may be None, then nobody asks.

        >>> places = [(i * row, j * pixel) for i in range(size) for j in range(size)]
        >>> values = np.array([x[x0 + o + q :][:length] + b[b0:][:length] for o, q in places])
        >>> values[[o > down or q > right for o, q in places]] = -np.inf
        >>> y[y0:][:length] = np.maximum(values.max(0), 0) if rectify else values.max(0)
        >>> switches[s0:][:length] = (np.maximum(values, 0) if rectify else values).argmax(0)
        >>> second, best = np.sort(np.vstack([0 * values[0] - np.inf, values]), 0)[-2:]
        >>> doubt = -1 if slack is None else slack[slack0:][:length]
        >>> result = ((best >= -doubt) & ((best - second <= doubt) | (best <= doubt))).any()
        """
        asked = isinstance(slack, numba.types.Array)
        signature = numba.boolean(
            x, int64, int64, int64, int64, int64, b, int64, numba.boolean, slack, int64,
            y, int64, switches, int64, int64,
        )  # fmt: skip

        def codegen(context, builder, sig, args):
            x, b, y, switches = pointers(context, builder, sig, args, 0, 6, 11, 13)
            (slack,) = pointers(context, builder, sig, args, 9) if asked else [None]
            rectify, length = args[8], args[15]
            real, item = element(context, sig)
            flag, byte = ir.IntType(32), ir.IntType(8)
            near = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(1), 0))

            def offsets(step, most):
                steps = [builder.mul(step, number(i)) for i in range(size)]
                inside = [builder.icmp_signed("<=", o, most) for o in steps]
                return [(i, builder.select(i, o, most)) for i, o in zip(inside, steps)]

            downs, rights = offsets(args[2], args[3]), offsets(args[4], args[5])
            places = [(builder.and_(i, j), builder.gep(x, [builder.add(o, q)])) for i, o in downs for j, q in rights]

            wide = REGISTER // item

            def of(element):
                return ir.VectorType(element, wide)

            def constant(element, value):
                return ir.Constant(of(element), [value] * wide)

            def load(array, k):
                return builder.load(vector_at(builder, array, k, of(real)), align=item)

            with each_vector(builder, length, wide) as k:
                bias = load(b, k)
                best, where = builder.fadd(load(places[0][1], k), bias), constant(flag, 0)
                second = never = constant(real, float("-inf"))
                for i, (inside, place) in enumerate(places[1:], 1):
                    value = builder.select(inside, builder.fadd(load(place, k), bias), never)
                    wins = builder.fcmp_ordered(">", value, best)
                    loser, best = builder.select(wins, best, value), builder.select(wins, value, best)
                    where = builder.select(wins, constant(flag, i), where)
                    second = builder.select(builder.fcmp_ordered(">", loser, second), loser, second)
                if asked:
                    close = _near(builder, best, second, load(slack, k), constant(real, 0.0))
                    some = builder.icmp_unsigned("!=", builder.bitcast(close, ir.IntType(wide)), ir.IntType(wide)(0))
                    builder.store(builder.or_(builder.load(near), some), near)
                limit = builder.select(rectify, constant(real, 0.0), constant(real, float("-inf")))
                off = builder.fcmp_ordered("<=", best, limit)
                best, where = builder.select(off, limit, best), builder.select(off, constant(flag, 0), where)
                builder.store(best, vector_at(builder, y, k, of(real)), align=item)
                builder.store(builder.trunc(where, of(byte)), vector_at(builder, switches, k, of(byte)), align=1)
            return builder.load(near)

        return signature, codegen

    return pool


def _near(builder, best, second, slack, nothing):
    """Whether an error of `slack` might decide otherwise: the window is not off, and a rival or 0 is as near."""
    on = builder.fcmp_ordered(">=", best, builder.fsub(nothing, slack))
    rival = builder.fcmp_ordered("<=", builder.fsub(best, second), slack)
    return builder.and_(on, builder.or_(rival, builder.fcmp_ordered("<=", best, slack)))


pool1, pool2, pool3 = _pool(1), _pool(2), _pool(3)


class _Number:
    """A vector that is added, subtracted and scaled like a Python number."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def _new(self, operation, other):
        return _Number(self.builder, operation(self.value, other.value, flags=CONTRACT))

    def __add__(self, other):
        return self._new(self.builder.fadd, other)

    def __sub__(self, other):
        return self._new(self.builder.fsub, other)

    def __rmul__(self, factor):
        value = ir.Constant(self.value.type, [factor] * self.value.type.count)
        return self._new(self.builder.fmul, _Number(self.builder, value))


def rowwise(formula, count):
    """Make a kernel of `formula`: `count` numbers to several, which are sums of them with constant factors."""

    @intrinsic
    def kernel(typingctx, x, x0, x_step, y, y0, y_step, length):
        """Apply the formula to rows: what is a number in it is `length` of them, side by side.

        Where that is less than a vector, the whole vector is computed: results go beyond y's rows, the last one's too.

        >>> results = formula(*(x[x0 + i * x_step :][:length] for i in range(count)))
        >>> for j, result in enumerate(results):
        ...     y[y0 + j * y_step :][:length] = result
        """
        signature = numba.void(x, int64, int64, y, int64, int64, int64)

        def codegen(context, builder, sig, args):
            (x, y), (x_step, y_step, length) = pointers(context, builder, sig, args, 0, 3), (args[2], *args[5:])
            real, item = element(context, sig)

            vector = ir.VectorType(real, REGISTER // item)

            def row(array, step, i, at):
                return vector_at(builder, builder.gep(array, [builder.mul(step, number(i))]), at, vector)

            with each_vector(builder, length, REGISTER // item) as q:
                values = (builder.load(row(x, x_step, i, q), align=item) for i in range(count))
                for j, result in enumerate(formula(*(_Number(builder, value) for value in values))):
                    builder.store(result.value, row(y, y_step, j, q), align=item)
            return context.get_dummy_value()

        return signature, codegen

    return kernel
