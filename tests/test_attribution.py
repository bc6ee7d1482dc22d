"""Every method of attribution: against loops, finite differences and what each must add up to.

Against Captum and zennit: test_attribution_oracle.py.
"""

import inspect
import itertools
import math

import numpy as np
import pytest

from tinycnn import InputError, Network, streams
from tinycnn.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from tinycnn.rules import Rule
from viz import attribution, check, saliency
from viz.attribution import METHODS, cam, conservation, gradients, perturbation, relevance

FEW = {"rise": {"samples": 6}, "shapley_value_sampling": {"permutations": 2}, "integrated_gradients": {"steps": 5}}
FEW |= {name: {"samples": 4} for name in ("smoothgrad", "vargrad", "smoothgrad_sq")}
ONE_CHANNEL = ("grad_cam", "grad_cam_plusplus", "layer_cam", "score_cam", "layer_backprop")


def build(backend="reference", dtype="float64", biases=0.2):
    """Two blocks with overlapping pools, dense layers, dropout; an image that is not square."""
    specs = [
        *(Conv2D("c1", 6, 3), ReLU("r1"), MaxPool2D("p1", 3, 2), Conv2D("c2", 8, 3), ReLU("r2"), MaxPool2D("p2", 3, 2)),
        *(Flatten("f"), Dense("d1", 24), ReLU("r3"), Dropout("drop"), Dense("d2", 4)),
    ]
    net, rng = Network(specs, (9, 12, 2), backend=backend, dtype=dtype), np.random.default_rng(0)
    for p in net.params.values():
        p["b"] = net.ops.asarray(biases * rng.standard_normal(p["b"].shape))
    return net


@pytest.fixture(scope="module")
def net():
    return build()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).random((5, 9, 12, 2))


def numeric(f, x, h=1e-6):
    """Central differences of f(x) by every element of one image x, a point at a time."""
    g = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        g[i] = (f(x + step) - f(x - step)) / (2 * h)
    return g


def error(a, b):
    """The difference, relative in the L2 norm; b may not be empty."""
    a, b = np.asarray(a, np.float64), np.broadcast_to(b, np.shape(a))
    assert np.linalg.norm(b) > 0
    return np.linalg.norm(a - b) / np.linalg.norm(b)


# -- all methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_each_image_has_the_map_that_it_has_alone_whatever_the_batch(net, x, name, monkeypatch):
    options, targets = FEW.get(name, {}), [0, 3, 1, 2, 2]
    maps = METHODS[name](net, x, targets, **options)
    channels = 1 if name in ONE_CHANNEL else 2
    assert maps.shape == (5, 9, 12, channels) and maps.dtype == net.dtype and np.isfinite(maps).all()
    assert np.abs(maps).max() > 0
    alone = [METHODS[name](net, x[n : n + 1], targets[n], **options)[0] for n in range(5)]
    assert error(maps, alone) < 1e-12
    monkeypatch.setattr(check, "FLOATS_PER_BATCH", 2 * sum(map(math.prod, net.shapes.values())))
    assert check.batch_size(net, "d2") == 2  # images, or copies of one
    assert error(METHODS[name](net, x, targets, **options), maps) < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_images_may_be_uint8_or_a_memory_map_and_are_not_written_to(net, name, tmp_path):
    pixels, options = np.random.default_rng(2).integers(0, 256, (3, 9, 12, 2), np.uint8), FEW.get(name, {})
    maps = METHODS[name](net, pixels, 1, **options)
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=pixels.shape)
    mapped[:] = pixels / 255
    mapped.flush()
    readonly = np.memmap(tmp_path / "x", np.float64, "r", shape=pixels.shape)
    assert error(METHODS[name](net, readonly, 1, **options), maps) < 1e-12
    assert (readonly == pixels / 255).all()


