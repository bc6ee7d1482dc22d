"""The ascent does what its formulas say: closed forms on a linear net, a loop in PyTorch on the real one."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import viz.ascent.maximize
from tinycnn import InputError, Network, layers, models
from viz.ascent.maximize import NOISE, deprocess, maximize, maximize_ways
from viz.ascent.parametrize import Spectral
from viz.ascent.recipes import MAHENDRAN, OURS, PRELIMINARY, YOSINSKI_SETS, for_size, hidden
from viz.ascent.regularizers import (
    L2,
    Blur,
    BoundedRange,
    Clip,
    ClipContribution,
    ClipNorm,
    Decay,
    NormProjection,
    TotalVariation,
)
from viz.ascent.transforms import Affine, Jitter, Noise

EXACT = 1e-10  # two float64 computations of the same formula, some steps long


@pytest.fixture
def linear():
    """Scores that are linear in the pixels, and the weights (U, H, W, C) that are their gradients."""
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 4)], (3, 5, 2), dtype="float64", seed=1)
    net.params["fc"]["b"][...] = [0.5, -1, 2, 0]
    return net, net.params["fc"]["w"].T.reshape(4, 3, 5, 2), net.params["fc"]["b"]


@pytest.fixture
def conv():
    """A small net with a ReLU and a pool, in float64."""
    net = Network(
        [
            layers.Conv2D("conv1", 6, 3),
            layers.ReLU("relu1"),
            layers.MaxPool2D("pool1", 3, 2),
            layers.Flatten("flatten"),
            layers.Dense("fc", 5),
        ],
        (8, 9, 3),
        dtype="float64",
        seed=2,
    )
    rng = np.random.default_rng(0)
    for p in net.params.values():
        p["b"][...] = rng.normal(0, 0.1, p["b"].shape)
    return net


def test_plain_ascent_adds_the_gradient_at_every_step(linear):
    net, w, b = linear
    r = maximize(net, "fc", [2, 0], steps=5, step_size=0.3)
    np.testing.assert_allclose(r.last, 5 * 0.3 * w[[2, 0]], rtol=EXACT)
    squares = (w[[2, 0]] ** 2).sum((1, 2, 3))
    expected = b[[2, 0]] + np.arange(6)[:, None] * 0.3 * squares
    np.testing.assert_allclose(r.scores, expected, rtol=EXACT)
    assert r.best_step.tolist() == [5, 5] and (r.images == r.last).all()
    assert r.units.tolist() == [2, 0] and r.layer == "fc"


def test_progress_gains_the_same_at_every_step_of_every_unit_until_the_rate_is_bounded(linear):
    net, w, b = linear
    r = maximize(net, "fc", range(4), steps=4, step_size=2.0, optimizer="progress")
    np.testing.assert_allclose(np.diff(r.scores, axis=0), 2.0, rtol=EXACT)
    r = maximize(net, "fc", range(4), steps=4, step_size=2.0, optimizer="progress", max_rate=0.01)
    np.testing.assert_allclose(r.last, 4 * 0.01 * w, rtol=EXACT)


def test_a_normalized_step_is_as_long_for_every_unit(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=3, step_size=0.2, optimizer="normalized")
    sizes = np.sqrt((w * w).mean((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(r.last, 3 * 0.2 * w / sizes, rtol=EXACT)


def test_adam_moves_every_pixel_by_the_step_size_where_the_gradient_is_constant(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=7, step_size=0.1, optimizer="adam")
    np.testing.assert_allclose(r.last, 7 * 0.1 * np.sign(w), rtol=1e-4)  # epsilon 1e-8 against |g| > 1e-3


def test_mahendrans_optimizer_is_his_recursion_on_pixels_of_255(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=6, step_size=1 / 255, optimizer="mahendran")
    eta = 3 * 5 * 0.05 * 80**2 / 6
    x, G, m = np.zeros((3, 4, *w.shape[1:]))
    for _ in range(6):
        g = -w / 255  # of minus the score, by pixels of 255
        G = 0.9 * G + g * g
        m = 0.9 * m - g / (1 / eta + np.sqrt(G))
        x = x + m
    np.testing.assert_allclose(r.last, x / 255, rtol=EXACT)


def test_the_l2_penalty_s_maximum_is_the_weights_over_two_lambda(linear):
    net, w, b = linear
    r = maximize(net, "fc", range(4), steps=60, step_size=0.5, regularizers=[L2(0.7)])
    np.testing.assert_allclose(r.last, w / 1.4, rtol=EXACT)
    # At a maximum the objective is flat: the first step to reach it may be the root of the rounding unit away.
    np.testing.assert_allclose(r.images, w / 1.4, rtol=1e-7)
    squares = (w * w).sum((1, 2, 3))
    np.testing.assert_allclose(r.objectives[-1], b + squares / (4 * 0.7), rtol=1e-8)
    np.testing.assert_allclose(r.scores[-1] - r.objectives[-1], squares / (4 * 0.7), rtol=1e-8)


@pytest.mark.oracle
def test_the_order_of_yosinskis_operations_is_his(backend):
    """Against a loop on a PyTorch copy, one unit and one pixel percentile at a time."""
    torch_copy = pytest.importorskip("torch_copy", reason="PyTorch is not installed")
    net = models.build("mnist", backend=backend, dtype="float64", seed=5)
    module = torch_copy.copy_network(net)
    mean = np.random.default_rng(0).random((28, 28, 1)) / 2
    steps = [ClipContribution(30), ClipNorm(20), Blur(0.6, 2), Decay(0.1), Clip(0, 1)]  # not in their order
    r = maximize(net, "fc2", [3, 8], steps=5, step_size=0.8, init="noise", mean=mean, regularizers=steps, seed=4)
    for n, unit in enumerate((3, 8)):
        x, score = np.random.default_rng([4, unit]).normal(0, NOISE, (28, 28, 1)), []
        for i in range(6):
            x = np.clip(mean + x, 0, 1) - mean
            t = torch_copy.to_torch((mean + x)[None]).requires_grad_()
            y = module(t)[0, unit]
            score.append(y.item())
            if i == 5:
                break
            (g,) = torch_copy.torch.autograd.grad(y, t)
            g = torch_copy.to_ours(g)[0]
            x = 0.9 * (x + 0.8 * g)
            if i in (1, 3):
                x = gaussian_filter(x[:, :, 0], 0.6)[:, :, None]
            x = np.where(np.abs(x) < np.percentile(np.abs(x), 20), 0, x)
            x = np.where(np.abs(x * g) < np.percentile(np.abs(x * g), 30), 0, x)
        np.testing.assert_allclose(r.scores[:, n], score, rtol=EXACT)
        np.testing.assert_allclose(r.last[n], mean + x, atol=EXACT)


@pytest.mark.parametrize("layer, position", [("fc", "center"), ("relu1", "center"), ("relu1", "sum")])
def test_the_score_is_the_unit_s_activation_at_the_centre_or_summed(conv, layer, position):
    conv.params["conv1"]["b"][...] += 1  # both units are on from the start
    r = maximize(conv, layer, [1, 4], steps=3, step_size=0.2, init="noise", position=position)
    for n, unit in enumerate((1, 4)):
        a = conv.forward(r.last[n : n + 1], upto=layer)[layer][0]
        expected = a[unit] if layer == "fc" else a[4, 4, unit] if position == "center" else a[..., unit].sum()
        assert r.scores[-1, n] == pytest.approx(expected, rel=EXACT)
    assert (np.diff(r.scores, axis=0) > 0).all()


@pytest.mark.parametrize("regularizers", [[], [Jitter(2)], [Clip(0, 1), L2(0.1), Blur(1.0, 3)]], ids=str)
def test_the_best_image_is_the_one_that_got_the_best_objective_not_a_later_one(conv, regularizers):
    r = maximize(conv, "fc", range(5), steps=25, step_size=3.0, init="noise", mean=0.3, regularizers=regularizers)
    assert (r.best_step == r.objectives.argmax(0)).all()
    if regularizers:
        assert (r.best_step < 25).any()
    else:
        assert (r.objectives == r.scores).all()
    u = np.arange(5)
    np.testing.assert_allclose(conv.logits(r.images)[u, u], r.scores[r.best_step, u], rtol=EXACT)
    np.testing.assert_allclose(conv.logits(r.last)[u, u], r.scores[-1], rtol=EXACT)


def test_a_unit_s_image_does_not_depend_on_the_other_units_of_the_call(conv):
    arguments = {
        "steps": 12,
        "step_size": 0.05,
        "init": "noise",
        "optimizer": "progress",
        "regularizers": [Jitter(2), Decay(0.01), Blur(0.5, 2), ClipNorm(10), TotalVariation(0.01)],
    }
    many = maximize(conv, "fc", [4, 1, 3, 0], **arguments)
    alone = maximize(conv, "fc", 3, **arguments)
    np.testing.assert_allclose(many.images[2], alone.images[0], rtol=1e-9)
    np.testing.assert_allclose(many.scores[:, 2], alone.scores[:, 0], rtol=1e-9)


@pytest.mark.parametrize("together", [1, 7, 100])
def test_ways_gone_side_by_side_end_as_they_would_one_by_one(conv, prior, monkeypatch, together):
    """Different lengths, a second look at each step, a way of one step, whatever fits into a pass."""
    monkeypatch.setattr(viz.ascent.maximize, "TOGETHER", together)
    ways = [
        {"steps": 7, "init": "noise", "regularizers": [Decay(0.01), Blur(0.5, 2), TotalVariation(0.01)]},
        {"steps": 3, "init": "noise", "regularizers": [Affine(1, 5, 1.1), Noise(0.1)], "views": 2, "optimizer": "adam"},
        {"steps": 5, "parametrization": prior, "objective": "log-odds", "regularizers": [Jitter(1)]},
        {"steps": 0, "mean": 0.2},
        {"steps": 9, "step_size": 2.0, "optimizer": "progress", "init": "noise"},
    ]
    found = maximize_ways(conv, "fc", [4, 0, 2], ways, seed=3)
    assert len(found) == len(ways)
    for way, m in zip(ways, found):
        alone = maximize(conv, "fc", [4, 0, 2], seed=3, **way)
        for name in ("images", "last", "scores", "objectives", "best_step"):
            np.testing.assert_allclose(getattr(m, name), getattr(alone, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_of_ways_that_cannot_be_gone_the_argument_is_named(conv):
    with pytest.raises(InputError, match="optimizer 'sgd'"):
        maximize_ways(conv, "fc", [0], [{"steps": 1}, {"optimizer": "sgd"}])
    assert maximize_ways(conv, "fc", [0], []) == []


def test_a_seed_gives_the_same_bytes_and_another_seed_another_image(conv):
    arguments = {"steps": 6, "step_size": 0.1, "init": "noise", "regularizers": [Jitter(1)]}
    one, two = (maximize(conv, "fc", [0, 1], seed=3, **arguments) for _ in range(2))
    other = maximize(conv, "fc", [0, 1], seed=4, **arguments)
    assert one.images.tobytes() == two.images.tobytes() and one.scores.tobytes() == two.scores.tobytes()
    assert (one.images != other.images).any()
    assert (one.images[0] != one.images[1]).any()


def test_jitter_leaves_no_drift():
    """A unit that sees one pixel: the image grows around that pixel, within the jitter's reach."""
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 1)], (15, 15, 1), dtype="float64")
    net.params["fc"]["w"][...] = 0
    net.params["fc"]["w"][7 * 15 + 7] = 1
    r = maximize(net, "fc", 0, steps=200, step_size=1.0, regularizers=[Jitter(2)])
    near = np.zeros((15, 15, 1), bool)
    near[5:10, 5:10] = True
    assert r.last[0][~near].max() == 0 and r.last[0][near].min() > 0  # each of 25 shifts was drawn
    assert r.last.sum() == pytest.approx(200)


