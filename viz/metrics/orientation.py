"""How much of a filter is an oriented edge or bar."""

from functools import cache

import numpy as np

from tinycnn.errors import InputError, as_array

ANGLES = np.arange(0, 180, 15)  # degrees


def oriented(filters):
    """Return how well the best oriented edge or bar explains each filter, (K,).

    An edge or bar is a wave of one orientation, frequency and phase under a window (a Gabor function: Jones and Palmer
    1987, doi:10.1152/jn.1987.58.6.1233), in one colour or several. Over a grid of 12 orientations, up to 4 frequencies
    (half a wave to two waves a filter, at more than 2 pixels a wave) and 3 windows (none, a Gaussian of a half and of a
    quarter of the width) the wave's two phases and a constant are fitted to each colour by least squares. R^2 = 1 - sum
    of squared residuals / sum of squares around the colours' means; the largest of the grid counts.

    Parameters
    ----------
    filters : array (K, kh, kw, C)
        See `activations.filters`.

    Returns
    -------
    float64 array (K,)
        In [0, 1]; NaN, undefined, for a filter that is the same everywhere, and for filters of fewer than 9 pixels, of
        which the fit explains all. Of noise it is far more than 0, the more, the smaller the filters: hold it against
        filters of noise of the same size.

    Raises
    ------
    InputError
        Another number of dimensions.
    """
    filters = as_array(filters, "filters", np.float64)
    if filters.ndim != 4 or filters.size == 0:
        raise InputError(f"filters: expected shape (K, kh, kw, C), got {filters.shape}")
    K, kh, kw, C = filters.shape
    if kh * kw < 9:
        return np.full(K, np.nan)
    w = filters - filters.mean((1, 2), keepdims=True)
    w = w.transpose(1, 2, 0, 3).reshape(kh * kw, K * C)
    explained = (_waves(kh, kw).transpose(0, 2, 1) @ w) ** 2  # (grid, 2, K C)
    explained = explained.sum(1).reshape(-1, K, C).sum(2).max(0)
    total = (w * w).reshape(-1, K, C).sum((0, 2))
    same = (filters == filters[:, :1, :1]).all((1, 2, 3))
    return explained / np.where(same, np.nan, total)


@cache
def _waves(kh, kw):
    """Orthonormal bases (grid, kh kw, 2) of the waves of all phases, each less its mean: a constant is fitted, too."""
    y, x = np.mgrid[:kh, :kw]
    y, x, size = y - (kh - 1) / 2, x - (kw - 1) / 2, max(kh, kw)
    bases = []
    for angle in np.deg2rad(ANGLES):
        along = x * np.cos(angle) + y * np.sin(angle)
        for waves in (v for v in (0.5, 1, 1.5, 2) if 2 * v < size):
            phase = 2 * np.pi * waves / size * along
            for width in (np.inf, size / 2, size / 4):
                window = np.exp(-(x**2 + y**2) / (2 * width**2))
                pair = np.stack([np.cos(phase) * window, np.sin(phase) * window]).reshape(2, -1)
                basis, size_of, _ = np.linalg.svd((pair - pair.mean(1, keepdims=True)).T, full_matrices=False)
                bases.append(basis * (size_of > 1e-6))  # a wave across a single row of pixels is none
    return np.stack(bases)
