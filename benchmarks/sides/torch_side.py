"""PyTorch at its best: channels_last, fused Adam, ceil-mode pooling; on a GPU also NCHW, TF32 and torch.compile."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from tinycnn import layers

from .. import works
from . import WAYS, event_time, slices
from . import Side as Base

COMPILE_MODES = ("reduce-overhead", "max-autotune-no-cudagraphs")


class Side(Base):
    """See the package. Variants: "torch", "torch-tf32", "torch-compile"."""

    def __init__(self, name, backend, threads):
        torch.set_num_threads(threads)
        self.version = f"torch {torch.__version__}"
        self.cuda, self.compiled = backend == "gpu", name == "torch-compile"
        self.tile = 1000 if self.cuda else 250  # images in one batched way back
        if self.cuda:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "torch-tf32"
            torch.backends.cudnn.benchmark = True
            self.version += f", CUDA {torch.version.cuda}"
            self.device = torch.cuda.get_device_name()

    def formulations(self, kind):
        if kind in works.ATTRIBUTION:
            return ()
        layouts = ("channels_last", "NCHW") if self.cuda else ("channels_last",)
        if self.compiled:
            return tuple(f"channels_last, {mode}" for mode in COMPILE_MODES) if kind in ("train", "infer") else ()
        if kind in ("saliency", "layerbackprop"):
            return tuple(f"{layout}, {way}" for layout in layouts for way in WAYS)
        return layouts

    def prepare(self, work, how, net, x, labels):
        self.layout = torch.contiguous_format if how.startswith("NCHW") else torch.channels_last
        module = copy_network(net, work.upto, Rectify if work.kind == "deconvnet" else nn.ReLU)
        module = module.to("cuda" if self.cuda else "cpu", memory_format=self.layout)
        if work.kind == "train":
            return self._train(module, how, self.images(x), self._put(torch.from_numpy(labels)))
        module.requires_grad_(False)
        if work.kind == "infer":
            return self._infer(module, how, self.images(x))
        if work.kind == "deconvnet":
            return lambda: self._project(module, x)
        if work.kind == "maximize":
            return lambda: self._ascend(module, x)
        channels = net.shapes[work.upto or net.layer_names[-1]][-1]
        return lambda: self._saliency(module, how.split(", ")[1], x, channels)

    def numpy(self, result):
        return result.detach().cpu().numpy().copy() if isinstance(result, torch.Tensor) else result

    def time(self, run, repeats):
        if self.cuda:
            new = lambda: torch.cuda.Event(enable_timing=True)  # noqa: E731
            return event_time(new, lambda start, end: start.elapsed_time(end), run, repeats)
        return super().time(run, repeats)

    def device_memory(self):
        """The peak of what the allocator took from the device."""
        return torch.cuda.max_memory_reserved()

    def free_device_memory(self):
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _put(self, tensor):
        return tensor.cuda() if self.cuda else tensor

    def images(self, x):
        """(N, H, W, C) -> a tensor (N, C, H, W) in this layout; where possible on the same memory."""
        return self._put(torch.from_numpy(x)).permute(0, 3, 1, 2).contiguous(memory_format=self.layout)

    def _compile(self, function, how):
        return torch.compile(function, mode=how.split(", ")[1]) if self.compiled else function

    def _train(self, module, how, x, labels):
        optimizer = torch.optim.Adam(module.parameters(), lr=works.LR, fused=True)
        loss_of = self._compile(lambda x, labels: nn.functional.cross_entropy(module(x), labels), how)

        def step():
            if self.compiled:
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, labels)
            loss.backward()
            optimizer.step()
            return loss.detach().reshape(1)

        return step

    def _infer(self, module, how, x):
        logits = self._compile(module, how)

        def infer():
            with torch.no_grad() if self.compiled else torch.inference_mode():
                return logits(x)

        return infer

    def _saliency(self, module, way, x, channels):
        """Largest absolute gradient, over channels and colours, of each channel's sum (N, H, W)."""
        result = []
        for some in [slice(None)] if way == WAYS[0] else slices(len(x), channels, self.tile):
            leaf = self.images(x[some]).requires_grad_()
            n = len(leaf)
            if way == "tiled":
                tiles = leaf.detach().repeat(channels, 1, 1, 1).contiguous(memory_format=self.layout).requires_grad_()
                y = module(tiles)
                seeds = self._seeds(channels, n, y).flatten(0, 1)  # channel 0 for all images, then channel 1, ...
                (g,) = torch.autograd.grad(y, tiles, seeds)
                result.append(g.abs_().amax(1).unflatten(0, (channels, n)).amax(0))
                continue
            y = module(leaf)
            if way == "batched vjp":
                (g,) = torch.autograd.grad(y, leaf, self._seeds(channels, n, y), is_grads_batched=True)
                result.append(g.abs_().amax((0, 2)))
                continue
            largest = None
            for k in range(channels):
                seed = torch.zeros_like(y)
                seed[:, k] = 1
                (g,) = torch.autograd.grad(y, leaf, seed, retain_graph=k < channels - 1)
                g = g.abs_().amax(1)
                largest = g if largest is None else torch.maximum(largest, g)
            result.append(largest)
        return torch.cat(result).cpu().numpy()

    def _seeds(self, channels, n, y):
        """(channels, n, C[, H, W]), in y's layout: 1 in channel k of all n images of row k."""
        one = torch.eye(channels, device=y.device)
        one = one.reshape(channels, 1, *(1 for _ in y.shape[2:]), channels)  # channels last
        one = one.expand(channels, n, *y.shape[2:], channels).contiguous()
        return one.movedim(-1, 2) if self.layout is torch.channels_last else one.movedim(-1, 2).contiguous()

    def _project(self, module, x):
        leaf = self.images(x).requires_grad_()
        y = module(leaf)
        maps = y.detach().sum((2, 3)).argmax(1)
        seed = torch.zeros_like(y)
        n = torch.arange(len(y), device=y.device)
        seed[n, maps] = y.detach()[n, maps]
        (g,) = torch.autograd.grad(y, leaf, seed)
        return g.permute(0, 2, 3, 1).cpu().numpy()

    def _ascend(self, module, x):
        image = self.images(x).clone(memory_format=torch.preserve_format)
        for _ in range(works.ITERATIONS):
            image.requires_grad_()
            (g,) = torch.autograd.grad(module(image).diagonal().sum(), image)
            image = image.detach().add_(g, alpha=works.RATE)
        return image.permute(0, 2, 3, 1).cpu().numpy()


