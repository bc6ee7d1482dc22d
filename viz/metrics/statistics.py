"""The confidence interval of a mean: how far the number would move with other images of the same kind."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

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


def mean_interval(values, level=0.95):
    """Return the mean of independent `values` (N,) with Student's confidence interval of `level`.

    mean +- t s / sqrt(N), s the standard deviation with N - 1 and t the quantile of Student's distribution with N - 1
    degrees of freedom (Student 1908); for many values close to normal whatever they are.

    Raises
    ------
    InputError
        Fewer than two values, not finite numbers, or a level outside of 0 to 1.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(f"values: expected two finite numbers or more, in one row, got shape {values.shape}")
    if not 0 < level < 1:
        raise InputError(f"level: must lie between 0 and 1, got {level}")
    N, mean = len(values), values.mean()
    half = stdtrit(N - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(N)
    return Interval(float(mean), float(mean - half), float(mean + half))
