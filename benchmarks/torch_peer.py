"""The study's networks in PyTorch, at their best on a CPU: channels_last, fused Adam, ceil-mode pooling.

Weights are copied from our networks, so that both train the same function from the same start.
"""

import torch
from torch import nn

from tinycnn import layers

VERSION = torch.__version__


class Peer:
    """One network with Adam; images are NHWC float arrays, as ours."""

    name = "torch"

    def __init__(self, net, lr, threads):
        torch.set_num_threads(threads)
        modules, shape, flat = [], net.input_shape, None
        for spec in net.layers:
            p = {k: torch.tensor(a) for k, a in net.params.get(spec.name, {}).items()}
            if isinstance(spec, layers.Conv2D):
                modules.append(nn.Conv2d(shape[2], spec.filters, spec.kernel, padding=spec.kernel[0] // 2))
                p["w"] = p["w"].permute(3, 2, 0, 1)
            elif isinstance(spec, layers.ReLU):
                modules.append(nn.ReLU(inplace=True))
            elif isinstance(spec, layers.MaxPool2D):
                modules.append(nn.MaxPool2d(spec.window, spec.stride, ceil_mode=True))
            elif isinstance(spec, layers.Flatten):
                modules.append(nn.Flatten())
                flat = shape
            elif isinstance(spec, layers.Dense):
                modules.append(nn.Linear(shape[0], spec.units))
                if flat is not None:  # our rows are in the order (H, W, C), PyTorch's columns in (C, H, W)
                    p["w"] = p["w"].reshape(*flat, -1).permute(2, 0, 1, 3).reshape(shape[0], -1)
                    flat = None
                p["w"] = p["w"].T
            if p:
                with torch.no_grad():
                    modules[-1].weight.copy_(p["w"])
                    modules[-1].bias.copy_(p["b"])
            shape = net.shapes[spec.name]
        self.module = nn.Sequential(*modules).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=lr, fused=True)

    @staticmethod
    def input(x):
        """(N, H, W, C) float32 -> a channels_last tensor on the same memory."""
        return torch.from_numpy(x).permute(0, 3, 1, 2)

    def train_step(self, x, labels):
        """One step of Adam on the mean cross-entropy; returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.module(self.input(x)), torch.from_numpy(labels))
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def logits(self, x):
        """Inference, (N, classes)."""
        with torch.inference_mode():
            return self.module(self.input(x)).numpy()
