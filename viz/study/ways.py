"""Way by way: an image for each class by each method."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from viz.ascent import Recipe, maximize
from viz.ascent import recipes as presets
from viz.ascent import regularizers as r
from viz.ascent.optimizers import Adam
from viz.ascent.parametrize import Spectral

ASCENT = Recipe(optimizer=Adam(0.02), steps=300)  # of the study's five
FIVE = {
    "decay": (r.Decay(0.01), "x shrinks by 1 % a step"),
    "blur": (r.Blur(0.5, 4), "a Gaussian of 0.5 pixels every 4 steps"),
    "small norm": (r.ClipNorm(30), "the 30 % of pixels nearest to 0 become 0"),
    "small contrib.": (r.ClipContribution(50), "the half of the pixels that matters least becomes 0"),
    "variation": (r.TotalVariation(0.1), "a penalty on differences between neighbours (total variation, weight 0.1)"),
}
ABOUT = {"rate": ASCENT.optimizer.rate, "regularizers": {name: what for name, (_, what) in FIVE.items()}}
LEAST = 20  # iterations of an ascent in the shortest run
LARGE, PATIENCE = 64, 300  # on images of at least so many rows no ascent has more iterations
STATISTICS = 2000  # training images that the parametrisation is measured on
PER_CLASS = 100  # training images of a class, of which the surest is shown


@dataclass(frozen=True)
class Way:
    """An image for each class, all made in one way.

    Attributes
    ----------
    name : str
    raw : array (classes, H, W, C)
        As they were made.
    shown : array (classes, H, W, C)
        As figures show them, in steps of 1 / 255 within [0, 1]: this is judged.
    scores : array (classes,)
        The class scores of the raw images.
    """

    name: str
    raw: np.ndarray
    shown: np.ndarray
    scores: np.ndarray


def steps(s, count):
    """Return the iterations of an ascent that has `count` of them in a full run on small images."""
    if s.net.input_shape[0] >= LARGE:
        count = min(count, PATIENCE)
    return min(count, max(LEAST, round(s.effort * count)))


def iterations(s):
    """Return the iterations of each kind of way."""
    published = [recipe.steps for recipe in presets.YOSINSKI_SETS]
    return {
        "the_study": steps(s, ASCENT.steps),
        "yosinski": [steps(s, count) for count in published],
        "yosinski_published": published,
        "mahendran": steps(s, presets.MAHENDRAN.steps),
        "ours": steps(s, presets.for_size(s.net.input_shape[0]).steps),
    }


def about_ours(s):
    """Return the constants of our recipe for images of this size."""
    recipe = presets.for_size(s.net.input_shape[0])
    (moved, noise), (decay,) = recipe.transforms, recipe.regularizers
    return {
        "ours": {
            "rate": recipe.optimizer.rate,
            "views": recipe.views,
            "decay": decay.theta,
            "shift": moved.shift,
            "degrees": moved.degrees,
            "scale": moved.scale,
            "noise": noise.sigma,
            "training_images": min(STATISTICS, len(s.images)),
        }
    }


def prior(s):
    """Return the parametrisation by the statistics of the training images."""
    return Spectral.of(s.images[:STATISTICS], s.net.dtype)


def study_ways(s):
    """Return the ways of the study: unrestrained, each of its five regularizers alone, all together."""
    five = tuple(step for step, _ in FIVE.values())
    sets = {"nothing": (), **{name: (step,) for name, (step, _) in FIVE.items()}, "all five": five}
    ways = {name: replace(ASCENT, regularizers=some) for name, some in sets.items()}
    ways["all, in [0, 1]"] = replace(ASCENT, regularizers=(*five, r.Clip(0, 1)), mean=_color(s))
    return _run(s, ways, deprocessed=sets)


def published_ways(s):
    """Return the ways of Yosinski et al. and of Mahendran and Vedaldi, around the mean colour, and, last, ours."""
    color = _color(s)
    ways = {f"Yosinski {i}": replace(recipe, mean=color) for i, recipe in enumerate(presets.YOSINSKI_SETS, 1)}
    ways["Mahendran"] = replace(presets.MAHENDRAN, mean=color)
    ways["ours"] = replace(presets.for_size(s.net.input_shape[0]), parametrization=prior(s))
    return _run(s, ways)


def surest(s):
    """Return, as a way, the training image of each class that the network is most sure of, of the first `PER_CLASS`."""
    picked = [np.flatnonzero(s.labels == c)[:PER_CLASS] for c in range(len(s.info.classes))]
    best = [some[softmax(s.net.logits(s.images[some]), axis=1)[:, c].argmax()] for c, some in enumerate(picked)]
    x = (s.images[best] / 255).astype(s.net.dtype)
    return Way("training images", x, x, s.net.logits(x).diagonal())


def bits(x):
    """Return images as 8 bits a colour show them: within [0, 1], in steps of 1 / 255."""
    return (np.round(255 * np.clip(x, 0, 1)) / 255).astype(x.dtype)


def _color(s):
    return s.images[:10_000].mean((0, 1, 2)) / 255


def _run(s, ways, deprocessed=()):
    """Go each way {name: recipe}; those of `deprocessed` are shown at a common contrast."""
    recipes = [replace(recipe, steps=steps(s, recipe.steps)) for recipe in ways.values()]
    found = maximize.maximize_ways(s.net, s.output, range(len(s.info.classes)), recipes, seed=s.seed)
    return [
        Way(
            name,
            m.images,
            bits(maximize.deprocess(m.images) if name in deprocessed else m.images),
            m.scores[m.best_step].diagonal(),
        )
        for name, m in zip(ways, found)
    ]
