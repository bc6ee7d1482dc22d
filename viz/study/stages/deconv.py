"""Maps sent back to the pixels by a deconvnet: the strongest of an image, ways to unpool, what excites a map most."""

import numpy as np

from viz.report.results import Comparison, Picture

COMPARED = 200  # images over which ways to unpool are compared
SEARCHED = 1000  # images whose strongest map is counted, and where the patches are found that excite a map most
MAPS = 8  # of which the patches are shown
WAYS = {"switches": "switches", "repeat": "repetition", "center": "window centre"}


def maximal_activation_maps(s):
    """The strongest map of each image, projected back to the pixels by a deconvnet, with and without switches."""
    from viz import activations, deconvnet, figures

    pictures, metrics = [], {}
    shown = s.examples()
    images = s.val_images[shown]
    size = images.shape[1]
    for conv, relu in s.convs.items():
        repeat, strongest = deconvnet.project(s.net, images, relu, unpool="repeat")
        switches, _ = deconvnet.project(s.net, images, relu, unpool="switches")
        maps = activations.maps(s.net, images, relu)
        maps = figures.enlarge(maps[np.arange(len(images)), :, :, strongest], size)
        metrics[conv] = {"strongest maps of the images shown": strongest}
        columns = [
            figures.photo(images),
            figures.heat(maps),
            figures.signed(repeat),
            figures.signed(switches),
        ]
        heads = ["image", "strongest map", "back: repeat", "back: switches"]
        both = (
            "Third column: unpooling repeats each value over its block, as the study does; fourth: it "
            "puts the value back where the maximum was (switches). Repeating draws smooth blocks, "
            "switches single pixels."
        )
        if np.array_equal(repeat, switches):  # no pooling below this layer
            columns, heads = columns[:3], [*heads[:2], "in the pixels"]
            both = "No pooling lies below this layer, so there is nothing to unpool."
        n = len(columns)
        title = f"The strongest map of {conv}, back in the pixels"
        captions = [
            c for label, m in zip(s.val_labels[shown], strongest) for c in (s.name(label), f"map {m}", *[""] * (n - 2))
        ]
        pictures.append(
            Picture(
                conv,
                title,
                f"For each image the map of {conv} with the largest sum of activations after the ReLU "
                "(second column, with its number). All other maps are set to 0 and the rest is sent back "
                "to the pixels by a deconvnet (Zeiler and Fergus 2013): rectify, transposed filters, "
                f"unpool. {both} Each projection has its own scale; {_zero(images)} is 0. {s.made} Read: "
                "the pattern that made this map strongest, at the place where it was found.",
                f"{len(images)} images, each with its strongest map of {conv} (numbers "
                f"{', '.join(map(str, strongest))}) and that map projected to the pixels.",
                figures.sheet(
                    figures.interleave(*columns),
                    n if n == 4 else 2 * n,
                    title,
                    "Deconvnet projection of the map with the largest sum. Each tile has its own scale.",
                    captions=captions,
                    heads=heads if n == 4 else 2 * heads,
                    group=n,
                ),
                group="The strongest map of each convolution",
                tab=conv,
            )
        )
    return pictures, metrics


