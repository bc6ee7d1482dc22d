"""Networks with average pools, batch normalization and normalized input: folding, files, pictures, relevance.

The primitives themselves: test_ops.py; their gradients: test_engine.py; against PyTorch: test_layers_oracle.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tinycnn import InputError, Network, checkpoint, losses, models, rules, train
from tinycnn.gradcheck import check_network, relative_error
from tinycnn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Normalize,
    ReLU,
)
from tinycnn.rules import Rule
from viz import activations, deconvnet, maximize, saliency
from viz.attribution import METHODS, conservation, relevance

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # what another order of the sums, and of the scaling, leaves
SHAPE = (9, 8, 3)
MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.3, 0.25)


def net_of(backend="cpu", dtype="float64", biases=0.2):
    """Every new layer; a max-pool; batch normalizations that fold and one that does not; no dense layer."""
    specs = [
        *(Normalize("n", MEAN, STD), Conv2D("c1", 6, 3), BatchNorm("b1"), ReLU("r1"), AvgPool2D("a1", 3, 2)),
        *(BatchNorm("b2", 0.1), Conv2D("c2", 5, 3), ReLU("r2"), MaxPool2D("p2", 3, 1)),
        *(Conv2D("c3", 4, 1), BatchNorm("b3"), ReLU("r3"), GlobalAvgPool2D("g")),
    ]
    return filled(Network(specs, SHAPE, backend=backend, dtype=dtype), biases)


def filled(net, biases=0.2):
    """Statistics as of a trained network, gammas of both signs; biases, means and betas of this size."""
    rng = np.random.default_rng(0)
    for layer, p in net.params.items():
        for k, a in p.items():
            if k in ("b", "beta", "mean"):
                p[k] = biases * rng.standard_normal(a.shape)
            elif k in ("gamma", "variance"):
                turned = rng.choice([-1, 1], a.shape) if (layer, k) == ("b2", "gamma") else 1
                p[k] = (0.5 + rng.random(a.shape)) * turned
    net.check_params()
    return net


@pytest.fixture(scope="module")
def net():
    return net_of()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).random((4, *SHAPE))


# -- forward ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_backend_computes_the_reference_on_both_paths(backend, dtype, x):
    ours, plain = net_of(backend, dtype), net_of("reference", "float64")
    expected, trace = plain.forward(x), ours.forward(x, work=ours.workspace())
    for layer in ("n", "b1", "a1", "b2", "b3", "g"):
        assert relative_error(trace[layer], expected[layer]) < 10 * TOLERANCE[dtype], layer
    assert relative_error(ours.logits(x), expected["g"]) < 10 * TOLERANCE[dtype]
    assert ours.logits(x[:0]).shape == (0, 4) and ours.predict(x).tolist() == expected["g"].argmax(1).tolist()


def test_normalize_keeps_pictures_in_pixels(net, x):
    """The network of normalized images is the same without the layer; uint8 counts from 0 to 1 before it."""
    bare = Network(net.layers[1:], SHAPE, backend="cpu", dtype="float64")
    bare.params = net.params
    images = np.round(255 * x).astype(np.uint8)
    assert relative_error(net.logits(images), bare.logits((images / 255 - MEAN) / STD)) < 1e-12
    dx, normalized = saliency.gradient(net, x, 1), saliency.gradient(bare, (x - MEAN) / STD, 1)
    assert relative_error(dx, normalized / STD) < 1e-12
    one = Network([Normalize("n", 0.5, [0.25])], SHAPE, dtype="float64")
    assert relative_error(one.forward(x)["n"], (x - 0.5) / 0.25) < 1e-14 and one.layers[0].mean == (0.5,)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_average_pool_with_any_padding_is_the_plain_one_of_an_image_with_borders(backend, x, stride):
    """Counted, the border is zeros; not counted, what is left out is left out of the mean."""
    pads = ((1, 0), (0, 2))

    def means(image, padding, count_padding):
        specs = [AvgPool2D("a", 3, stride, padding, count_padding)]
        found = Network(specs, image.shape[1:], backend=backend, dtype="float64").forward(image)["a"]
        return found

    bordered, inside = (np.pad(a, ((0, 0), *pads, (0, 0))) for a in (x, np.ones_like(x)))
    plain, share = (means(a, "VALID", False) for a in (bordered, inside))
    assert relative_error(means(x, pads, True), plain) < 1e-14
    assert relative_error(means(x, pads, False), plain / share) < 1e-14


def test_the_receptive_field_counts_average_pools_and_a_global_one_sees_all(net):
    same = Network([Conv2D("c", 2, 3), MaxPool2D("a1", 3, 2), Conv2D("c2", 2, 3)], SHAPE)
    assert net.receptive_field("c2") == same.receptive_field("c2")
    assert net.receptive_field("g") == ((9, 8), (0, 0), (0, 0))
    longer = Network([Conv2D("c", 2, 3), GlobalAvgPool2D("g"), Dense("d", 3), ReLU("r")], SHAPE)
    assert longer.receptive_field("r")[0] == (9, 8) and "total" in longer.summary()


def test_the_number_of_threads_changes_no_byte():
    code = """if True:
        import hashlib, numpy as np
        from tinycnn import get_ops
        ops, rng = get_ops("cpu"), np.random.default_rng(0)
        x = rng.standard_normal((40, 33, 31, 12), np.float32)  # enough for several threads
        for window, stride in (((3, 3), (2, 2)), ((33, 31), (1, 1))):
            y = ops.avgpool2d(x, window, stride, "VALID")
            dx = ops.avgpool2d_backward(y, x.shape, window, stride, "VALID")
            print(*(hashlib.sha256(a).hexdigest() for a in (y, dx)))
    """
    said = []
    for threads in "12":
        env = os.environ | {"NUMBA_NUM_THREADS": threads}
        said.append(
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True).stdout
        )
    assert said[0] == said[1] and len(said[0].split()) == 4


# -- folding, training, files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_folding_changes_no_output_and_leaves_what_it_cannot_fold(dtype, x):
    net = net_of(dtype=dtype)
    before = {k: a.copy() for k, a in net.arrays().items()}
    folded = net.folded()
    assert [name for name in net.layer_names if name not in folded.layer_names] == ["b1", "b3"]
    trace, expected = folded.forward(x), net.forward(x)
    for own, theirs in {"c1": "b1", "a1": "a1", "b2": "b2", "c3": "b3", "g": "g"}.items():
        assert relative_error(trace[own], expected[theirs]) < 10 * TOLERANCE[dtype]
    assert all((a == before[k]).all() for k, a in net.arrays().items()), "the network itself has changed"
    folded.params["c2"]["w"][...] = 0
    assert net.params["c2"]["w"].any()
    assert relative_error(saliency.gradient(net.folded(), x, 1), saliency.gradient(net, x, 1)) < 100 * TOLERANCE[dtype]


def test_several_in_a_row_fold_and_dense_layers_take_theirs(backend, x):
    specs = [Flatten("f"), BatchNorm("b0"), Dense("d", 5), BatchNorm("b1"), BatchNorm("b2"), ReLU("r"), BatchNorm("b3")]
    net = filled(Network(specs, SHAPE, backend=backend, dtype="float64", meta={"a": "b"}))
    folded = net.folded()
    assert folded.layer_names == ["f", "b0", "d", "r", "b3"] and folded.meta == net.meta
    assert folded.ops is net.ops and relative_error(folded.logits(x), net.logits(x)) < 1e-12


def test_training_what_is_for_inference_alone_costs_one_line(net, x):
    images, labels = np.zeros((4, *SHAPE), np.uint8), np.arange(4)
    for call in (
        lambda: train.fit(net, images, labels, steps=1, batch_size=2, progress=False),
        lambda: net.param_grads(net.forward(x), np.zeros((4, 4))),
        lambda: losses.loss_and_grads(net, x, labels),
    ):
        with pytest.raises(InputError, match=r"layer 'b1': batch normalization is for inference.*net.folded\(\)") as e:
            call()
        assert "\n" not in str(e.value)


def test_what_is_folded_and_normalized_trains(backend):
    """Average pools, the global one and Normalize stand in the way of no gradient, with a workspace and without."""
    specs = [layer for layer in net_of(backend).layers if not isinstance(layer, BatchNorm)]
    net, rng = filled(Network(specs, SHAPE, backend=backend, dtype="float64")), np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (8, *SHAPE), np.uint8), np.arange(8) % 4
    assert max(check_network(net, images / 255, labels, directions=1).values()) < 1e-6
    history = train.fit(net, images, labels, steps=30, batch_size=8, lr=0.01, progress=False)
    assert history.losses[-1] < 0.9 * history.losses[0]


def test_a_network_comes_back_from_its_file_whole(tmp_path, net, x):
    net.save(tmp_path / "net.safetensors")
    back = Network.load(tmp_path / "net.safetensors")
    assert back.layers == net.layers and np.array_equal(back.logits(x), net.logits(x))
    assert back.layers[0] == Normalize("n", MEAN, STD) and type(back.layers[0].mean) is tuple
    header, tensors = checkpoint.read(tmp_path / "net.safetensors")
    assert header["layers"][0] == {"type": "Normalize", "name": "n", "mean": list(MEAN), "std": list(STD)}
    assert np.array_equal(tensors["weights/b2/variance"], net.params["b2"]["variance"])


def test_numpys_numbers_are_numbers(tmp_path):
    specs = [Normalize("n", np.array([0.1, 0.2]), np.float32(0.5)), BatchNorm("b", np.float64(0.1))]
    net = Network([*specs, AvgPool2D("a", np.int64(2), 1, count_padding=np.bool_(True))], (4, 4, 2))
    net.save(tmp_path / "n.safetensors")
    assert Network.load(tmp_path / "n.safetensors").layers == net.layers


HOSTILE = [
    (0, {"mean": "black"}), (0, {"mean": []}), (0, {"mean": [0.1, 0.2]}), (0, {"std": [0, 1, 1]}), (0, {"std": None}),
    (0, {"mean": 10**400}), (0, {"std": {"a": 1}}), (2, {"epsilon": -1}), (2, {"epsilon": "1"}), (2, {"mean": 3}),
    (4, {"count_padding": 1}), (4, {"window": 10**30}), (4, {"padding": [[3, 0], [0, 0]]}), (4, {"window": [[]]}),
    (1, {"filters": 10**12}), (1, {"filters": 10**40}), (12, {"window": [2, 2]}), (2, {"type": "BatchNormalization"}),
]  # fmt: skip


@pytest.mark.parametrize("place, change", HOSTILE, ids=str)
def test_a_hostile_description_is_refused_before_anything_is_allocated(tmp_path, net, place, change):
    path = tmp_path / "net.safetensors"
    net.save(path)
    header, tensors = checkpoint.read(path)
    header["layers"][place] |= change
    header["sha256"] = checkpoint._digest(header, tensors)
    path.write_bytes(safetensors.numpy.save(tensors, {"tinycnn": checkpoint._text(header)}))
    with pytest.raises(InputError, match=r"its layers make no network|of another network") as caught:
        Network.load(path)
    assert "\n" not in str(caught.value)


# -- the way back ----------------------------------------------------------------------------------------------------


def matrices(net):
    """{layer: the matrix of a linear layer's map, (inputs, outputs)}: what its output does with each input alone."""
    shapes, found = dict(zip(net.layer_names, [net.input_shape, *net.shapes.values()])), {}
    for layer in net.layers:
        if isinstance(layer, (ReLU, MaxPool2D)):
            continue
        p, size = net.params.get(layer.name), int(np.prod(shapes[layer.name]))
        rows = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *shapes[layer.name])
        y = layer.forward(net.ops, p, rows)[0].reshape(size + 1, -1)
        found[layer.name] = y[1:] - y[0]
    return found


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided"])
@pytest.mark.parametrize("unpool", ["switches", "repeat", "center"])
def test_a_rule_takes_every_linear_layer_as_its_matrix_and_unpools_max_pools_alone(backend, x, rule, unpool):
    plain, net, of = net_of("reference"), net_of(backend), rules.get_rule(rule, unpool)
    trace, maps = plain.forward(x), matrices(plain)
    dy = np.random.default_rng(3).standard_normal((4, 4))
    expected = dy
    for layer, before in zip(plain.layers[::-1], [*plain.layer_names[-2::-1], None]):
        a = trace[before] if before else x
        if isinstance(layer, ReLU):
            expected = expected * (a > 0 if of.mask else 1) * (expected > 0 if of.rectify else 1)
        elif isinstance(layer, MaxPool2D):
            switches = trace.caches[layer.name].kept
            args = layer.window, layer.stride, layer.padding, unpool
            expected = plain.ops.unpool2d(expected, switches, a.shape, *args)
        else:
            expected = (expected.reshape(4, -1) @ maps[layer.name].T).reshape(a.shape)
    assert np.abs(expected).max() > 0
    for trace in (net.forward(x), net.forward(x, work=net.workspace())):
        assert relative_error(net.backward(trace, dy, rule=rule, unpool=unpool), expected) < 1e-12


