"""Which pixels count, by sharing a score out: layer-wise relevance propagation, excitation backprop, DeepLIFT.

Relevance R starts as the score at its unit and is handed from layer to layer. A ReLU hands on what it gets, a max-pool
gives it to its winner; a linear layer z = sum_i x_i w_i + b splits what each of its units k has among their inputs i:

    R_i = sum_k share * x'_i w'_ik / z'_k * R_k        z'_k = sum_i x'_i w'_ik + b'_k, epsilon added away from 0

Bach et al. 2015 (PLOS ONE 10, e0130140). The rules differ in x', w' and b' (x+ = max(x, 0), x- = min(x, 0)):

    epsilon     x w                              b                   their equation 58
    gamma       x (w + gamma w+)                 b + gamma b+        Montavon et al. 2019, LNCS 11700, chapter 10
    alpha_beta  alpha: x+ w+ and x- w-           b+                  Bach, equation 60; share alpha
                beta:  x+ w- and x- w+           b-                  share -beta
    flat        1                                0                   Lapuschkin et al. 2017 (ICCV workshops)
    w_square    w^2                              0                   Montavon et al. 2017, arXiv:1512.02479
    z_box       x w - low w+ - high w-           0                   the same, for pixels between low and high
    excitation  x+ w+                            0                   Zhang et al. 2016, arXiv:1608.00507, equation 10

What b', epsilon and units with z' = 0 take is not handed on; `conservation` keeps the account.

An average pool is a linear layer with equal weights, a batch normalization one with a weight and a bias for each
channel: both take the epsilon rule, so that a pool shares in proportion to its inputs. (`Network.folded` gives the
network whose convolutions hold their batch normalizations: relevance through it is that of zennit's canonizers, through
the layers one by one Captum's.) `Normalize` hands relevance on whole, so that it is that of the pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from tinycnn.errors import InputError, choose, is_number, shown
from tinycnn.layers import AvgPool2D, BatchNorm, Conv2D, Dense, GlobalAvgPool2D, Normalize
from tinycnn.rules import RULES, Rule, by_layer
from viz.check import baseline_for, batches, features, floats, images_for, target_for

WEIGHED, CHANNELWISE = (Conv2D, Dense), (BatchNorm, Normalize)
LINEAR = (*WEIGHED, AvgPool2D, GlobalAvgPool2D, BatchNorm)  # these share relevance out


class Part(NamedTuple):
    """A share of each unit's relevance, the products (x', w') by which it is split, and b', whose part stays behind."""

    share: float
    products: tuple
    bias: np.ndarray | float = 0.0
    z: np.ndarray | None = None  # z' where it is there already: the layer's own output


@dataclass(frozen=True)
class Split:
    """A linear layer's rule, to be `tinycnn.rules.Rule.linear`.

    Parameters
    ----------
    parts : function (x, y, w, b) -> list of Part
        Of the layer's input, output and parameters, NumPy arrays.
    epsilon : float
        Added to z', away from 0.
    """

    parts: Callable
    epsilon: float = 0.0

    def __call__(self, ops, layer, p, cache, R):
        """Return the relevance of the layer's inputs, given that of its outputs."""
        found = None
        for part, ratio, _ in self.ratios(ops, layer, p, cache, R):
            for x, w in part.products:
                back = _back(ops, layer, w, cache, ratio)
                np.multiply(x, back, out=back)
                found = back if found is None else found + back
        return ops.asarray(found)

    def ratios(self, ops, layer, p, cache, R):
        """Yield (part, share R / z' with epsilon, z'): what no primitive computes is done on the host."""
        x, y, R = map(ops.to_numpy, (cache.x, cache.y, R))
        for part in self.parts(x, y, *_weights(ops, layer, p)):
            z = part.z
            if z is None:
                z = part.bias
                for x, w in part.products:
                    z = z + _forth(ops, layer, w, x)
            yield part, self.ratio(R if part.share == 1 else part.share * R, z), z

    def ratio(self, R, z):
        """Return R / z', 0 where there is nothing to divide by; image by image, which a cache holds."""
        found = (np.empty_like if self.epsilon else np.zeros_like)(R)
        for each, signal, out in zip(z, R, found):
            if self.epsilon:
                np.divide(signal, self.steady(each, out), out=out)
            else:
                np.divide(signal, each, out=out, where=each != 0)
        return found

    def steady(self, z, out=None):
        """Return z with epsilon added away from 0."""
        return np.add(np.copysign(z.dtype.type(self.epsilon), z + 0, out=out), z, out=out)  # -0 + 0 = 0

    def lost(self, ops, layer, p, cache, R):
        """Return what biases, epsilon and units with z' = 0 keep of each image's relevance, float64 (3, N)."""
        found = np.zeros((3, len(R)))
        for part, ratio, z in self.ratios(ops, layer, p, cache, R):
            on, steady = z != 0, self.steady(z)
            found += [_sums(a) for a in (ratio * part.bias * on, ratio * (steady - z) * on, part.share * R * ~on)]
        return found


