"""Every metric of maps against loops, hand calculation and scikit-learn, on small arrays."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from tinycnn import InputError, Network
from tinycnn.layers import Conv2D, Dense, Flatten, GlobalAvgPool2D, MaxPool2D, ReLU
from viz import attribution, deconvnet, saliency
from viz.metrics import complexity, controls, correlation, faithfulness, localization, maps, randomization, robustness

LAYERS = [Conv2D("c", 4, 3), ReLU("r"), MaxPool2D("p"), Flatten("f"), Dense("out", 3)]
EXACT = 1e-12  # float64, a few additions


@pytest.fixture(scope="module")
def net():
    return Network(LAYERS, (12, 14, 3), dtype="float64", seed=3)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).random((4, 12, 14, 3))


def gradient(net, x, target):
    return saliency.gradient(net, x, target)


def probabilities(net, image):
    logits = net.logits(image[None])[0]
    e = [math.exp(v - max(logits)) for v in logits]
    return [v / sum(e) for v in e]


# Localization


def spotted(classes=5, backend="reference"):
    """A network that finds colour k of `classes` anywhere: its score for k is that colour's mean."""
    net = Network([Conv2D("c", classes, 1), ReLU("r"), GlobalAvgPool2D("g")], (4, 6, classes), backend=backend)
    net.params["c"]["w"][...] = np.eye(classes)
    return net


def photographs(rng, labels, classes=5):
    """Images whose class is a colour of its own, more of it in some; a little of all others."""
    x = 0.1 * rng.random((len(labels), 4, 6, classes))
    x[range(len(labels)), ..., labels] += (0.5 + rng.random(len(labels)))[:, None, None]
    return x


def test_a_grid_has_different_classes_the_surest_photographs_first_and_each_once():
    rng, net = np.random.default_rng(0), spotted()
    labels = rng.permutation(np.repeat(np.arange(5), 6))
    x = photographs(rng, labels)
    x[labels == 4, ..., 4], x[labels == 4, ..., 0] = 0, 1  # named wrongly: never seen
    found = localization.grids(net, x, labels, count=5, seed=1)
    assert found.images.shape == (5, 8, 12, 5) and found.classes.shape == (5, 4)
    probability, taken = net.predict_proba(x), []
    for image, classes in zip(found.images, found.classes):
        assert sorted(classes) == [0, 1, 2, 3]
        for (r, c), k in zip(np.ndindex(2, 2), classes):
            tile = image[4 * r : 4 * r + 4, 6 * c : 6 * c + 6]
            at = [i for i in range(30) if (x[i] == tile).all()]
            assert len(at) == 1 and labels[at[0]] == k
            taken.append(at[0])
    assert len(set(taken)) == 20
    for k in range(4):
        order = [i for i in taken if labels[i] == k]
        assert order == sorted(np.flatnonzero(labels == k), key=lambda i: -probability[i, k])[:5]
    again = localization.grids(net, x, labels, count=5, seed=1)
    assert (again.classes == found.classes).all() and (again.images == found.images).all()
    other = localization.grids(net, x, labels, count=5, seed=2)
    assert (other.classes != found.classes).any()
    assert len(localization.grids(net, x, labels).images) == 6  # all there are


