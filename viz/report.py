"""One self-contained HTML page: every figure inlined with its caption, the numbers in tables, how it was made.

It loads nothing: no script, style, font or picture from elsewhere. Works without JavaScript; with it, a figure
opens large.
"""

import base64
import io
import platform
import re
from importlib import metadata
from pathlib import Path

import jinja2
from PIL import Image

from tinycnn import files

LARGEST_PNG = 600_000  # bytes
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
        ``command``, ``seed``, ``backend``, ``date``, ``seconds``, ``machine``.

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
    }
    return env.get_template("report.html").render(sections=sections, run=run, versions=versions())


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


def _figure(picture, folder):
    """The picture as a data URI, with its size, so that the page does not jump while it loads.

    Drawings stay PNG; what is larger than `LARGEST_PNG` is made of photographs, and goes in as JPEG.
    """
    raw, kind = (Path(folder) / picture.file).read_bytes(), "png"
    image = Image.open(io.BytesIO(raw))
    width, height = image.size
    if len(raw) > LARGEST_PNG:
        buffer, kind = io.BytesIO(), "jpeg"
        image.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
        raw = buffer.getvalue()
    uri = f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"
    return {"uri": uri, "width": width, "height": height}