def _weights(ops, layer, p):
    """(w, b) of a linear layer, NumPy: of a pool (1, 0), to multiply its means by, of a channelwise one (C,) each."""
    if isinstance(layer, CHANNELWISE):
        host = {k: ops.to_numpy(a) for k, a in (p or {}).items()}
        return [a.astype(ops.dtype) for a in layer.affine(host)]
    return map(ops.to_numpy, (p["w"], p["b"]) if isinstance(layer, WEIGHED) else (ops.dtype.type(1), ops.dtype.type(0)))


def _forth(ops, layer, w, x):
    """What a linear layer with weights w and no bias makes of x; all NumPy."""
    if isinstance(layer, CHANNELWISE):
        return w * x
    weighed = isinstance(layer, WEIGHED)
    p = {"w": ops.asarray(w), "b": ops.zeros(w.shape[-1])} if weighed else None
    y = ops.to_numpy(layer.forward(ops, p, ops.asarray(x))[0])
    return y if weighed else w * y


def _back(ops, layer, w, cache, dy):
    """The adjoint of `_forth`, to be written to."""
    if isinstance(layer, CHANNELWISE):
        return w * dy
    weighed = isinstance(layer, WEIGHED)
    p = {"w": ops.asarray(w)} if weighed else None
    dx = ops.to_numpy(layer.backward(ops, p, cache, ops.asarray(dy), RULES["gradient"]))
    return dx if weighed else w * dx


def _sums(a):
    """The sum of each image's values, float64 (N,)."""
    return a.reshape(len(a), -1).sum(1, dtype=np.float64)


def _clipped(a):
    """The positive and the negative part of an array."""
    return np.maximum(a, 0), np.minimum(a, 0)


def _epsilon(x, y, w, b):
    return [Part(1, ((x, w),), b, y)]


def _gamma(gamma, x, y, w, b):
    return [Part(1, ((x, w + gamma * np.maximum(w, 0)),), b + gamma * np.maximum(b, 0))]


def _alpha_beta(alpha, beta, x, y, w, b):
    (xp, xn), (wp, wn), (bp, bn) = map(_clipped, (x, w, b))
    signed = xn.any()  # behind a ReLU, and for pixels, there are no negative inputs
    parts = [Part(alpha, ((xp, wp), (xn, wn))[: 1 + signed], bp), Part(-beta, ((xp, wn), (xn, wp))[: 1 + signed], bn)]
    return parts[: 1 + (beta != 0)]


def _flat(x, y, w, b):
    return [Part(1, ((np.ones_like(x), np.ones_like(w)),))]


def _w_square(x, y, w, b):
    return [Part(1, ((np.ones_like(x), w**2),))]


def _z_box(low, high, x, y, w, b):
    wp, wn = _clipped(w)
    bounds = [(np.zeros_like(x) - bound, part) for bound, part in ((low, wp), (high, wn)) if np.any(bound)]
    return [Part(1, ((x, w), *bounds))]


def _excitation(x, y, w, b):
    return [Part(1, ((np.maximum(x, 0), np.maximum(w, 0)),))]


