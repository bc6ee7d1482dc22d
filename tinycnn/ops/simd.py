"""Two inner loops of sparse.py as LLVM vectors: sums that stay in registers, as no compiler finds by itself.

As in blas.py, only the address of an array argument is used, and compiled kernels can still be cached on disk. A vector
of LANES elements becomes as many registers as the processor needs.
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
def sum_rows(typingctx, out, at, rows, length, which, factors, count):
    """out[at : at + BLOCK] = sum over e < count of factors[e] * rows.flat[which[e] * length + at :][:BLOCK]."""
    i64 = numba.int64
    signature = numba.void(out, i64, rows, i64, which, factors, i64)

    def codegen(context, builder, sig, args):
        out, at, rows, length, which, factors, count = args
        real, item = context.get_value_type(sig.args[0].dtype), sig.args[0].dtype.bitwidth // 8
        vector, zero = ir.VectorType(real, LANES), ir.Constant(ir.VectorType(real, LANES), [0.0] * LANES)
        offsets = [ir.Constant(_I64, q) for q in range(0, BLOCK, LANES)]
        out = builder.gep(_data(context, builder, sig.args[0], out), [at])
        rows = builder.gep(_data(context, builder, sig.args[2], rows), [at])
        which, factors = _data(context, builder, sig.args[4], which), _data(context, builder, sig.args[5], factors)

        before, loop = builder.block, builder.append_basic_block("rows")
        after = builder.append_basic_block("sums")
        builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_I64, 0)), loop, after)
        builder.position_at_end(loop)
        e = builder.phi(_I64)
        sums = [builder.phi(vector) for _ in offsets]
        row = builder.mul(builder.sext(builder.load(builder.gep(which, [e])), _I64), length)
        row, factor = builder.gep(rows, [row]), builder.load(builder.gep(factors, [e]))
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
def add_window(typingctx, image, at, width, window, rows, length):
    """image.flat[at + i * width + q] += window.flat[i * length + q] for i < rows, q < length, a multiple of LANES."""
    i64 = numba.int64
    signature = numba.void(image, i64, i64, window, i64, i64)

    def codegen(context, builder, sig, args):
        image, at, width, window, rows, length = args
        vector, item = ir.VectorType(context.get_value_type(sig.args[0].dtype), LANES), sig.args[0].dtype.bitwidth // 8
        image = builder.gep(_data(context, builder, sig.args[0], image), [at])
        window = _data(context, builder, sig.args[3], window)
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
