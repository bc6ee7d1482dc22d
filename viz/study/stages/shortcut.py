"""A shortcut was planted: whether the network uses it, by taking it away, and which method's maps find it."""

import numpy as np

from viz import figures
from viz.metrics import statistics
from viz.metrics.controls import CONTROLS
from viz.report.results import COSTS, NOTHING, Comparison, Picture
from viz.study import cards
from viz.study.methods import FEW, place, rows
from viz.study.subject import SHOWN, Study

MOST = 100  # images whose maps are judged
LEAST = 10  # fewer say nothing


def run(s: Study):
    """Return (pictures, facts)."""
    if s.without is None:
        return [], {NOTHING: "no shortcut was planted in these images"}
    betrayed = s.info.classes.index(s.info.betrayed)
    theirs = np.flatnonzero(s.test_labels == betrayed)
    before, after = s.net.predict(s.test_images[theirs]), s.net.predict(s.without[theirs])
    flips = (before == betrayed) & (after != betrayed)
    known = before == betrayed
    facts = {
        "betrayed": s.name(betrayed),
        "images": len(theirs),
        "right_with_it": vars(statistics.share(known * 1.0)),
        "right_without_it": vars(statistics.share((after == betrayed) * 1.0)),
        "answers_that_flip": vars(statistics.share(np.where(known, flips * 1.0, np.nan))),
        "judged": 0,
        "scores": {},
        "has_a_place": s.evidence is not None,
    }
    shown = theirs[np.argsort(~flips, kind="stable")][:SHOWN]
    pictures = [_answers(s, shown, s.name(betrayed))]
    picked = theirs[flips][:MOST]
    if s.evidence is None or len(picked) < LEAST:
        return pictures, facts
    images, evidence = s.test_images[picked], s.evidence[picked]
    target, values, costs = np.full(len(picked), betrayed), {}, {}
    few = slice(min(SHOWN, len(picked)))
    tiles = {"image": figures.photo(images[few]), "evidence": figures.heat(evidence[few] * 1.0)}
    for row in rows(s.net):
        some = slice(FEW if row.slow else None)
        maps, _, costs[row.name] = row.draw(s.net, images[some], target[some])
        values[row.name] = place(maps, evidence[some])
        tiles[row.name] = row.tile(maps[few])
    for name, control in CONTROLS.items():
        values[name] = place(control(s.net, images)[..., 0], evidence)
    facts["judged"] = len(picked)
    facts["by_chance"] = float(evidence.mean())
    facts["scores"] = {m: {k: vars(statistics.interval(v)) for k, v in some.items()} for m, some in values.items()}
    facts[COSTS] = costs
    charts = cards.of_one(values, "of this network whose answer flips", facts["by_chance"], ", on the evidence")
    return [*pictures, _sheet(s, tiles, few.stop), *charts], facts


def _answers(s, shown, betrayed):
    """The images as they are and without the shortcut, each with the network's answer."""
    pairs = [x for i in shown for x in (s.test_images[i], s.without[i])]
    answers = s.net.predict(np.stack(pairs))
    head = f"Without the shortcut: answers to {betrayed}"
    heads = ["as it is", "without"] * (len(shown) // 2) if len(shown) % 2 == 0 else None
    figure = figures.sheet(
        figures.photo(np.stack(pairs)), len(shown), head, "Each image as it is, and without the planted evidence.",
        captions=[s.name(a) for a in answers], heads=heads, group=2,
    )  # fmt: skip
    return Picture("answers", head, figure, facts={"shown": len(shown)})


def _sheet(s, tiles, count):
    head = "Every method on images whose answer the shortcut decides"
    figure = figures.sheet(
        np.concatenate(list(tiles.values())), count, head, "Below each image the evidence that was planted.",
        rows=list(tiles),
    )  # fmt: skip
    names = [f"image {i + 1}" for i in range(count)]
    return Picture("methods", head, figure, facts={"shown": count}, comparison=Comparison(names, tiles))
