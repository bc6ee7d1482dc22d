"""Every map of each convolution, after its ReLU, for test image 0; and what single maps still tell of an image."""

import numpy as np
from scipy import ndimage

from tinycnn import files
from viz import activations, figures
from viz.metrics import identification, localization, statistics
from viz.report.results import Links, Picture
from viz.study.subject import Study

TOLD = 50  # images that single maps are to name, and on whose objects they are to point


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts = [], {}
    image, label = s.test_images[:1], s.name(s.test_labels[0])
    picked = s.sample("activation_maps", TOLD)
    for i, (conv, relu) in enumerate(s.convs.items()):
        maps = activations.maps(s.net, image, relu)[0].transpose(2, 0, 1)  # (C, H, W)
        C, H, W = maps.shape
        high = max(float(np.percentile(maps, 99.8)), 1e-12)  # a single hot unit must not darken the rest
        facts[conv] = {
            "maps": C,
            "maps_all_zero": (maps.max((1, 2)) == 0).sum(),
            "share_of_units_above_zero": (maps > 0).mean(),
            "largest": maps.max(),
            "images": len(picked),
            **_told(s, relu, picked),
        }
        title = f"What {conv} answers: {C} maps of {H}×{W}"
        figure = figures.sheet(
            figures.heat(maps, high),
            8,
            title,
            "Map number = row + column. One colour scale for all maps.",
            rows=[str(i) for i in range(0, C, 8)],
            heads=[str(i) for i in range(min(8, C))],
            scale=("magma", 0, high, "activation after the ReLU"),
            inset=(figures.photo(image)[0], f"class {label}"),
        )
        pictures.append(
            Picture(
                files.indexed(i, conv),
                title,
                figure,
                words="maps",
                facts={"layer": conv, "class_name": label, **facts[conv]},
                group="What each convolution answers",
                tab=conv,
                links=Links(figure.tiles, [{"layer": relu, "unit": k, "test": 0} for k in range(C)]),
            )
        )
    return pictures, facts


def _told(s, relu, picked):
    """What each map of a layer alone tells of an image: which one it is, and, with masks, where its object is."""
    images = s.test_images[picked]
    candidates, masks = identification.outlines(images), None if s.masks is None else s.masks[picked]
    outline, on = {}, {}
    for which, net in (("trained", s.net), ("untrained", s.untrained)):
        maps = activations.maps(net, images, relu)
        size = 1, images.shape[1] / maps.shape[1], images.shape[2] / maps.shape[2]
        named, pointed = [], []
        for one in np.moveaxis(maps, 3, 0):
            one = ndimage.zoom(one, size, order=1, mode="nearest", grid_mode=True) if max(size) > 1 else one
            hits = identification.named(one, candidates)
            named.append(np.nan_to_num(hits).mean())  # dark everywhere: it shows no outline
            if masks is not None:
                gain = statistics.interval(localization.pointing_game(masks, one) - masks.mean((1, 2)))
                pointed.append(float(gain.low > 0))
        outline[which] = named
        on[which] = pointed
    found = {which: vars(statistics.interval(named)) for which, named in outline.items()}
    found["difference"] = vars(statistics.interval(np.subtract(outline["trained"], outline["untrained"])))
    position = None if masks is None else {which: vars(statistics.share(pointed)) for which, pointed in on.items()}
    return {"outline": found, "position": position}
