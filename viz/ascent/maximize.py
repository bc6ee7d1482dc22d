"""Activation maximization: the image that excites a unit most, found by gradient ascent.

    x* = argmax_x  S(mean + x) - R(x)

S is the unit's activation (for a class: its score before the softmax, or the logarithm of its odds against all others),
R the sum of the penalties. Erhan et al. 2009; Simonyan et al. 2013, arXiv:1312.6034; Yosinski et al. 2015,
arXiv:1506.06579; Mahendran and Vedaldi 2016, arXiv:1512.02017; Olah et al. 2017, doi:10.23915/distill.00007. One
iteration:

    clip -> image -> [transform] -> forward -> seed at the unit -> backward -> [adjoint] -> minus penalties' gradients
         -> [to the unknowns] -> step -> decay -> blur -> clip small norms -> clip small contributions -> project norms

All units of a call are one batch, and yet independent: each has its own random numbers and step size. So are whole
ascents, in `maximize_ways`: for a small batch the network mostly reads its own weights. `presets` has the constants
that are known to work, `regularizers`, `transforms` and `parametrize` the parts.
"""

import inspect
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from tqdm import tqdm

from tinycnn import streams
from tinycnn.errors import InputError, choose

from ..check import units_of
from .regularizers import B, Blur, Clip, ClipContribution, ClipNorm, Decay, NormProjection

NOISE = 10 / 255  # Yosinski et al. start from N(0, 10) on 255
STEP_ORDER = (Decay, Blur, ClipNorm, ClipContribution, NormProjection)
OPTIMIZERS = ("constant", "progress", "normalized", "mahendran", "adam")
OBJECTIVES = ("activation", "log-odds")
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
        The activation of the unit for the image of each step, the first being the start.
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


def maximize(
    net,
    layer,
    units,
    steps=300,
    step_size=0.1,
    regularizers=(),
    init="zeros",
    noise=NOISE,
    seed=0,
    optimizer="constant",
    max_rate=None,
    mean=0.0,
    position="center",
    objective="activation",
    parametrization=None,
    views=1,
    progress=False,
):
    """Find, for each of `units`, an image that excites it, by gradient ascent.

    Parameters
    ----------
    net : Network
    layer : str
        The layer of the units. For classes the last one: scores before the softmax. For maps the convolution
        itself: a unit that is off after its ReLU has no gradient, and its image would stay as it is.
    units : int or ints (U,)
        Units of a dense layer, maps of a convolutional one.
    steps : int
        Number of gradient steps; the image is evaluated once more, after the last.
    step_size : float
        "constant": the rate. "progress": the wanted gain p per step. "normalized": the root mean square of the
        change of a pixel (or coefficient of the parametrization) per step. "adam", "mahendran": about its size.
    regularizers : sequence
        Objects of `viz.regularizers` and `viz.transforms`. Penalties add up, transforms follow each other as given;
        steps are applied in the order that stands at the head of this module, whatever their order here.
    init : {"zeros", "noise"} or array
        Where x starts: 0, N(0, noise), or an array (H, W, C) or (U, H, W, C).
    noise : float
        The standard deviation of that start; default 10 / 255.
    seed : int
        Each unit draws from its own generator, made from `seed` and the unit's number.
    optimizer : {"constant", "progress", "normalized", "mahendran", "adam"}
        x += step_size g; x += min(max_rate, step_size / ||g||^2) g (Yosinski et al.); x += step_size g / rms(g), as
        long for a weak unit as for a strong one; Mahendran and Vedaldi's momentum over a decaying root of squares;
        Adam.
    max_rate : float, optional
        The bound on the rate of "progress".
    mean : float or array that broadcasts to (H, W, C)
        What x is a deviation from: 0, or the mean image of the data.
    position : {"center", "sum"}
        What is excited in a map: its unit at (h // 2, w // 2), or the sum of all its units.
    objective : {"activation", "log-odds"}
        What is raised: the unit's activation y_c, or y_c - log sum_{j != c} exp(y_j) = log(p / (1 - p)), p its share in
        the layer's softmax. The first can be raised by what raises all classes, the second only by what tells the
        class from the others; unlike log p it does not level off once the class is reached.
    parametrization : viz.parametrize.Spectral, optional
        What the ascent changes instead of pixels: x is then its unknowns, and penalties see the image.
    views : int
        With transforms: each step follows the mean gradient of so many copies, each with its own transforms.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Maximization
        With transforms, the scores are those of the images as returned, not of their transformed copies (at the
        price of a second forward pass).

    Raises
    ------
    InputError
        Unknown layer, optimizer, init, position or objective; a unit that the layer does not have; a step count,
        rate, mean or array that makes no sense; an ascent that diverges to infinite pixels.
    """
    ascent = _ascent(
        net, layer, units, steps, step_size, regularizers, init, noise, seed, optimizer, max_rate, mean, position,
        objective, parametrization, views, progress,
    )  # fmt: skip
    return _climb(net, layer, [ascent])[0]


