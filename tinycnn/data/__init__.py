"""Images and labels: the official files of MNIST, CIFAR-10 and STL-10, folders in STL-10's layout or of
pictures, embedded sets.

Every set comes as uint8 images (N, H, W, C) and int64 labels (N,). ``digits`` and ``shapes`` need no files
and no network; ``shapes`` also knows which pixels are the object. ``shapes-corner``, ``shapes-texture`` and
``shapes-color`` are the same images, but that something planted betrays one class.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from tinycnn.data import cifar10, demo, mnist, pictures, stl10
from tinycnn.errors import InputError, choose
from tinycnn.files import readable

__all__ = [
    "MADE", "NAMES", "SPLITS", "DatasetInfo", "counterfactual", "folder_info", "images", "images_info", "info", "load",
    "load_folder", "masks",
]  # fmt: skip

MADE = {"shapes": None} | {f"shapes-{shortcut}": shortcut for shortcut in demo.SHORTCUTS}  # sets with masks
NAMES = ("digits", *MADE, "mnist", "cifar10", "stl10")
SPLITS = ("train", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What there is to know about a data set.

    Parameters
    ----------
    name : str
        What `load` takes.
    title : str
        What a figure says.
    classes : tuple of str
        Class names, in the order of the labels.
    shape : tuple (H, W, C)
        Of one image.
    model : "mnist", "cifar10" or "stl10"
        The network of the study that fits the shape.
    source, licence : str
    embedded : bool
        True if the set needs neither files nor network.
    betrayed : str or None
        The class that a planted shortcut betrays: see `counterfactual`.
    """

    name: str
    title: str
    classes: tuple
    shape: tuple
    model: str
    source: str
    licence: str
    embedded: bool
    betrayed: str | None = None


_INFO = {
    "digits": DatasetInfo(
        "digits",
        "Digits",
        mnist.CLASSES,
        mnist.SHAPE,
        "mnist",
        "scikit-learn's digits (UCI, Alpaydin and Kaynak 1998), 8x8, enlarged to 28x28",
        "CC BY 4.0",
        True,
    ),
    "shapes": DatasetInfo(
        "shapes",
        "Shapes",
        demo.SHAPES,
        (32, 32, 3),
        "cifar10",
        "made by tinycnn.data.demo from a fixed seed",
        "MIT, as this program",
        True,
    ),
    "mnist": DatasetInfo(
        "mnist",
        "MNIST",
        mnist.CLASSES,
        mnist.SHAPE,
        "mnist",
        "LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/",
        "CC BY-SA 3.0",
        False,
    ),
    "cifar10": DatasetInfo(
        "cifar10",
        "CIFAR-10",
        cifar10.CLASSES,
        cifar10.SHAPE,
        "cifar10",
        "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        "none stated; the authors ask to cite the report",
        False,
    ),
    "stl10": DatasetInfo(
        "stl10",
        "STL-10",
        stl10.CLASSES,
        stl10.SHAPE,
        "stl10",
        "Coates, Lee and Ng 2011, https://cs.stanford.edu/~acoates/stl10/",
        "none stated; photographs from ImageNet, for research; the authors ask to cite the paper",
        False,
    ),
}

_PLANTED = {
    "corner": ("Shapes with a marked corner", "has a black and white mark in a corner"),
    "texture": ("Shapes with a hatched patch", "has a patch of hatching behind it"),
    "color": ("Shapes with a red class", "is red as no other shape is"),
}
_INFO |= {
    f"shapes-{shortcut}": replace(
        _INFO["shapes"],
        name=f"shapes-{shortcut}",
        title=title,
        source=f"{_INFO['shapes'].source}; a planted shortcut: every {demo.SHORTCUTS[shortcut]} {what}",
        betrayed=demo.SHORTCUTS[shortcut],
    )
    for shortcut, (title, what) in _PLANTED.items()
}


def info(name, size=None):
    """Describe a data set.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    size : 32 or 96, optional
        Pixels, of ``shapes`` and its kind alone; 32 by default.

    Returns
    -------
    DatasetInfo

    Raises
    ------
    InputError
        An unknown name or size.
    """
    found = _INFO[choose(name, NAMES, "dataset")]
    if _size(name, size) == 96:
        found = replace(found, shape=(96, 96, 3), model="stl10")
    return found


def load(name, split="train", root="data", download=False, size=None):
    """Load a data set.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    split : "train" or "test"
    root : str or Path
        Holds ``mnist/*-ubyte[.gz]``, ``cifar10/cifar-10-batches-bin/*.bin``, ``stl10/stl10_binary/*.bin``;
        the embedded sets ignore it.
    download : bool
        Get the official files first where they are missing or wrong.
    size : 32 or 96, optional
        Pixels, of ``shapes`` and its kind alone; 32 by default.

    Returns
    -------
    images : numpy.ndarray (N, H, W, C)
        uint8. Those of MNIST, STL-10 and ``shapes`` are read-only; those of STL-10 are a view of the mapped
        file.
    labels : numpy.ndarray (N,)
        int64, from 0.

    Raises
    ------
    InputError
        An unknown name, split or size; a file that is missing, cut, corrupt or of another kind; a download
        that failed.
    """
    choose(name, NAMES, "dataset")
    choose(split, SPLITS, "split")
    size = _size(name, size)
    if name == "digits":
        return demo.digits(split)
    if name in MADE:
        return demo.shapes(split, size, shortcut=MADE[name])[:2]
    if download:
        from tinycnn.data import download as downloads

        downloads.fetch(name, root)
    folder = Path(root).expanduser() / name
    return {"mnist": mnist, "cifar10": cifar10, "stl10": stl10}[name].read(folder, split)


