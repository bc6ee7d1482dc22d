"""t-SNE is reproducible, its scores are their formulas, and mosaics put each image where they say."""

from itertools import permutations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tinycnn import InputError, models
from viz import embedding
from viz.space.embedding import knn_accuracy, knn_chance, knn_right, mosaic, trustworthiness, tsne


@pytest.fixture(scope="module")
def clusters():
    """Three clusters in 12 dimensions, far apart: (N, D) features and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    return 20 * np.eye(12)[labels] + rng.normal(size=(120, 12)), labels


@pytest.fixture(scope="module")
def placed(clusters):
    return tsne(clusters[0], seed=1, perplexity=15)


def test_tsne_keeps_far_clusters_apart(clusters, placed):
    assert placed.shape == (120, 2)
    assert knn_accuracy(placed, clusters[1], k=10) == 1
    assert trustworthiness(clusters[0], placed, k=10) > 0.85
    shuffled = np.random.default_rng(1).permutation(placed)
    assert trustworthiness(clusters[0], shuffled, k=10) < 0.6


@pytest.mark.parametrize("threads", [1, 2])
def test_tsne_gives_the_same_bytes_for_any_number_of_threads(clusters, placed, threads):
    with threadpool_limits(threads):
        assert tsne(clusters[0], seed=1, perplexity=15).tobytes() == placed.tobytes()


def test_trustworthiness_is_venna_and_kaskis_formula():
    rng = np.random.default_rng(2)
    high, low, N, k = rng.normal(size=(20, 5)), rng.normal(size=(20, 2)), 20, 4
    penalty = 0
    for i in range(N):
        others = [j for j in range(N) if j != i]
        by_high = sorted(others, key=lambda j: np.linalg.norm(high[i] - high[j]))
        by_low = sorted(others, key=lambda j: np.linalg.norm(low[i] - low[j]))
        for j in by_low[:k]:
            penalty += max(0, by_high.index(j) + 1 - k)
    assert trustworthiness(high, low, k) == pytest.approx(1 - 2 / (N * k * (2 * N - 3 * k - 1)) * penalty)


def test_knn_accuracy_is_the_majority_of_the_nearest_others():
    rng = np.random.default_rng(3)
    points, labels = rng.normal(size=(40, 2)), rng.choice([2, 5, 9], 40)
    right = []
    for i in range(40):
        others = sorted((j for j in range(40) if j != i), key=lambda j: np.linalg.norm(points[i] - points[j]))
        votes = [int((labels[others[:4]] == c).sum()) for c in (2, 5, 9)]
        right.append(labels[i] == (2, 5, 9)[votes.index(max(votes))])
    assert knn_right(points, labels, k=4).tolist() == right
    assert knn_accuracy(points, labels, k=4) == sum(right) / 40


def test_knn_chance_is_the_mean_over_all_orders_of_the_labels():
    points, labels = np.random.default_rng(4).normal(size=(6, 2)), [3, 3, 3, 3, 8, 8]
    every = np.mean([knn_accuracy(points, list(order), k=3) for order in set(permutations(labels))])
    assert knn_chance(points, labels, np.random.default_rng(5), k=3, times=4000) == pytest.approx(every, abs=0.015)


def test_features_are_the_flattened_activations():
    net = models.build("mnist", backend="reference")
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    assert (embedding.features(net, images, "relu3") == net.forward(images)["relu3"]).all()
    assert (embedding.features(net, images, "pool2") == net.forward(images)["flatten"]).all()


def numbered(N, shape=(2, 3, 1)):
    """Images that are all of one value: their own number."""
    return np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, *shape)).copy()


def test_the_picture_shows_in_each_cell_the_image_that_the_indices_name():
    images, points = numbered(30), np.random.default_rng(4).normal(size=(30, 2))
    for method in ("sorted", "nearest"):
        picture, indices = mosaic(images, points, grid=4, method=method)
        assert picture.shape == (8, 12, 1) and picture.dtype == np.uint8
        assert (picture[:, :, 0] == np.kron(indices, np.ones((2, 3)))).all()


def test_sorted_puts_images_in_the_order_of_x_plus_y():
    points = np.random.default_rng(5).normal(size=(9, 2))
    _, indices = mosaic(numbered(9), points, grid=3, method="sorted")
    sums = points.sum(1)[indices.ravel()]
    assert (np.diff(sums) > 0).all() and sorted(indices.ravel()) == list(range(9))


def test_sorted_spreads_over_all_images_where_there_are_more_and_leaves_cells_black_where_there_are_fewer():
    points = np.stack([np.arange(25), np.zeros(25)], 1)
    _, indices = mosaic(numbered(25), points, grid=3, method="sorted")
    assert indices.ravel().tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    picture, indices = mosaic(255 - numbered(5), points[:5], grid=3, method="sorted")
    assert indices.ravel().tolist() == [0, 1, 2, 3, 4, -1, -1, -1, -1]
    assert (picture[4:] == 0).all()


def test_nearest_gives_each_cell_its_image_where_there_is_one_per_cell():
    """One image at each cell's centre, y up: the top row of the mosaic has the largest y."""
    x, y = np.meshgrid(np.arange(3), np.arange(3)[::-1])
    order = np.random.default_rng(6).permutation(9)
    points = np.stack([x.ravel(), y.ravel()], 1)[order]
    _, indices = mosaic(numbered(9), points, grid=3, method="nearest")
    assert (order[indices.ravel()] == np.arange(9)).all()


