"""Three ways to undo a max-pool on the way back, and from which of them the image can be told."""

from tinycnn.layers import MaxPool2D
from viz import deconvnet, figures
from viz.metrics import controls, statistics
from viz.metrics.identification import identify
from viz.report.results import Comparison, Picture
from viz.study.subject import Study

COMPARED = 200  # images over which ways to unpool are compared
WAYS = {"switches": "switches", "repeat": "repetition", "center": "window centre"}


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    picked = s.examples_and_more("unpooling", COMPARED)
    images, layers = s.test_images[picked], _with_a_pool_below(s)
    hits, pictures = {"trained": {}, "untrained": {}}, []
    for conv, relu in layers.items():
        drawn = {}
        for which, net in (("trained", s.net), ("untrained", s.untrained)):
            hits[which][conv] = {}
            for way, name in WAYS.items():
                projection, strongest = deconvnet.project(net, images, relu, unpool=way)
                hits[which][conv][name] = identify(projection, images)
                drawn[which, name] = projection[: len(shown)], strongest[: len(shown)]
        if conv == list(layers)[-1]:
            pictures.append(_sheet(s, conv, images[: len(shown)], drawn, hits, s.test_labels[shown]))
    nothing = {
        "the image itself": identify(images, images),
        "its edges": identify(deconvnet.edges(images), images),
        "a blob anywhere": identify(controls.blobs(len(images), images.shape[1:3], s.rng("unpooling blobs")), images),
    }
    facts = {
        "images": len(images),
        "layers": list(layers),
        "without_a_pool_below": [conv for conv in s.convs if conv not in layers],
        "named": _shares(hits["trained"]),
        "untrained_named": _shares(hits["untrained"]),
        "switches_less_repetition": _gains(hits["trained"]),
        "untrained_switches_less_repetition": _gains(hits["untrained"]),
        "controls": {name: vars(statistics.share(h)) for name, h in nothing.items()},
        "by_chance": 1 / len(images),
    }
    rows = {
        f"{conv}, {name}{', untrained' if which == 'untrained' else ''}": statistics.share(h)
        for conv in layers
        for which in hits
        for name, h in hits[which][conv].items()
    } | {name: statistics.share(h) for name, h in nothing.items()}
    title = "From which way can the image be told?"
    note = f"Images named among {len(images)}, 95 % intervals. Below, switches less repetition, paired by image."
    less = {
        f"{conv}{', untrained' if which else ''}": statistics.Interval(**g)
        for conv in layers
        for which in ("", "untrained_")
        for g in (facts[f"{which}switches_less_repetition"][conv],)
    }
    chance = facts["by_chance"], "chance"
    chart = figures.intervals(rows, title, note, "images named, per cent", chance, percent=True, differences=less)
    return [*pictures, Picture("named", title, chart)], facts


def _with_a_pool_below(s):
    """The convolutions, each with its ReLU, whose projections pass a max-pool."""
    names = s.net.layer_names
    first = min((names.index(layer.name) for layer in s.net.layers if isinstance(layer, MaxPool2D)), default=len(names))
    return {conv: relu for conv, relu in s.convs.items() if names.index(conv) > first}


def _shares(hits):
    return {conv: {name: vars(statistics.share(h)) for name, h in ways.items()} for conv, ways in hits.items()}


def _gains(hits):
    return {conv: vars(statistics.interval(ways["switches"] - ways["repetition"])) for conv, ways in hits.items()}


def _sheet(s, conv, images, drawn, hits, labels):
    """The images shown by every way, and whether each names them."""
    names, title = [s.name(label) for label in labels], f"Ways to undo a max-pool: {conv} back in the pixels"
    columns = {"image": figures.photo(images), "its edges": figures.heat(deconvnet.edges(images))}
    said = [names, [""] * len(images)]
    for which, way in [*(("trained", name) for name in WAYS.values()), ("untrained", "switches")]:
        head = way if which == "trained" else f"untrained, {way}"
        columns[head] = figures.signed(drawn[which, way][0])
        said.append(["named" if hit == 1 else "not named" for hit in hits[which][conv][way][: len(images)]])
    figure = figures.sheet(
        figures.interleave(*columns.values()),
        len(columns),
        title,
        "Below each projection: whether it names its image among all.",
        captions=[c for row in zip(*said) for c in row],
        heads=[name.replace(", ", ",\n") for name in columns],
    )
    facts = {"maps": drawn["trained", "switches"][1], "zero": s.zero, "layer": conv}
    last = "switches", "repetition"  # the page opens on the last two
    columns = {k: v for k, v in columns.items() if k not in last} | {k: columns[k] for k in last}
    return Picture("unpooling", title, figure, facts=facts, comparison=Comparison(names, columns))
