"""Which pixels count, by hiding some: the score of images in which a baseline x0 shows through.

    occlusion               S(x) - S(x with a window hidden)                   Zeiler and Fergus 2013, arXiv:1311.2901
    rise                    mean of S(x masked at random) where it is seen     Petsiuk et al. 2018, arXiv:1806.07421
    shapley_value_sampling  what a cell adds to those seen before it, in the mean over orders
                                                  Castro et al. 2009 (Comput. Oper. Res. 36), Shapley 1953

Each is sum_j S(m_j x + (1 - m_j) x0) c_j for masks m_j and weights c_j (H, W) that no image changes. All colours of a
pixel are hidden together, so they share one value.
"""

import numpy as np
from scipy.special import softmax

from tinycnn import streams
from tinycnn.errors import InputError, check_seed, check_whole, is_number, shown
from viz.check import baseline_for, enlarge, floats, images_for, passes, scores, target_for


def scores_at(net, points, target, work, probability=False):
    """Return the scores (S, N) at points (S, N, H, W, C), S for each of N images with a `Target`.

    probability : bool
        Take the softmax over the layer's units first.
    """
    S, N = points.shape[:2]
    trace = net.forward(points.reshape(S * N, *net.input_shape).astype(net.dtype), upto=target.layer, work=work)
    y = trace[target.layer].astype(np.float64)
    if probability:
        y = softmax(y, -1)
    return target[np.tile(np.arange(N), S)].scores(y).reshape(S, N)


def _sum(net, images, target, x0, samples, plan, progress, probability=False):
    """sum_j S(m_j x + (1 - m_j) x0) c_j over samples j, (N, H, W), float64; plan(j) returns (m_j, c_j)."""
    found, work = np.zeros(images.shape[:3]), net.workspace()
    for some, drawn in passes(net, len(images), samples, target.layer, progress):
        m, c = map(np.stack, zip(*map(plan, drawn.tolist())))
        m = m[:, None, ..., None]
        points = m * floats(net, images[some]) + (1 - m) * x0[some]
        found[some] += np.tensordot(scores_at(net, points, target[some], work, probability), c, (0, 0))
    return found


def _spread(net, maps):
    """Maps (N, H, W) for each colour, (N, H, W, C)."""
    return np.repeat(maps[..., None].astype(net.dtype), net.input_shape[-1], -1)


def _asked(net, x, target, baseline):
    """(images, their `Target`, their baselines)."""
    images = images_for(net, x)
    return images, target_for(net, target, len(images)), baseline_for(net, baseline, len(images))


