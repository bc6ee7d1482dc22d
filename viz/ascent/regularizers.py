"""What keeps the images of activation maximization natural: steps and penalties.

Plain gradient ascent ends in noise of high frequency and amplitude. Two kinds of remedy stand here, both on
x (U, H, W, C), the deviation of U images from the mean image (others: `transforms`, `parametrize`):

steps       ``apply(x, gradient, iteration, mean) -> x`` after each gradient step, or, where their attribute
            `before` is true (`Clip`), before the image is looked at; the gradient is the score's before the step,
            iterations count from 0: Yosinski et al. 2015, arXiv:1506.06579;
            `NormProjection`: Mahendran and Vedaldi 2016, arXiv:1512.02017
penalties   ``value_and_grad(x) -> (values (U,), gradient (U, H, W, C))``, subtracted from the score:
            `L2`: Simonyan et al. 2013, arXiv:1312.6034; the others: Mahendran and Vedaldi

They act in the order in which a recipe names them. Any function ``f(x) -> x`` is a step too: x is (U, H, W, C), what
the ascent changes (the deviation from the mean, or a parametrization's unknowns), and f keeps its shape.

Pixels run over [0, 1]; the papers' constants for [0, 255] are divided by 255.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from tinycnn.errors import InputError

B = 80 / 255  # Mahendran and Vedaldi: the typical norm of a centred pixel


def require(spec, name, ok, what):
    """Raise InputError unless `ok`: the constant called `name` must be `what`."""
    if not ok:
        raise InputError(f"{type(spec).__name__}: {name} must {what}, got {getattr(spec, name)!r}")


def _pixel_norm(x):
    return np.sqrt((x * x).sum(-1))  # (U, H, W)


def _zero_below_percentile(x, size, percentile):
    """Zero the pixels of each image whose `size` (U, H, W) is below that image's percentile."""
    bound = np.percentile(size, percentile, axis=(1, 2), keepdims=True)
    return np.where((size < bound)[..., None], 0, x).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Decay:
    """x <- (1 - theta) x: pulls every pixel towards the mean."""

    theta: float

    def __post_init__(self):
        require(self, "theta", 0 <= self.theta <= 1, "lie in [0, 1]")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        return x * x.dtype.type(1 - self.theta)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur over H and W, of width `sigma` pixels, after each `every`-th iteration.

    The image is mirrored at its border: a constant image stays as it is, and no border darkens.
    """

    sigma: float
    every: int = 1

    def __post_init__(self):
        require(self, "sigma", self.sigma > 0, "be positive")
        require(self, "every", isinstance(self.every, int) and self.every >= 1, "be a whole number of at least 1")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        if (iteration + 1) % self.every:
            return x
        x = gaussian_filter1d(x, self.sigma, axis=1, mode="reflect")
        return gaussian_filter1d(x, self.sigma, axis=2, mode="reflect")


@dataclass(frozen=True)
class BoxBlur:
    """Each pixel becomes the mean of the `size` x `size` pixels around it; the border as for `Blur`."""

    size: int

    def __post_init__(self):
        require(self, "size", isinstance(self.size, int) and self.size >= 1 and self.size % 2, "be an odd whole number")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        return uniform_filter1d(uniform_filter1d(x, self.size, axis=1), self.size, axis=2)  # both mirror the border


@dataclass(frozen=True)
class ClipNorm:
    """Zero the pixels whose norm over the colours is below that image's `percentile`."""

    percentile: float

    def __post_init__(self):
        require(self, "percentile", 0 <= self.percentile <= 100, "lie in [0, 100]")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        return _zero_below_percentile(x, _pixel_norm(x), self.percentile)


@dataclass(frozen=True)
class ClipContribution:
    """Zero the pixels whose contribution abs(sum_k x_k g_k) is below that image's `percentile`.

    g is the score's gradient, taken before the step: to first order the contribution is the change
    of the score if the pixel became zero.
    """

    percentile: float

    def __post_init__(self):
        require(self, "percentile", 0 <= self.percentile <= 100, "lie in [0, 100]")

    def apply(self, x, gradient, iteration=0, mean=0.0):
        return _zero_below_percentile(x, np.abs((x * gradient).sum(-1)), self.percentile)


@dataclass(frozen=True)
class NormProjection:
    """Shrink each pixel's norm over the colours to at most `bound` (B+ of Mahendran and Vedaldi)."""

    bound: float = 2 * B

    def __post_init__(self):
        require(self, "bound", self.bound > 0, "be positive")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        norm = _pixel_norm(x)
        shrink = self.bound / np.maximum(norm, self.bound)
        return (x * shrink[..., None]).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Clip:
    """Keep the image, mean + x, within [low, high]."""

    low: float = 0.0
    high: float = 1.0
    before = True

    def __post_init__(self):
        require(self, "low", self.low < self.high, f"be below high, {self.high}")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        return np.clip(x, self.low - mean, self.high - mean).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class TotalVariation:
    """R(x) = weight / (H W V^beta) sum_{v,u,k} (right(v,u,k)^2 + down(v,u,k)^2)^(beta/2).

    right(v,u,k) = x(v,u+1,k) - x(v,u,k), down(v,u,k) = x(v+1,u,k) - x(v,u,k). The border is replicated, so
    that the differences beyond it are zero. For beta < 2 the gradient is unbounded where the image is flat:
    there each term t of the sum is floored at 1e-6 in the gradient's factor t^(1 - 2 / beta), as in the
    authors' code.
    """

    weight: float = 1.0
    beta: float = 2.0
    V: float = B / 6.5

    def __post_init__(self):
        require(self, "beta", self.beta >= 1, "be at least 1")
        require(self, "V", self.V > 0, "be positive")

    def value_and_grad(self, x):
        _, H, W, _ = x.shape
        right = np.diff(x, axis=2, append=x[:, :, -1:])
        down = np.diff(x, axis=1, append=x[:, -1:])
        s = right * right + down * down  # (U, H, W, C)
        c = self.weight / (H * W * self.V**self.beta)
        if self.beta == 2:
            term, slope = s, 1.0
        else:
            term = s ** (self.beta / 2)
            floored = np.maximum(term, 1e-6) if self.beta < 2 else term
            slope = floored ** (1 - 2 / self.beta)
        right *= self.beta * c * slope  # the derivative with respect to each difference
        down *= self.beta * c * slope
        grad = -(right + down)
        grad[:, :, 1:] += right[:, :, :-1]
        grad[:, 1:] += down[:, :-1]
        return c * term.sum((1, 2, 3)), grad


@dataclass(frozen=True)
class BoundedRange:
    """R(x) = weight / (H W B^alpha) sum_{v,u} (sum_k x(v,u,k)^2)^(alpha/2): a soft bound on pixel norms."""

    weight: float = 1.0
    alpha: float = 6.0
    B: float = B

    def __post_init__(self):
        require(self, "alpha", self.alpha >= 2, "be at least 2")
        require(self, "B", self.B > 0, "be positive")

    def value_and_grad(self, x):
        _, H, W, _ = x.shape
        c = self.weight / (H * W)
        s = (x * x).sum(-1) / self.B**2  # (U, H, W)
        grad = (c * self.alpha / self.B**2) * (s ** (self.alpha / 2 - 1))[..., None] * x
        return c * (s ** (self.alpha / 2)).sum((1, 2)), grad


@dataclass(frozen=True)
class L2:
    """R(x) = weight ||x||^2 (the paper's lambda; nobody publishes its value)."""

    weight: float

    def value_and_grad(self, x):
        return self.weight * (x * x).sum((1, 2, 3)), 2 * self.weight * x
