"""The primitives: one contract (documented in reference.py), several implementations.

`get_ops` is the only place that names a backend; everything above gets its answer as an argument.
"""

import functools
import importlib

from ..errors import InputError, choose

BACKENDS = {
    "reference": "plain NumPy, written to be read; slow",
    "cpu": "Numba kernels and BLAS",
}


def available():
    """Return the names of the backends that can compute on this machine, the fastest last."""
    return tuple(BACKENDS)


@functools.cache
def get_ops(name="auto", dtype="float32"):
    """Return the primitives of one backend.

    Parameters
    ----------
    name : "auto", "reference" or "cpu"
        "auto" takes the fastest that is available.
    dtype : "float32" or "float64"

    Returns
    -------
    Ops
        An object with the methods of `tinycnn.ops.reference.Ops`.

    Raises
    ------
    InputError
        Unknown backend or dtype, or a backend that cannot run here.
    """
    if name == "gpu":
        raise InputError("backend 'gpu' is not part of this version; choose one of: auto, " + ", ".join(BACKENDS))
    choose(name, ("auto", *BACKENDS), "backend")
    choose(str(dtype), ("float32", "float64"), "dtype")
    name = available()[-1] if name == "auto" else name
    return importlib.import_module("." + name, __name__).Ops(dtype)
