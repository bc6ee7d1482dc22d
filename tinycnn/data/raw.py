"""Fixed-size binary records on disk, mapped read-only: what the CIFAR-10 and STL-10 formats have in common.

Neither format has a header, so the size of a file is all that tells a whole one from a cut one.
"""

from pathlib import Path

import numpy as np

from tinycnn.errors import InputError

MORE = 4  # a file may hold so many times what the largest known set of its format has
UNPACKED, RATIO = 2**26, 8  # bytes that a packed file may become, whatever its size; else so many times its own size


def most_unpacked(path, largest):
    """Return the bytes that a packed file may become: images shrink to a fifth at best, bombs to a thousandth."""
    return min(MORE * largest, max(UNPACKED, RATIO * Path(path).stat().st_size))


def map_records(path, record, cure, count=None, largest=None):
    """Map a file of equal records into memory without reading it.

    Parameters
    ----------
    path : Path
    record : int
        Bytes of one record.
    cure : str
        What the user should do about a missing or faulty file; ends the message.
    count : int, optional
        The number of records that the file must hold; by default any number above 0.
    largest : int, optional
        The number of records of the largest known file of this kind, of which there may be `MORE` times as many.

    Returns
    -------
    numpy.ndarray (N, record)
        uint8, read-only, backed by the file.

    Raises
    ------
    InputError
        The file is missing, unreadable, cut, or of another size than its format allows.
    """
    size = file_size(path, cure)
    if count is not None and size != count * record:
        raise InputError(
            f"{path}: {size} bytes, expected {count} records of {record} bytes = {count * record}; "
            f"the file is cut or of another kind: {cure}"
        )
    if largest is not None and size > MORE * largest * record:
        raise InputError(f"{path}: {size} bytes, more than {MORE} times what the largest known set has; {cure}")
    if size == 0 or size % record:
        raise InputError(
            f"{path}: {size} bytes, expected a multiple of {record} (one record); "
            f"the file is cut or of another kind: {cure}"
        )
    try:
        mapped = np.memmap(path, np.uint8, "r")
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); {cure}") from e
    return mapped.view(np.ndarray).reshape(-1, record)  # a plain array: compiled code knows no memmap


def file_size(path, cure):
    """Size of a file in bytes; a missing one, or a folder of that name, raises an InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; {cure}")
    if not path.is_file():
        raise InputError(f"{path}: not a file; {cure}")
    return path.stat().st_size


def check_range(path, labels, first, last, cure):
    """Raise unless all labels of a file lie in [first, last]."""
    wrong = (labels < first) | (labels > last)
    if wrong.any():
        i = int(wrong.argmax())
        raise InputError(
            f"{path}: label {labels[i]} at record {i}, expected {first} to {last}; "
            f"the file is corrupt or of another kind: {cure}"
        )
