"""Our side: the public functions of viz, and the steps of tinycnn.train without its data handling."""

import numpy as np

import tinycnn
from tinycnn import losses, optim, walk
from tinycnn.ops.workspace import Workspace
from viz import deconvnet, maximize, saliency
from viz.ascent import Recipe
from viz.ascent.optimizers import Constant
from viz.attribution import gradients, perturbation, relevance

from .. import works
from . import Side as Base
from . import event_time


class Side(Base):
    """See the package."""

    def __init__(self, name, backend, threads):
        self.backend = backend
        self.version = f"tinycnn {tinycnn.__version__}, numpy {np.__version__}"
        if backend == "gpu":
            import cupy

            self.cupy = cupy
            self.version += f", cupy {cupy.__version__}"
            self.device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        else:
            import numba

            self.version += f", numba {numba.__version__}"

    def formulations(self, kind):
        return ("tinycnn",)

    def prepare(self, work, how, net, x, labels):
        net = work.network(self.backend)
        if work.kind in ("train", "infer"):
            return self._step(work, net, net.ops.from_images(x), net.ops.put(labels))
        return {
            "saliency": lambda: saliency.saliency(net, x),
            "layerbackprop": lambda: saliency.layer_backprop(net, x, works.LAYER),
            "integratedgradients": lambda: gradients.integrated_gradients(net, x, labels, works.SAMPLES),
            "smoothgrad": lambda: gradients.smoothgrad(net, x, labels, works.SAMPLES, works.SIGMA),
            "occlusion": lambda: perturbation.occlusion(net, x, labels, *(works.window(work.model),) * 2),
            "lrp": lambda: relevance.lrp(net, x, labels, "epsilon", epsilon=works.EPSILON),
            "deconvnet": lambda: deconvnet.project(net, x, works.LAYER)[0],
            "maximize": lambda: (
                maximize.maximize(
                    net,
                    net.layer_names[-1],
                    range(10),
                    Recipe(start=x, optimizer=Constant(works.RATE), steps=works.ITERATIONS),
                ).last
            ),
        }[work.kind]

    def _step(self, work, net, x, labels):
        ops, memory = net.ops, Workspace(net.ops)
        if work.kind == "infer":
            return lambda: walk.forward(net, x, work=memory).outputs[net.layer_names[-1]]
        adam = optim.Adam(works.LR)
        state, loss, steps = adam.init(ops, net.params), ops.zeros(1), [0]

        def step():
            steps[0] += 1
            _, grads = losses.loss_and_grads(net, x, labels, memory, loss=loss)
            optim.step(ops, adam, net.params, grads, state, steps[0])
            return loss

        return step

    def numpy(self, result):
        return result.get() if self.backend == "gpu" and not isinstance(result, np.ndarray) else np.array(result)

    def time(self, run, repeats):
        if self.backend == "gpu":
            event = self.cupy.cuda.Event
            return event_time(event, self.cupy.cuda.get_elapsed_time, run, repeats)
        return super().time(run, repeats)

    def device_memory(self):
        """What the pool took from the device: it keeps what is freed, so this is the peak."""
        return self.cupy.get_default_memory_pool().total_bytes()

    def free_device_memory(self):
        if self.device:
            self.cupy.get_default_memory_pool().free_all_blocks()

    def peak(self):
        """GFLOP/s of a large float32 matrix product: the best of five."""
        xp, n = (self.cupy, 8192) if self.backend == "gpu" else (np, 2048)
        a = xp.ones((n, n), np.float32)
        return 2 * n**3 / min(self.time(lambda: a @ a, 1) for _ in range(5)) / 1e6
