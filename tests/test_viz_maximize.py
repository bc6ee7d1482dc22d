"""The ascent does what its formulas say: closed forms on a linear net, a loop in PyTorch on the real one."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import viz.ascent.maximize
from tinycnn import InputError, Network, layers, models, streams
from viz.ascent import Recipe
from viz.ascent.maximize import deprocess, maximize, maximize_ways
from viz.ascent.optimizers import Adam, Constant, Mahendran, Normalized, Progress
from viz.ascent.parametrize import Spectral
from viz.ascent.recipes import MAHENDRAN, NOISE, OURS, PRELIMINARY, STUDY_CODE, YOSINSKI_SETS, for_size, hidden
from viz.ascent.regularizers import (
    L2,
    Blur,
    BoundedRange,
    BoxBlur,
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
    r = maximize(net, "fc", [2, 0], steps=5, optimizer=Constant(0.3))
    np.testing.assert_allclose(r.last, 5 * 0.3 * w[[2, 0]], rtol=EXACT)
    squares = (w[[2, 0]] ** 2).sum((1, 2, 3))
    expected = b[[2, 0]] + np.arange(6)[:, None] * 0.3 * squares
    np.testing.assert_allclose(r.scores, expected, rtol=EXACT)
    assert r.best_step.tolist() == [5, 5] and (r.images == r.last).all()
    assert r.units.tolist() == [2, 0] and r.layer == "fc"


def test_progress_gains_the_same_at_every_step_of_every_unit_until_the_rate_is_bounded(linear):
    net, w, b = linear
    r = maximize(net, "fc", range(4), steps=4, optimizer=Progress(2.0))
    np.testing.assert_allclose(np.diff(r.scores, axis=0), 2.0, rtol=EXACT)
    r = maximize(net, "fc", range(4), steps=4, optimizer=Progress(2.0, max_rate=0.01))
    np.testing.assert_allclose(r.last, 4 * 0.01 * w, rtol=EXACT)


def test_a_normalized_step_is_as_long_for_every_unit(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=3, optimizer=Normalized(0.2))
    sizes = np.sqrt((w * w).mean((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(r.last, 3 * 0.2 * w / sizes, rtol=EXACT)


def test_adam_moves_every_pixel_by_the_step_size_where_the_gradient_is_constant(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=7, optimizer=Adam(0.1))
    np.testing.assert_allclose(r.last, 7 * 0.1 * np.sign(w), rtol=1e-4)  # epsilon 1e-8 against |g| > 1e-3


def test_mahendrans_optimizer_is_his_recursion_on_pixels_of_255(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=6, optimizer=Mahendran())
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
    r = maximize(net, "fc", range(4), steps=60, optimizer=Constant(0.5), regularizers=L2(0.7))
    np.testing.assert_allclose(r.last, w / 1.4, rtol=EXACT)
    # At a maximum the objective is flat: the first step to reach it may be the root of the rounding unit away.
    np.testing.assert_allclose(r.images, w / 1.4, rtol=1e-7)
    squares = (w * w).sum((1, 2, 3))
    np.testing.assert_allclose(r.objectives[-1], b + squares / (4 * 0.7), rtol=1e-8)
    np.testing.assert_allclose(r.scores[-1] - r.objectives[-1], squares / (4 * 0.7), rtol=1e-8)


def test_a_penalty_holds_the_deviation_from_the_mean_small_not_the_image(linear):
    net, w, _ = linear
    r = maximize(net, "fc", range(4), steps=60, optimizer=Constant(0.5), regularizers=L2(0.7), mean=0.4)
    np.testing.assert_allclose(r.last, 0.4 + w / 1.4, rtol=EXACT)


@pytest.mark.oracle
def test_the_order_of_yosinskis_operations_is_his(backend):
    """Against a loop on a PyTorch copy, one unit and one pixel percentile at a time."""
    torch_copy = pytest.importorskip("torch_copy", reason="PyTorch is not installed")
    net = models.build("mnist", backend=backend, dtype="float64", seed=5)
    module = torch_copy.copy_network(net)
    mean = np.random.default_rng(0).random((28, 28, 1)) / 2
    steps = [Decay(0.1), Blur(0.6, 2), ClipNorm(20), ClipContribution(30), Clip(0, 1)]
    recipe = Recipe(NOISE, optimizer=Constant(0.8), steps=5, regularizers=steps, mean=mean)
    r = maximize(net, "fc2", [3, 8], recipe, seed=4)
    for n, unit in enumerate((3, 8)):
        x, score = streams.rng(4, "ascent", unit).normal(0, NOISE, (28, 28, 1)), []
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


@pytest.mark.parametrize("layer, objective", [("fc", "activation"), ("relu1", "activation"), ("relu1", "sum")])
def test_the_score_is_the_unit_s_activation_at_the_centre_or_summed(conv, layer, objective):
    conv.params["conv1"]["b"][...] += 1  # both units are on from the start
    r = maximize(conv, layer, [1, 4], steps=3, optimizer=Constant(0.2), start=NOISE, objective=objective)
    for n, unit in enumerate((1, 4)):
        a = conv.forward(r.last[n : n + 1], upto=layer)[layer][0]
        expected = a[unit] if layer == "fc" else a[..., unit].sum() if objective == "sum" else a[4, 4, unit]
        assert r.scores[-1, n] == pytest.approx(expected, rel=EXACT)
    assert (np.diff(r.scores, axis=0) > 0).all()


@pytest.mark.parametrize(
    "restraint",
    [{}, {"transforms": Jitter(2)}, {"regularizers": [Clip(0, 1), L2(0.1), Blur(1.0, 3)]}],
    ids=str,
)
def test_the_best_image_is_the_one_that_got_the_best_objective_not_a_later_one(conv, restraint):
    recipe = Recipe(NOISE, optimizer=Constant(3.0), steps=25, mean=0.3, **restraint)
    r = maximize(conv, "fc", range(5), recipe)
    assert (r.best_step == r.objectives.argmax(0)).all()
    if restraint:
        assert (r.best_step < 25).any()
    else:
        assert (r.objectives == r.scores).all()
    u = np.arange(5)
    np.testing.assert_allclose(conv.logits(r.images)[u, u], r.scores[r.best_step, u], rtol=EXACT)
    np.testing.assert_allclose(conv.logits(r.last)[u, u], r.scores[-1], rtol=EXACT)


def test_a_unit_s_image_does_not_depend_on_the_other_units_of_the_call(conv):
    regularizers = [Decay(0.01), Blur(0.5, 2), ClipNorm(10), TotalVariation(0.01)]
    recipe = Recipe(NOISE, "activation", Progress(0.05), 12, regularizers, Jitter(2))
    many = maximize(conv, "fc", [4, 1, 3, 0], recipe)
    alone = maximize(conv, "fc", 3, recipe)
    np.testing.assert_allclose(many.images[2], alone.images[0], rtol=1e-9)
    np.testing.assert_allclose(many.scores[:, 2], alone.scores[:, 0], rtol=1e-9)


@pytest.mark.parametrize("together", [1, 7, 100])
def test_ways_gone_side_by_side_end_as_they_would_one_by_one(conv, prior, monkeypatch, together):
    """Different lengths, a second look at each step, a way of one step, whatever fits into a pass."""
    monkeypatch.setattr(viz.ascent.maximize, "TOGETHER", together)
    ways = [
        Recipe(NOISE, steps=7, regularizers=[Decay(0.01), Blur(0.5, 2), TotalVariation(0.01)]),
        Recipe(NOISE, optimizer=Adam(0.1), steps=3, transforms=[Affine(1, 5, 1.1), Noise(0.1)], views=2),
        Recipe(steps=5, parametrization=prior, objective="log-odds", transforms=Jitter(1)),
        Recipe(steps=0, mean=0.2),
        Recipe(NOISE, optimizer=Progress(2.0), steps=9),
    ]
    found = maximize_ways(conv, "fc", [4, 0, 2], ways, seed=3)
    assert len(found) == len(ways)
    for way, m in zip(ways, found):
        alone = maximize(conv, "fc", [4, 0, 2], way, seed=3)
        for name in ("images", "last", "scores", "objectives", "best_step"):
            np.testing.assert_allclose(getattr(m, name), getattr(alone, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_of_ways_that_cannot_be_gone_the_argument_is_named(conv):
    with pytest.raises(InputError, match="mean: expected numbers"):
        maximize_ways(conv, "fc", [0], [Recipe(steps=1), Recipe(mean=np.zeros(7))])
    with pytest.raises(InputError, match=r"recipe: expected a viz.ascent.Recipe, got .*steps"):
        maximize_ways(conv, "fc", [0], [{"steps": 1}])
    assert maximize_ways(conv, "fc", [0], []) == []


def test_a_seed_gives_the_same_bytes_and_another_seed_another_image(conv):
    recipe = Recipe(NOISE, steps=6, transforms=Jitter(1))
    one, two = (maximize(conv, "fc", [0, 1], recipe, seed=3) for _ in range(2))
    other = maximize(conv, "fc", [0, 1], recipe, seed=4)
    assert one.images.tobytes() == two.images.tobytes() and one.scores.tobytes() == two.scores.tobytes()
    assert (one.images != other.images).any()
    assert (one.images[0] != one.images[1]).any()


def test_jitter_leaves_no_drift():
    """A unit that sees one pixel: the image grows around that pixel, within the jitter's reach."""
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 1)], (15, 15, 1), dtype="float64")
    net.params["fc"]["w"][...] = 0
    net.params["fc"]["w"][7 * 15 + 7] = 1
    r = maximize(net, "fc", 0, steps=200, optimizer=Constant(1.0), transforms=[Jitter(2)])
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
    r = maximize(conv, "fc", [1, 4], steps=1, optimizer=Constant(1.0), start=start, objective="log-odds")
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
    recipe = Recipe(start, optimizer=Constant(1.0), steps=1, transforms=transforms, views=3)
    r = maximize(conv, "fc", [4, 2], recipe, seed=6)
    for n, unit in enumerate((4, 2)):
        rng, mean = streams.rng(6, "ascent", unit), np.zeros_like(start)
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
    r = maximize(conv, "fc", 3, steps=1, optimizer=Constant(0.5), start=z, **arguments)
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
    recipe = replace(for_size(size), steps=6, views=1, parametrization=Spectral.of(images))
    r = maximize(net, net.layer_names[-1], [0, 3], recipe)
    assert r.images.dtype == np.float32 and r.images.min() >= 0 and r.images.max() <= 1
    assert (r.objectives[r.best_step, [0, 1]] > r.objectives[0]).all()


