"""Networks that had no part in an image say what it shows: one of another seed, one of another architecture.

An image that convinces only the network it was made with shows that network's blind spots. One that networks of
another seed and of another architecture both name as well has something of the class in it: it is recognised.
"""

import numpy as np
from scipy.special import softmax

from tinycnn import files, streams

JUDGES = {"another seed": False, "another architecture": True}  # whether it is `models.build`'s deep network
PARTS = {f"judge-{files.slug(name)}": name for name in JUDGES}  # of a study, and of the names of their files


def seed(of, name):
    """Return the seed of a judge of the network with seed `of`: that of no network of a study, and no other judge's."""
    return streams.seed(of, "judge", list(JUDGES).index(name))


def known(accuracies, info):
    """Return what is known of judges {name: interval of the accuracy on test images}, and whether they judge.

    One that errs often says little about an image: the lower end of its interval has to lie above chance + 0.55
    (1 - chance), 59.5 % of ten classes.
    """
    chance = 1 / len(info.classes)
    least = chance + 0.55 * (1 - chance)
    return {name: {"accuracy": vars(a), "judges": a.low > least, "least": least} for name, a in accuracies.items()}


def judge(s, way):
    """Return what is known of a way's images: {name: array (classes,)}.

    The score, the studied network's confidence (softmax) in the class for the images as made and as shown, the total
    variation of the shown ones, each judge's confidence, and whether all judges name the class ("recognised"; only if
    there are judges).
    """
    verdict = {
        "score": way.scores,
        "confidence_as_made": confidence(s.net, way.raw),
        "confidence_as_shown": confidence(s.net, way.shown),
        "total_variation": variation(way.shown),
    }
    for name, net in s.judges.items():
        verdict[f"confidence_of_{name}"] = confidence(net, way.shown)
    if s.judges:
        verdict["recognised"] = np.all([named(net, way.shown) for net in s.judges.values()], axis=0)
    return verdict


def means(verdict):
    """Return a verdict's means over the classes; of what is recognised the count."""
    return {name: v.sum() if name == "recognised" else v.mean() for name, v in verdict.items()}


def confidence(net, x):
    """Return the softmax of the class that each image (classes, H, W, C) was made for, (classes,)."""
    return softmax(net.logits(x).astype(np.float64), axis=1).diagonal()


def named(net, x):
    """Return whether that class is the network's answer, (classes,)."""
    return net.predict(x) == np.arange(len(x))


def variation(x):
    """Return the mean absolute difference between neighbouring pixels of each image, down and right together."""
    return sum(np.abs(np.diff(x, axis=axis)).mean((1, 2, 3), dtype=np.float64) for axis in (1, 2))
