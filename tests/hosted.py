"""The backends that the tests run on, and a device's primitives for tests that are written with NumPy arrays.

The backend "gpu" runs on a real device if there is one, else on the emulator (see emulation/), else its tests skip.
TINYCNN_EMULATION=source, asan or ptx asks for the emulator, in that mode, on a machine with a device too.
"""

import contextlib
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from emulation import fakecupy, host

import tinycnn

CUPY = importlib.util.find_spec("cupy")  # the real one, asked for before the emulator takes its name


def _find_device():
    """("device" or "emulated" or "", why there is none)."""
    if "TINYCNN_EMULATION" not in os.environ and CUPY:  # in another process: here its modules would stay
        code = "import sys, cupy; sys.exit(not cupy.cuda.is_available())"
        if subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0:
            return "device", ""
    if host.COMPILER is None:
        return "", "neither a CUDA device (with CuPy) nor g++, to emulate one, is here"
    fakecupy.install()
    return "emulated", ""


DEVICE, MISSING = _find_device()
GPU = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE, reason=MISSING)]
NAMES = [*(n for n in tinycnn.ops.BACKENDS if n != "gpu"), pytest.param("gpu", marks=GPU)]
BACKENDS = [pytest.param((b, d), marks=GPU if b == "gpu" else ())
            for b in tinycnn.ops.BACKENDS for d in ("float32", "float64")]  # fmt: skip


@contextlib.contextmanager
def visible_device(visible):
    """Let the device be there, or not: tests that do not ask for it never get it by "auto"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fakecupy.emulator, "devices", int(visible and DEVICE == "emulated"))
        if DEVICE == "device" and not visible:
            patch.setattr(tinycnn.ops, "why_no_gpu", lambda: "hidden from this test")
        yield


def get_ops(name, dtype):
    """The primitives of a backend, taking and returning NumPy arrays."""
    ops = tinycnn.get_ops(name, dtype)
    return Hosted(ops) if name == "gpu" else ops


class Hosted:
    """A device's primitives, with NumPy arrays put on the device and back: their own dtypes, changes in place too."""

    TAKE_HOST_ARRAYS = ("asarray", "put", "from_images", "to_numpy")

    def __init__(self, ops):
        self._ops = ops

    def __getattr__(self, name):
        method = getattr(self._ops, name)
        return self._hosted(method, name in self.TAKE_HOST_ARRAYS) if callable(method) and name != "dtype" else method

    def _hosted(self, method, from_host):
        def call(*args, **kwargs):
            given = [*args, *kwargs.values()]
            sent = [self._ops.put(a) if isinstance(a, np.ndarray) and not from_host else a for a in given]
            result = method(*sent[: len(args)], **dict(zip(kwargs, sent[len(args) :])))
            for a, d in zip(given, sent):
                if d is not a and a.flags.writeable:
                    a[...] = d.get()
            return self._back(result)

        return call

    def _back(self, result):
        if isinstance(result, tuple):
            return tuple(map(self._back, result))
        return result.get() if hasattr(result, "get") else result
