"""CUDA C source to a shared library of the host, and launches of its kernels on the CPU."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tinycnn-emulation"
COMPILER = shutil.which("g++")
# "source": kernels.cu itself; "asan": the same under AddressSanitizer; "ptx": NVRTC's PTX
MODE = os.environ.get("TINYCNN_EMULATION", "source")
FLAGS = ["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-march=native"]
WARNINGS = ["-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-sign-compare"]
SANITIZE = ["-O1", "-g", "-fsanitize=address"]
ADDED = os.environ.get("CXXFLAGS", "").split()
DTYPES = {
    "float": np.float32, "double": np.float64, "int": np.int32, "unsigned": np.uint32, "unsigned int": np.uint32,
    "long long": np.int64, "unsigned long long": np.uint64, "unsigned char": np.uint8,
}  # fmt: skip


class KernelError(Exception):
    """A kernel or its launch did what would be wrong, or undefined, on a device."""


class Parameter(NamedTuple):
    """One parameter of a kernel; `type` as in C, without const, restrict and asterisk."""

    name: str
    type: str
    pointer: bool
    const: bool
    restrict: bool

    @property
    def dtype(self):
        return np.dtype(DTYPES[self.type])


def without_comments(source):
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.S)


def signatures(source, macros):
    """{kernel: [Parameter]}; `macros` says what `real` is."""
    found = {}
    for name, text in re.findall(r"__global__\s+void\s+(\w+)\s*\(([^)]*)\)", without_comments(source)):
        found[name] = []
        for declaration in text.split(","):
            words = declaration.replace("*", " * ").split()
            kind = " ".join(w for w in words[:-1] if w not in ("const", "*", "__restrict__"))
            flags = (word in words for word in ("*", "const", "__restrict__"))
            found[name].append(Parameter(words[-1], macros.get(kind, kind), *flags))
    return found


def with_barriers(source):
    """Names of the functions that reach a barrier, themselves or through a function that they call."""
    parts = re.split(r"^\}", without_comments(source), flags=re.M)  # functions end with a brace in column 0
    bodies = {m[1]: part[m.end() :] for part in parts for m in re.finditer(r"(\w+)\s*\([^;{}]*\)\s*\{", part)}
    found, reached = set(), {"__syncthreads"}
    while reached:
        found |= reached
        reached = {f for f, b in bodies.items() if set(re.findall(r"\w+", b)) & found} - found
    return found


def build(text, flags):
    """Compile C++ into a shared library, or take it from the cache; return its path."""
    headers = "".join(p.read_text() for p in sorted(HERE.glob("*.h")))
    digest = hashlib.sha256("\0".join([text, headers, *flags]).encode()).hexdigest()[:20]
    library = CACHE / f"{digest}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            unfinished = Path(folder) / "library.so"
            command = [COMPILER, *flags, "-I", str(HERE), "-x", "c++", "-", "-o", str(unfinished)]
            run = subprocess.run(command, input=text, text=True, capture_output=True)
            if run.returncode:
                raise KernelError(f"g++ refuses the kernels:\n{run.stderr}")
            unfinished.replace(library)  # atomic: another process may build the same
    return library


class Module:
    """The kernels of one source, ready to run on the CPU.

    Parameters
    ----------
    source : str
        CUDA C.
    options : tuple of str
        As for NVRTC; its macros (``-Dreal=float``) are used, other options do not change what is computed here.
    mode : "source", "asan" or "ptx"
    """

    def __init__(self, source, options=(), mode=MODE):
        macros = dict(o[2:].split("=", 1) for o in options if o.startswith("-D"))
        self.signatures = signatures(source, macros)
        self.checked = mode == "ptx"  # every access to memory is checked, which needs `ranges`
        if self.checked:
            from . import nvrtc, ptx

            text = ptx.translate(nvrtc.compile(source, "compute_80", options), self.signatures)
            flags = [*FLAGS, "-fno-strict-aliasing", "-fwrapv", "-w"]
        else:
            text = self._wrap(source, with_barriers(source))
            defines = [o for o in options if o.startswith("-D")]
            flags = [*FLAGS, *WARNINGS, *defines, *(SANITIZE if mode == "asan" else ())]
        self.library = ctypes.CDLL(str(build(text, [*flags, *ADDED])))

    def _wrap(self, source, barriers):
        """The source between the shim and one launcher for each kernel."""
        launchers = []
        for name, parameters in self.signatures.items():
            arguments = ", ".join(
                f"*({p.type}{'*' if p.pointer else ''}*)arguments[{i}]" for i, p in enumerate(parameters)
            )
            launchers.append(launcher(name, f"{name}({arguments});", name in barriers))
        return f'#include "shim.h"\n#line 1 "kernels.cu"\n{source}\n' + "\n".join(launchers)

    def launch(self, name, grid, block, arguments, order=0, ranges=()):
        """Run one kernel to its end.

        arguments : list of ctypes values
        order : int
            0: threads and blocks in ascending order; else the seed of a random order.
        ranges : list of (address, bytes, address of one byte for each that says whether it was written)
            What a checked kernel may touch.
        """
        if self.checked:
            flat = [v for r in ranges for v in r]
            self.library.set_ranges((ctypes.c_uint64 * len(flat))(*flat), len(ranges))
        function = getattr(self.library, "launch_" + name)
        function.restype = ctypes.c_char_p
        size3 = ctypes.c_uint * 2
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        fault = function(size3(*grid), size3(*block), order, pointers)
        if fault:
            raise KernelError(f"{name}: {fault.decode()}")


def launcher(name, call, barriers, before=""):
    """C++ of the exported function that runs `before`, then `call` for every thread."""
    return (
        f'extern "C" __attribute__((visibility("default"))) const char* launch_{name}(\n'
        "    const unsigned* grid, const unsigned* block, unsigned order, void** arguments) {\n"
        f"  {before}return emulator::launch(grid, block, order, {str(barriers).lower()}, [=] {{ {call} }});\n}}"
    )


def sanitizer_environment():
    """The environment variables of a process that runs kernels under AddressSanitizer; its report goes to stderr."""
    library = subprocess.run([COMPILER, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return {"TINYCNN_EMULATION": "asan", "LD_PRELOAD": library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}


@functools.cache
def module(source, options, mode=MODE):
    """One `Module` for each source: building and loading it once is enough."""
    return Module(source, options, mode)
