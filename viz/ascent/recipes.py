"""Recipes of activation maximization: the study's, the papers', and ours for three sizes of image.

``maximize(net, "fc2", range(10), YOSINSKI_SETS[3])`` follows one; another that differs in one factor is
``dataclasses.replace(YOSINSKI_SETS[3], steps=100)``. Ours take besides the parametrization by the statistics of the
training images: ``replace(for_size(28), parametrization=Spectral.of(images))``.
"""

from dataclasses import dataclass, field, replace
from numbers import Real

import numpy as np

from tinycnn.errors import InputError, choose, is_number, shown

from .optimizers import Adam, Constant, Mahendran, Normalized, Progress
from .regularizers import (
    B,
    Blur,
    BoundedRange,
    BoxBlur,
    Clip,
    ClipContribution,
    ClipNorm,
    Decay,
    NormProjection,
    TotalVariation,
)
from .transforms import Affine, Jitter, Noise


@dataclass(frozen=True)
class Recipe:
    """How an ascent is made, whatever the network and the units.

    Attributes
    ----------
    start : float or array
        Where x starts: N(0, start), so that 0 means zeros, or an array (H, W, C) or (U, H, W, C).
    objective : {"activation", "log-odds", "sum"}
        What is raised: the unit's activation y_c; y_c - log sum_{j != c} exp(y_j) = log(p / (1 - p)), p its share in
        the layer's softmax; or the sum of all units of a map. The first can be raised by what raises all classes, the
        second only by what tells the class from the others; unlike log p it does not level off once the class is
        reached.
    optimizer : object of `viz.ascent.optimizers`
        How far x moves along the gradient.
    steps : int
        Number of gradient steps; the image is evaluated once more, after the last.
    regularizers : one or a sequence
        Objects of `viz.ascent.regularizers`, or functions ``f(x) -> x``, which run after each gradient step. Penalties
        add up, steps act one after the other as given.
    transforms : one or a sequence of objects of `viz.ascent.transforms`
        What is done to the image, one after the other, before the network sees it.
    parametrization : viz.ascent.parametrize.Spectral, optional
        What the ascent changes instead of pixels: x is then its unknowns, and penalties see the image.
    mean : float or array that broadcasts to (H, W, C)
        What x is a deviation from: 0, or the mean image of the data.
    views : int
        With transforms: each step follows the mean gradient of so many copies, each with its own transforms.

    Raises
    ------
    InputError
        A field that makes no sense, by itself or beside the others.
    """

    start: float | np.ndarray = 0.0
    objective: str = "activation"
    optimizer: object = field(default=Constant(0.1))
    steps: int = 300
    regularizers: tuple = ()
    transforms: tuple = ()
    parametrization: object = None
    mean: float | np.ndarray = 0.0
    views: int = 1

    def __post_init__(self):
        for name in ("regularizers", "transforms"):
            some = getattr(self, name)
            object.__setattr__(self, name, tuple(some) if isinstance(some, (list, tuple)) else (some,))
        choose(self.objective, ("activation", "log-odds", "sum"), "objective")
        for name, least, most in (("steps", 0, 10**7), ("views", 1, 1000)):
            value = getattr(self, name)
            if not (is_number(value) and least <= value <= most):
                raise InputError(f"{name}: expected a whole number from {least} to {most:,}, got {shown(value)}")
        number = isinstance(self.start, Real) and 0 <= self.start < np.inf
        if not (number or isinstance(self.start, (list, tuple, np.ndarray))):
            raise InputError(f"start: expected the standard deviation of noise, 0 or an array, got {shown(self.start)}")
        _require(self.optimizer, "optimizer", "init change", "optimizers.Adam(0.02)")
        for t in self.transforms:
            _require(t, "transforms", "draw apply adjoint", "transforms.Jitter(2)")
        for r in self.regularizers:
            if hasattr(r, "adjoint"):
                raise InputError(f"regularizers: {r!r} is a transform, it belongs into transforms")
            if isinstance(r, type) or not (callable(r) or hasattr(r, "apply") or hasattr(r, "value_and_grad")):
                raise InputError(f"regularizers: {r!r} is none; take a function of x, or viz.ascent.regularizers")
        if self.parametrization is not None:
            _require(self.parametrization, "parametrization", "image gradient mean", "parametrize.Spectral.of(images)")
            if np.any(self.mean):
                raise InputError("mean: a parametrization has its own, give no other")
            pixels = [r for r in self.regularizers if hasattr(r, "apply") and not isinstance(r, Decay)]
            if pixels:
                raise InputError(f"regularizers: {pixels[0]!r} changes pixels, not the unknowns of a parametrization")


