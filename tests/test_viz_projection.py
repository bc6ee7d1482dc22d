"""Deconvnet, guided backprop, saliency and gradients equal Captum's on a PyTorch copy; activations are what they say.

The convolutions of the float32 cases are exact: weights and pixels are multiples of powers of two, so few that no sum
rounds. Hence ties in a pool's window are true ties in both libraries, where rounding in different orders would
break them by chance and send a signal to another pixel. Black areas and biases of both signs make windows that are
dead and windows that tie.
"""

import functools

import numpy as np
import pytest

from tinycnn import InputError, Network, available, layers, models
from viz import activations, check, deconvnet, saliency

# Relative to the largest value: what a different order of the sums in the dense layers leaves.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
LAYERS = ("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "fc1", "relu3")


def make_images(shape, N):
    """Multiples of 1 / 8; the first half black, the second all black."""
    x = np.random.default_rng(1).integers(0, 9, (N, *shape)) / 8
    x[:, : shape[0] // 2] = 0
    x[1:] = 0
    return x


@functools.cache
def weights(name, trained):
    """Parameters, {layer: {name: array}}: multiples of 1 / 128 in the convolutions."""
    net = models.build(name, backend="cpu", seed=3, dtype="float32")
    rng = np.random.default_rng(2)
    for p in net.params.values():
        p["b"][...] = rng.normal(0, 0.2, p["b"].shape)
    if trained:  # a few steps of plain gradient descent on random labels
        x = rng.random((6, *net.input_shape), np.float32)
        target = np.eye(10, dtype=np.float32)[rng.integers(0, 10, 6)]
        for _ in range(3):
            trace = net.forward(x)
            e = np.exp(trace[net.layer_names[-1]] - trace[net.layer_names[-1]].max(1, keepdims=True))
            grads = net.param_grads(trace, ((e / e.sum(1, keepdims=True) - target) / 6).astype(np.float32))
            for layer, p in net.params.items():
                for k in p:
                    p[k] -= np.float32(0.05) * grads[layer][k]
    for layer in ("conv1", "conv2"):
        for k, a in net.params[layer].items():
            net.params[layer][k][...] = np.round(a * 128) / 128
    return {layer: {k: np.array(a) for k, a in p.items()} for layer, p in net.params.items()}


def build(name, backend, dtype, trained):
    net = models.build(name, backend=backend, dtype=dtype)
    for layer, p in weights(name, trained).items():
        for k, a in p.items():
            net.params[layer][k] = net.ops.asarray(a)
    return net


def close(a, b, dtype):
    assert a.shape == b.shape
    scale = np.abs(b).max()
    assert scale > 0, "the oracle's picture is empty: the case says nothing"
    assert np.abs(a - b).max() <= TOLERANCE[dtype] * scale


CASES = {  # name, dtype, trained: number of images
    ("mnist", "float32", True): 2,
    ("mnist", "float64", False): 2,
    ("cifar10", "float32", False): 2,
    ("cifar10", "float64", True): 2,
    ("stl10", "float32", True): 1,
    ("stl10", "float64", False): 1,
}


@functools.cache
def captums(name, dtype, trained):
    """The images, the seed at each layer, and what Captum makes of them: (x, seeds, pictures)."""
    torch_copy = pytest.importorskip("torch_copy", reason="PyTorch is not installed")
    attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
    net = build(name, "cpu", dtype, trained)
    module = torch_copy.copy_network(net)
    x = make_images(net.input_shape, CASES[name, dtype, trained]).astype(dtype)
    t = torch_copy.to_torch(x).requires_grad_()
    pictures = {"logits": module(t)}
    pictures["gradient", 7] = attr.Saliency(module).attribute(t, 7, abs=False)
    pictures["deconvnet", 7] = attr.Deconvolution(module).attribute(t, 7)
    pictures["guided", 7] = attr.GuidedBackprop(module).attribute(t, 7)
    trace, seeds = net.forward(x), {}
    for layer in LAYERS:
        a = trace[layer]
        at = np.arange(len(a)), ..., activations.strongest(a) if a.ndim == 4 else a.argmax(1)
        seeds[layer] = np.zeros_like(a)  # the activation of the strongest map alone, as a constant
        seeds[layer][at] = a[at]
        seed = torch_copy.to_torch(seeds[layer]) if a.ndim == 4 else torch_copy.torch.tensor(seeds[layer])
        for rule, method in (("deconvnet", attr.NeuronDeconvolution), ("guided", attr.NeuronGuidedBackprop)):
            select = lambda y, seed=seed: (y * seed).flatten(1).sum(1)  # noqa: E731
            pictures[rule, layer] = method(module, getattr(module, layer)).attribute(t, select)
    return x, seeds, {k: torch_copy.to_ours(v) for k, v in pictures.items()}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Setting .*hooks")
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{'trained' if c[2] else 'random'}")
def test_every_rule_from_every_layer_equals_captums(case):
    name, dtype, trained = case
    x, _, pictures = captums(*case)
    net = build(name, available()[-1], dtype, trained)

    trace = net.forward(x)
    pooled, switches = trace["pool1"], net.ops.to_numpy(trace.caches["pool1"].kept)
    assert (pooled == 0).mean() > 0.02, "the case has too few dead windows"
    ties = (pooled[:, 2] > 0) & (pooled[:, 2] == pooled[:, 3])  # rows of black images
    assert ties.any() and (switches[:, 2][ties] == 0).any(), "the case has no ties of positive values"

    close(net.logits(x), pictures["logits"], dtype)
    close(saliency.saliency(net, x, 7), np.abs(pictures["gradient", 7]).max(-1), dtype)
    for rule in ("gradient", "deconvnet", "guided"):
        close(saliency.gradient(net, x, 7, rule), pictures[rule, 7], dtype)
    for layer in LAYERS:
        for rule in ("deconvnet", "guided"):
            close(deconvnet.project(net, x, layer, rule=rule)[0], pictures[rule, layer], dtype)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Setting .*hooks")
@pytest.mark.parametrize("case", list(CASES)[:2], ids=["float32", "float64"])
def test_the_rules_of_every_backend_equal_captums(case, backend):
    x, seeds, pictures = captums(*case)
    net = build(case[0], backend, *case[1:])
    trace = net.forward(x)
    one = np.eye(10, dtype=case[1])[np.full(len(x), 7)]
    for rule in ("gradient", "deconvnet", "guided"):
        close(net.backward(trace, one, rule=rule), pictures[rule, 7], case[1])
    for layer in LAYERS:
        for rule in ("deconvnet", "guided"):
            close(net.backward(trace, seeds[layer], at=layer, rule=rule), pictures[rule, layer], case[1])


@pytest.mark.oracle
def test_the_study_s_maxima_over_classes_and_maps_equal_a_loop_in_torch():
    torch_copy = pytest.importorskip("torch_copy", reason="PyTorch is not installed")
    net = build("mnist", available()[-1], "float64", True)
    module = torch_copy.copy_network(net)
    x = make_images(net.input_shape, 1)
    t = torch_copy.to_torch(x).requires_grad_()

    def largest(y):
        sums = y.flatten(2).sum(2) if y.ndim == 4 else y
        grads = [torch_copy.torch.autograd.grad(s.sum(), t, retain_graph=True)[0] for s in sums.T]
        return np.abs([torch_copy.to_ours(g) for g in grads]).max((0, -1))

    close(saliency.saliency(net, x), largest(module(t)), "float64")
    until_pool2 = module[: list(dict(module.named_children())).index("pool2") + 1]
    close(saliency.layer_backprop(net, x, "pool2"), largest(until_pool2(t)), "float64")


# -- without an oracle: claims about our own functions ----------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Two colours, odd sizes, overlapping pool; fast."""
    net = Network(
        [
            layers.Conv2D("conv1", 4, 3),
            layers.ReLU("relu1"),
            layers.MaxPool2D("pool1", 3, 2),
            layers.Conv2D("conv2", 5, 3),
            layers.ReLU("relu2"),
            layers.Flatten("flatten"),
            layers.Dense("fc1", 6),
        ],
        (13, 11, 2),
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    for p in net.params.values():
        p["b"][...] = rng.normal(0, 0.1, p["b"].shape)
    return net, rng.random((7, 13, 11, 2))


def test_a_projection_scales_with_the_image_of_a_net_without_biases(small):
    net, x = small
    bare = Network(net.layers, net.input_shape, dtype="float64")  # fresh biases are zero
    one, maps = deconvnet.project(bare, x, "relu2")
    two, maps_two = deconvnet.project(bare, 2 * x, "relu2")
    assert (maps == maps_two).all()
    np.testing.assert_allclose(two, 2 * one, rtol=1e-12)


def test_a_dead_map_draws_nothing(small):
    net, x = small
    dead = Network(net.layers, net.input_shape, dtype="float64")
    dead.params["conv2"]["b"][2] = -100
    assert (deconvnet.project(dead, x, "relu2", units=2)[0] == 0).all()
    assert (deconvnet.project(dead, x, "relu2", units=1)[0] != 0).any()


def test_maps_may_be_chosen_by_strength_for_all_or_for_each_image(small):
    net, x = small
    a = activations.maps(net, x, "relu2")
    strongest = [int(np.argmax([image[:, :, m].sum() for m in range(5)])) for image in a]
    picture, maps = deconvnet.project(net, x, "relu2")
    assert maps.tolist() == strongest
    again, _ = deconvnet.project(net, x, "relu2", units=np.array(strongest))
    assert (again == picture).all()
    for n in range(len(x)):
        alone, used = deconvnet.project(net, x[n : n + 1], "relu2", units=strongest[n])
        np.testing.assert_allclose(alone[0], picture[n], atol=1e-12)
        assert used.tolist() == [strongest[n]]


def test_one_unit_is_projected_from_its_place_alone(small):
    net, x = small
    top = activations.top_images(net, x, "relu2", k=3, units=2)
    images, positions, boxes = x[top.indices[0]], top.positions[0], top.boxes[0]
    picture, _ = deconvnet.project(net, images, "relu2", units=2, positions=positions)
    for n, ((row, column), (t, left, bottom, right)) in enumerate(zip(positions, boxes)):
        trace = net.forward(images[n : n + 1], upto="relu2")
        seed = np.zeros((1, *net.shapes["relu2"]))
        seed[0, row, column, 2] = trace["relu2"][0, row, column, 2]
        np.testing.assert_allclose(picture[n], net.backward(trace, seed, rule="deconvnet")[0], atol=1e-12)
        alone = deconvnet.project(net, images[n : n + 1], "relu2", units=2, positions=(row, column))[0]
        np.testing.assert_allclose(alone[0], picture[n], atol=1e-12)
        outside = np.ones((13, 11), bool)
        outside[max(t, 0) : bottom, max(left, 0) : right] = False
        assert seed.max() > 0 and (picture[n] != 0).any() and (picture[n][outside] == 0).all()


def test_one_position_may_stand_for_all_images(small):
    net, x = small
    one = deconvnet.project(net, x, "relu2", units=3, positions=(2, 4))[0]
    each = deconvnet.project(net, x, "relu2", units=3, positions=[(2, 4)] * len(x))[0]
    assert (one == each).all() and (one != 0).any()


def test_edges_are_the_sobel_magnitude_of_the_grey_image():
    x = np.random.default_rng(2).integers(0, 256, (2, 5, 6, 3), np.uint8)
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    grey = np.pad(x.astype(float).mean(-1) / 255, ((0, 0), (1, 1), (1, 1)), "edge")
    found = deconvnet.edges(x)
    for n, i, j in np.ndindex(2, 5, 6):
        window = grey[n, i : i + 3, j : j + 3]
        assert found[n, i, j] == pytest.approx(np.hypot((window * kernel).sum(), (window * kernel.T).sum()))
    np.testing.assert_allclose(deconvnet.edges(x / 255), found)


@pytest.mark.parametrize("unpool", ["repeat", "center"])
def test_unpooling_without_switches_makes_another_picture(small, unpool):
    net, x = small
    by_switches, _ = deconvnet.project(net, x, "pool1", units=1)
    other, _ = deconvnet.project(net, x, "pool1", units=1, unpool=unpool)
    assert np.abs(other - by_switches).max() > 0.01 * np.abs(by_switches).max()


def test_batches_change_no_picture(small, monkeypatch):
    net, x = small
    calls = (
        lambda: deconvnet.project(net, x, "relu2")[0],
        lambda: saliency.gradient(net, x, np.arange(7) % 6),
        lambda: saliency.saliency(net, x),
        lambda: saliency.layer_backprop(net, x, "relu2"),
        lambda: activations.top_images(net, x, "relu2", k=4).boxes,
        lambda: activations.top_images(net, x, "relu2", k=4).indices,
        lambda: activations.sums(net, x, "relu2"),
        lambda: deconvnet.project(net, x, "relu2", units=1, positions=np.stack([np.arange(7) % 6] * 2, 1))[0],
    )
    whole = [call() for call in calls]
    monkeypatch.setattr(check, "FLOATS_PER_BATCH", 4000)  # 2 or 3 images
    assert len(list(check.batches(net, 7, "fc1"))) > 2
    for before, call in zip(whole, calls):
        np.testing.assert_allclose(call(), before, atol=1e-12)


def test_saliency_is_the_largest_over_colours_and_classes(small):
    net, x = small
    per_class = np.abs([saliency.gradient(net, x, c) for c in range(6)])
    assert (saliency.saliency(net, x) == per_class.max((0, -1))).all()
    each = saliency.saliency(net, x, np.arange(7) % 6)
    np.testing.assert_allclose(each, per_class[np.arange(7) % 6, np.arange(7)].max(-1), atol=1e-12)


def test_layer_backprop_is_the_largest_slope_of_any_map_s_sum(small):
    net, x = small
    x = x[:1]
    h = 1e-6 * np.eye(x.size).reshape(-1, *x.shape[1:])  # every pixel once
    sums = activations.maps(net, x + h, "relu2").sum((1, 2)) - activations.maps(net, x - h, "relu2").sum((1, 2))
    slopes = np.abs(sums / 2e-6).max(-1).reshape(x.shape)
    np.testing.assert_allclose(saliency.layer_backprop(net, x, "relu2"), slopes.max(-1), rtol=1e-6)


def test_uint8_images_give_the_pictures_of_their_values_over_255(small):
    net, _ = small
    x = np.random.default_rng(1).integers(0, 256, (3, 13, 11, 2), np.uint8)
    for call in (saliency.saliency, lambda net, x: deconvnet.project(net, x, "relu2")[0]):
        np.testing.assert_allclose(call(net, x), call(net, x / 255), atol=1e-12)


def test_maps_and_filters_are_the_network_s_own(small):
    net, x = small
    assert (activations.maps(net, x, "relu1") == net.forward(x)["relu1"]).all()
    filters = activations.filters(net, "conv2")
    assert filters.shape == (5, 3, 3, 4)
    for k in range(5):
        assert (filters[k] == net.params["conv2"]["w"][:, :, :, k]).all()
    filters[...] = 0
    assert (net.params["conv2"]["w"] != 0).any()  # a copy


def test_strongest_takes_the_largest_sum_not_the_largest_value_and_the_first_of_equals():
    maps = np.zeros((2, 2, 2, 3))
    maps[0, :, :, 1] = 1  # sum 4
    maps[0, 0, 0, 2] = 3  # sum 3
    assert activations.strongest(maps).tolist() == [1, 0]


def test_wins_count_the_images_in_which_a_map_has_the_largest_sum(small):
    net, x = small
    x = np.concatenate([x, np.zeros((1, 13, 11, 2))])
    bare = Network(net.layers, net.input_shape, dtype="float64")  # without biases nothing answers to a black image
    sums = activations.sums(bare, x, "relu2")
    wins = activations.wins(sums)
    a = activations.maps(bare, x, "relu2")
    expected = [0] * 5
    for image in a[:-1]:
        expected[max(range(5), key=lambda m, image=image: image[:, :, m].sum())] += 1
    assert wins.tolist() == expected and wins.sum() == 7 and (a[-1] == 0).all()
    np.testing.assert_allclose(sums, [[image[:, :, m].sum() for m in range(5)] for image in a], atol=1e-12)


def test_top_images_are_the_largest_maxima_with_ties_by_the_lower_index(small):
    net, x = small
    x = np.concatenate([x, x[[5, 2]]])  # images 7 and 8 repeat 5 and 2
    top = activations.top_images(net, x, "relu2", k=9, units=[4, 1])
    a = activations.maps(net, x, "relu2")
    for row, m in enumerate((4, 1)):
        ranked = sorted((-image[:, :, m].max(), n) for n, image in enumerate(a))
        assert top.indices[row].tolist() == [n for _, n in ranked]
        for j, (value, n) in enumerate(ranked):
            assert top.values[row, j] == -value
            assert tuple(top.positions[row, j]) == np.unravel_index(a[n, :, :, m].argmax(), a.shape[1:3])
    everything = activations.top_images(net, x, "relu2", k=9)
    assert everything.units.tolist() == [0, 1, 2, 3, 4]
    assert (everything.indices[[4, 1]] == top.indices).all()


def test_a_box_holds_all_pixels_that_a_top_unit_sees_and_no_more(small):
    net, x = small
    net.params["conv2"]["b"][...] += 5  # no unit of conv2 is off; the slope is not hidden by the ReLU
    linear = Network(net.layers, net.input_shape, dtype="float64")
    linear.params["conv1"]["b"][...] = 50
    for layer in ("conv1", "conv2"):
        linear.params[layer]["w"][...] = np.abs(net.params[layer]["w"]) + 0.1
    net.params["conv2"]["b"][...] -= 5
    top = activations.top_images(linear, x, "relu2", k=3)
    seen = set()
    for m, j in np.ndindex(5, 3):
        n, (row, column) = top.indices[m, j], top.positions[m, j]
        t, left, bottom, right = top.boxes[m, j]
        inside = np.zeros((13, 11), bool)
        inside[max(t, 0) : bottom, max(left, 0) : right] = True
        noise = np.where(inside[..., None], 0, np.random.default_rng(0).normal(0, 5, (13, 11, 2)))
        unit = lambda image: activations.maps(linear, image[None], "relu2")[0, row, column, m]  # noqa: B023, E731
        assert unit(x[n] + noise) == unit(x[n])
        # Raising any one pixel far inside the box raises the unit: each side of the box is needed.
        for i, k in ((max(t, 0), None), (min(bottom, 13) - 1, None), (None, max(left, 0)), (None, min(right, 11) - 1)):
            edge = np.zeros((13, 11, 1))
            edge[slice(None) if i is None else i, slice(None) if k is None else k] = 100
            assert unit(x[n] + edge * inside[..., None]) > unit(x[n])
        seen.add((bottom - t, right - left))
    assert seen == {(9, 9)}  # 3 -> pool 3/2: 5, stride 2 -> conv 3: 9


def nan(x):
    x = x.copy()
    x[1, 0, 0, 0] = np.nan
    return x


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda net, x: activations.maps(net, x, "fc1"), "'fc1' has no maps.*conv1"),
        (lambda net, x: activations.maps(net, x, "relu9"), "layer 'relu9'.*relu2"),
        (lambda net, x: activations.maps(net, x[0], "relu1"), "leading axis"),
        (lambda net, x: activations.maps(net, x[:0], "relu1"), "no images"),
        (lambda net, x: activations.filters(net, "relu1"), "no filters.*conv1, conv2"),
        (lambda net, x: activations.filters(net, "relu9"), "layer 'relu9'"),
        (lambda net, x: activations.strongest(x[0]), "maps"),
        (lambda net, x: activations.top_images(net, x, "relu2", k=8), "k: .* 1 to 7"),
        (lambda net, x: activations.top_images(net, x, "relu2", k=0), "k: "),
        (lambda net, x: activations.top_images(net, x, "relu2", 2, units=[5]), "units: 5 .*0 to 4"),
        (lambda net, x: activations.top_images(net, x, "fc1"), "no maps"),
        (lambda net, x: activations.top_images(net, nan(x), "relu2"), "image 1 holds NaN"),
        (lambda net, x: activations.sums(net, x, "fc1"), "no maps"),
        (lambda net, x: activations.sums(net, nan(x), "relu2"), "image 1 holds NaN"),
        (
            lambda net, x: deconvnet.project(net, x, "relu2", positions=[[0, 0]]),
            r"positions: expected .row, column., or 7",
        ),
        (lambda net, x: deconvnet.project(net, x, "relu2", positions=np.full((7, 2), 6)), "positions: .*0 to 5"),
        (lambda net, x: deconvnet.project(net, x, "fc1", positions=np.zeros((7, 2), int)), "no maps"),
        (lambda net, x: deconvnet.edges(x[0]), "images: expected"),
        (lambda net, x: deconvnet.project(net, x, "relu9"), "layer 'relu9'"),
        (lambda net, x: deconvnet.project(net, nan(x), "relu2"), "image 1 holds NaN"),
        (lambda net, x: deconvnet.project(net, x[:, 1:], "relu2"), "13, 11, 2"),
        (lambda net, x: deconvnet.project(net, x, "relu2", units=5), "units: 5 .*0 to 4"),
        (lambda net, x: deconvnet.project(net, x, "fc1", units=-1), "units: -1 .*0 to 5"),
        (lambda net, x: deconvnet.project(net, x, "relu2", units=[1, 2]), "7 .one per image"),
        (lambda net, x: deconvnet.project(net, x, "relu2", units="largest"), "units 'largest'"),
        (lambda net, x: deconvnet.project(net, x, "relu2", units=1.0), "units: expected an integer"),
        (lambda net, x: deconvnet.project(net, x, "relu2", rule="deconv"), "rule 'deconv'"),
        (lambda net, x: deconvnet.project(net, x, "relu2", unpool="mean"), "unpool 'mean'"),
        (lambda net, x: saliency.saliency(net, x, 6), "target: 6 .*0 to 5"),
        (lambda net, x: saliency.saliency(net, x, [0, 1]), "target: .* 7"),
        (lambda net, x: saliency.saliency(net, nan(x)), "image 1 holds NaN"),
        (lambda net, x: saliency.saliency(net, x, rule="lrp"), "rule 'lrp'"),
        (lambda net, x: saliency.gradient(net, x, "cat"), "target: expected an integer"),
        (lambda net, x: saliency.gradient(net, x, 0, rule="lrp"), "rule 'lrp'"),
        (lambda net, x: saliency.gradient(net, x.astype(int), 0), "dtype"),
        (lambda net, x: saliency.layer_backprop(net, x, "fc1"), "no maps"),
        (lambda net, x: saliency.layer_backprop(net, x, "relu9"), "layer 'relu9'"),
        (lambda net, x: saliency.layer_backprop(net, x, "relu2", rule="lrp"), "rule 'lrp'"),
    ],
)
def test_bad_arguments_are_named(small, call, named):
    with pytest.raises(InputError, match=named):
        call(*small)
