"""Maps that no network had a part in, to hold others against: an image's edges, a blob."""

import numpy as np

from viz import deconvnet
from viz.metrics import localization, statistics


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
    centred = np.broadcast_to(blob(masks.shape[1:]), masks.shape)
    return {
        "edges of the image": statistics.share(localization.pointing_game(masks, deconvnet.edges(images))),
        "centred blob": statistics.share(localization.pointing_game(masks, centred)),
        "by_chance": masks[masks.any((1, 2))].mean(),
    }
