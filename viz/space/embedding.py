"""Embeddings: a layer's features of many images laid out in the plane, and mosaics of the images by place.

t-SNE (van der Maaten and Hinton 2008) places points so that those near in feature space stay near;
distances between far groups mean little. Two numbers say how well it did: the trustworthiness of the
neighbourhoods (Venna and Kaski 2001) and the accuracy of nearest-neighbour classification in the plane.
"""

import numpy as np
from sklearn.manifold import TSNE
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tinycnn import streams
from tinycnn.errors import InputError, as_array, check_labels, choose, is_number, shown

from .. import check


def features(net, images, layer):
    """Return the activations of `layer` for each image, flattened: (N, D).

    The study takes the last hidden layer after its ReLU: relu4, relu3 for MNIST. Raises InputError for an
    unknown layer or unfit images.
    """
    images = check.images_for(net, images, "images")
    return check.features(net, images, net.check_layer(layer)).reshape(len(images), -1)


def tsne(features, seed=0, perplexity=30):
    """Place features (N, D) in the plane by t-SNE.

    Parameters
    ----------
    features : array (N, D)
    seed : int
        Matters little: the layout starts from the first two principal components, not at random.
    perplexity : float
        About the number of neighbours that count; below N.

    Returns
    -------
    array (N, 2)
        The same for the same seed whatever the number of threads: it runs on one, for sums of an order of
        their own.

    Raises
    ------
    InputError
        Not a finite matrix, a perplexity that is not below N, or all rows equal.
    """
    features = _matrix(features, "features")
    if not (is_number(perplexity, whole=False) and 0 < perplexity < len(features)):
        raise InputError(
            f"perplexity: must lie between 0 and the number of rows {len(features)}, got {shown(perplexity)}"
        )
    if (features == features[0]).all():
        raise InputError("features: all rows are equal; there is nothing to place (is the layer dead?)")
    with threadpool_limits(1):
        method = TSNE(
            2,
            perplexity=perplexity,
            init="pca",
            learning_rate="auto",
            random_state=int(streams.rng(seed, "t-SNE").integers(2**32)),
            n_jobs=1,
        )
        return method.fit_transform(features)


def trustworthiness(features, points, k=12):
    """Return how far the `k` neighbours in the plane are neighbours in feature space too: 0 to 1.

    1 - 2 / (N k (2 N - 3 k - 1)) sum_i sum_{j in U_k(i)} (r(i, j) - k), U_k(i) being those of the k nearest
    points of i in the plane that are not among its k nearest in feature space, where j has rank r(i, j).
    Takes N^2 memory. Raises InputError for matrices that do not match, or k not below N / 2.
    """
    features, points = _matrix(features, "features"), _matrix(points, "points", len(features))
    if not (is_number(k) and 1 <= k < len(features) / 2):
        raise InputError(f"k: must be at least 1 and below half the number of rows {len(features)}, got {shown(k)}")
    with threadpool_limits(1):
        return float(sklearn_trustworthiness(features, points, n_neighbors=k))


def knn_accuracy(points, labels, k=10):
    """Return the share of points whose label is the most frequent one among their `k` nearest others.

    Ties go to the smaller label. Raises InputError for labels that do not match, or k not below the number of
    points.
    """
    return float(knn_right(points, labels, k).mean())


def knn_right(points, labels, k=10):
    """Return for which points (N,) the most frequent label among their `k` nearest others is their own.

    As for `knn_accuracy`, which is its mean.
    """
    return _votes(*_neighborhoods(points, labels, k))


def knn_chance(points, labels, rng, k=10, times=100):
    """Return what `knn_accuracy` is where labels have nothing to do with places: its mean over shuffled labels.

    Parameters
    ----------
    points, labels, k
        As for `knn_accuracy`.
    rng : numpy.random.Generator
    times : int
        How often the labels are shuffled.
    """
    neighbors, labels = _neighborhoods(points, labels, k)
    return float(np.mean([_votes(neighbors, rng.permutation(labels)).mean() for _ in range(times)]))


def _neighborhoods(points, labels, k):
    """The `k` nearest others of each point, (N, k), and the labels as 0 to classes - 1."""
    points = _matrix(points, "points")
    labels = check_labels(labels, len(points), np.iinfo(np.int64).max)
    if not (is_number(k) and 1 <= k < len(points)):
        raise InputError(f"k: must be at least 1 and below the number of points {len(points)}, got {shown(k)}")
    with threadpool_limits(1):
        neighbors = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)
    return neighbors, np.unique(labels, return_inverse=True)[1]


