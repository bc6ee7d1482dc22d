"""Matrix products for Numba kernels: SciPy's BLAS, called without copies and with any leading dimension.

`np.dot` inside a kernel copies strided operands and cannot add to its output. These call the BLAS that SciPy exports
for Cython (`scipy.linalg.cython_blas`) by symbol name, so that compiled kernels can still be cached on disk. All
matrices are row-major with contiguous rows; BLAS is column-major, so c = a b is asked for as c' = b' a'.
"""

import llvmlite.binding
import llvmlite.ir as ir
import numba
import scipy.linalg.cython_blas  # noqa: F401  (loads the library whose symbols are registered below)
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

_SYMBOLS = {}
for _type, _name in ((numba.float32, "sgemm"), (numba.float64, "dgemm")):
    _SYMBOLS[_type] = f"tinycnn_{_name}"
    llvmlite.binding.add_symbol(_SYMBOLS[_type], get_cython_function_address("scipy.linalg.cython_blas", _name))


@intrinsic
def _gemm(typingctx, transa, transb, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """Column-major c (m, n) = op(a) op(b) + beta c; a, b, c are arrays, of which only the address is used."""
    i64 = numba.int64
    real = c.dtype
    signature = numba.void(numba.boolean, numba.boolean, i64, i64, i64, a, i64, b, i64, real, c, i64)

    def codegen(context, builder, sig, args):
        transa, transb, m, n, k, a, lda, b, ldb, beta, c, ldc = args
        byte, i32, llreal = ir.IntType(8), ir.IntType(32), context.get_value_type(real)

        def by_reference(value, type_):
            slot = cgutils.alloca_once(builder, type_)
            builder.store(value, slot)
            return slot

        def flag(transposed):
            return by_reference(builder.select(transposed, byte(ord("T")), byte(ord("N"))), byte)

        def size(value):
            return by_reference(builder.trunc(value, i32), i32)

        def data(array_type, array):
            return context.make_array(array_type)(context, builder, array).data

        pa, pb, pc = data(sig.args[5], a), data(sig.args[7], b), data(sig.args[10], c)
        call = [flag(transa), flag(transb), size(m), size(n), size(k), by_reference(llreal(1.0), llreal)]
        call += [pa, size(lda), pb, size(ldb), by_reference(beta, llreal), pc, size(ldc)]
        function_type = ir.FunctionType(ir.VoidType(), [v.type for v in call])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, _SYMBOLS[real]), call)
        return context.get_dummy_value()

    return signature, codegen


@numba.njit(inline="always")
def _ld(a):
    return a.strides[0] // a.itemsize


@numba.njit(inline="always")
def gemm(a, b, beta, c):
    """c (M, N) = a (M, K) b (K, N) + beta c."""
    _gemm(False, False, c.shape[1], c.shape[0], a.shape[1], b, _ld(b), a, _ld(a), c.dtype.type(beta), c, _ld(c))


@numba.njit(inline="always")
def gemm_tn(a, b, beta, c):
    """c (M, N) = a' b + beta c with a (K, M), b (K, N)."""
    _gemm(False, True, c.shape[1], c.shape[0], a.shape[0], b, _ld(b), a, _ld(a), c.dtype.type(beta), c, _ld(c))


@numba.njit(inline="always")
def gemm_nt(a, b, beta, c):
    """c (M, N) = a b' + beta c with a (M, K), b (N, K)."""
    _gemm(True, False, c.shape[1], c.shape[0], a.shape[1], b, _ld(b), a, _ld(a), c.dtype.type(beta), c, _ld(c))
