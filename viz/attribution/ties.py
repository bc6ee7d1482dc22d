"""What if a tie went the other way? How often pools and ReLUs tie, and how far a method's map moves with the tie.

A pool ties where its maximum stands in several places of a window: the engine's switch names the first. A ReLU ties
where its input is 0: the engine sends nothing back. `resolved` is a copy of a network, on the same weights, whose
switches name the last place, or whose signal is shared equally by all (and whose tied ReLUs let all, or half, pass);
every method works on it as on any network.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinycnn import Network
from tinycnn.errors import choose
from tinycnn.layers import MaxPool2D, ReLU
from viz.check import batches, images_for

WAYS = {"first": 0.0, "last": 1.0, "shared": 0.5}  # the tie's way, and what part of the signal a tied ReLU lets pass


class Ties(NamedTuple):
    """Of each image the share of a layer's windows (a ReLU's inputs) that tie, and that tie at a maximum of 0, (N,)."""

    tied: np.ndarray
    at_zero: np.ndarray


@dataclass(frozen=True)
class _Pool(MaxPool2D):
    start: tuple = (0, 0)  # row and column, in pixels, where the first window starts: beyond the border below 0
    way: str = "first"

    def tied(self, x, y):
        """Whether each place of each window holds the window's maximum, (N, OH, OW, C, kh * kw)."""
        (N, H, W, C), (OH, OW) = x.shape, y.shape[1:3]
        (top, left), size = (
            np.negative(self.start),
            [(n - 1) * s + k for n, s, k in zip((OH, OW), self.stride, self.window)],
        )
        padded = np.full((N, max(size[0], top + H), max(size[1], left + W), C), -np.inf, x.dtype)
        padded[:, top : top + H, left : left + W] = x
        views = sliding_window_view(padded, self.window, (1, 2))[:, :: self.stride[0], :: self.stride[1]][:, :OH, :OW]
        return (views == y[..., None, None]).reshape(*y.shape, -1)

    def forward(self, ops, p, x, training=None):
        y, cache = super().forward(ops, p, x, training)
        if self.way == "last":
            tied = self.tied(ops.to_numpy(x), ops.to_numpy(y))
            last = tied.shape[-1] - 1 - tied[..., ::-1].argmax(-1)
            cache = cache._replace(kept=ops.put(last.astype(np.uint8)))
        return y, cache

    def backward(self, ops, p, cache, dy, rule):
        if self.way != "shared" or rule.pool is not None or rule.unpool != "switches":
            return super().backward(ops, p, cache, dy, rule)
        tied = self.tied(ops.to_numpy(cache.x), ops.to_numpy(cache.y))
        shares, found = ops.to_numpy(dy)[..., None] * tied / tied.sum(-1, keepdims=True), 0
        for i in range(tied.shape[-1]):
            kept = ops.put(np.full(dy.shape, i, np.uint8))
            sent = super().backward(ops, p, cache._replace(kept=kept), ops.asarray(shares[..., i]), rule)
            found = found + ops.to_numpy(sent)
        return ops.asarray(found)


@dataclass(frozen=True)
class _ReLU(ReLU):
    way: str = "first"

    def backward(self, ops, p, cache, dy, rule):
        dx = super().backward(ops, p, cache, dy, rule)
        if rule.relu is not None or not rule.mask:
            return dx
        x, signal = ops.to_numpy(cache.x), ops.to_numpy(dy)
        passes = (x == 0) & ((signal > 0) | (not rule.rectify))
        return ops.asarray(ops.to_numpy(dx) + WAYS[self.way] * signal * passes)


def resolved(net, way):
    """Return a copy of a network, on the same weights, whose ties go another way: "first", "last" or "shared"."""
    choose(way, WAYS, "way")
    layers, shape = [], net.input_shape
    for layer in net.layers:
        if type(layer) is MaxPool2D:
            start = Network([layer], shape, backend=net.ops.name).receptive_field(layer.name)[2]
            layer = _Pool(layer.name, layer.window, layer.stride, layer.padding, start, way)
        layers.append(_ReLU(layer.name, way) if type(layer) is ReLU else layer)
        shape = net.shapes[layer.name]
    copy = Network(layers, net.input_shape, backend=net.ops.name, dtype=str(net.dtype), meta=net.meta)
    copy.params = net.params
    return copy


def shares(net, x, *, progress=False):
    """Return how often each pool and each ReLU ties, {layer: `Ties`}. Raises InputError for unfit images."""
    images, copy = images_for(net, x), resolved(net, "first")
    asked = [layer for layer in copy.layers if isinstance(layer, (_Pool, _ReLU))]
    found = {layer.name: Ties(*np.zeros((2, len(images)))) for layer in asked}
    for some in batches(copy, len(images), copy.layer_names[-1], progress):
        trace = copy.forward(images[some])
        for layer in asked:
            a, y = (copy.ops.to_numpy(v) for v in trace.caches[layer.name][:2])
            tied = layer.tied(a, y).sum(-1) > 1 if isinstance(layer, _Pool) else a == 0
            for kept, which in zip(found[layer.name], (tied, tied & (y == 0))):
                kept[some] = which.reshape(len(a), -1).mean(1)
    return found


def moved(net, x, target, method, way, **options):
    """Return how far a method's map moves when ties go another way, (N,): the L2 norm of the change by the map's.

    Parameters
    ----------
    net, x, target
        As for `viz.attribution.gradients.gradient`.
    method : function
        One of `viz.attribution.METHODS`.
    way : "last" or "shared"
    **options
        Of the method.

    Returns
    -------
    float64 array (N,)
        NaN for an image whose map is empty either way; infinite where only the engine's is.
    """
    usual, other = (method(n, x, target, **options).astype(np.float64) for n in (net, resolved(net, way)))
    change, size = (np.sqrt((a**2).sum((1, 2, 3))) for a in (other - usual, usual))
    with np.errstate(divide="ignore", invalid="ignore"):
        return change / size
