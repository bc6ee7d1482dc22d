"""Layers, networks and the fused path: gradients by finite differences, shapes, and what is refused."""

import math
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor

import hosted
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import InputError, Network, get_ops, gradcheck, losses, models, optim, train, walk
from tinycnn.gradcheck import relative_error
from tinycnn.layers import (
    AvgPool2D,
    BatchNorm,
    Cache,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Normalize,
    Product,
    ReLU,
    multiplied,
)
from tinycnn.ops.geometry import Block
from tinycnn.ops.workspace import Workspace
from tinycnn.rules import Rule

LAYER = 1e-7  # elementwise central differences in float64
NETWORK = 1e-6  # along directions, through a whole network
FUSED = {
    "float32": 3e-5,
    "float64": 1e-12,
}  # Winograd: up to some 1e-5 over the millions of elements of the largest block

FAST = [p for p in hosted.NAMES if p != "reference"]  # backends with a fused path of their own
LAYERS = [
    (Conv2D("c", 3, 3), (5, 4, 2)),
    (Conv2D("c", 2, (2, 4), (2, 1)), (5, 6, 1)),
    (Conv2D("c", 2, (3, 2), 2, "VALID"), (7, 6, 2)),
    (ReLU("r"), (4, 3, 2)),
    (MaxPool2D("p", 2, 2), (5, 4, 2)),
    (MaxPool2D("p", 3, 2), (6, 7, 2)),
    (MaxPool2D("p", (2, 3), (1, 2), "VALID"), (5, 6, 2)),
    (AvgPool2D("a", 3, 2), (6, 7, 2)),
    (AvgPool2D("a", (2, 3), (1, 2), ((1, 0), (0, 2)), True), (5, 6, 2)),
    (GlobalAvgPool2D("g"), (4, 3, 2)),
    (BatchNorm("b"), (4, 3, 2)),
    (BatchNorm("b", 0.1), (5,)),
    (Normalize("n", (0.1, -0.2), 0.5), (4, 3, 2)),
    (Flatten("f"), (3, 2, 2)),
    (Dense("d", 4), (6,)),
    (Dropout("o", 0.4), (10,)),
]


def small_net(backend="cpu", dtype="float64"):
    specs = [
        *(Conv2D("c1", 5, 3), ReLU("r1"), MaxPool2D("p1", 3, 2)),
        *(Conv2D("c2", 7, 5), ReLU("r2"), MaxPool2D("p2", 2, 3, "VALID")),
        *(Conv2D("c3", 4, 3), ReLU("r3"), MaxPool2D("p3", (2, 3), 1)),
        *(Conv2D("c4", 4, (3, 2), 2), ReLU("r4"), MaxPool2D("p4", 2, 1)),
        *(Flatten("f"), Dense("d", 5)),
    ]
    return Network(specs, (23, 17, 2), backend=backend, dtype=dtype)


@pytest.mark.parametrize("layer, shape", LAYERS, ids=lambda v: str(v).replace("'", "")[:40])
def test_every_layer_agrees_with_central_differences(backend, layer, shape):
    x = np.random.default_rng(1).standard_normal((2, *shape))
    errors = gradcheck.check_layer(get_ops(backend, "float64"), layer, x)
    assert set(errors) == {"x"} | (set(layer.init(shape, np.random.default_rng(0))) if layer.trains else set())
    assert max(errors.values()) < LAYER, errors


@pytest.mark.parametrize("model", ["mnist", "cifar10", "small"])
def test_whole_networks_agree_with_central_differences(backend, model):
    net = small_net(backend) if model == "small" else models.build(model, backend, dtype="float64")
    rng = np.random.default_rng(0)
    errors = gradcheck.check_network(net, rng.random((2, *net.input_shape)), np.array([1, 3]), directions=1)
    assert max(errors.values()) < NETWORK, errors


@pytest.mark.slow
def test_the_stl10_network_agrees_with_central_differences(backend):
    net = models.build("stl10", backend, dtype="float64")
    x = np.random.default_rng(0).random((1, 96, 96, 3))
    errors = gradcheck.check_network(
        net, x, np.array([1]), directions=1, eps=1e-7
    )  # a million ReLUs: few kinks so near
    assert max(errors.values()) < NETWORK, errors


def test_gradcheck_sees_a_wrong_gradient():
    class Wrong(Dense):
        def grads(self, ops, p, cache, dy):
            grads = super().grads(ops, p, cache, dy)
            return {**grads, "b": grads["b"] * 1.001}

    errors = gradcheck.check_layer(get_ops("reference", "float64"), Wrong("d", 3), np.ones((2, 4)))
    assert errors["b"] > 5e-4 and errors["w"] < LAYER


def test_gradcheck_refuses_float32():
    with pytest.raises(InputError, match="float64"):
        gradcheck.check_network(models.build("mnist"), np.zeros((1, 28, 28, 1)), [0])


# -- the fused path ------------------------------------------------------------------------------------------


