"""NVIDIA's compiler for CUDA C. It needs neither a device nor a driver: PyPI package nvidia-cuda-nvrtc."""

import ctypes
import functools
import site
import sysconfig
from pathlib import Path

from .host import KernelError

WANTED = (75, 80, 90, 100, 120)


def find():
    """The path of the library, or None."""
    for folder in dict.fromkeys([sysconfig.get_paths()["purelib"], *site.getsitepackages()]):
        for path in sorted(Path(folder).glob("nvidia/*/lib/libnvrtc.so.*")):
            if ".alt." not in path.name:
                return path
    return None


@functools.cache
def _library():
    path = find()
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins))  # NVRTC asks for it by name and finds it loaded
    return ctypes.CDLL(str(path))


def _call(function, *arguments):
    status = getattr(_library(), function)(*arguments)
    if status:
        raise RuntimeError(f"{function} returned {status}")


def architectures():
    """Those of `WANTED` that this version knows, as numbers: 75 is sm_75."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", known)
    return [a for a in WANTED if a in known]


def compile(source, architecture, options=()):
    """Machine code for "sm_80" and so on (bytes), PTX for "compute_80" (str); KernelError with the compiler's log."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in options)]
    failed = _library().nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))

    def result(what):
        _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        _call(f"nvrtcGet{what}", program, text)
        return text.raw

    try:
        if failed:
            raise KernelError(f"NVRTC refuses the kernels:\n{result('ProgramLog').decode()}")
        return result("CUBIN") if architecture.startswith("sm_") else result("PTX").decode().rstrip("\0")
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))
