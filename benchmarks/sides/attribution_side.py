"""Captum and zennit, on the PyTorch side's copy of the network, with its layout; each for the methods that it has.

Noise is ours: both add the same draws, and Captum is spared drawing them. Of several batch sizes the fastest counts.
"""

import sys
import types

import numpy as np
import torch

from viz.attribution import gradients

from .. import works
from .torch_side import Side as TorchSide
from .torch_side import copy_network

BATCHES = (100, 250, 500)  # images at a time, copies included


class Side(TorchSide):
    """See the package. Variants: "captum", "zennit"."""

    def __init__(self, name, backend, threads):
        super().__init__("torch", backend, threads)
        self.name = name
        if name == "captum":
            import captum

            self.version = f"captum {captum.__version__}, {self.version}"
        else:
            from importlib import metadata

            _without_torchvision()
            self.version = f"zennit {metadata.version('zennit')}, {self.version}"

    def formulations(self, kind):
        if kind == "lrp":
            return ("channels_last",)
        if self.name == "captum" and kind in works.ATTRIBUTION:
            return tuple(f"channels_last, {batch} at a time" for batch in BATCHES)
        return ()

    def prepare(self, work, how, net, x, labels):
        self.layout = torch.channels_last
        module = copy_network(net, None, lambda inplace: torch.nn.ReLU()).to(memory_format=self.layout).eval()
        target = torch.from_numpy(labels)
        if work.kind == "lrp":
            propagate = self._captum_lrp if self.name == "captum" else self._zennit_lrp
            return lambda: self._nhwc(propagate(module, x, target))
        module.requires_grad_(False)
        copies = max(1, int(how.split(", ")[1].split()[0]) // len(x))  # of every image at a time
        run = {"integratedgradients": self._integrated, "smoothgrad": self._smooth, "occlusion": self._occlude}
        return lambda: self._nhwc(run[work.kind](work, module, x, target, copies, net))

    def _nhwc(self, maps):
        return maps.detach().permute(0, 2, 3, 1).contiguous().numpy()

    def _integrated(self, work, module, x, target, copies, net):
        from captum import attr

        return attr.IntegratedGradients(module).attribute(
            self.images(x), target=target, n_steps=works.SAMPLES, internal_batch_size=copies * len(x)
        )

    def _smooth(self, work, module, x, target, copies, net):
        from captum import attr

        range_ = np.ptp(x, (1, 2, 3), keepdims=True)[:, None]  # sigma is a share of each image's range
        drawn, usual = [0], torch.normal

        def normal(mean, std):
            some = range(drawn[0], drawn[0] + len(std) // len(x))
            drawn[0] = some.stop
            noise = works.SIGMA * range_ * np.stack([gradients.noise(net, k) for k in some])
            return self.images(noise.reshape(-1, *x.shape[1:]).astype(np.float32))

        torch.normal = normal
        try:
            return attr.NoiseTunnel(attr.Saliency(module)).attribute(
                self.images(x), nt_type="smoothgrad", nt_samples=works.SAMPLES, nt_samples_batch_size=copies,
                stdevs=works.SIGMA, target=target, abs=False,
            )  # fmt: skip
        finally:
            torch.normal = usual

    def _occlude(self, work, module, x, target, copies, net):
        from captum import attr

        window = (x.shape[3], *(works.window(work.model),) * 2)
        with torch.inference_mode():
            return attr.Occlusion(module).attribute(
                self.images(x), window, window, target=target, perturbations_per_eval=copies
            )

    def _captum_lrp(self, module, x, target):
        from captum import attr
        from captum.attr._utils.lrp_rules import EpsilonRule

        for layer in module.children():  # the others hand on: what a rule adds there is lost in rounding
            layer.rule = EpsilonRule(epsilon=works.EPSILON if hasattr(layer, "weight") else 1e-30)
        return attr.LRP(module).attribute(self.images(x).requires_grad_(), target=target)

    def _zennit_lrp(self, module, x, target):
        from zennit import composites, rules
        from zennit import types as kinds

        layers = [(kinds.Activation, rules.Pass()), (kinds.Linear, rules.Epsilon(works.EPSILON))]
        leaf = self.images(x).requires_grad_()
        with composites.LayerMapComposite(layers).context(module) as changed:
            y = changed(leaf)
            start = torch.zeros_like(y).scatter_(1, target[:, None], y.detach().gather(1, target[:, None]))
            return torch.autograd.grad(y, leaf, start)[0]


def _without_torchvision():
    """Let zennit be imported where torchvision is missing: it asks for it only to know that library's networks."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        asked = {"": (), ".models": (), ".models.resnet": ("Bottleneck", "BasicBlock"), ".models.vgg": ()}
        for name, classes in asked.items():
            module = types.ModuleType("torchvision" + name)
            for c in classes:
                setattr(module, c, type(c, (), {}))
            sys.modules[module.__name__] = module
