"""Which map is the strongest for how many images, and the nine patches that excite each of the first most."""

import numpy as np

from tinycnn import files
from viz import activations, deconvnet, figures
from viz.report.results import Picture
from viz.study.subject import Study

SEARCHED = 1000  # images whose strongest map is counted, and where the patches are found that excite a map most
MAPS = 8  # of which the patches are shown


def run(s: Study):
    """Return (pictures, facts)."""
    images = s.test_images[np.sort(s.rng("strongest_maps").permutation(len(s.test_images))[:SEARCHED])]
    counts, patches, facts = {}, [], {"images": len(images), "layers": {}}
    for i, (conv, relu) in enumerate(s.convs.items()):
        wins, means = activations.wins(s.net, images, relu)
        ranked = np.lexsort((-means, -wins))
        first, on = ranked[0], (activations.maps(s.net, images[:50], relu) > 0).mean((0, 1, 2))
        counts[conv], some = wins, np.count_nonzero(wins)
        facts["layers"][conv] = {
            "maps_that_win": some,
            "maps_that_never_win": len(wins) - some,
            "most_frequent": str(first),  # a name, not a number to take means of
            "its_share": wins[first] / len(images),
            "share_of_its_units_above_zero": on[first],
            "share_of_all_units_above_zero": on.mean(),
            "strongest_maps_in_order": ranked[:some],
            "how_often": wins[ranked[:some]],
        }
        patches += _patches(s, i, conv, relu, images, ranked)
    title = "Which map is the strongest, and how often"
    note = f"Images of {len(images):,} in which a map has the largest sum. Below: the map's number."
    return [Picture("wins", title, figures.bars(counts, title, note)), *patches], facts


def _patches(s, i, conv, relu, images, ranked):
    """Zeiler and Fergus's figure 2: the nine strongest images of some maps, patch by patch; none of a dead layer."""
    k = min(9, len(images))
    top = activations.top_images(s.net, images, relu, k, ranked[: 2 * MAPS])
    alive = np.flatnonzero(top.values[:, -1] > 0)[:MAPS]
    if not len(alive):
        return []
    tiles, captions = [], []
    for j in alive:
        x, boxes = images[top.indices[j]], top.boxes[j]
        back, _ = deconvnet.project(s.net, x, relu, top.units[j], positions=top.positions[j])
        back, x = activations.crop(back, boxes), activations.crop(x, boxes)
        tiles += [_nine(figures.signed(back)), _nine(figures.photo(x))]
        captions += [f"map {top.units[j]}", ""]
    title = f"What excites maps of {conv} most"
    figure = figures.sheet(
        np.stack(tiles),
        4,
        title,
        "Nine strongest places of a map: sent back to the pixels, and the patches themselves.",
        captions=captions,
        heads=2 * ["projection", "patches"],
        group=2,
    )
    facts = {
        "layer": conv,
        "maps": top.units[alive],
        "strongest": k,
        "size": top.boxes[0, 0, 2] - top.boxes[0, 0, 0],
        "zero": s.zero,
    }
    name = f"patches-{files.indexed(i, conv)}"
    return [Picture(name, title, figure, words="patches", facts=facts, group="What excites maps most", tab=conv)]


def _nine(tiles):
    """Up to nine tiles (9, h, w, 3) as one of 3 x 3, a grey line of one pixel between them: many are white."""
    h, w = tiles.shape[1:3]
    block = np.full((3 * (h + 1) - 1, 3 * (w + 1) - 1, 3), 216, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // 3 * (h + 1), i % 3 * (w + 1)
        block[y : y + h, x : x + w] = tile
    return block
