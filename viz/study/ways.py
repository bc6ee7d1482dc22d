"""Way by way: an image for each class by each method, all from one base recipe, all brought to images alike.

Every row differs from `BASE` by one factor, a field of its `Recipe`; only what is published as a whole does not: the
papers' recipes, the study's code, and ours (and "all five", which is five of one factor).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from viz import saliency
from viz.ascent import Recipe, maximize, optimizers
from viz.ascent import recipes as presets
from viz.ascent import regularizers as r
from viz.ascent.parametrize import Spectral

# The class score, with nothing to hold it. The study starts from black, where a network of ReLUs may have no gradient
# at all: nothing moves. So the base starts from weak noise, as published ascents do; the study's code goes both ways.
START = presets.NOISE
BASE = Recipe(START, optimizer=optimizers.Adam(0.02), steps=250)
FIVE = {  # of the study's section
    "decay": (r.Decay(0.01), "x shrinks by 1 % a step"),
    "blur": (r.Blur(0.5, 4), "a Gaussian of 0.5 pixels every 4 steps"),
    "small norm": (r.ClipNorm(30), "the 30 % of pixels nearest to 0 become 0"),
    "bounded variation": (r.TotalVariation(1.0, beta=1.0), "total variation with exponent 1, weight 1"),
    "bounded range": (r.BoundedRange(1.0), "a penalty on pixels beyond 80 of 255, exponent 6, weight 1"),
}
SIXTH = (r.ClipContribution(50), "the half of the pixels that matters least becomes 0")  # of the study's code
ABOUT = {"rate": BASE.optimizer.rate, "regularizers": {name: what for name, (_, what) in FIVE.items()}}
ABOUT["regularizers"]["small contribution"] = SIXTH[1]
TUNED = {  # which constants were chosen how
    "base and regularizers": "ours, where no source gives them; not tuned on judges",
    "published, scaled": "one factor a recipe: the first step changes the images as much as the base's does",
    "ours, 28 pixels": "tuned on MNIST, with judges of these two kinds",
    "ours, 32 and 96 pixels": "tuned on CIFAR-10 and the stand-in of STL-10, with other judges",
}
LEAST = 20  # iterations of an ascent in the shortest run
MOST, MOST_PUBLISHED = 300, 250  # of any ascent that is compared; of published recipes, which take up to 1,000
STATISTICS = 2000  # training images that the parametrisation is measured on
PHOTOGRAPHS = 20  # test images of each class, judged as the made ones are


@dataclass(frozen=True)
class Way:
    """Images that were all made in one way.

    Attributes
    ----------
    name : str
    raw : array (N, H, W, C)
        As they were made.
    classes : array (N,)
        The class that each is to show.
    """

    name: str
    raw: np.ndarray
    classes: np.ndarray

    @cached_property
    def shown(self):
        """The images within [0, 1], in steps of 1 / 255: these are judged, and these are drawn, (N, H, W, C)."""
        return bits(self.raw)


def steps(s, count, most=MOST):
    """Return the iterations of an ascent that has `count` of them in its recipe."""
    count = min(count, most)
    return min(count, max(LEAST, round(s.effort * count)))


def regularized():
    """Return the study's recipes: the base, its five regularizers alone and together, the sixth, and its code."""
    alone = {name: one for name, (one, _) in FIVE.items()}
    sets = {"nothing": (), **alone, "all five": tuple(alone.values()), "small contribution": SIXTH[0]}
    return {name: replace(BASE, regularizers=some) for name, some in sets.items()} | {
        "the study's code": presets.STUDY_CODE,
        "its code, from noise": replace(presets.STUDY_CODE, start=START),
    }


def published(s):
    """Return the recipes of Yosinski et al. and of Mahendran and Vedaldi, and the factor by which each is scaled.

    Around the mean colour, each as published and with all its changes multiplied by one factor: that with which the
    first step changes the images by the same root mean square as the base's first step.
    """
    sets = {f"Yosinski {i}": recipe for i, recipe in enumerate(presets.YOSINSKI_SETS, 1)}
    sets = {
        name: replace(one, mean=color(s), steps=min(one.steps, MOST_PUBLISHED))
        for name, one in (sets | {"Mahendran": presets.MAHENDRAN}).items()
    }
    factors = {name: scale(s, recipe) for name, recipe in sets.items()}
    recipes = {}
    for name, recipe in sets.items():
        recipes[name] = recipe
        recipes[f"{name} scaled"] = replace(recipe, optimizer=optimizers.Scaled(recipe.optimizer, factors[name]))
    return recipes, factors


def ours(s):
    """Return our recipe for images of this size, on the parametrisation by the statistics of the training images."""
    return replace(presets.for_size(s.net.input_shape[0]), parametrization=prior(s))


