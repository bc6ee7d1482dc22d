"""How much a map spreads: few pixels or all, one value or many. Neither says that the map is right."""

import numpy as np

from tinycnn.errors import InputError, as_array, check_whole


def sparseness(maps):
    """Return the Gini index of each map's absolute values, (N,) (Chalasani et al. 2020, arXiv:1810.06583).

    With v the n absolute values in rising order, G = sum_i (2 i - n - 1) v_i / (n sum v), i from 1: 0 where all are
    equal, 1 - 1/n where one pixel has it all.

    Parameters
    ----------
    maps : array (N, ...)

    Returns
    -------
    float64 array (N,)
        NaN, undefined, for a map of zeros.

    Raises
    ------
    InputError
        Maps with NaN, or none.
    """
    v = np.sort(np.abs(_rows(maps)), 1)
    n, total = v.shape[1], v.sum(1)
    return (v @ (2 * np.arange(1, n + 1) - n - 1)) / (n * np.where(total == 0, np.nan, total))


def entropy(maps, bins=100):
    """Return the entropy of the histogram of each map's values, in nats, (N,): -sum_b p_b log p_b.

    `bins` of one width run from the map's smallest to its largest value. 0 for a map that is the same everywhere.

    Raises
    ------
    InputError
        Maps with NaN, or none; `bins` that are no whole number.
    """
    rows, bins = _rows(maps), check_whole(bins, "bins")
    counts = np.stack([np.histogram(row, bins)[0] for row in rows])
    p = counts / rows.shape[1]
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


def _rows(maps):
    maps = as_array(maps, "maps", np.float64)
    if maps.ndim < 2 or maps.size == 0 or not np.isfinite(maps).all():
        raise InputError(f"maps: expected finite maps (N, ...), got shape {maps.shape}, or NaN among them")
    return maps.reshape(len(maps), -1)
