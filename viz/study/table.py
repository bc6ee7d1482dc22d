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
    uses : tuple of "history", "judges", "frozen", "effort", "planted"
        What it gets of a `Study` besides network, images and seed; all of it is part of its fingerprint.
    of : str
        The stage of which it puts together what it found of each network; done where each has it ("networks").
    over : "network" or "networks"
        "networks": it is done once, after the studies of all seeds, and gets a `viz.study.networks.Networks`.
    sets : tuple of str, optional
        The data sets of which it is done unasked, where not of all: elsewhere it takes long; ``--only`` does it.
    open : bool
        Whether its numbers are the point of it: in the report their tables lie open.
    papers : tuple of (text, address)
        Where its methods come from; the address of what is not on the web is empty.
    module, words : str, optional
        Its module and its template, if they stand elsewhere.
    """

    name: str
    heading: str
    about: str
    seconds: tuple
    uses: tuple = ()
    over: str = "network"
    of: str = ""
    sets: tuple | None = None
    open: bool = False
    papers: tuple = ()
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


ARXIV = "https://arxiv.org/abs/"
ZEILER = ("Zeiler and Fergus 2013", ARXIV + "1311.2901")
SIMONYAN = ("Simonyan et al. 2013", ARXIV + "1312.6034")
SPRINGENBERG = ("Springenberg et al. 2014", ARXIV + "1412.6806")
YOSINSKI = ("Yosinski et al. 2015", ARXIV + "1506.06579")
MAHENDRAN = ("Mahendran and Vedaldi 2016", ARXIV + "1512.02017")
ADEBAYO = ("Adebayo et al. 2018 (controls)", ARXIV + "1810.03292")
POINTING = ("Zhang et al. 2016 (pointing game)", ARXIV + "1608.00507")
KRIZHEVSKY = (
    "Krizhevsky et al. 2012",
    "https://proceedings.neurips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
)
ERHAN = ("Erhan et al. 2009, report 1341 of the University of Montreal", "")
ADAM = ("Kingma and Ba 2014 (Adam)", ARXIV + "1412.6980")
GLOROT = ("Glorot and Bengio 2010 (start)", "https://proceedings.mlr.press/v9/glorot10a.html")
WILSON = ("Wilson 1927 (intervals)", "https://doi.org/10.1080/01621459.1927.10502953")
STUDENT = ("Student 1908 (intervals)", "https://doi.org/10.1093/biomet/6.1.1")
TSNE = ("van der Maaten and Hinton 2008", "https://www.jmlr.org/papers/v9/vandermaaten08a.html")
KARPATHY = ("Karpathy 2014 (mosaics)", "https://cs.stanford.edu/people/karpathy/cnnembed/")

STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "training_curve",
            "Training curve",
            "Loss and accuracies over the steps; which classes are taken for which.",
            (3, 6, 13),
            ("history",),
            papers=(ADAM, GLOROT, WILSON),
        ),
        Stage(
            "learned",
            "What training changed",
            "What each layer's learning is worth: the accuracy with that layer set back to its start.",
            (1, 4, 40),
            papers=(WILSON, STUDENT),
        ),
        Stage(
            "frozen",
            "Did the first layer have to learn?",
            "The same training with the first layer kept as it started.",
            (1, 2, 20),
            ("frozen",),
            sets=("digits", "shapes", "mnist"),
        ),
        Stage(
            "activation_maps",
            "Activation maps",
            "Every map of each convolution, after its ReLU, for test image 0, and what single maps tell of an image.",
            (1, 2, 12),
            papers=(ZEILER, YOSINSKI),
        ),
        Stage(
            "filters",
            "Filters",
            "The filters of the first convolution, beside their start.",
            (0.3, 0.5, 0.5),
            papers=(KRIZHEVSKY,),
        ),
        Stage(
            "maximal_activation_maps",
            "Maximal activation maps (deconvnet)",
            "The strongest map of each image, projected back to the pixels by a deconvnet, with and without switches.",
            (0.5, 2, 8),
            papers=(ZEILER, SPRINGENBERG),
        ),
        Stage(
            "unpooling",
            "Ways to unpool",
            "Three ways to undo a max-pool on the way back, and from which of them an image can be told.",
            (1, 4, 25),
            papers=(ZEILER, SPRINGENBERG, STUDENT),
        ),
        Stage(
            "strongest_maps",
            "Strongest maps",
            "Which map is the strongest for how many images, and the nine patches that excite each of the first most.",
            (2, 5, 25),
            papers=(ZEILER, ADEBAYO),
        ),
        Stage(
            "saliency",
            "Saliency",
            "The gradient of the class scores with respect to the pixels.",
            (0.8, 3, 12),
            papers=(SIMONYAN, POINTING, ADEBAYO),
        ),
        Stage(
            "layer_backprop",
            "Back-propagation from a layer",
            "The gradients of every map of a layer with respect to the pixels, put together, and what they show.",
            (2, 8, 50),
            papers=(SIMONYAN, SPRINGENBERG, POINTING),
        ),
        Stage(
            "tsne",
            "t-SNE",
            "t-SNE of the last hidden layer: a scatter by class and a mosaic, for all classes and for three.",
            (13, 19, 24),
            papers=(TSNE, KARPATHY),
        ),
        Stage(
            "neighbors",
            "Nearest neighbours",
            "The seven nearest images in pixels and in features, and what they share with the query.",
            (11, 14, 70),
            papers=(KRIZHEVSKY, STUDENT),
        ),
        Stage(
            "maximization",
            "Activation maximization",
            "Images made to excite classes and hidden units, way by way, and whether other networks recognise them.",
            (40, 60, 380),
            ("judges", "effort"),
            papers=(ERHAN, SIMONYAN, YOSINSKI, MAHENDRAN),
        ),
        Stage(
            "ablation",
            "One factor at a time",
            "The ascent with one factor changed, and our recipe with one part left out, judged alike.",
            (30, 45, 280),
            ("judges", "effort"),
            sets=(),
            papers=(YOSINSKI, MAHENDRAN),
        ),
        Stage(
            "rules",
            "Ways back, and where they part",
            "Gradient, deconvnet and guided backprop are points of one lattice of rules; all of it on the same images.",
            (2, 3, 20),
            sets=(),
            papers=(SIMONYAN, ZEILER, SPRINGENBERG),
        ),
        Stage(
            "ties",
            "What if a tie went the other way?",
            "How often pools and ReLUs tie, and how far every method's map moves when ties go another way.",
            (15, 30, 200),
            sets=(),
        ),
        Stage(
            "scorecard",
            "Which method to believe",
            "Every method of attribution on the same images, by every metric, beside maps of no network.",
            (60, 250, 1500),
            sets=(),
            papers=(POINTING, ADEBAYO),
        ),
        Stage(
            "shortcut",
            "Does a map go where the evidence was put?",
            "A planted shortcut that the network uses: what its answers become without it, and which maps find it.",
            (60, 60, 60),
            ("planted",),
            sets=("shapes-corner", "shapes-texture", "shapes-color"),
            papers=(ADEBAYO,),
        ),
        Stage(
            "summary",
            "Over networks",
            "Every number as a mean over networks that differ in their seed alone, with its interval.",
            (1, 1, 1),
            over="networks",
            papers=(STUDENT,),
        ),
        Stage(
            "scorecard_over_networks",
            "Which method to believe, over networks",
            "Every method by every metric, over networks, and its difference to the gradient.",
            (1, 1, 1),
            over="networks",
            of="scorecard",
            open=True,
            papers=(STUDENT,),
        ),
        Stage(
            "shortcut_over_networks",
            "Does a map go where the evidence was put? Over networks",
            "Every method by whether it finds the planted shortcut, over networks, beside networks that never saw one.",
            (1, 1, 1),
            over="networks",
            of="shortcut",
            open=True,
            papers=(STUDENT,),
        ),
    )
}