def test_the_preset_of_the_nearest_size_is_taken():
    assert [for_size(n) is OURS[k] for n, k in ((8, 28), (29, 28), (31, 32), (48, 32), (65, 96), (224, 96))] == [
        True
    ] * 6
    assert hidden(28, dense=True) == replace(OURS[28], objective="activation")
    assert hidden(96, dense=False).transforms == ()
    assert hidden(96, dense=False).optimizer.size == pytest.approx(hidden(32, dense=False).optimizer.size / 3)


def test_the_study_s_code_is_a_loop_of_step_blur_decay_and_clipping(conv):
    """x <- x + gradient; the mean of 3x3 pixels, mirrored at the border; x <- 0.9 x; the lower half to 0."""
    r = maximize(conv, "fc", 1, STUDY_CODE, steps=4)
    dy = np.eye(conv.shapes["fc"][0], dtype=conv.dtype)[[1]]
    x = np.zeros((1, *conv.input_shape), conv.dtype)
    for _ in range(4):
        g = conv.backward(conv.forward(x), dy, at="fc", rule="gradient")
        x = x + g
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "symmetric")
        H, W = x.shape[1:3]
        x = 0.9 * sum(padded[:, i : i + H, j : j + W] for i in range(3) for j in range(3)) / 9
        size = np.abs((x * g).sum(-1))
        x = np.where((size < np.median(size))[..., None], 0, x)
    np.testing.assert_allclose(r.last, x, atol=1e-5 * np.abs(x).max())


