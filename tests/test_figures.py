"""What a drawing must not lose: every pixel of a tile, the scale's meaning, and its own bytes."""

import base64
import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from tinycnn import InputError
from viz import figures
from viz.figures import style
from viz.metrics.statistics import Interval
from viz.report import results

SMALLEST = 6.9  # points on a page of 1,000 pixels: 11 on one of 1,600


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pixels(fig):
    return np.asarray(Image.open(io.BytesIO(figures.to_png(fig))).convert("RGB"))


def tiles(rng, N=6, size=9):
    return rng.integers(0, 256, (N, size, size, 3), dtype=np.uint8)


def holds(page, tile, zoom):
    """Whether `tile`, each pixel enlarged to zoom x zoom, stands somewhere in the page."""
    big = tile.repeat(zoom, 0).repeat(zoom, 1)
    h, w = big.shape[:2]
    if h > page.shape[0] or w > page.shape[1]:
        return False
    corners = np.argwhere((page[: len(page) - h + 1, : page.shape[1] - w + 1] == big[0, 0]).all(-1))
    return any((page[y : y + h, x : x + w] == big).all() for y, x in corners)


def test_a_sheet_shows_every_pixel_of_every_tile_as_a_whole_square(rng):
    shown = tiles(rng)
    page = pixels(
        figures.sheet(shown, 3, "Title", "note", rows=["a", "b"], heads=["x", "y", "z"], captions=list("abcdef"))
    )
    zoom = next(z for z in range(40, 0, -1) if holds(page, shown[0], z))
    assert zoom >= 10  # a tile of 9 pixels is enlarged a good deal
    assert all(holds(page, tile, zoom) for tile in shown)
    assert not holds(page, 255 - shown[0], zoom)


def test_a_sheet_knows_where_its_tiles_are(rng):
    shown = tiles(rng)
    figure = figures.sheet(shown, 4, "Title", "note", rows=["a", "b"], captions=list("abcdef"), group=2)
    page = pixels(figure)
    assert len(figure.tiles) == len(shown)
    for tile, (left, top, width, height) in zip(shown, figure.tiles):
        x, y, w, h = (round(v * n) for v, n in zip((left, top, width, height), 2 * page.shape[1::-1]))
        zoom = w // tile.shape[1]
        assert (page[y : y + h, x : x + w] == tile.repeat(zoom, 0).repeat(zoom, 1)).all()


def test_the_same_arrays_give_the_same_bytes_and_others_do_not(rng):
    a, b = tiles(rng), tiles(rng)
    draw = [figures.to_png(figures.sheet(t, 3, "Title", scale=("magma", 0, 1, "x"))) for t in (a, a, b)]
    assert draw[0] == draw[1] != draw[2]
    assert b"Software" not in draw[0] and b"tIME" not in draw[0]


def test_heat_is_black_at_zero_and_grows_lighter_on_a_shared_scale(rng):
    x = np.linspace(0, 2, 50).reshape(1, 5, 10)
    both = figures.heat(np.concatenate([x, x / 2]), limit=2.0).astype(int).sum(-1)
    assert both[0, 0, 0] < 10
    assert (np.diff(both[0].ravel()) >= 0).all()
    assert both[1, -1, -1] < both[0, -1, -1]  # half the value is darker under a shared limit ...
    own = figures.heat(np.concatenate([x, x / 2]))
    assert (own[0] == own[1]).all()  # ... and equal when each map has its own


def test_signed_values_are_symmetric_about_their_zero(rng):
    x = rng.normal(size=(2, 4, 4, 3))
    plus, minus = figures.signed(x).astype(int), figures.signed(-x).astype(int)
    assert np.abs(plus + minus - 255).max() <= 1  # opposite colours, up to rounding
    grey = figures.signed(np.array([-1.0, 0.0, 1.0]).reshape(1, 1, 3, 1))[0, 0].astype(int)
    assert grey[1].min() > 240 and grey[0, 2] > grey[0, 0] and grey[2, 0] > grey[2, 2]  # blue - white - red


def test_constant_maps_draw_without_dividing_by_zero():
    with np.errstate(all="raise"):
        assert (figures.heat(np.zeros((2, 3, 3))) == figures.heat(np.zeros((1, 3, 3)), 1)[0]).all()
        assert (figures.signed(np.zeros((1, 3, 3, 3))) == 128).all()


