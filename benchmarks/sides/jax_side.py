"""JAX at its best: jit, NHWC, Adam within the compiled step, its arrays donated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tinycnn import layers

from .. import works
from . import WAYS, slices
from . import Side as Base


class Side(Base):
    """See the package."""

    def __init__(self, name, backend, threads):
        jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 on a GPU
        self.version = f"jax {jax.__version__}"
        self.device = jax.devices()[0].device_kind if backend == "gpu" else None
        self.tile = 1000 if backend == "gpu" else 250  # images in one batched way back
        if jax.default_backend() != backend:
            raise RuntimeError(f"this JAX computes on {jax.default_backend()}, not on {backend}")

    def formulations(self, kind):
        if kind in works.ATTRIBUTION:
            return ()
        return WAYS if kind in ("saliency", "layerbackprop") else ("jit",)

    def prepare(self, work, how, net, x, labels):
        p = {name: {k: jnp.array(a) for k, a in own.items()} for name, own in net.params.items()}
        specs = net.layers  # a closure over `net` would keep its weights alive
        relu = rectified if work.kind == "deconvnet" else jax.nn.relu

        def forward(p, x):
            return run_layers(specs, p, x, relu, work.upto)

        if work.kind == "train":
            return _train(forward, p, jnp.array(x), jnp.array(labels))
        if work.kind == "infer":
            logits, x = jax.jit(forward), jnp.array(x)
            return lambda: logits(p, x).block_until_ready()
        if work.kind == "deconvnet":
            project = jax.jit(lambda p, x: _project(forward, p, x))
            return lambda: np.asarray(project(p, jnp.array(x)))
        if work.kind == "maximize":
            ascend = jax.jit(lambda p, x: _ascend(forward, p, x))

            def maximize():
                image = jnp.array(x)
                for _ in range(works.ITERATIONS):
                    image = ascend(p, image)
                return np.asarray(image)

            return maximize
        channels = net.shapes[work.upto or net.layer_names[-1]][-1]
        saliency = jax.jit(lambda p, x: _saliency(forward, how, p, x, channels))
        parts = [slice(None)] if how == WAYS[0] else slices(len(x), channels, self.tile)
        return lambda: np.concatenate([saliency(p, jnp.array(x[some])) for some in parts])

    def device_memory(self):
        """The peak of the arrays in use; it never starts again."""
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]

    def numpy(self, result):
        return np.asarray(result)


@jax.custom_vjp
def rectified(x):
    """A deconvnet's ReLU: rectifies on both ways and looks at nothing else."""
    return jax.nn.relu(x)


rectified.defvjp(lambda x: (jax.nn.relu(x), None), lambda _, dy: (jax.nn.relu(dy),))


def run_layers(specs, p, x, relu, upto):
    """The network to layer `upto` (None: the logits)."""
    for spec in specs:
        own = p.get(spec.name)
        if isinstance(spec, layers.Conv2D):
            orders = ("NHWC", "HWIO", "NHWC")
            x = lax.conv_general_dilated(x, own["w"], spec.stride, spec.padding, dimension_numbers=orders) + own["b"]
        elif isinstance(spec, layers.ReLU):
            x = relu(x)
        elif isinstance(spec, layers.MaxPool2D):
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, *spec.window, 1), (1, *spec.stride, 1), spec.padding)
        elif isinstance(spec, layers.Flatten):
            x = x.reshape(len(x), -1)
        elif isinstance(spec, layers.Dense):
            x = x @ own["w"] + own["b"]
        if spec.name == upto:
            break
    return x


def _train(forward, p, x, labels):
    def loss_of(p):
        logits = forward(p, x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def update(state, t):
        p, m, v = state
        loss, g = jax.value_and_grad(loss_of)(p)
        m = jax.tree.map(lambda m, g: m + 0.1 * (g - m), m, g)
        v = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), v, g)
        rate, unbias = works.LR / (1 - 0.9**t), 1 / (1 - 0.999**t)
        p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v * unbias) + 1e-8), p, m, v)
        return (p, m, v), loss

    update = jax.jit(update, donate_argnums=0)
    state, t = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p)), 0

    def step():
        nonlocal state, t
        t += 1
        state, loss = update(state, float(t))
        jax.block_until_ready((state, loss))
        return loss.reshape(1)

    return step


def _project(forward, p, x):
    y, back = jax.vjp(lambda x: forward(p, x), x)
    maps = y.sum((1, 2)).argmax(1)
    return back(y * jax.nn.one_hot(maps, y.shape[-1])[:, None, None])[0]


def _ascend(forward, p, x):
    return x + works.RATE * jax.grad(lambda x: jnp.trace(forward(p, x)))(x)


def _saliency(forward, way, p, x, channels):
    """Largest absolute gradient, over channels and colours, of each channel's sum (N, H, W)."""
    n = len(x)
    if way == "tiled":  # copies of all images for channel 0, then for channel 1, ...
        x = jnp.tile(x, (channels, 1, 1, 1))
    y, back = jax.vjp(lambda x: forward(p, x), x)
    if way == "tiled":
        seed = jax.nn.one_hot(jnp.repeat(jnp.arange(channels), n), channels)
        seed = seed.reshape(-1, *(1 for _ in y.shape[2:]), channels)
        g = back(jnp.broadcast_to(seed, y.shape))[0]
        return jnp.abs(g).max(-1).reshape(channels, n, *x.shape[1:3]).max(0)

    def channel(k):
        seed = jnp.broadcast_to(jax.nn.one_hot(k, channels), y.shape)
        return jnp.abs(back(seed)[0]).max(-1)

    if way == "batched vjp":
        return jax.vmap(channel)(jnp.arange(channels)).max(0)
    return lax.fori_loop(0, channels, lambda k, largest: jnp.maximum(largest, channel(k)), jnp.zeros(x.shape[:3]))
