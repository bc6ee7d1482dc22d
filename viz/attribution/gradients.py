"""Which pixels count, by gradients: of the image itself, of noisy copies, of images on the way from a baseline.

S is the score asked about, g(x) = dS / dx:

    gradient              g(x)                                       Simonyan et al. 2013, arXiv:1312.6034
    input_x_gradient      x g(x)                                     Shrikumar et al. 2016, arXiv:1605.01713
    deconvnet, guided     g by other rules at the ReLUs              see `tinycnn.rules`
    smoothgrad            mean of g(x + noise)                       Smilkov et al. 2017, arXiv:1706.03825
    smoothgrad_sq         mean of g(x + noise)^2                     Hooker et al. 2018, arXiv:1806.10758
    vargrad               variance of g(x + noise)                   Adebayo et al. 2018, arXiv:1810.03307
    integrated_gradients  (x - x0) times the mean of g from x0 to x  Sundararajan et al. 2017, arXiv:1703.01365

Arguments that all methods share stand in `gradient`.
"""

import numpy as np

from tinycnn import streams
from tinycnn.errors import InputError, check_seed, check_whole, is_number, shown
from viz import saliency
from viz.check import baseline_for, floats, images_for, map_layer, passes, scores, target_for
from viz.saliency import gradient


def input_x_gradient(net, x, target, *, progress=False):
    """Return the image times the `gradient`, (N, H, W, C), signed. Pixels count from 0 to 1, in uint8 images too."""
    dx = gradient(net, x, target, progress=progress)
    for n, image in enumerate(images_for(net, x)):
        dx[n] *= floats(net, image[None])[0]
    return dx


def guided_backprop(net, x, target, *, progress=False):
    """Return guided backpropagation's signal, (N, H, W, C), signed: Springenberg et al. 2014, arXiv:1412.6806."""
    return gradient(net, x, target, "guided", progress=progress)


def deconvnet(net, x, target, *, progress=False):
    """Return the deconvnet's signal for a 1 at the target, (N, H, W, C), signed: Zeiler and Fergus 2013.

    `viz.deconvnet.project` starts with the activation instead (arXiv:1311.2901), which differs by that factor.
    """
    return gradient(net, x, target, "deconvnet", progress=progress)


def layer_backprop(net, x, target=None, layer=None, *, rule="gradient"):
    """Return the largest absolute gradient of any map's sum over colours and maps, (N, H, W, 1), at least 0.

    `viz.saliency.layer_backprop` as one of the methods. It asks about a layer, by default the last with maps, and not
    about a class: `target` is checked, and changes nothing.
    """
    if target is not None:
        target_for(net, target, len(images_for(net, x)))
    return saliency.layer_backprop(net, x, last_maps(net) if layer is None else layer, rule)[..., None]


def last_maps(net):
    """Return the name of the last layer with maps; raise InputError where there is none."""
    return map_layer(net, next((n for n in reversed(net.layer_names) if len(net.shapes[n]) == 3), net.layer_names[0]))


def smoothgrad(net, x, target, samples=50, sigma=0.15, seed=0, *, progress=False):
    """Return the mean gradient of noisy copies of each image, (N, H, W, C), signed; no absolute value is taken.

    Parameters
    ----------
    net, x, target, progress
        As for `gradient`.
    samples : int
        Copies of each image.
    sigma : float
        The noise's standard deviation as a share of the image's own range, its largest less its smallest value. The
        copies are not clipped.
    seed : int
        Of the noise, which is the same for every image: each has the map that it has alone.

    Raises
    ------
    InputError
        As for `gradient`; `samples`, `sigma` or `seed` that are no numbers of their kind.
    """
    return _moments(net, x, target, samples, sigma, seed, progress)[0]


def vargrad(net, x, target, samples=50, sigma=0.15, seed=0, *, progress=False):
    """Return the variance (divided by `samples`) of noisy copies' gradients, (N, H, W, C); see `smoothgrad`."""
    return _moments(net, x, target, samples, sigma, seed, progress)[1]


