"""The explorer's page: a network, its weights, images, and what excites it, in one file that needs nothing else.

`engine.js` computes in the page what the engine computes here; `page.js` is what one sees and does. Convolutions keep
their weights as float32, dense layers as float16, and the page says what this rounding does to the scores. Dense layers
that would make the file too large stay out; then the scores of the stored images come along instead.
"""

import base64
import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from tinycnn import Network, files
from tinycnn.layers import AvgPool2D, BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Normalize, ReLU
from viz import activations
from viz.ascent import recipes
from viz.ascent.maximize import maximize
from viz.ascent.parametrize import Spectral
from viz.check import features

HERE = Path(__file__).parent
SHOWN = 24  # images to choose from
STORED = {True: 1000, False: 200}  # images that excite maps and units are looked for among these: small ones, others
SMALL = 32  # pixels
LARGEST_DENSE = 8_000_000  # bytes of all dense layers' weights, as float16
PATCHES = 9  # of each map
STEPS = 40  # of the ascents for hidden maps


def write(path, net, untrained, title, classes, images, labels, seed=0, made_from=""):
    """Write the page of a network to `path`, atomically.

    Parameters
    ----------
    path : str or Path
    net, untrained : Network
        The network, and the same as it was before its training.
    title : str
        Of the data set.
    classes : sequence of str
    images : uint8 array (N, H, W, C)
        Best images that training never saw.
    labels : integer array (N,)
    seed : int
        Of the ascents' noise.
    made_from : str
        What the page is made from, in a few letters: `is_of` asks for it.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    env = jinja2.Environment(loader=jinja2.FileSystemLoader([HERE, HERE / "templates"]), autoescape=True)
    data = payload(net, untrained, title, classes, images, labels, seed)
    files.write_text(path, env.get_template("explorer.html").render(data=data, title=title, made_from=made_from))


def is_of(path, made_from):
    """Return whether there is a page at `path` that was made from this."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f'<meta name="made-from" content="{made_from}">' in f.read(2000)
    except OSError:
        return False


def payload(net, untrained, title, classes, images, labels, seed=0):
    """Return all that the page is made of, ready for JSON; the arguments are those of `write`."""
    stored = _pick(labels, STORED[max(net.input_shape[:2]) <= SMALL])
    images, labels = images[stored], labels[stored]
    weights, kept = _weights(net)
    found = {
        "title": title,
        "classes": list(map(str, classes)),
        "shape": list(net.input_shape),
        "layers": layers(net),
        "weights": weights,
        "untrained": {name: w for name, w in _weights(untrained)[0].items() if len(net.shapes[name]) == 3},
        "images": sprite(_rgb(images)),
        "labels": labels.tolist(),
        "shown": min(SHOWN, len(images)),
        "top": _top(net, images),
        "top_untrained": _top(untrained, images, dense=False),
        "ascents": _ascents(net, images, seed),
        "tour": _tour(net, untrained, classes, images, labels),
        "rounding": _rounding(net, kept, images) if kept else None,
    }
    if weights.keys() != net.params.keys():
        logits = net.logits(images)
        found["logits"] = [[round(float(v), 4) for v in row] for row in logits]
    return found


def layers(net):
    """Return the layers as `engine.js` takes them: shapes, where windows lie, what part of the image a unit sees."""
    found, shape = [], net.input_shape
    for layer in net.layers:
        to = net.shapes[layer.name]
        one = {"name": layer.name, "type": type(layer).__name__, "from": list(shape), "to": list(to)}
        if hasattr(layer, "window"):
            begin = Network([layer], shape, backend="reference").receptive_field(layer.name)[
                2
            ]  # outside by the padding
            one |= {"kernel": list(layer.window), "stride": list(layer.stride), "pad": [-n for n in begin]}
        if isinstance(layer, AvgPool2D):
            one["whole"] = layer.count_padding
        elif isinstance(layer, BatchNorm):
            one["epsilon"] = layer.epsilon
        elif isinstance(layer, Normalize):
            one |= {"mean": list(layer.mean), "std": list(layer.std)}
        if _has_maps(net, layer.name):
            one["field"] = dict(zip(("size", "stride", "offset"), map(list, net.receptive_field(layer.name))))
        found.append(one)
        shape = to
    return found


def _has_maps(net, name):
    return len(net.shapes[name]) > 1


def numbers(a):
    """Return an array as the page keeps it: what numbers they are, and their bytes in base64."""
    a = np.ascontiguousarray(a)
    return {"kind": a.dtype.name, "data": base64.b64encode(a.astype(a.dtype.newbyteorder("<")).tobytes()).decode()}