@pytest.mark.parametrize("target", [2, np.int64(2), [2, 2, 2], ("d2", 2), ("d2", [2, 2, 2])], ids=repr)
@pytest.mark.parametrize("name", METHODS)
def test_a_class_has_one_map_however_it_is_named(net, x, name, target):
    options = FEW.get(name, {}) | ({"probability": False} if name == "rise" else {})
    assert error(METHODS[name](net, x[:3], target, **options), METHODS[name](net, x[:3], 2, **options)) < 1e-12


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("layer_backprop",)])
def test_any_unit_of_any_layer_may_be_asked_about(net, x, name):
    options = FEW.get(name, {}) | ({"layer": "p1"} if "layer" in inspect.signature(METHODS[name]).parameters else {})
    units = 1, [0, 1, 2], (1, 2), [(0, 1), (1, 2), (2, 0)]
    one, place = (
        METHODS[name](net, x[:3], ("c2", 1), **options),
        METHODS[name](net, x[:3], ("c2", *units[::2]), **options),
    )
    each = METHODS[name](net, x[:3], ("c2", units[1], units[3]), **options)
    assert all(np.isfinite(a).all() and np.abs(a).max() > 0 for a in (one, place, each))
    for n in range(3):
        alone = METHODS[name](net, x[n : n + 1], ("c2", units[1][n], units[3][n]), **options)[0]
        assert np.abs(each[n] - alone).max() <= 1e-12 * np.abs(each).max()


@pytest.mark.parametrize("name", METHODS)
def test_every_backend_gives_the_same_map(name, backend):
    x, options = np.random.default_rng(1).random((2, 9, 12, 2)), FEW.get(name, {})
    net = build(backend)
    expected = METHODS[name](build("reference"), x, 1, **options)
    assert error(METHODS[name](net, x, 1, **options), expected) < 1e-10


@pytest.mark.parametrize("name", METHODS)
def test_float32_is_float64_but_for_rounding(name, x):
    options = FEW.get(name, {})
    maps = METHODS[name](build("cpu", "float32"), x.astype(np.float32), 1, **options)
    assert maps.dtype == np.float32
    assert error(maps, METHODS[name](build(), x, 1, **options)) < 1e-3


WRONG = [
    (4, "4 is not in layer 'd2'"), (-1, "-1 is not in layer"), ([0, 1], "one per image"), (1.5, "expected an integer"),
    ("d2", "expected an"), (("d9", 0), "unknown layer 'd9'"), (("c2", 8), "8 is not in layer 'c2'"),
    (("c2",), "expected .layer, unit."), (("c2", 0, (9, 0)), "rows run from 0 to"), (("d2", 0, (0, 0)), "no maps"),
]  # fmt: skip


@pytest.mark.parametrize("target, message", WRONG, ids=[repr(t) for t, _ in WRONG])
@pytest.mark.parametrize("name", METHODS)
def test_a_target_that_is_not_there_costs_one_line(net, x, name, target, message):
    with pytest.raises(InputError, match=message) as e:
        METHODS[name](net, x[:3], target, **FEW.get(name, {}))
    assert "\n" not in str(e.value)


OPTIONS = {
    "smoothgrad": [{"samples": 0}, {"sigma": -0.1}, {"sigma": np.nan}, {"sigma": "x"}, {"seed": -1}],
    "integrated_gradients": [{"steps": 0}, {"steps": 2.5}, {"baseline": np.nan}, {"baseline": np.zeros((9, 12))}],
    "lrp": [{"composite": "beta"}, {"epsilon": -1}, {"gamma": np.inf}, {"composite": {"d2": "gradient"}}],
    "deeplift": [{"baseline": "black"}, {"baseline": np.zeros((2, 9, 12, 2))}],
    "grad_cam": [{"layer": "d1"}, {"layer": "c9"}],
    "score_cam": [{"layer": "f"}],
    "occlusion": [{"window": 0}, {"window": (3, 13)}, {"stride": 5}, {"window": (2, 2, 2)}, {"baseline": np.inf}],
    "rise": [{"samples": 0}, {"cells": 0}, {"cells": 40}, {"seen": 0}, {"seen": 1.0}, {"seed": 0.5}],
    "shapley_value_sampling": [{"permutations": 0}, {"window": "x"}, {"seed": None}],
    "layer_backprop": [{"layer": "d1"}, {"rule": "lrp"}],
    "excitation_backprop": [{"epsilon": "x"}],
}


@pytest.mark.parametrize("name, wrong", [(k, o) for k, options in OPTIONS.items() for o in options], ids=str)
def test_an_option_that_is_none_costs_one_line(net, x, name, wrong):
    with pytest.raises(InputError, match=next(iter(wrong)) if "composite" not in wrong else "composite"):
        METHODS[name](net, x, 1, **wrong)


