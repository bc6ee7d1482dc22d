"""What all figures share: colours, the page with its header, axes, and the bytes they are written as.

A page is measured in pixels from its top left corner, as images are. Users' text is drawn as it stands: a ``$`` is a
dollar, never the start of a formula; letters that the usual font lacks come from one of the system's that has them; a
control character is drawn as U+FFFD, and what is too long for its place ends with an ellipsis. Figures are made
without pyplot: no global state, no display; the same arrays give the same bytes, in every format.
"""

import csv
import io
import re
import textwrap
import unicodedata
import warnings
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib import figure, font_manager
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from tinycnn import files
from tinycnn.errors import InputError

WIDTH, DPI = 1000, 150  # pixels; a phone shows this width at about 0.36, where 11 points are still read
INK, SOFT, RIGHT, WRONG = "#1b1f24", "#57606a", "#0072b2", "#d55e00"
# Any two differ by 22 or more in CIE Lab, to people who see red and green and to those who do not (as Machado et al.
# 2009 simulate protanopia and deuteranopia).
CLASS_COLORS = (
    "#333333",
    "#88ccee",
    "#007733",
    "#eeaa77",
    "#cc6688",
    "#aa33aa",
    "#5599ff",
    "#999922",
    "#7722dd",
    "#331144",
)
CLASS_MARKERS = "osD^vPXhd*"
MARGIN = 24
FAMILIES = {}  # {letter that the usual font lacks: the family of a font of this system that has it, or None}

# What a file says about its making, by ending: without date and version the same figure is the same bytes.
METADATA = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
# Text stays text, which can be searched and edited: SVG names its font, PDF embeds the letters used, as TrueType.
EXPORT = {"svg.fonttype": "none", "svg.hashsalt": "tinycnn", "pdf.fonttype": 42}


