"""What a stage leaves behind: pictures with words, numbers, and a fingerprint of all they were made from.

``OUT/<dataset>/<stage>/*.png``, beside some of them a ``*.data.json`` (the images that the report shows on demand),
and, written last, ``result.json``. A later run with ``--resume`` takes a stage from there if its fingerprint (weights,
images, seed, code of `viz`) is the same and every file is whole.
"""

import base64
import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinycnn import InputError, files, train

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
class Picture:
    """One figure of a stage, with the words that belong to it.

    Attributes
    ----------
    name : str
        Of the file, without ``.png``.
    title : str
    caption : str
        What is shown, how it was made (method, layer, unit, seed), how to read it.
    alt : str
        What a person who cannot see the figure should know of it.
    figure : matplotlib.figure.Figure
    group, tab : str
        Pictures of one group that follow one another share one place in the report, each under its tab.
    points : Points, optional
        For a scatter.
    comparison : Comparison, optional
        For a figure that shows the same images by several methods.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Any
    group: str = ""
    tab: str = ""
    points: Points | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Kept:
    """One figure of a stage on disk: the words of a `Picture`, its files and their SHA-256.

    `data`, where it is not empty, names a JSON file with ``points`` or ``comparison``: see their ``to_dict``.
    """

    name: str
    title: str
    caption: str
    alt: str
    group: str
    tab: str
    file: str
    sha256: str
    data: str = ""
    data_sha256: str = ""


@dataclass(frozen=True)
class Result:
    """A stage that was done: its pictures on disk, its numbers, the time it took and what it depended on."""

    pictures: tuple
    metrics: dict
    seconds: float
    fingerprint: str


def fingerprint(net, arrays, facts):
    """Return a SHA-256 (hex) of the weights, of `arrays`, of `facts` (repr) and of the sources of `viz`."""
    digest = hashlib.sha256(repr(facts).encode())
    for layer, params in sorted(net.params.items()):
        for name, a in sorted(params.items()):
            digest.update(f"{layer}.{name}{a.shape}{a.dtype}".encode())
            digest.update(np.ascontiguousarray(net.ops.to_numpy(a)))
    for a in arrays:
        digest.update(f"{a.shape}{a.dtype}".encode())
        for i in range(0, len(a), 1000):
            digest.update(np.ascontiguousarray(a[i : i + 1000]))
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def histories(folder, kind, history):
    """Keep the history of recipe `kind` in `folder`; return those of all recipes that were trained there, by name.

    Raises
    ------
    OSError
        A file cannot be written or read.
    """
    files.write_text(Path(folder) / f"history-{kind}.json", dumps(history.to_dict()))
    found = {}
    for path in sorted(Path(folder).glob("history-*.json")):
        try:
            found[path.stem.removeprefix("history-")] = train.History(**json.loads(path.read_text()))
        except (ValueError, TypeError) as e:
            raise InputError(f"{path}: not a history of training ({e}); remove it") from e
    return found


def timing(folder, recipe):
    """Return the seconds of each part, {name: seconds}, of the last run in `folder`; {} if it had another recipe."""
    try:
        found = json.loads((Path(folder) / "timing.json").read_text())
        return found["seconds"] if found["recipe"] == recipe else {}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as e:
        raise InputError(f"{folder}/timing.json: not the times of a run ({e!r}); remove it") from e


def keep(folder, pictures, metrics, began, key):
    """Draw and write the pictures and, last, ``result.json``; return the `Result`.

    The stage has taken the time since `began`, by `time.perf_counter`.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    from viz import figures  # matplotlib takes a second to import

    folder, kept = Path(folder), []
    for p in pictures:
        png = figures.to_png(p.figure)
        files.write_bytes(folder / f"{p.name}.png", png)
        words = (p.name, p.title, p.caption, p.alt, p.group, p.tab, f"{p.name}.png", hashlib.sha256(png).hexdigest())
        data = {k: v.to_dict() for k in ("points", "comparison") if (v := getattr(p, k)) is not None}
        if data:
            raw = json.dumps(data, sort_keys=True, allow_nan=False).encode()
            files.write_bytes(folder / f"{p.name}.data.json", raw)
            words += (f"{p.name}.data.json", hashlib.sha256(raw).hexdigest())
        kept.append(Kept(*words))
    result = Result(tuple(kept), json.loads(dumps(metrics)), time.perf_counter() - began, key)
    files.write_text(folder / "result.json", dumps(asdict(result)))
    for old in [*folder.glob("*.png"), *folder.glob("*.data.json")]:
        if old.name not in {name for k in kept for name in (k.file, k.data)}:
            old.unlink()
    return result


def find(folder, key):
    """Return the `Result` in `folder` if it is whole and has the fingerprint `key`; else None."""
    folder = Path(folder)
    try:
        found = json.loads((folder / "result.json").read_text())
        pictures = tuple(Kept(**p) for p in found.pop("pictures"))
        result = Result(pictures, **found)
        made = [(p.file, p.sha256) for p in pictures] + [(p.data, p.data_sha256) for p in pictures if p.data]
        whole = all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256 for name, sha256 in made)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # missing or damaged: the stage is done again
    return result if whole and result.fingerprint == key else None


def dumps(value):
    """Return JSON that is the same text for the same numbers: keys sorted, floats by repr, NaN refused."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=_plain) + "\n"


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
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"no JSON for {type(value)}")