def test_a_function_of_a_rule_is_asked_at_every_linear_layer(net, x):
    asked = []

    def linear(ops, layer, p, cache, dy):
        asked.append(layer.name)
        return layer.backward(ops, p, cache, dy, rules.RULES["gradient"])

    trace, dy = net.forward(x, work=net.workspace()), np.ones((4, 4))
    assert relative_error(net.backward(trace, dy, rule=Rule(linear=linear)), net.backward(trace, dy)) < 1e-12
    assert asked == ["g", "b3", "c3", "c2", "b2", "a1", "b1", "c1", "n"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_looks_into_a_network_that_ends_in_a_global_pool(name, net, x):
    options = {"occlusion": {"window": 3, "stride": 3}, "shapley_value_sampling": {"permutations": 1}}
    maps = METHODS[name](net, x, 2, **options.get(name, {}))
    assert maps.shape[:3] == x.shape[:3] and np.isfinite(maps).all() and maps.any()


def test_pictures_of_a_network_that_ends_in_a_global_pool(net, x):
    assert saliency.saliency(net, x).shape == x.shape[:3]
    each = [np.abs(saliency.gradient(net, x, k)).max(-1) for k in range(4)]
    assert relative_error(saliency.saliency(net, x), np.max(each, 0)) < 1e-12
    projection, units = deconvnet.project(net, x, "g")
    assert projection.shape == x.shape and (units == net.predict(x)).all()
    assert activations.top_images(net, x, "a1", 2).boxes.shape == (5 + 1, 2, 4)
    ascent = maximize.maximize(net, "g", [0, 3], steps=5)
    assert ascent.images.shape == (2, *SHAPE)


# -- relevance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("name", relevance.COMPOSITES)
def test_relevance_and_what_was_kept_add_up_to_the_score_after_every_layer(net, x, name, epsilon):
    for target in (1, ("b2", 2), ("a1", 3, (2, 3)), ("b1", 1)):
        account = conservation(net, x, target, name, epsilon)
        kept = (account.bias + account.epsilon + account.empty).sum(0)
        some = account.magnitude.max(0) > 0
        assert some.sum() >= 3
        gap = np.abs(account.relevance[-1] + kept - account.relevance[0])[some] / account.magnitude.max(0)[some]
        assert gap.max() < 1e-10 and account.error[:, some].max() < 1e-10
        maps = relevance.lrp(net, x, target, name, epsilon)
        assert np.abs(maps.sum((1, 2, 3)) - account.relevance[-1]).max() < 1e-12 * account.magnitude.max()
    at = account.layers.index("n")
    assert (account.relevance[at] == account.relevance[at + 1]).all(), "Normalize kept something"


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-3), ("float64", 1e-10)])
def test_every_backend_gives_the_same_relevance(backend, net, x, dtype, tolerance):
    ours = net_of(backend, dtype)
    for name in ("epsilon_gamma_box", "epsilon_alpha2_beta1_flat"):
        assert relative_error(relevance.lrp(ours, x, 1, name), relevance.lrp(net, x, 1, name)) < tolerance
    assert relative_error(relevance.deeplift(ours, x, 1), relevance.deeplift(net, x, 1)) < tolerance


