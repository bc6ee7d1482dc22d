"""Nearest neighbours by Euclidean distance, in pixels or in features: exact, in bounded memory.

A matrix product gives every distance at once, |q|^2 + |d|^2 - 2 q.d, with a rounding error that has a proven bound; the
rows that the bound cannot rule out, and only these, are measured again as |q - d|^2. Of bytes the product is taken in
float32, in blocks so short that it is exact. So the answer is that of the slow computation, whatever the BLAS library
or its number of threads.
"""

import os

import numpy as np
from threadpoolctl import threadpool_limits

from tinycnn.errors import InputError, as_array, check_labels, is_number, is_whole, shown

FLOATS_PER_CHUNK = 2**22  # 32 MiB of float64
EXACT_COLUMNS = 1024  # of bytes minus 128: a sum of so many products is a whole number of at most 2^24


def nearest(queries, database, k, exclude=None):
    """Find the `k` rows of `database` nearest to each query.

    Parameters
    ----------
    queries : array (Q, ...)
    database : array (M, ...)
        Images (uint8 or float) or features; everything but the first axis is flattened, and must be of the
        same size in both. Values are taken as they are: scale both alike.
    k : int
    exclude : int array (Q,), optional
        For each query a row of `database` that must not be found, such as the query itself; -1 for none.

    Returns
    -------
    indices : int64 array (Q, k)
        Nearest first; among equal distances the lower row first.
    distances : float64 array (Q, k)

    Raises
    ------
    InputError
        Sizes that do not match, NaN or infinite values, `k` larger than the rows to choose from, `exclude`
        out of range.
    """
    queries, database = _rows(queries, "queries"), _rows(database, "database")
    Q, M, D = len(queries), len(database), database.shape[1]
    if queries.shape[1] != D:
        raise InputError(f"queries have {queries.shape[1]} values each, but the database {D}; take both from one layer")
    exclude = np.full(Q, -1) if exclude is None else as_array(exclude, "exclude")
    if exclude.shape != (Q,) or exclude.dtype.kind not in "iu" or (exclude < -1).any() or (exclude >= M).any():
        raise InputError(f"exclude: expected {Q} row numbers of the database (0 to {M - 1}, or -1 for none)")
    room = M - bool((exclude >= 0).any())
    if not (is_number(k) and 1 <= k <= room):
        raise InputError(f"k: expected a whole number from 1 to {room} (rows to choose from), got {shown(k)}")

    exact = queries.dtype == database.dtype == np.uint8
    if not exact:
        center = sum(database[some].sum(0, dtype=np.float64) for some in _chunks(M, D)) / M  # (D,)
    indices, distances = np.empty((Q, k), np.int64), np.empty((Q, k))
    for some in _chunks(Q, M if exact else max(D, M)):
        with threadpool_limits(os.cpu_count(), user_api="blas"):  # neither the bounds nor what is exact depends on it
            if exact:
                low = high = _squared_bytes(queries[some], database)  # (q, M)
            else:
                low, high = _squared_bounds(queries[some], database, center)
        for q, skip in enumerate(exclude[some]):
            if skip >= 0:
                low[q, skip] = high[q, skip] = np.inf
            candidates = np.flatnonzero(low[q] <= np.partition(high[q], k - 1)[k - 1])
            squares = _squares(queries[some][q], database, candidates)
            nearest_k = np.argsort(squares, kind="stable")[:k]  # stable: ties go to the lower row
            indices[some.start + q] = candidates[nearest_k]
            distances[some.start + q] = np.sqrt(squares[nearest_k])
    return indices, distances


def precision_at_k(indices, query_labels, database_labels):
    """Return the share (Q,) of each query's neighbours `indices` (Q, k) that have its label.

    Raises InputError where shapes or row numbers do not match.
    """
    indices = as_array(indices, "indices")
    if indices.ndim != 2 or indices.dtype.kind not in "iu" or indices.size == 0:
        raise InputError(f"indices: expected integers (Q, k), got shape {indices.shape} of {indices.dtype}")
    largest = np.iinfo(np.int64).max
    query_labels = check_labels(query_labels, len(indices), largest, "query_labels")
    database_labels = as_array(database_labels, "database_labels")
    database_labels = check_labels(database_labels, database_labels.size, largest, "database_labels")
    if indices.min() < 0 or indices.max() >= len(database_labels):
        raise InputError(
            f"indices: rows {indices.min()} to {indices.max()}, but database_labels has {len(database_labels)}"
        )
    return (database_labels[indices] == query_labels[:, None]).mean(1)


