"""The gradient of the class scores with respect to the pixels."""

import numpy as np

from viz import figures, saliency
from viz.metrics import localization, statistics
from viz.metrics.correlation import pearson
from viz.metrics.identification import identify
from viz.report.results import Comparison, Picture
from viz.study.stages.layer_backprop import pointing_controls
from viz.study.subject import Study

SCORED = 200  # images whose maps are to name them, and are held against the object's mask
UNTRAINED = "untrained network,\nall classes"


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    rest = np.setdiff1d(s.rng("saliency").permutation(len(s.test_images)), shown, assume_unique=True)
    picked = np.concatenate([shown, rest])[:SCORED]
    images, n = s.test_images[picked], len(shown)
    predicted = s.net.predict(images)
    maps = {  # {way: {which network: maps}}
        way: {
            "trained": saliency.saliency(s.net, images, None if way == "all classes" else predicted),
            "untrained": saliency.saliency(s.untrained, images, None if way == "all classes" else predicted),
        }
        for way in ("all classes", "the answer")
    }
    every, one = (maps[way]["trained"] for way in maps)
    facts = {
        "images": len(images),
        "all_classes_with_the_answer": vars(statistics.interval(pearson(every, one))),
        "with_the_untrained": vars(statistics.interval(pearson(every, maps["all classes"]["untrained"]))),
        "named": {"saliency": {w: vars(statistics.share(identify(m, images))) for w, m in maps["all classes"].items()}},
        "by_chance": 1 / len(images),
        "pointing_game": None,
    }
    columns = {"image": figures.photo(images[:n])}
    if s.masks is not None:
        masks = s.masks[picked]
        columns["object"] = figures.photo(masks[:n, ..., None].astype(np.float32))
        hits = {way: {w: localization.pointing_game(masks, m) for w, m in some.items()} for way, some in maps.items()}
        facts["pointing_game"] = {
            **{way: {w: vars(statistics.share(h)) for w, h in some.items()} for way, some in hits.items()},
            **pointing_controls(masks, images),
            "the_answer_less_chance": vars(
                statistics.interval(hits["the answer"]["trained"] - masks.mean((1, 2), dtype=float))
            ),
        }
    columns |= {"all classes": figures.heat(every[:n]), "the answer": figures.heat(one[:n])}
    columns[UNTRAINED] = figures.heat(maps["all classes"]["untrained"][:n])
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