def test_the_grid_pointing_game_is_the_share_of_the_tile_by_loops():
    rng, net = np.random.default_rng(0), spotted()
    labels = np.repeat(np.arange(5), 4)
    tiles = localization.grids(net, photographs(rng, labels), labels, count=3)

    def noise(net, x, target):
        return np.random.default_rng(target).standard_normal(x.shape)

    found = localization.grid_pointing_game(net, tiles, noise)
    for g, t in np.ndindex(3, 4):
        R = np.random.default_rng(tiles.classes[:, t]).standard_normal(tiles.images.shape)[g].sum(-1)
        inside, total = 0.0, 0.0
        for h, v in np.ndindex(8, 12):
            here = max(R[h, v], 0)
            total += here
            inside += here if (h // 4, v // 6) == divmod(t, 2) else 0
        assert abs(found[g, t] - inside / total) < EXACT
    assert abs(found.mean() - 1 / 4) < 0.05


def test_what_finds_the_class_wins_the_grid_pointing_game_and_an_edge_detector_does_not():
    rng, net = np.random.default_rng(0), spotted(backend="cpu")
    labels = np.repeat(np.arange(5), 10)
    tiles = localization.grids(net, photographs(rng, labels), labels, count=12)
    won = localization.grid_pointing_game(net, tiles, attribution.relevance.lrp)
    assert won.shape == (12, 4) and won.min() > 0.7
    blind = localization.grid_pointing_game(net, tiles, lambda net, x, target: deconvnet.edges(x)[..., None])
    assert np.allclose(blind.sum(1), 1)  # the same map for every class
    nothing = localization.grid_pointing_game(net, tiles, lambda net, x, target: -np.ones(x.shape))
    assert np.isnan(nothing).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, x, y: localization.grids(net, x, y % 3), "those of 3 classes are named rightly, a grid needs 4"),
        (lambda net, x, y: localization.grids(net, x, y, n=1), "n: expected a whole number of at least 2"),
        (lambda net, x, y: localization.grids(net, x, y, count=0), "count: expected a whole number"),
        (lambda net, x, y: localization.grids(net, x, y + 1), "labels: values from 1 to 5"),
        (lambda net, x, y: localization.grids(net, x[:, 1:], y), "expected images of shape"),
    ],
)
def test_a_grid_that_cannot_be_made_costs_one_line(call, message):
    rng, y = np.random.default_rng(0), np.repeat(np.arange(5), 3)
    x = photographs(rng, y)
    x = np.where((y < 3)[:, None, None, None], x, 0) if "3 classes" in message else x
    with pytest.raises(InputError, match=message) as e:
        call(spotted(), x, y)
    assert "\n" not in str(e.value)


def test_no_grid_is_for_a_network_of_one_size(net):
    tiles = localization.Grids(np.zeros((1, 24, 28, 3)), np.array([[0, 1, 2, 0]]))
    with pytest.raises(InputError, match=r"layer 'f' flattens maps: .* ends in a GlobalAvgPool2D"):
        localization.grid_pointing_game(net, tiles, gradient)


@pytest.fixture(scope="module")
def pairs():
    """Masks and maps with many ties; an empty and a full mask, a map that is the same everywhere, a negative one."""
    rng = np.random.default_rng(0)
    found, masks = rng.integers(-6, 9, (60, 5, 6)) / 4, rng.random((60, 5, 6)) < 0.4
    masks[3], masks[5], found[4], found[6] = False, True, 0.3, -1 - rng.random((5, 6))
    return masks, found


def mass(mask, m):
    total = sum(max(v, 0) for v in m)
    return sum(max(v, 0) for v, on in zip(m, mask) if on) / total if total else math.nan


def rank(mask, m):
    """The mean over all orders of equal pixels, by drawing many."""
    values, K = [max(v, 0) for v in m], sum(mask)
    if len(set(values)) == 1:
        return math.nan
    hits, rng = 0, np.random.default_rng(0)
    least = sorted(values, reverse=True)[K - 1]
    sure = [i for i, v in enumerate(values) if v > least]
    tied = [i for i, v in enumerate(values) if v == least]
    for _ in range(1500):
        hits += sum(mask[i] for i in [*sure, *rng.permutation(tied)[: K - len(sure)]])
    return hits / 1500 / K


def defined(masks, found):
    return [i for i in range(len(masks)) if masks[i].any() and len(np.unique(found[i])) > 1]


def test_mass_accuracy_is_what_loops_say(pairs):
    masks, found = pairs
    there, ours = defined(*pairs), localization.relevance_mass_accuracy(*pairs)
    np.testing.assert_allclose(ours[there], [mass(masks[i].ravel(), found[i].ravel()) for i in there], rtol=EXACT)
    assert np.isnan(ours[[3, 4, 6]]).all() and ours[5] == 1