def one_factor(s):
    """Return recipes that differ from the base in one field each, and the base first."""
    own = ours(s)
    return {"base": BASE} | {
        name: replace(BASE, **change)
        for name, change in {
            "from black": {"start": 0.0},
            "mean colour": {"mean": color(s)},
            "log-odds": {"objective": "log-odds"},
            "spectrum": {"parametrization": own.parametrization},
            "moved copies": {"transforms": own.transforms},
            "plain gradient": {"optimizer": presets.STUDY_CODE.optimizer},
            "fewer steps": {"steps": BASE.steps // 3},
            "clipped pixels": {"regularizers": r.Clip(0, 1)},
        }.items()
    }


def left_out(s):
    """Return ours, and ours with each of its parts put back to the base's in turn."""
    own = ours(s)
    fields = {
        "start": "weak noise",
        "objective": "class score",
        "parametrization": "pixels",
        "transforms": "not moved",
        "views": "one copy",
        "optimizer": "base's rate",
        "steps": "base's steps",
        "regularizers": "no decay",
    }
    return {"ours": own} | {name: replace(own, **{f: getattr(BASE, f)}) for f, name in fields.items()}


def go(s, recipes):
    """Go each way {name: recipe}, and return a `Way` each, an image a class: that of its best step."""
    classes = np.arange(len(s.info.classes))
    several = [replace(recipe, steps=steps(s, recipe.steps)) for recipe in recipes.values()]
    found = maximize.maximize_ways(s.net, s.output, classes, several, seed=s.seed)
    return [Way(name, m.images, classes) for name, m in zip(recipes, found)]


def controls(s):
    """Return what no ascent made: photographs, the same taken for the next class, a grey and a black image."""
    count, rows = len(s.info.classes), s.test_labels
    picked = np.concatenate([np.flatnonzero(rows == c)[:PHOTOGRAPHS] for c in range(count)])
    x, labels = (s.test_images[picked] / 255).astype(s.net.dtype), rows[picked]
    plain = np.zeros((count, *s.net.input_shape), s.net.dtype)
    return [
        Way("photographs", x, labels),
        Way("of another class", x, (labels + 1) % count),
        Way("grey", plain + s.net.dtype.type(0.5), np.arange(count)),
        Way("black", plain, np.arange(count)),
    ]


def scale(s, recipe, units=None):
    """Return the factor of a recipe's changes with which its first step is as large as the base's."""
    images, units = [], np.arange(len(s.info.classes)) if units is None else units
    first = replace(recipe, steps=1, regularizers=())
    maximize.maximize(s.net, s.output, units, first, seed=s.seed, callback=lambda i, x, scores: images.append(x))
    size = np.sqrt(np.square(images[1] - images[0], dtype=np.float64).mean())
    return float(BASE.optimizer.rate / size) if size > 0 else 1.0  # no gradient: no factor moves it


def without_gradient(s):
    """Return for how many classes the score's gradient at the black image is 0 everywhere: no ascent leaves it."""
    classes = np.arange(len(s.info.classes))
    found = saliency.gradient(s.net, np.zeros((len(classes), *s.net.input_shape), s.net.dtype), classes)
    return int((~found.any((1, 2, 3))).sum())


def iterations(s):
    """Return the iterations of each kind of way."""
    counts = [recipe.steps for recipe in presets.YOSINSKI_SETS]
    return {
        "the_study": steps(s, BASE.steps),
        "yosinski": [steps(s, count, MOST_PUBLISHED) for count in counts],
        "yosinski_published": counts,
        "mahendran": steps(s, presets.MAHENDRAN.steps, MOST_PUBLISHED),
        "mahendran_published": presets.MAHENDRAN.steps,
        "ours": steps(s, presets.for_size(s.net.input_shape[0]).steps),
    }


def about_ours(s):
    """Return the constants of our recipe for images of this size."""
    recipe = presets.for_size(s.net.input_shape[0])
    (moved, noise), (decay,) = recipe.transforms, recipe.regularizers
    return {
        "rate": recipe.optimizer.rate,
        "views": recipe.views,
        "decay": decay.theta,
        "shift": moved.shift,
        "degrees": moved.degrees,
        "scale": moved.scale,
        "noise": noise.sigma,
        "training_images": min(STATISTICS, len(s.images)),
    }


def prior(s):
    """Return the parametrisation by the statistics of the training images."""
    return Spectral.of(s.images[:STATISTICS], s.net.dtype)


def color(s):
    """Return the mean colour of training images."""
    return s.images[:10_000].mean((0, 1, 2)) / 255


def bits(x):
    """Return images as 8 bits a colour show them: within [0, 1], in steps of 1 / 255."""
    return (np.round(255 * np.clip(x, 0, 1)) / 255).astype(x.dtype)
