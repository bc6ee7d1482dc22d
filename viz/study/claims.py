"""What the study says that it saw, S1 to S12, each held against what was measured: a number, a control, a verdict.

A claim is judged over networks that differ in their seed alone, by Student's interval over their means; of one network
the numbers are shown, and nothing is decided. Where the same network untrained does as well, training is not what the
claim is about.
"""

from dataclasses import dataclass
from math import isnan, nan

from viz.metrics import statistics
from viz.report import text

HOLDS, UNTRAINED = "holds", "holds, untrained as well"
NOT, OPEN = "does not hold", "cannot be told"
LEAST = 3  # networks that a verdict takes
MOST = 0.9  # "almost all"
HALF = 0.5


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
        One of `HOLDS`, `UNTRAINED`, `NOT`, `OPEN`.
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
        """{seed: number}, an interval by its mean; NaN where there is none."""
        return {seed: _mean(_at(m["stages"], path)) for seed, m in self.metrics.items()}

    def has(self, *path):
        """Whether each network has the number."""
        return not any(isnan(v) for v in self.values(*path).values())

    def __call__(self, *path):
        """The interval of a number over networks; of one network the one that its stage found."""
        if len(self.metrics) > 1:
            return statistics.over_networks(self.values(*path))
        (metrics,) = self.metrics.values()
        found = _at(metrics["stages"], path)
        if isinstance(found, dict):
            return statistics.Interval(*(nan if found[k] is None else found[k] for k in ("mean", "low", "high", "n")))
        return statistics.Interval(_mean(found), nan, nan, 1)

    def less(self, a, b):
        """The interval of the difference of two numbers, paired by network."""
        return statistics.paired(self.values(*a), self.values(*b))

    def keys(self, *path):
        """The keys of a dict of facts, in the order of the first network's."""
        found = _at(next(iter(self.metrics.values()))["stages"], path)
        return list(found) if isinstance(found, dict) else []


def _at(facts, path):
    for name in path:
        facts = facts.get(name) if isinstance(facts, dict) else None
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
    return text.percent(interval.mean, digits) if isnan(interval.low) else text.span_percent(vars(interval), digits)


def points(interval, digits=1):
    """An interval of a difference of shares in words."""
    if isnan(interval.low):
        return f"{100 * interval.mean:.{digits}f} points"
    return text.span_points(vars(interval), digits).replace("percentage points", "points")


def plain(interval, digits=2):
    """An interval in words."""
    return f"{interval.mean:.{digits}f}" if isnan(interval.low) else text.span(vars(interval), digits)


# -- the claims: each a function of what was found, that returns (measured, number, control, parts, untrained): in words
# what was measured, what came out and what else would; what the claim says, part by part; whether it is so without training


def _s1(f):
    conv = f.keys("maximal_activation_maps")[0]
    at = "maximal_activation_maps", conv
    trained, untrained, border = (*at, "named", "trained"), (*at, "named", "untrained"), (*at, "at_the_border", "trained")
    measured = f"images named, of 200, by the projection of their strongest map of {conv}"
    number, parts = percent(f(*trained)), [above(f(*trained), HALF)]
    if f.has(*border):
        measured += "; its strength at the object's border, as a multiple of that elsewhere"
        number, parts = f"{number}; {plain(f(*border))}", [*parts, above(f(*border), 1.0)]
    better = above(f.less(trained, untrained))
    return measured, number, f"untrained {percent(f(*untrained))}", parts, better is not True


def _s2(f):
    conv = f.keys("strongest_maps", "layers")[0]
    at = "strongest_maps", "layers", conv
    share, untrained = (*at, "its_share"), (*at, "untrained_share")
    answers = {k: f(*at, "answers_to", k) for k in ("blue", "edges", "brightness") if f.has(*at, "answers_to", k)}
    measured = f"images whose strongest map of {conv} is the most frequent one; its correlation with what an image has"
    number = "; ".join([percent(f(*share)), *(f"{k} {plain(r)}" for k, r in answers.items())])
    parts = [above(f(*share), MOST), *(above(r) for k, r in answers.items() if k != "brightness")]
    return measured, number, f"untrained {percent(f(*untrained))}", parts, above(f(*untrained), MOST) is True


def _s3(f):
    conv = f.keys("unpooling", "switches_less_repetition")[-1]
    gain, untrained = ("unpooling", "switches_less_repetition", conv), ("unpooling", "untrained_switches_less_repetition", conv)
    measured = f"images named, of 200, by projections of {conv}: with switches less with repetition"
    return measured, points(f(*gain)), f"untrained {points(f(*untrained))}", [above(f(*gain))], above(f(*untrained)) is True


def _s5(f):
    first, *_, last = f.keys("activation_maps")
    outline = [("activation_maps", conv, "outline", "trained") for conv in (first, last)]
    untrained = [("activation_maps", conv, "outline", "untrained") for conv in (first, last)]
    position = "activation_maps", last, "position"
    measured = f"images that a map alone names, mean over the maps of {first}, of {last}"
    number = " and ".join(percent(f(*path)) for path in outline)
    parts = [above(f(*outline[0]), HALF), above(f.less(*outline))]
    if f.has(*position):
        measured += f"; maps of {last} whose maximum lies on the object more often than by chance"
        number, parts = f"{number}; {percent(f(*position))}", [*parts, above(f(*position), HALF)]
    control = "untrained " + " and ".join(percent(f(*path)) for path in untrained)
    return measured, number, control, parts, above(f(*untrained[0]), HALF) is True and above(f.less(*untrained)) is True


def _s6(f):
    trained, untrained, more = (("filters", "oriented", k) for k in ("trained", "untrained", "difference"))
    gain = above(f(*more))
    measured = "share of a filter's variance that the best oriented edge or bar explains, mean over the filters"
    parts = [{True: False, False: True, None: None}[gain]]
    return measured, percent(f(*trained)), f"untrained {percent(f(*untrained))}, difference {points(f(*more))}", parts, False


def _s12(f):
    return None


CLAIMS = {
    "S1": ("projections of conv1's strongest map show edges and lines, best where the object parts from its background", "maximal_activation_maps", _s1),
}
