"""The scorecards: every method is on them and judged alike; over networks by hand; words that turn with the numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tinycnn import data, models, rules
from viz import saliency
from viz.attribution import METHODS, ties
from viz.metrics import controls, localization, robustness
from viz.report import results
from viz.study import cards, methods, sets, table, words
from viz.study.networks import Networks
from viz.study.stages import rules as lattice
from viz.study.stages import scorecard, scorecard_over_networks, shortcut, shortcut_over_networks
from viz.study.stages import ties as tied
from viz.study.subject import Study


@pytest.fixture(scope="module")
def few():
    """A study of 12 shapes, with masks and with what was planted in them, by an untrained network."""
    name = "shapes-corner"
    images, labels = data.load(name, "test")
    theirs = labels == data.info(name).classes.index(data.info(name).betrayed)
    some = np.concatenate([np.flatnonzero(theirs)[:12], np.flatnonzero(~theirs)[:4]])
    net = models.build("cifar10", backend="cpu", seed=1)
    split = (images[some], labels[some])
    evidence = data.masks(name, "test", of="shortcut")[some]
    masks, without = data.masks(name, "test")[some], data.counterfactual(name)[some]
    return Study(net, data.info(name), *split, *split, masks, 0, without=without, evidence=evidence)


@pytest.fixture
def quick(monkeypatch):
    """Three rows, three images that take many passes."""
    chosen = ("gradient", "input x gradient", "RISE")
    for stage in (scorecard, shortcut, tied):
        usual = stage.rows
        monkeypatch.setattr(stage, "rows", lambda net, usual=usual: [r for r in usual(net) if r.name in chosen])
    for module in (methods, scorecard, shortcut):
        monkeypatch.setattr(module, "FEW", 3)


def spoken(stage, pictures, facts, tmp_path):
    done = results.keep(tmp_path / stage, pictures, facts, 0.0, "", "")
    return done, words.speak(table.STAGES[stage].words, done, {"title": "t", "classes": ["a"]})


@pytest.mark.parametrize("name", ["mnist", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_every_method_has_a_row_of_its_own_and_fits_any_image(name):
    net = models.build(name, backend="reference")
    rows = methods.rows(net)
    assert {row.method for row in rows} == set(METHODS) and len({row.name for row in rows}) == len(rows)
    x, shape = np.random.default_rng(0).random((1, *net.input_shape), np.float32), (1, *net.input_shape[:2])
    for row in rows:
        if not row.slow and row.options.get("samples", 0) < 2:
            maps, raw, costs = row.draw(net, x, np.array([3]))
            assert maps.shape == shape and costs["seconds"] > 0 and costs["megabytes"] > 0.01
            assert np.array_equal(maps, row.read(raw)) and row.tile(maps).shape == (*shape, 3)


def test_a_scorecard_has_what_its_metrics_say_of_each_map(few, quick, tmp_path):
    pictures, facts = scorecard.run(few)
    target, picked = few.net.predict(few.test_images), few.examples_and_more("scorecard", 500)
    x, masks = few.test_images[picked], few.masks[picked]
    maps = np.abs(saliency.gradient(few.net, x, target[picked])).sum(-1)
    score = facts["scores"]["gradient"]
    for name, metric in (("pointing game", localization.pointing_game), ("AUROC", localization.auroc)):
        assert score[name]["mean"] == pytest.approx(np.nanmean(metric(masks, maps)), rel=1e-6)
    start = np.abs(saliency.gradient(few.untrained, x[:3], target[picked][:3])).sum(-1)
    expected = np.nanmean(localization.average_precision(masks[:3], start))
    assert score["average precision, untrained"]["mean"] == pytest.approx(expected, rel=1e-6)
    gained = np.nanmean(localization.average_precision(masks[:3], maps[:3])) - expected
    assert score["average precision, gained by training"]["mean"] == pytest.approx(gained, rel=1e-6)
    expected = robustness.infidelity(few.net, x[:3], facts_maps(few, x[:3]), target[picked][:3]).mean()
    assert facts["scores"]["input x gradient"]["infidelity"]["mean"] == pytest.approx(expected, rel=1e-6)
    edges = localization.average_precision(masks, controls.edges(None, x)[..., 0]).mean()
    assert facts["scores"]["edges of the image"]["average precision"]["mean"] == pytest.approx(edges)
    assert "deletion" in score and "deletion" not in facts["scores"]["RISE"]
    assert facts["scores"]["RISE"]["pointing game"]["n"] == 3
    done, said = spoken("scorecard", pictures, facts, tmp_path)
    assert set(done.costs) == {"gradient", "input x gradient", "RISE"} and results.COSTS not in done.facts
    assert "3 ways" in said["methods"].caption and len(said) == len(pictures)


def facts_maps(few, x):
    return METHODS["input_x_gradient"](few.net, x, few.net.predict(x))


def test_what_things_took_stands_beside_the_result_and_in_no_facts(tmp_path):
    done = results.keep(tmp_path, [], {"a": 1, results.COSTS: {"x": {"seconds": 2.0}}}, 0.0, "", "")
    assert done.facts == {"a": 1} and done.costs == {"x": {"seconds": 2.0}} == results.find(tmp_path).costs


def test_maps_are_not_compared_where_images_are_too_small():
    assert (
        "SSIM" in scorecard.run(type("S", (), {"net": type("N", (), {"input_shape": (8, 8, 1)})})())[1][results.NOTHING]
    )


@pytest.mark.parametrize("falls", [np.zeros((3, 5)), np.zeros(3)])
def test_falls_of_another_shape_are_refused(few, falls):
    x = few.test_images[:3]
    with pytest.raises(ValueError, match="falls: expected shape"):
        robustness.infidelity(few.net, x, x / 255.0, 0, falls=falls)


# -- the planted shortcut ----------------------------------------------------------------------------------------------


def with_flips(few):
    """As if the network called all with the mark by its class, and none without."""
    net = models.build("cifar10", backend="cpu", seed=1)
    betrayed = few.info.classes.index(few.info.betrayed)
    marked = {x.tobytes() for x in few.test_images[:12]}
    net.predict = lambda x: np.array([betrayed if image.tobytes() in marked else 0 for image in np.asarray(x)])
    return replace(few, net=net), betrayed


def test_maps_are_judged_by_the_evidence_of_images_whose_answer_flips(few, quick, tmp_path):
    s, betrayed = with_flips(few)
    pictures, facts = shortcut.run(s)
    assert facts["answers_that_flip"]["mean"] == 1 and facts["judged"] == 12 == facts["images"]
    maps = np.abs(saliency.gradient(few.net, few.test_images[:12], betrayed)).sum(-1)
    expected = localization.relevance_mass_accuracy(few.evidence[:12], maps).mean()
    assert facts["scores"]["gradient"]["relevance mass"]["mean"] == pytest.approx(expected, rel=1e-6)
    _, said = spoken("shortcut", pictures, facts, tmp_path)
    assert "100 % flip" in said["answers"].caption and len(said) == len(pictures) == 2 + len(methods.PLACE)


@pytest.mark.parametrize("kind", ["no evidence", "no flips", "nothing planted"])
def test_without_a_place_or_a_flip_no_map_is_judged(few, quick, kind, tmp_path):
    s, _ = with_flips(few)
    if kind == "no evidence":
        s = replace(s, evidence=None)
    elif kind == "no flips":
        s = replace(s, without=s.test_images)
    else:
        assert "no shortcut" in shortcut.run(replace(s, without=None))[1][results.NOTHING]
        return
    pictures, facts = shortcut.run(s)
    _, said = spoken("shortcut", pictures, facts, tmp_path)
    assert facts["scores"] == {} and facts["judged"] == 0 and len(pictures) == 1
    assert ("no place" if kind == "no evidence" else "Too few") in said["answers"].details


def test_a_set_has_its_counterfactuals_and_its_evidence_where_there_is_one():
    corner, color, plain = (sets.DataSet(data.info(n), *[()] * 6) for n in ("shapes-corner", "shapes-color", "shapes"))
    assert np.array_equal(corner.planted["without"], data.counterfactual("shapes-corner"))
    assert np.array_equal(corner.planted["evidence"], data.masks("shapes-corner", "test", of="shortcut"))
    assert color.planted["evidence"] is None and plain.planted is None
    assert [n for n in data.NAMES if table.STAGES["shortcut"].usual(n)] == [n for n, s in data.MADE.items() if s]


# -- over networks -----------------------------------------------------------------------------------------------------


GAINED = "pointing game, gained by training"


def interval(mean):
    return {"mean": mean, "low": None, "high": None, "n": 10, "undefined": 0}


def card(seed, **more):
    """The scores of a network: a good method, and one that is no better than a blob."""
    e = 0.01 * seed
    good = {"pointing game": 0.9 - e, "pointing game, untrained": 0.3, GAINED: 0.6 - e, "deletion": 0.1 + e,
            "insertion": 0.9, "ROAD": 0.1, "all layers random: Spearman": 0.1 + e}  # fmt: skip
    poor = good | {"pointing game": 0.5 + e, "pointing game, untrained": 0.5 - e, "deletion": 0.6 + e,
                   "insertion": 0.2 + e, "all layers random: Spearman": 0.8 + e} | more  # fmt: skip
    found = {"gradient": poor, "better": good}
    for name, value in zip(controls.CONTROLS, (0.2, 0.5, 0.6, 0.4)):
        found[name] = {"pointing game": value, "deletion": 0.5, "insertion": 0.5, "ROAD": 0.5}
    return {name: {k: interval(v) for k, v in some.items()} for name, some in found.items()}


def test_scores_over_networks_are_means_of_means_and_differences_hold_together():
    three = {seed: card(seed) for seed in range(3)}
    found = cards.over(three)["better"]["pointing game"]
    values = [0.9, 0.89, 0.88]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert found["mean"] == pytest.approx(0.89) and found["high"] - found["mean"] == pytest.approx(half)
    assert list(found["values"].values()) == pytest.approx(values)
    apart = cards.differences(three)["better"]["pointing game"]
    values = np.subtract(values, [0.5, 0.51, 0.52])
    half = stats.t.ppf(1 - 0.025 / 5, 2) * values.std(ddof=1) / np.sqrt(3)  # five methods beside the gradient
    assert apart["mean"] == pytest.approx(values.mean()) and apart["mean"] - apart["low"] == pytest.approx(half)
    assert "deletion" in cards.differences(three)["random map"]
    assert "all layers random: Spearman" not in cards.differences(three)["random map"]
    assert cards.best_control(three, "pointing game") == "centred blob"
    assert cards.best_control({0: card(0)}, "infidelity") is None


def test_an_undefined_mean_is_left_out_and_counted():
    three = {seed: card(seed) for seed in range(3)}
    three[1]["better"]["ROAD"] = interval(None)
    found = cards.over(three)["better"]["ROAD"]
    assert found["n"] == 2 and found["undefined"] == 1


def test_two_sentences_a_method_turn_with_the_numbers():
    three = {seed: card(seed) for seed in range(3)}
    said = cards.said(three, cards.over(three))
    assert set(said) == {"gradient", "better"}
    good, poor = said["better"], said["gradient"]
    assert "more often than any map of no network (centred blob, 60 %)" in good["allows"]
    assert "deletion, insertion and ROAD" in good["allows"] and "changes with what was learned" in good["allows"]
    assert "Nothing measured here speaks against it" in good["does not"]
    assert "by ROAD" in poor["allows"] and "points at" not in poor["allows"]
    assert "less often than a map of no network" in poor["does not"]
    assert "by deletion and insertion" in poor["does not"] and "stays as it was" in poor["does not"]
    two = dict(list(three.items())[:2])
    assert cards.said(two, cards.over(two)) == {}
    same = {seed: card(seed, **{"pointing game, untrained": 0.5, GAINED: 0}) for seed in range(3)}
    assert (
        "no better than with an untrained network (50 %)" in cards.said(same, cards.over(same))["gradient"]["does not"]
    )


def networks(stage, found, name="shapes-corner", folders=None):
    metrics = {seed: {"stages": {stage: facts}} for seed, facts in found.items()}
    return Networks(data.info(name), metrics, folders or {})


def test_the_scorecard_over_networks_speaks_of_each_metric(tmp_path):
    three = networks("scorecard", {seed: {"scores": card(seed)} for seed in range(3)})
    pictures, facts = scorecard_over_networks.run(three)
    done, said = spoken("scorecard_over_networks", pictures, facts, tmp_path)
    assert len(said) == 7 and "Above the gradient for certain: 2 of 5." in said["pointing-game"].caption
    assert "better" in said["pointing-game"].details and json.loads(results.dumps(done.facts))
    nothing = networks("scorecard", {0: {results.NOTHING: "too small"}})
    assert scorecard_over_networks.run(nothing) == ([], {results.NOTHING: "too small"})


def test_networks_that_never_saw_the_shortcut_stand_beside(tmp_path):
    plain = tmp_path / "shapes" / "seed-0"
    plain.mkdir(parents=True)
    net = models.build("cifar10", backend="cpu", seed=1)
    net.save(plain / "weights.safetensors")
    (tmp_path / "shapes" / "seed-1").mkdir()
    (tmp_path / "shapes" / "seed-1" / "weights.safetensors").write_bytes(b"none")
    folders = {seed: tmp_path / "shapes-corner" / f"seed-{seed}" for seed in range(3)}
    scores = {name: {m: interval(v) for m in methods.PLACE} for name, v in
              [("gradient", 0.5), ("other", 0.9), *((c, 0.3) for c in controls.CONTROLS)]}  # fmt: skip
    found = {s: {"answers_that_flip": interval(0.9 + 0.01 * s), "betrayed": "heart", "has_a_place": True,
                 "scores": {n: {m: interval(i["mean"] + 0.001 * s * (n == "other")) for m, i in some.items()}
                            for n, some in scores.items()}} for s in range(3)}  # fmt: skip
    pictures, facts = shortcut_over_networks.run(networks("shortcut", found, folders=folders))
    images, labels = data.load("shapes-corner", "test")
    label = data.info("shapes-corner").classes.index(data.info("shapes-corner").betrayed)
    answers, after = (
        net.predict(images[labels == label]),
        net.predict(data.counterfactual("shapes-corner")[labels == label]),
    )
    right = answers == label
    expected = {0: np.mean(after[right] != label)} if right.any() else None
    assert (facts["that_never_saw_it"] or {}).get("values") == expected
    assert facts["answers_that_flip"]["mean"] == pytest.approx(0.91) and facts["find_it"] == ["gradient", "other"]
    _, said = spoken("shortcut_over_networks", pictures, facts, tmp_path / "out")
    assert "91 % flip" in said["flips"].caption and len(pictures) == 1 + len(methods.PLACE)
    alone = {s: f | {"scores": {}, "has_a_place": False} for s, f in found.items()}
    pictures, facts = shortcut_over_networks.run(networks("shortcut", alone, folders={}))
    _, said = spoken("shortcut_over_networks", pictures, facts, tmp_path / "alone")
    assert "no place of its own" in said["flips"].details and "not there to compare" in said["flips"].caption


# -- the lattice of rules, and ties ------------------------------------------------------------------------------------


def test_two_rules_part_where_they_first_differ(few, tmp_path):
    pictures, facts = lattice.run(few)
    assert facts["ways"] == 12 and facts["part_at"]["gradient / guided backprop"] == "fc2"
    assert facts["part_at"]["gradient: switches / repeat"] == "relu2"
    x = few.test_images[few.examples_and_more("rules", 100)]
    target = few.net.predict(x)
    a, b = (saliency.gradient(few.net, x, target, r).reshape(len(x), -1).astype(float) for r in ("gradient", "guided"))
    cosine = np.mean([u @ v / np.sqrt((u @ u) * (v @ v)) for u, v in zip(a, b)])
    assert facts["cosine"]["gradient / guided backprop"]["pixels"]["mean"] == pytest.approx(cosine, rel=1e-5)
    for mask, rectify, name in ((True, False, "gradient"), (False, True, "deconvnet"), (True, True, "guided")):
        assert rules.RULES[name] == rules.Rule(mask, rectify) and lattice.NAMES[mask, rectify, "switches"] == name
    _, said = spoken("rules", pictures, facts, tmp_path)
    assert "all 12 ways" in said["lattice"].caption


def test_ties_are_counted_and_maps_move_as_far_as_the_resolved_network_says(few, quick, tmp_path):
    flat = few.test_images.copy()
    flat[:, :16] = 0
    s = replace(few, test_images=flat)
    pictures, facts = tied.run(s)
    x = flat[s.examples_and_more("ties", 200)]
    shares = ties.shares(s.net, x)
    assert facts["tied"]["trained"]["pool1"]["mean"] == pytest.approx(shares["pool1"].tied.mean())
    moved = ties.moved(s.net, x, s.net.predict(x), METHODS["gradient"], "last")
    assert facts["moved"]["gradient"]["last"]["mean"] == pytest.approx(np.nanmean(moved), rel=1e-5)
    blank = np.mean([[[(p == image[0, 0]).all() for p in line] for line in image] for image in x])
    assert facts["of_the_corners_colour"]["mean"] == pytest.approx(blank)
    _, said = spoken("ties", pictures, facts, tmp_path)
    assert "untrained" in said["tied"].caption
