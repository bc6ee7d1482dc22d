"""Naming an image, pointing at an object, oriented filters, random steps: against loops and known answers."""

import numpy as np
import pytest
from scipy import ndimage

from tinycnn import InputError, data, models, streams
from viz import deconvnet
from viz.metrics.correlation import pearson, standardized
from viz.metrics.identification import identify
from viz.metrics.localization import pointing_game
from viz.metrics.orientation import oriented
from viz.study.stages import learned


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "test")[0][:60]


def by_loops(maps, images):
    """`identify`, a map and a candidate at a time."""

    def own(pictures):
        rows = [(p - p.mean()) / np.linalg.norm(p - p.mean()) for p in pictures]
        mean = sum(rows) / len(rows)
        return [row - mean for row in rows]

    def sobel(picture):
        grey = picture.mean(-1)
        return np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))

    there, hits = own([sobel(x / 255) for x in images]), []
    lines, borders = own([np.abs(m).max(-1) for m in maps]), own([sobel(m) for m in maps])
    for n in range(len(maps)):
        scores = [
            max(np.corrcoef(view[n].ravel(), candidate.ravel())[0, 1] for view in (lines, borders))
            for candidate in there
        ]
        hits.append(float(max(range(len(scores)), key=scores.__getitem__) == n))
    return hits


def test_an_image_is_named_as_loops_say(digits):
    rng = np.random.default_rng(0)
    noisy = ndimage.gaussian_filter(digits / 255, (0, 3, 3, 0)) + rng.normal(0, 0.12, digits.shape)
    for maps in (noisy, -noisy, noisy * rng.random((60, 1, 1, 1)), np.repeat(noisy, 3, 3) * [0.2, -1, 0.5]):
        found = identify(maps, digits)
        assert found.tolist() == by_loops(maps, digits)
        assert 0.1 < found.mean() < 0.95, "the case says nothing"


def test_the_image_and_its_edges_always_name_it_in_any_scale(digits):
    for maps in (digits, digits / 255, 7 - 3 * (digits / 255), deconvnet.edges(digits), -deconvnet.edges(digits)):
        assert (identify(maps, digits) == 1).all()


def test_no_map_names_the_image_of_another(digits):
    hits = [identify(np.roll(digits, k, 0), digits) for k in range(1, 60)]
    assert np.sum(hits) == 0


def test_what_has_nothing_of_an_image_names_it_by_chance(digits):
    rng = np.random.default_rng(1)
    hits = np.concatenate([identify(rng.random((60, 28, 28)), digits) for _ in range(40)])
    assert abs(hits.mean() - 1 / 60) < 4 * np.sqrt(1 / 60 / len(hits))


def test_one_drawing_for_all_and_a_constant_map_are_undefined_never_a_hit(digits):
    y, x = np.mgrid[:28, :28] - 13.5
    blob = np.exp(-(x**2 + y**2) / 98)
    assert np.isnan(identify(np.broadcast_to(blob, (60, 28, 28)), digits)).all()
    assert np.isnan(identify(np.arange(60)[:, None, None, None] * np.ones((60, 28, 28, 3)), digits)).all()
    some = digits.copy()
    some[5] = 9
    found = identify(some, digits)
    assert np.isnan(found[5]) and found[np.arange(60) != 5].all()
    found = identify(digits, some)  # an image without outlines cannot be named, and is nobody's guess
    assert np.isnan(found[5]) and found[np.arange(60) != 5].all()


def test_of_two_equal_images_neither_is_named(digits):
    twins = digits.copy()
    twins[1] = twins[0]
    assert identify(twins, twins).tolist() == [0, 0, *[1] * 58]


def test_maps_that_do_not_fit_are_named(digits):
    for maps in (digits[:-1], digits[:, :-1], digits[0, 0]):
        with pytest.raises(InputError, match="maps: expected one for each"):
            identify(maps, digits)
    assert np.isnan(identify(digits[:1], digits[:1]))  # one image alone: there is nothing to tell it from


def test_pearson_is_numpy_s_and_undefined_where_one_is_the_same_everywhere():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 5, 6)), rng.normal(size=(4, 5, 6))
    b[1], b[2], a[3] = -2 * a[1] + 5, a[2] * 1e-8, 0.1
    found = pearson(a, b)
    assert found[:3] == pytest.approx([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a[:3], b[:3])])
    assert found[1:3] == pytest.approx([-1, 1]) and np.isnan(found[3])
    assert (standardized(a) @ standardized(b).T)[0, 2] == pytest.approx(np.corrcoef(a[0].ravel(), b[2].ravel())[0, 1])
    for other in (b[:3], b[:, :2]):
        with pytest.raises(InputError, match="one shape"):
            pearson(a, other)


def test_the_pointing_game_is_what_loops_say_and_undefined_without_an_object_or_a_maximum():
    rng = np.random.default_rng(0)
    maps, masks = rng.integers(0, 12, (200, 5, 6)) / 7, rng.random((200, 5, 6)) < 0.4
    masks[3], maps[4], masks[5] = False, 0.3, True
    expected = []
    for m, mask in zip(maps, masks):
        best = [(y, x) for y in range(5) for x in range(6) if m[y, x] == max(m.ravel())]
        expected.append(sum(mask[y, x] for y, x in best) / len(best))
    expected[3] = expected[4] = np.nan  # an empty mask and a constant map are no hits
    np.testing.assert_array_equal(pointing_game(masks, maps), expected)
    assert expected[5] == 1 and {0.0, 0.5, 1.0} <= set(expected)