def layered(net, x, labels):
    trace = net.forward(x)
    loss, dlogits = net.ops.softmax_cross_entropy(trace.outputs[trace.upto], labels)
    return trace, loss, net.param_grads(trace, dlogits)


def assert_fused_is_layered(net, x, labels, tolerance):
    trace, loss, grads = layered(net, x, labels)
    work = Workspace(net.ops)
    logits = walk.forward(net, net.ops.from_images(x), work=work).outputs[net.layer_names[-1]]
    to_numpy = net.ops.to_numpy
    assert relative_error(to_numpy(logits), trace[trace.upto]) < tolerance
    for _ in range(2):  # the second time every array of the workspace is dirty
        fused_loss, fused_grads = losses.loss_and_grads(net, net.ops.from_images(x), labels, work)
    assert abs(fused_loss - loss) < tolerance * abs(loss)
    for layer, expected in grads.items():
        for name, g in expected.items():
            ours = multiplied(net.ops, fused_grads[layer])[name]
            assert relative_error(to_numpy(ours), to_numpy(g)) < tolerance, (layer, name)


@pytest.mark.parametrize("model", ["mnist", "cifar10", "small"])
def test_the_fused_path_is_the_layered_path(backend, model):
    net = small_net(backend) if model == "small" else models.build(model, backend, dtype="float64")
    rng = np.random.default_rng(0)
    for p in net.params.values():  # where an output is exactly zero, rounding decides on its side of the ReLU
        p["b"][...] = net.ops.asarray(0.1 * rng.standard_normal(p["b"].shape))
    x = rng.random((11, *net.input_shape))
    x[:, : x.shape[1] // 2] = 0  # windows of ties, and after the ReLU windows of zeros
    assert_fused_is_layered(net, x, rng.integers(0, 5, 11), FUSED["float64"])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("optimizer", [optim.Adam(1e-3, decay=0.1), optim.SGD(1e-2)])
def test_a_step_is_the_same_whether_or_not_gradients_of_dense_layers_are_multiplied_out(backend, optimizer):
    rng, found = np.random.default_rng(0), []
    x, labels = rng.random((5, 8, 8, 2), np.float32), rng.integers(0, 3, 5)
    specs = [Conv2D("c", 4, 3), ReLU("r"), MaxPool2D("p", 2, 2), Flatten("f"), Dense("d", 20), ReLU("s"), Dense("e", 3)]
    for whole in (False, True):
        net = Network(specs, (8, 8, 2), backend=backend)
        work, state = net.workspace(), optimizer.init(net.ops, net.params)
        for t in (1, 2):
            _, grads = losses.loss_and_grads(net, net.ops.from_images(x), labels, work)
            assert isinstance(grads["d"]["w"], Product)
            grads = {layer: multiplied(net.ops, g) for layer, g in grads.items()} if whole else grads
            optim.step(net.ops, optimizer, net.params, grads, state, t)
        found.append([net.ops.to_numpy(a) for p in net.params.values() for a in p.values()])
    assert all(np.array_equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape, k, K, pool", [((28, 28, 1), 5, 32, 2), ((14, 14, 32), 5, 64, 2),
                                               ((32, 32, 3), 5, 96, 3), ((48, 48, 96), 3, 96, 3)])  # fmt: skip
