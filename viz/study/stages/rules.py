"""All ways back that the engine's rules span, on the same images, each by its name; and where two of them part."""

import numpy as np

from tinycnn.rules import UNPOOLS, Rule
from viz import figures, saliency
from viz.metrics import statistics
from viz.report.results import Comparison, Picture
from viz.study.subject import Study

COMPARED = 100  # images over which ways are compared
NAMES = {  # (mask, rectify, unpool): its name
    (True, False, "switches"): "gradient",
    (False, True, "switches"): "deconvnet",
    (True, True, "switches"): "guided",
    (False, True, "repeat"): "the study",
}
PAIRS = {  # two ways that differ in one thing
    "gradient / guided backprop": (Rule(True, False), Rule(True, True)),
    "deconvnet / guided backprop": (Rule(False, True), Rule(True, True)),
    "gradient / deconvnet": (Rule(True, False), Rule(False, True)),
    "gradient: switches / repeat": (Rule(True, False), Rule(True, False, "repeat")),
}
ALIKE = 1 - 1e-6  # a cosine below it: they have parted


def run(s: Study):
    """Return (pictures, facts)."""
    shown, picked = s.examples(), s.examples_and_more("rules", COMPARED)
    images = s.test_images[picked]
    target, few = s.net.predict(images), slice(len(shown))
    tiles = {"image": figures.photo(images[few])}
    for mask in (True, False):
        for rectify in (False, True):
            for unpool in UNPOOLS:
                dx = saliency.gradient(s.net, images[few], target[few], Rule(mask, rectify, unpool))
                tiles[_name(mask, rectify, unpool)] = figures.signed(dx)
    title = "All ways back: mask, rectify, and three ways to unpool"
    sheet = figures.sheet(
        np.concatenate(list(tiles.values())), len(shown), title, "The answer's score, back to the pixels.",
        rows=list(tiles), heads=[s.name(label) for label in s.test_labels[shown]],
    )  # fmt: skip
    names = [s.name(label) for label in s.test_labels[shown]]
    signals = {pair: [_signals(s.net, images, target, rule) for rule in rules] for pair, rules in PAIRS.items()}
    cosines = {p: {k: statistics.interval(_cosine(a[k], b[k])) for k in a} for p, (a, b) in signals.items()}
    facts = {
        "images": len(images),
        "ways": len(tiles) - 1,
        "zero": s.zero,
        "part_at": {
            pair: next((layer for layer, c in found.items() if c.mean < ALIKE), None) for pair, found in cosines.items()
        },
        "cosine": {pair: {layer: vars(c) for layer, c in found.items()} for pair, found in cosines.items()},
    }
    pictures = [Picture("lattice", title, sheet, facts={"shown": len(shown)}, comparison=Comparison(names, tiles))]
    title = "Where do two ways part?"
    layers = list(next(iter(cosines.values())))
    values = [[np.clip(found[layer].mean, 0, 1) for layer in layers] for found in cosines.values()]
    note = "Cosine of the two signals, layer by layer on the way back from the scores to the pixels."
    table = figures.shares(values, list(cosines), layers, title, note, "cosine, in hundredths; below 0 as 0")
    return [*pictures, Picture("part", title, table), _apart(s, signals, images, shown)], facts


def _name(mask, rectify, unpool):
    """What a way does, behind its name where it has one."""
    does = {(True, False): "mask", (False, True): "rectify", (True, True): "both"}.get((mask, rectify), "neither")
    name = NAMES.get((mask, rectify, unpool))
    return f"{name}: {does}, {unpool}" if name else f"{does}, {unpool}"


def _signals(net, images, target, rule):
    """{layer: the signal at its output}, from the last layer back, and at "pixels"; scores begin it, a 1 at each."""
    trace = net.forward(images)
    dy = np.zeros_like(trace[net.layer_names[-1]])
    dy[np.arange(len(images)), target] = 1
    found = {layer: net.backward(trace, dy, rule=rule, to=layer) for layer in net.layer_names[-2::-1]}
    return found | {"pixels": net.backward(trace, dy, rule=rule)}


def _cosine(a, b):
    """The cosine of signals (N, ...), NaN where one is 0."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / np.where(size > 0, size, np.nan)


def _apart(s, signals, images, shown):
    """Of the first pair, the difference of its signals at each layer with maps, summed over the maps, and in pixels."""
    pair = next(iter(PAIRS))
    ours, other = signals[pair]
    layers = [layer for layer, signal in ours.items() if signal.ndim == 4]
    tiles = {"image": figures.photo(images[: len(shown)])}
    for layer in layers:
        change = (other[layer] - ours[layer])[: len(shown)].sum(-1)
        tiles[layer] = figures.enlarge(figures.signed(change[..., None]), images.shape[1])
    title = f"{pair}: the difference, layer by layer"
    figure = figures.sheet(
        figures.interleave(*tiles.values()), len(tiles), title, "Second less first, summed over a layer's maps.",
        heads=list(tiles),
    )  # fmt: skip
    return Picture("apart", title, figure, facts={"shown": len(shown), "pair": pair, "layers": layers})
