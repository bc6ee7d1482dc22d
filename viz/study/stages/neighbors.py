"""The seven nearest images in pixels and in features, and how often they have the query's class."""

import numpy as np

from viz import embedding, figures, neighbors
from viz.metrics import statistics
from viz.report.results import Picture
from viz.study.subject import Study

QUERIES = (223, 955, 6666, 9550, 138, 777, 8888, 2222, 222, 99)  # images of the study's figure
K = 7
ASKED = 1000  # random queries of each kind


def run(s: Study):
    """Return (pictures, facts)."""
    # The study's 13,000: the first 10,000 training images and 3,000 test images, or as many as there are.
    split = min(10_000, len(s.images))
    images = np.concatenate([s.images[:split], s.test_images[:3000]])
    labels = np.concatenate([s.labels[:split], s.test_labels[:3000]])
    M, rng = len(images), s.rng("neighbors")
    spaces = {"pixels": images.reshape(M, -1), "features": embedding.features(s.net, images, s.hidden)}
    groups = {"test": np.arange(split, M), "training": np.arange(split)}
    groups = {k: np.sort(rng.permutation(v)[:ASKED]) for k, v in groups.items()}
    random = list(groups)
    groups["the study's"] = np.array([q % M for q in QUERIES])
    asked, ends = np.concatenate(list(groups.values())), np.cumsum([len(v) for v in groups.values()])
    found, right = {}, {}  # {space: {group: neighbours (Q, K)}}, and which share of them has the query's class
    for space, rows in spaces.items():
        nearest = np.split(neighbors.nearest(rows[asked], rows, K, exclude=asked)[0], ends[:-1])
        found[space] = dict(zip(groups, nearest))
        right[space] = {k: neighbors.precision_at_k(v, labels[groups[k]], labels) for k, v in found[space].items()}
    shares = {space: {k: statistics.interval(right[space][k]) for k in random} for space in spaces}
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    facts = {
        "layer": s.hidden,
        "images_searched": M,
        "queries": {k: len(groups[k]) for k in random},
        "share_of_the_7_nearest": {space: {k: vars(i) for k, i in some.items()} for space, some in shares.items()},
        "features_less_pixels": {
            k: vars(statistics.interval(right["features"][k] - right["pixels"][k])) for k in random
        },
        "by_chance": (sizes[which] - 1).mean() / (M - 1),
    }
    pictures = [_rows(s, space, images, labels, groups["the study's"], found[space]["the study's"]) for space in spaces]
    title = "Do the nearest images have the same class?"
    chart = figures.intervals(
        {f"{space}, {k}": shares[space][k] for space in spaces for k in random},
        title,
        "Mean share of the 7 nearest with the query's class, 95 % intervals.",
        "share of the 7 nearest with the query's class",
        (facts["by_chance"], "chance"),
    )
    return [*pictures, Picture("shares", title, chart)], facts


def _rows(s, space, images, labels, queries, nearest):
    """The study's ten queries, each with its neighbours in one space."""
    order = np.column_stack([queries, nearest]).ravel()
    hits = (labels[nearest] == labels[queries][:, None]).sum()
    title = f"Nearest neighbours in {space if space == 'pixels' else f'features ({s.hidden})'}"
    figure = figures.sheet(
        figures.photo(images[order]),
        K + 1,
        title,
        f"Orange: another class. {hits} of these {nearest.size} share their query's class.",
        captions=[s.name(labels[i]) for i in order],
        rows=[str(q) for q in queries],
        heads=["query", *(str(i) for i in range(1, K + 1))],
        frames=[None if labels[i] == labels[q] else figures.WRONG for i, q in zip(order, queries.repeat(K + 1))],
        gap=10,
    )
    facts = {"space": space, "hits": hits, "shown": nearest.size}
    return Picture(space, title, figure, words="rows", facts=facts, group="Nearest neighbours", tab=space)
