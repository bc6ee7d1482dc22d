"""What the study says that it saw, S1 to S12, each held against what was measured: a number, a control, a verdict.

A claim is judged over networks that differ in their seed alone, by Student's interval over their means; of one network
the numbers are shown, and nothing is decided. Where the same network untrained does as well, training is not what the
claim is about.
"""

import contextlib
from dataclasses import dataclass
from math import isnan, nan

from viz.metrics import statistics
from viz.metrics.controls import CONTROLS
from viz.report import results, text

HOLDS, UNTRAINED = "holds", "holds, untrained as well"
NOT, OPEN, FEW = "does not hold", "cannot be told", "cannot be told of so few networks"
LEAST = 3  # networks that a verdict takes
MOST = 0.9  # "almost all"
HALF = 0.5
OUTLINE = "average precision"  # by which the scorecard says whether a map shows the object
NOTHING = "\N{EN DASH}"  # an undefined number


@dataclass(frozen=True)
class Row:
    """A claim, and what became of it on one data set.

    Attributes
    ----------
    id, claim : str
        Its number, and what the study says.
    stage : str
        The stage whose figures show it.
    measured : str
        What was measured.
    number, control : str
        What came out, and of what else.
    verdict : str
        One of `HOLDS`, `UNTRAINED`, `NOT`, `OPEN`, `FEW`.
    """

    id: str
    claim: str
    stage: str
    measured: str
    number: str
    control: str
    verdict: str


class Found:
    """The numbers of networks {seed: what metrics.json holds}, by their place in the stages' facts."""

    def __init__(self, metrics):
        self.metrics = metrics

    def values(self, *path):
        """{seed: number}, an interval by its mean; NaN where it is undefined.

        Raises
        ------
        KeyError
            A network has no such number: it was not measured, or by another version of this program.
        """
        return values(self.metrics, "stages", *path)

    def has(self, *path):
        """Whether each network has the number, and it is defined."""
        try:
            return not any(isnan(v) for v in self.values(*path).values())
        except KeyError:
            return False

    def __call__(self, *path):
        """The interval of a number over networks; of one network the one that its stage found."""
        return over(self.metrics, "stages", *path)

    def less(self, a, b):
        """The interval of the difference of two numbers, paired by network."""
        return statistics.paired(self.values(*a), self.values(*b))

    def keys(self, *path):
        """The keys of a dict of facts, in the order of the first network's."""
        return [k for k, v in _at(next(iter(self.metrics.values()))["stages"], path).items() if isinstance(v, dict)]


def values(metrics, *path):
    """Return {seed: the number at this place of what metrics.json holds}, an interval by its mean."""
    return {seed: _mean(_at(m, path)) for seed, m in metrics.items()}


def over(metrics, *path):
    """Return the interval of a number over networks; of one network the one that is kept with it, over its images."""
    if len(metrics) > 1:
        return statistics.over_networks(values(metrics, *path))
    (one,) = metrics.values()
    found = _at(one, path)
    if isinstance(found, dict):
        return statistics.Interval(*(nan if found[k] is None else found[k] for k in ("mean", "low", "high", "n")))
    return statistics.Interval(_mean(found), nan, nan, 1)


def _at(facts, path):
    for name in path:
        facts = (facts or {})[name]
    return facts


def _mean(found):
    found = found.get("mean") if isinstance(found, dict) else found
    return nan if found is None or isinstance(found, (str, list, dict)) else float(found)


def above(interval, bar=0.0):
    """True if an interval lies above a bar, False if below, None if the bar lies in it or it is undefined."""
    return True if interval.low > bar else False if interval.high < bar else None


def decide(*parts, untrained=False):
    """The verdict of a claim with these parts: each must be True; `untrained`: whether it is without training."""
    if any(part is False for part in parts):
        return NOT
    return OPEN if None in parts else UNTRAINED if untrained else HOLDS


def percent(interval, digits=1):
    """An interval of shares in words; of a single value without its bounds."""
    if isnan(interval.mean):
        return NOTHING
    return text.percent(interval.mean, digits) if isnan(interval.low) else text.span_percent(vars(interval), digits)


def points(interval, digits=1):
    """An interval of a difference of shares in words."""
    if isnan(interval.mean):
        return NOTHING
    if isnan(interval.low):
        return f"{100 * interval.mean:.{digits}f} points"
    return text.span_points(vars(interval), digits).replace("percentage points", "points")


