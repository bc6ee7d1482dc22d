"""The weights of the first convolution, beside those it started with."""

import numpy as np

from viz import activations, figures
from viz.metrics import statistics
from viz.metrics.correlation import pearson
from viz.metrics.orientation import oriented
from viz.report.results import Links, Picture
from viz.study.subject import Study

PAIRS = 8  # in a row of the figure


def run(s: Study):
    """Return (pictures, facts)."""
    conv = next(iter(s.convs))
    w, start = (activations.filters(net, conv) for net in (s.net, s.untrained))  # (K, kh, kw, C)
    K, kh, kw, C = w.shape
    limit, color = float(max(np.abs(w).max(), np.abs(start).max())), C == 3
    alike, moved = pearson(w, start), _norm(w - start) / _norm(start)
    how = "Grey is 0, a colour is added, its opposite subtracted" if color else "Red is added, blue subtracted"
    title = f"Filters of {conv}: {K} of {kh}×{kw}, and their start"
    figure = figures.sheet(
        figures.interleave(figures.signed(w, limit), figures.signed(start, limit)),
        2 * PAIRS,
        title,
        f"{how}. Below: the filter's number, and its correlation with its start.",
        captions=[c for k, r in enumerate(alike) for c in (f"{k}", f"{r:.2f}")],
        heads=PAIRS * ["now", "start"],
        group=2,
        scale=None if color else ("RdBu_r", -limit, limit, "weight"),
    )
    trained, untrained = oriented(w), oriented(start)
    facts = {
        "layer": conv,
        "filters": K,
        "rows": kh,
        "columns": kw,
        "largest_weight": limit,
        "median_norm": np.median(_norm(w)),
        "correlation_with_the_start": vars(statistics.interval(alike)),
        "change_relative_to_the_start": vars(statistics.interval(moved)),
        "oriented": {
            "trained": vars(statistics.interval(trained)),
            "untrained": vars(statistics.interval(untrained)),
            "difference": vars(statistics.interval(trained - untrained)),
        },
    }
    views = [{"layer": conv, "unit": k, "trained": now} for k in range(K) for now in (1, 0)]
    return [Picture("filters", title, figure, facts={"color": color}, links=Links(figure.tiles, views))], facts


def _norm(w):
    """The length of each filter, in the L2 norm."""
    return np.sqrt((w.astype(np.float64) ** 2).sum((1, 2, 3)))
