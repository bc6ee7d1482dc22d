"""The only file that draws: arrays in, a matplotlib Figure out.

Every picture made of images is one ``sheet``: tiles enlarged by a whole number (a pixel stays a square), one
gap, one header, one colour bar for all tiles that share a scale. Colours: grey for what the network is given;
magma from 0 up for what cannot be negative (activations, saliency); red and blue around 0 for what can be
(filters, projections). Classes have Paul Tol's colour-blind-safe colours and a marker each: no picture hangs on
 colour alone. Figures are made without pyplot: no global state, no display; the same arrays give the
same bytes.
"""

import io
import textwrap

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from tinycnn import files

WIDTH, DPI = 1000, 150  # pixels; a phone shows this width at about 0.36, where 11 points are still read
INK, SOFT, RIGHT, WRONG = "#1b1f24", "#57606a", "#0072b2", "#d55e00"
CLASS_COLORS = (
    "#332288",
    "#88ccee",
    "#117733",
    "#ddaa33",
    "#cc6677",
    "#aa4499",
    "#44aa99",
    "#999933",
    "#882255",
    "#555555",
)
CLASS_MARKERS = "osD^vPXhd*"
MARGIN = 24


def photo(x):
    """Images as they are: uint8, or float in [0, 1], (N, H, W, 1 or 3) -> uint8 (N, H, W, 3)."""
    x = np.asarray(x)
    if x.dtype != np.uint8:
        x = np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(x, (*x.shape[:3], 3)))


def heat(x, limit=None):
    """Non-negative maps (N, H, W) -> uint8 (N, H, W, 3): black is 0, the palest colour is `limit`.

    Without `limit` each map has its own: the 99.5th percentile of its values.
    """
    if limit is None:
        limit = np.percentile(x, 99.5, axis=(1, 2), keepdims=True)
    return _colored("magma", x / np.maximum(limit, 1e-30))