def test_the_pointing_game_of_noise_is_the_share_of_the_object():
    rng = np.random.default_rng(1)
    masks = np.zeros((4000, 6, 6), bool)
    masks[:, 1:4, 2:5] = True
    assert pointing_game(masks, rng.random((4000, 6, 6))).mean() == pytest.approx(9 / 36, abs=0.03)


@pytest.mark.parametrize(
    "masks, maps, named",
    [
        (np.ones((2, 3, 3), bool), np.ones((2, 3, 4)), "one shape"),
        (np.ones((2, 3, 3)), np.ones((2, 3, 3)), "bool"),
        (np.ones((2, 3, 3), bool), np.full((2, 3, 3), np.nan), "NaN"),
    ],
)
def test_a_bad_pointing_game_is_named(masks, maps, named):
    with pytest.raises(InputError, match=named):
        pointing_game(masks, maps)


def gabor(angle, waves, phase, width=np.inf, size=5):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along = x * np.cos(np.deg2rad(angle)) + y * np.sin(np.deg2rad(angle))
    return np.cos(2 * np.pi * waves / size * along + phase) * np.exp(-(x**2 + y**2) / (2 * width**2))


def test_edges_and_bars_of_the_grid_are_explained_wholly_in_any_phase_and_colour():
    ways = [(0, 0.5, 0.3), (45, 1, 1.1), (135, 1.5, 2.0), (90, 1, 0.7, 2.5), (165, 2, 0.1, 1.25)]
    bars = np.stack([0.3 - 2 * gabor(*way) for way in ways])
    assert oriented(bars[..., None]) == pytest.approx(1)
    assert oriented(bars[..., None] * [0.2, -1, 0.5] + [0, 3, 1]) == pytest.approx(1)


@pytest.mark.parametrize("rows", [5, 1])
def test_the_best_of_the_grid_is_that_of_least_squares(rows):
    """A wave across a single row of pixels is a constant, and explains nothing."""
    size = 5 if rows == 5 else 9
    w = np.random.default_rng(0).normal(size=(3, rows, size, 2))
    w[0] = 0
    w[0, 0, 0] = 1, 2
    middle = slice(None) if rows == 5 else slice(4, 5)
    best = np.zeros(3)
    for angle in range(0, 180, 15):
        for waves in (0.5, 1, 1.5, 2):
            for width in (np.inf, size / 2, size / 4):
                pair = [gabor(angle, waves, phase, width, size)[middle].ravel() for phase in (0, np.pi / 2)]
                design = np.stack([*pair, np.ones(rows * size)], 1)
                for k in range(3):
                    left = 0
                    for c in range(2):
                        y = w[k, ..., c].ravel()
                        left += ((y - design @ np.linalg.lstsq(design, y, rcond=1e-9)[0]) ** 2).sum()
                    best[k] = max(best[k], 1 - left / (rows * size * w[k].var((0, 1))).sum())
    assert oriented(w) == pytest.approx(best, rel=1e-6) and (best < 0.98).all()


def test_a_checkerboard_is_no_edge_and_a_flat_filter_undefined():
    board = (np.indices((5, 5)).sum(0) % 2).astype(float)
    noise = np.random.default_rng(0).normal(size=(500, 5, 5, 1))
    found = oriented(np.stack([board, np.full((5, 5), 0.1)])[..., None])
    assert found[0] < 0.2 < oriented(noise).mean() < 0.5 and np.isnan(found[1])
    assert np.isnan(oriented(noise[:, :2, :2])).all()
    rows = noise[:, :3, :3].reshape(500, 1, 9, 1)
    assert (oriented(noise[:, :3, :3]) < 1).all() and (oriented(rows) < 1).all()
    with pytest.raises(InputError, match="filters"):
        oriented(noise[0])


def test_a_random_step_is_as_long_as_training_s_and_changes_no_network():
    before, after = models.build("mnist", backend="cpu", seed=1), models.build("mnist", backend="cpu", seed=2)
    kept = {name: np.array(a) for name, a in after.params["conv1"].items()}
    after.params["conv1"]["b"][...] = kept["b"] = np.linspace(-1, 1, 32).astype(np.float32)
    rng = streams.rng(0, "test")
    steps = [learned.random_step(after.ops, after.params["conv1"], before.params["conv1"], rng) for _ in range(50)]
    for name, a in kept.items():
        assert (after.params["conv1"][name] == a).all()
        start = before.params["conv1"][name]
        moves = np.array([s[name] - start for s in steps]).reshape(50, -1).astype(float)
        assert np.linalg.norm(moves, axis=1) == pytest.approx(np.linalg.norm(a - start), rel=1e-5)
        cosines = (moves @ (a - start).ravel()) / np.linalg.norm(a - start) / np.linalg.norm(moves, axis=1)
        assert np.abs(cosines).max() < 0.8 and abs(cosines.mean()) < 4 / np.sqrt(50 * a.size)
