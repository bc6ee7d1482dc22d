"""Loss and accuracies over the steps; which classes are taken for which."""

import numpy as np

from viz import figures
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    predicted, names = s.net.predict(s.val_images), s.names
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (s.val_labels, predicted), 1)
    confusion = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    mistakes = confusion - np.diag(np.diag(confusion))
    true, answer = np.unravel_index(mistakes.argmax(), mistakes.shape)
    facts = {
        "validation_accuracy": np.mean(predicted == s.val_labels),
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
                f"True class by row, answer by column, {len(s.val_images):,} validation images",
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
    best = int(np.argmax(h.val_accuracy))
    others = {f"recipe {k}, validation": (o.eval_steps, o.val_accuracy) for k, o in s.histories.items()}
    arrays = (np.arange(1, h.steps + 1), h.losses, h.eval_steps, h.train_accuracy, h.val_accuracy)
    note = f"{s.info.model} network, {s.recipe}, seed {s.seed}"
    facts = {
        "training_accuracy": h.train_accuracy[-1],
        "best_validation_accuracy": h.val_accuracy[best],
        "best_validation_accuracy_at_step": h.eval_steps[best],
        "loss_of_the_last_50_steps": np.mean(h.losses[-50:]),
        "steps": h.steps,
    }
    here = {"gap": h.train_accuracy[-1] - h.val_accuracy[-1], "other_recipes": sorted(s.histories)}
    return Picture("curve", title, figures.curves(*arrays, title, note, others=others), facts=here), facts
