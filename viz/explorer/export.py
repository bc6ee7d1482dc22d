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
from tinycnn.errors import InputError
from tinycnn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Normalize,
    ReLU,
)
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


def write(path, net, untrained, title, classes, images, labels, seed=0, first=(), effort=1.0, made_from=""):
    """Write the page of a network to `path`, atomically.

    Parameters
    ----------
    path : str or Path
    net, untrained : Network
        The network, and the same as it was before its training; None where nobody knows that, as of one that comes from
        elsewhere.
    title : str
        Of the data set.
    classes : sequence of str
    images : uint8 array (N, H, W, C)
        Best images that training never saw.
    labels : integer array (N,)
    seed : int
        Of the ascents' noise.
    first : indices of images, optional
        These are kept, and shown first.
    effort : float
        So large a share of the images is kept, and of the ascents' steps gone; less than 1 in a short trial.
    made_from : str
        What the page is made from, in a few letters: `is_of` asks for it.

    Raises
    ------
    InputError
        A network without a convolution.
    OSError
        The file cannot be written.
    """
    env = jinja2.Environment(loader=jinja2.FileSystemLoader([HERE, HERE / "templates"]), autoescape=True)
    data = payload(net, untrained, title, classes, images, labels, seed, first, effort)
    files.write_text(path, env.get_template("explorer.html").render(data=data, title=title, made_from=made_from))


