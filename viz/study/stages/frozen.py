"""Whether the first layer had to learn: the same training with that layer kept as it started."""

from viz import figures
from viz.metrics import statistics
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    learned, frozen = ((net.predict(s.test_images) == s.test_labels) * 1.0 for net in (s.net, s.frozen))
    accuracy = {"all layers learned": statistics.share(learned)}
    layer = next(iter(s.net.params))
    accuracy[f"{layer} kept as it started"] = statistics.share(frozen)
    facts = {
        "layer": layer,
        "images": len(learned),
        "accuracy": vars(statistics.share(learned)),
        "frozen_accuracy": vars(statistics.share(frozen)),
        "learned_less_frozen": vars(statistics.interval(learned - frozen)),
    }
    title = f"Did {layer} have to learn?"
    note = f"Accuracy on {len(learned):,} test images, 95 % intervals; the difference is paired by image."
    less = {"learned \N{MINUS SIGN} kept": statistics.Interval(**facts["learned_less_frozen"])}
    chart = figures.intervals(accuracy, title, note, "right, per cent", cut=True, percent=True, differences=less)
    return [Picture("frozen", title, chart)], facts