def test_an_average_pool_shares_in_proportion_to_its_inputs(x):
    """Overlapping, cut at the border: a loop over every window; then the mean of all places."""
    net = Network([AvgPool2D("a", 3, 2), GlobalAvgPool2D("g")], SHAPE, dtype="float64")
    a, expected = net.forward(x)["a"], np.zeros(x.shape)
    for n, r, c, k in np.ndindex(a.shape):
        if k != 1:
            continue
        window = n, slice(max(2 * r - 1, 0), 2 * r + 2), slice(2 * c, 2 * c + 3), k  # SAME: 9 rows, 8 columns
        expected[window] += a[n, r, c, k] / a[0, ..., 0].size * x[window] / x[window].sum()
    for composite in ("epsilon", "alpha2_beta1", "epsilon_plus_flat"):
        assert relative_error(relevance.lrp(net, x, 1, composite, epsilon=0.0), expected) < 1e-12


def test_a_batch_normalization_is_a_layer_of_a_weight_and_a_bias_and_normalize_hands_on_whole(x):
    specs = [Normalize("n", MEAN, STD), BatchNorm("b"), GlobalAvgPool2D("g")]
    net = filled(Network(specs, SHAPE, dtype="float64"))
    p, z = net.params["b"], (x - MEAN) / STD
    w = p["gamma"] / np.sqrt(p["variance"] + 1e-3)
    y = w * (z - p["mean"]) + p["beta"]
    R = np.zeros(x.shape)
    R[..., 1] = (y / y[0, ..., 0].size)[..., 1]
    assert relative_error(relevance.lrp(net, x, 1, epsilon=0.0), w * z / y * R) < 1e-10


