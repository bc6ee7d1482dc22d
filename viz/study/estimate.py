"""How long a run will still take: what each part usually takes, times how this run compares with that so far."""

# Seconds on two cores, by the study's network: a step of training, and one of the deep network.
MODELS = ("mnist", "cifar10", "stl10")
STEP = (0.05, 0.08, 0.85)
DEEP_STEP = (0.02, 0.03, 0.25)
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
    """Return the usual seconds of a data set's parts, {part: seconds}.

    Parameters
    ----------
    info : tinycnn.data.DatasetInfo
    steps, judge_steps : int
        Of the network's training, and of each judge's; 0: without judges.
    stages : sequence of viz.study.table.Stage
        Those that will run.
    effort : float
        Of the stages that use it: their share of the usual iterations.
    """
    i = MODELS.index(info.model)
    usual = {"training": steps * STEP[i]}
    if judge_steps:
        usual["judges"] = judge_steps * (STEP[i] + DEEP_STEP[i])
    return usual | {stage.name: stage.seconds[i] * (effort if "effort" in stage.uses else 1) for stage in stages}
