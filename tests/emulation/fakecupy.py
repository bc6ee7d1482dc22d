"""A stand-in for `cupy` that computes on the CPU, stricter than the real one.

Where cupy raises, it raises: NumPy arrays do not mix with device arrays, nothing converts implicitly. Where CUDA would
be silently wrong, it raises too: types and widths of a kernel's arguments, their layout, overlap of restrict pointers,
limits of a launch, writes beyond an allocation, and (for checked kernels) any use of memory that nobody wrote. A name
that is not here is one that the backend has no need of: AttributeError.
"""

import collections
import ctypes
import functools
import math
import sys
import threading
import weakref
from types import ModuleType, SimpleNamespace

import numpy as np

from . import host
from .host import KernelError

__all__ = ["RawModule", "asarray", "ascontiguousarray", "cuda", "empty", "get_default_memory_pool", "ndarray", "zeros"]

GUARD, MARK = 512, 0xA5  # bytes of red zone before and after an allocation, and what they hold
POISON = 0xFF  # NaN in floats, -1 in integers: what a fresh allocation holds
ASAN = None if host.MODE != "asan" else ctypes.CDLL(None)


class Emulator:
    """The settings and the counters of the emulated device.

    Attributes
    ----------
    devices : int
        0 or 1.
    limit : int
        Bytes of its memory.
    order : int or None
        Of blocks and threads: 0 ascending, else the seed of a random order; None: another one at each launch.
    mode : str
        How kernels run, see host.Module.
    counts : Counter
        "launches", "allocations", "h2d" and "d2h" (transfers to and from the device), "h2d_bytes", "d2h_bytes", "gemm",
        and the launches of each kernel by its name; "tf32", products whose factors a device would round.
    modules : list of RawModule
        Those that were built.
    """

    def __init__(self):
        self.devices, self.limit, self.order, self.mode = 0, 1 << 34, None, host.MODE
        self.counts, self.modules = collections.Counter(), []
        self.buffers, self.damage = weakref.WeakSet(), []
        self.modes, self.lock = {}, threading.RLock()  # of cuBLAS's handles; held while the one stream does something

    @property
    def used(self):
        with self.lock:
            return sum(b.nbytes for b in self.buffers)

    def report_damage(self):
        """Raise if a red zone of an allocation that has been freed since was overwritten."""
        if self.damage:
            raise KernelError(self.damage.pop())


emulator = Emulator()


def in_stream(function):
    """One thing after another, whichever thread asks."""

    @functools.wraps(function)
    def waiting(*args, **kwargs):
        with emulator.lock:
            return function(*args, **kwargs)

    return waiting


class CUDARuntimeError(RuntimeError):
    """As in cupy.cuda.runtime."""


class CUDADriverError(RuntimeError):
    """As in cupy.cuda.driver."""


class OutOfMemoryError(MemoryError):
    """As in cupy.cuda.memory."""


# -- memory ----------------------------------------------------------------------------------------------------------


class Buffer:
    """An allocation between two red zones; `written` says of each byte whether it was, for checked kernels."""

    @in_stream
    def __init__(self, nbytes):
        if emulator.used + nbytes > emulator.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes (allocated so far: {emulator.used:,}).")
        emulator.counts["allocations"] += 1
        memory = np.full(nbytes + 2 * GUARD + 512, MARK, np.uint8)
        start = -memory.ctypes.data % 512 + GUARD  # cupy's pool aligns to 512 bytes
        self.bytes, self.nbytes = memory[start : start + nbytes], nbytes
        self.zones = memory[start - GUARD : start], memory[start + nbytes : start + nbytes + GUARD]
        self.bytes[:] = POISON
        self.written = np.zeros(nbytes, np.uint8) if emulator.mode == "ptx" else None
        self._shield("poison")
        emulator.buffers.add(self)

    def _shield(self, how):
        for zone in self.zones if ASAN else ():
            getattr(ASAN, f"__asan_{how}_memory_region")(ctypes.c_void_p(zone.ctypes.data), ctypes.c_size_t(GUARD))

    def damaged(self):
        """Whether a red zone was overwritten; it is as new then."""
        found = False
        for zone in self.zones if not ASAN else ():
            if (zone != MARK).any():
                zone[:], found = MARK, True
        return found

    def __del__(self):
        if emulator and hasattr(self, "written"):  # neither at the end of the interpreter nor after OutOfMemoryError
            if self.damaged():
                emulator.damage.append(
                    f"memory beyond an allocation of {self.nbytes} bytes, now freed, was overwritten"
                )
            self._shield("unpoison")