def unpooling(s):
    """Three ways to undo a max-pool on the way back, and how well each follows the edges of the image."""
    from viz import deconvnet, figures
    from viz.metrics.statistics import interval

    conv, relu = list(s.convs.items())[-1]
    shown, picked = s.examples(), s.rng("unpooling").permutation(len(s.val_images))[:COMPARED]
    images, many = s.val_images[shown], s.val_images[np.sort(picked)]
    drawn, numbers, scores = [], [], {}
    for way, name in WAYS.items():
        projection, strongest = deconvnet.project(s.net, images, relu, unpool=way)
        drawn.append(figures.signed(projection))
        numbers.append(deconvnet.edge_correlation(projection, images))
        scores[name] = deconvnet.edge_correlation(deconvnet.project(s.net, many, relu, unpool=way)[0], many)
    means = {name: interval(score) for name, score in scores.items()}
    gain = interval(scores["switches"] - scores["repetition"])
    names = [s.name(label) for label in s.val_labels[shown]]
    captions = [c for name, r in zip(names, np.transpose(numbers)) for c in (name, "", *(f"{v:.2f}" for v in r))]
    measure = (
        "Pearson's correlation, over the pixels of an image, of the projection's largest absolute value over the "
        "colours with the Sobel magnitude of the grey image (mean of the colours)"
    )
    how = (
        f"The map of {conv} with the largest sum of activations after the ReLU, alone, sent back by a deconvnet. "
        "Switches put a pooled value back where the maximum was; repetition (the study's way) puts it on every pixel "
        "of its block; the window's centre takes it without asking where it came from."
    )
    over = f"{len(many)} random validation images, with 95 % confidence intervals (Student's, over images)"
    found = ", ".join(f"{name} {m:.2f}" for name, m in means.items())
    columns = [figures.photo(images), figures.heat(deconvnet.edges(images)), *drawn]
    heads = ["image", "edges", *WAYS.values()]
    title = f"Ways to undo a max-pool: {conv} back in the pixels"
    chart = f"Which way follows the edges? {conv}"
    pictures = [
        Picture(
            "unpooling",
            title,
            f"{how} Second column: the edges of the image; below each projection: {measure}. Maps, from the top: "
            f"{', '.join(map(str, strongest))}. Each projection has its own scale; {_zero(images)} is 0. Means over "
            f"{over}: {found}. {s.made} Read: a way back that keeps places draws the lines that are in the image; 0 "
            "means that it draws as much where nothing is, below 0 it fills the areas between the lines: maps of a "
            "colour do.",
            f"{len(images)} images in rows, each with its edges and three projections of its strongest map of {conv}; "
            f"mean correlations with the edges: {found}.",
            figures.sheet(
                figures.interleave(*columns),
                len(columns),
                title,
                "Number: correlation of the projection's strength with the image's edges.",
                captions=captions,
                heads=heads,
            ),
            comparison=Comparison(names, dict(zip(heads, columns))),
        ),
        Picture(
            "edges",
            chart,
            f"{measure[0].upper()}{measure[1:]}: mean over {over}. {how} Switches less repetition, image by image: "
            f"{gain:.2f}. {s.made} Read: intervals that do not overlap belong to ways that differ "
            "on more images than these.",
            f"Means with intervals: {found}.",
            figures.intervals(
                means, chart, f"Mean of {len(many)} images, 95 % intervals.", "correlation with the image's edges"
            ),
        ),
    ]
    metrics = {
        "images": len(many),
        "layer": conv,
        "correlation with the edges": {name: vars(m) for name, m in means.items()},
        "switches less repetition, image by image": vars(gain),
    }
    return pictures, metrics