def test_images_that_are_none_cost_one_line(net, x):
    for bad in (x[0], x[:, :8], x.astype(int), np.full_like(x, np.nan), x[:0]):
        for method in METHODS.values():
            with pytest.raises(InputError, match=r"^x: "):
                method(net, bad, 1)


def test_the_signature_is_one_and_the_table_holds_every_method():
    for name, method in METHODS.items():
        assert list(inspect.signature(method).parameters)[:3] == ["net", "x", "target"], name
    rooms = gradients, relevance, cam, perturbation
    public = {n for room in rooms for n, f in vars(room).items() if inspect.isfunction(f) and n[0] != "_"
              and list(inspect.signature(f).parameters)[:3] == ["net", "x", "target"]}  # fmt: skip
    assert public == {*METHODS, "conservation"} and attribution.conservation is conservation


# -- gradients -------------------------------------------------------------------------------------------------------


def test_the_gradient_of_any_target_is_that_of_finite_differences(net, x):
    for target in (2, ("r2", 1), ("p1", 3, (1, 2))):
        layer, *rest = target if isinstance(target, tuple) else ("d2", target)
        where = (..., rest[0]) if len(rest) == 1 else (*rest[1], rest[0])
        expected = numeric(lambda a, layer=layer, where=where: net.features(a[None], layer)[0][where].sum(), x[0])
        assert error(gradients.gradient(net, x[:1], target)[0], expected) < 1e-7
    assert error(gradients.input_x_gradient(net, x, 2), x * gradients.gradient(net, x, 2)) < 1e-14


def test_a_way_that_ends_at_a_layer_is_the_gradient_there_and_the_rest_of_it_the_whole(net, x):
    trace = net.forward(x)
    dy = np.random.default_rng(3).standard_normal((5, 4))
    for at in net.layer_names:
        middle = net.backward(trace, dy, to=at)
        assert middle.shape == trace[at].shape
        assert error(net.backward(trace, middle, at=at), net.backward(trace, dy)) < 1e-13
    fast = net.forward(x, work=net.workspace())
    assert error(net.backward(fast, dy, to="p1"), net.backward(trace, dy, to="p1")) < 1e-12
    assert (net.backward(trace, dy, to="d2") == dy).all()
    with pytest.raises(InputError, match="the trace has no layer 'r1'"):
        net.backward(fast, dy, to="r1")  # inside a block
    with pytest.raises(InputError, match="comes after"):
        net.backward(trace, trace["p1"], at="p1", to="c2")
    with pytest.raises(InputError, match="unknown layer"):
        net.backward(trace, dy, to="c9")


def test_noise_is_a_share_of_each_images_range_and_mean_and_variance_are_those_of_loops(net, x):
    x = x * np.array([0.1, 1, 2, 0.5, 0]).reshape(5, 1, 1, 1) + 0.1  # the last one has no range, and no noise
    g = np.array([
        [gradients.gradient(net, (a + 0.3 * np.ptp(a) * gradients.noise(net, k, 7))[None], 1)[0] for k in range(6)]
        for a in x
    ])  # fmt: skip
    options = {"samples": 6, "sigma": 0.3, "seed": 7}
    assert error(gradients.smoothgrad(net, x, 1, **options), g.mean(1)) < 1e-12
    assert error(gradients.vargrad(net, x, 1, **options), g.var(1)) < 1e-12
    assert error(gradients.smoothgrad_sq(net, x, 1, **options), (g**2).mean(1)) < 1e-12
    assert error(gradients.smoothgrad(net, x, 1, sigma=0.0), gradients.gradient(net, x, 1)) < 1e-13


def test_integrated_gradients_are_complete_multiply_by_the_change_and_the_gap_falls_with_the_steps(net, x):
    """tf-explain never multiplies by x - x0, and the gap of some grows with the steps (FINDINGS: theirs)."""
    x0, gaps = np.random.default_rng(4).random((5, 9, 12, 2)), []
    change = net.logits(x)[:, 1] - net.logits(x0)[:, 1]
    for steps in (2, 8, 32, 128, 512):
        maps, delta = gradients.integrated_gradients(net, x, 1, steps, x0, return_convergence_delta=True)
        assert error(delta, maps.sum((1, 2, 3)) - change) < 1e-9
        gaps.append(np.abs(delta).mean() / np.abs(change).mean())
    assert gaps[-1] < 1e-2 and gaps[-1] < gaps[-2] < gaps[-3] < gaps[0]
    still = x0.copy()
    still[:, :, 5] = x[:, :, 5]
    assert (gradients.integrated_gradients(net, x, 1, 4, still)[:, :, 5] == 0).all()
    t, w = (0.5 - 15**0.5 / 10, 0.5, 0.5 + 15**0.5 / 10), (5 / 18, 8 / 18, 5 / 18)  # three points, by hand
    expected = sum(w * gradients.gradient(net, x0 + t * (x - x0), 1) for t, w in zip(t, w)) * (x - x0)
    assert error(gradients.integrated_gradients(net, x, 1, 3, x0), expected) < 1e-12


