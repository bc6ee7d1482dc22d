"""Images made to excite a class or a hidden unit, way by way, and whether other networks recognise them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from tinycnn import files, streams
from tinycnn.layers import Conv2D
from viz import activations, embedding, figures, maximize
from viz.ascent import recipes
from viz.ascent.optimizers import Constant
from viz.metrics.statistics import interval
from viz.report.results import Links, Picture
from viz.study import judges, ways
from viz.study.subject import Study

SEARCHED = 200  # test images that hidden units are chosen on
UNITS = 16


def run(s: Study):
    """Return (pictures, facts)."""
    trial, about_the_trial = _trial(s)
    published, factors = ways.published(s)
    study = ways.go(s, ways.regularized())
    papers = ways.go(s, published | {"ours": ways.ours(s)})
    controls = ways.controls(s)
    verdicts = {way.name: judges.judge(s, way) for way in (*study, *papers, *controls)}
    nothing, names = verdicts["nothing"], [way.name for way in study[1:]]
    pictures = [
        trial,
        grid(s, study, verdicts, "classes", "with the study's regularizers"),
        *_published(s, papers, verdicts),
        _table(s, verdicts),
        *gains(s, {name: verdicts[name] for name in names}, nothing, "gains", "nothing"),
        _best(s, papers[-1], controls[0], verdicts["ours"]),
        *[_hidden(s, i, layer, relu) for i, (layer, relu) in enumerate(_hidden_layers(s))],
    ]
    return pictures, about(s) | {
        "layer": s.output,
        "classes_without_gradient_at_black": ways.without_gradient(s),
        "photographs_of_a_class": ways.PHOTOGRAPHS,
        "trial": about_the_trial,
        "ways": {name: judges.means(v) for name, v in verdicts.items()},
        "all_five_less_nothing": vars(judges.gain(verdicts["all five"], nothing)),
        "photographs": judges.means(verdicts["photographs"]),
        "scaled_by": factors,
        "how": ways.ABOUT,
        "ours": ways.about_ours(s),
        "tuned": ways.TUNED,
        "iterations": ways.iterations(s),
    }


def about(s):
    """Return what captions of generated images say of classes, judges and a short run."""
    return {
        "classes": len(s.info.classes),
        "judges": list(s.judges),
        "about_judges": s.about_judges,
        "share_of_the_iterations": s.effort,
        "least_iterations": ways.LEAST,
    }


def _trial(s):
    """The study's preliminary trial, class 3 by plain ascent, from weak noise, at its rate and at one of ours."""
    c, published = min(3, len(s.info.classes) - 1), replace(recipes.PRELIMINARY, start=ways.START)
    own = published.optimizer.rate * ways.scale(s, published, [c])
    kinds = {f"rate_{published.optimizer.rate:g}": published.optimizer, "ours": Constant(own)}
    steps = ways.steps(s, published.steps, published.steps)
    times = sorted({min(t, steps) for t in (1, 3, 10, 30, 100, steps)})
    parts, x = [], [published.start] * len(kinds)
    for before, after in pairwise([0, *times]):
        some = [replace(published, optimizer=o, steps=after - before, start=y) for o, y in zip(kinds.values(), x)]
        parts.append(maximize.maximize_ways(s.net, s.output, [c], some, seed=s.seed))
        x = [m.last for m in parts[-1]]
    way = ways.Way("trial", np.concatenate([part[i].last for i in range(len(kinds)) for part in parts]), c)
    made, seen = (judges.confidence(s.net, y, c) for y in (way.raw, way.shown))
    odds = [judges.log_odds(net, way.shown, c) for net in s.judges.values()]
    odds = np.mean(odds, axis=0) if odds else np.full(len(seen), np.nan)
    title = f"First trial: class {s.name(c)}, unrestrained"
    figure = figures.sheet(
        figures.photo(way.shown),
        len(times),
        title,
        "Plain gradient ascent, by iterations. Below: the network's confidence in the image as shown.",
        heads=[f"{t}" for t in times],
        rows=[f"rate {rate:.2g}" for rate in (published.optimizer.rate, own)],
        captions=[f"{100 * p:.0f} %" for p in seen],
    )
    facts = {"class_name": s.name(c), "shown_after_iterations": times, "final": times[-1]}
    for i, name in enumerate(kinds):
        j = slice(i * len(times), (i + 1) * len(times))
        facts[name] = {
            "rate": kinds[name].rate,
            "confidence_after": dict(zip(times, seen[j].tolist())),
            "confidence_as_made_at_the_end": made[j][-1],
            "confidence_at_the_end": seen[j][-1],
            "log_odds_after": dict(zip(times, odds[j].tolist())),
            "log_odds_at_the_end": odds[j][-1],
            "first_above_a_half": next((t for t, p in zip(times, seen[j]) if p > 0.5), None),
            "lowest_pixel": way.raw[j][-1].min(),
            "highest_pixel": way.raw[j][-1].max(),
            "total_variation": judges.variation(way.shown[j])[-1],
        }
    return Picture("trial", title, figure), facts


