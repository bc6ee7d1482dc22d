"""What the functions of `viz` ask of their arguments, and how they cut a batch to bounded memory."""

from dataclasses import dataclass

import numpy as np

from tinycnn.errors import InputError, as_array, check_images, one_of, shown
from tinycnn.progress import bar

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


def scores(net, images, target):
    """Return the score of each image for its `Target`, (N,), in batches."""
    found = np.empty(len(images), net.dtype)
    for some, y in outputs(net, images, target.layer):
        found[some] = target[some].scores(y)
    return found


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


def batch_size(net, upto):
    """Return how many images, 100 at most, a trace up to layer `upto` may hold to stay within bounds."""
    last = net.layer_names.index(upto)
    floats = sum(int(np.prod(net.shapes[name])) for name in net.layer_names[: last + 1])
    return max(1, min(100, FLOATS_PER_BATCH // floats))


def batches(net, N, upto, progress=False):
    """Yield slices of `N` images so small that a trace up to layer `upto` stays within bounds."""
    size = batch_size(net, upto)
    for start in bar(range(0, N, size), disable=not progress, leave=False):
        yield slice(start, min(start + size, N))


def passes(net, N, samples, upto, progress=False):
    """Yield (slice of N images, sample numbers (S,)) until every image has had every sample, in order.

    Images and samples together fill a batch: of many images it holds one sample, of few images several.
    """
    size = batch_size(net, upto)
    for some in batches(net, N, upto, progress):
        each = size // (some.stop - some.start)
        for first in range(0, samples, each):
            yield some, np.arange(first, min(first + each, samples))


@dataclass(frozen=True)
class Target:
    """What is asked about, image by image: the class, unit or map of a layer, of a map perhaps one place.

    Attributes
    ----------
    layer : str
    units : int64 array (N,)
    positions : int64 array (N, 2) or None
        Row and column; None: all of the map, whose values add up.
    """

    layer: str
    units: np.ndarray
    positions: np.ndarray | None = None

    def __getitem__(self, rows):
        """Return the target of some images."""
        return Target(self.layer, self.units[rows], None if self.positions is None else self.positions[rows])

    def scores(self, y):
        """Return the value asked about for outputs (N, ...) of the layer, (N,): of a map without place its sum."""
        found = y[self._where(y)]
        return found.reshape(len(y), -1).sum(1)

    def seed(self, y):
        """Return the gradient of `scores`, shaped like y: 1 at what is asked about, else 0."""
        dy = np.zeros_like(y)
        dy[self._where(y)] = 1
        return dy

    def _where(self, y):
        return (
            (np.arange(len(y)), ..., self.units)
            if self.positions is None
            else (np.arange(len(y)), *self.positions.T, self.units)
        )


def target_for(net, target, N):
    """Return the `Target` of `N` images, or raise InputError.

    `target` is a class, or one for each image; or (layer, unit) or (layer, unit, (row, column)), where unit and place
    are one for all images or one for each.
    """
    if not (isinstance(target, (tuple, list)) and target and isinstance(target[0], str)):
        net.check_classes()
        return Target(net.layer_names[-1], units_per_image(net, net.layer_names[-1], target, N, "target"))
    if len(target) not in (2, 3):
        raise InputError(f"target: expected (layer, unit) or (layer, unit, (row, column)), got {shown(target)}")
    layer = net.check_layer(target[0])
    return Target(
        layer,
        units_per_image(net, layer, target[1], N, "target"),
        *(places(net, layer, position, N) for position in target[2:]),
    )


def floats(net, images):
    """Return images as the network sees them: of its dtype, uint8 divided by 255; not to be written to."""
    return net.ops.to_numpy(net.ops.from_images(images))


def baseline_for(net, baseline, N):
    """Return a baseline, a number, an image (H, W, C) or one for each of N images, as (N, H, W, C), read-only."""
    given = as_array(baseline, "baseline")
    shape = net.input_shape
    if given.shape not in ((), shape, (N, *shape)) or given.dtype.kind not in "uif" or not np.isfinite(given).all():
        raise InputError(
            f"baseline: expected a finite number, an image {shape}, or {N} of them, got {given.dtype} {given.shape}"
        )
    given = given / net.dtype.type(255) if given.dtype == np.uint8 and given.ndim else given
    return np.broadcast_to(given.astype(net.dtype), (N, *shape))


def enlarge(maps, shape):
    """Return maps (N, h, w) at another size (N, H, W), bilinear; beyond the outermost centres they are constant."""
    rows, columns = (_weights(n, size, maps.dtype) for n, size in zip(maps.shape[1:], shape))
    return rows @ maps @ columns.T


def _weights(n, size, dtype):
    """The matrix (size, n) that resamples one axis: pixel i of `size` has its centre at (i + 1/2) n / size - 1/2."""
    centre = ((np.arange(size) + 0.5) * n / size - 0.5).clip(0, n - 1)
    return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(n))).astype(dtype)
