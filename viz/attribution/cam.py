"""Which places count: class activation maps, weighted sums of a layer's maps, at the image's size.

A_k is map k of a layer (by default the last that has maps), g_k = dS / dA_k, S the score asked about:

    grad_cam            relu(sum_k mean(g_k) A_k)                     Selvaraju et al. 2016, arXiv:1610.02391
    grad_cam_plusplus   relu(sum_k sum(alpha_k relu(g_k)) A_k)        Chattopadhay et al. 2017, arXiv:1710.11063
    layer_cam           relu(sum_k relu(g_k) A_k)                     Jiang et al. 2021 (IEEE TIP 30)
    score_cam           relu(sum_k softmax_k(S(x masked by A_k)) A_k) Wang et al. 2019, arXiv:1910.01279
    guided_grad_cam     grad_cam times guided backpropagation's signal    Selvaraju et al. 2016

Sums and means without index run over places. Maps are enlarged bilinearly, pixels being squares (a layer's cell covers
the same share of the map and of the image); a map that is 0 everywhere stays 0.
"""

import numpy as np
from scipy.special import softmax

from tinycnn.errors import InputError
from viz.check import batches, enlarge, floats, images_for, map_layer, passes, target_for

from .gradients import guided_backprop, last_maps
from .perturbation import scores_at


def _combined(net, x, target, layer, weigh, progress):
    """relu(sum_k weigh(A, g) A_k), enlarged, (N, H, W, 1): g is the gradient of the target's score at the layer."""
    images = images_for(net, x)
    target, layer = target_for(net, target, len(images)), last_maps(net) if layer is None else map_layer(net, layer)
    if net.layer_names.index(layer) > net.layer_names.index(target.layer):
        raise InputError(f"layer {layer!r} comes after the target's, {target.layer!r}; take one before it")
    found = np.empty((*images.shape[:3], 1), net.dtype)
    for some in batches(net, len(images), target.layer, progress):
        trace = net.forward(images[some], upto=target.layer)
        A, y = trace[layer], trace[target.layer]
        g = net.backward(trace, target[some].seed(y), to=layer)
        found[some, ..., 0] = enlarge(np.maximum((weigh(A, g) * A).sum(-1), 0), images.shape[1:3])
    return found


def grad_cam(net, x, target, layer=None, *, progress=False):
    """Return Grad-CAM: a layer's maps by their mean gradients, (N, H, W, 1), at least 0.

    Parameters
    ----------
    net, x, target, progress
        As for `viz.attribution.gradients.gradient`.
    layer : str, optional
        A layer with maps, not after the target's; default: the last of the network that has maps.

    Raises
    ------
    InputError
        As for `gradient`; a layer without maps, or after the target's.
    """
    return _combined(net, x, target, layer, lambda A, g: g.mean((1, 2), keepdims=True), progress)


def grad_cam_plusplus(net, x, target, layer=None, *, progress=False):
    """Return Grad-CAM++, whose weights give every place of an object a say, (N, H, W, 1), at least 0.

    With Y = exp(S) its alpha is Y'' / (2 Y'' + sum(A) Y'''), derivatives by the activation at each place. As S is
    piecewise linear Y'' = Y g^2 and Y''' = Y g^3 without error, so alpha = 1 / (2 + sum(A) g) where g is not 0; the
    factor Y of Y' = Y g, common to all of a map, is left out: it overflows. See `grad_cam`.
    """

    def weigh(A, g):
        below = 2 + A.sum((1, 2), keepdims=True) * g
        on = (g > 0) & (below != 0)
        return np.divide(g, below, out=np.zeros_like(g), where=on).sum((1, 2), keepdims=True)

    return _combined(net, x, target, layer, weigh, progress)


def layer_cam(net, x, target, layer=None, *, progress=False):
    """Return LayerCAM: activations by their own positive gradients, (N, H, W, 1), at least 0. See `grad_cam`."""
    return _combined(net, x, target, layer, lambda A, g: np.maximum(g, 0), progress)


def guided_grad_cam(net, x, target, layer=None, *, progress=False):
    """Return guided backpropagation's signal times Grad-CAM, (N, H, W, C), signed. See `grad_cam`."""
    return guided_backprop(net, x, target, progress=progress) * grad_cam(net, x, target, layer, progress=progress)


def score_cam(net, x, target, layer=None, *, progress=False):
    """Return Score-CAM: maps by the score that the image keeps when it is masked by them, (N, H, W, 1), at least 0.

    Each map, enlarged and stretched to [0, 1], multiplies the image; the softmax of the scores S over the maps weighs
    them (the paper's algorithm 1; the score of its baseline cancels). A constant map masks all. See `grad_cam`.
    """
    images = images_for(net, x)
    target, layer = target_for(net, target, len(images)), last_maps(net) if layer is None else map_layer(net, layer)
    found, work, K = np.empty((*images.shape[:3], 1), net.dtype), net.workspace(), net.shapes[layer][-1]
    upto = max(layer, target.layer, key=net.layer_names.index)
    for some, k in passes(net, len(images), K, upto, progress):
        if k[0] == 0:
            seen, A = floats(net, images[some]), net.forward(images[some], upto=layer, work=work)[layer]
            kept = np.empty((K, len(A)))
        large = np.stack([enlarge(A[..., i], images.shape[1:3]) for i in k])  # (S, N, H, W)
        least, most = large.min((2, 3), keepdims=True), large.max((2, 3), keepdims=True)
        masks = (large - least) / np.where(most > least, most - least, 1)
        kept[k] = scores_at(net, masks[..., None] * seen, target[some], work)
        if k[-1] == K - 1:
            weights = softmax(kept, 0).T[:, None, None].astype(A.dtype)
            found[some, ..., 0] = enlarge(np.maximum((weights * A).sum(-1), 0), images.shape[1:3])
    return found
