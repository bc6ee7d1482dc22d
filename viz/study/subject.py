"""What a stage may use: a trained network, the images, and what its row of the table asks for besides."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from tinycnn import Network, streams
from tinycnn.layers import BatchNorm, Conv2D, ReLU

SHOWN = 6  # images in a figure that compares methods image by image


@dataclass(frozen=True)
class Study:
    """What every stage may use, and, in the second half, what only a stage that asks for it gets.

    Attributes
    ----------
    net : Network
    info : tinycnn.data.DatasetInfo
    images, labels : arrays
        Training images, uint8 (N, H, W, C), and labels (N,).
    test_images, test_labels : arrays
        Images that training never saw.
    masks : bool array (N_val, H, W) or None
        The object's pixels in the test images, where they are known.
    seed : int
    history : History or None
        Of the training ("history").
    recipe : str
        How the network was trained, in words ("history").
    protocol : str
        What its accuracy was measured on meanwhile: see `sets.PROTOCOLS` ("history").
    held_out : int
        How many images the step that is kept was chosen on; 0 where none was chosen ("history").
    histories : dict of str to History
        Of the other recipes that were trained into this folder ("history").
    judges : dict of str to Network
        Trained apart: "another seed" and "another architecture", those of them that are good enough ("judges").
    about_judges : dict
        How good each of them is: see `judges.known` ("judges").
    frozen : Network or None
        Trained alike, but for its first layer, which stayed as it started ("frozen").
    effort : float
        In (0, 1]: the share of its iterations that an ascent takes; below 1 where training was cut short as well
        ("effort").
    without : array or None
        The test images without the planted shortcut ("planted").
    evidence : bool array (N_val, H, W) or None
        The shortcut's pixels; None where it has no place ("planted").
    """

    net: object
    info: object
    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    masks: np.ndarray | None
    seed: int
    history: object = None
    recipe: str = ""
    protocol: str = ""
    held_out: int = 0
    histories: dict = field(default_factory=dict)
    judges: dict = field(default_factory=dict)
    about_judges: dict = field(default_factory=dict)
    frozen: object = None
    effort: float = 1.0
    without: np.ndarray | None = None
    evidence: np.ndarray | None = None

    @cached_property
    def untrained(self):
        """The network as it was before its training."""
        net = self.net
        return Network(
            net.layers, net.input_shape, backend=net.ops.name, seed=self.seed, dtype=net.dtype.name, meta=net.meta
        )

    @property
    def rectified(self):
        """(layer, the ReLU after it) of each that has one, a BatchNorm between them or not."""
        layers = [layer for layer in self.net.layers if not isinstance(layer, BatchNorm)]
        return [(a, b) for a, b in pairwise(layers) if isinstance(b, ReLU)]

    @property
    def convs(self):
        """Each convolution's name with that of the ReLU after it: {"conv1": "relu1", ...}."""
        return {a.name: b.name for a, b in self.rectified if isinstance(a, Conv2D)}

    @property
    def hidden(self):
        """The last hidden layer, after its ReLU: the features of an image."""
        return [layer.name for layer in self.net.layers if isinstance(layer, ReLU)][-1]

    @property
    def output(self):
        """The layer of the class scores (logits)."""
        return self.net.layer_names[-1]

    @property
    def zero(self):
        """The colour of 0 in a drawing of signed values."""
        return "mid-grey" if self.info.shape[2] == 3 else "white"

    def name(self, label):
        """Return the class name of a label, in words."""
        return self.names[int(label)]

    @cached_property
    def names(self):
        """The class names, in words, in the order of the labels; as they are where words are the same of two."""
        words = [" ".join(str(name).replace("_", " ").split()) for name in self.info.classes]
        return words if len(set(words)) == len(words) else list(map(str, self.info.classes))

    def rng(self, stage):
        """Return the generator of a stage."""
        return streams.rng(self.seed, f"stage {stage}")

    def examples(self):
        """Return the indices of `SHOWN` test images: the first of each of as many classes."""
        firsts = np.sort([np.flatnonzero(self.test_labels == c)[0] for c in np.unique(self.test_labels)])
        return np.concatenate([firsts, np.setdiff1d(np.arange(len(self.test_labels)), firsts)])[:SHOWN]

    def sample(self, stage, count):
        """Return the indices of `count` random test images, at most, in order."""
        return np.sort(self.rng(stage).permutation(len(self.test_images))[:count])

    def examples_and_more(self, stage, count):
        """Return the indices of the `examples` and, after them, of random test images, `count` together, at most."""
        shown = self.examples()
        rest = np.setdiff1d(self.rng(stage).permutation(len(self.test_images)), shown, assume_unique=True)
        return np.concatenate([shown, rest])[:count]
