"""Optimizers of an ascent: how far an image moves, given the gradient g of what it is to raise.

``init(x)`` returns the state before the first step, a dict of arrays; ``change(state, g, t)`` returns what step number
`t` (from 1) adds to x, and renews the state in place. x and g are (U, H, W, C); each image moves by itself. Whatever
has these two methods is an optimizer.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from .regularizers import B, require


def _check(optimizer):
    for name, value in vars(optimizer).items():
        require(optimizer, name, isinstance(value, Real) and value > 0, "be positive")


def _nothing(optimizer, x):
    """Return no state: {}."""
    return {}


def _zeros(optimizer, x):
    """Return the state before the first step: {"m": zeros, "v": zeros}."""
    return {"m": np.zeros_like(x), "v": np.zeros_like(x)}


def _over(rate, size):
    """rate / size (U, 1, 1, 1) in float64; 0, no step, where there is no gradient."""
    return np.divide(rate, size, out=np.zeros_like(size), where=size > 0)


def _squares(g):
    return (g.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True)  # (U, 1, 1, 1)


@dataclass(frozen=True)
class Constant:
    """dx = rate g: plain gradient ascent."""

    rate: float
    __post_init__, init = _check, _nothing

    def change(self, state, g, t):
        return g.dtype.type(self.rate) * g


@dataclass(frozen=True)
class Progress:
    """dx = min(max_rate, gain / ||g||^2) g: to first order the score gains `gain` at every step.

    Yosinski et al. 2015, arXiv:1506.06579, the rate "progress" of their toolbox. `max_rate` bounds the step of a unit
    with hardly any gradient.
    """

    gain: float
    max_rate: float = np.inf
    __post_init__, init = _check, _nothing

    def change(self, state, g, t):
        return (np.minimum(_over(self.gain, _squares(g)), self.max_rate) * g).astype(g.dtype)


@dataclass(frozen=True)
class Normalized:
    """dx = size g / rms(g): as long for a weak unit as for a strong one.

    `size` is the root mean square of the change of a pixel, or of a coefficient of the parametrization.
    """

    size: float
    __post_init__, init = _check, _nothing

    def change(self, state, g, t):
        return (_over(self.size, np.sqrt(_squares(g) / g[0].size)) * g).astype(g.dtype)


@dataclass(frozen=True)
class Mahendran:
    """v <- 0.9 v + g^2,  m <- 0.9 m + size g / (1 / eta + sqrt(v)),  dx = m: momentum over a decaying root of squares.

    Mahendran and Vedaldi 2016, arXiv:1512.02017, as in their code: 1 / eta = 6 / (H W 0.05 B^2) on pixels of 255. In
    pixels of [0, 1] the step is `size` = 1 / 255 as large, and so is 1 / eta.
    """

    size: float = 1 / 255
    __post_init__, init = _check, _zeros

    def change(self, state, g, t):
        m, v, dtype = state["m"], state["v"], g.dtype.type
        _, H, W, _ = g.shape
        inverse_eta = self.size * 6 / (H * W * 0.05 * B**2)
        v *= dtype(0.9)
        v += g * g
        m *= dtype(0.9)
        m += dtype(self.size) * g / (dtype(inverse_eta) + np.sqrt(v))
        return m.copy()


@dataclass(frozen=True)
class Adam:
    """m <- 0.9 m + 0.1 g,  v <- 0.999 v + 0.001 g^2,  dx = rate (m / (1 - 0.9^t)) / (sqrt(v / (1 - 0.999^t)) + 1e-8).

    Kingma and Ba 2014, arXiv:1412.6980, algorithm 1 with its constants. A coordinate moves by about `rate` a step.
    """

    rate: float
    __post_init__, init = _check, _zeros

    def change(self, state, g, t):
        m, v, dtype = state["m"], state["v"], g.dtype.type
        m += dtype(0.1) * (g - m)
        v += dtype(0.001) * (g * g - v)
        unbiased = m / dtype(1 - 0.9**t)
        return dtype(self.rate) * unbiased / (np.sqrt(v / dtype(1 - 0.999**t)) + dtype(1e-8))


@dataclass(frozen=True)
class Scaled:
    """dx = factor times what another optimizer adds: its constants, on a network whose gradients have another size."""

    optimizer: object
    factor: float

    def __post_init__(self):
        require(self, "factor", isinstance(self.factor, Real) and 0 < self.factor < np.inf, "be positive and finite")

    def init(self, x):
        return self.optimizer.init(x)

    def change(self, state, g, t):
        return g.dtype.type(self.factor) * self.optimizer.change(state, g, t)
