"""Whatever a function of `viz` is given in the place of any argument, it works or costs one line."""

from functools import partial

import numpy as np
import pytest

from tinycnn import InputError, Network
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from viz import activations, attribution, deconvnet, embedding, figures, maximize, neighbors, saliency
from viz.metrics import (
    complexity,
    controls,
    correlation,
    faithfulness,
    identification,
    localization,
    maps,
    orientation,
    randomization,
    robustness,
    statistics,
)

RNG = np.random.default_rng(0)
LAYERS = [Conv2D("c1", 6, 3), ReLU("r1"), MaxPool2D("p1"), Conv2D("c2", 7, 3), ReLU("r2"), Flatten("f"), Dense("d", 5)]
NET, DENSE = (Network(layers, (9, 7, 3)) for layers in (LAYERS, LAYERS[-2:]))
X = RNG.random((3, 9, 7, 3)).astype(np.float32)
X11, BIG = RNG.random((3, 11, 12, 1)), Network([Flatten("f"), Dense("d", 5)], (11, 12, 1))
ODD = [
    *(None, "x", b"x", "nope", [], {}, object(), [None], [[1, 2], [3]], [0.5], [0, 99], np.array(["a"] * 3)),
    *(np.zeros(0), np.zeros((0, 9, 7, 3)), np.zeros((9, 7, 3)), np.zeros((3, 9, 7, 4)), np.zeros((3, 5)), np.zeros(3)),
    *(X.astype(complex), X.astype(object), np.full_like(X, np.nan), np.full_like(X, np.inf), X > 0.5, X, X[..., 0]),
    *(-1, 0, 99, 1.5, np.nan, np.inf, True, 10**30, np.float32(2), (-1, 2), np.array([[0, 0]])),
]
FEW = {"rise": {"samples": 2}, "shapley_value_sampling": {"permutations": 1}, "integrated_gradients": {"steps": 2}}
FEW |= {name: {"samples": 2} for name in ("smoothgrad", "vargrad", "smoothgrad_sq")}
LOOK = saliency.gradient
FUNCTIONS = {  # with arguments that are right
    "maps": (activations.maps, NET, X, "r1"),
    "filters": (activations.filters, NET, "c1"),
    "top_images": (activations.top_images, NET, X, "r1", 2, [0, 1]),
    "crop": (activations.crop, X, np.array([[0, 0, 2, 2]] * 3)),
    "sums": (activations.sums, NET, X, "r1"),
    "wins": (activations.wins, np.ones((3, 4))),
    "strongest": (activations.strongest, X),
    "project": (lambda *a: deconvnet.project(*a[:4], unpool=a[4], positions=a[5]), NET, X, "r1", 0, "repeat", (0, 0)),
    "edges": (deconvnet.edges, X),
    "saliency": (saliency.saliency, NET, X, 0, "gradient"),
    "gradient": (saliency.gradient, NET, X, 0, "guided"),
    "layer_backprop": (saliency.layer_backprop, NET, X, "r1"),
    **{name: (partial(method, **FEW.get(name, {})), NET, X, 0) for name, method in attribution.METHODS.items()},
    "a unit": (lambda *a: attribution.METHODS["gradient"](NET, X, a), "r1", 0, (0, 0)),
    "smoothgrad": (lambda *a: attribution.METHODS["smoothgrad"](NET, X, 0, 2, *a), 0.1, 0),
    "integrated_gradients": (lambda a: attribution.METHODS["integrated_gradients"](NET, X, 0, 2, a), 0.5),
    "lrp": (attribution.METHODS["lrp"], NET, X, 0, "gamma", 0.1, 0.1),
    "excitation_backprop": (attribution.METHODS["excitation_backprop"], NET, X, 0, 0.1),
    "conservation": (attribution.conservation, NET, X, 0, "gamma", 0.1, 0.1),
    "grad_cam": (attribution.METHODS["grad_cam"], NET, X, 0, "r1"),
    "occlusion": (attribution.METHODS["occlusion"], NET, X, 0, 2, 2, 0.5),
    "rise": (lambda *a: attribution.METHODS["rise"](NET, X, 0, 2, *a), 3, 0.5, 0, 0.5),
    "shapley": (lambda *a: attribution.METHODS["shapley_value_sampling"](NET, X, 0, 1, *a), 3, 0, 0.5),
    "maximize": (lambda *a: maximize.maximize(*a[:3], seed=a[3], steps=a[4]), NET, "d", 0, 0, 2),
    "features": (embedding.features, NET, X, "r1"),
    "tsne": (embedding.tsne, RNG.random((6, 4)), 0, 2),
    "trustworthiness": (embedding.trustworthiness, RNG.random((6, 4)), RNG.random((6, 2)), 2),
    "knn_accuracy": (embedding.knn_accuracy, RNG.random((6, 2)), np.array([0, 1] * 3), 2),
    "mosaic": (embedding.mosaic, X, RNG.random((3, 2)), 2, "sorted"),
    "nearest": (neighbors.nearest, RNG.random((3, 4)), RNG.random((6, 4)), 2, np.zeros(3, int)),
    "precision_at_k": (neighbors.precision_at_k, np.zeros((3, 2), int), np.zeros(3, int), np.zeros(6, int)),
    "joins": (neighbors.joins, RNG.random((3, 4)), RNG.random((3, 4)), RNG.random((3, 2))),
    "border_colors": (neighbors.border_colors, X, 8),
    "pearson": (correlation.pearson, X, X),
    "identify": (identification.identify, X, X),
    **{
        name: (getattr(localization, name), X[..., 0] > 0.5, X[..., 0])
        for name in (
            "pointing_game",
            "relevance_mass_accuracy",
            "relevance_rank_accuracy",
            "average_precision",
            "auroc",
        )
    },
    "deletion": (faithfulness.deletion, NET, X, X[..., 0], 0, 3, 0.5, "hit", 0),
    "insertion": (faithfulness.insertion, NET, X, X[..., 0], 0, 3, 0.2, "hit", 0),
    "road": (faithfulness.road, NET, X, X[..., 0], 0, 3, 0.5, "relevant", 0.01, "hit", 0),
    "completeness": (faithfulness.completeness, NET, X, X, 0, 0.0),
    "randomization": (
        lambda *a: randomization.model_parameter_randomization(BIG, *a[:4], 1, 1, *a[4:]),
        X11,
        0,
        LOOK,
        "all",
        0.1,
        0,
    ),
    "complexity_rise": (lambda *a: randomization.complexity_rise(NET, *a[:3], 9, *a[3:]), X, 0, LOOK, 0),
    "max_sensitivity": (lambda *a: robustness.max_sensitivity(NET, *a[:4], 2, *a[4:]), X, 0, LOOK, 0.1, 0),
    "infidelity": (lambda *a: robustness.infidelity(NET, *a[:4], 2, True, *a[4:]), X, X, 0, 0.1, 0),
    "sparseness": (complexity.sparseness, X),
    "entropy": (complexity.entropy, X),
    "spearman": (correlation.spearman, X, X),
    "ssim": (correlation.ssim, np.zeros((1, 11, 11)), np.ones((1, 11, 11))),
    "signed maps": (maps.signed, X),
    "random_map": (lambda *a: controls.random_map(NET, a[0], seed=a[1]), X, 0),
    "brightness": (lambda x: controls.brightness(NET, x), X),
    "oriented": (orientation.oriented, RNG.random((3, 3, 3, 1))),
    "interval": (statistics.interval, [1.0, 2.0], 1, 0.95),
    "share": (statistics.share, [0, 1], 0.95),
    "accuracy_interval": (statistics.accuracy_interval, 1, 2, 0.95),
    "photo": (figures.photo, X),
    "heat": (figures.heat, X[..., 0], 1.0),
    "signed": (figures.signed, X, 1.0),
    "enlarge": (figures.enlarge, X, 20),
    "sheet": (figures.sheet, figures.photo(X), 2, "Title"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore")
def test_any_argument_is_right_or_costs_one_line(name):
    function, *right = FUNCTIONS[name]
    function(*right)
    for i, _ in enumerate(right):
        for odd in ODD if not isinstance(right[i], Network) else ():
            try:
                function(*right[:i], odd, *right[i + 1 :])
            except InputError as e:
                assert "\n" not in str(e) and len(str(e)) < 400, e


@pytest.mark.parametrize("layer", ["f", "d"])
def test_a_network_without_maps_says_so(layer):
    for look in (activations.maps, activations.top_images, saliency.layer_backprop, activations.filters):
        with pytest.raises(InputError, match=r"there is none$"):
            look(DENSE, layer) if look is activations.filters else look(DENSE, X, layer)
