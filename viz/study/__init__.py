"""What the study is made of: its data, what a stage may use, and the table of stages.

``STAGES[name](study) -> (pictures, metrics)``, in the order of the report. A stage draws its random numbers from the
study's seed and its own name alone, so that it gives the same with or without the others.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tinycnn import data, streams
from tinycnn.layers import Conv2D, ReLU

from .recipes import Recipe
from .stages import ascent, backprop, deconv, network, space

SHOWN = 6  # images in a figure that compares methods image by image


PROTOCOLS = ("study", "official")  # of STL-10: see `load`

STAGES = {
    "training_curve": network.training_curve,
    "activation_maps": network.activation_maps,
    "filters": network.filters,
    "maximal_activation_maps": deconv.maximal_activation_maps,
    "unpooling": deconv.unpooling,
    "strongest_maps": deconv.strongest_maps,
    "saliency": backprop.saliency,
    "layer_backprop": backprop.layer_backprop,
    "tsne": space.tsne,
    "neighbors": space.neighbors,
    "maximization": ascent.maximization,
}


@dataclass(frozen=True)
class Study:
    """What every stage may use: a trained network, its history, the images, and the seed.

    Attributes
    ----------
    net : Network
    info : tinycnn.data.DatasetInfo
    images, labels : arrays
        Training images, uint8 (N, H, W, C), and labels (N,).
    val_images, val_labels : arrays
        Images that training never saw.
    masks : bool array (N_val, H, W) or None
        The object's pixels in the validation images, where they are known.
    history : History or None
    recipe : Recipe
    histories : dict of str to History
        Of all recipes that this folder has seen, this one's included.
    seed : int
    judges : dict of str to Network
        Trained apart: "another seed" and "another architecture". They say what a generated image shows.
    effort : float
        In (0, 1]: the share of its iterations that an ascent takes. Below 1 where training was cut short as well.
    """

    net: object
    info: object
    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    masks: np.ndarray | None
    history: object
    recipe: Recipe
    histories: dict
    seed: int
    judges: dict = field(default_factory=dict)
    effort: float = 1.0

    @property
    def convs(self):
        """Each convolution's name with that of the ReLU after it: {"conv1": "relu1", ...}."""
        layers = self.net.layers
        return {a.name: b.name for a, b in pairwise(layers) if isinstance(a, Conv2D) and isinstance(b, ReLU)}

    @property
    def hidden(self):
        """The last hidden layer, after its ReLU: the features of an image."""
        return [layer.name for layer in self.net.layers if isinstance(layer, ReLU)][-1]

    @property
    def output(self):
        """The layer of the class scores (logits)."""
        return self.net.layer_names[-1]

    @property
    def made(self):
        """A sentence on the network, for captions."""
        steps = f"{self.history.steps:,} steps, " if self.history is not None else ""
        return f"Network: the study's {self.info.model} model, trained on {self.info.title} ({steps}seed {self.seed})."

    def name(self, label):
        """Return the class name of a label, in words."""
        return str(self.info.classes[int(label)]).replace("_", " ")

    def rng(self, stage):
        """Return the generator of a stage."""
        return streams.rng(self.seed, stage)

    def examples(self):
        """Return the indices of `SHOWN` validation images: the first of each of as many classes."""
        firsts = np.sort([np.flatnonzero(self.val_labels == c)[0] for c in np.unique(self.val_labels)])
        return np.concatenate([firsts, np.setdiff1d(np.arange(len(self.val_labels)), firsts)])[:SHOWN]


def load(name, root="data", download=False, protocol="study"):
    """Return (info, images, labels, validation images, validation labels, masks or None) of a data set.

    The study joins STL-10's 5,000 training and 8,000 test images, trains on the first 10,000 and validates on the
    last 3,000; with `protocol` "official", and for every other set, the set's own split holds. `name` is one of
    `data.NAMES`, or a path to a folder in STL-10's layout.
    """
    if name in data.NAMES:
        info = data.info(name)
        train, test = (data.load(name, split, root=root, download=download) for split in ("train", "test"))
    else:
        info = data.folder_info(name)
        train, test = (data.load_folder(name, split) for split in ("train", "test"))
    if name == "stl10" and protocol == "study":
        images, labels = (np.concatenate(both) for both in zip(train, test))
        train, test = (images[:10_000], labels[:10_000]), (images[10_000:], labels[10_000:])
    masks = data.masks(name, "test") if name == "shapes" else None
    return info, *train, *test, masks
