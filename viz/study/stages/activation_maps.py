"""Every map of each convolution, after its ReLU, for test image 0."""

import numpy as np

from tinycnn import files
from viz import activations, figures
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts = [], {}
    image, label = s.test_images[:1], s.name(s.test_labels[0])
    for i, (conv, relu) in enumerate(s.convs.items()):
        maps = activations.maps(s.net, image, relu)[0].transpose(2, 0, 1)  # (C, H, W)
        C, H, W = maps.shape
        high = max(float(np.percentile(maps, 99.8)), 1e-12)  # a single hot unit must not darken the rest
        facts[conv] = {
            "maps": C,
            "maps_all_zero": (maps.max((1, 2)) == 0).sum(),
            "share_of_units_above_zero": (maps > 0).mean(),
            "largest": maps.max(),
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
            )
        )
    return pictures, facts