def sprite(images):
    """Return images (N, h, w, 3), uint8, as one lossless picture, in rows of `columns`."""
    N, h, w = images.shape[:3]
    columns = int(np.ceil(np.sqrt(N)))
    cells = np.pad(images, ((0, -N % columns), (0, 0), (0, 0), (0, 0)))
    sheet = cells.reshape(-1, columns, h, w, 3).swapaxes(1, 2).reshape(-1, columns * w, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", lossless=True, quality=100, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "columns": columns, "count": N, "size": [h, w]}


def _pick(labels, count):
    """Indices of `count` images, class after class in turn."""
    rank = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        of = np.flatnonzero(labels == c)
        rank[of] = np.arange(len(of))
    return np.lexsort((labels, rank))[:count]


def _rgb(images):
    return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def _weights(net):
    """({layer: its parameters}, the dense layers that are kept): float32, the weights of dense layers float16."""
    dense = [layer.name for layer in net.layers if isinstance(layer, Dense)]
    arrays = {name: {k: net.ops.to_numpy(a) for k, a in p.items()} for name, p in net.params.items()}
    fits = 2 * sum(arrays[name]["w"].size for name in dense) <= LARGEST_DENSE
    kept = {name: p for name, p in arrays.items() if name not in dense or fits}
    found = {name: {k: numbers(a.astype(_kind(name, k, dense))) for k, a in p.items()} for name, p in kept.items()}
    return found, dense if fits else []


def _kind(layer, name, dense):
    return np.float16 if layer in dense and name == "w" else np.float32


def _rounding(net, dense, images):
    """What float16 does to the scores: the largest change, as a share of the largest score, and to the answers."""
    other = Network(net.layers, net.input_shape, backend=net.ops.name, dtype=net.dtype.name)
    for name, p in net.params.items():
        for k, a in p.items():
            other.params[name][k] = net.ops.asarray(net.ops.to_numpy(a).astype(_kind(name, k, dense)))
    exact, rounded = net.logits(images).astype(np.float64), other.logits(images).astype(np.float64)
    differ = int((exact.argmax(1) != rounded.argmax(1)).sum())
    change = float(np.abs(exact - rounded).max() / np.abs(exact).max())
    return {"change": change, "answers": differ, "images": len(images)}


def _top(net, images, dense=True):
    """{layer: the images that excite each map or unit most}: [image, row, column] of a map, [image] of a unit."""
    found, k = {}, min(PATCHES, len(images))
    for layer in net.layers:
        if _has_maps(net, layer.name):
            if not isinstance(layer, Conv2D):
                top = activations.top_images(net, images, layer.name, k)
                found[layer.name] = np.concatenate([top.indices[..., None], top.positions], -1).tolist()
        elif dense and not isinstance(layer, (Flatten, Dropout)):
            order = np.argsort(-features(net, images, layer.name), 0, kind="stable")[:k]
            found[layer.name] = order.T[..., None].tolist()
    for conv, relu in pairwise(net.layers):
        if isinstance(conv, Conv2D) and relu.name in found:
            found[conv.name] = found[relu.name]
    return found


def _tour(net, untrained, classes, images, labels):
    """Five views (four without a max-pool), each with what is to be seen there; numbers are of the stored images."""
    conv = next(layer.name for layer in net.layers if isinstance(layer, Conv2D))
    relus = [layer.name for layer in net.layers if isinstance(layer, ReLU) and _has_maps(net, layer.name)]
    relu, deep = relus[0], relus[-1]
    pools = [layer.name for layer in net.layers if isinstance(layer, MaxPool2D)][:1]
    (unit, wins), (unit_before, wins_before) = (_wins(some, images, relu) for some in (net, untrained))
    right = net.predict(images) == labels
    shown = int(np.flatnonzero(right)[0]) if right.any() else 0
    last = int(activations.strongest(features(net, images[shown : shown + 1], deep))[0])
    learned = "That is not what training made of it." if wins_before >= wins else "Training made it more so."
    said = [
        (net.layer_names[-1], int(labels[shown]), {},
         f"A test image of {classes[labels[shown]]}. The network classifies {int(right.sum())} of the {len(images)} "
         "stored images rightly; its scores stand at the image. Erase a part of it and watch them."),
        (relu, unit, {},
         f"Map {unit} of {conv} is the strongest for {wins} of {len(images)} images. Why does one map light up so "
         "often? Look at the nine patches that excite it most, then go on."),
        (relu, unit_before, {"trained": False},
         f"The same network before training: its map {unit_before} is the strongest for {wins_before} of "
         f"{len(images)}. {learned}"),
        *((pool, unit, {},
           f"{pool} keeps the largest value of each window, and its switch remembers where it was. Point at the large "
           "map: the page says which one won. Press u: without switches the signal goes back to other places.")
          for pool in pools),
        (deep, last, {"rule": "guided"},
         f"The strongest map of {deep} for this image, sent back to the pixels. Press r: gradient, deconvnet and "
         "guided backprop differ in what a ReLU lets pass on the way back, and in nothing else."),
    ]  # fmt: skip
    view = {"image": shown, "rule": "deconvnet", "unpool": "switches", "trained": True, "place": None}
    return [view | {"layer": layer, "unit": k, "said": text} | more for layer, k, more, text in said]


def _wins(net, images, layer):
    """The map of a layer that is most often the strongest, and of how many images."""
    counts = np.bincount(activations.strongest(features(net, images, layer)), minlength=net.shapes[layer][-1])
    return int(counts.argmax()), int(counts.max())


def _ascents(net, images, seed):
    """{layer: a sprite with an image that excites each map of a convolution, or each class}."""
    size, found = net.input_shape[0], {}
    for layer in net.layers:
        units, recipe = np.arange(net.shapes[layer.name][-1]), None
        if isinstance(layer, Conv2D) and size <= SMALL:  # of larger images it would take minutes
            recipe = replace(recipes.hidden(size, dense=False), steps=STEPS)
        elif layer.name == net.layer_names[-1]:
            prior = Spectral.of(images, net.dtype)
            recipe = replace(recipes.for_size(size), steps=STEPS, parametrization=prior)
        if recipe is not None:
            made = maximize(net, layer.name, units, recipe, seed=seed).images
            if isinstance(layer, Conv2D):  # what the unit in the middle of the map sees, as its ascent made it
                field, stride, offset = map(np.array, net.receptive_field(layer.name))
                corner = offset + stride * (np.array(net.shapes[layer.name][:2]) // 2)
                made = activations.crop(made, np.tile(np.concatenate([corner, corner + field]), (len(made), 1)))
            found[layer.name] = _shown(made)
    return found


def _shown(images):
    return sprite(_rgb(np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)))
