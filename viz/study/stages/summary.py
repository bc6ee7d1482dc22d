"""Every number as a mean over networks that differ in their seed alone, with its interval."""

from viz import figures
from viz.metrics import statistics
from viz.report.results import Picture

SHARES = {  # what the figure shows, where the studies have it
    "test accuracy": ("test_accuracy",),
    "7 nearest, in pixels": ("stages", "neighbors", "share_of_the_7_nearest", "pixels", "test"),
    "7 nearest, in features": ("stages", "neighbors", "share_of_the_7_nearest", "features", "test"),
    "7 nearest, in untrained features": ("stages", "neighbors", "share_of_the_7_nearest", "untrained features", "test"),
    "10 nearest in t-SNE": ("stages", "tsne", "all classes", "accuracy_of_10_nearest"),
    "10 nearest in t-SNE, untrained": ("stages", "tsne", "all classes", "untrained"),
}


def run(networks):
    """Return (pictures, facts) of `viz.study.networks.Networks`."""
    numbers = over(networks.metrics)
    found = {name: number for name, path in SHARES.items() if (number := _at(numbers, path)) is not None}
    facts = {"seeds": list(networks.metrics), "networks": len(networks.metrics), "shares": found, "numbers": numbers}
    title = "The same study, over networks"
    chart = figures.intervals(
        {name: statistics.Interval(n["mean"], n["low"], n["high"], n["n"]) for name, n in found.items()},
        title,
        f"Mean of {facts['networks']} networks, 95 % intervals over networks; a dot for each network.",
        "of the images, per cent",
        dots={name: list(n["values"].values()) for name, n in found.items()},
        cut=True,
        percent=True,
    )
    return [Picture("networks", title, chart)], facts


def over(metrics):
    """Return, in the shape of the networks' metrics, each number's interval over networks with the `values` themselves.

    An interval over images counts by its mean. Lists, texts and what is the same setting for all are left out.
    """
    first = next(iter(metrics.values()))
    found = {}
    for name in first:
        values = {seed: _value(m.get(name) if isinstance(m, dict) else None) for seed, m in metrics.items()}
        if name in ("seed", "dataset", "steps", "train_images", "validation_images", "test_images"):
            continue
        if any(isinstance(v, dict) for v in values.values()):
            inner = over({seed: v if isinstance(v, dict) else {} for seed, v in values.items()})
            found |= {name: inner} if inner else {}
        elif any(isinstance(v, float) for v in values.values()):
            values = {seed: v if isinstance(v, float) else float("nan") for seed, v in values.items()}
            found[name] = vars(statistics.over_networks(values)) | {"values": values}
    return found


def _value(value):
    """A number as a float, an interval as its mean, other dicts as they are, and None for all that is no number."""
    if isinstance(value, dict):
        return _value(value["mean"]) if {"mean", "low", "high"} <= set(value) else value
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _at(numbers, path):
    for name in path:
        numbers = numbers.get(name) if isinstance(numbers, dict) else None
    return numbers
