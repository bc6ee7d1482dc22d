"""The numbers of the stages are those of loops over the same images."""

import numpy as np
import pytest

from tinycnn import data, models
from viz import activations, embedding
from viz.study import sets
from viz.study.stages import neighbors, saliency, strongest_maps, unpooling
from viz.study.subject import Study


@pytest.fixture(scope="module")
def small():
    """A study of 60 training and 40 validation digits; map 3 of conv1 and map 5 of conv2 are dead."""
    digits = sets.built_in("digits")
    net = models.build("mnist", backend="cpu", seed=1)
    net.params["conv1"]["b"][3] = net.params["conv2"]["b"][5] = -100
    few = (digits.images[:60], digits.labels[:60], digits.test_images[:40], digits.test_labels[:40])
    return Study(net, digits.info, *few, None, 0)


def test_shares_of_the_seven_nearest_are_those_of_a_loop(small):
    _, metrics = neighbors.run(small)
    images = np.concatenate([small.images, small.test_images]).reshape(100, -1).astype(int)
    labels = np.concatenate([small.labels, small.test_labels])
    features = embedding.features(small.net, np.concatenate([small.images, small.test_images]), "relu3")
    hits = {}
    for name, rows in (("pixels", images), ("features", features.astype(float))):
        hits[name] = []
        for q in range(60, 100):
            others = sorted((((rows[q] - rows[i]) ** 2).sum(), i) for i in range(100) if i != q)
            hits[name].append(np.mean([labels[i] == labels[q] for _, i in others[:7]]))
        share = metrics["share_of_the_7_nearest"][name]["validation"]["mean"]
        assert share == pytest.approx(np.mean(hits[name]), abs=1e-12)
    found = metrics["share_of_the_7_nearest"]["pixels"]["validation"]
    assert found["high"] - found["low"] == pytest.approx(
        2 * 2.0227 * np.std(hits["pixels"], ddof=1) / np.sqrt(40), rel=1e-4
    )
    gain = metrics["features_less_pixels"]["validation"]
    assert gain["mean"] == pytest.approx(np.mean(hits["features"]) - np.mean(hits["pixels"]), abs=1e-12)
    pairs = [labels[i] == labels[j] for i in range(100) for j in range(100) if i != j]
    assert metrics["by_chance"] == pytest.approx(np.mean(pairs))
    assert metrics["queries"]["validation"] == 40


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
    s = Study(**vars(small) | {"net": net})
    pictures, metrics = strongest_maps.run(s)
    assert [p.name for p in pictures] == ["wins", "patches-00-conv1"]
    assert metrics["layers"]["conv2"]["how_often"].tolist() == [] and metrics["layers"]["conv2"]["its_share"] == 0


def test_ways_to_unpool_are_compared_over_the_same_images(small):
    from viz import deconvnet

    _, metrics = unpooling.run(small)
    assert metrics["images"] == 40 and metrics["layer"] == "conv2"
    scores = {}
    for way, name in unpooling.WAYS.items():
        projection, _ = deconvnet.project(small.net, small.test_images, "relu2", unpool=way)
        scores[name] = deconvnet.edge_correlation(projection, small.test_images)
        found = metrics["correlation_with_the_edges"][name]
        assert found["mean"] == pytest.approx(scores[name].mean(), abs=1e-6)
        assert found["low"] < found["mean"] < found["high"]
    gain = metrics["switches_less_repetition"]["mean"]
    assert gain == pytest.approx((scores["switches"] - scores["repetition"]).mean(), abs=1e-6)


def test_a_stage_draws_the_same_numbers_whatever_was_drawn_before(small):
    first = small.rng("tsne").random()
    assert small.rng("neighbors").random() != first == small.rng("tsne").random()


def test_the_pointing_game_is_what_loops_say():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((20, 5, 6)), rng.random((20, 5, 6)) < 0.4
    hits, mass = 0, 0.0
    for m, mask in zip(maps, masks):
        best = max((m[y, x], y, x) for y in range(5) for x in range(6))
        hits += bool(mask[best[1], best[2]])
        mass += sum(m[y, x] for y in range(5) for x in range(6) if mask[y, x]) / m.sum()
    score = saliency.score(maps, masks)
    assert score["pointing_game_hit_rate"] == hits / 20
    assert score["mass_inside_the_object"] == pytest.approx(mass / 20, abs=1e-12)


def test_examples_show_as_many_classes_as_there_are():
    labels = np.array([1, 1, 0, 2, 2, 1, 0, 3])
    assert Study(None, None, None, None, None, labels, None, 0).examples().tolist() == [0, 2, 3, 7, 1, 4]


def test_class_names_are_written_in_words(small):
    s = Study(**vars(small) | {"info": data.DatasetInfo(**vars(small.info) | {"classes": ("golf_ball", "cat")})})
    assert [s.name(0), s.name(1)] == ["golf ball", "cat"]