def test_rank_accuracy_is_the_mean_over_all_orders_of_equal_pixels(pairs):
    masks, found = (a[:20] for a in pairs)
    there, ours = defined(masks, found), localization.relevance_rank_accuracy(masks, found)
    expected = [rank(masks[i].ravel(), found[i].ravel()) for i in there]
    np.testing.assert_allclose(ours[there], expected, atol=0.03)
    assert np.isnan(ours[[3, 4, 6]]).all() and ours[5] == 1
    by_hand = localization.relevance_rank_accuracy(
        np.array([[[True, True, False, False]]]), np.array([[[3.0, 1.0, 1.0, -2.0]]])
    )
    assert by_hand == [0.75]  # the first surely, one of two equal ones by half


@pytest.mark.parametrize(
    "ours, theirs", [("average_precision", average_precision_score), ("auroc", roc_auc_score)], ids=["AP", "AUROC"]
)
def test_precision_and_ranks_are_scikit_learns_with_ties(pairs, ours, theirs):
    masks, found = pairs
    got, there = getattr(localization, ours)(masks, found), [i for i in defined(*pairs) if i != 5]
    np.testing.assert_allclose(got[there], [theirs(masks[i].ravel(), found[i].ravel()) for i in there], rtol=EXACT)
    assert np.isnan(got[[3, 4]]).all() and (got[5] == 1 if ours == "average_precision" else np.isnan(got[5]))


NAMES = ("pointing_game", "relevance_mass_accuracy", "relevance_rank_accuracy", "average_precision", "auroc")


@pytest.mark.parametrize("name", NAMES)
def test_the_object_itself_is_right_its_negative_wrong_and_noise_chance(name):
    metric, masks = getattr(localization, name), np.zeros((3000, 6, 6), bool)
    masks[:, 1:4, 2:5] = True
    assert (metric(masks, masks.astype(float)) == 1).all()
    other = (~masks).astype(float)
    assert (metric(masks, other) == (0.25 if name == "average_precision" else 0)).all()
    H = sum(1 / k for k in range(1, 37)) / 36
    chance = {"auroc": 0.5, "average_precision": H + 8 / 35 * (1 - H)}.get(
        name, 0.25
    )  # of the mean precision at a rank
    noise = metric(masks, np.random.default_rng(1).random((3000, 6, 6)))
    assert noise.mean() == pytest.approx(chance, abs=0.025)


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_named(name):
    masks, found = np.ones((2, 3, 3), bool), np.ones((2, 3, 3))
    for a, b, words in [
        (masks, found[:, :2], "one shape"),
        (masks * 1.0, found, "bool"),
        (masks, found * np.nan, "NaN"),
        (masks[:0], found[:0], "there is none"),
    ]:
        with pytest.raises(InputError, match=words):
            getattr(localization, name)(a, b)


# Faithfulness


def by_hand_order(m):
    """Pixels (row, column) from the largest value down; without ties there is one order."""
    return sorted(np.ndindex(m.shape), key=lambda at: -m[at])


def test_deletion_and_insertion_are_what_loops_say(net, x):
    found, target, steps = np.random.default_rng(2).random((4, 12, 14)), np.array([0, 2, 1, 1]), 5
    from scipy.ndimage import gaussian_filter

    for name in ("deletion", "insertion"):
        curves, areas = getattr(faithfulness, name)(net, x, found, target, steps=steps)
        for n in range(4):
            order, points = by_hand_order(found[n]), []
            for k in range(steps + 1):
                first = order[: round(k * 168 / steps)]
                if name == "deletion":
                    image = x[n].copy()
                    for at in first:
                        image[at] = [x[n, ..., c].mean() for c in range(3)]
                else:
                    image = np.stack([gaussian_filter(x[n, ..., c], 0.15 * 12, mode="nearest") for c in range(3)], -1)
                    for at in first:
                        image[at] = x[n][at]
                points.append(probabilities(net, image)[target[n]])
            np.testing.assert_allclose(curves[n], points, rtol=1e-10)
            assert areas[n] == pytest.approx((sum(points) - points[0] / 2 - points[-1] / 2) / steps, rel=1e-10)
    assert curves.shape == (4, 6) and (curves[:, -1] == [probabilities(net, x[n])[target[n]] for n in range(4)]).all()


