"""Who may import whom (docs of the architecture), and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("tinycnn/**/*.py"), *ROOT.glob("viz/**/*.py"), ROOT / "run_all.py"])
OPTIONAL = {"cupy", "torch", "tensorflow", "jax", "captum", "dask", "distributed"}
BACKENDS = {"reference", "cpu", "gpu", "kernels", "winograd", "thin", "sparse", "block", "exact", "parallel", "matmul",
            "simd"}  # fmt: skip


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


# What each part of `tinycnn` may import of it when it is imported itself; "ops" is the room of the backends.
ENGINE = {
    "errors": set(),
    "files": {"errors"},
    "progress": set(),
    "ops": {"errors"},
    "streams": {"errors"},
    "layers": {"errors", "ops.geometry"},
    "rules": {"errors"},
    "optim": {"errors", "layers"},
    "walk": {"errors", "layers", "ops.geometry"},
    "losses": {"rules", "walk"},
    "network": {"errors", "files", "layers", "ops", "rules", "streams", "walk"},
    "checkpoint": {"errors", "files", "layers", "network"},
    "models": {"errors", "layers", "network"},
    "data": {"errors", "files", "progress"},
    "train": {"checkpoint", "errors", "losses", "network", "ops.workspace", "optim", "progress", "streams"},
    "gradcheck": {"errors", "layers", "rules", "streams"},
}
# The rooms of `viz`, from the ground up: each may import its own floor and those below.
FLOORS = (
    {"check"},
    {"activations", "deconvnet", "saliency", "attribution", "ascent", "space"},
    {"metrics"},
    {"figures"},
    {"report", "explorer"},
    {"study"},
)
PUBLIC = {"errors", "files", "layers", "progress", "rules", "streams", "models", "optim", "train", "data"}
NAMES = {"InputError", "Network", "get_ops"}


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_architecture(path):
    parts, found = path.relative_to(ROOT).with_suffix("").parts, project_imports(path)
    lazy = {"cupy"} if path.name == "gpu.py" else set()  # itself imported by get_ops alone, once it is asked for
    assert not {n for n, now in imports(path) if now and n.split(".")[0] in OPTIONAL - lazy}
    if parts[1:2] != ("ops",):
        named = {n for n in found if n.startswith("tinycnn.ops.") and n.split(".")[2] in BACKENDS}
        assert not named, f"only get_ops names a backend: {named}"
    if parts[0] == "tinycnn" and parts[1] != "__init__":
        assert not {n for n in found if n.startswith(("viz", "run_all"))}
        now = {n.removeprefix("tinycnn.") for n, now in imports(path) if now and n.startswith("tinycnn.")}
        allowed = {parts[1], *ENGINE[parts[1]]}
        assert not {n for n in now if not any(n == a or n.startswith(a + ".") for a in allowed)}
    if parts[0] == "viz":
        for name in (n.split(".") for n in found):
            if name[0] == "tinycnn" and len(name) > 1:
                assert name[1] in PUBLIC | NAMES, name
            elif name[0] == "viz" and len(name) > 1 and len(parts) > 2 - (parts[1] != "__init__"):
                room = importlib.import_module("viz").ROOMS.get(name[1], f"viz.{name[1]}").split(".")[1]
                assert room == "ROOMS" or floor(room) <= floor(parts[1]), name


def test_no_module_imports_itself_by_way_of_others():
    """Not even inside functions, but for `Network.save` and `load`, which know the files that hold networks."""
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = project_imports(path) - {"viz", "tinycnn"}
    graph["tinycnn.network"] -= {"tinycnn.checkpoint"}
    while leaves := [n for n, to in graph.items() if not any(t in graph for t in to)]:
        for n in leaves:
            del graph[n]
    assert not graph


def test_import_is_light():
    """Neither numba nor anything heavy is loaded before it is needed."""
    code = "import sys, tinycnn; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"numba", "sklearn", "matplotlib", "scipy", "pooch", *OPTIONAL}, loaded


def test_viz_hands_its_modules_on_and_looking_does_not_load_what_draws():
    code = (
        "import sys, viz; from viz import saliency, maximize, neighbors, statistics; assert viz.deconvnet.project; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"matplotlib", "jinja2", "PIL", *OPTIONAL}
    viz = importlib.import_module("viz")
    assert set(viz.ROOMS) == set(viz.__all__) and all(getattr(viz, name) for name in viz.ROOMS)
    with pytest.raises(AttributeError, match="no attribute 'maximise'"):
        viz.maximise  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_definition_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert path.name == "__init__.py" or ast.get_docstring(tree), "the module"
    if path.parts[-2] == "ops" and path.name in ("cpu.py", "gpu.py", "kernels.py", "winograd.py"):
        return  # the contract's words stand in reference.py
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
