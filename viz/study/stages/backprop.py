"""Gradients with respect to the pixels: saliency of classes, and of every map of a layer."""

import numpy as np

from viz.report.results import Comparison, Picture


def saliency(s):
    """The gradient of the class scores with respect to the pixels."""
    from viz import figures, saliency

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
    tiles = figures.interleave(*columns)
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
    from viz import figures, saliency

    shown = s.examples()
    images = s.val_images[shown]
    conv2, relu2 = list(s.convs.items())[-1]
    names = s.net.layer_names
    pool2 = names[names.index(relu2) + 1]
    from_relu = saliency.layer_backprop(s.net, images, relu2)
    from_pool = saliency.layer_backprop(s.net, images, pool2)
    count = s.net.shapes[relu2][-1]
    tiles = figures.interleave(figures.photo(images), figures.heat(from_relu), figures.heat(from_pool))
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
