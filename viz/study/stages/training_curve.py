"""Loss and accuracies over the steps; which classes are taken for which."""

import numpy as np

from viz import figures
from viz.metrics import statistics
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    predicted, names = s.net.predict(s.test_images), s.names
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (s.test_labels, predicted), 1)
    confusion = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    mistakes = confusion - np.diag(np.diag(confusion))
    true, answer = np.unravel_index(mistakes.argmax(), mistakes.shape)
    facts = {
        "test_accuracy": vars(statistics.accuracy_interval(int(np.trace(counts)), len(predicted))),
        "accuracy_by_class": dict(zip(names, np.diag(confusion))),
        "most_frequent_mistake": {"class": names[true], "taken_for": names[answer], "share": mistakes[true, answer]},
        "diagonal": {"lowest": np.diag(confusion).min(), "highest": np.diag(confusion).max()},
    }
    pictures = [
        Picture(
            "confusion",
            "What is taken for what",
            figures.shares(
                confusion,
                names,
                names,
                "What is taken for what",
                f"True class by row, answer by column, {len(s.test_images):,} test images",
                "per cent of the row",
            ),
        )
    ]
    if s.history is not None and len(s.history.eval_steps):
        picture, more = _curve(s)
        pictures, facts = [picture, *pictures], facts | more
    return pictures, facts


def _curve(s):
    h, title = s.history, f"Training on {s.info.title}"
    at = h.best if s.held_out else len(h.eval_steps) - 1
    name = "held-out images" if s.held_out else "test images"
    others = {f"recipe {k}, {name}": (o.eval_steps, o.val_accuracy) for k, o in s.histories.items()}
    arrays = (np.arange(1, h.steps + 1), h.losses, h.eval_steps, h.train_accuracy, h.val_accuracy)
    note = f"{s.info.model} network, {s.recipe}, seed {s.seed}"
    facts = {
        "steps": h.steps,
        "kept_step": h.eval_steps[at],
        "training_accuracy": h.train_accuracy[at],
        "loss_of_the_last_50_steps": np.mean(h.losses[-50:]),
    }
    if s.held_out:
        right = round(s.held_out * h.val_accuracy[at])
        facts["accuracy_on_held_out_images"] = vars(statistics.accuracy_interval(right, s.held_out))
    here = {
        "gap": h.train_accuracy[at] - h.val_accuracy[at],
        "other_recipes": sorted(s.histories),
        "held_out": s.held_out,
        "measured_on": name,
    }
    return Picture("curve", title, figures.curves(*arrays, title, note, name, others=others), facts=here), facts
