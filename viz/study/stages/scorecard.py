"""Which method's maps to believe: all of them on the same images, by every metric, beside maps of no network."""

import numpy as np

from viz import figures
from viz.metrics import complexity, randomization, robustness, statistics
from viz.metrics.controls import CONTROLS
from viz.report.results import COSTS, NOTHING, Comparison, Picture
from viz.study import cards
from viz.study.methods import COPIES, FEW, PLACE, STEPS, STILL, order, place, rows
from viz.study.subject import Study

POINTED = 500  # images by which maps are judged whose objects are known
SMALLEST = 11  # pixels: of an image that has an SSIM
UNTRAINED = ("pointing game", "average precision")  # of maps of the network as it started, too


def run(s: Study):
    """Return (pictures, facts)."""
    if min(s.net.input_shape[:2]) < SMALLEST:
        return [], {NOTHING: f"maps are compared by SSIM, which takes {SMALLEST} x {SMALLEST} pixels at least"}
    shown, picked = s.examples(), s.examples_and_more("scorecard", FEW if s.masks is None else POINTED)
    images, masks = s.test_images[picked], None if s.masks is None else s.masks[picked]
    target = s.net.predict(images)
    falls = robustness.score_falls(s.net, images[:FEW], target[:FEW], seed=s.seed)
    values, cascade, costs, tiles = {}, {}, {}, {"image": figures.photo(images[: len(shown)])}
    for row in (every := rows(s.net)):
        some = slice(FEW if row.slow else None)
        maps, raw, costs[row.name] = row.draw(s.net, images[some], target[some])
        values[row.name] = place(maps, None if masks is None else masks[some])
        if not row.slow:
            values[row.name] |= order(s.net, images, maps, target)
            values[row.name] |= _untrained(s, row, images[:FEW], masks, target[:FEW], values[row.name])
            tests, cascade[row.name] = _tests(s, row, images[:FEW], raw[:FEW], target[:FEW], falls)
            values[row.name] |= tests
        tiles[row.name] = row.tile(maps[: len(shown)])
    for name, control in CONTROLS.items():
        maps = control(s.net, images)[..., 0]
        values[name] = place(maps, masks) | order(s.net, images, maps, target)
    facts = {
        "images": len(images),
        "few": min(FEW, len(images)),
        "deletion_steps": STEPS,
        "copies": COPIES,
        "right": float((target == s.test_labels[picked]).mean()),
        "by_chance": None if masks is None else float(masks[masks.any((1, 2))].mean()),
        "scores": {name: {k: vars(statistics.interval(v)) for k, v in some.items()} for name, some in values.items()},
        "similarity_to_random_weights_from_the_top": cascade,
        "options": {row.name: ", ".join(f"{k} {v}" for k, v in row.options.items()) or "none" for row in every},
        COSTS: costs,
    }
    return [
        _sheet(s, tiles, shown, target),
        _cascade(cascade),
        *cards.of_one(values, "of this network", facts["by_chance"]),
    ], facts


def _tests(s, row, few, maps, target, falls):
    """({metric: values}, {layer: Spearman}) of a method's maps by all that needs no masks, and no order of pixels."""
    anew = randomization.model_parameter_randomization(s.net, few, target, row, seed=s.seed)  # from the top on
    found = {
        "last layer random: Spearman": anew.absolute[0],
        "all layers random: Spearman": anew.absolute[-1],
        "last layer random: SSIM": anew.ssim[0],
        "all layers random: SSIM": anew.ssim[-1],
        "max-sensitivity": robustness.max_sensitivity(s.net, few, target, row, samples=COPIES, seed=s.seed),
        "infidelity": robustness.infidelity(s.net, few, maps, target, seed=s.seed, falls=falls),
        "Gini index": complexity.sparseness(maps),
    }
    return found, {layer: statistics.interval(r).mean for layer, r in zip(anew.layers, anew.absolute)}


def _untrained(s, row, few, masks, target, trained):
    """What the method's maps of the network as it started score by place, and how much less that is, image by image."""
    if masks is None:
        return {}
    maps, found = row.read(row(s.untrained, few, target)), {}
    for name in UNTRAINED:
        found[f"{name}, untrained"] = before = PLACE[name](masks[: len(few)], maps)
        found[f"{name}, gained by training"] = trained[name][: len(few)] - before
    return found


def _sheet(s, tiles, shown, target):
    """All methods on the images shown, a row each."""
    names = [s.name(label) for label in s.test_labels[shown]]
    heads = [n if t == p else f"{n},\ntaken for {s.name(p)}" for n, t, p in zip(names, s.test_labels[shown], target)]
    head = "Every method on the same images"
    figure = figures.sheet(
        np.concatenate(list(tiles.values())), len(shown), head, "What each says of the network's answer.",
        rows=list(tiles), heads=heads,
    )  # fmt: skip
    facts = {"shown": len(shown), "zero": s.zero}
    return Picture("methods", head, figure, facts=facts, comparison=Comparison(names, tiles))


def _cascade(cascade):
    """How alike each method's maps stay as the weights go, layer by layer from the top."""
    layers = list(next(iter(cascade.values())))
    values = [[np.clip(found[layer], 0, 1) for layer in layers] for found in cascade.values()]
    head = "Do maps depend on what was learned?"
    note = "Rank correlation with maps of the same network when the weights of a layer and of all above it are random."
    heads = [layers[0], *(f"to {layer}" for layer in layers[1:])]
    figure = figures.shares(values, list(cascade), heads, head, note, "rank correlation, in hundredths; below 0 as 0")
    still = [name for name, found in cascade.items() if found[layers[-1]] > STILL]
    return Picture("cascade", head, figure, facts={"still": still, "layers": layers})
