"""What a stage of a study leaves behind: pictures, the facts it found, and fingerprints of all they were made from.

A folder of ``*.png``, beside some of them a ``*.data.json`` (the images that the report shows on demand), and, written
last, ``result.json``. Who finds the stage done later compares the fingerprints and takes it from there.
"""

import base64
import contextlib
import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from tinycnn import InputError, files

LARGEST_RECORD = 2**26  # bytes of a record that is read: a hundred times those of the longest training
NOTHING = "not_shown"  # the fact by which a stage says why it has no picture
COSTS = "costs"  # among the facts: what things took, {name: {unit: number}}, which is another each time
LARGEST_THUMBNAIL = 48  # pixels, of the images behind a scatter


@dataclass(frozen=True)
class Points:
    """The images behind the marks of a scatter: the report shows the one under the pointer.

    Attributes
    ----------
    places : array (N, 2)
        Where the marks stand in the figure, as shares of its width and height from the top left: `figures.places`.
    labels : N strings
        What is said of each image: its class.
    images : uint8 array (N, h, w, 3)
    """

    places: Any
    labels: Any
    images: Any

    def to_dict(self):
        """Return what the report needs, ready for JSON; images are shrunk to `LARGEST_THUMBNAIL`."""
        names = sorted(set(self.labels))
        k = max(1, -(-max(self.images.shape[1:3]) // LARGEST_THUMBNAIL))
        size = (self.images.shape[2] // k, self.images.shape[1] // k)
        images = np.stack([Image.fromarray(x).resize(size, Image.Resampling.BOX) for x in self.images])
        return {
            "names": names,
            "classes": [names.index(label) for label in self.labels],
            "places": np.round(self.places, 4).tolist(),
            "sprite": _sprite(images, int(np.ceil(np.sqrt(len(images)))), quality=75),
        }


@dataclass(frozen=True)
class Comparison:
    """What several methods make of the same images: the report lays any two over one another, with a border to drag.

    A figure of tiles, image by image, becomes one with two lines::

        columns = {"image": figures.photo(images), "switches": figures.signed(a), "repeat": figures.signed(b)}
        Picture(..., figure, comparison=Comparison([s.name(label) for label in labels], columns))

    Attributes
    ----------
    labels : N strings
        What is said of each image.
    methods : {name: uint8 array (N, h, w, 3)}
        Two at least, all of one shape. The first one stands for the image where it is chosen.
    """

    labels: Any
    methods: Any

    def to_dict(self):
        """Return what the report needs, ready for JSON."""
        return {
            "labels": list(self.labels),
            "methods": list(self.methods),
            "sprite": _sprite(np.concatenate(list(self.methods.values())), len(self.labels), lossless=True),
        }


@dataclass(frozen=True)
class Links:
    """Tiles of a figure that open the network's own page (`viz.explorer`), each at what it shows.

    Attributes
    ----------
    tiles : N of (left, top, width, height)
        As shares of the figure's width and height from the top left: the `tiles` of a `figures.sheet`.
    views : N dicts
        What the page is to show: "layer" and "unit", and if asked for "test" (a test image, by its index), "rule",
        "unpool" and "trained" (0 or 1). None for a tile that leads nowhere.
    """

    tiles: Any
    views: Any

    def to_dict(self):
        """Return what the report needs, ready for JSON: places in per cent, names, and views as addresses hold them."""
        some = [(place, view) for place, view in zip(self.tiles, self.views, strict=True) if view]
        return {
            "places": [np.round(100 * np.array(place), 3).tolist() for place, _ in some],
            "labels": [f"{view['layer']}, {view['unit']}" for _, view in some],
            "views": [urlencode(view) for _, view in some],
        }


@dataclass(frozen=True)
class Picture:
    """One figure of a stage. What is said of it stands in the stage's template, not here.

    Attributes
    ----------
    name : str
        Of the file, without ``.png``; what a user named goes through `tinycnn.files.indexed` first.
    title : str
        As it is drawn in the figure.
    figure : matplotlib.figure.Figure
    words : str
        The part of the template that speaks of it; default: its name.
    facts : dict, optional
        What that part says of this picture alone, besides the stage's facts.
    group, tab : str
        Pictures of one group that follow one another share one place in the report, each under its tab.
    points : Points, optional
        For a scatter.
    comparison : Comparison, optional
        For a figure that shows the same images by several methods.
    links : Links, optional
        For a sheet whose tiles open the network's own page.
    """

    name: str
    title: str
    figure: Any
    words: str = ""
    facts: dict = field(default_factory=dict)
    group: str = ""
    tab: str = ""
    points: Points | None = None
    comparison: Comparison | None = None
    links: Links | None = None


@dataclass(frozen=True)
class Words:
    """What is said of a picture.

    Attributes
    ----------
    caption : str
        What is shown and what to read from it, in two sentences.
    details : str
        How it was made and measured; may be empty.
    alt : str
        What a person who cannot see the figure should know of it.
    """

    caption: str
    details: str
    alt: str


@dataclass(frozen=True)
class Kept:
    """A `Picture` on disk: its files and their SHA-256.

    `data`, where it is not empty, names a JSON file with ``points``, ``comparison``, ``links``: see their ``to_dict``.
    """

    name: str
    title: str
    words: str
    facts: dict
    group: str
    tab: str
    file: str
    sha256: str
    data: str = ""
    data_sha256: str = ""


@dataclass(frozen=True)
class Result:
    """A stage that was done.

    Attributes
    ----------
    pictures : tuple of Kept
    facts : dict
        What it found: numbers and names, ready for JSON.
    seconds : float
    made_from, code : str
        Fingerprints of what it was made from (weights, images, settings) and of the code that made it.
    costs : dict
        What it said under `COSTS`: in run.json, and in no metrics.
    """

    pictures: tuple[Kept, ...]
    facts: dict
    seconds: float
    made_from: str
    code: str
    costs: dict = field(default_factory=dict)

    @property
    def said(self):
        """What came out, in two words."""
        return (
            "nothing to show"
            if NOTHING in self.facts
            else f"{len(self.pictures)} figure{'s' if len(self.pictures) != 1 else ''}"
        )


def keep(folder, pictures, facts, began, made_from, code, export=()):
    """Draw and write the pictures and, last, ``result.json``; return the `Result`.

    The stage has taken the time since `began`, by `time.perf_counter`. `export` names what is written beside each PNG:
    "svg" or "pdf", with the figure's numbers as CSV, or "csv", these alone (a figure without any has none).

    Raises
    ------
    InputError
        Another format.
    OSError
        A file cannot be written.
    """
    from viz import figures  # matplotlib takes a second to import

    folder, kept = Path(folder), []
    for p in pictures:
        png = figures.to_png(p.figure)
        files.write_bytes(folder / f"{p.name}.png", png)
        for ending in export:
            if ending != "csv" or p.figure.data is not None:
                figures.save(p.figure, folder / f"{p.name}.{ending}")
        one = Kept(p.name, p.title, p.words or p.name, plain(p.facts), p.group, p.tab, f"{p.name}.png", sha256(png))
        data = {k: v.to_dict() for k in ("points", "comparison", "links") if (v := getattr(p, k)) is not None}
        if data:
            raw = json.dumps(data, sort_keys=True, allow_nan=False).encode()
            files.write_bytes(folder / f"{p.name}.data.json", raw)
            one = replace(one, data=f"{p.name}.data.json", data_sha256=sha256(raw))
        kept.append(one)
    facts, costs = {k: v for k, v in facts.items() if k != COSTS}, plain(facts.get(COSTS, {}))
    result = Result(tuple(kept), plain(facts), time.perf_counter() - began, made_from, code, costs)
    written = {name for k in kept for name in (k.file, k.data)}
    written |= {f"{k.name}.{ending}" for k in kept for ending in (*export, *(["csv"] if export else []))}
    for ending in ("png", "data.json", "svg", "pdf", "csv"):
        for old in folder.glob(f"*.{ending}"):
            if old.name not in written:
                old.unlink()
    write(folder / "result.json", result)
    return result


def find(folder):
    """Return the `Result` in `folder` if it is whole, else None."""
    folder = Path(folder)
    try:
        result = read(folder / "result.json", Result)
        pictures = result.pictures if result else ()
        made = [(p.file, p.sha256) for p in pictures] + [(p.data, p.data_sha256) for p in pictures if p.data]
        whole = all(sha256((folder / name).read_bytes()) == digest for name, digest in made)
    except (OSError, InputError):
        return None  # missing or damaged: the stage is done again
    return result if whole else None


def discard(folder):
    """Let the stage of `folder` count as not done; its pictures go with the next one that is."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (Path(folder) / "result.json").unlink()


def write(path, record):
    """Write a record (a dict or a dataclass) as JSON, atomically, and after all its entries a SHA-256 of them."""
    files.write_text(path, _sealed(dumps(record)))


def read(path, kind):
    """Return what `write` left in a file as a value of type `kind`, as msgspec takes types; None if there is no file.

    Raises
    ------
    InputError
        Not the text that was written, or a record of another kind.
    """
    try:
        with open(path, "rb") as f:
            text = f.read(LARGEST_RECORD).decode(errors="replace")
    except FileNotFoundError:
        return None
    if _sealed(text[: -len(_SEAL % "") - 64] + "\n}\n") != text:
        raise InputError(f"{path}: damaged, or of another version of this program; remove it")
    return files.parse(text, kind, path)


_SEAL = ',\n "sha256": "%s"\n}\n'


def _sealed(text):
    """JSON of an object with one more entry: the SHA-256 of the text without it."""
    return text.removesuffix("\n}\n") + _SEAL % sha256(text.encode())


def dumps(value):
    """Return JSON that is the same text for the same numbers: floats by repr, what is undefined (NaN) as null."""
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def plain(value):
    """Return `value` as JSON gives it back: arrays as lists, NumPy's numbers as Python's."""
    return json.loads(dumps(value))


def sha256(raw):
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(raw).hexdigest()


def _sprite(images, columns, **options):
    """All images (N, h, w, 3) in one WebP, row after row, each in a cell of whole blocks, so that none blurs into the
    next.
    """
    N, h, w = images.shape[:3]
    H, W = -(-h // 16) * 16, -(-w // 16) * 16
    cells = np.pad(images, ((0, -N % columns), (0, H - h), (0, W - w), (0, 0)), "edge")
    sheet = cells.reshape(-1, columns, H, W, 3).swapaxes(1, 2).reshape(-1, columns * W, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", **options)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "columns": columns, "cell": [W, H], "size": [w, h]}


def _plain(value):
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and value != value else value
