"""Confidence intervals of means and of accuracies, over images and over networks.

An interval over the images of one network says how far the number would move with other images. A statement about a
method is about networks: each sees the same images and gives one mean, and Student's interval over these means says
how far the number would move with networks from other seeds. Its half-width is 2.48 standard deviations for three
networks, 1.24 for five, 0.72 for ten. What is undefined (NaN: an empty mask, say) is left out, and does not count.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from tinycnn.errors import InputError, as_array, is_number, is_whole, shown


@dataclass(frozen=True)
class Interval:
    """A mean, the bounds of its confidence interval, of how many values it is, and how many were left out as undefined.

    The bounds of fewer than two values, and the mean of none, are NaN: undefined.
    """

    mean: float
    low: float
    high: float
    n: int
    undefined: int = 0

    def __format__(self, spec):
        """Write the mean and the bounds, each by `spec`; with "%" the sign stands once: 31.2 % (29.0 to 33.4 %)."""
        mean, low, high = (format(v, spec).removesuffix("%") for v in (self.mean, self.low, self.high))
        unit = " %" if spec.endswith("%") else ""
        return f"{mean}{unit} ({low} to {high}{unit})"


def interval(values, comparisons=1, level=0.95):
    """Return the mean of independent `values` (N,) with Student's confidence interval of `level`.

    mean +- t s / sqrt(n), s the standard deviation with n - 1 and t the quantile of Student's distribution with n - 1
    degrees of freedom (Student 1908), n the number of values that are not NaN; for many values close to normal
    whatever they are. Where it is one of several `comparisons`, each is held to the level 1 - (1 - level) /
    comparisons, so that all of them together hold with `level` (Bonferroni; Dunn 1961).

    Raises
    ------
    InputError
        Not a row of numbers, an infinite one, no comparison, or a level outside of 0 to 1.
    """
    values = as_array(values, "values", np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise InputError(f"values: expected finite numbers in one row, got shape {values.shape}")
    if not is_whole(comparisons):
        raise InputError(f"comparisons: must be 1 or more, got {shown(comparisons)}")
    tail, undefined = _tail(level) / comparisons, int(np.isnan(values).sum())
    values = values[~np.isnan(values)]
    n = len(values)
    mean = values.mean() if n else np.nan
    half = -stdtrit(n - 1, tail) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Interval(float(mean), float(mean - half), float(mean + half), n, undefined)


def over_networks(values, comparisons=1, level=0.95):
    """Return the mean over networks with its interval: each network counts once, by the mean of its values.

    Parameters
    ----------
    values : dict
        {seed: the number of that network, or its numbers (N,), of the same N images for all}. NaN are left out of a
        network's mean, and counted.
    comparisons, level
        As for `interval`.

    Raises
    ------
    InputError
        As for `interval`, or networks that did not see equally many images.
    """
    rows = [np.atleast_1d(as_array(v, "values", np.float64)) for v in values.values()]
    if not rows or len({row.shape for row in rows}) > 1 or rows[0].ndim != 1:
        shapes = ", ".join(str(row.shape) for row in rows)
        raise InputError(f"values: expected one number a network, or one for each of the same images, got {shapes}")
    seen = [row[~np.isnan(row)] for row in rows]
    found = interval([row.mean() if len(row) else np.nan for row in seen], comparisons, level)
    return replace(found, undefined=sum(map(len, rows)) - sum(map(len, seen)))


def paired(a, b, comparisons=1, level=0.95):
    """Return the mean of a - b, network by network, with its interval: {seed: values} each; see `over_networks`.

    Raises
    ------
    InputError
        As for `over_networks`, or other networks in `a` than in `b`.
    """
    if set(a) != set(b):
        raise InputError(f"a pair needs both of the same networks, got {sorted(a)} and {sorted(b)}")
    differences = {seed: np.subtract(a[seed], b[seed], dtype=np.float64) for seed in a}
    return over_networks(differences, comparisons, level)


def accuracy_interval(right, n, level=0.95):
    """Return the accuracy p = `right` / `n` with its score interval (Wilson 1927).

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z the quantile of the normal distribution: all
    shares that would not be rejected at this level. It stays within 0 to 1, and has a width where all are right.

    Raises
    ------
    InputError
        Not 0 <= right <= n with n >= 1, or a level outside of 0 to 1.
    """
    if not (all(is_number(v, whole=False) for v in (right, n)) and 0 <= right <= n and n >= 1):
        raise InputError(f"right, n: expected 0 <= right <= n and n >= 1, got {shown(right)} of {shown(n)}")
    p, z = right / n, -ndtri(_tail(level))
    center, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (center - half) / (1 + z**2 / n), (center + half) / (1 + z**2 / n)
    low, high = float(low) if right else 0.0, float(high) if right < n else 1.0  # exact where rounding is not
    return Interval(p, low, high, n)


def share(hits, level=0.95):
    """Return the share of hits among `hits` (N,) of 1, 0 and NaN with its score interval: see `accuracy_interval`.

    What is undefined (NaN) is left out, and counted; where nothing else is there, the share is NaN.

    Raises
    ------
    InputError
        Numbers outside of 0 to 1, or a level outside of 0 to 1.
    """
    hits = as_array(hits, "hits", np.float64)
    seen = hits[~np.isnan(hits)]
    if hits.ndim != 1 or (seen < 0).any() or (seen > 1).any():
        raise InputError(f"hits: expected a row of numbers from 0 to 1, or NaN, got shape {hits.shape}")
    undefined = len(hits) - len(seen)
    if not len(seen):
        return Interval(np.nan, np.nan, np.nan, 0, undefined)
    return replace(accuracy_interval(float(seen.sum()), len(seen), level), undefined=undefined)


def _tail(level):
    """The probability beyond each bound."""
    if not (is_number(level, whole=False) and 0 < level < 1):
        raise InputError(f"level: must lie between 0 and 1, got {shown(level)}")
    return (1 - level) / 2
