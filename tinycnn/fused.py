"""The training path: conv -> bias -> relu -> max-pool as one block, an optimisation of the same layers.

Nobody reads a convolution's full output in training: the pool keeps one value of each window and remembers where it
stood. So a backend may run the whole block image by image in cache and leave only the pooled map and its switches
(`ops.conv_relu_pool`); on the way back the switches say where the gradient is. Everything else goes layer by layer.

The layered path of network.py stays the definition; the tests hold this one to it. All large arrays live in a Workspace
and are used again at the next step.
"""

import math

from .layers import Conv2D, Dense, MaxPool2D, ReLU
from .rules import RULES


class Workspace:
    """Arrays by name that outlive a call: asked for again with the same shape, the same memory comes back.

    Parameters
    ----------
    ops : Ops
        Whose arrays they are.
    """

    def __init__(self, ops):
        self._ops, self._arrays = ops, {}

    def __call__(self, key, shape, dtype):
        """Return an uninitialised array; its contents last until the same `key` is asked for again."""
        size = math.prod(shape)
        flat = self._arrays.get(key)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._arrays[key] = self._ops.empty(size, dtype)
        return flat[:size].reshape(shape)


class Block:
    """Conv2D, ReLU, MaxPool2D as one layer: the protocol of layers.py with a workspace in place of fresh arrays."""

    def __init__(self, conv, pool):
        self.conv, self.pool, self.name = conv, pool, conv.name
        self.geometry = (conv.stride, conv.padding, pool.window, pool.stride, pool.padding)

    def forward(self, ops, p, x, work):
        y, switches = ops.conv_relu_pool(x, p["w"], p["b"], *self.geometry, work=_Scope(work, self.name))
        return y, (x, y, switches)

    def backward(self, ops, p, cache, dy, need_dx, work):
        x, y, switches = cache
        dw, db, dx = ops.conv_relu_pool_backward(
            x, p["w"], y, switches, dy, *self.geometry, need_dx=need_dx, work=_Scope(work, self.name)
        )
        return {"w": dw, "b": db}, dx


class _Scope:
    """A workspace whose keys are prefixed, so that two blocks never share an array."""

    def __init__(self, work, prefix):
        self.work, self.prefix = work, prefix

    def __call__(self, key, shape, dtype):
        return self.work((self.prefix, key), shape, dtype)


def plan(layers, upto=None):
    """Return the layers as the fused path runs them: Conv2D, ReLU, MaxPool2D in a row become one Block.

    Only layers to that called `upto` (default: the last) are taken; a block that ends beyond it stays layers.
    """
    if upto is not None:
        layers = layers[: [layer.name for layer in layers].index(upto) + 1]
    steps, i = [], 0
    while i < len(layers):
        if [type(layer) for layer in layers[i : i + 3]] == [Conv2D, ReLU, MaxPool2D]:
            steps.append(Block(layers[i], layers[i + 2]))
            i += 3
        else:
            steps.append(layers[i])
            i += 1
    return steps


def forward(net, x, work, rng=None, upto=None):
    """Run a batch to layer `upto` (default: the logits).

    Parameters
    ----------
    net : Network
    x : array (N, H, W, C)
        As the backend's `from_images` returns it.
    work : Workspace
        What is returned lives in it until the next call.
    rng : numpy.random.Generator, optional
        Given only in training, for dropout.
    upto : str, optional

    Returns
    -------
    y : array
    caches : list of (step, cache)
    """
    caches = []
    for step in plan(net.layers, upto):
        x, cache = step.forward(net.ops, net.params.get(step.name), x, work if isinstance(step, Block) else rng)
        caches.append((step, cache))
    return x, caches


def loss_and_grads(net, x, labels, work, rng=None, loss=None):
    """Return (mean softmax cross-entropy, {layer: {name: gradient}}) of one batch; see `forward`.

    The mean is a number, or, where an array of one element is given as `loss`, that array.
    """
    logits, caches = forward(net, x, work, rng)
    loss, dy = net.ops.softmax_cross_entropy(logits, labels, loss)
    grads = {}
    first = next((i for i, (step, _) in enumerate(caches) if step.name in net.params), len(caches))
    for i in range(len(caches) - 1, first - 1, -1):
        step, cache = caches[i]
        p = net.params.get(step.name)
        if isinstance(step, Block):
            grads[step.name], dy = step.backward(net.ops, p, cache, dy, i > first, work)
            continue
        if isinstance(step, Dense):  # the largest arrays of all: they live in the workspace too
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
