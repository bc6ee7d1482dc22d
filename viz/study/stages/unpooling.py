"""Three ways to undo a max-pool on the way back, and how well each follows the edges of the image."""

import numpy as np

from viz import deconvnet, figures
from viz.metrics import statistics
from viz.report.results import Comparison, Picture
from viz.study.subject import Study

COMPARED = 200  # images over which ways to unpool are compared
WAYS = {"switches": "switches", "repeat": "repetition", "center": "window centre"}


def run(s: Study):
    """Return (pictures, facts)."""
    conv, relu = list(s.convs.items())[-1]
    shown, picked = s.examples(), s.rng("unpooling").permutation(len(s.test_images))[:COMPARED]
    images, many = s.test_images[shown], s.test_images[np.sort(picked)]
    drawn, numbers, scores = [], [], {}
    for way, name in WAYS.items():
        projection, strongest = deconvnet.project(s.net, images, relu, unpool=way)
        drawn.append(figures.signed(projection))
        numbers.append(deconvnet.edge_correlation(projection, images))
        scores[name] = deconvnet.edge_correlation(deconvnet.project(s.net, many, relu, unpool=way)[0], many)
    means = {name: statistics.interval(score) for name, score in scores.items()}
    names = [s.name(label) for label in s.test_labels[shown]]
    columns = [figures.photo(images), figures.heat(deconvnet.edges(images)), *drawn]
    heads = ["image", "edges", *WAYS.values()]
    title, chart = f"Ways to undo a max-pool: {conv} back in the pixels", f"Which way follows the edges? {conv}"
    facts = {
        "images": len(many),
        "layer": conv,
        "correlation_with_the_edges": {name: vars(m) for name, m in means.items()},
        "switches_less_repetition": vars(statistics.interval(scores["switches"] - scores["repetition"])),
    }
    sheet = figures.sheet(
        figures.interleave(*columns),
        len(columns),
        title,
        "Number: correlation of the projection's strength with the image's edges.",
        captions=[c for name, r in zip(names, np.transpose(numbers)) for c in (name, "", *(f"{v:.2f}" for v in r))],
        heads=heads,
    )
    label = "correlation with the image's edges"
    compared = Comparison(names, dict(zip(heads, columns)))
    return [
        Picture("unpooling", title, sheet, facts={"maps": strongest, "zero": s.zero}, comparison=compared),
        Picture("edges", chart, figures.intervals(means, chart, f"Mean of {len(many)} images, 95 % intervals.", label)),
    ], facts
