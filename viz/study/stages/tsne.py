"""t-SNE of the last hidden layer: a scatter by class and a mosaic, for all classes and for three."""

import numpy as np

from viz import embedding, figures
from viz.metrics.statistics import accuracy_interval, interval
from viz.report import results
from viz.report.results import Picture, Points
from viz.study.subject import Study

POINTS = 900  # images, at most
PERPLEXITY = 30
K = 10  # nearest marks that vote
LEAST = 5  # images: of fewer there is nothing to see
SUBSET = (0, 2, 7)  # the study's second t-SNE: airplane, car and monkey on STL-10
VEHICLES = {"airplane", "automobile", "car", "ship", "truck"}
ANIMALS = {"bird", "cat", "deer", "dog", "frog", "horse", "monkey"}
CONTROL = "untrained"
BOUNDS = ("mean", "low", "high")


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts, scores = [], {}, {}
    every, rng = np.arange(len(s.info.classes)), s.rng("tsne")
    taken = np.zeros(len(s.test_labels), bool)  # by the first embedding, so that the second one shares images with it
    for key, chosen in (("all", every), ("three", every[np.isin(every, SUBSET)])):
        of_classes = np.flatnonzero(np.isin(s.test_labels, chosen))
        drawn = rng.permutation(of_classes)
        picked = np.sort(drawn[np.argsort(~taken[drawn], kind="stable")][:POINTS])
        name = f"{key} classes"
        facts[name] = {"images": len(picked), "classes": [s.name(c) for c in chosen]}
        if len(picked) < LEAST or len(chosen) < 2:
            facts |= {} if pictures else {results.NOTHING: f"t-SNE takes {LEAST} test images, there are {len(picked)}"}
            continue
        taken[picked] = True
        labels, perplexity = s.test_labels[picked], min(PERPLEXITY, max(2, (len(picked) - 1) // 3))
        features = {
            which: embedding.features(net, s.test_images[picked], s.hidden)
            for which, net in (("trained", s.net), (CONTROL, s.untrained))
        }
        if any((some == some[0]).all() for some in features.values()):
            facts |= {} if pictures else {results.NOTHING: f"{s.hidden} answers all test images alike"}
            continue
        points = {k: embedding.tsne(some, seed=s.seed, perplexity=perplexity) for k, some in features.items()}
        found, right = _judge(points, labels, rng)
        near = min(12, (len(picked) - 1) // 2)
        facts[name] |= found | {
            "trustworthiness": embedding.trustworthiness(features["trained"], points["trained"], near)
        }
        scores[key] = {which: dict(zip(picked, _score(v, found["by_chance"]))) for which, v in right.items()}
        if key == "all" and (groups := _vehicles(s.info.classes)) is not None:
            facts["vehicles and animals"] = {"images": len(picked)} | _judge(points, groups[labels], rng)[0]
        if len(scores) == 2:
            facts["three_less_all"] = _three_less_all(scores)
        more = {"kinds": facts.get("vehicles and animals") if key == "all" else None}
        more["less_all"] = facts.get("three_less_all")
        here = facts[name] | more | {"layer": s.hidden, "features": features["trained"].shape[1]}
        here |= {"nearest": min(K, len(picked) - 1), "perplexity": perplexity}
        pictures += _draw(s, key, chosen, picked, points, here)
    return pictures, facts


def _judge(points, labels, rng):
    """How often the nearest marks guess a label, of {which: points}; and for which images, {which: (N,)}."""
    k = min(K, len(labels) - 1)
    right = {which: embedding.knn_right(p, labels, k) for which, p in points.items()}
    accuracy = {which: vars(accuracy_interval(int(v.sum()), len(v))) for which, v in right.items()}
    chance = embedding.knn_chance(points["trained"], labels, rng, k)
    return {
        "accuracy_of_10_nearest": accuracy["trained"],
        CONTROL: accuracy[CONTROL],
        "trained_less_untrained": vars(interval(right["trained"].astype(float) - right[CONTROL])),
        "by_chance": chance,
        "score": {k: _score(v, chance) if k in BOUNDS else v for k, v in accuracy["trained"].items()},
        "score_untrained": {k: _score(v, chance) if k in BOUNDS else v for k, v in accuracy[CONTROL].items()},
    }, right


def _score(right, chance):
    """Accuracy as a share of what is above chance: 0 by chance, 1 where all are right."""
    return (right - chance) / (1 - chance) if chance < 1 else right * np.nan


def _three_less_all(scores):
    """The score among three classes less that among all, over the images that both embeddings hold."""
    both = sorted(set(scores["all"]["trained"]) & set(scores["three"]["trained"]))
    less = {
        which: vars(interval([scores["three"][which][i] - scores["all"][which][i] for i in both]))
        for which in ("trained", CONTROL)
    }
    return {"images": len(both), "score": less["trained"], CONTROL: less[CONTROL]}


def _vehicles(classes):
    """For each class whether it is a vehicle (1) or an animal (0), where all are one or the other; else None."""
    vehicle = np.array([c in VEHICLES for c in classes], np.int64)
    known = set(classes) <= VEHICLES | ANIMALS and 0 < vehicle.sum() < len(classes)
    return vehicle if known else None


def _draw(s, key, chosen, picked, points, facts):
    images, labels, place = s.test_images[picked], s.test_labels[picked], points["trained"]
    what = "all classes" if key == "all" else ", ".join(s.name(c) for c in chosen)
    title = f"t-SNE of {s.hidden}: {what}"
    plot = figures.scatter(
        place,
        labels,
        {c: s.name(c) for c in chosen},
        title,
        f"{len(picked)} test images; near means alike to the network.",
        (points[CONTROL], "the same network untrained"),
    )
    said = [f"{s.name(c)}, test image {i}" for c, i in zip(labels, picked)]
    behind = Points(figures.places(plot, place), said, figures.photo(images))
    grid = int(np.sqrt(len(picked)))
    mosaic, _ = embedding.mosaic(images, place, grid, "nearest")
    about = "Each cell of the square takes the image nearest to it in the plane."
    poster = figures.poster(figures.photo(mosaic[None])[0], f"Mosaic by t-SNE: {what}", about)
    return [
        Picture(f"{key}-scatter", title, plot, words="scatter", facts=facts, points=behind),
        Picture(f"{key}-mosaic", f"Mosaic by t-SNE: {what}", poster, words="mosaic", facts=facts | {"grid": grid}),
    ]
