"""Whether a map depends on what the network learned: draw its weights anew, and see how far the map stays as it was.

Adebayo et al. 2018, arXiv:1810.03292. From the logits downwards the weights of one layer after the other are drawn anew
(cascading randomization). What the critics of the test ask for stands beside it: structural similarity beside ranks
(flat borders are all ties); all layers at once, or each alone; several draws; maps that are means over noisy copies,
where a single one shatters (smooth test; Hedström et al. 2024, arXiv:2401.06465); and a number that needs no
similarity of maps, the rise of their complexity (efficient test; the same).
"""

from dataclasses import dataclass

import numpy as np

from tinycnn import Network, streams
from tinycnn.errors import InputError, check_whole, choose, is_number, shown
from tinycnn.progress import bar
from viz.check import floats, images_for
from viz.metrics import complexity
from viz.metrics.correlation import spearman, ssim
from viz.metrics.maps import absolute, drawn, signed

ORDERS = ("top", "alone", "all")


@dataclass(frozen=True)
class Randomization:
    """How far maps stay as they were when layers' weights are drawn anew; 1: wholly.

    Attributes
    ----------
    layers : tuple of str
        One a row, from the top; by order "all" one row, named "all".
    signed, absolute : float64 array (layers, N)
        `spearman` of the maps' sums, and of their absolute sums, over the colours. NaN where a map is the same
        everywhere.
    ssim : float64 array (layers, N)
        `ssim` of the absolute sums, each map divided by its largest; NaN where that is 0.
    """

    layers: tuple
    signed: np.ndarray
    absolute: np.ndarray
    ssim: np.ndarray


def model_parameter_randomization(
    net, x, target, method, order="top", draws=1, samples=1, noise=0.0, seed=0, *, progress=False
):
    """Return how similar a method's maps are to those of networks with weights drawn anew.

    Parameters
    ----------
    net : Network
        It stays as it is.
    x : array (N, H, W, C)
    target
        What `method` takes; the same class before and after.
    method : function (net, x, target) -> array (N, H, W, C) or (N, H, W, 1)
    order : "top", "alone" or "all"
        Anew are the layer of the row and all above it, this layer alone, or all at once (one row).
    draws : int
        So many networks with weights drawn anew; each number is the mean over them.
    samples : int
        Of each image, before and after, the map is the mean over so many copies with noise; without noise, its own.
    noise : float
        Its standard deviation, as a share of the image's own range. The same noise for every image.
    seed : int
        Of weights and noise. Weights are drawn as a new network's are, biases are 0, from a stream of their own: none
        are those that the training began with.
    progress : bool
        Show a progress bar over the networks with weights drawn anew.

    Returns
    -------
    Randomization

    Raises
    ------
    InputError
        Unfit images, a method whose maps do not fit or hold NaN, an unknown order, images below 11 x 11.
    """
    images, names = images_for(net, x), list(net.params)[::-1]
    rows = {
        "top": {name: names[: i + 1] for i, name in enumerate(names)},
        "alone": {name: [name] for name in names},
        "all": {"all": names},
    }[choose(order, ORDERS, "order")]
    check_whole(draws, "draws"), check_whole(samples, "samples")
    if not (is_number(noise, whole=False) and 0 <= noise < np.inf):
        raise InputError(f"noise: expected a share of 0 or more, got {shown(noise)}")

    def look(some):
        return _mean_map(method, some, images, target, samples, noise, seed)

    before, found = look(net), np.zeros((3, len(rows), len(images)))
    nets = [(draw, i, anew) for draw in range(draws) for i, anew in enumerate(rows.values())]
    for draw, i, anew in bar(nets, disable=not progress, leave=False):
        found[:, i] += _similarities(before, look(randomized(net, anew, seed, draw)))
    return Randomization(tuple(rows), *found / draws)


def complexity_rise(net, x, target, method, bins=100, seed=0):
    """Return how much more complex a method's maps are of a network of random weights, relative to the trained one's.

    (E(random) - E(trained)) / E(trained), with E the `complexity.entropy` of the absolute sums over the colours, and
    all layers drawn anew at once (Hedström et al. 2024). A map that loses its structure with the weights is above 0.

    Parameters
    ----------
    bins : int
        Of the histogram.
    net, x, target, method, seed
        As for `model_parameter_randomization`, which also has what is raised.

    Returns
    -------
    float64 array (N,)
        NaN where the trained network's map is the same everywhere.
    """
    images = images_for(net, x)
    nets = net, randomized(net, list(net.params), seed)
    before, after = (complexity.entropy(absolute(drawn(method, some, images, target)), bins) for some in nets)
    return (after - before) / np.where(before > 0, before, np.nan)


def randomized(net, layers, seed=0, draw=0):
    """Return a network with the weights of `net`, but those of `layers` drawn anew; see the parameter `seed` above."""
    for name in layers:
        choose(name, list(net.params), "layer with weights")
    other = Network(net.layers, net.input_shape, backend=net.ops.name, dtype=net.dtype.name)
    shapes = [net.input_shape, *net.shapes.values()]
    for i, layer in enumerate(net.layers):
        if layer.name in layers:
            fresh = layer.init(shapes[i], streams.rng(seed, "randomization", draw, i))
            other.params[layer.name] = {name: net.ops.asarray(a) for name, a in fresh.items()}
        elif layer.name in net.params:
            other.params[layer.name] = dict(net.params[layer.name])
    return other


def _mean_map(method, net, images, target, samples, noise, seed):
    """A method's maps, the mean over noisy copies of the images, if there is noise."""
    if noise == 0:
        return drawn(method, net, images, target)
    x, total = floats(net, images), 0.0
    size = noise * np.ptp(x, (1, 2, 3), keepdims=True)
    for k in range(samples):
        draws = streams.rng(seed, "noise of a test", k).standard_normal(net.input_shape)
        total = total + drawn(method, net, (x + size * draws).astype(net.dtype), target)
    return total / samples


def _similarities(a, b):
    """The three rows of a `Randomization`, (3, N)."""
    tops = [absolute(maps) for maps in (a, b)]
    largest = [maps.max((1, 2), keepdims=True) for maps in tops]
    alike = ssim(*(maps / np.where(most > 0, most, 1) for maps, most in zip(tops, largest)))
    there = (largest[0] > 0).ravel() & (largest[1] > 0).ravel()
    return spearman(signed(a), signed(b)), spearman(*tops), np.where(there, alike, np.nan)
