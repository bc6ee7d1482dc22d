"""t-SNE of the last hidden layer: a scatter by class and two mosaics, for all classes and for three."""

import numpy as np

from viz import embedding, figures
from viz.report.results import Picture, Points
from viz.study.subject import Study

POINTS = 900  # images, at most
PERPLEXITY = 30
SUBSET = (0, 2, 7)  # the study's second t-SNE: airplane, car and monkey on STL-10
MOSAICS = {
    "sorted": "In the order of x + y of their places in the plane, row after row (as the study does).",
    "nearest": "Each cell of the square takes the image nearest to it in the plane (Karpathy's CNN codes).",
}


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts, rng = [], {}, s.rng("tsne")
    every = range(len(s.info.classes))
    for key, chosen in (("all", tuple(every)), ("three", tuple(c for c in SUBSET if c in every))):
        pool, labels, which = s.test_images, s.test_labels, "test images"
        if np.isin(labels, chosen).sum() < POINTS:
            pool, labels = np.concatenate([s.images, pool]), np.concatenate([s.labels, labels])
            which = "training and test images"
        picked = np.sort(rng.permutation(np.flatnonzero(np.isin(labels, chosen)))[:POINTS])
        images, labels = pool[picked], labels[picked]
        features = embedding.features(s.net, images, s.hidden)
        perplexity = min(PERPLEXITY, max(2, (len(picked) - 1) // 3))
        points = embedding.tsne(features, seed=s.seed, perplexity=perplexity)
        what = "all classes" if key == "all" else ", ".join(s.name(c) for c in chosen)
        found = {
            "images": len(picked),
            "which": which,
            "classes": len(chosen),
            "trustworthiness": embedding.trustworthiness(features, points, min(12, (len(picked) - 1) // 2)),
            "accuracy_of_10_nearest": embedding.knn_accuracy(points, labels, min(10, len(picked) - 1)),
        }
        facts[what] = found
        here = found | {"layer": s.hidden, "features": features.shape[1], "perplexity": perplexity}
        title = f"t-SNE of {s.hidden}: {what}"
        note = f"{len(picked)} {which}; near means alike to the network."
        plot = figures.scatter(points, labels, {c: s.name(c) for c in chosen}, title, note)
        behind = Points(figures.places(plot, points), [s.name(c) for c in labels], figures.photo(images))
        pictures.append(Picture(f"{key}-scatter", title, plot, words="scatter", facts=here, points=behind))
        grid = int(np.sqrt(len(picked)))
        for method, how in MOSAICS.items():
            mosaic, _ = embedding.mosaic(images, points, grid, method)
            title = f"Mosaic by t-SNE, {method}: {what}"
            pictures.append(
                Picture(
                    f"{key}-mosaic-{method}",
                    title,
                    figures.poster(figures.photo(mosaic[None])[0], title, how),
                    words="mosaic",
                    facts=here | {"grid": grid, "method": method},
                    group=f"Mosaic by t-SNE: {what}",
                    tab=method,
                )
            )
    return pictures, facts
