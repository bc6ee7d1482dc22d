"""The backend "gpu" beyond its primitives: errors, chunks, transfers, training, files, and the main job."""

import builtins
import json
import sys
from dataclasses import replace

import hosted
import numpy as np
import pytest
from emulation import fakecupy
from hypothesis import given, settings
from hypothesis import strategies as st

import run_all
import tinycnn
from tinycnn import InputError, Network, get_ops, losses, models, optim, train
from tinycnn.gradcheck import relative_error
from tinycnn.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU, multiplied
from tinycnn.ops import reference
from tinycnn.ops.geometry import Block
from tinycnn.ops.workspace import Workspace
from viz.study import sets, ways
from viz.study.stages import tsne

pytestmark = hosted.GPU
emulated = pytest.mark.skipif(hosted.DEVICE != "emulated", reason="counts what the emulator sees")


def net_of(backend, dtype="float32", seed=0):
    """A thin block, a block that Winograd suits, dropout, two dense layers."""
    specs = [
        *(Conv2D("c1", 16, 5), ReLU("r1"), MaxPool2D("p1", 3, 2)),
        *(Conv2D("c2", 17, 3), ReLU("r2"), MaxPool2D("p2", 2, 2)),
        *(Flatten("f"), Dense("d1", 20), ReLU("r3"), Dropout("o", 0.3), Dense("d2", 4)),
    ]
    return Network(specs, (15, 13, 3), backend=backend, dtype=dtype, seed=seed)


def data(N, net, seed=0):
    """Images whose class is the brightest quarter."""
    rng = np.random.default_rng(seed)
    H, W, C = net.input_shape
    images, labels = rng.integers(0, 128, (N, H, W, C), np.uint8), rng.integers(0, 4, N)
    for image, label in zip(images, labels):
        image[label // 2 * (H // 2) :][: H // 2, label % 2 * (W // 2) :][:, : W // 2] += 100
    return images, labels


def step_grads(net, images, labels, rng=None):
    work = Workspace(net.ops)
    for _ in range(2):  # the second time every buffer is dirty
        _, grads = losses.loss_and_grads(net, net.ops.from_images(images), labels, work, rng)
    grads = {layer: multiplied(net.ops, some) for layer, some in grads.items()}
    return {f"{layer}/{k}": net.ops.to_numpy(g) for layer, some in grads.items() for k, g in some.items()}


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 3e-5)])
def test_the_fused_path_is_that_of_the_reference(dtype, tolerance):
    nets = [net_of(backend, dtype) for backend in ("reference", "gpu")]
    rng = np.random.default_rng(0)
    for layer in ("c1", "c2"):
        b = 0.1 * rng.standard_normal(nets[0].params[layer]["b"].shape)
        for net in nets:
            net.params[layer]["b"][...] = net.ops.asarray(b)
    images, labels = data(7, nets[0])
    expected, found = (step_grads(net, images, labels) for net in nets)
    assert relative_error(nets[1].logits(images), nets[0].logits(images)) < tolerance
    for name, g in expected.items():
        assert relative_error(found[name], g) < tolerance, name


def test_chunks_of_one_image_give_what_one_chunk_gives(monkeypatch):
    net = net_of("gpu", "float64")
    images, labels = data(7, net)
    whole, logits = step_grads(net, images, labels), net.logits(images)
    trace = net.forward(images)
    back = net.backward(trace, np.ones(trace["d2"].shape))
    monkeypatch.setattr(net.ops, "_chunk", 1)
    assert relative_error(net.logits(images), logits) < 1e-13
    trace = net.forward(images)
    assert relative_error(net.backward(trace, np.ones(trace["d2"].shape)), back) < 1e-13
    for name, g in step_grads(net, images, labels).items():
        assert relative_error(g, whole[name]) < 1e-12, name


def test_what_the_backend_takes_from_the_reference_is_what_it_says():
    """An override forgotten would run NumPy on the device's arrays."""
    ours, theirs = type(get_ops("gpu")), reference.Ops
    contract = {name for name, value in vars(theirs).items() if callable(value) and not name.startswith("_")}
    assert contract - set(vars(ours)) == set(ours.FROM_REFERENCE)