def test_without_biases_epsilon_is_the_normalized_input_times_gradient(x):
    """Known of the epsilon rule; the relevance of a normalized value is its pixel's."""
    net = net_of(biases=0)
    maps = relevance.lrp(net, x, 1, epsilon=0.0)
    assert relative_error(maps, (x - MEAN) * saliency.gradient(net, x, 1)) < 1e-9
    assert relative_error(maps.sum((1, 2, 3)), net.logits(x)[:, 1]) < 1e-9


def test_the_box_is_that_of_the_normalized_pixels(x):
    """As for the network of normalized images, by the formula, with their own bounds; a BatchNorm may turn them."""
    specs = [Normalize("n", MEAN, STD), BatchNorm("b2"), Flatten("f"), Dense("d", 3)]
    net = filled(Network(specs, SHAPE, dtype="float64"))
    net.params["b2"]["gamma"][...] = 1, -1, 0.5
    ends = net.forward(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]))["f"]
    low, high, a, w = ends.min(0), ends.max(0), net.forward(x)["f"], net.params["d"]["w"][:, 1]
    assert (ends[0] > ends[1]).any() and (ends[0] < ends[1]).any()
    z = a * w - low * np.maximum(w, 0) - high * np.minimum(w, 0)
    R = z / z.sum(1, keepdims=True) * net.logits(x)[:, 1:2]
    box = relevance.composite("z_box", "epsilon", "epsilon", epsilon=0.0)(net)
    found = net.backward(net.forward(x), np.eye(3)[[1] * 4] * net.logits(x), to="b2", rule=box)
    assert (z >= 0).all() and relative_error(found.reshape(4, -1), R) < 1e-12