def plain(interval, digits=2):
    """An interval in words."""
    if isnan(interval.mean):
        return NOTHING
    return f"{interval.mean:.{digits}f}" if isnan(interval.low) else text.span(vars(interval), digits)


# -- the claims --------------------------------------------------------------------------------------------------------
#
# Each is a function of what was found. It returns what was measured, what came out, and what else would, in words; what
# the claim says, part by part, as `above` does; and whether it is so without training.


def _s1(f):
    conv = f.keys("maximal_activation_maps")[0]
    at = "maximal_activation_maps", conv
    trained, untrained, border = (
        (*at, "named", "trained"),
        (*at, "named", "untrained"),
        (*at, "at_the_border", "trained"),
    )
    measured = f"images named, of 200, by the projection of their strongest map of {conv}"
    number, parts = percent(f(*trained)), [above(f(*trained), HALF)]
    if f.has(*border):
        measured += "; its strength at the object's border, as a multiple of that elsewhere"
        number, parts = f"{number}; {plain(f(*border))}", [*parts, above(f(*border), 1.0)]
    learned = above(f.less(trained, untrained)) is True
    return measured, number, f"untrained {percent(f(*untrained))}", parts, not learned


def _s2(f):
    conv = f.keys("strongest_maps", "layers")[0]
    at = "strongest_maps", "layers", conv
    share, untrained = f(*at, "its_share"), f(*at, "untrained_share")
    answers = {k: f(*at, "answers_to", k) for k in ("blue", "edges", "brightness") if f.has(*at, "answers_to", k)}
    measured = f"images whose strongest map of {conv} is the most frequent one; correlation of its strength with"
    measured += f" {text.listing(answers)}"
    number = "; ".join([percent(share), *(f"{k} {plain(r)}" for k, r in answers.items())])
    parts = [above(share, MOST), *(above(r) for k, r in answers.items() if k != "brightness")]
    return measured, number, f"untrained {percent(untrained)}", parts, above(untrained, MOST) is True


def _s3(f):
    conv = f.keys("unpooling", "switches_less_repetition")[-1]
    gain, untrained = (f("unpooling", f"{k}switches_less_repetition", conv) for k in ("", "untrained_"))
    measured = f"images named, of 200, by projections of {conv}: with switches more than with repetition"
    return measured, points(gain), f"untrained {points(untrained)}", [above(gain)], above(untrained) is True


def _s4(f):
    if f.has("scorecard", "scores", "gradient", OUTLINE):
        return _s4_beside_all(f)
    saliency, pool, conv = f.keys("layer_backprop", "named")
    game = f.has("layer_backprop", "pointing_game", conv, "trained")
    what = "pointing_game" if game else "named"
    at = {name: ("layer_backprop", what, name) for name in (saliency, pool, conv)}
    measured = "maps whose largest value lies on the object" if game else "images named, of 100, by their map"
    shares, untrained = ({k: f(*path, which) for k, path in at.items()} for which in ("trained", "untrained"))
    parts = [above(f.less((*at[b], "trained"), (*at[a], "trained"))) for a, b in ((saliency, pool), (pool, conv))]
    also = [above(f.less((*at[b], "untrained"), (*at[a], "untrained"))) for a, b in ((saliency, pool), (pool, conv))]
    said, without = ("; ".join(f"{k} {percent(v, 0)}" for k, v in some.items()) for some in (shares, untrained))
    return (
        f"{measured} (without its scorecard, which compares all methods)",
        said,
        f"untrained: {without}",
        parts,
        all(part is True for part in also),
    )


def _s4_beside_all(f):
    """Where the scorecard was made: the same beside all other methods, and maps of no network."""
    pool, conv = (k for k in f.keys("scorecard", "scores") if k.startswith("from "))
    at = {k: ("scorecard", "scores", k, OUTLINE) for k in f.keys("scorecard", "scores")}
    at = {k: path for k, path in at.items() if f.has(*path)}
    means = {k: f(*path).mean for k, path in at.items()}
    others = [k for k in means if k not in CONTROLS and k not in ("gradient", pool, conv)]
    better = sum(means[k] > means[conv] for k in others)
    control = max((k for k in means if k in CONTROLS), key=means.get)
    pairs = (("gradient", pool), (pool, conv))
    parts = [above(f.less(at[b], at[a])) for a, b in pairs]
    also = [above(f.less(*((*at[k][:-1], f"{OUTLINE}, untrained") for k in (b, a)))) for a, b in pairs]
    said = "; ".join(f"{k} {percent(f(*at[k]))}" for k in ("gradient", pool, conv))
    return (
        f"{OUTLINE} of the object's pixels in each map",
        f"{said}; {better} of {len(others)} other methods exceed {conv}",
        f"{control} {percent(f(*at[control]))}",
        parts,
        all(part is True for part in also),
    )