def test_a_baseline_may_be_a_number_an_image_or_one_for_each(net, x):
    one = (np.full((9, 12, 2), 51, np.uint8), np.full((9, 12, 2), 0.2), np.full((5, 9, 12, 2), 0.2))
    for name in ("integrated_gradients", "deeplift", "occlusion", "rise", "shapley_value_sampling"):
        expected = METHODS[name](net, x, 1, baseline=0.2, **FEW.get(name, {}))
        assert all(error(METHODS[name](net, x, 1, baseline=b, **FEW.get(name, {})), expected) < 1e-12 for b in one)


def test_layer_backprop_is_the_studys(net, x):
    assert (gradients.layer_backprop(net, x, 1)[..., 0] == saliency.layer_backprop(net, x, "p2")).all()
    assert (gradients.layer_backprop(net, x, layer="r2")[..., 0] == saliency.layer_backprop(net, x, "r2")).all()
    with pytest.raises(InputError, match="has no maps"):
        gradients.layer_backprop(Network([Flatten("f"), Dense("d", 3)], (2, 2, 1)), np.zeros((1, 2, 2, 1)))


# -- relevance -------------------------------------------------------------------------------------------------------


def naive_rule(rule, x, w, b, R, epsilon, gamma):
    """One dense layer's relevance, a product at a time, from the formulas of the papers."""
    found = np.zeros(len(x))
    for k in range(len(b)):
        if rule == "alpha2_beta1":
            z = [x[i] * w[i, k] for i in range(len(x))]
            above, below = sum(v for v in [*z, b[k]] if v > 0) + epsilon, sum(v for v in [*z, b[k]] if v < 0) - epsilon
            shares = [2 * max(v, 0) / above - min(v, 0) / below for v in z]
        else:
            value = {
                "epsilon": x * w[:, k], "gamma": x * (w[:, k] + gamma * (w[:, k] > 0) * w[:, k]), "flat": 0 * x + 1,
                "w_square": w[:, k] ** 2, "z_box": x * w[:, k] - (w[:, k] < 0) * w[:, k],
                "excitation": x * (w[:, k] > 0) * w[:, k],
            }[rule]  # fmt: skip
            bias = {"epsilon": b[k], "gamma": b[k] + gamma * max(b[k], 0)}.get(rule, 0)
            z = sum(value) + bias
            shares = [v / (z + (epsilon if z >= 0 else -epsilon)) for v in value]
        for i, share in enumerate(shares):
            found[i] += share * R[k]
    return found


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha2_beta1", "flat", "w_square", "z_box", "excitation"])
def test_each_rule_is_its_formula_term_by_term(rule):
    net, rng = (
        Network([Flatten("f"), Dense("d1", 12), ReLU("r"), Dense("d2", 3)], (2, 3, 1), dtype="float64"),
        np.random.default_rng(0),
    )
    for p in net.params.values():
        p["b"][...] = 0.3 * rng.standard_normal(p["b"].shape)
    x, p = rng.random((4, 2, 3, 1)), net.params
    found = relevance.lrp(net, x, 1, relevance.composite(rule, rule, rule, epsilon=0.01, gamma=0.5))
    trace = net.forward(x)
    for n in range(4):
        R = np.array([0, trace["d2"][n, 1], 0])
        R = naive_rule(rule, trace["r"][n], p["d2"]["w"], p["d2"]["b"], R, 0.01, 0.5)
        R = naive_rule(rule, trace["f"][n], p["d1"]["w"], p["d1"]["b"], R, 0.01, 0.5)
        assert error(found[n].ravel(), R) < 1e-12


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("name", relevance.COMPOSITES)
def test_relevance_and_what_was_kept_add_up_to_the_score_after_every_layer(net, x, name, epsilon):
    """Biases counted once, empty denominators too: alpha-beta does not conserve in innvestigate 116, 327, zennit 53."""
    x = x * (np.random.default_rng(5).random(x.shape) < 0.3)  # black pixels: units without inputs
    x[0] = 0
    for target in (1, ("c2", 2), ("r1", 3, (4, 5))):
        account = conservation(net, x, target, name, epsilon)
        kept = (account.bias + account.epsilon + account.empty).sum(0)
        y = check.scores(net, x, check.target_for(net, target, len(x)))
        some = account.magnitude.max(0) > 0
        assert some.sum() >= 3
        gap = np.abs(account.relevance[-1] + kept - y)[some] / account.magnitude.max(0)[some]
        assert gap.max() < 1e-10 and account.error[:, some].max() < 1e-10
        maps = relevance.lrp(net, x, target, name, epsilon)
        assert np.abs(maps.sum((1, 2, 3)) - account.relevance[-1]).max() < 1e-12 * account.magnitude.max()
        assert account.layers == tuple(reversed(net.layer_names[: net.layer_names.index(account.layers[0]) + 1]))
    linear = np.array([layer in net.params for layer in account.layers])
    assert (np.stack([account.bias, account.epsilon, account.empty])[:, ~linear] == 0).all()


