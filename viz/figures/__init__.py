"""The only room that draws: arrays in, a matplotlib Figure out.

Every picture made of images is one ``sheet``: tiles enlarged by a whole number (a pixel stays a square), one
gap, one header, one colour bar for all tiles that share a scale. Colours: grey for what the network is given;
magma from 0 up for what cannot be negative (activations, saliency); red and blue around 0 for what can be
(filters, projections). Classes have colours that colour-blind people tell apart, and a marker each: no
picture hangs on colour alone. A figure shows itself in a notebook; ``save`` writes it as PNG, SVG or PDF, and its data
as CSV.

style    colours, the page, `to_png`, `save`
sheet    arrays as tiles: `photo`, `heat`, `signed`, `enlarge`, `interleave`; pages of them: `sheet`, `poster`
charts   numbers: `curves`, `scatter`, `places`, `shares`, `confusion`, `bars`, `intervals`
"""

from viz.figures.charts import bars, confusion, curves, intervals, places, scatter, shares
from viz.figures.sheet import enlarge, heat, interleave, photo, poster, sheet, signed
from viz.figures.style import CLASS_COLORS, CLASS_MARKERS, INK, RIGHT, SOFT, WRONG, Figure, save, to_png

__all__ = ["CLASS_COLORS", "CLASS_MARKERS", "INK", "RIGHT", "SOFT", "WRONG", "Figure", "bars", "confusion", "curves",
           "enlarge", "heat", "interleave", "intervals", "photo", "places", "poster", "save", "scatter", "shares",
           "sheet", "signed", "to_png"]  # fmt: skip
