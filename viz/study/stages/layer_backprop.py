"""The gradients of every map of a layer with respect to the pixels, put together; what they show beside saliency."""

from viz import figures, saliency
from viz.metrics import controls, localization, statistics
from viz.metrics.correlation import pearson
from viz.metrics.identification import identify
from viz.report.results import Picture
from viz.study.subject import Study

NAMED = 100  # images that are named from their maps
POINTED = 200  # images on whose objects the maps point, where these are known


def run(s: Study):
    """Return (pictures, facts)."""
    shown = s.examples()
    picked = s.examples_and_more("saliency", NAMED if s.masks is None else POINTED)
    images = s.test_images[picked]
    conv, relu = list(s.convs.items())[-1]
    names = s.net.layer_names
    pool = names[names.index(relu) + 1]
    ways = {"saliency": None, pool: pool, conv: relu}
    maps = {
        which: {name: _looks(net, images, layer) for name, layer in ways.items()}
        for which, net in (("trained", s.net), ("untrained", s.untrained))
    }
    few = images[:NAMED]
    hits = {which: {name: identify(m[:NAMED], few) for name, m in some.items()} for which, some in maps.items()}
    facts = {
        "layer": conv,
        "pool": pool,
        "maps": s.net.shapes[relu][-1],
        "images": len(images),
        "candidates": len(few),
        "correlation_of_the_two": vars(statistics.interval(pearson(maps["trained"][conv], maps["trained"][pool]))),
        "named": beside(hits),
        "named_less_saliency": _less_saliency(hits["trained"]),
        "by_chance": 1 / len(few),
        "pointing_game": None,
        "pointing_less_saliency": None,
    }
    title = f"What {conv} and {pool} look at"
    tiles = {"image": figures.photo(images[: len(shown)])}
    for which, some in maps.items():
        for name in (pool, conv):
            head = f"untrained,\n{name}" if which == "untrained" else name
            tiles[head] = figures.heat(some[name][: len(shown)])
    figure = figures.sheet(
        figures.interleave(*tiles.values()),
        len(tiles),
        title,
        "Gradient of each map's sum, largest absolute value over colours and maps.",
        captions=[c for label in s.test_labels[shown] for c in (s.name(label), *[""] * (len(tiles) - 1))],
        heads=list(tiles),
        scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
    )
    pictures = [Picture("layers", title, figure, facts={"shown": len(shown)})]
    title = "Which map shows which image it is?"
    note = f"Images that their map names among {len(few)}, 95 % intervals; differences paired by image."
    rows = _rows(facts["named"])
    chance, less = (facts["by_chance"], "chance"), _beside_saliency(facts["named_less_saliency"])
    chart = figures.intervals(rows, title, note, "images named, per cent", chance, percent=True, differences=less)
    pictures.append(Picture("named", title, chart))
    if s.masks is not None:
        masks = s.masks[picked]
        points = {w: {k: localization.pointing_game(masks, m) for k, m in some.items()} for w, some in maps.items()}
        facts["pointing_game"] = beside(points) | pointing_controls(masks, images)
        facts["pointing_less_saliency"] = _less_saliency(points["trained"])
        title = "Which map points at the object?"
        note = f"Images whose map is largest on the object, of {len(images)}, 95 % intervals."
        game = facts["pointing_game"]
        rows, chance = _rows({k: v for k, v in game.items() if k != "by_chance"}), (game["by_chance"], "chance")
        less = _beside_saliency(facts["pointing_less_saliency"])
        chart = figures.intervals(rows, title, note, "images, per cent", chance, percent=True, differences=less)
        pictures.append(Picture("pointing", title, chart))
    return pictures, facts


def beside(hits):
    """Return for each way its share of hits, the untrained network's, and their difference paired by image.

    `hits` is {"trained" and "untrained": {way: hits (N,)}}.
    """
    trained, untrained = hits["trained"], hits["untrained"]
    return {
        way: {which: vars(statistics.share(some[way])) for which, some in hits.items()}
        | {"difference": vars(statistics.interval(trained[way] - untrained[way]))}
        for way in trained
    }


def pointing_controls(masks, images):
    """Return the facts of `controls.pointing`."""
    return {name: f if name == "by_chance" else vars(f) for name, f in controls.pointing(masks, images).items()}


def _looks(net, images, layer):
    """The map of a layer, or of all classes."""
    return saliency.saliency(net, images) if layer is None else saliency.layer_backprop(net, images, layer)


def _less_saliency(hits):
    """How much oftener the layers' maps hit than saliency, paired by image; both together hold."""
    others = [way for way in hits if way != "saliency"]
    return {way: vars(statistics.interval(hits[way] - hits["saliency"], comparisons=len(others))) for way in others}


def _beside_saliency(less):
    """The rows of the differences from saliency in a chart."""
    return {f"{way} \N{MINUS SIGN} saliency": statistics.Interval(**found) for way, found in less.items()}


def _rows(shares):
    """The rows of a chart."""
    rows = {}
    for name, found in shares.items():
        if "trained" not in found:
            rows[name] = statistics.Interval(**found)
            continue
        rows |= {name: statistics.Interval(**found["trained"])}
        rows |= {f"{name}, untrained": statistics.Interval(**found["untrained"])}
    return rows
