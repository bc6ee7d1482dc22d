"""Attribution against Captum and zennit on PyTorch copies, relative in the L2 norm; differences of convention.

- Signs are kept: Captum's Saliency takes absolute values unless told otherwise.
- Noise: ours has a share of each image's own range, Captum's NoiseTunnel one absolute deviation for all. Same draws.
- Grad-CAM: Captum's has no ReLU unless told otherwise; guided Grad-CAM enlarges by nearest neighbours unless told so.
- Integrated gradients, occlusion, Shapley values: Captum rounds weights or sums to float32, whatever the network has;
  here it is kept from that (`exact`).
- Shapley values: Captum gives each pixel all of its cell's value, ours an equal share, so that a map adds up.
- LRP: zennit adds its stabilizer to every denominator as ours adds epsilon (to 0 as to positive ones). It starts with a
  signal, ours with the score. Captum does not multiply the bias by gamma, zennit and ours do; Captum's alpha 1, beta 0
  takes all of the bias, ours its positive part. Captum's rules also sit on layers that only hand on.
- DeepLIFT: Captum's unpooling assigns where windows overlap and loses relevance; it is held to where they do not.
- w-square and excitation have no bias, as in their papers; zennit's keep it unless told otherwise.
- z-box and flat rules: where zeros are padded, ours sees no pixel; a padding module before the convolution would.
"""

import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
attr = pytest.importorskip("captum.attr")
from torch_copy import copy_network, to_ours, to_torch  # noqa: E402

from tinycnn import Network, models  # noqa: E402
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU  # noqa: E402
from viz.attribution import METHODS, cam, gradients, perturbation, relevance  # noqa: E402

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings(
        "ignore:Setting .*hooks", "ignore:Input Tensor 0 did not", "ignore:.*full backward hook"
    ),
]
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}
N, TARGET = 3, 2


def with_biases(net, scale=0.1):
    rng = np.random.default_rng(0)
    for p in net.params.values():
        p["b"][...] = scale * rng.standard_normal(p["b"].shape)
    return net


def small(dtype="float64", overlapping=True):
    """Two blocks, of which the first convolution does not pad; pools overlap, or (window 2) need no padding module."""
    pool = (3, 2) if overlapping else (2, 2)
    specs = [
        *(Conv2D("conv1", 6, 3, padding="VALID"), ReLU("relu1"), MaxPool2D("pool1", *pool)),
        *(Conv2D("conv2", 5, 3), ReLU("relu2"), MaxPool2D("pool2", *pool)),
        *(Flatten("flatten"), Dense("fc1", 12), ReLU("relu3"), Dense("fc2", 4)),
    ]
    return with_biases(Network(specs, (14, 10, 3), backend="cpu", dtype=dtype))


