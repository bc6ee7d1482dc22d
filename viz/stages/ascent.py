"""Images made to excite a class: with each regularizer, with all of them, and what the network says to them."""

import numpy as np
from scipy.special import softmax

from ..results import Picture

ASCENT = {"steps": 300, "optimizer": "adam", "step_size": 0.02, "init": "zeros"}
EXPLAINED = {
    "decay": "x shrinks by 1 % a step",
    "blur": "a Gaussian of 0.5 pixels every 4 steps",
    "small norm": "the 30 % of pixels nearest to 0 become 0",
    "small contrib.": "the half of the pixels that matters least becomes 0",
    "variation": "a penalty on differences between neighbours (total variation, weight 0.1)",
}


def maximization(s):
    """Images made to excite each class, with each regularizer and with all of them; what the network says to them."""
    from .. import figures, maximize

    layer, classes = s.output, list(range(len(s.info.classes)))
    names = [s.name(c) for c in classes]
    trial, trial_metrics = _trial(s)
    color = s.images[:10_000].mean((0, 1, 2)) / 255  # what a real picture starts from
    tries = {
        name: maximize.maximize(s.net, layer, classes, seed=s.seed, regularizers=r, mean=mean, **ASCENT)
        for name, r, mean in _ascents(color)
    }
    raw = np.stack([m.images for m in tries.values()], 1)  # (classes, tries, H, W, C)
    shown = np.stack([maximize.deprocess(m.images) for m in tries.values()], 1)
    shown[:, -1] = raw[:, -1]  # this one is a picture as it is
    made, seen = (_confidence(s.net, x) for x in (raw, np.round(255 * shown) / 255))
    heads = [name.replace(" ", "\n", 1) for name in tries]
    how = (
        f"Gradient ascent on the class score ({layer}, before the softmax) from a black image, "
        f"{ASCENT['steps']} iterations of Adam, rate {ASCENT['step_size']}, seed {s.seed}. The "
        f"regularizers: {', '.join(f'{k}: {v}' for k, v in EXPLAINED.items())}; 'all': the five together; "
        "'all, in [0, 1]': the five, around the mean colour of the training images instead of black, and "
        "every pixel kept a real pixel."
    )
    title = "What each class looks like to the network"
    pictures = [
        trial,
        Picture(
            "classes",
            title,
            f"Each row a class, each column a way to keep the image natural. {how} The images are brought "
            "to one contrast, (x - mean) / std * 0.1 + 0.5; the last column is shown as it is. Below "
            "each: the network's confidence in the class for the image as it was made, in per cent. "
            f"{s.made} Read: without help (first column) the ascent ends in noise, and yet the mean "
            f"confidence is {100 * made[:, 0].mean():.0f} %. The smoother the image is held to be, the "
            "more it shows of what the class's images have in common. A confidence near 0 means that the "
            "ascent raised another class's score even more.",
            f"Grid of generated images, {len(names)} classes by {len(heads)} ways; confidences from "
            f"{100 * made.min():.0f} to {100 * made.max():.0f} per cent.",
            figures.sheet(
                figures.photo(shown.reshape(-1, *shown.shape[2:])),
                len(heads),
                title,
                f"Gradient ascent on the class score, {ASCENT['steps']} iterations. Number: confidence in "
                "the class, per cent.",
                captions=[f"{100 * c:.0f}" for c in made.ravel()],
                rows=names,
                heads=heads,
            ),
        ),
    ]
    table = np.concatenate([seen, seen.mean(0, keepdims=True), made.mean(0, keepdims=True)])
    title = "Does the network recognise the pictures?"
    pictures.append(
        Picture(
            "confidence",
            title,
            "The softmax of the network for each generated image, as the figure above shows it (one "
            "contrast, 8 bits): the share it gives to the class that was asked for. Rows: classes, their "
            "mean, and the mean for the images as the ascent made them, with pixels beyond [0, 1]. "
            f"{s.made} Compare the last two rows: where the number falls, what convinced the network is "
            "not what a person sees in the picture. The last column has no such gap: its images are "
            "pictures as they are.",
            f"Table of confidences; mean {100 * seen.mean():.0f} per cent as shown, {100 * made.mean():.0f} as made.",
            figures.shares(
                table,
                [*names, "mean", "mean, as made"],
                heads,
                title,
                "Confidence in the class of each generated image as shown, per cent.",
                "per cent",
            ),
        )
    )
    columns = [h.replace("\n", " ") for h in heads]
    metrics = {
        **trial_metrics,
        "share that reaches its class": {
            "as made": dict(zip(columns, _reached(s.net, raw).mean(0))),
            "as shown": dict(zip(columns, _reached(s.net, np.round(255 * shown) / 255).mean(0))),
        },
        "mean confidence in the class": {
            "as made": dict(zip(columns, made.mean(0))),
            "as shown": dict(zip(columns, seen.mean(0))),
        },
    }
    return pictures, metrics


