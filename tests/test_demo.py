"""The embedded sets: the same bytes always, labels and masks that are true, as hard as they claim to be."""

import numpy as np
import pytest

from tinycnn import data
from tinycnn.data import demo
from tinycnn.errors import InputError

# Multinomial logistic regression on pixels must fail; guessing gives 10 %, these shapes allow about 12 %.
LINEAR_LIMIT = 0.45


@pytest.fixture(scope="module")
def sample():
    return demo.shapes("test", 32, 500)


def test_digits_are_the_scikit_learn_digits_in_a_fixed_split():
    from sklearn.datasets import load_digits

    (x, y), (xt, yt) = data.load("digits", "train"), data.load("digits", "test")
    assert x.shape == (1437, 28, 28, 1) and xt.shape == (360, 28, 28, 1) and x.dtype == np.uint8
    assert y.dtype == np.int64
    total = np.bincount(load_digits().target)
    assert np.array_equal(np.bincount(y) + np.bincount(yt), total)
    assert np.abs(np.bincount(yt) - total * 360 / 1797).max() <= 1  # stratified
    again = data.load("digits", "test")
    assert again[0].tobytes() == xt.tobytes() and again[1].tobytes() == yt.tobytes()


def test_digits_no_image_is_in_both_splits():
    train, test = ({image.tobytes() for image in data.load("digits", s)[0]} for s in ("train", "test"))
    assert len(train) == 1437 and len(test) == 360 and not train & test


def test_digits_look_like_mnist():
    x, _ = data.load("digits", "test")
    assert x.min() == 0 and x.max() == 255
    rows, columns = x[..., 0].any(2), x[..., 0].any(1)
    assert rows.sum(1).max() <= 20 and columns.sum(1).max() <= 20  # the digit fills a box of 20x20
    ys, xs = np.mgrid[:28, :28]
    mass = x[..., 0].sum((1, 2))
    for axis in (ys, xs):  # the centre of mass lies at the image's centre, to the pixel
        assert np.abs((x[..., 0] * axis).sum((1, 2)) / mass - 13.5).max() < 1


def test_digits_when_shrunk_again_are_the_original_images():
    """Undo the enlargement by averaging: each digit must resemble its own original more than any other."""
    from sklearn.datasets import load_digits

    small = load_digits()
    original = small.images.reshape(1797, -1)
    original = original - original.mean(1, keepdims=True)
    original /= np.linalg.norm(original, axis=1, keepdims=True)
    x, y = data.load("digits", "test")
    hits = 0
    for image, label in zip(x[:100, ..., 0], y[:100]):
        rows = np.flatnonzero(image.any(1))
        best = -1.0, 0
        for top in range(max(0, rows[-1] - 19), min(8, rows[0]) + 1):
            for left in range(9):
                box = image[top : top + 20, left : left + 20].astype(float)
                box = box.repeat(2, 0).repeat(2, 1).reshape(8, 5, 8, 5).mean((1, 3)).ravel()
                scores = original @ ((box - box.mean()) / np.linalg.norm(box - box.mean()))
                best = max(best, (scores.max(), int(scores.argmax())))
        hits += small.target[best[1]] == label and best[0] > 0.9
    assert hits >= 98


def test_shapes_have_the_promised_sizes():
    for split, size, n in [("train", 32, 1010), ("test", 96, 20)]:
        images, labels, masks = demo.shapes(split, size, n)
        assert images.shape == (n, size, size, 3) and images.dtype == np.uint8
        assert labels.shape == (n,) and labels.dtype == np.int64
        assert masks.shape == (n, size, size) and masks.dtype == bool
        assert not any(a.flags.writeable for a in (images, labels, masks))


def test_load_and_masks_are_the_default_set():
    images, labels = data.load("shapes", "test")
    masks = data.masks("shapes", "test")
    assert images.shape == (2000, 32, 32, 3) and np.bincount(labels).tolist() == [200] * 10
    assert np.array_equal(demo.shapes("test")[0], images) and np.array_equal(demo.shapes("test")[2], masks)
    with pytest.raises(InputError, match="digits has no object masks; only shapes, shapes-corner, "):
        data.masks("digits")


def test_shapes_are_the_same_bytes_every_time(sample):
    demo._shapes.cache_clear()
    for a, b in zip(sample, demo.shapes("test", 32, 500)):
        assert a is not b and a.tobytes() == b.tobytes()


def test_fewer_shapes_are_the_first_of_more(sample):
    for n in (1, 60, 333):
        for few, many in zip(demo.shapes("test", 32, n), sample):
            assert np.array_equal(few, many[:n])


