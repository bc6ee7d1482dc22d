"""STL-10's binary files: 96x96 colour images as planes stored column by column, labels from 1.

    X: for each image the red, green and blue plane; within a plane column after column: 3 * 96 * 96 bytes
    y: one byte for each image, 1 to 10

So the file is an array [image, colour, column, row]; an image (H, W, C) is that array transposed, which
needs no copy. The reader maps the file and returns the transposed view: opening 8,000 images takes no time
and no memory.

Coates, Lee, Ng 2011, "An analysis of single-layer networks in unsupervised feature learning".
"""

from pathlib import Path

import numpy as np

from tinycnn.data import raw
from tinycnn.errors import InputError

CLASSES = tuple(["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"])
SHAPE = (96, 96, 3)
FOLDER = "stl10_binary"
COUNTS = {"train": 5000, "test": 8000}
LARGEST = 100_000  # images, the unlabelled ones
NAMES = 2**22  # bytes of a class_names.txt, at most: labels are bytes, so there are 255 names
RECORD = 96 * 96 * 3
CURE = "run with --download to get the official file"
FOLDER_CURE = "the folder must hold train_X.bin train_y.bin test_X.bin test_y.bin class_names.txt in STL-10's layout"


def read(folder, split):
    """Read the labelled part of STL-10.

    Parameters
    ----------
    folder : Path
        Holds ``stl10_binary``.
    split : "train" or "test"

    Returns
    -------
    images : numpy.ndarray (N, 96, 96, 3)
        uint8, read-only view of the mapped file, 5,000 or 8,000 of them. Not contiguous: a batch taken from
        it should pass through ``numpy.ascontiguousarray``.
    labels : numpy.ndarray (N,)
        int64, 0 to 9 (1 to 10 in the file).

    Raises
    ------
    InputError
        A file is missing, of another size than STL-10's, holds a label outside 1 to 10, or
        ``class_names.txt`` names other classes.
    """
    folder = Path(folder) / FOLDER
    names = folder / "class_names.txt"
    if names.exists() and read_names(names, CURE) != CLASSES:
        raise InputError(f"{names}: not the classes of STL-10; open another set in this layout with --images FOLDER")
    return _read(folder, split, 10, CURE, COUNTS[split])


def read_folder(folder, split):
    """Read any set in STL-10's layout: `folder` or ``folder/stl10_binary`` holds the files.

    Same arrays as `read`; the number of images is free, and ``class_names.txt`` names the classes.

    Raises
    ------
    InputError
        A file is missing, cut or of another kind, images and labels differ in number, or a label has no name.
    """
    folder = find(folder)
    return _read(folder, split, len(read_classes(folder)), FOLDER_CURE)


def find(folder):
    """The folder that holds the files: `folder` itself or its ``stl10_binary``."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {FOLDER_CURE}")
    inner = folder / FOLDER
    return inner if inner.is_dir() else folder


def read_classes(folder):
    """The classes of a set in STL-10's layout, checked against the labels of both splits.

    Returns
    -------
    tuple of str
        As many as the highest label of the files.

    Raises
    ------
    InputError
        ``class_names.txt`` or a label file is missing or faulty, or the names and the labels differ in
        number.
    """
    path = folder / "class_names.txt"
    names = read_names(path, FOLDER_CURE)
    labels = (raw.map_records(folder / f"{split}_y.bin", 1, FOLDER_CURE, None, LARGEST) for split in ("train", "test"))
    highest = max(int(some.max()) for some in labels)
    if highest != len(names):
        raise InputError(
            f"{path}: {len(names)} names, but the labels run to {highest}; "
            "write one name on each line, in the order of the labels"
        )
    return names


def read_names(path, cure):
    """The lines of a ``class_names.txt``, blank ones left out."""
    if raw.file_size(path, cure) > NAMES:
        raise InputError(f"{path}: {path.stat().st_size} bytes, more than class names have; {cure}")
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8-sig").split("\n") if line.strip())
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not a text file in UTF-8; write one class name on each line") from e
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); {cure}") from e
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path}: {len(names)} names, some twice or none at all; write one name on each line")
    return names


def _read(folder, split, classes, cure, count=None):
    image_path, label_path = folder / f"{split}_X.bin", folder / f"{split}_y.bin"
    records = raw.map_records(image_path, RECORD, cure, count, LARGEST)
    labels = raw.map_records(label_path, 1, cure, count, LARGEST).reshape(-1)
    if len(records) != len(labels):
        raise InputError(f"{label_path}: {len(labels)} labels, but {image_path.name} has {len(records)} images; {cure}")
    raw.check_range(label_path, labels, 1, classes, cure)
    planes = records.reshape(-1, 3, 96, 96)  # (N, C, W, H): column by column
    return planes.transpose(0, 3, 2, 1), labels.astype(np.int64) - 1
