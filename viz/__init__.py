"""Feature visualization on the primitives of `tinycnn`: pictures of what a trained network has learned.

Every function takes a `tinycnn.Network` and NumPy images, and returns NumPy arrays; `viz.figures` alone
draws. Import what you need: ``from viz import saliency, maximize``; importing one module loads no other room.

activations   what a layer answers: maps, filters, the images and patches that excite each map most
deconvnet     one map projected back to pixels (Zeiler and Fergus)
saliency      gradients of class scores, and of every map of a layer, with respect to the pixels
attribution   every other way to say which pixels count: by gradients, relevance, activation maps, perturbation
ascent        images that excite a unit: `maximize`, with `recipes`, `optimizers`, `regularizers`, `transforms` and
              `parametrize`
space         `embedding`: t-SNE of a layer's features, and mosaics of images placed by it; `neighbors`: nearest images,
              in pixels or in features
metrics       which picture and which number to believe: `localization` (where a map points), `faithfulness` (whether
              the network needs what it names), `randomization` (whether it depends on the weights), `robustness`,
              `complexity`, `controls` (maps of no network), `identification`, `orientation`, `correlation`,
              `statistics` (intervals)
figures       draws what the others return
report        what a result is, and one self-contained page of them
study         what ``run_all.py`` runs
"""

import importlib

ROOMS = {  # modules that are handed on, whatever room they live in
    "activations": "viz.activations",
    "deconvnet": "viz.deconvnet",
    "saliency": "viz.saliency",
    "attribution": "viz.attribution",
    "maximize": "viz.ascent.maximize",
    "optimizers": "viz.ascent.optimizers",
    "regularizers": "viz.ascent.regularizers",
    "transforms": "viz.ascent.transforms",
    "parametrize": "viz.ascent.parametrize",
    "embedding": "viz.space.embedding",
    "neighbors": "viz.space.neighbors",
    "statistics": "viz.metrics.statistics",
    "figures": "viz.figures",
}
__all__ = ["activations", "attribution", "deconvnet", "embedding", "figures", "maximize", "neighbors", "optimizers",
           "parametrize", "regularizers", "saliency", "statistics", "transforms"]  # fmt: skip


def __getattr__(name):
    if name in ROOMS:
        return importlib.import_module(ROOMS[name])
    raise AttributeError(f"module 'viz' has no attribute {name!r}")