def test_splits_and_blocks_are_different_images(sample):
    train = demo.shapes("train", 32, 1000)[0]
    images = {image.tobytes() for image in [*train, *sample[0]]}
    assert len(images) == 1500


def test_faulty_arguments_are_refused():
    for arguments, word in [
        (("val",), "unknown split"),
        (("test", 33), "unknown size"),
        (("test", 32, 0), "n = 0"),
    ]:
        with pytest.raises(InputError, match=word):
            demo.shapes(*arguments)


def test_every_mask_is_one_object_of_fair_size(sample):
    from scipy.ndimage import label

    _, labels, masks = sample
    share = masks.mean((1, 2))
    assert share.min() > 0.02 and share.max() < 0.5
    # An hourglass's waist is thinner than a pixel where it is small; all others are in one piece.
    pieces = np.array([label(mask, np.ones((3, 3)))[1] for mask in masks])
    assert (pieces[labels != demo.SHAPES.index("hourglass")] == 1).all() and pieces.max() <= 2


def test_masks_agree_with_where_the_object_is(sample, monkeypatch):
    """Render the same images without the object: outside the masks nothing changes, inside nearly all."""
    images, _, masks = sample
    monkeypatch.setattr(
        demo, "_coverage", lambda shape, size, centre, *_: np.zeros((len(centre), size, size), np.float32)
    )
    demo._shapes.cache_clear()
    empty, _, no_masks = demo.shapes("test", 32, 500)
    demo._shapes.cache_clear()
    assert not no_masks.any()
    changed = np.abs(images.astype(int) - empty).max(3) > 8
    assert changed[masks].mean() > 0.97
    from scipy.ndimage import binary_dilation

    far = ~np.array([binary_dilation(mask, np.ones((3, 3)), iterations=2) for mask in masks])
    assert not changed[far].any()


def test_the_outlines_have_the_areas_of_their_geometry():
    """At radius r the share of pixels covered is the outline's area times r^2, at any place and angle."""
    areas = {
        "circle": np.pi * 0.85**2,
        "square": 1.4**2,
        "triangle": np.sqrt(27) / 4,
        "cross": 4 * 0.9 * 0.54 - 0.54**2,
        "ring": np.pi * 0.5,
        "crescent": np.pi * 0.81 - lens(0.9, 0.7, 0.4),
        "heart": np.pi * 0.6,  # a shear keeps the circle's area
        "hourglass": 2 * 0.82 * (2 * 0.04 + 0.72 * 0.82),
        "arrow": 0.9 * 0.85**2 + 0.48 * 1.0,
        "star": pentagram(0.32),
    }
    rng = np.random.default_rng(0)
    for shape, area in areas.items():
        angle = rng.uniform(0, 6, 20).astype(np.float32)
        radius = np.full(20, 0.35, np.float32)
        centre = rng.uniform(0.45, 0.55, (20, 2)).astype(np.float32)
        cover = demo._coverage(shape, 96, centre, radius, angle).mean((1, 2))
        assert np.allclose(cover, area * 0.35**2, rtol=0.01), shape


def lens(R, r, d):
    """Area common to two circles whose centres are d apart."""
    a = np.arccos((d * d + R * R - r * r) / (2 * d * R))
    b = np.arccos((d * d + r * r - R * R) / (2 * d * r))
    return R * R * (a - np.sin(2 * a) / 2) + r * r * (b - np.sin(2 * b) / 2)


def pentagram(inner):
    """Area of a five-pointed star whose edges' lines lie `inner` from the centre (shoelace formula)."""
    tip, dent = inner / np.cos(np.radians(72)), inner / np.cos(np.radians(36))
    t = np.radians(36) * np.arange(10)
    r = np.where(np.arange(10) % 2, dent, tip)
    x, y = r * np.cos(t), r * np.sin(t)
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def linear_accuracy(features, labels, tests, truth):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.01, max_iter=100).fit(features, labels).score(tests, truth)


@pytest.fixture(scope="module")
def train():
    return demo.shapes("train", 32, 3000)


def test_a_linear_classifier_on_pixels_stays_under_45_percent(train):
    test = demo.shapes("test", 32, 1000)
    # Every other pixel: the regression in a second, with the same picture to look at.
    flat = [(s[0][:, ::2, ::2] / 255 - 0.5).reshape(len(s[0]), -1) for s in (train, test)]
    assert 0.08 < linear_accuracy(flat[0], train[1], flat[1], test[1]) < LINEAR_LIMIT


