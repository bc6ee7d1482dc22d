"""Ties of pools and ReLUs: counted by loops, and every method on a copy whose ties go another way."""

import numpy as np
import pytest

from tinycnn import InputError, Network
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from viz.attribution import METHODS, gradients, ties

FEW = {"rise": {"samples": 4}, "shapley_value_sampling": {"permutations": 1}, "integrated_gradients": {"steps": 3}}


def build(backend="cpu", padding="SAME"):
    specs = [
        *(Conv2D("c1", 6, 3), ReLU("r1"), MaxPool2D("p1", 3, 2, padding), Conv2D("c2", 8, 3), ReLU("r2")),
        *(MaxPool2D("p2", 2, 2), Flatten("f"), Dense("d1", 16), ReLU("r3"), Dense("d2", 4)),
    ]
    net, rng = Network(specs, (10, 13, 2), backend=backend, dtype="float64"), np.random.default_rng(0)
    for layer, p in net.params.items():
        p["b"] = net.ops.asarray(0.2 * rng.standard_normal(p["b"].shape) * (layer != "c2"))
    return net


@pytest.fixture
def x():
    """Black below: there positive values tie as well; the last image is all black."""
    x = np.random.default_rng(1).random((3, 10, 13, 2))
    x[:, 5:], x[2] = 0, 0
    return x


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (2, 1))])
def test_ties_are_counted_as_by_loops(x, padding):
    net = build(padding=padding)
    found, trace = ties.shares(net, x), net.forward(x)
    assert list(found) == ["r1", "p1", "r2", "p2", "r3"]
    for n in range(3):
        assert (
            found["r2"].tied[n] == (trace["c2"][n] == 0).mean()
            and (found["r1"].tied == (trace["c1"] == 0).mean()).all()
        )
        a, (top, left) = trace["r1"][n], {"SAME": (0, 1), "VALID": (0, 0)}.get(padding, (1, 2))
        tied = []
        for r, c, k in np.ndindex(trace["p1"].shape[1:]):
            inside = [
                a[h, v, k]
                for h in range(2 * r - top, 2 * r - top + 3)
                for v in range(2 * c - left, 2 * c - left + 3)
                if 0 <= h < 10 and 0 <= v < 13
            ]
            tied.append((inside.count(max(inside)) > 1, max(inside) == 0))
        tied = np.array(tied)
        assert found["p1"].tied[n] == tied[:, 0].mean() > 0
        assert found["p1"].at_zero[n] == tied.all(1).mean()
    assert found["p1"].tied[0] > found["p1"].at_zero[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_copy_whose_ties_go_to_the_first_is_the_network(x, name, backend):
    net, options = build(backend), FEW.get(name, {})
    change = ties.moved(net, x[:2], 1, METHODS[name], "first", **options)
    assert (change[np.isfinite(change)] < 1e-12).all() and not np.isinf(change).any()


def test_last_and_shared_by_hand():
    """One window, a tie of three: all of the signal goes to the last of them, or a third to each."""
    net = Network([MaxPool2D("p", 2, 2), Flatten("f"), Dense("d", 1)], (2, 2, 1), dtype="float64")
    net.params["d"]["w"][...] = 6
    x = np.array([[5.0, 5], [1, 5]]).reshape(1, 2, 2, 1)
    for way, expected in (("first", [6, 0, 0, 0]), ("last", [0, 0, 0, 6]), ("shared", [2, 2, 0, 2])):
        assert (gradients.gradient(ties.resolved(net, way), x, 0).ravel() == expected).all()
    assert np.isclose(ties.moved(net, x, 0, gradients.gradient, "last")[0], 2**0.5)
    relu = Network([Flatten("f"), Dense("d1", 1), ReLU("r"), Dense("d2", 1)], (1, 1, 1), dtype="float64")
    relu.params["d1"]["w"][...], relu.params["d2"]["w"][...] = 2, 3
    for way, expected in (("first", 0), ("last", 6), ("shared", 3)):
        found = gradients.gradient(ties.resolved(relu, way), np.zeros((1, 1, 1, 1)), 0)
        assert found.item() == expected


@pytest.mark.parametrize("way", ["last", "shared"])
def test_dead_windows_move_deconvnets_and_nothing_that_a_relu_masks(way):
    """Bright noise: maxima tie at 0 alone, and no ReLU's input is 0."""
    net, x = build(), np.random.default_rng(2).random((4, 10, 13, 2))
    net.params["c2"]["b"] = net.ops.asarray(np.full(8, -0.1))
    found = ties.shares(net, x)
    assert (found["p2"].tied == found["p2"].at_zero).all() and found["p2"].tied.min() > 0.05
    for name in ("gradient", "lrp", "integrated_gradients", "grad_cam"):
        change = ties.moved(net, x, [0, 1, 2, 3], METHODS[name], way)
        assert (change[np.isfinite(change)] < 1e-12).all() and np.isfinite(change).any(), name
    assert ties.moved(net, x, [0, 1, 2, 3], METHODS["deconvnet"], way).min() > 0.05


def test_shared_relevance_is_conserved(x):
    net = ties.resolved(build(), "shared")
    maps = METHODS["deeplift"](net, x[:2], 1)
    change = net.logits(x[:2])[:, 1] - net.logits(0 * x[:2])[:, 1]
    assert np.abs(maps.sum((1, 2, 3)) - change).max() < 1e-12


def test_an_unknown_way_is_refused(x):
    with pytest.raises(InputError, match="unknown way 'middle'; choose one of: first, last, shared"):
        ties.resolved(build(), "middle")
