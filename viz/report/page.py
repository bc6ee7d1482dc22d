"""One self-contained HTML page: every figure inlined with its caption, the numbers in tables, how it was made.

It loads nothing: no script, style, font or picture from elsewhere. Without JavaScript everything is there to see; with
it, a figure opens large, figures of one group lie under tabs, a scatter shows the image under the pointer, and methods
can be laid over one another.
"""

import base64
import io
import json
import platform
import re
from importlib import metadata
from itertools import groupby
from pathlib import Path

import jinja2
from PIL import Image

from tinycnn import data, files
from viz.study.recipes import REPORTED

LARGEST_PNG = 250_000  # bytes; a page of three sets of colour photographs must stay under 25 MB
TEMPLATES = Path(__file__).parent / "templates"
HEADINGS = {
    "maximal_activation_maps": "Maximal activation maps (deconvnet)",
    "unpooling": "Ways to unpool",
    "layer_backprop": "Back-propagation from a layer",
    "tsne": "t-SNE",
    "neighbors": "Nearest neighbours",
    "maximization": "Activation maximization",
}
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "matplotlib", "safetensors", "threadpoolctl")


def versions():
    """Return the versions of Python and of the libraries that have a say in the results."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        found[package] = metadata.version(package)
    return found


def render(sections, run):
    """Return the page as text.

    Parameters
    ----------
    sections : list of dict
        One per data set: ``info`` (DatasetInfo), ``facts`` (dict), ``seconds`` (float), ``times`` (dict) and
        ``stages``, a list of dicts with ``name``, ``about``, ``folder`` (Path), ``result`` (results.Result).
    run : dict
        ``command``, ``seed``, ``backend``, ``date``, ``seconds``, ``machine``, ``timed`` (names, in order).

    Raises
    ------
    OSError
        A figure cannot be read.
    """
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "number": number,
        "words": words,
        "table": table,
        "duration": duration,
        "figure": _figure,
        "slug": slug,
        "percent": percent,
        "groups": groups,
        "summary": summary,
    }
    page = env.get_template("report.html")
    return page.render(sections=sections, run=run, versions=versions(), reported=_reported(sections))


def write(path, sections, run):
    """Write the page to `path`, atomically; see `render`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    files.write_text(path, render(sections, run))


def number(value):
    """Return a number as a person reads it: 4 significant digits, thousands apart; other values as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ", ".join(map(number, value)) if isinstance(value, (list, tuple)) else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(share):
    """Return a share as a person writes it; a dash for None."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"


def summary(section):
    """Return what the stages of a data set found, in the order of the summary's columns; None where one was not run.

    The shares of the 7 nearest images that have the query's class, in pixels and in the last hidden layer's features;
    the accuracy of the 10 nearest in the t-SNE plane; how many classes both other networks recognise in the images that
    our preset makes.
    """
    found = {stage["name"]: stage["result"].metrics for stage in section["stages"]}
    pixels = features = plane = recognised = None
    if "neighbors" in found:
        shares = dict(found["neighbors"]["share of the 7 nearest with the query's class"])
        pixels = shares.pop("pixels")["validation images as queries"]
        (features,) = (share["validation images as queries"] for share in shares.values())
    if "tsne" in found:
        plane = found["tsne"]["all classes"]["10 nearest in the plane, accuracy"]
    if "maximization" in found:
        recognised = found["maximization"]["ways"]["ours"]["recognised"]
    return pixels, features, plane, recognised


def groups(pictures):
    """Put consecutive pictures of one group together: [(group, [picture, ...]), ...]; others stand alone."""
    return [(group, list(some)) for (group, _), some in groupby(pictures, lambda p: (p.group, p.group or p.name))]


def words(name):
    """Return an identifier as words: ``activation_maps`` -> ``Activation maps``."""
    return HEADINGS.get(name) or name[:1].upper() + name[1:].replace("_", " ")


def duration(seconds):
    """Return seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def table(metrics):
    """Turn a stage's nested numbers into tables: [(title, column heads, [(row head, cells)])].

    Plain numbers make one table of two columns. A dict of dicts makes one with a row per key and a column per inner
    key; a dict of numbers, one with a row per key.
    """
    plain = [(k, [v]) for k, v in metrics.items() if not isinstance(v, dict)]
    tables = [("", ["value"], plain)] if plain else []
    nested = {k: v for k, v in metrics.items() if isinstance(v, dict)}
    flat = {k: v for k, v in nested.items() if not any(isinstance(x, dict) for x in v.values())}
    if len(flat) > 1 and all(list(v) == list(next(iter(flat.values()))) for v in flat.values()):
        tables.append(_matrix("", flat))
        nested = {k: v for k, v in nested.items() if k not in flat}
    for title, inner in nested.items():
        if any(isinstance(v, dict) for v in inner.values()):
            tables.append(_matrix(title, inner))
        else:
            tables.append((title, ["value"], [(k, [v]) for k, v in inner.items()]))
    return tables


def _matrix(title, rows):
    heads = list(dict.fromkeys(k for row in rows.values() for k in row))
    return title, heads, [(name, [row.get(k, "") for k in heads]) for name, row in rows.items()]


def slug(name):
    """Return a data set's name as an HTML id: a folder's name may hold anything."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def _reported(sections):
    """What the study reports for these data sets, by name: not for a folder that happens to have such a name."""
    infos = [section["info"] for section in sections]
    return {name: said for name, said in REPORTED.items() if data.info(name) in infos}


def _figure(picture, folder):
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
