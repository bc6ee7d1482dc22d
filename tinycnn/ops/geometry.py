"""Where windows lie: output sizes and padding, for convolutions and pools alike.

SAME is TensorFlow's: out = ceil(in / stride), the padding is split evenly and its odd pixel goes to the
bottom and right. VALID never pads: out = floor((in - kernel) / stride) + 1.
"""

PADDINGS = ("SAME", "VALID")


def output_size(size, kernel, stride, padding):
    """Return (number of windows, pixels of padding before the first input pixel) along one axis."""
    if padding == "SAME":
        out = -(-size // stride)
        return out, max((out - 1) * stride + kernel - size, 0) // 2
    return (size - kernel) // stride + 1, 0


def windows(shape, kernel, stride, padding):
    """Return (OH, OW, pad_top, pad_left) for an image of `shape` (H, W, ...)."""
    OH, top = output_size(shape[0], kernel[0], stride[0], padding)
    OW, left = output_size(shape[1], kernel[1], stride[1], padding)
    return OH, OW, top, left
