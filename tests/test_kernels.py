"""The CPU's hand-made loops against the NumPy in their docstrings; the switches of its fast blocks, adversarially."""

import inspect
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import get_ops
from tinycnn.ops import simd, sparse, winograd
from tinycnn.ops.geometry import Block, windows
from tinycnn.ops.simd import LANES
from tinycnn.ops.workspace import Workspace

rng = np.random.default_rng(0)


def array(size=4000):
    return rng.standard_normal(size).astype(np.float32)


def whole(size=400, high=40):
    return rng.integers(0, high, size).astype(np.int32)


PRODUCTS = {"a": array(), "a0": 3, "ai": 41, "ak": 1, "b": array(), "b0": 2, "bk": 48, "c": array(), "c0": 5, "ci": 33,
            "inner": 37, "onto": False}  # fmt: skip
DOTS = {"a": array(), "a0": 3, "ai": 41, "b": array(), "b0": 2, "bj": 43, "c": array(), "c0": 5, "ci": 33, "length": 37}
SUMS = {"out": array(), "o": 7, "rows": array(9000), "r": 5, "step": 20, "chosen": whole(), "first": 3, "apart": 101,
        "factors": array(), "f": 2, "places": whole(), "p": 1, "count": 23}  # fmt: skip
FORMULA = {"x": array(), "x0": 3, "x_step": 71, "y": array(), "y0": 1, "y_step": 83, "length": 37}


def pool(size, rectify, ties, slack, down=10**6, right=10**6):
    x = np.round(2 * array()) / 2 if ties else array()
    return {"x": x, "x0": 9, "row": 400, "down": down, "pixel": 40, "right": right, "b": array(), "b0": 1,
            "rectify": rectify, "slack": np.full(400, slack, np.float32), "slack0": 2, "y": array(), "y0": 4,
            "switches": np.zeros(4000, np.uint8), "s0": 6, "length": 37, "size": size}  # fmt: skip


def cases():
    yield simd.add_window, {"image": array(), "at": 3, "width": 70, "window": array(), "w": 5, "rows": 4, "length": 32}
    for rows, loop in ((1, simd.products1), (4, simd.products4), (6, simd.products6)):
        for onto in (False, True):
            yield loop, {**PRODUCTS, "onto": onto, "rows": rows}
    yield simd.dots1, {**DOTS, "rows": 1, "columns": 1}
    yield simd.dots2, {**DOTS, "rows": 2, "columns": 4}
    yield sparse.sum_rows, {**SUMS, "onto": False}
    yield sparse.add_rows, {**SUMS, "onto": True}
    for size, loop in ((1, simd.pool1), (2, simd.pool2), (3, simd.pool3)):
        for ties in (False, True):
            yield loop, pool(size, True, ties, -1)
            yield loop, pool(size, False, ties, -1, down=400 if size == 3 else 0, right=40)
            yield loop, pool(size, True, ties, 1e-5)
    yield simd.rowwise(winograd._six, 6), {**FORMULA, "formula": winograd._six, "count": 6}