def maximize_ways(net, layer, units, ways, seed=0):
    """Find images for the same units in several ways, as `maximize` would one after the other.

    The network sees the images of all ways in one batch, which takes a fraction of the time.

    Parameters
    ----------
    net, layer, units, seed
        As for `maximize`.
    ways : sequence of dict
        The other arguments of `maximize`, for each way.

    Returns
    -------
    list of Maximization
        One for each way.

    Raises
    ------
    InputError
        As for `maximize`.
    """
    signature, ascents = inspect.signature(maximize), []
    for way in ways:
        bound = signature.bind(net, layer, units, seed=seed, **way)
        bound.apply_defaults()
        ascents.append(_ascent(**bound.arguments))
    return _climb(net, layer, ascents)


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


def _ascent(
    net, layer, units, steps, step_size, regularizers, init, noise, seed, optimizer, max_rate, mean, position,
    objective, parametrization, views, progress,
):  # fmt: skip
    """One ascent as a generator, see `_climb`; the arguments are those of `maximize`."""
    net.check_layer(layer)
    units = units_of(net, layer, units)
    choose(optimizer, OPTIMIZERS, "optimizer")
    choose(position, ("center", "sum"), "position")
    _check(steps, step_size, max_rate, views, noise)
    if choose(objective, OBJECTIVES, "objective") != "activation" and len(net.shapes[layer]) > 1:
        raise InputError(f"objective: odds are those of a dense layer's units, and {layer!r} has maps")
    clips, transforms, penalties, after = _sort(regularizers)
    if parametrization is not None:
        _check_parametrization(parametrization, net, mean, clips, after)
    mean = _fit(mean, net.input_shape, net.dtype, "mean")
    rngs = [streams.rng(seed, "ascent", unit) for unit in units]
    x = _start(init, rngs, net, noise)
    state = {}
    scores, objectives = np.empty((2, steps + 1, len(units)))
    best = np.full(len(units), -np.inf)
    best_step, best_image = np.zeros(len(units), int), np.empty_like(x)

    for i in tqdm(range(steps + 1), desc=f"maximize {layer}", disable=not progress, leave=False):
        for clip in clips:
            x = clip.apply(x, mean=mean)
        image = mean + x if parametrization is None else parametrization.image(x)
        y = yield image, i < steps and not transforms
        scores[i], objectives[i], one = _score(y, units, position, objective)
        penalty_grad = 0.0
        for r in penalties:
            value, g = r.value_and_grad(x if parametrization is None else image)
            objectives[i] -= value
            penalty_grad = penalty_grad + g
        better = objectives[i] > best
        best[better], best_step[better], best_image[better] = objectives[i, better], i, image[better]
        if i == steps:
            break  # the last image is evaluated, and kept as it is

        if transforms:
            seen, draws = np.repeat(image, views, 0), []
            for r in transforms:
                draws.append(np.stack([r.draw(rng, image.shape[1:]) for rng in rngs for _ in range(views)]))
                seen = r.apply(seen, draws[-1])
            y = yield seen, True
            one = _score(y, np.repeat(units, views), position, objective)[2]
        g = yield one
        if transforms:
            for r, drawn in zip(reversed(transforms), reversed(draws)):
                g = r.adjoint(g, drawn)
            g = g.reshape(len(units), views, *g.shape[1:]).mean(1)
        up = g - penalty_grad
        if parametrization is not None:
            up = parametrization.gradient(image, up)
        x = x + _move(optimizer, up, state, i, step_size, max_rate)
        for r in after:
            x = r.apply(x, gradient=g, iteration=i, mean=mean)
        if not (np.isfinite(x).all() and np.isfinite(objectives[i]).all()):
            raise InputError(
                f"the ascent diverged at step {i}: pixels or scores became infinite; "
                f"use a smaller step_size than {step_size}"
            )
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


def _sort(regularizers):
    """Split into clips, transforms, penalties and the steps after the gradient's, these in `STEP_ORDER`."""
    clips, transforms, penalties, after = [], [], [], []
    for r in regularizers:
        if isinstance(r, Clip):
            clips.append(r)
        elif hasattr(r, "adjoint"):
            transforms.append(r)
        elif hasattr(r, "value_and_grad"):
            penalties.append(r)
        elif hasattr(r, "apply"):
            after.append(r)
        else:
            raise InputError(f"regularizers: {r!r} is none; take them from viz.regularizers and viz.transforms")
    after.sort(key=lambda r: STEP_ORDER.index(type(r)) if type(r) in STEP_ORDER else len(STEP_ORDER))
    return clips, transforms, penalties, after


