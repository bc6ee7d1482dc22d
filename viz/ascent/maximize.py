"""Activation maximization: the image that excites a unit most, found by gradient ascent.

    x* = argmax_x  S(mean + x) - R(x)

S is the unit's activation (for a class: its score before the softmax, or the logarithm of its odds against all others),
R the sum of the penalties. Erhan et al. 2009; Simonyan et al. 2013, arXiv:1312.6034; Yosinski et al. 2015,
arXiv:1506.06579; Mahendran and Vedaldi 2016, arXiv:1512.02017; Olah et al. 2017, doi:10.23915/distill.00007. One
iteration:

    clip -> image -> [transforms] -> forward -> seed at the unit -> backward -> [adjoints] -> minus penalties' gradients
         -> [to the unknowns] -> optimizer's step -> regularizers' steps, in the recipe's order

All units of a call are one batch, and yet independent: each has its own random numbers and step size. So are whole
ascents, in `maximize_ways`: for a small batch the network mostly reads its own weights. `recipes` has the constants
that are known to work, `optimizers`, `regularizers`, `transforms` and `parametrize` the parts.
"""

from dataclasses import dataclass, fields, replace
from numbers import Real

import numpy as np
from scipy.special import logsumexp

from tinycnn import streams
from tinycnn.errors import InputError, choose
from tinycnn.progress import bar

from ..check import units_of
from .recipes import Recipe

PLAIN = Recipe()
TOGETHER = 100  # images of several ascents in one pass


@dataclass(frozen=True)
class Maximization:
    """What `maximize` found for U units.

    Attributes
    ----------
    images : array (U, H, W, C)
        The image of the best step of each unit.
    last : array (U, H, W, C)
        The image of the last step.
    scores : array (steps + 1, U)
        The activation of the unit (objective "sum": of all of the map) for the image of each step, from the start on.
    objectives : array (steps + 1, U)
        What was raised: the scores (or log-odds) minus the penalties.
    best_step : array (U,)
        The step with the largest objective, the first where several have it.
    units : array (U,)
    layer : str
    """

    images: np.ndarray
    last: np.ndarray
    scores: np.ndarray
    objectives: np.ndarray
    best_step: np.ndarray
    units: np.ndarray
    layer: str

    def __repr__(self):
        best = self.scores[self.best_step, range(len(self.units))]
        size, span = f"{len(self.units)} units, {len(self.scores) - 1} steps", f"{best.min():.4g} to {best.max():.4g}"
        return f"Maximization(layer={self.layer!r}, {size}, best scores {span})"


def maximize(net, layer, units, recipe=PLAIN, *, positions=None, seed=0, callback=None, progress=False, **changes):
    """Find, for each of `units`, an image that excites it, by gradient ascent.

    Parameters
    ----------
    net : Network
    layer : str
        The layer of the units. For classes the last one: scores before the softmax. For maps the convolution
        itself: a unit that is off after its ReLU has no gradient, and its image would stay as it is.
    units : int or ints (U,)
        Units of a dense layer, maps of a convolutional one.
    recipe : viz.ascent.Recipe
        How: start, objective, optimizer, steps and what keeps the image natural; by default plain ascent from zeros.
    positions : (row, column) or ints (U, 2), optional
        Which unit of each map is excited; by default the one at (H // 2, W // 2).
    seed : int
        Each unit draws from its own generator, made from `seed` and the unit's number.
    callback : function (step, images, scores), optional
        Called after the evaluation of each step, 0 to `steps`, with its images (U, H, W, C) and the units' activations
        (U,), which it must not change. What it returns is ignored.
    progress : bool
        Show a progress bar.
    **changes
        Fields of the recipe that are to be others: ``maximize(net, "fc2", 3, MAHENDRAN, steps=50)``.

    Returns
    -------
    Maximization
        With transforms, the scores are those of the images as returned, not of their transformed copies (at the
        price of a second forward pass).

    Raises
    ------
    InputError
        An unknown layer or field of a recipe; a unit or position that the layer does not have; an objective that the
        layer has not; a mean, start or parametrization that does not fit the network; an ascent that diverges to
        infinite pixels.
    """
    for name in changes:
        choose(name, [field.name for field in fields(Recipe)], "field of a recipe")
    ascent = _ascent(net, layer, units, replace(_recipe(recipe), **changes), positions, seed, callback, progress)
    return _climb(net, layer, [ascent])[0]


