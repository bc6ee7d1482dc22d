"""The methods that the scorecards compare, each with its options, and the numbers that all of them are judged by alike.

`rows` is the list, `place` says whether a map lies where it should, `order` whether the answer hangs on the pixels that
it puts first. What draws a map without looking at a network, `viz.metrics.controls.CONTROLS`, is judged alike.
"""

import time
import tracemalloc
from dataclasses import dataclass, field

from tinycnn.layers import ReLU
from viz import figures
from viz.attribution import METHODS
from viz.attribution.gradients import last_maps
from viz.attribution.relevance import COMPOSITES
from viz.metrics import faithfulness, localization
from viz.metrics.maps import absolute, drawn, signed

FEW = 50  # images for all that takes many passes
STEPS = 16  # in which pixels are deleted or inserted
COPIES = 5  # slightly changed ones, for the sensitivity of a map
NOISY = 16  # copies of an image with noise, and steps of integrated gradients
PLACE = {  # (masks, maps (N, H, W)) -> (N,): more is better
    "pointing game": localization.pointing_game,
    "relevance mass": localization.relevance_mass_accuracy,
    "rank accuracy": localization.relevance_rank_accuracy,
    "average precision": localization.average_precision,
    "AUROC": localization.auroc,
}
ORDER = {  # (net, images, maps (N, H, W), target) -> (N,): the area under the curve of the answer's probability
    "deletion": lambda *args: faithfulness.deletion(*args, steps=STEPS)[1],
    "insertion": lambda *args: faithfulness.insertion(*args, steps=STEPS)[1],
    "ROAD": lambda *args: faithfulness.road(*args)[1],
}
STILL = 0.5  # a rank correlation above it: the maps are as they were
LESS = ("deletion", "ROAD", "max-sensitivity", "infidelity")  # less is better
SHARES = (*PLACE, *ORDER)  # these lie between 0 and 1


def slug(metric):
    """Return a metric's name as a file's."""
    return metric.lower().replace(":", "").replace(",", "").replace(" ", "-")


def title(metric):
    """Return a metric's name as a figure's title."""
    return metric[0].upper() + metric[1:]


@dataclass(frozen=True)
class Row:
    """A method with its options: a function (net, x, target) -> maps (N, H, W, C).

    Attributes
    ----------
    name : str
        As tables write it.
    method : str
        In `viz.attribution.METHODS`.
    options : dict
    size : bool
        Its maps are read by their absolute value, for they have no sign or none that means more or less of a score;
        else by their sign.
    slow : bool
        It takes thousands of passes an image: of `FEW` images, by place alone.
    """

    name: str
    method: str
    options: dict = field(default_factory=dict)
    size: bool = False
    slow: bool = False

    def __call__(self, net, x, target):
        """Return the maps."""
        return METHODS[self.method](net, x, target, **self.options)

    def read(self, maps):
        """Return maps (N, H, W): one number a pixel, larger where it counts for more."""
        return absolute(maps) if self.size else signed(maps)

    def tile(self, maps):
        """Return maps (N, H, W), as `read`, as they are drawn: by size from black, or by sign around the middle."""
        return figures.heat(maps) if self.size else figures.signed(maps[..., None])

    def draw(self, net, images, target):
        """Return the maps as `read`, as drawn, and what an image's took: {"seconds", "megabytes"}.

        Memory is the most that NumPy and Python held at once, beyond what was there, for as many as six images.
        """
        few = slice(min(6, len(images)))
        tracemalloc.start()
        try:
            drawn(self, net, images[few], target[few])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        began = time.perf_counter()
        maps = drawn(self, net, images, target)
        seconds = (time.perf_counter() - began) / len(images)
        return self.read(maps), maps, {"seconds": seconds, "megabytes": peak / few.stop / 1e6}


def rows(net):
    """Return the `Row`s for a network; windows that hide a part are an eighth of the image's shorter side."""
    window = max(1, min(net.input_shape[:2]) // 8)
    pool = last_maps(net)
    relu = [layer.name for layer in net.layers if isinstance(layer, ReLU) and len(net.shapes[layer.name]) == 3][-1:]
    noisy, hidden = {"samples": NOISY}, {"window": window, "stride": window}
    return (
        Row("gradient", "gradient", size=True),
        Row("guided backprop", "guided_backprop", size=True),
        Row("deconvnet", "deconvnet", size=True),
        *(
            Row(f"from {layer}", "layer_backprop", {"layer": layer}, size=True)
            for layer in dict.fromkeys((pool, *relu))
        ),
        Row("SmoothGrad", "smoothgrad", noisy, size=True),
        Row("VarGrad", "vargrad", noisy, size=True),
        Row("SmoothGrad squared", "smoothgrad_sq", noisy, size=True),
        Row("input x gradient", "input_x_gradient"),
        Row("integrated gradients", "integrated_gradients", {"steps": NOISY}),
        Row("DeepLIFT", "deeplift"),
        *(Row(f"LRP {name.replace('_', ' ')}", "lrp", {"composite": name}) for name in COMPOSITES),
        Row("excitation backprop", "excitation_backprop"),
        Row("Grad-CAM", "grad_cam"),
        Row("Grad-CAM++", "grad_cam_plusplus"),
        Row("LayerCAM", "layer_cam"),
        Row("guided Grad-CAM", "guided_grad_cam", size=True),
        Row("occlusion", "occlusion", hidden),
        Row("Score-CAM", "score_cam", slow=True),
        Row("RISE", "rise", {"samples": 1000}, slow=True),
        Row("Shapley values", "shapley_value_sampling", {"permutations": 10, "window": window}, slow=True),
    )


def place(maps, masks):
    """Return {metric: its value for each image} of maps (N, H, W) by where they lie; {} without masks."""
    return {} if masks is None else {name: metric(masks, maps) for name, metric in PLACE.items()}


def order(net, images, maps, target):
    """Return {metric: its value for each of the first `FEW` images} of maps (N, H, W) by what the answer hangs on."""
    return {name: metric(net, images[:FEW], maps[:FEW], target[:FEW]) for name, metric in ORDER.items()}