def signed(x, limit=None):
    """Signed values (N, H, W, C) -> uint8 (N, H, W, 3): 0 is white for one channel, mid-grey for three.

    Without `limit` each image has its own: the 99.5th percentile of its absolute values, or the largest one where
    nearly all are 0.
    """
    if limit is None:
        size = np.abs(x)
        limit = np.percentile(size, 99.5, axis=(1, 2, 3), keepdims=True)
        limit = np.where(limit > 0, limit, size.max(axis=(1, 2, 3), keepdims=True))
    x = x / np.maximum(limit, 1e-30)
    return photo(0.5 + 0.5 * x) if x.shape[3] == 3 else _colored("RdBu_r", 0.5 + 0.5 * x[..., 0])


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
    matplotlib.figure.Figure
    """
    tiles = np.asarray(tiles)
    N, h, w = tiles.shape[:3]
    lines = -(-N // columns)
    left = MARGIN + (12 + 14 * max(map(len, rows)) if rows else 0)
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
        captions = ["\n".join(textwrap.wrap(str(c), most, break_long_words=False)) for c in captions]
    if captions is not None or heads is not None:
        longest = max(len(s) for t in (captions or [], heads or []) for c in t for s in str(c).split("\n"))
        size = max(min(size, 11 * (w + gap - 4) / (13.6 * max(longest, 1))), 6.5 * k)
    lines_below = max((c.count("\n") + 1 for c in captions or []), default=0)
    caption = round(lines_below * 2.5 * size + 4 * k) if captions is not None else 0
    step_y = h + caption + gap

    top, text_left = round(18 * k), MARGIN
    if inset is not None:
        side = round(120 * k)
        text_left = MARGIN + side + round(18 * k)
    title_lines = textwrap.wrap(title, int((width - text_left) / (20 * k)))
    note_lines = textwrap.wrap(note, int((width - text_left) / (13 * k)))
    header = top + round(k * (36 * len(title_lines) + 28 * len(note_lines) + 10))
    if inset is not None:
        header = max(header, top + side + round(38 * k))
    if heads is not None:
        header += round(28 * k) * max(str(c).count("\n") + 1 for c in heads)
    footer = round(92 * k) if scale else MARGIN - gap
    height = header + lines * step_y + footer

    canvas = np.full((lines * step_y, width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * step_y, xs[i % columns]
        canvas[y : y + h, x : x + w] = tile.repeat(zoom, 0).repeat(zoom, 1)
    fig, text = _page(width, height)
    y = top
    for line in title_lines:
        text(text_left, y, line, size=15 * k, weight="bold")
        y += 36 * k
    for line in note_lines:
        text(text_left, y + 2, line, size=11 * k, color=SOFT)
        y += 28 * k
    if inset is not None:
        _image(fig, inset[0], MARGIN, top, side, side, width, height)
        text(MARGIN, top + side + 5 * k, inset[1], size=10 * k, color=SOFT)
    _image(fig, canvas, 0, header, width, lines * step_y, width, height)
    for j, head in enumerate(heads or []):
        y, va = (6, "bottom") if any("\n" in str(c) for c in heads) else (12, "baseline")
        text(xs[j] + w / 2, header - y, head, size=size, ha="center", va=va, color=SOFT)
    for i, row in enumerate(rows or []):
        text(left - 10, header + i * step_y + h / 2, row, size=11 * k, ha="right", va="center")
    for i, label in enumerate(captions or []):
        below = (4 if frames is None else 7) * k + 1.6 * size  # a frame takes some room
        x, y = xs[i % columns] + w / 2, header + i // columns * step_y + h + below
        color = frames[i] if frames is not None and frames[i] else INK
        for j, line in enumerate(label.split("\n")):
            text(x, y + j * 2.5 * size, line, size=size, ha="center", va="baseline", color=color)
    for i, color in enumerate([] if frames is None else frames):
        if color:
            x, y = xs[i % columns], header + i // columns * step_y
            fig.add_artist(
                Rectangle(
                    ((x - 2) / width, 1 - (y + h + 2) / height),
                    (w + 4) / width,
                    (h + 4) / height,
                    fill=False,
                    ec=color,
                    lw=2.2 * k,
                )
            )
    if scale:
        _colorbar(
            fig,
            scale,
            left,
            header + lines * step_y + round(8 * k),
            xs[-1] + w - left,
            k,
            width,
            height,
        )
    return fig


def curves(steps, losses, eval_steps, train_accuracy, val_accuracy, title, note="", val_name="validation", others=None):
    """Draw the loss of every step and the two accuracies.

    Parameters
    ----------
    steps, losses : arrays (S,)
    eval_steps, train_accuracy, val_accuracy : arrays (E,)
        Accuracies in [0, 1].
    others : {name: (eval_steps, val_accuracy)}, optional
        Validation accuracies of other runs, to compare.
    """
    fig, upper, lower = _two_axes(title, note)
    upper.plot(steps, losses, color="#b9c2cc", lw=0.8, label="each batch")
    n = max(1, len(losses) // 30)
    if len(losses) >= 3 * n:
        mean = np.convolve(losses, np.full(n, 1 / n), "valid")
        upper.plot(np.asarray(steps)[n - 1 :], mean, color=INK, lw=1.8, label=f"mean of {n} batches")
    upper.set(yscale="log", ylabel="cross-entropy")
    upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    upper.yaxis.set_major_formatter("{x:g}")
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.legend(frameon=False, fontsize=11)
    for y, name, style in (
        (train_accuracy, "training images", {"color": WRONG, "lw": 1.8, "ls": "--"}),
        (val_accuracy, val_name, {"color": RIGHT, "lw": 2.2, "marker": "o", "ms": 4}),
    ):
        y = 100 * np.asarray(y)
        lower.plot(eval_steps, y, label=f"{name}: {y[-1]:.1f} % at the end" if len(y) else name, **style)
    for i, (name, (x, y)) in enumerate((others or {}).items()):
        y = 100 * np.asarray(y)
        lower.plot(x, y, color=SOFT, lw=1.6, ls=(":", "-.")[i % 2], label=f"{name}: {y.max():.1f} % at best")
    lower.set(ylabel="accuracy, %", xlabel="step")
    later = 100 * np.concatenate([train_accuracy[1:], val_accuracy[1:], *[y[1:] for _, y in (others or {}).values()]])
    if len(later) > 2:  # the untrained start would flatten all that follows
        lower.set_ylim(10 * np.floor(later.min() / 10), 101)
    lower.legend(frameon=False, fontsize=11, loc="lower right")
    return fig


def scatter(points, labels, names, title, note=""):
    """Draw an embedding: points (N, 2), integer labels (N,); names: {label: class name}."""
    width, height = WIDTH, 1120
    fig, text = _page(width, height)
    y = _header(text, title, note, width)
    ax = _axes(fig, MARGIN, y + 8, width - 2 * MARGIN, height - y - 140, width, height)
    for label, name in names.items():
        i, j = labels == label, label % len(CLASS_COLORS)
        style = {"c": CLASS_COLORS[j], "marker": CLASS_MARKERS[j], "lw": 0.4, "ec": "white"}
        ax.scatter(*points[i].T, s=26, label=name, **style)
        where = np.median(points[i], 0) if i.any() else None
        if where is not None and i[((points - where) ** 2).sum(1).argsort()[:10]].mean() > 0.6:
            halo = [withStroke(linewidth=3, foreground="white")]  # a class in several places has no name in between
            ax.text(*where, name, size=12, weight="bold", ha="center", va="center", path_effects=halo, zorder=3)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal", "datalim")
    fig.legend(
        loc="lower center",
        ncols=5,
        frameon=False,
        fontsize=11,
        handletextpad=0.1,
        columnspacing=1.0,
        markerscale=1.4,
    )
    return fig


def places(fig, points):
    """Return where points (N, 2) of the first axes stand in the figure: shares of its size from the top left."""
    fig.draw_without_rendering()  # only then the axes have their limits
    x, y = (fig.axes[0].transData.transform(points) / fig.bbox.size).T
    return np.column_stack([x, 1 - y])


def shares(values, rows, heads, title, note="", label="per cent"):
    """Draw a table of shares in [0, 1], values (R, C), as numbers on colour."""
    values = np.asarray(values, float)
    R, C = values.shape
    row_height, left = 54, MARGIN + 16 + 14 * max(map(len, rows))
    head_lines = max(str(s).count("\n") + 1 for s in heads)
    top = _header(_page(WIDTH, 400)[1], title, note, WIDTH) + 8 + 27 * head_lines
    height = int(top + R * row_height + 96)
    fig, text = _page(WIDTH, height)
    _header(text, title, note, WIDTH)
    ax = fig.add_axes(_box(left, top, WIDTH - left - MARGIN, R * row_height, WIDTH, height))
    ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_axis_off()
    w = (WIDTH - left - MARGIN) / C
    longest = max(len(part) for head in heads for part in str(head).split("\n"))
    size = min(11, 11 * (w - 6) / (13.6 * longest))
    for j, head in enumerate(heads):
        text(left + (j + 0.5) * w, top - 6, head, size=size, ha="center", va="bottom", color=SOFT)
    for i in range(R):
        text(left - 12, top + (i + 0.5) * row_height, rows[i], size=11, ha="right", va="center")
        for j in range(C):
            ink = "white" if values[i, j] < 0.55 else INK
            number = f"{100 * values[i, j]:.0f}"
            x, y = left + (j + 0.5) * w, top + (i + 0.5) * row_height
            text(x, y, number, size=11, ha="center", va="center", color=ink)
    bar = ("cividis", 0, 100, label)
    _colorbar(fig, bar, left, top + R * row_height + 8, WIDTH - left - MARGIN, 1, WIDTH, height)
    return fig


def bars(panels, title, note="", label="images", most=20):
    """Draw counts in falling order, a row of bars for each of `panels`: {name: counts (C,)}.

    A bar is one of the C things (maps), with its number below and its count above; zeros and all after the first
    `most` are left out, and the panel's heading says so.
    """
    each, fig_top = 380, _header(_page(WIDTH, 400)[1], title, note, WIDTH) + 16
    height = fig_top + each * len(panels)
    slots = min(most, max(8, *(np.count_nonzero(counts) for counts in panels.values())))
    fig, text = _page(WIDTH, height)
    _header(text, title, note, WIDTH)
    for i, (name, counts) in enumerate(panels.items()):
        counts, y = np.asarray(counts), fig_top + i * each
        order = np.argsort(-counts, kind="stable")[: min(most, np.count_nonzero(counts))]
        rest = np.count_nonzero(counts) - len(order)
        more = f"; the others: {rest}, with {counts.sum() - counts[order].sum()} {label} together" if rest else ""
        text(MARGIN, y, f"{name}: {np.count_nonzero(counts)} of {len(counts)} maps{more}", size=12, weight="bold")
        ax = _axes(fig, 130, y + 44, WIDTH - 160, each - 110, WIDTH, height)
        ax.bar(np.arange(len(order)), counts[order], width=0.8, color=RIGHT)
        ax.set(ylabel=label, xlim=(-0.6, slots - 0.4), ylim=(0, 1.15 * max(counts.max(), 1)))
        ax.set_xticks(np.arange(len(order)), [f"{m}" for m in order])
        for j, n in enumerate(counts[order]):
            ax.annotate(f"{n}", (j, n), (0, 2), textcoords="offset points", ha="center", size=9, color=SOFT)
    return fig


def intervals(rows, title, note="", label="", reference=None):
    """Draw means with their confidence intervals, one below the other, on one axis that begins at 0.

    Parameters
    ----------
    rows : {name: interval.Interval}
    title, note, label : str
        `label` names the axis.
    reference : (value, name), optional
        A dashed line to compare with.
    """
    left = MARGIN + 24 + 14 * max(map(len, rows))
    top = _header(_page(WIDTH, 400)[1], title, note, WIDTH) + (44 if reference else 16)
    height = top + 62 * len(rows) + 100
    fig, text = _page(WIDTH, height)
    _header(text, title, note, WIDTH)
    ax = _axes(fig, left, top, WIDTH - left - 110, 62 * len(rows), WIDTH, height)
    y = np.arange(len(rows))
    mean, low, high = np.array([(r.mean, r.low, r.high) for r in rows.values()]).T
    ax.errorbar(mean, y, xerr=(mean - low, high - mean), fmt="o", color=RIGHT, ms=7, lw=2.2, capsize=5)
    ax.set(yticks=[], ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    ax.set_xlim(min(0, 1.15 * low.min()), 1.15 * max(high.max(), reference[0] if reference else 0))
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color="#e6e9ed", lw=0.8)
    for i, (name, value) in enumerate(zip(rows, mean)):
        text(left - 14, top + 62 * (i + 0.5), name, size=11, ha="right", va="center")
        ax.annotate(f"{value:.3f}", (value, i), (0, 8), textcoords="offset points", ha="center", size=10, color=INK)
    if reference:
        ax.axvline(reference[0], color=SOFT, ls="--", lw=1.4)
        ax.annotate(
            reference[1], (reference[0], -0.5), (0, 4), textcoords="offset points", ha="center", size=10, color=SOFT
        )
    return fig


def poster(image, title, note=""):
    """Draw one large picture, uint8 (H, W, 3), under a header; it is shrunk where it is wider than 1,500 pixels."""
    if image.shape[1] > 1500:
        size = (1500, round(image.shape[0] * 1500 / image.shape[1]))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    H, W = image.shape[:2]
    zoom = max(1, (WIDTH - 2 * MARGIN) / W)
    width = round(W * zoom) + 2 * MARGIN
    top = _header(_page(width, 400)[1], title, note, width) + 8
    height = round(top + H * zoom) + MARGIN
    fig, text = _page(width, height)
    _header(text, title, note, width)
    _image(fig, image, MARGIN, top, round(W * zoom), round(H * zoom), width, height)
    return fig


def to_png(fig):
    """Return the figure as PNG bytes, the same for the same figure: no date, no software version inside."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def save(fig, path):
    """Write the figure to `path` as PNG, atomically.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    files.write_bytes(path, to_png(fig))


def enlarge(x, size):
    """Repeat pixels until (N, h, w, ...) is (N, size, size, ...), to show small maps beside large images."""
    rows, cols = (np.arange(size) * n // size for n in x.shape[1:3])
    return x[:, rows][:, :, cols]


def interleave(*columns):
    """Columns of N tiles each -> the tiles row by row."""
    return np.stack(columns, 1).reshape(-1, *columns[0].shape[1:])


def _colored(cmap, x):
    return matplotlib.colormaps[cmap](np.clip(x, 0, 1), bytes=True)[..., :3]


def _page(width, height):
    fig = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def text(x, y, s, size=11, color=INK, ha="left", va="top", weight="normal"):
        style = {"size": size, "color": color, "ha": ha, "va": va, "weight": weight, "linespacing": 1.05}
        fig.text(x / width, 1 - y / height, s, **style)

    return fig, text


def _header(text, title, note, width):
    k, y = width / WIDTH, 18
    for line in textwrap.wrap(title, 48):
        text(MARGIN, y, line, size=15 * k, weight="bold")
        y += 36 * k
    for line in textwrap.wrap(note, 74):
        text(MARGIN, y + 2, line, size=11 * k, color=SOFT)
        y += 28 * k
    return y


def _box(x, y, w, h, width, height):
    return x / width, 1 - (y + h) / height, w / width, h / height


def _image(fig, image, x, y, w, h, width, height):
    ax = fig.add_axes(_box(x, y, w, h, width, height))
    ax.imshow(image, interpolation="nearest", aspect="auto")
    ax.set_axis_off()


def _axes(fig, x, y, w, h, width, height):
    ax = fig.add_axes(_box(x, y, w, h, width, height))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#c3cad2")
    ax.tick_params(labelsize=11, colors=SOFT, length=0)
    ax.xaxis.label.set(size=12, color=INK)
    ax.yaxis.label.set(size=12, color=INK)
    ax.grid(axis="y", color="#e6e9ed", lw=0.8)
    ax.set_axisbelow(True)
    return ax


def _two_axes(title, note):
    fig, text = _page(WIDTH, 1000)
    y = _header(text, title, note, WIDTH)
    half = (1000 - y - 130) / 2
    upper = _axes(fig, 120, y + 12, WIDTH - 160, half, WIDTH, 1000)
    lower = _axes(fig, 120, y + 12 + half + 40, WIDTH - 160, half, WIDTH, 1000)
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
    return fig, upper, lower


def _colorbar(fig, scale, x, y, w, k, width, height):
    cmap, low, high, label = scale
    ax = fig.add_axes(_box(x, y, w, 14 * k, width, height))
    bar = fig.colorbar(ScalarMappable(Normalize(low, high), cmap), cax=ax, orientation="horizontal")
    bar.set_label(label, size=11 * k, color=SOFT, labelpad=1)
    bar.outline.set_visible(False)
    ax.tick_params(labelsize=10 * k, colors=SOFT, length=0, pad=3)
