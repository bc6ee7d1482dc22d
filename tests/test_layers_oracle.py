"""Average pools, batch normalization, normalized input and All-CNN-C against PyTorch, Captum and zennit.

As in test_attribution_oracle.py; and of these layers:

- Captum's LRP and ours take a batch normalization as a linear layer of its own; zennit hands relevance on there, or,
  with its canonizers, merges it into the convolution before: that is `Network.folded`. What zennit leaves of the merged
  layer still divides by sqrt(1 + its eps), so that the network is another: held to at an eps of nearly 0.
- zennit's rule Norm at average pools is epsilon, with its stabilizer, in every composite.
- Neither has a rule for a layer that normalizes the input: relevance is held to theirs of normalized images.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
from test_attribution_oracle import ZENNIT, close, zennit, zennits  # noqa: E402, F401
from test_layers import MEAN, STD, filled  # noqa: E402
from torch_copy import copy_network, grads_to_ours, to_ours, to_torch  # noqa: E402

from tinycnn import Network, models  # noqa: E402
from tinycnn.gradcheck import relative_error  # noqa: E402
from tinycnn.layers import (  # noqa: E402
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    MaxPool2D,
    Normalize,
    ReLU,
)
from viz import deconvnet  # noqa: E402
from viz.attribution import METHODS, cam, gradients, relevance  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings(
        "ignore:Setting .*hooks", "ignore:Input Tensor 0 did not", "ignore:.*full backward hook"
    ),
]
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
N, TARGET = 3, 2


def small(dtype="float64", norms=True, eps=(1e-3, 0.1)):
    """Every new layer, and what PyTorch has in its own way: means whose padding counts and whose does not."""
    specs = [
        *(Normalize("n", MEAN, STD), Conv2D("c1", 6, 3, padding="VALID"), BatchNorm("b1", eps[0]), ReLU("r1")),
        *(AvgPool2D("a1", 3, 2), Conv2D("c2", 8, 3), BatchNorm("b2", eps[1]), ReLU("r2"), MaxPool2D("p2", 2, 2)),
        *(AvgPool2D("a2", (2, 3), 1, ((1, 1), (1, 1)), True), Conv2D("c3", 5, (1, 3), padding=((0, 0), (1, 0)))),
        *(ReLU("r3"), GlobalAvgPool2D("g"), Dense("d", 4), BatchNorm("b4", eps[0])),
    ]
    specs = [layer for layer in specs if norms or not isinstance(layer, BatchNorm)]
    return filled(Network(specs, (15, 13, 3), backend="cpu", dtype=dtype))


def all_cnn(dtype):
    return filled(models.build("all-cnn", "cpu", dtype=dtype), 0.05)


NETS = {"small": small, "all-cnn": all_cnn}


@pytest.fixture(params=[(name, dtype) for name in NETS for dtype in TOLERANCE], ids="-".join)
def case(request):
    """A network, its copy, images in its dtype, the same as a tensor."""
    name, dtype = request.param
    net = NETS[name](dtype)
    x = np.random.default_rng(1).random((N, *net.input_shape)).astype(dtype)
    return net, copy_network(net), x, to_torch(x, dtype).requires_grad_()


def test_every_layers_output_is_pytorchs(case):
    net, module, x, t = case
    trace = net.forward(x)
    for name, layer in module.named_children():
        t = layer(t)
        if name in net.layer_names and name != "g" and name != "mean":
            assert relative_error(trace[name], to_ours(t)) < TOLERANCE[net.dtype.name], name
    assert relative_error(net.logits(x), to_ours(t)) < TOLERANCE[net.dtype.name]
    assert relative_error(net.folded().logits(x), to_ours(t)) < 10 * TOLERANCE[net.dtype.name]


@pytest.mark.parametrize("name", NETS)
def test_parameter_gradients_are_pytorchs(name):
    net = small(norms=False) if name == "small" else all_cnn("float64")
    x, labels = np.random.default_rng(1).random((N, *net.input_shape)), np.array([0, 3, 1])
    module, trace = copy_network(net), net.forward(x)
    torch.nn.functional.cross_entropy(module(to_torch(x, "float64")), torch.tensor(labels)).backward()
    _, dlogits = net.ops.softmax_cross_entropy(trace.outputs[trace.upto], labels)
    expected = grads_to_ours(module, net)
    for layer, grads in net.param_grads(trace, dlogits).items():
        for k, g in grads.items():
            assert relative_error(g, expected[layer][k]) < 1e-10, (layer, k)


def test_gradients_guided_backprop_and_the_deconvnet_are_captums(case):
    net, module, x, t = case
    close(gradients.gradient(net, x, TARGET), attr.Saliency(module).attribute(t, TARGET, abs=False), net)
    close(gradients.input_x_gradient(net, x, TARGET), attr.InputXGradient(module).attribute(t, TARGET), net)
    close(gradients.guided_backprop(net, x, TARGET), attr.GuidedBackprop(module).attribute(t, TARGET), net)
    close(gradients.deconvnet(net, x, TARGET), attr.Deconvolution(module).attribute(t, TARGET), net)
    layer = next(layer.name for layer in net.layers if isinstance(layer, ReLU))
    expected = attr.LayerGradCam(module, getattr(module, layer)).attribute(t, TARGET, relu_attributions=True)
    enlarged = attr.LayerAttribution.interpolate(expected, net.input_shape[:2], "bilinear")
    close(cam.grad_cam(net, x, TARGET, layer), enlarged, net)


class Rectified(torch.autograd.Function):
    """A ReLU that goes back as the deconvnet's, or, masked, as guided backpropagation's."""

    @staticmethod
    def forward(ctx, a, mask):
        ctx.on = a > 0 if mask else torch.ones_like(a)
        return a.clamp(min=0)

    @staticmethod
    def backward(ctx, dy):
        return dy.clamp(min=0) * ctx.on, None


@pytest.mark.parametrize("layer, rule", [("relu6", "guided"), ("relu6", "deconvnet"), ("relu3", "guided")])
def test_maps_of_all_cnn_go_back_as_in_the_papers_figures(layer, rule):
    """The strongest map alone, started with its activations: by autograd, with ReLUs that rectify on their way back."""
    net, x = all_cnn("float64"), np.random.default_rng(1).random((2, 32, 32, 3))
    ours, units = deconvnet.project(net, x, layer, rule=rule)
    t = y = to_torch(x, "float64").requires_grad_()
    for name, module in copy_network(net).named_children():
        y = Rectified.apply(y, rule == "guided") if isinstance(module, torch.nn.ReLU) else module(y)
        if name == layer:
            break
    assert (units == to_ours(y).sum((1, 2)).argmax(1)).all()
    kept = torch.zeros_like(y)
    kept[range(2), units] = y[range(2), units].detach()
    close(ours, torch.autograd.grad(y, t, kept)[0], net)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_deeplift_and_the_path_integral_are_captums(dtype):
    net = small(dtype)
    rng = np.random.default_rng(1)
    x, x0 = rng.random((N, *net.input_shape)).astype(dtype), (0.3 * rng.random((N, *net.input_shape))).astype(dtype)
    module, (t, t0) = copy_network(net), (to_torch(a, dtype) for a in (x, x0))
    close(relevance.deeplift(net, x, TARGET, x0), attr.DeepLift(module).attribute(t, t0, target=TARGET), net)
    expected = attr.IntegratedGradients(module).attribute(t, t0, target=TARGET, n_steps=20, method="gausslegendre")
    close(METHODS["integrated_gradients"](net, x, TARGET, 20, x0), expected, net, 1e-3 if dtype == "float32" else 1e-6)


def bare(net):
    """The network behind its Normalize, and its images."""
    found = Network(net.layers[1:], net.input_shape, backend="cpu", dtype=net.dtype.name)
    found.params = net.params
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_relevance_by_epsilon_is_captums(dtype):
    """At average pools and batch normalizations too, as layers of their own."""
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    net = small(dtype)
    x = np.random.default_rng(1).random((N, *net.input_shape)).astype(dtype)
    module, normalized = copy_network(bare(net)), ((x - MEAN) / STD).astype(dtype)
    shares = [layer.name for layer in net.layers if isinstance(layer, relevance.LINEAR)]
    for layer, own in module.named_children():
        own.rule = rules.EpsilonRule(1e-6 if layer in shares else 1e-30)
    expected = attr.LRP(module).attribute(to_torch(normalized, dtype).requires_grad_(), target=TARGET)
    close(relevance.lrp(net, x, TARGET, epsilon=1e-6), expected, net)


@pytest.mark.parametrize("ours", ZENNIT)
def test_composites_of_the_folded_network_are_zennits_with_its_canonizer(ours, zennit):  # noqa: F811
    from zennit import canonizers, composites

    kind, options = ZENNIT[ours]
    net, x = small(eps=(1e-13, 1e-13)), np.random.default_rng(1).random((N, 15, 13, 3))
    inner, normalized = bare(net), (x - MEAN) / STD
    if "low" in options:
        box = (np.stack([np.zeros(3), np.ones(3)]) - MEAN) / STD
        options = dict(zip(("low", "high"), box.reshape(2, 1, 3, 1, 1)))
    options = {k: torch.tensor(v, dtype=torch.float64) for k, v in options.items()}
    start = torch.zeros(N, 4, dtype=torch.float64)
    start[:, TARGET] = torch.tensor(net.logits(x)[:, TARGET])
    composite = getattr(composites, kind)(**options, canonizers=[canonizers.SequentialMergeBatchNorm()])
    expected = zennits(copy_network(inner), normalized, composite, start)
    close(relevance.lrp(net.folded(), x, TARGET, ours), expected, net)


@pytest.mark.parametrize("ours", ["epsilon_plus", "epsilon_gamma_box", "excitation"])
def test_relevance_of_all_cnn_is_zennits(ours, zennit):  # noqa: F811
    from zennit import composites

    net, x = all_cnn("float64"), np.random.default_rng(1).random((2, 32, 32, 3))
    target, module = net.predict(x), copy_network(net)
    module.conv1.padding, module.conv1_pad = (1, 1), torch.nn.Identity()  # so that the box sees the same pixels
    start = np.eye(10)[target] * (1 if ours == "excitation" else net.logits(x))
    if ours == "excitation":
        composite = composites.ExcitationBackprop(zero_params="bias")
        found = relevance.excitation_backprop(net, x, target, epsilon=1e-6)
    else:
        kind, options = ZENNIT[ours]
        options = {k: torch.tensor(v, dtype=torch.float64) for k, v in options.items()}
        composite, found = getattr(composites, kind)(**options), relevance.lrp(net, x, target, ours)
    close(found, zennits(module, x, composite, torch.tensor(start)), net)