def test_fused_blocks_are_exact_to_rounding_in_float32(backend, shape, k, K, pool):
    """The study's blocks; the way back at the fused path's own switches, as float32 may break a near-tie either way."""
    fast, reference = hosted.get_ops(backend, "float32"), get_ops("reference")
    work = Workspace(get_ops(backend))
    rng = np.random.default_rng(0)
    x, w = fast.asarray(rng.random((9, *shape))), fast.asarray(rng.standard_normal((k, k, shape[2], K)) / 10)
    b = fast.asarray(rng.standard_normal(K) / 10)
    block = Block((1, 1), "SAME", (pool, pool), (2, 2), "SAME")
    y, switches = fast.conv_relu_pool(x, w, b, block, work)
    expected, where = reference.conv_relu_pool(x, w, b, block, None)
    assert relative_error(y, expected) < FUSED["float32"]
    assert (switches != where).mean() < 1e-4 and (switches[y == 0] == 0).all()
    dy = fast.asarray(rng.standard_normal(y.shape))
    weights, data = (x, w, y, switches, dy, block), (w, y, switches, dy, x.shape, block, True, False)
    for a, e in zip(
        (*fast.conv_relu_pool_backward_weights(*weights, work), fast.conv_relu_pool_backward_data(*data, work)),
        (
            *reference.conv_relu_pool_backward_weights(*weights, None),
            reference.conv_relu_pool_backward_data(*data, None),
        ),
    ):
        assert relative_error(a, e) < FUSED["float32"]


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=15, deadline=None)
@given(
    kernel=st.sampled_from([3, 5]), C=st.sampled_from([1, 2, 3, 6, 16, 19]), K=st.sampled_from([1, 2, 4, 9, 16, 21]),
    H=st.integers(3, 15), W=st.integers(3, 15), pool=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    N=st.integers(1, 10), seed=st.integers(0, 99),
)  # fmt: skip
def test_fused_blocks_of_any_shape_equal_the_layers(backend, kernel, C, K, H, W, pool, N, seed):
    specs = [Conv2D("c0", C, 1), Conv2D("c", K, kernel), ReLU("r"), MaxPool2D("p", *pool), Flatten("f"), Dense("d", 3)]
    net = Network(specs, (H, W, 2), backend=backend, dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    net.params["c"]["b"][...] = net.ops.asarray(0.1 * rng.standard_normal(K))
    assert_fused_is_layered(net, rng.random((N, H, W, 2)), rng.integers(0, 3, N), FUSED["float64"])


def with_biases(net):
    """Biases of both signs: where an output is exactly zero, rounding decides on its side of the ReLU."""
    for p in net.params.values():
        p["b"][...] = net.ops.asarray(0.1 * np.random.default_rng(0).standard_normal(p["b"].shape))
    return net


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided"])
@pytest.mark.parametrize("model, layers", [("mnist", "fc2 relu2"), ("cifar10", "fc3 pool2"),
                                           ("small", "d p4 c4 r3 r2 p1 r1 c1")])  # fmt: skip
def test_pictures_of_the_fast_path_are_those_of_the_layers(backend, model, layers, rule):
    if backend == "reference" and model != "small":
        pytest.skip("the reference has no fast path of its own; the small net shows its composition")
    net = with_biases(small_net(backend) if model == "small" else models.build(model, backend, dtype="float64"))
    rng, work = np.random.default_rng(0), net.workspace()
    x = rng.random((3, *net.input_shape))
    x[:2, : x.shape[1] // 2] = 0
    for at in layers.split():
        trace, fast = net.forward(x, upto=at), net.forward(x, upto=at, work=work)
        assert relative_error(fast[at], trace[at]) < FUSED["float64"]
        units = trace[at].shape[-1]
        for seed in (rng.standard_normal(trace[at].shape), np.eye(units)[0] * trace[at]):
            back = net.backward(trace, seed, rule=rule)
            assert relative_error(net.backward(fast, seed, rule=rule), back) < FUSED["float64"], at
        if units <= 10:
            ones = [np.broadcast_to(np.eye(units)[u], trace[at].shape) for u in range(units)]
            largest = np.max([np.abs(net.backward(trace, one, rule=rule)).max(-1) for one in ones], 0)
            assert relative_error(net.backward_each(fast, rule=rule), largest) < FUSED["float64"], at


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)), C=st.integers(1, 20), K=st.integers(1, 20),
    H=st.integers(1, 12), W=st.integers(1, 12), pool=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)), padding=st.sampled_from(["SAME", "VALID"]),
    N=st.integers(1, 9), S=st.integers(1, 3), mask=st.booleans(), rectify=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_signals_go_back_through_a_block_as_through_its_layers(
    backend, kernel, C, K, H, W, pool, stride, padding, N, S, mask, rectify, seed
):
    if padding == "VALID" and (pool[0] > H or pool[1] > W):
        pool = (1, 1)
    ops, reference, rng = (
        hosted.get_ops(backend, "float64"),
        get_ops("reference", "float64"),
        np.random.default_rng(seed),
    )
    x, w = rng.standard_normal((N, H, W, C)), rng.standard_normal((*kernel, C, K))
    block = Block((1, 1), "SAME", pool, stride, padding)
    y, switches = reference.conv_relu_pool(x, w, np.zeros(K), block, None)
    dy = rng.standard_normal((S * N, *y.shape[1:])) * rng.integers(0, 2, (S * N, *y.shape[1:]))
    args = (w, y, switches, dy, x.shape, block, mask, rectify)
    expected = reference.conv_relu_pool_backward_data(*args, None)
    dx = ops.conv_relu_pool_backward_data(*args, Workspace(get_ops(backend, "float64")))
    assert np.abs(dx - expected).max() <= FUSED["float64"] * np.abs(expected).max()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape, k, K, pool", [((28, 28, 1), 5, 32, 2), ((14, 14, 32), 5, 64, 2),
                                               ((32, 32, 3), 5, 96, 3), ((16, 16, 96), 3, 96, 3)])  # fmt: skip
def test_signals_go_back_exact_to_rounding_in_float32(backend, shape, k, K, pool):
    ops, reference, rng = hosted.get_ops(backend, "float32"), get_ops("reference"), np.random.default_rng(0)
    x, w = ops.asarray(rng.random((2, *shape))), ops.asarray(rng.standard_normal((k, k, shape[2], K)) / 10)
    block = Block((1, 1), "SAME", (pool, pool), (2, 2), "SAME")
    y, switches = reference.conv_relu_pool(x, w, ops.asarray(np.zeros(K)), block, None)
    dy = ops.asarray(rng.standard_normal((6, *y.shape[1:])))
    for mask, rectify in ((True, False), (False, True), (True, True)):
        args = (w, y, switches, dy, x.shape, block, mask, rectify)
        dx = ops.conv_relu_pool_backward_data(*args, Workspace(get_ops(backend)))
        assert relative_error(dx, reference.conv_relu_pool_backward_data(*args, None)) < FUSED["float32"]


