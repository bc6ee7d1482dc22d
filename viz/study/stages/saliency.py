"""The gradient of the class scores with respect to the pixels."""

import numpy as np

from viz import figures, saliency
from viz.metrics import localization, statistics
from viz.metrics.correlation import pearson
from viz.metrics.identification import identify
from viz.report.results import Comparison, Picture
from viz.study.stages.layer_backprop import beside, pointing_controls
from viz.study.subject import Study

NAMED = 100  # images that are named from their maps
POINTED = 200  # images on whose objects the maps point, where these are known
UNTRAINED = "untrained network,\nall classes"


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    picked = s.examples_and_more("saliency", NAMED if s.masks is None else POINTED)
    images, n = s.test_images[picked], len(shown)
    predicted = s.net.predict(images)
    targets = {"all classes": None, "the answer": predicted}
    maps = {
        which: {way: saliency.saliency(net, images, target) for way, target in targets.items()}
        for which, net in (("trained", s.net), ("untrained", s.untrained))
    }
    every, one = maps["trained"].values()
    before, few = maps["untrained"]["all classes"], images[:NAMED]
    named = {which: {"saliency": identify(some["all classes"][:NAMED], few)} for which, some in maps.items()}
    facts = {
        "images": len(images),
        "all_classes_with_the_answer": vars(statistics.interval(pearson(every, one))),
        "with_the_untrained": vars(statistics.interval(pearson(every, before))),
        "named": beside(named),
        "candidates": len(few),
        "by_chance": 1 / len(few),
        "pointing_game": None,
    }
    columns = {"image": figures.photo(images[:n])}
    if s.masks is not None:
        masks = s.masks[picked]
        columns["object"] = figures.photo(masks[:n, ..., None].astype(np.float32))
        hits = {w: {way: localization.pointing_game(masks, m) for way, m in some.items()} for w, some in maps.items()}
        facts["pointing_game"] = beside(hits) | pointing_controls(masks, images)
    columns |= {"the answer": figures.heat(one[:n]), "all classes": figures.heat(every[:n])}
    columns[UNTRAINED] = figures.heat(before[:n])
    answers = [
        f"{s.name(t)}" + ("" if t == p else f", taken for {s.name(p)}") for t, p in zip(s.test_labels[shown], predicted)
    ]
    title = "Saliency: which pixels the answer hangs on"
    figure = figures.sheet(
        figures.interleave(*columns.values()),
        len(columns),
        title,
        "Absolute gradient of the scores, largest over the colours.",
        captions=[c for answer in answers for c in [answer] + [""] * (len(columns) - 1)],
        heads=list(columns),
        scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
    )
    heads = [name.replace("\n", " ") for name in columns]
    here = {"shown": n, "layer": s.output, "count": len(s.info.classes), "columns": heads}
    compared = Comparison(answers, dict(zip(heads, columns.values())))
    return [Picture("saliency", title, figure, facts=here, comparison=compared)], facts
