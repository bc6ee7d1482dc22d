"""The primitives on an NVIDIA GPU: CuPy holds the arrays, cuBLAS multiplies, kernels.cu does the rest.

A convolution is im2col and one 2-D matrix product, in chunks of images as large as a fixed share of the memory allows:
on a GPU the cols of a hundred images cost less than many small launches. Nothing here waits for the device, and nothing
but `asarray`, `put`, `from_images` and `take` (from the host) or `to_numpy` and a loss without an array to go to (to
the host) moves data between the two.

Products are in full float32. The environment variable CUPY_TF32=1 lets cuBLAS round their factors to TF32's 10 bits.
"""

from pathlib import Path

import cupy as cp
import numpy as np

from . import reference
from .geometry import windows

CHUNK = 1 << 30  # bytes that the cols of a chunk of images may have, if an eighth of the free memory is no less
BLOCK = 256  # threads
MOST_BLOCKS = 1 << 16
SUM_SPAN = 64  # rows that a thread adds up


class Ops(reference.Ops):
    """See `tinycnn.ops.reference.Ops`: the same contract, on CuPy arrays."""

    name = "gpu"

    def __init__(self, dtype="float32"):
        super().__init__(dtype)
        real = {"float32": "float", "float64": "double"}[str(self.dtype)]
        source = Path(__file__).with_name("kernels.cu").read_text()
        self._module = cp.RawModule(code=source, options=("-std=c++17", f"-Dreal={real}"))
        self._kernels, self._buffers = {}, {}
        free = cp.cuda.Device().mem_info[0]
        self._chunk = min(CHUNK, 1 << (free // 8).bit_length() - 1)  # a power of two: the same in nearly every run

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
        if rows:
            threads = min(BLOCK, -(-length // 32) * 32)
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
        self._each("gather_labels", len(rows), a, cp.asarray(rows), out)
        return out

    def from_images(self, images, rows=None):
        if images.dtype != np.uint8:
            return self.asarray(images if rows is None else images[rows])
        images = self.put(images)
        if rows is None:
            x = self.empty(images.shape, self.dtype)
            self._each("images_to_real", x.size, images, x)
            return x
        x = self.empty((len(rows), *images.shape[1:]), self.dtype)
        size = x.size // len(rows)
        self._rows("gather_images", len(rows), size, images, cp.asarray(rows), x, len(rows), size)
        return x

    def to_numpy(self, a):
        return a.get() if isinstance(a, cp.ndarray) else np.asarray(a)

    def empty(self, shape, dtype):
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
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

    def _buffer(self, key, shape):
        """Scratch that is kept from call to call; its contents last until `key` is asked for again."""
        size = int(np.prod(shape, dtype=np.int64))
        if key not in self._buffers or self._buffers[key].size < size:
            self._buffers.pop(key, None)
            self._buffers[key] = self.empty(size, self.dtype)
        return self._buffers[key][:size].reshape(shape)

    # -- convolution -------------------------------------------------------------------------------------------

    def _chunks(self, shape, kernel, out):
        """(first, last, cols) for chunks of the images of `shape`; cols (pixels of the chunk, kh*kw*C) is scratch."""
        pixels, length = out[0] * out[1], kernel[0] * kernel[1] * shape[3]
        images = max(1, self._chunk // (pixels * length * self.dtype.itemsize))
        for first in range(0, shape[0], images):
            last = min(first + images, shape[0])
            yield first, last, self._buffer("cols", ((last - first) * pixels, length))

    def _im2col(self, x, cols, kernel, stride, padding):
        OH, OW, top, left = windows(x.shape[1:], kernel, stride, padding)
        length = cols.shape[1]
        block = (min(BLOCK, -(-length // 32) * 32), max(1, BLOCK // (-(-length // 32) * 32)))
        grid = (-(-length // block[0]), min(len(x) * OH, 65535))
        self._launch("im2col", grid, block, x, cols, *x.shape, OH, OW, *kernel, *stride, top, left)

    def conv2d(self, x, w, b, stride=(1, 1), padding="SAME"):
        kh, kw, _, K = w.shape
        OH, OW, _, _ = windows(x.shape[1:], (kh, kw), stride, padding)
        y = self.empty((len(x), OH, OW, K), self.dtype)
        for first, last, cols in self._chunks(x.shape, (kh, kw), (OH, OW)):
            self._im2col(x[first:last], cols, (kh, kw), stride, padding)
            cp.matmul(cols, w.reshape(-1, K), out=y[first:last].reshape(-1, K))
        self._each("add_bias", y.size, y, b, K)
        return y

    def conv2d_backward_data(self, dy, w, shape, stride=(1, 1), padding="SAME"):
        dx = self.empty(shape, self.dtype)
        for first, last, cols in self._chunks(shape, w.shape, dy.shape[1:]):
            self._backward_data(dy[first:last], w, dx[first:last], cols, stride, padding)
        return dx

    def _backward_data(self, dy, w, dx, cols, stride, padding):
        kh, kw, C, K = w.shape
        _, H, W, _ = dx.shape
        OH, OW, top, left = windows((H, W), (kh, kw), stride, padding)
        cp.matmul(dy.reshape(-1, K), w.reshape(-1, K).T, out=cols)
        self._rows("col2im", len(dx) * H, W * C, cols, dx, *dx.shape, OH, OW, kh, kw, *stride, top, left)

    def conv2d_backward_weights(self, x, dy, shape, stride=(1, 1), padding="SAME"):
        dw = None
        for first, last, cols in self._chunks(x.shape, shape, dy.shape[1:]):
            dw = self._backward_weights(x[first:last], dy[first:last], cols, shape, stride, padding, dw)
        return dw.reshape(shape), self._column_sums(dy)

    def _backward_weights(self, x, dy, cols, shape, stride, padding, total):
        """dw (kh*kw*C, K) of a chunk, added to `total` if there is one."""
        K = shape[3]
        self._im2col(x, cols, shape[:2], stride, padding)
        dw = self.empty((cols.shape[1], K), self.dtype)
        cp.matmul(cols.T, dy.reshape(-1, K), out=dw)
        if total is not None:
            self._each("add", dw.size, dw, total)
        return dw

    def _column_sums(self, a):
        """Sum of a (..., K) over all axes but the last: spans of rows, then spans of their sums, until one is left."""
        K = a.shape[-1]
        rows = a.size // K
        while rows > 1 or a.ndim > 1:
            parts = -(-rows // SUM_SPAN)
            sums = self.empty((parts, K), self.dtype)
            self._rows("column_sums", parts, K, a, sums, np.int64(rows), K, SUM_SPAN)
            a, rows = (sums, parts) if parts > 1 else (sums.reshape(K), 1)
        return a

    # -- pooling -----------------------------------------------------------------------------------------------

    def maxpool2d(self, x, window, stride, padding="SAME"):
        OH, OW, top, left = windows(x.shape[1:], window, stride, padding)
        N, _, _, C = x.shape
        y = self.empty((N, OH, OW, C), self.dtype)
        switches = self.empty(y.shape, np.uint8)
        self._rows("maxpool2d", N * OH, OW * C, x, y, switches, *x.shape, OH, OW, *window, *stride, top, left)
        return y, switches

    def unpool2d(self, dy, switches, shape, window, stride, padding="SAME", how="switches"):
        dx = self.empty(shape, self.dtype)
        self._unpool2d(dy, switches, dx, window, stride, padding, how)
        return dx

    def _unpool2d(self, dy, switches, dx, window, stride, padding, how="switches"):
        N, H, W, C = dx.shape
        OH, OW, top, left = windows((H, W), window, stride, padding)
        name, arrays, sizes = {
            "switches": ("unpool2d", (dy, switches, dx), (*window, *stride)),
            "repeat": ("unpool2d_repeat", (dy, dx), tuple(stride)),
            "center": ("unpool2d_center", (dy, dx), (*window, *stride)),
        }[how]
        self._rows(name, N * H, W * C, *arrays, N, H, W, C, OH, OW, *sizes, top, left)

    # -- conv -> relu -> pool ----------------------------------------------------------------------------------

    def conv_relu_pool(self, x, w, b, stride, padding, window, pool_stride, pool_padding, work):
        kh, kw, _, K = w.shape
        H, W, _, _ = windows(x.shape[1:], (kh, kw), stride, padding)
        OH, OW, top, left = windows((H, W), window, pool_stride, pool_padding)
        y = work("y", (len(x), OH, OW, K), self.dtype)
        switches = work("switches", y.shape, np.uint8)
        for first, last, cols in self._chunks(x.shape, (kh, kw), (H, W)):
            self._im2col(x[first:last], cols, (kh, kw), stride, padding)
            conv = self._buffer("conv", (last - first, H, W, K))
            cp.matmul(cols, w.reshape(-1, K), out=conv.reshape(-1, K))
            sizes = (*conv.shape, OH, OW, *window, *pool_stride, top, left)
            arrays = (conv, b, y[first:last], switches[first:last])
            self._rows("pool_image", (last - first) * OH, OW * K, *arrays, *sizes)
        return y, switches

    def conv_relu_pool_backward(
        self, x, w, y, switches, dy, stride, padding, window, pool_stride, pool_padding, need_dx, work
    ):
        H, W, _, _ = windows(x.shape[1:], w.shape[:2], stride, padding)
        dy = self.relu_backward(dy, y)
        dx = work("dx", x.shape, self.dtype) if need_dx else None
        dw = None
        for first, last, cols in self._chunks(x.shape, w.shape, (H, W)):
            signal = self._buffer("conv", (last - first, H, W, w.shape[3]))
            self._unpool2d(dy[first:last], switches[first:last], signal, window, pool_stride, pool_padding)
            dw = self._backward_weights(x[first:last], signal, cols, w.shape, stride, padding, dw)
            if need_dx:
                self._backward_data(signal, w, dx[first:last], cols, stride, padding)
        return dw.reshape(w.shape), self._column_sums(dy), dx

    # -- elementwise -------------------------------------------------------------------------------------------

    def relu(self, x):
        y = self.empty(x.shape, self.dtype)
        self._each("relu", x.size, x, y)
        return y

    def relu_backward(self, dy, y, mask=True, rectify=False):
        dx = self.empty(dy.shape, self.dtype)
        self._each("relu_backward", dy.size, dy, y, dx, int(mask), int(rectify))
        return dx

    def dropout_mask(self, shape, rate, rng):
        mask = self.empty(shape, self.dtype)
        seed, threshold = rng.integers(2**64, dtype=np.uint64), np.uint64(rate * 2**32)
        self._each("dropout_mask", mask.size, mask, seed, threshold, 1 / (1 - rate))
        return mask

    def multiply(self, a, b):
        out = self.empty(a.shape, self.dtype)
        self._each("multiply", a.size, a, b, out)
        return out

    # -- dense -------------------------------------------------------------------------------------------------

    def dense(self, x, w, b):
        y = self.empty((len(x), w.shape[1]), self.dtype)
        cp.matmul(x, w, out=y)
        self._each("add_bias", y.size, y, b, w.shape[1])
        return y

    def dense_backward_data(self, dy, w, out=None):
        out = self.empty((len(dy), len(w)), self.dtype) if out is None else out
        return cp.matmul(dy, w.T, out=out)

    def dense_backward_weights(self, x, dy, out=None):
        out = self.empty((x.shape[1], dy.shape[1]), self.dtype) if out is None else out
        return cp.matmul(x.T, dy, out=out), self._column_sums(dy)

    # -- loss and optimizers -----------------------------------------------------------------------------------

    def softmax(self, logits):
        p = self.empty(logits.shape, self.dtype)
        K = logits.shape[-1]
        self._softmax_rows("softmax", logits, p, logits.size // K, K)
        return p

    def softmax_cross_entropy(self, logits, labels, loss=None):
        N, K = logits.shape
        dlogits, losses = self.empty((N, K), self.dtype), self.empty((N, 1), self.dtype)
        labels = self.put(np.asarray(labels, np.int64)) if not isinstance(labels, cp.ndarray) else labels
        self._softmax_rows("softmax_cross_entropy", logits, labels, dlogits, losses, N, K)
        mean = self._column_sums(losses)
        if loss is None:
            return float(mean.get()[0]), dlogits
        loss[...] = mean
        return loss, dlogits

    def _softmax_rows(self, name, *args):
        self._launch(name, (-(-args[-2] // 32),), (32,), *args)

    def adam_step(self, p, g, m, v, lr, beta1, beta2, eps, t):
        constants = (lr / (1 - beta1**t), 1 - beta1, 1 - beta2, 1 / (1 - beta2**t), eps)
        self._each("adam_step", p.size, p, g, m, v, *constants)

    def sgd_step(self, p, g, v, lr, momentum):
        self._each("sgd_step", p.size, p, g, v, float(lr), float(momentum))
