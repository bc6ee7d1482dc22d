"""The primitives on an NVIDIA GPU: CuPy holds the arrays, cuBLAS multiplies, kernels.cu does the rest.

A convolution is im2col and one product, in chunks of images as large as a fixed share of the memory allows; in a fused
block it may be Winograd's minimal filtering (`Ops.algorithms`). Nothing here waits for the device, and nothing but
`asarray`, `put`, `from_images` and `take` (from the host) or `to_numpy` and a loss without an array to go to (to the
host) moves data between the two.

Scratch is one for all networks, and a lock lets one thread at a time use it: what a thread launches stands in the
device's one stream before what the next one does. (With streams of one's own there has to be one thread.)

Products are in full float32. The environment variable CUPY_TF32=1 lets cuBLAS round their factors to TF32's 10 bits.
"""

import functools
import math
import os
from pathlib import Path

import cupy as cp
import numpy as np
from cupy.cuda import cublas

from . import get_ops, reference
from .geometry import central, windows
from .reference import Algorithms, adam_constants
from .workspace import Workspace

CHUNK = 1 << 30  # bytes that the cols of a chunk of images may have, if an eighth of the device's memory is no less
BLOCK = 256  # threads
MOST_BLOCKS = 1 << 16
SUM_SPAN = 64  # rows that a thread adds up
IM2COL, WINOGRAD = "im2col, one product", "Winograd F(4x4, 3x3), 36 products"
LEAST_CHANNELS = 16  # with fewer, Winograd's products do not outweigh its transforms


def _alone(method):
    """Let one thread at a time into the methods that use scratch: another's launches between would overwrite it."""

    @functools.wraps(method)
    def locked(self, *args, **kwargs):
        with self._scratch.lock:
            return method(self, *args, **kwargs)

    return locked