def is_of(path, made_from):
    """Return whether there is a page at `path` that was made from this."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f'<meta name="made-from" content="{made_from}">' in f.read(2000)
    except OSError:
        return False


def payload(net, untrained, title, classes, images, labels, seed=0, first=(), effort=1.0):
    """Return all that the page is made of, ready for JSON; the arguments are those of `write`."""
    if _first(net, Conv2D) is None:
        raise InputError("the explorer shows maps: the network has no convolution")
    most = max(SHOWN, round(effort * STORED[max(net.input_shape[:2]) <= SMALL]))
    stored = _pick(labels, most, first)
    images, labels = images[stored], labels[stored]
    weights, whole = _weights(net)
    found = {
        "title": title,
        "classes": list(map(str, classes)),
        "shape": list(net.input_shape),
        "layers": layers(net),
        "weights": weights,
        "weights_whole": whole,
        "untrained": untrained and {n: w for n, w in _weights(untrained)[0].items() if _has_maps(net, n)},
        "images": sprite(_rgb(images)),
        "labels": labels.tolist(),
        "indices": stored.tolist(),
        "shown": min(SHOWN, len(images)),
        "top": _top(net, images),
        "top_untrained": untrained and _top(untrained, images, dense=False),
        "ascents": _ascents(net, images, seed, max(1, round(effort * STEPS))),
        "tour": _tour(net, untrained, classes, images, labels),
        "rounding": _rounding(net, images) if whole and _dense(net) else None,
    }
    if not whole:
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
            begin = Network([layer], shape, backend="reference").receptive_field(layer.name)[2]  # outside: the padding
            one |= {"kernel": list(layer.window), "stride": list(layer.stride), "pad": [-n for n in begin]}
        if isinstance(layer, GlobalAvgPool2D):
            one |= {"kernel": list(shape[:2]), "stride": [1, 1], "pad": [0, 0]}
        if isinstance(layer, AvgPool2D):
            one["counted"] = layer.count_padding
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


def _pick(labels, count, first=()):
    """Indices of `count` images: the `first`, then class after class in turn."""
    rank = np.empty(len(labels), np.int64)
    for c in np.unique(labels):
        of = np.flatnonzero(labels == c)
        rank[of] = np.arange(len(of))
    first = np.array(first, np.int64)
    return np.concatenate([first, (order := np.lexsort((labels, rank)))[~np.isin(order, first)]])[:count]


def _rgb(images):
    return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def _weights(net):
    """({layer: its parameters}, whether all are there): float32, the weights of dense layers float16, or left out."""
    arrays = {name: {k: net.ops.to_numpy(a) for k, a in p.items()} for name, p in net.params.items()}
    whole = 2 * sum(arrays[name]["w"].size for name in _dense(net)) <= LARGEST_DENSE
    for layer in net.layers:
        if isinstance(layer, (BatchNorm, Normalize)):
            channels = net.shapes[layer.name][-1:]
            w, b = (np.broadcast_to(a, channels) for a in layer.affine(arrays.get(layer.name)))
            arrays[layer.name] = {"w": w, "b": b}
        elif isinstance(layer, Dense) and not whole:
            del arrays[layer.name]
    kept = {name: {k: numbers(a.astype(_kind(net, name, k))) for k, a in p.items()} for name, p in arrays.items()}
    return kept, whole


def _dense(net):
    return [layer.name for layer in net.layers if isinstance(layer, Dense)]


def _kind(net, layer, name):
    return np.float16 if layer in _dense(net) and name == "w" else np.float32


def _rounding(net, images):
    """What float16 does to the scores: the largest change, as a share of the largest score, and to the answers."""
    other = Network(net.layers, net.input_shape, backend=net.ops.name, dtype=net.dtype.name)
    for name, p in net.params.items():
        for k, a in p.items():
            other.params[name][k] = net.ops.asarray(net.ops.to_numpy(a).astype(_kind(net, name, k)))
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
    """Views, five of most networks, each with what is to be seen there; the numbers are of the stored images."""
    conv, after = next((a.name, b) for a, b in pairwise(net.layers) if isinstance(a, Conv2D))
    relu = after.name if isinstance(after, ReLU) else conv
    deep = [layer.name for layer in net.layers if _has_maps(net, layer.name) and isinstance(layer, (ReLU, Conv2D))][-1]
    pool, (unit, wins) = _first(net, MaxPool2D), _wins(net, images, relu)
    right = net.predict(images) == labels
    shown = int(np.flatnonzero(right)[0]) if right.any() else 0
    last = int(activations.strongest(features(net, images[shown : shown + 1], deep))[0])
    said = [
        (net.layer_names[-1], int(labels[shown]), {},
         f"A test image of {classes[labels[shown]]}. The network classifies {int(right.sum())} of the {len(images)} "
         "stored images rightly; its scores stand at the image. Erase a part of it and watch them."),
        (relu, unit, {},
         f"Map {unit} of {conv} is the strongest for {wins} of {len(images)} images. Why does one map light up so "
         "often? Look at the nine patches that excite it most, then go on."),
    ]  # fmt: skip
    if untrained:
        before, wins_before = _wins(untrained, images, relu)
        learned = "That is not what training made of it." if wins_before >= wins else "Training made it more so."
        text = (
            f"The same network before training: its map {before} is the strongest for {wins_before} of {len(images)}."
        )
        said.append((relu, before, {"trained": False}, f"{text} {learned}"))
    if pool:
        text = (
            f"{pool.name} keeps the largest value of each window, and its switch remembers where it was. Point at the "
            "large map: the page says which one won. Press u: without switches the signal goes back to other places."
        )
        said.append((pool.name, min(unit, net.shapes[pool.name][-1] - 1), {}, text))
    text = (
        f"The strongest map of {deep} for this image, sent back to the pixels. Press r: gradient, deconvnet and guided "
        "backprop differ in what a ReLU lets pass on the way back, and in nothing else."
    )
    said.append((deep, last, {"rule": "guided"}, text))
    view = {"image": shown, "rule": "deconvnet", "unpool": "switches", "trained": True, "place": None}
    return [view | {"layer": layer, "unit": k, "said": text} | more for layer, k, more, text in said]


def _first(net, kind):
    """The first layer of a kind, or None."""
    return next((layer for layer in net.layers if isinstance(layer, kind)), None)


def _wins(net, images, layer):
    """The map of a layer that is most often the strongest, and of how many images."""
    counts = np.bincount(activations.strongest(features(net, images, layer)), minlength=net.shapes[layer][-1])
    return int(counts.argmax()), int(counts.max())


def _ascents(net, images, seed, steps):
    """{layer: a sprite with an image that excites each map of a convolution, or each class}."""
    found = {
        layer.name: _shown(_fields(net, i, images, seed, steps))
        for i, layer in enumerate(net.layers)
        if isinstance(layer, Conv2D)
    }
    last, prior = net.layer_names[-1], _prior(images, net.dtype)
    recipe = replace(recipes.for_size(net.input_shape[0]), steps=steps, parametrization=prior)
    found[last] = _shown(maximize(net, last, np.arange(net.shapes[last][-1]), recipe, seed=seed).images)
    return found


def _fields(net, i, images, seed, steps):
    """What the unit in the middle of each map of convolution `i` sees, made to excite it.

    Of large images on the same layers over smaller ones, which are all that such a unit sees.
    """
    layer = net.layers[i].name
    least = np.maximum(net.receptive_field(layer)[0], SMALL)
    shape = *np.minimum(net.input_shape[:2], least), net.input_shape[2]
    part = Network(net.layers[: i + 1], tuple(map(int, shape)), backend=net.ops.name, dtype=net.dtype.name)
    part.params = {name: net.params[name] for name in part.params}
    (top, left), (H, W, _) = (np.array(net.input_shape[:2]) - shape[:2]) // 2, shape
    prior = _prior(images[:, top : top + H, left : left + W], net.dtype)
    recipe = replace(recipes.hidden(H, dense=False), steps=steps, parametrization=prior)
    made = maximize(part, layer, np.arange(part.shapes[layer][-1]), recipe, seed=seed).images
    field, stride, offset = map(np.array, part.receptive_field(layer))
    corner = offset + stride * (np.array(part.shapes[layer][:2]) // 2)
    return activations.crop(made, np.tile(np.concatenate([corner, corner + field]), (len(made), 1)))


def _prior(images, dtype):
    """The parametrisation by the images' statistics; of one image, which has none, pixels."""
    return Spectral.of(images, dtype) if len(images) > 1 else None


def _shown(images):
    return sprite(_rgb(np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)))