def test_excitation_backprop_gives_probabilities(x):
    net = net_of(biases=0)
    for p in net.params.values():
        for k in {"w", "gamma"} & p.keys():
            p[k] = np.abs(p[k])
    maps = relevance.excitation_backprop(net, x, 2)
    assert (maps >= 0).all() and np.abs(maps.sum((1, 2, 3)) - 1).max() < 1e-12


def test_deeplift_adds_up_to_the_change_of_the_score(net, x):
    x0 = np.random.default_rng(6).random(x.shape)
    for target, score in {
        1: lambda trace: trace["g"][:, 1],
        ("a1", 2): lambda trace: trace["a1"][..., 2].sum((1, 2)),
        ("b1", 1, (2, 3)): lambda trace: trace["b1"][:, 2, 3, 1],
    }.items():
        maps, change = relevance.deeplift(net, x, target, x0), score(net.forward(x)) - score(net.forward(x0))
        assert relative_error(maps.sum((1, 2, 3)), change) < 1e-10


def test_a_mapping_must_name_a_rule_for_pools_and_batch_normalizations_too(net, x):
    made = relevance.composite("flat", "alpha1_beta0", "epsilon")(net)
    linear = {k: made[k] for k in ("c1", "b1", "a1", "b2", "c2", "c3", "b3", "g")}  # what is not named hands on
    assert (relevance.lrp(net, x, 1, linear) == relevance.lrp(net, x, 1, "epsilon_plus_flat")).all()
    for missing in ("a1", "b2", "g", "c2"):
        with pytest.raises(InputError, match=f"composite: layer '{missing}' has no rule"):
            relevance.lrp(net, x, 1, {k: v for k, v in linear.items() if k != missing})
    for foreign in ("a1", "n"):
        with pytest.raises(InputError, match=f"'{foreign}' is no Split"):
            conservation(net, x, 1, {**linear, foreign: Rule(linear=lambda ops, layer, p, cache, R: R)})


