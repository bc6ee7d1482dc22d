"""One side in a process of its own, with its own imports and thread pools; idle while another side has its turn.

The benchmark asks for one thing at a time over a pipe (class Worker); the process ``python -m benchmarks.worker NAME
BACKEND THREADS`` answers (`serve`). The number of threads is set before anything is imported, by environment variables
and, below all cores, by the cores that the process may use.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time

THREAD_VARIABLES = ("OMP", "MKL", "OPENBLAS", "NUMBA")
PAUSE = 0.02  # seconds; OpenMP's threads go on spinning for some milliseconds after their work
LONG = 2000  # milliseconds of trying one formulation
ENOUGH = 10_000  # milliseconds of one run that need not be measured again, to choose by or where another is faster
AWAKE = 50  # milliseconds of the same work that go untimed before what is timed
PACE = 4  # what is this many times slower than the best is timed twice at most


class WorkerError(Exception):
    """A side could not do what it was asked: says why in one line; `side` is its name."""

    def __init__(self, side, why):
        super().__init__(why)
        self.side = side


class Worker:
    """A side in a process of its own; use it as a context manager.

    Parameters
    ----------
    name : str
        Of the side.
    backend : "cpu" or "gpu"
    threads : int
    environment : dict, optional
        More variables.
    """

    def __init__(self, name, backend, threads, environment=None):
        env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", PYTHONWARNINGS="ignore", PYTHONFAULTHANDLER="1")
        env |= {f"{library}_NUM_THREADS": str(threads) for library in THREAD_VARIABLES}
        env |= {"NPROC": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if backend == "cpu":
            env |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        self.name = name
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed in __exit__)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, backend, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=env | (environment or {}),
        )

    def ask(self, method, *args):
        """Send a request; its answer is to be taken by `answer` before the next."""
        with contextlib.suppress(BrokenPipeError):  # `answer` says why it died
            pickle.dump((method, args), self.process.stdin)
            self.process.stdin.flush()

    def answer(self):
        """Wait for the answer; raise WorkerError if it is a failure."""
        try:
            result, error = pickle.load(self.process.stdout)
        except EOFError:
            self.log.seek(0)
            last = ["", *(line for line in self.log.read().splitlines() if line.strip())][-1]
            raise WorkerError(self.name, f"its process ended with status {self.process.wait()}: {last}") from None
        if error:
            raise WorkerError(self.name, error)
        return result

    def __call__(self, method, *args):
        """Ask and wait."""
        self.ask(method, *args)
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin = self.process.stdout = None
        self.log.close()


def time_rounds(workers, rounds, repeats=1, peers=()):
    """Milliseconds, one list per worker; the workers take turns.

    Of `peers`, one that is PACE times slower than another takes part in two rounds only, or in one of ENOUGH.
    """
    times = {name: [] for name in workers}
    for i in range(rounds):
        fastest = min((min(times[name]) for name in peers if times[name]), default=0)
        for name, worker in workers.items():
            done = i >= 2 or (i == 1 and min(times[name]) > ENOUGH)
            if done and name in peers and min(times[name]) > PACE * fastest:
                continue
            time.sleep(PAUSE)
            times[name].append(worker("time", repeats))
    return times


class Servant:
    """What a side's process can be asked for."""

    def __init__(self, name, backend, threads):
        from .sides import SIDES

        self.side = importlib.import_module(f"benchmarks.sides.{SIDES[name][0]}").Side(name, backend, threads)
        self.idle = memory("VmRSS")
        self.work, self.runs, self.took = None, {}, {}

    def hello(self):
        """The side's version."""
        return self.side.version

    def device(self):
        """The name of the accelerator that this side computes on, or None."""
        return self.side.device

    def peak(self):
        """GFLOP/s of a large matrix product."""
        return self.side.peak()

    def formulations(self, kind):
        """The ways this side knows to do a kind of work."""
        return self.side.formulations(kind)

    def prepare(self, work, only=None):
        """Do a work once in each formulation, from the same weights: {how: result}, the STEPS losses of a training."""
        from .works import STEPS

        self.work, self.runs, results = work, {}, {}
        x, labels = work.inputs()
        for how in [only] if only else self.side.formulations(work.kind):
            self.runs[how] = run = self.side.prepare(work, how, work.network(), x, labels)
            repeats = STEPS if work.kind == "train" else 1
            result, start = [], time.perf_counter()
            for _ in range(repeats):
                result.append(self.side.numpy(run()))
            self.took[how] = 1000 * (time.perf_counter() - start) / repeats
            results[how] = [float(loss[0]) for loss in result] if work.kind == "train" else result[0]
        return results

    def choose(self):
        """Keep the fastest formulation alone; return its name and the milliseconds of all."""
        best = {}
        for how, run in self.runs.items():
            tries = [self.took[how] if self.took[how] > ENOUGH else self.side.time(run, 1)]
            while len(tries) < 5 and sum(tries) < LONG and tries[0] < PACE * min(best.values(), default=tries[0]):
                tries.append(self.side.time(run, 1))
            best[how] = min(tries)
        fastest = min(best, key=best.get)
        self.runs, self.took = {fastest: self.runs[fastest]}, best
        self.forget_peak()
        return fastest, best

    def time(self, repeats):
        """Milliseconds of the work in the formulation that was chosen."""
        ((how, run),) = self.runs.items()
        awake = AWAKE if self.took[how] > 10 * AWAKE else 0
        while awake < AWAKE:  # after a pause, cores are slow to come back, and caches hold another side's data
            awake += self.side.time(run, 1)
        return self.side.time(run, repeats)

    def first_step(self, work):
        """Do a work once, in the first formulation, and nothing more."""
        x, labels = work.inputs()
        how = self.side.formulations(work.kind)[0]
        self.side.numpy(self.side.prepare(work, how, work.network(), x, labels)())

    def memory(self):
        """Peak memory in bytes since the choice: of the accelerator, or over that of the process after its imports."""
        return self.side.device_memory() if self.side.device else memory("VmHWM") - self.idle

    def forget_peak(self):
        """Give freed memory back to the system, and let the peak start again from what is in use."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # VmHWM
        self.side.free_device_memory()

    def training_memory(self, work, warm_up, how):
        """Peak memory in bytes of training steps, over the same process after a few of a small network."""
        self.prepare(warm_up, how)
        self.runs = {}
        self.forget_peak()
        self.idle = memory("VmRSS")
        self.prepare(work, how)
        return self.memory()


def memory(key):
    """VmRSS, the resident memory of this process, or VmHWM, its peak, in bytes."""
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith(key + ":"))


def serve(name, backend, threads):
    """Answer requests from standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    cores = sorted(os.sched_getaffinity(0))
    if threads < len(cores):
        os.sched_setaffinity(0, cores[:threads])
    servant = None
    while True:
        try:
            method, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        result = error = None
        try:
            servant = servant or Servant(name, backend, threads)
            result = getattr(servant, method)(*args)
        except Exception as e:  # every failure is the benchmark's to report
            said = str(e).strip().split("\n")
            error = f"{type(e).__name__}: {said[-1].strip() if said[0].endswith(':') else said[0]}"
        pickle.dump((result, error), answers)
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