def test_the_account_names_who_took_what():
    """By hand, one unit: z = 2 - 1 + 3 = 4, then a unit without positive inputs under alpha 2, beta 1."""
    net = Network([Flatten("f"), Dense("d", 1)], (1, 2, 1), dtype="float64")
    net.params["d"]["w"][...], net.params["d"]["b"][...] = [[2], [-1]], 3
    x = np.ones((1, 1, 2, 1))
    account = conservation(net, x, 0, "epsilon", epsilon=1)
    assert account.layers == ("d", "f")
    assert np.allclose(account.relevance[:, 0], [4, 0.8, 0.8]) and np.allclose(account.magnitude[:, 0], [4, 2.4, 2.4])
    assert np.allclose([account.bias[0, 0], account.epsilon[0, 0], account.empty[0, 0]], [2.4, 0.8, 0])
    net.params["d"]["w"][...], net.params["d"]["b"][...] = [[-2], [-1]], 0
    account = conservation(net, x, 0, "alpha2_beta1", epsilon=0)
    assert np.allclose(account.relevance[:, 0], [-3, 3, 3]) and account.empty[0, 0] == -6  # alpha's share found nobody


def test_relevance_sums_to_the_logit_where_biases_are_0(x):
    net = build(biases=0)
    maps = relevance.lrp(net, x, [0, 1, 2, 3, 0], "alpha1_beta0", epsilon=1e-12)
    logits = net.logits(x)[np.arange(5), [0, 1, 2, 3, 0]]
    account = conservation(net, x, [0, 1, 2, 3, 0], "alpha1_beta0", epsilon=1e-12)
    found = np.abs(account.empty).sum(0) == 0  # a unit without positive inputs has nobody to give to
    assert found.sum() >= 3 and error(maps.sum((1, 2, 3))[found], logits[found]) < 1e-9
    for name in ("epsilon", "gamma"):
        assert error(relevance.lrp(net, x, 1, name, epsilon=0).sum((1, 2, 3)), net.logits(x)[:, 1]) < 1e-9
    assert error(relevance.lrp(net, x, 1, epsilon=0), gradients.input_x_gradient(net, x, 1)) < 1e-9  # known: the same


def test_a_composite_is_a_name_a_function_or_a_mapping(net, x):
    expected = relevance.lrp(net, x, 1, "epsilon_plus_flat", epsilon=0.01)
    made = relevance.composite("flat", "alpha1_beta0", "epsilon", epsilon=0.01)
    assert (relevance.lrp(net, x, 1, made) == expected).all()
    rules = made(net)
    assert list(rules) == net.layer_names and all(isinstance(rule, Rule) for rule in rules.values())
    linear = {name: rules[name] for name in net.params}  # what is not named hands on
    assert (relevance.lrp(net, x, 1, linear) == expected).all()
    with pytest.raises(InputError, match="composite: layer 'c1' has no rule"):
        relevance.lrp(net, x, 1, {name: rules[name] for name in ("c2", "d1", "d2")})
    with pytest.raises(InputError, match="unknown layer 'c9'"):
        relevance.lrp(net, x, 1, {**linear, "c9": Rule()})
    foreign = {**linear, "d1": Rule(linear=lambda ops, layer, p, cache, R: R @ p["w"].T)}
    assert np.isfinite(relevance.lrp(net, x, 1, foreign)).all()
    with pytest.raises(InputError, match="'d1' is no Split"):
        conservation(net, x, 1, foreign)
    with pytest.raises(InputError, match="unknown rule 'beta'"):
        relevance.composite("beta", "flat", "flat")