def impute_by_loops(image, taken):
    """Rong et al.'s equations, one a pixel taken away, written down and solved densely."""
    H, W, C = image.shape
    unknown = [at for at in np.ndindex(H, W) if taken[at]]
    A, b = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), C))
    for i, (y, z) in enumerate(unknown):
        for dy in (-1, 0, 1):
            for dz in (-1, 0, 1):
                other = y + dy, z + dz
                if (dy, dz) == (0, 0) or not (0 <= other[0] < H and 0 <= other[1] < W):
                    continue
                w = 1 / 12 if dy and dz else 1 / 6
                A[i, i] += w
                if taken[other]:
                    A[i, unknown.index(other)] -= w
                else:
                    b[i] += w * image[other]
    image = image.copy()
    for at, value in zip(unknown, np.linalg.solve(A, b)):
        image[at] = value
    return image


def test_road_imputes_as_the_papers_equations_say(x):
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.9):
        taken = rng.random((12, 14)) < share
        ours, expected = faithfulness.imputed(x[0], taken), impute_by_loops(x[0], taken)
        np.testing.assert_allclose(ours, expected, rtol=1e-10)
        assert (ours[~taken] == x[0][~taken]).all() and not np.allclose(ours, x[0])
    slope = np.linspace(0, 1, 14) * np.ones((12, 1))  # what is linear is imputed exactly, away from the border
    taken = np.zeros((12, 14), bool)
    taken[4:8, 5:9] = True
    np.testing.assert_allclose(faithfulness.imputed(slope[..., None], taken)[..., 0], slope, atol=1e-12)


def test_road_is_what_loops_say_from_both_ends(net, x):
    found, target = np.random.default_rng(2).random((4, 12, 14)), 1
    for first in ("relevant", "irrelevant"):
        curves, areas = faithfulness.road(net, x, found, target, steps=3, most=0.6, first=first, noise=0)
        hits, _ = faithfulness.road(net, x, found, target, steps=3, most=0.6, first=first, noise=0, score="hit")
        for n in range(4):
            order = by_hand_order(found[n])[:: 1 if first == "relevant" else -1]
            points, right = [], []
            for k in range(4):
                taken = np.zeros((12, 14), bool)
                for at in order[: round(0.6 * 168 * k / 3)]:
                    taken[at] = True
                p = probabilities(net, impute_by_loops(x[n], taken))
                points.append(p[target])
                right.append(float(p.index(max(p)) == target))
            np.testing.assert_allclose(curves[n], points, rtol=1e-9)
            assert hits[n].tolist() == right
            assert areas[n] == pytest.approx(np.trapezoid(points, dx=1 / 3), rel=1e-9)
    noisy = faithfulness.road(net, x, found, target, steps=3, most=0.6, noise=0.1)[0]
    assert (noisy[:, 0] == curves[:, 0]).all() and not np.allclose(noisy[:, 1:], curves[:, 1:], rtol=1e-3)


WAYS = (faithfulness.deletion, faithfulness.insertion, faithfulness.road)


@pytest.mark.parametrize("way", WAYS)
def test_each_image_has_the_curve_that_it_has_alone(net, x, way):
    found = np.random.default_rng(0).integers(0, 4, (4, 12, 14))  # ties
    curves, areas = way(net, x, found, [0, 1, 2, 0], steps=4)
    for n in range(4):
        alone, area = way(net, x[n : n + 1], found[n : n + 1], [0, 1, 2, 0][n], steps=4)
        np.testing.assert_allclose(alone[0], curves[n], rtol=1e-12)
        assert area[0] == pytest.approx(areas[n], rel=1e-12)
    assert not np.array_equal(way(net, x, found, 0, steps=4, seed=1)[0], way(net, x, found, 0, steps=4)[0])


def test_equal_pixels_come_in_no_order_of_the_image(net, x):
    """A flat map deletes at random, not from the top: half of the pixels are gone in both halves of the image."""
    images, rank, counts = faithfulness._prepared(net, x, np.zeros((4, 12, 14)), 2, 1, 0)
    gone = rank < counts[1]
    assert gone.sum((1, 2)).tolist() == [84] * 4 and (gone == gone[0]).all()
    assert 25 < gone[0, :6].sum() < 59 and 25 < gone[0, :, :7].sum() < 59