def joins(queries, others, distances):
    """Return for which queries (Q,) their row of `others` would be among the nearest, were it in the database.

    Parameters
    ----------
    queries, others : arrays (Q, ...)
        As for `nearest`; row i of `others` (the mirror image of query i, say) is held against query i alone.
    distances : array (Q, k)
        Of each query's k nearest, as `nearest` returns them. Of equal distances the database's row comes first.

    Raises
    ------
    InputError
        Sizes that do not match, NaN or infinite values.
    """
    queries, others, distances = _rows(queries, "queries"), _rows(others, "others"), _rows(distances, "distances")
    if queries.shape != others.shape or len(distances) != len(queries):
        raise InputError(
            f"queries, others, distances: expected one row each for a query, got {queries.shape}, {others.shape} and "
            f"{distances.shape}"
        )
    own = [_squares(query, other[None], [0])[0] for query, other in zip(queries, others)]
    return np.sqrt(own) < distances[:, -1]


def border_colors(images, part=8):
    """Return the mean colour (N, C), float64, of the outer 1 / `part` of each image, on all four sides.

    Parameters
    ----------
    images : array (N, H, W, C)
    part : int
        The ring is H // part pixels high and W // part wide, at least one. What it holds is mostly background where
        objects stand in the middle.

    Raises
    ------
    InputError
        Not images, or a `part` below 3: nothing would be left inside.
    """
    images = as_array(images, "images")
    if images.ndim != 4 or images.size == 0 or images.dtype.kind not in "uif":
        raise InputError(f"images: expected numbers (N, H, W, C), got {images.dtype} of shape {images.shape}")
    if not is_whole(part, 3):
        raise InputError(f"part: must be a whole number of 3 or more, got {shown(part)}")
    N, H, W, C = images.shape
    h, w = max(1, H // part), max(1, W // part)
    inside, total = images[:, h : H - h, w : W - w], np.empty((N, C))
    for some in _chunks(N, H * W * C):
        total[some] = images[some].sum((1, 2), dtype=np.float64) - inside[some].sum((1, 2), dtype=np.float64)
    return total / (H * W - inside.shape[1] * inside.shape[2])


def _rows(a, what):
    a = as_array(a, what)
    if a.ndim < 2 or a.size == 0 or a.dtype.kind not in "uif":
        raise InputError(f"{what}: expected numbers of shape (rows, ...), got {a.dtype} of shape {a.shape}")
    a = a.reshape(len(a), -1)
    if a.dtype.kind == "f":
        for some in _chunks(*a.shape):
            if not np.isfinite(a[some]).all():
                raise InputError(f"{what}: NaN or infinite values between rows {some.start} and {some.stop - 1}")
    return a


def _chunks(rows, per_row):
    size = max(1, FLOATS_PER_CHUNK // per_row)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _squared_bounds(queries, database, center):
    """Bounds (q, M) between which the squared distances lie; small, as `center` (D,) is subtracted first.

    A dot product of D terms, summed in any order: |error| <= g sum_i |q_i d_i| <= g (|q|^2 + |d|^2) / 2 with
    g about (D + 2) eps (Higham 2002, section 3.1), and the squared norms alike; 4 g covers all of them.
    """
    D = database.shape[1]
    g = 4 * (D + 8) * np.finfo(np.float64).eps
    q = queries - center
    q_square = np.einsum("qd,qd->q", q, q)[:, None]
    low, high = np.empty((2, len(q), len(database)))
    for some in _chunks(len(database), D):
        d = database[some] - center
        both = q_square + np.einsum("md,md->m", d, d)
        square = both - 2 * (q @ d.T)
        slack = g * both + 1e-300 * D  # the constant covers underflow
        low[:, some], high[:, some] = square - slack, square + slack
    return low, high


def _squared_bytes(queries, database):
    """Squared distances (q, M) of uint8 rows, exact: every sum is of whole numbers that float32 or float64 holds."""
    M, D = database.shape
    q_square, d_square, dots = np.zeros(len(queries)), np.zeros(M), np.zeros((len(queries), M))
    for start in range(0, D, EXACT_COLUMNS):
        columns = slice(start, start + EXACT_COLUMNS)
        q = np.subtract(queries[:, columns], 128, dtype=np.float32)
        q_square += np.einsum("qd,qd->q", q, q)
        for some in _chunks(M, EXACT_COLUMNS):
            d = np.subtract(database[some, columns], 128, dtype=np.float32)
            d_square[some] += np.einsum("md,md->m", d, d)
            dots[:, some] += q @ d.T
    dots *= -2
    dots += q_square[:, None]
    dots += d_square
    return dots


def _squares(query, database, rows):
    """Squared distances in float64; each is a sum over one row, in an order that depends on nothing else."""
    squares = np.empty(len(rows))
    for some in _chunks(len(rows), len(query)):
        difference = database[rows[some]].astype(np.float64)
        difference -= query
        squares[some] = np.square(difference, out=difference).sum(1)
    return squares
