"""Naming an image from a map of it: whether the outlines of just this image are in the map.

Of each of N images there is a map, and it has to say which of the N it belongs to (identification among candidates, as
Kay et al. 2008, doi:10.1038/nature06713, name images from brain activity). What all maps have in common, and what all
images have in common, is taken off first: it tells nothing. So the image itself and its edges are always right, and one
drawing for all of them, however well it fits images in general, tells nothing. A correlation with the edges of the
image has neither.
"""

import numpy as np

from tinycnn.errors import InputError, as_array
from viz.deconvnet import edges

from .correlation import standardized

ROUNDING = 1e-9  # correlations that differ by no more are equal; what is left of equal maps


def identify(maps, images):
    """Say of each map whether it names its image among all N.

    A candidate's outlines are its `deconvnet.edges`. A map may show them as lines (where it is strong: its largest
    absolute value over the colours) or as borders of areas (its own edges). All three are brought to mean 0 and length
    1, and their mean over the N is subtracted. The guess is the candidate whose outlines have the largest Pearson
    correlation, over the pixels, with either view of the map.

    Parameters
    ----------
    maps : array (N, H, W) or (N, H, W, C)
        Drawn of the images, in their order; signed or not.
    images : array (N, H, W, C)
        Of N different outlines.

    Returns
    -------
    float64 array (N,)
        1: named; 0: another image correlates as well or better; NaN, undefined: the map is the same everywhere or the
        same as the mean of all (as that of one image alone is), or the image is. By chance 1 / N.

    Raises
    ------
    InputError
        Shapes that do not fit each other.
    """
    return named(maps, outlines(images))


def outlines(images):
    """Return the outlines of the candidates, images (N, H, W, C), for `named`: (N, H W)."""
    return _own(edges(images))


def named(maps, candidates):
    """Return what `identify` does, from the `outlines` of the images: for many maps of the same ones."""
    maps = as_array(maps, "maps")
    maps = maps[..., None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or maps.size == 0 or (len(maps), maps[0, ..., 0].size) != candidates.shape:
        raise InputError(f"maps: expected one for each of the images, as large as they, got shape {maps.shape}")
    known = ~np.isnan(candidates[:, 0])
    r, defined = np.full((len(maps), len(maps)), -np.inf), np.zeros(len(maps), bool)
    for view in (_own(np.abs(maps).max(-1)), _own(edges(maps))):
        there = ~np.isnan(view[:, 0])
        r[there] = np.maximum(r[there], view[there] @ np.nan_to_num(candidates).T)
        defined |= there
    own = r.diagonal().copy()
    r[:, ~known] = -np.inf  # nobody's guess
    np.fill_diagonal(r, -np.inf)
    return np.where(defined & known, own > r.max(1) + ROUNDING, np.nan)


def _own(maps):
    """What each of N maps has of its own, `standardized` (N, P): less the mean of all; NaN where nothing is left."""
    rows = standardized(maps)
    defined = ~np.isnan(rows[:, 0])
    if defined.any():
        rows = rows - rows[defined].mean(0)
    rows[np.sqrt((rows * rows).sum(1)) < ROUNDING] = np.nan
    return standardized(rows)
