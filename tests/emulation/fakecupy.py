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
import types
import weakref

import numpy as np

from . import host
from .host import KernelError

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
        "launches", "allocations", "h2d" and "d2h" (transfers to and from the device), "h2d_bytes", "d2h_bytes", and the
        launches of each kernel by its name.
    modules : list of RawModule
        Those that were built.
    """

    def __init__(self):
        self.devices, self.limit, self.order, self.mode = 0, 1 << 34, None, host.MODE
        self.counts, self.modules = collections.Counter(), []
        self.buffers, self.damage = weakref.WeakSet(), []

    @property
    def used(self):
        return sum(b.nbytes for b in self.buffers)

    def report_damage(self):
        """Raise if a red zone of an allocation that has been freed since was overwritten."""
        damage, self.damage[:] = list(self.damage), []
        if damage:
            raise KernelError(damage[0])


emulator = Emulator()


class CUDARuntimeError(RuntimeError):
    """As in cupy.cuda.runtime."""


class OutOfMemoryError(MemoryError):
    """As in cupy.cuda.memory."""


class Buffer:
    """An allocation between two red zones."""

    def __init__(self, nbytes):
        if emulator.used + nbytes > emulator.limit:
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes (allocated so far: {emulator.used:,}).")
        emulator.counts["allocations"] += 1
        memory = np.empty(nbytes + 2 * GUARD + 512, np.uint8)
        start = -memory.ctypes.data % 512  # cupy's pool aligns to 512 bytes
        self.zones = memory[start : start + GUARD], memory[start + GUARD + nbytes : start + 2 * GUARD + nbytes]
        self.bytes, self.nbytes = memory[start + GUARD : start + GUARD + nbytes], nbytes
        self.bytes[:] = POISON
        for zone in self.zones:
            zone[:] = MARK
        self.written = np.zeros(nbytes, np.uint8) if emulator.mode == "ptx" else None
        self._shield("poison")
        emulator.buffers.add(self)

    def _shield(self, how):
        for zone in self.zones if ASAN else ():
            getattr(ASAN, f"__asan_{how}_memory_region")(ctypes.c_void_p(zone.ctypes.data), ctypes.c_size_t(GUARD))

    def intact(self):
        return ASAN is not None or all((zone == MARK).all() for zone in self.zones)

    def __del__(self):
        if emulator and hasattr(self, "written"):  # neither at the end of the interpreter nor after OutOfMemoryError
            if not self.intact():
                emulator.damage.append(
                    f"memory beyond an allocation of {self.nbytes} bytes, now freed, was overwritten"
                )
            self._shield("unpoison")


def _plain(a):
    """The NumPy array behind a device array; anything but a device array is refused, as cupy does."""
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return a._array


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
    data = property(lambda self: types.SimpleNamespace(ptr=self._array.ctypes.data))

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

    def fill(self, value):
        self._write(_scalar(value))

    def reshape(self, *shape):
        array = self._array.view()
        try:
            array.shape = shape[0] if len(shape) == 1 else shape
        except AttributeError as error:
            raise KernelError(f"reshape of {self.shape} to {shape} needs a copy on the device") from error
        return self._view(array)

    def view(self, dtype):
        return self._view(self._array.view(dtype))

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        for i in index if isinstance(index, tuple) else (index,):
            if not (i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice))):
                raise TypeError(f"only integers and slices index a device array here, not {type(i)}")
        index = index if isinstance(index, tuple) else (index,)
        return self._view(self._array[(*index, Ellipsis)] if Ellipsis not in index else self._array[index])

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

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use `.get()`.")

    def __array_function__(self, function, *args):
        raise TypeError(f"numpy.{function.__name__} does not take device arrays")

    def __eq__(self, other):
        raise TypeError("a device array is not compared by the backend")

    def __bool__(self):
        raise TypeError("the truth of a device array would be a hidden transfer")


def _scalar(value):
    if not isinstance(value, (bool, int, float, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def empty(shape, dtype=float, order="C"):
    dtype, shape = np.dtype(dtype), (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    buffer = Buffer(math.prod(shape) * dtype.itemsize)
    return ndarray(np.ndarray(shape, dtype, buffer.bytes, order=order), buffer)


def zeros(shape, dtype=float, order="C"):
    a = empty(shape, dtype, order)
    a.fill(0)
    return a


def asarray(a, dtype=None):
    if isinstance(a, ndarray):
        if dtype not in (None, a.dtype):
            raise KernelError(f"asarray of a device array of {a.dtype} as {dtype} launches a conversion")
        return a
    a = np.asarray(a, dtype)
    fortran = a.flags.f_contiguous and not a.flags.c_contiguous  # cupy keeps this layout
    out = empty(a.shape, a.dtype, "F" if fortran else "C")
    out._write(a)
    emulator.counts["h2d"] += 1
    emulator.counts["h2d_bytes"] += a.nbytes
    return out


def ascontiguousarray(a, dtype=None):
    """A copy where the layout or the type differs, as a kernel of cupy's makes it."""
    if not (_plain(a).flags.c_contiguous and dtype in (None, a.dtype)):
        out = empty(a.shape, dtype or a.dtype)
        out._write(a._read())
        return out
    return a


