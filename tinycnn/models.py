"""The three networks of the study (SAME padding, a ReLU after every convolution and hidden dense layer).

stl10 and cifar10: conv 5x5, 96 - pool 3x3/2 - conv 3x3, 96 - pool 3x3/2 - 384 - 192 - classes
mnist:             conv 5x5, 32 - pool 2x2/2 - conv 5x5, 64 - pool 2x2/2 - 1024 - dropout - classes

And one of another kind for each of their images, to judge what they generate: narrow, deep, without a hidden layer.

deep:              conv 3x3, 32, 64 and 128, each with a pool 2x2/2 - dropout - classes
"""

from .errors import choose
from .layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
from .network import Network

INPUT_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "stl10": (96, 96, 3)}


def _block(i, filters, kernel, window):
    return [Conv2D(f"conv{i}", filters, kernel), ReLU(f"relu{i}"), MaxPool2D(f"pool{i}", window, 2)]


def layers(name, classes=10, dropout=0.0):
    """Return the layer specs of a model: "mnist", "cifar10" or "stl10"; see `build`."""
    if choose(name, INPUT_SHAPES, "model") == "mnist":
        return [
            *_block(1, 32, 5, 2),
            *_block(2, 64, 5, 2),
            Flatten("flatten"),
            *(Dense("fc1", 1024), ReLU("relu3"), Dropout("dropout", dropout)),
            Dense("fc2", classes),
        ]
    return [
        *_block(1, 96, 5, 3),
        *_block(2, 96, 3, 3),
        Flatten("flatten"),
        *(Dense("fc1", 384), ReLU("relu3")),
        *([Dropout("dropout", dropout)] if dropout else []),
        *(Dense("fc2", 192), ReLU("relu4")),
        Dense("fc3", classes),
    ]


def deep_layers(classes=10, dropout=0.0):
    """Return the layer specs of "deep"; see `build`."""
    blocks = [layer for i, filters in enumerate((32, 64, 128)) for layer in _block(i + 1, filters, 3, 2)]
    return [*blocks, Flatten("flatten"), Dropout("dropout", dropout), Dense("fc1", classes)]


def build(name, backend="auto", seed=0, dtype="float32", classes=10, dropout=0.0, meta=None, deep=False):
    """Build one of the study's networks with fresh weights.

    Parameters
    ----------
    name : "mnist", "cifar10" or "stl10"
    backend : "auto", "reference", "cpu" or "gpu"
    seed : int
    dtype : "float32" or "float64"
    classes : int
        The number of logits.
    dropout : float
        Share of fc1's units that a training step drops; the study drops none. The other two networks have a layer
        for it only if it is not 0.
    meta : dict of str, optional
        Saved with the network.
    deep : bool
        Build "deep" for the same images instead.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        Unknown model, backend or dtype.
    """
    specs = layers(name, classes, dropout)  # refuses an unknown name
    return Network(
        deep_layers(classes, dropout) if deep else specs,
        INPUT_SHAPES[name],
        backend=backend,
        seed=seed,
        dtype=dtype,
        meta={"model": f"deep, for {name}" if deep else name, **(meta or {})},
    )
