"""How to train on each data set: the study's own way, one that gets further in fewer steps, and one that goes on.

``RECIPES[kind][data set]``. What the fast and the best ones add to Adam is known in the field: a larger rate that
rises and falls once (Smith and Topin 2017, arXiv:1708.07120), decoupled weight decay (Loshchilov and Hutter 2017,
arXiv:1711.05101), dropout (Srivastava et al. 2014), images moved and flipped, a running mean of the weights (Polyak and
Juditsky 1992).
"""

from dataclasses import dataclass, replace

from tinycnn import data, optim, train


@dataclass(frozen=True)
class Recipe:
    """How to train on a data set: Adam with softmax cross-entropy, and what else `tinycnn.train.fit` can switch on.

    Attributes
    ----------
    steps, eval_every : int
        Steps of training, and steps between two measurements of the accuracies.
    lr : float
        The (largest) rate.
    batch_size : int
    schedule : str
        Of the rate.
    decay : float
        Of the weights.
    dropout : float
        Share of fc1's units.
    shift, flip : int, bool
        How the images are changed.
    average : float
        Share of the steps over which the weights are averaged; 0: not at all.
    """

    steps: int
    eval_every: int
    lr: float = 1e-4
    batch_size: int = 100
    schedule: str = "constant"
    decay: float = 0.0
    dropout: float = 0.0
    shift: int = 0
    flip: bool = False
    average: float = 0.0

    def __str__(self):
        extras = [
            f"{self.schedule} schedule" if self.schedule != "constant" else "",
            f"weight decay {self.decay:g}" if self.decay else "",
            f"dropout {self.dropout:g}" if self.dropout else "",
            f"moved by up to {self.shift} pixels" if self.shift else "",
            "flipped" if self.flip else "",
            f"weights averaged over {100 * self.average:g} % of the steps" if self.average else "",
        ]
        return ", ".join([f"Adam {self.lr:g}", f"batches of {self.batch_size}", *filter(None, extras)])

    def fit(self, net, images, labels, val, *, seed, steps=None, **kwargs):
        """Train `net` by this recipe, for `steps` if given; the others as in `tinycnn.train.fit`."""
        steps = steps or self.steps
        return train.fit(
            net,
            images,
            labels,
            val,
            steps=steps,
            batch_size=min(self.batch_size, len(images)),
            optimizer=optim.Adam(self.lr, decay=self.decay),
            schedule=self.schedule,
            augment=train.Augment(self.shift, self.flip),
            average=round(self.average * steps),
            seed=seed,
            eval_every=self.eval_every,
            **kwargs,
        )


COLOR = {"lr": 1e-3, "schedule": "one-cycle", "decay": 0.01, "dropout": 0.3, "flip": True, "average": 0.05}
RECIPES = {
    "study": {
        # Ours, as these two sets are. Digits: so that the first convolution has to learn in so few steps. Rate,
        # schedule and moves were chosen on held-out images and the seeds 100 to 104: with conv1 back at its start
        # the network loses 15 points there (rate 0.005: 9; moved by 2 pixels: 9). At a constant rate of 0.005 it
        # loses 44, but then most maps of conv2 are dead.
        "digits": Recipe(150, 25, lr=8e-3, schedule="one-cycle", shift=4),
        "shapes": Recipe(1500, 100, lr=5e-4),  # at 1e-4 it would take far longer
        "mnist": Recipe(1001, 100),
        "cifar10": Recipe(30001, 500),
        "stl10": Recipe(2001, 100),
    },
    "fast": {
        "digits": Recipe(300, 100, lr=1e-3, schedule="one-cycle", dropout=0.4, shift=2, average=0.05),
        "shapes": Recipe(800, 100, **COLOR),
        "mnist": Recipe(400, 50, lr=2e-3, schedule="one-cycle", dropout=0.4, shift=1, average=0.05),
        "cifar10": Recipe(3000, 250, shift=2, **COLOR),
        "stl10": Recipe(700, 100, shift=6, **COLOR),
    },
}

RECIPES["best"] = RECIPES["fast"] | {
    "mnist": Recipe(4000, 200, lr=2e-3, schedule="one-cycle", dropout=0.5, shift=2, average=0.05),
    "cifar10": Recipe(14000, 500, shift=3, **COLOR | {"decay": 0.05, "dropout": 0.4}),
}

REPORTED = {  # by the study, of its own runs of the study's recipes: ("roughly" this accuracy, steps, remark)
    "mnist": (0.98, 1001, ""),
    "cifar10": (0.74, 30001, ""),
    "stl10": (
        0.93,
        2001,
        "not credible as an accuracy on images that training never saw, for this network and so few images; it is what "
        "the accuracy on the training images does",
    ),
}

FROZEN = "frozen-first-layer"  # the part of a study that trains the network again, its first layer as it started
JUDGE_STEPS = {"digits": 120, "shapes": 800, "mnist": 400, "cifar10": 1500, "stl10": 400}


def judge(info, effort=1.0):
    """Return how each network is trained that judges generated images, by recipe "fast"; `effort` is a share of it."""
    steps = max(1, round(effort * JUDGE_STEPS[_known(info)]))
    return replace(recipe("fast", info), steps=steps, eval_every=steps)


def recipe(kind, info):
    """Return the recipe of a data set; a folder of images takes that of the set whose network it takes.

    Shapes with a planted shortcut are trained as those without.
    """
    return RECIPES[kind][_known(info)]


def _known(info):
    known = info.name in data.NAMES and info == data.info(info.name)
    return ("shapes" if info.name in data.MADE else info.name) if known else info.model
