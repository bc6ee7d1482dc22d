"""How often pools and ReLUs tie, and how far every method's map moves if ties go another way."""

import numpy as np

from viz import figures
from viz.attribution import METHODS, ties
from viz.metrics import statistics
from viz.report.results import Picture
from viz.study.methods import rows
from viz.study.subject import Study

COUNTED = 200  # images whose ties are counted
MOVED = 20  # images whose maps are drawn three times
STILL = 0.001  # of its norm: a map that moves less is not drawn
OTHER = ("last", "shared")  # where the engine takes the first


def run(s: Study):
    """Return (pictures, facts)."""
    picked = s.examples_and_more("ties", COUNTED)
    images = s.test_images[picked]
    found = {which: ties.shares(net, images) for which, net in (("trained", s.net), ("untrained", s.untrained))}
    counted = {
        which: {layer: statistics.interval(t.tied) for layer, t in layers.items()} for which, layers in found.items()
    }
    at_zero = {layer: float(t.at_zero.sum() / max(t.tied.sum(), 1e-300)) for layer, t in found["trained"].items()}
    few, target = images[:MOVED], s.net.predict(images[:MOVED])
    moves = {
        row.name: {way: _moved(s.net, few, target, row, way) for way in OTHER} for row in rows(s.net) if not row.slow
    }
    blank = (images == images[:, :1, :1]).all(-1).mean((1, 2))
    facts = {
        "images": len(images),
        "drawn": len(few),
        "of_the_corners_colour": vars(statistics.interval(blank)),
        "tied": {which: {layer: vars(i) for layer, i in layers.items()} for which, layers in counted.items()},
        "of_these_at_zero": at_zero,
        "moved": {name: {way: vars(i) for way, i in some.items()} for name, some in moves.items()},
    }
    bars = {
        f"{layer}{', untrained' if which == 'untrained' else ''}": interval
        for layer in counted["trained"]
        for which, interval in ((w, counted[w][layer]) for w in counted)
    }
    title = "How often is it a tie?"
    note = f"Windows of a pool whose maximum stands twice, inputs of a ReLU that are 0; {len(images)} images, 95 %."
    tied = Picture(
        "tied", title, figures.intervals(bars, title, note, "of the windows or inputs, per cent", percent=True)
    )
    far = {name: some for name, some in moves.items() if any(i.mean > STILL for i in some.values())}
    if not far:
        return [tied], facts
    title = "How far does a map move if ties go another way?"
    note = f"Change of the map in its L2 norm, mean over {len(few)} images, 95 % intervals."
    bars = {f"{name}, {way}": i for name, some in far.items() for way, i in some.items()}
    chart = figures.intervals(bars, title, note, "of the map's own norm, per cent", percent=True)
    return [tied, Picture("moved", title, chart, facts={"far": list(far), "still": STILL})], facts


def _moved(net, few, target, row, way):
    """The interval of how far a method's maps move; a map that is empty on either side is undefined."""
    change = ties.moved(net, few, target, METHODS[row.method], way, **row.options)
    return statistics.interval(np.where(np.isfinite(change), change, np.nan))
