"""Saliency: how much each pixel would change a class score, or a layer's maps.

    M(i, j) = max_c abs(d S / d x(i, j, c))

S is the class score before the softmax, c runs over the colours: Simonyan et al. 2013, arXiv:1312.6034. The
study takes the maximum over all classes too. ``rule="guided"`` gives the guided backpropagation of
Springenberg et al. 2014 (arXiv:1412.6806), ``rule="deconvnet"`` a deconvnet seeded with 1.
"""

import numpy as np

from tinycnn.rules import by_layer

from .check import batches, images_for, map_layer, target_for


def gradient(net, x, target, rule="gradient", *, progress=False):
    """Return the signed gradient of a class score, or of any unit, with respect to the pixels, (N, H, W, C).

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images, a memory map too; they are taken in batches.
    target : int, int array (N,), (layer, unit) or (layer, unit, (row, column))
        A class, one for all images or one for each; or a unit of any layer, of a layer with maps one place of a map or
        the sum of its activations. Unit and place, too, are one for all images or one for each.
    rule : str, Rule or {layer: either}
        "gradient", "deconvnet", "guided" or another of `tinycnn.rules`.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        A class, layer, unit or place that the network does not have, an unknown rule, unfit images.
    """
    images = images_for(net, x)
    rule = by_layer(rule, net.layer_names)
    target = target_for(net, target, len(images))
    dx, work = np.empty(images.shape, net.dtype), net.workspace()
    for some in batches(net, len(images), target.layer, progress):
        trace = net.forward(images[some], upto=target.layer, work=work)
        dx[some] = net.backward(trace, target[some].seed(trace[target.layer]), rule=rule)
    return dx


def saliency(net, x, target=None, rule="gradient"):
    """Return the largest absolute gradient of the class scores over the colours, (N, H, W).

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images; they are taken in batches.
    target : int, int array (N,) or None
        One class for all images, one for each, or (the study's way) the maximum over all classes.
    rule : str, Rule or {layer: either}
        "gradient", "deconvnet", "guided" or another of `tinycnn.rules`.

    Raises
    ------
    InputError
        A class that the network does not have, an unknown rule, unfit images.
    """
    if target is not None:
        return np.abs(gradient(net, x, target, rule)).max(-1)
    images = images_for(net, x)
    rule = by_layer(rule, net.layer_names)
    last = net.layer_names[-1]
    return _largest(net, images, last, rule)


def layer_backprop(net, x, layer, rule="gradient"):
    """Return the largest absolute gradient of any map's sum over colours and maps, (N, H, W).

    For each map of `layer` the sum of its activations is differentiated with respect to the pixels: what in
    the image moves the layer at all. One way back per map, from one forward pass.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        Any number of images; they are taken in batches.
    layer : str
        A layer with maps; the study takes pool2 and relu2.
    rule : str, Rule or {layer: either}
        "gradient", "deconvnet", "guided" or another of `tinycnn.rules`.

    Raises
    ------
    InputError
        Unknown layer or one without maps, an unknown rule, unfit images.
    """
    images = images_for(net, x)
    map_layer(net, layer)
    rule = by_layer(rule, net.layer_names)
    return _largest(net, images, layer, rule)


def _largest(net, images, layer, rule):
    """The largest absolute signal over colours and all units of `layer`, (N, H, W)."""
    result, work = np.empty(images.shape[:3], net.dtype), net.workspace()
    for some in batches(net, len(images), layer):
        result[some] = net.backward_each(net.forward(images[some], upto=layer, work=work), rule=rule)
    return result
