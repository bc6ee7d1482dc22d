"""Optimizers: frozen specs whose state is a flat dict of arrays, so that a checkpoint can hold it.

Adam (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1) with running means m of the gradient and v of its square:

    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

SGD with momentum: v <- momentum * v + g,  p <- p - lr * v.
"""

from dataclasses import dataclass

from .errors import InputError, choose


def _zeros(ops, params, prefix):
    return {f"{prefix}/{layer}/{name}": ops.zeros(a.shape) for layer, p in params.items() for name, a in p.items()}


@dataclass(frozen=True)
class Adam:
    """Adam; `lr` is the step size, `beta1` and `beta2` the memories, `eps` the floor of the denominator."""

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def init(self, ops, params):
        """Return the state before the first step: {"m/LAYER/NAME": zeros, "v/LAYER/NAME": zeros}."""
        return _zeros(ops, params, "m") | _zeros(ops, params, "v")

    def update(self, ops, state, key, p, g, t):
        """Step number `t` (from 1) of the parameter called `key` ("LAYER/NAME"), in place on `p` and `state`."""
        ops.adam_step(p, g, state["m/" + key], state["v/" + key], self.lr, self.beta1, self.beta2, self.eps, t)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    lr: float = 1e-2
    momentum: float = 0.9

    def init(self, ops, params):
        """Return the state before the first step: {"v/LAYER/NAME": zeros}."""
        return _zeros(ops, params, "v")

    def update(self, ops, state, key, p, g, t):
        """Step number `t` (from 1) of the parameter called `key` ("LAYER/NAME"), in place on `p` and `state`."""
        ops.sgd_step(p, g, state["v/" + key], self.lr, self.momentum)


def get_optimizer(optimizer, lr=None):
    """Return `optimizer` itself, or the one of that name ("adam", "sgd") with this `lr` (None: its default)."""
    if isinstance(optimizer, str):
        spec = {"adam": Adam, "sgd": SGD}[choose(optimizer, ("adam", "sgd"), "optimizer")]
        optimizer = spec() if lr is None else spec(lr=lr)
    if not optimizer.lr > 0:
        raise InputError(f"lr must be positive, got {optimizer.lr}")
    return optimizer


def step(ops, optimizer, params, grads, state, t):
    """One step number `t` over all parameters, in place on `params` and `state`."""
    for layer, p in params.items():
        for name in p:
            optimizer.update(ops, state, f"{layer}/{name}", p[name], grads[layer][name], t)
