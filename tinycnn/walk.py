"""The walk through a network: its layers as a plan of steps, one way forward, one way back, whoever goes.

A step is a layer, or a block of layers that are fused: nobody reads a convolution's full output in training, nor on the
way back to the pixels, as the pool keeps one value of each window and remembers where it stood. So a backend may take
conv -> bias -> relu -> max-pool image by image in cache and leave only the pooled map and its switches
(`ops.conv_relu_pool`); on the way back the switches say where the signal is. Every step answers as a layer does:

    forward(ops, p, x, training) -> (y, cache)
    backward(ops, p, cache, dy, rule) -> dx
    grads(ops, p, cache, dy) -> {"w": dw, "b": db}

The layers one by one are the definition; with a Workspace there are blocks, and the tests hold these to the layers. A
subclass of a layer may do something else than the layer does: it is never a part of a block, its methods are called.
"""

import contextlib

from .errors import InputError
from .layers import Cache, Conv2D, Dense, MaxPool2D, ReLU
from .ops import geometry

SIGNALS = 96  # on their way back at a time


class Trace:
    """What one forward pass left behind.

    `trace[layer]` is that layer's output, a NumPy array: a copy if it lives in a workspace, else read-only.

    Attributes
    ----------
    x : array (N, H, W, C)
        The input, as the backend saw it.
    upto : str
        The last layer that was computed.
    steps, outputs, caches : dict
        By layer: the step, the backend's output array, and what the way back needs. The layers of a block are one step,
        under the name of its last.
    work : Workspace or None
        Where the arrays of a trace with blocks live: until the next forward pass in it.
    """

    def __init__(self, ops, x, upto, work):
        self.ops, self.x, self.upto, self.work = ops, x, upto, work
        self.stamp, self.lock = (work.generation, work.lock) if work else (None, contextlib.nullcontext())
        self.steps, self.outputs, self.caches = {}, {}, {}

    def __len__(self):
        return len(self.x)

    def __getitem__(self, layer):
        with self.lock:
            self.check(layer)
            found = self.ops.to_numpy(self.outputs[layer])
            if self.work:
                return found.copy()
        found = found.view()
        found.flags.writeable = False
        return found

    def check(self, layer):
        """Raise an InputError unless the trace holds a layer, and its workspace still holds the trace."""
        if layer not in self.outputs:
            raise InputError(f"the trace has no layer {layer!r}; it holds: {', '.join(self.outputs)}")
        if self.work and self.work.generation != self.stamp:
            raise InputError(
                "this trace is outdated: another forward pass has used its workspace since; "
                "finish with a trace before the next pass, or take a workspace for each"
            )


class Block:
    """Conv2D, ReLU and perhaps MaxPool2D as one step, whose arrays live in a workspace."""

    def __init__(self, work, conv, relu, pool=None):
        self.conv, self.relu, self.name, self.output = conv, relu, conv.name, (pool or relu).name
        self.pool = pool = pool or MaxPool2D(relu.name, 1, 1)
        self.geometry = geometry.Block(conv.stride, conv.padding, pool.window, pool.stride, pool.padding)
        self.exact, self.scope = work.exact, work.scope(conv.name)

    def forward(self, ops, p, x, training=None):
        y, switches = ops.conv_relu_pool(x, p["w"], p["b"], self.geometry, self.scope, self.exact)
        return y, Cache(x, y, switches)

    def grads(self, ops, p, cache, dy):
        x, y, switches = cache
        dw, db = ops.conv_relu_pool_backward_weights(x, p["w"], y, switches, dy, self.geometry, self.scope)
        return {"w": dw, "b": db}

    def rule(self, rules):
        """The rule of its ReLU, or None if the block cannot go back by the rules {layer: Rule}; its layers can."""
        conv, relu, pool = (rules[layer.name] for layer in (self.conv, self.relu, self.pool))
        known = (conv.linear, relu.relu, pool.pool, pool.unpool) == (None, None, None, "switches")
        return relu if known else None

    def expand(self, ops, p, cache):
        """(layer, cache) of its layers from last to first; what the block did not keep is computed once more."""
        x, y, switches = cache
        conv, own = self.conv.forward(ops, p, x)
        z, on = self.relu.forward(ops, None, conv)
        return (self.pool, Cache(z, y, switches)), (self.relu, on), (self.conv, own)

    def backward(self, ops, p, cache, dy, rule, out=None):
        """For S signals dy (S*N, ...) of each of N images: signal s of image n is number s * N + n."""
        x, y, switches = cache
        args = (x.shape, self.geometry, rule.mask, rule.rectify, self.scope)
        return ops.conv_relu_pool_backward_data(p["w"], y, switches, dy, *args, out)

    def backward_maps(self, ops, p, cache, maps, rule):
        """The way back of ones in one of `maps` alone, map by map: each needs nothing of the others."""
        x, y, switches = cache
        ones = self.scope("ones", (*y.shape[:3], 1), ops.dtype)
        ones[...] = 1
        dx = self.scope("maps", (len(maps) * len(x), *x.shape[1:]), ops.dtype)
        for i, k in enumerate(maps):
            w, own_y, own_switches = (ops.contiguous(a[..., k : k + 1]) for a in (p["w"], y, switches))
            out = dx[i * len(x) : (i + 1) * len(x)]
            self.backward(ops, {"w": w}, Cache(x, own_y, own_switches), ones, rule, out)
        return dx


