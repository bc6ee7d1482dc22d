"""Threads, processes and copies: whoever computes beside it, a network answers as it does alone, in every bit."""

import copy
import multiprocessing
import os
import pickle
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import hosted
import numpy as np
import pytest
from emulation import fakecupy

from tinycnn import Network, get_ops, losses
from tinycnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from viz import saliency

SHAPE, SEEDS = (12, 11, 3), (0, 1)
fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def net_of(backend, seed=0, dtype="float32"):
    """A block by im2col, a block by Winograd's filtering."""
    specs = [Conv2D("c1", 16, 5), ReLU("r1"), MaxPool2D("p1", 2, 2), Conv2D("c2", 16 + seed, 3), ReLU("r2"),
             MaxPool2D("p2", 2, 2), Flatten("f"), Dense("d", 4)]  # fmt: skip
    return Network(specs, SHAPE, backend=backend, seed=seed, dtype=dtype)


def images(backend):
    """So many that the CPU's kernels share them between threads; few for the slow ones."""
    N = 150 if backend == "cpu" else 5
    return np.random.default_rng(0).random((N, *SHAPE), np.float32)


def answers(net, x):
    """Everything that goes through a backend's scratch: logits, pictures, loss and gradients, layers one by one."""
    ops, labels = net.ops, np.arange(len(x)) % 4
    loss, grads = losses.loss_and_grads(net, ops.from_images(x), labels, net.workspace(), None)
    trace = net.forward(x)
    back = net.backward(trace, np.ones(trace["d"].shape))
    found = [net.logits(x), loss, back, saliency.saliency(net, x), *grads["c1"].values(), *grads["c2"].values()]
    return [np.array(ops.to_numpy(a)) for a in found]


def same(found, expected):
    return len(found) == len(expected) and all(np.array_equal(a, e) for a, e in zip(found, expected))


@pytest.fixture
def hasty():
    """The interpreter passes from thread to thread as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_several_threads_on_one_network(backend, hasty):
    net, x = net_of(backend), images(backend)
    expected = answers(net, x)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(found, expected) for found in pool.map(lambda _: answers(net, x), range(12)))


def test_several_networks_in_several_threads(backend, hasty):
    """They share the backend, and so what scratch it has."""
    nets, x = [net_of(backend, seed) for seed in SEEDS], images(backend)
    expected = [answers(net, x) for net in nets]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: answers(nets[i % 2], x), range(12)))
    assert all(same(f, expected[i % 2]) for i, f in enumerate(found))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_answers_as_its_original_and_beside_it(backend, hasty, copied):
    net, x = net_of(backend), images(backend)
    other, expected = copied(net), answers(net, x)
    with ThreadPoolExecutor(2) as pool:
        assert all(same(found, expected) for found in pool.map(lambda n: answers(n, x), (net, other)))


@fork
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forked_processes_while_threads_compute():
    """What a lock or a pool of threads was doing at that moment, the child does not have."""
    net, x = net_of("cpu"), images("cpu")
    expected, ending = net.logits(x), []

    def compute():
        found = []
        while not ending:
            found.append(np.array_equal(net.logits(x), expected))
        return all(found)

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(compute) for _ in range(3)]
        try:
            for _ in range(4):
                if (child := os.fork()) == 0:
                    signal.alarm(60)  # a child that waits for ever ends
                    os._exit(0 if np.array_equal(net.logits(x), expected) else 1)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            ending.append(True)
        assert all(t.result() for t in threads)


@pytest.mark.parametrize("start", [pytest.param("fork", marks=fork), "spawn"])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_of_a_pool(start):
    net, x = net_of("cpu"), images("cpu")
    expected = net.logits(x)
    with multiprocessing.get_context(start).Pool(2) as pool:
        for found in pool.map_async(net.logits, [x] * 4).get(timeout=120):
            assert np.array_equal(found, expected)


# -- the device ------------------------------------------------------------------------------------------------------


@pytest.fixture
def device():
    """Tests of what the emulator sees of the backend "gpu"."""
    if hosted.DEVICE != "emulated":
        pytest.skip(hosted.MISSING or "counts what the emulator sees")
    return fakecupy.emulator


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_products_round_as_asked_in_every_thread(device, monkeypatch, tf32):
    """The mode belongs to cuBLAS's handle, of which each thread has one; others may have set it."""
    monkeypatch.setenv("CUPY_TF32", str(int(tf32)))
    ops = type(get_ops("gpu"))("float32")
    a, w, dy = (ops.asarray(np.ones(shape)) for shape in ((3, 4), (2, 4), (3, 2)))
    before = device.counts.copy()
    fakecupy.cublas.setMathMode(fakecupy.device.get_cublas_handle(), 0 if tf32 else fakecupy.CUBLAS_TF32)
    ops.dense_backward_data(a, w)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ops.dense_backward_weights, a, dy).result()
    counted = device.counts - before
    assert counted["gemm"] == 2 and counted["tf32"] == (2 if tf32 else 0)


@pytest.mark.gpu
def test_chunks_are_those_of_the_device_whatever_is_free(device, monkeypatch):
    make = type(get_ops("gpu"))
    for limit, chunk in ((1 << 34, 1 << 30), (1 << 33, 1 << 30), (1 << 30, 1 << 27)):
        monkeypatch.setattr(device, "limit", limit)
        monkeypatch.setattr(type(device), "used", 0)
        assert make("float32")._chunk == chunk
        monkeypatch.setattr(type(device), "used", limit - 1000)
        assert make("float32")._chunk == chunk
