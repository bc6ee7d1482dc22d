"""Layers are frozen specs: they hold sizes, never arrays, and know how to go forward and back.

    init(shape, rng) -> params              shape (H, W, C) or (D,) of one input, without the batch axis
    output_shape(shape) -> shape            raises InputError where the input does not fit
    forward(ops, p, x, training) -> (y, cache)   training: None, or the generator that dropout draws from
    backward(ops, p, cache, dy, rule) -> dx
    grads(ops, p, cache, dy) -> {"w": dw, "b": db}, apart, so that pictures never pay for dw

`p` is the layer's own dict of arrays (None for most), `ops` the primitives of a backend, `cache` a `Cache`: what this
forward pass left for the way back. A `rules.Rule` may bring a function of its own for ReLUs, for max-pools and for the
linear layers (convolutions, dense layers, average pools, batch normalization, Normalize).
"""

import math
import numbers
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .errors import InputError, is_number, is_whole, shown
from .ops import geometry

LARGEST = 1e38  # number of a layer that float32 holds
WIDEST = 1 << 15  # window or stride: its square fits the kernels' whole numbers


class Cache(NamedTuple):
    """A layer's input and output, and what else its way back needs: a pool's switches, dropout's factors."""

    x: Any
    y: Any
    kept: Any = None


class Product(NamedTuple):
    """The gradient x' dy of a dense layer's weights, not multiplied out."""

    x: Any
    dy: Any


def multiplied(ops, grads):
    """Return {name: gradient} of a layer with every `Product` multiplied out."""
    return {k: ops.dense_backward_weights(*g) if isinstance(g, Product) else g for k, g in grads.items()}