def maximize_ways(net, layer, units, recipes, seed=0):
    """Find images for the same units by several recipes, as `maximize` would one after the other.

    The network sees the images of all recipes in one batch, which takes a fraction of the time.

    Parameters
    ----------
    net, layer, units, seed
        As for `maximize`.
    recipes : sequence of viz.ascent.Recipe

    Returns
    -------
    list of Maximization
        One for each recipe.

    Raises
    ------
    InputError
        As for `maximize`.
    """
    return _climb(net, layer, [_ascent(net, layer, units, _recipe(recipe), seed=seed) for recipe in recipes])


def _recipe(recipe):
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe: expected a viz.ascent.Recipe, got {recipe!r}")
    return recipe


def _climb(net, layer, ascents):
    """Run ascents side by side, their images in common passes through the network; return what each found.

    An ascent is a generator. It yields (images, whether it wants their gradient) and is sent the layer's output; if it
    wants the gradient, it yields the signal at the layer next, and is sent what arrives at the images.
    """
    work, found = net.workspace(), [None] * len(ascents)
    wishes = dict(enumerate(map(next, ascents)))
    while wishes:
        looks = [i for i, (_, gradient) in wishes.items() if not gradient]
        for group in _groups(looks or wishes, {i: len(images) for i, (images, _) in wishes.items()}):
            images = [wishes[i][0] for i in group]
            ends = np.cumsum([len(some) for some in images])[:-1]
            trace = net.forward(np.concatenate(images), upto=layer, work=work)
            answers = np.split(trace[layer], ends)
            if not looks:
                signals = [ascents[i].send(y) for i, y in zip(group, answers)]
                answers = np.split(net.backward(trace, np.concatenate(signals), at=layer, rule="gradient"), ends)
            for i, answer in zip(group, answers):
                try:
                    wishes[i] = ascents[i].send(answer)
                except StopIteration as end:
                    found[i] = end.value
                    del wishes[i]
    return found


def _groups(ascents, sizes):
    """Lists of ascents with `TOGETHER` images at most, or of one ascent that has more."""
    groups, total = [], np.inf
    for i in ascents:
        total += sizes[i]
        if total > TOGETHER:
            groups.append([])
            total = sizes[i]
        groups[-1].append(i)
    return groups


def _ascent(net, layer, units, recipe, positions=None, seed=0, callback=None, progress=False):
    """One ascent as a generator, see `_climb`; the arguments are those of `maximize`."""
    net.check_layer(layer)
    units = units_of(net, layer, units)
    where = _where(net.shapes[layer], layer, units, recipe.objective, positions)
    steps, transforms, views, p = recipe.steps, recipe.transforms, recipe.views, recipe.parametrization
    copies = [i if isinstance(i, slice) else np.repeat(i, views) for i in where]
    penalties = [r for r in recipe.regularizers if hasattr(r, "value_and_grad")]
    others = [r for r in recipe.regularizers if not hasattr(r, "value_and_grad")]
    before = [r for r in others if getattr(r, "before", False)]
    after = [r for r in others if not getattr(r, "before", False)]
    if p is not None and (p.mean.shape != net.input_shape or p.mean.dtype != net.dtype):
        images, wanted = f"{p.mean.dtype} {p.mean.shape}", f"{net.dtype} {net.input_shape}"
        raise InputError(f"parametrization: it makes images of {images}, the network takes {wanted}")
    mean = _fit(recipe.mean, net.input_shape, net.dtype, "mean")
    rngs = [streams.rng(seed, "ascent", unit) for unit in units]
    x = _start(recipe.start, rngs, net)
    state = recipe.optimizer.init(x)
    scores, objectives = np.empty((2, steps + 1, len(units)))
    best = np.full(len(units), -np.inf)
    best_step, best_image = np.zeros(len(units), int), np.empty_like(x)

    for i in bar(range(steps + 1), desc=f"maximize {layer}", disable=not progress, leave=False):
        for r in before:
            x = _apply(r, x, gradient=None, iteration=i, mean=mean)
        image = mean + x if p is None else p.image(x)
        y = yield image, i < steps and not transforms
        scores[i], objectives[i], one = _score(y, where, recipe.objective)
        penalty_grad = 0.0
        for r in penalties:
            value, g = r.value_and_grad(x if p is None else image)
            objectives[i] -= value
            penalty_grad = penalty_grad + g
        better = objectives[i] > best
        best[better], best_step[better], best_image[better] = objectives[i, better], i, image[better]
        if callback is not None:
            callback(i, image, scores[i])
        if i == steps:
            break  # the last image is evaluated, and kept as it is

        if transforms:
            seen, draws = np.repeat(image, views, 0), []
            for t in transforms:
                draws.append(np.stack([t.draw(rng, image.shape[1:]) for rng in rngs for _ in range(views)]))
                seen = t.apply(seen, draws[-1])
            y = yield seen, True
            one = _score(y, copies, recipe.objective)[2]
        g = yield one
        if transforms:
            for t, drawn in zip(reversed(transforms), reversed(draws)):
                g = t.adjoint(g, drawn)
            g = g.reshape(len(units), views, *g.shape[1:]).mean(1)
        up = g - penalty_grad
        if p is not None:
            up = p.gradient(image, up)
        x = x + recipe.optimizer.change(state, up, i + 1)
        for r in after:
            x = _apply(r, x, gradient=g, iteration=i, mean=mean)
        if not (np.isfinite(x).all() and np.isfinite(objectives[i]).all()):
            raise InputError(f"the ascent diverged at step {i}; take smaller steps than those of {recipe.optimizer}")
    return Maximization(best_image, image, scores, objectives, best_step, units, layer)


