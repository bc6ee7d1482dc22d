"""Which pixels count: every common method on the primitives of `tinycnn`, each (net, x, target, **options) -> maps.

gradients      of the score, of noisy copies, along a path
relevance      the score shared out from layer to layer; and what was lost on the way, `conservation`
cam            weighted sums of a layer's maps
perturbation   scores with parts of the image hidden
ties           how often pools and ReLUs tie, and how far a map moves when ties go another way

`METHODS` is the one table {name: function}. Maps are NumPy arrays (N, H, W, C) of the network's dtype, (N, H, W, 1) for
class activation maps and `layer_backprop`; `x` may be any number of images, a memory map too. The target is a class,
one for each image, (layer, unit) or (layer, unit, (row, column)): see `gradients.gradient`.
"""

from . import cam, gradients, perturbation, relevance, ties
from .relevance import conservation

METHODS = {
    method.__name__: method
    for method in (
        gradients.gradient,
        gradients.input_x_gradient,
        gradients.guided_backprop,
        gradients.deconvnet,
        gradients.layer_backprop,
        gradients.smoothgrad,
        gradients.vargrad,
        gradients.smoothgrad_sq,
        gradients.integrated_gradients,
        relevance.lrp,
        relevance.deeplift,
        relevance.excitation_backprop,
        cam.grad_cam,
        cam.grad_cam_plusplus,
        cam.layer_cam,
        cam.score_cam,
        cam.guided_grad_cam,
        perturbation.occlusion,
        perturbation.rise,
        perturbation.shapley_value_sampling,
    )
}

__all__ = ["METHODS", "cam", "conservation", "gradients", "perturbation", "relevance", "ties"]
