"""Optimizers: frozen specs whose state is a flat dict of arrays, so that a checkpoint can hold it.

Adam (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1) with running means m of the gradient and v of its square:

    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

SGD with momentum: v <- momentum * v + g,  p <- p - lr * v.

An optimizer's `lr` is the largest rate of a run; `schedule` says which share of it each step takes.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from .errors import InputError, choose
from .layers import Product, multiplied


def _zeros(ops, params, prefix):
    return {f"{prefix}/{layer}/{name}": ops.zeros(a.shape) for layer, p in params.items() for name, a in p.items()}


@dataclass(frozen=True)
class Adam:
    """Adam; `lr` is the step size, `beta1` and `beta2` the memories, `eps` the floor of the denominator.

    With `decay`, weights (not biases) shrink by lr * decay a step (AdamW: Loshchilov and Hutter 2017,
    arXiv:1711.05101).
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    decay: float = 0.0

    def init(self, ops, params):
        """Return the state before the first step: {"m/LAYER/NAME": zeros, "v/LAYER/NAME": zeros}."""
        return _zeros(ops, params, "m") | _zeros(ops, params, "v")

    def update(self, ops, state, key, p, g, t):
        """Step number `t` (from 1) of the parameter called `key` ("LAYER/NAME"), in place on `p` and `state`.

        `g` is the gradient, or a `layers.Product`.
        """
        constants = (self.lr, self.beta1, self.beta2, self.eps, t, self.decay if key.endswith("/w") else 0.0)
        step, g = (ops.dense_adam_step, g) if isinstance(g, Product) else (ops.adam_step, (g,))
        step(p, *g, state["m/" + key], state["v/" + key], *constants)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 1e-2
    momentum: float = 0.9

    def init(self, ops, params):
        """Return the state before the first step: {"v/LAYER/NAME": zeros}."""
        return _zeros(ops, params, "v")

    def update(self, ops, state, key, p, g, t):
        """See `Adam.update`."""
        g = multiplied(ops, {"w": g})["w"]
        ops.sgd_step(p, g, state["v/" + key], self.lr, self.momentum)


def get_optimizer(optimizer, lr=None):
    """Return `optimizer` itself, or the one of that name ("adam", "sgd") with this `lr` (None: its default)."""
    if isinstance(optimizer, str):
        spec = {"adam": Adam, "sgd": SGD}[choose(optimizer, ("adam", "sgd"), "optimizer")]
        optimizer = spec() if lr is None else spec(lr=lr)
    numbers = {k: v.item() if isinstance(v, np.generic) else v for k, v in vars(optimizer).items()}
    if not (all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers.values()) and numbers["lr"] > 0):
        raise InputError(f"lr must be positive, and all are finite numbers, got {optimizer}")
    return dataclasses.replace(optimizer, **numbers)  # Python's: a checkpoint holds them as JSON


SCHEDULES = ("constant", "one-cycle")
WARM_UP = 0.15  # share of a one-cycle run until the rate is at its largest


def at_step(optimizer, schedule, t, steps):
    """Return `optimizer` with the rate of step `t` (1 to `steps`).

    "constant": its own. "one-cycle": from 0 up to its own, linearly, in the first `WARM_UP` of the run, then linearly
    down to 0 (Smith and Topin 2017, arXiv:1708.07120).
    """
    if schedule == "constant":
        return optimizer
    done = (t - 0.5) / steps
    share = min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
    return dataclasses.replace(optimizer, lr=optimizer.lr * share)


def step(ops, optimizer, params, grads, state, t):
    """One step number `t` over all parameters that have a gradient, in place on `params` and `state`."""
    for layer, some in grads.items():
        for name, g in some.items():
            optimizer.update(ops, state, f"{layer}/{name}", params[layer][name], g, t)
