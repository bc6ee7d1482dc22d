"""Images made to excite a class or a hidden unit, way by way, and whether other networks recognise them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.special import softmax

from tinycnn import files, streams
from tinycnn.layers import Conv2D, ReLU
from viz import activations, embedding, figures, maximize
from viz.ascent import recipes
from viz.report.results import Picture
from viz.study import judges, ways
from viz.study.subject import Study

SEARCHED = 200  # test images that hidden units are chosen on
UNITS = 16


def run(s: Study):
    """Return (pictures, facts)."""
    trial, about_the_trial = _trial(s)
    study, published, real = ways.study_ways(s), ways.published_ways(s), ways.surest(s)
    verdicts = {way.name: judges.judge(s, way) for way in (*study, *published, real)}
    pictures = [
        trial,
        _classes(s, study, verdicts, "classes", "with the study's regularizers"),
        _classes(s, published, verdicts, "published", "by published recipes and by ours"),
        _table(s, verdicts),
        _best(s, published[-1], real, verdicts),
        *[_hidden(s, i, layer, relu) for i, (layer, relu) in enumerate(_hidden_layers(s.net))],
    ]
    facts = {
        "layer": s.output,
        "classes": len(s.info.classes),
        "judges": list(s.judges),
        "share_of_the_iterations": s.effort,
        "least_iterations": ways.LEAST,
        "photographs": ways.PER_CLASS,
        "trial": about_the_trial,
        "ways": {name: judges.means(v) for name, v in verdicts.items()},
        "iterations": ways.iterations(s),
    }
    return pictures, facts


def _trial(s):
    """The study's preliminary trial: class 3, from zeros, plain ascent; after more and more steps."""
    c, recipe = min(3, len(s.info.classes) - 1), recipes.PRELIMINARY
    steps = ways.steps(s, recipe.steps)
    times = sorted({min(t, steps) for t in (1, 3, 10, 30, steps)})
    runs, x = [], recipe.start
    for before, after in pairwise([0, *times]):
        part = replace(recipe, steps=after - before, start=x)
        runs.append(maximize.maximize(s.net, s.output, [c], part, seed=s.seed))
        x = runs[-1].last
    last, m = np.concatenate([r.last for r in runs]), runs[-1]
    shown = maximize.deprocess(last)
    logits = s.net.logits(np.concatenate([last, ways.bits(shown)]).astype(s.net.dtype))
    made, seen = softmax(logits.astype(np.float64), axis=-1)[:, c].reshape(2, -1)
    title = f"First trial: class {s.name(c)}, unrestrained"
    figure = figures.sheet(
        figures.photo(shown),
        len(times),
        title,
        f"Plain gradient ascent with step {recipe.optimizer.rate:g}, after so many iterations.",
        heads=[f"{t}" for t in times],
        captions=[f"{100 * p:.0f} %" for p in made],
    )
    facts = {
        "class_name": s.name(c),
        "rate": recipe.optimizer.rate,
        "shown_after_iterations": times,
        "score": m.scores[-1, 0],
        "confidence_as_made": made[-1],
        "confidence_as_shown": seen[-1],
        "lowest_pixel": m.last.min(),
        "highest_pixel": m.last.max(),
    }
    return Picture("trial", title, figure), facts


def _classes(s, some, verdicts, name, how):
    """A row a class, a column a way."""
    heads = [way.name for way in some]
    seen = np.stack([verdicts[head]["confidence_as_shown"] for head in heads], 1)
    known = np.stack([_recognised(verdicts[head]) for head in heads], 1)
    title = f"What each class looks like, {how}"
    figure = figures.sheet(
        figures.photo(np.stack([way.shown for way in some], 1).reshape(-1, *s.net.input_shape)),
        len(heads),
        title,
        "Number: confidence in the class, per cent." + (" Frame and tick: recognised." if s.judges else ""),
        captions=[_mark(p, k) for p, k in zip(seen.ravel(), known.ravel())],
        rows=s.names,
        heads=[head.replace(" ", "\n", 1) for head in heads],
        frames=[figures.RIGHT if k else None for k in known.ravel()],
    )
    facts = {"columns": heads, "lowest": seen.min(), "highest": seen.max(), "known": known.sum(0), "how": ways.ABOUT}
    facts |= ways.about_ours(s)
    return Picture(name, title, figure, facts=facts)