# -- a block -------------------------------------------------------------------------------------------------


def block_of(backend, dtype, x, w, b, block, dy=None, exact=False, mask=True, rectify=False):
    """(y, switches) of a block; with dy, which may be several signals an image, (dw or None, db or None, dx)."""
    ops = hosted.get_ops(backend, dtype)
    x, w, b, work = ops.asarray(x), ops.asarray(w), ops.asarray(b), Workspace(get_ops(backend, dtype))
    y, switches = ops.conv_relu_pool(x, w, b, block, work, exact)
    if dy is None:
        return y, switches
    dy = ops.asarray(dy)
    weights = (x, w, y, switches, dy, block, work)
    grads = ops.conv_relu_pool_backward_weights(*weights) if len(dy) == len(x) else (None, None)
    return *grads, ops.conv_relu_pool_backward_data(w, y, switches, dy, x.shape, block, mask, rectify, work)


PADDINGS = ["SAME", "VALID", ((0, 2), (2, 0)), ((2, 0), (0, 2)), ((2, 1), (0, 1)), ((1, 1), (1, 1))]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("kernel, C, K", [(3, 16, 17), (3, 2, 3), (2, 16, 16)])
def test_a_block_may_have_any_padding(padding, kernel, C, K):
    """By Winograd's filtering, and by im2col."""
    rng, block = np.random.default_rng(0), Block((1, 1), padding, (3, 3), (2, 2), ((1, 0), (0, 2)))
    x, w, b = rng.standard_normal((2, 9, 6, C)), rng.standard_normal((kernel, kernel, C, K)), rng.standard_normal(K)
    (y, switches), expected = (block_of(o, "float64", x, w, b, block) for o in ("gpu", "reference"))
    assert relative_error(y, expected[0]) < 1e-12 and np.array_equal(switches, expected[1])
    for S in (1, 3):
        dy = rng.standard_normal((S * len(y), *y.shape[1:]))
        found, expected = (block_of(o, "float64", x, w, b, block, dy) for o in ("gpu", "reference"))
        for a, e in zip(found, expected):
            assert e is None or relative_error(a, e) < 1e-12


@emulated
@pytest.mark.parametrize("kernel, stride, C, K", [(3, 1, 16, 16), (3, 1, 16, 15), (3, 2, 16, 16), (5, 1, 16, 16)])
def test_the_algorithm_named_is_the_one_that_runs(kernel, stride, C, K):
    """Pictures that ask for exact decisions, or send back rectified signals, take im2col in any case."""
    ops, counts = get_ops("gpu"), fakecupy.emulator.counts
    block = Block((stride, stride), "SAME", (2, 2), (2, 2), "SAME")
    x, w, b = np.ones((1, 8, 8, C)), np.ones((kernel, kernel, C, K)), np.zeros(K)
    named = ops.algorithms(x.shape, w.shape, block)
    assert len(set(named[:3])) == 1 and named.why
    dy = np.ones(block_of("gpu", "float32", x, w, b, block)[0].shape)
    for picture in (False, True):
        before = counts.copy()
        block_of("gpu", "float32", x, w, b, block, dy, exact=picture, rectify=picture)
        run = counts - before
        winograd = "Winograd" in named.forward
        assert winograd == ((kernel, stride, min(C, K)) == (3, 1, 16))
        # forward, the weights' gradient and the input's: three convolutions
        assert run["winograd_input"] == (3 - 2 * picture) * winograd
        assert run["im2col"] + run["col2im"] == 3 - run["winograd_input"]


@emulated
def test_many_signals_go_back_in_as_many_launches_as_one():
    rng, block = np.random.default_rng(0), Block((1, 1), "SAME", (2, 2), (2, 2), "SAME")
    x, w, b, launches = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((5, 5, 3, 4)), np.zeros(4), []
    for S in (2, 9):
        before = fakecupy.emulator.counts["launches"]
        dy = rng.standard_normal((S * 2, 3, 3, 4))
        block_of("gpu", "float32", x, w, b, block, dy, mask=False, rectify=True)
        launches.append(fakecupy.emulator.counts["launches"] - before)
    assert launches[0] == launches[1]


