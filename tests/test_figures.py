"""What a drawing must not lose: every pixel of a tile, the scale's meaning, and its own bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from viz import figures
from viz.metrics.statistics import Interval


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
    rows = {"a": Interval(0.25, 0.2, 0.3), "b": Interval(-0.1, -0.3, 0.1)}
    (ax,) = figures.intervals(rows, "Title", reference=(0.125, "chance")).axes
    segments = ax.collections[0].get_segments()
    assert np.allclose([s[:, 0] for s in segments], [[0.2, 0.3], [-0.3, 0.1]])
    assert ax.get_xlim()[0] < -0.3 and ax.get_xlim()[1] > 0.3
    assert [t.get_text() for t in ax.texts] == ["0.250", "-0.100", "chance"]


def test_enlarging_repeats_and_never_mixes(rng):
    x = rng.normal(size=(2, 3, 3))
    assert (figures.enlarge(x, 9) == x.repeat(3, 1).repeat(3, 2)).all()
    assert set(figures.enlarge(x, 7).ravel()) == set(x.ravel())


def test_classes_differ_in_colour_and_in_marker():
    assert len(set(figures.CLASS_COLORS)) == len(set(figures.CLASS_MARKERS)) == 10


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {c: f"class {c}" for c in range(12)}])
def test_a_scatter_draws_every_class_however_many(rng, names):
    labels = np.arange(60) % len(names)
    fig = figures.scatter(rng.normal(size=(60, 2)), labels, names, "Title")
    assert sum(len(c.get_offsets()) for c in fig.axes[0].collections) == 60
    assert [t.get_text() for t in fig.legends[0].get_texts()] == list(names.values())


def test_a_table_of_shares_prints_each_number():
    fig = figures.shares([[0.0, 0.25], [0.5, 1.0]], ["a", "b"], ["c", "d"], "Title")
    printed = [t.get_text() for t in fig.texts]
    assert all(n in printed for n in ("0", "25", "50", "100"))


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


def test_save_writes_nothing_where_it_cannot(tmp_path, rng):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"a\.png"):
        figures.save(figures.sheet(tiles(rng), 3, "Title"), tmp_path / "file" / "a.png")
