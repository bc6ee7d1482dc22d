"""Transforms and parametrisation: what they do to images, and that gradients come back by the exact adjoint."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.special import expit, logit

from tinycnn import InputError
from viz.ascent.parametrize import EDGE, Spectral
from viz.ascent.transforms import Affine, Jitter, Noise

EXACT = 1e-12  # two float64 computations of the same formula
FD = 1e-7  # relative; central differences in float64 with steps of 1e-5 err by about 1e-10


@pytest.fixture(params=[(5, 6, 1), (7, 4, 3), (1, 5, 3)], ids=str)
def x(request):
    return np.random.default_rng(0).normal(0, 0.3, (4, *request.param))


def draws(transform, x, seed=1):
    rng = np.random.default_rng(seed)
    return np.stack([transform.draw(rng, x.shape[1:]) for _ in x])


@pytest.mark.parametrize("transform", [Jitter(3), Affine(2.5, 30, 1.4), Affine(shift=20)], ids=repr)
def test_every_transform_has_its_adjoint(transform, x):
    drawn, g = draws(transform, x), np.random.default_rng(2).normal(size=x.shape)
    there = (transform.apply(x, drawn) * g).sum((1, 2, 3))
    back = (x * transform.adjoint(g, drawn)).sum((1, 2, 3))
    np.testing.assert_allclose(there, back, atol=EXACT)  # for each image: none leaks into another


def test_jitter_is_a_permutation_and_its_adjoint_undoes_it(x):
    drawn = draws(Jitter(3), x)
    y = Jitter(3).apply(x, drawn)
    assert (np.sort(y, None) == np.sort(x, None)).all()
    assert (Jitter(3).adjoint(y, drawn) == x).all()


def test_jitter_draws_every_shift_up_to_its_size_and_none_beyond():
    rng = np.random.default_rng(0)
    drawn = {tuple(Jitter(2).draw(rng)) for _ in range(1000)}
    assert drawn == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_noise_is_added_and_its_gradient_is_the_gradient():
    x = np.zeros((3, 50, 50, 3))
    noise = Noise(0.2)
    drawn = draws(noise, x)
    assert noise.apply(x, drawn).std() == pytest.approx(0.2, rel=0.02)
    assert len(np.unique(drawn.std((1, 2, 3)))) == 3
    np.testing.assert_allclose(noise.apply(x + 1, drawn) - noise.apply(x, drawn), 1, rtol=EXACT)
    assert (noise.adjoint(x + 3, drawn) == x + 3).all()


def test_affine_is_bilinear_resampling_about_the_centre(x):
    """Against SciPy's interpolation at positions from rotation matrices, one image at a time."""
    transform = Affine(1.5, 40, 1.5)
    drawn = draws(transform, x)
    y = transform.apply(x, drawn)
    H, W = x.shape[1:3]
    centre = np.array([(H - 1) / 2, (W - 1) / 2])[:, None]
    for n, (down, right, angle, size) in enumerate(drawn):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / size
        at = turn @ (np.indices((H, W)).reshape(2, -1) - centre) - [[down], [right]] + centre
        for c in range(x.shape[3]):
            expected = map_coordinates(x[n, ..., c], at, order=1, mode="nearest").reshape(H, W)
            np.testing.assert_allclose(y[n, ..., c], expected, atol=1e-10)


def test_affine_moves_down_and_right_turns_and_enlarges():
    x = np.zeros((1, 9, 9, 1))
    x[0, 4, 6] = 1
    move = Affine().apply(x, np.array([[2.0, 1.0, 0.0, 1.0]]))
    assert move[0, 6, 7, 0] == 1 and move.sum() == 1
    turn = Affine().apply(x, np.array([[0.0, 0.0, np.pi / 2, 1.0]]))
    assert turn[0, 2, 4, 0] == pytest.approx(1)  # from the right of the centre to above it: counter-clockwise
    double = Affine().apply(x, np.array([[0.0, 0.0, 0.0, 2.0]]))
    assert double[0, 4, 8, 0] == 1


