"""How long a run will still take: what each part usually takes, times how this run compares with that so far."""

from tinycnn.models import STUDY

from .judges import JUDGES, PARTS
from .recipes import FROZEN

# Seconds on two cores, by the study's network: a step of training, and one of the deep network.
STEP = (0.05, 0.08, 0.85)
DEEP_STEP = (0.02, 0.03, 0.25)
BELIEF = 60  # seconds: a run counts as if so many had already gone by at the usual pace; the first parts say little


class Estimate:
    """Seconds left of a run.

    Parameters
    ----------
    parts : dict of float
        By any key: the usual seconds of each part.
    lanes : int
        How many parts are done at a time.
    """

    def __init__(self, parts, lanes=1):
        self._left, self._usual, self._took, self._lanes = dict(parts), BELIEF, BELIEF, lanes

    def done(self, key, seconds=None):
        """Part `key` took `seconds`; None: there was nothing to do, which says nothing about the rest."""
        usual = self._left.pop(key)
        if seconds is not None:
            self._usual, self._took = self._usual + usual, self._took + seconds

    def left(self):
        """Return the seconds that the remaining parts will take if they go on as those before."""
        return self._took / self._usual * sum(self._left.values()) / self._lanes


def parts(info, steps, judge_steps, stages, effort=1.0):
    """Return the usual seconds of the parts of a study of one network, {part: seconds}.

    Parameters
    ----------
    info : tinycnn.data.DatasetInfo
    steps, judge_steps : int
        Of the network's training, and of each judge's.
    stages : sequence of viz.study.table.Stage
        Those that will run.
    effort : float
        Of the stages that use it: their share of the usual iterations.
    """
    i = STUDY.index(info.model)
    usual = {"training": steps * STEP[i]}
    usual[FROZEN] = usual["training"]
    for part, name in PARTS.items():
        usual[part] = judge_steps * (DEEP_STEP if JUDGES[name] else STEP)[i]
    return usual | {stage.name: stage.seconds[i] * (effort if "effort" in stage.uses else 1) for stage in stages}