def grid(s, some, verdicts, name, how):
    """A row a class, a column a way."""
    heads, n = [way.name for way in some], len(s.judges)
    seen = np.stack([verdicts[head]["confidence_as_judged"] for head in heads], 1)
    votes = np.sum([[judges.named(net, way.shown, way.classes) for way in some] for net in s.judges.values()], 0)
    votes = np.transpose(votes) if n else np.zeros(seen.shape, int)
    title = f"What each class looks like, {how}"
    others = f", and how many of {n} judges name it" if n else ""
    figure = figures.sheet(
        figures.photo(np.stack([way.shown for way in some], 1).reshape(-1, *s.net.input_shape)),
        len(heads),
        title,
        f"Below each: the network's confidence in the class{others}.",
        captions=[
            f"{100 * p:.0f}\N{NARROW NO-BREAK SPACE}%" + f", {k}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{n}" * bool(n)
            for p, k in zip(seen.ravel(), votes.ravel())
        ],
        rows=s.names,
        heads=[head.replace(" ", "\n") for head in heads],
    )
    facts = {"columns": heads, "lowest": seen.min(), "highest": seen.max()}
    return Picture(name, title, figure, facts=facts)


def _published(s, papers, verdicts):
    """The papers' recipes as published, and with their rates scaled, each beside ours: two tabs of one place."""
    for tab, chosen in (("as published", papers[:-1:2]), ("scaled", papers[1:-1:2])):
        name = "published" if tab == "as published" else tab
        made = grid(s, (*chosen, papers[-1]), verdicts, name, f"by published recipes, {tab}, and ours")
        yield replace(made, words="published", group="published", tab=tab, facts=made.facts | {"tab": tab})


def gains(s, verdicts, other, name, than):
    """Each way's log-odds less another's, paired by class, as intervals that hold together; none without judges."""
    if not s.judges:
        return []
    found = {way: judges.gain(v, other, len(verdicts)) for way, v in verdicts.items()}
    more, less = [way for way, i in found.items() if i.low > 0], [way for way, i in found.items() if i.high < 0]
    title = f"What each changes, against {than}"
    figure = figures.intervals(
        found,
        title,
        f"Judges' mean log-odds less those of {than}: means over {len(s.info.classes)} classes, paired, "
        "95 % for all together.",
        "difference of log-odds",
        reference=(0, than),
    )
    facts = {"than": than, "found": {way: vars(i) for way, i in found.items()}, "more": more, "less": less}
    return [Picture(name, title, figure, facts=facts)]


def _table(s, verdicts):
    """Every way and every control in numbers, judged alike."""
    columns = {"confidence_as_judged": "the\nnetwork"} | {
        f"confidence_of_{name}": name.replace(" ", "\n", 1) for name in s.judges
    }
    title = "All images, judged alike"
    found, n = [judges.means(v) for v in verdicts.values()], len(s.judges)
    beside = (
        {"log\N{NON-BREAKING HYPHEN}odds": ("log_odds", "z.1f"), "classes\nall name": ("recognised", ".3g")}
        if n
        else {}
    )
    beside["total\nvariation"] = ("total_variation", ".3f")
    figure = figures.shares(
        [[v[name] for name in columns] for v in found],
        list(verdicts),
        list(columns.values()),
        title,
        "Means over the classes; confidence in per cent.",
        "per cent",
        groups={"confidence of": 1 + n} | ({"judges": 2} if n else {}) | {"image": 1},
        beside={head: [format(v[name], digits) for v in found] for head, (name, digits) in beside.items()},
    )
    return Picture("recognised", title, figure)


def _best(s, ours, photographs, verdict):
    """Our images, large, each beside a test image of its class."""
    tiles, captions = [], []
    for c, p in enumerate(verdict["confidence_as_judged"]):
        found = photographs.shown[photographs.classes == c]
        tiles += [ours.shown[c], found[0] if len(found) else np.ones_like(ours.shown[c])]
        captions += [f"{s.name(c)}: {100 * p:.0f} %", "test image" if len(found) else "none"]
    title = "Our picture of each class, beside a test image"
    figure = figures.sheet(
        figures.photo(np.stack(tiles)),
        4,
        title,
        "Left: made by gradient ascent, with the network's confidence; right: the first test image.",
        captions=captions,
        group=2,
    )
    return Picture("best", title, figure, facts={"confidence": vars(interval(verdict["confidence_as_judged"]))})


def _hidden_layers(s):
    """The convolutions and the last hidden dense layer, each with its ReLU."""
    pairs = s.rectified
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
        figures.interleave(figures.photo(made), figures.photo(real)),
        8,
        title,
        f"Left: made to excite it; right: what does so most in {facts['searched']} test images.",
        captions=[text for unit in units for text in (str(unit), "real")],
        frames=[figures.SOFT] * (2 * len(units)),
        group=2,
    )
    links = Links(figure.tiles, [{"layer": layer, "unit": unit} for unit in units for _ in range(2)])
    return Picture(f"units-{files.indexed(i, layer)}", title, figure, words="units", facts=facts, links=links)


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
