"""Images as pages: arrays become coloured tiles, tiles a sheet, one large image a poster."""

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from tinycnn.errors import InputError, as_array, is_number, shown
from viz.figures.style import (
    INK,
    MARGIN,
    SOFT,
    WIDTH,
    Figure,
    colorbar,
    header,
    in_lines,
    page,
    short,
    text_columns,
    wrapped,
)


def photo(x):
    """Images as they are: uint8, or float in [0, 1], (N, H, W, 1 or 3) -> uint8 (N, H, W, 3)."""
    x = _checked(x, 4)
    if x.dtype != np.uint8:
        x = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(x, (*x.shape[:3], 3)))


def heat(x, limit=None):
    """Non-negative maps (N, H, W) -> uint8 (N, H, W, 3): black is 0, the palest colour is `limit`.

    Without `limit` each map has its own: the 99.5th percentile of its values.
    """
    x = _checked(x, 3, limit)
    if limit is None:
        limit = np.percentile(x, 99.5, axis=(1, 2), keepdims=True)
    return _colored("magma", x / np.maximum(limit, 1e-30))


def signed(x, limit=None):
    """Signed values (N, H, W, C) -> uint8 (N, H, W, 3): 0 is white for one channel, mid-grey for three.

    Without `limit` each image has its own: the 99.5th percentile of its absolute values, or the largest one where
    nearly all are 0.
    """
    x = _checked(x, 4, limit) * 1.0
    if limit is None:
        size = np.abs(x)
        limit = np.percentile(size, 99.5, axis=(1, 2, 3), keepdims=True)
        limit = np.where(limit > 0, limit, size.max(axis=(1, 2, 3), keepdims=True))
    x = x / np.maximum(limit, 1e-30)
    return photo(0.5 + 0.5 * x) if x.shape[3] == 3 else _colored("RdBu_r", 0.5 + 0.5 * x[..., 0])


def _checked(x, ndim, limit=None):
    """`x` as an array to be shown, or an InputError: of the wrong shape, of no numbers, or with NaN; or no `limit`."""
    if not (limit is None or (is_number(limit, whole=False) and limit == limit)):
        raise InputError(f"limit: expected a number, got {shown(limit)}")
    x = as_array(x, "images")
    kind = "(N, H, W, 1 or 3)" if ndim == 4 else "(N, H, W)"
    if x.ndim != ndim or x.size == 0 or (ndim == 4 and x.shape[3] not in (1, 3)) or x.dtype.kind not in "buif":
        raise InputError(f"images: expected numbers of shape {kind} to draw, got {x.dtype} of shape {x.shape}")
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise InputError("images: they hold NaN, which no colour shows; replace it")
    return x


