"""Confidence intervals, of means and of accuracies: how far a number would move with other images of the same kind."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from tinycnn.errors import InputError


@dataclass(frozen=True)
class Interval:
    """A mean, and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float

    def __format__(self, spec):
        """Write the mean and the bounds, each by `spec`; with "%" the sign stands once: 31.2 % (29.0 to 33.4 %)."""
        mean, low, high = (format(v, spec).removesuffix("%") for v in (self.mean, self.low, self.high))
        unit = " %" if spec.endswith("%") else ""
        return f"{mean}{unit} ({low} to {high}{unit})"


def interval(values, comparisons=1, level=0.95):
    """Return the mean of independent `values` (N,) with Student's confidence interval of `level`.

    mean +- t s / sqrt(N), s the standard deviation with N - 1 and t the quantile of Student's distribution with N - 1
    degrees of freedom (Student 1908); for many values close to normal whatever they are. Where it is one of several
    `comparisons`, each is held to the level 1 - (1 - level) / comparisons, so that all of them together hold with
    `level` (Bonferroni; Dunn 1961).

    Raises
    ------
    InputError
        Fewer than two values, not finite numbers, no comparison, or a level outside of 0 to 1.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(f"values: expected two finite numbers or more, in one row, got shape {values.shape}")
    if comparisons < 1:
        raise InputError(f"comparisons: must be 1 or more, got {comparisons}")
    N, mean = len(values), values.mean()
    half = -stdtrit(N - 1, _tail(level) / comparisons) * values.std(ddof=1) / np.sqrt(N)
    return Interval(float(mean), float(mean - half), float(mean + half))


def accuracy_interval(right, n, level=0.95):
    """Return the accuracy p = `right` / `n` with its score interval (Wilson 1927).

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z the quantile of the normal distribution: all
    shares that would not be rejected at this level. It stays within 0 to 1, and has a width where all are right.

    Raises
    ------
    InputError
        Not 0 <= right <= n with n >= 1, or a level outside of 0 to 1.
    """
    if not (0 <= right <= n and n >= 1):
        raise InputError(f"right, n: expected 0 <= right <= n and n >= 1, got {right} of {n}")
    p, z = right / n, -ndtri(_tail(level))
    center, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n)
    return Interval(p, float(low) if right else 0.0, float(high) if right < n else 1.0)  # exact where rounding is not


def _tail(level):
    """The probability beyond each bound."""
    if not 0 < level < 1:
        raise InputError(f"level: must lie between 0 and 1, got {level}")
    return (1 - level) / 2