def strongest_maps(s):
    """Which map is the strongest for how many images, and the nine patches that excite each of the first most."""
    from viz import activations, figures

    images = s.val_images[np.sort(s.rng("strongest_maps").permutation(len(s.val_images))[:SEARCHED])]
    counts, patches, metrics, said = {}, [], {}, []
    for conv, relu in s.convs.items():
        wins, means = activations.wins(s.net, images, relu)
        ranked = np.lexsort((-means, -wins))
        first, on = ranked[0], (activations.maps(s.net, images[:50], relu) > 0).mean((0, 1, 2))
        counts[conv] = wins
        share = wins[first] / len(images)
        metrics[conv] = {
            "images": len(images),
            "maps that are the strongest of at least one": np.count_nonzero(wins),
            "the most frequent": first,
            "its share": share,
            "share of its units above zero": on[first],
            "share of the units of all maps above zero": on.mean(),
            "strongest maps, in order": ranked[: np.count_nonzero(wins)],
            "how often": wins[ranked[: np.count_nonzero(wins)]],
        }
        said.append(
            f"Map {first} of {conv} wins {100 * share:.0f} % of the images, and is above zero at {100 * on[first]:.0f} "
            f"% of its places, the mean map at {100 * on.mean():.0f} %; {np.count_nonzero(wins == 0)} maps never win."
        )
        patches += _patches(s, conv, relu, images, ranked)
    title = "Which map is the strongest, and how often"
    picture = Picture(
        "wins",
        title,
        f"For each of {len(images):,} random validation images (seed {s.seed}) the one map of a layer with the "
        "largest sum of activations after the ReLU; each bar is a map, with its number below and its count of images "
        f"above for the first few. {' '.join(said)} {s.made} Read: a sum over the whole image favours maps that "
        "answer a little everywhere, to brightness or a colour, over those that find one thing at one place; few long "
        "bars mean that the strongest map says little about the image.",
        "Bar charts of how many images each map is the strongest of. " + " ".join(said),
        figures.bars(
            counts, title, f"Images of {len(images):,} in which a map has the largest sum. Below: the map's number."
        ),
    )
    return [picture, *patches], metrics


def _patches(s, conv, relu, images, ranked):
    """Zeiler and Fergus's figure 2: the nine strongest images of some maps, patch by patch; none of a dead layer."""
    from viz import activations, deconvnet, figures

    k = min(9, len(images))
    top = activations.top_images(s.net, images, relu, k, ranked[: 2 * MAPS])
    alive = np.flatnonzero(top.values[:, -1] > 0)[:MAPS]
    if not len(alive):
        return []
    tiles, captions = [], []
    for i in alive:
        x, boxes = images[top.indices[i]], top.boxes[i]
        back, _ = deconvnet.project(s.net, x, relu, top.units[i], positions=top.positions[i])
        back, x = activations.crop(back, boxes), activations.crop(x, boxes)
        tiles += [_nine(figures.signed(back)), _nine(figures.photo(x))]
        captions += [f"map {top.units[i]}", ""]
    size, title = top.boxes[0, 0, 2] - top.boxes[0, 0, 0], f"What excites maps of {conv} most"
    numbers = ", ".join(map(str, top.units[alive]))
    return [
        Picture(
            f"{conv}-patches",
            title,
            f"Maps {numbers} of {conv}: those that are the strongest of most images, the most frequent first. For each "
            f"the {k} of {len(images):,} validation images that excite it most, by its largest activation. Right: "
            f"the patch of {size}×{size} pixels that this unit sees; beyond the image's border it sees zeros, "
            "black. Left: the unit alone, sent back to the pixels by the deconvnet with switches; each has its own "
            f"scale, {_zero(images)} is 0 (figure 2 of Zeiler and Fergus 2013). {s.made} Read: what the patches of a "
            "map have in common is what it answers to; the projection shows which of their pixels make it.",
            f"{len(alive)} pairs of 3 by 3 blocks: projections and image patches of the {k} strongest answers of "
            f"maps {numbers} of {conv}.",
            figures.sheet(
                np.stack(tiles),
                4,
                title,
                "Nine strongest places of a map: sent back to the pixels, and the patches themselves.",
                captions=captions,
                heads=2 * ["projection", "patches"],
                group=2,
            ),
            group="What excites maps most",
            tab=conv,
        )
    ]


def _nine(tiles):
    """Up to nine tiles (9, h, w, 3) as one of 3 x 3, a grey line of one pixel between them: many are white."""
    h, w = tiles.shape[1:3]
    block = np.full((3 * (h + 1) - 1, 3 * (w + 1) - 1, 3), 216, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // 3 * (h + 1), i % 3 * (w + 1)
        block[y : y + h, x : x + w] = tile
    return block


def _zero(images):
    return "mid-grey" if images.shape[3] == 3 else "white"
