"""Signals sent back to the pixels: the strongest maps by deconvnet, saliency of classes, whole layers."""

import numpy as np

from ..results import Comparison, Picture


def maximal_activation_maps(s):
    """The strongest map of each image, projected back to the pixels by a deconvnet, with and without switches."""
    from .. import activations, deconvnet, figures

    pictures, metrics = [], {}
    shown = s.examples()
    images = s.val_images[shown]
    size = images.shape[1]
    for conv, relu in s.convs.items():
        repeat, strongest = deconvnet.project(s.net, images, relu, unpool="repeat")
        switches, _ = deconvnet.project(s.net, images, relu, unpool="switches")
        maps = activations.maps(s.net, images, relu)
        maps = figures.enlarge(maps[np.arange(len(images)), :, :, strongest], size)
        many = activations.strongest(activations.maps(s.net, s.val_images[:200], relu))
        metrics[conv] = {
            "strongest maps of the images shown": strongest,
            "different strongest maps among 200 images": len(np.unique(many)),
            "correlation of the two ways to unpool": np.mean([_correlation(a, b) for a, b in zip(repeat, switches)]),
        }
        columns = [
            figures.photo(images),
            figures.heat(maps),
            figures.signed(repeat),
            figures.signed(switches),
        ]
        heads = ["image", "strongest map", "back: repeat", "back: switches"]
        both = (
            "Third column: unpooling repeats each value over its block, as the study does; fourth: it "
            "puts the value back where the maximum was (switches). Repeating gives blurred blocks, "
            "switches give sharp edges."
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
                    _interleave(*columns),
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
    pictures.append(_strongest_patches(s, *list(s.convs.items())[-1]))
    return pictures, metrics


def _strongest_patches(s, conv, relu):
    """Zeiler and Fergus's figure 2: the nine strongest images of some maps, patch by patch."""
    from .. import activations, figures

    images = s.val_images[:2000]
    C = s.net.shapes[relu][-1]
    top = activations.top_images(s.net, images, relu, k=9)
    alive = np.flatnonzero(top.values[:, -1] > 0)
    alive = alive if len(alive) >= 8 else np.arange(C)
    chosen = alive[np.linspace(0, len(alive) - 1, min(8, len(alive))).round().astype(int)]
    tiles, captions = [], []
    for m in chosen:
        x = images[top.indices[m]]
        trace = s.net.forward(x, upto=relu)
        a = trace[relu]
        unit = (np.arange(9), *top.positions[m].T, m)  # its maximum alone, as they do
        seed = np.zeros_like(a)
        seed[unit] = a[unit]
        back = s.net.backward(trace, seed, at=relu, rule="deconvnet")
        tiles += [
            _nine(figures.signed(_crop(back, top.boxes[m]))),
            _nine(figures.photo(_crop(x, top.boxes[m]))),
        ]
        captions += [f"map {m}", ""]
    size, title = top.boxes[0, 0, 2] - top.boxes[0, 0, 0], f"What makes maps of {conv} strongest"
    return Picture(
        f"{conv}-patches",
        title,
        f"For {len(chosen)} of the {C} maps of {conv}, evenly spaced by number: the nine strongest of "
        f"{len(images):,} validation images, one place each, the strongest. Left: that unit alone "
        f"projected to the pixels by the deconvnet, with switches; right: the patch of {size}×{size} "
        "pixels that the unit sees (parts beyond the image are black; figure 2 of Zeiler and Fergus "
        f"2013). {s.made} Read: what the nine patches of a map have in common is what the map has learned "
        "to find.",
        f"{len(chosen)} pairs of 3 by 3 blocks: projections and image patches of the nine strongest answers of a map.",
        figures.sheet(
            np.stack(tiles),
            4,
            title,
            "Nine strongest places of a map: projected to the pixels, and the patch itself.",
            captions=captions,
            heads=2 * ["projection", "patches"],
            group=2,
        ),
    )


def saliency(s):
    """The gradient of the class scores with respect to the pixels."""
    from .. import figures, saliency

    shown = s.examples()
    images = s.val_images[shown]
    predicted = s.net.logits(images).argmax(1)
    every = saliency.saliency(s.net, images)
    one = saliency.saliency(s.net, images, target=predicted)
    columns = [figures.photo(images), figures.heat(every), figures.heat(one)]
    heads = ["image", "all classes", "the answer"]
    metrics = {
        "correlation of all classes with the answer alone": np.mean([_correlation(a, b) for a, b in zip(every, one)])
    }
    text = ""
    if s.masks is not None:
        columns.insert(1, figures.photo(s.masks[shown][..., None].astype(np.float32)))
        heads.insert(1, "object")
        n = min(500, len(s.val_images))
        masks, several = s.masks[:n], s.val_images[:n]
        answer = s.net.logits(several).argmax(1)
        scores = {}
        for name, target, rule in (
            ("gradient, all classes", None, "gradient"),
            ("gradient, the answer", answer, "gradient"),
            ("guided, the answer", answer, "guided"),
            ("deconvnet, the answer", answer, "deconvnet"),
        ):
            scores[name] = _score(saliency.saliency(s.net, several, target=target, rule=rule), masks)
        scores["by chance"] = {
            "pointing game, hit rate": masks.mean(),
            "mass inside the object": masks.mean(),
        }
        metrics[f"against the object's mask, {n} images"] = scores
        got = scores["gradient, the answer"]
        text = (
            f"Against the true masks of {n} images the brightest pixel lies on the object in "
            f"{100 * got['pointing game, hit rate']:.0f} % and {100 * got['mass inside the object']:.0f} % "
            f"of the saliency is inside; the object covers {100 * masks.mean():.0f} % of an image, which "
            "is what chance would give. "
        )
    tiles = _interleave(*columns)
    answers = [
        f"{s.name(t)}" + ("" if t == p else f", taken for {s.name(p)}") for t, p in zip(s.val_labels[shown], predicted)
    ]
    captions = [c for i in range(len(shown)) for c in [answers[i]] + [""] * (len(columns) - 1)]
    blocks = 2 if len(columns) == 3 else 1
    title = "Saliency: which pixels the answer hangs on"
    picture = Picture(
        "saliency",
        title,
        f"The gradient of the class scores ({s.output}, before the softmax) with respect to the pixels: "
        "absolute value, largest of the colours. 'All classes': the largest over the "
        f"{len(s.info.classes)} classes as well, as the study does; 'the answer': of the class the "
        "network chose (Simonyan et al. 2013). Each map has its own scale, from 0 (black) to its 99.5th "
        f"percentile. {text}{s.made} Read: where a small change of the pixel would change the scores "
        "most. That is not the same as what the object looks like.",
        f"Six images in rows with their saliency maps, {', '.join(heads[1:])}.",
        figures.sheet(
            tiles,
            blocks * len(columns),
            title,
            "Absolute gradient of the scores, largest over the colours.",
            captions=captions,
            heads=blocks * heads,
            group=len(columns),
            scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
        ),
        comparison=Comparison(answers, dict(zip(heads, columns))),
    )
    return [picture], metrics


def layer_backprop(s):
    """The gradients of every map of a layer with respect to the pixels, put together."""
    from .. import figures, saliency

    shown = s.examples()
    images = s.val_images[shown]
    conv2, relu2 = list(s.convs.items())[-1]
    names = s.net.layer_names
    pool2 = names[names.index(relu2) + 1]
    from_relu = saliency.layer_backprop(s.net, images, relu2)
    from_pool = saliency.layer_backprop(s.net, images, pool2)
    count = s.net.shapes[relu2][-1]
    tiles = _interleave(figures.photo(images), figures.heat(from_relu), figures.heat(from_pool))
    title = f"What {conv2} and {pool2} look at"
    captions = [c for label in s.val_labels[shown] for c in (s.name(label), "", "")]
    picture = Picture(
        "layers",
        title,
        f"For every one of the {count} maps of a layer, the gradient of the map's sum with respect to the "
        f"pixels; then the absolute value, and the largest over colours and maps. Second column: {conv2} "
        f"after its ReLU; third: {pool2}, where only the maximum of each window sends a signal back. Each "
        f"map has its own scale, from 0 (black) to its 99.5th percentile. {s.made} Read: which pixels the "
        "layer as a whole reacts to, before any class is decided. Pooling keeps fewer places, so the "
        "third column is sparser.",
        f"Six images in rows, each with two maps of the pixels that {conv2} and {pool2} react to.",
        figures.sheet(
            tiles,
            6,
            title,
            "Gradient of each map's sum, largest absolute value over colours and maps.",
            captions=captions,
            heads=2 * ["image", conv2, pool2],
            group=3,
            scale=("magma", 0, 1, "share of the map's 99.5th percentile"),
        ),
    )
    agree = np.mean([_correlation(a, b) for a, b in zip(from_relu, from_pool)])
    return [picture], {"maps": count, f"correlation of {conv2} with {pool2}": agree}


def _correlation(a, b):
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _score(maps, masks):
    """The pointing game (Zhang et al. 2016) and the share of the saliency that lies on the object."""
    N = len(maps)
    hits = masks.reshape(N, -1)[np.arange(N), maps.reshape(N, -1).argmax(1)]
    inside = (maps * masks).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-30)
    return {"pointing game, hit rate": hits.mean(), "mass inside the object": inside.mean()}


def _interleave(*columns):
    """Columns of N tiles each -> the tiles row by row."""
    return np.stack(columns, 1).reshape(-1, *columns[0].shape[1:])


def _crop(images, boxes):
    """The box (top, left, bottom, right) of each image; 0 beyond its border."""
    pad = int(max(0, -boxes.min(), boxes[:, 2].max() - images.shape[1], boxes[:, 3].max() - images.shape[2]))
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return np.stack([x[t + pad : b + pad, l + pad : r + pad] for x, (t, l, b, r) in zip(images, boxes)])


def _nine(tiles):
    """Nine tiles (9, h, w, 3) as one of 3 x 3, a white line of one pixel between them."""
    h, w = tiles.shape[1:3]
    block = np.full((3 * (h + 1) - 1, 3 * (w + 1) - 1, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // 3 * (h + 1), i % 3 * (w + 1)
        block[y : y + h, x : x + w] = tile
    return block


def _zero(images):
    return "mid-grey" if images.shape[3] == 3 else "white"
