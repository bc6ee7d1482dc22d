"""Anyone's pictures: a folder of folders, one a class, made into images of one size.

    FOLDER/cat/a.jpg  FOLDER/cat/b.png  FOLDER/dog/c.webp  ...        any size, any format that Pillow opens

Each is turned as its EXIF orientation says, laid on white where it is transparent, resized by LANCZOS until it covers
the wanted size, and cropped at its centre. A fifth of each class is the test part: those of its files whose names have
the smallest SHA-256. So the parts are the same on every machine, and a new file moves at most one other.
"""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from tinycnn.errors import InputError, reason
from tinycnn.files import readable
from tinycnn.progress import bar

CURE = "the folder must hold one folder of pictures for each class"
LARGEST = 2**28  # bytes of a picture's file: some readers take all of it into memory
SYSTEM = ("thumbs.db", "desktop.ini")  # what systems leave beside pictures, with all names that begin with a dot


def classes(folder):
    """The names of the class folders, sorted, as text; an InputError if there are none."""
    return tuple(readable(path.name) for path in _folders(folder))


def _folders(folder):
    """The paths of the class folders, by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {CURE}")
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not found:
        raise InputError(f"{folder}: no folder in it; {CURE}")
    return sorted(found, key=lambda path: path.name)


def read(folder, shape, split):
    """Return (images uint8 (N, H, W, C), labels int64 (N,)) of one part; class by class, by the files' names."""
    if len(shape) != 3 or min(shape) < 1 or shape[2] not in (1, 3):
        raise InputError(f"shape: expected (height, width, colours), with 1 or 3 colours, got {tuple(shape)}")
    paths, labels = [], []
    for label, path in enumerate(_folders(folder)):
        some = _part(_files(path), split)
        paths += some
        labels += [label] * len(some)
    if not paths:
        raise InputError(
            f"{folder}: no picture is left for the {split} part; a class needs five or more to have one in it"
        )
    images = np.empty((len(paths), *shape), np.uint8)
    for image, path in zip(images, bar(paths, desc=f"pictures, {split}", unit="picture", leave=False)):
        image[...] = _decode(path, *shape)
    return images, np.array(labels, np.int64)


def _files(folder):
    """The paths of a class's pictures, by name."""
    paths = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in SYSTEM)
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path}: a folder inside the folder of a class; move its pictures up, or move it away")
    if not paths:
        raise InputError(f"{folder}: holds no picture; add some, or remove the folder")
    return paths


def _part(paths, split):
    """Those of a class's files that are in one part, in their order."""
    ranked = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
    test = set(ranked[: len(paths) // 5])
    return [path for path in paths if (path in test) == (split == "test")]


def _decode(path, H, W, C):
    """One picture as uint8 (H, W, C)."""
    from PIL import Image, ImageOps

    try:
        if path.exists() and not path.is_file():
            raise ValueError("a pipe or a device, which may never end")
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.draft(None, (2 * max(H, W),) * 2)  # a large JPEG is decoded at a half, a quarter or an eighth
                image = ImageOps.exif_transpose(image)
        if image.mode == "F":
            raise ValueError("floating-point pixels, which have no known range")
        if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert("L" if C == 1 else "RGB"), (W, H), Image.Resampling.LANCZOS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as e:
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise InputError(f"{path}: more than the {limit} that are safe to decode; make it smaller, or remove it") from e
    except MemoryError:
        raise
    except Exception as e:  # the readers of Pillow's formats raise errors of many kinds
        why = e.strerror if isinstance(e, OSError) and e.strerror else reason(e).replace(str(path), "it")
        raise InputError(f"{path}: not a whole picture of a kind that Pillow opens ({why}); repair or remove it") from e
    return np.asarray(image).reshape(H, W, C)