class Figure(figure.Figure):
    """A page of `width` x `height` pixels that carries its data and shows itself in a notebook.

    Attributes
    ----------
    data : (columns, rows) or None
        What was drawn, as a table: names, and tuples of numbers and strings; None (a number that is not there) is an
        empty cell.
    tiles : list of (left, top, width, height)
        Where the tiles of a `sheet` stand, as shares of the page's width and height from the top left.
    """

    data = None
    tiles = ()

    def __init__(self, width, height):
        super().__init__(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.pixels = width, height

    def box(self, x, y, w, h):
        """Return a box in pixels as matplotlib's (left, bottom, width, height), shares of the page."""
        width, height = self.pixels
        return x / width, 1 - (y + h) / height, w / width, h / height

    def write(self, x, y, s, size=11, color=INK, ha="left", va="top", weight="normal", rotation=0):
        """Write `s` at pixel (x, y), turned by `rotation` degrees; return the text."""
        width, height = self.pixels
        style = {"size": size, "color": color, "ha": ha, "va": va, "weight": weight, "linespacing": 1.05}
        style["rotation"] = rotation
        return self.text(x / width, 1 - y / height, s, **style)

    def draw(self, renderer):
        """Draw, as matplotlib does, with all text (ticks and legends, too) as it stands: no mathematics in it."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
            text.set_text(_seen(text.get_text()))
            if others := families(text.get_text()):
                text.set_fontfamily([*matplotlib.rcParams["font.family"], *others])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `families` has said so
            super().draw(renderer)

    def _repr_png_(self):
        return to_png(self)


def page(title, note, below=0, height=None, width=WIDTH):
    """Begin a figure: a title in bold, a note under it, and `below` pixels under that, or `height` in all.

    Returns
    -------
    fig : Figure
    y : float
        Where the header ends, in pixels from the top.
    """
    k = width / WIDTH  # pages wider than usual get larger letters, so that both read alike
    titles, notes, y = in_lines(title, 48), in_lines(note, 74), 18
    fig = Figure(width, height or round(y + 36 * k * len(titles) + 28 * k * len(notes) + below))
    return fig, header(fig, MARGIN, y, titles, notes, k)


def in_lines(text, most, count=4, **how):
    """Return `text` in lines of `most` letters, at most `count` of them; what is left out is an ellipsis."""
    most = max(2, most * len(text) // max(1, text_columns(text)))
    return textwrap.wrap(text, most, max_lines=count, placeholder="\N{HORIZONTAL ELLIPSIS}", **how)


def text_columns(text):
    """Return the room that `text` takes, in letters: those of East Asia and pictures take two."""
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(c) in "FW") for c in text)


def short(text, most):
    """Return `text` in the room of `most` letters."""
    if text_columns(text) <= most:
        return text
    most = most * len(text) // text_columns(text)
    return f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def wrapped(text, most, count=4, longest=None):
    """Return `text` in lines as `in_lines` does; its own stay apart; a word is cut at `longest` (`most`) letters."""
    parts = [line for part in text.split("\n")[:4] for line in in_lines(part, most, count, break_long_words=False)]
    return "\n".join(short(line, longest or most) for line in parts)


def _seen(text):
    """`text` with its control characters as U+FFFD, and without signs that only say how others are to be drawn."""
    kinds = {c: unicodedata.category(c) for c in set(text) - {"\n"}}
    shown = {c: "" if k == "Cf" else "\N{REPLACEMENT CHARACTER}" for c, k in kinds.items() if k[0] == "C"}
    return text.translate(str.maketrans(shown)) if shown else text


def families(text):
    """Return the font families of this system, by name, that have the letters of `text` which the usual font lacks.

    Where none has them, a warning says so once; they are drawn as boxes.
    """
    if text.isascii():
        return []
    lacking = sorted({c for c in text if c != "\n" and ord(c) not in _usual()})
    new = [c for c in lacking if c not in FAMILIES]
    if new:
        FAMILIES.update(dict.fromkeys(new))
        for name, has in _fonts(new):
            FAMILIES.update({c: name for c in has if FAMILIES[c] is None})
        if nowhere := "".join(c for c in new if FAMILIES[c] is None):
            text = f"no font of this system has the letters {short(nowhere, 60)}: they are drawn as boxes; install one"
            warnings.warn(f"{text}, such as Noto Sans CJK", stacklevel=2)
    return sorted({name for c in lacking if (name := FAMILIES[c])})


@cache
def _usual():
    """The code points that the usual font has."""
    return frozenset(FT2Font(font_manager.findfont("DejaVu Sans")).get_charmap())


def _fonts(letters):
    """The system's fonts as (family, those of the letters that it has), of which it has most first."""
    found = []
    for entry in font_manager.fontManager.ttflist:
        # Left out: pictures in colour, which are not drawn, boxes for every letter, and files that are there no more.
        if not re.search("emoji|last ?resort", entry.name.lower()) and Path(entry.fname).exists():
            there = FT2Font(entry.fname).get_charmap()
            found.append((entry.name, [c for c in letters if ord(c) in there]))
    return sorted(found, key=lambda one: (-len(one[1]), one[0]))


def header(fig, x, y, titles, notes, k):
    """Write the lines of a title and of a note from (x, y) down, `k` times the usual size; return where they end."""
    for line in titles:
        fig.write(x, y, line, size=15 * k, weight="bold")
        y += 36 * k
    for line in notes:
        fig.write(x, y + 2, line, size=11 * k, color=SOFT)
        y += 28 * k
    return y


def axes(fig, x, y, w, h):
    """Add axes in a box given in pixels: pale lines, no frame, no ticks."""
    ax = fig.add_axes(fig.box(x, y, w, h))
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#c3cad2")
    ax.tick_params(labelsize=11, colors=SOFT, length=0)
    ax.xaxis.label.set(size=12, color=INK)
    ax.yaxis.label.set(size=12, color=INK)
    ax.grid(axis="y", color="#e6e9ed", lw=0.8)
    ax.set_axisbelow(True)
    return ax


def colorbar(fig, scale, x, y, w, k=1):
    """Add the bar of a scale (colour map, low, high, label), `w` pixels wide, letters `k` times the usual size."""
    cmap, low, high, label = scale
    ax = fig.add_axes(fig.box(x, y, w, 14 * k))
    bar = fig.colorbar(ScalarMappable(Normalize(low, high), cmap), cax=ax, orientation="horizontal")
    bar.set_label(short(label, 60), size=11 * k, color=SOFT, labelpad=1)
    bar.outline.set_visible(False)
    ax.tick_params(labelsize=10 * k, colors=SOFT, length=0, pad=3)


def to_png(fig):
    """Return the figure as PNG bytes, the same for the same figure: no date, no software version inside."""
    return _render(fig, ".png")


def save(fig, path):
    """Write the figure to `path`, as PNG, SVG or PDF by its ending, and its data beside it, as CSV; .csv: these alone.

    The text of an SVG is text, in DejaVu Sans where the reader has it; a PDF carries its letters (Type 42). The same
    figure is the same bytes at every run. The table (`path` with the ending .csv; UTF-8, RFC 4180) has the numbers in
    full precision; a figure without data (a poster) has none. Each file appears whole or not at all.

    Raises
    ------
    InputError
        Another ending; .csv for a figure without data.
    OSError
        A file cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (*METADATA, ".csv"):
        raise InputError(f"{path}: a figure is saved as .png, .svg or .pdf (.csv: its data), by the ending of its name")
    if ending == ".csv" and getattr(fig, "data", None) is None:
        raise InputError(f"{path}: this figure has no data to write as .csv; save it as .png, .svg or .pdf")
    if ending != ".csv":
        files.write_bytes(path, _render(fig, ending))
    if getattr(fig, "data", None) is not None:
        columns, rows = fig.data
        table = io.StringIO()
        csv.writer(table).writerows([columns, *rows])
        files.write_text(path.with_suffix(".csv"), table.getvalue())


def _render(fig, ending):
    buffer = io.BytesIO()
    with matplotlib.rc_context(EXPORT):
        fig.savefig(buffer, format=ending[1:], dpi=DPI, metadata=METADATA[ending])
    return buffer.getvalue()
