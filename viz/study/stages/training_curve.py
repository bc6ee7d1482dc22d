"""Loss and accuracies over the steps; which classes are taken for which."""

import numpy as np

from tinycnn import train
from viz import figures
from viz.metrics import statistics
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    predicted, names = s.net.predict(s.test_images), s.names
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (s.test_labels, predicted), 1)
    right, n = np.diag(counts), counts.sum(1)
    share = counts / np.where(n, n, np.nan)[:, None]  # of a class without images: undefined
    mistakes = np.nan_to_num(share - np.diag(np.diag(share)))
    true, answer = np.unravel_index(mistakes.argmax(), mistakes.shape)
    facts = {
        "test_accuracy": vars(statistics.accuracy_interval(int(right.sum()), len(predicted))),
        "accuracy by class": {
            name: vars(statistics.accuracy_interval(int(r), int(k))) if k else None
            for name, r, k in zip(names, right, n)
        },
        "most_frequent_mistake": {
            "class": names[true],
            "taken_for": names[answer],
            "images": counts[true, answer],
            "of": n[true],
            "share": mistakes[true, answer],
        },
        "diagonal": {"lowest": np.nanmin(np.diag(share)), "highest": np.nanmax(np.diag(share))},
    }
    title = "What is taken for what"
    about = f"Counts of {len(predicted):,} test images; what is wrong is orange."
    pictures = [Picture("confusion", title, figures.confusion(counts, names, title, about))]
    if s.history is not None and len(s.history.eval_steps):
        picture, more = _curve(s, statistics.Interval(**facts["test_accuracy"]))
        pictures, facts = [picture, *pictures], facts | more
    return pictures, facts


def _curve(s, test):
    h, title = s.history, f"Training on {s.info.title}"
    at = h.best if s.held_out else len(h.eval_steps) - 1
    seen = min(train.TRAIN_SAMPLE, len(s.images))  # training images whose accuracy was measured
    name = "held-out images" if s.held_out else "test images"
    others = {f"recipe {k}, {name}": (o.eval_steps, o.val_accuracy) for k, o in s.histories.items()}
    arrays = (np.arange(1, h.steps + 1), h.losses, h.eval_steps, h.train_accuracy, h.val_accuracy)
    note = f"{s.info.model} network, {s.recipe}, seed {s.seed}"
    facts = {
        "steps": h.steps,
        "kept_step": h.eval_steps[at],
        "training_accuracy": vars(statistics.accuracy_interval(round(seen * h.train_accuracy[at]), seen)),
        "loss_of_the_last_50_steps": np.mean(h.losses[-50:]),
    }
    if s.held_out:
        right = round(s.held_out * h.val_accuracy[at])
        facts["accuracy_on_held_out_images"] = vars(statistics.accuracy_interval(right, s.held_out))
    here = {
        "other_recipes": sorted(s.histories),
        "held_out": s.held_out,
        "measured_on": name,
    }
    known = {"kept": h.eval_steps[at], "val_n": s.held_out, "test": test} if s.held_out else {}
    return Picture("curve", title, figures.curves(*arrays, title, note, name, others, **known), facts=here), facts
