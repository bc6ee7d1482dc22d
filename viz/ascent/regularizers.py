"""What keeps the images of activation maximization natural: steps and penalties.

Plain gradient ascent ends in noise of high frequency and amplitude. Two kinds of remedy stand here, both on
x (U, H, W, C), the deviation of U images from the mean image (others: `transforms`, `parametrize`):

steps       ``apply(x, ...) -> x`` after (`Clip`: before) each gradient step: Yosinski et al. 2015,
            arXiv:1506.06579; `NormProjection`: Mahendran and Vedaldi 2016, arXiv:1512.02017
penalties   ``value_and_grad(x) -> (values (U,), gradient (U, H, W, C))``, subtracted from the score:
            `L2`: Simonyan et al. 2013, arXiv:1312.6034; the others: Mahendran and Vedaldi

Pixels run over [0, 1]; the papers' constants for [0, 255] are divided by 255.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from tinycnn.errors import InputError

B = 80 / 255  # Mahendran and Vedaldi: the typical norm of a centred pixel


def _require(ok, what):
    if not ok:
        raise InputError(what)


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
        _require(0 <= self.theta <= 1, f"Decay: theta must lie in [0, 1], got {self.theta}")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        """Return the decayed x."""
        return x * x.dtype.type(1 - self.theta)


@dataclass(frozen=True)
class Blur:
    """Gaussian blur over H and W, of width `sigma` pixels, after each `every`-th iteration.

    The image is mirrored at its border: a constant image stays as it is, and no border darkens.
    """

    sigma: float
    every: int = 1

    def __post_init__(self):
        _require(self.sigma > 0, f"Blur: sigma must be positive, got {self.sigma}")
        _require(
            isinstance(self.every, int) and self.every >= 1,
            f"Blur: every must be a whole number of at least 1, got {self.every}",
        )

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        """Return x, blurred if `iteration` (from 0) ends a round of `every`."""
        if (iteration + 1) % self.every:
            return x
        x = gaussian_filter1d(x, self.sigma, axis=1, mode="reflect")
        return gaussian_filter1d(x, self.sigma, axis=2, mode="reflect")


@dataclass(frozen=True)
class ClipNorm:
    """Zero the pixels whose norm over the colours is below that image's `percentile`."""

    percentile: float

    def __post_init__(self):
        _require(0 <= self.percentile <= 100, f"ClipNorm: percentile must lie in [0, 100], got {self.percentile}")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        """Return x without its small pixels."""
        return _zero_below_percentile(x, _pixel_norm(x), self.percentile)


@dataclass(frozen=True)
class ClipContribution:
    """Zero the pixels whose contribution abs(sum_k x_k g_k) is below that image's `percentile`.

    g is the score's gradient, taken before the step: to first order the contribution is the change
    of the score if the pixel became zero.
    """

    percentile: float

    def __post_init__(self):
        _require(
            0 <= self.percentile <= 100,
            f"ClipContribution: percentile must lie in [0, 100], got {self.percentile}",
        )

    def apply(self, x, gradient, iteration=0, mean=0.0):
        """Return x without the pixels that contribute little."""
        return _zero_below_percentile(x, np.abs((x * gradient).sum(-1)), self.percentile)


@dataclass(frozen=True)
class NormProjection:
    """Shrink each pixel's norm over the colours to at most `bound` (B+ of Mahendran and Vedaldi)."""

    bound: float = 2 * B

    def __post_init__(self):
        _require(self.bound > 0, f"NormProjection: bound must be positive, got {self.bound}")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        """Return the projected x."""
        norm = _pixel_norm(x)
        shrink = self.bound / np.maximum(norm, self.bound)
        return (x * shrink[..., None]).astype(x.dtype, copy=False)


@dataclass(frozen=True)
class Clip:
    """Keep the image, mean + x, within [low, high]."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        _require(self.low < self.high, f"Clip: low must be below high, got {self.low} and {self.high}")

    def apply(self, x, gradient=None, iteration=0, mean=0.0):
        """Return x such that mean + x is in range."""
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
        _require(self.beta >= 1, f"TotalVariation: beta must be at least 1, got {self.beta}")
        _require(self.V > 0, f"TotalVariation: V must be positive, got {self.V}")

    def value_and_grad(self, x):
        """Return the penalty of each image (U,), and its gradient like x."""
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
        _require(self.alpha >= 2, f"BoundedRange: alpha must be at least 2, got {self.alpha}")
        _require(self.B > 0, f"BoundedRange: B must be positive, got {self.B}")

    def value_and_grad(self, x):
        """Return the penalty of each image (U,), and its gradient like x."""
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
        """Return the penalty of each image (U,), and its gradient like x."""
        return self.weight * (x * x).sum((1, 2, 3)), 2 * self.weight * x
