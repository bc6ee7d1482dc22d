"""What the network sees instead of the image: moved, turned, scaled or noisy copies, another one at each step.

A picture that scores only at one place, one size and to the last pixel is no picture of anything. Each transform is
``draw(rng, shape)``, its random numbers for one image, ``apply(x, draws)`` on images (N, H, W, C), and the adjoint
``adjoint(g, draws)`` of its linear part, <apply x, g> = <x, adjoint g>, which brings gradients back to the place they
belong to, so that the image does not drift.

Jitter: Mahendran and Vedaldi 2016, arXiv:1512.02017; turned and scaled copies: Olah, Mordvintsev and Schubert 2017,
"Feature Visualization", doi:10.23915/distill.00007; noise: Smilkov et al. 2017, arXiv:1706.03825.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from .regularizers import require


@dataclass(frozen=True)
class Jitter:
    """Each image shifted by up to `pixels` up, down, left and right, cyclically: a permutation of its pixels."""

    pixels: int

    def __post_init__(self):
        require(self, "pixels", isinstance(self.pixels, int) and self.pixels >= 1, "be a whole number of at least 1")

    def draw(self, rng, shape=None):
        """Return a random shift (rows, columns), each in [-pixels, pixels]."""
        return rng.integers(-self.pixels, self.pixels + 1, size=2)

    def apply(self, x, draws):
        """Return each image of x (N, H, W, C) moved by its own shift of `draws` (N, 2)."""
        return np.stack([np.roll(image, tuple(by), axis=(0, 1)) for image, by in zip(x, draws)])

    def adjoint(self, g, draws):
        """Return g moved back: the inverse of a permutation is its adjoint."""
        return self.apply(g, -np.asarray(draws))


@dataclass(frozen=True)
class Affine:
    """Each image shifted, turned and scaled at random about its centre, resampled bilinearly.

    Attributes
    ----------
    shift : float
        Pixels, up and down, left and right: uniform in [-shift, shift].
    degrees : float
        Of rotation, counter-clockwise: uniform in [-degrees, degrees].
    scale : float
        The size is multiplied by exp(uniform in [-log scale, log scale]); 1: not at all.

    Notes
    -----
    Pixel q of the result is the image at c + M (q - c) - t, c the centre, M the inverse rotation and scaling: a mean
    of the four pixels around, with weights that sum to 1. Beyond the border the image goes on as at its border, so
    a constant image stays as it is. All of it is one sparse matrix A, and the adjoint is its transpose.
    """

    shift: float = 0.0
    degrees: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        for name, least in (("shift", 0), ("degrees", 0), ("scale", 1)):
            require(self, name, getattr(self, name) >= least, f"be at least {least}")

    def draw(self, rng, shape=None):
        """Return (shift down, shift right, angle in radians, factor of size)."""
        down, right, angle, size = rng.uniform(-1, 1, 4)
        return np.array([down * self.shift, right * self.shift, np.radians(angle * self.degrees), self.scale**size])

    def apply(self, x, draws):
        """Return each image of x (N, H, W, C) transformed by its own row of `draws` (N, 4)."""
        return (_resampling(x, draws) @ x.reshape(-1, x.shape[3])).reshape(x.shape)

    def adjoint(self, g, draws):
        """Return what a gradient g with respect to `apply`'s result is with respect to x."""
        return (_resampling(g, draws).T @ g.reshape(-1, g.shape[3])).reshape(g.shape)


def _resampling(x, draws):
    """The sparse matrix (N H W, N H W) of `Affine`, in x's dtype: four entries a row."""
    N, H, W, _ = x.shape
    down, right, angle, size = np.asarray(draws, x.dtype).T[:, :, None, None]
    v, u = (np.arange(n, dtype=x.dtype) - x.dtype.type((n - 1) / 2) for n in (H, W))  # from the centre
    v, cos, sin = v[:, None], np.cos(angle) / size, np.sin(angle) / size
    rows, top, one_down = _between(cos * v + sin * u - down, H, W)
    cols, left, one_right = _between(cos * u - sin * v - right, W, 1)
    first = np.arange(0, N * H * W, H * W, dtype=np.int32)[:, None, None] + top * W + left
    indices = np.stack([first, first + one_right, first + one_down, first + one_down + one_right], -1)
    weights = np.stack([(1 - rows) * (1 - cols), (1 - rows) * cols, rows * (1 - cols), rows * cols], -1)
    pointers = np.arange(0, indices.size + 1, 4)
    return csr_matrix((weights.ravel(), indices.ravel(), pointers), shape=(N * H * W, N * H * W))


def _between(position, n, stride):
    """Split positions from the centre of n pixels: the part beyond a pixel, that pixel, and the way to the next."""
    position = np.clip(position + position.dtype.type((n - 1) / 2), 0, n - 1)
    pixel = np.clip(position.astype(np.int32), 0, max(n - 2, 0))
    return position - pixel.astype(position.dtype), pixel, stride if n > 1 else 0


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of standard deviation `sigma` added to each image, as `Jitter` a new one at each step."""

    sigma: float

    def __post_init__(self):
        require(self, "sigma", self.sigma > 0, "be positive")

    def draw(self, rng, shape):
        """Return noise of the image's shape (H, W, C)."""
        return self.sigma * rng.standard_normal(shape, np.float32)

    def apply(self, x, draws):
        """Return x with the noise added."""
        return x + draws.astype(x.dtype, copy=False)

    def adjoint(self, g, draws):
        """Return g: what is added does not depend on the image."""
        return g