SPLITS = {  # name: function gamma -> parts
    "epsilon": lambda gamma: _epsilon,
    "gamma": lambda gamma: partial(_gamma, gamma),
    "alpha1_beta0": lambda gamma: partial(_alpha_beta, 1, 0),
    "alpha2_beta1": lambda gamma: partial(_alpha_beta, 2, 1),
    "flat": lambda gamma: _flat,
    "w_square": lambda gamma: _w_square,
    "z_box": lambda gamma: partial(_z_box, 0, 1),
    "excitation": lambda gamma: _excitation,
}
COMPOSITES = {  # name: the first linear layer's rule, that of the other convolutions, that of the other dense layers
    "epsilon": ("epsilon", "epsilon", "epsilon"),
    "gamma": ("gamma", "gamma", "gamma"),
    "alpha1_beta0": ("alpha1_beta0", "alpha1_beta0", "alpha1_beta0"),
    "alpha2_beta1": ("alpha2_beta1", "alpha2_beta1", "alpha2_beta1"),
    "w_square_plus": ("w_square", "alpha1_beta0", "alpha1_beta0"),  # deep Taylor decomposition, arXiv:1512.02479
    "box_plus": ("z_box", "alpha1_beta0", "alpha1_beta0"),  # the same, for pixels between 0 and 1
    "epsilon_plus": ("alpha1_beta0", "alpha1_beta0", "epsilon"),
    "epsilon_plus_flat": ("flat", "alpha1_beta0", "epsilon"),
    "epsilon_alpha2_beta1": ("alpha2_beta1", "alpha2_beta1", "epsilon"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha2_beta1", "epsilon"),
    "epsilon_gamma_box": ("z_box", "gamma", "epsilon"),
}


def _hand_on(ops, layer, p, cache, R):
    return R


PASS = Rule(relu=_hand_on, linear=_hand_on)  # at a ReLU and at Normalize; a max-pool gives it to the winner


def composite(first, convolutions, dense, epsilon=1e-6, gamma=0.25, others="epsilon"):
    """Return a composite, a function net -> {layer: Rule}, that gives each kind of layer a rule of `SPLITS`.

    Parameters
    ----------
    first, convolutions, dense : str
        The rule of the convolution or dense layer that sees the pixels, of the other convolutions, of the other dense
        layers. As `first`, z_box has the bounds that pixels of 0 and 1 have there, behind a Normalize for instance.
    epsilon : float
        Of each of these rules: added to its denominators, away from 0.
    gamma : float
        Of the rule gamma.
    others : str
        The rule of average pools and batch normalizations.

    Raises
    ------
    InputError
        An unknown rule; `epsilon` or `gamma` that is no finite number of at least 0.
    """
    for name in (first, convolutions, dense, others):
        choose(name, SPLITS, "rule")
    for value, what in ((epsilon, "epsilon"), (gamma, "gamma")):
        if not (is_number(value, whole=False) and 0 <= value < np.inf):
            raise InputError(f"{what}: expected a number of at least 0, got {shown(value)}")

    def of(net):
        names = {layer.name: others for layer in net.layers if isinstance(layer, LINEAR)}
        weighed = [layer.name for layer in net.layers if isinstance(layer, WEIGHED)]
        names |= {name: convolutions if len(net.shapes[name]) == 3 else dense for name in weighed}
        names |= dict.fromkeys(weighed[:1], first)
        parts = {name: SPLITS[rule](gamma) for name, rule in names.items()}
        if first == "z_box":
            parts |= {name: partial(_z_box, *_bounds(net, name)) for name in weighed[:1]}
        rules = {name: replace(PASS, linear=Split(some, epsilon)) for name, some in parts.items()}
        return dict.fromkeys(net.layer_names, PASS) | rules

    return of


def _bounds(net, layer):
    """(low, high) of a layer's input for pixels from 0 to 1; up to there each value must go one way with the pixels."""
    before = net.layer_names[: net.layer_names.index(layer)]
    if not before:
        return 0, 1
    ends = features(net, np.stack([np.full(net.input_shape, pixel, net.dtype) for pixel in (0, 1)]), before[-1])
    return ends.min(0), ends.max(0)


def _rules(net, given, epsilon, gamma):
    """The rules {layer: Rule} of a composite, given by name, as a function of the network, or as a mapping."""
    if not isinstance(given, Mapping):
        given = (
            given if callable(given) else composite(*COMPOSITES[choose(given, COMPOSITES, "composite")], epsilon, gamma)
        )(net)
    rules = by_layer(dict.fromkeys(net.layer_names, PASS) | dict(given), net.layer_names)
    linear = [layer.name for layer in net.layers if isinstance(layer, LINEAR)]
    bare = [name for name in linear if rules[name].linear in (None, PASS.linear)]
    if bare:
        raise InputError(f"composite: layer {bare[0]!r} has no rule that shares out relevance; name one for it")
    return rules


def lrp(net, x, target, composite="epsilon", epsilon=1e-6, gamma=0.25, *, progress=False):
    """Return layer-wise relevance: the score, shared out among pixels and colours, (N, H, W, C), signed.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`. What is shared out is the target's own value.
    composite : str, function or mapping
        A name of `COMPOSITES`, a function net -> {layer: Rule}, as `composite` makes one, or such a mapping.
    epsilon, gamma : float
        Of a composite given by name; see `composite`.

    Raises
    ------
    InputError
        As for `gradient`; an unknown composite, or one that leaves a linear layer without a rule.
    """
    return _shared_out(net, x, target, _rules(net, composite, epsilon, gamma), True, progress)


def excitation_backprop(net, x, target, epsilon=0.0, *, progress=False):
    """Return the probability that a walk from the target, along positive weights, ends at a pixel, (N, H, W, C).

    Zhang et al. 2016, arXiv:1608.00507: marginal winning probabilities, which start as 1. Biases take no part; units
    without positive inputs end a walk. At least 0; see `lrp`.
    """
    rules = composite("excitation", "excitation", "excitation", epsilon, others="excitation")(net)
    return _shared_out(net, x, target, rules, False, progress)


def _shared_out(net, x, target, rules, own, progress):
    """What comes to the pixels of the target's own value, or of 1, by rules {layer: Rule}."""
    images = images_for(net, x)
    target, R = target_for(net, target, len(images)), np.empty(images.shape, net.dtype)
    for some in batches(net, len(images), target.layer, progress):
        trace = net.forward(images[some], upto=target.layer)
        y = trace[target.layer]
        R[some] = net.backward(trace, target[some].seed(y) * (y if own else 1), rule=rules)
    return R


@dataclass(frozen=True)
class Conservation:
    """The account of relevance on its way to the pixels; all float64.

    Attributes
    ----------
    layers : tuple of str
        L layers in the order of the way, from the target's.
    relevance, magnitude : array (L + 1, N)
        The sum of relevance, and of its absolute values: at the target, then at each layer's input.
    bias, epsilon, empty : array (L, N)
        What each layer kept: by its biases, by epsilon, and at units whose denominator is 0.
    """

    layers: tuple
    relevance: np.ndarray
    magnitude: np.ndarray
    bias: np.ndarray
    epsilon: np.ndarray
    empty: np.ndarray

    @property
    def error(self):
        """What the account does not explain, (L, N), as a share of the image's largest magnitude."""
        gap = self.relevance[:-1] - self.relevance[1:] - self.bias - self.epsilon - self.empty
        return np.abs(gap) / self.magnitude.max(0)


def conservation(net, x, target, composite="epsilon", epsilon=1e-6, gamma=0.25, *, progress=False):
    """Return how much relevance stands after every layer, and what took the rest, as a `Conservation`.

    The arguments are those of `lrp`. What stands at the pixels and what all layers kept add up to the score.

    Raises
    ------
    InputError
        As for `lrp`; a linear layer whose rule is no `Split`, which keeps no account.
    """
    images, rules = images_for(net, x), _rules(net, composite, epsilon, gamma)
    target = target_for(net, target, len(images))
    names = net.layer_names[: net.layer_names.index(target.layer) + 1]
    layers = net.layers[: len(names)]
    linear = [layer.name for layer in layers if isinstance(layer, (*LINEAR, Normalize))]
    foreign = [n for n in linear if not isinstance(rules[n].linear, Split) and rules[n].linear is not PASS.linear]
    if foreign:
        raise InputError(f"composite: the rule of layer {foreign[0]!r} is no Split, and says not what it keeps")
    way = list(zip(reversed(layers), [*reversed(names[:-1]), None]))
    sums, lost = np.zeros((2, len(way) + 1, len(images))), np.zeros((3, len(way), len(images)))
    for some in batches(net, len(images), target.layer, progress):
        trace = net.forward(images[some], upto=target.layer)
        R = target[some].seed(trace[target.layer]) * trace[target.layer]
        sums[:, 0, some] = _sums(R), _sums(np.abs(R))
        for i, (layer, below) in enumerate(way):
            if layer.name in linear and isinstance(rules[layer.name].linear, Split):
                p, cache = net.params.get(layer.name), trace.caches[layer.name]
                lost[:, i, some] = rules[layer.name].linear.lost(net.ops, layer, p, cache, R)
            R = net.backward(trace, R, at=layer.name, rule=rules, to=below)
            sums[:, i + 1, some] = _sums(R), _sums(np.abs(R))
    return Conservation(tuple(reversed(names)), *sums, *lost)


SMALL = 1e-10  # differences below count as none: there the slope is the gradient


def deeplift(net, x, target, baseline=0.0, *, progress=False):
    """Return DeepLIFT's contributions by the rescale rule, (N, H, W, C), signed: they add up to S(x) - S(x0).

    Image and baseline go through the network together. A ReLU's slope is the change of its output by that of its input;
    a pool gives the change of each maximum to the places of both maxima, and where windows overlap these add up.
    Shrikumar et al. 2017, arXiv:1704.02685; for pools as in its authors' code.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`.
    baseline : float, array (H, W, C) or (N, H, W, C)
        x0: one value for all pixels, an image (uint8, or float as it is), or one for each.
    """
    images = images_for(net, x)
    target, x0 = target_for(net, target, len(images)), baseline_for(net, baseline, len(images))
    maps, rule = np.empty(images.shape, net.dtype), Rule(relu=_rescale, pool=_rescale_pool)
    for some in batches(net, len(images), target.layer, progress):
        change = floats(net, images[some]) - x0[some]
        trace = net.forward(np.concatenate([x0[some] + change, x0[some]]), upto=target.layer)
        n = len(change)
        dy = np.concatenate(2 * [target[some].seed(trace[target.layer][:n])])
        maps[some] = net.backward(trace, dy, rule=rule)[:n] * change
    return maps


def _slope(moved, change, usual):
    """`moved` by `change`, for images and baselines alike; where nothing changes the `usual` signal."""
    return np.where(np.abs(change) < SMALL, usual, moved / np.where(change == 0, 1, change))


def _halves(a):
    """The change from baselines (the second half) to images (the first), for both."""
    x, x0 = np.split(a, 2)
    return np.concatenate([x - x0, x - x0])


def _rescale(ops, layer, p, cache, dy):
    """A ReLU: dx = dy (y - y0) / (x - x0)."""
    x, y, signal = map(ops.to_numpy, (cache.x, cache.y, dy))
    usual = ops.to_numpy(layer.backward(ops, p, cache, dy, RULES["gradient"]))
    return ops.asarray(_slope(signal * _halves(y), _halves(x), usual))


def _rescale_pool(ops, layer, p, cache, dy):
    """A pool: with m = max(y, y0), m - y0 goes to the image's maximum, y - m to the baseline's."""
    x, y, signal = map(ops.to_numpy, (cache.x, cache.y, dy))
    y, y0 = np.split(y, 2)
    most = np.maximum(y, y0)
    signals = signal, signal * np.concatenate([most - y0, y - most])
    back = (layer.backward(ops, p, cache, ops.asarray(a), RULES["gradient"]) for a in signals)
    usual, moved = map(ops.to_numpy, back)
    moved = moved[: len(y)] + moved[len(y) :]
    return ops.asarray(_slope(np.concatenate([moved, moved]), _halves(x), usual))
