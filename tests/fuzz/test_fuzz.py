"""Mutated files of every format give one clear line or the right result: no traceback, no hang, no other result."""

import gzip
import json
import resource
import shutil
import struct
import time
from pathlib import Path

import mutations
import numpy as np
import pytest
import safetensors.numpy

import run_all
from tinycnn import InputError, Network, checkpoint, train
from tinycnn.data import cifar10, mnist, stl10
from tinycnn.layers import AvgPool2D, Conv2D, Dense, Flatten, Normalize
from viz.report import results
from viz.study import networks, records, sets
from viz.study.run import Options, Run

SHORT = pytest.param(30, marks=pytest.mark.slow)
LONG = pytest.param(1000, marks=pytest.mark.long)
LIMIT = 5  # seconds that a mutant may take
MOST = 2 * 2**20  # KiB that the process may have at its peak


def attack(path, mutants, read, right):
    """Write each mutant to `path` and read it: an InputError of one short line, or something that is right."""
    good, refused, count = path.read_bytes(), 0, 0
    for count, mutant in enumerate(mutants, 1):
        path.write_bytes(mutant)
        began = time.perf_counter()
        try:
            found = read()
        except InputError as e:
            refused += 1
            assert "\n" not in str(e) and str(e).isprintable() and len(str(e)) < 1000, (count, str(e))
        else:
            assert right(found), (count, mutant[:200])
        assert time.perf_counter() - began < LIMIT, count
    path.write_bytes(good)
    assert right(read()) and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST
    print(f"{path.name}: {refused} of {count} refused")


# -- weights and checkpoints -------------------------------------------------------------------------------------------


def make():
    specs = [Normalize("n", 0.5, 0.25), Conv2D("c", 2, 3), AvgPool2D("a", 2), Flatten("f"), Dense("d", 3)]
    return Network(specs, (6, 6, 1), backend="reference", meta={"a": "b"})


def resumed(path):
    """A network that goes on from a checkpoint, and the history."""
    net, rng = make(), np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 6, 6, 1), np.uint8), np.arange(9) % 3
    history = train.fit(
        net, images, labels, (images, labels), steps=4, batch_size=3, average=5, keep="best", eval_every=2,
        checkpoint=path, resume=True, progress=False,
    )  # fmt: skip
    return history.to_dict(), {k: a.tobytes() for k, a in net.arrays().items()}


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "state.safetensors"
    resumed(path)
    return path


def reread(path):
    net = Network.load(path, "reference")
    return net.layers, net.meta, {k: a.tobytes() for k, a in net.arrays().items()}


def retyped_files(path, count):
    """Whole safetensors files: the header or a tensor is another, half of them signed as if written so."""
    header, tensors = checkpoint.read(path)
    for i in range(count):
        rng, facts, arrays = np.random.default_rng([2, i]), header, dict(tensors)
        name, other = rng.choice(sorted(arrays), 2)
        kind = rng.integers(6)
        if kind == 0:
            facts = mutations.retyped(rng, header)
        elif kind == 1:
            arrays[name], arrays[other] = arrays[other], arrays[name]
        elif kind == 2:
            arrays[name] = arrays[name].astype(rng.choice(["f2", "f4", "f8", "i4", "u1", "bool"]))
        elif kind == 3:
            arrays[name] = np.ascontiguousarray(rng.permutation(arrays[name].ravel()).reshape(arrays[name].shape[::-1]))
        elif kind == 4:
            del arrays[name]
        else:
            arrays[name] = np.resize(arrays[name], rng.integers(0, 5, rng.integers(0, 4)))
        if i % 2 and isinstance(facts, dict):
            facts = {**facts, "sha256": checkpoint._digest(facts, arrays)}
        yield safetensors.numpy.save(arrays, {"tinycnn": json.dumps(facts)})


@pytest.mark.parametrize("count", [SHORT, LONG])
def test_weights(trained, count):
    """A file that was signed as if written so may hold other names of classes or weights of the same shape."""
    right = reread(trained)
    attack(trained, mutations.of_bytes(trained.read_bytes(), count), lambda: reread(trained), right.__eq__)
    shapes = {k: len(a) for k, a in right[2].items()}
    attack(
        trained, list(retyped_files(trained, count)), lambda: reread(trained),
        lambda found: {k: len(a) for k, a in found[2].items()} == shapes or found[0] != right[0],
    )  # fmt: skip


@pytest.mark.parametrize("count", [SHORT, LONG])
def test_checkpoints(trained, count):
    right = resumed(trained)
    attack(trained, mutations.of_bytes(trained.read_bytes(), count), lambda: resumed(trained), right.__eq__)
    attack(trained, list(retyped_files(trained, count)), lambda: resumed(trained), lambda found: len(found[1]) == 4)
    forged = [m for i, m in enumerate(retyped_files(trained, count)) if i % 2 == 0]
    attack(trained, forged, lambda: resumed(trained), right.__eq__)


# -- the records of a study --------------------------------------------------------------------------------------------


