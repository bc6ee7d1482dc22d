"""What is timed: the works, their inputs, how many operations they are, and what counts as the same result.

A work is a kind and one of the study's networks. Every side starts from the same weights and the same images (uniform
noise), which each process makes for itself from the seed, and computes in float32.
"""

from dataclasses import dataclass

import numpy as np

from tinycnn import models
from tinycnn.layers import Conv2D, Dense

LR = 1e-4
STEPS = 3  # of training that are compared before anything is timed
LAYER = "relu2"  # where deconvnet projections and back-propagation maps start: conv2 after its ReLU
ITERATIONS = 20  # of activation maximization in one call; the time is per iteration
RATE = 0.1  # of its ascent

SAMPLES = 50  # steps of integrated gradients, copies of SmoothGrad
SIGMA = 0.15  # of its noise, as a share of each image's range
EPSILON = 1e-6  # of layer-wise relevance propagation

KINDS = {
    "train": "a step of Adam on the mean cross-entropy",
    "infer": "logits",
    "saliency": "largest gradient of the 10 class scores over classes and colours; forward included",
    "layerbackprop": "largest gradient of the sums of conv2's 96 maps over maps and colours; forward included",
    "deconvnet": "each image's strongest map of conv2 sent back to the pixels; forward included",
    "maximize": "one iteration of plain gradient ascent on the pixels for each of 10 classes",
    "integratedgradients": f"integrated gradients of a class, {SAMPLES} steps of Gauss and Legendre",
    "smoothgrad": f"mean gradient of a class over {SAMPLES} noisy copies",
    "occlusion": "fall of a class score when a window is hidden, 64 windows",
    "lrp": "layer-wise relevance propagation of a class by the epsilon rule",
}
ATTRIBUTION = {  # {kind: passes through the network, there or back, for each image}
    "integratedgradients": 2 * SAMPLES,
    "smoothgrad": 2 * SAMPLES,
    "occlusion": 65,
    "lrp": 2,
}
EXPLAINED = {"cifar10": 100, "stl10": 20}  # images of these works
IMAGES = {"saliency": 100, "layerbackprop": 20, "deconvnet": 100, "maximize": 10}  # train, infer: the batch

# Relative differences that count as the same: of each loss (Adam's first steps enlarge the smallest differences), else
# of all values together in the Euclidean norm, because near-ties may flip a few switches.
LIMITS = {"train": (1e-5, 1e-3, 1e-3), "infer": 1e-4}
LIMIT = 1e-3


@dataclass(frozen=True)
class Work:
    """A kind of computation with one network, on a number of images."""

    kind: str
    model: str
    images: int

    @property
    def name(self):
        return f"{self.kind}-{self.model}"

    @property
    def upto(self):
        """The layer at which the forward pass may end; None: the logits."""
        return LAYER if self.kind in ("layerbackprop", "deconvnet") else None

    def network(self, backend="reference"):
        """The network, with the same weights for every backend."""
        return models.build(self.model, backend)

    def inputs(self):
        """Images (N, H, W, C) float32 and labels (N,) int64."""
        rng = np.random.default_rng(0)
        x = rng.random((self.images, *models.INPUT_SHAPES[self.model]), np.float32)
        return x, np.arange(self.images) % 10

    def flops(self, net):
        """Floating-point operations (two per product) of a dense implementation, for what one time stands for."""
        ops, shape = [], net.input_shape
        for spec in net.layers:
            out = net.shapes[spec.name]
            if isinstance(spec, Conv2D):
                ops.append(2 * np.prod(out) * np.prod(spec.kernel) * shape[2])
            elif isinstance(spec, Dense):
                ops.append(2 * shape[0] * out[0])
            shape = out
            if spec.name == self.upto:
                break
        forward = sum(ops)  # the way back to the pixels costs as much
        if self.kind == "train":
            forward = 3 * forward - ops[0]  # nobody needs the gradient of the images
        elif self.kind in ("saliency", "layerbackprop"):
            forward *= 1 + shape[-1]
        elif self.kind in ATTRIBUTION:
            forward *= ATTRIBUTION[self.kind]
        elif self.kind != "infer":
            forward *= 2
        return int(forward) * self.images


def window(model):
    """Return the side of the windows that occlusion hides, in pixels: 8 x 8 of them cover an image."""
    return models.INPUT_SHAPES[model][0] // 8


def catalogue(batch):
    """{name: Work} of all works that several sides can do."""
    named = [(kind, model) for kind in ("train", "infer") for model in models.STUDY]
    named += [(kind, "stl10") for kind in ("saliency", "layerbackprop", "deconvnet")]
    named += [("maximize", model) for model in models.STUDY]
    works = [Work(kind, model, IMAGES.get(kind, batch)) for kind, model in named]
    works += [Work(kind, model, images) for kind in ATTRIBUTION for model, images in EXPLAINED.items()]
    return {work.name: work for work in works}


def disagreement(kind, ours, theirs, slack=1):
    """Return (the relative difference of two results, whether it is within its limit times `slack`)."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf"), False
    if kind == "train":
        errors = np.abs(ours - theirs) / np.abs(theirs)
        return float(errors.max()), bool((errors <= slack * np.array(LIMITS["train"])).all())
    error = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return error, error <= slack * LIMITS.get(kind, LIMIT)