def smoothgrad_sq(net, x, target, samples=50, sigma=0.15, seed=0, *, progress=False):
    """Return the mean of noisy copies' squared gradients, (N, H, W, C); see `smoothgrad`."""
    mean, variance = _moments(net, x, target, samples, sigma, seed, progress)
    return mean**2 + variance


def noise(net, sample, seed=0):
    """Return the standard normal noise (H, W, C), float64, of one sample of `smoothgrad` and its kin."""
    return streams.rng(seed, "smoothgrad", sample).standard_normal(net.input_shape)


def _moments(net, x, target, samples, sigma, seed, progress):
    """Mean and variance of the gradients of noisy copies, each (N, H, W, C)."""
    images = images_for(net, x)
    target = target_for(net, target, len(images))
    if not (is_number(sigma, whole=False) and 0 <= sigma < np.inf):
        raise InputError(f"sigma: expected a share of the range of at least 0, got {shown(sigma)}")
    mean, squares = np.zeros((2, *images.shape), net.dtype)
    samples, seed, work = check_whole(samples, "samples"), check_seed(seed), net.workspace()
    for some, drawn in passes(net, len(images), samples, target.layer, progress):
        base = floats(net, images[some])
        spread = sigma * np.ptp(base, (1, 2, 3), keepdims=True)
        points = base + spread * np.stack([noise(net, k, seed) for k in drawn])[:, None]
        for k, g in zip(drawn, gradients_at(net, points, target[some], work)):
            change = g - mean[some]  # Welford 1962: no difference of two large sums
            mean[some] += change / (k + 1)
            squares[some] += change * (g - mean[some])
    return mean, squares / samples


def gradients_at(net, points, target, work):
    """Return the gradients at points (S, N, H, W, C), S for each of N images with a `Target`, shaped like them."""
    S, N = points.shape[:2]
    trace = net.forward(points.reshape(S * N, *net.input_shape).astype(net.dtype), upto=target.layer, work=work)
    dy = target[np.tile(np.arange(N), S)].seed(trace[target.layer])
    return net.backward(trace, dy).reshape(points.shape)


def integrated_gradients(net, x, target, steps=50, baseline=0.0, return_convergence_delta=False, *, progress=False):
    """Return the path integral of the gradient from a baseline x0 to the image, (N, H, W, C), signed.

        (x - x0) * sum_k w_k g(x0 + t_k (x - x0))        t_k, w_k: Gauss and Legendre's points and weights on [0, 1]

    The exact integral adds up to S(x) - S(x0), whatever path S takes between.

    Parameters
    ----------
    net, x, target, progress
        As for `gradient`.
    steps : int
        Points on the way.
    baseline : float, array (H, W, C) or (N, H, W, C)
        x0: one value for all pixels, an image (uint8, or float as it is), or one for each.
    return_convergence_delta : bool
        Return (maps, delta), delta (N,) being what the maps add up to, less S(x) - S(x0).

    Raises
    ------
    InputError
        As for `gradient`; a baseline that is no image, `steps` below 1.
    """
    images = images_for(net, x)
    target, x0 = target_for(net, target, len(images)), baseline_for(net, baseline, len(images))
    t, w = np.polynomial.legendre.leggauss(check_whole(steps, "steps"))
    t, w = (1 + t) / 2, w / 2
    maps, work = np.zeros(images.shape, net.dtype), net.workspace()
    for some, k in passes(net, len(images), steps, target.layer, progress):
        change = floats(net, images[some]) - x0[some]
        points = x0[some] + t[k].reshape(-1, 1, 1, 1, 1) * change
        maps[some] += change * np.tensordot(w[k], gradients_at(net, points, target[some], work), 1)
    if not return_convergence_delta:
        return maps
    change = scores(net, images, target).astype(np.float64) - scores(net, x0, target)
    return maps, maps.sum((1, 2, 3), dtype=np.float64) - change
