"""Whether a map finds the object, where its pixels are known."""

import numpy as np

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
    masks, maps = as_array(masks, "masks"), as_array(maps, "maps")
    if masks.shape != maps.shape or masks.ndim != 3:
        raise InputError(f"masks, maps: expected one shape (N, H, W), got {masks.shape} and {maps.shape}")
    if masks.dtype != bool:
        raise InputError(f"masks: expected bool, got {masks.dtype}")
    if np.isnan(maps).any():
        raise InputError("maps: they hold NaN")
    N = len(maps)
    masks, maps = masks.reshape(N, -1), maps.reshape(N, -1)
    largest = maps == maps.max(1, keepdims=True)
    on = (largest & masks).sum(1) / largest.sum(1)
    return np.where(masks.any(1) & ~largest.all(1), on, np.nan)
