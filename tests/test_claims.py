"""The study's claims: intervals by hand, verdicts that turn where the numbers do, nothing decided without networks."""

import copy
import math

import numpy as np
import pytest
from scipy import stats

from viz.metrics.statistics import Interval
from viz.study import claims


def number(mean):
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": 200, "undefined": 0}


AP = "average precision"


def with_scorecard(metrics, gradient=0.3, pool=0.4, conv=0.5, other=0.6):
    """The same networks, each with a scorecard."""
    metrics = copy.deepcopy(metrics)
    for seed, m in metrics.items():
        e, scores = 0.01 * seed, {"gradient": gradient, "from pool2": pool, "from relu2": conv, "LayerCAM": other}
        scores = {k: {AP: number(v + e), f"{AP}, untrained": number(0.2)} for k, v in scores.items()}
        controls = {"edges of the image": {AP: number(0.45)}, "brightness": {AP: number(0.2)}}
        m["stages"]["scorecard"] = {"scores": scores | controls}
    return metrics


def beside(trained, untrained, **more):
    return {"trained": number(trained), "untrained": number(untrained), **{k: number(v) for k, v in more.items()}}


def network(seed):
    """What metrics.json holds of a network for which every claim holds, a little else for each seed."""
    e = 0.01 * seed
    trial = {"rate_10": {"confidence_at_the_end": 0.1 + e, "log_odds_at_the_end": -3.0 + e}}
    trial["ours"] = {"confidence_at_the_end": 0.9 + e, "log_odds_at_the_end": -1.0 + e}
    ways = {
        "nothing": {"log_odds": -2.0 + e, "confidence_as_judged": 0.99},
        "all five": {"log_odds": 1.0 + e, "confidence_as_judged": 0.95 + e / 10},
    }
    return {
        "seed": seed,
        "stages": {
            "maximal_activation_maps": {
                "conv1": {"named": beside(0.9 + e, 0.3 + e), "at_the_border": beside(1.5 + e, 1.1)},
                "conv2": {"named": beside(0.5, 0.3), "at_the_border": None},
            },
            "strongest_maps": {
                "images": 100,
                "layers": {
                    "conv1": {
                        "its_share": 0.95 + e,
                        "untrained_share": 0.5 + e,
                        "answers_to": {"brightness": -0.4, "blue": 0.6 + e, "edges": 0.3 + e},
                    },
                    "conv2": {"its_share": 0.2},
                },
            },
            "unpooling": {
                "switches_less_repetition": {"conv2": number(0.2 + e)},
                "untrained_switches_less_repetition": {"conv2": number(-0.1 + e)},
            },
            "layer_backprop": {
                "named": {"saliency": beside(0.1, 0.1), "pool2": beside(0.2, 0.1), "conv2": beside(0.3, 0.1)},
                "pointing_game": {
                    "saliency": beside(0.3 + e, 0.3),
                    "pool2": beside(0.5 + 2 * e, 0.3),
                    "conv2": beside(0.7 + e, 0.3),
                    "by_chance": 0.17,
                },
            },
            "activation_maps": {
                "conv1": {"outline": beside(0.9 + e, 0.9), "position": beside(0.8, 0.1)},
                "conv2": {"outline": beside(0.4, 0.95), "position": beside(0.8 + e, 0.1)},
            },
            "filters": {"oriented": beside(0.4, 0.5, difference=-0.1 + e)},
            "tsne": {
                "three_less_all": {"images": 90, "score": number(0.1 + e), "untrained": number(0.1 - e)},
                "vehicles and animals": {
                    "accuracy_of_10_nearest": number(0.95),
                    "untrained": number(0.8),
                    "trained_less_untrained": number(0.15 + e),
                },
            },
            "neighbors": {
                "features_less_pixels": {"test": number(0.3 + e)},
                "features_less_untrained": {"test": number(0.2 + e)},
                "background": {"pixels_less_features": number(-0.05 + e), "alike": False},
                "mirrored": {"features_less_pixels": number(0.4 + e)},
            },
            "maximization": {
                "trial": trial,
                "ways": ways,
                "all_five_less_nothing": number(3.0 + e),
                "photographs": {"log_odds": 4.0 + e},
            },
        },
    }