def deprocess(x):
    """Bring images (U, H, W, C) to a common contrast: (x - mean) / std * 0.1 + 0.5, clipped to [0, 1].

    Mean and standard deviation are each image's own, over all its pixels and colours; a constant image
    becomes grey.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise InputError(f"x: expected finite float images (U, H, W, C), got {x.dtype} of shape {x.shape}")
    mean = x.mean((1, 2, 3), keepdims=True)
    std = x.std((1, 2, 3), keepdims=True)
    return np.clip((x - mean) / np.where(std > 0, std, 1) * 0.1 + 0.5, 0, 1)


def _apply(r, x, **known):
    """What a regularizer's step makes of x; a plain function is told nothing else."""
    if hasattr(r, "apply"):
        return r.apply(x, **known)
    y = np.asarray(r(x))
    if y.shape != x.shape or y.dtype.kind != "f":
        raise InputError(f"regularizers: of x {x.shape} {r!r} made {y.dtype} {y.shape}; return floats of x's shape")
    return y.astype(x.dtype, copy=False)


def _fit(value, shape, dtype, what):
    """Return `value` broadcast to `shape`, or raise InputError."""
    try:
        value = np.broadcast_to(np.asarray(value, dtype), shape)
    except (ValueError, TypeError) as e:
        raise InputError(f"{what}: expected numbers that broadcast to shape {tuple(shape)}: {e}") from e
    if not np.isfinite(value).all():
        raise InputError(f"{what}: holds NaN or infinite values")
    return value


def _start(start, rngs, net):
    shape = (len(rngs), *net.input_shape)
    if not isinstance(start, Real):
        return _fit(start, shape, net.dtype, "start").copy()
    if start == 0:
        return np.zeros(shape, net.dtype)
    return np.stack([rng.normal(0, start, shape[1:]) for rng in rngs]).astype(net.dtype)


def _where(shape, layer, units, objective, positions):
    """The index in the layer's output (U, ...) of what each image is to excite."""
    U, maps = len(units), len(shape) > 1
    if objective == ("log-odds" if maps else "sum"):
        raise InputError(
            f"objective: there is no {objective!r}, as layer {layer!r} has {'maps' if maps else 'no maps'}"
        )
    if positions is not None and (not maps or objective == "sum"):
        raise InputError("positions: give none for a dense layer or the sum of a map")
    if not maps:
        return (units,)
    if objective == "sum":
        return slice(None), slice(None), units
    H, W, _ = shape
    at = np.asarray((H // 2, W // 2) if positions is None else positions)
    if at.dtype.kind not in "iu" or at.shape not in ((2,), (U, 2)) or (at < 0).any() or (at >= (H, W)).any():
        raise InputError(f"positions: expected (row, column) or {U} of them, within {H} by {W}, got {positions}")
    return *np.broadcast_to(at, (U, 2)).T, units


def _score(y, where, objective):
    """The units' activations (U,), what is raised (U,), and its derivative with respect to y (U, ...)."""
    where, one = (np.arange(len(y)), *where), np.zeros_like(y)
    scores = y[where].reshape(len(y), -1).sum(1, dtype=np.float64)
    one[where] = 1
    if objective != "log-odds":
        return scores, scores, one
    others = np.where(one, -np.inf, y.astype(np.float64))
    against = logsumexp(others, axis=1)
    return scores, scores - against, one - np.exp(others - against[:, None]).astype(y.dtype)
