"""Numbers as charts: training curves, embeddings, tables of shares, counts, and intervals."""

from textwrap import wrap

import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter

from viz.figures.style import (
    CLASS_COLORS,
    CLASS_MARKERS,
    INK,
    MARGIN,
    RIGHT,
    SOFT,
    WIDTH,
    WRONG,
    axes,
    colorbar,
    page,
)


def curves(steps, losses, eval_steps, train_accuracy, val_accuracy, title, note="", val_name="validation", others=None):
    """Draw the loss of every step and the two accuracies.

    Parameters
    ----------
    steps, losses : arrays (S,)
    eval_steps, train_accuracy, val_accuracy : arrays (E,)
        Accuracies in [0, 1]; empty where there were no images to measure them on.
    others : {name: (eval_steps, val_accuracy)}, optional
        Validation accuracies of other runs, to compare.
    """
    others = {name: (x, y) for name, (x, y) in (others or {}).items() if len(y)}
    fig, y = page(title, note, height=1000)
    half = (1000 - y - 130) / 2
    upper = axes(fig, 120, y + 12, WIDTH - 160, half)
    lower = axes(fig, 120, y + 12 + half + 40, WIDTH - 160, half)
    lower.sharex(upper)
    upper.tick_params(labelbottom=False)
    upper.plot(steps, losses, color="#b9c2cc", lw=0.8, marker=_alone(losses), label="each batch")
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
        (train_accuracy, "training images", {"color": WRONG, "lw": 1.8, "ls": "--", "marker": _alone(train_accuracy)}),
        (val_accuracy, val_name, {"color": RIGHT, "lw": 2.2, "marker": "o", "ms": 4}),
    ):
        if len(y):
            lower.plot(eval_steps, 100 * np.asarray(y), label=f"{name}: {100 * y[-1]:.1f} % at the end", **style)
    for i, (name, (x, y)) in enumerate(others.items()):
        y = 100 * np.asarray(y)
        lower.plot(x, y, color=SOFT, lw=1.6, ls=(":", "-.")[i % 2], label=f"{name}: {y.max():.1f} % at best")
    lower.set(ylabel="accuracy, %", xlabel="step")
    lower.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    later = 100 * np.concatenate([y[1:] for y in (train_accuracy, val_accuracy, *(y for _, y in others.values()))])
    if len(later) > 2:  # the untrained start would flatten all that follows
        lower.set_ylim(10 * np.floor(later.min() / 10), 101)
    if lower.lines:
        lower.legend(frameon=False, fontsize=11, loc="lower right")
    pairs = (steps, losses), (eval_steps, train_accuracy), (eval_steps, val_accuracy), *others.values()
    found = [dict(zip(np.asarray(x).tolist(), np.asarray(y).tolist())) for x, y in pairs]  # {step: value} each
    names = "step", "loss", "train_accuracy", "val_accuracy", *others
    fig.data = names, [(step, *(values.get(step) for values in found)) for step in sorted(set().union(*found))]
    return fig


def scatter(points, labels, names, title, note=""):
    """Draw an embedding: points (N, 2), integer labels (N,); names: {label: class name}."""
    height = 1120
    fig, y = page(title, note, height=height)
    ax = axes(fig, MARGIN, y + 8, WIDTH - 2 * MARGIN, height - y - 140)
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
    table = zip(*np.asarray(points).T.tolist(), np.asarray(labels).tolist())
    fig.data = ("x", "y", "class"), [(x, y, names[label]) for x, y, label in table if label in names]
    return fig


def places(fig, points):
    """Return where points (N, 2) of the first axes stand in the figure: shares of its size from the top left."""
    fig.draw_without_rendering()  # only then the axes have their limits
    x, y = (fig.axes[0].transData.transform(points) / fig.bbox.size).T
    return np.column_stack([x, 1 - y])