def _require(part, field, methods, like):
    if isinstance(part, type) or not all(hasattr(part, method) for method in methods.split()):
        raise InputError(f"{field}: {part!r} is none; take one like viz.ascent.{like}")


NOISE = 10 / 255  # Yosinski et al. start from N(0, 10) on 255

# The study's preliminary trial, made with class 3: plain ascent from zeros. It shows 100 iterations at a rate that it
# does not name; its text says that 500 at a rate of 10 were still too slow.
PRELIMINARY = Recipe(optimizer=Constant(10.0), steps=500)

# As the study's code runs, its penalties switched off: x <- x + 1 gradient, blur of size 3x3 (here a mean), x <- 0.9 x,
# pixels of small contribution to 0. The percentile of these is ours: the source names none.
STUDY_CODE = Recipe(optimizer=Constant(1.0), steps=300, regularizers=(BoxBlur(3), Decay(0.1), ClipContribution(50)))

# Yosinski et al. 2015, arXiv:1506.06579, table 1, for pixels in [0, 1]: a step and its bound shrink by 255^2 (pixels
# by 255, and the gradient is 255 times larger), the progress 2 of rate = min(max_rate, 2 / ||g||^2) does not. Their
# toolbox takes the regularizers in this order.
YOSINSKI_SETS = tuple(
    Recipe(NOISE, optimizer=optimizer, steps=steps, regularizers=(Clip(0, 1), *regularizers))
    for steps, optimizer, *regularizers in (
        (500, Progress(2.0, 100 / 255**2), Blur(0.5, 4), ClipNorm(50)),
        (750, Constant(100 / 255**2), Decay(0.3), ClipNorm(20)),
        (1000, Constant(100 / 255**2), Decay(1e-4), Blur(1.0, 4)),
        (1000, Progress(2.0, 1e8 / 255**2), Blur(0.5, 4), ClipContribution(90)),
    )
)

# Mahendran and Vedaldi 2016, arXiv:1512.02017: B, V, alpha, beta, B+ and the optimizer are theirs, for pixels in
# [0, 1]. Their weights are relative to the unit's largest activation on photographs, which nobody knows beforehand: 1
# suits logits of order 10, multiply both for a layer with larger activations. Their jitter, a quarter of the net's
# stride, would be 1 pixel here, too little to matter.
MAHENDRAN = Recipe(
    NOISE,
    optimizer=Mahendran(1 / 255),
    steps=300,
    regularizers=(BoundedRange(1.0), TotalVariation(1.0), NormProjection(2 * B)),
    transforms=Jitter(2),
)


def _ours(size, noise, decay=0.05, steps=150):
    """What all sizes share: a copy is moved by up to a tenth of its size."""
    moved = Affine(shift=size / 10, degrees=10, scale=1.15)
    return Recipe(0.3, "log-odds", Adam(0.1), steps, Decay(decay), (moved, Noise(noise)), views=2)


# Ours, for each size of image: on the unknowns of `parametrize.Spectral`, in units of their deviation among the
# training images. The odds, because raising a score also adds what speaks for every class; decay, so that only what
# speaks for the class at every step remains (at most rate / theta, 2 deviations or 1, of an unknown); a start
# wide enough that the image need not be symmetric, as the mean of all flipped images is; noise as strong as the
# images bear: a digit in noise of 0.5 is still a digit.
OURS = {28: _ours(28, 0.5, decay=0.1), 32: _ours(32, 0.1), 96: _ours(96, 0.1, steps=100)}


def for_size(pixels):
    """Return our recipe for images of so many rows, that of the nearest size."""
    return OURS[min(OURS, key=lambda size: abs(size - pixels))]


def hidden(pixels, dense):
    """Return our recipe for hidden units; a map's unit sees one place, so that its image must not move.

    Steps along the gradient itself, not Adam's: in the small field of a map's unit few coefficients matter, and Adam
    would raise the others as much. The larger the image, the shorter: all of a step goes into that one small field.
    """
    if dense:
        return replace(for_size(pixels), objective="activation")
    return Recipe(optimizer=Normalized(3 / pixels), steps=60, regularizers=Decay(0.1))