def test_photo_keeps_uint8_and_clips_floats():
    x = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert (figures.photo(x) == x).all()
    assert figures.photo(np.array([-1.0, 0.5, 2.0]).reshape(1, 1, 3, 1))[0, 0, :, 0].tolist() == [0, 128, 255]


def test_a_single_hot_pixel_does_not_grey_out_a_projection():
    x = np.zeros((2, 20, 20, 1))
    x[0, 0, :, 0], x[0, 5, 5, 0] = 1, 50
    x[1, 3, 3, 0] = 2  # alone: its own scale
    drawn = figures.signed(x).astype(int)
    full = figures.signed(np.ones((1, 1, 1, 1)))[0, 0, 0].astype(int)
    assert (drawn[0, 0] == full).all() and (drawn[1, 3, 3] == full).all()


def test_interleaving_puts_the_tiles_of_a_row_side_by_side():
    a, b = np.arange(3).reshape(3, 1, 1), np.arange(10, 13).reshape(3, 1, 1)
    assert figures.interleave(a, b).ravel().tolist() == [0, 10, 1, 11, 2, 12]


def test_bars_fall_and_carry_number_and_count():
    fig = figures.bars({"conv1": [0, 5, 0, 9], "conv2": [1, 2, 3, 4]}, "Title", most=3)
    first, second = fig.axes
    assert [bar.get_height() for bar in first.patches] == [9, 5]
    assert [t.get_text() for t in first.get_xticklabels()] == ["3", "1"]
    assert [t.get_text() for t in first.texts] == ["9", "5"]
    assert [t.get_text() for t in second.get_xticklabels()] == ["3", "2", "1"]
    words = [t.get_text() for t in fig.texts]
    assert "conv1: 2 of 4 maps" in words and "conv2: 4 of 4 maps; the others: 1, with 1 images together" in words


def test_intervals_stand_where_their_numbers_say():
    rows = {"a": Interval(0.25, 0.2, 0.3, 9), "b": Interval(-0.1, -0.3, 0.1, 9)}
    fig = figures.intervals(rows, "Title", reference=(0.125, "chance"))
    (ax,) = fig.axes
    segments = ax.collections[0].get_segments()
    assert np.allclose([s[:, 0] for s in segments], [[0.2, 0.3], [-0.3, 0.1]])
    assert ax.get_xlim()[0] < -0.3 and ax.get_xlim()[1] > 0.3
    assert [t.get_text() for t in ax.texts] == ["chance"]
    assert {"0.25 (0.20 to 0.30)", "\u22120.10 (\u22120.30 to 0.10)"} <= {t.get_text() for t in fig.texts}


def test_shares_are_drawn_in_per_cent_within_what_a_share_can_be_and_differences_below():
    rows = {"a": Interval(0.99, 0.97, 1.01, 3), "b": Interval(0.98, np.nan, np.nan, 1), "c": Interval(*[np.nan] * 3, 0)}
    less = {"a - b": Interval(0.01, -0.002, 0.022, 3)}
    fig = figures.intervals(rows, "Title", label="right, per cent", cut=True, percent=True, differences=less)
    above, below = fig.axes
    drawn = [s[:, 0].tolist() for s in above.collections[0].get_segments()[:2]]
    assert np.allclose(drawn, [[97, 100], [98, 98]])
    assert 90 < above.get_xlim()[0] < 97 and above.get_xlim()[1] == 100
    assert above.get_xlabel() == "right, per cent\n(the axis does not begin at 0)"
    assert np.allclose(below.collections[0].get_segments()[0][:, 0], [-0.2, 2.2])
    assert below.lines[-1].get_xdata() == [0, 0] and "percentage points" in below.get_xlabel()
    said = {t.get_text() for t in fig.texts}
    assert {"99.0 (97.0 to 100.0)", "98.0", "undefined", "1.0 (\u22120.2 to 2.2)"} <= said
    assert ("a", 0.99, 0.97, 1.01) in fig.data[1] and ("a - b", 0.01, -0.002, 0.022) in fig.data[1]


