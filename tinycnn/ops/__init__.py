"""The primitives: one contract (documented in reference.py), several implementations.

`get_ops` is the only place that names a backend; everything above gets its answer as an argument.
"""

import functools
import importlib
import os

from ..errors import InputError, choose, shown

BACKENDS = {  # modules of this package, imported when one is asked for
    "reference": ".reference",  # plain NumPy, written to be read; slow
    "cpu": ".cpu",  # Numba kernels
    "gpu": ".gpu",  # CuPy on an NVIDIA GPU
}


def available():
    """Return the names of the backends that can compute on this machine, the fastest last."""
    return tuple(name for name in BACKENDS if name != "gpu" or not why_no_gpu())


def why_no_gpu():
    """Return why the backend "gpu" cannot compute here and what to do, in one line; "" if it can."""
    try:
        import cupy

        runtime = cupy.cuda.runtime
    except ModuleNotFoundError:
        return "CuPy is not installed: pip install tinycnn[gpu-cuda12] or tinycnn[gpu-cuda13], as the driver allows"
    except ImportError as e:
        return f"CuPy cannot be imported ({_line(e)}): install the cupy-cuda12x or cupy-cuda13x that fits the driver"
    try:
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if 0 < driver < needed // 1000 * 1000:
            return (
                f"the driver knows CUDA {_version(driver)}, the installed CuPy needs CUDA {needed // 1000}: update the "
                f"driver, or install cupy-cuda{driver // 1000}x"
            )
        if runtime.getDeviceCount() < 1:
            return "CuPy is installed, but there is no CUDA device"
    except runtime.CUDARuntimeError as e:
        return f"CuPy finds no usable CUDA device ({_line(e)}): check the driver with nvidia-smi"
    return ""


def _version(number):
    return f"{number // 1000}.{number % 1000 // 10}"


def _line(error):
    return " ".join(str(error).split())


def get_ops(name="auto", dtype="float32"):
    """Return the primitives of one backend.

    Parameters
    ----------
    name : "auto", "reference", "cpu" or "gpu"
        "auto" takes the fastest that is available.
    dtype : "float32" or "float64"

    Returns an object with the methods of `tinycnn.ops.reference.Ops`; raises InputError for an unknown backend or
    dtype, a backend that cannot run here, or a NUMBA_NUM_THREADS that is no whole number of at least 1.
    """
    choose(name, ("auto", *BACKENDS), "backend")
    choose(str(dtype), ("float32", "float64"), "dtype")
    if name == "gpu" and (reason := why_no_gpu()):
        raise InputError(f"backend 'gpu': {reason}; or choose one of: {', '.join(available())}")
    return _make(available()[-1] if name == "auto" else name, str(dtype))


def _check_threads():
    """Raise for a NUMBA_NUM_THREADS that Numba, which reads it when it is imported, would answer with a traceback."""
    text = os.environ.get("NUMBA_NUM_THREADS", "1")
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(
            f"environment variable NUMBA_NUM_THREADS: expected a whole number of at least 1, got {shown(text)}; unset "
            "it to use all cores"
        )


@functools.cache
def _make(name, dtype):
    if name == "cpu":
        _check_threads()
    return importlib.import_module(BACKENDS[name], __name__).Ops(dtype)
