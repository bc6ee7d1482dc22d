"""The gradient of the class scores with respect to the pixels."""

import numpy as np

from viz import figures, saliency
from viz.report.results import Comparison, Picture
from viz.study.stages.layer_backprop import correlation
from viz.study.subject import Study

SCORED = 500  # images whose maps are held against the object's mask


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    images = s.test_images[shown]
    predicted = s.net.predict(images)
    every = saliency.saliency(s.net, images)
    one = saliency.saliency(s.net, images, target=predicted)
    columns = {"image": figures.photo(images), "all classes": figures.heat(every), "the answer": figures.heat(one)}
    facts = {"all_classes_with_the_answer": np.mean([correlation(a, b) for a, b in zip(every, one)]), "masks": None}
    if s.masks is not None:
        mask = figures.photo(s.masks[shown][..., None].astype(np.float32))
        columns = {"image": columns.pop("image"), "object": mask, **columns}
        facts["masks"] = _against_the_masks(s)
    answers = [
        f"{s.name(t)}" + ("" if t == p else f", taken for {s.name(p)}") for t, p in zip(s.test_labels[shown], predicted)
    ]
    blocks, title = 2 if len(columns) == 3 else 1, "Saliency: which pixels the answer hangs on"
    figure = figures.sheet(
        figures.interleave(*columns.values()),
        blocks * len(columns),
        title,
        "Absolute gradient of the scores, largest over the colours.",
        captions=[c for answer in answers for c in [answer] + [""] * (len(columns) - 1)],
        heads=blocks * list(columns),
        group=len(columns),
        scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
    )
    here = {"shown": len(shown), "layer": s.output, "count": len(s.info.classes), "columns": list(columns)}
    return [Picture("saliency", title, figure, facts=here, comparison=Comparison(answers, columns))], facts


def _against_the_masks(s):
    """How well each way finds the object."""
    masks, images = s.masks[:SCORED], s.test_images[:SCORED]
    answer = s.net.predict(images)
    ways = {
        "gradient, all classes": (None, "gradient"),
        "gradient, the answer": (answer, "gradient"),
        "guided, the answer": (answer, "guided"),
        "deconvnet, the answer": (answer, "deconvnet"),
    }
    maps = {name: saliency.saliency(s.net, images, target=t, rule=rule) for name, (t, rule) in ways.items()}
    by_chance = {"pointing_game_hit_rate": masks.mean(), "mass_inside_the_object": masks.mean()}
    return {
        "images": len(images),
        "scores": {name: score(m, masks) for name, m in maps.items()} | {"by chance": by_chance},
    }


def score(maps, masks):
    """The pointing game (Zhang et al. 2016) and the share of the saliency that lies on the object."""
    N = len(maps)
    hits = masks.reshape(N, -1)[np.arange(N), maps.reshape(N, -1).argmax(1)]
    inside = (maps * masks).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-30)
    return {"pointing_game_hit_rate": hits.mean(), "mass_inside_the_object": inside.mean()}