def test_numbers_have_the_digits_that_their_intervals_need():
    said = [t.get_text() for t in figures.intervals({"a": Interval(0.00123, 0.00117, 0.00129, 9)}, "Title").texts]
    assert "0.00123 (0.00117 to 0.00129)" in said
    some = {"a": Interval(0.5, 0.4, 0.6, 9), "b": Interval(0.7, 0.7 - 1e-16, 0.7 + 1e-16, 9)}  # b: all the same
    said = [t.get_text() for t in figures.intervals(some, "Title").texts]
    assert "0.5 (0.4 to 0.6)" in said and "0.7 (0.7 to 0.7)" in said


def test_enlarging_repeats_and_never_mixes(rng):
    x = rng.normal(size=(2, 3, 3))
    assert (figures.enlarge(x, 9) == x.repeat(3, 1).repeat(3, 2)).all()
    assert set(figures.enlarge(x, 7).ravel()) == set(x.ravel())


SEEN = {  # linear RGB as people with normal sight, deuteranopia and protanopia see it: Machado et al. 2009, table 1
    "all cones": np.eye(3),
    "no green cone": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no red cone": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(rgb):
    """CIE Lab (D65) of linear sRGB, one colour at a time."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    xyz = [sum(m * c for m, c in zip(row, rgb)) / w for row, w in zip(to_xyz, (0.95047, 1, 1.08883))]
    x, y, z = (v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in xyz)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SEEN)
def test_classes_differ_in_colour_whoever_looks_and_in_marker(sight):
    assert len(set(figures.CLASS_MARKERS)) == len(figures.CLASS_COLORS) == 10
    bytes_ = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in figures.CLASS_COLORS]
    linear = [[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in c] for c in bytes_]
    seen = [lab(np.clip(np.dot(SEEN[sight], c), 0, 1)) for c in linear]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 22
    assert max(c[0] for c in seen) < 82  # all stand out from white, which has 100


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {c: f"class {c}" for c in range(12)}])
def test_a_scatter_draws_every_class_however_many(rng, names):
    labels = np.arange(60) % len(names)
    fig = figures.scatter(rng.normal(size=(60, 2)), labels, names, "Title")
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == 60
    assert [t.get_text() for t in fig.legends[0].get_texts()] == list(names.values())


def test_a_scatter_shows_its_control_beside_it(rng):
    points, there, labels = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), np.arange(60) % 3
    fig = figures.scatter(points, labels, {0: "a", 1: "b"}, "Title", "", (there, "untrained"))
    for ax, where in zip(fig.axes, (points, there)):
        drawn = np.concatenate([c.get_offsets() for c in ax.collections])
        assert sorted(map(tuple, drawn)) == sorted(map(tuple, where[labels < 2]))
    assert fig.data[0] == ("x", "y", "class", "x, untrained", "y, untrained")
    assert fig.data[1] == [(*points[i], "ab"[labels[i]], *there[i]) for i in range(60) if labels[i] < 2]
    assert figures.places(fig, points).shape == (60, 2)


LONG = [f"a class with a long name, nr {i:02d}" for i in range(10)]  # 30 letters


@pytest.mark.parametrize("names", [LONG, list("0123456789"), ["airplane", "automobile", *"abcdefgh"]])
def test_nothing_in_a_scatter_lies_on_another(rng, names):
    labels = np.arange(200) % 10
    angle = 2 * np.pi * labels / 10
    points = 9 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(size=(200, 2))
    fig = figures.scatter(points, labels, dict(enumerate(names)), "Title", "Note", (points, "the same, untrained"))
    fig.draw_without_rendering()
    main, small = (ax.get_window_extent() for ax in fig.axes)
    boxes = [main, small, fig.legends[0].get_window_extent(), *(t.get_window_extent() for t in fig.texts)]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= fig.bbox.x1 and a.y0 >= 0 and a.y1 <= fig.bbox.y1
        assert not any(a.overlaps(b) for b in boxes[:i])
    said = [t.get_window_extent() for t in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(said) for b in said[:i])


def test_a_confusion_counts_and_leaves_zeros_blank():
    counts = np.array([[7, 0, 2], [0, 0, 0], [1, 0, 5]])
    fig = figures.confusion(counts, ["a", "b", "c"], "Title")
    cells = [t for t in fig.texts if t.get_text().isdigit()]
    assert [(t.get_text(), t.get_weight()) for t in cells] == [
        ("7", "normal"),
        ("2", "bold"),
        ("1", "bold"),
        ("5", "normal"),
    ]
    assert {"7 of 9", "0 of 0", "5 of 6"} <= {t.get_text() for t in fig.texts}
    (image,) = fig.axes[0].images
    red, _, blue = np.moveaxis(np.asarray(image.get_array()), -1, 0)
    assert (red - blue > 0.1).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]  # orange
    assert (blue - red > 0.1).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert fig.data[1] == [("abc"[i], "abc"[j], counts[i, j]) for i in range(3) for j in range(3)]


@pytest.mark.parametrize("names", [LONG, ["dog", "automobile"] * 5, LONG * 2, ["x" * 200, "y"]])
def test_a_confusion_of_long_names_has_letters_that_are_read_and_do_not_meet(rng, names):
    fig = figures.confusion(rng.integers(0, 1000, (len(names), len(names))), names, "Title", "Note")
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in fig.texts]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= fig.bbox.x1 and a.y0 >= 0 and a.y1 <= fig.bbox.y1
        assert not any(a.overlaps(b) for b in boxes[:i])
    assert min(t.get_size() for t in fig.texts) > SMALLEST


@pytest.mark.parametrize("names", [LONG[:4], list("abcd")])
def test_intervals_and_bars_have_letters_that_are_read_and_do_not_meet(names):
    rows = {name: Interval(0.9 + i / 30, 0.88, 1.0, 9) for i, name in enumerate(names)}
    fig = figures.intervals(
        rows, "Title", "Note", "share", percent=True, cut=True, differences=dict([*rows.items()][:2])
    )
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in fig.texts] + [ax.xaxis.label.get_window_extent() for ax in fig.axes]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= fig.bbox.x1 and a.y0 >= 0 and a.y1 <= fig.bbox.y1
        assert not any(a.overlaps(b) for b in boxes[:i])
    fig = figures.bars({"conv1": np.arange(9950, 9990), "untrained": [1, 2]}, "Title")
    fig.draw_without_rendering()
    counts = [t.get_window_extent() for t in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(counts) for b in counts[:i])
    assert min(t.get_size() for ax in fig.axes for t in ax.texts) > SMALLEST


def test_a_table_of_shares_prints_each_number():
    fig = figures.shares([[0.0, 0.25], [0.5, 1.0]], ["a", "b"], ["c", "d"], "Title")
    printed = [t.get_text() for t in fig.texts]
    assert all(n in printed for n in ("0", "25", "50", "100"))


def test_a_table_has_heads_in_groups_and_columns_beside_that_are_no_shares():
    values, beside = [[0.25, 0.5], [0.75, 1.0]], {"log-odds": ["-1.5", "2.5"]}
    fig = figures.shares(values, ["a", "b"], ["c", "d"], "Title", groups={"both": 2, "one": 1}, beside=beside)
    fig.canvas.draw()
    drawn = {t.get_text(): t.get_window_extent() for t in fig.texts}
    assert {"both", "one", "log-odds", "-1.5", "2.5", "25", "100"} <= set(drawn)
    image = next(ax for ax in fig.axes if ax.images).get_window_extent()
    assert drawn["100"].x1 < image.x1 < drawn["2.5"].x0 and drawn["one"].x0 > image.x1 > drawn["both"].x1
    assert fig.data[1][-2:] == [("a", "log-odds", "-1.5"), ("b", "log-odds", "2.5")]
    assert fig.data[1][0] == ("a", "c", 0.25)


@pytest.mark.parametrize("names", [["x" * 200, "y"], ["German short-haired pointer", "English springer"] * 6])
def test_a_table_with_long_names_stays_on_the_page_and_keeps_them_in_its_data(names):
    fig = figures.shares(np.eye(len(names)), names, names, "Title")
    fig.canvas.draw()
    for t in fig.texts:
        box = t.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1, t.get_text()
        assert t.get_size() > SMALLEST, t.get_text()
    assert [row[:2] for row in fig.data[1]] == [(a, b) for a in names for b in names]


@pytest.mark.parametrize("size", [7, 28, 96])
def test_text_stays_on_the_page(rng, size):
    """No label may be cut at the border, whatever the tiles' size."""
    shown = tiles(rng, 16, size)
    captions = ["automobile"] * 16
    inset = (shown[0], "class automobile")
    title = "What conv1 answers: 96 maps of 96 x 96 pixels"
    fig = figures.sheet(shown, 8, title, "A note. " * 12, captions, ["0", "8"], list("01234567"), inset=inset)
    fig.canvas.draw()
    page = fig.bbox
    for t in fig.texts:
        box = t.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1, t.get_text()


@pytest.mark.parametrize("size, columns", [(32, 6), (96, 6), (96, 8)])
def test_long_captions_stay_on_the_page_and_off_each_other_and_the_tiles(rng, size, columns):
    shown = tiles(rng, 24, size)
    captions = ["garbage truck, taken for church", "", "english springer"] * 8
    fig = figures.sheet(shown, columns, "Title", captions=captions, heads=["repetition"] * columns)
    fig.canvas.draw()
    boxes = [t.get_window_extent() for t in fig.texts if t.get_text() and t.get_text() != "Title"]
    assert len(boxes) > 16 + columns  # some take more than one line
    for i, a in enumerate(boxes):
        assert a.x0 >= 0 and a.x1 <= fig.bbox.x1 and a.y0 >= 0
        assert not any(a.overlaps(b) for b in boxes[:i])
    page = pixels(fig)
    zoom = next(z for z in (5, 4, 3, 2, 1) if holds(page, shown[1], z))
    assert all(holds(page, tile, zoom) for tile in shown[[0, 2, 3, 5]])


@pytest.mark.parametrize("columns", [5, 6])
def test_tiles_of_96_pixels_fill_the_page(rng, columns):
    page = pixels(figures.sheet(tiles(rng, 12, 96), columns, "Title"))
    shown = np.flatnonzero((page[300:320] != 255).any((0, 2)))
    assert shown[-1] > 0.9 * page.shape[1]


SVG = "{http://www.w3.org/2000/svg}"


def one_of_each(name="a"):
    """A figure of each kind, with `name` wherever a user's text stands; {kind: figure}, and the tables they carry."""
    t = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
    points, labels = np.array([[0.1, 0.2], [1.5, -2.0], [1 / 3, 3.0]]), np.array([0, 1, 0])
    return {
        "sheet": (
            figures.sheet(
                t, 2, name, name, [name, ""], [name], [name, "y"], inset=(t[0], name), scale=("magma", 0, 1, name)
            ),
            [["row", "column", "caption"], [name, name, name], [name, "y", ""]],
        ),
        "plain sheet": (figures.sheet(t, 1, name), [["row", "column", "caption"], ["0", "0", ""], ["1", "0", ""]]),
        "curves": (
            figures.curves(
                [1, 2],
                [0.1 + 0.2, 1e-9],
                [0, 2],
                [0.5, 1.0],
                [0.25, 0.75],
                name,
                name,
                name,
                {name: ([2, 4], [0.125, 1.0])},
            ),
            [
                ["step", "loss", "train_accuracy", "val_accuracy", name],
                ["0", "", "0.5", "0.25", ""],
                ["1", "0.30000000000000004", "", "", ""],
                ["2", "1e-09", "1.0", "0.75", "0.125"],
                ["4", "", "", "", "1.0"],
            ],
        ),
        "scatter": (
            figures.scatter(points, labels, {0: name, 1: "b"}, name, name),
            [["x", "y", "class"], ["0.1", "0.2", name], ["1.5", "-2.0", "b"], ["0.3333333333333333", "3.0", name]],
        ),
        "shares": (
            figures.shares([[0.1, 2 / 3]], [name], [name, "y"], name, name, name),
            [["row", "column", "value"], [name, name, "0.1"], [name, "y", "0.6666666666666666"]],
        ),
        "confusion": (
            figures.confusion([[3, 1], [0, 2]], [name, "y"], name, name),
            [["class", "answer", "count"], [name, name, "3"], [name, "y", "1"], ["y", name, "0"], ["y", "y", "2"]],
        ),
        "bars": (
            figures.bars({name: np.array([0, 7])}, name, name, name),
            [["panel", "map", "count"], [name, "0", "0"], [name, "1", "7"]],
        ),
        "intervals": (
            figures.intervals({name: Interval(0.5, 1 / 3, 0.75, 9)}, name, name, name, (0.1, name)),
            [["name", "mean", "low", "high"], [name, "0.5", "0.3333333333333333", "0.75"], [name, "0.1", "", ""]],
        ),
        "poster": (figures.poster(t[0], name, name), None),
    }


KINDS = [*one_of_each()]


def words(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(SVG + "text")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["cost $5 and $6", "a_b^c", '=1, "é" $\\frac$'])
def test_a_figure_s_data_lie_beside_it_and_its_text_is_drawn_as_it_stands(tmp_path, kind, name):
    fig, table = one_of_each(name)[kind]
    figures.save(fig, tmp_path / "fig.v2.svg")
    drawn = " ".join(words((tmp_path / "fig.v2.svg").read_bytes()))
    assert drawn.count(name) >= {"plain sheet": 1, "poster": 2, "sheet": 5}.get(kind, 3)
    if table is None:
        assert [p.name for p in tmp_path.iterdir()] == ["fig.v2.svg"]
    else:
        raw = (tmp_path / "fig.v2.csv").read_bytes()
        assert list(csv.reader(io.StringIO(raw.decode(), newline=""), strict=True)) == table
        assert raw.endswith(b"\r\n") and raw.count(b"\n") == len(table)


def test_a_dollar_is_not_mathematics_on_an_axis_either(tmp_path):
    fig = figures.bars({"conv1": [3, 4]}, "Title")
    fig.axes[0].set_xticks([0, 1], ["$x^2$", "$y$"])
    figures.save(fig, tmp_path / "a.svg")
    assert {"$x^2$", "$y$"} <= set(words((tmp_path / "a.svg").read_bytes()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_shows_itself_in_a_notebook_with_the_bytes_of_its_file(tmp_path, kind):
    fig, _ = one_of_each()[kind]
    figures.save(fig, tmp_path / "a.PNG")
    assert fig._repr_png_() == figures.to_png(fig) == (tmp_path / "a.PNG").read_bytes()
    assert Image.open(tmp_path / "a.PNG").size == fig.pixels


def test_exports_hold_the_same_bytes_at_every_run_and_no_date(tmp_path):
    """Also where Python's own hashes, which name fonts and clips, have another seed."""
    code = """if True:
        import sys, numpy as np
        from viz import figures
        fig = figures.curves(np.arange(1, 4), [3, 2, 1.0], [0, 3], [0.1, 0.5], [0.1, 0.4], "Title", "Note", "é")
        for ending in ("svg", "pdf", "png"):
            figures.save(fig, f"{sys.argv[1]}/a.{ending}")"""
    runs = [tmp_path / "0", tmp_path / "1"]
    for seed, folder in enumerate(runs):
        root = Path(__file__).parents[1]
        run = [sys.executable, "-c", code, str(folder)]
        subprocess.run(run, cwd=root, check=True, env={"PYTHONHASHSEED": str(seed), "MPLCONFIGDIR": str(tmp_path)})
    names = sorted(p.name for p in runs[0].iterdir())
    assert names == ["a.csv", "a.pdf", "a.png", "a.svg"]
    for name in names:
        raw = (runs[0] / name).read_bytes()
        assert raw == (runs[1] / name).read_bytes(), name
        assert not re.search(rb"Date>|CreationDate|Matplotlib v|20\d\d-\d\d", raw), name


def test_a_pdf_carries_its_letters_as_truetype_and_an_svg_has_no_outlines_of_letters(tmp_path):
    fig = figures.shares([[0.5]], ["a"], ["b"], "Title")
    for ending in ("pdf", "svg"):
        figures.save(fig, tmp_path / f"a.{ending}")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Type3" not in pdf
    svg = (tmp_path / "a.svg").read_bytes()
    assert {"Title", "a", "b", "50", "per cent"} <= set(words(svg)) and b"DejaVuSans-" not in svg


def test_an_svg_shows_every_pixel_of_every_tile_as_a_whole_square(tmp_path, rng):
    shown = tiles(rng)
    fig = figures.sheet(shown, 3, "Title")
    figures.save(fig, tmp_path / "a.svg")
    (image,) = ElementTree.parse(tmp_path / "a.svg").iter(SVG + "image")
    raw = base64.b64decode(image.get("{http://www.w3.org/1999/xlink}href").split(",")[1])
    page = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    page = page[::-1] if "scale(1 -1)" in image.get("transform", "") else page
    zoom = next(z for z in range(40, 0, -1) if holds(page, shown[0], z))
    assert holds(pixels(fig), shown[0], zoom) and all(holds(page, tile, zoom) for tile in shown)


def test_kept_pictures_are_exported_on_request_and_old_exports_go(tmp_path):
    rows = {"pixels": Interval(1 / 3, 0.25, 0.5, 9)}
    poster = figures.poster(np.zeros((4, 4, 3), np.uint8), "Poster")
    pictures = [results.Picture("shares", "T", figures.intervals(rows, "T")), results.Picture("mosaic", "P", poster)]
    for old in ("gone.svg", "gone.csv", "notes.txt"):
        (tmp_path / old).write_text("old")
    results.keep(tmp_path, pictures, {}, 0.0, "", "", export=("svg", "pdf", "csv"))
    every = {f"{name}.{ending}" for name in ("shares", "mosaic") for ending in ("png", "svg", "pdf")}
    assert {p.name for p in tmp_path.iterdir()} == every | {"shares.csv", "notes.txt", "result.json"}
    pdf = (tmp_path / "shares.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf and b"/CIDFontType2" in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    table = list(csv.reader(io.StringIO((tmp_path / "shares.csv").read_text())))
    assert table == [["name", "mean", "low", "high"], ["pixels", "0.3333333333333333", "0.25", "0.5"]]
    results.keep(tmp_path, pictures, {}, 0.0, "", "")
    assert {p.name for p in tmp_path.iterdir()} == {"shares.png", "mosaic.png", "notes.txt", "result.json"}
    with pytest.raises(InputError, match="no data"):
        figures.save(poster, tmp_path / "mosaic.csv")


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt"])
def test_another_ending_is_refused_in_one_line(tmp_path, rng, name):
    with pytest.raises(InputError, match=r"^[^\n]*\.png, \.svg or \.pdf[^\n]*$"):
        figures.save(figures.sheet(tiles(rng), 3, "Title"), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_curves_draw_without_validation_data():
    fig = figures.curves([1, 2, 3], [3, 2, 1], [0, 3], [0.1, 0.5], [], "Title", others={"other": ([], [])})
    upper, lower = fig.axes
    assert [line.get_ydata().tolist() for line in upper.lines] == [[3, 2, 1], [3, 2, 1]]
    assert [line.get_ydata().tolist() for line in lower.lines] == [[10, 50]]
    assert [t.get_text() for t in lower.get_legend().get_texts()] == ["training images: 50.0 % at the end"]
    assert fig.data[1] == [(0, None, 0.1, None), (1, 3, None, None), (2, 2, None, None), (3, 1, 0.5, None)]


def test_curves_mark_the_kept_step_what_the_held_out_images_leave_open_and_a_cut_axis():
    train, held = [0.1, 0.93, 0.95, 0.97], [0.1, 0.92, 0.96, 0.95]
    test = Interval(0.94, 0.91, 0.96, 360)
    fig = figures.curves(
        range(1, 301), [1.0] * 300, [0, 100, 200, 300], train, held, "T", "", "held-out", kept=200, val_n=50, test=test
    )
    upper, lower = fig.axes
    assert [t.get_text() for t in upper.texts] == ["kept: step 200"]
    assert lower.get_ylim() == (90, 101) and lower.get_ylabel() == "accuracy, % (axis cut at 90)"
    band, bar = lower.collections
    assert np.allclose(sorted(band.get_paths()[0].vertices[:, 1])[-2:], 100 * 0.9886, atol=0.2)  # Wilson, 48 of 50
    assert np.allclose(bar.get_segments()[0], [[200, 91], [200, 96]])
    said = [t.get_text() for t in lower.get_legend().get_texts()]
    assert said == [
        "training images: 95.0 %",
        "held-out: 96.0 % (shaded: 95 % interval)",
        "360 test images, looked at once: 94.0 %",
    ]
    low = figures.curves([1], [1.0], [0, 1, 2], [0.1, 0.05, 0.2], [0.1, 0.04, 0.2], "T").axes[1]
    assert low.get_ylabel() == "accuracy, %" and low.get_ylim()[0] < 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses, accuracies", [([2.5], [0.5]), ([2.5], []), ([], [0.5])])
def test_curves_show_a_history_of_one_point(losses, accuracies):
    steps, eval_steps = [1] * len(losses), [1] * len(accuracies)
    fig = figures.curves(steps, losses, eval_steps, accuracies, [], "Title")
    page = pixels(fig).astype(int)
    grey, orange = (
        np.abs(page - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).sum(-1) < 20 for c in ("#b9c2cc", "#d55e00")
    )
    # rows 30 to 130 are the legend's, 130 to 400 the upper axes', below 500 the lower ones'
    assert grey[150:400].sum() > 60 * len(losses) or not losses
    assert (orange[500:800].sum() > 60) == bool(accuracies)
    assert fig.data[1] == [(1, losses[0] if losses else None, accuracies[0] if accuracies else None, None)]
    low, high = fig.axes[1].get_xlim()
    assert [t.get_text() for t in fig.axes[1].get_xticklabels() if low <= t.get_position()[0] <= high] == ["1"]


def test_save_writes_nothing_where_it_cannot(tmp_path, rng):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"a\.png"):
        figures.save(figures.sheet(tiles(rng), 3, "Title"), tmp_path / "file" / "a.png")


@pytest.mark.parametrize(
    "name", ["$" * 10_000, "a b " * 3000, "\n" * 50 + "\x00\x07\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}\t"]
)
def test_whatever_a_name_is_every_figure_is_drawn_on_a_page_of_usual_size(name):
    for kind, (fig, _) in one_of_each(name).items():
        height, width, _ = pixels(fig).shape
        assert height < 2500 and width < 1500, kind
        fig.draw_without_rendering()
        assert not any(c in t.get_text() for t in fig.texts for c in "\x00\x07\x1b\N{RIGHT-TO-LEFT OVERRIDE}"), kind


CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"


@pytest.fixture
def fresh_fonts(monkeypatch):
    """The fonts that matplotlib brings, and no others."""
    own = [f for f in font_manager.fontManager.ttflist if "DejaVu" in f.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(style, "FAMILIES", {})


def test_letters_that_the_usual_font_lacks_come_from_one_that_has_them(tmp_path, fresh_fonts, recwarn):
    pen, font = TTGlyphPen(None), FontBuilder(1000, isTTF=True)
    for corner, move in zip([(0, 0), (0, 900), (900, 900), (900, 0)], [pen.moveTo, *[pen.lineTo] * 3]):
        move(corner)
    pen.closePath()
    font.setupGlyphOrder([".notdef", "cat"])
    font.setupCharacterMap({ord(CAT): "cat"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "Own CJK", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "own.ttf")
    font_manager.fontManager.addfont(tmp_path / "own.ttf")
    fig = figures.poster(np.full((9, 9, 3), 255, np.uint8), f"a {CAT}")
    ink = (pixels(fig)[:60] < 128).any(-1)
    assert style.FAMILIES == {CAT: "Own CJK"} and not recwarn.list
    assert max(np.diff(np.flatnonzero(np.diff(np.r_[0, ink.sum(0) > 0, 0].astype(int))))) > 20  # a solid square
    assert style.families("plain") == style.families("größe") == []


def test_where_no_font_has_a_letter_it_is_said_once(fresh_fonts):
    with pytest.warns(UserWarning, match=f"no font of this system has the letters {CAT}") as said:
        for _ in range(2):
            figures.to_png(figures.confusion([[1, 0], [0, 1]], [CAT, "b"], CAT, CAT))
    assert len(said) == 1


@pytest.mark.parametrize("shape", [(3, 8, 8, 2), (3, 8, 8, 4), (8, 8, 3), (0, 8, 8, 3)])
def test_images_of_another_number_of_colours_cost_one_line(shape):
    for draw in (figures.photo, figures.signed, lambda x: figures.sheet(x.astype(np.uint8), 2, "Title")):
        with pytest.raises(InputError, match=r"expected .*got .* of shape \("):
            draw(np.zeros(shape))
    with pytest.raises(InputError, match="expected numbers of shape"):
        figures.photo(np.array([[[["a"]]]]))
    with pytest.raises(InputError, match="NaN"):
        figures.heat(np.full((1, 2, 2), np.nan))


def test_wide_letters_take_the_room_of_two(fresh_fonts):
    with pytest.warns(UserWarning, match="no font"):
        fig = figures.confusion([[1, 0], [0, 1]], [CAT * 100, "b"], CAT * 60, CAT * 99)
        fig.draw_without_rendering()
    for box in (t.get_window_extent() for t in fig.texts):
        assert box.x0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1
