"""The records of a run: reading them back, and what a run came from: version, commit, packages, machine, memory."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

import filelock

import tinycnn
from tinycnn import InputError, data, files, train
from viz.report import results

OPTIONAL = {"in_progress", "costs"}  # of the entries of run.json
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "matplotlib", "pillow", "safetensors", "threadpoolctl")


class Settings(TypedDict):
    """All that the weights depend on, but for the steps."""

    dataset: str
    recipe: str
    protocol: str
    model: str
    seed: int
    backend: str
    images: str


class Begun(TypedDict):
    """What is asked of a run that is not done; `anew` while what nobody goes on with is still to be removed."""

    settings: Settings
    steps: int
    anew: bool


class Fingerprints(TypedDict):
    """What a stage was made from, and by which code."""

    made_from: str
    code: str


class Record(TypedDict, total=False):
    """run.json: `in_progress` alone, the rest, or both, where one training follows another in a folder."""

    in_progress: Begun
    settings: Settings
    steps: int
    info: data.DatasetInfo
    built_in: bool
    weights: str
    network: str
    seconds: dict[str, float]
    fingerprints: dict[str, Fingerprints]
    costs: dict[str, dict[str, dict[str, float]]]
    metrics_sha256: str
    command: str
    date: str
    backend: str
    peak_memory_mb: int | None
    version: str
    commit: str | None
    packages: dict[str, str]
    machine: str


class _Metrics(TypedDict):
    dataset: str
    seed: int
    steps: int
    train_images: int
    validation_images: int
    test_images: int
    kept_step: int
    train_accuracy: dict[str, float | None]
    test_accuracy: dict[str, float | None]
    curve: dict[str, list]
    judges: dict[str, dict[str, Any]]
    stages: dict[str, dict[str, Any]]


class Metrics(_Metrics, total=False):
    """metrics.json; its SHA-256 stands in run.json."""

    validation_accuracy: dict[str, float | None]


@dataclass(frozen=True)
class Trained:
    """history-PART.json: a training, and how many of the test images its network classifies rightly."""

    settings: dict[str, Any]
    test_right: int
    history: train.History


def read_run(folder):
    """Return the `Record` of a study's folder; {} if there is none. One that is not whole is an InputError."""
    found = results.read(folder / "run.json", Record) or {}
    if set(found) - OPTIONAL not in (set(), set(Record.__annotations__) - OPTIONAL):
        raise InputError(f"{folder / 'run.json'}: of another version of this program; remove it")
    return found


def read_study(folder):
    """Return (`Record`, `Metrics`) of the finished study in a folder; None if there is none.

    Raises
    ------
    InputError
        They are not whole, or do not belong together.
    """
    run, path = read_run(folder), folder / "metrics.json"
    if "info" not in run:
        return None
    raw = path.read_bytes() if path.is_file() else b""
    if results.sha256(raw) != run["metrics_sha256"]:
        raise InputError(f"{path}: not the one that run.json was written with; --resume makes it again")
    return run, files.parse(raw, Metrics, path)


@contextlib.contextmanager
def lock(folder, part):
    """Context in which no other process does this part, or works, in a folder.

    Raises
    ------
    InputError
        Another one does, on this machine or on one that shares the folder; names it.
    """
    path = Path(folder) / ".locks" / part
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_name(f"{part}-owner")
    try:
        with filelock.FileLock(path, timeout=1):
            since = datetime.now().isoformat(" ", "seconds")
            files.write_text(owner, f"process {os.getpid()} on {platform.node()}, since {since},")
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)
    except filelock.Timeout as e:
        who = owner.read_text(errors="replace") if owner.exists() else "another process"
        raise InputError(f"{folder}: {who} is at work on it ({part}); wait for it, or choose another --out") from e


def check_writable(folder):
    """Raise InputError now, not after an hour of training, if `folder` cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as f:
            f.write(b"x")
    except OSError as e:
        raise InputError(f"cannot write to the output folder {folder}: {e.strerror}; choose another with --out") from e


@cache
def surroundings():
    """Return the version of the project, its commit if it runs from a repository, packages and processor."""
    versions = {"Python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
    return {
        "version": tinycnn.__version__,
        "commit": _commit(),
        "packages": versions,
        "machine": f"{platform.system()}, {_processor()}, {os.cpu_count()} CPU cores",
    }


def _commit():
    """The commit of the sources, with "-dirty" where files differ from it; None outside of a repository."""
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists() or shutil.which("git") is None:
        return None
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=here, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or None


def _processor():
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory():
    """Return the most memory that this process has had, in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