@pytest.mark.parametrize("model", ["mnist", "cifar10"])
def test_pictures_break_no_tie_of_a_black_background(model):
    """Winograd's rounding would, and does in training; the layers in float64 see the first of equals."""
    x = np.random.default_rng(0).random((4, *models.INPUT_SHAPES[model]), np.float32)
    x[:2, :14], x[2] = 0, 0
    exact = with_biases(models.build(model, "cpu", dtype="float64")).forward(x, upto="pool2")
    net = with_biases(models.build(model, "cpu"))
    fast = net.forward(x, upto="pool2", work=net.workspace())
    assert (fast.caches["pool2"].kept == exact.caches["pool2"].kept).all()
    assert relative_error(fast["pool2"], exact["pool2"]) < FUSED["float32"]
    _, switches = net.ops.conv_relu_pool(*fast.caches["pool2"][:1], *(net.params["conv2"][k] for k in "wb"),
                                         fast.steps["pool2"].geometry, net.workspace())  # fmt: skip
    assert (switches != exact.caches["pool2"].kept).any(), "the case has no ties that rounding breaks"


# -- networks ------------------------------------------------------------------------------------------------


def test_the_studys_networks_have_the_studys_sizes():
    assert models.build("stl10").params["fc1"]["w"].shape == (24 * 24 * 96, 384)
    assert models.build("cifar10").shapes["pool2"] == (8, 8, 96)
    net = models.build("mnist")
    assert net.shapes["pool1"] == (14, 14, 32) and net.shapes["flatten"] == (7 * 7 * 64,)
    assert " ".join(net.layer_names) == "conv1 relu1 pool1 conv2 relu2 pool2 flatten fc1 relu3 dropout fc2"


def test_weights_are_glorot_uniform_and_equal_in_every_backend():
    a, b = models.build("mnist", "cpu", seed=3), models.build("mnist", "reference", seed=3, dtype="float64")
    w = b.params["fc1"]["w"]
    limit = np.sqrt(6 / (3136 + 1024))
    assert abs(w).max() < limit and abs(w).max() > 0.99 * limit and abs(w.std() - limit / np.sqrt(3)) < 1e-3 * limit
    assert np.array_equal(a.params["fc1"]["w"], w.astype(np.float32))
    assert not np.array_equal(a.params["fc1"]["w"], models.build("mnist", seed=4).params["fc1"]["w"])


def test_logits_do_not_depend_on_the_batch(backend):
    net = models.build("mnist", backend)
    x = np.random.default_rng(0).integers(0, 256, (13, 28, 28, 1), np.uint8)
    whole = net.logits(x)
    assert relative_error(net.logits(x, batch_size=4), whole) < 1e-5
    assert relative_error(net.forward(x)["fc2"], whole) < 1e-5
    assert net.logits(x[:0]).shape == (0, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_predictions_are_the_softmax_of_the_logits(backend, dtype):
    net = models.build("mnist", backend, dtype=dtype)
    net.params["fc2"]["b"][...] = net.ops.asarray(np.linspace(0, 700, 10))  # exp(700) is beyond float32
    x = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    found, logits = net.predict_proba(x), net.logits(x)
    assert found.dtype == dtype and found.shape == (5, 10)
    for row, values in zip(found, logits.tolist()):
        scaled = [math.exp(v - max(values)) for v in values]
        np.testing.assert_allclose(row, [v / math.fsum(scaled) for v in scaled], rtol=1e-6, atol=1e-30)
    assert net.predict(x).tolist() == [max(range(10), key=lambda c, row=row: row[c]) for row in logits]
    assert net.predict(x).dtype == np.int64 and net.predict(x[:0]).shape == (0,)
    np.testing.assert_allclose(net.predict_proba(x / 255), found, rtol=1e-3)


def test_photographs_from_0_to_255_as_floats_are_refused_where_photographs_come_in():
    net = models.build("mnist", "cpu")
    bright = X.astype(np.float32) + 2
    for call in (net.predict, net.predict_proba):
        with pytest.raises(InputError, match=r"images: whole numbers up to 2 as float32; .*images.astype\(np.uint8\)"):
            call(bright)
        call(bright - 1), call(bright + 0.5)  # black and white; a float image of another range
    assert net.logits(bright).shape == net.forward(bright)["fc2"].shape  # take any finite array


def test_the_summary_counts_what_the_network_holds():
    lines = small_net().summary().splitlines()
    head, first, *rows, total = ([c.strip() for c in re.split(r"\s{2,}", line)] for line in lines)
    assert head == ["layer", "output", "parameters", "receptive field"] and first == ["input", "23 x 17 x 2"]
    assert rows[0] == ["c1", "23 x 17 x 5", "95", "3 x 3"]  # 3 * 3 * 2 * 5 + 5
    assert rows[2] == ["p1", "12 x 9 x 5", "0", "5 x 5"] and rows[3] == ["c2", "12 x 9 x 7", "882", "13 x 13"]
    assert rows[-1][::3] == ["d", "23 x 17"] and [row[0] for row in rows] == small_net().layer_names
    assert int(total[1].replace(",", "")) == sum(int(row[2].replace(",", "")) for row in rows)
    assert total[0] == "total"


def test_traces_outlive_each_other():
    net = models.build("mnist", "cpu")
    x = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    first = net.forward(x)
    kept = first["fc2"].copy()
    net.forward(1 - x)
    seed = np.eye(10, dtype=np.float32)[[0, 1]]
    dx = net.backward(first, seed)
    assert np.array_equal(first["fc2"], kept) and np.array_equal(dx, net.backward(net.forward(x), seed))


def test_a_trace_whose_workspace_was_used_again_is_outdated_and_says_so():
    net, dy = models.build("mnist", "cpu"), np.zeros((2, 10))
    work = net.workspace()
    old, layered = net.forward(X, work=work), net.forward(X)
    kept = old["fc2"]
    fresh = net.forward(X + 9, work=work)
    calls = (net.backward, old, dy), (net.backward_each, old), (net.param_grads, old, dy), (old.__getitem__, "fc2")
    for call, *args in calls:
        with pytest.raises(InputError, match=r"this trace is outdated.*finish with a trace before the next pass"):
            call(*args)
    assert (kept == layered["fc2"]).all() and net.backward(fresh, dy).shape == net.backward(layered, dy).shape


def test_threads_that_share_a_workspace_get_right_answers_or_an_error():
    net = models.build("mnist", "cpu")
    work, images = net.workspace(), np.random.default_rng(0).random((8, 4, 28, 28, 1), np.float32)
    dy = np.ones((4, 10))
    right = [net.backward(net.forward(x), dy) for x in images]

    def one(i):
        try:
            return relative_error(net.backward(net.forward(images[i % 8], work=work), dy), right[i % 8])
        except InputError:
            return 0.0

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(one, range(64))) < FUSED["float32"]