@pytest.fixture
def prior(conv):
    """A parametrisation for the images of `conv`."""
    y = np.random.default_rng(7).normal(128, 60, (300, *conv.input_shape))
    return Spectral.of(np.clip(y, 0, 255).astype(np.uint8), "float64")


def log_odds(logits, unit):
    p = np.exp(logits[unit]) / np.exp(logits).sum()
    return np.log(p / (1 - p))


def test_the_gradient_of_the_log_odds_agrees_with_central_differences(conv):
    """One plain step of size 1 moves the image by the gradient."""
    start = np.random.default_rng(3).random((8, 9, 3))
    r = maximize(conv, "fc", [1, 4], steps=1, step_size=1.0, init=start, objective="log-odds")
    numeric = np.empty((2, *start.shape))
    for i in np.ndindex(*start.shape):
        h = np.zeros_like(start)
        h[i] = 1e-5
        up, down = (conv.logits((start + d)[None])[0] for d in (h, -h))
        for n, unit in enumerate((1, 4)):
            numeric[n][i] = (log_odds(up, unit) - log_odds(down, unit)) / 2e-5
    np.testing.assert_allclose(r.last - start, numeric, atol=1e-6 * np.abs(numeric).max())
    logits = conv.logits(start[None])[0]
    np.testing.assert_allclose(r.scores[0], logits[[1, 4]], rtol=EXACT)
    np.testing.assert_allclose(r.objectives[0], [log_odds(logits, u) for u in (1, 4)], rtol=EXACT)


