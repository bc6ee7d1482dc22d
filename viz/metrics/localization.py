"""Whether a map finds the object, or whatever else the network is known to use, where its pixels are known.

All take masks and maps of one number a pixel (`maps.signed`, `maps.absolute`), and answer for each. What is undefined
is NaN, never a hit: there is no object, or the map is the same everywhere. Where pixels share a value no order is made
up among them: each counts by its share.
"""

import numpy as np
from scipy.stats import rankdata

from tinycnn.errors import InputError, as_array


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