def test_a_trace_shares_no_memory_with_what_the_caller_gave():
    net, dy = small_net(), np.ones((3, 5))
    x = np.random.default_rng(0).random((3, *net.input_shape))
    trace, buffer = net.forward(x), x.copy()
    before = net.backward(trace, dy), net.param_grads(trace, dy)["c1"]["w"].copy()
    x[...] = 0
    assert (net.backward(trace, dy) == before[0]).all() and (net.param_grads(trace, dy)["c1"]["w"] == before[1]).all()
    with pytest.raises(ValueError, match="read-only"):
        trace["r1"][...] = 0
    flat = Network([Flatten("f")], (2, 2, 1), backend="cpu")
    signal = np.ones((1, 4), np.float32)
    back = flat.backward(flat.forward(np.zeros((1, 2, 2, 1))), signal)
    signal[...] = 7
    assert (back == 1).all() and buffer.any()


class Halved(Dense):
    """Half of a dense layer, with a way back of its own."""

    def forward(self, ops, p, x, training=None):
        y, cache = super().forward(ops, p, x, training)
        return y / 2, cache

    def backward(self, ops, p, cache, dy, rule):
        return super().backward(ops, p, cache, dy, rule) / 2

    def grads(self, ops, p, cache, dy):
        return super().grads(ops, p, cache, dy / 2)


class Leaky(ReLU):
    """max(x, x / 4)."""

    def forward(self, ops, p, x, training=None):
        y = np.maximum(x, x / 4)
        return y, Cache(x, y)

    def backward(self, ops, p, cache, dy, rule):
        return np.where(cache.x > 0, dy, dy / 4)


@pytest.mark.parametrize("path", ["layers", "blocks"])
def test_a_subclass_of_a_layer_runs_its_own_methods_everywhere(path):
    """In logits, pictures, gradients and training: all see the override, none the class it was made from."""
    specs = [Conv2D("c", 3, 3), Leaky("r"), MaxPool2D("p", 2, 2), Flatten("f"), Halved("d", 4)]
    net, rng = Network(specs, (6, 6, 2), backend="cpu", dtype="float64"), np.random.default_rng(0)
    x, labels = rng.random((3, 6, 6, 2)) - 0.5, np.array([0, 1, 3])
    errors = gradcheck.check_network(net, x, labels)
    assert max(errors.values()) < NETWORK, errors
    trace = net.forward(x, work=None if path == "layers" else net.workspace())
    assert type(trace.steps["r"]) is Leaky and (net.logits(x) == trace["d"]).all()
    conv = net.ops.conv2d(x, *(net.params["c"][k] for k in "wb"))
    pooled = np.maximum(conv, conv / 4).reshape(3, 3, 2, 3, 2, 3).max((2, 4)).reshape(3, -1)
    assert relative_error(trace["d"], (pooled @ net.params["d"]["w"] + net.params["d"]["b"]) / 2) < FUSED["float64"]
    _, grads = losses.loss_and_grads(net, x, labels, Workspace(net.ops))
    _, _, expected = layered(net, x, labels)
    for layer, g in grads.items():
        for name, a in multiplied(net.ops, g).items():
            assert relative_error(a, expected[layer][name]) < FUSED["float64"]