def _pair(value, what, most):
    """One or two whole numbers from 1 to (rows, columns) as a pair."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(check_whole(n, what) > size for n, size in zip(pair, most)):
        raise InputError(f"{what}: expected one or two numbers from 1 to {tuple(most)}, got {shown(value)}")
    return pair


def occlusion(net, x, target, window=4, stride=4, baseline=0.0, *, progress=False):
    """Return how much of the score each pixel's windows hold, (N, H, W, C), signed, the same for every colour.

    Windows start at the upper left corner and cover the image; the last of a row or column may hang over. Where they
    overlap a pixel has the mean of theirs.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`.
    window, stride : int or (int, int)
        In pixels; the stride is not larger than the window, the window not than the image.
    baseline : float, array (H, W, C) or (N, H, W, C)
        What a hidden pixel shows: one value, an image (uint8, or float as it is), or one for each.

    Raises
    ------
    InputError
        As for `gradient`; another window, stride or baseline.
    """
    images, target, x0 = _asked(net, x, target, baseline)
    shape = images.shape[1:3]
    window = _pair(window, "window", shape)
    stride = _pair(stride, "stride", window)
    (rows, columns) = (-(-(n - w) // s) + 1 for n, w, s in zip(shape, window, stride))
    hidden = np.zeros((rows * columns, *shape))
    for j, mask in enumerate(hidden):
        top, left = (i * s for i, s in zip(divmod(j, columns), stride))
        mask[top : top + window[0], left : left + window[1]] = 1
    share = hidden / hidden.sum(0)
    less = _sum(net, images, target, x0, len(hidden), lambda j: (1 - hidden[j], share[j]), progress)
    return _spread(net, scores(net, images, target).astype(np.float64)[:, None, None] - less)


def rise(net, x, target, samples=2000, cells=7, seen=0.5, seed=0, baseline=0.0, probability=True, *, progress=False):
    """Return the mean score of the masked images in which a pixel is seen, (N, H, W, C), the same for every colour.

        sum_j S(m_j x) m_j / (samples * seen)            equation 6 of Petsiuk et al.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`.
    samples : int
        Masks, the same for every image.
    cells : int
        Cells of a mask along each axis. Each is open or shut; enlarged bilinearly, the mask is moved at random by up to
        a cell.
    seen : float
        The probability that a cell is open, between 0 and 1.
    seed : int
    baseline : float, array (H, W, C) or (N, H, W, C)
        What a hidden pixel shows; see `occlusion`.
    probability : bool
        Of a class, take its softmax as the score, as the paper does; of any other target always its own value.

    Raises
    ------
    InputError
        As for `gradient`; options that are no numbers of their kind.
    """
    images, target, x0 = _asked(net, x, target, baseline)
    if not (is_number(seen, whole=False) and 0 < seen < 1):
        raise InputError(f"seen: expected a probability between 0 and 1, got {shown(seen)}")
    samples, seed, (cells, _) = (
        check_whole(samples, "samples"),
        check_seed(seed),
        _pair(cells, "cells", images.shape[1:3]),
    )

    def plan(j):
        m = rise_mask(images.shape[1:3], cells, seen, seed, j)
        return m, m / (samples * seen)

    probability = probability and target.layer == net.layer_names[-1] and len(net.shapes[target.layer]) == 1
    return _spread(net, _sum(net, images, target, x0, samples, plan, progress, probability))


def rise_mask(shape, cells, seen, seed, j):
    """Return mask j of `rise`, (H, W) in [0, 1]."""
    rng, size = streams.rng(seed, "rise", j), [-(-n // cells) for n in shape]
    grid = rng.random((1, cells, cells)) < seen
    top, left = (int(rng.integers(n)) for n in size)
    large = enlarge(grid.astype(np.float64), [(cells + 1) * n for n in size])[0]
    return large[top : top + shape[0], left : left + shape[1]]


def shapley_value_sampling(net, x, target, permutations=25, window=4, seed=0, baseline=0.0, *, progress=False):
    """Return sampled Shapley values of square cells, (N, H, W, C), signed; each map adds up to S(x) - S(x0).

    In an order drawn at random the image appears cell by cell; a cell's value is what it adds, in the mean over orders,
    and is shared equally among its pixels and colours.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`.
    permutations : int
        Orders, the same for every image.
    window : int or (int, int)
        Size of a cell in pixels; those at the right and lower border may be smaller.
    seed : int
    baseline : float, array (H, W, C) or (N, H, W, C)
        What is not there yet shows this; see `occlusion`.

    Raises
    ------
    InputError
        As for `gradient`; options that are no numbers of their kind.
    """
    images, target, x0 = _asked(net, x, target, baseline)
    (h, w), seed = _pair(window, "window", images.shape[1:3]), check_seed(seed)
    rows, columns = (np.arange(n) // k for n, k in zip(images.shape[1:3], (h, w)))
    cell = rows[:, None] * (columns[-1] + 1) + columns  # (H, W): the number of each pixel's cell
    sizes = np.bincount(cell.ravel()) * net.input_shape[-1]
    permutations, steps = check_whole(permutations, "permutations"), len(sizes) + 1

    def plan(j):
        q, step = divmod(j, steps)
        rank = np.argsort(shapley_order(len(sizes), seed, q))[cell]
        return rank < step, ((rank == step - 1) * 1.0 - (rank == step)) / (permutations * sizes[cell])

    return _spread(net, _sum(net, images, target, x0, permutations * steps, plan, progress))


def shapley_order(cells, seed, q):
    """Return order q of `shapley_value_sampling`: which cell comes first, second, ..., (cells,)."""
    return streams.rng(seed, "shapley", q).permutation(cells)
