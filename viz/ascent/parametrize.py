"""Images by what natural images have in common, instead of by their pixels.

    image(z) = sigmoid(mean + E idct(a * z))        dS/dz = a * dct(E' (sigmoid' * dS/dimage))

The unknowns z (U, H, W, C) of an ascent are the cosine coefficients of decorrelated colours, each in units of its own
standard deviation a among the training images' logits: a step of one size changes coarse structure much and fine
structure little, as in the images (whose amplitudes fall like 1 / frequency), and never makes colours that they do not
have. Olah, Mordvintsev and Schubert 2017, "Feature Visualization", doi:10.23915/distill.00007, section
"preconditioning and parameterization", do this with 1 / frequency itself, ImageNet's colours and Fourier's basis; the
cosine basis (DCT-II) differs from it by mirroring the image at its border instead of repeating it: a sky need not go
on below the ground. Every pixel of every image lies within (0, 1).
"""

from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn, idctn
from scipy.special import expit, logit

from tinycnn.errors import InputError

EDGE = 0.02  # pixels are held this far from 0 and 1 before their logits are taken


@dataclass(frozen=True, eq=False)
class Spectral:
    """A parametrisation; make one with `Spectral.of`.

    Attributes
    ----------
    mean : array (H, W, C)
        The mean of the logits: z = 0 is its image.
    amplitude : array (H, W, C)
        Of each coefficient, in decorrelated colours.
    colors : array (C, C)
        The decorrelated colours as columns: orthonormal, E.
    """

    mean: np.ndarray
    amplitude: np.ndarray
    colors: np.ndarray

    @classmethod
    def of(cls, images, dtype="float32"):
        """Measure mean, colours and amplitudes on images, uint8 (N, H, W, C); a thousand or two will do.

        Raises
        ------
        InputError
            Fewer than two images, or another dtype.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.dtype != np.uint8 or len(images) < 2:
            raise InputError(f"images: expected at least 2 of uint8 (N, H, W, C), got {images.dtype} {images.shape}")
        total, products = 0.0, 0.0  # of the coefficients, and of each pair of colours in each
        for i in range(0, len(images), 100):
            y = logit(EDGE + (1 - 2 * EDGE) / 255 * images[i : i + 100].astype(np.float64))
            y = dctn(y, axes=(1, 2), norm="ortho")
            total, products = total + y.sum(0), products + np.einsum("nhwc,nhwd->hwcd", y, y)
        mean = total / len(images)
        covariance = products / len(images) - mean[..., :, None] * mean[..., None, :]  # (H, W, C, C)
        colors = np.linalg.eigh(covariance.mean((0, 1)))[1]
        power = np.einsum("ca,hwcd,da->hwa", colors, covariance, colors)
        amplitude = np.sqrt(np.maximum(power, 0))  # rounding may leave less than nothing
        return cls(*(a.astype(dtype) for a in (idctn(mean, axes=(0, 1), norm="ortho"), amplitude, colors)))

    def image(self, z):
        """Return the images of z, (U, H, W, C)."""
        return expit(self.mean + idctn(self.amplitude * z, axes=(1, 2), norm="ortho") @ self.colors.T)

    def gradient(self, image, g):
        """Return the gradient with respect to z, given that with respect to ``image(z)``."""
        g = g * image * (1 - image)  # the sigmoid's derivative
        return self.amplitude * dctn(g @ self.colors, axes=(1, 2), norm="ortho")
