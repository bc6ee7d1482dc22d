"""The definition of every primitive, in plain NumPy, written to be read; and the oracle of the fast backends.

Images are (N, H, W, C), convolution weights (kh, kw, C, K), dense weights (in, out). `dy` is always the signal that
comes back with respect to an output y, whatever rule made it. Window geometry: see geometry.py.

A convolution is one matrix product per image (im2col): row (r, c) of cols (OH*OW, kh*kw*C) is the window that output
pixel (r, c) looks at, so y = cols w + b with w as (kh*kw*C, K). Then dcols = dy w' comes back to pixels by the
transpose of im2col (col2im adds where windows overlap), and dw = cols' dy.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .geometry import windows


class Algorithms(NamedTuple):
    """What computes a block conv -> relu -> pool: forward, its two ways back, and why so, in words."""

    forward: str
    weights: str
    data: str
    why: str


class Ops:
    """Primitives on NumPy arrays of one working dtype; takes and returns arrays, checks nothing.

    Parameters
    ----------
    dtype : str or numpy.dtype
        float32 to work, float64 to check.
    """

    name = "reference"

    def __init__(self, dtype="float32"):
        self.dtype = np.dtype(dtype)

    # -- arrays ------------------------------------------------------------------------------------------------

    def asarray(self, a):
        """`a` itself if kernels can take it: of the working dtype, in order, to be written to; else a copy."""
        if type(a) is np.ndarray and a.dtype == self.dtype and a.flags.carray:
            return a  # as nearly always: asked at each pass
        return np.require(np.asarray(a, self.dtype), requirements="CAW")

    def put(self, a):
        """`a`, of its own dtype, where this backend computes: images and labels for `from_images` and `take`."""
        return a

    def take(self, a, rows):
        """Rows of an array that `put` returned."""
        return a[rows]

    def from_images(self, images, rows=None, moves=None):
        """Images, or some rows of what `put` returned, as the network's input: uint8 / 255, float as it is.

        moves (N, 3), with uint8 and rows: pixels that each image is moved down, to the right, and whether it is then
        flipped left to right. What comes in at a border is the mirrored image.
        """
        images = images if rows is None else images[rows]
        if moves is not None:
            _, H, W, _ = images.shape
            below, right = mirrored(np.arange(H) - moves[:, :1], H), mirrored(np.arange(W) - moves[:, 1:2], W)
            right = np.where(moves[:, 2:] == 1, right[:, ::-1], right)
            images = images[np.arange(len(images))[:, None, None], below[:, :, None], right[:, None]]
        if images.dtype == np.uint8:
            return np.divide(images, self.dtype.type(255), dtype=self.dtype, order="C")  # memory maps are not C
        return self.asarray(images)

    def to_numpy(self, a):
        """`a` as a NumPy array."""
        return np.asarray(a)

    def contiguous(self, a):
        """`a` itself, or a copy without gaps, of its own dtype."""
        return np.ascontiguousarray(a)

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def zeros(self, shape):
        return np.zeros(shape, self.dtype)

    # -- convolution -------------------------------------------------------------------------------------------

    def conv2d(self, x, w, b, stride=(1, 1), padding="SAME"):
        """y (N, OH, OW, K) = x (N, H, W, C) convolved with w (kh, kw, C, K), plus b (K,)."""
        kh, kw, C, K = w.shape
        OH, OW, _, _ = windows(x.shape[1:], (kh, kw), stride, padding)
        y = np.empty((len(x), OH, OW, K), x.dtype)
        for n in range(len(x)):
            cols = im2col(x[n], (kh, kw), stride, padding)
            y[n] = (cols @ w.reshape(-1, K) + b).reshape(OH, OW, K)
        return y

    def conv2d_backward_data(self, dy, w, shape, stride=(1, 1), padding="SAME"):
        """dx of `shape` (N, H, W, C) from dy (N, OH, OW, K): the adjoint of the convolution."""
        kh, kw, C, K = w.shape
        dx = np.empty(shape, dy.dtype)
        for n in range(len(dy)):
            dcols = dy[n].reshape(-1, K) @ w.reshape(-1, K).T
            dx[n] = col2im(dcols, shape[1:], (kh, kw), stride, padding)
        return dx

    def conv2d_backward_weights(self, x, dy, shape, stride=(1, 1), padding="SAME"):
        """(dw, db) from x (N, H, W, C) and dy (N, OH, OW, K); dw has `shape` (kh, kw, C, K)."""
        kh, kw, C, K = shape
        dw = np.zeros((kh * kw * C, K), dy.dtype)
        for n in range(len(x)):
            dw += im2col(x[n], (kh, kw), stride, padding).T @ dy[n].reshape(-1, K)
        return dw.reshape(shape), dy.sum((0, 1, 2))

    # -- pooling -----------------------------------------------------------------------------------------------

    def maxpool2d(self, x, window, stride, padding="SAME"):
        """y (N, OH, OW, C) and its switches (uint8): window-local index i * kw + j of the FIRST maximum.

        Padding never wins. The position that a switch names is row r * stride - pad_top + i, likewise the column.
        """
        N, H, W, C = x.shape
        kh, kw = window
        OH, OW, top, left = windows((H, W), window, stride, padding)
        padded = np.full((N, *_padded_size(window, stride, (OH, OW), (H, W), top, left), C), -np.inf, x.dtype)
        padded[:, top : top + H, left : left + W] = x
        # views (N, OH, OW, C, kh, kw)
        views = sliding_window_view(padded, window, axis=(1, 2))[:, :: stride[0], :: stride[1]][:, :OH, :OW]
        flat = views.reshape(N, OH, OW, C, kh * kw)
        switches = flat.argmax(-1)
        y = np.take_along_axis(flat, switches[..., None], -1)[..., 0]
        return y, switches.astype(np.uint8)

    def unpool2d(self, dy, switches, shape, window, stride, padding="SAME", how="switches"):
        """dx of `shape` (N, H, W, C) from dy (N, OH, OW, C): each value goes back to pixels of its window.

        how : "switches": to the place of the maximum (the adjoint of the pool; overlapping windows add up).
            "center": to the window's centre ((k - 1) // 2, moved inside the image at a border).
            "repeat": to every pixel of its block, the stride x stride pixels that start where the window starts.
        """
        _, H, W, _ = shape
        kh, kw = window
        sh, sw = stride
        OH, OW, top, left = windows((H, W), window, stride, padding)
        dx = np.zeros(shape, dy.dtype)
        n, k = np.ogrid[: shape[0], : shape[3]]
        for r in range(OH):
            for c in range(OW):
                h, v = r * sh - top, c * sw - left
                if how == "repeat":
                    dx[:, max(h, 0) : max(h + sh, 0), max(v, 0) : max(v + sw, 0)] = dy[:, r, c][:, None, None]
                elif how == "center":
                    dx[:, np.clip(h + (kh - 1) // 2, 0, H - 1), np.clip(v + (kw - 1) // 2, 0, W - 1)] += dy[:, r, c]
                else:
                    i, j = np.divmod(switches[:, r, c].astype(int), kw)
                    dx[n, h + i, v + j, k] += dy[:, r, c]
        return dx

    def avgpool2d(self, x, window, stride, padding="SAME", count_padding=False):
        """y (N, OH, OW, C): the mean over each window's pixels of the image, or, padding counted as zeros, over all."""
        OH, OW, _, _ = windows(x.shape[1:], window, stride, padding)
        y = np.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        for r, c, rows, columns, count in averaged(x.shape[1:], window, stride, padding, count_padding):
            y[:, r, c] = x[:, rows, columns].sum((1, 2)) / count
        return y

    def avgpool2d_backward(self, dy, shape, window, stride, padding="SAME", count_padding=False):
        """dx of `shape` (N, H, W, C) from dy (N, OH, OW, C): the adjoint, an equal share for each pixel of a window."""
        dx = np.zeros(shape, dy.dtype)
        for r, c, rows, columns, count in averaged(shape[1:], window, stride, padding, count_padding):
            dx[:, rows, columns] += (dy[:, r, c] / count)[:, None, None]
        return dx

    # -- conv -> relu -> pool as one block: the composition defines it, a backend may do better ------------------

    def algorithms(self, shape, w_shape, block):
        """The `Algorithms` of a block for images (..., H, W, C) and weights (kh, kw, C, K)."""
        return Algorithms(*["plain NumPy"] * 3, "its layers, written to be read")

    def conv_relu_pool(self, x, w, b, block, work, exact=False):
        """(y, switches) of maxpool2d(relu(conv2d(x))), a `geometry.Block`; they may live in `work` until its next use.

        exact, for pictures: where a fast convolution's rounding could decide, the plain sum does; see exact.py.
        """
        return self.maxpool2d(self.relu(self.conv2d(x, w, b, *block[:2])), *block[2:])

    def conv_relu_pool_backward_weights(self, x, w, y, switches, dy, block, work):
        """(dw, db) of the block for a gradient dy at its output y. A pooled zero came from a ReLU that was off."""
        OH, OW, _, _ = windows(x.shape[1:], w.shape[:2], *block[:2])
        dconv = self.unpool2d(self.relu_backward(dy, y), switches, (len(x), OH, OW, w.shape[3]), *block[2:])
        return self.conv2d_backward_weights(x, dconv, w.shape, *block[:2])

    def conv_relu_pool_backward_data(self, w, y, switches, dy, shape, block, mask, rectify, work, out=None):
        """dx (S*N, H, W, C) of the block, for the ReLU's rule and `shape` (N, H, W, C) of its input; in `out` if given.

        dy (S*N, OH, OW, K) are S signals for each image: signal s of image n is number s * N + n. A pooled zero
        came from a ReLU that was off; what overlapping windows send to one place adds up before it is rectified.
        """
        N = len(y)
        OH, OW, _, _ = windows(shape[1:], w.shape[:2], *block[:2])
        dx = self.empty((len(dy), *shape[1:]), self.dtype) if out is None else out
        for i in range(0, len(dy), N):
            d = self.relu_backward(dy[i : i + N], y, mask, False)
            d = self.unpool2d(d, switches, (N, OH, OW, w.shape[3]), *block[2:])
            d = self.relu_backward(d, d, False, rectify)
            dx[i : i + N] = self.conv2d_backward_data(d, w, shape, *block[:2])
        return dx

    # -- elementwise -------------------------------------------------------------------------------------------

    def relu(self, x):
        return np.maximum(x, 0)

    def relu_backward(self, dy, y, mask=True, rectify=False):
        """dx = dy * (y > 0 if mask) * (dy > 0 if rectify); y is the ReLU's output. See rules.py."""
        passes = (y > 0) & (dy > 0) if mask and rectify else y > 0 if mask else (dy > 0) | (not rectify)
        return np.where(passes, dy, self.dtype.type(0))

    def dropout_mask(self, shape, rate, rng):
        """Inverted dropout's factors: 0 with probability `rate`, else 1 / (1 - rate); the same in every backend.

        `rng` gives a seed; element i then has its own random number, the upper half of SplitMix64's output i + 1
        (Steele, Lea and Flood 2014), so that a device needs nothing from the host.
        """
        seed = rng.integers(2**64, dtype=np.uint64)
        z = seed + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        keep = (z >> np.uint64(32)) >= np.uint64(rate * 2**32)
        return (keep * self.dtype.type(1 / (1 - rate))).reshape(shape)

    def multiply(self, a, b):
        return a * b

    def normalize(self, x, gamma, beta, mean, variance, epsilon):
        """y = gamma (x - mean) / sqrt(variance + epsilon) + beta; x (..., C), the others (C,)."""
        return (x - mean) * (gamma / np.sqrt(variance + self.dtype.type(epsilon))) + beta

    def largest(self, dx, out):
        """Raise out (N, H, W) to the largest absolute value over colours and signals of dx (S*N, H, W, C), in place."""
        for i in range(0, len(dx), len(out)):
            np.maximum(out, abs(dx[i : i + len(out)]).max(-1), out=out)

    # -- dense -------------------------------------------------------------------------------------------------

    def dense(self, x, w, b):
        """y (N, out) = x (N, in) w (in, out) + b."""
        return x @ w + b

    def dense_backward_data(self, dy, w, out=None):
        """dx (N, in) = dy (N, out) w', in `out` if given."""
        return np.matmul(dy, w.T, out=out)

    def dense_backward_weights(self, x, dy):
        """dw (in, out); db is `column_sums` of dy."""
        return x.T @ dy

    def column_sums(self, a):
        """The sum (K,) of a (..., K) over all axes but the last."""
        return a.reshape(-1, a.shape[-1]).sum(0)

    # -- loss and optimizers -----------------------------------------------------------------------------------

    def softmax_cross_entropy(self, logits, labels, loss=None):
        """(mean of -log p[label], its gradient with respect to the logits (N, classes)); p is the logits' softmax.

        The mean is a number, or `loss`, an array of one element: a device need not wait for it to be read.
        """
        rows = np.arange(len(logits))
        shifted = logits - logits.max(1, keepdims=True)  # so that the softmax never overflows
        e = np.exp(shifted)
        total = e.sum(1)
        dlogits = e / total[:, None]
        dlogits[rows, labels] -= 1
        mean = float((np.log(total) - shifted[rows, labels]).mean())
        if loss is not None:
            loss[0] = mean
        return mean if loss is None else loss, dlogits / self.dtype.type(len(logits))

    def adam_step(self, p, g, m, v, lr, beta1, beta2, eps, t, decay=0.0):
        """One step of Adam at time t = 1, 2, ..., in place on p, m and v (Kingma and Ba 2014, algorithm 1).

        p shrinks by lr * decay first (Loshchilov and Hutter 2017, arXiv:1711.05101).
        """
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        p *= 1 - lr * decay
        p -= lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + eps)

    def dense_adam_step(self, p, x, dy, m, v, lr, beta1, beta2, eps, t, decay=0.0):
        """`adam_step` on the weights p (in, out) of a dense layer, for the gradient x' dy, which nobody else needs."""
        self.adam_step(p, self.dense_backward_weights(x, dy), m, v, lr, beta1, beta2, eps, t, decay)

    def sgd_step(self, p, g, v, lr, momentum):
        """One step of gradient descent with momentum, in place on p and v: v = momentum v + g, p -= lr v."""
        v *= momentum
        v += g
        p -= lr * v

    def average(self, mean, p, rate):
        """Move a running mean towards p, in place: mean += rate (p - mean)."""
        mean += self.dtype.type(rate) * (p - mean)


