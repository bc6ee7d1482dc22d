"""What is measured beside the race: memory of training, cost per image by batch size, threads, and starts.

Each function returns {"title", "head", "rows", "data"}: a table of strings, and the numbers behind it.
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .report import spread
from .worker import Worker, WorkerError, time_rounds
from .works import Work

ROOT = Path(__file__).resolve().parent.parent
BATCHES = (20, 50, 100, 200, 400)


def memory(args, sides, note):
    """Peak memory of STL-10 training steps over the same process after a few steps of a small network."""
    work, warm_up = Work("train", "stl10", args.batch), Work("train", "cifar10", 2)
    data = {}
    for name in sides:
        try:
            with Worker(name, args.backend, args.threads) as worker:
                hows = worker("formulations", "train")
            for how in hows:
                with Worker(name, args.backend, args.threads) as worker:
                    data.setdefault(name, {})[how] = worker("training_memory", work, warm_up, how)
        except WorkerError as e:
            note(f"memory-stl10: {name} left out: {e}")
    least = {name: min(by_how.values()) for name, by_how in data.items()}
    rows = []
    for name, by_how in data.items():
        for how, size in by_how.items():
            ratio = f"{least['ours'] / size:.2f}" if name != "ours" and "ours" in least else ""
            rows.append((name, how, f"{size / 1e6:,.0f} MB", ratio))
    title = f"Peak memory of STL-10 training, batch {args.batch} (parameters, Adam's state, gradients, activations)"
    return {"title": title, "head": ("side", "formulation", "memory", "ours/side"), "rows": rows, "data": data}


def scaling(args, sides, note):
    """Our time per image by batch size, STL-10 network."""
    data, rows, lines = {}, {batch: [str(batch)] for batch in BATCHES}, []
    for kind in ("train", "infer"):
        with contextlib.ExitStack() as stack:
            workers = {batch: stack.enter_context(Worker("ours", args.backend, args.threads)) for batch in BATCHES}
            for batch, worker in workers.items():
                worker("prepare", Work(kind, "stl10", batch))
                worker("choose")
            times = time_rounds(workers, args.rounds)
        slope, constant = statistics.linear_regression(BATCHES, [statistics.median(times[batch]) for batch in BATCHES])
        lines.append(f"{kind}: {constant:.0f} ms + {slope:.2f} ms an image")
        per_image = {batch: [ms / batch for ms in times[batch]] for batch in BATCHES}
        for batch in BATCHES:
            to_100 = spread([a / b for a, b in zip(per_image[batch], per_image[100])])
            median = statistics.median(per_image[batch])
            data[f"{kind}-{batch}"] = {"ms_per_image": median, **to_100}
            rows[batch] += [f"{median:.2f}", "{ratio:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**to_100)]
    head = ("batch", "train, ms per image", "to batch 100", "infer, ms per image", "to batch 100")
    title = f"Cost per image by batch size, STL-10 network ({'; '.join(lines)})"
    return {"title": title, "head": head, "rows": list(rows.values()), "data": data}


def threads(args, sides, note):
    """Ours with one thread against all, and, to know what this machine grants, a large matrix product."""
    data, rows = {}, []

    def add(name, times):
        data[name] = gain = spread([a / b for a, b in zip(times[1], times[args.threads])])
        medians = (f"{statistics.median(ms):,.1f}" for ms in times.values())
        rows.append((name, *medians, "{ratio:.2f} ({ratio_min:.2f} to {ratio_max:.2f})".format(**gain)))

    with contextlib.ExitStack() as stack:
        workers = {n: stack.enter_context(Worker("ours", args.backend, n)) for n in (1, args.threads)}
        times = {n: [] for n in workers}
        for _ in range(args.rounds):
            for n, worker in workers.items():
                times[n].append(100_000 / worker("peak"))  # milliseconds for 100 GFLOP
        add("100 GFLOP of matrix products (NumPy's BLAS)", times)
        for model in ("mnist", "cifar10", "stl10"):
            for kind in ("train", "infer"):
                work = Work(kind, model, args.batch)
                for worker in workers.values():
                    worker("prepare", work)
                    worker("choose")
                add(work.name, time_rounds(workers, args.rounds))
    head = ("work", "1 thread, ms", f"{args.threads} threads, ms", "times as fast")
    return {"title": f"1 thread against {args.threads}", "head": head, "rows": rows, "data": data}


def start(args, sides, note):
    """Seconds from nothing to the end of a first training step, and of `run_all.py --list`."""
    work, data = Work("train", "mnist", args.batch), {}

    def first_step(name, environment=None):
        begin = time.perf_counter()
        with Worker(name, args.backend, args.threads, environment) as worker:
            worker("first_step", work)
            return time.perf_counter() - begin

    with tempfile.TemporaryDirectory() as cache:
        environment = {"NUMBA_CACHE_DIR": cache, "CUPY_CACHE_DIR": cache}
        data["ours, compiled caches empty"] = [first_step("ours", environment)]
    for name in sides:
        try:
            data[name] = [first_step(name) for _ in range(3)]
        except WorkerError as e:
            note(f"start: {name} left out: {e}")
    data["run_all.py --list"] = []
    for _ in range(4):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "run_all.py", "--list"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        data["run_all.py --list"].append(time.perf_counter() - begin)
    rows = [(what, f"{statistics.median(s):.1f} s", f"{min(s):.1f} s") for what, s in data.items()]
    title = "Starts: a new process, imports, the MNIST network, one training step"
    return {"title": title, "head": ("what", "median", "min"), "rows": rows, "data": data}


EXTRAS = {"memory-stl10": memory, "scaling": scaling, "threads": threads, "start": start}
CPU_ONLY = ("threads",)
