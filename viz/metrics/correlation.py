"""How alike maps are: Pearson's and Spearman's correlation, and structural similarity."""

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

from tinycnn.errors import InputError, as_array

SIGMA, RADIUS = 1.5, 5  # the window of `ssim`: Gaussian, 11 x 11


def pearson(a, b):
    """Return Pearson's correlation of each of `a` (N, ...) with its partner in `b` (N, ...), over all places, (N,).

    Between -1 and 1; NaN, undefined, where one of the two is the same everywhere.

    Raises
    ------
    InputError
        Shapes that differ, or nothing to correlate over.
    """
    a, b = _pairs(a, b)
    return (standardized(a) * standardized(b)).sum(1)


def spearman(a, b):
    """Return Spearman's correlation of each of `a` with its partner in `b`, (N,): `pearson` of the ranks.

    Values that are equal share the mean of their ranks (Spearman 1904). NaN and errors as for `pearson`.
    """
    a, b = _pairs(a, b)
    if np.isnan(a).any() or np.isnan(b).any():
        raise InputError("a, b: they hold NaN, which has no rank")
    return pearson(*(rankdata(rows.reshape(len(rows), -1), axis=1) for rows in (a, b)))


def ssim(a, b):
    """Return the structural similarity of maps `a` and `b` (N, H, W) with values in [0, 1], (N,).

    Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13, with the paper's window and constants: K1 = 0.01, K2 = 0.03,
    range 1. The mean is over the places where the window lies within the map.

    Raises
    ------
    InputError
        Shapes that differ, maps smaller than the window of 11 x 11, or values outside of [0, 1].
    """
    a, b = _pairs(a, b)
    if a.ndim != 3 or min(a.shape[1:]) <= 2 * RADIUS or not a.size:
        raise InputError(f"a, b: expected maps (N, H, W) of at least 11 x 11, got {a.shape}")
    if not all(((0 <= maps) & (maps <= 1)).all() for maps in (a, b)):
        raise InputError("a, b: expected values in [0, 1]; divide each map by its largest")
    mean_a, mean_b = _window(a), _window(b)
    var = _window(a * a) - mean_a**2 + _window(b * b) - mean_b**2
    cov = _window(a * b) - mean_a * mean_b
    C1, C2 = 0.01**2, 0.03**2
    found = (2 * mean_a * mean_b + C1) * (2 * cov + C2) / ((mean_a**2 + mean_b**2 + C1) * (var + C2))
    return found[:, RADIUS:-RADIUS, RADIUS:-RADIUS].mean((1, 2))


def standardized(maps):
    """Return maps (N, ...) as rows (N, P), float64, of mean 0 and length 1; NaN where a map is the same everywhere.

    The product of two such rows is Pearson's correlation.
    """
    rows = np.asarray(maps, np.float64).reshape(len(maps), -1)
    same = (rows == rows[:, :1]).all(1, keepdims=True)
    rows = rows - rows.mean(1, keepdims=True)
    size = np.sqrt((rows * rows).sum(1, keepdims=True))
    return rows / np.where(same | (size == 0), np.nan, size)


def _window(maps):
    return ndimage.gaussian_filter(maps, (0, SIGMA, SIGMA), radius=(0, RADIUS, RADIUS))


def _pairs(a, b):
    a, b = as_array(a, "a", np.float64), as_array(b, "b", np.float64)
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(f"a, b: expected two arrays of one shape (N, ...), got {a.shape} and {b.shape}")
    return a, b
