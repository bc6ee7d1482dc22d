"""The records of a run: reading them back, and what a run came from: version, commit, packages, machine, memory."""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

import filelock

import tinycnn
from tinycnn import InputError, train

PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "matplotlib", "pillow", "safetensors", "threadpoolctl")


def read(path):
    """Return the object in a JSON file; {} if there is no such file.

    Raises
    ------
    InputError
        The file holds something else.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise InputError(f"{path}: damaged, it holds no JSON; remove it") from e
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a record of a run; remove it")
    return found


def read_history(path):
    """Return (settings, test images classified rightly, `History`) of the training in a file; None if there is none.

    Raises
    ------
    InputError
        The file holds something else.
    """
    found = read(path)
    settings, right, history = found.pop("settings", None), found.pop("test_right", None), None
    try:
        history = train.History(**found)
        whole = {len(history.eval_steps)} == {len(history.train_accuracy), len(history.val_accuracy)}
        whole = whole and all(isinstance(v, (int, float)) for some in found.values() for v in some)
        whole = whole and isinstance(right, int)
    except TypeError:
        whole = False
    if found and not whole:
        raise InputError(f"{path}: not a history of training; remove it")
    return (settings, right, history) if found else (None, None, None)


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
            owner.write_text(f"process {os.getpid()} on {platform.node()}")
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)
    except filelock.Timeout as e:
        who = owner.read_text() if owner.exists() else "another process"
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
