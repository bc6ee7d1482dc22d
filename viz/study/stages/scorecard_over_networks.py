"""Which method's maps to believe, over networks: each counts once, and methods are compared network by network."""

from viz import figures
from viz.metrics import statistics
from viz.report.results import NOTHING, Picture
from viz.study.stages.scorecard import CONTROLS, SHARES

TO = "gradient"  # what each is compared with


def run(networks):
    """Return (pictures, facts) of `viz.study.networks.Networks`."""
    cards = {seed: m["stages"].get("scorecard", {}).get("scores") for seed, m in networks.metrics.items()}
    if None in cards.values():
        return [], {NOTHING: "not every network has its scorecard: --only scorecard"}
    scores = {metric: over(cards, metric) for metric in _metrics(cards)}
    return [_chart(metric, found, len(cards)) for metric, found in scores.items()], {
        "networks": len(cards),
        "compared_with": TO,
        "scores": scores,
    }


def over(cards, metric):
    """Return {method: {"score", "values", "difference"}} of a metric over networks.

    `cards` is {seed: {method: {metric: {"mean": ...}}}}. The differences to the gradient hold all together: they are
    as many comparisons as there are other methods (Bonferroni).
    """
    first = next(iter(cards.values()))
    values = {
        name: {seed: _number(card[name][metric]["mean"]) for seed, card in cards.items()}
        for name in first
        if metric in first[name]
    }
    others = len(values) - 1
    found = {}
    for name, some in values.items():
        found[name] = {"score": vars(statistics.over_networks(some)), "values": some}
        if name != TO and TO in values:
            found[name]["difference"] = vars(statistics.paired(some, values[TO], comparisons=others))
    return found


def _metrics(cards):
    """All metrics, in the order in which they first stand."""
    return list(dict.fromkeys(metric for card in cards.values() for some in card.values() for metric in some))


def _number(value):
    return float("nan") if value is None else value


def _chart(metric, found, networks):
    def name(method):
        return f"{method} (control)" if method in CONTROLS else method

    figure = figures.intervals(
        {name(k): statistics.Interval(**v["score"]) for k, v in found.items()},
        metric[0].upper() + metric[1:],
        f"Mean of {networks} networks, 95 % intervals over networks; a dot for each. Below, differences to the "
        f"{TO}, which hold all together.",
        f"{metric}, per cent" if metric in SHARES else metric,
        dots={name(k): list(v["values"].values()) for k, v in found.items()},
        percent=metric in SHARES,
        differences={name(k): statistics.Interval(**v["difference"]) for k, v in found.items() if "difference" in v},
    )
    return Picture(metric.lower().replace(" ", "-").replace(",", "").replace(":", ""), metric, figure, "metric",
                   {"metric": metric}, group="metric", tab=metric)  # fmt: skip