def test_a_step_follows_the_mean_gradient_of_the_transformed_copies(conv):
    """Against the copies made one by one, from the same random numbers."""
    start = np.random.default_rng(3).random((8, 9, 3))
    transforms = [Affine(2, 20, 1.2), Noise(0.3)]
    r = maximize(conv, "fc", [4, 2], steps=1, step_size=1.0, init=start, regularizers=transforms, views=3, seed=6)
    for n, unit in enumerate((4, 2)):
        rng, mean = np.random.default_rng([6, unit]), np.zeros_like(start)
        drawn = [[t.draw(rng, start.shape) for _ in range(3)] for t in transforms]
        for affine, noise in zip(*drawn):
            seen = transforms[0].apply(start[None], affine[None]) + noise
            one = np.zeros((1, 5))
            one[0, unit] = 1
            g = conv.backward(conv.forward(seen), one)
            mean += transforms[0].adjoint(g, affine[None])[0] / 3
        np.testing.assert_allclose(r.last[n] - start, mean, atol=EXACT)


def test_the_unknowns_of_a_parametrisation_ascend_by_the_chain_rule(conv, prior):
    """Against central differences of the whole objective, a penalty on the image included."""
    z = np.random.default_rng(2).normal(0, 0.3, conv.input_shape)
    penalty = TotalVariation(0.05)

    def objective(z):
        image = prior.image(z[None])
        return log_odds(conv.logits(image)[0], 3) - penalty.value_and_grad(image)[0][0]

    arguments = {"objective": "log-odds", "parametrization": prior, "regularizers": [penalty, Decay(0.25)]}
    r = maximize(conv, "fc", 3, steps=1, step_size=0.5, init=z, **arguments)
    numeric = np.empty_like(z)
    for i in np.ndindex(*z.shape):
        h = np.zeros_like(z)
        h[i] = 1e-5
        numeric[i] = (objective(z + h) - objective(z - h)) / 2e-5
    np.testing.assert_allclose(r.last, prior.image(0.75 * (z + 0.5 * numeric)[None]), atol=1e-8)
    np.testing.assert_allclose(r.objectives[0], objective(z), rtol=EXACT)


