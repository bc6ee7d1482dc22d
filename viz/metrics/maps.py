"""Maps as the metrics take them: what a method draws, brought to one number a pixel."""

import numpy as np

from tinycnn.errors import InputError, as_array


def signed(maps):
    """Return the sum over the colours of maps (N, H, W, C): what each pixel counts for, (N, H, W), float64."""
    return checked(maps).sum(-1)


def absolute(maps):
    """Return the sum of absolute values over the colours of maps (N, H, W, C): how much, (N, H, W), float64."""
    return np.abs(checked(maps)).sum(-1)


def drawn(method, net, images, target):
    """Return what `method` (net, x, target) draws of images (N, H, W, C), float64 (N, H, W, C or 1).

    Raises
    ------
    InputError
        What it returns is no such array, or has NaN in it.
    """
    if not callable(method):
        raise InputError("method: expected a function (net, x, target) -> maps (N, H, W, C)")
    return checked(method(net, images, target), len(images), net.input_shape)


def checked(maps, N=None, shape=None):
    """Return `maps` (N, H, W, C) as float64, where asked for of N images of a shape (H, W, C), C or 1 colours.

    Raises
    ------
    InputError
        Another shape, or NaN.
    """
    maps = as_array(maps, "maps", np.float64)
    fits = shape is None or (maps.shape[:3] == (N, *shape[:2]) and maps.shape[-1] in (1, shape[2]))
    if maps.ndim != 4 or maps.size == 0 or not fits:
        expected = "(N, H, W, C)" if shape is None else f"{(N, *shape)}, or of one colour"
        raise InputError(f"maps: expected shape {expected}, got {maps.shape}")
    return _finite(maps)


def of_pixels(maps, images):
    """Return `maps` (N, H, W) of images (N, H, W, C) as float64; raise InputError where they do not fit or hold NaN."""
    maps = as_array(maps, "maps", np.float64)
    if maps.shape != images.shape[:3]:
        hint = "; take maps.signed or maps.absolute first" if maps.ndim == 4 else ""
        raise InputError(f"maps: expected shape {images.shape[:3]}, one number a pixel, got {maps.shape}{hint}")
    return _finite(maps)


def _finite(maps):
    if not np.isfinite(maps).all():
        raise InputError("maps: they hold NaN or infinite values")
    return maps
