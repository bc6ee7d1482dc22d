"""A PyTorch copy of a Network, for the oracle tests: the same function in NCHW, as modules Captum can hook.

Import only after ``pytest.importorskip("torch")``. Module names are the layers' names. SAME padding is
written out as TensorFlow's rule, total = max((out - 1) stride + window - in, 0) with the odd pixel after,
in modules of their own, so that nothing here depends on tinycnn's geometry.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from tinycnn import layers

torch.set_num_threads(1)  # its threads and Numba's would fight for the same cores: many times slower
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def to_torch(x, dtype=None):
    """Images (N, H, W, C), uint8 or float, as a tensor (N, C, H, W)."""
    x = np.asarray(x)
    x = x / np.float64(255) if x.dtype == np.uint8 else x
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), dtype=dtype and DTYPES[np.dtype(dtype).name])


def to_ours(t):
    """A tensor (N, C, H, W) as an array (N, H, W, C); one (N, D) as it is."""
    a = t.detach().numpy()
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)) if a.ndim == 4 else a


def same_padding(size, window, stride):
    """Padding before and after along one axis."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


class Normalize(nn.Module):
    """(x - mean) / std by channel."""

    def __init__(self, mean, std, dtype):
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value, dtype=dtype).reshape(1, -1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def pads_of(spec, shape):
    """((top, bottom), (left, right)) of a layer with windows."""
    if spec.padding == "SAME":
        return tuple(same_padding(shape[a], spec.window[a], spec.stride[a]) for a in (0, 1))
    return ((0, 0), (0, 0)) if spec.padding == "VALID" else spec.padding


def copy_network(net, dtype=None):
    """Return an nn.Sequential that computes what `net` does, in evaluation mode.

    ReLUs are nn.ReLU modules, not in place; the first dense matrix is permuted for NCHW flattening.
    """
    dtype = DTYPES[np.dtype(dtype or net.dtype).name]
    modules, shape, flat = OrderedDict(), net.input_shape, None
    for spec in net.layers:
        name = spec.name
        if isinstance(spec, (layers.Conv2D, layers.MaxPool2D)):
            conv = isinstance(spec, layers.Conv2D)
            if spec.padding != "VALID":
                (top, bottom), (left, right) = pads_of(spec, shape)
                modules[name + "_pad"] = nn.ConstantPad2d((left, right, top, bottom), 0.0 if conv else -np.inf)
            if conv:
                modules[name] = nn.Conv2d(shape[2], spec.filters, spec.kernel, spec.stride, dtype=dtype)
            else:
                modules[name] = nn.MaxPool2d(spec.window, spec.stride)
        elif isinstance(spec, layers.Dense):
            modules[name] = nn.Linear(shape[0], spec.units, dtype=dtype)
        elif isinstance(spec, layers.AvgPool2D):
            (top, bottom), (left, right) = pads_of(spec, shape)
            if (top, left) != (bottom, right):
                raise TypeError(f"PyTorch pads a mean alike on both sides, {spec} does not")
            modules[name] = nn.AvgPool2d(
                spec.window, spec.stride, (top, left), count_include_pad=spec.count_padding
            )  # and never divides by padding that it does not count
        elif isinstance(spec, layers.GlobalAvgPool2D):
            modules[name], modules[name + "_flat"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        elif isinstance(spec, layers.BatchNorm):
            modules[name] = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(
                shape[-1], spec.epsilon, dtype=dtype
            )
            kept = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
            with torch.no_grad():
                for theirs, k in kept.items():
                    getattr(modules[name], theirs).copy_(torch.tensor(net.ops.to_numpy(net.params[name][k])))
        elif isinstance(spec, layers.Normalize):
            modules[name] = Normalize(spec.mean, spec.std, dtype)
        elif isinstance(spec, layers.ReLU):
            modules[name] = nn.ReLU()
        elif isinstance(spec, layers.Dropout):
            modules[name] = nn.Dropout(spec.rate)
        elif isinstance(spec, layers.Flatten):
            modules[name] = nn.Flatten()
            flat = shape if len(shape) == 3 else None
        else:
            raise TypeError(f"no PyTorch module for {spec}")
        if "w" in net.params.get(name, {}):
            w, b = (torch.tensor(net.ops.to_numpy(net.params[name][k]), dtype=dtype) for k in "wb")
            with torch.no_grad():
                modules[name].weight.copy_(_weight_to_torch(w, flat))
                modules[name].bias.copy_(b)
        if isinstance(spec, layers.Dense):
            flat = None
        shape = net.shapes[name]
    return nn.Sequential(modules).eval()


def grads_to_ours(module, net):
    """The `.grad` of every parameter of a copy of `net`, in our layout: {layer: {"w": array, "b": array}}."""
    grads, flat, shape = {}, None, net.input_shape
    for spec in net.layers:
        if isinstance(spec, layers.Flatten):
            flat = shape if len(shape) == 3 else None
        if spec.name in net.params:
            m = getattr(module, spec.name)
            grads[spec.name] = {
                "w": _weight_to_ours(m.weight.grad.numpy(), flat),
                "b": m.bias.grad.numpy().copy(),
            }
        if isinstance(spec, layers.Dense):
            flat = None
        shape = net.shapes[spec.name]
    return grads


def _weight_to_torch(w, flat):
    if w.ndim == 4:  # HWIO -> OIHW
        return w.permute(3, 2, 0, 1)
    if flat is not None:  # rows in the order (H, W, C) -> columns in the order (C, H, W)
        return w.reshape(*flat, -1).permute(3, 2, 0, 1).reshape(w.shape[1], -1)
    return w.T


def _weight_to_ours(w, flat):
    if w.ndim == 4:
        return np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    if flat is not None:
        H, W, C = flat
        return np.ascontiguousarray(w.reshape(-1, C, H, W).transpose(2, 3, 1, 0).reshape(H * W * C, -1))
    return np.ascontiguousarray(w.T)
