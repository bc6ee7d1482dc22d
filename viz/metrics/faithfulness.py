"""Whether a network needs the pixels that a map names: take them away, or give them alone, and ask it again.

The pixels of each image, all colours together, are put in the falling order of its map; of equal ones the order is
drawn once, the same for every image and map. After each of `steps` equal steps the network is asked again:

    deletion    the first pixels are replaced by a plain colour       Petsiuk et al. 2018, arXiv:1806.07421
    insertion   all others are blurred                                the same
    road        the first pixels are imputed from their neighbours    Rong et al. 2022, arXiv:2202.00449

The area under a curve is its mean by the trapezoidal rule, (sum - first / 2 - last / 2) / steps.
"""

from functools import cache

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu
from scipy.special import softmax

from tinycnn import streams
from tinycnn.errors import InputError, as_array, check_whole, choose, is_number, shown
from tinycnn.progress import bar
from viz.check import floats, images_for, units_per_image
from viz.metrics.maps import of_pixels

SCORES = ("probability", "hit")


def deletion(net, x, maps, target, steps=32, baseline="mean", score="probability", seed=0, *, progress=False):
    """Return how the answer fades as the pixels that a map names are deleted; a good map's curve falls at once.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images, a memory map too.
    maps : array (N, H, W)
        Larger where it says that it matters more: see `viz.metrics.maps`.
    target : int or int array (N,)
        The class, one for all images or one for each.
    steps : int
        Equal ones, from nothing to all pixels; their number is rounded to whole pixels.
    baseline : "mean", number or array (C,) or (H, W, C)
        What comes in a pixel's place: the image's mean colour, or a value in [0, 1].
    score : "probability" or "hit"
        Of the target, by the softmax of the logits; or 1 where it is the answer, so that means are accuracies.
    seed : int
        Of the order of equal pixels.
    progress : bool
        Show a progress bar over the images.

    Returns
    -------
    curves : float64 array (N, steps + 1)
    areas : float64 array (N,)

    Raises
    ------
    InputError
        Maps or images that do not fit, or with NaN, an unknown class or option.
    """
    images, order, counts = _prepared(net, x, maps, steps, 1, seed)
    plain = None if isinstance(baseline, str) and choose(baseline, ("mean",), "baseline") else _plain(net, baseline)

    def states(image, rank):
        there = image.mean((0, 1)) if plain is None else plain
        return np.where(_first(rank, counts), there, image)

    return _curves(net, images, order, target, states, score, progress)


def insertion(net, x, maps, target, steps=32, sigma=0.15, score="probability", seed=0, *, progress=False):
    """Return how the answer appears as a blurred image gets sharp where a map says; a good map's curve rises at once.

    Parameters
    ----------
    sigma : float
        Of the Gaussian blur, as a share of the image's shorter side. Petsiuk et al. take 5 pixels of 224, which leaves
        images of 32 as they are.
    net, x, maps, target, steps, score, seed, progress
        As for `deletion`, which also has what is returned and raised.
    """
    images, order, counts = _prepared(net, x, maps, steps, 1, seed)
    if not (is_number(sigma, whole=False) and 0 < sigma <= 1):
        raise InputError(f"sigma: expected a share above 0, at most 1, got {shown(sigma)}")
    size = sigma * min(net.input_shape[:2])

    def states(image, rank):
        return np.where(_first(rank, counts), image, ndimage.gaussian_filter(image, (size, size, 0), mode="nearest"))

    return _curves(net, images, order, target, states, score, progress)


def road(
    net,
    x,
    maps,
    target,
    steps=9,
    most=0.9,
    first="relevant",
    noise=0.01,
    score="probability",
    seed=0,
    *,
    progress=False,
):
    """Return how the answer fades as pixels are imputed, so that the shape of what is taken away tells nothing.

    Each pixel taken away is the weighted mean of its neighbours, given or taken away themselves (noisy linear
    imputation): sum_j w_ij (v_i - v_j) = 0 with w = 1/6 for the 4 that share a side and 1/12 for the 4 at the corners,
    those within the image alone; then noise is added.

    Parameters
    ----------
    steps : int
        Equal ones, from nothing to `most`.
    most : float
        The largest share of pixels that is taken away, below 1.
    first : "relevant" or "irrelevant"
        In falling order of the map (MoRF), where a good map's curve falls at once, or in rising order (LeRF), where it
        stays up.
    noise : float
        Its standard deviation; the same noise for every image and step.
    net, x, maps, target, score, seed, progress
        As for `deletion`, which also has what is returned and raised. The paper takes score "hit".
    """
    if not (is_number(most, whole=False) and 0 < most < 1):
        raise InputError(f"most: expected a share between 0 and 1, got {shown(most)}; of nothing nothing is imputed")
    if not (is_number(noise, whole=False) and 0 <= noise < np.inf):
        raise InputError(f"noise: expected a standard deviation of 0 or more, got {shown(noise)}")
    falling = choose(first, ("relevant", "irrelevant"), "first") == "relevant"
    maps = as_array(maps, "maps", np.float64)
    images, order, counts = _prepared(net, x, maps if falling else -maps, steps, most, seed)
    draws = noise * streams.rng(seed, "road").standard_normal(net.input_shape)

    def states(image, rank):
        found = []
        for taken in _first(rank, counts)[..., 0]:
            found.append(np.where(taken[..., None], imputed(image, taken) + draws, image))
        return np.stack(found)

    return _curves(net, images, order, target, states, score, progress)