def _s5(f):
    first, *_, last = f.keys("activation_maps")
    named = {w: [("activation_maps", conv, "outline", w) for conv in (first, last)] for w in ("trained", "untrained")}
    position = "activation_maps", last, "position", "trained"
    measured = f"of 50 images, those that a map alone names, mean over the maps of {first} and of {last}"
    number, control = (" and ".join(percent(f(*path)) for path in some) for some in named.values())
    parts, also = ([above(f(*some[0]), HALF), above(f.less(*some))] for some in named.values())
    if f.has(*position):
        measured += f"; maps of {last} that are largest on the object more often than by chance"
        number, parts = f"{number}; {percent(f(*position))}", [*parts, above(f(*position), HALF)]
    return measured, number, f"untrained {control}", parts, all(part is True for part in also)


def _s6(f):
    trained, untrained, more = (f("filters", "oriented", k) for k in ("trained", "untrained", "difference"))
    measured = (
        "what the best oriented edge or bar explains of a filter, mean over the filters; no more than at the start"
    )
    oriented = above(more)
    return (
        measured,
        percent(trained),
        f"untrained {percent(untrained)}",
        [None if oriented is None else not oriented],
        False,
    )


def _s7(f):
    at = "tsne", "three_less_all"
    less, untrained = f(*at, "score"), f(*at, "untrained")
    measured = "how often the 10 nearest marks guess the class, beyond chance: of three classes more than of all"
    number, control, parts = points(less), f"untrained {points(untrained)}", [above(less)]
    apart = "tsne", "vehicles and animals"
    if f.has(*apart, "accuracy_of_10_nearest"):
        measured += "; vehicle or animal"
        number += f"; {percent(f(*apart, 'accuracy_of_10_nearest'))}"
        control += f"; {percent(f(*apart, 'untrained'))}"
        parts.append(above(f(*apart, "trained_less_untrained")))
    return measured, number, control, parts, above(untrained) is True and len(parts) == 1


def _s8(f):
    gain, learned = f("neighbors", "features_less_pixels", "test"), f("neighbors", "features_less_untrained", "test")
    mirrored = f("neighbors", "mirrored", "features_less_pixels")
    measured = (
        "features less pixels: of the 7 nearest, those of the query's class; queries with their mirror image there"
    )
    number, parts = f"class {points(gain)}; mirror image {points(mirrored)}", [above(gain), above(mirrored)]
    if not any(f.values("neighbors", "background", "alike").values()):  # else all borders look the same
        background = f("neighbors", "background", "pixels_less_features")
        measured += "; pixels less features: distance of the borders' mean colours"
        number, closer = f"{number}; background {plain(background, 3)}", above(background)
        parts.append(None if closer is None else not closer)
    return measured, number, f"features less untrained ones: class {points(learned)}", parts, above(learned) is not True


def _s9(f):
    at = "maximization", "trial"
    at, own = next((*at, k) for k in f.keys(*at) if k.startswith("rate_")), (*at, "ours")
    sure, odds = f(*at, "confidence_at_the_end"), f(*at, "log_odds_at_the_end")
    measured = (
        "the network's confidence in the image after all iterations at a rate of 10; the judges' log-odds of its class"
    )
    slow, unknown = above(sure, HALF), above(odds)
    number = f"{percent(sure)}; {plain(odds)}"
    control = f"at a rate of ours {percent(f(*own, 'confidence_at_the_end'))}; {plain(f(*own, 'log_odds_at_the_end'))}"
    return measured, number, control, [None if part is None else not part for part in (slow, unknown)], False


def _s10(f):
    five, photographs = ("maximization", "ways", "all five"), ("maximization", "photographs")
    gain, sure = f("maximization", "all_five_less_nothing"), f(*five, "confidence_as_judged")
    measured = "judges' log-odds, all five less nothing; the network's own confidence in all five; judges' log-odds of"
    number = f"{plain(gain)}; {percent(sure)}; all five {plain(f(*five, 'log_odds'))}"
    natural = f.less((*photographs, "log_odds"), (*five, "log_odds"))
    control = f"nothing {plain(f('maximization', 'ways', 'nothing', 'log_odds'))}; "
    control += f"photographs {plain(f(*photographs, 'log_odds'))}"
    return measured, number, control, [above(gain), above(natural), above(sure, MOST)], False