class InPlace:
    """A Dense layer as a step whose signal on the way back, as large as a batch, lives in a workspace."""

    def __init__(self, work, layer):
        self.layer, self.name, self.output, self.scope = layer, layer.name, layer.name, work.scope(layer.name)
        self.forward, self.grads = layer.forward, layer.grads

    def rule(self, rules):
        return rules[self.name] if rules[self.name].linear is None else None

    def expand(self, ops, p, cache):
        return ((self.layer, cache),)

    def backward(self, ops, p, cache, dy, rule):
        out = self.scope("dx", (len(dy), len(p["w"])), ops.dtype)
        return ops.dense_backward_data(dy, p["w"], out)


FUSED = (Block, InPlace)


def output(step):
    """Return the name of the layer whose output a step gives: a block's last."""
    return step.output if isinstance(step, FUSED) else step.name


def plan(layers, upto=None, work=None):
    """Return the steps to the layer called `upto` (default: the last) as a list.

    Without a workspace they are the layers. With one, Conv2D, ReLU and MaxPool2D in a row are a Block, unless it ends
    beyond `upto`; where its decisions are to be exact, for pictures, a Conv2D and a ReLU without a pool too.
    """
    layers = layers[: 1 + [layer.name for layer in layers].index(upto)] if upto else layers
    if work is None:
        return list(layers)
    steps = []
    while layers:
        kinds = [type(layer) for layer in layers[:3]]
        size = 3 if kinds == [Conv2D, ReLU, MaxPool2D] else 2 if kinds[:2] == [Conv2D, ReLU] and work.exact else 1
        step = Block if size > 1 else InPlace if kinds[0] is Dense else None
        steps.append(step(work, *layers[:size]) if step else layers[0])
        layers = layers[size:]
    return steps


def forward(net, x, upto=None, work=None, training=None):
    """Run a batch x, as `ops.from_images` returns it, to layer `upto` (default: the last), and return its Trace.

    With a Workspace the steps are fused, and what the trace holds lives there. `training` is None, or the generator
    that dropout draws from.
    """
    net.check_params()
    if work:
        work.generation += 1
    trace = Trace(net.ops, x, upto or net.layer_names[-1], work)
    for step in plan(net.layers, upto, work):
        x, cache = step.forward(net.ops, net.params.get(step.name), x, training)
        name = output(step)
        trace.steps[name], trace.outputs[name], trace.caches[name] = step, x, cache
    return trace


def backward(net, trace, dy, at, rules, grads=None, to=None):
    """Send dy (S*N, ...) from the output of layer `at` to that of `to`, by default the pixels, by rules {layer: Rule}.

    dy are S signals for each of N images: signal s of image n is number s * N + n. Where `grads` is given, a dict, it
    takes the gradients of the parameters, {layer: {name: array or Product}}; the way then ends at the first layer that
    has any, and nothing is returned.
    """
    ops, N = net.ops, len(trace)
    net.check_params()
    trace.check(at)
    way = list(_way(net, trace, at, rules, to))
    if grads is not None:
        net.check_trains()
        way = way[: max((i + 1 for i, (step, *_) in enumerate(way) if step.name in net.params), default=0)]
    for i, (step, cache, rule) in enumerate(way):
        p = net.params.get(step.name)
        if grads is not None:
            if p:
                grads[step.name] = step.grads(ops, p, cache, dy)
            if i == len(way) - 1:
                return None
        if len(dy) == N or isinstance(step, FUSED):
            dy = step.backward(ops, p, cache, dy, rule)
        else:
            parts = [step.backward(ops, p, cache, dy[s : s + N], rule) for s in range(0, len(dy), N)]
            dy = ops.empty((len(dy), *parts[0].shape[1:]), ops.dtype)
            for s, part in enumerate(parts):
                dy[s * N : (s + 1) * N] = part
    return dy


def _way(net, trace, at, rules, to=None):
    """Yield (step, cache, its rule) from `at` to after `to`; a step that does not know its rules as its layers."""
    names = list(trace.steps)
    for name in reversed(names[0 if to is None else names.index(to) + 1 : names.index(at) + 1]):
        step, cache = trace.steps[name], trace.caches[name]
        known = step.rule(rules) if isinstance(step, FUSED) else rules[name]
        if known is not None:
            yield step, cache, known
        else:
            for layer, own in step.expand(net.ops, net.params[step.name], cache):
                yield layer, own, rules[layer.name]


def backward_each(net, trace, at, rules):
    """The largest absolute signal at each pixel (N, H, W) over colours and over ones at each unit (or map) of `at`."""
    trace.check(at)
    ops, N, units, top = net.ops, len(trace), net.shapes[at][-1], trace.steps[at]
    below = list(trace.steps)[: list(trace.steps).index(at)]
    largest = ops.zeros((N, *net.input_shape[:2]))
    group = max(1, SIGNALS // N)
    for first in range(0, units, group):
        some = range(first, min(first + group, units))
        rule = top.rule(rules) if isinstance(top, Block) else None
        if rule is not None:
            dx = top.backward_maps(ops, net.params[top.name], trace.caches[at], some, rule)
            dx = backward(net, trace, dx, below[-1], rules) if below else dx
        else:
            dy = ops.zeros((len(some) * N, *net.shapes[at]))
            for i, unit in enumerate(some):
                dy[i * N : (i + 1) * N, ..., unit] = 1
            dx = backward(net, trace, dy, at, rules)
        ops.largest(dx, largest)
    return largest
