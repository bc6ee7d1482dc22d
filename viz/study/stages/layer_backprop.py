"""The gradients of every map of a layer with respect to the pixels, put together."""

import numpy as np

from viz import figures, saliency
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    images = s.test_images[shown]
    conv, relu = list(s.convs.items())[-1]
    names = s.net.layer_names
    pool = names[names.index(relu) + 1]
    from_relu, from_pool = (saliency.layer_backprop(s.net, images, layer) for layer in (relu, pool))
    title = f"What {conv} and {pool} look at"
    figure = figures.sheet(
        figures.interleave(figures.photo(images), figures.heat(from_relu), figures.heat(from_pool)),
        6,
        title,
        "Gradient of each map's sum, largest absolute value over colours and maps.",
        captions=[c for label in s.test_labels[shown] for c in (s.name(label), "", "")],
        heads=2 * ["image", conv, pool],
        group=3,
        scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
    )
    facts = {
        "layer": conv,
        "pool": pool,
        "maps": s.net.shapes[relu][-1],
        "correlation_of_the_two": np.mean([correlation(a, b) for a, b in zip(from_relu, from_pool)]),
    }
    return [Picture("layers", title, figure, facts={"shown": len(shown)})], facts


def correlation(a, b):
    """Pearson's correlation of two arrays; 0 where one is the same everywhere."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0
