"""MNIST's IDX files: a big-endian header, then the values, row by row.

    images: 0x00000803, N, rows, columns (four 32-bit integers), then N * rows * columns bytes
    labels: 0x00000801, N, then N bytes

The third byte of the magic number says "unsigned byte", the fourth the number of dimensions. The official
files are gzipped; both the .gz files and unpacked ones are read.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from tinycnn.data import raw
from tinycnn.errors import InputError, reason

CLASSES = tuple("0123456789")
SHAPE = (28, 28, 1)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
LARGEST = {1: 697_932, 3: 697_932 * 28 * 28}  # values, by dimensions: those of EMNIST (Cohen et al. 2017)
CURE = "delete it and run with --download to get the official file"


def read(folder, split):
    """Read MNIST, or any set in its format with 28x28 images and ten classes.

    Parameters
    ----------
    folder : Path
        Holds ``train-images-idx3-ubyte`` (or ``train-images.idx3-ubyte``, as some unpackers call it) and the other
        three files, each with ``.gz`` or without.
    split : "train" or "test"

    Returns
    -------
    images : numpy.ndarray (N, 28, 28, 1)
        uint8, read-only. Mapped where the file is unpacked, in memory where it is gzipped.
    labels : numpy.ndarray (N,)
        int64, 0 to 9.

    Raises
    ------
    InputError
        A file is missing, cut, corrupt, of another format or size, or holds a label above 9.
    """
    image_path, label_path = (_find(Path(folder), name) for name in FILES[split])
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != SHAPE[:2]:
        raise InputError(f"{image_path}: images of {images.shape[1:]} pixels, expected {SHAPE[:2]}; {CURE}")
    if len(images) != len(labels):
        raise InputError(
            f"{label_path}: {len(labels)} labels, but {image_path.name} holds {len(images)} images; {CURE}"
        )
    raw.check_range(label_path, labels, 0, 9, CURE)
    return images[..., None], labels.astype(np.int64)


def read_idx(path, ndim):
    """Read one IDX file of unsigned bytes with `ndim` dimensions; read-only, unpacked files are mapped."""
    path, length = Path(path), 4 * (1 + ndim)
    whole, packed = raw.file_size(path, CURE), path.suffix == ".gz"
    try:
        with (gzip.open if packed else open)(path, "rb") as f:
            header = f.read(length)
            if len(header) < length:
                raise InputError(f"{path}: {len(header)} bytes, too short for a header of {length}; {CURE}")
            magic, *shape = struct.unpack(f">{1 + ndim}I", header)
            if magic != 0x800 + ndim:
                raise InputError(f"{path}: magic number {magic:#010x}, expected {0x800 + ndim:#010x}; {CURE}")
            size, said = math.prod(shape), f"the header says {shape} = {math.prod(shape)}"
            if size > raw.MORE * LARGEST[ndim]:
                raise InputError(f"{path}: {said} values, more than {raw.MORE} times the largest known set; {CURE}")
            if packed and size > raw.most_unpacked(path, LARGEST[ndim]):
                raise InputError(f"{path}: {said} values in {whole} bytes; if that is so, unpack it by other means")
            body = np.frombuffer(f.read(size + 1), np.uint8) if packed else None  # one more: there must be none
    except EOFError as e:
        raise InputError(f"{path}: the gzip file ends too early, it was cut; {CURE}") from e
    except (gzip.BadGzipFile, zlib.error) as e:
        raise InputError(f"{path}: not a sound gzip file ({reason(e)}); {CURE}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); {CURE}") from e
    there = len(body) if packed else whole - length
    if size == 0 or there != size:
        there = f"more than {size}" if packed and there > size else there
        raise InputError(f"{path}: {there} values, but {said}; the file is cut or corrupt: {CURE}")
    return (body if packed else raw.map_records(path, 1, CURE).reshape(-1)[length:]).reshape(shape)


def spellings(name):
    """Return how unpackers spell the name of a file."""
    return name, name.replace("-idx", ".idx")


def _find(folder, name):
    """The file, unpacked or gzipped; unpacked ones are faster to read and come first."""
    there = [folder / (spelling + end) for end in ("", ".gz") for spelling in spellings(name)]
    if found := next((path for path in there if path.exists()), None):
        return found
    others = sorted(path.name for path in folder.glob(name.split("-idx")[0] + "*"))
    instead = f" (there is {', '.join(others[:3])})" if others else ""
    raise InputError(
        f"{folder / name}.gz: no such file{instead}; run with --download to get it, or put the official file there"
    )
