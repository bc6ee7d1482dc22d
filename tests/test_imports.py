"""Who may import whom (docs of the architecture), and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("tinycnn/**/*.py"), *ROOT.glob("viz/**/*.py"), ROOT / "run_all.py"])
OPTIONAL = {"cupy", "torch", "tensorflow", "jax", "captum"}
BACKENDS = {"reference", "cpu", "gpu", "kernels", "winograd", "thin", "sparse", "parallel", "matmul", "simd"}


def imports(path):
    """Every imported module of a file, in full, and whether it is imported when the file is."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text())
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = base + (node.module or "")
            for alias in node.names:
                yield f"{module}.{alias.name}".replace("..", "."), id(node) not in lazy


def project_imports(path):
    return {name for name, _ in imports(path) if name.split(".")[0] in ("tinycnn", "viz", "run_all")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_architecture(path):
    parts, found = path.relative_to(ROOT).parts, project_imports(path)
    lazy = {"cupy"} if path.name == "gpu.py" else set()  # itself imported by get_ops alone, once it is asked for
    assert not {n for n, now in imports(path) if now and n.split(".")[0] in OPTIONAL - lazy}
    if parts[0] == "tinycnn":
        assert not {n for n in found if n.startswith(("viz", "run_all"))}
        if parts[1] == "ops" and parts[2] != "__init__.py":
            assert all(n.startswith("tinycnn.ops") for n in found), found
        if parts[1] in ("layers.py", "rules.py", "losses.py", "optim.py", "streams.py"):
            assert all(n.startswith(("tinycnn.errors", "tinycnn.ops.geometry")) or "geometry" in n for n in found), (
                found
            )
    if parts[1:2] != ("ops",):
        named = {n for n in found if n.startswith("tinycnn.ops.") and n.split(".")[2] in BACKENDS}
        assert not named, f"only get_ops names a backend: {named}"


def test_import_is_light():
    """Neither numba nor anything heavy is loaded before it is needed."""
    code = "import sys, tinycnn; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"numba", "sklearn", "matplotlib", "scipy", "pooch", *OPTIONAL}, loaded


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_definition_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert path.name == "__init__.py" or ast.get_docstring(tree), "the module"
    if path.parts[-2] == "ops" and path.name in ("cpu.py", "gpu.py", "kernels.py", "winograd.py"):
        return  # the contract's words stand in reference.py
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
