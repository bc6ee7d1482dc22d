"""One self-contained HTML page: every figure inlined with its caption, the numbers in tables, how it was made.

It loads nothing: no script, style, font or picture from elsewhere. Without JavaScript everything is there to see; with
it, a figure opens large, figures of one group lie under tabs, a scatter shows the image under the pointer, and methods
can be laid over one another.
"""

import base64
import io
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from tinycnn import files

from .text import FILTERS

LARGEST_PNG = 250_000  # bytes; a page of three sets of colour photographs must stay under 25 MB
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chapter:
    """A stage in the report: heading, what it shows in a sentence, folder, `Result`, and {picture: `Words`}."""

    name: str
    heading: str
    about: str
    folder: Path
    result: Any
    words: dict


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
    """

    name: str
    info: Any
    run: dict
    metrics: dict
    chapters: tuple
    reported: tuple | None = None
    seeds: tuple = ()
    over: dict | None = None


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
    env.filters |= FILTERS | {f.__name__: f for f in (table, figure, groups, summary, dots)}
    return env.get_template("report.html").render(sections=sections)


def write(path, sections):
    """Write the page to `path`, atomically; see `render`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    files.write_text(path, render(sections))


def summary(section):
    """Return what the stages of a data set found, in the order of the summary's columns; None where one was not run.

    The shares of the 7 nearest images that have the query's class, in pixels and in the last hidden layer's features;
    the accuracy of the 10 nearest in the t-SNE plane; how many classes both other networks recognise in the images that
    our preset makes.
    """
    found = (section.over or section.metrics)["stages"]
    shares = found.get("neighbors", {}).get("share_of_the_7_nearest", {})
    pixels, features = (shares.get(space, {}).get("test") for space in ("pixels", "features"))
    if not section.over:  # an interval over the images of one network is no interval of the study
        pixels, features = (share and share["mean"] for share in (pixels, features))
    plane = found.get("tsne", {}).get("all classes", {}).get("accuracy_of_10_nearest")
    return pixels, features, plane, found.get("maximization", {}).get("ways", {}).get("ours", {}).get("recognised")


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


def table(facts, title=""):
    """Turn a stage's nested facts into tables: [(title, column heads, [(row head, cells)])].

    Plain values make one table of two columns; dicts of values that have keys in common one with a row for each and a
    column per inner key; every other dict has tables of its own. An interval is a value.
    """
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
