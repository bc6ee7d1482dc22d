"""One self-contained HTML page: every figure inlined with its caption, the numbers in tables, how it was made.

It loads nothing: no script, style, font or picture from elsewhere. Without JavaScript everything is there to see; with
it, a figure opens large, figures of one group lie under tabs, a scatter shows the image under the pointer, and methods
can be laid over one another.
"""

import base64
import io
import json
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from tinycnn import files

from . import results
from .text import FILTERS, counted

LARGEST_PNG = 250_000  # bytes; a page of three sets of colour photographs must stay under 25 MB
STRIP, NARROWEST = 1.6, 0.36  # width over height from which a figure has a row; the least share of a row for a figure
CONTROLS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # signs that no page may hold, but for tabs and line ends
JUDGED = "confidence_of_"  # what a judge's confidence is called among the facts
VERDICTS = {"does not hold": "\N{MULTIPLICATION X}", "cannot be told": "?", "holds, untrained": "\N{ALMOST EQUAL TO}"}
VERDICTS |= {"holds": "\N{CHECK MARK}"}
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chapter:
    """A stage in the report.

    Attributes
    ----------
    name, heading : str
    about : str
        What it shows, in a sentence.
    folder : Path
    result : viz.report.results.Result
    words : dict
        {picture: `Words`}.
    papers : tuple of (text, address)
        Where its methods come from; the address of one that is not on the web is empty.
    over : "network" or "networks"
        What its intervals are over: images of one network, or networks.
    fault : str
        What is wrong with its words; empty where nothing is.
    open : bool
        Whether its tables of numbers lie open.
    """

    name: str
    heading: str
    about: str
    folder: Path
    result: Any
    words: dict
    papers: tuple = ()
    over: str = "network"
    fault: str = ""
    open: bool = False


@dataclass(frozen=True)
class Section:
    """A data set in the report.

    Attributes
    ----------
    name : str
        Of its folder, and in addresses.
    info : tinycnn.data.DatasetInfo
    run, metrics : dict
        What its numbers came from, and its numbers.
    chapters : tuple of Chapter
    reported : (accuracy, steps, remark) or None
        What the study reports for this set.
    seeds : list of int
        Of the networks, where the section is of several.
    over : dict
        Their numbers in the shape of `metrics`, each as an interval over networks.
    claims : list of dict
        What became of the study's claims here: each with "id", "claim", "measured", "number", "control", "verdict", and
        "stage", the name of the chapter that shows it.
    explorer : str
        The address of the network's own page; empty where there is none.
    """

    name: str
    info: Any
    run: dict
    metrics: dict
    chapters: tuple
    reported: tuple | None = None
    seeds: tuple = ()
    over: dict | None = None
    claims: tuple = ()
    explorer: str = ""

    @property
    def title(self):
        """The data set's name, with the number of networks where they are several."""
        return self.info.title + (", " + counted(len(self.seeds), "network") if self.seeds else "")

    @property
    def numbers(self):
        """Its numbers: of one network, or over all."""
        return self.over or self.metrics


def render(sections):
    """Return the page of `Section`s as text.

    Raises
    ------
    OSError
        A figure cannot be read.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= FILTERS | {f.__name__: f for f in (table, rows, summary, mark, dots)}
    return env.get_template("report.html").render(sections=sections)


def write(path, sections):
    """Write the page to `path`, atomically; see `render`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    files.write_text(path, files.readable(re.sub(CONTROLS, "\N{REPLACEMENT CHARACTER}", render(sections))))


def summary(section):
    """Return what the stages of a data set found, for the summary's columns; None where one was not run.

    Returns
    -------
    dict
        "pixels", "features": the share of the 7 nearest images that have a test image's class; "plane": the accuracy
        of the 10 nearest in the t-SNE plane. Of the images that our preset makes, in the mean over the classes:
        "log_odds", those of the networks that judge; "photographs", the same of photographs; "judges", the confidence
        of each judge; "recognised", in how many classes all of them name it.
    """
    found = section.numbers["stages"]
    shares = found.get("neighbors", {}).get("share_of_the_7_nearest", {})
    ascent = found.get("maximization", {})
    ours = ascent.get("ways", {}).get("ours", {})
    return {
        **{space: shares.get(space, {}).get("test") for space in ("pixels", "features")},
        "plane": found.get("tsne", {}).get("all classes", {}).get("accuracy_of_10_nearest"),
        "log_odds": ours.get("log_odds"),
        "photographs": ascent.get("photographs", {}).get("log_odds") if "log_odds" in ours else None,
        "judges": {k.removeprefix(JUDGED): v for k, v in ours.items() if k.startswith(JUDGED)},
        "recognised": ours.get("recognised"),
    }


def mark(verdict):
    """Return the sign of a verdict on a claim, which is also said in words; empty for other words."""
    return next((sign for words, sign in VERDICTS.items() if verdict.lower().startswith(words)), "")


