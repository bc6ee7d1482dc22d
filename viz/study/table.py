"""The stages of the study, a row each, in the order of the report.

A stage is a file ``stages/NAME.py`` with a function ``run(study) -> (pictures, facts)``, a template ``words/NAME.txt``
that says what the facts mean, and a row here. It computes with the looking rooms of `viz`, draws with `viz.figures`,
and takes its random numbers from the study's seed and its own name alone, so that it gives the same with or without
the others. Listing the stages imports none of them.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """A row of the table.

    Attributes
    ----------
    name : str
        Of the stage's folder, module and template.
    heading : str
        In the report.
    about : str
        What it shows, in a sentence: in the report and in ``--list``.
    seconds : tuple of 3 floats
        What it usually takes on two cores, with the study's networks for MNIST, CIFAR-10 and STL-10.
    uses : tuple of "history", "judges", "frozen", "effort"
        What it gets of a `Study` besides network, images and seed; all of it is part of its fingerprint.
    over : "network" or "networks"
        "networks": it is done once, after the studies of all seeds, and gets a `viz.study.networks.Networks`.
    sets : tuple of str, optional
        The data sets of which it is done unasked, where not of all: elsewhere it takes long; ``--only`` does it.
    module, words : str, optional
        Its module and its template, if they stand elsewhere.
    """

    name: str
    heading: str
    about: str
    seconds: tuple
    uses: tuple = ()
    over: str = "network"
    sets: tuple | None = None
    module: str = ""
    words: str = ""

    def __post_init__(self):
        object.__setattr__(self, "module", self.module or f"viz.study.stages.{self.name}")
        object.__setattr__(self, "words", self.words or str(Path(__file__).parent / "words" / f"{self.name}.txt"))

    def usual(self, dataset):
        """Whether it is done of a data set without being asked for."""
        return self.sets is None or dataset in self.sets

    def run(self, study):
        """Return (pictures, facts) of a `Study`."""
        return importlib.import_module(self.module).run(study)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "training_curve",
            "Training curve",
            "Loss and accuracies over the steps; which classes are taken for which.",
            (3, 6, 13),
            ("history",),
        ),
        Stage(
            "activation_maps",
            "Activation maps",
            "Every map of each convolution, after its ReLU, for test image 0.",
            (0.5, 0.5, 0.5),
        ),
        Stage("filters", "Filters", "The weights of the first convolution.", (0.2, 0.2, 0.2)),
        Stage(
            "maximal_activation_maps",
            "Maximal activation maps (deconvnet)",
            "The strongest map of each image, projected back to the pixels by a deconvnet, with and without switches.",
            (0.5, 0.5, 0.5),
        ),
        Stage(
            "unpooling",
            "Ways to unpool",
            "Three ways to undo a max-pool on the way back, and how well each follows the edges of the image.",
            (1, 2, 10),
        ),
        Stage(
            "strongest_maps",
            "Strongest maps",
            "Which map is the strongest for how many images, and the nine patches that excite each of the first most.",
            (2, 4, 14),
        ),
        Stage("saliency", "Saliency", "The gradient of the class scores with respect to the pixels.", (0.5, 0.5, 0.5)),
        Stage(
            "layer_backprop",
            "Back-propagation from a layer",
            "The gradients of every map of a layer with respect to the pixels, put together.",
            (0.5, 0.5, 1),
        ),
        Stage(
            "tsne",
            "t-SNE",
            "t-SNE of the last hidden layer: a scatter by class and two mosaics, for all classes and for three.",
            (7, 10, 14),
        ),
        Stage(
            "neighbors",
            "Nearest neighbours",
            "The seven nearest images in pixels and in features, and how often they have the query's class.",
            (8, 8, 40),
        ),
        Stage(
            "maximization",
            "Activation maximization",
            "Images made to excite classes and hidden units, way by way, and whether other networks recognise them.",
            (40, 60, 380),
            ("judges", "effort"),
        ),
        Stage(
            "ablation",
            "One factor at a time",
            "The ascent with one factor changed, and our recipe with one part left out, judged alike.",
            (30, 45, 280),
            ("judges", "effort"),
            sets=(),
        ),
        Stage(
            "summary",
            "Over networks",
            "Every number as a mean over networks that differ in their seed alone, with its interval.",
            (1, 1, 1),
            over="networks",
        ),
    )
}
