"""The ways of the maximization stage: judged as shown, by networks that had no part in them, on the same seeds."""

import dataclasses

import numpy as np
import pytest

from tinycnn import data, models
from viz import maximize
from viz.ascent import recipes as presets
from viz.study import judges as judging
from viz.study import ways as ablation
from viz.study.subject import Study


@pytest.fixture(scope="module")
def s():
    """A study of digits with an untrained network and two judges, ten images a class, two iterations an ascent."""
    images, labels = (a[:100] for a in data.load("digits", "train"))
    nets = [models.build("mnist", backend="cpu", seed=seed) for seed in range(3)]
    for net in nets:
        net.params["conv1"]["b"][...] = 0.05  # with no bias at all, a black image has no gradient
    judges = {"another seed": nets[1], "another architecture": nets[2]}
    more = {"masks": None, "seed": 4, "judges": judges, "effort": 0.001}
    return Study(nets[0], data.info("digits"), images, labels, images, labels, **more)


@pytest.fixture(scope="module")
def ways(s):
    with pytest.MonkeyPatch.context() as m:
        m.setattr(ablation, "LEAST", 2)
        return {way.name: way for way in (*ablation.study_ways(s), *ablation.published_ways(s))}


def test_every_way_of_the_study_and_of_the_papers_is_there_and_ours_last(ways):
    five = ["decay", "blur", "small norm", "small contrib.", "variation"]
    sets = [f"Yosinski {i}" for i in (1, 2, 3, 4)]
    assert list(ways) == ["nothing", *five, "all five", "all, in [0, 1]", *sets, "Mahendran", "ours"]


def test_what_is_shown_is_8_bits_within_0_and_1_and_a_picture_as_it_is_where_it_can_be(ways):
    for name, way in ways.items():
        assert way.shown.min() >= 0 and way.shown.max() <= 1
        np.testing.assert_allclose(255 * way.shown, np.round(255 * way.shown), atol=1e-4)
        if name.startswith(("all, in", "Yosinski", "ours")):
            assert np.abs(way.shown - way.raw).max() <= 0.5 / 255 + 1e-6
        elif name != "Mahendran":
            np.testing.assert_allclose(way.shown, maximize.deprocess(way.raw), atol=0.5 / 255 + 1e-6)


def test_a_way_is_the_ascent_of_its_preset_on_the_seed_of_the_study(s, ways):
    again = maximize.maximize(
        *(s.net, "fc2", range(10), presets.MAHENDRAN), seed=4, steps=2, mean=s.images.mean((0, 1, 2)) / 255
    )
    assert (ways["Mahendran"].raw == again.images).all()
    np.testing.assert_allclose(ways["Mahendran"].scores, s.net.logits(again.images).diagonal(), rtol=1e-4)


def test_confidence_and_names_are_those_of_the_class_an_image_was_made_for(s):
    x = np.random.default_rng(0).random((10, 28, 28, 1)).astype(np.float32)
    confidence, named = judging.confidence(s.net, x), judging.named(s.net, x)
    for c in range(10):
        logits = s.net.logits(x[c][None])[0].astype(float)
        assert confidence[c] == pytest.approx(np.exp(logits[c]) / np.exp(logits).sum(), rel=1e-5)
        assert named[c] == (logits.argmax() == c)


def test_an_image_is_recognised_if_every_judge_names_its_class(s):
    """Judges that answer one class each whatever they see: they agree on class 2 alone."""
    x = np.zeros((10, 28, 28, 1), np.float32)
    always = [models.build("mnist", backend="cpu") for _ in range(2)]
    for net, classes in zip(always, ([2], [2])):
        net.params["fc2"]["w"][...] = 0
        net.params["fc2"]["b"][classes] = 5
    way = ablation.Way("black", x, x, np.arange(10.0))
    agreed = judging.judge(dataclasses.replace(s, judges=dict(zip("ab", always))), way)
    assert agreed["recognised"].tolist() == [c == 2 for c in range(10)]
    always[1].params["fc2"]["b"][3] = 6
    split = judging.judge(dataclasses.replace(s, judges=dict(zip("ab", always))), way)
    assert not split["recognised"].any() and split["confidence_of_b"][3] > 0.5
    assert "recognised" not in judging.judge(dataclasses.replace(s, judges={}), way)
    means = judging.means(agreed)
    assert means["score"] == 4.5 and means["recognised"] == 1


def test_variation_is_the_mean_step_to_the_neighbours_below_and_at_the_right(s):
    x = np.random.default_rng(0).random((2, 4, 5, 3))
    for n in range(2):
        down = np.mean([abs(x[n, i + 1, j, c] - x[n, i, j, c]) for i, j, c in np.ndindex(3, 5, 3)])
        right = np.mean([abs(x[n, i, j + 1, c] - x[n, i, j, c]) for i, j, c in np.ndindex(4, 4, 3)])
        assert judging.variation(x)[n] == pytest.approx(down + right, rel=1e-12)


def test_the_surest_training_image_of_each_class_is_shown(s):
    way = ablation.surest(s)
    logits = s.net.logits(s.images).astype(float)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for c in range(10):
        best = np.where(s.labels == c, share[:, c], -1).argmax()
        assert (np.round(255 * way.shown[c]) == s.images[best]).all()
        assert way.scores[c] == pytest.approx(logits[best, c], rel=1e-5)


def test_effort_shortens_an_ascent_to_20_iterations_at_least(s):
    full = dataclasses.replace(s, effort=1.0)
    assert [ablation.steps(full, n) for n in (2, 300, 1000)] == [2, 300, 1000]
    half = dataclasses.replace(s, effort=0.5)
    assert [ablation.steps(half, n) for n in (2, 30, 300, 1000)] == [2, 20, 150, 500]
    large = dataclasses.replace(full, net=models.build("stl10", backend="cpu"))
    assert [ablation.steps(large, n) for n in (100, 300, 1000)] == [100, 300, 300]