class Flatten(nn.Module):
    """Rows in the order (H, W, C): no copy of channels_last maps, and the signal comes back in that layout too."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, dy):
        return dy.relu()


class Rectify(nn.Module):
    """A deconvnet's ReLU: rectifies on both ways and looks at nothing else."""

    def __init__(self, inplace=True):
        super().__init__()

    def forward(self, x):
        return _Rectified.apply(x)


def copy_network(net, upto, relu):
    """`net` as an nn.Sequential to layer `upto` (None: all), with its weights."""
    modules, shape = OrderedDict(), net.input_shape
    for spec in net.layers:
        p = {k: torch.from_numpy(np.array(a)) for k, a in net.params.get(spec.name, {}).items()}
        module = None
        if isinstance(spec, layers.Conv2D):
            module = nn.Conv2d(shape[2], spec.filters, spec.kernel, padding=spec.kernel[0] // 2)
            p["w"] = p["w"].permute(3, 2, 0, 1)
        elif isinstance(spec, layers.ReLU):
            module = relu(inplace=True)
        elif isinstance(spec, layers.MaxPool2D):
            module = nn.MaxPool2d(spec.window, spec.stride, ceil_mode=True)  # SAME for even sizes
        elif isinstance(spec, layers.Flatten):
            module = Flatten()
        elif isinstance(spec, layers.Dense):
            module = nn.Linear(shape[0], spec.units)
            p["w"] = p["w"].T
        if p:
            with torch.no_grad():
                module.weight.copy_(p["w"])
                module.bias.copy_(p["b"])
        if module is not None:  # dropout drops nothing here
            modules[spec.name] = module
        shape = net.shapes[spec.name]
        if spec.name == upto:
            break
    return nn.Sequential(modules)