class Cublas(types.ModuleType):
    """cuBLAS products on addresses: column-major, out = op(a) op(b) + beta out, maybe a batch of them."""

    CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH = 0, 3

    @staticmethod
    def setMathMode(handle, mode):  # noqa: N802
        emulator.counts["tf32"] = int(mode == 3)

    def __init__(self, name):
        super().__init__(name)
        for letter, dtype in (("s", np.float32), ("d", np.float64)):
            setattr(self, letter + "gemm", functools.partial(self._gemm, np.dtype(dtype)))
            setattr(self, letter + "gemmStridedBatched", functools.partial(self._batched, np.dtype(dtype)))

    def _gemm(self, dtype, handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        self._batched(dtype, handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1)

    def _batched(self, dtype, handle, ta, tb, m, n, k, alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch):
        alpha, beta = (dtype.type(np.ctypeslib.as_array(ctypes.cast(p, _C[dtype]), (1,))[0]) for p in (alpha, beta))
        if ta not in (0, 1) or tb not in (0, 1) or min(m, n, k, batch) < 1:
            raise CUDADriverError(f"CUBLAS_STATUS_INVALID_VALUE: transposed {ta}, {tb}; sizes {m}, {n}, {k}, {batch}")
        a = _matrices(dtype, a, *((m, k) if not ta else (k, m)), lda, sa, batch)
        b = _matrices(dtype, b, *((k, n) if not tb else (n, k)), ldb, sb, batch)
        c = _matrices(dtype, c, m, n, ldc, sc, batch)
        if any(np.shares_memory(c._array, x._array) for x in (a, b)):
            raise KernelError("a matrix product writes to an operand")
        op_a, op_b = (x._read().swapaxes(1, 2) if t else x._read() for x, t in ((a, ta), (b, tb)))
        product = alpha * (op_a @ op_b)
        c._write(product + beta * c._read() if beta else product)
        emulator.counts["gemm"] += 1


_C = {np.dtype(np.float32): ctypes.POINTER(ctypes.c_float), np.dtype(np.float64): ctypes.POINTER(ctypes.c_double)}


def _matrices(dtype, address, rows, columns, ld, stride, batch):
    """`batch` column-major matrices at an address, which must lie inside one allocation."""
    if ld < rows:
        raise CUDADriverError(f"CUBLAS_STATUS_INVALID_VALUE: leading dimension {ld} < {rows} rows")
    size = ((batch - 1) * stride + (columns - 1) * ld + rows) * dtype.itemsize
    for buffer in emulator.buffers:
        offset = address - buffer.bytes.ctypes.data
        if 0 <= offset and offset + size <= buffer.nbytes:
            strides = tuple(dtype.itemsize * v for v in (stride, 1, ld))
            return ndarray(np.ndarray((batch, rows, columns), dtype, buffer.bytes, offset, strides), buffer)
    raise KernelError(f"a matrix product reaches beyond an allocation: {batch} of {rows} x {columns}, {ld} apart")


class RawModule:
    """Kernels, built at the first `get_function`."""

    def __init__(self, *, code, options=()):
        self.code, self.options = code, tuple(options)

    def get_function(self, name):
        module = host.module(self.code, self.options, emulator.mode)
        if self not in emulator.modules:
            emulator.modules.append(self)
        if name not in module.signatures:
            raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")
        return lambda grid, block, args: _launch(module, name, grid, block, args)


class CUDADriverError(RuntimeError):
    """As in cupy.cuda.driver."""


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
    launches = emulator.counts["launches"] = emulator.counts["launches"] + 1
    emulator.counts[name] += 1
    ranges = []
    if module.checked:
        ranges = [(a._array.ctypes.data, a.nbytes, a._written().ctypes.data) for _, a in arrays if a.size]
    order = emulator.order if emulator.order is not None else launches % 3 and launches
    module.launch(name, grid, block, values, order, ranges)
    for p, a in arrays:
        if not a._buffer.intact():
            raise KernelError(f"{name} wrote beyond the allocation of {p.name}")
    emulator.report_damage()


def _argument(what, p, a):
    """One argument as ctypes passes it, if it is of exactly the parameter's type."""
    if p.pointer:
        if _plain(a).dtype != p.dtype:
            raise KernelError(f"{what}: an array of {a.dtype} for {p.type}*")
        if not a.flags.c_contiguous:
            raise KernelError(f"{what}: an array {a.shape} that is not C-contiguous")
        return ctypes.c_void_p(a._array.ctypes.data)
    if type(a) in (int, float):  # cupy passes 8 bytes for either
        a = np.dtype(type(a)).type(a)
    if getattr(a, "dtype", None) != p.dtype or np.ndim(a):
        raise KernelError(f"{what}: a scalar of {getattr(a, 'dtype', type(a))} for {p.type}; pass np.{p.dtype}")
    return (ctypes.c_char * p.dtype.itemsize).from_buffer_copy(a.tobytes())


class MemoryPool:
    """cupy's pool; here a freed block is never used again."""

    def free_all_blocks(self):
        pass

    def used_bytes(self):
        return emulator.used

    def total_bytes(self):
        return emulator.used


class Device:
    """The emulated device."""

    def __init__(self, device=None):
        get_device_count()

    compute_capability = "80"
    mem_info = property(lambda self: (emulator.limit - emulator.used, emulator.limit))


def get_device_count():
    if not emulator.devices:
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return emulator.devices


def get_default_memory_pool():
    return MemoryPool()


runtime = types.ModuleType("cupy.cuda.runtime")
runtime.getDeviceCount, runtime.CUDARuntimeError = get_device_count, CUDARuntimeError
runtime.runtimeGetVersion = runtime.driverGetVersion = lambda: 13000
runtime.getDeviceProperties = lambda device: {
    "name": b"emulated", "multiProcessorCount": 4, "totalGlobalMem": emulator.limit, "major": 8, "minor": 0,
}  # fmt: skip
cuda = types.ModuleType("cupy.cuda")
cuda.runtime, cuda.Device, cuda.cublas = runtime, Device, Cublas("cupy.cuda.cublas")
cuda.device = types.ModuleType("cupy.cuda.device")
cuda.device.get_cublas_handle = lambda: 1
cuda.memory = types.ModuleType("cupy.cuda.memory")
cuda.memory.OutOfMemoryError = OutOfMemoryError


def install():
    """Be `cupy` in this process."""
    sys.modules["cupy"] = sys.modules[__name__]
    for module in (cuda, runtime, cuda.memory, cuda.cublas, cuda.device):
        sys.modules[module.__name__] = module
