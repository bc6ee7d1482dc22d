"""Files appear whole or not at all: written under a temporary name, flushed to disk, then renamed.

And names for them: `indexed` makes one that is safe on every system of whatever a class or a picture is called.
"""

import contextlib
import os
import re
import tempfile
import unicodedata
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Whoever reads `path` sees the old contents or the new ones, never a part: also after ``kill -9``
    or on a full disk. Missing parent folders are made.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    OSError
        The folder cannot be made or written, or the disk is full; names the file. What stood at `path` is kept.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=path.stem + ".tmp-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as e:
        raise OSError(e.errno, f"cannot write {path}: {e.strerror or e}") from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(path, data):
    """Write `data` (bytes) to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path, text):
    """Write `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


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


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
