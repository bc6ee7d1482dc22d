"""Matrix products for Numba kernels, from the blocks of simd.py that stay in registers.

A BLAS packs its operands, has threads of its own and takes microseconds to be called: for products as small and narrow
as these it reaches half of this speed. All arrays are flat, with an offset and strides.
"""

import numpy as np

from .parallel import inner, kernel
from .simd import LANES, dots1, dots2, products1, products4, products6, rowwise

ROWS = 256  # of a matrix that are packed together: 16 kB of float32 for each LANES columns


@inner
def multiply(a, a0, ai, ak, b, b0, bk, c, c0, ci, m, n, k, onto):
    """c (m, n) = a (m, k) b (k, n), or c += a b if `onto`; n is a multiple of LANES.

    Element (i, j) of a is a[a0 + i * ai + j * ak]; rows of b and c are bk and ci apart.
    """
    for j in range(0, n, LANES):
        i = 0
        while i < m:
            o, to, left = a0 + i * ai, c0 + i * ci + j, m - i
            if left >= 6 and left != 8:
                products6(a, o, ai, ak, b, b0 + j, bk, c, to, ci, k, onto)
                i += 6
            elif left >= 4:
                products4(a, o, ai, ak, b, b0 + j, bk, c, to, ci, k, onto)
                i += 4
            else:
                products1(a, o, ai, ak, b, b0 + j, bk, c, to, ci, k, onto)
                i += 1


@inner
def multiply_transposed(a, a0, ai, b, b0, bj, c, c0, ci, m, n, k):
    """c (m, n) = a (m, k) b (n, k)'; rows are ai, bj and ci apart."""
    for j in range(0, n, 4):
        for i in range(0, m, 2):
            if i + 2 <= m and j + 4 <= n:
                dots2(a, a0 + i * ai, ai, b, b0 + j * bj, bj, c, c0 + i * ci + j, ci, k)
            else:
                for r in range(i, min(i + 2, m)):
                    for s in range(j, min(j + 4, n)):
                        dots1(a, a0 + r * ai, ai, b, b0 + s * bj, bj, c, c0 + r * ci + s, ci, k)


_copy = rowwise(lambda row: [row], 1)


@kernel
def pack(b, r0, r1, packed, rows):
    """Copy b[r0:r1], LANES columns by LANES columns, to where each of them has its `rows` rows together."""
    flat, columns = b.reshape(-1), b.shape[1]
    for r in range(r0, r1):
        for c in range(0, columns, LANES):
            source, to, inside = np.uintp(r * columns + c), np.uintp(c * rows + (r - r0) * LANES), columns - c
            if inside >= LANES:
                _copy(flat, source, 0, packed, to, 0, LANES)
            else:
                for q in range(LANES):
                    packed[to + np.uintp(q)] = flat[source + np.uintp(q)] if q < inside else 0
