"""The data sets of a run, as the study splits them."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from tinycnn import InputError, data, files, models

from . import fingerprint

PROTOCOLS = ("study", "official")  # of STL-10: see `built_in`


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to train on, images that training never sees, and what is known of them.

    Attributes
    ----------
    info : tinycnn.data.DatasetInfo
    images, labels, val_images, val_labels : arrays
        As `tinycnn.data.load` returns them.
    masks : bool array (N_val, H, W) or None
    protocol : str
        How they were split.
    built_in : bool
        Whether ``--dataset`` names it; a folder of ``--images`` is none, whatever its name.
    """

    info: object
    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    masks: np.ndarray | None = None
    protocol: str = "the set's own split"
    built_in: bool = True

    @property
    def folder(self):
        """The name of the set's folder in OUT."""
        return self.info.name if self.built_in else files.slug(self.info.name) or "images"

    @property
    def arrays(self):
        """All images and labels."""
        return self.images, self.labels, self.val_images, self.val_labels

    @cached_property
    def digest(self):
        """A SHA-256 of all images and labels."""
        return fingerprint.of_arrays(self.arrays)


@lru_cache(maxsize=1)
def load(name, images=None, model=None, root="data", download=False, protocol="study"):
    """Return a data set, and keep it until another is asked for.

    Parameters
    ----------
    name : str or None
        One of `data.NAMES`, or None for the folder `images`, whose pictures are made as `model` takes them.
    images, model, root, download, protocol
        See `built_in` and `of_folder`.
    """
    return of_folder(images, model) if name is None else built_in(name, root, download, protocol)


def built_in(name, root="data", download=False, protocol="study"):
    """Return one of `data.NAMES`.

    The study joins STL-10's 5,000 training and 8,000 test images, trains on the first 10,000 and validates on the
    last 3,000; with `protocol` "official", and for every other set, the set's own split holds.
    """
    train, test = (data.load(name, split, root=root, download=download) for split in ("train", "test"))
    if name == "stl10" and protocol == "study":
        images, labels = (np.concatenate(both) for both in zip(train, test))
        train, test = (images[:10_000], labels[:10_000]), (images[10_000:], labels[10_000:])
    masks = data.masks(name, "test") if name == "shapes" else None
    return DataSet(data.info(name), *train, *test, masks, **({"protocol": protocol} if name == "stl10" else {}))


def of_folder(path, model=None):
    """Return the images of a folder: in STL-10's layout, or of pictures in sub-folders, one a class.

    Pictures of any size are made as large as `model` takes them: "stl10" (96x96, the default), "cifar10" or "mnist".
    """
    path = Path(path).expanduser()
    if any((folder / "train_X.bin").exists() for folder in (path, path / "stl10_binary")):
        if model not in (None, "stl10"):
            raise InputError(f"--images {path}: files in STL-10's layout are for the model stl10, not {model}")
        protocol = "the files' own split"
        info, (train, test) = data.folder_info(path), (data.load_folder(path, split) for split in data.SPLITS)
    else:
        shape, protocol = (
            models.INPUT_SHAPES[model or "stl10"],
            "validation on a fifth of each class, by the files' names",
        )
        info, (train, test) = data.images_info(path, shape), (data.images(path, shape, s) for s in data.SPLITS)
    return DataSet(info, *train, *test, protocol=protocol, built_in=False)
