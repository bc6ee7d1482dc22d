"""Layers are frozen specs: they hold sizes, never arrays, and know how to go forward and back.

    init(shape, rng) -> params            shape (H, W, C) or (D,) of one input, without the batch axis
    output_shape(shape) -> shape          raises InputError where the input does not fit
    forward(ops, p, x, rng) -> (y, cache) rng is None outside training
    backward(ops, p, cache, dy, rule) -> dx
    param_grads(ops, p, cache, dy) -> {"w": dw, "b": db}, apart, so that pictures never pay for dw

`p` is the layer's own dict of arrays (empty for most), `ops` the primitives of a backend, `cache` what the way back
needs to know of this forward pass. Convolutions and dense layers are linear, so no rule changes their way back.
"""

import math
from dataclasses import dataclass

import numpy as np

from .errors import InputError, choose
from .ops import geometry


def _glorot_uniform(shape, fan_in, fan_out, rng):
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, equation 16."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def _pair(value, what, name):
    """An int or a pair of ints >= 1 as a pair."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise InputError(f"layer {name!r}: {what} must be one or two integers >= 1, got {value!r}")
    return pair


def _window_output(name, shape, window, stride, padding):
    """(OH, OW) of a window that slides over `shape`, which must be (H, W, C)."""
    if len(shape) != 3:
        raise InputError(
            f"layer {name!r} takes images (H, W, C), but its input has shape {shape}; it follows a Flatten?"
        )
    OH, OW, _, _ = geometry.windows(shape, window, stride, padding)
    if OH < 1 or OW < 1:
        raise InputError(
            f"layer {name!r}: a {window[0]}x{window[1]} window does not fit an input of {shape[0]}x{shape[1]}"
        )
    return OH, OW


class _Layer:
    """What most layers share: no parameters, an output shaped like the input."""

    def init(self, shape, rng):
        return {}

    def output_shape(self, shape):
        return shape

    def param_grads(self, ops, p, cache, dy):
        return {}


@dataclass(frozen=True)
class Conv2D(_Layer):
    """Convolution (cross-correlation, as everywhere in this field) with bias.

    Parameters
    ----------
    name : str
    filters : int
        K, the number of output maps.
    kernel, stride : int or (int, int)
    padding : "SAME" or "VALID"
    """

    name: str
    filters: int
    kernel: tuple = (3, 3)
    stride: tuple = (1, 1)
    padding: str = "SAME"

    def __post_init__(self):
        object.__setattr__(self, "kernel", _pair(self.kernel, "kernel", self.name))
        object.__setattr__(self, "stride", _pair(self.stride, "stride", self.name))
        choose(self.padding, geometry.PADDINGS, f"padding of layer {self.name!r}")

    @property
    def window(self):
        return self.kernel

    def output_shape(self, shape):
        return (*_window_output(self.name, shape, self.kernel, self.stride, self.padding), self.filters)

    def init(self, shape, rng):
        kh, kw = self.kernel
        w = _glorot_uniform((kh, kw, shape[2], self.filters), kh * kw * shape[2], kh * kw * self.filters, rng)
        return {"w": w, "b": np.zeros(self.filters)}

    def forward(self, ops, p, x, rng=None):
        return ops.conv2d(x, p["w"], p["b"], self.stride, self.padding), x

    def backward(self, ops, p, x, dy, rule):
        return ops.conv2d_backward_data(dy, p["w"], x.shape, self.stride, self.padding)

    def param_grads(self, ops, p, x, dy):
        dw, db = ops.conv2d_backward_weights(x, dy, p["w"].shape, self.stride, self.padding)
        return {"w": dw, "b": db}


@dataclass(frozen=True)
class ReLU(_Layer):
    """y = max(x, 0); the one layer whose way back depends on the rule."""

    name: str

    def forward(self, ops, p, x, rng=None):
        y = ops.relu(x)
        return y, (x, y)

    def backward(self, ops, p, cache, dy, rule):
        if rule.relu is not None:
            return rule.relu(ops, self, p, cache, dy)
        return ops.relu_backward(dy, cache[1], rule.mask, rule.rectify)


@dataclass(frozen=True)
class MaxPool2D(_Layer):
    """Maximum over windows, remembering where it was (the switches).

    Parameters
    ----------
    name : str
    window, stride : int or (int, int)
        A window has at most 256 positions, so that a switch fits a byte.
    padding : "SAME" or "VALID"
    """

    name: str
    window: tuple = (2, 2)
    stride: tuple = (2, 2)
    padding: str = "SAME"

    def __post_init__(self):
        object.__setattr__(self, "window", _pair(self.window, "window", self.name))
        object.__setattr__(self, "stride", _pair(self.stride, "stride", self.name))
        choose(self.padding, geometry.PADDINGS, f"padding of layer {self.name!r}")
        if self.window[0] * self.window[1] > 256:
            raise InputError(f"layer {self.name!r}: a window has at most 256 positions, got {self.window}")

    def output_shape(self, shape):
        return (*_window_output(self.name, shape, self.window, self.stride, self.padding), shape[2])

    def forward(self, ops, p, x, rng=None):
        y, switches = ops.maxpool2d(x, self.window, self.stride, self.padding)
        return y, (switches, x.shape)

    def backward(self, ops, p, cache, dy, rule):
        switches, shape = cache
        return ops.unpool2d(dy, switches, shape, self.window, self.stride, self.padding, rule.unpool)


@dataclass(frozen=True)
class Flatten(_Layer):
    """(N, H, W, C) -> (N, H*W*C), in that order."""

    name: str

    def output_shape(self, shape):
        return (math.prod(shape),)

    def forward(self, ops, p, x, rng=None):
        return x.reshape(len(x), -1), x.shape

    def backward(self, ops, p, shape, dy, rule):
        return dy.reshape(shape)


@dataclass(frozen=True)
class Dense(_Layer):
    """y = x w + b, with w (in, out)."""

    name: str
    units: int

    def output_shape(self, shape):
        if len(shape) != 1:
            raise InputError(
                f"layer {self.name!r} takes vectors, but its input has shape {shape}; put a Flatten before it"
            )
        return (self.units,)

    def init(self, shape, rng):
        return {
            "w": _glorot_uniform((shape[0], self.units), shape[0], self.units, rng),
            "b": np.zeros(self.units),
        }

    def forward(self, ops, p, x, rng=None):
        return ops.dense(x, p["w"], p["b"]), x

    def backward(self, ops, p, x, dy, rule):
        return ops.dense_backward_data(dy, p["w"])

    def param_grads(self, ops, p, x, dy):
        dw, db = ops.dense_backward_weights(x, dy)
        return {"w": dw, "b": db}


@dataclass(frozen=True)
class Dropout(_Layer):
    """In training, each value is zeroed with probability `rate`, the others grow by 1 / (1 - rate); else nothing.

    Srivastava et al. 2014 (JMLR 15), in its inverted form.
    """

    name: str
    rate: float = 0.5

    def __post_init__(self):
        if not 0 <= self.rate < 1:
            raise InputError(f"layer {self.name!r}: rate must lie in [0, 1), got {self.rate}")

    def forward(self, ops, p, x, rng=None):
        if rng is None or self.rate == 0:
            return x, None
        factors = ops.dropout_mask(x.shape, self.rate, rng)
        return ops.multiply(x, factors), factors

    def backward(self, ops, p, factors, dy, rule):
        return dy if factors is None else ops.multiply(dy, factors)


TYPES = {t.__name__: t for t in (Conv2D, ReLU, MaxPool2D, Flatten, Dense, Dropout)}
