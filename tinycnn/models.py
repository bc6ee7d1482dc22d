"""The three networks of the study (SAME padding, a ReLU after every convolution and hidden dense layer).

stl10 and cifar10: conv 5x5, 96 - pool 3x3/2 - conv 3x3, 96 - pool 3x3/2 - 384 - 192 - classes
mnist:             conv 5x5, 32 - pool 2x2/2 - conv 5x5, 64 - pool 2x2/2 - 1024 - dropout - classes

And one of another kind for each of their images, to judge what they generate: narrow, deep, without a hidden layer.

deep:              conv 3x3, 32, 64 and 128, each with a pool 2x2/2 - dropout - classes

And one without pools or dense layers, All-CNN-C of Springenberg et al. 2014 (arXiv:1412.6806, table 1):

all-cnn:           conv 3x3: 96, 96, 96/2, 192, 192, 192/2, 192 without padding - conv 1x1: 192, classes - mean over 6x6
"""

from .errors import choose
from .layers import Conv2D, Dense, Dropout, Flatten, GlobalAvgPool2D, MaxPool2D, ReLU
from .network import Network

INPUT_SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "stl10": (96, 96, 3), "all-cnn": (32, 32, 3)}
STUDY = ("mnist", "cifar10", "stl10")  # the study's own
ALL_CNN = (  # filters, kernel, stride, padding
    *((96, 3, 1, "SAME"), (96, 3, 1, "SAME"), (96, 3, 2, "SAME")),
    *((192, 3, 1, "SAME"), (192, 3, 1, "SAME"), (192, 3, 2, "SAME")),
    *((192, 3, 1, "VALID"), (192, 1, 1, "SAME")),
)


def _block(i, filters, kernel, window):
    return [Conv2D(f"conv{i}", filters, kernel), ReLU(f"relu{i}"), MaxPool2D(f"pool{i}", window, 2)]


def layers(name, classes=10, dropout=0.0):
    """Return the layer specs of a model: "mnist", "cifar10", "stl10" or "all-cnn"; see `build`."""
    if choose(name, INPUT_SHAPES, "model") == "all-cnn":
        return all_cnn_layers(classes, dropout)
    if name == "mnist":
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


def all_cnn_layers(classes=10, dropout=0.0):
    """Return the layer specs of "all-cnn"; see `build`."""
    found = [Dropout("dropout0", 0.4 * dropout)] if dropout else []
    for i, (*sizes, padding) in enumerate([*ALL_CNN, (classes, 1, 1, "SAME")], 1):
        found += [Conv2D(f"conv{i}", *sizes, padding), ReLU(f"relu{i}")]
        if dropout and sizes[2] == 2:
            found.append(Dropout(f"dropout{i}", dropout))
    return [*found, GlobalAvgPool2D("mean")]


def deep_layers(classes=10, dropout=0.0):
    """Return the layer specs of "deep"; see `build`."""
    blocks = [layer for i, filters in enumerate((32, 64, 128)) for layer in _block(i + 1, filters, 3, 2)]
    return [*blocks, Flatten("flatten"), Dropout("dropout", dropout), Dense("fc1", classes)]


def build(name, backend="auto", seed=0, dtype="float32", classes=10, dropout=0.0, meta=None, deep=False):
    """Build one of the study's networks, or All-CNN-C, with fresh weights.

    Parameters
    ----------
    name : "mnist", "cifar10", "stl10" or "all-cnn"
    backend : "auto", "reference", "cpu" or "gpu"
    seed : int
    dtype : "float32" or "float64"
    classes : int
        The number of logits.
    dropout : float
        Share of fc1's units that a training step drops; the study drops none. The other networks have a layer for it
        only if it is not 0. In all-cnn: of the maps of each convolution of stride 2, and 2/5 of it of the pixels; the
        paper's is 0.5 (and 0.2).
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
