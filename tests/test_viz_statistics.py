"""The interval of a mean is Student's, and it is written as a person reads it."""

import numpy as np
import pytest

from tinycnn import InputError
from viz.metrics.statistics import Interval, mean_interval


def test_the_interval_is_the_mean_and_student_s_quantile_times_the_standard_error():
    """Tables give t = 2.776 for 4 degrees of freedom at 95 %; s of 1 to 5 is the root of 2.5."""
    found = mean_interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.high - 3 == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=1e-3)
    assert 3 - found.low == pytest.approx(found.high - 3)
    assert mean_interval([1, 2, 3, 4, 5], level=0.9).high - 3 == pytest.approx(2.132 * np.sqrt(0.5), rel=1e-3)


def test_the_interval_holds_the_true_mean_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    holds = [i.low < 0.3 < i.high for i in (mean_interval(rng.binomial(7, 0.3, 200) / 7) for _ in range(2000))]
    assert 0.935 < np.mean(holds) < 0.965  # four standard errors


def test_an_interval_is_written_with_its_unit_once():
    assert f"{Interval(0.3123, 0.29, 0.3349):.1%}" == "31.2 % (29.0 to 33.5 %)"
    assert f"{Interval(-0.5, -1, 0.25):.2f}" == "-0.50 (-1.00 to 0.25)"


@pytest.mark.parametrize(
    "values, level, named", [([1], 0.95, "values"), ([1, np.nan], 0.95, "values"), ([1, 2], 1, "level")]
)
def test_bad_arguments_are_named(values, level, named):
    with pytest.raises(InputError, match=named):
        mean_interval(values, level)
