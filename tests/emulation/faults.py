"""Do the checks see faults? Plants them one by one in copies of the backend and reports which check sees which.

    python -m tests.emulation.faults [--out FILE] [--only WORD]      # a table in markdown; some minutes on two cores

The checks: every primitive with the launches checked and red zones around allocations; its results against the
reference's; the bytes of the results in three orders of blocks and threads; NVRTC; its PTX with every access checked;
AddressSanitizer. What passes all of these meets the test files of the primitives and of the backend.
"""

# ruff: noqa: E501 (the text that a fault replaces stands in one piece)

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import host

ROOT = Path(__file__).resolve().parents[2]
CU, PY = "kernels.cu", "gpu.py"


class Fault(NamedTuple):
    """Text that stands once in a file of the backend, and what replaces it."""

    what: str
    file: str
    old: str
    new: str


FAULTS = [
    Fault("im2col: no right border", CU, "h < H && v >= 0 && v < W ? line", "h < H && v >= 0 ? line"),
    Fault("im2col: no bound on the window's elements", CU, "    if (q >= length) return;\n", ""),
    Fault("im2col: rows and columns of the window swapped", CU, "int i = q / (kw * C), j = q / C % kw, k",
          "int j = q / (kw * C), i = q / C % kw, k"),
    Fault("im2col: column stride for rows", CU, "h = row % OH * sh - top + i;", "h = row % OH * sw - top + i;"),
    Fault("rows beyond those of the largest grid left out", CU, "for (int row = blockIdx.y; row < (rows); row += gridDim.y)",
          "if (int row = blockIdx.y; row < (rows))"),
    Fault("im2col: padding before and after swapped", PY, "*x.shape, OH, OW, *kernel, *stride, top, left",
          "*x.shape, OH, OW, *kernel, *stride, left, top"),
    Fault("col2im: the last window left out", CU, "int r = (h + before) / s + 1; return", "int r = (h + before) / s; return"),
    Fault("col2im: wrong place in the window", CU, "place = (h + top - r * sh) * kw + v + left - c * sw;",
          "place = (h + top - r * sh) * kw + v - c * sw;"),
    Fault("grid-stride loop: one element too many", CU, "i < (n); i += (long long)gridDim.x", "i <= (n); i += (long long)gridDim.x"),
    Fault("grid-stride loop: every block does the same", CU, "for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;",
          "for (long long i = threadIdx.x;"),
    Fault("relu: all blocks write the same elements (a race of equal values)", CU, "FOR_EACH(i, n) y[i] = x[i] <= 0 ? 0 : x[i];",
          "for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i] <= 0 ? 0 : x[i];"),
    Fault("multiply: through shared memory without a barrier", CU, "FOR_EACH(i, n) out[i] = a[i] * b[i];",
          "__shared__ real s[256];\n    FOR_EACH(i, n) {\n        s[threadIdx.x ^ 1] = a[(i ^ 1) < n ? i ^ 1 : i];\n"
          "        out[i] = (i ^ 1) < n ? s[threadIdx.x] * b[i] : a[i] * b[i];\n    }"),
    Fault("add_bias: barrier in a loop that threads leave at different times", CU, "FOR_EACH(i, n) y[i] += b[i % K];",
          "FOR_EACH(i, n) {\n        y[i] += b[i % K];\n        __syncthreads();\n    }"),
    Fault("pool: last of equal values wins", CU, "if (value > best || (", "if (value >= best || ("),
    Fault("pool: switch counts columns first", CU, "where = i * kw + j;", "where = j * kw + i;"),
    Fault("pool: window not cut at the bottom", CU, "i1 = min(p.H - h, p.kh);", "i1 = p.kh;"),
    Fault("pool: usual window not asked whether it fits", CU, "if (KH && i1 - i0 == KH && j1 - j0 == KW)", "if (KH && i1 - i0 == KH)"),
    Fault("fused pool: compares before the bias", CU, "return !rectify ? x : x + bias <= 0 ? 0 : x + bias; }", "return x; }"),
    Fault("fused pool: compares before the ReLU", CU, "return !rectify ? x : x + bias <= 0 ? 0 : x + bias; }", "return x + bias; }"),
    Fault("fused pool: bias of another channel", CU, "real bias = rectify ? b[k] : 0;", "real bias = rectify ? b[q % p.OW] : 0;"),
    Fault("unpool: overwrites instead of adding", CU, "* sw) sum += signal[at];", "* sw) sum = signal[at];"),
    Fault("unpool: reads windows before the first", CU, "if (r - d < 0 || r - d >= p.OH", "if (r - d >= p.OH"),
    Fault("unpool: switches of another image", CU, "switches + n % images * size", "switches + n / images * size"),
    Fault("unpool: number of threads from another size", PY, "-(-(W + left) // stride[1])", "-(-W // stride[1])"),
    Fault("unpool: kernel height and width swapped", PY, "(len(switches), N, H, W, C, OH, OW, *window,",
          "(len(switches), N, H, W, C, OH, OW, *window[::-1],"),
    Fault("winograd: writes beyond the image's right", CU, "if (h < H && v < W) image", "if (h < H) image"),
    Fault("winograd: wrong coefficient", CU, "v[0] = 4 * d[0] - 5 * d[2] + d[4]", "v[0] = 4 * d[0] - 4 * d[2] + d[4]"),
    Fault("winograd: weights not flipped on the way back", CU, "w[(flip ? 8 - i : i) * size + q]", "w[i * size + q]"),
    Fault("winograd: rows' padding for columns", PY, "*out.shape[1:3], top, left)", "*out.shape[1:3], top, top)"),
    Fault("winograd: padding of the way there on the way back", PY, "(2 - top, 2 - left) if flip else (top, left)", "(top, left)"),
    Fault("relu_backward: mask forgotten", CU, "(y[i] > 0 || !mask) && ", ""),
    Fault("dropout: counter starts at 0", CU, "(unsigned long long)(i + 1) * 0x9E", "(unsigned long long)i * 0x9E"),
    Fault("column sums: last span runs on", CU, "last = first + span < rows ? first + span : rows;", "last = first + span;"),
    Fault("loss: the gradient is not that of the mean", CU, "- (k == labels[n])) / N;", "- (k == labels[n]));"),
    Fault("adam: second moment of the old gradient", CU, "v[i] + gain2 * (g[i] * g[i] - v[i])", "v[i] + gain2 * (g[i] - v[i])"),
    Fault("adam: std::sqrt, which a device does not have", CU, "(sqrt(v1", "(std::sqrt(v1"),
    Fault("gather: rows of the batch, not of the data", CU, "image = images + rows[n] * size;",
          "image = images + n * size;"),
    Fault("offsets of images overflow an int", CU, "long long out = (long long)row * p.OW * p.C + q;",
          "long long out = row * p.OW * p.C + q;"),
    Fault("launch: length as int for long long", PY, "*args, np.int64(n))", "*args, int(n))"),
    Fault("launch: float as Python passes it", PY, "kinds = {int: np.int32, float: self.dtype.type}", "kinds = {int: np.int32}"),
    Fault("launch: threshold as int64", PY, "np.uint64(rate * 2**32)", "np.int64(rate * 2**32)"),
    Fault("launch: arguments swapped", PY, '"relu_backward", S, y.size, dy, y, dx', '"relu_backward", S, y.size, dy, dx, y'),
    Fault("launch: two sizes swapped", PY, "x, points, *x.shape,", "x, points, len(x), x.shape[2], x.shape[1], x.shape[3],"),
    Fault("launch: more blocks than a grid may have", PY, "min(rows, 65535)), (threads,)", "rows), (threads,)"),
    Fault("launch: labels stay on the host", PY, "labels = self.put(np.asarray(labels, np.int64)) if", "labels = np.asarray(labels) if"),
    Fault("product: leading dimension of the other operand", PY, "a.data.ptr, a.shape[1], beta", "a.data.ptr, b.shape[1], beta"),
    Fault("product: transposed the wrong one", PY, "(handle, int(tb), int(ta), N, M, K", "(handle, int(ta), int(tb), N, M, K"),
    Fault("scratch: never grows", "workspace.py", "if found is None or found.size < size or", "if found is None or"),
    Fault("scratch: weights of the first chunk alone", PY, "dw.reshape(-1, K), ta=True, beta=int(some.start > 0))",
          "dw.reshape(-1, K), ta=True)"),
    Fault("scratch: stale sums added", PY, "self._gemms(v, s, sums, ta=True, beta=int(some.start > 0))",
          "self._gemms(v, s, sums, ta=True, beta=1)"),
    Fault("zeros that are not", PY, "        a.fill(0)\n", ""),
    Fault("loss read at every step", PY, "        loss[...] = mean\n", "        loss.fill(mean.get()[0])\n"),
]  # fmt: skip
COLUMNS = ["launches, red zones", "results", "orders", "NVRTC", "PTX", "ASan", "test files"]
REPORTED = r"KernelError|TypeError|CUDADriverError|AttributeError|CUDARuntimeError"
ORDERS = "the order of threads"  # of the test's message
ACCESS = r"KernelError: .*(race|out of bounds|uninitialised|misaligned|ever written|divergent)"


