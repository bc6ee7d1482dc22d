"""The strongest map of each image, projected back to the pixels by a deconvnet, and what each image has of its own."""

import numpy as np
from scipy import ndimage

from tinycnn import files
from viz import activations, deconvnet, figures
from viz.metrics import statistics
from viz.metrics.identification import identify
from viz.report.results import Links, Picture
from viz.study.subject import Study

NAMED = 200  # images that are named from projections
NEAR = 2  # pixels from an object's border that count as at it


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts = [], {}
    shown = s.examples()
    picked = s.examples_and_more("maximal_activation_maps", NAMED)
    for i, (conv, relu) in enumerate(s.convs.items()):
        both = {"trained": s.net, "untrained": s.untrained}
        back = {which: deconvnet.project(net, s.test_images[picked], relu) for which, net in both.items()}
        hits = {which: identify(projection, s.test_images[picked]) for which, (projection, _) in back.items()}
        facts[conv] = {
            "strongest_maps_of_the_images_shown": back["trained"][1][: len(shown)],
            "named": {which: vars(statistics.share(h)) for which, h in hits.items()}
            | {"difference": vars(statistics.interval(hits["trained"] - hits["untrained"]))},
            "at_the_border": None,
        }
        if s.masks is not None:
            ratios = {w: at_the_border(p, s.test_images[picked], s.masks[picked]) for w, (p, _) in back.items()}
            ratios["difference"] = ratios["trained"] - ratios["untrained"]
            facts[conv]["at_the_border"] = {which: vars(statistics.interval(v)) for which, v in ratios.items()}
        first = {which: (projection[: len(shown)], m[: len(shown)]) for which, (projection, m) in back.items()}
        pictures.append(_picture(s, i, conv, relu, picked, first, facts[conv]))
    return pictures, {**facts, "images": len(picked)}


def at_the_border(projection, images, masks):
    """Return how much stronger a projection is at the object's border than at edges elsewhere in the image, (N,).

    The mean of its largest absolute value over the colours within `NEAR` pixels of the mask's border, over its mean
    elsewhere where the image's `edges` are stronger than in their mean. NaN where one of the two is nowhere, or nothing
    is drawn at the other edges.
    """
    strength, there, found = np.abs(projection).max(-1).astype(np.float64), deconvnet.edges(images), []
    for drawn, edge, mask in zip(strength, there, masks):
        inner = ndimage.binary_erosion(mask, iterations=NEAR, border_value=1)
        border = ndimage.binary_dilation(mask, iterations=NEAR) & ~inner
        other = ~border & (edge > edge.mean())
        elsewhere = drawn[other].mean() if other.any() else 0.0
        found.append(drawn[border].mean() / elsewhere if elsewhere > 0 and border.any() else np.nan)
    return np.array(found)


def distinctive(sums):
    """Return for each image the map that it has most of compared with others, from the maps' sums (N, C), (N,).

    The largest sum over the map's mean sum over the images; of the half of the maps with the larger means, as nearly
    dead maps have a large share of little.
    """
    means = sums.mean(0)
    alive = (means >= np.median(means)) & (means > 0)
    return np.where(alive, sums / np.where(alive, means, 1), -1).argmax(1)


def _picture(s, i, conv, relu, picked, back, found):
    """The images shown, their strongest maps in the pixels, and their most distinctive ones."""
    images = s.test_images[picked]
    own = distinctive(activations.sums(s.net, images, relu))
    n = len(back["trained"][0])
    images, own = images[:n], own[:n]
    (switches, strongest), (untrained, others) = back["trained"], back["untrained"]
    repeat, _ = deconvnet.project(s.net, images, relu, units=strongest, unpool="repeat")
    pooled = not np.array_equal(repeat, switches)  # if not, no pool lies below: there is nothing to undo
    maps = activations.maps(s.net, images, relu)
    shape = images.shape[1]
    strong, mine = (figures.enlarge(maps[np.arange(n), :, :, m], shape) for m in (strongest, own))
    by_switches = "back in the\npixels" if not pooled else "back:\nswitches"
    columns = {
        "image": figures.photo(images),
        "its strongest\nmap": figures.heat(strong),
        **({"back:\nrepetition": figures.signed(repeat)} if pooled else {}),
        by_switches: figures.signed(switches),
        "untrained\nnetwork's": figures.signed(untrained),
        "its own\nmap": figures.heat(mine),
        f"{by_switches} ": figures.signed(deconvnet.project(s.net, images, relu, units=own)[0]),
    }
    names = [s.name(label) for label in s.test_labels[picked[:n]]]
    captions = [
        c
        for name, a, b, m in zip(names, strongest, others, own)
        for c in (name, f"map {a}", *([""] if pooled else []), "", f"map {b}", f"map {m}", "")
    ]
    title = f"The strongest map of {conv} in the pixels"
    figure = figures.sheet(
        figures.interleave(*columns.values()),
        len(columns),
        title,
        "Deconvnet projections; each tile has its own scale. Its own map: the one it has most of compared with others.",
        captions=captions,
        heads=list(columns),
    )
    views = []
    for test, a, b, m in zip(picked, strongest, others, own):
        its, mine = ({"layer": relu, "unit": unit, "test": test} for unit in (a, m))
        views += [None, its, *([its | {"unpool": "repeat"}] if pooled else []), its]
        views += [its | {"unit": b, "trained": 0}, mine, mine]
    facts = {**found, "layer": conv, "pooled": pooled, "strongest": strongest, "zero": s.zero}
    facts |= {"different": len(set(strongest.tolist())), "own": own, "untrained": others}
    return Picture(
        files.indexed(i, conv),
        title,
        figure,
        words="strongest",
        facts=facts,
        group="The strongest map of each convolution",
        tab=conv,
        links=Links(figure.tiles, views),
    )
