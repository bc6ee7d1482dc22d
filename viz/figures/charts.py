"""Numbers as charts: training curves, embeddings, tables of shares, counts, and intervals."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

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
    in_lines,
    page,
    short,
    text_columns,
    wrapped,
)
from viz.metrics.statistics import accuracy_interval

ROW = 70  # pixels between the rows of `intervals`


def curves(
    steps,
    losses,
    eval_steps,
    train_accuracy,
    val_accuracy,
    title,
    note="",
    val_name="validation",
    others=None,
    kept=None,
    val_n=0,
    test=None,
):
    """Draw the loss of every step and the two accuracies; where their axis does not begin at 0, it says so.

    Parameters
    ----------
    steps, losses : arrays (S,)
    eval_steps, train_accuracy, val_accuracy : arrays (E,)
        Accuracies in [0, 1]; empty where there were no images to measure them on.
    others : {name: (eval_steps, val_accuracy)}, optional
        Validation accuracies of other runs, to compare.
    kept : int, optional
        The step, one of `eval_steps`, whose network is used: a line marks it.
    val_n : int, optional
        On how many images `val_accuracy` was measured: a band shows what their number leaves open (Wilson, 95 %).
    test : statistics.Interval, optional
        The accuracy of the kept network on test images that were looked at once: a mark with its interval at `kept`.
    """
    others = {name: (x, y) for name, (x, y) in (others or {}).items() if len(y)}
    at = len(eval_steps) - 1 if kept is None else list(eval_steps).index(kept)
    when = " at the end" if kept is None else ""
    said = [f"{short(name, 40)}: {100 * y[at]:.1f} %{when}" if len(y) else "" for name, y in
            (("training images", train_accuracy), (val_name, val_accuracy))]  # fmt: skip
    if val_n and said[1]:
        said[1] += " (shaded: 95 % interval)"
    said += [f"{short(name, 40)}: {100 * max(y):.1f} % at best" for name, (_, y) in others.items()]
    said += [f"{test.n:,} test images, looked at once: {100 * test.mean:.1f} %"] if test is not None else []
    columns = 2 if 2 * (11.8 * max(map(text_columns, said)) + 70) < WIDTH - 2 * MARGIN else 1
    legend = 32 * -(-len([s for s in said if s]) // columns) + 8
    fig, y = page(title, note, height=1000 + legend)
    half = (1000 - y - 130) / 2
    upper = axes(fig, 120, y + 12, WIDTH - 160, half)
    lower = axes(fig, 120, y + 12 + half + 36 + legend, WIDTH - 160, half)
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
    styles = (
        {"color": WRONG, "lw": 1.8, "ls": "--", "marker": "s", "ms": 4},
        {"color": RIGHT, "lw": 2.2, "marker": "o", "ms": 5},
        *({"color": SOFT, "lw": 1.6, "ls": (":", "-.")[i % 2]} for i in range(len(others))),
    )
    measured = (eval_steps, train_accuracy), (eval_steps, val_accuracy), *others.values()
    for (x, y), name, style in zip(measured, said, styles):
        if len(y):
            lower.plot(x, 100 * np.asarray(y), label=name, **style)
    lower.set(ylabel="accuracy, %", xlabel="step")
    lower.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    later = 100 * np.concatenate([y[1:] for y in (train_accuracy, val_accuracy, *(y for _, y in others.values()))])
    if len(later) > 2 and later.min() >= 70:  # the untrained start would flatten all that follows
        lowest = 10 * np.floor(min(later.min(), 99) / 10)
        lower.set(ylim=(lowest, 101), ylabel=f"accuracy, % (axis cut at {lowest:.0f})")
    else:
        lower.set_ylim(bottom=0)
    if val_n and len(val_accuracy):
        right = (accuracy_interval(round(val_n * y), val_n) for y in val_accuracy)
        low, high = 100 * np.array([(r.low, r.high) for r in right]).T
        lower.fill_between(eval_steps, low, high, color=RIGHT, alpha=0.13, lw=0)
    if kept is not None:
        for ax in (upper, lower):
            ax.axvline(kept, color=INK, lw=1.2, ls=(0, (2, 2)), zorder=1)
        side = (
            {"ha": "right", "xytext": (-5, 0)} if kept > np.mean(lower.get_xlim()) else {"ha": "left", "xytext": (5, 0)}
        )
        where = (kept, 0.03), ("data", "axes fraction")
        upper.annotate(
            f"kept: step {kept:,}",
            *where[:1],
            xycoords=where[1],
            textcoords="offset points",
            size=11,
            color=INK,
            **side,
        )
    if test is not None:
        bars = [[100 * (test.mean - test.low)], [100 * (test.high - test.mean)]]
        style = {"fmt": "D", "color": INK, "ms": 7, "capsize": 5, "zorder": 4, "label": said[-1]}
        lower.errorbar([kept], [100 * test.mean], yerr=bars, **style)
    if lower.lines:
        above = {"loc": "lower center", "bbox_to_anchor": (0.45, 1), "borderaxespad": 0.2, "columnspacing": 1.2}
        lower.legend(frameon=False, fontsize=11, ncols=columns, **above)
    pairs = (steps, losses), (eval_steps, train_accuracy), (eval_steps, val_accuracy), *others.values()
    found = [dict(zip(np.asarray(x).tolist(), np.asarray(y).tolist())) for x, y in pairs]  # {step: value} each
    names = "step", "loss", "train_accuracy", "val_accuracy", *others
    fig.data = names, [(step, *(values.get(step) for values in found)) for step in sorted(set().union(*found))]
    return fig


def scatter(points, labels, names, title, note="", control=None):
    """Draw an embedding: points (N, 2), integer labels (N,); names: {label: class name}.

    `control`, where given, is (points (N, 2), a name): the same images placed by what the embedding is held against,
    in a smaller panel below.
    """
    items = [wrapped(str(name), 15 if control else 24) for name in names.values()]
    letters, lines = (
        max(text_columns(part) for item in items for part in item.split("\n")),
        [i.count("\n") + 1 for i in items],
    )
    side, beside = (680, WIDTH - 2 * MARGIN - 680 - 28) if control else (800, 0)

    def height(columns):
        per = -(-len(items) // columns)
        return 34 * max(sum(lines[i : i + per]) for i in range(0, len(items), per))

    columns = int(np.clip(beside / (12 * letters + 60), 1, 5))
    aside = bool(control) and height(columns) <= side - beside - 90  # the legend stands under the control, or below
    if not aside:
        columns = int(np.clip((WIDTH - 2 * MARGIN) / (12 * letters + 60), 1, 5))
    below = 0 if aside else 40 + height(columns)
    fig, y = page(title, note, below=16 + side + below + MARGIN)
    ax = axes(fig, MARGIN, y + 16, side if control else WIDTH - 2 * MARGIN, side)
    _cloud(ax, points, labels, dict(zip(names, items)), 26)
    _names(fig, ax, points, labels, names)
    columns_data, table = (
        ("x", "y", "class"),
        [*np.asarray(points).T.tolist(), map(names.get, np.asarray(labels).tolist())],
    )
    place, anchor = "upper center", (WIDTH / 2, y + 16 + side + 16)
    if control is not None:
        there, name = control
        x = WIDTH - MARGIN - beside
        small = axes(fig, x, y + 80, beside, beside)
        _cloud(small, there, labels, names, 7)
        small.spines[:].set(visible=True, color="#c3cad2")
        fig.write(x, y + 72, "\n".join(in_lines(name, 20)), size=11, va="bottom", weight="bold")
        columns_data, table = (*columns_data, f"x, {name}", f"y, {name}"), [*table, *np.asarray(there).T.tolist()]
        if aside:
            place, anchor = "upper left", (x - 12, y + 80 + beside + 16)
    fig.legend(
        *ax.get_legend_handles_labels(),
        loc=place,
        bbox_to_anchor=(anchor[0] / WIDTH, 1 - anchor[1] / fig.pixels[1]),
        borderaxespad=0,
        ncols=columns,
        frameon=False,
        fontsize=11,
        handletextpad=0.1,
        columnspacing=1.0,
        markerscale=1.4,
    )
    fig.data = columns_data, [row for row in zip(*table) if row[2] is not None]
    return fig


def _names(fig, ax, points, labels, names):
    """Write a class's name in its midst, unless it lies in several places or its name would not be seen whole there."""
    taken, halo = [], [withStroke(linewidth=3, foreground="white")]
    for label, name in names.items():
        i = labels == label
        where = np.median(points[i], 0) if i.any() else None
        if where is None or i[((points - where) ** 2).sum(1).argsort()[:10]].mean() <= 0.6:
            continue  # a class in several places has no name in between
        style = {"size": 12, "weight": "bold", "ha": "center", "va": "center", "path_effects": halo, "zorder": 3}
        text = ax.text(*where, wrapped(str(name), 16), **style)
        fig.draw_without_rendering()
        box = text.get_window_extent()
        if any(map(box.overlaps, taken)) or box.x0 < 0 or box.x1 > ax.bbox.x1 + 20:
            text.remove()
        else:
            taken.append(box)


