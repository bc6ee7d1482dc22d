"""Where the program runs: without a place for compiled code, with odd settings, on another Numba than today's."""

import ast
import configparser
import inspect
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite
import llvmlite.ir as ir
import numba
import numpy as np
import pytest
import test_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import caching, cgutils
from numba.core.errors import TypingError
from numba.core.registry import cpu_target

from tinycnn import InputError, get_ops, ops
from tinycnn.ops import matmul, simd, sparse

ROOT = Path(__file__).resolve().parent.parent
ANSWER = """if True:
    import sys
    import numpy as np
    from tinycnn import Network
    from tinycnn.layers import Dense, Flatten
    net = Network([Flatten("f"), Dense("d", 2)], (3, 3, 1), backend="cpu", seed=1)
    print(net.logits(np.ones((2, 3, 3, 1), "f")).tolist())
    from tinycnn.ops.parallel import _Cache
    modules = [vars(m) for name, m in sys.modules.items() if name.startswith("tinycnn.ops.")]
    kernels = {f for names in modules for f in names.values() if isinstance(getattr(f, "_cache", None), _Cache)}
    print(sum(sum(f.stats.cache_misses.values()) for f in kernels), sum(len(f.overloads) for f in kernels))
"""


def answer(cache, before=None, **env):
    """(lines of stdout, lines of stderr) of a process of its own that compiles; `before` runs in it first."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(cache), **env}
    argv = [sys.executable, "-B", "-c", ANSWER]
    run = subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, preexec_fn=before, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines(), run.stderr.splitlines()


# -- nowhere to cache ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(folder in which compiled code is kept, what the process that compiled it said)."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, answer(folder)


def test_compiled_code_is_kept_and_taken_without_a_word(kept):
    folder, ((logits, counted), said) = kept
    misses, compiled = map(int, counted.split())
    assert misses == compiled > 0 and not said
    (again, counted), said = answer(folder)
    misses, taken = map(int, counted.split())
    assert again == logits and misses == 0 < taken and not said


def complains(result, kept, why):
    """Whether a process answers as one with a cache does, and says once why it has none."""
    (logits, _), (said,) = result
    assert logits == kept[1][0][0]
    assert said.startswith("tinycnn: compiled code cannot be kept on disk") and "NUMBA_CACHE_DIR" in said
    assert why in said


def test_a_disk_without_room(kept, tmp_path):
    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    complains(answer(tmp_path, small), kept, "File too large")


def test_no_folder_that_can_be_written_to(kept, tmp_path):
    """A file lies where the package's, the user's and the named one would be, which stops root too."""
    shutil.copytree(ROOT / "tinycnn", tmp_path / "tinycnn", ignore=shutil.ignore_patterns("__pycache__"))
    for place in ("tinycnn/ops/__pycache__", "file"):
        (tmp_path / place).touch()
    where = {name: str(tmp_path / "file") for name in ("HOME", "XDG_CACHE_HOME")}
    result = answer(tmp_path / "file" / "cache", PYTHONPATH=str(tmp_path), **where)
    complains(result, kept, "no locator available")


def test_a_torn_file_of_the_cache(kept, tmp_path):
    for path in shutil.copytree(kept[0], tmp_path / "cache").rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:-40])
    complains(answer(tmp_path / "cache"), kept, "")


def test_a_cache_of_someone_else(kept, tmp_path):
    """What lies there cannot be opened: folders in place of the files do as well for root."""
    for path in shutil.copytree(kept[0], tmp_path / "cache").rglob("*.nbi"):
        path.unlink()
        path.mkdir()
    complains(answer(tmp_path / "cache"), kept, "Is a directory")


# -- the number of threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "many", "", "2.5", "9" * 5000])
def test_a_number_of_threads_that_is_none_is_one_line(monkeypatch, text):
    monkeypatch.setenv("NUMBA_NUM_THREADS", text)
    ops._make.cache_clear()
    with pytest.raises(InputError, match="NUMBA_NUM_THREADS: expected a whole number of at least 1") as e:
        get_ops("cpu")
    assert len(str(e.value)) < 300
    assert get_ops("reference").name == "reference"  # which has no threads


def test_the_command_refuses_it_too(tmp_path):
    run = subprocess.run(
        [sys.executable, ROOT / "run_all.py", "--steps", "1", "--backend", "cpu", "--out", tmp_path / "out"],
        env={**os.environ, "NUMBA_NUM_THREADS": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "NUMBA_NUM_THREADS" in run.stderr


# -- what Numba does not promise -------------------------------------------------------------------------------------

PRIVATE = {  # names that tinycnn/ops takes of Numba and that no documentation promises, by where they stand
    "numba.core": {"cgutils"},
    "numba.core.caching": {"FunctionCache", "IndexDataCacheFile"},
    "numba.core.errors": {"TypingError"},
    "cgutils": {"alloca_once_value", "for_range", "for_range_slice"},
    "context": {"get_dummy_value", "get_value_type", "make_array"},
    "_Cache": {"_index_key", "load_overload", "save_overload"},  # the methods that it overrides
    "self": {"_cache_file", "_cache_path", "_impl"},
    "_impl": {"filename_base"},
    "codegen": {"magic_tuple"},
    "compiled": {"_cache", "get_call_template"},
}


def test_the_private_names_of_numba_are_these():
    """Read from the source of the package, so that a new one has to be entered above."""
    found = {owner: set() for owner in PRIVATE}
    for path in sorted((ROOT / "tinycnn").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numba.") and "core" in node.module:
                found.setdefault(node.module, set()).update(alias.name for alias in node.names)
            if isinstance(node, ast.ClassDef) and node.name == "_Cache":
                found["_Cache"] |= {f.name for f in node.body if isinstance(f, ast.FunctionDef)} - {"__init__"}
            if path.name in ("parallel.py", "simd.py", "sparse.py") and isinstance(node, ast.Attribute):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if owner in found and not (owner == "self" and path.name != "parallel.py"):
                    found[owner].add(node.attr)
    assert found == PRIVATE


def test_this_numba_has_every_private_name_that_is_used():
    """`pack` is any kernel of ours: what Numba made of it must have what we read of it."""
    cache, context = matmul.pack._cache, cpu_target.target_context
    codegen = context.codegen()
    places = {"numba.core": numba.core, "numba.core.caching": caching, "numba.core.errors": numba.core.errors,
              "cgutils": cgutils, "context": context, "_Cache": caching.FunctionCache, "self": cache,
              "_impl": cache._impl, "codegen": codegen, "compiled": numba.njit(lambda: 0)}  # fmt: skip
    missing = [f"{owner}.{name}" for owner, names in PRIVATE.items() for name in names
               if not hasattr(places[owner], name)]  # fmt: skip
    assert not missing, f"Numba {numba.__version__} no longer has {missing}: see where tinycnn/ops uses them"


def test_typed_pointers_are_still_there_and_still_needed():
    """The code for llvmlite 0.42, `gep` and `load` without types, is not that for a llvmlite without typed pointers."""
    builder = ir.IRBuilder(ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "f").append_basic_block())
    array = builder.alloca(ir.FloatType(), 4)
    what = f"llvmlite {llvmlite.__version__} has no typed pointers: give each gep of simd.py and sparse.py its "
    try:
        loaded = builder.load(builder.gep(builder.bitcast(array, ir.FloatType().as_pointer()), [ir.IntType(64)(1)]))
    except (AttributeError, TypeError, ValueError) as e:
        pytest.fail(f"{what}source_etype=, each load its typ=, and let setup.cfg ask for numba>=0.61 ({e})")
    assert loaded.type == ir.FloatType()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (lowest,) = (line[7:] for line in setup["options"]["install_requires"].split() if line.startswith("numba>="))
    assert int(lowest.split(".")[1]) < 61, "every llvmlite from here on knows source_etype= and typ=: use them"


@pytest.mark.slow
def test_the_loops_are_right_with_what_llvmlite_will_do_next():
    """The switch by which its IR no longer writes the types of pointers, which is to be its default."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/test_kernels.py", "-k", "hand_made"], cwd=ROOT,
        env={**os.environ, "LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-3000:] + run.stderr[-3000:]


# -- the hand-made loops: what they refuse, and that they stay where they belong -------------------------------------

LOOPS = dict(test_kernels.cases()).items()
each_loop = pytest.mark.parametrize("loop, arguments", LOOPS, ids=[loop.__name__ for loop, _ in LOOPS])


def names_of(loop):
    return [*inspect.signature(loop._defn).parameters][1:]


def compiled(loop):
    """The loop as a function that Python can call."""
    scope, names = {"loop": loop}, ", ".join(names_of(loop))
    exec(f"def call({names}):\n    return loop({names})", scope)
    return numba.njit(scope["call"])


@each_loop
def test_a_loop_refuses_arrays_that_differ_in_dtype_or_are_not_contiguous(loop, arguments):
    call, names = compiled(loop), names_of(loop)
    arrays = [name for name in names if isinstance(arguments[name], np.ndarray)]
    reals = [name for name in arrays if arguments[name].dtype == np.float32]
    bad = [(name, arguments[name].astype(dtype)) for name in arrays for dtype in ("f2", "f8", "u4", "c8", "i2")]
    bad += [(name, arguments[name][::2]) for name in arrays]
    for name, array in bad:
        with pytest.raises(TypingError, match="must be a contiguous array of"):
            call(*({**arguments, name: array}[n] for n in names))
    integers = {name: arguments[name].astype("i4") for name in reals}
    with pytest.raises(TypingError, match="float32 or float64"):
        call(*({**arguments, **integers}[n] for n in names))


SIZES = st.fixed_dictionaries({  # each loop takes those that it has
    "length": st.integers(0, 70), "inner": st.integers(0, 40), "count": st.integers(0, 20), "rows": st.integers(0, 5),
    "at": st.integers(0, 9), "x0": st.integers(0, 9), "y0": st.integers(0, 9), "a0": st.integers(0, 9),
    "c0": st.integers(0, 9), "o": st.integers(0, 9), "first": st.integers(0, 9), "onto": st.booleans(),
    "rectify": st.booleans(), "down": st.sampled_from([0, 400, 10**6]), "right": st.sampled_from([0, 40, 10**6]),
})  # fmt: skip


@each_loop
def test_a_loop_of_any_size_writes_what_its_numpy_writes_and_nothing_else(loop, arguments):
    """None at all, less than a vector, a rest after whole ones: all of every array is compared."""
    call, names = compiled(loop), names_of(loop)
    code = [line[4:] for line in inspect.getdoc(loop).splitlines() if line.startswith((">>> ", "... "))]
    code = compile("\n".join(code), loop.__name__, "exec")
    free = {name for name in names if not isinstance(arguments[name], np.ndarray)}

    @settings(max_examples=25, deadline=None)
    @given(SIZES)
    def holds(sizes):
        sizes = {name: size for name, size in sizes.items() if name in free}
        if loop is simd.add_window:
            sizes["length"] = simd.round_up(min(sizes["length"], 64))
        if loop.__name__ in ("pool", "kernel"):  # these take a vector at least
            sizes["length"] = max(sizes["length"], simd.LANES)
        ours, plain = ({k: v.copy() if isinstance(v, np.ndarray) else v for k, v in (arguments | sizes).items()}
                       for _ in range(2))  # fmt: skip
        scope = {**plain, "np": np, "LANES": simd.LANES, "VECTORS": sparse.VECTORS}
        exec(code, scope)
        found = call(*(ours[name] for name in names))
        for name, a in plain.items():
            if isinstance(a, np.ndarray):
                np.testing.assert_allclose(ours[name], a, rtol=1e-5, atol=1e-5, err_msg=name)
        assert found is None or found == scope["result"]

    holds()
