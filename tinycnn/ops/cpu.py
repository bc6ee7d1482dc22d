"""The primitives on a CPU: Numba kernels. Here outputs are allocated and geometry is worked out; `choose` says which
algorithm serves which block: thin.py, winograd.py, sparse.py, or the kernels of its layers.
"""

import math

import numpy as np

from . import kernels, reference, sparse, thin, winograd
from .geometry import central, windows
from .parallel import PARTS, run
from .reference import Algorithms, adam_constants
from .simd import LANES, round_up, whole_vectors

COLS = 1 << 16  # elements of cols at a time: 256 kB of float32, half of a usual L2 cache
LINE = 64  # bytes


def _packed(b):
    """A matrix (N, U), LANES columns by LANES columns: (U / LANES rounded up, N, LANES)."""
    packed = np.empty((round_up(b.shape[1]) // LANES, len(b), LANES), b.dtype)
    kernels.pack(b, 0, len(b), packed.reshape(-1), len(b))
    return packed


class Ops(reference.Ops):
    """See `tinycnn.ops.reference.Ops`: the same contract, fast."""

    name = "cpu"
    FROM_REFERENCE = (  # few and small, or no arithmetic: NumPy is as good
        "asarray", "put", "take", "from_images", "to_numpy", "contiguous", "zeros", "dropout_mask", "multiply",
        "normalize", "column_sums", "relu", "relu_backward", "softmax_cross_entropy", "sgd_step",
    )  # fmt: skip

    def empty(self, shape, dtype):
        """On a cache line's boundary: vectors that cross one cost up to a quarter of the speed."""
        dtype, size = np.dtype(dtype), math.prod(np.atleast_1d(shape))
        memory = np.empty(size * dtype.itemsize + LINE, np.uint8)
        start = -memory.ctypes.data % LINE
        return memory[start : start + size * dtype.itemsize].view(dtype).reshape(shape)

    def conv2d(self, x, w, b, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = w.shape
        OH, OW, top, left = windows(x.shape[1:], (kh, kw), stride, padding)
        y = np.empty((len(x), OH, OW, K), x.dtype)
        rows = min(OH, max(1, COLS // (OW * kh * kw * C)))
        run(kernels.conv2d, x, whole_vectors(w.reshape(-1, K)), b, y, kh, kw, *stride, top, left, rows)
        return y

    def conv2d_backward_data(self, dy, w, shape, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = w.shape
        _, _, top, left = windows(shape[1:], (kh, kw), stride, padding)
        dx = np.empty(shape, dy.dtype)
        bands = -(-PARTS // max(len(dy), 1))  # a batch smaller than PARTS is cut further, by image rows
        rows = max(1, COLS // (dy.shape[2] * kh * kw * C))
        turned = whole_vectors(w.reshape(-1, K).T)
        run(kernels.conv2d_backward_data, dy, turned, dx, kh, kw, *stride, top, left, bands, rows)
        return dx

    def conv2d_backward_weights(self, x, dy, shape, stride=(1, 1), padding="SAME"):
        kh, kw, C, K = shape
        OH, OW, top, left = windows(x.shape[1:], (kh, kw), stride, padding)
        rows = min(OH, max(1, COLS // (OW * kh * kw * C)))
        dws, dbs = np.zeros((PARTS, kh * kw * C, round_up(K)), dy.dtype), np.zeros((PARTS, K), dy.dtype)
        run(kernels.conv2d_backward_weights, x, dy, dws, dbs, kh, kw, *stride, top, left, rows)
        return np.ascontiguousarray(dws.sum(0)[:, :K]).reshape(shape), dbs.sum(0)

    def maxpool2d(self, x, window, stride, padding="SAME"):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        y = np.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        switches = np.empty(y.shape, np.uint8)
        x = whole_vectors(x) if x.shape[3] < LANES else x
        run(kernels.maxpool2d, x, y, switches, *window, *stride, top, left)
        return y, switches

    def unpool2d(self, dy, switches, shape, window, stride, padding="SAME", how="switches"):
        _, H, W, _ = shape
        OH, OW, top, left = windows((H, W), window, stride, padding)
        if how == "repeat":
            r, c = (np.arange(H) + top) // stride[0], (np.arange(W) + left) // stride[1]
            inside = (r < OH)[:, None, None] & (c < OW)[:, None]
            return np.ascontiguousarray(np.where(inside, dy[:, r.clip(max=OH - 1)[:, None], c.clip(max=OW - 1)], 0))
        if how == "center":  # as if all maxima stood there
            switches = np.tile(central((H, W), window, stride, padding), (len(dy), 1, 1, dy.shape[3]))
        dx = np.empty(shape, dy.dtype)
        run(kernels.unpool2d, dy, switches, dx, *window, *stride, top, left)
        return dx

    def avgpool2d(self, x, window, stride, padding="SAME", count_padding=False):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        y = np.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        run(kernels.avgpool2d, x, y, *window, *stride, top, left, math.prod(window) * count_padding, size=x.size)
        return y

    def avgpool2d_backward(self, dy, shape, window, stride, padding="SAME", count_padding=False):
        dx, (_, _, top, left) = np.empty(shape, dy.dtype), windows(shape[1:], window, stride, padding)
        whole = math.prod(window) * count_padding
        run(kernels.avgpool2d_backward, dy, dx, *window, *stride, top, left, whole, size=dx.size)
        return dx

    def dense(self, x, w, b):
        partial = np.empty((PARTS // 2, len(x), round_up(w.shape[1])), x.dtype)
        run(kernels.dense, x, w, partial, parts=len(partial), size=w.size)
        return partial.sum(0)[:, : w.shape[1]] + b

    def dense_backward_data(self, dy, w, out=None):
        dx = np.empty((len(dy), len(w)), dy.dtype) if out is None else out
        run(kernels.dense_backward_data, dy, w, dx, size=w.size)
        return dx

    def dense_backward_weights(self, x, dy):
        dw = np.empty((x.shape[1], dy.shape[1]), dy.dtype)
        run(kernels.dense_backward_weights, x, _packed(dy), dw, size=dw.size)
        return dw

    def dense_adam_step(self, p, x, dy, m, v, lr, beta1, beta2, eps, t, decay=0.0):
        constants = adam_constants(self.dtype, lr, beta1, beta2, eps, t, decay)
        run(kernels.dense_adam_step, x, _packed(dy), p, m, v, *constants, size=p.size)

    def adam_step(self, p, g, m, v, lr, beta1, beta2, eps, t, decay=0.0):
        constants = adam_constants(self.dtype, lr, beta1, beta2, eps, t, decay)
        run(kernels.adam_step, *(a.reshape(-1) for a in (p, g, m, v)), *constants, size=p.size)

    def average(self, mean, p, rate):
        run(kernels.average, mean.reshape(-1), p.reshape(-1), self.dtype.type(rate), size=p.size)

    def algorithms(self, shape, w_shape, block):
        return choose(shape, w_shape, block)

    def conv_relu_pool(self, x, w, b, block, work, exact=False):
        way = choose(x.shape, w.shape, block).forward
        if way == "layers":
            return super().conv_relu_pool(x, w, b, block, work)
        OH, OW, corner, pool = _corners(x.shape[1:], w.shape, block)
        y = work("y", (len(x), OH, OW, w.shape[3]), x.dtype)
        switches = work("switches", y.shape, np.uint8)
        args = (x, w, b, y, switches, corner, pool, work)
        thin.forward(*args) if way == "thin" else winograd.forward(*args, exact)
        return y, switches

    def conv_relu_pool_backward_weights(self, x, w, y, switches, dy, block, work):
        way = choose(x.shape, w.shape, block).weights
        if way == "layers":
            return super().conv_relu_pool_backward_weights(x, w, y, switches, dy, block, work)
        _, _, corner, pool = _corners(x.shape[1:], w.shape, block)
        args = (x, w, y, switches, dy, corner, pool, work)
        if way == "Winograd":
            dw, db = winograd.backward_weights(*args)
            if np.isfinite(dw).all():
                return dw, db
        return sparse.backward_weights(*args)  # also what has overflowed on the way

    def conv_relu_pool_backward_data(self, w, y, switches, dy, shape, block, mask, rectify, work, out=None):
        way = choose(shape, w.shape, block).data
        if way == "layers":
            return super().conv_relu_pool_backward_data(w, y, switches, dy, shape, block, mask, rectify, work, out)
        _, _, corner, pool = _corners(shape[1:], w.shape, block)
        dx = work("dx", (len(dy), *shape[1:]), dy.dtype) if out is None else out
        if way == "Winograd" and mask and not rectify and len(dy) == len(y):
            winograd.backward_data(w, y, switches, dy, dx, corner, pool, work)
        elif not sparse.backward_data(w, y, switches, dy, dx, corner, pool, mask, rectify, work):
            return super().conv_relu_pool_backward_data(w, y, switches, dy, shape, block, mask, rectify, work, dx)
        return dx

    def largest(self, dx, out):
        whole = np.dtype(f"i{dx.itemsize}")
        run(kernels.largest, dx.view(whole), out.view(whole), size=dx.size)


def choose(shape, w_shape, block):
    """Which algorithm serves a block of images (..., H, W, C) and weights (kh, kw, C, K); nobody else decides it."""
    (H, W), (kh, kw, C, K) = shape[-3:-1], w_shape
    if tuple(block.stride) != (1, 1) or windows((H, W), (kh, kw), (1, 1), block.padding)[:2] != (H, W):
        return Algorithms("layers", "layers", "layers", "the output has not the input's size: as its layers, in turn")
    if kw * C <= LANES:
        why = f"a window's row, {kw} x {C} numbers, fits a vector: no im2col; back from each gradient to its window"
        return Algorithms("thin", "sparse", "sparse", why)
    if kh != kw or kh not in winograd.G:
        why = f"{kh} x {kw}, not 3x3 or 5x5: as its layers; back from each gradient to its window"
        return Algorithms("layers", "sparse", "sparse", why)
    why = f"{kh}x{kh} at stride 1: minimal filtering; by other rules and for several signals sparse"
    if K < LANES:
        return Algorithms("Winograd", "sparse", "sparse", f"{why}, as from fewer than {LANES} maps")
    return Algorithms("Winograd", "Winograd" if kh == 3 else "sparse", "Winograd", why)


def _corners(shape, w_shape, block):
    """(OH, OW, padding (top, left) of the convolution, windows of the pool as the kernels take them)."""
    corner = windows(shape, w_shape[:2], block.stride, block.padding)[2:]
    OH, OW, *pool_corner = windows(shape, block.window, block.pool_stride, block.pool_padding)
    return OH, OW, corner, (*block.window, *block.pool_stride, *pool_corner)
