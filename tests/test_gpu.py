"""The backend "gpu" beyond its primitives: errors, chunks, transfers, training, files, and the main job."""

import builtins
import json
import sys
from dataclasses import replace

import hosted
import numpy as np
import pytest
from emulation import fakecupy

import run_all
import tinycnn
from tinycnn import InputError, Network, fused, get_ops, models, optim, train
from tinycnn.gradcheck import relative_error
from tinycnn.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D, ReLU
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
    work = fused.Workspace(net.ops)
    for _ in range(2):  # the second time every buffer is dirty
        _, grads = fused.loss_and_grads(net, net.ops.from_images(images), labels, work, rng)
    return {f"{layer}/{k}": net.ops.to_numpy(g) for layer, gs in grads.items() for k, g in gs.items()}


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
