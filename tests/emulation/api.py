"""Does the real cupy, which can be imported without a device, have what the backend uses?

    python -m tests.emulation.api [FILE ...]

Two questions: is every name that the backend's files write there, and does every function of the stand-in take its
arguments by the names and in the order of the real one? What the stand-in does not have, the backend cannot use.
"""

import ast
import functools
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import cupy

from . import fakecupy

OPS = Path(__file__).resolve().parents[2] / "tinycnn" / "ops"
FILES = OPS / "__init__.py", OPS / "gpu.py"


def written_names(path):
    """The dotted names below cupy that a file writes: {"cuda.runtime.getDeviceCount", ...}."""
    tree, known, found = ast.parse(path.read_text()), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {a.asname or a.name: "" for a in node.names if a.name == "cupy"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cupy":
            known |= {a.asname or a.name: f"{node.module}.{a.name}."[5:] for a in node.names}
    for node in ast.walk(tree):
        name, n = "", node
        while isinstance(n, ast.Attribute):
            name, n = f".{n.attr}{name}", n.value
        if name and isinstance(n, ast.Name) and n.id in known:
            found.add((known[n.id] + name[1:]).lstrip("."))
    return found


def parameters(function):
    """Names of a function's parameters, from its signature or the first line of a compiled function's docstring."""
    if isinstance(function, functools.partial):
        return function.args[1].split()  # a matrix product
    try:
        return [p for p in inspect.signature(function).parameters if p != "self"]
    except ValueError:
        return _names(re.search(r"\((.*?)\)", function.__doc__)[1])


def _names(text):
    """Parameters in Cython's notation: "int m, size_t alpha=0, *" -> ["m", "alpha"]."""
    return [p.split("=")[0].split()[-1].lstrip("*") for p in text.split(",") if p.strip() not in ("self", "*", "")]


def cublas():
    """{function: its parameters}, from the bytes of the extension module: importing it needs NVIDIA's library."""
    binary = Path(importlib.util.find_spec("cupy_backends.cuda.libs.cublas").origin).read_bytes()
    functions = re.findall(rb"(\w+)\((intptr_t handle[^)]*)\)", binary)
    constants = re.findall(rb"CUBLAS_\w+", binary)
    return {name.decode(): _names(text.decode()) for name, text in functions} | {c.decode(): None for c in constants}


def differences(fake, real, name="cupy"):
    """Lines that say where a namespace of the stand-in is not in the real one."""
    for key in getattr(fake, "__all__", None) or [k for k in vars(fake) if not k.startswith("_")]:
        ours, path = getattr(fake, key), f"{name}.{key}"
        if path == "cupy.cuda.cublas":
            theirs = cublas()
            for k, v in vars(ours).items():
                if not k.startswith("_") and (k not in theirs or (callable(v) and theirs[k] != parameters(v))):
                    yield f"{path}.{k}: the real one takes {theirs.get(k)}"
        elif not hasattr(real, key):
            yield f"{path} does not exist"
        elif isinstance(ours, ModuleType) or (inspect.isclass(ours) and not issubclass(ours, Exception)):
            yield from differences(ours, getattr(real, key), path)
        elif inspect.isfunction(ours) and parameters(ours) != parameters(getattr(real, key))[: len(parameters(ours))]:
            yield f"{path} takes {parameters(getattr(real, key))}, the stand-in {parameters(ours)}"


def problems(files):
    """Every difference, one line each."""
    for file in files:
        for name in sorted(written_names(file)):
            node = cupy
            for part in name.split("."):
                if name.startswith("cuda.cublas"):
                    break  # checked below
                if not hasattr(node, part):
                    yield f"{file.name} uses cupy.{name}, which does not exist"
                    break
                node = getattr(node, part)
    yield from differences(fakecupy, cupy)


if __name__ == "__main__":
    found = list(problems([Path(a) for a in sys.argv[1:]] or FILES))
    print(*found, f"cupy {cupy.__version__}: {len(found)} differences", sep="\n")
    sys.exit(bool(found))
