"""The sides of a benchmark: ours, and each peer at its best. Each is imported in a process of its own (worker.py).

A side's module has a class Side, made with (name, backend, threads), with

    version                                       a line for the header
    formulations(kind)                            names of the ways it knows to do this kind of work; () if none
    prepare(work, how, net, x, labels)            a function without arguments that does the work once, the way `how`
    numpy(result)                                 what that function returned, as a NumPy array

The visualizations take and return NumPy arrays, as ours do; training and inference find their images in place. A train
function returns the loss before its step. `net` is a Network on the reference backend, from which weights are copied.
"""

import importlib.util
import time

# name: (module of this package, package it needs)
SIDES = {
    "ours": ("ours", "tinycnn"),
    "tensorflow": ("tensorflow_side", "tensorflow"),
    "torch": ("torch_side", "torch"),
    "torch-tf32": ("torch_side", "torch"),
    "torch-compile": ("torch_side", "torch"),
    "jax": ("jax_side", "jax"),
    "captum": ("attribution_side", "captum"),
    "zennit": ("attribution_side", "zennit"),
}
PEERS = {
    "cpu": ("tensorflow", "torch", "jax", "captum", "zennit"),
    "gpu": ("torch", "torch-tf32", "torch-compile", "jax"),
}
DEFAULT_PEERS = {"cpu": PEERS["cpu"], "gpu": ("torch", "torch-tf32")}  # compiling takes minutes: ask for it
SLACK = {"torch-tf32": 100}  # TF32 keeps 10 bits of each factor: its results may differ by so much more

# Ways to get the gradients of K channels of one layer: K ways back from one forward pass, all at once (a batched
# vector-Jacobian product), or one way back for K copies of the images.
WAYS = ("one vjp each", "batched vjp", "tiled")


def missing(name):
    """Return the package that a side lacks, or None."""
    package = SIDES[name][1]
    return None if importlib.util.find_spec(package) else package


class Side:
    """What all sides share on a CPU: no device, timing by the wall clock."""

    device = None  # its name, if this side computes on an accelerator; then it has device_memory(), the peak in bytes

    def free_device_memory(self):
        """Give back what is free of the accelerator's memory; its peak starts again."""

    def time(self, run, repeats):
        """Milliseconds of one of `repeats` calls."""
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return 1e3 * (time.perf_counter() - start) / repeats


def slices(images, channels, tile):
    """Slices of the images that, copied once per channel, are about `tile` images."""
    n = max(1, tile // channels)
    return [slice(i, min(i + n, images)) for i in range(0, images, n)]


def event_time(event, elapsed, run, repeats):
    """Milliseconds of one of `repeats` calls between two CUDA events; `elapsed(start, end)` waits for the second."""
    start, end = event(), event()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return elapsed(start, end) / repeats