def _trial(s):
    """The study's preliminary trial: class 3, from zeros, plain ascent; after more and more steps."""
    from .. import figures, maximize

    c = min(3, len(s.info.classes) - 1)
    steps = maximize.PRELIMINARY["steps"]
    times = sorted({min(t, steps) for t in (1, 3, 10, 30, steps)})
    runs = [maximize.maximize(s.net, s.output, [c], seed=s.seed, **maximize.PRELIMINARY | {"steps": t}) for t in times]
    last = np.concatenate([m.last for m in runs])
    shown = maximize.deprocess(last)
    logits = s.net.logits(np.concatenate([last, np.round(255 * shown) / 255]).astype(s.net.dtype))
    made, seen = softmax(logits.astype(np.float64), axis=-1)[:, c].reshape(2, -1)
    rate, m = maximize.PRELIMINARY["step_size"], runs[-1]
    title = f"First trial: class {s.name(c)}, unrestrained"
    picture = Picture(
        "trial",
        title,
        f"The study's preliminary trial: class {c} ({s.name(c)}), from an image of zeros, plain gradient "
        f"ascent on the score ({s.output}), {steps} iterations with step {rate:g}, shown after "
        f"{', '.join(map(str, times))} of them. At the end the score is {m.scores[-1, 0]:.3g} and pixels "
        f"run from {m.last.min():.3g} to {m.last.max():.3g}; for the picture each image is brought to one "
        f"contrast. {s.made} The network's confidence at the end: {100 * made[-1]:.1f} % in the image as "
        f"made, {100 * seen[-1]:.1f} % in the picture as shown. Read: a high score alone does not make a "
        "picture.",
        f"{len(times)} noisy generated images for class {s.name(c)}, from iteration {times[0]} to {times[-1]}.",
        figures.sheet(
            figures.photo(shown),
            len(times),
            title,
            f"Plain gradient ascent with step {rate:g}, after so many iterations.",
            heads=[f"{t}" for t in times],
            captions=[f"{100 * p:.0f} %" for p in made],
        ),
    )
    return picture, {
        "trial": {"score": m.scores[-1, 0], "confidence as made": made[-1], "confidence as shown": seen[-1]}
    }


def _ascents(color):
    """The ways of the maximization figure, as `EXPLAINED`: name, regularizers, the image that they start from."""
    from .. import regularizers as r

    five = (r.Decay(0.01), r.Blur(0.5, 4), r.ClipNorm(30), r.ClipContribution(50), r.TotalVariation(0.1))
    alone = [(name, (one,), 0.0) for name, one in zip(EXPLAINED, five)]
    return [("none", (), 0.0), *alone, ("all", five, 0.0), ("all, in [0, 1]", (*five, r.Clip(0, 1)), color)]


def _scores(net, x):
    """Logits (classes, tries, classes) of generated images (classes, tries, H, W, C)."""
    return net.logits(x.reshape(-1, *x.shape[2:]).astype(net.dtype)).reshape(*x.shape[:2], -1)


def _confidence(net, x):
    """The softmax of the class that each image was made for, (classes, tries)."""
    return np.moveaxis(softmax(_scores(net, x).astype(np.float64), axis=-1).diagonal(axis1=0, axis2=2), 0, 1)


def _reached(net, x):
    """Whether that class is the network's answer, (classes, tries)."""
    return _scores(net, x).argmax(-1) == np.arange(len(x))[:, None]