class ndarray:  # noqa: N801
    """A device array: shape, views and transfers, but no arithmetic."""

    __hash__ = None
    __array_ufunc__ = None  # NumPy's operators raise TypeError

    def __init__(self, array, buffer):
        self._array, self._buffer = array, buffer

    shape = property(lambda self: self._array.shape)
    dtype = property(lambda self: self._array.dtype)
    size = property(lambda self: self._array.size)
    ndim = property(lambda self: self._array.ndim)
    nbytes = property(lambda self: self._array.nbytes)
    flags = property(lambda self: self._array.flags)
    data = property(lambda self: SimpleNamespace(ptr=self._array.ctypes.data))

    def _view(self, array):
        return ndarray(array, self._buffer)

    def _written(self):
        """The bytes that say which of this array's bytes were written, in its own layout."""
        a = self._array
        offset = a.ctypes.data - self._buffer.bytes.ctypes.data if a.size else 0
        return np.ndarray((*a.shape, a.itemsize), np.uint8, self._buffer.written, offset, (*a.strides, 1))

    def _read(self):
        """The NumPy array, for reading all of it."""
        emulator.report_damage()
        if self._buffer.written is not None and not self._written().all():
            raise KernelError(f"an array {self.shape} of {self.dtype} is used, of which not all was ever written")
        return self._array

    def _write(self, values):
        self._array[...] = values
        if self._buffer.written is not None:
            self._written()[...] = 1

    def get(self):
        emulator.counts["d2h"] += 1
        emulator.counts["d2h_bytes"] += self.nbytes
        return self._read().copy()

    def copy(self):
        out = empty(self.shape, self.dtype)
        out._write(self._read())
        return out

    def __reduce__(self):
        return asarray, (self.get(),)

    def fill(self, value):
        self._write(_scalar(value))

    def reshape(self, *shape):
        result = self._array.reshape(*shape)
        if result.size and not np.shares_memory(result, self._array):
            raise KernelError(f"reshape of {self.shape} to {shape} needs a copy on the device")
        return self._view(result)

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        for i in index:
            if not (i is Ellipsis or isinstance(i, (int, np.integer, slice))):
                raise TypeError(f"only integers and slices index a device array here, not {type(i)}")
        return self._view(self._array[index if Ellipsis in index else (*index, ...)])

    def __setitem__(self, index, value):
        target = self[index]
        if isinstance(value, ndarray):
            if value.dtype != self.dtype:
                raise KernelError(f"{value.dtype} is assigned to an array of {self.dtype}")
            if np.shares_memory(target._array, value._array):
                raise KernelError("an array is assigned to one that overlaps it")
            value = value._read()
        else:
            value = _scalar(value)
        target._write(value)

    def _refuse(self, *args, **kwargs):
        raise TypeError("a device array does not become a host value implicitly; use `.get()`")

    __array__ = __array_function__ = __eq__ = __bool__ = __iter__ = _refuse


def _plain(a):
    """The NumPy array behind a device array; anything but a device array is refused, as cupy does."""
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return a._array


