"""The images as points in a layer's features: t-SNE, mosaics, nearest neighbours."""

import numpy as np

from ..results import Picture, Points

QUERIES = (223, 955, 6666, 9550, 138, 777, 8888, 2222, 222, 99)  # images of the study's neighbour figure
POINTS = 900  # images of its t-SNE, at most
SUBSET = (0, 2, 7)  # its second t-SNE: airplane, car and monkey on STL-10


def tsne(s):
    """t-SNE of the last hidden layer: a scatter by class and two mosaics, for all classes and for three."""
    from .. import embedding, figures

    pictures, metrics, rng = [], {}, s.rng("tsne")
    classes = len(s.info.classes)
    three = tuple(c for c in SUBSET if c < classes)
    for key, chosen in (("all", tuple(range(classes))), ("three", three)):
        pool, labels, which = s.val_images, s.val_labels, "validation images"
        if np.isin(labels, chosen).sum() < POINTS:
            pool, labels = np.concatenate([s.images, pool]), np.concatenate([s.labels, labels])
            which = "training and validation images"
        picked = np.sort(rng.permutation(np.flatnonzero(np.isin(labels, chosen)))[:POINTS])
        images, labels = pool[picked], labels[picked]
        features = embedding.features(s.net, images, s.hidden)
        points = embedding.tsne(features, seed=s.seed, perplexity=min(30, max(2, (len(picked) - 1) // 3)))
        trust, accuracy = (
            embedding.trustworthiness(features, points),
            embedding.knn_accuracy(points, labels, 10),
        )
        what = "all classes" if key == "all" else ", ".join(s.name(c) for c in chosen)
        metrics[what] = {
            "images": len(picked),
            "trustworthiness": trust,
            "10 nearest in the plane, accuracy": accuracy,
        }
        made = (
            f"t-SNE (perplexity 30, seed {s.seed}) of the {features.shape[1]} features of {s.hidden}, "
            f"after the ReLU, of {len(picked)} random {which}. {s.made}"
        )
        title = f"t-SNE of {s.hidden}: {what}"
        note = f"{len(picked)} {which}; near means alike to the network."
        plot = figures.scatter(points, labels, {c: s.name(c) for c in chosen}, title, note)
        pictures.append(
            Picture(
                f"{key}-scatter",
                title,
                f"Each mark is an image, its colour and shape the class. {made} Only nearness means "
                "something: the network finds images alike that stand together; distances between "
                "clusters and their sizes mean little. The ten nearest marks would guess the class of "
                f"{100 * accuracy:.1f} % of the images; trustworthiness of the neighbourhoods: "
                f"{trust:.3f} of 1.",
                f"Scatter plot of {len(picked)} points in {len(chosen)} classes.",
                plot,
                points=Points(figures.places(plot, points), [s.name(c) for c in labels], figures.photo(images)),
            )
        )
        grid = int(np.sqrt(len(picked)))
        for method, how in (
            (
                "sorted",
                "in the order of x + y of their places in the plane, row after row (as the study does)",
            ),
            (
                "nearest",
                "each cell of the square takes the image nearest to it in the plane (Karpathy's CNN codes)",
            ),
        ):
            mosaic, _ = embedding.mosaic(images, points, grid, method)
            title = f"Mosaic by t-SNE, {method}: {what}"
            pictures.append(
                Picture(
                    f"{key}-mosaic-{method}",
                    title,
                    f"The images themselves: {how}. {made} Read: what the network holds to be alike "
                    "stands side by side.",
                    f"Mosaic of {grid} by {grid} images arranged by t-SNE.",
                    figures.poster(figures.photo(mosaic[None])[0], title, how[0].upper() + how[1:] + "."),
                    group=f"Mosaic by t-SNE: {what}",
                    tab=method,
                )
            )
    return pictures, metrics


def neighbors(s):
    """The seven nearest images in pixels and in features, and how often they have the query's class."""
    from .. import embedding, figures, neighbors

    # The study's 13,000: the first 10,000 training images and 3,000 validation images, or as many as there are.
    split = min(10_000, len(s.images))
    images = np.concatenate([s.images[:split], s.val_images[:3000]])
    labels = np.concatenate([s.labels[:split], s.val_labels[:3000]])
    spaces = {
        "pixels": images.reshape(len(images), -1),
        f"features ({s.hidden})": embedding.features(s.net, images, s.hidden),
    }
    rng, M = s.rng("neighbors"), len(images)
    groups = {"validation": np.arange(split, M), "training": np.arange(split)}
    groups = {f"{k} images as queries": np.sort(rng.permutation(v)[:1000]) for k, v in groups.items()}
    queries = np.array([q % M for q in QUERIES])
    pictures, shares = [], {}
    for space, rows in spaces.items():
        shares[space] = {}
        for group, chosen in groups.items():
            found, _ = neighbors.nearest(rows[chosen], rows, 7, exclude=chosen)
            shares[space][group] = neighbors.precision_at_k(found, labels[chosen], labels).mean()
        found, _ = neighbors.nearest(rows[queries], rows, 7, exclude=queries)
        order = np.column_stack([queries, found]).ravel()
        right = (labels[found] == labels[queries][:, None]).sum()
        frames = [None if labels[i] == labels[q] else figures.WRONG for i, q in zip(order, queries.repeat(8))]
        first = space.split()[0]
        title = f"Nearest neighbours in {space}"
        held_out = shares[space]["validation images as queries"]
        pictures.append(
            Picture(
                first,
                title,
                f"Left: the study's ten query images (numbers modulo the {M:,} images there are); then "
                f"the 7 nearest of all others by Euclidean distance in {space}, nearest first. An orange "
                f"frame marks a neighbour of another class. {s.made} Of these 70 neighbours {right} have "
                f"their query's class; over {len(groups['validation images as queries']):,} validation "
                f"queries it is {100 * held_out:.1f} %. Compare the two figures: pixels find the same "
                "pose and brightness, features the same meaning.",
                f"Ten rows of a query image and its seven nearest neighbours in {space}; {right} of 70 "
                "share the query's class.",
                figures.sheet(
                    figures.photo(images[order]),
                    8,
                    title,
                    f"Orange: another class. {right} of these 70 share their query's class.",
                    captions=[s.name(labels[i]) for i in order],
                    rows=[str(q) for q in queries],
                    heads=["query", *(str(i) for i in range(1, 8))],
                    frames=frames,
                    gap=10,
                ),
                group="Nearest neighbours",
                tab=first,
            )
        )
    return pictures, {"images searched": M, "share of the 7 nearest with the query's class": shares}