CLAIMS = {
    "S1": (
        "Projections of conv1's strongest map show edges and lines, best where the object parts from its background.",
        "maximal_activation_maps",
        _s1,
    ),
    "S2": (
        "One map of conv1 is the strongest for almost all images, and answers to blue and to edges.",
        "strongest_maps",
        _s2,
    ),
    "S3": (
        "Projections of conv2 show outlines; the simple unpooling harms them.",
        "unpooling",
        _s3,
    ),
    "S4": (
        "Saliency hardly shows outlines; back-propagation from pool2 shows them much better, from conv2 better still.",
        "layer_backprop",
        _s4,
    ),
    "S5": (
        "Nearly every map of conv1 has the object's outline; in conv2 it is lost, but the position kept in most maps.",
        "activation_maps",
        _s5,
    ),
    "S6": ("Conv1's filters (of MNIST) do not look like oriented edges.", "filters", _s6),
    "S7": ("t-SNE: vehicles and animals apart, and three classes clearer than ten.", "tsne", _s7),
    "S8": (
        "Neighbours by pixels share the background, neighbours by features the class, mirrored poses included.",
        "neighbors",
        _s8,
    ),
    "S9": (
        "Plain ascent is too slow even at a rate of 10 for 500 iterations, and unrecognisable.",
        "maximization",
        _s9,
    ),
    "S10": (
        "Regularized ascent looks better than plain, still not natural, and reaches high confidence in its class.",
        "maximization",
        _s10,
    ),
}


COUNTERPART = {"mnist": "cifar10", "cifar10": "mnist"}  # whose images S11 compares


def rows(metrics, reported=None, other=None):
    """Hold every claim against the networks {seed: what metrics.json holds} of one data set.

    Parameters
    ----------
    metrics : dict
    reported : tuple, optional
        What the study reports of this set: see `recipes.REPORTED`.
    other : dict, optional
        The networks of the `COUNTERPART`.

    Returns
    -------
    list of Row
        Of the claims that were measured.
    """
    found, told = Found(metrics), []
    for name, (claim, stage, weigh) in CLAIMS.items():
        if any(results.NOTHING in m["stages"].get(stage, ()) for m in metrics.values()):
            continue
        try:
            measured, number, control, parts, untrained = weigh(found)
        except KeyError:
            continue
        verdict = decide(*parts, untrained=untrained) if len(metrics) >= LEAST else FEW
        told.append(Row(name, claim, stage, measured, number, control, verdict))
    if other:
        with contextlib.suppress(KeyError):  # not measured
            told.append(_s11(metrics, other))
    return [*told, _s12(metrics, reported)] if reported else told


def _s11(metrics, other):
    sets = {next(iter(some.values()))["dataset"]: Found(some) for some in (metrics, other)}
    five, photographs = ("maximization", "ways", "all five", "log_odds"), ("maximization", "photographs", "log_odds")
    behind = {name: found.less(photographs, five) for name, found in sets.items()}
    mnist, cifar = behind["mnist"], behind["cifar10"]
    apart = True if cifar.low > mnist.high else False if cifar.high < mnist.low else None
    return Row(
        "S11",
        "MNIST's images are far better; CIFAR-10's suffer from their size.",
        "maximization",
        "how far the judges' log-odds of all five lie below those of photographs",
        f"MNIST {plain(mnist)}, CIFAR-10 {plain(cifar)}",
        "photographs: 0",
        decide(apart) if min(map(len, (metrics, other))) >= LEAST else FEW,
    )


def _s12(metrics, reported):
    share, steps, _ = reported
    alike = all(m["steps"] == steps and not m["validation_images"] for m in metrics.values())
    test, known = over(metrics, "test_accuracy"), over(metrics, "train_accuracy")
    near = test.low - 0.01 <= share <= test.high + 0.01
    return Row(
        "S12",
        f"Accuracy: roughly {text.percent(share, 0)}.",
        "training_curve",
        f"test accuracy, by {'its own' if alike else 'another'} recipe and protocol; within a point of the interval",
        percent(test),
        f"training images {percent(known)}",
        FEW if len(metrics) < LEAST else decide(near) if alike else OPEN,
    )
