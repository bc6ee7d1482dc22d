"""What the functions of `viz` ask of their arguments, and how they cut a batch to bounded memory."""

import numpy as np

from tinycnn.errors import InputError, check_images

FLOATS_PER_BATCH = 2**25  # activations alive in one trace: 128 MiB in float32


def images_for(net, x, what="x"):
    """Return `x` as images of the network's input shape, or raise InputError; there must be one at least."""
    x = check_images(x, net.input_shape, what)
    if len(x) == 0:
        raise InputError(f"{what}: no images given; at least one is needed")
    return x


def map_layer(net, layer):
    """Return `layer` if its output is maps (H, W, C), or raise InputError."""
    net.check_layer(layer)
    if len(net.shapes[layer]) != 3:
        with_maps = [name for name in net.layer_names if len(net.shapes[name]) == 3]
        raise InputError(f"layer {layer!r} has no maps, only units; choose one of: {', '.join(with_maps)}")
    return layer


def units_of(net, layer, units, what="units"):
    """Return `units` (an int or ints) as int64 (U,): maps of a convolutional layer, units of a dense one.

    Raises InputError where one is not an integer, or is outside of what `layer` has.
    """
    count = net.shapes[layer][-1]
    units = np.asarray(units)
    if units.ndim > 1 or units.size == 0 or units.dtype.kind not in "iu":
        raise InputError(f"{what}: expected an integer or a list of integers, got {units!r}")
    units = np.atleast_1d(units)
    if units.min() < 0 or units.max() >= count:
        wrong = units[(units < 0) | (units >= count)][0]
        raise InputError(f"{what}: {wrong} is not in layer {layer!r}, which has 0 to {count - 1}")
    return units.astype(np.int64)


def units_per_image(net, layer, units, N, what):
    """Return `units` as int64 (N,): one for all images, or one for each."""
    units = units_of(net, layer, units, what)
    if len(units) not in (1, N):
        raise InputError(f"{what}: expected one integer, or {N} (one per image), got {len(units)}")
    return np.broadcast_to(units, (N,)).copy()


def batches(net, N, upto):
    """Yield slices of `N` images so small that a trace up to layer `upto` stays within bounds."""
    last = net.layer_names.index(upto)
    floats = sum(int(np.prod(net.shapes[name])) for name in net.layer_names[: last + 1])
    size = max(1, min(100, FLOATS_PER_BATCH // floats))
    for start in range(0, N, size):
        yield slice(start, min(start + size, N))
