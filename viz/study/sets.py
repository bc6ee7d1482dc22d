"""The data sets of a run: images to train on, images that choose, and images that are looked at once, at the end."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from tinycnn import InputError, data, files, models, streams

from . import fingerprint

PROTOCOLS = {
    "holdout": "a tenth of the training images of each class is held out and chooses the step that is kept; the test "
    "images are judged once, at the end",
    "study": "accuracy is measured on the test images during training, as the study did; nothing is chosen by it",
}
HELD_OUT = 0.1  # share of the training images of each class


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to train on, images that choose, images that neither sees, and what is known of them.

    Attributes
    ----------
    info : tinycnn.data.DatasetInfo
    images, labels, val_images, val_labels, test_images, test_labels : arrays
        As `tinycnn.data.load` returns them. The second pair is measured during training: by protocol "holdout"
        training images that are held out, by "study" the test images.
    masks : bool array (N_test, H, W) or None
    protocol : str
        One of `PROTOCOLS`.
    built_in : bool
        Whether ``--dataset`` names it; a folder of ``--images`` is none, whatever its name.
    """

    info: object
    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    masks: np.ndarray | None = None
    protocol: str = "holdout"
    built_in: bool = True

    @property
    def folder(self):
        """The name of the set's folder in OUT."""
        return self.info.name if self.built_in else files.slug(self.info.name) or "images"

    @cached_property
    def planted(self):
        """The test images "without" the shortcut, and which pixels are its "evidence" (None: it has no place).

        None of a set without a planted shortcut.
        """
        name = self.info.name
        if not (self.built_in and data.MADE.get(name)):
            return None
        evidence = data.masks(name, "test", of="shortcut") if data.MADE[name] != "color" else None
        return {"without": data.counterfactual(name), "evidence": evidence}

    @property
    def held_out(self):
        """How many training images choose the step that is kept; 0 where nothing is chosen."""
        return len(self.val_images) if self.protocol == "holdout" else 0

    @property
    def arrays(self):
        """All images and labels."""
        of = (self.val_images, self.val_labels), (self.test_images, self.test_labels)
        return self.images, self.labels, *of[0], *of[1]

    @cached_property
    def digest(self):
        """A SHA-256 of all images and labels."""
        return fingerprint.of_arrays(self.arrays)


@lru_cache(maxsize=1)
def load(name, images=None, model=None, root="data", download=False, protocol="holdout"):
    """Return a data set, and keep it until another is asked for.

    Parameters
    ----------
    name : str or None
        One of `data.NAMES`, or None for the folder `images`, whose pictures are made as `model` takes them.
    images, model, root, download, protocol
        See `built_in` and `of_folder`.
    """
    return of_folder(images, model, protocol) if name is None else built_in(name, root, download, protocol)


def built_in(name, root="data", download=False, protocol="holdout"):
    """Return one of `data.NAMES`.

    The study joins STL-10's 5,000 training and 8,000 test images, trains on the first 10,000 and validates on the
    last 3,000; for every other set, and with protocol "holdout", the set's own split holds.
    """
    train, test = (data.load(name, split, root=root, download=download) for split in ("train", "test"))
    if name == "stl10" and protocol == "study":
        images, labels = (np.concatenate(both) for both in zip(train, test))
        train, test = (images[:10_000], labels[:10_000]), (images[10_000:], labels[10_000:])
    masks = data.masks(name, "test") if name in data.MADE else None
    return _split(data.info(name), train, test, protocol, masks=masks)


def of_folder(path, model=None, protocol="holdout"):
    """Return the images of a folder: in STL-10's layout, or of pictures in sub-folders, one a class.

    Pictures of any size are made as large as `model` takes them: "stl10" (96x96, the default), "cifar10" or "mnist".
    """
    path = Path(path).expanduser()
    if str(path) in data.NAMES and not path.exists():
        raise InputError(f"--images {path}: no such folder; the built-in set of this name is --dataset {path}")
    if any((folder / "train_X.bin").exists() for folder in (path, path / "stl10_binary")):
        if model not in (None, "stl10"):
            raise InputError(f"--images {path}: files in STL-10's layout are for the model stl10, not {model}")
        info, (train, test) = data.folder_info(path), (data.load_folder(path, split) for split in data.SPLITS)
    else:
        shape = models.INPUT_SHAPES[model or "stl10"]
        info, (train, test) = data.images_info(path, shape), (data.images(path, shape, s) for s in data.SPLITS)
    if files.slug(info.name) in data.NAMES:  # its folder of OUT, and what is known of the set, are not these images'
        info = replace(info, name=f"{info.name}-images")
    return _split(info, train, test, protocol, built_in=False)


def _split(info, train, test, protocol, **known):
    """The `DataSet` of a set's own two parts, by a protocol."""
    if len(info.classes) < 2:
        raise InputError(f"{info.title}: one class alone, and nothing to tell it from; a network needs two or more")
    if protocol == "study":
        return DataSet(info, *train, *test, *test, protocol=protocol, **known)
    images, labels = train
    held_out = hold_out(labels)
    if not held_out.any():
        raise InputError(
            f"{info.title}: no class has the two training images that it takes to hold one out; give more, or choose "
            "--protocol study, which chooses nothing"
        )
    parts = (part for mask in (~held_out, held_out) for part in (images[mask], labels[mask]))
    return DataSet(info, *parts, *test, protocol=protocol, **known)


def hold_out(labels):
    """Return which of the training images are held out (N,): `HELD_OUT` of each class, at least one of two or more.

    The same ones whatever the seed of a study, so that its networks all see the same images.
    """
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        some = np.flatnonzero(labels == label)
        count = max(round(HELD_OUT * len(some)), int(len(some) > 1))
        held_out[streams.rng(0, "held out", int(label)).permutation(some)[:count]] = True
    return held_out
