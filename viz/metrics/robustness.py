"""Whether maps hold still where images do, and foretell how the score moves (Yeh et al. 2019, arXiv:1901.09392)."""

import numpy as np

from tinycnn import streams
from tinycnn.errors import InputError, check_whole, is_number, shown
from tinycnn.progress import bar
from viz.check import floats, images_for, units_per_image
from viz.metrics.maps import checked, drawn


def max_sensitivity(net, x, target, method, radius=0.02, samples=10, seed=0, *, progress=False):
    """Return the largest relative change of a method's map among slightly changed copies of an image, (N,), float64.

    max over |d| <= radius of ||M(x + d) - M(x)|| / ||M(x)||, in the L2 norm over all pixels and colours; d uniform,
    each pixel and colour by itself. The paper does not divide.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
    target
        What `method` takes.
    method : function (net, x, target) -> array (N, H, W, C) or (N, H, W, 1)
    radius : float
        Pixels count from 0 to 1; the copies are not clipped.
    samples : int
        Copies of each image.
    seed : int
        Of the changes, which are the same for every image.
    progress : bool
        Show a progress bar over the copies.

    Returns
    -------
    float64 array (N,)
        NaN, undefined, where the map is 0 everywhere.

    Raises
    ------
    InputError
        Unfit images, a method whose maps do not fit or hold NaN, options that are no numbers of their kind.
    """
    images = images_for(net, x)
    before, change = drawn(method, net, images, target), np.zeros(len(images))
    x, rng = floats(net, images), streams.rng(seed, "max sensitivity")
    for _ in bar(range(check_whole(samples, "samples")), disable=not progress, leave=False):
        d = rng.uniform(-_size(radius, "radius"), radius, net.input_shape)
        change = np.maximum(change, _norm(drawn(method, net, (x + d).astype(net.dtype), target) - before))
    size = _norm(before)
    return change / np.where(size > 0, size, np.nan)


def infidelity(net, x, maps, target, sigma=0.1, samples=100, normalize=True, seed=0, falls=None, *, progress=False):
    """Return how badly a map foretells the change of the score when noise is taken from the image, (N,), float64.

    mean over I of (b I . M - dS)^2 with dS = S(x) - S(x - I), I from the normal distribution with deviation `sigma`, S
    the class score before the softmax. With `normalize` b is the factor that makes it least, mean(I . M dS) / mean((I .
    M)^2), so that the scale of a map does not matter, as the paper's experiments do; else 1, its definition.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
    maps : array (N, H, W, C) or (N, H, W, 1)
        Signed; one number a pixel counts for all its colours.
    target : int or int array (N,)
        The class, one for all images or one for each.
    sigma : float
        Pixels count from 0 to 1; the copies are not clipped.
    samples : int
    normalize : bool
    seed : int
        Of the noise, which is the same for every image.
    falls : array (N, samples), optional
        What `score_falls` returns of the same arguments: it is the same for the maps of every method.
    progress : bool
        Show a progress bar over the images as their scores are measured.

    Raises
    ------
    InputError
        Unfit images or maps, an unknown class, options that are no numbers of their kind.
    """
    images = images_for(net, x)
    maps = checked(maps, len(images), net.input_shape)
    falls = score_falls(net, images, target, sigma, samples, seed, progress=progress) if falls is None else falls
    if np.shape(falls) != (len(images), samples):
        raise InputError(f"falls: expected shape {(len(images), samples)}, got {np.shape(falls)}")
    noise, found = _noise(net, sigma, samples, seed), np.empty(len(images))
    for n, fall in enumerate(falls):
        foretold = (noise * maps[n]).reshape(len(noise), -1).sum(1)
        square = foretold @ foretold
        b = (foretold @ fall / square if square > 0 else 0.0) if normalize else 1.0
        found[n] = ((b * foretold - fall) ** 2).mean()
    return found


def score_falls(net, x, target, sigma=0.1, samples=100, seed=0, *, progress=False):
    """Return how far each image's score falls with each noise that is taken from it, (N, samples): see `infidelity`."""
    images = images_for(net, x)
    target = units_per_image(net, net.layer_names[-1], target, len(images), "target")
    noise = _noise(net, sigma, samples, seed)
    found = np.empty((len(images), len(noise)))
    for n, unit in enumerate(bar(target, disable=not progress, leave=False)):
        image = floats(net, images[n : n + 1])
        scores = net.logits(np.concatenate([image, image - noise]))[:, unit].astype(np.float64)
        found[n] = scores[0] - scores[1:]
    return found


def _noise(net, sigma, samples, seed):
    shape = check_whole(samples, "samples"), *net.input_shape
    return (_size(sigma, "sigma") * streams.rng(seed, "infidelity").standard_normal(shape)).astype(net.dtype)


def _norm(maps):
    return np.sqrt((maps * maps).sum((1, 2, 3)))


def _size(value, what):
    if not (is_number(value, whole=False) and 0 < value < np.inf):
        raise InputError(f"{what}: expected a number above 0, got {shown(value)}")
    return value
