"""What the caller did wrong, in one line; and the checks that every public function shares."""

import numpy as np


class InputError(ValueError):
    """A file, an argument or an array is not what it should be: says what, where and what to do.

    ``run_all.py`` prints its text and exits with status 2; any other exception is a fault of the
    program and keeps its traceback. Whatever it quotes, its text is one line that can be printed, and
    no longer than a screen: of more the middle is left out.
    """

    def __str__(self):
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())
        return text if len(text) < 1000 else f"{text[:700]} [...] {text[-250:]}"


def as_array(value, what, dtype=None):
    """Return `value` as an array, or raise an InputError: rows of several lengths, or what is no `dtype`."""
    try:
        return np.asarray(value, dtype)
    except (ValueError, TypeError) as e:
        raise InputError(f"{what}: expected an array, got {shown(value)}") from e


def is_number(value, whole=True):
    """Whether `value` is a (whole) number, Python's or NumPy's; True and False are none."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool)


def shown(value):
    """Return `value` as an error's line shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}\N{HORIZONTAL ELLIPSIS}"


def check_images(images, shape=None, what="images"):
    """Raise unless `images` is a batch that a network takes.

    Parameters
    ----------
    images : array (N, H, W, C)
        uint8 in [0, 255], or finite float (in [0, 1] for photographs).
    shape : tuple (H, W, C), optional
        The shape that one image must have.
    what : str
        The name of the argument in the message.

    Returns
    -------
    numpy.ndarray
        `images` itself, as an array.

    Raises
    ------
    InputError
        Wrong number of dimensions, shape, dtype, or a value that is NaN or infinite.
    """
    images = as_array(images, what)
    if images.ndim != 4:
        raise InputError(
            f"{what}: expected an array of shape (N, H, W, C), got {images.shape}; "
            "one image needs a leading axis: image[None]"
        )
    if shape is not None and images.shape[1:] != tuple(shape):
        raise InputError(
            f"{what}: expected images of shape (H, W, C) = {tuple(shape)}, got {images.shape[1:]}; "
            "resize them, or build a network for this shape"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"{what}: expected dtype uint8 or float, got {images.dtype}; convert with .astype")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        bad = int((~np.isfinite(images)).reshape(len(images), -1).any(1).argmax())
        raise InputError(f"{what}: image {bad} holds NaN or infinite values; remove it or repair it")
    return images


PIXELS = (
    "give uint8 from 0 to 255: images.astype(np.uint8), or (255 * images).round().astype(np.uint8) where they run from "
    "0 to 1"
)


def check_photographs(images, shape=None, what="images"):
    """Raise unless `images` are photographs: as `check_images`, but floats must not be whole numbers above 1.

    Those are pixels from 0 to 255, which a network would take 255 times too bright.
    """
    images = check_images(images, shape, what)
    if images.dtype.kind == "f" and images.max(initial=0) > 1 and (images == np.rint(images)).all():
        raise InputError(f"{what}: whole numbers up to {images.max():g} as {images.dtype}; {PIXELS}")
    return images


def check_labels(labels, N, classes, what="labels"):
    """Raise unless `labels` are `N` integers in [0, `classes`); return them as int64 (N,)."""
    labels = as_array(labels, what)
    if labels.shape != (N,) or labels.dtype.kind not in "iu":
        raise InputError(f"{what}: expected {N} integers, got shape {labels.shape} of {labels.dtype}")
    if N and not (0 <= labels.min() and labels.max() < classes):
        raise InputError(
            f"{what}: values from {labels.min()} to {labels.max()}, but the network has classes 0 to {classes - 1}"
        )
    return labels.astype(np.int64)


def is_whole(value, least=1):
    """Whether a value is a whole number, Python's or NumPy's, of at least `least`; True and False are none."""
    return is_number(value) and value >= least


def check_whole(value, what, least=1):
    """Return a value that `is_whole` as an int of any size, or raise an InputError."""
    if not is_whole(value, least):
        raise InputError(f"{what}: expected a whole number of at least {least}, got {shown(value)}")
    return int(value)


def check_seed(seed):
    """Return `seed` as an int; see `check_whole`."""
    return check_whole(seed, "seed", 0)


def reason(error):
    """Return the text of another library's error in one line; of one that quotes bytes of a file its kind alone."""
    text = " ".join(str(error).split())
    quotes = "\\x" in text or "b'" in text or 'b"' in text
    return text if text.isprintable() and 0 < len(text) < 200 and not quotes else type(error).__name__


def one_of(allowed):
    """Say what there is to choose from."""
    return f"choose one of: {', '.join(map(str, allowed))}" if allowed else "there is none"


def choose(value, allowed, what):
    """Return `value` if it is in `allowed`, else raise an InputError that lists what is."""
    if isinstance(value, np.ndarray) or value not in list(allowed):  # also what has no hash
        raise InputError(f"unknown {what} {shown(value)}; {one_of(allowed)}")
    return value