def test_no_step_returns_the_start(conv):
    start = np.random.default_rng(1).random((2, 8, 9, 3))
    r = maximize(conv, "fc", [0, 1], steps=0, start=start, mean=0.25)
    np.testing.assert_allclose(r.images, start + 0.25, rtol=EXACT)
    assert r.scores.shape == (1, 2)
    one = maximize(conv, "fc", [0, 1], steps=0, start=start[0])
    assert (one.images == start[0]).all()
    assert (maximize(conv, "fc", 0, steps=0).images == 0).all()


def test_noise_has_the_stated_width():
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 1)], (60, 60, 3))
    assert maximize(net, "fc", 0, steps=0, start=0.3).images.std() == pytest.approx(0.3, rel=0.02)
    start = maximize(net, "fc", 0, steps=0, start=NOISE, mean=0.5).images
    assert start.std() == pytest.approx(10 / 255, rel=0.02) and start.mean() == pytest.approx(0.5, abs=0.002)


def test_pixels_stay_within_the_clip_and_the_norm_bound(conv):
    r = maximize(conv, "fc", range(5), steps=9, optimizer=Constant(50.0), regularizers=Clip(0.1, 0.6), mean=0.3)
    assert r.last.min() == pytest.approx(0.1) and r.last.max() == pytest.approx(0.6)
    recipe = Recipe(optimizer=Constant(50.0), steps=9, regularizers=NormProjection(0.5), mean=0.3)
    r = maximize(conv, "fc", range(5), recipe)
    assert np.linalg.norm(r.last - 0.3, axis=-1).max() == pytest.approx(0.5)


