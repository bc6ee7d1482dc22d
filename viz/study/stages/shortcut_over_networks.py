"""Which methods find a planted shortcut, over networks; and networks of the same seeds that never saw one."""

import numpy as np

from tinycnn import InputError, Network, data
from viz import figures
from viz.metrics import statistics
from viz.report.results import NOTHING, Picture
from viz.study import cards, claims
from viz.study.methods import PLACE

PLAIN = "shapes"  # the set without a shortcut, whose networks lie beside these


def run(networks):
    """Return (pictures, facts) of `viz.study.networks.Networks`."""
    found = {seed: m["stages"]["shortcut"] for seed, m in networks.metrics.items()}
    if none := [f[NOTHING] for f in found.values() if NOTHING in f]:
        return [], {NOTHING: none[0]}
    flips = claims.values(networks.metrics, "stages", "shortcut", "answers_that_flip")
    plain = _plain(networks)
    judged = {seed: f["scores"] for seed, f in found.items() if f["scores"]}
    whole = len(judged) == len(found)
    scores, apart = (cards.over(judged), cards.differences(judged)) if whole else ({}, {})
    facts = {
        "networks": len(found),
        "betrayed": next(iter(found.values()))["betrayed"],
        "compared_with": cards.TO,
        "has_a_place": next(iter(found.values()))["has_a_place"],
        "answers_that_flip": vars(statistics.over_networks(flips)) | {"values": flips},
        "that_never_saw_it": vars(statistics.over_networks(plain)) | {"values": plain} if plain else None,
        "find_it": [m for m in scores if whole and _finds(judged, m)],
        "scores": scores,
        "difference_to_the_gradient": apart,
    }
    rows = {"trained with it": facts["answers_that_flip"], "never saw it": facts["that_never_saw_it"]}
    rows = {name: row for name, row in rows.items() if row}
    title = "Answers that flip without the shortcut"
    chart = figures.intervals(
        {name: cards.interval(row) for name, row in rows.items()},
        title, f"Of {facts['betrayed']}, over networks; a dot for each, 95 % intervals.",
        "of the images answered rightly, per cent",
        dots={name: list(row["values"].values()) for name, row in rows.items()}, percent=True,
    )  # fmt: skip
    return [Picture("flips", title, chart), *cards.charts(judged, scores, apart)] if whole else [
        Picture("flips", title, chart)
    ], facts


def _finds(judged, method):
    """Whether a method's maps lie on the evidence more than any map of no network, for certain, by every metric."""
    if method in cards.CONTROLS or len(judged) < cards.LEAST:
        return False
    return all(cards.beats(judged, method, metric) for metric in PLACE)


def _plain(networks):
    """{seed: the share of right answers that flip} of the networks beside these that never saw the shortcut."""
    name, found = networks.info.name, {}
    label = networks.info.classes.index(networks.info.betrayed)
    images, labels = data.load(name, "test")
    theirs = labels == label
    without = data.counterfactual(name)[theirs]
    for seed, folder in networks.folders.items():
        path = folder.parent.parent / PLAIN / folder.name / "weights.safetensors"
        if not path.is_file():
            continue
        try:
            net = Network.load(path)
        except InputError as e:
            print(f"{path}: not compared: {e}")
            continue
        right = net.predict(images[theirs]) == label
        if right.any():
            found[seed] = float(np.mean(net.predict(without[right]) != label))
    return found
