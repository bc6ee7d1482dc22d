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
from tinycnn.ops.parallel import inner
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
            "rectify": rectify, "slack": slack and np.full(400, slack, np.float32), "slack0": 2, "y": array(), "y0": 4,
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
            yield loop, pool(size, True, ties, None)
            yield loop, pool(size, False, ties, None, down=400 if size == 3 else 0, right=40)
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


@pytest.mark.parametrize("length", [1, 3, 7, 15])
def test_rows_shorter_than_a_vector_come_out_right_one_after_another(length):
    """What goes beyond a row is overwritten by the next; behind the last, not more than a vector."""
    loop, x, y = simd.rowwise(winograd._six, 6), array(), array()
    before = y.copy()
    numba.njit(lambda x, y: loop(x, 3, 71, y, 5, length, length))(x, y)
    expected = np.concatenate(winograd._six(*(x[3 + 71 * i :][:length] for i in range(6))))
    np.testing.assert_allclose(y[5 : 5 + 6 * length], expected, rtol=1e-5, atol=1e-5)
    assert (y[:5] == before[:5]).all() and (y[5 + 5 * length + LANES :] == before[5 + 5 * length + LANES :]).all()


def test_a_part_of_kernels_is_compiled_once_whatever_constants_it_is_called_with():
    """Numba takes a constant for a type of its own: compiling took twice as long."""

    @inner
    def add(a, b, some=True):
        return a + b if some else a

    assert numba.njit(lambda i: (add(i, 1), add(i, 2), add(4, i), add(i, i, some=False)))(3) == (4, 5, 7, 3)
    assert len(add.signatures) == 2  # `some` left out, and given


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


# -- what is not finite, or outshines its image ----------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=60, deadline=None)
@given(case=BLOCKS, odd=st.sampled_from([np.nan, np.inf, -np.inf, 1e4, -1e18, 1e36]), bias=st.sampled_from([0.0, 1.0]))
def test_odd_pixels_reach_as_far_as_their_windows(exact, case, odd, bias):
    """NaN and infinite where the reference is; what does not see a bright pixel knows nothing of it."""
    block, rng, x, w = block_of(case)
    block = block._replace(window=(1, 1), pool_stride=(1, 1))
    x, w = x + rng.random(x.shape, np.float32), (w + rng.random(w.shape, np.float32)) / w[..., 0].size
    at = (0, case["H"] // 2, case["W"] // 2, rng.integers(case["C"]))
    usual = EXACT.conv2d(x.astype(float), w.astype(float), np.full(case["K"], bias))
    x[at] = odd
    b = np.full(case["K"], bias, np.float32)
    with np.errstate(all="ignore"):
        (y, _), (expected, _) = (ops.conv_relu_pool(x, w, b, block, Workspace(ops), exact) for ops in (CPU, REFERENCE))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(expected))
    seen, far = case["k"] // 2, np.ones(y.shape[1:3], bool)
    far[max(0, at[1] - seen) : at[1] + seen + 1, max(0, at[2] - seen) : at[2] + seen + 1] = False
    assert np.abs(y[0] - np.maximum(usual[0], 0))[far].max(initial=0) < 1e-4 * np.abs(usual).max()
    assert np.abs(y[1] - np.maximum(usual[1], 0)).max() < 1e-5 * np.abs(usual).max()


@settings(max_examples=60, deadline=None)
@given(case=BLOCKS, odd=st.sampled_from([np.nan, np.inf, -np.inf, 1e36]), mask=st.booleans(), rectify=st.booleans())
def test_on_the_way_back_too(case, odd, mask, rectify):
    block, rng, x, w = block_of(case)
    w += rng.random(w.shape, np.float32)
    y, places = REFERENCE.conv_relu_pool(x, w, np.ones(case["K"], np.float32), block, Workspace(REFERENCE))
    dy = rng.random(y.shape, np.float32)
    at = (0, y.shape[1] // 2, y.shape[2] // 2, rng.integers(case["K"]))
    dy[at], y[at] = odd, 1
    found = []
    with np.errstate(all="ignore"):
        for ops in (CPU, REFERENCE):
            args = (block, mask, rectify, Workspace(ops))
            found.append(ops.conv_relu_pool_backward_data(w, y, places, dy, x.shape, *args))
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(found[1]))
    np.testing.assert_array_equal(np.isinf(found[0]), np.isinf(found[1]))
    finite = np.isfinite(found[1]) & (abs(found[1]) < 1e6)
    np.testing.assert_allclose(found[0][finite], found[1][finite], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("ops", [CPU, REFERENCE], ids=["cpu", "reference"])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_the_first_nan_of_a_window_wins(ops, window):
    x = np.random.default_rng(0).standard_normal((3, 9, 9, 5)).astype(np.float32)
    x[0, 4, 4], x[1, :, 3], x[2] = np.nan, np.nan, np.inf
    x[2, ::3, ::2] = np.nan
    y, places = ops.maxpool2d(x, (window, window), (2, 2))
    _, _, top, left = windows((9, 9), (window, window), (2, 2), "SAME")
    for n, r, c, k in np.ndindex(y.shape):
        values = [(i * window + j, x[n, 2 * r - top + i, 2 * c - left + j, k]) for i, j in np.ndindex(window, window)
                  if 0 <= 2 * r - top + i < 9 and 0 <= 2 * c - left + j < 9]  # fmt: skip
        odd = [place for place, value in values if np.isnan(value)]
        assert places[n, r, c, k] == (odd[0] if odd else max(values, key=lambda v: (v[1], -v[0]))[0])
        assert np.isnan(y[n, r, c, k]) == bool(odd)


def test_gradients_of_weights_that_would_overflow_on_the_way_are_those_of_plain_sums():
    rng, block = np.random.default_rng(0), Block((1, 1), "SAME", (2, 2), (2, 2), "SAME")
    x, w = np.float32(1e36) * rng.random((2, 12, 12, 16), np.float32), rng.random((3, 3, 16, 16), np.float32) * 1e-30
    y, places = REFERENCE.conv_relu_pool(x, w, np.zeros(16, np.float32), block, Workspace(REFERENCE))
    dy = rng.random(y.shape, np.float32)
    assert CPU.algorithms(x.shape, w.shape, block).weights == "Winograd"
    args = (x, w, y, places, dy, block)
    found = [ops.conv_relu_pool_backward_weights(*args, Workspace(ops)) for ops in (CPU, REFERENCE)]
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
