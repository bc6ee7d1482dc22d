"""One table of rules: whoever goes back by a rule, and on whichever path, computes what the layers one by one do."""

import numpy as np
import pytest

from tinycnn import InputError, Network, rules
from tinycnn.gradcheck import relative_error
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from tinycnn.rules import Rule
from viz import deconvnet, saliency

TOLERANCE = 1e-11  # float64: what a different order of the sums leaves


def by_input(ops, layer, p, cache, dy):
    """A rule of its own: half of what arrives, signed as the ReLU's input, plus what it let through."""
    x, y = ops.to_numpy(cache.x), ops.to_numpy(cache.y)
    return ops.asarray(ops.to_numpy(dy) * (0.5 * np.sign(x) + y))


def times_input(ops, layer, p, cache, dy):
    """A rule of its own for convolutions and dense layers: the adjoint, times the input."""
    return ops.multiply(layer.backward(ops, p, cache, dy, rules.RULES["gradient"]), cache.x)


def repeated(ops, layer, p, cache, dy):
    """A rule of its own for pools, made of the primitives."""
    return ops.unpool2d(dy, cache.kept, cache.x.shape, layer.window, layer.stride, layer.padding, "repeat")


NEW = {
    "times input": Rule(mask=False, rectify=True, linear=times_input),
    "repeated by a function": Rule(pool=repeated),
    "all its own": Rule(relu=by_input, pool=repeated, linear=times_input),
    "by input": Rule(relu=by_input),
    "by input, repeated": Rule(relu=by_input, unpool="repeat"),
    "repeated": Rule(mask=True, rectify=True, unpool="repeat"),
    "centred": Rule(mask=False, rectify=True, unpool="center"),
    "linear": Rule(mask=False, rectify=False),
}


@pytest.fixture(params=NEW)
def rule(request, monkeypatch):
    """The name of a rule that is new in the table."""
    monkeypatch.setitem(rules.RULES, request.param, NEW[request.param])
    return request.param


def net_of(backend):
    """A block with an overlapping pool, one without a pool, dense layers; biases of both signs."""
    specs = [
        *(Conv2D("c1", 4, 3), ReLU("r1"), MaxPool2D("p1", 3, 2), Conv2D("c2", 5, 3), ReLU("r2")),
        *(Flatten("f"), Dense("d1", 7), ReLU("r3"), Dense("d2", 6)),
    ]
    net, rng = Network(specs, (9, 8, 2), backend=backend, dtype="float64"), np.random.default_rng(0)
    for p in net.params.values():
        p["b"][...] = net.ops.asarray(0.1 * rng.standard_normal(p["b"].shape))
    return net


def by_hand(net, x, dy, at, of):
    """The way back in NumPy, from the outputs and switches of the reference's layers alone: no rule is asked."""
    reference = Network(net.layers, net.input_shape, backend="reference", dtype="float64")
    for layer, p in net.params.items():
        for k, a in p.items():
            reference.params[layer][k][...] = net.ops.to_numpy(a)
    ops, trace = reference.ops, reference.forward(x)
    names = reference.layer_names
    for i in range(names.index(at), -1, -1):
        layer, w = reference.layers[i], reference.params.get(names[i], {}).get("w")
        before = trace[names[i - 1]] if i else trace.x
        rule = of.get(names[i], rules.RULES["gradient"]) if isinstance(of, dict) else of
        if isinstance(layer, ReLU):
            if rule.relu:
                dy = dy * (0.5 * np.sign(before) + np.maximum(before, 0))
            else:
                dy = dy * (before > 0 if rule.mask else 1) * (dy > 0 if rule.rectify else 1)
        elif isinstance(layer, MaxPool2D):
            switches = trace.caches[names[i]].kept
            how = "repeat" if rule.pool else rule.unpool
            dy = ops.unpool2d(dy, switches, before.shape, layer.window, layer.stride, layer.padding, how)
        elif isinstance(layer, Conv2D):
            dy = ops.conv2d_backward_data(dy, w, before.shape, layer.stride, layer.padding)
        else:
            dy = dy @ w.T if isinstance(layer, Dense) else dy.reshape(before.shape)
        if w is not None and rule.linear:
            dy = dy * before
    return dy


