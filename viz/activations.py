"""What a layer answers: its maps, its filters, and the images and patches that excite each map most.

The nine strongest images of a map, each with the patch that its unit sees, are figure 2 of Zeiler and
Fergus 2013 (arXiv:1311.2901).
"""

from dataclasses import dataclass

import numpy as np

from tinycnn import layers
from tinycnn.errors import InputError, as_array, one_of, shown

from .check import features, images_for, map_layer, outputs, units_of


@dataclass(frozen=True)
class TopImages:
    """The k images that excite each of M maps most; an image counts once per map, by its maximum there.

    Attributes
    ----------
    layer : str
    units : int array (M,)
        The maps.
    indices : int array (M, k)
        Images, strongest first; of equals the lower index first.
    values : array (M, k)
        The activations.
    positions : int array (M, k, 2)
        Row and column of the maximum in the map, the first in row-major order.
    boxes : int array (M, k, 4)
        The receptive field of that unit in the image: top, left, bottom, right, the last two exclusive. At
        the border it extends into the padding: negative, or beyond the image's height or width; clip before
        cropping.
    """

    layer: str
    units: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    positions: np.ndarray
    boxes: np.ndarray


def maps(net, x, layer):
    """Return the activation maps of `layer`, (N, H, W, C).

    Raises InputError for an unknown layer or one without maps, and for unfit images.
    """
    return features(net, images_for(net, x), map_layer(net, layer))


def filters(net, layer="conv1"):
    """Return the weights of a convolution as K small images, (K, kh, kw, Cin).

    Raises InputError where `layer` is not a convolution.
    """
    net.check_layer(layer)
    convolutions = [spec.name for spec in net.layers if isinstance(spec, layers.Conv2D)]
    if layer not in convolutions:
        raise InputError(f"layer {layer!r} has no filters; of convolutions {one_of(convolutions)}")
    return net.ops.to_numpy(net.params[layer]["w"]).transpose(3, 0, 1, 2).copy()


def top_images(net, images, layer, k=9, units=None):
    """Find the `k` images that excite each map of `layer` most, and where in the image.

    Parameters
    ----------
    net : Network
    images : array (N, H, W, C)
        Any number; they are taken in batches.
    layer : str
        A layer with maps.
    k : int
        At most N.
    units : int or ints (M,), optional
        Maps of the layer; default: all.

    Returns
    -------
    TopImages

    Raises
    ------
    InputError
        Unknown layer or one without maps, units out of range, unfit images, `k` not in 1 to N.
    """
    images = images_for(net, images, "images")
    H, W, C = net.shapes[map_layer(net, layer)]
    units = np.arange(C) if units is None else units_of(net, layer, units)
    if not (isinstance(k, (int, np.integer)) and 1 <= k <= len(images)):
        raise InputError(f"k: expected a whole number from 1 to {len(images)}, the number of images, got {shown(k)}")
    values, indices, positions = np.empty((len(units), 0)), *np.empty((2, len(units), 0), np.int64)
    for some, a in outputs(net, images, layer):
        a = a[..., units].reshape(-1, H * W, len(units))
        # The kept ones come first and have lower indices, and the sort is stable: of equals the lower index
        # stays.
        values = np.concatenate([values, a.max(1).T], 1)
        positions = np.concatenate([positions, a.argmax(1).T], 1)
        here = np.broadcast_to(np.arange(some.start, some.stop), (len(units), len(a)))
        indices = np.concatenate([indices, here], 1)
        order = np.argsort(-values, 1, kind="stable")[:, :k]
        values, indices, positions = (np.take_along_axis(v, order, 1) for v in (values, indices, positions))
    positions = np.stack(np.divmod(positions, W), -1)
    size, stride, offset = net.receptive_field(layer)
    corner = np.asarray(offset) + np.asarray(stride) * positions
    boxes = np.concatenate([corner, corner + size], -1)
    return TopImages(layer, units, indices, values.astype(net.dtype), positions, boxes)


def crop(images, boxes):
    """Return the part of each image (N, H, W, C) in its box (N, 4) as of `TopImages`, all of one size.

    What lies beyond the border is 0. Raises InputError for other shapes, or boxes without a pixel.
    """
    images, boxes = as_array(images, "images"), as_array(boxes, "boxes")
    fits = images.ndim == 4 and boxes.shape == (len(images), 4) and boxes.dtype.kind in "iu"
    if (
        not fits
        or not len(boxes)
        or (np.ptp(boxes[:, 2:] - boxes[:, :2], 0) != 0).any()
        or (boxes[:, 2:] <= boxes[:, :2]).any()
    ):
        raise InputError(
            f"images, boxes: expected (N, H, W, C) and whole numbers (N, 4), top, left, bottom and right, of one size, "
            f"got {images.shape} and {boxes.dtype} {boxes.shape}"
        )
    pad = int(max(0, -boxes.min(), boxes[:, 2].max() - images.shape[1], boxes[:, 3].max() - images.shape[2]))
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return np.stack([x[t + pad : b + pad, l + pad : r + pad] for x, (t, l, b, r) in zip(images, boxes)])


def strongest(maps):
    """Return for each image of maps (N, H, W, C) the map with the largest SUM of activations, (N,).

    The first of equals. Raises InputError unless `maps` has four dimensions.
    """
    maps = as_array(maps, "maps")
    if maps.ndim != 4:
        raise InputError(f"maps: expected shape (N, H, W, C), got {maps.shape}")
    return maps.sum((1, 2), dtype=np.float64).argmax(1)


def sums(net, images, layer):
    """Return the sum of each map's activations in each image, float64 (N, C).

    Parameters
    ----------
    net : Network
    images : array (N, H, W, C)
        Any number; they are taken in batches.
    layer : str
        A layer with maps.

    Raises
    ------
    InputError
        Unknown layer or one without maps, unfit images.
    """
    images = images_for(net, images, "images")
    found = np.empty((len(images), net.shapes[map_layer(net, layer)][-1]))
    for some, a in outputs(net, images, layer):
        found[some] = a.sum((1, 2), dtype=np.float64)
    return found


def wins(sums):
    """Count for how many images each map is the strongest, from the maps' `sums` (N, C); int array (C,).

    The first of equals wins; an image in which no map has a positive sum counts for none. Raises InputError for another
    shape.
    """
    sums = as_array(sums, "sums")
    if sums.ndim != 2 or sums.size == 0 or sums.dtype.kind not in "uif":
        raise InputError(f"sums: expected numbers (N, C), got {sums.dtype} of shape {sums.shape}")
    return np.bincount(sums.argmax(1)[sums.max(1) > 0], minlength=sums.shape[1])