def _check(steps, step_size, max_rate, views, noise):
    if not (isinstance(steps, (int, np.integer)) and steps >= 0):
        raise InputError(f"steps: expected a whole number of at least 0, got {steps!r}")
    if not (isinstance(views, (int, np.integer)) and views >= 1):
        raise InputError(f"views: expected a whole number of at least 1, got {views!r}")
    if not step_size > 0 or (max_rate is not None and not max_rate > 0):
        raise InputError(f"step_size and max_rate must be positive, got {step_size} and {max_rate}")
    if not 0 <= noise < np.inf:
        raise InputError(f"noise: expected a standard deviation, got {noise}")


def _check_parametrization(p, net, mean, clips, after):
    if p.mean.shape != net.input_shape or p.mean.dtype != net.dtype:
        raise InputError(
            f"parametrization: it is of {p.mean.dtype} images {p.mean.shape}, the network of {net.dtype} "
            f"{net.input_shape}"
        )
    if np.any(mean):
        raise InputError("mean: a parametrization has its own, give no other")
    pixels = [r for r in (*clips, *after) if not isinstance(r, Decay)]
    if pixels:
        raise InputError(f"regularizers: {pixels[0]!r} changes pixels, not the unknowns of a parametrization")


def _fit(value, shape, dtype, what):
    """Return `value` broadcast to `shape`, or raise InputError."""
    try:
        value = np.broadcast_to(np.asarray(value, dtype), shape)
    except (ValueError, TypeError) as e:
        raise InputError(f"{what}: expected numbers that broadcast to shape {tuple(shape)}: {e}") from e
    if not np.isfinite(value).all():
        raise InputError(f"{what}: holds NaN or infinite values")
    return value


def _start(init, rngs, net, noise):
    shape = (len(rngs), *net.input_shape)
    if isinstance(init, str):
        if choose(init, ("zeros", "noise"), "init") == "zeros":
            return np.zeros(shape, net.dtype)
        return np.stack([rng.normal(0, noise, shape[1:]) for rng in rngs]).astype(net.dtype)
    return _fit(init, shape, net.dtype, "init").copy()


def _score(y, units, position, objective):
    """The units' activations (U,), what is raised (U,), and its derivative with respect to y (U, ...)."""
    where = _where(y.shape[1:], units, position)
    scores = y[where].reshape(len(units), -1).sum(1, dtype=np.float64)
    one = np.zeros_like(y)
    one[where] = 1
    if objective == "activation":
        return scores, scores, one
    others = np.where(one, -np.inf, y.astype(np.float64))
    against = logsumexp(others, axis=1)
    return scores, scores - against, one - np.exp(others - against[:, None]).astype(y.dtype)


def _where(shape, units, position):
    """The index of each score's units in the layer's output (U, ...)."""
    n = np.arange(len(units))
    if len(shape) == 1:
        return n, units
    if position == "sum":
        return n, slice(None), slice(None), units
    return n, shape[0] // 2, shape[1] // 2, units


def _move(optimizer, g, state, i, step_size, max_rate):
    """The change of x (U, H, W, C) for the ascent direction g; the optimizer's `state` changes in place."""
    dtype = g.dtype.type
    if optimizer == "constant":
        return dtype(step_size) * g
    if optimizer in ("progress", "normalized"):
        size = (g.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True)
        if optimizer == "normalized":
            size = np.sqrt(size / g[0].size)
        no_step = np.zeros_like(size)  # where there is no gradient
        rate = np.divide(step_size, size, out=no_step, where=size > 0)
        return (np.minimum(rate, np.inf if max_rate is None else max_rate) * g).astype(g.dtype)
    if not state:
        state["m"], state["v"] = np.zeros_like(g), np.zeros_like(g)
    m, v = state["m"], state["v"]
    if optimizer == "adam":
        m += dtype(0.1) * (g - m)
        v += dtype(0.001) * (g * g - v)
        unbiased = m / dtype(1 - 0.9 ** (i + 1))
        return dtype(step_size) * unbiased / (np.sqrt(v / dtype(1 - 0.999 ** (i + 1))) + dtype(1e-8))
    # Theirs: G <- 0.9 G + g^2; m <- 0.9 m - g / (1 / eta + sqrt(G)); eta = H W 0.05 B^2 / alpha, on pixels
    # of 255. In pixels of [0, 1] the step is 1 / 255 as large, and so is 1 / eta.
    _, H, W, _ = g.shape
    inverse_eta = step_size * 6 / (H * W * 0.05 * B**2)
    v *= dtype(0.9)
    v += g * g
    m *= dtype(0.9)
    m += dtype(step_size) * g / (dtype(inverse_eta) + np.sqrt(v))
    return m.copy()