def test_a_dead_unit_leaves_its_image_alone_under_every_optimizer(conv):
    conv.params["conv1"]["b"][2] = -50
    for optimizer in (Constant(0.1), Progress(0.1), Normalized(0.1), Mahendran(0.1), Adam(0.1)):
        r = maximize(conv, "relu1", 2, steps=3, optimizer=optimizer, start=NOISE)
        assert (r.last == r.images).all() and np.isfinite(r.last).all() and (r.scores == 0).all()


@pytest.mark.parametrize("preset", [PRELIMINARY, STUDY_CODE, *YOSINSKI_SETS, MAHENDRAN], ids=str)
def test_every_preset_raises_the_score_of_a_class_and_keeps_float32(preset):
    net = models.build("mnist", seed=0)
    net.params["conv1"]["b"][...] = 0.1  # with no bias at all, a black image has no gradient
    net.params["fc2"]["w"] *= 100  # scores of order 10, as of a trained net: the penalties' weights are for these
    r = maximize(net, "fc2", [0, 3], preset, steps=12, start=0)
    assert r.images.dtype == r.last.dtype == np.float32
    assert (r.scores[r.best_step, [0, 1]] > r.scores[0]).all()


def test_the_presets_hold_the_papers_constants_for_pixels_up_to_1():
    assert PRELIMINARY == Recipe(0, "activation", Constant(10), 500, (), (), None)
    steps = (BoxBlur(3), Decay(0.1), ClipContribution(50))
    assert STUDY_CODE == Recipe(0, "activation", Constant(1), 300, steps, (), None)
    assert [s.steps for s in YOSINSKI_SETS] == [500, 750, 1000, 1000]
    assert [type(s.optimizer) for s in YOSINSKI_SETS] == [Progress, Constant, Constant, Progress]
    assert [round(s.optimizer.rate * 255**2, 9) for s in YOSINSKI_SETS[1:3]] == [100, 100]
    assert [YOSINSKI_SETS[i].optimizer.gain for i in (0, 3)] == [2, 2]
    assert [round(YOSINSKI_SETS[i].optimizer.max_rate * 255**2, 6) for i in (0, 3)] == [100, 1e8]
    assert all(s.start == 10 / 255 and s.regularizers[0] == Clip(0, 1) for s in YOSINSKI_SETS)
    assert [s.regularizers[1:] for s in YOSINSKI_SETS] == [
        (Blur(0.5, 4), ClipNorm(50)),
        (Decay(0.3), ClipNorm(20)),
        (Decay(1e-4), Blur(1.0, 4)),
        (Blur(0.5, 4), ClipContribution(90)),
    ]
    assert (MAHENDRAN.steps, MAHENDRAN.optimizer.size, MAHENDRAN.start) == (300, 1 / 255, 10 / 255)
    assert MAHENDRAN.regularizers == (BoundedRange(1), TotalVariation(1), NormProjection(160 / 255))
    assert MAHENDRAN.transforms == (Jitter(2),)
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
        ({"step_size": 1}, "unknown field of a recipe 'step_size'; choose one of: start, objective, optimizer, steps"),
        ({"recipe": 300}, "recipe: expected a viz.ascent.Recipe, got 300"),
        ({"optimizer": "adam"}, "optimizer: 'adam' is none.*optimizers.Adam"),
        ({"optimizer": Adam}, "optimizer: .*Adam.* is none"),
        ({"start": "zeros"}, "start: .*got 'zeros'"),
        ({"start": -1}, "start: expected the standard deviation .* -1"),
        ({"start": np.nan}, "start"),
        ({"start": [[1], [2, 3]]}, "start: expected numbers that broadcast"),
        ({"start": np.zeros((2, 8, 9, 3))}, "start: expected numbers that broadcast"),
        ({"start": np.full((8, 9, 3), np.nan)}, "start: holds NaN"),
        ({"positions": (1, 2)}, "positions: .* dense layer"),
        ({"layer": "relu1", "positions": (1, 2), "objective": "sum"}, "positions: .* sum of a map"),
        ({"layer": "relu1", "positions": (8, 0)}, r"positions: .*8 by 9, got \(8, 0\)"),
        ({"layer": "relu1", "positions": (-1, 0)}, "positions"),
        ({"layer": "relu1", "positions": [(1, 2), (3, 4)]}, r"positions: .* or 1 of them"),
        ({"layer": "relu1", "positions": (1.5, 2)}, "positions"),
        ({"layer": "relu1", "positions": "center"}, "positions: .*got center"),
        ({"mean": np.zeros((9, 8, 3))}, "mean"),
        ({"mean": np.inf}, "mean: holds NaN or infinite"),
        ({"regularizers": [0.1]}, "regularizers: 0.1"),
        ({"regularizers": Decay}, "regularizers: .*Decay.* is none"),
        ({"regularizers": Jitter(1)}, r"regularizers: Jitter\(pixels=1\) is a transform, it belongs into transforms"),
        ({"regularizers": lambda x: None}, r"regularizers: .*lambda.* made object \(\)"),
        ({"regularizers": lambda x: x[:, 1:]}, r"regularizers: of x \(1, 8, 9, 3\) .* made float64 \(1, 7, 9, 3\)"),
        ({"transforms": Decay(0.1)}, r"transforms: Decay\(theta=0.1\) is none"),
        ({"parametrization": Spectral}, "parametrization: .* is none"),
        ({"views": 0}, "views"),
        ({"objective": "loss"}, "objective 'loss'.*log-odds"),
        ({"layer": "relu1", "objective": "log-odds"}, "objective: .*'relu1' has maps"),
        ({"objective": "sum"}, "objective: .*'fc' has no maps"),
        ({"parametrization": PRIOR, "mean": 0.5}, "mean: a parametrization has its own"),
        ({"parametrization": PRIOR, "regularizers": [Blur(1)]}, r"regularizers: Blur.* changes pixels"),
        ({"parametrization": PRIOR, "regularizers": [Clip(0, 1)]}, r"regularizers: Clip.* changes pixels"),
        ({"parametrization": Spectral.of(np.zeros((2, 8, 9, 3), np.uint8))}, "parametrization: .*float32.*float64"),
        (
            {"parametrization": Spectral.of(np.zeros((2, 9, 8, 3), np.uint8), "float64")},
            r"parametrization: .*\(9, 8, 3\)",
        ),
        (
            {"optimizer": Constant(1e308), "steps": 200},
            r"diverged at step .* smaller steps than .*Constant\(rate=1e\+308\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_bad_arguments_are_named(conv, change, named):
    arguments = {"layer": "fc", "units": [0], "steps": 1, **change}
    with pytest.raises(InputError, match=named):
        maximize(conv, **arguments)


def test_deprocess_refuses_what_is_no_batch_of_finite_images():
    for bad in (np.zeros((4, 4, 3)), np.zeros((1, 4, 4, 3), int), np.full((1, 4, 4, 3), np.nan)):
        with pytest.raises(InputError, match="x: expected finite"):
            deprocess(bad)


def test_regularizers_act_in_the_caller_s_order_and_any_function_is_one(linear):
    """x + 0.3 w, then halved and raised by 1, or the other way round; a function that clips is no exception."""
    net, w, _ = linear

    def raised(x):
        return x + 1

    for steps, expected in (((Decay(0.5), raised), 0.15 * w + 1), ((raised, Decay(0.5)), 0.15 * w + 0.5)):
        r = maximize(net, "fc", range(4), steps=1, optimizer=Constant(0.3), regularizers=steps)
        np.testing.assert_allclose(r.last, expected, rtol=EXACT)
    r = maximize(net, "fc", range(4), steps=2, optimizer=Constant(0.3), regularizers=raised)
    np.testing.assert_allclose(r.last, 0.6 * w + 2, rtol=EXACT)
    r = maximize(net, "fc", range(4), steps=1, optimizer=Constant(0.3), regularizers=lambda x: np.clip(x, 0, 0.1))
    np.testing.assert_allclose(r.last, np.clip(0.3 * w, 0, 0.1), rtol=EXACT)


def test_a_clip_acts_before_the_image_is_looked_at_wherever_it_stands(linear):
    net, _, _ = linear
    seen = []
    for regularizers in ((Clip(0, 1), Decay(0.5)), (Decay(0.5), Clip(0, 1))):
        recipe = Recipe(start=np.full((3, 5, 2), 3.0), steps=2, regularizers=regularizers)
        maximize(net, "fc", 0, recipe, callback=lambda i, images, scores: seen.append(images))
    assert seen[0].min() == seen[0].max() == 1 and all(images.max() <= 1 for images in seen)
    for one, other in zip(seen[:3], seen[3:], strict=True):
        assert (one == other).all()


def test_a_function_works_on_the_unknowns_of_a_parametrization(conv, prior):
    found = [
        maximize(conv, "fc", [1, 2], Recipe(0.3, steps=3, parametrization=prior, regularizers=r), seed=1)
        for r in (Decay(0.25), lambda x: 0.75 * x)
    ]
    np.testing.assert_allclose(found[0].last, found[1].last, rtol=EXACT)


def test_a_function_s_float64_becomes_the_network_s_float32():
    net = Network([layers.Flatten("flatten"), layers.Dense("fc", 2)], (3, 3, 1))
    r = maximize(net, "fc", 1, steps=2, regularizers=lambda x: x.astype("float64"))
    assert r.last.dtype == r.images.dtype == np.float32


def test_positions_pick_the_unit_of_each_map_that_is_excited(conv):
    """One for all, or one for each; an image changes only where its unit sees it."""
    for positions, expected in (((2, 7), [(2, 7), (2, 7)]), (np.array([(2, 7), (6, 1)]), [(2, 7), (6, 1)])):
        r = maximize(conv, "conv1", [1, 4], steps=2, optimizer=Constant(0.2), positions=positions)
        answers = conv.forward(r.last)["conv1"]
        for n, (unit, (i, j)) in enumerate(zip((1, 4), expected)):
            assert r.scores[-1, n] == pytest.approx(answers[n, i, j, unit], rel=EXACT)
            window = np.zeros((8, 9), bool)
            window[i - 1 : i + 2, max(j - 1, 0) : j + 2] = True
            assert (r.last[n][~window] == 0).all() and (r.last[n][window] != 0).all()
    default, centre = (maximize(conv, "conv1", 3, steps=2, positions=p).last for p in (None, (4, 4)))
    assert (default == centre).all()


def test_copies_are_moved_at_their_own_positions(conv):
    """With noise too small to matter the ascent with views is the one without."""
    positions = [(2, 7), (6, 1)]
    plain = maximize(conv, "conv1", [1, 4], steps=2, positions=positions)
    moved = maximize(conv, "conv1", [1, 4], steps=2, positions=positions, transforms=Noise(1e-12), views=3)
    np.testing.assert_allclose(moved.last, plain.last, rtol=1e-6, atol=1e-12)


def test_the_callback_gets_the_images_and_scores_of_every_step(conv):
    calls = []

    def callback(*call):
        calls.append(call)
        return "ignored"

    r = maximize(conv, "fc", [3, 0], steps=4, start=NOISE, transforms=Jitter(1), mean=0.2, callback=callback)
    assert [step for step, _, _ in calls] == [0, 1, 2, 3, 4]
    for step, images, scores in calls:
        assert (scores == r.scores[step]).all()
        np.testing.assert_allclose(conv.logits(images)[[0, 1], [3, 0]], scores, rtol=EXACT)
    assert (calls[-1][1] == r.last).all()
    for n, step in enumerate(r.best_step):
        assert (calls[step][1][n] == r.images[n]).all()


def test_a_variant_differs_in_one_factor_and_changes_are_such_variants(conv):
    recipe = Recipe(NOISE, "activation", Adam(0.05), 4, Decay(0.1), Jitter(1))
    variant = replace(recipe, optimizer=Normalized(0.05))
    assert variant != recipe and replace(variant, optimizer=Adam(0.05)) == recipe
    assert recipe.regularizers == (Decay(0.1),) and recipe.transforms == (Jitter(1),)
    one, two = maximize(conv, "fc", 1, variant), maximize(conv, "fc", 1, recipe, optimizer=Normalized(0.05))
    assert (one.images == two.images).all() and (one.images != maximize(conv, "fc", 1, recipe).images).any()


def test_recipes_and_their_parts_are_frozen():
    for part, name in ((Recipe(), "steps"), (Adam(0.1), "rate"), (Progress(2.0), "gain"), (MAHENDRAN, "mean")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 3)


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: Constant(0), "Constant: rate must be positive, got 0"),
        (lambda: Adam(np.nan), "Adam: rate must be positive, got nan"),
        (lambda: Adam("fast"), "Adam: rate must be positive, got 'fast'"),
        (lambda: Progress(2, -1), "Progress: max_rate"),
        (lambda: Progress(0), "Progress: gain"),
        (lambda: Normalized(-0.1), "Normalized: size"),
        (lambda: Mahendran(0), "Mahendran: size"),
        (lambda: replace(MAHENDRAN, steps=0.5), "steps: expected a whole number from 0 to 10,000,000, got 0.5"),
        (lambda: replace(for_size(28), views=0), "views: expected a whole number from 1 to 1,000, got 0"),
        (lambda: replace(YOSINSKI_SETS[0], parametrization=PRIOR), r"regularizers: Clip.* changes pixels"),
    ],
)
def test_recipes_that_make_no_sense_are_refused_when_they_are_written(make, named):
    with pytest.raises(InputError, match=named):
        make()


def test_what_was_found_introduces_itself_in_a_line(linear):
    """From zeros the best score is b + 5 * 0.1 ||w||^2."""
    net, w, b = linear
    best = b[[2, 0]] + 0.5 * (w[[2, 0]] ** 2).sum((1, 2, 3))
    expected = f"Maximization(layer='fc', 2 units, 5 steps, best scores {best.min():.4g} to {best.max():.4g})"
    assert repr(maximize(net, "fc", [2, 0], steps=5)) == expected
