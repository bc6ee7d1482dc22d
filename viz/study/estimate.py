"""How long a run will still take: what each part usually takes, times how this run compares with that so far."""

# Seconds on two cores, by the study's network: a step of training, one of the deep network, and each stage.
MODELS = ("mnist", "cifar10", "stl10")
STEP = (0.05, 0.08, 0.85)
DEEP_STEP = (0.02, 0.03, 0.25)
STAGES = {
    "training_curve": (3, 6, 13),
    "activation_maps": (0.5, 0.5, 0.5),
    "filters": (0.2, 0.2, 0.2),
    "maximal_activation_maps": (0.5, 0.5, 0.5),
    "unpooling": (1, 2, 10),
    "strongest_maps": (2, 4, 14),
    "saliency": (0.5, 0.5, 0.5),
    "layer_backprop": (0.5, 0.5, 1),
    "tsne": (7, 10, 14),
    "neighbors": (8, 8, 40),
    "maximization": (40, 60, 280),
}
BELIEF = 60  # seconds: a run counts as if so many had already gone by at the usual pace; the first parts say little


class Estimate:
    """Seconds left of a run.

    Parameters
    ----------
    parts : dict of float
        By any key: the usual seconds of each part.
    """

    def __init__(self, parts):
        self._left, self._usual, self._took = dict(parts), BELIEF, BELIEF

    def done(self, key, seconds=None):
        """Part `key` took `seconds`; None: there was nothing to do, which says nothing about the rest."""
        usual = self._left.pop(key)
        if seconds is not None:
            self._usual, self._took = self._usual + usual, self._took + seconds

    def left(self):
        """Return the seconds that the remaining parts will take if they go on as those before."""
        return self._took / self._usual * sum(self._left.values())


def parts(info, steps, judge_steps, stages, effort=1.0):
    """Return the usual seconds of a data set's parts: {(data set, part): seconds}.

    Parameters
    ----------
    info : tinycnn.data.DatasetInfo
    steps, judge_steps : int
        Of the network's training, and of each judge's.
    stages : sequence of str
        Those that will run.
    effort : float
        Of activation maximization: its share of the usual iterations.
    """
    i = MODELS.index(info.model)
    usual = {"training": steps * STEP[i], "judges": judge_steps * (STEP[i] + DEEP_STEP[i])}
    usual |= {stage: STAGES[stage][i] * (effort if stage == "maximization" else 1) for stage in stages}
    return {(info.name, part): seconds for part, seconds in usual.items()}
