"""The engine against PyTorch copies of its networks: logits and the gradient of every parameter."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch_copy import copy_network, grads_to_ours, to_torch  # noqa: E402

from tinycnn import data, fused, models, train  # noqa: E402
from tinycnn.gradcheck import relative_error  # noqa: E402

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
        paths.append(fused.loss_and_grads(net, net.ops.from_images(x), labels, fused.Workspace(net.ops))[1])
    for grads in paths:
        for layer, gradients in grads.items():
            for name, g in gradients.items():
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
