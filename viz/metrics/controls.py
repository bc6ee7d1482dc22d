"""Maps that no network had a part in, to hold others against: noise, an image's edges, a blob, its brightness."""

import numpy as np

from tinycnn import streams
from tinycnn.errors import check_images
from viz import deconvnet
from viz.metrics import localization, statistics


def random_map(net, x, target=None, seed=0):
    """Return a map of noise, uniform in [0, 1), for each of images (N, H, W, C), (N, H, W, 1).

    An image's place among the N and the seed alone determine it: another network or target changes nothing.
    """
    N, H, W, _ = check_images(x, what="x").shape
    return streams.rng(seed, "random map").random((N, H, W, 1))


def edges(net, x, target=None):
    """Return the strength of the images' edges (`deconvnet.edges`), (N, H, W, 1)."""
    return deconvnet.edges(check_images(x, what="x"))[..., None]


def centred_blob(net, x, target=None):
    """Return the `blob`, the same for every image, (N, H, W, 1)."""
    N, H, W, _ = check_images(x, what="x").shape
    return np.broadcast_to(blob((H, W))[..., None], (N, H, W, 1)).copy()


def brightness(net, x, target=None):
    """Return the mean over the colours of each pixel, (N, H, W, 1), uint8 counting from 0 to 1."""
    x = check_images(x, what="x")
    return x.mean(-1, dtype=np.float64, keepdims=True) / (255 if x.dtype == np.uint8 else 1)


CONTROLS = {  # each (net, x, target) -> (N, H, W, 1), as a method is, and no method
    "random map": random_map,
    "edges of the image": edges,
    "centred blob": centred_blob,
    "brightness": brightness,
}


def blob(shape):
    """Return a centred Gaussian blob, (H, W); its width is a quarter of the image's."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    return np.exp(-(y[:, None] ** 2 + x**2) / (2 * (min(shape) / 4) ** 2))


def blobs(N, shape, rng):
    """Return the blob moved at random, around the edges, for each of N images, (N, H, W)."""
    moves = rng.integers(0, shape, (N, 2))
    return np.stack([np.roll(blob(shape), move, (0, 1)) for move in moves])


def pointing(masks, images):
    """Return the shares that the images' edges and a centred blob hit in the pointing game, and chance.

    Parameters
    ----------
    masks : bool array (N, H, W)
        The objects' pixels.
    images : array (N, H, W, C)

    Returns
    -------
    dict
        Of each an `Interval`, and "by_chance" the mean share of the objects' pixels.
    """
    drawn = {name: CONTROLS[name](None, images)[..., 0] for name in ("edges of the image", "centred blob")}
    shares = {name: statistics.share(localization.pointing_game(masks, maps)) for name, maps in drawn.items()}
    return shares | {"by_chance": masks[masks.any((1, 2))].mean()}