def im2col(x, kernel, stride, padding):
    """x (H, W, C) -> cols (OH*OW, kh*kw*C): each row a window, zero where it hangs over the border."""
    H, W, C = x.shape
    OH, OW, top, left = windows((H, W), kernel, stride, padding)
    padded = np.zeros((*_padded_size(kernel, stride, (OH, OW), (H, W), top, left), C), x.dtype)
    padded[top : top + H, left : left + W] = x
    views = sliding_window_view(padded, kernel, axis=(0, 1))[:: stride[0], :: stride[1]][:OH, :OW]
    return views.transpose(0, 1, 3, 4, 2).reshape(OH * OW, -1)  # (OH, OW, C, kh, kw) -> (OH*OW, kh*kw*C)


def col2im(cols, shape, kernel, stride, padding):
    """The adjoint of im2col: cols (OH*OW, kh*kw*C) -> (H, W, C), values of the same pixel added up."""
    H, W, C = shape
    (kh, kw), (sh, sw) = kernel, stride
    OH, OW, top, left = windows((H, W), kernel, stride, padding)
    padded = np.zeros((*_padded_size(kernel, stride, (OH, OW), (H, W), top, left), C), cols.dtype)
    cols = cols.reshape(OH, OW, kh, kw, C)
    for i in range(kh):
        for j in range(kw):
            padded[i : i + OH * sh : sh, j : j + OW * sw : sw] += cols[:, :, i, j]
    return padded[top : top + H, left : left + W]


