"""Which map is the strongest for how many images, and the nine patches that excite each of the first most."""

import numpy as np

from tinycnn import files
from viz import activations, deconvnet, figures
from viz.metrics import statistics
from viz.metrics.correlation import pearson
from viz.report.results import Links, Picture
from viz.study.subject import Study

SEARCHED = 1000  # images whose strongest map is counted, and where the patches are found that excite a map most
MAPS = 8  # of which the patches are shown
LINE = 190  # the grey of the lines around them


def run(s: Study):
    """Return (pictures, facts)."""
    images = s.test_images[s.sample("strongest_maps", SEARCHED)]
    counts, patches, facts = {}, [], {"images": len(images), "layers": {}}
    for i, (conv, relu) in enumerate(s.convs.items()):
        sums, before = (activations.sums(net, images, relu) for net in (s.net, s.untrained))
        wins, untrained = activations.wins(sums), activations.wins(before)
        ranked = np.lexsort((-sums.sum(0), -wins))
        first, on = ranked[0], (activations.maps(s.net, images[:50], relu) > 0).mean((0, 1, 2))
        counts[conv] = wins
        some, its, theirs = np.count_nonzero(wins), _is(sums, first), _is(before, untrained.argmax())
        facts["layers"][conv] = {
            "maps_that_win": some,
            "maps_that_never_win": len(wins) - some,
            "most_frequent": str(first),  # a name, not a number to take means of
            "its_share": wins[first] / len(images),
            "untrained_most_frequent": str(untrained.argmax()),
            "untrained_share": untrained.max() / len(images),
            "its_share_less_the_untrained": vars(statistics.interval(its - theirs)),
            "share_of_its_units_above_zero": on[first],
            "share_of_all_units_above_zero": on.mean(),
            "strongest_maps_in_order": ranked[:some],
            "how_often": wins[ranked[:some]],
        }
        if i == 0:
            facts["layers"][conv]["answers_to"] = answers_to(sums[:, first], images)
        patches += _patches(s, i, conv, relu, images, ranked)
    title = "Which map is the strongest, and how often"
    most = {conv: (f["untrained_most_frequent"], f["untrained_share"]) for conv, f in facts["layers"].items()}
    before = ", ".join(f"map {m} of {conv} in {len(images) * share:.0f}" for conv, (m, share) in most.items())
    note = f"Images of {len(images):,} in which a map (number below) has the largest sum. Before training: {before}."
    chart = figures.bars(counts, title, note)
    return [Picture("wins", title, chart, facts={"first": next(iter(s.convs))}), *patches], facts


def answers_to(strength, images):
    """Return how a map's strength in each image (N,) correlates with what can be seen there.

    Pearson's correlation over the images with the mean brightness, the mean blueness (blue less the mean of red and
    green; None for grey images) and the mean strength of the `edges`; NaN where one of the two never changes.
    """
    x = images.mean((1, 2), dtype=np.float64)  # (N, C)
    there = {"brightness": x.mean(1), "blue": None, "edges": deconvnet.edges(images).mean((1, 2))}
    if x.shape[1] == 3:
        there["blue"] = x[:, 2] - (x[:, 0] + x[:, 1]) / 2
    return {k: None if v is None else float(pearson(strength[None], v[None])[0]) for k, v in there.items()}


def _is(sums, m):
    """Whether map `m` is the strongest of each image, (N,)."""
    return ((sums.argmax(1) == m) & (sums.max(1) > 0)).astype(float)


def _patches(s, i, conv, relu, images, ranked):
    """Zeiler and Fergus's figure 2: the nine strongest images of some maps, patch by patch; none of a dead layer."""
    k = min(9, len(images))
    top = activations.top_images(s.net, images, relu, k, ranked[: 2 * MAPS])
    alive = np.flatnonzero(top.values[:, -1] > 0)[:MAPS]
    if not len(alive):
        return []
    direct = conv == s.net.layer_names[0]  # nothing below it: all nine projections are the filter
    filters = activations.filters(s.net, conv) if direct else None
    tiles, captions = [], []
    for j in alive:
        x, boxes = images[top.indices[j]], top.boxes[j]
        patches = _nine(figures.photo(activations.crop(x, boxes)))
        if direct:
            whole = figures.enlarge(figures.signed(filters[top.units[j]][None]), len(patches) - 2)[0]
            tiles.append(np.pad(whole, ((1, 1), (1, 1), (0, 0)), constant_values=LINE))
        else:
            back, _ = deconvnet.project(s.net, x, relu, top.units[j], positions=top.positions[j])
            tiles.append(_nine(figures.signed(activations.crop(back, boxes))))
        tiles.append(patches)
        captions += [f"map {top.units[j]}", ""]
    title = f"What excites maps of {conv} most"
    figure = figures.sheet(
        np.stack(tiles),
        4,
        title,
        f"{'The filter' if direct else 'Sent back to the pixels'}, and the nine patches that a map answers to most.",
        captions=captions,
        heads=2 * ["filter" if direct else "projection", "patches"],
        group=2,
    )
    facts = {
        "layer": conv,
        "maps": top.units[alive],
        "strongest": k,
        "size": top.boxes[0, 0, 2] - top.boxes[0, 0, 0],
        "zero": s.zero,
        "direct": direct,
    }
    name = f"patches-{files.indexed(i, conv)}"
    links = Links(figure.tiles, [{"layer": relu, "unit": unit} for unit in top.units[alive] for _ in range(2)])
    where = {"group": "What excites maps most", "tab": conv}
    return [Picture(name, title, figure, words="patches", facts=facts, **where, links=links)]


def _nine(tiles):
    """Up to nine tiles (9, h, w, 3) as one of 3 x 3, a thin grey line around each: many are white."""
    zoom = max(1, 75 // tiles.shape[1])
    tiles = tiles.repeat(zoom, 1).repeat(zoom, 2)
    h, w = tiles.shape[1:3]
    block = np.full((3 * (h + 1) + 1, 3 * (w + 1) + 1, 3), LINE, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // 3 * (h + 1) + 1, i % 3 * (w + 1) + 1
        block[y : y + h, x : x + w] = tile
    return block