def test_nearest_serves_the_closest_pairs_first_and_each_image_once():
    points = np.random.default_rng(7).uniform(-1, 1, (40, 2))
    _, indices = mosaic(numbered(40), points, grid=5, method="nearest")
    low, high = points.min(0), points.max(0)
    side = (high - low).max()
    corner = (low + high) / 2 - side / 2
    free_cells, free_images = {(r, c) for r in range(5) for c in range(5)}, set(range(40))
    while free_cells:  # the definition, by looking at all pairs each time
        distance, cell, image = min(
            (np.hypot(*(corner + side / 5 * np.array([c + 0.5, 4 - r + 0.5]) - points[i])), (r, c), i)
            for r, c in free_cells
            for i in free_images
        )
        assert indices[cell] == image, distance
        free_cells.remove(cell)
        free_images.remove(image)


def test_nearest_repeats_images_only_where_there_are_too_few():
    _, indices = mosaic(numbered(2), np.array([[0.0, 0.0], [1.0, 1.0]]), grid=4, method="nearest")
    assert set(indices.ravel()) == {0, 1}
    assert indices[3, 0] == 0 and indices[0, 3] == 1  # lower left and upper right
    _, indices = mosaic(numbered(16), np.zeros((16, 2)), grid=4, method="nearest")  # all at one place
    assert sorted(indices.ravel()) == list(range(16))


def test_float_images_are_shown_in_full_range():
    picture, _ = mosaic(np.array([0, 0.5, 1, 2.0]).reshape(4, 1, 1, 1), np.eye(4)[:, :2], 2)
    assert sorted(picture.ravel()) == [0, 128, 255, 255]


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: tsne(np.zeros((10, 3)), perplexity=3), "equal"),
        (lambda: tsne(np.eye(10), perplexity=10), "perplexity"),
        (lambda: tsne(np.full((10, 3), np.nan)), "features"),
        (lambda: tsne(np.zeros(10)), "features"),
        (lambda: trustworthiness(np.eye(10), np.eye(9)), "points"),
        (lambda: trustworthiness(np.eye(10), np.eye(10), k=5), "k: "),
        (lambda: knn_accuracy(np.eye(4), [0, 1, 0, 1], k=4), "k: "),
        (lambda: knn_accuracy(np.eye(4), [0, 1, 0], k=2), "labels"),
        (lambda: mosaic(numbered(4), np.zeros((3, 2))), "points"),
        (lambda: mosaic(numbered(4), np.zeros((4, 3))), "points"),
        (lambda: mosaic(numbered(4), np.zeros((4, 2)), grid=0), "grid"),
        (lambda: mosaic(numbered(4), np.zeros((4, 2)), method="best"), "method 'best'.*sorted, nearest"),
        (lambda: mosaic(numbered(4)[0], np.zeros((4, 2))), "images"),
        (lambda: embedding.features(models.build("mnist"), numbered(4), "relu3"), "28, 28, 1"),
        (
            lambda: embedding.features(models.build("mnist"), np.zeros((1, 28, 28, 1), np.uint8), "fc9"),
            "layer 'fc9'",
        ),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(InputError, match=named):
        call()