def averaged(shape, window, stride, padding, count_padding):
    """Yield (r, c, rows, columns, divisor): what output (r, c) of an average pool adds up, and is divided by."""
    OH, OW, top, left = windows(shape, window, stride, padding)
    for r in range(OH):
        for c in range(OW):
            h, v = r * stride[0] - top, c * stride[1] - left
            rows, columns = range(shape[0])[max(h, 0) : h + window[0]], range(shape[1])[max(v, 0) : v + window[1]]
            count = math.prod(window) if count_padding else len(rows) * len(columns)
            yield r, c, slice(rows.start, rows.stop), slice(columns.start, columns.stop), count


def adam_constants(dtype, lr, beta1, beta2, eps, t, decay):
    """(rate, gain1, gain2, correction2, eps, shrink): p = shrink p - rate m / (sqrt(correction2 v) + eps)."""
    constants = (lr / (1 - beta1**t), 1 - beta1, 1 - beta2, 1 / (1 - beta2**t), eps, 1 - lr * decay)
    return tuple(map(np.dtype(dtype).type, constants))


def mirrored(i, size):
    """Indices that lie up to size - 1 beyond an axis, reflected into it: -1 is 1, size is size - 2."""
    return size - 1 - abs(size - 1 - abs(i))


def _padded_size(kernel, stride, out, size, top, left):
    """Rows and columns that hold the image, the padding before it, and every window to its end."""
    (kh, kw), (sh, sw), (OH, OW), (H, W) = kernel, stride, out, size
    return max((OH - 1) * sh + kh, top + H), max((OW - 1) * sw + kw, left + W)