@pytest.mark.parametrize("pads", [((0, 2), (2, 0)), ((1, 1), (0, 1)), ((2, 1), (1, 0))])
def test_any_padding_is_the_plain_one_of_an_image_with_borders(backend, pads):
    rng = np.random.default_rng(0)
    x = rng.random((2, 7, 8, 2))
    bordered = np.pad(x, ((0, 0), *pads, (0, 0)))
    for stride in (1, 2):
        own = Network(
            [Conv2D("c", 4, 3, stride, pads), ReLU("r"), MaxPool2D("p", 2, 2)],
            x.shape[1:],
            backend=backend,
            dtype="float64",
        )
        plain = Network(
            [Conv2D("c", 4, 3, stride, "VALID"), ReLU("r"), MaxPool2D("p", 2, 2)],
            bordered.shape[1:],
            backend=backend,
            dtype="float64",
        )
        assert own.shapes == plain.shapes
        dy, (top, left) = rng.random((2, *own.shapes["p"])), (pads[0][0], pads[1][0])
        for path in (lambda net: None, Network.workspace):
            a, b = own.forward(x, work=path(own)), plain.forward(bordered, work=path(plain))
            assert relative_error(a["p"], b["p"]) < FUSED["float64"]
            inside = plain.backward(b, dy)[:, top : top + 7, left : left + 8]
            assert relative_error(own.backward(a, dy), inside) < FUSED["float64"]
            grads, expected = own.param_grads(a, dy)["c"], plain.param_grads(b, dy)["c"]
            assert all(
                relative_error(own.ops.to_numpy(grads[k]), own.ops.to_numpy(expected[k])) < FUSED["float64"]
                for k in "wb"
            )


def test_what_explains_the_algorithms_names_every_step_and_its_reason():
    lines = models.build("cifar10", "cpu").explain().splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["conv1", "relu1", "pool1"], ["conv2", "relu2", "pool2"]]
    assert "Winograd" in lines[2] and lines[0].split()[-1] == "because"