# -- All-CNN-C -------------------------------------------------------------------------------------------------------


def test_all_cnn_has_the_papers_sizes():
    """Springenberg et al. 2014, table 1, model C, with strided convolutions for pools; means over 6 x 6 places."""
    net = models.build("all-cnn", "cpu")
    maps = [net.shapes[f"relu{i}"] for i in range(1, 10)]
    assert maps == [
        *[(32, 32, 96)] * 2,
        (16, 16, 96),
        *[(16, 16, 192)] * 2,
        (8, 8, 192),
        *[(6, 6, 192)] * 2,
        (6, 6, 10),
    ]
    assert not any(isinstance(layer, (Dense, MaxPool2D, Dropout)) for layer in net.layers)
    total = re.search(r"total +([\d,]+)", net.summary())[1]
    assert int(total.replace(",", "")) == sum(a.size for a in net.arrays().values()) == 1_369_738  # the paper: ~ 1.4 M
    assert net.check_classes() == 10 and net.meta["model"] == "all-cnn"
    assert models.build("all-cnn", "cpu", classes=3).shapes["mean"] == (3,)
    dropped = {layer.name: layer.rate for layer in models.layers("all-cnn", dropout=0.5) if isinstance(layer, Dropout)}
    assert dropped == {"dropout0": 0.2, "dropout3": 0.5, "dropout6": 0.5}


@pytest.mark.slow
def test_all_cnn_agrees_with_central_differences():
    net = models.build("all-cnn", "cpu", dtype="float64")
    x = np.random.default_rng(0).random((1, 32, 32, 3))
    errors = check_network(net, x, np.array([1]), directions=1, eps=1e-8)  # half a million ReLUs: few kinks so near,
    assert max(errors.values()) < 1e-5, errors  # but differences so small are rounded


def test_the_studys_networks_are_as_they_were():
    assert models.STUDY == ("mnist", "cifar10", "stl10") and set(models.INPUT_SHAPES) == {*models.STUDY, "all-cnn"}
    names = " ".join(layer.name for layer in models.layers("cifar10"))
    assert names == "conv1 relu1 pool1 conv2 relu2 pool2 flatten fc1 relu3 fc2 relu4 fc3"
    names = " ".join(layer.name for layer in models.layers("mnist"))
    assert names == "conv1 relu1 pool1 conv2 relu2 pool2 flatten fc1 relu3 dropout fc2"
