"""Constants of activation maximization: the study's, the papers', and ours for three sizes of image.

A preset is keyword arguments: ``maximize(net, "fc2", range(10), **YOSINSKI_SETS[3])``. Ours take besides the
parametrisation by the statistics of the training images:
``maximize(net, "fc2", range(10), parametrization=Spectral.of(images), **for_size(28))``.
"""

from .regularizers import B, Blur, BoundedRange, Clip, ClipContribution, ClipNorm, Decay, NormProjection, TotalVariation
from .transforms import Affine, Jitter, Noise

# The study's preliminary trial, made with class 3: plain ascent from zeros.
PRELIMINARY = {"steps": 100, "step_size": 1000.0, "optimizer": "constant", "init": "zeros"}

# Yosinski et al. 2015, arXiv:1506.06579, table 1, for pixels in [0, 1]: a step and its bound shrink by 255^2 (pixels
# by 255, and the gradient is 255 times larger), the progress 2 of rate = min(max_rate, 2 / ||g||^2) does not.
YOSINSKI_SETS = (
    {
        "steps": 500,
        "optimizer": "progress",
        "step_size": 2.0,
        "max_rate": 100 / 255**2,
        "init": "noise",
        "regularizers": (Clip(0, 1), Blur(0.5, 4), ClipNorm(50)),
    },
    {
        "steps": 750,
        "optimizer": "constant",
        "step_size": 100 / 255**2,
        "init": "noise",
        "regularizers": (Clip(0, 1), Decay(0.3), ClipNorm(20)),
    },
    {
        "steps": 1000,
        "optimizer": "constant",
        "step_size": 100 / 255**2,
        "init": "noise",
        "regularizers": (Clip(0, 1), Decay(1e-4), Blur(1.0, 4)),
    },
    {
        "steps": 1000,
        "optimizer": "progress",
        "step_size": 2.0,
        "max_rate": 1e8 / 255**2,
        "init": "noise",
        "regularizers": (Clip(0, 1), Blur(0.5, 4), ClipContribution(90)),
    },
)

# Mahendran and Vedaldi 2016, arXiv:1512.02017: B, V, alpha, beta, B+ and the optimizer are theirs, for pixels in
# [0, 1]. Their weights are relative to the unit's largest activation on photographs, which nobody knows beforehand: 1
# suits logits of order 10, multiply both for a layer with larger activations. Their jitter, a quarter of the net's
# stride, would be 1 pixel here, too little to matter.
MAHENDRAN = {
    "steps": 300,
    "optimizer": "mahendran",
    "step_size": 1 / 255,
    "init": "noise",
    "regularizers": (Jitter(2), BoundedRange(1.0), TotalVariation(1.0), NormProjection(2 * B)),
}


def _ours(size, noise, decay=0.05, **changes):
    """The constants that all sizes share: a copy is moved by up to a tenth of its size."""
    return {
        "steps": 150,
        "optimizer": "adam",
        "step_size": 0.1,
        "init": "noise",
        "noise": 0.3,
        "objective": "log-odds",
        "views": 2,
        "regularizers": (Affine(shift=size / 10, degrees=10, scale=1.15), Noise(noise), Decay(decay)),
    } | changes


# Ours, for each size of image: on the unknowns of `parametrize.Spectral`, in units of their deviation among the
# training images. The odds, because raising a score also adds what speaks for every class; decay, so that only what
# speaks for the class at every step remains (at most step_size / theta, 2 deviations or 1, of an unknown); a start
# wide enough that the image need not be symmetric, as the mean of all flipped images is; noise as strong as the
# images bear: a digit in noise of 0.5 is still a digit.
MNIST_28 = _ours(28, 0.5, 0.1)
COLOR_32 = _ours(32, 0.1)
COLOR_96 = _ours(96, 0.1, steps=100)
OURS = {28: MNIST_28, 32: COLOR_32, 96: COLOR_96}


def for_size(pixels):
    """Return our preset for images of so many rows, that of the nearest size."""
    return OURS[min(OURS, key=lambda size: abs(size - pixels))]


def hidden(pixels, dense):
    """Return our preset for hidden units; a map's unit sees one place, so that its image must not move.

    Steps along the gradient itself, not Adam's: in the small field of a map's unit few coefficients matter, and Adam
    would raise the others as much. The larger the image, the shorter: all of a step goes into that one small field.
    """
    if dense:
        return for_size(pixels) | {"objective": "activation"}
    return {"steps": 60, "optimizer": "normalized", "step_size": 3 / pixels, "regularizers": (Decay(0.1),)}
