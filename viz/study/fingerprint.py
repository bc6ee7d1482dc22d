"""What a stage depends on: a hash of what it was made from, and one of the code that made it.

The code is that of the stage's module and of everything it imports of this project, found by following the imports in
the sources, those inside functions too, and not by importing. A string ``".cpu"`` counts as the import of that module
of the package, one that names a file beside the module (``"kernels.cu"``) as the import of that file.
"""

import ast
import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np

import viz

PROJECT = ("tinycnn", "viz")


def of_arrays(arrays):
    """Return a SHA-256 (hex) of arrays, of any size, and their shapes and dtypes."""
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(f"{a.shape}{a.dtype}".encode())
        for i in range(0, len(a), 1000):
            digest.update(np.ascontiguousarray(a[i : i + 1000]))
    return digest.hexdigest()


def of_network(net):
    """Return a SHA-256 (hex) of a network's layers and parameters."""
    digest = hashlib.sha256(repr(net.layers).encode())
    for layer, params in sorted(net.params.items()):
        for name, a in sorted(params.items()):
            digest.update(f"{layer}.{name}{a.shape}{a.dtype}".encode())
            digest.update(np.ascontiguousarray(net.ops.to_numpy(a)))
    return digest.hexdigest()


def of_code(module):
    """Return a SHA-256 (hex) of a module's source and of all project files that it imports."""
    digest = hashlib.sha256()
    for path in sources(module):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def sources(module):
    """Return the files of `module` and of all project modules that it imports, directly or not, in order of path."""
    waiting, seen, found = [module], set(), set()
    while waiting:
        name = waiting.pop()
        path = None if name in seen else _find(name)
        seen.add(name)
        if path is not None:
            imported, beside = _reads(path, name if path.name == "__init__.py" else name.rpartition(".")[0])
            found |= {path, *beside}
            waiting += [*imported, name.rpartition(".")[0]]  # a package is imported before its modules
    return tuple(sorted(found))


def _find(name):
    """The file of a module, or None if there is none of that name (it is a function, say); nothing is imported."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if parts:
        path = path.parent.joinpath(*parts)
        path = path / "__init__.py" if path.is_dir() else path.with_name(path.name + ".py")
    return path if path.is_file() else None


@cache
def _reads(path, package):
    """The project's modules that a file of `package` may import, and the files beside it that it names."""
    names, beside = [], set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [package.rsplit(".", node.level - 1)[0]] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"\.\w+", node.value):  # for import_module
                names.append(package + node.value)
            elif re.fullmatch(r"\w+\.\w+", node.value) and (path.parent / node.value).is_file():
                beside.add(path.parent / node.value)
    handed_on = {f"viz.{name}": room for name, room in viz.ROOMS.items()}
    return [handed_on.get(name, name) for name in names if name.split(".")[0] in PROJECT], beside
