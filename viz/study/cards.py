"""What methods score, {method: {metric: interval}} of each network, put together over networks, and put into words.

A number over networks is the mean of the networks' means. Methods are compared network by network, and all comparisons
of one metric hold together (Bonferroni).
"""

from math import isnan

from viz import figures
from viz.metrics import statistics
from viz.metrics.controls import CONTROLS
from viz.report import text
from viz.report.results import Picture
from viz.study import claims
from viz.study.methods import LESS, ORDER, PLACE, SHARES, STILL, slug, title

TO = "gradient"  # what each is compared with
LEAST = 3  # networks of which something is said


def values(cards, method, metric):
    """Return {seed: the mean}, NaN where it is undefined; {} where the method was not judged by this metric."""
    judged = all(metric in card.get(method, {}) for card in cards.values())
    return claims.values(cards, method, metric) if judged else {}


def over(cards):
    """Return {method: {metric: its interval over networks, with the "values"}} of cards {seed: {method: ...}}."""
    found = {}
    for method, scores in next(iter(cards.values())).items():
        some = {metric: values(cards, method, metric) for metric in scores}
        found[method] = {k: vars(statistics.over_networks(v)) | {"values": v} for k, v in some.items() if v}
    return found


def less(cards, metric, to=TO):
    """Return {method: the interval of its score less that of method `to`}, all of which hold together."""
    of = {method: values(cards, method, metric) for method in next(iter(cards.values()))}
    of = {method: some for method, some in of.items() if some}
    beside = of.pop(to, None)
    if beside is None:
        return {}
    return {method: vars(statistics.paired(some, beside, comparisons=len(of))) for method, some in of.items()}


def differences(cards):
    """Return {method: {metric: the interval of its score less the gradient's}}."""
    found = {}
    for metric in _metrics(cards):
        for method, interval in less(cards, metric).items():
            found.setdefault(method, {})[metric] = interval
    return found


def best_control(cards, metric):
    """Return the name of the map of no network that has the best mean by a metric; None where none was judged."""
    means = {name: statistics.over_networks(v).mean for name in CONTROLS if (v := values(cards, name, metric))}
    means = {name: mean for name, mean in means.items() if not isnan(mean)}
    return (min if metric in LESS else max)(means, key=means.get) if means else None


def beats(cards, method, metric):
    """Return whether a method is better by a metric than the best map of no network, for certain."""
    gain = less(cards, metric, best_control(cards, metric))[method]
    return gain["high"] < 0 if metric in LESS else gain["low"] > 0


def charts(cards, scores, apart):
    """Yield the picture of each metric: every method and control, a dot for each network, differences below."""
    for metric in _metrics(cards):
        name = {method: f"{method} (control)" if method in CONTROLS else method for method in scores}
        here = {method: found[metric] for method, found in scores.items() if metric in found}
        there = {method: found[metric] for method, found in apart.items() if metric in found}
        share = metric.removesuffix(", untrained") in SHARES
        figure = figures.intervals(
            {name[k]: interval(v) for k, v in here.items()},
            title(metric),
            f"Mean of {text.counted(len(cards), 'network')}, 95 % intervals over networks; a dot for each. Below, "
            f"differences to the {TO}, which hold all together.",
            f"{metric}, per cent" if share else metric,
            dots={name[k]: list(v["values"].values()) for k, v in here.items()},
            percent=share,
            differences={name[k]: interval(v) for k, v in there.items()},
        )
        facts = {
            "metric": metric,
            "others": len(there),
            "above": [method for method, found in there.items() if found["low"] > 0],
            "below": [method for method, found in there.items() if found["high"] < 0],
        }
        yield Picture(slug(metric), title(metric), figure, "metric", facts, group="metric", tab=metric)


def of_one(values, whose, by_chance, where=""):
    """Yield the picture of each metric, of one network: {method: {metric: its value for each image}}."""
    for metric in dict.fromkeys(name for some in values.values() for name in some):
        found = {name: statistics.interval(some[metric]) for name, some in values.items() if metric in some}
        n = max(one.n + one.undefined for one in found.values())
        chance = by_chance if metric in PLACE and metric != "AUROC" else None
        share, head = metric.removesuffix(", untrained") in SHARES, f"{title(metric)}{where}"
        figure = figures.intervals(
            found,
            head,
            f"Mean over {n} images {whose}, 95 % intervals.",
            f"{metric}, per cent" if share else metric,
            chance and (chance, "chance"),
            percent=share,
        )
        yield Picture(slug(metric), head, figure, "metric", {"metric": metric}, group="metric", tab=metric)


def said(cards, scores):
    """Return {method: {"allows", "does not"}}: a sentence on what the numbers allow, and one on what they do not."""
    if len(cards) < LEAST:
        return {}
    return {method: _said(cards, scores, method) for method in scores if method not in CONTROLS}


def _said(cards, scores, method):
    allows, denies = [], []
    for weigh in (_place, _order, _weights):
        some, none = weigh(cards, scores[method], method)
        allows += some
        denies += none
    return {
        "allows": f"It {text.listing(allows)}." if allows else "By none of this it says more than maps of no network.",
        "does not": f"But it {text.listing(denies)}."
        if denies
        else "Nothing measured here speaks against it; whether it names what the network used, planted evidence says.",
    }


def _place(cards, scores, method):
    """What may be said of where its maps lie, and what may not: two lists of parts of a sentence."""
    allows, denies = [], []
    metric, there = "pointing game", scores.get("pointing game")
    if there is None:
        return allows, denies
    control = best_control(cards, metric)
    than = f"{control}, {text.percent(scores_of(cards, control, metric), 0)}"
    share, gain = text.span_percent(there, 0), less(cards, metric, control)[method]
    if gain["low"] > 0:
        allows.append(f"points at the object in {share} of the images, more often than any map of no network ({than})")
    else:
        how = "less often than a map" if gain["high"] < 0 else "not for certain more often than a map"
        denies.append(f"points at the object in {share} of the images, {how} of no network ({than})")
    learned = scores.get(f"{metric}, gained by training")
    if learned and not learned["low"] > 0:
        share = text.percent(scores_of(cards, method, f"{metric}, untrained"), 0)
        denies.append(f"points no better than with an untrained network ({share})")
    return allows, denies


def _order(cards, scores, method):
    """The same of what the answer hangs on, beside each metric's best map of no network."""
    judged = [metric for metric in ORDER if metric in scores]
    better = [metric for metric in judged if beats(cards, method, metric)]
    not_better = [metric for metric in judged if metric not in better]
    return (
        [f"puts pixels first that the answer hangs on, by {text.listing(better)}"] if better else [],
        [f"orders pixels no better than a map of no network does, by {text.listing(not_better)}"] if not_better else [],
    )


def _weights(cards, scores, method):
    """The same of whether its maps depend on what was learned."""
    still = scores.get("all layers random: Spearman")
    if still is None:
        return [], []
    r = f"rank correlation {text.span(still)}"
    if still["low"] > STILL:
        return [], [f"stays as it was when all weights are random ({r})"]
    return ([f"changes with what was learned ({r} with maps of random weights)"] if still["high"] < STILL else []), []


def scores_of(cards, method, metric):
    """Return the mean over networks of a method, or a control, by a metric."""
    return statistics.over_networks(values(cards, method, metric)).mean


def _metrics(cards):
    """All metrics, in the order in which they first stand."""
    return list(dict.fromkeys(metric for card in cards.values() for some in card.values() for metric in some))


def interval(found):
    """Return the `statistics.Interval` of what the facts hold of one."""
    return statistics.Interval(*(found[k] for k in ("mean", "low", "high", "n")))
