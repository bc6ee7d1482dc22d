"""The fast path: conv -> bias -> relu -> max-pool as one block, an optimisation of the same layers.

Nobody reads a convolution's full output in training, nor on the way back to the pixels: the pool keeps one value of
each window and remembers where it stood. So a backend may run the whole block image by image in cache and leave only
the pooled map and its switches (`ops.conv_relu_pool`); on the way back the switches say where the signal is. Everything
else goes layer by layer.

The layered path of network.py stays the definition; the tests hold this one to it. All large arrays live in a Workspace
and are used again at the next step.
"""

from .layers import Conv2D, Dense, MaxPool2D, ReLU
from .ops.geometry import Block as Geometry
from .ops.workspace import Workspace
from .rules import RULES

__all__ = ["Block", "Workspace", "backward", "backward_each", "forward", "loss_and_grads", "plan"]


class Block:
    """Conv2D, ReLU and perhaps MaxPool2D as one layer: like those of layers.py, but its arrays live in a workspace.

    `grads` is the way back of training, `backward` that of pictures, which want no dw but take other rules.
    """

    def __init__(self, conv, relu, last):
        self.conv, self.relu, self.name, self.output = conv, relu, conv.name, last.name
        self.pool = pool = last if isinstance(last, MaxPool2D) else MaxPool2D(last.name, 1, 1)
        self.geometry = Geometry(conv.stride, conv.padding, pool.window, pool.stride, pool.padding)

    def forward(self, ops, p, x, work, exact=False):
        y, switches = ops.conv_relu_pool(x, p["w"], p["b"], self.geometry, _Scope(work, self.name), exact)
        return y, (x, y, switches)

    def grads(self, ops, p, cache, dy, need_dx, work):
        x, y, switches = cache
        scope = _Scope(work, self.name)
        dw, db = ops.conv_relu_pool_backward_weights(x, p["w"], y, switches, dy, self.geometry, scope)
        return {"w": dw, "b": db}, self.backward(ops, p, cache, dy, RULES["gradient"], work) if need_dx else None

    def knows(self, rule):
        """Can the block go back by this rule? If not, its layers can."""
        return rule.relu is None and rule.unpool == "switches"

    def expand(self, ops, p, cache):
        """(layer, cache) of its layers from last to first; what the block did not keep is computed once more."""
        x, _, switches = cache
        y, conv = self.conv.forward(ops, p, x)
        z, relu = self.relu.forward(ops, None, y)
        return (self.pool, (switches, z.shape)), (self.relu, relu), (self.conv, conv)

    def backward(self, ops, p, cache, dy, rule, work, out=None):
        x, y, switches = cache
        args = (self.geometry, rule.mask, rule.rectify, _Scope(work, self.name))
        return ops.conv_relu_pool_backward_data(p["w"], y, switches, dy, x.shape, *args, out)

    def backward_maps(self, ops, p, cache, maps, rule, work):
        """The way back of ones in one of `maps` alone, map by map: each needs nothing of the others."""
        x, y, switches = cache
        ones = work((self.name, "ones"), (*y.shape[:3], 1), ops.dtype)
        ones[...] = 1
        dx = work((self.name, "maps"), (len(maps) * len(x), *x.shape[1:]), ops.dtype)
        for i, k in enumerate(maps):
            w, own_y, own_switches = (ops.contiguous(a[..., k : k + 1]) for a in (p["w"], y, switches))
            out = dx[i * len(x) : (i + 1) * len(x)]
            self.backward(ops, {"w": w}, (x, own_y, own_switches), ones, rule, work, out)
        return dx


class _Scope:
    """A workspace whose keys are prefixed, so that two blocks never share an array."""

    def __init__(self, work, prefix):
        self.work, self.prefix = work, prefix

    def __call__(self, key, shape, dtype):
        return self.work((self.prefix, key), shape, dtype)


def plan(layers, upto=None, pictures=False):
    """Return the layers as the fused path runs them: Conv2D, ReLU, MaxPool2D in a row become one Block.

    Only layers to that called `upto` (default: the last) are taken; a block that ends beyond it stays layers. For
    pictures, a Conv2D and a ReLU without a pool are a Block too.
    """
    if upto is not None:
        layers = layers[: [layer.name for layer in layers].index(upto) + 1]
    steps, i = [], 0
    while i < len(layers):
        row = [type(layer) for layer in layers[i : i + 3]]
        size = 3 if row == [Conv2D, ReLU, MaxPool2D] else 2 if pictures and row[:2] == [Conv2D, ReLU] else 1
        steps.append(layers[i] if size == 1 else Block(*layers[i : i + 2], layers[i + size - 1]))
        i += size
    return steps


