"""The engine against PyTorch copies of its networks: logits and the gradient of every parameter."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch_copy import copy_network, grads_to_ours, to_ours, to_torch  # noqa: E402

from tinycnn import Network, data, losses, models, train  # noqa: E402
from tinycnn.gradcheck import relative_error  # noqa: E402
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU, multiplied  # noqa: E402
from tinycnn.ops.workspace import Workspace  # noqa: E402
from tinycnn.rules import RULES, Rule  # noqa: E402

pytestmark = pytest.mark.oracle
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def batch(net, N=4):
    rng = np.random.default_rng(0)
    return rng.random((N, *net.input_shape)), rng.integers(0, 10, N)


def trained(model, dtype):
    """A network after some real training: 30 steps on the embedded images of its size."""
    net = models.build(model, "cpu", dtype=dtype)
    if model == "mnist":
        images, labels = data.demo.digits("train")
    else:
        images, labels, _ = data.demo.shapes("train", size=net.input_shape[0], n=100)
    steps = 5 if model == "stl10" else 30
    train.fit(net, images[:100], labels[:100], steps=steps, batch_size=20, lr=1e-3, progress=False, eval_every=1000)
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("model", ["mnist", "cifar10", "stl10"])
def test_logits_and_parameter_gradients_are_pytorchs(model, weights, dtype):
    net = models.build(model, "cpu", dtype=dtype) if weights == "random" else trained(model, dtype)
    x, labels = batch(net, 2 if model == "stl10" else 4)
    module = copy_network(net)
    logits = module(to_torch(x, dtype))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    expected = grads_to_ours(module, net)

    trace = net.forward(x)
    ours, dlogits = net.ops.softmax_cross_entropy(trace.outputs[trace.upto], labels)
    assert relative_error(trace[trace.upto], logits.detach().numpy()) < TOLERANCE[dtype]
    assert abs(ours - loss.item()) < TOLERANCE[dtype] * abs(ours)
    paths = [net.param_grads(trace, dlogits)]
    if (
        dtype == "float64"
    ):  # in float32 a near-tie of a pool may fall either way: test_engine.py compares at equal switches
        paths.append(losses.loss_and_grads(net, net.ops.from_images(x), labels, Workspace(net.ops))[1])
    for grads in paths:
        for layer, gradients in grads.items():
            for name, g in multiplied(net.ops, gradients).items():
                assert relative_error(g, expected[layer][name]) < TOLERANCE[dtype], (layer, name)


def test_three_steps_of_adam_are_pytorchs():
    net = models.build("mnist", "cpu", dtype="float64")
    x, labels = batch(net, 10)
    module = copy_network(net)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    images = (x * 255).astype(np.uint8)
    labels = np.arange(10)
    train.fit(net, images, labels, steps=3, batch_size=10, lr=1e-3, progress=False)  # every batch is all ten images
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(to_torch(images, "float64")), torch.tensor(labels)).backward()
        optimizer.step()
    copy = copy_network(net)
    for a, b in zip(copy.parameters(), module.parameters()):
        assert (
            relative_error(a.detach().numpy(), b.detach().numpy()) < 1e-7
        )  # Adam divides tiny gradients by themselves


# -- rules of other methods, by functions for each kind of layer ----------------------------------------------


def small_net(pool="VALID"):
    specs = [
        *(Conv2D("c1", 6, 3, padding="VALID"), ReLU("r1"), MaxPool2D("p1", 2, 2, pool)),
        *(Conv2D("c2", 5, 3, padding="VALID"), ReLU("r2")),
        *(Flatten("f"), Dense("d1", 12), ReLU("r3"), Dense("d2", 4)),
    ]
    net, rng = Network(specs, (10, 8, 2), backend="cpu", dtype="float64"), np.random.default_rng(0)
    for p in net.params.values():
        p["b"][...] = 0.1 * rng.standard_normal(p["b"].shape)
    return net


def both_paths(net, x):
    yield net.forward(x)
    yield net.forward(x, work=net.workspace())


def test_a_relevance_rule_for_each_kind_of_layer_is_captums_epsilon():
    """Bach et al. 2015 (PLOS ONE 10), equation 58: R = x * adjoint(R / (z + epsilon sign z)); ReLUs hand it on."""
    attr = pytest.importorskip("captum.attr")
    net, epsilon = small_net(), 1e-9  # Captum's, which it adds where a layer only hands on as well
    module = copy_network(net)
    module.f.rule = pytest.importorskip("captum.attr._utils.lrp_rules").EpsilonRule()

    def linear(ops, layer, p, cache, R):
        z = cache.y + np.where(cache.y < 0, -epsilon, epsilon)
        return cache.x * layer.backward(ops, p, cache, R / z, RULES["gradient"])

    rule = Rule(relu=lambda ops, layer, p, cache, R: R, linear=linear)
    x = np.random.default_rng(1).random((3, *net.input_shape))
    expected = attr.LRP(module).attribute(to_torch(x, "float64").requires_grad_(), target=2)
    for trace in both_paths(net, x):
        R = np.zeros((3, 4))
        R[:, 2] = trace["d2"][:, 2]
        assert relative_error(net.backward(trace, R, rule=rule), to_ours(expected)) < 1e-6


@pytest.mark.filterwarnings("ignore:Setting .*hooks", "ignore:Input Tensor 0 did not")
def test_deeplifts_rescale_rule_walks_one_batch_of_images_and_baselines_and_is_captums():
    """Shrikumar et al. 2017, arXiv:1704.02685; for the maximum as its authors' code and Captum do."""
    attr = pytest.importorskip("captum.attr")
    net, N = small_net("SAME"), 3  # Captum loses relevance where a pool follows a ReLU: a padding module stands between

    def differences(a):
        return np.concatenate(2 * [a[:N] - a[N:]])

    def relu(ops, layer, p, cache, dy):
        dx, change = differences(cache.x), differences(cache.y)
        usual = layer.backward(ops, p, cache, dy, RULES["gradient"])
        return np.where(abs(dx) < 1e-10, usual, dy * change / np.where(dx == 0, 1, dx))

    def pool(ops, layer, p, cache, dy):
        dx, (y, y0) = differences(cache.x), np.split(cache.y, 2)
        most = np.maximum(y, y0)
        usual, moved = (
            layer.backward(ops, p, cache, signal, RULES["gradient"])
            for signal in (dy, dy * np.concatenate([most - y0, y - most]))
        )
        total = np.concatenate(2 * [moved[:N] + moved[N:]])
        return np.where(abs(dx) < 1e-10, usual, total / np.where(dx == 0, 1, dx))

    rng = np.random.default_rng(2)
    x, baseline = rng.random((N, *net.input_shape)), 0.3 * rng.random((N, *net.input_shape))
    method = attr.DeepLift(copy_network(net))
    expected = method.attribute(to_torch(x, "float64"), to_torch(baseline, "float64"), target=1)
    both = np.concatenate([x, baseline])
    for trace in both_paths(net, both):
        dy = np.zeros((2 * N, 4))
        dy[:, 1] = 1
        found = net.backward(trace, dy, rule=Rule(relu=relu, pool=pool))[:N] * (x - baseline)
        assert relative_error(found, to_ours(expected)) < 1e-9
        logits = net.logits(both)[:, 1]
        assert relative_error(found.sum((1, 2, 3)), logits[:N] - logits[N:]) < 1e-9  # nothing is lost