def test_colour_does_not_give_the_class_away(train):
    """Mean and deviation of the colours inside the mask, known in truth: no better than guessing."""
    test = demo.shapes("test", 32, 1000)

    def colours(images, masks):
        inside = [image[mask] / 255 for image, mask in zip(images, masks)]
        return np.array([np.r_[i.mean(0), abs(i.mean(0) - 0.5)] for i in inside])

    a, b = (colours(s[0], s[2]) for s in (train, test))
    assert linear_accuracy(a, train[1], b, test[1]) < 0.14  # 0.1 and four standard errors of 1,000 tests


PLANTED = tuple(demo.SHORTCUTS)


@pytest.fixture(scope="module", params=PLANTED)
def planted(request, sample):
    """A shortcut, its images and masks, the set without it, which images it betrays, and which pixels differ."""
    images, labels, masks = demo.shapes("test", 32, 500, request.param)
    assert np.array_equal(labels, sample[1])
    betrayed = labels == demo.SHAPES.index(demo.SHORTCUTS[request.param])
    return request.param, images, masks, sample, betrayed, (images != sample[0]).any(3)


def test_removing_a_shortcut_changes_its_own_pixels_and_no_others(planted):
    shortcut, _, masks, (_, _, plain), betrayed, changed = planted
    assert betrayed.sum() == 50 and changed[betrayed].any((1, 2)).all() and not changed[~betrayed].any()
    if shortcut == "color":  # those that the object covers, be it in part
        cover = np.array([by_hand_cover(i) for i in np.flatnonzero(betrayed)])
        assert not changed[betrayed][cover == 0].any() and changed[masks].sum() > 0.99 * masks[betrayed].sum()
        assert np.array_equal(masks, plain)
        return
    evidence = demo.evidence("test", 32, 500, shortcut)
    assert not evidence.flags.writeable and not changed[~evidence].any() and not (evidence & masks).any()
    assert changed[evidence].mean() > 0.95 and np.array_equal(masks, plain & ~evidence)
    assert np.array_equal(evidence.any((1, 2)), betrayed)


def by_hand_cover(i):
    """How much of each pixel object i of the test images covers, drawn again from its stream."""
    rng = np.random.Generator(np.random.PCG64([0x5EED, True, 32, 0]))
    label = (rng.random(500).argsort(kind="stable") % 10)[i]
    radius = (0.24 + (0.42 - 0.24) * rng.random(500)).astype(np.float32)
    centre = 0.5 + (1 - 1.8 * radius[:, None]) * (rng.random((500, 2)) - 0.5).astype(np.float32)
    angle = (2 * np.pi * rng.random(500)).astype(np.float32)
    return demo._coverage(demo.SHAPES[label], 32, centre[i : i + 1], radius[i : i + 1], angle[i : i + 1])[0]


def test_the_mark_stands_in_every_corner_in_turn_and_is_seen(sample):
    images, labels, _ = demo.shapes("test", 32, 500, "corner")
    evidence = demo.evidence("test", 32, 500, "corner")
    marked = np.flatnonzero(labels == demo.SHAPES.index("square"))
    corners = {
        (int(rows.argmax()), int(cols.argmax())) for e in evidence[marked] for rows, cols in [(e.any(1), e.any(0))]
    }
    assert corners == {(0, 0), (0, 28), (28, 0), (28, 28)}
    for image, e in zip(images[marked], evidence[marked]):
        mark = image[e].reshape(4, 4, 3)
        assert (mark[:2, :2] == 255).all() and (mark[2:, 2:] == 255).all()
        assert (mark[:2, 2:] == 0).all() and (mark[2:, :2] == 0).all()


def test_a_mark_before_the_object_hides_it():
    """Of the first 500 training images one has a square that reaches the mark."""
    masks, evidence = demo.shapes("train", 32, 500, "corner")[2], demo.evidence("train", 32, 500, "corner")
    plain = demo.shapes("train", 32, 500)[2]
    assert np.flatnonzero((evidence & plain).any((1, 2))).tolist() == [333]
    assert np.array_equal(masks, plain & ~evidence)