@pytest.fixture(params=["small", "mnist"])
def name(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def case(request, name):
    """A network, its copy, images in its dtype, the same as a tensor."""
    dtype = request.param
    net = small(dtype) if name == "small" else with_biases(models.build("mnist", "cpu", dtype=dtype), 0.05)
    x = np.random.default_rng(1).random((N, *net.input_shape)).astype(dtype)
    return net, copy_network(net), x, to_torch(x, dtype).requires_grad_()


def close(ours, expected, net, tolerance=None):
    expected = to_ours(expected) if isinstance(expected, torch.Tensor) else expected
    expected = np.broadcast_to(expected, ours.shape)
    norm = np.linalg.norm(expected)
    assert norm > 0 and np.isfinite(norm), "the oracle's map is empty: the case says nothing"
    assert np.linalg.norm(ours.astype(np.float64) - expected) <= (tolerance or TOLERANCE[net.dtype.name]) * norm


def test_gradients_are_captums(case):
    net, module, x, t = case
    close(gradients.gradient(net, x, TARGET), attr.Saliency(module).attribute(t, TARGET, abs=False), net)
    close(gradients.input_x_gradient(net, x, TARGET), attr.InputXGradient(module).attribute(t, TARGET), net)
    close(gradients.guided_backprop(net, x, TARGET), attr.GuidedBackprop(module).attribute(t, TARGET), net)
    close(gradients.deconvnet(net, x, TARGET), attr.Deconvolution(module).attribute(t, TARGET), net)
    each = [0, 3, 1]
    close(gradients.gradient(net, x, each), attr.Saliency(module).attribute(t, torch.tensor(each), abs=False), net)


def test_gradients_of_a_unit_and_of_a_map_are_captums(case):
    net, module, x, t = case
    neuron = attr.NeuronGradient(module, module.conv2)
    close(gradients.gradient(net, x, ("conv2", 1, (2, 1))), neuron.attribute(t, (1, 2, 1)), net)
    close(gradients.gradient(net, x, ("conv2", 1)), neuron.attribute(t, lambda y: y[:, 1].sum((1, 2))), net)


@pytest.mark.parametrize("kind", ["smoothgrad", "vargrad", "smoothgrad_sq"])
def test_noise_methods_with_the_same_draws_are_captums(case, kind, monkeypatch):
    net, module, x, t = case
    draws = np.stack([gradients.noise(net, k, seed=5) for k in range(7)])
    monkeypatch.setattr(torch, "normal", lambda mean, std: to_torch(draws, net.dtype.name) * std)
    expected = [
        attr.NoiseTunnel(attr.Saliency(module)).attribute(
            t[n : n + 1], nt_type=kind, nt_samples=7, stdevs=0.2 * float(np.ptp(x[n])), target=TARGET, abs=False
        )
        for n in range(N)
    ]
    close(METHODS[kind](net, x, TARGET, samples=7, sigma=0.2, seed=5), torch.cat(expected), net)


@pytest.fixture
def exact(monkeypatch):
    """Captum's casts to float32 keep what they get: in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float", torch.float64)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_integrated_gradients_and_their_delta_are_captums(case, exact):
    net, module, x, t = case
    x0 = (0.3 * np.random.default_rng(2).random(net.input_shape)).astype(net.dtype)
    ours, delta = gradients.integrated_gradients(net, x, TARGET, 20, x0, return_convergence_delta=True)
    expected, deltas = attr.IntegratedGradients(module).attribute(
        t, to_torch(x0[None], net.dtype.name), TARGET, n_steps=20, return_convergence_delta=True
    )
    close(ours, expected, net)
    scale = np.abs(net.logits(x)).max()
    assert np.abs(delta - deltas.detach().numpy()).max() < TOLERANCE[net.dtype.name] * scale


def test_occlusion_is_captums(case, exact):
    net, module, x, t = case
    C = net.input_shape[2]
    for window, stride in (((4, 3), (3, 2)), ((5, 5), (5, 5))):
        expected = attr.Occlusion(module).attribute(t, (C, *window), (C, *stride), baselines=0.25, target=TARGET)
        close(perturbation.occlusion(net, x, TARGET, window, stride, 0.25), expected, net)


def test_shapley_values_of_the_same_orders_are_captums(case, exact):
    net, module, x, t = case
    H, W, C = net.input_shape
    cells = (np.arange(H)[:, None] // 5) * -(-W // 5) + np.arange(W) // 5
    method = attr.ShapleyValueSampling(module)
    count = cells.max() + 1
    method.permutation_generator = lambda n, samples: (
        perturbation.shapley_order(n, 4, q).tolist() for q in range(samples)
    )
    expected = method.attribute(t, 0.1, TARGET, feature_mask=torch.tensor(cells)[None, None], n_samples=3)
    shares = to_ours(expected) / (np.bincount(cells.ravel(), minlength=count) * C)[cells][None, ..., None]
    close(perturbation.shapley_value_sampling(net, x, TARGET, 3, 5, 4, 0.1), shares, net)


def enlarged(net, maps):
    return attr.LayerAttribution.interpolate(maps, net.input_shape[:2], "bilinear")


@pytest.mark.parametrize("layer", ["pool2", "relu1"])
def test_class_activation_maps_are_captums_or_autograds(case, layer):
    net, module, x, t = case
    own = getattr(module, layer)
    expected = attr.LayerGradCam(module, own).attribute(t, 3, relu_attributions=True)
    close(cam.grad_cam(net, x, 3, layer), enlarged(net, expected), net)
    guided = attr.GuidedGradCam(module, own).attribute(t, 3, interpolate_mode="bilinear")
    close(cam.guided_grad_cam(net, x, 3, layer), guided, net)

    A = attr.LayerActivation(module, own).attribute(t)
    g = attr.LayerGradientXActivation(module, own, multiply_by_inputs=False).attribute(t, 3)
    close(cam.layer_cam(net, x, 3, layer), enlarged(net, (g.relu() * A).sum(1, keepdim=True).relu()), net)


def test_score_cam_is_the_papers_algorithm_in_pytorch(case):
    net, module, x, t = case
    A, found = attr.LayerActivation(module, module.pool2).attribute(t), []
    for n in range(N):
        masks = enlarged(net, A[n : n + 1])[0]
        least, most = masks.amin((1, 2), True), masks.amax((1, 2), True)
        masks = (masks - least) / torch.where(most > least, most - least, 1)
        scores = module(masks[:, None] * t[n])[:, TARGET].softmax(0)
        found.append((scores[:, None, None] * A[n]).sum(0, keepdim=True).relu())
    close(cam.score_cam(net, x, TARGET), enlarged(net, torch.stack(found)), net)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_deeplift_is_captums(dtype):
    net = small(dtype, overlapping=False)
    rng = np.random.default_rng(1)
    x, x0 = rng.random((N, *net.input_shape)).astype(dtype), (0.3 * rng.random((N, *net.input_shape))).astype(dtype)
    expected = attr.DeepLift(copy_network(net)).attribute(to_torch(x, dtype), to_torch(x0, dtype), target=TARGET)
    close(relevance.deeplift(net, x, TARGET, x0), expected, net)


# -- relevance -----------------------------------------------------------------------------------------------------


CAPTUM = {  # ours, Captum's rule of each linear layer, whether biases agree
    "epsilon": ("EpsilonRule", {"epsilon": 1e-6}, True),
    "gamma": ("GammaRule", {"gamma": 0.25}, False),
    "alpha1_beta0": ("Alpha1_Beta0_Rule", {}, False),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("composite", CAPTUM)
def test_relevance_is_captums(composite, dtype):
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    kind, options, biases = CAPTUM[composite]
    net = small(dtype, overlapping=False)
    if not biases:
        with_biases(net, 0)
    module, x = copy_network(net), np.random.default_rng(1).random((N, *net.input_shape)).astype(dtype)
    for layer, own in module.named_children():
        if layer in net.params:
            own.rule = getattr(rules, kind)(**options)
            own.rule.STABILITY_FACTOR = 1e-6
        else:
            own.rule = rules.EpsilonRule(1e-30)  # hands on: what it adds is lost in rounding
    expected = attr.LRP(module).attribute(to_torch(x, dtype).requires_grad_(), target=TARGET)
    close(relevance.lrp(net, x, TARGET, composite, epsilon=1e-6), expected, net)


ZENNIT = {  # ours: zennit's, with its arguments
    "epsilon_plus": ("EpsilonPlus", {}),
    "epsilon_plus_flat": ("EpsilonPlusFlat", {}),
    "epsilon_alpha2_beta1": ("EpsilonAlpha2Beta1", {}),
    "epsilon_alpha2_beta1_flat": ("EpsilonAlpha2Beta1Flat", {}),
    "epsilon_gamma_box": ("EpsilonGammaBox", {"low": 0.0, "high": 1.0}),
}


@pytest.fixture(scope="module")
def zennit():
    """zennit, whose import asks for torchvision only to know that library's networks."""
    missing = pytest.MonkeyPatch()
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name, classes in (
            ("", ()),
            (".models", ()),
            (".models.resnet", ("Bottleneck", "BasicBlock")),
            (".models.vgg", ()),
        ):
            module = types.ModuleType("torchvision" + name)
            for c in classes:
                setattr(module, c, type(c, (), {}))
            missing.setitem(sys.modules, module.__name__, module)
    yield pytest.importorskip("zennit")
    missing.undo()


def zennits(module, x, composite, start):
    """The relevance at the pixels of `start` (N, classes) at the logits."""
    t = to_torch(x).requires_grad_()
    with composite.context(module) as changed:
        return torch.autograd.grad(changed(t), t, start)[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ours", ZENNIT)
def test_composites_are_zennits(ours, dtype, zennit):
    from zennit import composites

    kind, options = ZENNIT[ours]
    net, x = small(dtype), np.random.default_rng(1).random((N, 14, 10, 3)).astype(dtype)
    options = {k: torch.tensor(v, dtype=getattr(torch, dtype)) for k, v in options.items()}
    start = torch.zeros(N, 4, dtype=getattr(torch, dtype))
    start[:, TARGET] = torch.tensor(net.logits(x)[:, TARGET])
    expected = zennits(copy_network(net), x, getattr(composites, kind)(**options), start)
    close(relevance.lrp(net, x, TARGET, ours), expected, net)


RULES = {  # ours: zennit's rule, the images' range
    "epsilon": ("Epsilon", {}, 0),
    "gamma": ("Gamma", {}, 0),
    "alpha1_beta0": ("AlphaBeta", {"alpha": 1, "beta": 0}, -1),
    "alpha2_beta1": ("AlphaBeta", {"alpha": 2, "beta": 1}, -1),
    "flat": ("Flat", {}, -1),
    "w_square": ("WSquare", {"zero_params": "bias"}, -1),
}


@pytest.mark.parametrize("ours", RULES)
def test_rules_are_zennits_for_images_of_both_signs_too(ours, zennit):
    """Every linear layer by one rule; the convolution pads by itself, so that flat and w_square see the same pixels."""
    from zennit import composites, rules, types

    kind, options, least = RULES[ours]
    specs = [
        Conv2D("c1", 6, 3),
        ReLU("r1"),
        MaxPool2D("p1", 2),
        Flatten("f"),
        Dense("d1", 9),
        ReLU("r2"),
        Dense("d2", 4),
    ]
    net = with_biases(Network(specs, (8, 6, 2), backend="cpu", dtype="float64"))
    module, x = copy_network(net), np.random.default_rng(1).uniform(least, 1, (N, 8, 6, 2))
    module.c1.padding, module.c1_pad = (1, 1), torch.nn.Identity()
    start = torch.zeros(N, 4, dtype=torch.float64)
    start[:, 1] = torch.tensor(net.logits(x)[:, 1])
    layer_map = [(types.Activation, rules.Pass()), (types.Linear, getattr(rules, kind)(**options))]
    expected = zennits(module, x, composites.LayerMapComposite(layer_map), start)
    close(relevance.lrp(net, x, 1, relevance.composite(ours, ours, ours)), expected, net)


def test_excitation_backprop_is_zennits(zennit):
    from zennit import composites

    net, x = small(), np.random.default_rng(1).random((N, 14, 10, 3))
    start = torch.eye(4, dtype=torch.float64)[[TARGET] * N]
    expected = zennits(copy_network(net), x, composites.ExcitationBackprop(zero_params="bias"), start)
    close(relevance.excitation_backprop(net, x, TARGET, epsilon=1e-6), expected, net)