def _glorot_uniform(shape, fan_in, fan_out, rng):
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, equation 16."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def _pair(value, what, name):
    """A whole number or a pair of them, at least 1, as a pair of ints."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(is_whole(v) and v <= WIDEST for v in pair):
        raise InputError(
            f"layer {name!r}: {what} must be one or two whole numbers of at least 1 (and no more than {WIDEST:,}), "
            f"got {value!r}"
        )
    return tuple(map(int, pair))


def _set(layer, what):
    """Check and set the number of maps or units of a layer as an int."""
    value = getattr(layer, what)
    if not is_whole(value):
        raise InputError(f"layer {layer.name!r}: {what} must be a whole number of at least 1, got {value!r}")
    object.__setattr__(layer, what, int(value))


def _padding(value, window, name):
    """One of geometry.PADDINGS, or ((top, bottom), (left, right)), each at least 0 and less than the window."""
    if value in geometry.PADDINGS:
        return value
    try:
        pads = tuple(tuple(map(operator.index, pair)) for pair in value)
    except TypeError:
        pads = ()
    if [len(pair) for pair in pads] != [2, 2] or not all(0 <= n < k for pair, k in zip(pads, window) for n in pair):
        raise InputError(
            f"layer {name!r}: padding must be SAME, VALID or ((top, bottom), (left, right)), each smaller than the "
            f"window {window}, got {value!r}"
        )
    return pads


class _Layer:
    """What most layers share: no parameters, an output shaped like the input."""

    trains = True  # False: its network is not trained here

    def init(self, shape, rng):
        return {}

    def output_shape(self, shape):
        return shape

    def grads(self, ops, p, cache, dy):
        return {}


class _Linear(_Layer):
    """A layer that is a linear map and a bias: goes back by its adjoint, unless the rule has another way."""

    def backward(self, ops, p, cache, dy, rule):
        if rule.linear is not None:
            return rule.linear(ops, self, p, cache, dy)
        return self.adjoint(ops, p, cache, dy)


class _Windowed(_Layer):
    """A layer whose windows slide over images."""

    def __post_init__(self):
        for what in ("kernel" if isinstance(self, Conv2D) else "window", "stride"):
            object.__setattr__(self, what, _pair(getattr(self, what), what, self.name))
        object.__setattr__(self, "padding", _padding(self.padding, self.window, self.name))

    def windows(self, shape):
        """(OH, OW) of an input of `shape`, which must be (H, W, C)."""
        if len(shape) != 3:
            raise InputError(
                f"layer {self.name!r} takes images (H, W, C), but its input has shape {shape}; it follows a Flatten?"
            )
        OH, OW, _, _ = geometry.windows(shape, self.window, self.stride, self.padding)
        if min(OH, OW) < 1:
            size, image = ("x".join(map(str, pair)) for pair in (self.window, shape[:2]))
            raise InputError(f"layer {self.name!r}: a {size} window does not fit an input of {image}")
        return OH, OW


@dataclass(frozen=True)
class Conv2D(_Linear, _Windowed):
    """Convolution (cross-correlation, as everywhere in this field) with bias.

    Parameters
    ----------
    name : str
    filters : int
        K, the number of output maps.
    kernel, stride : int or (int, int)
    padding : "SAME", "VALID" or ((top, bottom), (left, right))
        See `tinycnn.ops.geometry`.
    """

    name: str
    filters: int
    kernel: tuple = (3, 3)
    stride: tuple = (1, 1)
    padding: str = "SAME"

    def __post_init__(self):
        super().__post_init__()
        _set(self, "filters")

    @property
    def window(self):
        return self.kernel

    def output_shape(self, shape):
        return (*self.windows(shape), self.filters)

    def init(self, shape, rng):
        kh, kw = self.kernel
        w = _glorot_uniform((kh, kw, shape[2], self.filters), kh * kw * shape[2], kh * kw * self.filters, rng)
        return {"w": w, "b": np.zeros(self.filters)}

    def forward(self, ops, p, x, training=None):
        y = ops.conv2d(x, p["w"], p["b"], self.stride, self.padding)
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        return ops.conv2d_backward_data(dy, p["w"], cache.x.shape, self.stride, self.padding)

    def grads(self, ops, p, cache, dy):
        dw, db = ops.conv2d_backward_weights(cache.x, dy, p["w"].shape, self.stride, self.padding)
        return {"w": dw, "b": db}


@dataclass(frozen=True)
class ReLU(_Layer):
    """y = max(x, 0)."""

    name: str

    def forward(self, ops, p, x, training=None):
        y = ops.relu(x)
        return y, Cache(x, y)

    def backward(self, ops, p, cache, dy, rule):
        if rule.relu is not None:
            return rule.relu(ops, self, p, cache, dy)
        return ops.relu_backward(dy, cache.y, rule.mask, rule.rectify)


@dataclass(frozen=True)
class MaxPool2D(_Windowed):
    """Maximum over windows, remembering where it was (the switches).

    Parameters
    ----------
    name : str
    window, stride : int or (int, int)
        A window has at most 256 positions, so that a switch fits a byte.
    padding : "SAME", "VALID" or ((top, bottom), (left, right))
        Smaller than the window on each side: every window sees a pixel.
    """

    name: str
    window: tuple = (2, 2)
    stride: tuple = (2, 2)
    padding: str = "SAME"

    def __post_init__(self):
        super().__post_init__()
        if self.window[0] * self.window[1] > 256:
            raise InputError(f"layer {self.name!r}: a window has at most 256 positions, got {self.window}")

    def output_shape(self, shape):
        return (*self.windows(shape), shape[2])

    def forward(self, ops, p, x, training=None):
        y, switches = ops.maxpool2d(x, self.window, self.stride, self.padding)
        return y, Cache(x, y, switches)

    def backward(self, ops, p, cache, dy, rule):
        if rule.pool is not None:
            return rule.pool(ops, self, p, cache, dy)
        return ops.unpool2d(dy, cache.kept, cache.x.shape, self.window, self.stride, self.padding, rule.unpool)


@dataclass(frozen=True)
class AvgPool2D(_Linear, _Windowed):
    """Mean over windows.

    Parameters
    ----------
    name : str
    window, stride : int or (int, int)
    padding : "SAME", "VALID" or ((top, bottom), (left, right))
        Smaller than the window on each side: every window sees a pixel.
    count_padding : bool
        False: divide by the pixels of the image in the window, as TensorFlow and Keras do. True: by all of the window,
        as PyTorch does unless told otherwise (``count_include_pad``).
    """

    name: str
    window: tuple = (2, 2)
    stride: tuple = (2, 2)
    padding: str = "SAME"
    count_padding: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.count_padding, (bool, np.bool_)):
            got = shown(self.count_padding)
            raise InputError(f"layer {self.name!r}: count_padding must be True or False, got {got}")
        object.__setattr__(self, "count_padding", bool(self.count_padding))

    def output_shape(self, shape):
        return (*self.windows(shape), shape[2])

    def forward(self, ops, p, x, training=None):
        y = ops.avgpool2d(x, self.window, self.stride, self.padding, self.count_padding)
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        args = self.window, self.stride, self.padding, self.count_padding
        return ops.avgpool2d_backward(dy, cache.x.shape, *args)


@dataclass(frozen=True)
class GlobalAvgPool2D(_Linear):
    """Mean over all places of each map: (N, H, W, C) -> (N, C)."""

    name: str

    def output_shape(self, shape):
        if len(shape) != 3:
            raise InputError(
                f"layer {self.name!r} takes images (H, W, C), but its input has shape {shape}; leave it out"
            )
        return shape[2:]

    def forward(self, ops, p, x, training=None):
        y = ops.avgpool2d(x, x.shape[1:3], (1, 1), "VALID").reshape(len(x), x.shape[3])
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        N, H, W, C = cache.x.shape
        return ops.avgpool2d_backward(dy.reshape(N, 1, 1, C), cache.x.shape, (H, W), (1, 1), "VALID")


@dataclass(frozen=True)
class BatchNorm(_Linear):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta over the last axis: Ioffe and Szegedy 2015.

    For inference alone: mean and variance are given, with gamma and beta, by a network that was trained elsewhere. A
    network that has one is not trained here; `Network.folded` folds it into the layer before it.

    Parameters
    ----------
    name : str
    epsilon : float
        Keras' default; PyTorch's is 1e-5.
    """

    name: str
    epsilon: float = 1e-3

    trains = False

    def __post_init__(self):
        if not (is_number(self.epsilon, whole=False) and 0 <= self.epsilon < LARGEST):
            raise InputError(f"layer {self.name!r}: epsilon must be a number of at least 0, got {shown(self.epsilon)}")
        object.__setattr__(self, "epsilon", float(self.epsilon))

    def init(self, shape, rng):
        start = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0}
        return {k: np.broadcast_to(v, shape[-1:]) for k, v in start.items()}  # of no memory, whatever a file asks for

    def forward(self, ops, p, x, training=None):
        y = ops.normalize(x, p["gamma"], p["beta"], p["mean"], p["variance"], self.epsilon)
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        none = ops.zeros(p["beta"].shape)
        return ops.normalize(dy, p["gamma"], none, none, p["variance"], self.epsilon)

    def affine(self, p):
        """Return (w, b), float64 (C,): y = w x + b; of NumPy arrays p."""
        gamma, beta, mean, variance = (p[k].astype(np.float64) for k in ("gamma", "beta", "mean", "variance"))
        w = gamma / np.sqrt(variance + self.epsilon)
        return w, beta - w * mean


