"""Two inner loops of sparse.py as LLVM vectors: sums that stay in registers, as no compiler finds by itself.

All arrays are flat and come with an offset: a slice would cost as much as the sum. As in blas.py, only their address is
used, and compiled kernels can still be cached on disk. A vector of LANES elements becomes as many registers as the
processor needs.
"""

import llvmlite.ir as ir
import numba
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
BLOCK = 5 * LANES  # elements of a row that are summed together: 10 of AVX2's 16 registers
_I64 = ir.IntType(64)
_CONTRACT = ("contract",)  # a * b + c may round once


def _data(context, builder, array_type, array):
    return context.make_array(array_type)(context, builder, array).data


def _vector(builder, pointer, offset, vector):
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


@intrinsic
def sum_rows(typingctx, out, o, rows, length, column, which, w, factors, f, places, p, count):
    """out[o : o + BLOCK] = sum over e < count of factor(e) * row(e)[column : column + BLOCK].

    factor(e) = factors[f + places[p + e]], row(e) = rows[which[w + e] * length :].
    """
    i64 = numba.int64
    signature = numba.void(out, i64, rows, i64, i64, which, i64, factors, i64, places, i64, i64)

    def codegen(context, builder, sig, args):
        arrays = {i: _data(context, builder, sig.args[i], args[i]) for i in (0, 2, 5, 7, 9)}
        out, rows = builder.gep(arrays[0], [args[1]]), builder.gep(arrays[2], [args[4]])
        which, factors = builder.gep(arrays[5], [args[6]]), builder.gep(arrays[7], [args[8]])
        places, length, count = builder.gep(arrays[9], [args[10]]), args[3], args[11]
        real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
        vector, zero = ir.VectorType(real, LANES), ir.Constant(ir.VectorType(real, LANES), [0.0] * LANES)
        offsets = [ir.Constant(_I64, q) for q in range(0, BLOCK, LANES)]

        before, loop = builder.block, builder.append_basic_block("rows")
        after = builder.append_basic_block("sums")
        builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_I64, 0)), loop, after)
        builder.position_at_end(loop)
        e = builder.phi(_I64)
        sums = [builder.phi(vector) for _ in offsets]
        row, place = (builder.sext(builder.load(builder.gep(a, [e])), _I64) for a in (which, places))
        row, factor = builder.gep(rows, [builder.mul(row, length)]), builder.load(builder.gep(factors, [place]))
        undefined = ir.Constant(vector, ir.Undefined)
        factor = builder.insert_element(undefined, factor, ir.Constant(ir.IntType(32), 0))
        factor = builder.shuffle_vector(
            factor, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        )
        next_e, next_sums = builder.add(e, ir.Constant(_I64, 1)), []
        for total, offset in zip(sums, offsets):
            value = builder.load(_vector(builder, row, offset, vector), align=item)
            next_sums.append(builder.fadd(total, builder.fmul(value, factor, flags=_CONTRACT), flags=_CONTRACT))
        for phi, value in zip([e, *sums], [next_e, *next_sums]):
            phi.add_incoming(ir.Constant(_I64, 0) if phi is e else zero, before)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_e, count), loop, after)
        builder.position_at_end(after)
        results = [builder.phi(vector) for _ in offsets]
        for result, value in zip(results, next_sums):
            result.add_incoming(zero, before)
            result.add_incoming(value, loop)
        for result, offset in zip(results, offsets):
            builder.store(result, _vector(builder, out, offset, vector), align=item)
        return context.get_dummy_value()

    return signature, codegen


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
