"""Networks that had no part in an image say what it shows: one of another seed, one of another architecture.

An image that convinces only the network it was made with shows that network's blind spots. One that networks of
another seed and of another architecture both name as well has something of the class in it: it is recognised.
"""

import numpy as np
from scipy.special import logsumexp, softmax

from tinycnn import files, streams
from viz.metrics import statistics

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
    """Return what is known of a way's images, by class: {name: array (classes,)}, the mean where a class has several.

    The studied network's confidence (softmax) in the class, for the images as made and as judged (`Way.shown`); the
    total variation of the judged ones; and of the judges the confidence of each, the mean log-odds over all, and
    whether all name the class ("recognised"). Where no judge is good enough, the last two are undefined (NaN), and so
    is all of a class without images.
    """
    nets = s.judges.values()
    each = {
        "confidence_as_made": confidence(s.net, way.raw, way.classes),
        "confidence_as_judged": confidence(s.net, way.shown, way.classes),
        "total_variation": variation(way.shown),
        **{f"confidence_of_{name}": confidence(net, way.shown, way.classes) for name, net in s.judges.items()},
        "log_odds": np.full(len(way.classes), np.nan),
        "recognised": np.full(len(way.classes), np.nan),
    }
    if s.judges:
        each["log_odds"] = np.mean([log_odds(net, way.shown, way.classes) for net in nets], axis=0)
        each["recognised"] = np.all([named(net, way.shown, way.classes) for net in nets], axis=0)
    groups = [way.classes == c for c in range(len(s.info.classes))]
    return {name: np.array([v[i].mean() if i.any() else np.nan for i in groups]) for name, v in each.items()}


def means(verdict):
    """Return a verdict's means over the classes; of what is recognised the count of classes."""
    found = {name: statistics.interval(v).mean for name, v in verdict.items()}
    return found | {"recognised": found["recognised"] * len(verdict["recognised"])}


def gain(verdict, other, comparisons=1):
    """Return the judges' log-odds of one way less those of another, paired by class, with its interval."""
    return statistics.interval(verdict["log_odds"] - other["log_odds"], comparisons)


def confidence(net, x, classes):
    """Return the softmax of the class of each image x (N, H, W, C), (N,)."""
    return softmax(net.logits(x).astype(np.float64), axis=1)[np.arange(len(x)), classes]


def log_odds(net, x, classes):
    """Return log(p_c / (1 - p_c)) = y_c - log sum_{j != c} exp(y_j), y an image's logits and c its class, (N,)."""
    y, at = net.logits(x).astype(np.float64), (np.arange(len(x)), classes)
    own = y[at]
    y[at] = -np.inf
    return own - logsumexp(y, axis=1)


def named(net, x, classes):
    """Return whether its class is the network's answer for each image, (N,)."""
    return net.predict(x) == classes


def variation(x):
    """Return the mean absolute difference between neighbouring pixels of each image, down and right together."""
    return sum(np.abs(np.diff(x, axis=axis)).mean((1, 2, 3), dtype=np.float64) for axis in (1, 2))
