"""The strongest map of each image, projected back to the pixels by a deconvnet, with and without switches."""

import numpy as np

from tinycnn import files
from viz import activations, deconvnet, figures
from viz.report.results import Picture
from viz.study.subject import Study


def run(s: Study):
    """Return (pictures, facts)."""
    pictures, facts = [], {}
    shown = s.examples()
    images, names = s.test_images[shown], [s.name(label) for label in s.test_labels[shown]]
    for i, (conv, relu) in enumerate(s.convs.items()):
        repeat, strongest = deconvnet.project(s.net, images, relu, unpool="repeat")
        switches, _ = deconvnet.project(s.net, images, relu, unpool="switches")
        maps = activations.maps(s.net, images, relu)
        maps = figures.enlarge(maps[np.arange(len(images)), :, :, strongest], images.shape[1])
        facts[conv] = {"strongest_maps_of_the_images_shown": strongest}
        columns = [figures.photo(images), figures.heat(maps), figures.signed(repeat), figures.signed(switches)]
        heads = ["image", "strongest map", "back: repeat", "back: switches"]
        pooled = not np.array_equal(repeat, switches)
        if not pooled:  # no pooling below this layer: there is nothing to undo
            columns, heads = columns[:3], [*heads[:2], "in the pixels"]
        n = len(columns)
        title = f"The strongest map of {conv}, back in the pixels"
        figure = figures.sheet(
            figures.interleave(*columns),
            n if pooled else 2 * n,
            title,
            "Deconvnet projection of the map with the largest sum. Each tile has its own scale.",
            captions=[c for name, m in zip(names, strongest) for c in (name, f"map {m}", *[""] * (n - 2))],
            heads=heads if pooled else 2 * heads,
            group=n,
        )
        pictures.append(
            Picture(
                files.indexed(i, conv),
                title,
                figure,
                words="strongest",
                facts={"layer": conv, "pooled": pooled, "strongest": strongest, "zero": s.zero},
                group="The strongest map of each convolution",
                tab=conv,
            )
        )
    return pictures, facts