def test_elements_that_tie_after_the_bias_tie():
    """1 + 2e-7 is the next float32 after 1 but one; beside a bias of 1000 neither is another than 1001."""
    x = np.array([1, 1, 1, 1 + 2e-7], np.float32).reshape(1, 2, 2, 1)
    block = Block((1, 1), "SAME", (2, 2), (2, 2), "SAME")
    for bias, switch in ((0, 3), (1000, 0), (-1, 3), (-2, 0)):
        y, switches = block_of("gpu", "float32", x, np.ones((1, 1, 1, 1)), [bias], block, exact=True)
        assert switches.item() == switch and y.item() == max(np.float32(x.max() + np.float32(bias)), 0)


@settings(max_examples=60, deadline=None)
@given(
    bias=st.sampled_from([0, 1, -1, -0.5, 1000, 2.0**14, -(2.0**14), 2.0**20]),
    step=st.sampled_from([2.0**-12, 2.0**-8, 1.0]),
    kernel=st.sampled_from([(1, 1), (1, 2), (3, 3)]),
    C=st.sampled_from([1, 2, 16]),
    window=st.sampled_from([(1, 1), (2, 2), (3, 3), (2, 3)]),
    stride=st.sampled_from([(1, 1), (2, 2), (1, 2)]),
    padding=st.sampled_from(["SAME", "VALID"]),
    dark=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_decisions_are_those_of_the_reference(bias, step, kernel, C, window, stride, padding, dark, seed):
    """Near-ties, cancelling channels, dead windows and a black background; every sum is exact, but for the bias."""
    rng, K = np.random.default_rng(seed), 17
    x = rng.integers(-4, 5, (2, 5, 6, C)) * step + rng.choice([0.0, 2.0], (2, 5, 6, C))
    x *= rng.random((2, 5, 6, 1)) >= dark
    w, b = rng.choice([-1, 0, 1, 2], (*kernel, C, K)), bias * rng.choice([-1, 1, 1], K)
    block = Block((1, 1), "SAME", window, stride, padding)
    (y, switches), expected = (block_of(o, "float32", x, w, b, block, exact=True) for o in ("gpu", "reference"))
    assert np.array_equal(y, expected[0]) and np.array_equal(switches, expected[1])


def test_dropout_drops_the_same_units_in_every_backend():
    masks = [hosted.get_ops(b, "float32").dropout_mask((33, 7), 0.4, np.random.default_rng(5)) for b in ("cpu", "gpu")]
    assert np.array_equal(*masks) and 0.3 < (masks[0] == 0).mean() < 0.5


@emulated
def test_a_training_step_transfers_the_batch_indices_and_now_and_then_the_losses():
    net = net_of("gpu")
    images, labels = data(40, net)
    run = train._Run(
        net, optim.Adam(1e-3), {"average": 0, "batch_size": 8, "seed": 0, "keep": "last", "frozen": []}, None
    )
    stored, stored_labels = net.ops.put(images), net.ops.put(labels)
    counts, steps = fakecupy.emulator.counts, 3 * train.READ_EVERY
    how = train.Augment(), run.optimizer
    for _ in range(train.READ_EVERY):  # every buffer is there, every loss is read
        run.step(stored, stored_labels, *how)
    before = counts.copy()
    for _ in range(steps):
        run.step(stored, stored_labels, *how)
    assert counts["h2d"] - before["h2d"] == steps and counts["h2d_bytes"] - before["h2d_bytes"] == steps * 8 * 8
    assert counts["d2h"] - before["d2h"] == 3
    assert counts["d2h_bytes"] - before["d2h_bytes"] == steps * 4


def test_training_follows_the_cpu_and_repeats_its_bytes(tmp_path):
    histories = {}
    for run, backend in enumerate(("cpu", "gpu", "gpu")):
        net = net_of(backend, "float64")  # in float32 Adam would enlarge the rounding of the smallest gradients
        images, labels = data(60, net)
        fit = {"steps": 25, "batch_size": 12, "lr": 2e-3, "eval_every": 10, "progress": False}
        history = train.fit(net, images, labels, data(40, net, 1), **fit)
        histories[run] = history.to_dict(), net.save(tmp_path / f"{run}") or (tmp_path / f"{run}").read_bytes()
    losses = np.array([histories[run][0]["losses"] for run in range(3)])
    assert losses[0, -5:].mean() < 0.7 * losses[0, 0]
    assert np.abs(losses[1] - losses[0]).max() < 1e-9
    assert histories[1] == histories[2]


def test_checkpoints_go_from_one_backend_to_the_other(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    images, labels = data(60, net_of("cpu"))
    fit = {"batch_size": 12, "lr": 2e-3, "eval_every": 5, "progress": False, "checkpoint": path}
    whole = train.fit(net_of("cpu", "float64"), images, labels, steps=15, **{**fit, "checkpoint": None})
    train.fit(net_of("gpu", "float64"), images, labels, steps=5, **fit)
    train.fit(net_of("cpu", "float64"), images, labels, steps=10, resume=True, **fit)
    net = net_of("gpu", "float64")
    history = train.fit(net, images, labels, steps=15, resume=True, **fit)
    assert np.abs(np.subtract(history.losses, whole.losses)).max() < 1e-9
    net.save(tmp_path / "net.safetensors")
    on_cpu = Network.load(tmp_path / "net.safetensors", backend="cpu")
    assert relative_error(on_cpu.logits(images), net.logits(images)) < 1e-12


@pytest.mark.slow
@emulated
def test_the_main_job_runs(tmp_path, capsys, monkeypatch):
    load = sets.built_in

    def few(*args):
        found = load(*args)
        return replace(found, **{k: getattr(found, k)[:80] for k in ("images", "labels", "test_images", "test_labels")})

    monkeypatch.setattr(sets, "built_in", few)
    monkeypatch.setattr(tsne, "POINTS", 40)
    monkeypatch.setattr(ways, "LEAST", 2)
    argv = ["--steps", "3", "--backend", "gpu", "--out", str(tmp_path)]
    assert run_all.main(argv) == 0, capsys.readouterr().err
    metrics = json.loads(next(tmp_path.glob("*/metrics.json")).read_text())
    assert metrics and (tmp_path / "report.html").stat().st_size > 10_000
    assert fakecupy.emulator.counts["winograd_input"] or fakecupy.emulator.counts["im2col"]


@emulated
def test_too_little_memory_says_how_much_and_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(fakecupy.emulator, "limit", fakecupy.emulator.used + (4 << 20))
    with pytest.raises(MemoryError, match=r"needs? .*MiB|MiB more are needed.*batch_size") as caught:
        net_of("gpu").logits(np.zeros((3000, 15, 13, 3), np.uint8), batch_size=3000)
    assert "\n" not in str(caught.value)


@emulated
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda patch: patch.setattr(fakecupy.emulator, "devices", 0), "no usable CUDA device.*nvidia-smi"),
        (lambda patch: patch.setattr(fakecupy.runtime, "getDeviceCount", lambda: 0), "there is no CUDA device"),
        (lambda patch: patch.setattr(fakecupy.runtime, "driverGetVersion", lambda: 12040), "CUDA 12.4.*cupy-cuda12x"),
        (lambda patch: patch.setitem(sys.modules, "cupy", None), "not installed: pip install .*gpu-cuda12"),
        (lambda patch: patch.setattr(builtins, "__import__", _broken_import), "cannot be imported .no libcuda"),
    ],
)
def test_a_device_that_cannot_be_used_is_named_with_the_way_out(monkeypatch, change, says, capsys):
    change(monkeypatch)
    with pytest.raises(InputError, match=says) as caught:
        get_ops("gpu")
    assert "\n" not in str(caught.value) and "cpu" in str(caught.value)
    assert "gpu" not in tinycnn.available() and get_ops("auto").name == "cpu"


def _broken_import(name, *args, original=builtins.__import__):
    if name == "cupy":
        raise ImportError("no libcuda")
    return original(name, *args)


def test_auto_takes_a_usable_device():
    assert tinycnn.available()[-1] == "gpu" and get_ops().name == "gpu"
    assert models.build("mnist").ops.name == "gpu"