class Ops(reference.Ops):
    """See `tinycnn.ops.reference.Ops`: the same contract, on CuPy arrays."""

    name = "gpu"
    FROM_REFERENCE = ("dense_adam_step",)  # on purpose: it only calls other primitives

    def __init__(self, dtype="float32"):
        super().__init__(dtype)
        real = {"float32": "float", "float64": "double"}[str(self.dtype)]
        source = Path(__file__).with_name("kernels.cu").read_text()
        self._module = cp.RawModule(code=source, options=("-std=c++17", f"-Dreal={real}"))
        self._kernels, self._scratch = {}, Workspace(self)
        self._scalars = np.array(0, self.dtype), np.array(1, self.dtype)
        products = (cublas.sgemm, cublas.sgemmStridedBatched), (cublas.dgemm, cublas.dgemmStridedBatched)
        self._product, self._products = products[self.dtype == np.float64]
        tf32 = os.environ.get("CUPY_TF32") == "1"
        self._mode = cublas.CUBLAS_TF32_TENSOR_OP_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH
        total = cp.cuda.Device().mem_info[1]  # not what is free: another program would change the order of sums
        self._chunk = min(CHUNK, 1 << (total // 8).bit_length() - 1)

    def __reduce__(self):
        """A copy of a network has the same primitives; another process makes its own."""
        return get_ops, (self.name, str(self.dtype))

    # -- launching ---------------------------------------------------------------------------------------------

    def _launch(self, name, grid, block, *args):
        """Run a kernel; integers go as int, floats as the working type, other widths as NumPy scalars."""
        if name not in self._kernels:
            self._kernels[name] = self._module.get_function(name)
        kinds = {int: np.int32, float: self.dtype.type}
        self._kernels[name](grid, block, tuple(kinds[type(a)](a) if type(a) in kinds else a for a in args))

    def _each(self, name, n, *args):
        """Run a kernel over n elements."""
        self._launch(name, (min(max(1, -(-n // BLOCK)), MOST_BLOCKS),), (BLOCK,), *args, np.int64(n))

    def _rows(self, name, rows, length, *args):
        """Run a kernel over `rows` rows of `length` elements."""
        threads = min(BLOCK, -(-length // 32) * 32)
        if rows:
            self._launch(name, (-(-length // threads), min(rows, 65535)), (threads,), *args)

    # -- arrays ------------------------------------------------------------------------------------------------

    def asarray(self, a):
        if isinstance(a, cp.ndarray):
            return cp.ascontiguousarray(a, self.dtype)
        return self.put(np.ascontiguousarray(a, self.dtype))

    def put(self, a):
        if isinstance(a, cp.ndarray):
            return a
        a = np.ascontiguousarray(a)
        return self._within_memory(cp.asarray, a.nbytes, a)

    def take(self, a, rows):
        out = self.empty(len(rows), np.int64)
        self._each("gather_labels", len(rows), a, self.put(rows), out)
        return out

    @_alone
    def from_images(self, images, rows=None, moves=None):
        if images.dtype != np.uint8:
            return self.asarray(images if rows is None else images[rows])
        images = self.put(images)
        if rows is None:
            x = self.empty(images.shape, self.dtype)
            self._each("images_to_real", x.size, images, x)
            return x
        x = self.empty((len(rows), *images.shape[1:]), self.dtype)
        still = self._scratch("moves", (len(rows), 3), np.int64)
        still.fill(0)
        args = (images, self.put(rows), still if moves is None else self.put(moves), x, len(rows), *images.shape[1:])
        self._rows("gather_images", len(rows), x.size // len(rows), *args)
        return x

    def to_numpy(self, a):
        return a.get() if isinstance(a, cp.ndarray) else np.asarray(a)

    def contiguous(self, a):
        return cp.ascontiguousarray(a)

    def empty(self, shape, dtype):
        nbytes = math.prod(np.atleast_1d(shape)) * np.dtype(dtype).itemsize
        return self._within_memory(cp.empty, nbytes, shape, dtype)

    def zeros(self, shape):
        a = self.empty(shape, self.dtype)
        a.fill(0)
        return a

    def _within_memory(self, make, nbytes, *args):
        try:
            return make(*args)
        except cp.cuda.memory.OutOfMemoryError as e:
            cp.get_default_memory_pool().free_all_blocks()
            free = cp.cuda.Device().mem_info[0]
            raise MemoryError(
                f"the GPU has {free / 2**20:,.0f} MiB free, but {nbytes / 2**20:,.0f} MiB more are needed; use a "
                "smaller batch_size or fewer images, close other programs on the GPU, or take backend='cpu'"
            ) from e

    # -- matrix products ---------------------------------------------------------------------------------------

    def _handle(self):
        """cuBLAS's handle in our mode: CuPy has one for each thread, and other code may set its mode."""
        handle = cp.cuda.device.get_cublas_handle()
        cublas.setMathMode(handle, self._mode)
        return handle

    def _gemm(self, a, b, out, ta=False, tb=False, beta=0):
        """out (M, N) = op(a) op(b) + beta out, op transposing what `ta` and `tb` say.

        cuBLAS is called directly: cupy.matmul copies transposed operands and cannot add to its output. A row-major
        array is its transpose in column-major order: out' = op(b)' op(a)' is asked for.
        """
        (M, N), K = out.shape, a.shape[0 if ta else 1]
        handle, (one, beta) = self._handle(), (self._scalars[i].ctypes.data for i in (1, beta))
        operands = one, b.data.ptr, b.shape[1], a.data.ptr, a.shape[1], beta, out.data.ptr, N
        if M:  # of no images nothing is asked
            self._product(handle, int(tb), int(ta), N, M, K, *operands)

    def _gemms(self, a, b, out, ta=False, beta=0):
        """The same for B matrices at a time, one behind the other: out (B, M, N) = op(a) b + beta out."""
        (B, M, N), K = out.shape, b.shape[1]
        handle, (one, beta) = self._handle(), (self._scalars[i].ctypes.data for i in (1, beta))
        operands = one, b.data.ptr, N, K * N, a.data.ptr, a.shape[2], M * K, beta, out.data.ptr, N, M * N
        self._products(handle, 0, int(ta), N, M, K, *operands, B)

    # -- convolution -------------------------------------------------------------------------------------------

    def _chunks(self, N, floats_per_image):
        """Slices of N images whose scratch stays within bounds."""
        images = max(1, self._chunk // (floats_per_image * self.dtype.itemsize))
        for first in range(0, N, images):
            yield slice(first, min(first + images, N))

    def _im2col(self, x, kernel, stride, padding):
        """cols (N*OH*OW, kh*kw*C) of x, in scratch."""
        OH, OW, top, left = windows(x.shape[1:], kernel, stride, padding)
        cols = self._scratch("cols", (len(x) * OH * OW, math.prod(kernel) * x.shape[3]), self.dtype)
        threads = min(BLOCK, -(-cols.shape[1] // 32) * 32)
        grid = (-(-cols.shape[1] // threads), min(len(x) * OH, 65535))
        sizes = (*x.shape, OH, OW, *kernel, *stride, top, left)
        self._launch("im2col", grid, (threads, BLOCK // threads), x, cols, *sizes)
        return cols

    def _forward(self, x, w, y, stride, padding):
        """y (N, OH, OW, K) = x convolved with w, without bias."""
        kh, kw, C, K = w.shape
        for some in self._chunks(len(x), math.prod(y.shape[1:3]) * kh * kw * C):
            cols = self._im2col(x[some], (kh, kw), stride, padding)
            self._gemm(cols, w.reshape(-1, K), y[some].reshape(-1, K))

    @_alone
    def conv2d(self, x, w, b, stride=(1, 1), padding="SAME"):
        OH, OW, _, _ = windows(x.shape[1:], w.shape[:2], stride, padding)
        y = self.empty((len(x), OH, OW, w.shape[3]), self.dtype)
        self._forward(x, w, y, stride, padding)
        self._each("add_bias", y.size, y, b, len(b))
        return y

    @_alone
    def conv2d_backward_data(self, dy, w, shape, stride=(1, 1), padding="SAME", out=None):
        dx = self.empty(shape, self.dtype) if out is None else out
        (_, H, W, C), (kh, kw, _, K) = shape, w.shape
        OH, OW, top, left = windows((H, W), (kh, kw), stride, padding)
        for some in self._chunks(len(dx), OH * OW * kh * kw * C):
            signal, pixels = dy[some].reshape(-1, K), dx[some]
            cols = self._scratch("cols", (len(signal), kh * kw * C), self.dtype)
            self._gemm(signal, w.reshape(-1, K), cols, tb=True)
            sizes = (*pixels.shape, OH, OW, kh, kw, *stride, top, left)
            self._rows("col2im", len(pixels) * H, W * C, cols, pixels, *sizes)
        return dx

    @_alone
    def conv2d_backward_weights(self, x, dy, shape, stride=(1, 1), padding="SAME", out=None):
        dw, (kh, kw, C, K) = self.empty(shape, self.dtype) if out is None else out, shape
        for some in self._chunks(len(x), math.prod(dy.shape[1:3]) * kh * kw * C):
            cols = self._im2col(x[some], (kh, kw), stride, padding)
            self._gemm(cols, dy[some].reshape(-1, K), dw.reshape(-1, K), ta=True, beta=int(some.start > 0))
        return dw, self.column_sums(dy)

    # -- convolution by Winograd's minimal filtering (winograd.py), in the fused block alone ---------------------

    def _winograd(self, x, w, y, padding, flip=False):
        """y (N, OH, OW, K) = x convolved with w; or the way back, with `flip`: dx (N, H, W, C) from dy.

        The way back is a convolution too, of dy with the flipped and transposed weights and with 2 - pad for each pad.
        """
        _, _, top, left = windows((y if flip else x).shape[1:], (3, 3), (1, 1), padding)
        top, left = (2 - top, 2 - left) if flip else (top, left)
        points = self._scratch("U", (36, x.shape[3], y.shape[3]), self.dtype)
        self._each("winograd_weights", w.size // 9, w, points, w.shape[2], int(flip))
        for some in self._chunks(len(x), 36 * math.prod(_tiles(y[:1])) * max(points.shape[1:])):
            out, (rows, columns) = y[some], _tiles(y[some])
            v = self._points("winograd_input", "V", x[some], out, *out.shape[1:3], top, left)
            m = self._scratch("M", (*v.shape[:2], out.shape[3]), self.dtype)
            self._gemms(v, points, m)
            self._rows("winograd_output", rows, columns * out.shape[3], m, out, *out.shape)

    def _winograd_weights(self, x, dy, dw, padding):
        """dw (3, 3, C, K); the sum over tiles is cut in parts, as 36 products of few rows would not fill a GPU."""
        C, K = dw.shape[2:]
        geometry = windows(x.shape[1:], (3, 3), (1, 1), padding)
        slices = list(self._chunks(len(x), 36 * math.prod(_tiles(dy[:1])) * max(C, K)))
        parts = math.gcd(8, *(math.prod(_tiles(dy[some])) for some in slices))
        sums = self._scratch("dU", (36 * parts, C, K), self.dtype)
        for some in slices:
            v = self._points("winograd_input", "V", x[some], dy[some], *geometry).reshape(36 * parts, -1, C)
            s = self._points("winograd_signal", "M", dy[some], dy[some]).reshape(36 * parts, -1, K)
            self._gemms(v, s, sums, ta=True, beta=int(some.start > 0))
        self._each("winograd_weights_back", C * K, sums, dw, parts)

    def _points(self, kernel, key, x, y, *geometry):
        """The 36 points (36, tiles, C) that x (N, H, W, C) has for every tile of y (N, OH, OW, K)."""
        rows, columns = _tiles(y)
        points = self._scratch(key, (36, rows * columns, x.shape[3]), self.dtype)
        self._rows(kernel, rows, columns * x.shape[3], x, points, *x.shape, *geometry)
        return points

    # -- pooling -----------------------------------------------------------------------------------------------

    def maxpool2d(self, x, window, stride, padding="SAME"):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        y = self.empty((len(x), OH, OW, x.shape[3]), self.dtype)
        switches = self.empty(y.shape, np.uint8)
        self._rows(
            "maxpool2d", len(x) * OH, OW * x.shape[3], x, y, switches, *x.shape, OH, OW, *window, *stride, top, left
        )
        return y, switches

    def unpool2d(self, dy, switches, shape, window, stride, padding="SAME", how="switches", out=None):
        """As the reference's; or with S*N signals dy for the switches of N images."""
        dx, (N, H, W, C) = self.empty(shape, self.dtype) if out is None else out, shape
        OH, OW, top, left = windows((H, W), window, stride, padding)
        if how == "repeat":
            self._rows("unpool2d_repeat", N * H, W * C, dy, dx, N, H, W, C, OH, OW, *stride, top, left)
            return dx
        if how == "center":  # as if all maxima stood there
            switches = self.put(np.tile(central((H, W), window, stride, padding), (N, 1, 1, C)))
        rows, columns = -(-(H + top) // stride[0]), -(-(W + left) // stride[1])
        sizes = (len(switches), N, H, W, C, OH, OW, *window, *stride, top, left)
        self._rows("unpool2d", N * rows, columns * C, dy, switches, dx, *sizes)
        return dx

    def avgpool2d(self, x, window, stride, padding="SAME", count_padding=False):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        y, whole = self.empty((len(x), OH, OW, x.shape[3]), self.dtype), math.prod(window) * count_padding
        sizes = (*x.shape, OH, OW, *window, *stride, top, left, whole)
        self._rows("avgpool2d", len(x) * OH, OW * x.shape[3], x, y, *sizes)
        return y

    def avgpool2d_backward(self, dy, shape, window, stride, padding="SAME", count_padding=False):
        dx, (N, H, W, C), (OH, OW) = self.empty(shape, self.dtype), shape, dy.shape[1:3]
        _, _, top, left = windows((H, W), window, stride, padding)
        sizes = (*shape, OH, OW, *window, *stride, top, left, math.prod(window) * count_padding)
        self._rows("avgpool2d_backward", N * H, W * C, dy, dx, *sizes)
        return dx

    # -- conv -> relu -> pool ----------------------------------------------------------------------------------

    def algorithms(self, shape, w_shape, block):
        """Winograd's filtering where it pays; plain sums for `exact`, and for signals whose zeros are to stay."""
        kh, kw, C, K = w_shape
        if (kh, kw, *block.stride) == (3, 3, 1, 1) and min(C, K) >= LEAST_CHANNELS:
            why = f"3x3 at stride 1, {LEAST_CHANNELS} channels or more; where pictures need exact sums, im2col"
            return Algorithms(WINOGRAD, WINOGRAD, WINOGRAD, why)
        why = f"Winograd's is for 3x3 at stride 1 with {LEAST_CHANNELS} channels or more, on both sides"
        return Algorithms(IM2COL, IM2COL, IM2COL, why)

    @_alone
    def conv_relu_pool(self, x, w, b, block, work, exact=False):
        stride, padding, window, pool_stride, pool_padding = block
        K = w.shape[3]
        H, W, _, _ = windows(x.shape[1:], w.shape[:2], stride, padding)
        OH, OW, top, left = windows((H, W), window, pool_stride, pool_padding)
        y = work("y", (len(x), OH, OW, K), self.dtype)
        switches = work("switches", y.shape, np.uint8)
        winograd = self.algorithms(x.shape, w.shape, block).forward == WINOGRAD and not exact
        for some in self._chunks(len(x), H * W * K):
            images = x[some]
            conv = self._scratch("conv", (len(images), H, W, K), self.dtype)
            if winograd:
                self._winograd(images, w, conv, padding)
            else:
                self._forward(images, w, conv, stride, padding)
            sizes = (*conv.shape, OH, OW, *window, *pool_stride, top, left)
            self._rows("pool_image", len(images) * OH, OW * K, conv, b, y[some], switches[some], *sizes)
        return y, switches

    def _signal(self, dy, switches, shape, w, block):
        """What comes back to the convolution's output, (S*N, H, W, K), in scratch."""
        H, W, _, _ = windows(shape[1:], w.shape[:2], block.stride, block.padding)
        signal = self._scratch("conv", (len(dy), H, W, w.shape[3]), self.dtype)
        return self.unpool2d(dy, switches, signal.shape, *block[2:], out=signal)

    @_alone
    def conv_relu_pool_backward_weights(self, x, w, y, switches, dy, block, work):
        dy = self.relu_backward(dy, y)
        signal, dw = self._signal(dy, switches, x.shape, w, block), work("dw", w.shape, self.dtype)
        if self.algorithms(x.shape, w.shape, block).weights == WINOGRAD:
            self._winograd_weights(x, signal, dw, block.padding)
        else:
            self.conv2d_backward_weights(x, signal, w.shape, block.stride, block.padding, dw)
        return dw, self.column_sums(dy)

    @_alone
    def conv_relu_pool_backward_data(self, w, y, switches, dy, shape, block, mask, rectify, work, out=None):
        dx = work("dx", (len(dy), *shape[1:]), self.dtype) if out is None else out
        signal = self._signal(self.relu_backward(dy, y) if mask else dy, switches, shape, w, block)
        if rectify:
            signal = self.relu_backward(signal, signal, False, True)
        if self.algorithms(shape, w.shape, block).data == WINOGRAD and mask and not rectify:
            self._winograd(signal, w, dx, block.padding, flip=True)
        else:
            self.conv2d_backward_data(signal, w, dx.shape, block.stride, block.padding, dx)
        return dx

    # -- elementwise -------------------------------------------------------------------------------------------

    def relu(self, x):
        y = self.empty(x.shape, self.dtype)
        self._each("relu", x.size, x, y)
        return y

    def relu_backward(self, dy, y, mask=True, rectify=False):
        """As the reference's; or with S*N signals dy for the y of N images."""
        dx, S = self.empty(dy.shape, self.dtype), len(dy) // len(y)
        self._rows("relu_backward", S, y.size, dy, y, dx, int(mask), int(rectify), S, np.int64(y.size))
        return dx

    def dropout_mask(self, shape, rate, rng):
        mask = self.empty(shape, self.dtype)
        seed, threshold = rng.integers(2**64, dtype=np.uint64), np.uint64(rate * 2**32)
        self._each("dropout_mask", mask.size, mask, seed, threshold, 1 / (1 - rate))
        return mask

    def largest(self, dx, out):
        N, H, W = out.shape
        self._each("largest", out.size, dx, out, len(dx) // N, dx.shape[3])

    def multiply(self, a, b):
        out = self.empty(a.shape, self.dtype)
        self._each("multiply", a.size, a, b, out)
        return out

    def normalize(self, x, gamma, beta, mean, variance, epsilon):
        y = self.empty(x.shape, self.dtype)
        self._each("normalize", x.size, x, y, mean, gamma, variance, beta, float(epsilon), len(beta))
        return y

    # -- dense -------------------------------------------------------------------------------------------------

    def dense(self, x, w, b):
        y = self.empty((len(x), w.shape[1]), self.dtype)
        self._gemm(x, w, y)
        self._each("add_bias", y.size, y, b, w.shape[1])
        return y

    def dense_backward_data(self, dy, w, out=None):
        out = self.empty((len(dy), len(w)), self.dtype) if out is None else out
        self._gemm(dy, w, out, tb=True)
        return out

    def dense_backward_weights(self, x, dy):
        dw = self.empty((x.shape[1], dy.shape[1]), self.dtype)
        self._gemm(x, dy, dw, ta=True)
        return dw

    # -- sums, loss, optimizers -----------------------------------------------------------------------------------

    def column_sums(self, a):
        """Sum of a (..., K) over all axes but the last: spans of rows, then spans of their sums, until one is left."""
        K = a.shape[-1]
        rows = a.size // K
        while rows > 1 or a.ndim > 1:
            parts = -(-rows // SUM_SPAN)
            sums = self.empty((parts, K), self.dtype)
            self._rows("column_sums", parts, K, a, sums, np.int64(rows), K, SUM_SPAN)
            a, rows = (sums, parts) if parts > 1 else (sums.reshape(K), 1)
        return a

    def softmax_cross_entropy(self, logits, labels, loss=None):
        N, K = logits.shape
        dlogits, losses = self.empty((N, K), self.dtype), self.empty((N, 1), self.dtype)
        labels = self.put(np.asarray(labels, np.int64)) if not isinstance(labels, cp.ndarray) else labels
        self._launch("softmax_cross_entropy", (-(-N // 32),), (32,), logits, labels, dlogits, losses, N, K)
        mean = self.column_sums(losses)
        if loss is None:
            return float(mean.get()[0]), dlogits
        loss[...] = mean
        return loss, dlogits

    def adam_step(self, p, g, m, v, lr, beta1, beta2, eps, t, decay=0.0):
        constants = adam_constants(self.dtype, lr, beta1, beta2, eps, t, decay)
        self._each("adam_step", p.size, p, g, m, v, *constants)

    def sgd_step(self, p, g, v, lr, momentum):
        self._each("sgd_step", p.size, p, g, v, float(lr), float(momentum))

    def average(self, mean, p, rate):
        self._each("average", p.size, mean, p, float(rate))


def _tiles(y):
    """(rows, columns) of the 4 x 4 tiles of y (N, OH, OW, K), images one below the other."""
    return len(y) * -(-y.shape[1] // 4), -(-y.shape[2] // 4)
