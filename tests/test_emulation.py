"""The emulator sees the faults that it is there for; and what it says of our kernels."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hosted
import numpy as np
import pytest
from emulation import fakecupy as cp
from emulation import faults, host, nvrtc
from emulation.host import KernelError

from tinycnn import get_ops
from tinycnn.gradcheck import relative_error
from tinycnn.ops.geometry import Block

ROOT = Path(__file__).resolve().parent.parent
needs_compiler = pytest.mark.skipif(host.COMPILER is None, reason="g++ is not here")
needs_nvrtc = pytest.mark.skipif(nvrtc.find() is None, reason="nvidia-cuda-nvrtc is not installed")
needs_cupy = pytest.mark.skipif(hosted.CUPY is None, reason="CuPy is not installed")
SOURCE = "asan" if host.MODE == "asan" else "source"
MODES = [pytest.param(SOURCE, marks=needs_compiler), pytest.param("ptx", marks=[needs_compiler, needs_nvrtc])]
PTX = MODES[1:]

SAMPLES = r"""
#define I (blockIdx.x * blockDim.x + threadIdx.x)
extern "C" __global__ void twice(const real* x, real* y, int n) { if (I < n) y[I] = 2 * x[I]; }
extern "C" __global__ void one_too_many(real* y, int n) { if (I <= n) y[I] = 1; }
extern "C" __global__ void reads_beyond(const real* x, real* y, int n) { if (I < n) y[I] = x[I + 1]; }
extern "C" __global__ void distinct(const real* __restrict__ x, real* __restrict__ y, int n) { if (I < n) y[I] = x[I]; }
extern "C" __global__ void takes(const unsigned char* c, long long n, unsigned long long u, real r) {}
extern "C" __global__ void all_write_one(real* y) { y[0] = I; }
extern "C" __global__ void misaligned(const unsigned char* c, real* y) { y[0] = *(const real*)(c + 1); }