def dots(interval):
    """Return a drawing, as SVG, of an interval with the `values` it is the mean of, on a scale of its own."""
    values = [v for v in interval["values"].values() if v is not None]
    ends = values + [interval[k] for k in ("low", "high") if interval[k] is not None]
    if not values:
        return ""
    low, width = min(ends), max(ends) - min(ends) or 1.0
    x = {k: 4 + 112 * (v - low) / width for k, v in interval.items() if k in ("mean", "low", "high") and v is not None}
    marks = [f'<circle cx="{4 + 112 * (v - low) / width:.1f}" cy="8" r="2.5"/>' for v in values]
    line = f'<path d="M{x["low"]:.1f} 8H{x["high"]:.1f}"/>' if len(x) == 3 else ""
    mean = f'<path d="M{x["mean"]:.1f} 2V14"/>'
    return Markup(f'<svg class="dots" width="120" height="16" aria-hidden="true">{line}{mean}{"".join(marks)}</svg>')


def groups(pictures):
    """Put consecutive pictures of one group together: [(group, [picture, ...]), ...]; others stand alone."""
    return [(group, list(some)) for (group, _), some in groupby(pictures, lambda p: (p.group, p.group or p.name))]


def rows(chapter):
    """Put a chapter's figures into rows: each one cell, whose words stand beside it, or two of about one height.

    Returns
    -------
    list of list of (group, ratio, [(picture, drawing), ...])
        `ratio`: the width of a cell's (first) figure over its height; two cells whose widths are as their ratios have
        one height. What is far wider or higher than its neighbour, or has methods to compare, has a row of its own.
        A group (figures under tabs) of two that would have one lies open, side by side.
    """
    cells = [
        (group, [(picture, figure(picture, chapter.folder)) for picture in some])
        for group, some in groups(chapter.result.pictures)
    ]
    cells = [(group, some[0][1]["width"] / some[0][1]["height"], some) for group, some in cells]
    found = []
    for cell in cells:
        if found and len(found[-1]) == 1 and _fit(found[-1][0], cell):
            found[-1].append(cell)
        else:
            found.append([cell])
    return [_opened(row) for row in found]


def _opened(row):
    """A row of one group of two figures as the row of the two, if they fit."""
    pair = [("", drawing["width"] / drawing["height"], [(p, drawing)]) for p, drawing in row[0][2]]
    return pair if len(row) == 1 and len(pair) == 2 and _fit(*pair) else row


def _fit(*cells):
    """Whether two cells share a row: none is a strip, none has a comparison, and the narrower one is not too narrow."""
    ratios = sorted(ratio for _, ratio, _ in cells)
    alone = any("comparison" in drawing for *_, some in cells for _, drawing in some)
    return not alone and ratios[1] < STRIP and ratios[0] / sum(ratios) >= NARROWEST


def table(facts, title=""):
    """Turn a stage's nested facts into tables: [(title, column heads, [(row head, cells)])].

    Plain values make one table of two columns; dicts of values that have keys in common one with a row for each and a
    column per inner key; every other dict has tables of its own, and so has a list of dicts, by their numbers. An
    interval is a value.
    """
    facts = {k: _numbered(v) for k, v in facts.items() if k != results.NOTHING}
    plain = [(k, [v]) for k, v in facts.items() if not _nested(v)]
    nested = {k: v for k, v in facts.items() if _nested(v)}
    rows = {k: v for k, v in nested.items() if not any(map(_nested, v.values()))}
    tables = [(title, ["value"], plain)] if plain else []
    if len(rows) > 1 and set.intersection(*map(set, rows.values())):
        heads = list(dict.fromkeys(k for row in rows.values() for k in row))
        tables.append((title, heads, [(name, [row.get(k, "") for k in heads]) for name, row in rows.items()]))
        nested = {k: v for k, v in nested.items() if k not in rows}
    for name, inner in nested.items():
        tables += table(inner, f"{title}, {name}" if title else name)
    return tables


def _numbered(value):
    """A list of dicts as a dict: {"1": the first, ...}."""
    several = isinstance(value, (list, tuple)) and any(map(_nested, value))
    return {str(i): one for i, one in enumerate(value, 1)} if several else value


def _nested(value):
    return isinstance(value, dict) and not {"mean", "low", "high"} <= set(value)


def figure(picture, folder):
    """The picture as a data URI, with its size, so that the page does not jump while it loads, and its data.

    Drawings stay PNG; what is larger than `LARGEST_PNG` is made of photographs, and goes in as WebP.
    """
    raw, kind = (Path(folder) / picture.file).read_bytes(), "png"
    image = Image.open(io.BytesIO(raw))
    width, height = image.size
    if len(raw) > LARGEST_PNG:
        buffer, kind = io.BytesIO(), "webp"
        image.convert("RGB").save(buffer, "WEBP", quality=75)
        raw = buffer.getvalue()
    uri = f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
    more = json.loads((Path(folder) / picture.data).read_text()) if picture.data else {}
    return {"uri": uri, "width": width, "height": height, **more}