def shares(values, rows, heads, title, note="", label="per cent", groups=None, beside=None):
    """Draw a table of shares in [0, 1], values (R, C), as numbers on colour.

    Names that are too long are wrapped above a column, and cut where that is not enough; the data have them whole.

    Parameters
    ----------
    values : array (R, C)
    rows, heads : R and C strings
    title, note, label : str
        `label` names the colours.
    groups : {name: number of columns}, optional
        What columns have in common, from the left: a second line of heads.
    beside : {head: R strings}, optional
        Columns at the right that are no shares: as they stand, on white.
    """
    values, beside = np.asarray(values, float), beside or {}
    R, C = values.shape
    table = [(rows[i], heads[j], values[i, j].item()) for i in range(R) for j in range(C)]
    table += [(rows[i], head, texts[i]) for head, texts in beside.items() for i in range(R)]
    rows = [_cut(" ".join(str(row).split()), 32) for row in rows]
    row_height, left = 54 if R <= 16 else 38, MARGIN + 16 + 14 * max(map(len, rows))
    w = (WIDTH - left - MARGIN) / (C + len(beside))
    heads = [*heads, *beside]
    most = max(4, int(11 * (w - 6) / (13.6 * 5.5)))  # letters in a line, 5.5 points high
    heads = [_wrapped(str(head), most) for head in heads]
    head_lines = max(str(s).count("\n") + 1 for s in heads) + (1.5 if groups else 0)
    fig, y = page(title, note, below=round(8 + 27 * head_lines) + R * row_height + 96)
    top = y + round(8 + 27 * head_lines)
    ax = fig.add_axes(fig.box(left, top, C * w, R * row_height))
    ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_axis_off()
    longest = max(len(part) for head in heads for part in str(head).split("\n"))
    size = min(11, 11 * (w - 6) / (13.6 * longest))
    for j, head in enumerate(heads):
        fig.write(left + (j + 0.5) * w, top - 6, head, size=size, ha="center", va="bottom", color=SOFT)
    at = left
    for name, count in (groups or {}).items():
        fig.write(at + count * w / 2, y + 8, name, ha="center")
        line = fig.add_axes(fig.box(at + 6, y + 40, count * w - 12, 1))
        line.set(xticks=[], yticks=[], facecolor=SOFT)
        line.spines[:].set_visible(False)
        at += count * w
    for i in range(R):
        for j, texts in enumerate(beside.values(), C):
            x, height = left + (j + 0.5) * w, top + (i + 0.5) * row_height
            fig.write(x, height, texts[i], size=11, ha="center", va="center")
        fig.write(left - 12, top + (i + 0.5) * row_height, rows[i], size=11, ha="right", va="center")
        for j in range(C):
            ink = "white" if values[i, j] < 0.55 else INK
            number = f"{100 * values[i, j]:.0f}"
            x, y = left + (j + 0.5) * w, top + (i + 0.5) * row_height
            fig.write(x, y, number, size=11, ha="center", va="center", color=ink)
    bar = ("cividis", 0, 100, label)
    colorbar(fig, bar, left, top + R * row_height + 8, C * w)
    fig.data = ("row", "column", "value"), table
    return fig


def bars(panels, title, note="", label="images", most=20):
    """Draw counts in falling order, a row of bars for each of `panels`: {name: counts (C,)}.

    A bar is one of the C things (maps), with its number below and its count above; zeros and all after the first
    `most` are left out, and the panel's heading says so.
    """
    each = 380
    slots = min(most, max(8, *(np.count_nonzero(counts) for counts in panels.values())))
    fig, top = page(title, note, below=16 + each * len(panels))
    for i, (name, counts) in enumerate(panels.items()):
        counts, y = np.asarray(counts), top + 16 + i * each
        order = np.argsort(-counts, kind="stable")[: min(most, np.count_nonzero(counts))]
        rest = np.count_nonzero(counts) - len(order)
        more = f"; the others: {rest}, with {counts.sum() - counts[order].sum()} {label} together" if rest else ""
        fig.write(MARGIN, y, f"{name}: {np.count_nonzero(counts)} of {len(counts)} maps{more}", size=12, weight="bold")
        ax = axes(fig, 130, y + 44, WIDTH - 160, each - 110)
        ax.bar(np.arange(len(order)), counts[order], width=0.8, color=RIGHT)
        ax.set(ylabel=label, xlim=(-0.6, slots - 0.4), ylim=(0, 1.15 * max(counts.max(), 1)))
        ax.set_xticks(np.arange(len(order)), [f"{m}" for m in order])
        for j, n in enumerate(counts[order]):
            ax.annotate(f"{n}", (j, n), (0, 2), textcoords="offset points", ha="center", size=9, color=SOFT)
    table = [(name, m, n) for name, counts in panels.items() for m, n in enumerate(np.asarray(counts).tolist())]
    fig.data = ("panel", "map", "count"), table
    return fig