@pytest.mark.parametrize("size", OURS)
def test_our_presets_make_pictures_of_their_size_that_reach_their_class(size):
    model = {28: "mnist", 32: "cifar10", 96: "stl10"}[size]
    net = models.build(model, seed=0)
    assert net.input_shape[0] == size and for_size(size) is OURS[size]
    images = np.random.default_rng(0).integers(0, 256, (50, *net.input_shape)).astype(np.uint8)
    preset = for_size(size) | {"steps": 6, "views": 1, "parametrization": Spectral.of(images)}
    r = maximize(net, net.layer_names[-1], [0, 3], **preset)
    assert r.images.dtype == np.float32 and r.images.min() >= 0 and r.images.max() <= 1
    assert (r.objectives[r.best_step, [0, 1]] > r.objectives[0]).all()


def test_the_preset_of_the_nearest_size_is_taken():
    assert [for_size(n) is OURS[k] for n, k in ((8, 28), (29, 28), (31, 32), (48, 32), (65, 96), (224, 96))] == [
        True
    ] * 6
    assert hidden(28, dense=True) == OURS[28] | {"objective": "activation"}
    assert not any(hasattr(r, "adjoint") for r in hidden(96, dense=False)["regularizers"])
    assert hidden(96, dense=False)["step_size"] == pytest.approx(hidden(32, dense=False)["step_size"] / 3)