def _cloud(ax, points, labels, names, size):
    """Marks in the colour and the shape of their class, without axes."""
    for label, name in names.items():
        i, j = labels == label, label % len(CLASS_COLORS)
        marker = CLASS_MARKERS[(label + label // len(CLASS_COLORS)) % len(CLASS_MARKERS)]  # another with each round
        style = {"c": CLASS_COLORS[j], "marker": marker, "lw": 0.4 if size > 20 else 0, "ec": "white"}
        ax.scatter(*points[i].T, s=size, label=name, **style)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_aspect("equal", "datalim")


def places(fig, points):
    """Return where points (N, 2) of the first axes stand in the figure: shares of its size from the top left."""
    fig.draw_without_rendering()  # only then the axes have their limits
    x, y = (fig.axes[0].transData.transform(points) / fig.bbox.size).T
    return np.column_stack([x, 1 - y])


def shares(values, rows, heads, title, note="", label="per cent", groups=None, beside=None):
    """Draw a table of shares in [0, 1], values (R, C), as numbers on colour.

    Names that are too long are wrapped above a column, and stand upright or are cut where that is not enough; the data
    have them whole.

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
    rows = [short(" ".join(str(row).split()), 32) for row in rows]
    row_height, left = 54 if R <= 16 else 38, MARGIN + 16 + 14 * max(map(text_columns, rows))
    w = (WIDTH - left - MARGIN) / (C + len(beside))
    heads = [*heads, *beside]

    def letters(heads):
        return max(text_columns(part) for head in heads for part in head.split("\n"))

    level = [wrapped(str(head), max(4, int(11 * (w - 6) / (13.6 * 5.5)))) for head in heads]
    size = min(11, 11 * (w - 6) / (13.6 * letters(level)))
    turned = size < 8  # names that are too long for their column stand upright
    heads = [wrapped(str(head), 18) for head in heads] if turned else level
    head_lines = max(head.count("\n") + 1 for head in heads)
    size = min(11, 11 * w / (25 * head_lines + 2)) if turned else size
    room = (12.6 * letters(heads) + 8 if turned else 27 * head_lines) + (40 if groups else 0)
    fig, y = page(title, note, below=round(8 + room) + R * row_height + 96)
    top = y + round(8 + room)
    ax = fig.add_axes(fig.box(left, top, C * w, R * row_height))
    ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_axis_off()
    for j, head in enumerate(heads):
        style = {"size": size, "ha": "center", "va": "bottom", "color": SOFT, "rotation": 90 * turned}
        fig.write(left + (j + 0.5) * w, top - 6, head, **style)
    at = left
    for name, count in (groups or {}).items():
        fig.write(at + count * w / 2, y + 8, short(name, 60), ha="center")
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


def confusion(counts, names, title, note=""):
    """Draw which class (row) got which answer (column), counts (C, C): zeros blank, wrong answers in orange.

    At the right of a row stands how many of its images were answered rightly. The deeper a colour, the larger the
    share of the row.
    """
    counts = np.asarray(counts)
    C, n = len(counts), counts.sum(1)
    rows = [wrapped(str(name), 18, 2) for name in names]
    line = max(text_columns(part) for name in rows for part in name.split("\n"))
    left, after = MARGIN + max(90, 24 + round(12.6 * line)), 24 + 13 * len(f"{n.max():,} of {n.max():,}")
    width = max(WIDTH, left + 58 * C + after + MARGIN)
    w, h = (width - left - after - MARGIN) / C, 58
    turned = 12.6 * line > w - 6  # names that are too long for their column stand upright
    head = 12.6 * line + 12 if turned else 27 * max(name.count("\n") + 1 for name in rows)
    fig, top = page(title, note, below=44 + head + h * C + MARGIN, width=width)
    top += 40 + head
    share = counts / np.maximum(n, 1)[:, None]
    wrong = ~np.eye(C, dtype=bool)
    ink = np.where(wrong[..., None], to_rgb(WRONG), to_rgb(RIGHT))
    depth = np.where(counts > 0, np.where(wrong, 0.12 + 0.85 * np.sqrt(share), 0.1 + 0.3 * share), 0)[..., None]
    ax = fig.add_axes(fig.box(left, top, w * C, h * C))
    ax.imshow(1 - depth * (1 - ink), aspect="auto")
    ax.hlines(np.arange(C + 1) - 0.5, -0.5, C - 0.5, color="#e6e9ed", lw=0.8)
    ax.vlines(np.arange(C + 1) - 0.5, -0.5, C - 0.5, color="#e6e9ed", lw=0.8)
    ax.set_axis_off()
    fig.write(left, top - head - 34, "answer", size=11, color=SOFT)
    fig.write(left - 14, top - 12, "class", size=11, ha="right", va="baseline", color=SOFT)
    fig.write(width - MARGIN, top - 12, "right", size=11, ha="right", va="baseline", color=SOFT)
    size = min(11, 11 * (w - 6) / (14.6 * len(str(counts.max()))))
    for i, row in enumerate(rows):
        x, y = left + (i + 0.5) * w, top + (i + 0.5) * h
        fig.write(x, top - 8, row, size=11, color=SOFT, ha="center", va="bottom", rotation=90 * turned)
        fig.write(left - 14, y, row, size=11, ha="right", va="center")
        fig.write(width - MARGIN, y, f"{counts[i, i]:,} of {n[i]:,}", size=11, ha="right", va="center", color=SOFT)
        for j in np.flatnonzero(counts[i]):
            x, weight = left + (j + 0.5) * w, "bold" if wrong[i, j] else "normal"
            fig.write(x, y, f"{counts[i, j]}", size=size, ha="center", va="center", weight=weight)
    fig.data = (
        ("class", "answer", "count"),
        [(names[i], names[j], counts[i, j].item()) for i in range(C) for j in range(C)],
    )
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
        more = (
            f"; the others: {rest}, with {counts.sum() - counts[order].sum()} {short(label, 24)} together"
            if rest
            else ""
        )
        fig.write(
            MARGIN,
            y,
            f"{short(name, 24)}: {np.count_nonzero(counts)} of {len(counts)} maps{more}",
            size=12,
            weight="bold",
        )
        ax = axes(fig, 130, y + 44, WIDTH - 160, each - 110)
        ax.bar(np.arange(len(order)), counts[order], width=0.8, color=RIGHT)
        ax.set(ylabel=short(label, 24), xlim=(-0.6, slots - 0.4), ylim=(0, 1.15 * max(counts.max(), 1)))
        ax.set_xticks(np.arange(len(order)), [f"{m}" for m in order])
        size = min(11, 11 * (WIDTH - 160) / slots / (14.6 * (len(str(counts.max())) + 0.4)))  # no number on the next
        for j, n in enumerate(counts[order]):
            ax.annotate(f"{n}", (j, n), (0, 2), textcoords="offset points", ha="center", size=size, color=SOFT)
    table = [(name, m, n) for name, counts in panels.items() for m, n in enumerate(np.asarray(counts).tolist())]
    fig.data = ("panel", "map", "count"), table
    return fig


def intervals(rows, title, note="", label="", reference=None, dots=None, cut=False, percent=False, differences=None):
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
    percent : bool
        The rows are shares: write them in per cent, and draw no interval beyond 0 or 1, where no share can be. The
        data have them as they are.
    differences : {name: statistics.Interval}, optional
        Differences between rows, below on an axis of their own around 0; in percentage points with `percent`.
    """
    dots, differences = dots or {}, differences or {}
    names = {name: wrapped(str(name), 24) for name in (*rows, *differences)}
    left = MARGIN + 28 + round(12.6 * max(text_columns(line) for name in names.values() for line in name.split("\n")))
    factor, bounds = (100, (0, 1)) if percent else (1, (-np.inf, np.inf))
    labels = [
        "\n".join(in_lines(text, int((WIDTH - left + 50) / 13)))
        for text in (label, f"difference{', percentage points' * percent}")
    ]
    labels[0] += "\n(the axis does not begin at 0)" * cut
    feet = [62 + 28 * s.count("\n") for s in labels]  # below an axis: its numbers and its label
    room = 50 if reference else 12  # for the reference's name, above the axes
    below = room + ROW * len(rows) + feet[0] + (44 + ROW * len(differences) + feet[1] if differences else 0) + MARGIN
    fig, y = page(title, note, below=below)
    every = [*rows.values(), *differences.values()]
    ax = _intervals(fig, rows, names, left, y + room, labels[0], factor, every, bounds, dots, reference, cut)
    if reference:
        where = (factor * reference[0], -0.5), (0, 8)
        ax.annotate(short(reference[1], 40), *where, textcoords="offset points", ha="center", size=11, color=SOFT)
    if differences:
        top = y + room + ROW * len(rows) + feet[0] + 44
        free = (-np.inf, np.inf)
        _intervals(fig, differences, names, left, top, labels[1], factor, every, free, {}, (0, ""), False)
    table = [(name, r.mean, r.low, r.high) for some in (rows, differences) for name, r in some.items()]
    table += [(name, value, None, None) for name, values in dots.items() for value in values]
    if reference:
        table.append((reference[1], reference[0], None, None))
    fig.data = ("name", "mean", "low", "high"), table
    return fig


def _intervals(fig, rows, names, left, top, label, factor, every, bounds, dots, reference, cut):
    """One axis of `intervals`: its rows from `top` down, times `factor`, their numbers above their dots.

    They have as many digits as show the half-width of the narrowest of `every` interval that has a width, at least one,
    at most five.
    """
    width, y = WIDTH - left - 70, np.arange(len(rows))
    ax = axes(fig, left, top, width, ROW * len(rows))
    mean, low, high = factor * np.array([(r.mean, *np.clip((r.low, r.high), *bounds)) for r in rows.values()]).T
    spread = np.nan_to_num([mean - low, high - mean])  # without bounds: the mean alone
    ax.errorbar(mean, y, xerr=spread, fmt="o", color=RIGHT, ms=7, lw=2.2, capsize=5, clip_on=False)
    ax.set(yticks=[], ylim=(len(rows) - 0.5, -0.5), xlabel=label)
    ends = [*low, *high, *mean, *(factor * v for some in dots.values() for v in some)]
    ends += [factor * reference[0]] if reference else [] if cut else [0]
    first, last = np.nanmin(ends), np.nanmax(ends)
    room = 0.12 * (last - first) or 0.1 * factor
    begin, end = max(first - room, min(factor * bounds[0], first)), min(last + room, max(factor * bounds[1], last))
    ax.set_xlim(begin := begin if cut or first < 0 else 0, end)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color="#e6e9ed", lw=0.8)
    rounding = 1e-9  # of equal values, whose interval has no width
    wide = [r for r in every if r.high - r.low > rounding * max(abs(r.low), abs(r.high))]
    narrowest = min((factor * (r.high - r.low) / 2 for r in wide), default=0.1)
    digits = int(np.clip(np.ceil(-np.log10(narrowest)), 1, 5))
    for i, (name, *numbers) in enumerate(zip(rows, mean, low, high)):
        middle, *ends = (f"{v:.{digits}f}".replace("-", "\N{MINUS SIGN}") for v in numbers)
        said = (
            f"{middle} ({ends[0]} to {ends[1]})" if np.isfinite(numbers).all() else middle.replace("nan", "undefined")
        )
        half = 6.8 * len(said)
        x = left + width * (np.nan_to_num(numbers[0], nan=begin) - begin) / (end - begin)
        x = np.clip(x, left + half, WIDTH - 8 - half)
        number = fig.write(x, top + ROW * (i + 0.5) - 11, said, size=11, ha="center", va="bottom")
        number.set_path_effects([withStroke(linewidth=4, foreground="white")])
        fig.write(left - 16, top + ROW * (i + 0.5), names[name], size=11, ha="right", va="center")
        values = factor * np.asarray(dots.get(name, ()))
        ax.plot(values, np.full(len(values), i + 0.28), "o", color=SOFT, ms=4, mew=0, alpha=0.6, clip_on=False)
    if reference:
        ax.axvline(factor * reference[0], color=SOFT, ls="--", lw=1.4, zorder=1)
    return ax


def _alone(values):
    """A mark where a line of one point would not be seen."""
    return "o" if len(values) == 1 else None