def _scalar(value):
    if not isinstance(value, (bool, int, float, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def empty(shape, dtype=float, order="C"):
    dtype, shape = np.dtype(dtype), tuple(shape) if np.iterable(shape) else (shape,)
    buffer = Buffer(math.prod(shape) * dtype.itemsize)
    return ndarray(np.ndarray(shape, dtype, buffer.bytes, order=order), buffer)


def zeros(shape, dtype=float, order="C"):
    a = empty(shape, dtype, order)
    a.fill(0)
    return a


def asarray(a, dtype=None):
    if isinstance(a, ndarray):
        return ascontiguousarray(a, dtype) if dtype not in (None, a.dtype) else a
    a = np.asarray(a, dtype)
    fortran = a.flags.f_contiguous and not a.flags.c_contiguous  # cupy keeps this layout
    out = empty(a.shape, a.dtype, "F" if fortran else "C")
    out._write(a)
    emulator.counts["h2d"] += 1
    emulator.counts["h2d_bytes"] += a.nbytes
    return out


def ascontiguousarray(a, dtype=None):
    if _plain(a).flags.c_contiguous and dtype in (None, a.dtype):
        return a
    out = empty(a.shape, dtype or a.dtype)
    out._write(a._read())
    return out


# -- kernels ---------------------------------------------------------------------------------------------------------


class RawModule:
    """Kernels, built at the first `get_function`."""

    def __init__(self, code=None, *, options=()):
        self.code, self.options = code, tuple(options)

    def get_function(self, name):
        module = host.module(self.code, self.options, emulator.mode)
        if self not in emulator.modules:
            emulator.modules.append(self)
        if name not in module.signatures:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return functools.partial(_launch, module, name)


@in_stream
def _launch(module, name, grid, block, args):
    parameters = module.signatures[name]
    if not all(isinstance(v, tuple) and 1 <= len(v) <= 2 for v in (grid, block)):
        raise KernelError(f"{name}: grid {grid} and block {block} must be tuples of one or two sizes")
    grid, block = (*grid, 1)[:2], (*block, 1)[:2]
    if min(*grid, *block) < 1 or grid[0] >= 2**31 or grid[1] > 65535 or math.prod(block) > 1024:
        raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {name}: grid {grid}, block {block}")
    if len(args) != len(parameters):
        raise KernelError(f"{name} takes {len(parameters)} arguments, got {len(args)}")
    values = [_argument(f"{name}: argument {i} ({p.name})", p, a) for i, (p, a) in enumerate(zip(parameters, args))]
    arrays = [(p, a) for p, a in zip(parameters, args) if p.pointer]
    for i, (p, a) in enumerate(arrays):
        for q, b in arrays[:i]:
            if (p.restrict or q.restrict) and not (p.const and q.const) and np.shares_memory(a._array, b._array):
                raise KernelError(f"{name}: {q.name} and {p.name} overlap, but are __restrict__")
    emulator.counts["launches"] += 1
    emulator.counts[name] += 1
    order = emulator.counts["launches"] % 3 * emulator.counts["launches"] if emulator.order is None else emulator.order
    ranges = [(a.data.ptr, a.nbytes, a._written().ctypes.data) for _, a in arrays if module.checked and a.size]
    module.launch(name, grid, block, values, order, ranges)
    for p, a in arrays:
        if a._buffer.damaged():
            raise KernelError(f"{name} wrote beyond the allocation of {p.name}")
    emulator.report_damage()


def _argument(what, p, a):
    """One argument as ctypes passes it, if it is of exactly the parameter's type."""
    if p.pointer:
        if _plain(a).dtype != p.dtype:
            raise KernelError(f"{what}: an array of {a.dtype} for {p.type}*")
        if not a.flags.c_contiguous:
            raise KernelError(f"{what}: an array {a.shape} that is not C-contiguous")
        return ctypes.c_void_p(a.data.ptr)
    if type(a) in (int, float):  # cupy passes 8 bytes for either
        a = np.dtype(type(a)).type(a)
    if getattr(a, "dtype", None) != p.dtype or np.ndim(a):
        raise KernelError(f"{what}: a scalar of {getattr(a, 'dtype', type(a))} for {p.type}; pass np.{p.dtype}")
    return (ctypes.c_char * p.dtype.itemsize).from_buffer_copy(a.tobytes())


# -- cuBLAS ----------------------------------------------------------------------------------------------------------

CUBLAS_TF32 = 3
GEMM = "handle transa transb m n k alpha A lda B ldb beta C ldc"
BATCHED = "handle transa transb m n k alpha A lda strideA B ldb strideB beta C ldc strideC batchCount"


@in_stream
def _gemm(dtype, names, *args):
    """C = alpha op(A) op(B) + beta C on addresses of column-major matrices, or of a batch of them."""
    v = SimpleNamespace(strideA=0, strideB=0, strideC=0, batchCount=1)
    vars(v).update(zip(names.split(), args, strict=True))
    if v.transa not in (0, 1) or v.transb not in (0, 1) or min(v.m, v.n, v.k, v.batchCount) < 1:
        raise CUDADriverError(f"CUBLAS_STATUS_INVALID_VALUE: {vars(v)}")
    alpha, beta = (np.frombuffer(ctypes.string_at(p, dtype.itemsize), dtype)[0] for p in (v.alpha, v.beta))
    a = _matrices(dtype, v.A, v.m, v.k, v.lda, v.strideA, v.batchCount, v.transa)
    b = _matrices(dtype, v.B, v.k, v.n, v.ldb, v.strideB, v.batchCount, v.transb)
    c = _matrices(dtype, v.C, v.m, v.n, v.ldc, v.strideC, v.batchCount)
    if any(np.shares_memory(c._array, x._array) for x in (a, b)):
        raise KernelError("a matrix product writes to an operand")
    product = alpha * (a._read() @ b._read())
    c._write(product + beta * c._read() if beta else product)
    emulator.counts["gemm"] += 1
    if emulator.modes.get(v.handle) == CUBLAS_TF32 and dtype == np.float32:
        emulator.counts["tf32"] += 1


def _matrices(dtype, address, rows, columns, ld, stride, batch, transposed=False):
    """`batch` column-major matrices at an address, which must lie inside one allocation; (batch, rows, columns)."""
    if transposed:
        a = _matrices(dtype, address, columns, rows, ld, stride, batch)
        return a._view(a._array.swapaxes(1, 2))
    if ld < rows:
        raise CUDADriverError(f"CUBLAS_STATUS_INVALID_VALUE: leading dimension {ld} < {rows} rows")
    nbytes = ((batch - 1) * stride + (columns - 1) * ld + rows) * dtype.itemsize
    for buffer in emulator.buffers:
        offset = address - buffer.bytes.ctypes.data
        if 0 <= offset and offset + nbytes <= buffer.nbytes:
            strides = tuple(dtype.itemsize * s for s in (stride, 1, ld))
            return ndarray(np.ndarray((batch, rows, columns), dtype, buffer.bytes, offset, strides), buffer)
    raise KernelError(f"a matrix product reaches beyond an allocation: {batch} of {rows} x {columns}, {ld} apart")


# -- the device ------------------------------------------------------------------------------------------------------


class MemoryPool:
    """cupy's pool; here a freed block is never used again."""

    def free_all_blocks(self):
        pass


class Device:
    """The emulated device."""

    def __init__(self):
        runtime.getDeviceCount()

    compute_capability = "80"
    mem_info = property(lambda self: (emulator.limit - emulator.used, emulator.limit))


def _device_count():
    if not emulator.devices:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return emulator.devices


def _properties(device):
    return {"name": b"emulated", "multiProcessorCount": 4, "totalGlobalMem": emulator.limit, "major": 8, "minor": 0}


def get_default_memory_pool():
    return MemoryPool()


def _module(name, **contents):
    module = ModuleType("cupy.cuda" + name)
    vars(module).update(contents)
    return module


gemms = {
    letter + "gemm" + suffix: functools.partial(_gemm, np.dtype(dtype), names)
    for letter, dtype in (("s", "float32"), ("d", "float64"))
    for suffix, names in (("", GEMM), ("StridedBatched", BATCHED))
}
cublas = _module(".cublas", **gemms, setMathMode=lambda handle, mode: emulator.modes.update({handle: mode}),
                 CUBLAS_DEFAULT_MATH=0, CUBLAS_TF32_TENSOR_OP_MATH=CUBLAS_TF32)  # fmt: skip
runtime = _module(".runtime", CUDARuntimeError=CUDARuntimeError, getDeviceCount=_device_count,
                  getDeviceProperties=_properties, driverGetVersion=lambda: 13000,
                  runtimeGetVersion=lambda: 13000)  # fmt: skip
memory = _module(".memory", OutOfMemoryError=OutOfMemoryError)
device = _module(".device", get_cublas_handle=lambda: threading.get_ident())
cuda = _module("", Device=Device, cublas=cublas, device=device, memory=memory, runtime=runtime)


def install():
    """Be `cupy` in this process."""
    sys.modules["cupy"] = sys.modules[__name__]
    sys.modules.update({m.__name__: m for m in (cuda, cublas, device, memory, runtime)})