@dataclass(frozen=True)
class Normalize(_Linear):
    """y = (x - mean) / std by colour; usually a network's first layer, so that pictures stay in pixels.

    Parameters
    ----------
    name : str
    mean, std : float or sequence of float
        One for each channel, or one for all; of pixels from 0 to 1.
    """

    name: str
    mean: tuple
    std: tuple

    def __post_init__(self):
        for what, least, kind in (("mean", -LARGEST, "finite numbers"), ("std", 1 / LARGEST, "numbers above 0")):
            given = getattr(self, what)
            values = given.ravel() if isinstance(given, np.ndarray) else given
            values = tuple(values) if isinstance(values, (tuple, list, np.ndarray)) else (values,)
            if not values or not all(is_number(v, whole=False) and least < v < LARGEST for v in values):
                got = shown(given)
                raise InputError(f"layer {self.name!r}: {what} must be {kind}, one for all or one a channel, got {got}")
            object.__setattr__(self, what, tuple(map(float, values)))

    def output_shape(self, shape):
        for what in ("mean", "std"):
            count = len(getattr(self, what))
            if count not in (1, shape[-1]):
                raise InputError(f"layer {self.name!r}: {what} has {count} numbers, its input {shape[-1]} channels")
        return shape

    def forward(self, ops, p, x, training=None):
        y = self._scaled(ops, x, np.float64(self.mean))
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        return self._scaled(ops, dy, 0.0)

    def affine(self, p):
        """Return (w, b), float64 (C,) or (1,): y = w x + b."""
        w = 1 / np.float64(self.std)
        return w, -w * np.float64(self.mean)

    def _scaled(self, ops, x, mean):
        each = 1 / np.float64(self.std), 0.0, mean, 1.0
        return ops.normalize(x, *(ops.asarray(np.broadcast_to(a, x.shape[-1:])) for a in each), 0.0)


@dataclass(frozen=True)
class Flatten(_Layer):
    """(N, H, W, C) -> (N, H*W*C), in that order."""

    name: str

    def output_shape(self, shape):
        return (math.prod(shape),)

    def forward(self, ops, p, x, training=None):
        y = x.reshape(len(x), math.prod(x.shape[1:]))  # of no images as well
        return y, Cache(x, y)

    def backward(self, ops, p, cache, dy, rule):
        return dy.reshape(cache.x.shape)


@dataclass(frozen=True)
class Dense(_Linear):
    """y = x w + b, with w (in, out)."""

    name: str
    units: int

    def __post_init__(self):
        _set(self, "units")

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

    def forward(self, ops, p, x, training=None):
        y = ops.dense(x, p["w"], p["b"])
        return y, Cache(x, y)

    def adjoint(self, ops, p, cache, dy):
        return ops.dense_backward_data(dy, p["w"])

    def grads(self, ops, p, cache, dy):
        return {"w": Product(cache.x, dy), "b": ops.column_sums(dy)}


@dataclass(frozen=True)
class Dropout(_Layer):
    """In training, each value is zeroed with probability `rate`, the others grow by 1 / (1 - rate); else nothing.

    Srivastava et al. 2014 (JMLR 15), in its inverted form.
    """

    name: str
    rate: float = 0.5

    def __post_init__(self):
        if not (isinstance(self.rate, numbers.Real) and 0 <= self.rate < 1):
            raise InputError(f"layer {self.name!r}: rate must be a number in [0, 1), got {self.rate!r}")
        object.__setattr__(self, "rate", float(self.rate))

    def forward(self, ops, p, x, training=None):
        if training is None or self.rate == 0:
            return x, Cache(x, x)
        factors = ops.dropout_mask(x.shape, self.rate, training)
        y = ops.multiply(x, factors)
        return y, Cache(x, y, factors)

    def backward(self, ops, p, cache, dy, rule):
        return dy if cache.kept is None else ops.multiply(dy, cache.kept)


TYPES = {
    t.__name__: t
    for t in (Conv2D, ReLU, MaxPool2D, AvgPool2D, GlobalAvgPool2D, BatchNorm, Normalize, Flatten, Dense, Dropout)
}
