"""Loop-only oracles of the primitives: one scalar at a time, float64, no geometry shared with tinycnn.

Slow on purpose: whoever doubts a primitive compares it with what stands here.
"""

import math

import numpy as np


def padding(size, window, stride, mode):
    """(number of windows, pixels before) along one axis, from TensorFlow's documentation of SAME and VALID."""
    if mode == "VALID":
        return math.ceil((size - window + 1) / stride), 0
    out = math.ceil(size / stride)
    return out, max((out - 1) * stride + window - size, 0) // 2


def conv2d(x, w, b, stride, mode):
    """y[n, r, c, k] = b[k] + sum of x * w over the window, pixels outside the image counting as zero."""
    N, H, W, C = x.shape
    kh, kw, _, K = w.shape
    (OH, top), (OW, left) = padding(H, kh, stride[0], mode), padding(W, kw, stride[1], mode)
    y = np.zeros((N, OH, OW, K))
    for n, r, c, k in np.ndindex(y.shape):
        total = float(b[k])
        for i, j, a in np.ndindex(kh, kw, C):
            h, v = r * stride[0] - top + i, c * stride[1] - left + j
            if 0 <= h < H and 0 <= v < W:
                total += float(x[n, h, v, a]) * float(w[i, j, a, k])
        y[n, r, c, k] = total
    return y


def maxpool2d(x, window, stride, mode):
    """(maxima, window-local index of the first one in row-major order); pixels outside the image do not take part."""
    N, H, W, C = x.shape
    (OH, top), (OW, left) = padding(H, window[0], stride[0], mode), padding(W, window[1], stride[1], mode)
    y, switches = np.zeros((N, OH, OW, C)), np.zeros((N, OH, OW, C), int)
    for n, r, c, k in np.ndindex(y.shape):
        best = None
        for i, j in np.ndindex(*window):
            h, v = r * stride[0] - top + i, c * stride[1] - left + j
            if 0 <= h < H and 0 <= v < W and (best is None or x[n, h, v, k] > best):
                best, switches[n, r, c, k] = x[n, h, v, k], i * window[1] + j
        y[n, r, c, k] = best
    return y, switches


def unpool2d(dy, switches, shape, window, stride, mode, how):
    """Each dy goes to the place of the maximum, to the centre of its window, or all over its block."""
    N, H, W, C = shape
    (_, top), (_, left) = padding(H, window[0], stride[0], mode), padding(W, window[1], stride[1], mode)
    dx = np.zeros(shape)
    for n, r, c, k in np.ndindex(dy.shape):
        h, v = r * stride[0] - top, c * stride[1] - left
        if how == "switches":
            i, j = divmod(int(switches[n, r, c, k]), window[1])
            dx[n, h + i, v + j, k] += dy[n, r, c, k]
        elif how == "center":
            h, v = h + (window[0] - 1) // 2, v + (window[1] - 1) // 2
            dx[n, min(max(h, 0), H - 1), min(max(v, 0), W - 1), k] += dy[n, r, c, k]
        else:
            for i, j in np.ndindex(*stride):
                if 0 <= h + i < H and 0 <= v + j < W:
                    dx[n, h + i, v + j, k] = dy[n, r, c, k]
    return dx


def avgpool2d(x, window, stride, mode, count_padding):
    """(means, [(output, pixel, weight)]): every pixel's weight in every mean; see `layers.AvgPool2D` on padding."""
    N, H, W, C = x.shape
    (OH, top), (OW, left) = padding(H, window[0], stride[0], mode), padding(W, window[1], stride[1], mode)
    y, weights = np.zeros((N, OH, OW, C)), []
    for n, r, c, k in np.ndindex(y.shape):
        inside = []
        for i, j in np.ndindex(*window):
            h, v = r * stride[0] - top + i, c * stride[1] - left + j
            if 0 <= h < H and 0 <= v < W:
                inside.append((n, h, v, k))
        count = window[0] * window[1] if count_padding else len(inside)
        y[n, r, c, k] = math.fsum(float(x[at]) for at in inside) / count
        weights += [((n, r, c, k), at, 1 / count) for at in inside]
    return y, weights


def batch_norm(x, gamma, beta, mean, variance, epsilon):
    """y[..., k] = gamma[k] (x[..., k] - mean[k]) / sqrt(variance[k] + epsilon) + beta[k]."""
    y = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        k = at[-1]
        y[at] = float(gamma[k]) * (float(x[at]) - float(mean[k])) / math.sqrt(float(variance[k]) + epsilon) + beta[k]
    return y


def dense(x, w, b):
    """y[n, k] = b[k] + sum over d of x[n, d] w[d, k]."""
    y = np.zeros((len(x), w.shape[1]))
    for n, k in np.ndindex(y.shape):
        y[n, k] = float(b[k]) + math.fsum(float(x[n, d]) * float(w[d, k]) for d in range(len(w)))
    return y


def softmax_cross_entropy(logits, labels):
    """Mean of log(sum exp(logits)) - logits[label]."""
    losses = [math.log(math.fsum(math.exp(v) for v in row)) - row[label] for row, label in zip(logits, labels)]
    return math.fsum(losses) / len(losses)


def adam(p, gradients, lr, beta1, beta2, eps):
    """A scalar parameter after one step of Adam for each of `gradients`, as in Kingma and Ba's algorithm 1."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
    return p