@pytest.fixture
def metrics():
    return {seed: network(seed) for seed in range(3)}


def verdicts(metrics):
    return {row.id: row.verdict for row in claims.rows(metrics)}


def test_each_claim_holds_where_all_of_its_parts_do(metrics):
    found = verdicts(metrics)
    assert list(found) == [f"S{i}" for i in range(1, 11)] and set(found.values()) == {claims.HOLDS}


def test_of_fewer_than_three_networks_nothing_is_decided(metrics):
    for few in ({0: metrics[0]}, {0: metrics[0], 2: metrics[2]}):
        assert set(verdicts(few).values()) == {claims.FEW}
    row = claims.rows({1: metrics[1]})[0]
    assert row.number == "91.0 % (90.0 to 92.0 %); 1.51 (1.50 to 1.52)"  # over the images of this one network
    assert row.control == "untrained 31.0 % (30.0 to 32.0 %)"


def test_the_number_is_student_s_interval_over_networks(metrics):
    shares = np.array([0.95, 0.96, 0.97])
    low, high = stats.t.interval(0.95, 2, shares.mean(), stats.sem(shares))
    assert claims.rows(metrics)[1].number.startswith(f"96.0 % ({100 * low:.1f} to {100 * high:.1f} %); blue 0.61")


@pytest.mark.parametrize(
    ("claim", "path", "values", "verdict"),
    [
        ("S1", "maximal_activation_maps conv1 named trained mean", (0.2, 0.21, 0.22), "NOT"),
        ("S1", "maximal_activation_maps conv1 named untrained mean", (0.9, 0.92, 0.91), "UNTRAINED"),
        ("S1", "maximal_activation_maps conv1 at_the_border trained mean", (0.5, 0.51, 0.52), "NOT"),
        ("S2", "strongest_maps layers conv1 its_share", (0.2, 0.99, 0.7), "OPEN"),
        ("S2", "strongest_maps layers conv1 untrained_share", (0.98, 0.99, 0.985), "UNTRAINED"),
        ("S2", "strongest_maps layers conv1 answers_to blue", (-0.5, -0.51, -0.52), "NOT"),
        ("S2", "strongest_maps layers conv1 answers_to blue", (None, None, None), "HOLDS"),  # grey
        ("S3", "unpooling switches_less_repetition conv2 mean", (-0.2, -0.21, -0.22), "NOT"),
        ("S3", "unpooling switches_less_repetition conv2 mean", (-0.2, 0.21, 0.1), "OPEN"),
        ("S3", "unpooling untrained_switches_less_repetition conv2 mean", (0.2, 0.21, 0.22), "UNTRAINED"),
        ("S4", "layer_backprop pointing_game conv2 trained mean", (0.35, 0.36, 0.37), "NOT"),
        ("S5", "activation_maps conv2 outline trained mean", (0.99, 0.99, 0.99), "NOT"),
        ("S5", "activation_maps conv2 outline untrained mean", (0.2, 0.21, 0.22), "UNTRAINED"),
        ("S6", "filters oriented difference mean", (0.2, 0.21, 0.22), "NOT"),
        ("S6", "filters oriented difference mean", (-0.2, 0.21, 0.22), "OPEN"),
        ("S7", "tsne three_less_all score mean", (-0.2, -0.21, -0.22), "NOT"),
        ("S8", "neighbors features_less_untrained test mean", (-0.2, 0.21, 0.02), "UNTRAINED"),
        ("S8", "neighbors background pixels_less_features mean", (0.2, 0.21, 0.22), "NOT"),
        ("S9", "maximization trial rate_10 confidence_at_the_end", (0.9, 0.91, 0.92), "NOT"),
        ("S10", "maximization photographs log_odds", (0.1, 0.11, 0.12), "NOT"),
        ("S10", "maximization all_five_less_nothing mean", (None, None, None), "OPEN"),
    ],
)
def test_a_verdict_turns_with_its_number(metrics, claim, path, values, verdict):
    changed = copy.deepcopy(metrics)
    *way, last = path.split()
    for m, value in zip(changed.values(), values):
        at = m["stages"]
        for name in way:
            at = at[name]
        at[last] = value
    found = verdicts(changed)
    assert found.pop(claim) == getattr(claims, verdict)
    assert set(found.values()) == {claims.HOLDS}


