"""Deconvnet: what in the image excited one map, by sending its activation alone back to the pixels.

Zeiler and Fergus 2013, arXiv:1311.2901. All activations of the layer but one map's are set to zero; on the
way back each max-pool is undone by its switches, each ReLU rectifies the signal that comes back, and each
convolution is transposed; biases play no part. Seeding with the activation itself lets a dead map draw
nothing. Springenberg et al. 2014 (arXiv:1412.6806) also mask by the forward ReLU: ``rule="guided"``.
"""

import numpy as np
from scipy import ndimage

from tinycnn.errors import InputError, choose

from .activations import strongest
from .check import batches, images_for, map_layer, units_per_image

UNPOOL = ("switches", "repeat", "center")


def project(net, x, layer, maps="strongest", unpool="switches", rule="deconvnet", positions=None):
    """Project the activation of one map (or dense unit) of each image back to the pixels.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images; they are taken in batches.
    layer : str
    maps : "strongest", int or int array (N,)
        Which map is kept: the one with the largest sum of activations in that image (in a dense layer the
        unit with the largest activation), one for all images, or one for each.
    unpool : {"switches", "repeat", "center"}
        Each pooled value goes back to its maximum's place, over its whole block (the study's way), or to
        the centre.
    rule : {"deconvnet", "guided", "gradient"}
    positions : int array (N, 2), optional
        For each image the row and column of the one unit of its map that is kept, as Zeiler and Fergus do;
        default: the whole map.

    Returns
    -------
    projection : array (N, H, W, C)
        Signed, in no unit: scale it to show it.
    maps : int array (N,)
        Which map was projected.

    Raises
    ------
    InputError
        Unknown layer, rule or unpooling, maps or positions that the layer does not have, unfit images.
    """
    images = images_for(net, x)
    net.check_layer(layer)
    choose(rule, ("deconvnet", "guided", "gradient"), "rule")
    choose(unpool, UNPOOL, "unpool")
    if isinstance(maps, str):
        choose(maps, ("strongest",), "maps")
        chosen = np.empty(len(images), np.int64)
    else:
        chosen = units_per_image(net, layer, maps, len(images), "maps")
    if positions is not None:
        positions = _positions(net, layer, positions, len(images))
    projection = np.empty(images.shape, net.dtype)
    work = net.workspace() if unpool == "switches" else None  # the fast path knows only them
    for some in batches(net, len(images), layer):
        trace = net.forward(images[some], upto=layer, work=work)
        a = trace[layer]
        if isinstance(maps, str):
            chosen[some] = strongest(a) if a.ndim == 4 else a.argmax(1)
        one = np.arange(len(a)), ..., chosen[some]  # one map of each image
        if positions is not None:
            one = np.arange(len(a)), *positions[some].T, chosen[some]
        seed = np.zeros_like(a)
        seed[one] = a[one]
        projection[some] = net.backward(trace, seed, at=layer, rule=rule, unpool=unpool)
    return projection, chosen


def edges(images):
    """Return the strength of the edges in images (N, H, W, C) as (N, H, W): the Sobel magnitude of the grey image.

    Grey is the mean over the colours, uint8 counting from 0 to 1; at the border the outermost pixels are repeated.
    Raises InputError unless `images` has four dimensions.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise InputError(f"images: expected shape (N, H, W, C), got {images.shape}")
    grey = images.mean(-1, dtype=np.float64) / (255 if images.dtype == np.uint8 else 1)
    return np.stack([np.hypot(*(ndimage.sobel(one, axis, mode="nearest") for axis in (0, 1))) for one in grey])


def edge_correlation(projection, images):
    """Return how well each projection follows the edges of its image, (N,).

    Pearson's correlation, over the pixels, of the largest absolute value of the projection over the colours with
    the image's `edges`; 0 where one of the two is the same everywhere.

    Raises
    ------
    InputError
        Arrays that do not have the same shape (N, H, W, C).
    """
    drawn, there = np.asarray(projection), edges(images)
    if drawn.shape != np.shape(images):
        raise InputError(f"projection: expected the images' shape {np.shape(images)}, got {drawn.shape}")
    drawn = np.abs(drawn.astype(np.float64)).max(-1)
    a, b = ((v - v.mean((1, 2), keepdims=True)).reshape(len(v), -1) for v in (drawn, there))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / np.where(size > 0, size, np.inf)


def _positions(net, layer, positions, N):
    """Return `positions` as integers (N, 2), or raise InputError."""
    positions, (H, W, _) = np.asarray(positions), net.shapes[map_layer(net, layer)]
    if positions.shape != (N, 2) or positions.dtype.kind not in "iu":
        raise InputError(f"positions: expected integers of shape {(N, 2)}, got {positions.dtype} {positions.shape}")
    if (positions < 0).any() or (positions >= (H, W)).any():
        raise InputError(f"positions: rows run from 0 to {H - 1} and columns from 0 to {W - 1} in layer {layer!r}")
    return positions
