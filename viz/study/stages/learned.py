"""What training changed: what each layer's learning is worth, by setting it back to its start."""

import numpy as np

from tinycnn import Network
from viz import figures
from viz.metrics import statistics
from viz.metrics.correlation import pearson
from viz.report.results import Picture
from viz.study.subject import Study

TESTED = 1000  # test images
DRAWS = 5  # random steps of the first layer


def run(s: Study):
    """Return (pictures, facts)."""
    rng = s.rng("learned")
    picked = np.sort(rng.permutation(len(s.test_images))[:TESTED])
    images, labels = s.test_images[picked], s.test_labels[picked]
    trained, start = s.net.params, s.untrained.params
    weighed = [layer for layer, p in trained.items() if "w" in p]
    first = weighed[0]
    other = Network(s.net.layers, s.net.input_shape, backend=s.net.ops.name, dtype=s.net.dtype.name)

    def right(layer, p):
        """Which images the network names rightly with these parameters of one layer; its own are never touched."""
        other.params = {**trained, layer: p}
        return (other.predict(images) == labels).astype(float)

    whole, layers = right(first, trained[first]), {}
    for layer in weighed:
        p, back = trained[layer], right(layer, start[layer])
        w, before = (s.net.ops.to_numpy(v["w"]).astype(np.float64).reshape(1, -1) for v in (p, start[layer]))
        layers[layer] = {
            "accuracy": vars(statistics.share(back)),
            "cost": vars(statistics.interval(whole - back)),
            "correlation_with_the_start": float(pearson(w, before)[0]),
            "change_relative_to_the_start": float(np.linalg.norm(w - before) / np.linalg.norm(before)),
        }
    moved = [right(first, random_step(s.net.ops, trained[first], start[first], rng)).mean() for _ in range(DRAWS)]
    facts = {
        "images": len(picked),
        "draws": DRAWS,
        "first": first,
        "accuracy": vars(statistics.share(whole)),
        "layers": layers,
        "first_at_random": {
            "accuracy": vars(statistics.interval(moved)),
            "less_at_its_start": vars(statistics.interval(np.array(moved) - layers[first]["accuracy"]["mean"])),
        },
    }
    rows = {"as trained": facts["accuracy"], f"{first} back at its start": layers[first]["accuracy"]}
    rows[f"{first} a random step away"] = facts["first_at_random"]["accuracy"]
    rows |= {f"{layer} back at its start": f["accuracy"] for layer, f in layers.items() if layer != first}
    title = "What is each layer's learning worth?"
    note = f"Accuracy on {len(picked):,} test images with one layer changed, 95 % intervals."
    rows = {name: statistics.Interval(**f) for name, f in rows.items()}
    chance = 1 / len(s.info.classes), "chance"
    chart = figures.intervals(rows, title, note, "right, per cent", chance, percent=True)
    return [Picture("learned", title, chart)], facts


def random_step(ops, trained, start, rng):
    """Return a layer's parameters at its start plus a random step, each array's as long as the one training made.

    The step's direction is uniform: normal numbers, scaled to the L2 norm of the change.
    """
    found = {}
    for name, after in trained.items():
        after, before = (ops.to_numpy(v).astype(np.float64) for v in (after, start[name]))
        step = rng.standard_normal(before.shape)
        found[name] = ops.asarray(before + step * (np.linalg.norm(after - before) / np.linalg.norm(step)))
    return found
