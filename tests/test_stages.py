"""The numbers of the stages are those of loops over the same images."""

import numpy as np
import pytest

from tinycnn import data, models
from viz import activations, embedding, study
from viz.study.recipes import recipe
from viz.study.stages import deconv, space


@pytest.fixture(scope="module")
def small():
    """A study of 60 training and 40 validation digits; map 3 of conv1 and map 5 of conv2 are dead."""
    info, images, labels, val_images, val_labels, _ = study.load("digits")
    net = models.build("mnist", backend="cpu", seed=1)
    net.params["conv1"]["b"][3] = net.params["conv2"]["b"][5] = -100
    few = (images[:60], labels[:60], val_images[:40], val_labels[:40])
    return study.Study(net, info, *few, None, None, recipe("study", "digits"), {}, 0)


def test_shares_of_the_seven_nearest_are_those_of_a_loop(small):
    _, metrics = space.neighbors(small)
    images = np.concatenate([small.images, small.val_images]).reshape(100, -1).astype(int)
    labels = np.concatenate([small.labels, small.val_labels])
    features = embedding.features(small.net, np.concatenate([small.images, small.val_images]), "relu3")
    hits = {}
    for name, rows in (("pixels", images), ("features (relu3)", features.astype(float))):
        hits[name] = []
        for q in range(60, 100):
            others = sorted((((rows[q] - rows[i]) ** 2).sum(), i) for i in range(100) if i != q)
            hits[name].append(np.mean([labels[i] == labels[q] for _, i in others[:7]]))
        share = metrics["share of the 7 nearest with the query's class"][name]["validation images as queries"]
        assert share == pytest.approx(np.mean(hits[name]), abs=1e-12)
    low, high = metrics["95 % confidence intervals, over queries"]["pixels"]["validation images as queries"]
    assert high - low == pytest.approx(2 * 2.0227 * np.std(hits["pixels"], ddof=1) / np.sqrt(40), rel=1e-4)
    gain = metrics["features less pixels, query by query"]["validation images as queries"]
    assert gain["mean"] == pytest.approx(np.mean(hits["features (relu3)"]) - np.mean(hits["pixels"]), abs=1e-12)
    pairs = [labels[i] == labels[j] for i in range(100) for j in range(100) if i != j]
    assert metrics["by chance"] == pytest.approx(np.mean(pairs))
    assert metrics["queries"]["validation images as queries"] == 40


def test_strongest_maps_are_those_that_win_most_and_never_dead_ones(small):
    pictures, metrics = deconv.strongest_maps(small)
    for conv, relu, dead in (("conv1", "relu1", 3), ("conv2", "relu2", 5)):
        sums = activations.maps(small.net, small.val_images, relu).sum((1, 2), dtype=float)
        counts = np.bincount(sums.argmax(1), minlength=sums.shape[1])
        assert metrics[conv]["how often"].tolist() == sorted(counts[counts > 0], reverse=True)
        assert counts[metrics[conv]["strongest maps, in order"]].tolist() == metrics[conv]["how often"].tolist()
        assert metrics[conv]["its share"] == counts.max() / 40
        (caption,) = (p.caption for p in pictures if p.name == f"{conv}-patches")
        shown = [int(m) for m in caption.removeprefix("Maps ").split(" of ")[0].split(", ")]
        assert len(shown) == deconv.MAPS and dead not in shown
        assert shown[: np.count_nonzero(counts)] == metrics[conv]["strongest maps, in order"].tolist()[: deconv.MAPS]


def test_a_dead_layer_shows_no_patches(small):
    net = models.build("mnist", backend="cpu")
    net.params["conv2"]["b"][...] = -100
    s = study.Study(**vars(small) | {"net": net})
    pictures, metrics = deconv.strongest_maps(s)
    assert [p.name for p in pictures] == ["wins", "conv1-patches"]
    assert metrics["conv2"]["how often"].tolist() == [] and metrics["conv2"]["its share"] == 0


def test_ways_to_unpool_are_compared_over_the_same_images(small):
    from viz import deconvnet

    _, metrics = deconv.unpooling(small)
    assert metrics["images"] == 40 and metrics["layer"] == "conv2"
    scores = {}
    for way, name in deconv.WAYS.items():
        projection, _ = deconvnet.project(small.net, small.val_images, "relu2", unpool=way)
        scores[name] = deconvnet.edge_correlation(projection, small.val_images)
        found = metrics["correlation with the edges"][name]
        assert found["mean"] == pytest.approx(scores[name].mean(), abs=1e-6)
        assert found["low"] < found["mean"] < found["high"]
    gain = metrics["switches less repetition, image by image"]["mean"]
    assert gain == pytest.approx((scores["switches"] - scores["repetition"]).mean(), abs=1e-6)


def test_a_stage_draws_the_same_numbers_whatever_other_stages_there_are(small, monkeypatch):
    first = small.rng("tsne").random()
    monkeypatch.setattr(study, "STAGES", {"tsne": None})
    assert small.rng("tsne").random() == first != small.rng("neighbors").random()


def test_class_names_are_written_in_words(small):
    s = study.Study(**vars(small) | {"info": data.DatasetInfo(**vars(small.info) | {"classes": ("golf_ball", "cat")})})
    assert [s.name(0), s.name(1)] == ["golf ball", "cat"]
