"""The nearest neighbours are those of the slow computation, whatever the data, the chunks and the threads."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinycnn import InputError
from viz import neighbors
from viz.space.neighbors import border_colors, joins, nearest, precision_at_k


def brute_force(queries, database, k, exclude=None):
    """One query and one row at a time, exact integers or float64."""
    queries, database = (np.asarray(a).reshape(len(a), -1) for a in (queries, database))
    wide = np.int64 if queries.dtype.kind == database.dtype.kind == "u" else np.float64
    indices, distances = [], []
    for q, query in enumerate(queries):
        rows = [
            (((query.astype(wide) - row.astype(wide)) ** 2).sum(), m)
            for m, row in enumerate(database)
            if exclude is None or m != exclude[q]
        ]
        rows.sort()  # by distance, then by row
        indices.append([m for _, m in rows[:k]])
        distances.append([np.sqrt(float(d)) for d, _ in rows[:k]])
    return np.array(indices), np.array(distances)


def check(queries, database, k, exclude=None):
    indices, distances = nearest(queries, database, k, exclude)
    expected = brute_force(queries, database, k, exclude)
    assert (indices == expected[0]).all()
    np.testing.assert_allclose(distances, expected[1], rtol=1e-12)  # float64 both, another order of sums
    return indices, distances


def test_images_in_uint8_have_exact_neighbours_with_ties_by_the_lower_row():
    rng = np.random.default_rng(0)
    database = rng.integers(0, 256, (60, 6, 5, 3), np.uint8)
    database[40] = database[3]  # the same image twice
    database[10], database[20] = database[5], database[5]
    database[10, 0, 0, 0] ^= 1  # at the same distance from 5 as ...
    database[20, 3, 2, 1] ^= 1  # ... this one
    queries = np.concatenate([database[[3, 5]], rng.integers(0, 256, (9, 6, 5, 3), np.uint8)])
    indices, distances = check(queries, database, 7)
    assert list(indices[0, :2]) == [3, 40] and list(distances[0, :2]) == [0, 0]
    assert list(indices[1, :3]) == [5, 10, 20]


def test_many_ties_among_few_values_are_all_broken_by_row():
    rng = np.random.default_rng(1)
    check(rng.integers(0, 2, (20, 4), np.uint8), rng.integers(0, 2, (80, 4), np.uint8), 30)


def test_large_images_differ_by_single_units_and_are_still_told_apart():
    """Sums of 30,000 products reach 5e8, where a float32 knows multiples of 32 only."""
    rng = np.random.default_rng(6)
    queries, steps = rng.integers(1, 9, (9, 30001), np.uint8), rng.permutation(40)
    database = np.repeat(queries[:1], 40, 0)
    for row, n in zip(database, steps):
        row[np.arange(n) * 71] += 1  # n squared units away from the first query
    indices, _ = check(queries, database, 20)
    assert (steps[indices[0]] == np.arange(20)).all()
    check(np.array([0, 255], np.uint8).repeat(30001).reshape(2, 30001), database, 5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("offset, scale", [(0, 1), (1e4, 1e-2), (-3e5, 1), (0, 1e-30), (0, 1e15)])
def test_features_far_from_zero_or_of_any_scale_have_exact_neighbours(dtype, offset, scale):
    """At offset 1e4 the squares are 1e8 times the distances: |q|^2 + |d|^2 - 2 q.d alone would be noise."""
    rng = np.random.default_rng(2)
    make = lambda n: (offset + scale * rng.normal(size=(n, 40))).astype(dtype)  # noqa: E731
    check(make(12), make(90), 5)


def test_one_far_outlier_does_not_blur_the_others():
    rng = np.random.default_rng(3)
    database = rng.normal(size=(50, 8))
    database[17] *= 1e12
    check(rng.normal(size=(10, 8)), database, 6)


def test_the_query_itself_is_excluded_where_asked():
    rng = np.random.default_rng(4)
    database = rng.normal(size=(30, 5))
    exclude = np.array([4, -1, 9])
    indices, _ = check(database[[4, 5, 9]], database, 29, exclude)
    assert 4 not in indices[0] and indices[1, 0] == 5 and 9 not in indices[2]


def test_all_rows_equal_come_in_order():
    indices, distances = nearest(np.zeros((2, 3)), np.zeros((9, 3)), 4, exclude=np.array([1, 0]))
    assert indices.tolist() == [[0, 2, 3, 4], [1, 2, 3, 4]] and (distances == 0).all()


@pytest.mark.parametrize("kind", ["floats", "bytes"])
def test_chunks_and_threads_change_no_byte(monkeypatch, kind):
    rng = np.random.default_rng(5)
    queries, database = (rng.normal(50, 1, size=(n, 300)).astype(np.float32) for n in (40, 200))
    if kind == "bytes":
        queries, database = (np.round(a).astype(np.uint8) for a in (queries, database))
    expected = nearest(queries, database, 9)
    with threadpool_limits(1):
        single = nearest(queries, database, 9)
    monkeypatch.setattr(neighbors, "FLOATS_PER_CHUNK", 700)  # 2 rows at a time
    monkeypatch.setattr(neighbors, "EXACT_COLUMNS", 128)
    chunked = nearest(queries, database, 9)
    for other in (single, chunked):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(expected, other))


def test_precision_is_the_share_of_neighbours_of_the_same_class():
    shares = precision_at_k(np.array([[0, 1, 2, 3], [4, 3, 2, 0]]), [7, 1], np.array([7, 7, 1, 7, 2]))
    assert shares.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"queries": np.zeros((2, 4))}, "same|one layer"),
        ({"queries": np.full((2, 3), np.nan)}, "queries: NaN"),
        ({"database": np.full((5, 3), np.inf)}, "database: NaN or infinite"),
        ({"database": np.zeros((0, 3))}, "database"),
        ({"queries": np.zeros(3)}, "queries"),
        ({"k": 6}, "k: .* 1 to 5"),
        ({"k": 5, "exclude": np.array([0, 1])}, "k: .* 1 to 4"),
        ({"k": 0}, "k: "),
        ({"k": 2.0}, "k: "),
        ({"exclude": np.array([0])}, "exclude"),
        ({"exclude": np.array([0, 5])}, "exclude"),
        ({"exclude": np.array([0.0, 1.0])}, "exclude"),
    ],
)
def test_bad_arguments_of_nearest_are_named(change, named):
    arguments = {"queries": np.zeros((2, 3)), "database": np.zeros((5, 3)), "k": 2, **change}
    with pytest.raises(InputError, match=named):
        nearest(**arguments)


@pytest.mark.parametrize(
    "indices, query_labels, database_labels, named",
    [
        (np.zeros((2, 3)), [0, 1], [0, 1], "indices"),
        (np.zeros((2, 3), int), [0], [0, 1], "query_labels"),
        (np.full((2, 3), 2), [0, 1], [0, 1], "indices"),
        (np.zeros((2, 3), int), [0, 1], [0.5, 1], "database_labels"),
    ],
)
def test_bad_arguments_of_precision_are_named(indices, query_labels, database_labels, named):
    with pytest.raises(InputError, match=named):
        precision_at_k(indices, query_labels, database_labels)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_row_joins_the_nearest_where_adding_it_to_the_database_says_so(kind):
    rng = np.random.default_rng(8)
    database = rng.integers(0, 4, (60, 5)).astype(kind)  # few values: many ties
    queries, others = database[:20], rng.integers(0, 4, (20, 5)).astype(kind)
    exclude = np.arange(20)
    found = joins(queries, others, nearest(queries, database, 7, exclude)[1])
    for q in range(20):
        indices, _ = brute_force(queries[q : q + 1], np.concatenate([database, others[q : q + 1]]), 7, [q])
        assert found[q] == (60 in indices[0])
    assert 0 < found.sum() < 20


def test_border_colors_are_means_over_the_outer_pixels():
    images = np.random.default_rng(9).integers(0, 256, (3, 16, 24, 3), np.uint8)
    found = border_colors(images)
    for n in range(3):
        for c in range(3):
            ring = [int(images[n, y, x, c]) for y in range(16) for x in range(24) if not (2 <= y < 14 and 3 <= x < 21)]
            assert found[n, c] == pytest.approx(sum(ring) / len(ring), rel=1e-12)


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: joins(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 7))), "queries, others, distances"),
        (lambda: joins(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((3, 7))), "queries, others, distances"),
        (lambda: joins(np.zeros((2, 3)), np.full((2, 3), np.nan), np.zeros((2, 7))), "others: NaN"),
        (lambda: border_colors(np.zeros((4, 8, 8))), "images"),
        (lambda: border_colors(np.zeros((4, 8, 8, 1)), part=2), "part"),
    ],
)
def test_bad_arguments_of_joins_and_border_colors_are_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