def test_no_step_returns_the_start(conv):
    start = np.random.default_rng(1).random((2, 8, 9, 3))
    r = maximize(conv, "fc", [0, 1], steps=0, init=start, mean=0.25)
    np.testing.assert_allclose(r.images, start + 0.25, rtol=EXACT)
    assert r.scores.shape == (1, 2)
    one = maximize(conv, "fc", [0, 1], steps=0, init=start[0])
    assert (one.images == start[0]).all()
    assert (maximize(conv, "fc", 0, steps=0).images == 0).all()


def test_noise_has_the_stated_width():
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 1)], (60, 60, 3))
    assert maximize(net, "fc", 0, steps=0, init="noise", noise=0.3).images.std() == pytest.approx(0.3, rel=0.02)
    start = maximize(net, "fc", 0, steps=0, init="noise", mean=0.5).images
    assert start.std() == pytest.approx(10 / 255, rel=0.02) and start.mean() == pytest.approx(0.5, abs=0.002)


def test_pixels_stay_within_the_clip_and_the_norm_bound(conv):
    r = maximize(conv, "fc", range(5), steps=9, step_size=50.0, regularizers=[Clip(0.1, 0.6)], mean=0.3)
    assert r.last.min() == pytest.approx(0.1) and r.last.max() == pytest.approx(0.6)
    r = maximize(conv, "fc", range(5), steps=9, step_size=50.0, regularizers=[NormProjection(0.5)], mean=0.3)
    assert np.linalg.norm(r.last - 0.3, axis=-1).max() == pytest.approx(0.5)


def test_a_dead_unit_leaves_its_image_alone_under_every_optimizer(conv):
    conv.params["conv1"]["b"][2] = -50
    for optimizer in ("constant", "progress", "normalized", "mahendran", "adam"):
        r = maximize(conv, "relu1", 2, steps=3, step_size=0.1, optimizer=optimizer, init="noise")
        assert (r.last == r.images).all() and np.isfinite(r.last).all() and (r.scores == 0).all()


@pytest.mark.parametrize("preset", [PRELIMINARY, *YOSINSKI_SETS, MAHENDRAN], ids=str)
def test_every_preset_raises_the_score_of_a_class_and_keeps_float32(preset):
    net = models.build("mnist", seed=0)
    net.params["conv1"]["b"][...] = 0.1  # with no bias at all, a black image has no gradient
    net.params["fc2"]["w"] *= 100  # scores of order 10, as of a trained net: the penalties' weights are for these
    r = maximize(net, "fc2", [0, 3], **{**preset, "steps": 12, "init": "zeros"})
    assert r.images.dtype == r.last.dtype == np.float32
    assert (r.scores[r.best_step, [0, 1]] > r.scores[0]).all()