def test_excitation_backprop_gives_probabilities(x):
    """Where every unit has positive inputs they add up to 1."""
    net = build(biases=0)
    for p in net.params.values():
        p["w"][...] = np.abs(p["w"])
    maps = relevance.excitation_backprop(net, x, 2)
    assert (maps >= 0).all() and np.abs(maps.sum((1, 2, 3)) - 1).max() < 1e-12


def test_deeplift_loses_nothing_where_pools_overlap_and_images_do_not_touch_each_other(net, x):
    """Captum's unpooling assigns, and its first image contaminates the batch (its issue 1276)."""
    x0 = np.random.default_rng(6).random(x.shape)
    for target in (1, ("p2", 2), ("r2", 1, (2, 3))):
        asked = check.target_for(net, target, 5)
        change = check.scores(net, x, asked) - check.scores(net, x0, asked)
        maps = relevance.deeplift(net, x, target, x0)
        assert np.abs(maps.sum((1, 2, 3)) - change).max() < 1e-12 * np.abs(maps).sum((1, 2, 3)).max()
    alone = [relevance.deeplift(net, x[n : n + 1], 1, x0[n])[0] for n in range(5)]
    assert error(relevance.deeplift(net, x, 1, x0), alone) < 1e-13
    assert (relevance.deeplift(net, x, 1, x) == 0).all()


def test_deeplift_by_hand():
    """y = relu(2 a - b): from (0, 1) to (1, 0) the ReLU's input goes from -1 to 2, its output from 0 to 2."""
    net = Network([Flatten("f"), Dense("d1", 1), ReLU("r"), Dense("d2", 1)], (1, 2, 1), dtype="float64")
    net.params["d1"]["w"][...], net.params["d2"]["w"][...] = [[2], [-1]], [[3]]
    maps = relevance.deeplift(net, np.array([1.0, 0]).reshape(1, 1, 2, 1), 0, np.array([0.0, 1]).reshape(1, 2, 1))
    assert np.allclose(maps.ravel(), [3 * 2 / 3 * 2, 3 * 2 / 3 * 1])


# -- class activation maps -------------------------------------------------------------------------------------------


def head(net, A, layer, unit):
    """The logit of one image as a function of the layer's maps A, by the primitives above it."""
    y = A[None]
    for spec in net.layers[net.layer_names.index(layer) + 1 :]:
        y = spec.forward(net.ops, net.params.get(spec.name), y)[0]
    return y[0, unit]


def test_grad_cam_plusplus_is_its_definition_with_derivatives_by_finite_differences(net, x):
    """alpha = Y'' / (2 Y'' + sum(A) Y'''), w = sum(alpha relu(Y')), Y = exp(S), one activation at a time."""
    found = 0
    for n, unit in itertools.product(range(5), range(4)):
        A, h = net.forward(x[n : n + 1])["p2"][0].copy(), 5e-3
        Y, weights = {}, np.zeros(A.shape[-1])
        for r, c, k in np.ndindex(A.shape):
            for step in (-2, -1, 0, 1, 2):
                moved = A.copy()
                moved[r, c, k] += step * h
                Y[step] = np.exp(head(net, moved, "p2", unit))
            first, second = (Y[1] - Y[-1]) / (2 * h), (Y[1] - 2 * Y[0] + Y[-1]) / h**2
            third = (Y[2] - 2 * Y[1] + 2 * Y[-1] - Y[-2]) / (2 * h**3)
            below = 2 * second + A[..., k].sum() * third
            if first > 1e-6:
                weights[k] += second / below * first
        expected = check.enlarge(np.maximum((weights * A).sum(-1), 0)[None], (9, 12))[0] / Y[0]
        ours = cam.grad_cam_plusplus(net, x[n : n + 1], unit)[0, ..., 0]
        if np.linalg.norm(expected):
            found += 1
            assert error(ours, expected) < 1e-4
    assert found > 5


