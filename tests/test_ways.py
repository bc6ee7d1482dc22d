"""The ways of the maximization stages: one factor each, judged alike by networks that had no part in them."""

import dataclasses

import numpy as np
import pytest

from tinycnn import data, models, streams
from viz.ascent import maximize, optimizers
from viz.ascent import recipes as presets
from viz.ascent import regularizers as r
from viz.study import judges as judging
from viz.study import ways
from viz.study.stages import ablation, maximization
from viz.study.subject import Study

FIVE = ["decay", "blur", "small norm", "bounded variation", "bounded range"]  # of the study's section


@pytest.fixture(scope="module")
def s():
    """A study of digits with an untrained network and two judges, ten images a class, two iterations an ascent."""
    images, labels = (a[:100] for a in data.load("digits", "train"))
    nets = [models.build("mnist", backend="cpu", seed=seed) for seed in range(3)]
    for net in nets:
        net.params["conv1"]["b"][...] = 0.05  # with no bias at all, a black image has no gradient
    accuracy = {"mean": 0.9, "low": 0.8, "high": 0.95, "n": 100, "undefined": 0}
    judges = {"another seed": nets[1], "another architecture": nets[2]}
    about = {name: {"accuracy": accuracy, "judges": True, "least": 0.595} for name in judges}
    more = {"masks": None, "seed": 4, "judges": judges, "about_judges": about, "effort": 0.001}
    return Study(nets[0], data.info("digits"), images, labels, images, labels, **more)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(ways, "LEAST", 2)


def changed(recipe, base):
    """The names of the fields in which two recipes differ."""
    values = [(f.name, getattr(recipe, f.name), getattr(base, f.name)) for f in dataclasses.fields(presets.Recipe)]
    return [name for name, a, b in values if not (a is b or np.array_equal(a, b))]


def test_every_regularizer_is_one_change_of_the_base_and_the_five_are_the_study_s():
    recipes = ways.regularized()
    assert list(recipes) == [
        "nothing",
        *FIVE,
        "all five",
        "small contribution",
        "the study's code",
        "its code, from noise",
    ]
    assert changed(recipes["nothing"], ways.BASE) == []
    kinds = [r.Decay, r.Blur, r.ClipNorm, r.TotalVariation, r.BoundedRange, r.ClipContribution]
    for name, kind in zip([*FIVE, "small contribution"], kinds, strict=True):
        (one,) = recipes[name].regularizers
        assert changed(recipes[name], ways.BASE) == ["regularizers"] and type(one) is kind
    assert changed(recipes["all five"], ways.BASE) == ["regularizers"]
    assert recipes["all five"].regularizers == tuple(recipes[name].regularizers[0] for name in FIVE)
    assert recipes["bounded variation"].regularizers[0].beta == 1  # as the study writes it; the paper takes 2
    assert (ways.BASE.start, ways.BASE.mean, ways.BASE.steps) == (10 / 255, 0, 250)  # Yosinski's noise on black


def test_one_factor_changes_one_field_of_the_base_and_what_is_left_out_one_of_ours(s):
    others = ways.one_factor(s)
    base = others.pop("base")
    fields = [changed(recipe, base) for recipe in others.values()]
    assert base is ways.BASE and all(len(some) == 1 for some in fields)
    assert {some[0] for some in fields} == {
        *("start", "mean", "objective", "parametrization", "transforms", "optimizer", "steps", "regularizers")
    }
    others = ways.left_out(s)
    own = others.pop("ours")
    fields = [changed(recipe, own) for recipe in others.values()]
    assert all(len(some) == 1 for some in fields)
    for recipe, (field,) in zip(others.values(), fields):
        assert getattr(recipe, field) == getattr(base, field)
    assert sorted(some[0] for some in fields) == sorted(changed(own, base))  # each part of ours is left out once


def test_published_recipes_stand_as_published_and_scaled_by_one_rule(s):
    recipes, factors = ways.published(s)
    as_published = dict(zip(factors, [*presets.YOSINSKI_SETS, presets.MAHENDRAN], strict=True))
    for name, factor in factors.items():
        assert changed(recipes[name], as_published[name]) == ["steps", "mean"] and recipes[name].steps == 250
        assert changed(recipes[f"{name} scaled"], recipes[name]) == ["optimizer"]
        images = []
        first = dataclasses.replace(recipes[f"{name} scaled"], steps=1, regularizers=())
        maximize.maximize(s.net, "fc2", range(10), first, seed=4, callback=lambda i, x, y, to=images: to.append(x))
        moved = np.sqrt(np.mean((images[1] - images[0]).astype(float) ** 2))
        assert moved == pytest.approx(0.02, rel=1e-4) and factor > 0
    images.clear()
    maximize.maximize(s.net, "fc2", range(10), ways.BASE, steps=1, callback=lambda i, x, y: images.append(x))
    size = np.abs(images[1] - images[0])  # Adam's first step: its rate, wherever there is a gradient
    assert np.median(size) == pytest.approx(0.02, rel=1e-3) and size.max() <= 0.02 * (1 + 1e-4)


