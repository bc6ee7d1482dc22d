"""Which method's maps to believe, over networks: each counts once, and methods are compared network by network."""

from viz.report.results import NOTHING
from viz.study import cards


def run(networks):
    """Return (pictures, facts) of `viz.study.networks.Networks`."""
    found = {seed: m["stages"]["scorecard"] for seed, m in networks.metrics.items()}
    if none := [f[NOTHING] for f in found.values() if NOTHING in f]:
        return [], {NOTHING: none[0]}
    found = {seed: f["scores"] for seed, f in found.items()}
    scores, apart = cards.over(found), cards.differences(found)
    return list(cards.charts(found, scores, apart)), {
        "networks": len(found),
        "compared_with": cards.TO,
        "what_to_believe": cards.said(found, scores),
        "scores": scores,
        "difference_to_the_gradient": apart,
    }
