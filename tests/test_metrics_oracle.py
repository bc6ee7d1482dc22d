"""Metrics of maps against Captum, Quantus and scikit-image on PyTorch copies of the same networks, with the same draws.

Quantus and scikit-image are no part of the extra "oracle", for what they ask of other packages' versions: ``pip install
--no-deps quantus scikit-image opencv-python-headless pandas tifffile lazy-loader imageio`` brings them. Where
conventions differ the test says how, and computes both:

pointing game    Quantus: an empty mask is a hit (its NaN becomes True in an array of bool), and so is a map that is the
                 same everywhere; ours NaN. Several largest pixels: a hit if any lies on the object; ours by their share
mass accuracy    Quantus counts negative relevance, so that the score may lie outside of [0, 1]; ours the positive part
rank accuracy    Quantus takes equal pixels in the order in which they are sorted; ours by their share
AUC              the same
sparseness       Quantus adds 1e-7 to all values; ours adds nothing
ROAD, flipping   Quantus orders and removes each colour of a pixel by itself, and for ROAD is right for one colour only;
                 ours takes all colours of a pixel. It rounds numbers of pixels down; ours to the nearest. Its curve has
                 no point where nothing is removed
MPRT             Quantus seeds every layer alike and may draw what the training began with; ours has a stream of its own
SSIM             Quantus takes a uniform window of 7; ours, as the authors, a Gaussian one of 11 x 11
max-sensitivity  Captum, Quantus and ours divide by the norm of the map, the paper does not; a map of zeros: Captum by 1
infidelity       Captum normalizes on demand; ours does unless told otherwise. A map of zeros: Captum divides by 1
completeness     Quantus: whether sums are equal to the last bit, after dividing the map by its largest; ours the gap
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch_copy import copy_network, to_ours, to_torch  # noqa: E402

from tinycnn import Network, streams  # noqa: E402
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU  # noqa: E402
from viz import saliency  # noqa: E402
from viz.metrics import complexity, correlation, faithfulness, localization, maps, randomization, robustness  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
TARGET, EXACT = np.array([0, 1, 2, 0, 1]), 1e-10  # float64, relative
TOLERANCE = {"float64": EXACT, "float32": 1e-3}


def made(C, dtype="float64"):
    layers = [Conv2D("c", 4, 3), ReLU("r"), MaxPool2D("p"), Flatten("f"), Dense("out", 3)]
    net = Network(layers, (12, 16, C), dtype=dtype, seed=3)
    rng = np.random.default_rng(1)
    net.params["c"]["b"][...] = rng.normal(size=4) / 10
    return net, rng.random((5, 12, 16, C), np.float32).astype(np.float64)  # Quantus rounds to float32


def theirs(a):
    """An array (N, H, W, C) as NumPy (N, C, H, W)."""
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2))


class Double(torch.nn.Module):
    """A copy of a network that takes images as Quantus gives them."""

    def __init__(self, net):
        super().__init__()
        self.copy = copy_network(net)
        self.eval()

    def forward(self, x):
        return self.copy(x.double())


def explain(model, inputs, targets, **_):
    """The gradient, as Quantus asks for it: NumPy in, NumPy out."""
    x = torch.tensor(np.asarray(inputs), dtype=torch.float64, requires_grad=True)
    model(x)[torch.arange(len(x)), torch.as_tensor(targets)].sum().backward()
    return x.grad.numpy()


def captum_gradient(module):
    def gradient(inputs, target):
        with torch.enable_grad():
            x = inputs.detach().clone().requires_grad_()
            module(x)[torch.arange(len(x)), target].sum().backward()
        return x.grad

    return gradient


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("C", [1, 3])
def test_max_sensitivity_is_captums(C, dtype):
    metrics = pytest.importorskip("captum.metrics")
    net, x = made(C, dtype)
    rng = streams.rng(0, "max sensitivity")
    draws = torch.tensor(
        np.stack([theirs(rng.uniform(-0.1, 0.1, (1, *net.input_shape)))[0] for _ in range(6)]).astype(dtype)
    )
    module = copy_network(net)
    gradient = captum_gradient(module)

    found = metrics.sensitivity_max(
        lambda inputs, target: (gradient(inputs[0] if isinstance(inputs, tuple) else inputs, target),),
        to_torch(x, dtype),
        lambda inputs, radius: inputs + draws.repeat(len(inputs) // 6, 1, 1, 1),
        perturb_radius=0.1,
        n_perturb_samples=6,
        target=torch.tensor(TARGET),
    )
    ours = robustness.max_sensitivity(net, x, TARGET, saliency.gradient, 0.1, 6)
    np.testing.assert_allclose(ours, found.numpy(), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_is_captums(normalize, dtype):
    metrics = pytest.importorskip("captum.metrics")
    net, x = made(3, dtype)
    noise = streams.rng(0, "infidelity").standard_normal((7, *net.input_shape))
    noise = torch.tensor(theirs(0.2 * noise).astype(dtype))
    found = saliency.gradient(net, x, TARGET) * np.random.default_rng(0).random(x.shape)

    def perturb(inputs):
        some = noise.repeat(len(inputs) // 7, 1, 1, 1)
        return some, inputs - some

    expected = metrics.infidelity(
        copy_network(net),
        perturb,
        to_torch(x, dtype),
        torch.tensor(theirs(found).astype(dtype)),
        target=torch.tensor(TARGET),
        n_perturb_samples=7,
        normalize=normalize,
    )
    ours = robustness.infidelity(net, x, found, TARGET, 0.2, 7, normalize)
    np.testing.assert_allclose(ours, expected.numpy(), rtol=TOLERANCE[dtype])


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus")


PLAIN = {"normalise": False, "abs": False, "disable_warnings": True, "display_progressbar": False}


def asked(metric, net, x, found, masks=None, **more):
    """What a metric of Quantus says of maps (N, H, W)."""
    return np.array(
        metric(
            model=Double(net),
            x_batch=theirs(x),
            y_batch=TARGET,
            a_batch=None if found is None else found[:, None].copy(),
            s_batch=None if masks is None else masks[:, None],
            channel_first=True,
            **more,
        )
    )


def test_localization_is_quantus_where_no_pixels_are_equal(quantus):
    net, x = made(3)
    rng = np.random.default_rng(0)
    found, masks = rng.normal(size=(5, 12, 16)), rng.random((5, 12, 16)) < 0.3
    for ours, their, positive in [
        (localization.pointing_game, quantus.PointingGame, False),
        (localization.relevance_mass_accuracy, quantus.RelevanceMassAccuracy, True),
        (localization.relevance_rank_accuracy, quantus.RelevanceRankAccuracy, False),
        (localization.auroc, quantus.AUC, False),
    ]:
        given = np.maximum(found, 0) if positive else found
        expected = asked(their(**PLAIN), net, x, given, masks)
        np.testing.assert_allclose(ours(masks, found), expected.astype(float), rtol=EXACT)


def test_localization_differs_from_quantus_where_it_should(quantus):
    net, x = made(3)
    found, masks = np.random.default_rng(0).normal(size=(5, 12, 16)), np.zeros((5, 12, 16), bool)
    masks[1:, :6] = True  # the first is empty
    found[1] = 0.3
    found[2, 0, 0] = found[2, 11, 15] = 9
    hits = asked(quantus.PointingGame(**PLAIN), net, x, found, masks)
    assert hits[:3].tolist() == [1, 1, 1]
    ours = localization.pointing_game(masks, found)
    assert np.isnan(ours[:2]).all() and ours[2] == 0.5 and (ours[3:] == hits[3:]).all()
    found[3], found[4] = 0, np.arange(192).reshape(12, 16) // 2
    found[3, 0, :2], found[3, 11, 0] = (1, 1), -1.5
    mass = asked(quantus.RelevanceMassAccuracy(**PLAIN), net, x, found, masks)
    assert mass[3] == 4 and localization.relevance_mass_accuracy(masks, found)[3] == 1
    masks[4] = False
    masks[4, 0, 1] = masks[4, 11, 15] = masks[4, 11, 13] = True  # the third of three is one of two equal ones
    rank = asked(quantus.RelevanceRankAccuracy(**PLAIN), net, x, found, masks)[4]
    assert rank in (1 / 3, 2 / 3) and localization.relevance_rank_accuracy(masks, found)[4] == 0.5


def test_sparseness_is_quantus_but_for_what_it_adds(quantus):
    net, x = made(1)
    found = np.random.default_rng(0).random((5, 12, 16))
    expected = asked(quantus.Sparseness(**PLAIN | {"abs": True}), net, x, found - 1e-7)
    np.testing.assert_allclose(complexity.sparseness(found), expected, rtol=EXACT)


def test_entropy_is_that_of_quantus_efficient_test(quantus):
    from quantus.functions.complexity_func import discrete_entropy

    found = np.random.default_rng(0).random((5, 12, 16))
    expected = [discrete_entropy(a=m, x=m, n_bins=30) for m in found]
    np.testing.assert_allclose(complexity.entropy(found, 30), expected, rtol=EXACT)


def test_deletion_is_quantus_pixel_flipping(quantus):
    net, x = made(1)
    found = np.random.default_rng(0).normal(size=(5, 12, 16))
    metric = quantus.PixelFlipping(features_in_step=16, perturb_baseline=0.25, **PLAIN)
    expected = asked(metric, net, x, found, softmax=True)
    curves, _ = faithfulness.deletion(net, x, found, TARGET, 12, baseline=0.25)
    np.testing.assert_allclose(curves[:, 1:], expected, rtol=EXACT)


def test_road_is_quantus(quantus):
    net, x = made(1)
    found = np.random.default_rng(0).normal(size=(5, 12, 16))
    metric = quantus.ROAD(percentages=[25, 50, 75], noise=0, **PLAIN)
    metric(Double(net), theirs(x), TARGET, found[:, None].copy(), channel_first=True)
    hits, _ = faithfulness.road(net, x, found, TARGET, 3, most=0.75, noise=0, score="hit")
    assert list(metric.evaluation_scores.values()) == hits.mean(0)[1:].tolist()

    from quantus.functions.perturb_func import noisy_linear_imputation

    taken = np.random.default_rng(0).random((12, 16)) < 0.6
    image = np.random.default_rng(1).random((12, 16, 3))
    filled = noisy_linear_imputation(theirs(image[None])[0], np.flatnonzero(taken), noise=0)
    np.testing.assert_allclose(faithfulness.imputed(image, taken), filled.transpose(1, 2, 0), rtol=EXACT)


def test_randomization_is_quantus_with_the_same_weights_drawn(quantus, monkeypatch):
    net, x = made(3)
    names = ["out", "c"]

    def generator(self, order="top_down", seed=42):
        for i, name in enumerate(names):
            yield name, Double(randomization.randomized(net, names[: i + 1]))

    from quantus.helpers.model.pytorch_model import PyTorchModel

    monkeypatch.setattr(PyTorchModel, "get_random_layer_generator", generator)
    monkeypatch.setattr(PyTorchModel, "random_layer_generator_length", 2)

    def absolute(model, inputs, targets, **_):
        return np.abs(explain(model, inputs, targets)).sum(1, keepdims=True)

    metric = quantus.MPRT(**PLAIN)
    metric(Double(net), theirs(x), TARGET, None, explain_func=absolute, channel_first=True)
    ours = randomization.model_parameter_randomization(net, x, TARGET, saliency.gradient)
    for name, row in zip(names, ours.absolute):
        np.testing.assert_allclose(row, metric.evaluation_scores[name], rtol=EXACT)


def test_structural_similarity_is_scikit_images_by_the_authors_constants():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a = rng.random((4, 13, 17))
    b = np.clip(a + 0.3 * rng.normal(size=a.shape), 0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [metrics.structural_similarity(p, q, **options) for p, q in zip(a, b)]
    np.testing.assert_allclose(correlation.ssim(a, b), expected, rtol=EXACT)


def test_completeness_is_the_convergence_delta_of_captum():
    attr = pytest.importorskip("captum.attr")
    net, x = made(3)
    ways, delta = attr.IntegratedGradients(copy_network(net)).attribute(
        to_torch(x), to_torch(0.3 + 0 * x), torch.tensor(TARGET), n_steps=3, return_convergence_delta=True
    )
    gap = faithfulness.completeness(net, x, to_ours(ways), TARGET, 0.3)
    assert np.abs(delta.numpy()).min() > 1e-6
    np.testing.assert_allclose(gap, delta.numpy(), rtol=EXACT)
    assert maps.signed(to_ours(ways)).shape == (5, 12, 16)