def forward(net, x, work, rng=None):
    """Run a batch to the logits.

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        As the backend's `from_images` returns it.
    work : Workspace
        What is returned lives in it until the next call.
    rng : numpy.random.Generator, optional
        Given only in training, for dropout.

    Returns
    -------
    y : array
    caches : list of (step, cache)
    """
    caches = []
    for step in plan(net.layers):
        x, cache = step.forward(net.ops, net.params.get(step.name), x, work if isinstance(step, Block) else rng)
        caches.append((step, cache))
    return x, caches


def loss_and_grads(net, x, labels, work, rng=None, loss=None, products=False):
    """Return (mean softmax cross-entropy, {layer: {name: gradient}}) of one batch; see `forward`.

    The mean is a number, or, where an array of one element is given as `loss`, that array. With `products`, the
    gradient of a dense layer's weights, the largest array of all, may be left as the pair (x, dy) whose product it is,
    x' dy, for `optim.step` to multiply as it goes.
    """
    logits, caches = forward(net, x, work, rng)
    loss, dy = net.ops.softmax_cross_entropy(logits, labels, loss)
    grads = {}
    first = next((i for i, (step, _) in enumerate(caches) if step.name in net.params), len(caches))
    for i in range(len(caches) - 1, first - 1, -1):
        step, cache = caches[i]
        p = net.params.get(step.name)
        if isinstance(step, Block):
            grads[step.name], dy = step.grads(net.ops, p, cache, dy, i > first, work)
            continue
        if isinstance(step, Dense):  # its arrays live in the workspace too
            if products and net.ops.late_products:
                grads[step.name] = {"w": (cache, dy), "b": net.ops.column_sums(dy)}
            else:
                out = work((step.name, "dw"), p["w"].shape, net.dtype)
                grads[step.name] = dict(zip("wb", net.ops.dense_backward_weights(cache, dy, out)))
            if i > first:
                out = work((step.name, "dx"), (len(dy), len(p["w"])), net.dtype)
                dy = net.ops.dense_backward_data(dy, p["w"], out)
            continue
        if p:
            grads[step.name] = step.param_grads(net.ops, p, cache, dy)
        if i > first:
            dy = step.backward(net.ops, p, cache, dy, RULES["gradient"])
    return loss, grads


# -- pictures --------------------------------------------------------------------------------------------------------

SIGNALS = 96  # signals on their way back at a time


def backward(net, trace, dy, at, rule):
    """Send dy (S*N, ...) from the output of `at` to the pixels: S signals for each of N images, signal by signal."""
    N = len(trace)
    for step, cache in _steps(net, trace, at, rule):
        p = net.params.get(step.name)
        if isinstance(step, Block):
            dy = step.backward(net.ops, p, cache, dy, rule, trace.work)
        elif isinstance(step, Dense):
            out = trace.work and trace.work((step.name, "dx"), (len(dy), len(p["w"])), net.dtype)
            dy = net.ops.dense_backward_data(dy, p["w"], out)
        else:
            parts = [step.backward(net.ops, p, cache, dy[i : i + N], rule) for i in range(0, len(dy), N)]
            dy = parts[0]
            if len(parts) > 1:
                dy = net.ops.empty((len(parts) * N, *parts[0].shape[1:]), net.dtype)
                for i, part in enumerate(parts):
                    dy[i * N : (i + 1) * N] = part
    return dy


def _steps(net, trace, at, rule):
    """Yield (step, cache) from `at` to the first; a block that does not know the rule as its layers."""
    names = list(trace.steps)
    for name in reversed(names[: names.index(at) + 1]):
        step, cache = trace.steps[name], trace.caches[name]
        if isinstance(step, Block) and not step.knows(rule):
            yield from step.expand(net.ops, net.params[step.name], cache)
        else:
            yield step, cache


def backward_each(net, trace, at, rule):
    """The largest absolute signal at each pixel (N, H, W) over colours and over all units (or maps) of `at`."""
    N, units, top = len(trace), net.shapes[at][-1], trace.steps[at]
    below = list(trace.steps)[: list(trace.steps).index(at)]
    largest = net.ops.zeros((N, *net.input_shape[:2]))
    group = max(1, SIGNALS // N)
    for first in range(0, units, group):
        some = range(first, min(first + group, units))
        if isinstance(top, Block) and top.knows(rule):
            p = net.params[top.name]
            dx = top.backward_maps(net.ops, p, trace.caches[at], some, rule, trace.work)
            dx = backward(net, trace, dx, below[-1], rule) if below else dx
        else:
            dy = net.ops.zeros((len(some) * N, *net.shapes[at]))
            for i, unit in enumerate(some):
                dy[i * N : (i + 1) * N, ..., unit] = 1
            dx = backward(net, trace, dy, at, rule)
        net.ops.largest(dx, largest)
    return largest