def test_grad_cam_and_layer_cam_are_their_sums_by_loops(net, x):
    for layer in ("p2", "c1"):
        for n in range(3):
            A = net.forward(x[n : n + 1])[layer][0]
            g = numeric(lambda a, layer=layer: head(net, a, layer, 0), A)
            for method, weights in ((cam.grad_cam, g.mean((0, 1))), (cam.layer_cam, np.maximum(g, 0))):
                expected = check.enlarge(np.maximum((weights * A).sum(-1), 0)[None], (9, 12))[0]
                found = method(net, x[n : n + 1], 0, layer)[0, ..., 0]
                assert np.abs(found - expected).max() < 1e-6 * max(1, np.abs(expected).max())
    product = gradients.guided_backprop(net, x, 0) * cam.grad_cam(net, x, 0)
    assert (cam.guided_grad_cam(net, x, 0) == product).all()


def test_enlarging_is_bilinear_keeps_rows_and_columns_and_constants():
    """Height and width are not exchanged (as in pytorch-grad-cam 51, 452)."""
    maps = np.random.default_rng(0).random((2, 3, 5))
    assert (check.enlarge(maps, (3, 5)) == maps).all()
    large = check.enlarge(maps, (9, 20))
    assert large.shape == (2, 9, 20)
    for r, c in np.ndindex(9, 20):
        v, h = min(max((r + 0.5) / 3 - 0.5, 0), 2), min(max((c + 0.5) / 4 - 0.5, 0), 4)
        i, j = min(int(v), 1), min(int(h), 3)
        a, b = v - i, h - j
        expected = (1 - a) * ((1 - b) * maps[:, i, j] + b * maps[:, i, j + 1])
        expected = expected + a * ((1 - b) * maps[:, i + 1, j] + b * maps[:, i + 1, j + 1])
        assert np.abs(large[:, r, c] - expected).max() < 1e-14
    assert np.allclose(check.enlarge(np.ones((1, 2, 2)), (7, 5)), 1)


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_plusplus", "layer_cam", "score_cam", "guided_grad_cam"])
def test_dead_maps_give_zeros_and_not_nan(name, x):
    """torch-cam 186, 208."""
    net = build()
    net.params["c2"]["b"][...] = -100
    with np.errstate(all="raise"):
        assert (METHODS[name](net, x, 1) == 0).all()
    with pytest.raises(InputError, match="has no maps"):
        METHODS[name](Network([Flatten("f"), Dense("d", 3)], (9, 12, 2)), x, 1)


def test_a_cam_of_a_layer_after_the_target_is_refused(net, x):
    with pytest.raises(InputError, match="'p2' comes after the target's, 'r1'"):
        cam.grad_cam(net, x, ("r1", 0))


def test_score_cam_by_loops(net, x):
    for n in range(2):
        A = net.forward(x[n : n + 1])["p2"][0]
        S = []
        for k in range(A.shape[-1]):
            mask = check.enlarge(A[None, ..., k], (9, 12))[0]
            if mask.max() > mask.min():
                mask = (mask - mask.min()) / (mask.max() - mask.min())
            else:
                mask = 0 * mask
            S.append(net.logits((mask[..., None] * x[n])[None])[0, 3])
        weights = np.exp(S) / np.exp(S).sum()
        expected = check.enlarge(np.maximum((weights * A).sum(-1), 0)[None], (9, 12))[0]
        assert error(cam.score_cam(net, x[n : n + 1], 3)[0, ..., 0], expected) < 1e-12


# -- perturbation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window, stride", [(4, 4), ((4, 3), (2, 3)), (5, 2), ((9, 12), 1)])
def test_occlusion_by_loops(net, x, window, stride):
    (h, w), (sh, sw) = (v if isinstance(v, tuple) else (v, v) for v in (window, stride))
    for n in range(2):
        total, count, S = np.zeros((9, 12)), np.zeros((9, 12)), net.logits(x[n : n + 1])[0, 1]
        top = 0
        while True:
            left = 0
            while True:
                hidden = x[n].copy()
                hidden[top : top + h, left : left + w] = 0.25
                total[top : top + h, left : left + w] += S - net.logits(hidden[None])[0, 1]
                count[top : top + h, left : left + w] += 1
                if left + w >= 12:
                    break
                left += sw
            if top + h >= 9:
                break
            top += sh
        found = perturbation.occlusion(net, x[n : n + 1], 1, window, stride, 0.25)[0]
        assert error(found, (total / count)[..., None]) < 1e-12


