"""MNIST's IDX files: a big-endian header, then the values, row by row.

    images: 0x00000803, N, rows, columns (four 32-bit integers), then N * rows * columns bytes
    labels: 0x00000801, N, then N bytes

The third byte of the magic number says "unsigned byte", the fourth the number of dimensions. The official
files are gzipped; both the .gz files and unpacked ones are read.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from tinycnn.data import raw
from tinycnn.errors import InputError

CLASSES = tuple("0123456789")
SHAPE = (28, 28, 1)
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CURE = "delete it and run with --download to get the official file"


def read(folder, split):
    """Read MNIST, or any set in its format with 28x28 images and ten classes.

    Parameters
    ----------
    folder : Path
        Holds ``train-images-idx3-ubyte`` and the other three files, each with ``.gz`` or without.
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
    path, header = Path(path), 4 * (1 + ndim)
    if path.suffix == ".gz":
        body = np.frombuffer(_gunzip(path), np.uint8)
    elif raw.file_size(path, CURE) < header:
        raise InputError(f"{path}: {path.stat().st_size} bytes, too short for a header of {header}; {CURE}")
    else:
        body = raw.map_records(path, 1, CURE).reshape(-1)
    if len(body) < header:
        raise InputError(f"{path}: {len(body)} bytes, too short for a header of {header}; {CURE}")
    magic, *shape = struct.unpack(f">{1 + ndim}I", body[:header].tobytes())
    if magic != 0x800 + ndim:
        raise InputError(f"{path}: magic number {magic:#010x}, expected {0x800 + ndim:#010x}; {CURE}")
    size = int(np.prod(shape, dtype=object))  # Python's integers: a corrupt header cannot overflow
    if size == 0 or len(body) - header != size:
        raise InputError(
            f"{path}: {len(body) - header} values, but the header says {shape} = {size}; "
            f"the file is cut or corrupt: {CURE}"
        )
    return body[header:].reshape(shape)


def _find(folder, name):
    """The file, unpacked or gzipped; unpacked ones are faster to read and come first."""
    plain, packed = folder / name, folder / (name + ".gz")
    if not plain.exists() and not packed.exists():
        raise InputError(f"{packed}: no such file; run with --download to get it, or put the official file there")
    return plain if plain.exists() else packed


def _gunzip(path):
    raw.file_size(path, CURE)
    try:
        with gzip.open(path) as f:
            return f.read()
    except EOFError as e:
        raise InputError(f"{path}: the gzip file ends too early, it was cut; {CURE}") from e
    except (gzip.BadGzipFile, zlib.error) as e:
        raise InputError(f"{path}: not a sound gzip file ({e}); {CURE}") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); {CURE}") from e