def test_a_claim_that_was_not_measured_has_no_row(metrics):
    for m in metrics.values():
        m["stages"].pop("tsne")
        m["stages"]["filters"] = {"filters": 32}  # of another version
        m["stages"]["layer_backprop"]["pointing_game"] = None  # no masks
    assert {f"S{i}" for i in range(1, 11)} - set(verdicts(metrics)) == {"S6", "S7"}
    assert "images named" in next(row.measured for row in claims.rows(metrics) if row.id == "S4")


def test_saliency_is_held_against_all_methods_where_there_is_a_scorecard(metrics):
    def row(**scores):
        return next(row for row in claims.rows(with_scorecard(metrics, **scores)) if row.id == "S4")

    assert row().verdict == claims.HOLDS and "1 of 1 other methods exceed from relu2" in row().number
    assert "edges of the image 45.0 %" in row().control and "gradient 31.0 %" in row().number
    assert row(pool=0.2).verdict == claims.NOT and "0 of 1" in row(other=0.1).number


def test_parts_make_a_verdict():
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    assert [claims.above(Interval(1, low, high, 3), 0.5) for low, high in ((0.6, 2), (0.1, 0.4), (0.1, 2))] == [
        True,
        False,
        None,
    ]
    assert claims.above(nothing) is None
    assert claims.decide(True, None) == claims.OPEN and claims.decide(True, None, False) == claims.NOT
    assert claims.decide(True, untrained=True) == claims.UNTRAINED and claims.decide(True) == claims.HOLDS


def test_mnist_and_cifar10_are_compared_where_both_are_there(metrics):
    mnist, cifar = copy.deepcopy(metrics), copy.deepcopy(metrics)
    for seed in metrics:
        mnist[seed]["dataset"], cifar[seed]["dataset"] = "mnist", "cifar10"
        cifar[seed]["stages"]["maximization"]["photographs"]["log_odds"] = 9.0 + 0.1 * seed
    ahead, same = claims.rows(mnist, other=cifar)[-1], claims.rows(cifar, other=mnist)[-1]
    assert ahead == same and (ahead.id, ahead.verdict) == ("S11", claims.HOLDS)
    behind = np.array([9.0 - 1.0, 9.1 - 1.01, 9.2 - 1.02])  # photographs' less all five's
    low, high = stats.t.interval(0.95, 2, behind.mean(), stats.sem(behind))
    assert f"CIFAR-10 {behind.mean():.2f} ({low:.2f} to {high:.2f})" in ahead.number
    for m in cifar.values():
        m["stages"]["maximization"]["photographs"]["log_odds"] = -9.0
    assert claims.rows(mnist, other=cifar)[-1].verdict == claims.NOT
    assert claims.rows({0: mnist[0]}, other=cifar)[-1].verdict == claims.FEW
    del cifar[0]["stages"]["maximization"]
    assert "S11" not in {row.id for row in claims.rows(mnist, other=cifar)}


def test_the_reported_accuracy_is_judged_by_its_own_recipe_alone(metrics):
    for seed, m in metrics.items():
        m |= {"steps": 1001, "validation_images": 0, "train_accuracy": number(0.99)}
        m["test_accuracy"] = number(0.97 + 0.001 * seed)
    row = claims.rows(metrics, (0.98, 1001, ""))[-1]
    assert (row.id, row.verdict) == ("S12", claims.HOLDS) and row.number.startswith("97.1 % (96.9 to 97.3 %)")
    assert claims.rows(metrics, (0.93, 1001, ""))[-1].verdict == claims.NOT
    assert claims.rows(metrics, (0.98, 1000, ""))[-1].verdict == claims.OPEN
    metrics[0]["validation_images"] = 10  # something was chosen
    assert claims.rows(metrics, (0.98, 1001, ""))[-1].verdict == claims.OPEN
