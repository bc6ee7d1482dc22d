"""The numbers of the stages are those of loops over the same images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tinycnn import data, models
from viz import activations, deconvnet, embedding
from viz import saliency as looking
from viz.metrics.identification import identify
from viz.metrics.orientation import oriented
from viz.metrics.statistics import accuracy_interval
from viz.study import sets
from viz.study.stages import (
    activation_maps,
    filters,
    frozen,
    layer_backprop,
    learned,
    maximal_activation_maps,
    neighbors,
    saliency,
    strongest_maps,
    training_curve,
    tsne,
    unpooling,
)
from viz.study.subject import Study


@pytest.fixture(scope="module")
def small():
    """A study of 60 training and 40 validation digits; map 3 of conv1 and map 5 of conv2 are dead."""
    digits = sets.built_in("digits")
    net = models.build("mnist", backend="cpu", seed=1)
    net.params["conv1"]["b"][3] = net.params["conv2"]["b"][5] = -100
    few = (digits.images[:60], digits.labels[:60], digits.test_images[:40], digits.test_labels[:40])
    return Study(net, digits.info, *few, None, 0)


def test_what_the_seven_nearest_share_is_what_a_loop_finds(small):
    _, metrics = neighbors.run(small)
    pixels = np.concatenate([small.images, small.test_images])
    labels = np.concatenate([small.labels, small.test_labels])
    mirrored = pixels[:, :, ::-1]
    border = [
        np.mean([v for y, row in enumerate(x[:, :, 0]) for c, v in enumerate(row) if not (3 <= y < 25 and 3 <= c < 25)])
        for x in pixels / 255
    ]
    untrained = models.build("mnist", backend="cpu", seed=0)
    rows = {
        "pixels": (pixels.reshape(100, -1).astype(int), mirrored.reshape(100, -1).astype(int)),
        "features": [embedding.features(small.net, x, "relu3").astype(float) for x in (pixels, mirrored)],
        "untrained features": [embedding.features(untrained, x, "relu3").astype(float) for x in (pixels, mirrored)],
    }
    hits, apart, mirrors = {}, {}, {}
    for name, (row, mirror) in rows.items():
        hits[name], apart[name], mirrors[name] = [], [], []
        for q in range(60, 100):
            others = sorted((((row[q] - row[i]) ** 2).sum(), i) for i in range(100) if i != q)[:7]
            hits[name].append(np.mean([labels[i] == labels[q] for _, i in others]))
            apart[name].append(np.mean([abs(border[i] - border[q]) for _, i in others]))
            mirrors[name].append(((row[q] - mirror[q]) ** 2).sum() < others[6][0])
        share = metrics["share_of_the_7_nearest"][name]["test"]
        assert share["mean"] == pytest.approx(np.mean(hits[name]), abs=1e-12) and share["n"] == 40
        half = 2.0227 * np.std(hits[name], ddof=1) / np.sqrt(40)
        assert share["high"] - share["low"] == pytest.approx(2 * half, rel=1e-4)
        assert metrics["background"][name]["mean"] == pytest.approx(np.mean(apart[name]), abs=1e-12)
        assert metrics["mirrored"][name]["mean"] == np.mean(mirrors[name])
    for key, other in (("pixels", "pixels"), ("untrained", "untrained features")):
        gain = metrics[f"features_less_{key}"]["test"]["mean"]
        assert gain == pytest.approx(np.mean(hits["features"]) - np.mean(hits[other]), abs=1e-12)
        gain = metrics["mirrored"][f"features_less_{key}"]["mean"]
        assert gain == pytest.approx(np.mean(mirrors["features"]) - np.mean(mirrors[other]), abs=1e-12)
    for key, other in (("features", "features"), ("untrained", "untrained features")):
        less = metrics["background"][f"pixels_less_{key}"]["mean"]
        assert less == pytest.approx(np.mean(apart["pixels"]) - np.mean(apart[other]), abs=1e-12)
    chance = np.mean([abs(border[i] - border[q]) for q in range(60, 100) for i in range(100) if i != q])
    assert metrics["background"]["by_chance"]["mean"] == pytest.approx(chance, abs=1e-12)
    pairs = [labels[i] == labels[j] for i in range(100) for j in range(100) if i != j]
    assert metrics["by_chance"] == pytest.approx(np.mean(pairs))
    assert metrics["mirrored"]["by_chance"] == 7 / 100


@pytest.mark.parametrize("classes, kinds", [(None, 2), (data.info("cifar10").classes, 3)])
def test_the_plane_is_judged_beside_the_untrained_network_and_chance(small, classes, kinds):
    s = replace(small, info=replace(small.info, classes=classes or small.info.classes))
    pictures, facts = tsne.run(s)
    assert [p.name for p in pictures] == ["all-scatter", "all-mosaic", "three-scatter", "three-mosaic"]
    untrained = models.build("mnist", backend="cpu", seed=0)
    right = {}
    for key, chosen in (("all classes", range(10)), ("three classes", (0, 2, 7))):
        picked = np.flatnonzero(np.isin(s.test_labels, chosen))
        found, labels, n = facts[key], s.test_labels[picked], len(picked)
        assert found["images"] == n and found["classes"] == [s.name(c) for c in chosen]
        for which, net in (("accuracy_of_10_nearest", s.net), ("untrained", untrained)):
            features = embedding.features(net, s.test_images[picked], "relu3")
            points = embedding.tsne(features, seed=0, perplexity=min(30, max(2, (n - 1) // 3)))
            right[key, which] = dict(zip(picked, embedding.knn_right(points, labels, min(10, n - 1))))
            mean = np.mean([*right[key, which].values()])
            assert found[which] == vars(accuracy_interval(round(mean * n), n))
            name = "score" if net is s.net else "score_untrained"
            for bound in ("mean", "low", "high"):
                above = (found[which][bound] - found["by_chance"]) / (1 - found["by_chance"])
                assert found[name][bound] == pytest.approx(above)
            if key == "all classes" and kinds == 3:
                vehicle = np.isin(labels, (0, 1, 8, 9)).astype(int)
                mean = embedding.knn_accuracy(points, vehicle, 10)
                assert facts["vehicles and animals"][which]["mean"] == mean
    assert len(facts) == kinds + 1 and facts["three_less_all"]["images"] == facts["three classes"]["images"]
    a, b = (facts[k]["by_chance"] for k in ("all classes", "three classes"))
    for name, which in (("score", "accuracy_of_10_nearest"), ("untrained", "untrained")):
        all_, three = right["all classes", which], right["three classes", which]
        less = [(three[i] - b) / (1 - b) - (all_[i] - a) / (1 - a) for i in three]
        assert facts["three_less_all"][name]["mean"] == pytest.approx(np.mean(less))
    labels = pictures[0].points.labels
    assert labels[3] == f"{s.name(s.test_labels[3])}, test image 3"


def test_two_images_of_three_classes_are_too_few_for_a_plane(small):
    few = np.flatnonzero(~np.isin(small.test_labels, (2, 7)))[:20]
    few = np.concatenate([few[small.test_labels[few] != 0], np.flatnonzero(small.test_labels == 0)[:2]])
    s = replace(small, test_images=small.test_images[few], test_labels=small.test_labels[few])
    pictures, facts = tsne.run(s)
    assert [p.name for p in pictures] == ["all-scatter", "all-mosaic"]
    assert facts["three classes"] == {"images": 2, "classes": ["0", "2", "7"]} and "three_less_all" not in facts


def test_every_class_has_its_accuracy_with_an_interval_and_undefined_where_it_has_no_image(small):
    some = small.test_labels != 4
    s = replace(small, test_images=small.test_images[some], test_labels=small.test_labels[some])
    _, facts = training_curve.run(s)
    predicted = s.net.predict(s.test_images)
    for c in set(range(10)) - {4}:
        right = int(((predicted == c) & (s.test_labels == c)).sum())
        assert facts["accuracy by class"][str(c)] == vars(accuracy_interval(right, int((s.test_labels == c).sum())))
    assert facts["accuracy by class"]["4"] is None
    wrong = {(a, b): np.mean(predicted[s.test_labels == a] == b) for a in s.test_labels for b in range(10) if a != b}
    mistake = facts["most_frequent_mistake"]
    assert mistake["share"] == max(wrong.values()) == wrong[int(mistake["class"]), int(mistake["taken_for"])]
    assert mistake["images"] / mistake["of"] == mistake["share"]


def test_strongest_maps_are_those_that_win_most_and_never_dead_ones(small):
    pictures, metrics = strongest_maps.run(small)
    for conv, relu, dead in (("conv1", "relu1", 3), ("conv2", "relu2", 5)):
        sums = activations.maps(small.net, small.test_images, relu).sum((1, 2), dtype=float)
        counts = np.bincount(sums.argmax(1), minlength=sums.shape[1])
        assert metrics["layers"][conv]["how_often"].tolist() == sorted(counts[counts > 0], reverse=True)
        assert (
            counts[metrics["layers"][conv]["strongest_maps_in_order"]].tolist()
            == metrics["layers"][conv]["how_often"].tolist()
        )
        assert metrics["layers"][conv]["its_share"] == counts.max() / 40
        (shown,) = (p.facts["maps"].tolist() for p in pictures if p.tab == conv)
        assert len(shown) == strongest_maps.MAPS and dead not in shown
        assert (
            shown[: np.count_nonzero(counts)]
            == metrics["layers"][conv]["strongest_maps_in_order"].tolist()[: strongest_maps.MAPS]
        )


def test_a_dead_layer_shows_no_patches(small):
    net = models.build("mnist", backend="cpu")
    net.params["conv2"]["b"][...] = -100
    s = replace(small, net=net)
    pictures, metrics = strongest_maps.run(s)
    assert [p.name for p in pictures] == ["wins", "patches-00-conv1"]
    assert metrics["layers"]["conv2"]["how_often"].tolist() == [] and metrics["layers"]["conv2"]["its_share"] == 0


def test_ways_to_unpool_are_compared_over_the_same_images_beside_the_untrained_network(small):
    _, facts = unpooling.run(small)
    assert facts["images"] == 40 and facts["layers"] == ["conv2"] and facts["without_a_pool_below"] == ["conv1"]
    start = models.build("mnist", backend="cpu", seed=0)
    for prefix, net in (("", small.net), ("untrained_", start)):
        hits = {}
        for way, name in unpooling.WAYS.items():
            projection, _ = deconvnet.project(net, small.test_images, "relu2", unpool=way)
            hits[name] = identify(projection, small.test_images)
            expected = accuracy_interval(int(hits[name].sum()), 40)
            assert facts[f"{prefix}named"]["conv2"][name] == vars(expected)
        difference = hits["switches"] - hits["repetition"]
        gain = facts[f"{prefix}switches_less_repetition"]["conv2"]
        assert gain["mean"] == pytest.approx(difference.mean(), abs=1e-12)
        low, high = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
        assert (gain["low"], gain["high"]) == pytest.approx((low, high))
    assert facts["controls"]["the image itself"]["mean"] == facts["controls"]["its edges"]["mean"] == 1
    assert facts["controls"]["a blob anywhere"]["low"] < facts["by_chance"] == 1 / 40


def test_a_layer_s_learning_is_worth_what_is_lost_without_it(small):
    trained = models.build("mnist", backend="cpu", seed=0)
    trained.params["conv1"]["w"] *= 3  # changes no answer: no layer has a bias
    trained.params["fc2"]["w"][...] = trained.params["fc2"]["w"][:, ::-1].copy()
    labels = trained.predict(small.test_images)
    before = {layer: {k: a.copy() for k, a in p.items()} for layer, p in trained.params.items()}
    s = replace(small, net=trained, test_labels=labels)
    _, facts = learned.run(s)
    assert facts["accuracy"]["mean"] == 1 and facts["images"] == 40
    for layer, f in facts["layers"].items():
        net = models.build("mnist", backend="cpu", seed=0)
        for name in trained.params:
            if name != layer:
                net.params[name] = before[name]
        right = net.predict(small.test_images) == labels
        assert f["accuracy"] == vars(accuracy_interval(int(right.sum()), 40))
        assert f["cost"]["mean"] == pytest.approx(1 - right.mean())
    assert facts["layers"]["conv1"]["cost"]["mean"] == facts["layers"]["fc1"]["cost"]["mean"] == 0
    assert facts["layers"]["fc2"]["cost"]["mean"] > 0.5
    assert facts["layers"]["conv1"]["change_relative_to_the_start"] == pytest.approx(2, rel=1e-6)
    assert facts["layers"]["conv1"]["correlation_with_the_start"] == pytest.approx(1)
    assert facts["first_at_random"]["accuracy"]["n"] == learned.DRAWS
    for layer, p in before.items():
        assert all((trained.params[layer][k] == a).all() for k, a in p.items())  # the network is as it was


def test_the_frozen_network_is_compared_image_by_image(small):
    other = models.build("mnist", backend="cpu", seed=2)
    _, facts = frozen.run(replace(small, frozen=other))
    a, b = (net.predict(small.test_images) == small.test_labels for net in (small.net, other))
    assert facts["accuracy"]["mean"] == a.mean() and facts["frozen_accuracy"]["mean"] == b.mean()
    gain, expected = facts["learned_less_frozen"], stats.ttest_rel(a.astype(float), b).confidence_interval(0.95)
    assert (gain["low"], gain["high"]) == pytest.approx((expected.low, expected.high))


def test_an_image_s_own_map_is_the_one_it_has_most_of_compared_with_others():
    sums = np.array([[9.0, 4, 0, 0.1], [10, 12, 0, 0], [11, 8, 0, 0]])  # means 10, 8, 0, 0.03; the last is nearly dead
    assert maximal_activation_maps.distinctive(sums).tolist() == [0, 1, 0]  # 9/10 > 4/8; 10/10 < 12/8; 11/10 > 8/8


def test_strength_at_the_object_s_border_is_what_loops_say():
    rng = np.random.default_rng(0)
    images, projection = rng.random((3, 12, 12, 3)), rng.normal(size=(3, 12, 12, 3))
    masks = np.zeros((3, 12, 12), bool)
    masks[:2, 3:10, 2:9] = True
    edges, expected = deconvnet.edges(images), []
    for n in range(2):
        border, other = [], []
        for y, x in np.ndindex(12, 12):
            inside = [masks[n, i, j] for i, j in np.ndindex(12, 12) if abs(i - y) + abs(j - x) <= 2]
            strength = np.abs(projection[n, y, x]).max()
            if any(inside) and not all(inside):
                border.append(strength)
            elif edges[n, y, x] > edges[n].mean():
                other.append(strength)
        expected.append(np.mean(border) / np.mean(other))
    found = maximal_activation_maps.at_the_border(projection, images, masks)
    assert found[:2] == pytest.approx(expected) and np.isnan(found[2])


def test_what_a_map_answers_to_is_a_correlation_over_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 6, 7, 3), np.uint8)
    x = images.astype(float).mean((1, 2))
    found = strongest_maps.answers_to(3 * x[:, 2] - 1.5 * (x[:, 0] + x[:, 1]), images)
    assert found["blue"] == pytest.approx(1)
    assert found["brightness"] == pytest.approx(np.corrcoef(x.mean(1), 2 * x[:, 2] - x[:, 0] - x[:, 1])[0, 1])
    assert strongest_maps.answers_to(images[..., 0].mean((1, 2)), images[..., :1])["blue"] is None
    assert strongest_maps.answers_to(deconvnet.edges(images).mean((1, 2)), images)["edges"] == pytest.approx(1)


def test_maps_point_at_objects_and_name_images_beside_their_controls(small):
    masks = np.zeros((40, 28, 28), bool)
    masks[:39, 9:19, 9:19] = True  # one image has no object
    s = replace(small, masks=masks)
    _, facts = layer_backprop.run(s)
    from_pool = looking.layer_backprop(small.net, small.test_images, "pool2")
    best = from_pool.reshape(40, -1).argmax(1)[:39]
    expected = accuracy_interval(int(masks.reshape(40, -1)[np.arange(39), best].sum()), 39)
    game = facts["pointing_game"]
    assert game["pool2"]["trained"] == vars(expected) | {"undefined": 1}
    assert game["by_chance"] == pytest.approx(100 / 784) and game["centred blob"]["mean"] == 1
    assert facts["named"]["pool2"]["trained"]["mean"] == identify(from_pool, small.test_images).mean()
    _, facts = saliency.run(s)
    one = looking.saliency(small.net, small.test_images, small.net.predict(small.test_images))
    hits = masks.reshape(40, -1)[np.arange(40), one.reshape(40, -1).argmax(1)][:39]
    assert facts["pointing_game"]["the answer"]["trained"]["mean"] == hits.mean()
    _, facts = activation_maps.run(s)
    found = facts["conv1"]
    assert found["position"]["trained"]["n"] == found["outline"]["trained"]["n"] == found["maps"] == 32
    maps = activations.maps(small.net, small.test_images, "relu1")
    named = [np.nan_to_num(identify(maps[..., m], small.test_images)).mean() for m in range(32)]
    assert named[3] == 0 and found["outline"]["trained"]["mean"] == pytest.approx(np.mean(named))


def test_filters_are_held_against_their_start(small):
    _, facts = filters.run(replace(small, seed=1))  # the network of seed 1, untrained but for two biases
    assert facts["correlation_with_the_start"]["mean"] == pytest.approx(1)
    assert facts["change_relative_to_the_start"]["mean"] == 0
    assert facts["oriented"]["difference"]["mean"] == 0
    assert facts["oriented"]["trained"]["mean"] == oriented(activations.filters(small.net)).mean()


def test_a_stage_draws_the_same_numbers_whatever_was_drawn_before(small):
    first = small.rng("tsne").random()
    assert small.rng("neighbors").random() != first == small.rng("tsne").random()


def test_examples_show_as_many_classes_as_there_are():
    labels = np.array([1, 1, 0, 2, 2, 1, 0, 3])
    assert Study(None, None, None, None, None, labels, None, 0).examples().tolist() == [0, 2, 3, 7, 1, 4]


def test_class_names_are_written_in_words(small):
    s = replace(small, info=replace(small.info, classes=("golf_ball", "cat")))
    assert [s.name(0), s.name(1)] == ["golf ball", "cat"]