def test_a_network_without_a_gradient_at_the_start_leaves_the_rate(s):
    net = models.build("mnist", backend="cpu")
    net.params["conv1"]["b"][...] = -1
    assert ways.scale(dataclasses.replace(s, net=net), presets.PRELIMINARY, [3]) == 1
    assert ways.without_gradient(dataclasses.replace(s, net=net)) == 10 and ways.without_gradient(s) == 0


def test_what_is_judged_is_8_bits_within_0_and_1_and_otherwise_as_it_was_made(s, short):
    recipes = {"nothing": ways.BASE, "Mahendran": dataclasses.replace(presets.MAHENDRAN, mean=ways.color(s))}
    for way in ways.go(s, recipes):
        again = maximize.maximize(s.net, "fc2", range(10), recipes[way.name], seed=4, steps=2)
        assert (way.raw == again.images).all()
        assert way.shown.min() >= 0 and way.shown.max() <= 1
        np.testing.assert_allclose(255 * way.shown, np.round(255 * way.shown), atol=1e-4)
        assert np.abs(way.shown - np.clip(way.raw, 0, 1)).max() <= 0.5 / 255 + 1e-6


def test_confidence_log_odds_and_names_are_those_of_the_class_an_image_was_made_for(s):
    rng = np.random.default_rng(0)
    x, classes = rng.random((12, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, 12)
    confidence, named = judging.confidence(s.net, x, classes), judging.named(s.net, x, classes)
    odds = judging.log_odds(s.net, x, classes)
    for i, c in enumerate(classes):
        logits = s.net.logits(x[i][None])[0].astype(float)
        p = np.exp(logits[c]) / np.exp(logits).sum()
        assert confidence[i] == pytest.approx(p, rel=1e-5)
        assert odds[i] == pytest.approx(np.log(p / (1 - p)), abs=1e-5)
        assert named[i] == (logits.argmax() == c)


def test_an_image_is_recognised_if_every_judge_names_its_class_and_without_judges_nothing_is_said(s):
    """Judges that answer one class each whatever they see: they agree on class 2 alone."""
    x = np.zeros((10, 28, 28, 1), np.float32)
    always = [models.build("mnist", backend="cpu") for _ in range(2)]
    for net in always:
        net.params["fc2"]["w"][...] = 0
        net.params["fc2"]["b"][2] = 5
    way = ways.Way("black", x, np.arange(10))
    agreed = judging.judge(dataclasses.replace(s, judges=dict(zip("ab", always))), way)
    assert agreed["recognised"].tolist() == [c == 2 for c in range(10)]
    assert agreed["log_odds"][2] == pytest.approx(5 - np.log(9), abs=1e-6)
    assert agreed["log_odds"][3] == pytest.approx(-np.log(8 + np.exp(5)), abs=1e-6)
    assert judging.means(agreed)["recognised"] == 1
    always[1].params["fc2"]["b"][3] = 6
    split = judging.judge(dataclasses.replace(s, judges=dict(zip("ab", always))), way)
    assert not split["recognised"].any() and split["confidence_of_b"][3] > 0.5
    alone = judging.means(judging.judge(dataclasses.replace(s, judges={}), way))
    assert np.isnan(alone["recognised"]) and np.isnan(alone["log_odds"]) and 0 < alone["confidence_as_judged"] < 1


def test_a_class_with_several_images_counts_once_and_one_without_is_undefined(s):
    x = np.random.default_rng(1).random((3, 28, 28, 1)).astype(np.float32)
    way = ways.Way("some", x, np.array([0, 0, 4]))
    verdict = judging.judge(s, way)
    each = judging.confidence(s.net, way.shown, way.classes)
    assert verdict["confidence_as_judged"][0] == pytest.approx((each[0] + each[1]) / 2)
    assert np.isnan(verdict["confidence_as_judged"][1])
    mean = judging.means(verdict)["confidence_as_judged"]
    assert mean == pytest.approx(((each[0] + each[1]) / 2 + each[2]) / 2)


def test_a_gain_is_paired_by_class():
    a, b = {"log_odds": np.array([1.0, 2, 4])}, {"log_odds": np.array([0.0, 2, 1])}
    found = judging.gain(a, b)  # differences 1, 0, 3: deviation 1.5275, Student's quantile 4.3027 for two degrees
    assert found.mean == pytest.approx(4 / 3) and found.n == 3
    assert found.high - found.mean == pytest.approx(4.30265 * 1.527525 / np.sqrt(3), rel=1e-5)


def test_variation_is_the_mean_step_to_the_neighbours_below_and_at_the_right():
    x = np.random.default_rng(0).random((2, 4, 5, 3))
    for n in range(2):
        down = np.mean([abs(x[n, i + 1, j, c] - x[n, i, j, c]) for i, j, c in np.ndindex(3, 5, 3)])
        right = np.mean([abs(x[n, i, j + 1, c] - x[n, i, j, c]) for i, j, c in np.ndindex(4, 4, 3)])
        assert judging.variation(x)[n] == pytest.approx(down + right, rel=1e-12)


def test_controls_are_photographs_of_each_class_of_another_and_plain_images(s, monkeypatch):
    monkeypatch.setattr(ways, "PHOTOGRAPHS", 3)
    photographs, others, grey, black = ways.controls(s)
    for c in range(10):
        first = s.test_images[s.test_labels == c][:3]
        assert (np.round(255 * photographs.shown[photographs.classes == c]) == first).all()
    assert (others.raw == photographs.raw).all() and ((others.classes - photographs.classes) % 10 == 1).all()
    assert (grey.raw == 0.5).all() and (black.raw == 0).all() and black.classes.tolist() == list(range(10))


def test_effort_shortens_an_ascent_to_20_iterations_at_least_and_300_are_the_most(s):
    full = dataclasses.replace(s, effort=1.0)
    assert [ways.steps(full, n) for n in (2, 300, 1000)] == [2, 300, 300]
    half = dataclasses.replace(s, effort=0.5)
    assert [ways.steps(half, n) for n in (2, 30, 300, 1000)] == [2, 20, 150, 150]
    assert ways.steps(full, 500, most=500) == 500


def test_the_trial_is_plain_ascent_at_the_study_s_rate_and_at_ours(s):
    """Loops of x <- x + rate * gradient say what the facts must hold."""
    facts = maximization._trial(dataclasses.replace(s, effort=0.05))[1]
    assert facts["shown_after_iterations"] == [1, 3, 10, 25] and facts["rate_10"]["rate"] == 10
    dy = np.eye(10, dtype=np.float32)[[3]]
    start = streams.rng(s.seed, "ascent", 3).normal(0, 10 / 255, (1, 28, 28, 1)).astype(np.float32)
    g = s.net.backward(s.net.forward(start), dy, at="fc2", rule="gradient")
    assert facts["ours"]["rate"] * np.sqrt(np.mean(g.astype(float) ** 2)) == pytest.approx(0.02, rel=1e-4)
    for name in ("rate_10", "ours"):
        x, found, seen = start, facts[name], {}
        for i in range(1, 26):
            x = x + np.float32(found["rate"]) * s.net.backward(s.net.forward(x), dy, at="fc2", rule="gradient")
            seen[i] = judging.confidence(s.net, ways.bits(x), [3])[0]
        for i, p in found["confidence_after"].items():
            assert p == pytest.approx(seen[i], abs=1e-3)
        assert found["highest_pixel"] == pytest.approx(x.max(), rel=1e-3)
        above = [i for i in facts["shown_after_iterations"] if seen[i] > 0.5]
        assert found["first_above_a_half"] == (above[0] if above else None)


def test_facts_of_the_stages_are_the_judges_verdicts(s, short):
    pictures, facts = maximization.run(s)
    names = [p.name for p in pictures]
    assert names[:6] == ["trial", "classes", "published", "scaled", "recognised", "gains"]
    made = {way.name: way for way in ways.go(s, ways.regularized())}
    odds = {
        name: np.mean([judging.log_odds(net, made[name].shown, range(10)) for net in s.judges.values()], axis=0)
        for name in ("nothing", "all five")
    }
    assert facts["ways"]["nothing"]["log_odds"] == pytest.approx(odds["nothing"].mean())
    assert facts["all_five_less_nothing"]["mean"] == pytest.approx((odds["all five"] - odds["nothing"]).mean())
    assert facts["photographs"] == facts["ways"]["photographs"] and facts["ways"]["grey"]["total_variation"] == 0
    pictures, facts = ablation.run(s)
    assert [p.name for p in pictures] == ["factors", "factors-gains", "left-out", "left-out-gains"]
    assert list(facts["log_odds_less"]) == ["base", "ours"] and len(facts["log_odds_less"]["ours"]) == 8


def test_without_judges_nothing_is_said_of_them(s, short):
    alone = dataclasses.replace(s, judges={})
    assert [p.name for p in ablation.run(alone)[0]] == ["factors", "left-out"]
    pictures, facts = maximization.run(alone)
    assert "gains" not in [p.name for p in pictures] and np.isnan(facts["ways"]["ours"]["recognised"])


def test_scaled_changes_are_a_factor_of_the_optimizer_s():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 1))
    for plain in (optimizers.Constant(0.3), optimizers.Progress(2.0), optimizers.Mahendran(), optimizers.Adam(0.1)):
        scaled = optimizers.Scaled(plain, 7.0)
        one, other = plain.init(x), scaled.init(x)
        for t in range(1, 4):
            np.testing.assert_allclose(scaled.change(other, x * t, t), 7 * plain.change(one, x * t, t), rtol=1e-12)