def intervals(rows, title, note="", label="", reference=None, dots=None, cut=False):
    """Draw means with their confidence intervals, one below the other, on one axis that begins at 0.

    Parameters
    ----------
    rows : {name: statistics.Interval}
    title, note, label : str
        `label` names the axis.
    reference : (value, name), optional
        A dashed line to compare with.
    dots : {name: values}, optional
        The values that a row is the mean of, a mark for each.
    cut : bool
        Let the axis begin where the values do, and say so.
    """
    left = MARGIN + 24 + 14 * max(map(len, rows))
    room = 44 if reference else 16  # for the reference's name, above the axes
    fig, end = page(title, note, below=room + 62 * len(rows) + 100)
    top, y = end + room, np.arange(len(rows))
    ax = axes(fig, left, top, WIDTH - left - 110, 62 * len(rows))
    mean, low, high = np.array([(r.mean, r.low, r.high) for r in rows.values()]).T
    ax.errorbar(mean, y, xerr=(mean - low, high - mean), fmt="o", color=RIGHT, ms=7, lw=2.2, capsize=5)
    ax.set(yticks=[], ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    ends = [*low, *high, *mean, *(v for some in (dots or {}).values() for v in some), reference[0] if reference else 0]
    ends = ends[:-1] if cut and not reference else ends
    low_end, high_end = np.nanmin(ends), np.nanmax(ends)
    if cut:
        room = 0.1 * (high_end - low_end) or 0.1
        ax.set_xlim(low_end - room, high_end + room)
        ax.set_xlabel(f"{label} (the axis does not begin at 0)")
    else:
        ax.set_xlim(min(0, 1.15 * low_end), 1.15 * high_end)
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color="#e6e9ed", lw=0.8)
    for i, (name, value) in enumerate(zip(rows, mean)):
        fig.write(left - 14, top + 62 * (i + 0.5), name, size=11, ha="right", va="center")
        ax.annotate(f"{value:.3f}", (value, i), (0, 8), textcoords="offset points", ha="center", size=10, color=INK)
        values = (dots or {}).get(name, ())
        ax.plot(values, np.full(len(values), i + 0.28), "o", color=SOFT, ms=4, mew=0, alpha=0.6)
    if reference:
        ax.axvline(reference[0], color=SOFT, ls="--", lw=1.4)
        ax.annotate(
            reference[1], (reference[0], -0.5), (0, 4), textcoords="offset points", ha="center", size=10, color=SOFT
        )
    table = [(name, r.mean, r.low, r.high) for name, r in rows.items()]
    table += [(name, value, None, None) for name, values in (dots or {}).items() for value in values]
    if reference:
        table.append((reference[1], reference[0], None, None))
    fig.data = ("name", "mean", "low", "high"), table
    return fig


def _cut(text, most):
    """`text` in `most` letters."""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _wrapped(text, most):
    """`text` in lines of `most` letters; its own lines stay apart."""
    lines = [line for part in text.split("\n") for line in wrap(part, most, break_long_words=False)]
    return "\n".join(_cut(line, most) for line in lines)


def _alone(values):
    """A mark where a line of one point would not be seen."""
    return "o" if len(values) == 1 else None
