"""What a stage leaves behind: pictures with words, numbers, and a fingerprint of all they were made from.

``OUT/<dataset>/<stage>/*.png`` and, written last, ``result.json``. A later run with ``--resume`` takes a stage from
there if its fingerprint (weights, images, seed, code of `viz`) is the same and every file is whole.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinycnn import InputError, files, train


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
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Any


@dataclass(frozen=True)
class Kept:
    """One figure of a stage on disk: the words of a `Picture`, its file and the file's SHA-256."""

    name: str
    title: str
    caption: str
    alt: str
    file: str
    sha256: str


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


def keep(folder, pictures, metrics, seconds, key):
    """Write the pictures and, last, ``result.json``; return the `Result`.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    from . import figures  # matplotlib takes a second to import

    folder, kept = Path(folder), []
    for p in pictures:
        png = figures.to_png(p.figure)
        files.write_bytes(folder / f"{p.name}.png", png)
        kept.append(Kept(p.name, p.title, p.caption, p.alt, f"{p.name}.png", hashlib.sha256(png).hexdigest()))
    result = Result(tuple(kept), json.loads(dumps(metrics)), seconds, key)
    files.write_text(folder / "result.json", dumps(asdict(result)))
    for old in folder.glob("*.png"):
        if old.name not in {p.file for p in kept}:
            old.unlink()
    return result


def find(folder, key):
    """Return the `Result` in `folder` if it is whole and has the fingerprint `key`; else None."""
    folder = Path(folder)
    try:
        found = json.loads((folder / "result.json").read_text())
        pictures = tuple(Kept(**p) for p in found.pop("pictures"))
        result = Result(pictures, **found)
        whole = all(hashlib.sha256((folder / p.file).read_bytes()).hexdigest() == p.sha256 for p in pictures)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # missing or damaged: the stage is done again
    return result if whole and result.fingerprint == key else None


def dumps(value):
    """Return JSON that is the same text for the same numbers: keys sorted, floats by repr, NaN refused."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=_plain) + "\n"


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"no JSON for {type(value)}")