ODD = {  # arrays of the right numbers in every way that NumPy has
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "Fortran": np.asfortranarray,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "list": np.ndarray.tolist,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("kind", ODD)
def test_assigned_parameters_of_any_dtype_and_order_are_used_as_numbers(backend, kind):
    net, dy = small_net(backend, "float32"), np.ones((2, 5))
    x = np.random.default_rng(0).random((2, *net.input_shape), np.float32)
    arrays = {layer: {k: net.ops.to_numpy(a) for k, a in p.items()} for layer, p in net.params.items()}
    if kind == "float16":
        arrays = {
            layer: {k: a.astype(np.float16).astype(np.float32) for k, a in p.items()} for layer, p in arrays.items()
        }

    def results():
        trace = net.forward(x, work=net.workspace())
        return net.logits(x), net.backward(trace, dy), net.ops.to_numpy(net.param_grads(trace, dy)["c1"]["w"])

    for layer, p in arrays.items():
        net.params[layer] = dict(p)
    expected = results()
    for layer, p in arrays.items():
        net.params[layer] = {k: ODD[kind](a) for k, a in p.items()}
    assert all((a == e).all() for a, e in zip(results(), expected))
    before = net.logits(x)
    optim.step(
        net.ops,
        optim.SGD(0.1),
        net.params,
        net.param_grads(net.forward(x), dy),
        optim.SGD().init(net.ops, net.params),
        1,
    )
    assert (net.logits(x) != before).any()  # the arrays that are used are those that learn


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda p: p["c2"].update(w=p["c2"]["w"].transpose(3, 2, 0, 1).copy()),
            r"params\['c2'\]\['w'\] must be numbers",
        ),
        (lambda p: p["d"].update(b=np.zeros(6)), r"params\['d'\]\['b'\].*shape \(5,\), got shape \(6,\)"),
        (lambda p: p["d"].update(b=None), "must be numbers"),
        (lambda p: p["d"].update(b=np.array(["a"] * 5)), "must be numbers"),
        (lambda p: p["d"].update(b=np.zeros(5) * 1j), "must be numbers"),
        (lambda p: p["d"].update(b=np.zeros((5, 1))), "shape"),
        (lambda p: p["d"].pop("b"), r"params\['d'\] must hold w, b, got w"),
        (lambda p: p["d"].update(c=p["d"]["b"]), "must hold w, b"),
        (lambda p: p.pop("c1"), "params must hold the layers c1, c2"),
        (lambda p: p.update(r1={}), "params must hold the layers"),
        (lambda p: setattr(p["d"]["w"], "shape", p["d"]["w"].shape[::-1]), "must be numbers of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
def test_parameters_that_do_not_fit_are_refused_by_name_before_any_kernel_sees_them(change, message):
    net, x, dy = small_net("cpu", "float32"), np.zeros((2, 23, 17, 2), np.float32), np.ones((2, 5))
    trace, images = net.forward(x), np.zeros((4, 23, 17, 2), np.uint8)
    change(net.params)
    for call, *args in (
        (net.logits, x),
        (net.forward, x),
        (net.backward, trace, dy),
        (net.param_grads, trace, dy),
        (net.save, "never"),
        (train.fit, net, images, [0, 1, 2, 3]),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call(*args, **({"steps": 1, "batch_size": 2, "progress": False} if call is train.fit else {}))
        assert "\n" not in str(caught.value)


def test_an_empty_batch_gives_empty_answers(backend):
    net, none = small_net(backend), np.zeros((0, 23, 17, 2))
    assert net.logits(none).shape == net.forward(none)["d"].shape == (0, 5)
    assert net.features(none, "p1").shape == (0, *net.shapes["p1"])


def test_features_are_the_layers_outputs_in_batches_of_any_size(backend):
    net, x = small_net(backend), np.random.default_rng(0).random((5, 23, 17, 2))
    trace = net.forward(x)
    for layer in ("r1", "p2", "c3", "d"):
        for size in (2, 100):
            assert relative_error(net.features(x, layer, batch_size=size), trace[layer]) < FUSED["float64"]


def test_numpys_numbers_are_numbers(tmp_path):
    specs = [Conv2D("c", np.int64(4), np.int32(3), (np.int8(1), 1)), Flatten("f"), Dropout("o", np.float32(0.5))]
    meta = {"n": np.int64(1), "x": np.float32(0.5)}
    net = Network([*specs, Dense("d", np.uint8(2))], np.array([4, 4, 1]), seed=np.int64(3), meta=meta)
    net.save(tmp_path / "n.safetensors")
    again = Network.load(tmp_path / "n.safetensors")
    assert again.layers == net.layers and again.meta == {"n": 1, "x": 0.5}


def test_dropout_works_in_training_alone():
    net = models.build("mnist", "cpu", dropout=0.5)
    x = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    assert np.array_equal(net.forward(x)["fc2"], net.forward(x)["fc2"])
    dropped = net.forward(x, training=np.random.default_rng(0))["dropout"]
    assert 0.3 < (dropped == 0)[net.forward(x)["relu3"] > 0].mean() < 0.7


def test_receptive_field_is_where_the_input_matters():
    """The field of a unit, found by perturbing pixels, lies where the arithmetic says."""
    specs = [Conv2D("c1", 2, 5), MaxPool2D("p1", 3, 2), Conv2D("c2", 2, 3), MaxPool2D("p2", 2, 2)]
    net = Network(specs, (24, 24, 1), backend="reference", dtype="float64")
    (size, _), (stride, _), (offset, _) = net.receptive_field("p2")
    unit, rng = (3, 2), np.random.default_rng(0)
    seen = np.zeros((24, 24), bool)
    for _ in range(20):  # a pool shows a change only where it wins: several images
        trace = net.forward(rng.standard_normal((1, 24, 24, 1)))
        seed = np.zeros_like(trace["p2"])
        seed[0, unit[0], unit[1]] = rng.standard_normal(2)
        seen |= net.backward(trace, seed)[0, ..., 0] != 0
    rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
    for found, i in ((rows, unit[0]), (columns, unit[1])):
        assert found[0] == max(0, offset + stride * i) and found[-1] == min(23, offset + stride * i + size - 1)


X = np.zeros((2, 28, 28, 1), np.uint8)


def fast(net):
    """A trace of the fast path."""
    return net.forward(X, work=net.workspace())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net: net.logits(X[0]), r"shape \(N, H, W, C\).*leading axis"),
        (lambda net: net.logits(np.zeros((1, 32, 32, 3), np.uint8)), r"\(28, 28, 1\), got \(32, 32, 3\)"),
        (lambda net: net.logits(X.astype(int)), "uint8 or float, got int64"),
        (lambda net: net.logits(np.full((1, 28, 28, 1), np.nan)), "image 0 holds NaN"),
        (lambda net: net.forward(X, upto="conv9"), "unknown layer 'conv9'.*conv1, relu1"),
        (lambda net: net.logits(X, batch_size=0), "batch_size"),
        (lambda net: Network([Conv2D("c", 3)], (28, 28, 1)).predict(X), "'c' gives maps, not a value a class"),
        (lambda net: net.predict(X[0]), "leading axis"),
        (lambda net: net.forward(X, upto="pool3"), "unknown layer"),
        (lambda net: net.forward(X, upto="relu1")["fc2"], "no layer 'fc2'.*conv1, relu1"),
        (lambda net: net.backward(net.forward(X), np.zeros((2, 9))), r"shape \(2, 10\), got \(2, 9\)"),
        (lambda net: net.backward(net.forward(X), np.zeros((2, 10)), rule="relu"), "unknown rule 'relu'.*deconvnet"),
        (lambda net: net.backward(net.forward(X), np.zeros((2, 10)), unpool="max"), "unknown unpool"),
        (lambda net: net.backward(fast(net), np.zeros((2, 10)), rule=["guided"]), "unknown rule"),
        (lambda net: net.backward(fast(net), np.zeros((2, 10)), rule=Rule(unpool="max")), "unknown unpool 'max'"),
        (lambda net: fast(net)["relu1"], "no layer 'relu1'.*pool1, pool2"),
        (lambda net: net.backward_each(fast(net), at="relu1"), "no layer 'relu1'"),
        (lambda net: models.build("vgg"), "unknown model 'vgg'.*mnist, cifar10, stl10"),
        (lambda net: Network([Dense("d", 3)], (4, 4, 1)), "put a Flatten before it"),
        (lambda net: Network([Flatten("f"), Conv2D("c", 3)], (4, 4, 1)), "takes images"),
        (lambda net: Network([Conv2D("c", 3, 5, 1, "VALID")], (4, 4, 1)), "does not fit"),
        (lambda net: Network([ReLU("r"), ReLU("r")], (4, 4, 1)), r"repeated: \['r'\]"),
        (lambda net: Network([ReLU("r")], (4, 4)), "input_shape"),
        (
            lambda net: Conv2D("c", 3, padding="FULL"),
            r"padding must be SAME, VALID or \(\(top, bottom\), \(left, right\)\)",
        ),
        (lambda net: Conv2D("c", 3, 3, padding=((3, 0), (0, 0))), r"each smaller than the window \(3, 3\)"),
        (lambda net: MaxPool2D("p", 2, padding=(1, 1)), "padding must be"),
        (lambda net: MaxPool2D("p", 2, padding=((0, 0.5), (0, 0))), "padding must be"),
        (lambda net: Conv2D("c", 3, kernel=0), "whole numbers of at least 1"),
        (lambda net: Conv2D("c", 3, kernel=3.0), "kernel must be one or two whole numbers"),
        (lambda net: Conv2D("c", 3, kernel=True), "whole numbers"),
        (lambda net: Conv2D("c", 3, kernel=(3, 3, 3)), "one or two"),
        (lambda net: Conv2D("c", 0), "'c': filters must be a whole number of at least 1, got 0"),
        (lambda net: Conv2D("c", 2.0), "filters must be a whole number"),
        (lambda net: Dense("d", -3), "'d': units must be a whole number"),
        (lambda net: Dense("d", "5"), "units must be a whole number"),
        (lambda net: Dropout("o", "half"), "rate must be a number"),
        (lambda net: Network([Flatten("f")], (4.7, 4, 1)), "input_shape must be"),
        (lambda net: Network([Flatten("f")], (4, 4, 1), seed=-1), "seed"),
        (lambda net: Network([Flatten("")], (4, 4, 1)), "at least one letter"),
        (lambda net: net.logits(np.full((1, 28, 28, 1), 1e300)), r"x: values up to 1e\+300, beyond what float32 holds"),
        (lambda net: net.logits(X, batch_size=2.5), "batch_size: expected a whole number"),
        (lambda net: MaxPool2D("p", 17), "at most 256"),
        (lambda net: Dropout("o", 1.0), r"number in \[0, 1\)"),
        (lambda net: AvgPool2D("a", 2, padding=((2, 0), (0, 0))), r"'a': padding must be .*smaller than the window"),
        (lambda net: AvgPool2D("a", count_padding="no"), "'a': count_padding must be True or False, got 'no'"),
        (lambda net: Network([Flatten("f"), GlobalAvgPool2D("g")], (4, 4, 1)), r"'g' takes images \(H, W, C\)"),
        (lambda net: Network([AvgPool2D("a", 5, 1, "VALID")], (4, 4, 1)), "'a': a 5x5 window does not fit"),
        (lambda net: BatchNorm("b", -1e-3), "'b': epsilon must be a number of at least 0, got -0.001"),
        (lambda net: BatchNorm("b", math.inf), "epsilon must be a number"),
        (lambda net: Normalize("n", 0.5, 0), "'n': std must be numbers above 0, one for all or one a channel, got 0"),
        (lambda net: Normalize("n", (0.5, math.nan), 1), "'n': mean must be finite numbers"),
        (lambda net: Normalize("n", [], 1), "mean must be finite numbers"),
        (lambda net: Normalize("n", [[0.1], [1, 2]], 1), "mean must be finite numbers"),
        (lambda net: Normalize("n", "grey", 10**400), "mean must be finite numbers"),
        (lambda net: Network([Normalize("n", (0, 0), 1)], (4, 4, 3)), "'n': mean has 2 numbers, its input 3 channels"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(models.build("mnist", "cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_computes_like_its_parent():
    """It has none of the threads that its parent's kernels share."""
    net, x = models.build("mnist", backend="cpu"), np.random.default_rng(0).random((60, 28, 28, 1), np.float32)
    logits, fork = net.logits(x), multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: send.send(net.logits(x)), daemon=True)
    child.start()
    assert receive.poll(60), "the child hangs"
    assert (receive.recv() == logits).all()
    child.join()
