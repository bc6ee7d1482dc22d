"""Pearson's correlation of maps with maps."""

import numpy as np

from tinycnn.errors import InputError, as_array


def pearson(a, b):
    """Return Pearson's correlation of each of `a` (N, ...) with its partner in `b` (N, ...), over all places, (N,).

    Between -1 and 1; NaN, undefined, where one of the two is the same everywhere.

    Raises
    ------
    InputError
        Shapes that differ, or nothing to correlate over.
    """
    a, b = as_array(a, "a"), as_array(b, "b")
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(f"a, b: expected two arrays of one shape (N, ...), got {a.shape} and {b.shape}")
    return (standardized(a) * standardized(b)).sum(1)


def standardized(maps):
    """Return maps (N, ...) as rows (N, P), float64, of mean 0 and length 1; NaN where a map is the same everywhere.

    The product of two such rows is Pearson's correlation.
    """
    rows = np.asarray(maps, np.float64).reshape(len(maps), -1)
    same = (rows == rows[:, :1]).all(1, keepdims=True)
    rows = rows - rows.mean(1, keepdims=True)
    size = np.sqrt((rows * rows).sum(1, keepdims=True))
    return rows / np.where(same | (size == 0), np.nan, size)
