"""What the functions of `viz` ask of their arguments, and how they cut a batch to bounded memory."""

import numpy as np

from tinycnn.errors import InputError, as_array, check_images, one_of, shown

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
        raise InputError(f"layer {layer!r} has no maps, only units; of layers with maps {one_of(with_maps)}")
    return layer


def units_of(net, layer, units, what="units"):
    """Return `units` (an int or ints) as int64 (U,): maps of a convolutional layer, units of a dense one.

    Raises InputError where one is not an integer, or is outside of what `layer` has.
    """
    count = net.shapes[layer][-1]
    units = as_array(units, what)
    if units.ndim > 1 or units.size == 0 or units.dtype.kind not in "iu":
        raise InputError(f"{what}: expected an integer or a list of integers, got {shown(units)}")
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


def places(net, layer, positions, N):
    """Return `positions` as int64 (N, 2): one (row, column) of a map for all images, or one for each."""
    (H, W, _), given = net.shapes[map_layer(net, layer)], as_array(positions, "positions")
    if given.shape not in ((2,), (N, 2)) or given.dtype.kind not in "iu":
        raise InputError(f"positions: expected (row, column), or {N} of them (one per image), got {shown(positions)}")
    if (given < 0).any() or (given >= (H, W)).any():
        raise InputError(f"positions: rows run from 0 to {H - 1} and columns from 0 to {W - 1} in layer {layer!r}")
    return np.broadcast_to(given, (N, 2)).astype(np.int64)


def outputs(net, images, layer):
    """Yield (slice, output of `layer`) of batch after batch; the output is valid until the next."""
    work = net.workspace()
    for some in batches(net, len(images), layer):
        yield some, net.forward(images[some], upto=layer, work=work)[layer]


def features(net, images, layer):
    """Return the output of `layer` for any number of images, (N, ...), computed in batches."""
    found = np.empty((len(images), *net.shapes[layer]), net.dtype)
    for some, y in outputs(net, images, layer):
        found[some] = y
    return found


def batches(net, N, upto):
    """Yield slices of `N` images so small that a trace up to layer `upto` stays within bounds."""
    last = net.layer_names.index(upto)
    floats = sum(int(np.prod(net.shapes[name])) for name in net.layer_names[: last + 1])
    size = max(1, min(100, FLOATS_PER_BATCH // floats))
    for start in range(0, N, size):
        yield slice(start, min(start + size, N))
