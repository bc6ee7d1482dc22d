"""Penalties have the gradient they claim, the steps the papers' definitions."""

import numpy as np
import pytest

from tinycnn import InputError
from viz.ascent.regularizers import (
    L2,
    B,
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

FD = 1e-7  # relative; central differences in float64 with steps of 1e-6 err by about 1e-9
EXACT = 1e-12  # two float64 computations of the same formula

PENALTIES = [
    L2(0.3),
    BoundedRange(2.0),
    BoundedRange(1.0, alpha=2.0),
    BoundedRange(0.5, alpha=3.0, B=0.7),
    TotalVariation(2.0),
    TotalVariation(1.0, beta=1.0),
    TotalVariation(1.0, beta=1.5, V=0.3),
    TotalVariation(1.0, beta=3.0, V=0.5),
]


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def x(request):
    return np.random.default_rng(0).normal(0, 0.3, (2, 5, 6, request.param))


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_gradient_of_every_penalty_agrees_with_central_differences(penalty, x):
    _, grad = penalty.value_and_grad(x)
    numeric = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        h = np.zeros_like(x)
        h[i] = 1e-6
        up, down = penalty.value_and_grad(x + h)[0], penalty.value_and_grad(x - h)[0]
        numeric[i] = (up - down)[i[0]] / 2e-6
    assert np.abs(grad - numeric).max() <= FD * np.abs(numeric).max()


def test_total_variation_is_the_sum_over_right_and_lower_differences(x):
    for beta in (1.0, 2.0, 3.0):
        U, H, W, C = x.shape
        expected = np.zeros(U)
        for n, i, j, c in np.ndindex(*x.shape):
            right = x[n, i, j + 1, c] - x[n, i, j, c] if j + 1 < W else 0.0
            down = x[n, i + 1, j, c] - x[n, i, j, c] if i + 1 < H else 0.0
            expected[n] += (right**2 + down**2) ** (beta / 2)
        expected *= 0.7 / (H * W * 0.2**beta)
        np.testing.assert_allclose(TotalVariation(0.7, beta, V=0.2).value_and_grad(x)[0], expected, rtol=EXACT)


def test_bounded_range_and_l2_are_sums_of_pixel_norms(x):
    U, H, W, _ = x.shape
    norms = np.linalg.norm(x, axis=-1).reshape(U, -1)
    expected = 0.7 * (norms**6).sum(1) / (H * W * (80 / 255) ** 6)
    np.testing.assert_allclose(BoundedRange(0.7).value_and_grad(x)[0], expected, rtol=EXACT)
    np.testing.assert_allclose(L2(0.7).value_and_grad(x)[0], 0.7 * (norms**2).sum(1), rtol=EXACT)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_a_flat_image_has_no_total_variation_and_a_finite_zero_gradient(beta):
    value, grad = TotalVariation(1.0, beta).value_and_grad(np.full((1, 4, 4, 3), 0.2))
    assert value == 0 and (grad == 0).all()


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_penalties_keep_float32(penalty):
    assert penalty.value_and_grad(np.ones((1, 4, 4, 3), np.float32))[1].dtype == np.float32


@pytest.mark.parametrize(
    "step",
    [Decay(0.1), Blur(0.5), BoxBlur(3), ClipNorm(30), ClipContribution(30), NormProjection(0.1), Clip(-0.1, 0.1)],
    ids=repr,
)
def test_steps_keep_float32_and_leave_their_input_alone(step):
    x = np.random.default_rng(0).normal(0, 1, (2, 6, 5, 3)).astype(np.float32)
    before = x.copy()
    y = step.apply(x, gradient=x, iteration=0, mean=np.float32(0))
    assert y.dtype == np.float32 and y.shape == x.shape
    assert (x == before).all() and (y != x).any()


def test_blur_neither_darkens_the_border_nor_changes_the_mean(x):
    flat = np.full((1, 7, 6, 3), 0.8)
    np.testing.assert_allclose(Blur(1.5).apply(flat), flat, rtol=EXACT)
    np.testing.assert_allclose(Blur(1.0).apply(x).mean((1, 2)), x.mean((1, 2)), atol=EXACT)


def test_blur_spreads_a_point_as_a_gaussian_within_its_own_colour_and_image():
    x = np.zeros((2, 21, 21, 2))
    x[0, 10, 10, 0] = 1
    y = Blur(1.2).apply(x)
    i, j = np.mgrid[-10:11, -10:11]
    gaussian = np.exp(-(i**2 + j**2) / (2 * 1.2**2)) * (abs(i) <= 5) * (abs(j) <= 5)  # cut at 4 sigma
    np.testing.assert_allclose(y[0, :, :, 0], gaussian / gaussian.sum(), atol=EXACT)
    assert (y[0, :, :, 1] == 0).all() and (y[1] == 0).all()


def test_a_box_blur_is_the_mean_of_the_pixels_around_mirrored_at_the_border(x):
    y = BoxBlur(3).apply(x)
    U, H, W, C = x.shape
    for n, i, j, c in np.ndindex(*x.shape):
        rows = [min(max(i + a, 0), H - 1) for a in (-1, 0, 1)]  # one pixel beyond the border is the border itself
        columns = [min(max(j + b, 0), W - 1) for b in (-1, 0, 1)]
        assert y[n, i, j, c] == pytest.approx(np.mean([x[n, v, u, c] for v in rows for u in columns]), abs=EXACT)


def test_blur_acts_at_the_end_of_every_nth_iteration(x):
    acted = [(Blur(1.0, every=3).apply(x, iteration=i) != x).any() for i in range(7)]
    assert acted == [False, False, True, False, False, True, False]


def test_decay_shrinks_and_clip_bounds_the_image_around_its_mean(x):
    np.testing.assert_allclose(Decay(0.25).apply(x), 0.75 * x, rtol=EXACT)
    image = 0.4 + Clip(0, 1).apply(x * 10, mean=0.4)
    assert image.min() == pytest.approx(0) and image.max() == pytest.approx(1)


def test_clip_norm_zeroes_the_smallest_pixels_of_each_image(x):
    norms = np.linalg.norm(x, axis=-1)
    y = ClipNorm(40).apply(x)
    for n in range(len(x)):
        small = np.zeros(norms[n].size, bool)
        small[np.argsort(norms[n], None)[:12]] = True  # 40 % of 30 pixels
        small = small.reshape(norms[n].shape)
        assert (y[n][small] == 0).all() and (y[n][~small] == x[n][~small]).all()


def test_clip_contribution_zeroes_the_pixels_that_the_score_needs_least(x):
    g = np.random.default_rng(3).normal(size=x.shape)
    contribution = np.abs((x * g).sum(-1))
    y = ClipContribution(90).apply(x, gradient=g)
    for n in range(len(x)):
        kept = (y[n] != 0).any(-1)
        assert kept.sum() == 3  # 10 % of 30 pixels
        assert contribution[n][kept].min() > contribution[n][~kept].max()


def test_percentile_0_keeps_every_pixel(x):
    assert (ClipNorm(0).apply(x) == x).all() and (ClipContribution(0).apply(x, gradient=x) == x).all()


def test_norm_projection_bounds_pixels_and_keeps_their_direction(x):
    y = NormProjection(0.3).apply(x)
    before, after = np.linalg.norm(x, axis=-1), np.linalg.norm(y, axis=-1)
    np.testing.assert_allclose(after, np.minimum(before, 0.3), rtol=EXACT)
    np.testing.assert_allclose(y * before[..., None], x * after[..., None], atol=EXACT)
    assert NormProjection().bound == 2 * B == 160 / 255


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: Decay(1.5), "theta"),
        (lambda: Blur(0), "sigma"),
        (lambda: Blur(1, every=0), "every"),
        (lambda: BoxBlur(2), "size"),
        (lambda: ClipNorm(101), "percentile"),
        (lambda: ClipContribution(-1), "percentile"),
        (lambda: NormProjection(0), "bound"),
        (lambda: Clip(1, 0), "low"),
        (lambda: TotalVariation(1, beta=0.5), "beta"),
        (lambda: TotalVariation(1, V=0), "V"),
        (lambda: BoundedRange(1, alpha=1), "alpha"),
        (lambda: BoundedRange(1, B=0), "B "),
    ],
)
def test_impossible_constants_are_refused_by_name(make, named):
    with pytest.raises(InputError, match=named):
        make()