def _table(s, verdicts):
    """The ablation in numbers, a row a way."""
    columns = [name for name in next(iter(verdicts.values())) if name.startswith(("confidence", "recognised"))]
    heads = [c.removeprefix("confidence_").replace("_", " ").replace("another ", "another\n") for c in columns]
    title = "Who recognises the pictures?"
    figure = figures.shares(
        [[v[name].mean() for name in columns] for v in verdicts.values()],
        list(verdicts),
        [head.replace("as ", "as\n") for head in heads],
        title,
        "Mean confidence in the class of each generated image"
        + (", and the share that both other networks name." if s.judges else "."),
        "per cent",
    )
    return Picture("recognised", title, figure)


def _best(s, ours, real, verdicts):
    """Our images, large, each beside a photograph."""
    made, photographs = verdicts[ours.name], verdicts[real.name]
    captions, frames = [], []
    for c, known in enumerate(_recognised(made)):
        captions.append(f"{s.name(c)}: {_mark(made['confidence_as_shown'][c], known)}")
        captions.append(f"training image: {_mark(photographs['confidence_as_shown'][c], False)}")
        frames += [figures.RIGHT if known else None, None]
    title = "Our picture of each class, beside a training image"
    figure = figures.sheet(
        figures.photo(np.stack([ours.shown, real.shown], 1).reshape(-1, *s.net.input_shape)),
        4,
        title,
        "Left: made by gradient ascent; right: a training image. Number: confidence, per cent.",
        captions=captions,
        frames=frames,
        group=2,
    )
    return Picture("best", title, figure, facts={"confidence": made["confidence_as_shown"].mean()})


def _recognised(verdict):
    return verdict.get("recognised", np.zeros(len(verdict["score"]), bool))


def _mark(confidence, recognised):
    return f"{100 * confidence:.0f}" + " \N{CHECK MARK}" * bool(recognised)


def _hidden_layers(net):
    """The convolutions and the last hidden dense layer, each with its ReLU."""
    pairs = [(a, b) for a, b in pairwise(net.layers) if isinstance(b, ReLU)]
    return [(a.name, b.name) for a, b in pairs if isinstance(a, Conv2D) or a is pairs[-1][0]]


def _hidden(s, i, layer, relu):
    """Images for the strongest units of a hidden layer, each above what excites it most in a photograph."""
    units, real, box = _strongest(s, layer, relu)
    recipe = recipes.hidden(s.net.input_shape[0], box is None)
    recipe = replace(recipe, steps=ways.steps(s, recipe.steps), parametrization=ways.prior(s))
    noise = streams.seed(s.seed, "hidden units", i)
    made = ways.bits(maximize.maximize(s.net, layer, units, recipe, seed=noise).images)
    if box is not None:
        made = activations.crop(made, np.tile(box, (len(units), 1)))
    half = -(-len(units) // 2)
    tiles = [figures.photo(x[i : i + half]) for i in (0, half) for x in (made, real)]
    facts = {
        "layer": layer,
        "units": len(units),
        "of": s.net.shapes[layer][-1],
        "searched": len(s.test_images[:SEARCHED]),
        "kind": "unit" if box is None else "map",
        "rows": made.shape[1],
        "columns": made.shape[2],
        "steps": recipe.steps,
        "optimizer": type(recipe.optimizer).__name__,
    }
    title = f"What {facts['kind']}s of {layer} look for"
    figure = figures.sheet(
        np.concatenate(tiles),
        half,
        title,
        f"Upper: made to excite a {facts['kind']}; lower: what excites it most in {facts['searched']} test images.",
        captions=[str(text) for i in (0, half) for text in (*units[i : i + half], *[""] * half)],
        rows=["made", "real"] * 2,
    )
    return Picture(f"units-{files.indexed(i, layer)}", title, figure, words="units", facts=facts)


def _strongest(s, layer, relu):
    """The units that answer most to a test image, the part of it that they see, and that of a map's centre."""
    images, shape = s.test_images[:SEARCHED], s.net.shapes[layer]
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