def test_rise_by_loops_and_its_masks(net, x):
    masks = [perturbation.rise_mask((9, 12), 3, 0.4, 9, j) for j in range(300)]
    assert min(m.min() for m in masks) >= 0 and max(m.max() for m in masks) <= 1
    mean = np.mean(masks, 0)
    assert abs(mean.mean() - 0.4) < 0.03 and np.abs(mean - 0.4).max() < 0.12  # four standard errors
    for probability in (False, True):
        expected = np.zeros((9, 12))
        for m in masks[:20]:
            y = net.logits((m[..., None] * x[0])[None])[0]
            expected += (np.exp(y[2]) / np.exp(y).sum() if probability else y[2]) * m / (20 * 0.4)
        found = perturbation.rise(net, x[:1], 2, 20, 3, 0.4, 9, probability=probability)
        assert error(found[0], expected[..., None]) < 1e-12


def test_shapley_values_are_shapleys_in_the_mean_over_all_orders(net, x, monkeypatch):
    """Four cells, all 24 orders, against the formula over all subsets of the others."""
    orders = list(itertools.permutations(range(4)))
    monkeypatch.setattr(perturbation, "shapley_order", lambda cells, seed, q: np.array(orders[q]))
    found = perturbation.shapley_value_sampling(net, x[:1], 1, 24, (5, 6), baseline=0.3)[0]
    cells = [(slice(r, r + 5), slice(c, c + 6)) for r in (0, 5) for c in (0, 6)]

    def value(players):
        image = np.full((9, 12, 2), 0.3)
        for i in players:
            image[cells[i]] = x[0][cells[i]]
        return net.logits(image[None])[0, 1]

    weight = (1 / 4, 1 / 12, 1 / 12, 1 / 4)  # |S|! (3 - |S|)! / 4!
    for i in range(4):
        others = [j for j in range(4) if j != i]
        phi = sum(
            weight[size] * (value((*s, i)) - value(s))
            for size in range(4)
            for s in itertools.combinations(others, size)
        )
        assert np.abs(found[cells[i]] - phi / found[cells[i]].size).max() < 1e-13


def test_sampled_shapley_values_add_up_and_are_exact_for_a_linear_network(net, x):
    maps = perturbation.shapley_value_sampling(net, x, 1, 3, 4, baseline=0.3)
    change = net.logits(x)[:, 1] - net.logits(np.full_like(x, 0.3))[:, 1]
    assert error(maps.sum((1, 2, 3)), change) < 1e-10
    linear = Network([Flatten("f"), Dense("d", 3)], (9, 12, 2), dtype="float64")
    maps, g = perturbation.shapley_value_sampling(linear, x, 1, 2, 1), gradients.input_x_gradient(linear, x, 1)
    assert error(maps[..., 0], g.mean(-1)) < 1e-10
    orders = [tuple(perturbation.shapley_order(4, 0, q)) for q in range(400)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and counts.max() < 40  # uniform: 17 each, with a deviation of 4


def test_what_is_drawn_depends_on_the_seed_alone(net, x):
    for name in ("smoothgrad", "rise", "shapley_value_sampling"):
        once, again, other = (METHODS[name](net, x, 1, seed=seed, **FEW[name]) for seed in (1, 1, 2))
        assert (once == again).all() and error(once, other) > 1e-3
    assert not np.allclose(gradients.noise(net, 0), streams.rng(0, "smoothgrad", 1).standard_normal(net.input_shape))


@pytest.mark.parametrize("name", METHODS)
def test_progress_is_shown_on_request_alone(net, x, name, capfd):
    if "progress" in inspect.signature(METHODS[name]).parameters:
        METHODS[name](net, x, 1, **FEW.get(name, {}))
        assert not capfd.readouterr().err
        METHODS[name](net, x, 1, progress=True, **FEW.get(name, {}))
        assert "it/s" in capfd.readouterr().err