def completeness(net, x, maps, target, baseline=0.0):
    """Return how far each map is from adding up to what it explains, (N,), float64, in logits.

    sum of the map - (S(x) - S(x0)), S the class score before the softmax, x0 the baseline (Sundararajan et al. 2017,
    arXiv:1703.01365). Means something for maps in units of the score alone: integrated gradients, relevance.

    Parameters
    ----------
    maps : array (N, ...)
        Signed.
    baseline : number, or array (C,) or (H, W, C)
    net, x, target
        As for `deletion`.

    Raises
    ------
    InputError
        As for `deletion`.
    """
    images, maps = images_for(net, x), as_array(maps, "maps", np.float64)
    if len(maps.shape) < 2 or len(maps) != len(images) or not np.isfinite(maps).all():
        raise InputError(f"maps: expected a finite map for each of {len(images)} images, got shape {maps.shape}")
    target = units_per_image(net, net.layer_names[-1], target, len(images), "target")
    start = np.broadcast_to(_plain(net, baseline), net.input_shape).astype(net.dtype)
    rise = net.logits(images).astype(np.float64) - net.logits(start[None])
    return maps.reshape(len(maps), -1).sum(1) - rise[np.arange(len(images)), target]


def imputed(image, taken):
    """Return an image (H, W, C) whose pixels `taken`, bool (H, W), are linearly imputed from the others; see `road`."""
    taken = taken.ravel()
    if not taken.any():
        return image
    flat, L = image.reshape(taken.size, -1).astype(np.float64), _laplacian(*image.shape[:2])
    rows = L[taken]
    found = flat.copy()
    found[taken] = splu(rows[:, taken].tocsc(), "MMD_AT_PLUS_A").solve(-(rows[:, ~taken] @ flat[~taken]))
    return found.reshape(image.shape)


@cache
def _laplacian(H, W):
    """The matrix (P, P) of sum_j w_ij (v_i - v_j) over the neighbours j within the image."""
    down, right = (sparse.diags([1.0, 1.0], [-1, 1], (n, n)) for n in (H, W))
    sides = sparse.kron(down, sparse.eye(W)) + sparse.kron(sparse.eye(H), right)
    w = sides / 6 + sparse.kron(down, right) / 12
    return (sparse.diags(np.asarray(w.sum(1)).ravel()) - w).tocsr()


def _prepared(net, x, maps, steps, most, seed):
    """Images, each pixel's place in the order (N, H, W), and how many pixels are gone after each step."""
    images = images_for(net, x)
    maps = of_pixels(maps, images).reshape(len(images), -1)
    steps, P = check_whole(steps, "steps"), maps.shape[1]
    if steps > P:
        raise InputError(f"steps: at most one for each of {P} pixels, got {steps}")
    drawn = streams.rng(seed, "equal pixels").permutation(P)
    order = drawn[np.argsort(-maps[:, drawn], 1, kind="stable")]
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(P)[None], 1)
    counts = np.rint(np.linspace(0, most * P, steps + 1)).astype(int)
    return images, rank.reshape(images.shape[:3]), counts


def _first(rank, counts):
    """Which pixels come first, after each step: bool (steps + 1, H, W, 1)."""
    return (rank < counts[:, None, None])[..., None]


def _curves(net, images, order, target, states, score, progress):
    """The scores of each image's `states` (image, rank) -> (steps + 1, H, W, C), and the areas under them."""
    net.check_classes()
    target = units_per_image(net, net.layer_names[-1], target, len(images), "target")
    hit = choose(score, SCORES, "score") == "hit"
    curves = []
    for image, rank, unit in zip(bar(images, disable=not progress, leave=False), order, target):
        logits = net.logits(states(floats(net, image[None])[0], rank).astype(net.dtype)).astype(np.float64)
        curves.append(logits.argmax(1) == unit if hit else softmax(logits, 1)[:, unit])
    curves = np.array(curves, np.float64)
    return curves, (curves.sum(1) - (curves[:, 0] + curves[:, -1]) / 2) / (curves.shape[1] - 1)


def _plain(net, baseline):
    """A baseline that spreads over an image, or an InputError."""
    given = as_array(baseline, "baseline")
    C = net.input_shape[2]
    if given.dtype.kind not in "if" or given.shape not in ((), (C,), net.input_shape) or not np.isfinite(given).all():
        raise InputError(
            f"baseline: expected a number, {C} of them or an image {net.input_shape}, got {shown(baseline)}"
        )
    return given.astype(np.float64)
