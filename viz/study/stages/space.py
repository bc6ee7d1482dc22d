"""The images as points in a layer's features: t-SNE, mosaics, nearest neighbours."""

import numpy as np

from viz.report.results import Picture, Points

QUERIES = (223, 955, 6666, 9550, 138, 777, 8888, 2222, 222, 99)  # images of the study's neighbour figure
POINTS = 900  # images of its t-SNE, at most
SUBSET = (0, 2, 7)  # its second t-SNE: airplane, car and monkey on STL-10


def tsne(s):
    """t-SNE of the last hidden layer: a scatter by class and two mosaics, for all classes and for three."""
    from viz import embedding, figures

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
    from viz import embedding, figures, neighbors
    from viz.metrics.statistics import interval

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
    groups = {k: np.sort(rng.permutation(v)[:1000]) for k, v in groups.items()}
    groups["the study's"] = np.array([q % M for q in QUERIES])
    asked, ends = np.concatenate(list(groups.values())), np.cumsum([len(v) for v in groups.values()])
    found, right = {}, {}  # {space: {group: neighbours (Q, 7)}}, and which share of them has the query's class
    for space, rows in spaces.items():
        nearest = np.split(neighbors.nearest(rows[asked], rows, 7, exclude=asked)[0], ends[:-1])
        found[space] = dict(zip(groups, nearest))
        right[space] = {k: neighbors.precision_at_k(v, labels[groups[k]], labels) for k, v in found[space].items()}
    random = [k for k in groups if k != "the study's"]
    shares = {space: {k: interval(right[space][k]) for k in random} for space in spaces}
    pixels, features = spaces
    gains = {k: interval(right[features][k] - right[pixels][k]) for k in random}
    _, which, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    chance = (sizes[which] - 1).mean() / (M - 1)

    queries = groups["the study's"]
    held_out = "; ".join(f"in {space} {shares[space]['validation']:.1%}" for space in spaces)
    number = (
        f"Over {len(groups['validation']):,} random validation queries the share of the 7 nearest that have the "
        f"query's class is, with 95 % confidence intervals (Student's, over queries), {held_out}; by chance "
        f"{100 * chance:.1f} %."
    )
    pictures = []
    for space in spaces:
        nearest = found[space]["the study's"]
        order = np.column_stack([queries, nearest]).ravel()
        hits = (labels[nearest] == labels[queries][:, None]).sum()
        frames = [None if labels[i] == labels[q] else figures.WRONG for i, q in zip(order, queries.repeat(8))]
        title = f"Nearest neighbours in {space}"
        pictures.append(
            Picture(
                space.split()[0],
                title,
                f"Left: the study's ten query images (numbers modulo the {M:,} images there are); then "
                f"the 7 nearest of all others by Euclidean distance in {space}, nearest first. An orange "
                f"frame marks a neighbour of another class. {s.made} Of these 70 neighbours {hits} have "
                f"their query's class. {number} Compare the two figures: pixels find the same "
                "pose and brightness, features the same meaning.",
                f"Ten rows of a query image and its seven nearest neighbours in {space}; {hits} of 70 "
                "share the query's class.",
                figures.sheet(
                    figures.photo(images[order]),
                    8,
                    title,
                    f"Orange: another class. {hits} of these 70 share their query's class.",
                    captions=[s.name(labels[i]) for i in order],
                    rows=[str(q) for q in queries],
                    heads=["query", *(str(i) for i in range(1, 8))],
                    frames=frames,
                    gap=10,
                ),
                group="Nearest neighbours",
                tab=space.split()[0],
            )
        )
    title = "Do the nearest images have the same class?"
    pictures.append(
        Picture(
            "shares",
            title,
            f"Of the 7 images nearest to a query, by Euclidean distance among all {M:,}, the share that has the "
            f"query's class: mean over {' and '.join(f'{len(groups[k]):,} random {k}' for k in random)} images as "
            f"queries (seed {s.seed}), with Student's 95 % confidence interval over the queries. Dashed: what seven "
            f"images drawn at random would reach, {100 * chance:.1f} %. Features less pixels, query by query: "
            f"{gains['validation']:.1%} for validation images. {s.made} Read: how much nearer the features bring "
            "images of one class than the pixels do. The network was told the classes of the training images: only the "
            "validation queries say what it carries over to new ones.",
            f"Mean shares with intervals, {held_out}, by chance {100 * chance:.1f} %.",
            figures.intervals(
                {f"{space.split()[0]}, {k}": shares[space][k] for space in spaces for k in random},
                title,
                "Mean share of the 7 nearest with the query's class, 95 % intervals.",
                "share of the 7 nearest with the query's class",
                (chance, "chance"),
            ),
        )
    )
    named = {k: f"{k} images as queries" for k in random}
    metrics = {
        "images searched": M,
        "queries": {named[k]: len(groups[k]) for k in random},
        "share of the 7 nearest with the query's class": {
            space: {named[k]: i.mean for k, i in some.items()} for space, some in shares.items()
        },
        "95 % confidence intervals, over queries": {
            space: {named[k]: [i.low, i.high] for k, i in some.items()} for space, some in shares.items()
        },
        "features less pixels, query by query": {named[k]: vars(i) for k, i in gains.items()},
        "by chance": chance,
    }
    return pictures, metrics
