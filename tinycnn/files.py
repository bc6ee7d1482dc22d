"""Files appear whole or not at all: written under a temporary name, flushed to disk, then renamed.

The temporary names say which process of which machine writes, and no pattern for the files of a study fits them. JSON
that is read is checked against a type (`parse`). And names for files: `indexed` makes one that is safe on every system
of whatever a class or a picture is called.
"""

import contextlib
import errno
import itertools
import os
import platform
import re
import unicodedata
from pathlib import Path

import msgspec

from .errors import InputError


@contextlib.contextmanager
def temporary_path(folder):
    """Yield the path of a new, empty file in `folder`, which is made if need be; it is removed at the end.

    So is what processes of this machine that are gone left there.
    """
    path = Path(folder) / f"{TEMPORARY}{os.getpid()}-{next(_COUNT)}.tmp"
    _WRITING.add(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_remains(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield path
    finally:
        with contextlib.suppress(OSError):  # what went wrong with the folder is said already
            path.unlink()
        _WRITING.discard(path.name)


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Whoever reads `path` sees the old contents or the new ones, never a part: also after ``kill -9`` or on a full disk.
    Missing parent folders are made.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    OSError
        The folder cannot be made or written, or the disk is full; names the file. What stood at `path` is kept.
    """
    path = Path(path)
    try:
        with temporary_path(path.parent) as temporary:
            yield temporary
            with open(temporary, "rb+") as f:
                os.fsync(f.fileno())
            os.replace(temporary, path)
    except OSError as e:
        raise OSError(e.errno, f"cannot write {path}: {e.strerror or e}") from e


def write_bytes(path, data):
    """Write `data` (bytes) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path, text):
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def parse(text, kind, what):
    """Return JSON as a value of type `kind`, as msgspec takes types; raise an InputError that says `what` is damaged.

    Of the text itself the error shows nothing, whatever it holds.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        where = re.search(r"[$][\w.]*", str(e)) if isinstance(e, msgspec.ValidationError) else None
        where = f" at {where[0]}" if where else ""
        raise InputError(f"{what}: damaged{where}, or of another version of this program; remove it") from None


def slug(name):
    """Return `name` in lower-case ASCII letters and digits, with a hyphen for each run of spaces or signs.

    Accents fall off their letters, what else is not ASCII is dropped; at most 60 characters stay. "" if nothing is
    left. Not a file's name by itself: Windows gives some, like "con", to devices (see `indexed`).
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].rstrip("-")


def readable(name):
    """Return a file's name, or any text, as UTF-8 can write it: bytes that are no text appear escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def indexed(i, name):
    """Return a file's name without its ending: the index in two digits or more, then the slug, "03-golf-ball"."""
    return f"{i:02d}-{slug(name)}".rstrip("-")


TEMPORARY = f".tinycnn-{slug(platform.node())[:30]}-"  # then the process's number and a count
_COUNT, _WRITING = itertools.count(), set()  # of this process


def _remove_remains(folder):
    """Remove temporary files of processes of this machine that are gone."""
    for path in folder.glob(f"{TEMPORARY}*.tmp"):
        process = re.fullmatch(r"([1-9]\d{0,8})-\d+[.]tmp", path.name.removeprefix(TEMPORARY))
        if process and path.name not in _WRITING and _gone(int(process[1])):
            with contextlib.suppress(OSError):  # somebody else's, or removed by another process meanwhile
                path.unlink()


def _gone(process):
    """Whether there is no such process, or it is this one, which writes under other names; False if nobody can tell."""
    if process == os.getpid():
        return True
    if os.name != "posix":  # elsewhere the signal 0 is no question
        return False
    try:
        os.kill(process, 0)
    except OSError as e:
        return e.errno == errno.ESRCH
    return False