def test_affine_draws_within_its_bounds_and_leaves_a_flat_image_as_it_is():
    transform, rng = Affine(2, 10, 1.2), np.random.default_rng(0)
    drawn = np.stack([transform.draw(rng) for _ in range(2000)])
    bounds = np.array([2, 2, np.radians(10), np.log(1.2)])
    drawn[:, 3] = np.log(drawn[:, 3])
    reached = np.abs(drawn).max(0) / bounds
    assert (reached <= 1 + EXACT).all() and (reached > 0.99).all()
    np.testing.assert_allclose(drawn.mean(0) / bounds, 0, atol=0.05)
    flat = np.full((2, 6, 7, 3), 0.3, np.float32)
    y = transform.apply(flat, draws(transform, flat))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, 0.3, rtol=1e-6)


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda: Jitter(0), "pixels"),
        (lambda: Jitter(1.5), "pixels"),
        (lambda: Affine(shift=-1), "shift"),
        (lambda: Affine(degrees=np.nan), "degrees"),
        (lambda: Affine(scale=0.9), "scale"),
        (lambda: Noise(0), "sigma"),
        (lambda: Spectral.of(np.zeros((1, 4, 4, 3), np.uint8)), "at least 2"),
        (lambda: Spectral.of(np.zeros((3, 4, 4, 3))), "uint8"),
    ],
)
def test_impossible_constants_are_refused_by_name(make, named):
    with pytest.raises(InputError, match=named):
        make()


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def photographs(request):
    """Images with correlated colours and neighbours, and a mean of their own at each place."""
    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, (250, 6, 5, request.param)).cumsum(1) @ rng.normal(0, 1, (request.param, request.param))
    return np.round(255 * expit(y + rng.normal(0, 1, y.shape[1:]))).astype(np.uint8)


def test_the_gradient_of_the_parametrisation_agrees_with_central_differences(photographs):
    p, rng = Spectral.of(photographs, "float64"), np.random.default_rng(1)
    z, g = rng.normal(size=(2, 2, *photographs.shape[1:]))
    grad, numeric = p.gradient(p.image(z), g), np.empty_like(z)
    for i in np.ndindex(*z.shape):
        h = np.zeros_like(z)
        h[i] = 1e-5
        numeric[i] = ((p.image(z + h) - p.image(z - h)) * g).sum() / 2e-5
    assert np.abs(grad - numeric).max() <= FD * np.abs(numeric).max()


def test_unknowns_of_the_training_images_have_mean_0_and_deviation_1_and_uncorrelated_colours(photographs):
    """Solves for z of each photograph, through logarithms and dense cosine matrices of its own."""
    p = Spectral.of(photographs, "float64")
    N, H, W, C = photographs.shape
    y = logit(EDGE + (1 - 2 * EDGE) * photographs / 255) - p.mean

    def cosines(n):
        k = np.arange(n)
        basis = np.sqrt(2 / n) * np.cos(np.pi * k[:, None] * (k + 0.5) / n)
        basis[0] /= np.sqrt(2)
        return basis

    z = np.einsum("kh,lw,nhwc,cd->nkld", cosines(H), cosines(W), y, p.colors) / p.amplitude
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose((z * z).mean(0), 1, rtol=1e-9)
    between = np.einsum("nhwa,nhwb->ab", z * p.amplitude, z * p.amplitude) / (N * H * W)
    np.testing.assert_allclose(between, np.diag(between.diagonal()), atol=1e-9 * between.max())
    back = (p.image(z) - EDGE) / (1 - 2 * EDGE)
    np.testing.assert_allclose(255 * back, photographs, atol=1e-9)


def test_images_are_pictures_whatever_the_unknowns_and_keep_float32(photographs):
    p = Spectral.of(photographs)
    z = 100 * np.random.default_rng(0).normal(size=(2, *photographs.shape[1:])).astype(np.float32)
    image = p.image(z)
    assert image.dtype == np.float32 == p.gradient(image, image).dtype
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.3


def test_a_place_that_is_the_same_in_every_image_stays_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1)).astype(np.uint8)
    images[...] = images[:, :1]  # no change from top to bottom
    p = Spectral.of(images, "float64")
    np.testing.assert_allclose(p.amplitude[1:], 0, atol=1e-6)
    image = p.image(np.random.default_rng(1).normal(size=(1, 4, 4, 1)))
    np.testing.assert_allclose(image, np.broadcast_to(image[:, :1], image.shape), atol=1e-6)
