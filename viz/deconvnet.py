"""Deconvnet: what in the image excited one map, by sending its activation alone back to the pixels.

Zeiler and Fergus 2013, arXiv:1311.2901. All activations of the layer but one map's are set to zero; on the
way back each max-pool is undone by its switches, each ReLU rectifies the signal that comes back, and each
convolution is transposed; biases play no part. Seeding with the activation itself lets a dead map draw
nothing. Springenberg et al. 2014 (arXiv:1412.6806) also mask by the forward ReLU: ``rule="guided"``.
"""

import numpy as np

from tinycnn.errors import choose

from .activations import strongest
from .check import batches, images_for, units_per_image


def project(net, x, layer, maps="strongest", unpool="switches", rule="deconvnet"):
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

    Returns
    -------
    projection : array (N, H, W, C)
        Signed, in no unit: scale it to show it.
    maps : int array (N,)
        Which map was projected.

    Raises
    ------
    InputError
        Unknown layer, rule or unpooling, maps that the layer does not have, unfit images.
    """
    images = images_for(net, x)
    net.check_layer(layer)
    choose(rule, ("deconvnet", "guided", "gradient"), "rule")
    choose(unpool, ("switches", "repeat", "center"), "unpool")
    if isinstance(maps, str):
        choose(maps, ("strongest",), "maps")
        chosen = np.empty(len(images), np.int64)
    else:
        chosen = units_per_image(net, layer, maps, len(images), "maps")
    projection = np.empty(images.shape, net.dtype)
    work = net.workspace() if unpool == "switches" else None  # the fast path knows only them
    for some in batches(net, len(images), layer):
        trace = net.forward(images[some], upto=layer, work=work)
        a = trace[layer]
        if isinstance(maps, str):
            chosen[some] = strongest(a) if a.ndim == 4 else a.argmax(1)
        one = np.arange(len(a)), ..., chosen[some]  # one map of each image
        seed = np.zeros_like(a)
        seed[one] = a[one]
        projection[some] = net.backward(trace, seed, at=layer, rule=rule, unpool=unpool)
    return projection, chosen
