"""What training left behind: curves and confusions, filters, the answers of every map to one image."""

import numpy as np

from viz.report.results import Picture


def training_curve(s):
    """Loss and accuracies over the steps; which classes are taken for which."""
    from viz import figures

    h, pictures = s.history, []
    logits = s.net.logits(s.val_images)
    predicted = logits.argmax(1)
    classes = len(s.info.classes)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (s.val_labels, predicted), 1)
    confusion = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    metrics = {"validation accuracy": np.mean(predicted == s.val_labels)}
    if h is not None and len(h.eval_steps):
        best = int(np.argmax(h.val_accuracy))
        metrics |= {
            "training accuracy": h.train_accuracy[-1],
            "best validation accuracy": h.val_accuracy[best],
            "best validation accuracy at step": h.eval_steps[best],
            "loss, mean of the last 50 steps": np.mean(h.losses[-50:]),
            "steps": h.steps,
        }
        title = f"Training on {s.info.title}"
        others = {f"recipe {k}, validation": (o.eval_steps, o.val_accuracy) for k, o in s.histories.items() if o != h}
        arrays = (np.arange(1, h.steps + 1), h.losses, h.eval_steps, h.train_accuracy, h.val_accuracy)
        note = f"{s.info.model} network, {s.recipe}, seed {s.seed}"
        pictures.append(
            Picture(
                "curve",
                title,
                "Above: the cross-entropy of each batch (grey) and its running mean (black), on a "
                "logarithmic scale. Below: the share of images classified rightly, for training images "
                f"(dashed) and for the {len(s.val_images):,} validation images (solid"
                f"{'; grey: of the other recipes that were trained into this folder' if others else ''}). {s.made} "
                "Read the gap between the two lower curves: what the network knows by heart and cannot carry over "
                "to new images.",
                f"Line charts over {h.steps:,} training steps: the loss falls to "
                f"{np.mean(h.losses[-50:]):.3f}; validation accuracy ends at "
                f"{100 * h.val_accuracy[-1]:.1f} per cent, training accuracy at "
                f"{100 * h.train_accuracy[-1]:.1f} per cent.",
                figures.curves(*arrays, title, note, others=others),
            )
        )
    names = [s.name(c) for c in range(classes)]
    off = confusion - np.diag(np.diag(confusion))
    worst = np.unravel_index(off.argmax(), off.shape)
    pictures.append(
        Picture(
            "confusion",
            "What is taken for what",
            "Row: the true class; column: what the network answers; number: per cent of the row, over "
            f"{len(s.val_images):,} validation images. {s.made} A perfect network has 100 on the "
            f"diagonal. The most frequent mistake: {names[worst[0]]} taken for {names[worst[1]]}, "
            f"{100 * off[worst]:.1f} %.",
            f"Confusion matrix; the diagonal lies between {100 * np.diag(confusion).min():.0f} and "
            f"{100 * np.diag(confusion).max():.0f} per cent.",
            figures.shares(
                confusion,
                names,
                names,
                "What is taken for what",
                f"True class by row, answer by column, {len(s.val_images):,} validation images",
                "per cent of the row",
            ),
        )
    )
    metrics["accuracy by class"] = dict(zip(names, np.diag(confusion)))
    return pictures, metrics


def activation_maps(s):
    """Every map of each convolution, after its ReLU, for validation image 0."""
    from viz import activations, figures

    pictures, metrics = [], {}
    image, label = s.val_images[:1], s.name(s.val_labels[0])
    for conv, relu in s.convs.items():
        maps = activations.maps(s.net, image, relu)[0].transpose(2, 0, 1)  # (C, H, W)
        C, H, W = maps.shape
        high = max(float(np.percentile(maps, 99.8)), 1e-12)  # a single hot unit must not darken the rest
        dark, on = int((maps.max((1, 2)) == 0).sum()), float((maps > 0).mean())
        metrics[conv] = {"maps": C, "maps all zero": dark, "share of units above zero": on, "largest": maps.max()}
        title = f"What {conv} answers: {C} maps of {H}×{W}"
        pictures.append(
            Picture(
                conv,
                title,
                f"All {C} activation maps of {conv} after the ReLU, for validation image 0 (class "
                f"{label}, shown at the top left). One colour scale for all: black is 0, so bright places "
                "are where this map's filter found what it looks for. A map's number is its row's number "
                f"plus its column's. {s.made} {dark} of the maps are dark everywhere; {100 * on:.0f} % of "
                "all units are above zero. Maps that show the object's outline respond to edges; maps "
                "that show its inside or its ground respond to brightness or colour.",
                f"Grid of {C} heat maps of layer {conv} for an image of class {label}; {dark} are completely dark.",
                figures.sheet(
                    figures.heat(maps, high),
                    8,
                    title,
                    "Map number = row + column. One colour scale for all maps.",
                    rows=[str(i) for i in range(0, C, 8)],
                    heads=[str(i) for i in range(min(8, C))],
                    scale=("magma", 0, high, "activation after the ReLU"),
                    inset=(figures.photo(image)[0], f"class {label}"),
                ),
                group="What each convolution answers",
                tab=conv,
            )
        )
    return pictures, metrics


def filters(s):
    """The weights of the first convolution."""
    from viz import activations, figures

    conv = next(iter(s.convs))
    w = activations.filters(s.net, conv)  # (K, kh, kw, C)
    K, kh, kw, C = w.shape
    limit = float(np.abs(w).max())
    color = C == 3
    how = (
        "Grey is 0; a colour means that the filter adds up this colour, its opposite that it subtracts it"
        if color
        else "Red adds up brightness, blue subtracts it, white ignores it"
    )
    title = f"Filters of {conv}: {K} of {kh}×{kw}"
    picture = Picture(
        "filters",
        title,
        f"The weights of {conv}, all on one scale from {-limit:.2f} to {limit:.2f}. {how}. A filter's "
        f"number is its row's number plus its column's: the same as that of its map. {s.made} Two halves "
        "of opposite sign make an edge detector across their border; one sign throughout makes a "
        "detector of brightness or colour. Small networks that train briefly keep much of the noise they "
        "began with.",
        f"Grid of {K} convolution filters of {kh} by {kw} pixels, weights up to {limit:.2f}.",
        figures.sheet(
            figures.signed(w, limit),
            8,
            title,
            f"{how}.",
            rows=[str(i) for i in range(0, K, 8)],
            heads=[str(i) for i in range(8)],
            gap=20,
            scale=None if color else ("RdBu_r", -limit, limit, "weight"),
        ),
    )
    norms = np.sqrt((w**2).sum((1, 2, 3)))
    return [picture], {"filters": K, "largest weight": limit, "norm, median": np.median(norms)}
