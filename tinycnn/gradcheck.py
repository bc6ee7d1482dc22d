"""Are the hand-written gradients right? Compare them with central differences, in float64.

    df/dx_i ~ (f(x + e_i eps) - f(x - e_i eps)) / (2 eps)             elementwise, for small arrays
    <grad, d> ~ (f(x + d eps) - f(x - d eps)) / (2 eps)               along a random direction d, for whole networks

The truncation error falls with eps^2, the rounding error grows with 1 / eps; 1e-6 to 1e-5 serves float64 well. ReLU and
max-pool have kinks: a difference taken across one is wrong, so inputs should be random and eps small.

A layer's vector-valued output is made a number by a fixed random weighting r: f = <r, y>, so that dy = r.
"""

import numpy as np

from . import streams
from .errors import InputError
from .layers import multiplied
from .rules import RULES


def relative_error(a, b):
    """max |a - b| / max(|a|, |b|), over all elements; 0 if both are zero."""
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return float(np.abs(np.asarray(a) - b).max(initial=0) / scale) if scale else 0.0


def numeric_gradient(f, x, eps=1e-5):
    """Return the gradient of `f()`, a number that depends on the array `x`, by central differences.

    Parameters
    ----------
    f : callable without arguments
    x : float64 array
        Changed in place and restored, element by element.
    eps : float

    Returns
    -------
    numpy.ndarray, shape of x
    """
    grad = np.empty(x.shape, np.float64)
    for i in np.ndindex(x.shape):
        saved = x[i]
        x[i] = saved + eps
        up = f()
        x[i] = saved - eps
        down = f()
        x[i] = saved
        grad[i] = (up - down) / (2 * eps)
    return grad


def directional_derivative(f, x, direction, eps=1e-6):
    """Return the derivative of `f()` along `direction`, an array of the shape of `x`; `x` is restored."""
    saved = x.copy()
    x += eps * direction
    up = f()
    x[...] = saved - eps * direction
    down = f()
    x[...] = saved
    return (up - down) / (2 * eps)


def check_layer(ops, layer, x, seed=0, eps=1e-5):
    """Check one layer's backward and parameter gradients elementwise.

    Parameters
    ----------
    ops : Ops
        Of dtype float64.
    layer : layer spec
    x : array (N, ...)
        A small input.
    seed : int
        Of the parameters and of the weighting of the output.
    eps : float

    Returns
    -------
    dict of float
        Relative error by name: "x", and of a layer that is trained its parameters.

    Raises
    ------
    InputError
        `ops` is not float64.
    """
    _need_float64(ops)
    rng = streams.rng(seed, "gradient check of a layer")
    x = np.array(x, np.float64)
    arrays = {k: a + 0.1 * rng.standard_normal(a.shape) for k, a in layer.init(x.shape[1:], rng).items()}
    arrays["x"] = x

    def forward():
        p = {k: ops.asarray(a) for k, a in arrays.items()}
        return p, *layer.forward(ops, p, p["x"], streams.rng(seed, "dropout"))  # the same dropout mask every time

    p, y, cache = forward()
    r = rng.standard_normal(y.shape)

    def f():
        return float((ops.to_numpy(forward()[1]) * r).sum())

    dy = ops.asarray(r)
    analytic = {
        "x": layer.backward(ops, p, cache, dy, RULES["gradient"]),
        **multiplied(ops, layer.grads(ops, p, cache, dy)),
    }
    names = arrays if layer.trains else ["x"]
    return {k: relative_error(ops.to_numpy(analytic[k]), numeric_gradient(f, arrays[k], eps)) for k in names}


def check_network(net, x, labels, directions=3, seed=0, eps=1e-6):
    """Check the gradients of the loss with respect to every parameter and the input, along random directions.

    Parameters
    ----------
    net : Network
        Of dtype float64.
    x : array (N, H, W, C)
    labels : integer array (N,)
    directions : int
        Random directions for each array.
    seed : int
    eps : float

    Returns
    -------
    dict of float
        The largest relative error by name ("conv1/w", ..., "x").

    Raises
    ------
    InputError
        `net` is not float64.
    """
    _need_float64(net.ops)
    rng = streams.rng(seed, "gradient check of a network")
    x = np.array(net.ops.to_numpy(net.ops.from_images(np.asarray(x))))

    def loss():
        trace = net.forward(x)
        return (*net.ops.softmax_cross_entropy(trace.outputs[trace.upto], labels), trace)

    _, dlogits, trace = loss()
    found, params, errors = net.param_grads(trace, dlogits), net.arrays(), {}
    grads = {f"{layer}/{k}": net.ops.to_numpy(g) for layer, gs in found.items() for k, g in gs.items()}
    grads["x"] = net.backward(trace, dlogits)
    for name in grads:
        array = x if name == "x" else net.ops.to_numpy(params[name]).copy()

        def loss_at(name=name, array=array):
            if name != "x":
                params[name][...] = net.ops.asarray(array)
            return loss()[0]

        errors[name] = 0.0
        for _ in range(directions):
            d = rng.standard_normal(array.shape)
            # along the gradient as well as at random: a random direction alone is nearly orthogonal to it
            d = d / np.linalg.norm(d) + grads[name] / max(np.linalg.norm(grads[name]), 1e-300)
            numeric = directional_derivative(loss_at, array, d, eps)
            errors[name] = max(errors[name], relative_error(float((grads[name] * d).sum()), numeric))
        loss_at()  # as it was
    return errors


def _need_float64(ops):
    if ops.dtype != np.float64:
        raise InputError(f"finite differences need dtype float64, got {ops.dtype}; build with dtype='float64'")