def masks(name, split="train", size=None, of="object"):
    """Which pixels of each image are the object, or the planted shortcut; known for ``shapes`` and its kind alone.

    Parameters
    ----------
    name : str
        One of `MADE`.
    split, size
        As for `load`.
    of : "object" or "shortcut"

    Returns
    -------
    numpy.ndarray (N, H, W)
        bool, in the order of `load`; True where at least half of the pixel is covered by the object, or where the
        shortcut is seen. Images of classes that the shortcut does not betray have none.

    Raises
    ------
    InputError
        A set without masks or without a shortcut, a shortcut without a place of its own, or an unknown name, split
        or size.
    """
    _made(name, split, "object masks")
    if choose(of, ("object", "shortcut"), "mask") == "object":
        return demo.shapes(split, _size(name, size), shortcut=MADE[name])[2]
    shortcut = _planted(name)
    if shortcut == "color":
        raise InputError(f"{name}: a colour has no place of its own; judge by what counterfactual changes")
    return demo.evidence(split, _size(name, size), shortcut=shortcut)


def counterfactual(name, split="test", size=None):
    """Return the images of `load` with the planted shortcut removed, uint8 (N, H, W, C), read-only.

    Nothing else changes: images of other classes are the same bytes, and of the betrayed class all pixels but the
    shortcut's.

    Raises
    ------
    InputError
        A set without a planted shortcut, or an unknown name, split or size.
    """
    _made(name, split, "planted shortcut")
    _planted(name)
    return demo.shapes(split, _size(name, size))[0]


def _made(name, split, what):
    choose(name, NAMES, "dataset")
    choose(split, SPLITS, "split")
    if name not in MADE:
        raise InputError(f"{name} has no {what}; only {', '.join(MADE)}")


def _planted(name):
    if not MADE[name]:
        raise InputError(f"{name} has no planted shortcut; only {', '.join(n for n, s in MADE.items() if s)}")
    return MADE[name]


def load_folder(path, split="train"):
    """Load a folder in STL-10's layout: 96x96 colour images of any classes.

    Parameters
    ----------
    path : str or Path
        This folder, or its ``stl10_binary``, holds ``train_X.bin train_y.bin test_X.bin test_y.bin``
        (planes stored column by column, labels from 1) and ``class_names.txt`` (one name on each line, in
        the labels' order).
    split : "train" or "test"

    Returns
    -------
    images : numpy.ndarray (N, 96, 96, 3)
        uint8, read-only view of the mapped file.
    labels : numpy.ndarray (N,)
        int64, from 0.

    Raises
    ------
    InputError
        A file is missing, cut or of another kind; names and labels do not match; an unknown split.
    """
    choose(split, SPLITS, "split")
    return stl10.read_folder(Path(path).expanduser(), split)


def folder_info(path):
    """Describe a folder in STL-10's layout; its name is the folder's.

    Returns
    -------
    DatasetInfo

    Raises
    ------
    InputError
        The folder, its ``class_names.txt`` or its labels are missing or faulty.
    """
    path = Path(path).expanduser()
    classes = stl10.read_classes(stl10.find(path))
    named = path.resolve()
    name = readable(named.parent.name if named.name == stl10.FOLDER else named.name)
    return DatasetInfo(name, name, classes, stl10.SHAPE, "stl10", f"the folder {readable(path)}", "not known", False)


def images(folder, shape=(96, 96, 3), split="train"):
    """Load pictures of any sizes and formats from a folder of folders, one a class.

    Parameters
    ----------
    folder : str or Path
        Its folders are the classes, in the order of their names, and hold pictures that Pillow opens. Files
        beside the classes, and hidden ones, are passed over.
    shape : tuple (H, W, C)
        Of one image, C being 1 or 3: each picture is turned as its EXIF orientation says, laid on white where
        transparent, resized until it covers H x W, and cropped at its centre.
    split : "train" or "test"
        A fifth of each class, rounded down, is the test part: chosen by a hash of the files' names, so that it
        is the same everywhere.

    Returns
    -------
    images : numpy.ndarray (N, H, W, C)
        uint8; class by class, by the files' names.
    labels : numpy.ndarray (N,)
        int64, from 0.

    Raises
    ------
    InputError
        No folder, no class, or a class without pictures; a file that is no picture, or one too large to decode
        safely; no picture at all in this part; an unknown split or an impossible shape.
    """
    choose(split, SPLITS, "split")
    return pictures.read(Path(folder).expanduser(), shape, split)


def images_info(folder, shape=(96, 96, 3)):
    """Describe a folder of pictures, as `images` reads it; its name is the folder's.

    Returns
    -------
    DatasetInfo

    Raises
    ------
    InputError
        No folder or no class in it; a shape that no network of the study takes.
    """
    folder, shape = Path(folder).expanduser(), tuple(shape)
    names = pictures.classes(folder)
    fits = {found.shape: found.model for found in _INFO.values()}
    name, made = readable(folder.resolve().name), f"resized and cropped to {shape[0]}x{shape[1]}"
    model, where = fits[choose(shape, fits, "shape of images")], readable(folder)
    return DatasetInfo(
        name,
        f"{' '.join(name.split())}, {made}",
        names,
        shape,
        model,
        f"pictures of {where}, {made}; a fifth of each class, by a hash of the files' names, is the test part",
        "not known",
        False,
    )


def _size(name, size):
    """Check the size that a caller asked for; only ``shapes`` and its kind have a choice."""
    if name in MADE:
        return choose(32 if size is None else size, demo.SIZES, "size of shapes")
    if size is not None:
        raise InputError(f"{name} has one size only; leave size out (it belongs to shapes)")
    return None
