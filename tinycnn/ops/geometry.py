"""Where windows lie: output sizes and padding, for convolutions and pools alike. Nobody else knows of padding.

SAME is TensorFlow's: out = ceil(in / stride), the padding is split evenly and its odd pixel goes to the
bottom and right. VALID never pads: out = floor((in - kernel) / stride) + 1. Any other padding is a pair of pairs,
((top, bottom), (left, right)), and gives out = floor((in + before + after - kernel) / stride) + 1.
"""

import functools
from typing import NamedTuple

import numpy as np

PADDINGS = ("SAME", "VALID")


class Block(NamedTuple):
    """The windows of a convolution and of the max-pool after it."""

    stride: tuple
    padding: str | tuple
    window: tuple
    pool_stride: tuple
    pool_padding: str | tuple


def pads(shape, kernel, stride, padding):
    """Return ((top, bottom), (left, right)), pixels of padding around an image of `shape` (H, W, ...)."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding != "SAME":
        return padding
    total = [max((-(-size // s) - 1) * s + k - size, 0) for size, k, s in zip(shape, kernel, stride)]
    return tuple((t // 2, t - t // 2) for t in total)


@functools.lru_cache(1024)
def windows(shape, kernel, stride, padding):
    """Return (OH, OW, pad_top, pad_left) for an image of `shape` (H, W, ...)."""
    (top, bottom), (left, right) = pads(shape, kernel, stride, padding)
    OH = (shape[0] + top + bottom - kernel[0]) // stride[0] + 1
    OW = (shape[1] + left + right - kernel[1]) // stride[1] + 1
    return OH, OW, top, left


def central(shape, window, stride, padding):
    """Return switches (OH, OW, 1) that name each window's centre, (k - 1) // 2, moved inside the image at a border."""
    OH, OW, top, left = windows(shape, window, stride, padding)
    r, c = np.arange(OH) * stride[0] - top, np.arange(OW) * stride[1] - left
    i = (r + (window[0] - 1) // 2).clip(0, shape[0] - 1) - r
    j = (c + (window[1] - 1) // 2).clip(0, shape[1] - 1) - c
    return (i[:, None] * window[1] + j)[..., None].astype(np.uint8)
