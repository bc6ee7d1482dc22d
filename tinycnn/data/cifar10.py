"""CIFAR-10's binary version: records of one label byte and 3072 pixel bytes.

    record: label, then the red, green and blue planes, each 32x32 row by row = 1 + 3 * 1024 bytes

Five files of 10,000 records train, one of 10,000 tests. No header: the size of a file is its only check.

Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from pathlib import Path

import numpy as np

from tinycnn.data import raw

CLASSES = tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
SHAPE = (32, 32, 3)
FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
COUNT = 10000  # records in each file
RECORD = 1 + 32 * 32 * 3
CURE = "run with --download to get the official file"


def read(folder, split):
    """Read CIFAR-10.

    Parameters
    ----------
    folder : Path
        Holds ``cifar-10-batches-bin``.
    split : "train" or "test"

    Returns
    -------
    images : numpy.ndarray (N, 32, 32, 3)
        uint8, 50,000 or 10,000 of them. Read, not mapped (154 MB): training gathers random images, and
        channels last in memory makes each one contiguous.
    labels : numpy.ndarray (N,)
        int64, 0 to 9.

    Raises
    ------
    InputError
        A file is missing, of another size than 10,000 records, or holds a label above 9.
    """
    paths = [Path(folder) / FOLDER / name for name in FILES[split]]
    files = [raw.map_records(path, RECORD, CURE, COUNT) for path in paths]  # all sizes are checked before reading
    images = np.empty((len(files) * COUNT, *SHAPE), np.uint8)
    labels = np.empty(len(files) * COUNT, np.int64)
    for i, (path, records) in enumerate(zip(paths, files)):
        part = slice(i * COUNT, (i + 1) * COUNT)
        raw.check_range(path, records[:, 0], 0, 9, CURE)
        labels[part] = records[:, 0]
        images[part] = records[:, 1:].reshape(COUNT, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, labels