def test_uint8_images_are_the_floats_that_they_stand_for(net, x):
    found, small = np.random.default_rng(0).random((4, 12, 14)), np.rint(255 * x).astype(np.uint8)
    for way in WAYS:
        np.testing.assert_allclose(way(net, small, found, 0, 3)[0], way(net, small / 255, found, 0, 3)[0], rtol=1e-12)


def test_a_linear_network_is_complete_by_input_times_weight(x):
    net = Network([Flatten("f"), Dense("out", 3)], (12, 14, 3), dtype="float64")
    w = net.params["out"]["w"].reshape(12, 14, 3, 3)
    target, base = np.array([0, 1, 2, 1]), np.array([0.2, 0.4, 0.1])
    found = np.stack([(image - base) * w[..., t] for image, t in zip(x, target)])
    assert np.abs(faithfulness.completeness(net, x, found, target, base)).max() < EXACT
    net.params["out"]["b"][...] = 5  # it stands on both sides
    gap = faithfulness.completeness(net, x, found + 1 / 252, target, base)
    np.testing.assert_allclose(gap, 504 / 252, rtol=1e-10)
    np.testing.assert_allclose(
        faithfulness.completeness(net, x, 0 * found, 1),
        [-sum(image.ravel() * w[..., 1].ravel()) for image in x],
        rtol=1e-10,
    )


