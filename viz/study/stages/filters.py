"""The weights of the first convolution."""

import numpy as np

from viz import activations, figures
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    conv = next(iter(s.convs))
    w = activations.filters(s.net, conv)  # (K, kh, kw, C)
    K, kh, kw, C = w.shape
    limit, color = float(np.abs(w).max()), C == 3
    how = (
        "Grey is 0; a colour means that the filter adds up this colour, its opposite that it subtracts it"
        if color
        else "Red adds up brightness, blue subtracts it, white ignores it"
    )
    title = f"Filters of {conv}: {K} of {kh}×{kw}"
    figure = figures.sheet(
        figures.signed(w, limit),
        8,
        title,
        f"{how}.",
        rows=[str(i) for i in range(0, K, 8)],
        heads=[str(i) for i in range(8)],
        gap=20,
        scale=None if color else ("RdBu_r", -limit, limit, "weight"),
    )
    facts = {
        "layer": conv,
        "filters": K,
        "rows": kh,
        "columns": kw,
        "largest_weight": limit,
        "median_norm": np.median(np.sqrt((w**2).sum((1, 2, 3)))),
    }
    return [Picture("filters", title, figure, facts={"color": color})], facts