@pytest.mark.parametrize("loop, arguments", [pytest.param(*case, id=case[0].__name__) for case in cases()])
def test_a_hand_made_loop_is_the_numpy_of_its_docstring(loop, arguments):
    code = [line[4:] for line in inspect.getdoc(loop).splitlines() if line.startswith((">>> ", "... "))]
    plain = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    plain |= {"np": np, "LANES": LANES, "VECTORS": sparse.VECTORS}
    exec("\n".join(code), plain)
    names = [name for name in inspect.signature(loop._defn).parameters if name != "typingctx"]
    scope = {"loop": loop}
    exec(f"def call({', '.join(names)}):\n    return loop({', '.join(names)})", scope)
    ours = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in arguments.items()}
    found = numba.njit(scope["call"])(*(ours[name] for name in names))
    for name in names:
        if isinstance(ours[name], np.ndarray):
            np.testing.assert_allclose(ours[name], plain[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert found is None or found == plain["result"]


@pytest.mark.slow
def test_kernels_of_two_sizes_that_two_processes_compiled_serve_a_third(tmp_path):
    """Compiled code is found by name: one size must not run for the other. Each must have come from a file."""
    code = """if True:
        import sys, numpy as np, numba
        from tinycnn import Network, gradcheck, losses
        from tinycnn.layers import *
        from tinycnn.ops.workspace import Workspace
        for k in map(int, sys.argv[1:]):
            specs = [Conv2D("c", 32, k), ReLU("r"), MaxPool2D("p", 2, 2), Flatten("f"), Dense("d", 3)]
            net, plain = (Network(specs, (9, 8, 16), backend=b) for b in ("cpu", "reference"))
            x = np.random.default_rng(0).random((4, 9, 8, 16), np.float32)
            trace, expected, dy = net.forward(x, work=net.workspace()), plain.forward(x), np.ones((4, 3))
            assert gradcheck.relative_error(trace["d"], expected["d"]) < 1e-4
            assert gradcheck.relative_error(net.backward(trace, dy), plain.backward(expected, dy)) < 1e-4
            for layer, g in plain.param_grads(expected, dy).items():
                for name, a in net.param_grads(trace, dy)[layer].items():
                    assert gradcheck.relative_error(a, g[name]) < 1e-4
        from tinycnn.ops import winograd
        print(sum(sum(f.stats.cache_misses.values()) for k in (3, 5) for f in vars(winograd._kernels(k)).values()
                  if hasattr(f, "stats")))
    """
    for sizes in (["3"], ["5"], ["5", "3"]):
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        run = subprocess.run([sys.executable, "-c", code, *sizes], capture_output=True, text=True, env=env)
        assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "0"


# -- which output of a window is the first maximum -------------------------------------------------------------------

CPU, REFERENCE, EXACT = get_ops("cpu"), get_ops("reference"), get_ops("reference", "float64")
BLOCKS = st.fixed_dictionaries({
    "k": st.sampled_from([3, 5]), "C": st.sampled_from([1, 3, 6, 16]), "K": st.sampled_from([1, 5, 17]),
    "H": st.integers(3, 14), "W": st.integers(3, 14), "pool": st.integers(1, 4), "stride": st.integers(1, 3),
    "seed": st.integers(0, 2**32),
})  # fmt: skip


def block_of(case):
    """(Block, generator, x and w of so few whole numbers that many outputs tie)."""
    k, C, K, rng = case["k"], case["C"], case["K"], np.random.default_rng(case["seed"])
    x = rng.integers(0, 3, (2, case["H"], case["W"], C)).astype(np.float32)
    w = rng.integers(-1, 2, (k, k, C, K)).astype(np.float32)
    window = (min(case["pool"], case["H"], case["W"]),) * 2
    return Block((1, 1), "SAME", window, (case["stride"],) * 2, "SAME"), rng, x, w


def switches(ops, x, w, b, block):
    """Pooled maps and switches of a block, as pictures want them."""
    return ops.conv_relu_pool(x, w, b.astype(ops.dtype), block, Workspace(ops), True)


@settings(max_examples=60, deadline=None)
@given(case=BLOCKS, bias=st.sampled_from([0, -3, 1000, 2.0**22, 2.0**24]), black=st.booleans(), cancel=st.booleans(),
       scale=st.sampled_from([1.0, 2.0**-12, 2.0**12]))  # fmt: skip
def test_where_plain_sums_are_exact_the_switches_are_the_references(case, bias, black, cancel, scale):
    """Small whole numbers: any order gives the same sums, which the bias then rounds; also of cancelling channels."""
    block, rng, x, w = block_of(case)
    if black:
        x[:, : x.shape[1] // 2] = 0
    if cancel and case["C"] > 1:  # pairs of channels whose products cancel, thousands of times larger than the sum
        x[..., 1], w[:, :, 1] = x[..., 0] * 2**10, 1
        x[..., 0], w[:, :, 0] = x[..., 1], -1
    b = bias + rng.integers(-9, 10, case["K"])
    (y, ours), (expected, theirs) = (switches(ops, x * np.float32(scale), w, b, block) for ops in (CPU, REFERENCE))
    assert (ours == theirs).all()


@settings(max_examples=60, deadline=None)
@given(case=BLOCKS, bias=st.sampled_from([0.0, -1.0, 1000.0]), size=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]),
       cancel=st.booleans())  # fmt: skip
def test_elsewhere_a_switch_names_a_maximum_to_the_rounding_of_plain_sums(case, bias, size, cancel):
    """Near-ties (`size` is how far the images are from plain), cancelling channels, and a bias that rounds."""
    block, rng, x, w = block_of(case)
    x, w = (0.7 + size * rng.standard_normal(x.shape)).astype(np.float32), (w / 9).astype(np.float32)
    if cancel and case["C"] > 1:
        pairs = case["C"] // 2 * 2
        x[..., 1::2], w[:, :, 1::2] = x[..., 0:pairs:2], -w[:, :, 0:pairs:2]
        x[..., 1::2] += np.float32(1e-4) * rng.standard_normal(x[..., 1::2].shape).astype(np.float32)
    b = np.full(case["K"], bias)
    _, ours = switches(CPU, x, w, b, block)
    conv = EXACT.conv2d(x.astype(float), w.astype(float), b)
    terms = w[..., 0].size + 2
    error = terms * 2.0**-24 * EXACT.conv2d(abs(x.astype(float)), abs(w.astype(float)), abs(b))
    best, theirs = EXACT.maxpool2d(EXACT.relu(conv), *block[2:])
    named = take(conv, ours, block)
    largest_error = EXACT.maxpool2d(error, *block[2:])[0]
    assert (np.maximum(named, 0) >= best - 2 * largest_error).all()
    off = EXACT.maxpool2d(conv, *block[2:])[0] < -largest_error
    assert (ours[off] == theirs[off]).all()


def take(conv, switches, block):
    """The values (N, OH, OW, K) of conv that the switches name."""
    n, r, c, k = np.indices(switches.shape)
    i, j = np.divmod(switches.astype(int), block.window[1])
    _, _, top, left = windows(conv.shape[1:], *block[2:])
    return conv[n, r * block.pool_stride[0] - top + i, c * block.pool_stride[1] - left + j, k]