ARGV = ["--steps", "2", "--only", "filters", "--seeds", "0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run_all.main([*ARGV, "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(whole, tmp_path):
    sets.load.cache_clear()
    return shutil.copytree(whole, tmp_path / "out")


RECORDS = ("run.json", "metrics.json", "history-study.json", "filters/result.json")


def everything(out):
    """All that a run, a summary or a report reads of the records; None for a stage or a report that is done again."""
    folder = out / "digits" / "seed-0"
    study = Run(Options(dataset=("digits",), steps=2, only=("filters",), seeds=(0,), out=out), "digits", 0, folder)
    study.check()
    section = networks.read_section(folder)
    several = networks.read_networks(out / "digits")
    found = networks.find_networks(out / "digits")
    stage = results.find(folder / "filters")
    return (
        study.before, study.history("study"), study.accuracy("study"), stage, records.read_study(folder),
        section and section.metrics, several and several.over, found and found.metrics,
    )  # fmt: skip


@pytest.mark.parametrize("count", [SHORT, LONG])
@pytest.mark.parametrize("name", [*RECORDS, "../summary.json", "../summary/result.json"])
def test_records(out, name, count):
    path, right = out / "digits" / "seed-0" / name, everything(out)
    attack(
        path, mutations.of_json(path.read_bytes(), count), lambda: everything(out),
        lambda found: all(a is None or a == b for a, b in zip(found, right)),
    )  # fmt: skip


@pytest.mark.parametrize("count", [SHORT, LONG])
@pytest.mark.parametrize("name", RECORDS)
def test_the_command_line_on_mutated_records(out, whole, name, count, capsys):
    """It makes again what is damaged, or says so in a line and ends with 2."""
    path = out / "digits" / "seed-0" / name
    for mutant in mutations.of_json(path.read_bytes(), count // 10, seed=3):
        path.write_bytes(mutant)
        status = run_all.main([*ARGV, "--out", str(out), "--resume"])
        errors = capsys.readouterr().err
        assert (status, errors.count("\n")) == (2, 1) or status == 0, errors
        if status == 0:
            for same in ("metrics.json", "weights.safetensors", "filters/filters.png"):
                bytes_ = [(folder / "digits" / "seed-0" / same).read_bytes() for folder in (out, whole)]
                assert bytes_[0] == bytes_[1], same
        shutil.rmtree(out)
        shutil.copytree(whole, out)


# -- data sets ---------------------------------------------------------------------------------------------------------


def idx(a):
    return struct.pack(f">{1 + a.ndim}I", 0x800 + a.ndim, *a.shape) + a.tobytes()


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Small files of each official format."""
    rng = np.random.default_rng(0)
    for name, a in zip(mnist.FILES["train"], (rng.integers(0, 256, (9, 28, 28), np.uint8), np.arange(9, dtype="u1"))):
        (tmp_path / name).write_bytes(idx(a))
    for name, a in zip(mnist.FILES["test"], (rng.integers(0, 256, (9, 28, 28), np.uint8), np.arange(9, dtype="u1"))):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(a)))
    monkeypatch.setattr(cifar10, "COUNT", 4)
    (tmp_path / cifar10.FOLDER).mkdir()
    records_ = rng.integers(0, 10, (4, 3073), np.uint8)
    (tmp_path / cifar10.FOLDER / cifar10.FILES["test"][0]).write_bytes(records_.tobytes())
    for split in ("train", "test"):
        (tmp_path / f"{split}_X.bin").write_bytes(rng.bytes(3 * 3 * 96 * 96))
        (tmp_path / f"{split}_y.bin").write_bytes(bytes([1, 2, 3]))
    (tmp_path / "class_names.txt").write_text("Hund\nKatze\nMaus\n")
    return tmp_path


FILES = {
    "train-images-idx3-ubyte": lambda folder: mnist.read(folder, "train"),
    "train-labels-idx1-ubyte": lambda folder: mnist.read(folder, "train"),
    "t10k-images-idx3-ubyte.gz": lambda folder: mnist.read(folder, "test"),
    "t10k-labels-idx1-ubyte.gz": lambda folder: mnist.read(folder, "test"),
    f"{cifar10.FOLDER}/{cifar10.FILES['test'][0]}": lambda folder: cifar10.read(folder, "test"),
    "train_X.bin": lambda folder: stl10.read_folder(folder, "train"),
    "train_y.bin": lambda folder: stl10.read_folder(folder, "train"),
    "class_names.txt": lambda folder: (np.zeros((3, 0)), np.array(stl10.read_classes(stl10.find(folder)))),
}


@pytest.mark.parametrize("count", [SHORT, LONG])
@pytest.mark.parametrize("name", FILES)
def test_data_sets(official, name, count):
    """As many images as labels, and labels that are classes: pixels may be any."""
    path = official / Path(name)
    mutants = mutations.of_bytes(path.read_bytes(), count)
    attack(
        path, mutants, lambda: FILES[name](official),
        lambda found: len(found[0]) == len(found[1]) and (found[1].dtype.kind == "U" or found[1].max() < 10),
    )  # fmt: skip