def enlarge(x, size):
    """Repeat pixels until (N, h, w, ...) is (N, size, size, ...), to show small maps beside large images.

    Raises InputError for fewer dimensions, or a size that is no whole number from 1 to 10,000.
    """
    x = as_array(x, "x")
    if x.ndim < 3 or not (is_number(size) and 1 <= size <= 10_000):
        raise InputError(f"x, size: expected (N, h, w, ...) and 1 to 10,000 pixels, got {x.shape} and {shown(size)}")
    rows, cols = (np.arange(size) * n // size for n in x.shape[1:3])
    return x[:, rows][:, :, cols]


def interleave(*columns):
    """Columns of N tiles each -> the tiles row by row."""
    return np.stack(columns, 1).reshape(-1, *columns[0].shape[1:])


def sheet(
    tiles,
    columns,
    title,
    note="",
    captions=None,
    rows=None,
    heads=None,
    frames=None,
    scale=None,
    inset=None,
    gap=6,
    group=None,
):
    """Draw tiles in a grid, row by row.

    Parameters
    ----------
    tiles : uint8 array (N, h, w, 3)
    columns : int
    title, note : str
        Header in bold, and a line or two below it.
    captions : N strings, optional
        Below each tile.
    rows, heads : strings, optional
        One left of each row, one above each column.
    frames : N colours or None, optional
        A frame around a tile.
    scale : (colour map, low, high, label), optional
        The colour bar below the grid.
    inset : (uint8 (h, w, 3), label), optional
        A picture at the left of the header: what all the tiles were made from.
    gap : int
        Pixels between tiles.
    group : int, optional
        Tiles that belong together in a row: after each so many the gap is wider.

    Returns
    -------
    Figure
        Its data: row, column (their names, or numbers from 0) and caption of each tile; and where the tiles are.
    """
    tiles = as_array(tiles, "tiles")
    if not (is_number(columns) and 1 <= columns <= 1000 and isinstance(title, str) and isinstance(note, str)):
        raise InputError(f"columns, title: expected 1 to 1000 and a string, got {shown(columns)} and {shown(title)}")
    if tiles.ndim != 4 or tiles.size == 0 or tiles.shape[3] != 3 or tiles.dtype != np.uint8:
        raise InputError(
            f"tiles: expected uint8 (N, h, w, 3), as photo, heat and signed make them, got {tiles.dtype} of shape "
            f"{tiles.shape}"
        )
    for name, texts, count in (
        ("captions", captions, len(tiles)),
        ("heads", heads, columns),
        ("frames", frames, len(tiles)),
    ):
        if texts is not None and len(texts) != count:
            raise InputError(f"{name}: expected {count}, got {len(texts)}")
    N, h, w = tiles.shape[:3]
    data = _table(N, columns, rows, heads, captions)
    rows = rows and [short(str(row), 32) for row in rows]
    heads = heads and ["\n".join(short(line, 40) for line in str(head).split("\n")[:4]) for head in heads]
    lines = -(-N // columns)
    left = MARGIN + (12 + 14 * max(map(text_columns, rows)) if rows else 0)
    wide = 24 if group else 0
    groups = (columns - 1) // group if group else 0
    room = WIDTH - left - MARGIN + gap - groups * wide  # for the tiles, each with its gap
    zoom = max(1, min(room // columns - gap, 240) // w)
    if columns * (zoom * w + gap) < 0.66 * room and columns > 4:
        zoom += 1  # a wider page rather than one that is a third empty
    h, w = h * zoom, w * zoom
    xs = [left + j * (w + gap) + (j // group * wide if group else 0) for j in range(columns)]
    width = max(780, xs[-1] + w + MARGIN)
    k = max(1, width / WIDTH)  # pages wider than usual get larger letters, so that both read alike
    size = 11 * k
    if captions is not None:
        most = max(8, int((w + gap - 4) / (11.2 * k)))  # letters in a line, 9 points high
        captions = [wrapped(str(c), most, longest=3 * most // 2) for c in captions]  # a longer word is written smaller
    if captions is not None or heads is not None:
        longest = max(text_columns(s) for t in (captions or [], heads or []) for c in t for s in str(c).split("\n"))
        size = max(min(size, 11 * (w + gap - 4) / (13.6 * max(longest, 1))), 7 * k)
    lines_below = max((c.count("\n") + 1 for c in captions or []), default=0)
    caption = round(lines_below * 2.5 * size + 4 * k) if captions is not None else 0
    step_y = h + caption + gap

    top, text_left = round(18 * k), MARGIN
    if inset is not None:
        side = round(120 * k)
        text_left = MARGIN + side + round(18 * k)
    title_lines = in_lines(title, int((width - text_left) / (20 * k)))
    note_lines = in_lines(note, int((width - text_left) / (13 * k)))
    grid_y = top + round(k * (36 * len(title_lines) + 28 * len(note_lines) + 10))
    if inset is not None:
        grid_y = max(grid_y, top + side + round(38 * k))
    if heads is not None:
        grid_y += round(28 * k) * max(str(c).count("\n") + 1 for c in heads)
    footer = round(92 * k) if scale else MARGIN - gap
    height = grid_y + lines * step_y + footer

    canvas = np.full((lines * step_y, width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * step_y, xs[i % columns]
        canvas[y : y + h, x : x + w] = tile.repeat(zoom, 0).repeat(zoom, 1)
    fig = Figure(width, height)
    header(fig, text_left, top, title_lines, note_lines, k)
    if inset is not None:
        _image(fig, inset[0], MARGIN, top, side, side)
        fig.write(MARGIN, top + side + 5 * k, short(inset[1], 40), size=10 * k, color=SOFT)
    _image(fig, canvas, 0, grid_y, width, lines * step_y)
    for j, head in enumerate(heads or []):
        y, va = (6, "bottom") if any("\n" in str(c) for c in heads) else (12, "baseline")
        fig.write(xs[j] + w / 2, grid_y - y, head, size=size, ha="center", va=va, color=SOFT)
    for i, row in enumerate(rows or []):
        fig.write(left - 10, grid_y + i * step_y + h / 2, row, size=11 * k, ha="right", va="center")
    for i, label in enumerate(captions or []):
        below = (4 if frames is None else 7) * k + 1.6 * size  # a frame takes some room
        x, y = xs[i % columns] + w / 2, grid_y + i // columns * step_y + h + below
        color = frames[i] if frames is not None and frames[i] else INK
        for j, line in enumerate(label.split("\n")):
            fig.write(x, y + j * 2.5 * size, line, size=size, ha="center", va="baseline", color=color)
    for i, color in enumerate([] if frames is None else frames):
        if color:
            x, y, wide, high = fig.box(xs[i % columns] - 2, grid_y + i // columns * step_y - 2, w + 4, h + 4)
            fig.add_artist(Rectangle((x, y), wide, high, fill=False, ec=color, lw=2.2 * k))
    if scale:
        colorbar(fig, scale, left, grid_y + lines * step_y + round(8 * k), xs[-1] + w - left, k)
    fig.data = data
    corners = ((xs[i % columns], grid_y + i // columns * step_y) for i in range(N))
    fig.tiles = [(x / width, y / height, w / width, h / height) for x, y in corners]
    return fig


def poster(image, title, note=""):
    """Draw one large picture, uint8 (H, W, 3), under a header; it is shrunk where it is wider than 1,500 pixels."""
    if image.shape[1] > 1500:
        size = (1500, round(image.shape[0] * 1500 / image.shape[1]))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    H, W = image.shape[:2]
    zoom = max(1, (WIDTH - 2 * MARGIN) / W)
    fig, y = page(title, note, below=8 + H * zoom + MARGIN, width=round(W * zoom) + 2 * MARGIN)
    _image(fig, image, MARGIN, y + 8, round(W * zoom), round(H * zoom))
    return fig


def _table(N, columns, rows, heads, captions):
    """What stands around each of the N tiles; where a row or a column has no name, its number."""
    row, column, caption = (dict(enumerate([] if names is None else names)) for names in (rows, heads, captions))
    places = (divmod(i, columns) for i in range(N))
    return ("row", "column", "caption"), [
        (row.get(y, y), column.get(x, x), caption.get(i)) for i, (y, x) in enumerate(places)
    ]


def _image(fig, image, x, y, w, h):
    ax = fig.add_axes(fig.box(x, y, w, h))
    ax.imshow(image, interpolation="nearest", aspect="auto")
    ax.set_axis_off()


def _colored(cmap, x):
    return matplotlib.colormaps[cmap](np.clip(x, 0, 1), bytes=True)[..., :3]
