"""Whether a map finds the object, or whatever else the network is known to use, where its pixels are known.

Most take masks and maps of one number a pixel (`maps.signed`, `maps.absolute`), and answer for each. What is undefined
is NaN, never a hit: there is no object, or the map is the same everywhere. Where pixels share a value no order is made
up among them: each counts by its share.

The grid pointing game needs no masks: several images of different classes make one, and of each class it is known in
which tile its evidence is. It asks a network that takes images of any size, one without dense layers on maps.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from tinycnn import Network, streams
from tinycnn.errors import InputError, as_array, check_labels, check_seed, check_whole
from tinycnn.layers import Flatten
from viz.check import images_for
from viz.metrics.maps import drawn, signed


def pointing_game(masks, maps):
    """Say of each map whether its largest value lies on the object (Zhang et al. 2016, arXiv:1608.00507).

    Without the paper's tolerance of 15 pixels, which at 32 x 32 would nearly always be a hit.

    Parameters
    ----------
    masks : bool array (N, H, W)
        The object's pixels.
    maps : array (N, H, W)
        Larger where the map says that it matters more.

    Returns
    -------
    float64 array (N,)
        1: a hit, 0: a miss; where several pixels share the largest value, the share of them on the object. NaN,
        undefined: there is no object, or the map is the same everywhere. By chance: the share of the object's pixels.

    Raises
    ------
    InputError
        Shapes that differ, masks that are not bool, maps with NaN.
    """
    masks, maps = _rows(masks, maps)
    largest = maps == maps.max(1, keepdims=True)
    return _defined(masks, maps, (largest & masks).sum(1) / largest.sum(1))


def relevance_mass_accuracy(masks, maps):
    """Return how much of a map's positive part lies on the object (Arras et al. 2022, arXiv:2003.07258).

    sum over the mask of max(R, 0) / sum of max(R, 0). By chance the share of the object's pixels.

    Parameters, Raises
        As for `pointing_game`.

    Returns
    -------
    float64 array (N,)
        In [0, 1]; NaN also where nothing is positive.
    """
    masks, maps = _rows(masks, maps)
    maps = np.maximum(maps, 0)
    total = maps.sum(1)
    return _defined(masks, maps, (maps * masks).sum(1) / np.where(total > 0, total, np.nan))


def relevance_rank_accuracy(masks, maps):
    """Return how many of the K most relevant pixels lie on the object of K pixels (Arras et al. 2022).

    Of the positive part, so that where fewer than K are positive the rest of the K are any of the others. By chance
    the share of the object's pixels.

    Parameters, Raises
        As for `pointing_game`.

    Returns
    -------
    float64 array (N,)
        In [0, 1]; NaN also where nothing is positive.
    """
    masks, maps = _rows(masks, maps)
    maps, K = np.maximum(maps, 0), np.maximum(masks.sum(1), 1)
    least = -np.partition(-maps, K - 1, 1)[np.arange(len(maps)), K - 1][:, None]  # the K-th largest
    above, tied = maps > least, maps == least
    hits = (above & masks).sum(1) + (tied & masks).sum(1) * (K - above.sum(1)) / tied.sum(1)
    return _defined(masks, maps, hits / K)


def average_precision(masks, maps):
    """Return the average precision of telling object from background by a threshold on the map.

    sum_t (R_t - R_(t-1)) P_t, over the thresholds t at the map's values from the largest down, R the share of the
    object above t, P the share of what is above t that is object. By chance a little more than the share of the
    object's pixels.

    Parameters, Returns, Raises
        As for `pointing_game`.
    """
    masks, maps = _rows(masks, maps)
    order, P = np.argsort(-maps, 1), masks.shape[1]
    masks_in_order, values = (np.take_along_axis(a, order, 1) for a in (masks, maps))
    last = np.diff(values, axis=1, append=-np.inf) != 0  # of the pixels that share a value
    end = np.minimum.accumulate(np.where(last, np.arange(P), P)[:, ::-1], 1)[:, ::-1]
    precision = np.take_along_axis(masks_in_order.cumsum(1), end, 1) / (end + 1)
    return _defined(masks, maps, (precision * masks_in_order).sum(1) / np.maximum(masks.sum(1), 1))


def auroc(masks, maps):
    """Return the area under the ROC curve: how often a pixel of the object exceeds one of the background.

    A tie counts half; by chance 1/2, whatever the size of the object.

    Parameters, Raises
        As for `pointing_game`.

    Returns
    -------
    float64 array (N,)
        In [0, 1]; NaN also where all is object.
    """
    masks, maps = _rows(masks, maps)
    n, P = masks.sum(1), masks.shape[1]
    pairs = n * (P - n)
    above = (rankdata(maps, axis=1) * masks).sum(1) - n * (n + 1) / 2
    return _defined(masks, maps, above / np.where(pairs > 0, pairs, np.nan))


@dataclass(frozen=True)
class Grids:
    """Images of n x n tiles, for `grid_pointing_game`.

    Attributes
    ----------
    images : uint8 or float array (G, n * H, n * W, C)
    classes : int64 array (G, n * n)
        The class of each tile, row by row; all of a grid differ.
    """

    images: np.ndarray
    classes: np.ndarray


def grids(net, images, labels, n=2, count=100, seed=0):
    """Put together images of n x n tiles of different classes, each a photograph that the network names rightly.

    Of each class the photographs are taken in the order of their probability, the surest first, and each once; which
    classes meet is drawn (Böhle et al. 2021, arXiv:2104.00032).

    Parameters
    ----------
    net : Network
    images : array (N, H, W, C)
    labels : integer array (N,)
    n : int
        Tiles in a row and in a column.
    count : int
        Grids at most; fewer where the photographs do not suffice.
    seed : int
        Of which classes meet.

    Returns
    -------
    Grids

    Raises
    ------
    InputError
        Unfit images or labels, numbers that are none, or photographs of fewer than n x n classes are named rightly.
    """
    images = images_for(net, images, "images")
    labels = check_labels(labels, len(images), net.check_classes())
    tiles = check_whole(n, "n", 2) ** 2
    rng, sure = streams.rng(check_seed(seed), "grids"), net.predict_proba(images)
    right = np.flatnonzero(sure.argmax(1) == labels)
    right = right[np.argsort(-sure[right, labels[right]], kind="stable")]
    left = {label: right[labels[right] == label].tolist() for label in np.unique(labels[right])}
    chosen = []
    while len(chosen) < check_whole(count, "count") and len(left) >= tiles:
        classes = rng.permutation(list(left))[:tiles]
        chosen.append([left[label].pop(0) for label in classes])
        left = {label: some for label, some in left.items() if some}
    if not chosen:
        raise InputError(
            f"images: those of {len(left)} classes are named rightly, a grid needs {tiles}; give more, or train on"
        )
    G, (_, H, W, C) = len(chosen), images.shape
    tiled = images[np.array(chosen)].reshape(G, n, n, H, W, C).transpose(0, 1, 3, 2, 4, 5)
    return Grids(tiled.reshape(G, n * H, n * W, C), labels[np.array(chosen)])


def grid_pointing_game(net, grids, method):
    """Return how much of what a map says for a class lies in that class's tile (Böhle et al. 2021, arXiv:2104.00032).

    For each tile of each grid its class is asked about, and the sum of max(R, 0) over the tile is divided by that over
    the grid. By chance 1 / (n * n). The network is applied to the grid as it is to a photograph: its last layer is a
    mean over all places, or stands behind one.

    Parameters
    ----------
    net : Network
        Without a Flatten of maps.
    grids : Grids
        Of the network's images; see `grids`.
    method : function (net, x, target) -> array (N, H, W, C) or (N, H, W, 1)

    Returns
    -------
    float64 array (G, n * n)
        In [0, 1]; NaN where nothing is positive.

    Raises
    ------
    InputError
        A network that takes images of one size alone; a method whose maps do not fit or hold NaN.
    """
    G, tiles = grids.classes.shape
    n, (H, W, _) = round(tiles**0.5), net.input_shape
    larger = _larger(net, n)
    found = np.empty((G, tiles))
    for tile in range(tiles):
        r, c = tile // n, tile % n
        mask = np.zeros((G, n * H, n * W), bool)
        mask[:, r * H : (r + 1) * H, c * W : (c + 1) * W] = True
        maps = signed(drawn(method, larger, grids.images, grids.classes[:, tile]))
        found[:, tile] = relevance_mass_accuracy(mask, maps)
    return found


def _larger(net, n):
    """The same network, on the same weights, for images n times as high and wide."""
    for layer, shape in zip(net.layers, [net.input_shape, *net.shapes.values()]):
        if isinstance(layer, Flatten) and len(shape) == 3:
            raise InputError(
                f"layer {layer.name!r} flattens maps: the network takes images of one size alone, and no grid of them; "
                "take one that ends in a GlobalAvgPool2D"
            )
    H, W, C = net.input_shape
    larger = Network(net.layers, (n * H, n * W, C), backend=net.ops.name, dtype=net.dtype.name, meta=net.meta)
    larger.params = net.params
    return larger


def _rows(masks, maps):
    """Masks and maps as rows (N, P), or an InputError."""
    masks, maps = as_array(masks, "masks"), as_array(maps, "maps")
    if masks.shape != maps.shape or masks.ndim != 3:
        raise InputError(f"masks, maps: expected one shape (N, H, W), got {masks.shape} and {maps.shape}")
    if masks.dtype != bool:
        raise InputError(f"masks: expected bool, got {masks.dtype}")
    if maps.dtype.kind not in "buif" or np.isnan(maps).any():
        raise InputError("maps: they hold NaN, or no numbers")
    if masks.size == 0:
        raise InputError(f"masks, maps: there is none, got shape {masks.shape}")
    N = len(maps)
    return masks.reshape(N, -1), maps.reshape(N, -1).astype(np.float64)


def _defined(masks, maps, found):
    """What was found, or NaN where there is no object or the map is the same everywhere."""
    return np.where(masks.any(1) & (maps != maps[:, :1]).any(1), found, np.nan)
