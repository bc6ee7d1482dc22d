"""The interval of a mean is Student's, that of an accuracy Wilson's, and both are written as a person reads them."""

import numpy as np
import pytest
from scipy import stats

from tinycnn import InputError
from viz.metrics.statistics import Interval, accuracy_interval, interval, over_networks, paired, share


def test_the_interval_is_the_mean_and_student_s_quantile_times_the_standard_error():
    """Tables give t = 2.776 for 4 degrees of freedom at 95 %; s of 1 to 5 is the root of 2.5."""
    found = interval([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.high - 3 == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=1e-3)
    assert 3 - found.low == pytest.approx(found.high - 3)
    assert interval([1, 2, 3, 4, 5], level=0.9).high - 3 == pytest.approx(2.132 * np.sqrt(0.5), rel=1e-3)


@pytest.mark.parametrize("N", [2, 3, 7, 200])
@pytest.mark.parametrize("comparisons, level", [(1, 0.95), (1, 0.5), (6, 0.95), (45, 0.99)])
def test_the_interval_is_scipy_s_and_several_share_the_risk(N, comparisons, level):
    values = np.random.default_rng(N).normal(3, 2, N)
    each = 1 - (1 - level) / comparisons
    low, high = stats.ttest_1samp(values, 0).confidence_interval(each)
    found = interval(values, comparisons, level)
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high), rel=1e-11)


def test_six_intervals_hold_together_in_95_of_100_studies():
    values = np.random.default_rng(1).normal(size=(1000, 6, 10))  # means of 0
    holds = [all(i.low < 0 < i.high for i in (interval(v, comparisons=6) for v in study)) for study in values]
    assert 0.93 < np.mean(holds) < 0.98  # 0.951 is expected; three standard errors


@pytest.mark.parametrize("right, n", [(0, 1), (1, 1), (0, 360), (360, 360), (1, 3), (347, 360), (7580, 10_000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_of_an_accuracy_is_scipy_s(right, n, level):
    expected = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    found = accuracy_interval(right, n, level)
    assert found.mean == right / n
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-15)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_347_of_360_right_is_93_9_to_97_9_per_cent():
    assert f"{accuracy_interval(347, 360):.1%}" == "96.4 % (93.9 to 97.9 %)"


def test_a_share_leaves_out_what_is_undefined_and_counts_it():
    found = share([1, 0, np.nan, 1, 1, np.nan])
    assert vars(found) == vars(accuracy_interval(3, 4)) | {"undefined": 2}
    nothing = share([np.nan, np.nan])
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all() and (nothing.n, nothing.undefined) == (0, 2)
    for bad in ([0, 2], [[0, 1]], [-0.1]):
        with pytest.raises(InputError, match="hits"):
            share(bad)


def test_the_interval_holds_the_true_mean_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    holds = [i.low < 0.3 < i.high for i in (interval(rng.binomial(7, 0.3, 200) / 7) for _ in range(2000))]
    assert 0.935 < np.mean(holds) < 0.965  # four standard errors


def test_an_interval_is_written_with_its_unit_once():
    assert f"{Interval(0.3123, 0.29, 0.3349, 9):.1%}" == "31.2 % (29.0 to 33.5 %)"
    assert f"{Interval(-0.5, -1, 0.25, 9):.2f}" == "-0.50 (-1.00 to 0.25)"


@pytest.mark.parametrize(
    "values, level, named", [([[1]], 0.95, "values"), ([1, np.inf], 0.95, "values"), ([1, 2], 1, "level")]
)
def test_bad_arguments_are_named(values, level, named):
    with pytest.raises(InputError, match=named):
        interval(values, level=level)


def test_no_comparison_is_refused():
    with pytest.raises(InputError, match="comparisons"):
        interval([1, 2], comparisons=0)


@pytest.mark.parametrize(
    "right, n, level, named",
    [(3, 2, 0.95, "3 of 2"), (-1, 2, 0.95, "right"), (0, 0, 0.95, "n >= 1"), (1, 2, 0, "level")],
)
def test_a_bad_accuracy_is_named(right, n, level, named):
    with pytest.raises(InputError, match=named):
        accuracy_interval(right, n, level)


@pytest.mark.parametrize("networks", [3, 5, 10])
def test_intervals_over_networks_hold_in_95_of_100_studies(networks):
    """Means of networks around 0.7, each over images whose own spread is much larger; 95 % within one per cent."""
    rng = np.random.default_rng(networks)
    means = 0.7 + 0.05 * rng.standard_normal((40_000, networks))
    half = stats.t.ppf(0.975, networks - 1) * means.std(1, ddof=1) / np.sqrt(networks)
    for study in means[:50]:  # ours is this interval ...
        found = over_networks(dict(enumerate(study)))
        i = int((means == study).all(1).argmax())
        assert (found.low, found.high) == pytest.approx((study.mean() - half[i], study.mean() + half[i]), rel=1e-9)
    assert abs(np.mean(np.abs(means.mean(1) - 0.7) < half) - 0.95) < 0.01  # ... and this one holds
    assert {3: 2.48, 5: 1.24, 10: 0.72}[networks] == pytest.approx(half[0] / means[0].std(ddof=1), abs=0.005)


def test_a_network_counts_once_whatever_it_saw_and_what_is_undefined_is_left_out_and_counted():
    values = {3: [1.0, np.nan, 3.0], 4: [5.0, 6.0, 7.0], 9: [np.nan, np.nan, 10.0]}
    found = over_networks(values)
    low, high = stats.ttest_1samp([2, 6, 10], 0).confidence_interval(0.95)
    assert (found.mean, found.low, found.high, found.n, found.undefined) == pytest.approx((6, low, high, 3, 3))
    assert over_networks({0: 1.0, 1: np.nan, 2: 3.0}) == interval([1.0, np.nan, 3.0])
    assert interval([1.0, np.nan, 3.0]).n == 2 and interval([1.0, np.nan, 3.0]).undefined == 1
    alone = interval([4.0, np.nan])
    assert alone.mean == 4 and np.isnan([alone.low, alone.high]).all() and alone.n == 1
    assert np.isnan(interval([]).mean)


def test_differences_are_paired_network_by_network():
    rng = np.random.default_rng(0)
    a, b = ({seed: rng.random(20) for seed in (2, 5, 11)} for _ in range(2))
    found = paired(a, b, comparisons=4)
    differences = [a[s].mean() - b[s].mean() for s in a]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(1 - 0.05 / 4)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(differences), low, high), rel=1e-9)
    with pytest.raises(InputError, match="same networks"):
        paired(a, {2: 1.0, 5: 2.0, 12: 3.0})
    with pytest.raises(InputError, match="same images"):
        over_networks({0: [1.0, 2.0], 1: [1.0]})