__device__ real last_of_block(real v, bool wait) {
    __shared__ real values[64];
    values[threadIdx.x] = v;
    if (wait) __syncthreads();
    return values[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void reversed(const real* x, real* y) { y[I] = last_of_block(x[I], true); }
extern "C" __global__ void reversed_too_soon(const real* x, real* y) { y[I] = last_of_block(x[I], false); }
extern "C" __global__ void divergent(real* y) {
    if (threadIdx.x < 5) __syncthreads();
    y[I] = 0;
}
extern "C" __global__ void left_behind(const real* x, real* y) {
    __shared__ real kept;
    if (I == 0) kept = x[1];
    __syncthreads();
    y[I] = kept;
}
"""


@pytest.fixture(params=MODES)
def mode(request, monkeypatch):
    """How the kernels run."""
    monkeypatch.setattr(cp.emulator, "mode", request.param)
    return request.param


def sample(name, real="float"):
    kernel = cp.RawModule(code=SAMPLES, options=(f"-Dreal={real}",)).get_function(name)
    return lambda *args, grid=2, block=32: kernel((grid,), (block,), args)


def ramp(n, dtype=np.float32):
    return cp.asarray(np.arange(n, dtype=dtype))


# -- faults of kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("real, dtype", [("float", np.float32), ("double", np.float64)])
def test_sound_kernels_compute_in_every_order(mode, monkeypatch, real, dtype):
    for order in (0, 1, 2):
        monkeypatch.setattr(cp.emulator, "order", order)
        y, z = cp.empty(64, dtype), cp.empty(64, dtype)
        sample("twice", real)(ramp(64, dtype), y, np.int32(64))
        sample("reversed", real)(y, z)
        assert np.array_equal(z.get(), 2 * np.arange(64).reshape(2, 32)[:, ::-1].ravel())


def test_a_write_beyond_an_allocation(mode):
    with pytest.raises(KernelError, match=r"wrote beyond|out of bounds"):
        sample("one_too_many")(cp.empty(40, np.float32), np.int32(40))


@needs_compiler
def test_a_write_beyond_an_allocation_that_was_freed():
    x = cp.zeros(4, np.float32)
    x._buffer.zones[1][3] = 0
    del x
    with pytest.raises(KernelError, match="now freed"):
        cp.zeros(4, np.float32).get()


@pytest.mark.parametrize("mode", PTX, indirect=True)
def test_a_read_beyond_an_array_even_inside_its_allocation(mode):
    x, y = ramp(64), cp.empty(40, np.float32)
    with pytest.raises(
        KernelError, match=r"out of bounds: a read of global memory by thread \(7, 0\) of block \(1, 0\)"
    ):
        sample("reads_beyond")(x[:40], y, np.int32(40))


def test_uninitialised_memory(mode):
    y = cp.empty(40, np.float32)
    if mode != "ptx":
        sample("twice")(cp.empty(40, np.float32), y, np.int32(40))
        assert np.isnan(y.get()).all()
    else:
        with pytest.raises(KernelError, match="uninitialised: a read"):
            sample("twice")(cp.empty(40, np.float32), y, np.int32(40))
        z = cp.empty(40, np.float32)
        sample("twice")(ramp(40), z, np.int32(39))
        with pytest.raises(KernelError, match="not all was ever written"):
            z.get()


def test_a_race_between_blocks(mode, monkeypatch):
    if mode == "ptx":
        with pytest.raises(KernelError, match="race: a write of global memory"):
            sample("all_write_one")(cp.empty(1, np.float32))
    else:
        results = set()
        for order in range(4):
            monkeypatch.setattr(cp.emulator, "order", order)
            y = cp.empty(1, np.float32)
            sample("all_write_one")(y)
            results.add(float(y.get()[0]))
        assert len(results) > 1


def test_a_missing_barrier(mode, monkeypatch):
    if mode == "ptx":
        with pytest.raises(KernelError, match=r"(race|uninitialised): a read of shared memory"):
            sample("reversed_too_soon")(ramp(64), cp.empty(64, np.float32))
    else:
        monkeypatch.setattr(cp.emulator, "order", 0)
        y = cp.empty(64, np.float32)
        sample("reversed_too_soon")(ramp(64), y)
        assert np.isnan(y.get()).any()


def test_a_divergent_barrier(mode):
    with pytest.raises(KernelError, match="divergent barrier"):
        sample("divergent")(cp.empty(64, np.float32))


def test_what_a_block_leaves_in_shared_memory_is_not_there_for_the_next(mode):
    y = cp.empty(64, np.float32)
    if mode != "ptx":
        sample("left_behind")(ramp(2), y)
        assert (y.get()[:32] == 1).all() and np.isnan(y.get()[32:]).all()
    else:
        with pytest.raises(KernelError, match="uninitialised: a read of shared memory"):
            sample("left_behind")(ramp(2), y)


@pytest.mark.parametrize("mode", PTX, indirect=True)
def test_a_misaligned_access(mode):
    with pytest.raises(KernelError, match="misaligned"):
        sample("misaligned")(ramp(8, np.uint8), cp.empty(1, np.float32))


@pytest.mark.parametrize("mode", PTX, indirect=True)
def test_an_instruction_that_is_not_translated(mode):
    code = 'extern "C" __global__ void f(int* y) { atomicAdd(y, 1); }'
    with pytest.raises(KernelError, match="atom"):
        cp.RawModule(code=code).get_function("f")


@needs_compiler
def test_a_read_beyond_an_allocation_under_address_sanitizer():
    code = 'extern "C" __global__ void f(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }'
    script = (
        "from tests.emulation.fakecupy import RawModule, zeros\n"
        f"RawModule(code={code!r}).get_function('f')((1,), (32,), (zeros(32, 'f4'), zeros(32, 'f4')))"
    )
    result = run("-c", script, **host.sanitizer_environment())
    assert result.returncode and "AddressSanitizer: use-after-poison" in result.stderr


# -- faults of launches, products and arrays -----------------------------------------------------------------

C, N, U, R = cp.zeros(4, np.uint8), np.int64(4), np.uint64(4), np.float32(4)


@needs_compiler
@pytest.mark.parametrize(
    "error, says, name, args",
    [
        (KernelError, "takes 4 arguments, got 3", "takes", (C, N, U)),
        (KernelError, "float32 for unsigned char", "takes", (ramp(4), N, U, R)),
        (TypeError, "Unsupported type .*numpy.ndarray", "takes", (np.zeros(4, np.uint8), N, U, R)),
        (KernelError, "not C-contiguous", "takes", (C[::2], N, U, R)),
        (KernelError, "argument 1 .n.: a scalar of int32", "takes", (C, np.int32(4), U, R)),
        (KernelError, "argument 2 .u.: a scalar of int64", "takes", (C, N, 4, R)),
        (KernelError, "argument 3 .r.: a scalar of float64", "takes", (C, N, U, 4.0)),
        (KernelError, "argument 3 .r.: a scalar of int64", "takes", (C, N, U, N)),
        (KernelError, "x and y overlap", "distinct", (x := ramp(8), x[:4], np.int32(4))),
        (cp.CUDADriverError, "NOT_FOUND", "no_such_kernel", ()),
    ],
)
def test_an_argument_that_a_device_would_misread(error, says, name, args):
    with pytest.raises(error, match=says):
        sample(name)(*args)


@needs_compiler
@pytest.mark.parametrize(
    "grid, block", [((1,), (1025,)), ((1,), (32, 33)), ((1, 65536), (1,)), ((0,), (32,)), ((2**31,), (1,))]
)
def test_limits_of_a_launch(grid, block):
    kernel = cp.RawModule(code=SAMPLES, options=("-Dreal=float",)).get_function("all_write_one")
    with pytest.raises(cp.CUDADriverError, match="INVALID_VALUE"):
        kernel(grid, block, (cp.zeros(1, np.float32),))


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: np.asarray(a),
        lambda a, b: a + b,
        lambda a, b: b + a,
        lambda a, b: np.sum(a),
        lambda a, b: np.add(b, a),
        lambda a, b: a.__setitem__(..., b),
        lambda a, b: a[b > 0],
        lambda a, b: float(a[0]),
        lambda a, b: list(a),
        lambda a, b: a == b,
        lambda a, b: bool(a),
        lambda a, b: cp.ascontiguousarray(b),
    ],
)
def test_host_and_device_do_not_mix(mix):
    with pytest.raises(TypeError):
        mix(cp.zeros(3, np.float32), np.ones(3, np.float32))


def test_products_stay_inside_their_allocations():
    a, b, out = ramp(6), ramp(6), cp.zeros(4, np.float32)
    one, zero = np.array(1, np.float32), np.array(0, np.float32)

    def product(out, m=2, lda=2, ta=0, k=3):
        alpha, beta = one.ctypes.data, zero.ctypes.data
        cp.cublas.sgemm(1, ta, 0, m, 2, k, alpha, a.data.ptr, lda, b.data.ptr, 3, beta, out.data.ptr, m)

    product(out)
    assert np.array_equal(out.get().reshape(2, 2).T, np.arange(6).reshape(3, 2).T @ np.arange(6).reshape(2, 3).T)
    product(out, lda=3, ta=1)
    assert np.array_equal(out.get().reshape(2, 2).T, np.arange(6).reshape(2, 3) @ np.arange(6).reshape(2, 3).T)
    for error, says, change in (
        (KernelError, "beyond an allocation", {"m": 3, "lda": 3}),
        (KernelError, "beyond an allocation", {"k": 4}),
        (cp.CUDADriverError, "leading dimension", {"lda": 1}),
        (KernelError, "writes to an operand", {"out": b}),
    ):
        with pytest.raises(error, match=says):
            product(**{"out": out, **change})


def test_memory_has_a_limit_and_transfers_are_counted(monkeypatch):
    monkeypatch.setattr(cp.emulator, "limit", cp.emulator.used + 1000)
    before = cp.emulator.counts.copy()
    x = cp.asarray(np.zeros(200, np.float32))
    with pytest.raises(cp.OutOfMemoryError, match="allocating 400 bytes"):
        cp.empty(100, np.float32)
    x[:5].get()
    counted = cp.emulator.counts - before
    assert counted == {"allocations": 1, "h2d": 1, "h2d_bytes": 800, "d2h": 1, "d2h_bytes": 20}


# -- our backend ---------------------------------------------------------------------------------------------


def everything(ops):
    """Results of all primitives: odd shapes, a usual pool and an unusual one, a block that Winograd suits."""
    rng = np.random.default_rng(0)
    results, work = [], {}

    def normal(*shape):
        return ops.asarray(rng.standard_normal(shape))

    def scratch(key, shape, dtype):
        return work.setdefault((key, shape), ops.empty(shape, dtype))

    def keep(*arrays):
        results.extend(np.array(ops.to_numpy(a)) for a in arrays if a is not None)

    x, w, b = normal(3, 7, 9, 4), normal(3, 2, 4, 5), normal(5)
    for stride, padding in (((1, 1), "SAME"), ((2, 3), "VALID")):
        y = ops.conv2d(x, w, b, stride, padding)
        keep(y, ops.conv2d_backward_data(y, w, x.shape, stride, padding))
        keep(*ops.conv2d_backward_weights(x, y, w.shape, stride, padding))
    pools = (((2, 2), (2, 2), "SAME"), ((3, 3), (2, 2), "SAME"), ((2, 4), (1, 3), "VALID"), ((3, 3), (1, 1), "SAME"))
    for window, stride, padding in pools:
        x = normal(2, 5, 9, 28)  # 252 elements in a row: one more column, and it takes another block
        y, switches = ops.maxpool2d(x, window, stride, padding)
        keep(y, switches)
        for how in ("switches", "repeat", "center"):
            keep(ops.unpool2d(y, switches, x.shape, window, stride, padding, how))
        for count_padding in (False, True):
            mean = ops.avgpool2d(x, window, stride, padding, count_padding)
            keep(mean, ops.avgpool2d_backward(mean, x.shape, window, stride, padding, count_padding))
    for C, K, kernel in ((16, 17, 3), (4, 5, 5)):
        x, w, b = normal(2, 9, 6, C), normal(kernel, kernel, C, K), normal(K)
        block = Block((1, 1), "SAME", (3, 3), (2, 2), "SAME")
        y, switches = ops.conv_relu_pool(x, w, b, block, scratch)
        keep(y, switches)
        dy = normal(*y.shape)
        keep(*ops.conv_relu_pool_backward_weights(x, w, y, switches, dy, block, scratch))
        keep(ops.conv_relu_pool_backward_data(w, y, switches, dy, x.shape, block, True, False, scratch))
        signals, strongest = normal(4, *y.shape[1:]), ops.zeros(x.shape[:3])  # two for each image
        for rectify in (False, True):
            dx = ops.conv_relu_pool_backward_data(w, y, switches, signals, x.shape, block, True, rectify, scratch)
            ops.largest(dx, strongest)
            keep(dx, strongest)
    x, w, b = normal(6, 70), normal(70, 50), normal(50)  # 300 results: more than a block has threads
    y = ops.dense(x, w, b)
    keep(ops.normalize(y, b, normal(50), normal(50), ops.asarray(rng.random(50)), 1e-3))
    keep(y, ops.relu(y), ops.relu_backward(y, ops.relu(y), True, True), ops.multiply(y, y))
    keep(ops.dense_backward_data(y, w), ops.dense_backward_weights(x, y), ops.zeros(50))
    loss = ops.zeros(1)
    keep(*ops.softmax_cross_entropy(y, ops.put(np.array([0, 49, 1, 1, 7, 2])), loss))
    keep(ops.dropout_mask((5, 7), 0.4, np.random.default_rng(3)))
    p, g, m, v = normal(300), normal(300), ops.zeros(300), ops.zeros(300)
    for t in (1, 2):
        ops.adam_step(p, g, m, v, 0.01, 0.9, 0.999, 1e-8, t, 0.1 * t)
    ops.sgd_step(p, g, v, 0.1, 0.9)
    ops.average(m, p, 0.3)
    keep(p, m, v)
    images, rows = ops.put(rng.integers(0, 256, (4, 3, 5, 2), np.uint8)), ops.put(np.array([2, 0, 2]))
    keep(ops.from_images(images), ops.from_images(images, rows), ops.take(ops.put(np.arange(5)), rows))
    keep(ops.from_images(images, rows, np.array([[1, -3, 0], [-2, 4, 1], [0, 0, 1]])))
    return results


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-5), ("float64", 1e-12)])
def test_every_kernel_computes_the_reference_in_every_order(mode, monkeypatch, dtype, tolerance):
    """In bytes the same in ascending and in random orders of blocks and threads."""
    if hosted.DEVICE != "emulated":
        pytest.skip("the device orders threads as it likes")
    before, found = cp.emulator.counts.copy(), []
    for order in (0, 1, 2) if mode == SOURCE else (3,):
        monkeypatch.setattr(cp.emulator, "order", order)
        found.append(everything(type(get_ops("gpu", dtype))(dtype)))
    for a, e in zip(found[0], everything(get_ops("reference", dtype)), strict=True):
        assert a.shape == e.shape and relative_error(a, e) < tolerance
    for again in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], again)), "the order of threads changes a result"
    kernels = host.module(cp.emulator.modules[-1].code, cp.emulator.modules[-1].options, mode).signatures
    assert set(kernels) <= set(cp.emulator.counts - before), "a kernel was not run"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("how", ["asan", pytest.param("ptx", marks=needs_nvrtc)])
def test_the_primitives_pass_under_address_sanitizer_and_with_every_access_checked(how):
    environment = host.sanitizer_environment() if how == "asan" else {"TINYCNN_EMULATION": how}
    result = run("-m", "pytest", "-qxs", "-m", "gpu", "-k", "float32", "tests/test_ops.py", **environment)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.gpu
@needs_nvrtc
@pytest.mark.skipif(not hosted.DEVICE, reason=hosted.MISSING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nvidias_compiler_accepts_the_kernels_for_every_architecture(dtype):
    module, architectures = get_ops("gpu", dtype)._module, nvrtc.architectures()
    assert len(architectures) >= 3
    if dtype == "float64":  # the oldest and the newest: the others have been seen in float32
        architectures = [architectures[0], architectures[-1]]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda a: nvrtc.compile(module.code, f"sm_{a}", module.options), architectures[::-1]))


@needs_nvrtc
def test_nvidias_compiler_sees_what_gcc_does_not():
    with pytest.raises(KernelError, match="INT_MAX"):
        nvrtc.compile('extern "C" __global__ void f(int* y) { *y = INT_MAX; }', "sm_80")


@needs_cupy
def test_the_real_cupy_has_what_the_backend_uses():
    result = run("-m", "tests.emulation.api")
    assert result.returncode == 0, result.stdout + result.stderr


@needs_cupy
def test_a_name_that_cupy_does_not_have_is_seen(tmp_path):
    (tmp_path / "file.py").write_text("import cupy as cp\nx = cp.emptied(3)\ncp.cuda.runtime.getDevices()\n")
    result = run("-m", "tests.emulation.api", str(tmp_path / "file.py"))
    assert result.returncode == 1 and "cupy.emptied" in result.stdout and "cuda.runtime.getDevices" in result.stdout


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda f: f.what)
def test_the_text_of_every_planted_fault_is_still_there(fault):
    assert faults.planted(fault)


def test_no_emulated_device_is_there_for_tests_that_do_not_ask():
    assert get_ops("auto").name == "cpu"
    assert importlib.util.find_spec("cupy") is None or cp.emulator.devices == 0