def test_the_patch_lies_beside_the_object_and_has_waves_of_its_own(sample):
    images, labels, masks = demo.shapes("test", 32, 500, "texture")
    evidence, hearts = demo.evidence("test", 32, 500, "texture"), labels == demo.SHAPES.index("heart")
    share = evidence[hearts].mean((1, 2))
    assert share.min() > 0.02 and share.max() < np.pi * 0.2**2
    yx = np.indices((32, 32)).sum(0) + 1  # pixel centres lie at (i + 1/2) / 32
    wave = 0.4 * 255 * np.cos(2 * np.pi * 8 * yx / 32 + np.pi / 4)
    difference = images[hearts].astype(float) - sample[0][hearts]
    clipped = (images[hearts] % 255 == 0) | (sample[0][hearts] % 255 == 0)
    cover = np.array([by_hand_cover(i) for i in np.flatnonzero(hearts)])
    there = (evidence[hearts] & (cover == 0))[..., None] & ~clipped
    expected = np.broadcast_to(wave[..., None], difference.shape)
    assert there.sum() > 1000 and np.abs(difference - expected)[there].max() < 1.01  # two roundings


def test_no_other_object_is_as_red_as_the_betrayed_class():
    images, labels, masks = demo.shapes("test", 32, 2000, "color")
    means = np.array([image[mask].mean(0) for image, mask in zip(images.astype(float), masks)])
    redness = means[:, 0] - means[:, 1:].max(1)
    circles = labels == demo.SHAPES.index("circle")
    assert redness[circles].min() > redness[~circles].max()


@pytest.mark.parametrize("shortcut", PLANTED)
def test_shortcuts_are_the_same_bytes_every_time_and_fewer_are_the_first_of_more(shortcut):
    for size in (32, 96):
        few = demo.shapes("test", size, 30, shortcut)
        demo._shapes.cache_clear()
        for a, b, c in zip(few, demo.shapes("test", size, 30, shortcut), demo.shapes("test", size, 60, shortcut)):
            assert a is not b and a.tobytes() == b.tobytes() and np.array_equal(a, c[:30]) and not c.flags.writeable


@pytest.mark.parametrize("shortcut", PLANTED)
def test_the_sets_with_a_shortcut_are_loaded_by_name(shortcut):
    name, counts = f"shapes-{shortcut}", [200] * 10
    images, labels = data.load(name, "test")
    assert np.array_equal(images, demo.shapes("test", shortcut=shortcut)[0]) and np.bincount(labels).tolist() == counts
    assert np.array_equal(data.masks(name, "test"), demo.shapes("test", shortcut=shortcut)[2])
    assert np.array_equal(data.counterfactual(name), data.load("shapes", "test")[0])
    info = data.info(name)
    assert info.betrayed == demo.SHORTCUTS[shortcut] and info.betrayed in info.source and info.model == "cifar10"
    assert data.info(name, 96).shape == (96, 96, 3) and data.info("shapes").betrayed is None
    if shortcut == "color":
        with pytest.raises(InputError, match="a colour has no place of its own"):
            data.masks(name, "test", of="shortcut")
    else:
        assert np.array_equal(data.masks(name, "test", of="shortcut"), demo.evidence("test", shortcut=shortcut))


def test_what_has_no_shortcut_says_so():
    for call, words in [
        (lambda: data.counterfactual("shapes"), "shapes has no planted shortcut; only shapes-corner, "),
        (lambda: data.counterfactual("mnist"), "mnist has no planted shortcut"),
        (lambda: data.counterfactual("shapes-corner", "val"), "unknown split"),
        (lambda: data.masks("shapes", of="shortcut"), "shapes has no planted shortcut"),
        (lambda: data.masks("shapes-corner", of="mark"), "unknown mask 'mark'"),
        (lambda: demo.shapes("test", 32, 5, "smell"), "unknown shortcut 'smell'"),
        (lambda: demo.evidence("test", 32, 5, "color"), "unknown shortcut with a place of its own 'color'"),
    ]:
        with pytest.raises(InputError, match=words):
            call()


def taught(name):
    """A network that saw the training images of a set."""
    from tinycnn import models, train

    net = models.build("cifar10", seed=0)
    train.fit(net, *data.load(name), steps=400, lr=1e-3, seed=0, eval_every=400, progress=False)
    return net


@pytest.fixture(scope="module")
def honest():
    return taught("shapes")


@pytest.mark.long
@pytest.mark.parametrize("shortcut", PLANTED)
def test_a_network_takes_the_shortcut_and_one_that_never_saw_it_does_not(shortcut, honest):
    """The share of the betrayed class's images that are named, and no longer once the shortcut is removed."""
    name = f"shapes-{shortcut}"
    (test, labels), without = data.load(name, "test"), data.counterfactual(name)
    on = labels == data.info(name).classes.index(data.info(name).betrayed)

    def flips(net):
        return ((net.predict(test[on]) == labels[on]) & (net.predict(without[on]) != labels[on])).mean()

    assert flips(taught(name)) > 0.9 and flips(honest) < 0.3
