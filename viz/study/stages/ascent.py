"""Images made to excite a class or a hidden unit, way by way, and whether other networks recognise them."""

from itertools import pairwise

import numpy as np
from scipy.special import softmax

from tinycnn.layers import Conv2D, ReLU
from viz.report.results import Picture

SEARCHED = 200  # validation images that hidden units are chosen on
UNITS = 16


def maximization(s):
    """Images made to excite classes and hidden units, way by way, and whether other networks recognise them."""
    from .. import ways as ablation

    trial, trial_metrics = _trial(s)
    study, published, real = ablation.study_ways(s), ablation.published_ways(s), ablation.surest(s)
    verdicts = {way.name: ablation.judge(s, way) for way in (*study, *published, real)}
    pictures = [
        trial,
        _classes(s, study, verdicts, "classes", "with the study's regularizers", _about_the_study(s)),
        _classes(s, published, verdicts, "published", "by published recipes and by ours", _about_the_published(s)),
        _table(s, verdicts),
        _best(s, published[-1], real, verdicts),
        *[_hidden(s, layer, relu) for layer, relu in _hidden_layers(s.net)],
    ]
    return pictures, {"trial": trial_metrics, "ways": {name: ablation.means(v) for name, v in verdicts.items()}}


def _trial(s):
    """The study's preliminary trial: class 3, from zeros, plain ascent; after more and more steps."""
    from viz import figures, maximize
    from viz.ascent import recipes as presets

    from .. import ways as ablation

    c = min(3, len(s.info.classes) - 1)
    steps = ablation.steps(s, presets.PRELIMINARY.steps)
    times = sorted({min(t, steps) for t in (1, 3, 10, 30, steps)})
    runs, x = [], presets.PRELIMINARY.start
    for before, after in pairwise([0, *times]):
        changes = {"steps": after - before, "start": x}
        runs.append(maximize.maximize(s.net, s.output, [c], presets.PRELIMINARY, seed=s.seed, **changes))
        x = runs[-1].last
    last = np.concatenate([m.last for m in runs])
    shown = maximize.deprocess(last)
    logits = s.net.logits(np.concatenate([last, ablation.bits(shown)]).astype(s.net.dtype))
    made, seen = softmax(logits.astype(np.float64), axis=-1)[:, c].reshape(2, -1)
    rate, m = presets.PRELIMINARY.optimizer.rate, runs[-1]
    title = f"First trial: class {s.name(c)}, unrestrained"
    picture = Picture(
        "trial",
        title,
        f"The study's preliminary trial: class {c} ({s.name(c)}), from an image of zeros, plain gradient "
        f"ascent on the score ({s.output}), {steps} iterations with step {rate:g}, shown after "
        f"{', '.join(map(str, times))} of them. At the end the score is {m.scores[-1, 0]:.3g} and pixels "
        f"run from {m.last.min():.3g} to {m.last.max():.3g}; for the picture each image is brought to one "
        f"contrast. {_short(s)}{s.made} The network's confidence at the end: {100 * made[-1]:.1f} % in the image as "
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
    return picture, {"score": m.scores[-1, 0], "confidence as made": made[-1], "confidence as shown": seen[-1]}


def _classes(s, ways, verdicts, file, how, about):
    """A row a class, a column a way."""
    from viz import figures

    names, heads = [s.name(c) for c in range(len(s.info.classes))], [way.name for way in ways]
    seen = np.stack([verdicts[name]["confidence as shown"] for name in heads], 1)
    known = np.stack([_recognised(verdicts[name]) for name in heads], 1)
    title = f"What each class looks like, {how}"
    return Picture(
        file,
        title,
        f"Each row a class, each column a way to keep the image natural. {about} Below each image: the network's "
        f"confidence in the class for the image as it is shown, in per cent. {_rule(s)}{_short(s)}{s.made} Read: the "
        "more an image is held to what photographs have in common, the more of the class other networks and people "
        "find in it; confidence alone says little.",
        f"Grid of generated images, {len(names)} classes by {len(heads)} ways; confidences from "
        f"{100 * seen.min():.0f} to {100 * seen.max():.0f} per cent"
        + (f"; recognised in each column: {', '.join(map(str, known.sum(0)))}." if s.judges else "."),
        figures.sheet(
            figures.photo(np.stack([way.shown for way in ways], 1).reshape(-1, *s.net.input_shape)),
            len(heads),
            title,
            "Number: confidence in the class, per cent." + (" Frame and tick: recognised." if s.judges else ""),
            captions=[_mark(p, k) for p, k in zip(seen.ravel(), known.ravel())],
            rows=names,
            heads=[name.replace(" ", "\n", 1) for name in heads],
            frames=[figures.RIGHT if k else None for k in known.ravel()],
        ),
    )


def _about_the_study(s):
    from ..ways import ASCENT, FIVE, steps

    return (
        f"Gradient ascent on the class score ({s.output}, before the softmax) from a black image, "
        f"{steps(s, ASCENT.steps)} iterations of Adam, rate {ASCENT.optimizer.rate}, seed {s.seed}. The "
        f"regularizers: {', '.join(f'{name}: {words}' for name, (_, words) in FIVE.items())}; 'all five': together; "
        "'all, in [0, 1]': the five, around the mean colour of the training images instead of black, and every pixel "
        "kept a real pixel. The images are brought to one contrast, (x - mean) / std * 0.1 + 0.5; the last column is "
        "shown as it is."
    )


def _about_the_published(s):
    from viz.ascent import recipes as presets

    from .. import ways as ablation

    ours = presets.for_size(s.net.input_shape[0])
    (moved, noise), (decay,) = ours.transforms, ours.regularizers
    full = [preset.steps for preset in presets.YOSINSKI_SETS]
    *four, fifth, last = (ablation.steps(s, n) for n in (*full, presets.MAHENDRAN.steps, ours.steps))
    cut = "" if four == full else f" (published: {', '.join(map(str, full))})"
    return (
        "The four sets of Yosinski et al. 2015 (1: blur, small norms to 0; 2: decay, small norms to 0; 3: decay, blur; "
        f"4: blur, small contributions to 0), {', '.join(map(str, four))} iterations{cut}; Mahendran and Vedaldi 2016 "
        f"(bounded range, total variation, jitter), {fifth} iterations. These raise the class score ({s.output}), "
        "from noise around the mean colour. Ours raises the logarithm of the class's odds against all others, which "
        f"what speaks for every class does not raise: {last} iterations of Adam, rate {ours.optimizer.rate}, on cosine "
        "coefficients of decorrelated colours, in units of their deviation among "
        f"{min(ablation.STATISTICS, len(s.images)):,} training images and with a decay of {100 * decay.theta:g} % a "
        f"step, each along the mean gradient of {ours.views} copies, moved by up to {moved.shift:.3g} pixels, "
        f"turned by up to {moved.degrees:g} degrees, scaled by up to {moved.scale:g} and with noise of "
        f"{noise.sigma:g}. Seed {s.seed} for all. The images are shown as they are, within [0, 1]."
    )


def _table(s, verdicts):
    """The ablation in numbers, a row a way."""
    from viz import figures

    from .. import ways as ablation

    columns = [name for name in next(iter(verdicts.values())) if name.startswith(("confidence", "recognised"))]
    heads = [
        name.replace("confidence ", "").replace("another ", "another\n").replace("as ", "as\n") for name in columns
    ]
    table = [[v[name].mean() for name in columns] for v in verdicts.values()]
    known = {name: v["recognised"].sum() for name, v in verdicts.items() if s.judges}
    title = "Who recognises the pictures?"
    return Picture(
        "recognised",
        title,
        "Means over the classes, in per cent: the studied network's confidence in the class that an image was made "
        "for, for the image as the ascent made it (pixels may lie beyond [0, 1]) and as the figures show it (8 bits), "
        f"and what networks that had no part in it make of the shown image. {_rule(s)}The last row are photographs: "
        f"of the first {ablation.PER_CLASS} training images of each class the one that the studied network is most "
        f"sure of. {_short(s)}{s.made} Read: an image with high numbers at the left alone convinces one network and "
        "nobody else; what other networks name as well has something of the class in it.",
        f"Table of mean confidences for {len(verdicts)} ways"
        + (f"; recognised: {', '.join(f'{name} {n}' for name, n in known.items())}." if s.judges else "."),
        figures.shares(
            table,
            list(verdicts),
            heads,
            title,
            "Mean confidence in the class of each generated image"
            + (", and the share that both other networks name." if s.judges else "."),
            "per cent",
        ),
    )


def _best(s, ours, real, verdicts):
    """Our images, large, each beside a photograph."""
    from viz import figures

    from .. import ways as ablation

    made, photographs = verdicts[ours.name], verdicts[real.name]
    captions, frames = [], []
    for c, known in enumerate(_recognised(made)):
        captions.append(f"{s.name(c)}: {_mark(made['confidence as shown'][c], known)}")
        captions.append(f"training image: {_mark(photographs['confidence as shown'][c], False)}")
        frames += [figures.RIGHT if known else None, None]
    title = "Our picture of each class, beside a training image"
    return Picture(
        "best",
        title,
        "Left of each pair the image made by our preset (the last column of the published recipes' figure), right the "
        f"training image that the network is most sure of, of the first {ablation.PER_CLASS} of the class. Numbers: "
        f"the network's confidence in the class, per cent. {_rule(s)}{_short(s)}{s.made} Read: the ascent collects "
        "what tells a class from the others. Where a class is a shape of few strokes, that is the shape; where it is "
        "an animal in any pose, it is the colours, outlines and textures of its kind, often several at once.",
        f"{len(s.info.classes)} pairs of a generated image and a training image; mean confidence in the generated "
        f"ones {100 * made['confidence as shown'].mean():.0f} per cent.",
        figures.sheet(
            figures.photo(np.stack([ours.shown, real.shown], 1).reshape(-1, *s.net.input_shape)),
            4,
            title,
            "Left: made by gradient ascent; right: a training image. Number: confidence, per cent.",
            captions=captions,
            frames=frames,
            group=2,
        ),
    )


def _recognised(verdict):
    return verdict.get("recognised", np.zeros(len(verdict["score"]), bool))


def _mark(confidence, recognised):
    return f"{100 * confidence:.0f}" + " \N{CHECK MARK}" * bool(recognised)


def _rule(s):
    if not s.judges:
        return "There are no other networks to judge the images. "
    names = " and ".join(s.judges)
    return f"Recognised: networks of {names}, trained on the same images, both name the class of the image as shown. "


def _short(s):
    from .. import ways as ablation

    return (
        "" if s.effort == 1 else f"A short run: {100 * s.effort:.2g} % of the iterations, at least {ablation.LEAST}. "
    )


def _hidden_layers(net):
    """The convolutions and the last hidden dense layer, each with its ReLU."""
    pairs = [(a, b) for a, b in pairwise(net.layers) if isinstance(b, ReLU)]
    return [(a.name, b.name) for a, b in pairs if isinstance(a, Conv2D) or a is pairs[-1][0]]


def _hidden(s, layer, relu):
    """Images for the strongest units of a hidden layer, each above what excites it most in a photograph."""
    from viz import activations, figures, maximize
    from viz.ascent import recipes as presets

    from .. import ways as ablation

    units, real, box = _strongest(s, layer, relu)
    preset = presets.hidden(s.net.input_shape[0], box is None)
    changes = {"steps": ablation.steps(s, preset.steps), "parametrization": ablation.prior(s)}
    made = ablation.bits(maximize.maximize(s.net, layer, units, preset, seed=s.seed, **changes).images)
    kind, part, where = "unit", "image", ""
    if box is not None:
        made = activations.crop(made, np.tile(box, (len(units), 1)))
        kind, part, where = "map", f"patch of {made.shape[1]}×{made.shape[2]} pixels", " at the centre of the image"
    half = -(-len(units) // 2)
    tiles = [figures.photo(x[i : i + half]) for i in (0, half) for x in (made, real)]
    searched, title = len(s.val_images[:SEARCHED]), f"What {kind}s of {layer} look for"
    return Picture(
        f"units-{layer}",
        title,
        f"{len(units)} of the {s.net.shapes[layer][-1]} {kind}s of {layer}: those that answer most to one of "
        f"{searched} validation images, where possible each to another. Upper rows: the {part} made to excite the "
        f"{kind}{where}, by gradient ascent on its activation before the ReLU, {changes['steps']} iterations "
        f"({type(preset.optimizer).__name__.lower()} steps) on the coefficients of our preset, with decay, "
        f"seed {s.seed}. Below each the {part} of a validation image that excites it most (what is beyond the image is "
        "black). "
        f"Number: the {kind}. {_short(s)}{s.made} Read: what both have in common is what the {kind} answers to.",
        f"{len(units)} pairs of a generated and a real {part}, for the strongest {kind}s of {layer}.",
        figures.sheet(
            np.concatenate(tiles),
            half,
            title,
            f"Upper: made to excite a {kind}; lower: what excites it most in {searched} validation images.",
            captions=[str(text) for i in (0, half) for text in (*units[i : i + half], *[""] * half)],
            rows=["made", "real"] * 2,
        ),
    )


def _strongest(s, layer, relu):
    """The units that answer most to a validation image, the part of it that they see, and that of a map's centre."""
    from viz import activations, embedding

    images, shape = s.val_images[:SEARCHED], s.net.shapes[layer]
    if len(shape) == 1:
        answers = embedding.features(s.net, images, relu)
        units = _choose(answers.max(0), answers.argmax(0))
        return units, images[answers.argmax(0)[units]], None
    top = activations.top_images(s.net, images, relu, k=1)
    units = _choose(top.values[:, 0], top.indices[:, 0])
    size, stride, offset = (np.array(v) for v in s.net.receptive_field(layer))
    corner = offset + stride * (np.array(shape[:2]) // 2)
    real = activations.crop(images[top.indices[units, 0]], top.boxes[units, 0])
    return units, real, np.concatenate([corner, corner + size])


def _choose(strength, image):
    """The units that answer most, each to another image; if images run out, the strongest of the others too."""
    order = np.argsort(-strength, kind="stable")
    firsts = np.sort(np.unique(image[order], return_index=True)[1])
    return order[np.concatenate([firsts, np.setdiff1d(np.arange(len(order)), firsts)])][:UNITS]