def _votes(neighbors, labels):
    """Whether the most frequent label among each point's neighbours is its own, (N,)."""
    votes = (labels[neighbors][:, :, None] == np.arange(labels.max() + 1)).sum(1)  # (N, classes)
    return votes.argmax(1) == labels


def mosaic(images, points, grid=30, method="sorted"):
    """Lay images out in a square of `grid` x `grid` cells, by their points in the plane.

    Parameters
    ----------
    images : array (N, H, W, C)
        uint8, or float in [0, 1].
    points : array (N, 2)
        x to the right, y up, as in a scatter plot.
    grid : int
    method : {"sorted", "nearest"}
        "sorted" is the study's: images in the order of x + y, row after row; with more images than cells,
        evenly spaced ones of that order; with fewer, cells stay empty. "nearest" is that of Karpathy's "CNN
        codes": the square that spans the points is cut into cells and each takes the image nearest to its
        centre. The closest pair of cell and image is served first, and an image serves once; with fewer
        images than cells it may serve again, so that no cell stays empty.

    Returns
    -------
    picture : uint8 array (grid * H, grid * W, C)
        Empty cells are black.
    indices : int64 array (grid, grid)
        Which image stands in each cell; -1 in empty ones.

    Raises
    ------
    InputError
        Arrays that do not match, `grid` below 1, an unknown method.
    """
    images = as_array(images, "images")
    if images.ndim != 4 or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise InputError(f"images: expected uint8 or float (N, H, W, C), got {images.dtype} of {images.shape}")
    points = _matrix(points, "points", len(images))
    if points.shape[1] != 2:
        raise InputError(f"points: expected shape (N, 2), got {points.shape}")
    if not (is_number(grid) and 1 <= grid <= 1000):
        raise InputError(f"grid: expected a whole number from 1 to 1000, got {shown(grid)}")
    place = {"sorted": _sorted_cells, "nearest": _nearest_cells}[choose(method, ("sorted", "nearest"), "method")]
    indices = place(points.astype(np.float64), grid)
    _, H, W, C = images.shape
    picture = np.zeros((grid, H, grid, W, C), np.uint8)
    for row, column in np.argwhere(indices >= 0):
        picture[row, :, column] = _as_uint8(images[indices[row, column]])
    return picture.reshape(grid * H, grid * W, C), indices


def _matrix(a, what, rows=None):
    a = as_array(a, what)
    if a.ndim != 2 or a.size == 0 or a.dtype.kind not in "uif" or not np.isfinite(a).all():
        raise InputError(f"{what}: expected finite numbers of shape (N, D), got {a.dtype} of shape {a.shape}")
    if rows is not None and len(a) != rows:
        raise InputError(f"{what}: expected {rows} rows, one for each image, got {len(a)}")
    return a


def _as_uint8(image):
    return image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _sorted_cells(points, grid):
    order = np.argsort(points.sum(1), kind="stable")
    cells = np.full(grid * grid, -1)
    if len(order) > len(cells):
        order = order[np.linspace(0, len(order) - 1, len(cells)).round().astype(int)]
    cells[: len(order)] = order
    return cells.reshape(grid, grid)


def _nearest_cells(points, grid):
    low, high = points.min(0), points.max(0)
    size = (high - low).max() / grid
    offset = (low + high) / 2 - size * grid / 2  # the square's lower left corner
    along = (np.arange(grid) + 0.5) * size
    centers = np.stack([np.tile(along + offset[0], grid), np.repeat((along + offset[1])[::-1], grid)], 1)
    squares = ((centers[:, None] - points) ** 2).sum(2)  # (cells, N), cells row after row from the top
    if len(points) < grid * grid:
        return squares.argmin(1).reshape(grid, grid)
    cells = np.full(grid * grid, -1)
    used = np.zeros(len(points), bool)
    for pair in np.argsort(squares, axis=None, kind="stable"):
        cell, image = divmod(int(pair), len(points))
        if cells[cell] < 0 and not used[image]:
            cells[cell], used[image] = image, True
    return cells.reshape(grid, grid)