def test_what_cannot_be_asked_costs_one_line(net, x):
    flat = np.zeros((4, 12, 14))
    for call, words in [
        (lambda: faithfulness.deletion(net, x, flat[:3], 0), "maps: expected shape"),
        (lambda: faithfulness.deletion(net, x, x, 0), "maps.signed or maps.absolute"),
        (lambda: faithfulness.deletion(net, x, flat * np.nan, 0), "NaN"),
        (lambda: faithfulness.deletion(net, x, flat, 3), "target: 3 is not in layer 'out'"),
        (lambda: faithfulness.deletion(net, x, flat, 0, 0), "steps"),
        (lambda: faithfulness.deletion(net, x, flat, 0, 169), "steps: at most one for each of 168 pixels"),
        (lambda: faithfulness.deletion(net, x, flat, 0, baseline="grey"), "unknown baseline 'grey'"),
        (lambda: faithfulness.deletion(net, x, flat, 0, baseline=[0, 1]), "baseline: expected"),
        (lambda: faithfulness.deletion(net, x, flat, 0, score="logit"), "unknown score"),
        (lambda: faithfulness.insertion(net, x, flat, 0, sigma=0), "sigma"),
        (lambda: faithfulness.road(net, x, flat, 0, most=1), "most: expected a share"),
        (lambda: faithfulness.road(net, x, flat, 0, first="last"), "unknown first"),
        (lambda: faithfulness.road(net, x, flat, 0, noise=-1), "noise"),
        (lambda: faithfulness.completeness(net, x, flat[:2], 0), "maps: expected a finite map"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


# Similarity and complexity


def test_spearman_is_scipys_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (6, 4, 5)), rng.integers(0, 9, (6, 4, 5))
    b[1] = 3
    expected = [
        stats.spearmanr(p.ravel(), q.ravel()).statistic if i != 1 else np.nan for i, (p, q) in enumerate(zip(a, b))
    ]
    np.testing.assert_allclose(correlation.spearman(a, b), expected, rtol=1e-12)
    with pytest.raises(InputError, match="NaN"):
        correlation.spearman(a * np.nan, b)


def ssim_by_loops(a, b):
    """Wang et al.'s equation 13 at every place where the window of 11 x 11 lies within, one place at a time."""
    at = np.arange(-5, 6)
    w = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    w, found = w / w.sum(), []
    for y in range(5, a.shape[0] - 5):
        for z in range(5, a.shape[1] - 5):
            p, q = (m[y - 5 : y + 6, z - 5 : z + 6] for m in (a, b))
            mp, mq = (w * p).sum(), (w * q).sum()
            vp, vq, c = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum(), (w * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(found)


def test_structural_similarity_is_what_loops_say():
    rng = np.random.default_rng(0)
    a = rng.random((3, 12, 15))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    np.testing.assert_allclose(correlation.ssim(a, b), [ssim_by_loops(p, q) for p, q in zip(a, b)], rtol=1e-10)
    np.testing.assert_allclose(correlation.ssim(a, a), 1, rtol=1e-12)
    for p, q, words in [(a[:, :10], b[:, :10], "11 x 11"), (a * 2, b, r"\[0, 1\]"), (a, b[:2], "one shape")]:
        with pytest.raises(InputError, match=words):
            correlation.ssim(p, q)


def test_sparseness_and_entropy_by_hand():
    found = np.array([[1.0, 1, 1, 1], [0, 0, 0, -7], [0, 0, 0, 0], [1, -2, 3, 4]])
    ours = complexity.sparseness(found)
    assert ours[[0, 1]].tolist() == [0, 0.75] and np.isnan(ours[2])
    differences = [abs(abs(p) - abs(q)) for p in found[3] for q in found[3]]
    assert ours[3] == pytest.approx(sum(differences) / (2 * 4 * 10))  # the mean difference's definition of Gini's index
    assert complexity.entropy(found[[0, 1]], 5) == pytest.approx([0, -0.25 * math.log(0.25) - 0.75 * math.log(0.75)])
    with pytest.raises(InputError):
        complexity.sparseness(found * np.nan)


# Randomization and robustness


def test_weights_are_drawn_anew_from_the_top_and_the_network_stays(net, x):
    kept = {name: a.copy() for name, a in net.arrays().items()}
    some = randomization.randomized(net, ["out"])
    assert (some.params["c"]["w"] == net.params["c"]["w"]).all() and (some.params["out"]["b"] == 0).all()
    assert abs(np.corrcoef(some.params["out"]["w"].ravel(), net.params["out"]["w"].ravel())[0, 1]) < 0.2
    start = Network(LAYERS, (12, 14, 3), dtype="float64", seed=0)  # that of the same seed is no new draw
    assert not np.allclose(randomization.randomized(net, ["c", "out"], seed=0).params["c"]["w"], start.params["c"]["w"])
    assert not np.allclose(some.params["out"]["w"], randomization.randomized(net, ["out"], draw=1).params["out"]["w"])
    some.params["c"] = {name: a * 0 for name, a in some.params["c"].items()}
    assert all((a == kept[name]).all() for name, a in net.arrays().items())


def test_randomization_compares_the_maps_before_with_those_after(net, x):
    target, orders = (
        np.array([0, 1, 2, 2]),
        {"top": (["out"], ["out", "c"]), "alone": (["out"], ["c"]), "all": (["c", "out"],)},
    )
    before = gradient(net, x, target)
    for order, sets in orders.items():
        found = randomization.model_parameter_randomization(net, x, target, gradient, order)
        assert found.layers == (("all",) if order == "all" else ("out", "c"))
        for row, anew in enumerate(sets):
            after = gradient(randomization.randomized(net, anew), x, target)
            for n in range(4):
                p, q = (m[n].sum(-1).ravel() for m in (before, after))
                assert found.signed[row, n] == pytest.approx(stats.spearmanr(p, q).statistic, abs=1e-12)
                p, q = (np.abs(m[n]).sum(-1) for m in (before, after))
                assert found.absolute[row, n] == pytest.approx(
                    stats.spearmanr(p.ravel(), q.ravel()).statistic, abs=1e-12
                )
                assert found.ssim[row, n] == pytest.approx(ssim_by_loops(p / p.max(), q / q.max()), rel=1e-9)


def test_draws_are_averaged_and_the_last_cascade_is_all_at_once(net, x):
    each = []
    for draw in range(3):
        after = gradient(randomization.randomized(net, ["out"], 0, draw), x, 1)
        each.append(correlation.spearman(maps.signed(gradient(net, x, 1)), maps.signed(after)))
    found = randomization.model_parameter_randomization(net, x, 1, gradient, draws=3)
    np.testing.assert_allclose(found.signed[0], np.mean(each, 0), rtol=1e-12)
    at_once = randomization.model_parameter_randomization(net, x, 1, gradient, "all", draws=3)
    assert (at_once.ssim[0] == found.ssim[-1]).all()


def test_maps_of_noisy_copies_are_averaged_before_they_are_compared(net, x):
    seen = []

    def spy(some, images, target):
        seen.append((some is net, np.asarray(images)))
        return gradient(some, images, target)

    found = randomization.model_parameter_randomization(net, x, 1, spy, "all", samples=6, noise=0.2)
    ours, others = ([images for own, images in seen if own is which] for which in (True, False))
    assert len(ours) == 6 and all((a == b).all() for a, b in zip(ours, others))
    size = (x.max((1, 2, 3)) - x.min((1, 2, 3)))[:, None, None, None]
    draws = np.array([(a - x) / size for a in ours])
    np.testing.assert_allclose(draws[:, 0], draws[:, 1], atol=1e-12)  # the same for every image
    assert draws.std() == pytest.approx(0.2, rel=0.05) and abs(draws.mean()) < 0.02
    before = np.mean([gradient(net, a, 1) for a in ours], 0)
    after = np.mean([gradient(randomization.randomized(net, ["c", "out"]), a, 1) for a in ours], 0)
    np.testing.assert_allclose(found.signed[0], correlation.spearman(before.sum(-1), after.sum(-1)), rtol=1e-12)


def test_a_map_of_no_network_passes_no_test_and_a_dead_one_is_undefined(net, x):
    for control in controls.CONTROLS.values():
        found = randomization.model_parameter_randomization(net, x, 0, control)
        for rows in (found.signed, found.absolute, found.ssim):
            np.testing.assert_allclose(rows, 1, rtol=1e-12)
        assert (randomization.complexity_rise(net, x, 0, control) == 0).all()
        sensitivity = robustness.max_sensitivity(net, x, 0, control)
        assert (sensitivity == 0).all() == (control in (controls.random_map, controls.centred_blob))
    dead = lambda net, x, target: np.zeros((*x.shape[:3], 1))  # noqa: E731
    found = randomization.model_parameter_randomization(net, x, 0, dead)
    assert np.isnan([found.signed, found.absolute, found.ssim]).all()
    assert np.isnan(robustness.max_sensitivity(net, x, 0, dead)).all()
    assert np.isnan(randomization.complexity_rise(net, x, 0, dead)).all()


def test_complexity_rises_by_the_entropies_of_the_histograms(net, x):
    def entropy(m):
        counts = np.histogram(np.abs(m).sum(-1), 20)[0]
        return stats.entropy(counts)

    before, after = (gradient(some, x, 2) for some in (net, randomization.randomized(net, ["c", "out"])))
    expected = [(entropy(b) - entropy(a)) / entropy(a) for a, b in zip(before, after)]
    np.testing.assert_allclose(randomization.complexity_rise(net, x, 2, gradient, bins=20), expected, rtol=1e-10)


def test_max_sensitivity_is_the_largest_change_within_the_radius(net, x):
    seen = []

    def spy(net, images, target):
        seen.append(np.asarray(images))
        return gradient(net, images, target)

    found = robustness.max_sensitivity(net, x, [0, 1, 2, 0], spy, radius=0.3, samples=7)
    assert len(seen) == 8
    moves = np.array(seen[1:]) - x
    np.testing.assert_allclose(moves[:, 0], moves[:, 1], atol=1e-12)
    assert 0.29 < np.abs(moves).max() <= 0.3 and abs(moves.mean()) < 0.01
    for n, target in enumerate([0, 1, 2, 0]):
        before = gradient(net, x[n : n + 1], target)
        changes = [np.linalg.norm(gradient(net, a[n : n + 1], target) - before) for a in seen[1:]]
        assert found[n] == pytest.approx(max(changes) / np.linalg.norm(before), rel=1e-10)


def test_infidelity_is_what_loops_say_and_0_for_the_gradient_of_a_linear_network(net, x):
    from tinycnn import streams

    noise = 0.3 * streams.rng(0, "infidelity").standard_normal((8, 12, 14, 3))
    found, target = np.random.default_rng(0).normal(size=(4, 12, 14, 3)), [0, 1, 2, 0]
    for one_colour in (False, True):
        given = found[..., :1] if one_colour else found
        for normalize in (False, True):
            ours = robustness.infidelity(net, x, given, target, 0.3, 8, normalize)
            for n, t in enumerate(target):
                foretold = np.array([(i * given[n]).sum() for i in noise])
                rise = np.array([net.logits(x[n : n + 1])[0, t] - net.logits((x[n] - i)[None])[0, t] for i in noise])
                scale = np.linalg.lstsq(foretold[:, None], rise, rcond=None)[0][0] if normalize else 1
                assert ours[n] == pytest.approx(np.mean((scale * foretold - rise) ** 2), rel=1e-9)
    linear = Network([Flatten("f"), Dense("out", 3)], (12, 14, 3), dtype="float64")
    exact = gradient(linear, x, 1)
    assert robustness.infidelity(linear, x, exact, 1, normalize=False).max() < 1e-20
    assert robustness.infidelity(linear, x, -3 * exact, 1).max() < 1e-20  # any scale, either sign
    spread = np.var([linear.logits((x[0] - i)[None])[0, 1] for i in noise]) + 0
    assert robustness.infidelity(linear, x, 0 * exact, 1, 0.3, 8)[0] == pytest.approx(spread, rel=1)


def test_methods_and_options_that_do_not_fit_are_named(net, x):
    run = randomization.model_parameter_randomization
    for call, words in [
        (lambda: run(net, x, 0, "gradient"), "method: expected a function"),
        (lambda: run(net, x, 0, lambda *a: np.zeros((4, 5))), "maps: expected shape"),
        (lambda: run(net, x, 0, lambda *a: x * np.nan), "NaN"),
        (lambda: run(net, x, 0, gradient, "bottom"), "unknown order"),
        (lambda: run(net, x, 0, gradient, draws=0), "draws"),
        (lambda: run(net, x, 0, gradient, noise=-1), "noise"),
        (lambda: run(net, x, 7, gradient), "target"),
        (lambda: randomization.randomized(net, ["r"]), "unknown layer with weights 'r'"),
        (lambda: robustness.max_sensitivity(net, x, 0, gradient, radius=0), "radius"),
        (lambda: robustness.max_sensitivity(net, x, 0, gradient, samples=0), "samples"),
        (lambda: robustness.infidelity(net, x, x[:2], 0), "maps: expected shape"),
        (lambda: robustness.infidelity(net, x, x, 0, sigma=0), "sigma"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


# Controls


def test_controls_are_maps_as_methods_draw_them(net, x):
    found = {name: control(net, x, 0) for name, control in controls.CONTROLS.items()}
    assert {m.shape for m in found.values()} == {(4, 12, 14, 1)}
    assert (found["edges of the image"][..., 0] == deconvnet.edges(x)).all()
    assert (found["centred blob"][..., 0] == controls.blob((12, 14))).all()
    np.testing.assert_allclose(found["brightness"][2, 3, 4, 0], sum(x[2, 3, 4]) / 3, rtol=1e-12)
    np.testing.assert_allclose(controls.brightness(net, np.full((1, 12, 14, 3), 51, np.uint8)), 0.2, rtol=1e-12)
    assert (controls.random_map(net, x[:2]) == found["random map"][:2]).all()  # each image has what it has alone
    assert not (controls.random_map(net, x, seed=1) == found["random map"]).any()


def test_maps_are_summed_over_the_colours():
    m = np.array([[[[1.0, -3.0, 1.0]]]])
    assert maps.signed(m) == -1 and maps.absolute(m) == 5
    for odd in (m[0], m * np.nan, "x"):
        with pytest.raises(InputError, match="maps"):
            maps.signed(odd)


# Progress


def test_progress_of_metrics_is_shown_on_request_alone(net, x, capfd):
    m = x.sum(-1)
    for call in (
        lambda **how: faithfulness.deletion(net, x, m, 0, **how),
        lambda **how: faithfulness.insertion(net, x, m, 0, **how),
        lambda **how: faithfulness.road(net, x, m, 0, **how),
        lambda **how: randomization.model_parameter_randomization(net, x, 0, gradient, **how),
        lambda **how: robustness.max_sensitivity(net, x, 0, gradient, **how),
        lambda **how: robustness.infidelity(net, x, x, 0, **how),
    ):
        call()
        assert not capfd.readouterr().err
        call(progress=True)
        assert "it/s" in capfd.readouterr().err