@pytest.mark.parametrize("at", ["d2", "r2", "c2", "p1", "r1"])
def test_a_new_rule_goes_back_as_by_hand_from_every_caller(backend, rule, at):
    net, rng = net_of(backend), np.random.default_rng(1)
    x, of = rng.random((3, *net.input_shape)), NEW[rule]
    trace, fast = net.forward(x, upto=at), net.forward(x, upto=at, work=net.workspace())
    dy = rng.standard_normal((3, *net.shapes[at]))
    expected = by_hand(net, x, dy, at, of)
    assert np.abs(expected).max() > 0
    for taken in (trace, fast):
        for given in (rule, of):
            assert relative_error(net.backward(taken, dy, rule=given), expected) < TOLERANCE
        other = net.backward(taken, dy, rule=rule, unpool="center")
        assert relative_error(other, by_hand(net, x, dy, at, rules.get_rule(of, "center"))) < TOLERANCE
    units = np.eye(net.shapes[at][-1])
    each = [by_hand(net, x, np.broadcast_to(one, trace[at].shape), at, of) for one in units]
    largest = np.abs(each).max((0, -1))
    assert relative_error(net.backward_each(fast, rule=rule), largest) < TOLERANCE
    assert relative_error(net.backward_each(fast, rule=of), largest) < TOLERANCE

    of_unit_1 = by_hand(net, x, units[1] * trace[at], at, of)
    assert relative_error(deconvnet.project(net, x, at, units=1, rule=rule)[0], of_unit_1) < TOLERANCE
    if at == "d2":
        assert relative_error(saliency.gradient(net, x, 1, rule=rule), each[1]) < TOLERANCE
        assert relative_error(saliency.saliency(net, x, rule=of), largest) < TOLERANCE
        assert relative_error(saliency.saliency(net, x, 1, rule=rule), np.abs(each[1]).max(-1)) < TOLERANCE
    else:
        assert relative_error(saliency.layer_backprop(net, x, at, rule=rule), largest) < TOLERANCE


def test_a_rule_keeps_its_own_way_of_unpooling_unless_another_is_asked_for():
    repeat = Rule(unpool="repeat")
    assert rules.get_rule(repeat) is repeat and rules.get_rule("guided") is rules.RULES["guided"]
    assert rules.get_rule(repeat, "center").unpool == "center"


def test_an_unknown_rule_is_refused_with_those_of_the_table(rule):
    with pytest.raises(InputError, match=f"unknown rule 'lrp'; choose one of: gradient, deconvnet, guided, {rule}"):
        rules.get_rule("lrp")


def test_a_mapping_gives_each_layer_a_rule_of_its_own(backend):
    net, x = net_of(backend), np.random.default_rng(2).random((3, 9, 8, 2))
    dy = np.random.default_rng(3).standard_normal((3, 6))
    taken = {"r1": "deconvnet", "r3": Rule(mask=False, rectify=False), "p1": Rule(unpool="center")}

    expected = by_hand(net, x, dy, "d2", {layer: rules.get_rule(rule) for layer, rule in taken.items()})
    for trace in (net.forward(x), net.forward(x, work=net.workspace())):
        assert relative_error(net.backward(trace, dy, rule=taken), expected) < TOLERANCE
        assert relative_error(net.backward(trace, dy, rule={}), net.backward(trace, dy)) == 0
    of_unit_2 = by_hand(net, x, np.eye(6)[[2, 2, 2]], "d2", {k: rules.get_rule(rule) for k, rule in taken.items()})
    assert relative_error(saliency.gradient(net, x, 2, rule=taken), of_unit_2) < TOLERANCE
    seed = np.eye(6)[2] * trace["d2"]
    projected = by_hand(net, x, seed, "d2", {k: rules.get_rule(rule) for k, rule in taken.items()})
    assert relative_error(deconvnet.project(net, x, "d2", units=2, rule=taken)[0], projected) < TOLERANCE
    with pytest.raises(InputError, match="unknown layer 'conv9'"):
        net.backward(trace, dy, rule={"conv9": "guided"})
    with pytest.raises(InputError, match="unknown rule 'lrp'"):
        net.backward(trace, dy, rule={"r1": "lrp"})
