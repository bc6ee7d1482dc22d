"""Which method's maps to believe: all of them on the same images, by every metric, beside maps of no network."""

from dataclasses import dataclass, field

import numpy as np

from viz import figures
from viz.attribution import METHODS
from viz.attribution.relevance import COMPOSITES
from viz.metrics import complexity, faithfulness, localization, randomization, robustness, statistics
from viz.metrics.controls import CONTROLS
from viz.metrics.maps import absolute, drawn, signed
from viz.report.results import NOTHING, Comparison, Picture
from viz.study.subject import Study

POINTED = 500  # images by which maps are judged whose objects are known
FEW = 50  # images for all that takes many passes
SMALLEST = 11  # pixels: of an image that has an SSIM


@dataclass(frozen=True)
class Row:
    """A method with its options.

    `size`: its maps are read by their absolute value, else by their sign, as parts of a score. `slow`: on `FEW` images,
    by position alone.
    """

    method: str
    options: dict = field(default_factory=dict)
    size: bool = False
    slow: bool = False

    @property
    def name(self):
        """As tables write it."""
        return ", ".join([self.method.replace("_", " "), *(str(v).replace("_", " ") for v in self.options.values())])

    def __call__(self, net, x, target):
        """Return the maps (N, H, W, C)."""
        return METHODS[self.method](net, x, target, **self.options)

    def read(self, maps):
        """Return maps (N, H, W): one number a pixel, larger where it counts for more."""
        return absolute(maps) if self.size else signed(maps)


ROWS = (
    *(Row(name, size=True) for name in ("gradient", "guided_backprop", "deconvnet", "layer_backprop")),
    *(Row(name, size=True) for name in ("smoothgrad", "vargrad", "smoothgrad_sq")),
    *(Row(name) for name in ("input_x_gradient", "integrated_gradients", "deeplift")),
    *(Row("lrp", {"composite": name}) for name in COMPOSITES),
    *(Row(name) for name in ("excitation_backprop", "grad_cam", "grad_cam_plusplus", "layer_cam")),
    Row("guided_grad_cam", size=True),
    Row("occlusion"),
    *(Row(name, slow=True) for name in ("score_cam", "rise", "shapley_value_sampling")),
)
PLACE = {  # (masks, maps (N, H, W)) -> (N,): more is better
    "pointing game": localization.pointing_game,
    "mass on the object": localization.relevance_mass_accuracy,
    "rank accuracy": localization.relevance_rank_accuracy,
    "average precision": localization.average_precision,
    "AUROC": localization.auroc,
}
ORDER = {  # (net, images, maps (N, H, W), target) -> (N,): how the answer follows the order of the pixels
    "deletion": lambda *args: faithfulness.deletion(*args)[1],  # less is better
    "insertion": lambda *args: faithfulness.insertion(*args)[1],  # more
    "ROAD": lambda *args: faithfulness.road(*args)[1],  # less
}
SHARES = (*PLACE, *ORDER)  # these lie between 0 and 1


def run(s: Study):
    """Return (pictures, facts)."""
    if min(s.net.input_shape[:2]) < SMALLEST:
        return [], {NOTHING: f"maps are compared by SSIM, which takes images of {SMALLEST} x {SMALLEST} pixels at least"}
    shown, picked = s.examples(), s.examples_and_more("scorecard", FEW if s.masks is None else POINTED)
    images, masks = s.test_images[picked], None if s.masks is None else s.masks[picked]
    target = s.net.predict(images)
    values, tiles = {}, {"image": figures.photo(images[: len(shown)])}
    for row in ROWS:
        maps, values[row.name] = scores(s.net, row, images, masks, target, s.seed)
        draw = figures.heat if row.size else figures.signed
        tiles[row.name] = draw(row.read(maps[: len(shown)]))
    for name, control in CONTROLS.items():
        values[name] = by_order_and_place(s.net, control(s.net, images)[..., 0], images, masks, target)
    facts = {
        "images": len(images),
        "few": min(FEW, len(images)),
        "right": float((target == s.test_labels[picked]).mean()),
        "scores": {name: {k: vars(statistics.interval(v)) for k, v in some.items()} for name, some in values.items()},
        "by_chance": None if masks is None else float(masks[masks.any((1, 2))].mean()),
    }
    return [_sheet(s, tiles, shown, target), *_charts(values, facts)], facts


def scores(net, row, images, masks, target, seed):
    """Return (maps, {metric: its value for each image}) of a method."""
    if row.slow:
        images, target, masks = images[:FEW], target[:FEW], None if masks is None else masks[:FEW]
        maps = drawn(row, net, images, target)
        return maps, _by_place(row.read(maps), masks)
    maps, few, unit = drawn(row, net, images, target), images[:FEW], target[:FEW]
    found = by_order_and_place(net, row.read(maps), images, masks, target)
    anew = randomization.model_parameter_randomization(net, few, unit, row, seed=seed)  # from the top on, all at last
    ranks = anew.absolute if row.size else anew.signed
    found["last layer random: Spearman"], found["all layers random: Spearman"] = ranks[0], ranks[-1]
    found["last layer random: SSIM"], found["all layers random: SSIM"] = anew.ssim[0], anew.ssim[-1]
    found["max-sensitivity"] = robustness.max_sensitivity(net, few, unit, row, seed=seed)
    found["infidelity"] = robustness.infidelity(net, few, maps[:FEW], unit, seed=seed)
    found["Gini index"] = complexity.sparseness(maps[:FEW])
    return maps, found


def by_order_and_place(net, maps, images, masks, target):
    """Return {metric: its value for each image} of maps (N, H, W), whoever drew them."""
    ordered = {name: metric(net, images[:FEW], maps[:FEW], target[:FEW]) for name, metric in ORDER.items()}
    return _by_place(maps, masks) | ordered


def _by_place(maps, masks):
    return {} if masks is None else {name: metric(masks, maps) for name, metric in PLACE.items()}


def _sheet(s, tiles, shown, target):
    """All methods on the images shown, a row each."""
    names = [s.name(label) for label in s.test_labels[shown]]
    heads = [n if t == p else f"{n},\ntaken for {s.name(p)}" for n, t, p in zip(names, s.test_labels[shown], target)]
    title = "Every method on the same images"
    figure = figures.sheet(
        np.concatenate(list(tiles.values())), len(shown), title, "What each says of the network's answer.",
        rows=list(tiles), heads=heads,
    )  # fmt: skip
    return Picture("methods", title, figure, facts={"zero": s.zero}, comparison=Comparison(names, tiles))


def _charts(values, facts):
    """A chart for each metric, with the controls where they have it."""
    for metric in dict.fromkeys(name for some in values.values() for name in some):
        rows = {name: statistics.interval(some[metric]) for name, some in values.items() if metric in some}
        n = max(interval.n + interval.undefined for interval in rows.values())
        chance = metric in PLACE and metric != "AUROC" and facts["by_chance"]
        figure = figures.intervals(
            rows, metric[0].upper() + metric[1:], f"Mean over {n} images of this network, 95 % intervals.",
            f"{metric}, per cent" if metric in SHARES else metric, (chance, "chance") if chance else None,
            percent=metric in SHARES,
        )  # fmt: skip
        yield Picture(metric.lower().replace(" ", "-").replace(",", ""), metric, figure, "metric", {"metric": metric},
                      group="metric", tab=metric)  # fmt: skip
