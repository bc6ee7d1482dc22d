"""The seven nearest images in pixels and in features, and what they share with the query: class, background, pose."""

import numpy as np
from scipy.spatial.distance import cdist

from tinycnn import files
from viz import embedding, figures, neighbors
from viz.metrics.statistics import accuracy_interval, interval
from viz.report.results import Picture
from viz.study.subject import Study

QUERIES = (223, 955, 6666, 9550, 138, 777, 8888, 2222, 222, 99)  # images of the study's figure
K = 7
ASKED = 1000  # random queries of each kind
CONTROL = "untrained features"
FLAT = 0.02  # of the range of a colour: where borders differ less, they all look the same, and no picture is drawn
GROUP = "What else do the nearest share?"


def run(s: Study):
    """Return (pictures, facts)."""
    # The study's 13,000: the first 10,000 training images and 3,000 test images, or as many as there are.
    split = min(10_000, len(s.images))
    images = np.concatenate([s.images[:split], s.test_images[:3000]])
    labels = np.concatenate([s.labels[:split], s.test_labels[:3000]])
    M, rng = len(images), s.rng("neighbors")
    groups = {"test": np.arange(split, M), "training": np.arange(split)}
    groups = {k: np.sort(rng.permutation(v)[:ASKED]) for k, v in groups.items()}
    random, test = list(groups), groups["test"]
    groups["the study's"] = np.array(list(dict.fromkeys(q % M for q in QUERIES)))
    k = min(K, M - 1)
    asked, ends = np.concatenate(list(groups.values())), np.cumsum([len(v) for v in groups.values()])
    borders = neighbors.border_colors(images) / 255
    found, right, apart, mirrored = {}, {}, {}, {}  # {space: {group: neighbours}, {group: shares}, (Q,), (Q,)}
    for space, embed in _spaces(s).items():
        rows = embed(images)
        nearest, distances = neighbors.nearest(rows[asked], rows, k, exclude=asked)
        found[space] = dict(zip(groups, np.split(nearest, ends[:-1])))
        right[space] = {k: neighbors.precision_at_k(v, labels[groups[k]], labels) for k, v in found[space].items()}
        apart[space] = np.linalg.norm(borders[found[space]["test"]] - borders[test][:, None], axis=2).mean(1)
        mirrored[space] = neighbors.joins(rows[test], embed(images[test][:, :, ::-1]), distances[: len(test)])
    apart["chance"] = cdist(borders[test], borders).sum(1) / (M - 1)
    shares = {space: {k: interval(some[k]) for k in random} for space, some in right.items()}
    less = {a: {k: interval(right["features"][k] - right[a][k]) for k in random} for a in ("pixels", CONTROL)}
    background = {space: interval(v) for space, v in apart.items()}
    less["background"] = {a: interval(apart["pixels"] - apart[a]) for a in ("features", CONTROL, "chance")}
    mirror = {space: accuracy_interval(int(hit.sum()), len(hit)) for space, hit in mirrored.items()}
    more = {a: interval(mirrored["features"].astype(float) - mirrored[a]) for a in ("pixels", CONTROL)}
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    facts = {
        "layer": s.hidden,
        "images_searched": M,
        "nearest": k,
        "queries": {k: len(groups[k]) for k in random},
        "share_of_the_7_nearest": {space: {k: vars(i) for k, i in some.items()} for space, some in shares.items()},
        "features_less_pixels": {k: vars(i) for k, i in less["pixels"].items()},
        "features_less_untrained": {k: vars(i) for k, i in less[CONTROL].items()},
        "by_chance": (sizes[which] - 1).mean() / (M - 1),
        "background": {
            **{space: vars(background[space]) for space in found},
            "by_chance": vars(background["chance"]),
            "alike": background["chance"].mean <= FLAT,
            "pixels_less_features": vars(less["background"]["features"]),
            "pixels_less_untrained": vars(less["background"][CONTROL]),
            "pixels_less_chance": vars(less["background"]["chance"]),
        },
        "mirrored": {
            **{space: vars(i) for space, i in mirror.items()},
            "by_chance": k / M,
            "features_less_pixels": vars(more["pixels"]),
            "features_less_untrained": vars(more[CONTROL]),
        },
    }
    pictures = [_rows(s, space, images, labels, groups["the study's"], found[space]["the study's"]) for space in found]
    return [*pictures, *_charts(facts, shares, less, background, mirror, more)], facts


def _spaces(s):
    """What an image is looked up by: {name: function (N, H, W, C) -> (N, D)}."""
    return {
        "pixels": lambda images: images.reshape(len(images), -1),
        "features": lambda images: embedding.features(s.net, images, s.hidden),
        CONTROL: lambda images: embedding.features(s.untrained, images, s.hidden),
    }


def _charts(facts, shares, less, background, mirror, more):
    """What the nearest share with their query, in numbers."""
    n = f"{facts['queries']['test']:,} test images"
    chance, mirror_chance = (f"By chance: {100 * some['by_chance']:.1f} %." for some in (facts, facts["mirrored"]))
    title = "Do the nearest images have the same class?"
    chart = figures.intervals(
        {f"{space}, {k}": shares[space][k] for k in facts["queries"] for space in shares},
        title,
        f"Mean share of the {facts['nearest']} nearest with the query's class, 95 % intervals over queries. {chance}",
        f"of the {facts['nearest']} nearest, per cent",
        cut=True,
        percent=True,
        differences={f"features \N{MINUS SIGN} {space}, test": less[space]["test"] for space in ("pixels", CONTROL)},
    )
    pictures = [Picture("shares", title, chart)]
    if not facts["background"]["alike"]:
        title = "Do the nearest images have the same background?"
        chart = figures.intervals(
            background,
            title,
            f"Distance of the mean colour of the border, the outer eighth, to that of the nearest; {n}.",
            "distance of colours in [0, 1]",
            differences={f"pixels \N{MINUS SIGN} {space}": i for space, i in less["background"].items()},
        )
        pictures.append(Picture("background", title, chart, group=GROUP, tab="background"))
    title = f"Is its own mirror image among the {facts['nearest']} nearest?"
    chart = figures.intervals(
        mirror,
        title,
        f"Share of {n} for which it would be, were it among those searched. {mirror_chance}",
        "of the queries, per cent",
        percent=True,
        differences={f"features \N{MINUS SIGN} {space}": i for space, i in more.items()},
    )
    return [*pictures, Picture("mirror", title, chart, group=GROUP, tab="mirror image")]


def _rows(s, space, images, labels, queries, nearest):
    """The study's ten queries, each with its neighbours in one space."""
    order = np.column_stack([queries, nearest]).ravel()
    hits = (labels[nearest] == labels[queries][:, None]).sum()
    title = f"Nearest neighbours in {space if space == 'pixels' else f'{space} ({s.hidden})'}"
    figure = figures.sheet(
        figures.photo(images[order]),
        1 + len(nearest[0]),
        title,
        f"Orange: another class. {hits} of these {nearest.size} share their query's class.",
        captions=[s.name(labels[i]) for i in order],
        rows=[str(q) for q in queries],
        heads=["query", *(str(i) for i in range(1, 1 + len(nearest[0])))],
        frames=[
            None if labels[i] == labels[q] else figures.WRONG
            for i, q in zip(order, queries.repeat(1 + len(nearest[0])))
        ],
        gap=10,
    )
    facts = {"space": space, "hits": hits, "shown": nearest.size, "rows": len(queries)}
    name = files.slug(space)
    return Picture(name, title, figure, words="rows", facts=facts, group="Nearest neighbours", tab=space)