def test_the_presets_hold_the_papers_constants_for_pixels_up_to_1():
    assert PRELIMINARY == {"steps": 100, "step_size": 1000.0, "optimizer": "constant", "init": "zeros"}
    assert [s["steps"] for s in YOSINSKI_SETS] == [500, 750, 1000, 1000]
    assert [s["optimizer"] for s in YOSINSKI_SETS] == ["progress", "constant", "constant", "progress"]
    assert [round(s["step_size"] * 255**2, 9) for s in YOSINSKI_SETS[1:3]] == [100, 100]
    assert [YOSINSKI_SETS[i]["step_size"] for i in (0, 3)] == [2, 2]
    assert [round(YOSINSKI_SETS[i]["max_rate"] * 255**2, 6) for i in (0, 3)] == [100, 1e8]
    assert [s["regularizers"][1:] for s in YOSINSKI_SETS] == [
        (Blur(0.5, 4), ClipNorm(50)),
        (Decay(0.3), ClipNorm(20)),
        (Decay(1e-4), Blur(1.0, 4)),
        (Blur(0.5, 4), ClipContribution(90)),
    ]
    assert (TotalVariation().V, TotalVariation().beta) == (80 / 255 / 6.5, 2)
    assert (BoundedRange().B, BoundedRange().alpha) == (80 / 255, 6)


def test_deprocess_sets_each_image_to_mean_half_and_deviation_a_tenth():
    x = np.random.default_rng(0).normal(7, 40, (3, 20, 20, 3))
    x[1] *= 1e-6
    expected = [np.clip((image - image.mean()) / image.std() * 0.1 + 0.5, 0, 1) for image in x]
    np.testing.assert_allclose(deprocess(x), expected, rtol=EXACT)
    assert (deprocess(np.full((1, 4, 4, 1), 3.0)) == 0.5).all()


PRIOR = Spectral.of(np.zeros((2, 8, 9, 3), np.uint8), "float64")


@pytest.mark.parametrize(
    "change, named",
    [
        ({"layer": "fc9"}, "layer 'fc9'.*relu1"),
        ({"units": 5}, "units: 5 .*'fc'.* 0 to 4"),
        ({"units": [0, -1]}, "units: -1"),
        ({"units": []}, "units"),
        ({"units": 1.5}, "units: expected an integer"),
        ({"layer": "relu1", "units": 6}, "units: 6"),
        ({"steps": -1}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"step_size": 0}, "step_size"),
        ({"step_size": np.nan}, "step_size"),
        ({"max_rate": -1}, "max_rate"),
        ({"optimizer": "sgd"}, "optimizer 'sgd'.*progress"),
        ({"position": "max"}, "position 'max'"),
        ({"init": "ones"}, "init 'ones'"),
        ({"init": np.zeros((2, 8, 9, 3))}, "init"),
        ({"init": np.full((8, 9, 3), np.nan)}, "init: holds NaN"),
        ({"mean": np.zeros((9, 8, 3))}, "mean"),
        ({"mean": np.inf}, "mean: holds NaN or infinite"),
        ({"regularizers": [0.1]}, "regularizers: 0.1"),
        ({"views": 0}, "views"),
        ({"noise": -1}, "noise"),
        ({"noise": np.nan}, "noise"),
        ({"objective": "loss"}, "objective 'loss'.*log-odds"),
        ({"layer": "relu1", "objective": "log-odds"}, "objective: .*'relu1' has maps"),
        ({"parametrization": PRIOR, "mean": 0.5}, "mean: a parametrization has its own"),
        ({"parametrization": PRIOR, "regularizers": [Blur(1)]}, r"regularizers: Blur.* changes pixels"),
        ({"parametrization": PRIOR, "regularizers": [Clip(0, 1)]}, r"regularizers: Clip.* changes pixels"),
        ({"parametrization": Spectral.of(np.zeros((2, 8, 9, 3), np.uint8))}, "parametrization: .*float32.*float64"),
        (
            {"parametrization": Spectral.of(np.zeros((2, 9, 8, 3), np.uint8), "float64")},
            r"parametrization: .*\(9, 8, 3\)",
        ),
        ({"step_size": 1e308, "steps": 200}, "diverged at step .* smaller step_size"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_bad_arguments_are_named(conv, change, named):
    arguments = {"layer": "fc", "units": [0], "steps": 1, "step_size": 0.1, **change}
    with pytest.raises(InputError, match=named):
        maximize(conv, **arguments)


def test_deprocess_refuses_what_is_no_batch_of_finite_images():
    for bad in (np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), int), np.full((1, 4, 4, 3), np.nan)):
        with pytest.raises(InputError, match="x: expected finite"):
            deprocess(bad)
