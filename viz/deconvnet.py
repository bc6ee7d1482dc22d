"""Deconvnet: what in the image excited one map, by sending its activation alone back to the pixels.

Zeiler and Fergus 2013, arXiv:1311.2901. All activations of the layer but one map's are set to zero; on the
way back each max-pool is undone by its switches, each ReLU rectifies the signal that comes back, and each
convolution is transposed; biases play no part. Seeding with the activation itself lets a dead map draw
nothing. Springenberg et al. 2014 (arXiv:1412.6806) also mask by the forward ReLU: ``rule="guided"``.
"""

import numpy as np
from scipy import ndimage

from tinycnn.errors import InputError, as_array, choose
from tinycnn.rules import by_layer

from .activations import strongest
from .check import batches, images_for, places, units_per_image


def project(net, x, layer, units="strongest", unpool=None, rule="deconvnet", positions=None):
    """Project the activation of one map (or dense unit) of each image back to the pixels.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images; they are taken in batches.
    layer : str
    units : "strongest", int or int array (N,)
        Which map is kept: the one with the largest sum of activations in that image (in a dense layer the
        unit with the largest activation), one for all images, or one for each.
    unpool : {"switches", "repeat", "center"}, optional
        Each pooled value goes back to its maximum's place, over its whole block (the study's way), or to
        the centre; default: the rule's own way, which is by switches for those of the table.
    rule : str, Rule or {layer: either}
        "deconvnet", "guided", "gradient" or another of `tinycnn.rules`.
    positions : (row, column) or int array (N, 2), optional
        The one unit of its map that is kept, in all images or in each, as Zeiler and Fergus do; default: the whole
        map.

    Returns
    -------
    projection : array (N, H, W, C)
        Signed, in no unit: scale it to show it.
    units : int array (N,)
        Which map was projected.

    Raises
    ------
    InputError
        Unknown layer, rule or unpooling, units or positions that the layer does not have, unfit images.
    """
    images = images_for(net, x)
    net.check_layer(layer)
    rule = by_layer(rule, net.layer_names, unpool)
    if isinstance(units, str):
        choose(units, ("strongest",), "units")
        chosen = np.empty(len(images), np.int64)
    else:
        chosen = units_per_image(net, layer, units, len(images), "units")
    if positions is not None:
        positions = places(net, layer, positions, len(images))
    projection = np.empty(images.shape, net.dtype)
    work = net.workspace()
    for some in batches(net, len(images), layer):
        trace = net.forward(images[some], upto=layer, work=work)
        a = trace[layer]
        if isinstance(units, str):
            chosen[some] = strongest(a) if a.ndim == 4 else a.argmax(1)
        one = np.arange(len(a)), ..., chosen[some]  # one map of each image
        if positions is not None:
            one = np.arange(len(a)), *positions[some].T, chosen[some]
        kept = a[one]
        a[...] = 0
        a[one] = kept
        projection[some] = net.backward(trace, a, at=layer, rule=rule)
    return projection, chosen


def edges(images):
    """Return the strength of the edges in images (N, H, W, C) as (N, H, W): the Sobel magnitude of the grey image.

    Grey is the mean over the colours, uint8 counting from 0 to 1; at the border the outermost pixels are repeated.
    Raises InputError unless `images` has four dimensions.
    """
    images = as_array(images, "images")
    if images.ndim != 4 or images.size == 0 or images.dtype.kind not in "buif":
        raise InputError(f"images: expected shape (N, H, W, C), got {images.shape}")
    grey = images.mean(-1, dtype=np.float64) / (255 if images.dtype == np.uint8 else 1)
    sides = ((1, 2), (2, 1))  # the difference along one axis of each image, smoothed along the other
    return np.hypot(*(_along(_along(grey, (-1, 0, 1), a), (1, 2, 1), b) for a, b in sides))


def _along(x, weights, axis):
    return ndimage.correlate1d(x, weights, axis, mode="nearest")