def folder_with(fault, parent):
    """A copy of the project with the fault planted (with None: without one)."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    for name in ("tinycnn", "viz", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "run_all.py"):
        shutil.copy(ROOT / name, folder)
    if fault:
        path = folder / "tinycnn" / "ops" / fault.file
        path.write_text(planted(fault))
    return folder


def planted(fault):
    """The text of the fault's file with the fault in it."""
    text = (ROOT / "tinycnn" / "ops" / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.what}: its text stands {text.count(fault.old)} times in {fault.file}, not once")
    return text.replace(fault.old, fault.new)


def pytest(folder, *arguments, **environment):
    """(whether all passed, what was printed) of a run of pytest: a long line for each failure."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *arguments]
    fixed = {"TINYCNN_EMULATION": "source", "CXXFLAGS": "-O0", "OMP_NUM_THREADS": "1", "COLUMNS": "2000"}
    environment = os.environ | fixed | environment
    try:
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    except subprocess.TimeoutExpired:
        return False, "hangs"
    return run.returncode == 0, run.stdout + run.stderr


def seen_by(fault, parent):
    """The columns whose checks see the fault."""
    folder, found = folder_with(fault, parent), set()
    bundle = "tests/test_emulation.py", "-k"
    passed, text = pytest(folder, *bundle, "every_kernel and float32")
    for mode, message in re.findall(r"FAILED .*\[(source|ptx).*?\] - (.*)", text):
        if mode == "source":
            found.add(COLUMNS[0] if re.search(REPORTED, message) else "orders" if ORDERS in message else "results")
        elif "NVRTC refuses" in message or re.search(ACCESS, message):
            found.add("NVRTC" if "NVRTC" in message else "PTX")
    if not passed and not found:
        found.add("results")  # the process ended, or hangs
    passed, text = pytest(
        folder, "--capture=no", *bundle, "every_kernel and asan and float32", **host.sanitizer_environment()
    )
    if "AddressSanitizer" in text:
        found.add("ASan")
    if not found:
        files = "tests/test_ops.py", "tests/test_gpu.py"
        passed, text = pytest(folder, "-x", *files, "-m", "gpu", "-k", "not main_job")
        found |= set() if passed else {"test files"}
    shutil.rmtree(folder)
    return found


def main():
    """Plant the faults, two at a time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument("--only", default="", help="faults whose description has this word")
    args = parser.parse_args()
    faults = [f for f in FAULTS if args.only in f.what]
    for fault in faults:
        planted(fault)
    lines = [f"| fault | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    with tempfile.TemporaryDirectory() as parent, ThreadPoolExecutor(2) as pool:
        if sound := seen_by(None, parent):
            sys.exit(f"without a fault, these see one: {sound}")
        found = []
        for fault, columns in zip(faults, pool.map(lambda f: seen_by(f, parent), faults)):
            found.append(columns)
            lines.append(f"| {fault.what} | {' | '.join('x' if c in columns else '' for c in COLUMNS)} |")
            print(lines[-1], flush=True)
    missed = [f.what for f, columns in zip(faults, found) if not columns]
    lines += ["", f"{len(faults) - len(missed)} of {len(faults)} are seen. Not seen: {'; '.join(missed) or 'none'}."]
    print(*lines, sep="\n")
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
