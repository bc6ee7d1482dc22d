"""The parts of studies on Dask's workers: on this machine, or wherever a scheduler has some.

A part is a task: it reads files of its study's folder and writes others. Where all workers see the folder, a part that
loses its worker goes on from its checkpoint on another one; where they do not, the files travel through the scheduler,
and such a part begins anew. Data sets that are not embedded must lie on each worker's machine under the same path.

One part is done at a time in each worker's process, with its share of the machine's cores: as many threads as there
are cores for each worker. Start workers one by one as ``dask worker tcp://host:8786 --nthreads 1 --no-nanny``; with a
nanny, set the two variables of `MEMORY`, without which they are a quarter slower.
"""

import logging
import os
import sys
import tempfile
import threading
import uuid
import warnings
from dataclasses import replace
from pathlib import Path

from tinycnn import InputError, files

from . import fingerprint
from .networks import told
from .run import TRAININGS, Run
from .table import STAGES

AHEAD = 2  # parts a worker that the scheduler knows of: more would fill its memory with their files
# Dask has its workers give memory back to the system at once, which costs a quarter of the time; these are glibc's own.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
ONE = threading.Lock()  # a part at a time in a process: matplotlib's drawing is not safe in several threads


class Pool:
    """Parts are done by Dask's workers; a context that closes what it started."""

    def __init__(self, options):
        try:
            import distributed
        except ImportError as e:
            raise InputError('--workers needs Dask: pip install "tinycnn[cluster]"') from e
        self.distributed, self.where = distributed, options.workers
        self.options = replace(
            options,
            out=options.out.resolve(),
            data_dir=str(Path(options.data_dir).expanduser().resolve()),
            images=options.images and str(Path(options.images).expanduser().resolve()),
            download=False,
        )
        self.parts, self.waiting = {}, []

    def __enter__(self):
        self.cluster = None
        if self.where.startswith("local:"):
            count = self.where.removeprefix("local:")
            if not (count.isdecimal() and 1 <= int(count) <= 1000):
                raise InputError(f"--workers {self.where}: expected local:N with a number of workers")
            import dask.config

            where = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
            with dask.config.set({"distributed.nanny.pre-spawn-environ": MEMORY}):
                self.cluster = self.distributed.LocalCluster(n_workers=int(count), **where)
            self.client = self.distributed.Client(self.cluster)
        elif self.where.startswith(("tcp://", "tls://")):
            try:
                self.client = self.distributed.Client(self.where, timeout="10s")
                self.client.wait_for_workers(1, timeout=60)
            except (OSError, TimeoutError) as e:
                raise InputError(f"--workers {self.where}: no scheduler with workers answers there ({e})") from e
        else:
            raise InputError(f"--workers {self.where}: expected local:N or a scheduler's address, tcp://host:port")
        self.lanes = len(self.client.scheduler_info(n_workers=-1)["workers"])
        print(f"{self.lanes} workers, dashboard at {self.client.dashboard_link}", flush=True)
        self._same_code()
        self._shared_folder()
        return self

    def __exit__(self, *_):
        self.client.cancel(list(self.parts))
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()

    def _same_code(self):
        """Raise unless all workers compute with this very code."""
        ours = fingerprint.of_code("viz.study.cluster")
        for worker, theirs in self.client.run(fingerprint.of_code, "viz.study.cluster").items():
            if theirs != ours:
                raise InputError(f"--workers {self.where}: {worker} has another version of this program; update it")

    def _shared_folder(self):
        """See whether all workers see the output folder."""
        with files.temporary_path(self.options.out) as token:
            self.shared = all(self.client.run(os.path.exists, str(token)).values())
        if not self.shared:
            print("workers do not see the output folder: files travel through the scheduler", flush=True)

    def submit(self, order, study, part):
        """Take a part; those of a lower `order` come first."""
        self.waiting.append((order, study, part))

    def _send(self, order, study, part):
        """Hand a part to the scheduler, with the files that it needs if workers do not see them."""
        what = None if self.shared else _read(study, part)
        hosts = {}
        for worker in self.client.scheduler_info(n_workers=-1)["workers"].values():
            hosts[worker["host"]] = hosts.get(worker["host"], 0) + 1
        key = f"{study.info.name}-seed-{study.seed}-{part}-{uuid.uuid4().hex[:8]}"
        args = (self.options, study.name, study.seed, str(study.folder.resolve()), part, what, hosts)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")  # the files; nothing else holds them
            future = self.client.submit(do, *args, key=key, priority=-order, pure=False)
        self.parts[future] = study, part

    def next(self):
        """Wait for a part; return (study, part, (seconds, what, remarks) or None, what went wrong or None)."""
        self.waiting.sort(key=lambda one: one[0])
        while self.waiting and len(self.parts) < AHEAD * self.lanes:
            self._send(*self.waiting.pop(0))
        done = self.distributed.wait(list(self.parts), return_when="FIRST_COMPLETED").done
        future = min(done, key=lambda f: f.key)
        study, part = self.parts.pop(future)
        error = future.exception()
        if error is not None:
            return study, part, None, self._told(error)
        found, written = future.result()
        _write(study.folder, part, written)
        return study, part, found, None

    def _told(self, error):
        """What went wrong, in one line."""
        if isinstance(error, self.distributed.KilledWorker):
            return "its worker was lost again and again (out of memory?)"
        return told(error)

    @property
    def busy(self):
        """Whether there is something to wait for."""
        return bool(self.parts or self.waiting)


def do(options, name, seed, folder, part, what, hosts):
    """Do a part in a worker; return its outcome, and the files it wrote if the folder is not shared."""
    import scipy.linalg.cython_blas  # noqa: F401  (loads SciPy's own BLAS, so that the limit reaches it)
    from distributed import get_worker
    from threadpoolctl import threadpool_limits

    if "numba" not in sys.modules:  # it reads its number of threads when it is imported
        address = get_worker().address
        here = hosts.get(address.split("://")[-1].rsplit(":", 1)[0], 1)
        os.environ.setdefault("NUMBA_NUM_THREADS", str(max(1, _cores() // here)))
    with ONE, threadpool_limits(1, user_api="blas"):
        if what is None:
            return Run(options, name, seed, folder).do(part), {}
        with tempfile.TemporaryDirectory() as own:
            _write(Path(own), "", what)
            found = Run(options, name, seed, own).do(part)
            names = [p.relative_to(own) for p in Path(own).rglob("*") if p.is_file() and p.parent.name != ".locks"]
            return found, {str(n): raw for n in names if (raw := (Path(own) / n).read_bytes()) != what.get(str(n))}


def _cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _read(study, part):
    """The files that a part needs of its study's folder: {name: bytes}."""
    names = [f"checkpoint-{study.options.recipe if part == 'training' else part}.safetensors"]
    if part in STAGES:
        names = ["weights.safetensors", *(p.name for p in study.folder.glob("history-*.json"))]
        names += [f"checkpoint-{p}.safetensors" for name in STAGES[part].uses for p in TRAININGS.get(name, ())]
    paths = [study.folder / name for name in names]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _write(folder, part, written):
    """Write files into a study's folder, a stage's result last; older ones of the stage go."""
    for name in sorted(written, key=lambda name: name.endswith("result.json")):
        files.write_bytes(folder / name, written[name])
    if part in STAGES and written:
        for path in (folder / part).iterdir():
            if str(path.relative_to(folder)) not in written and not path.name.startswith("."):
                path.unlink()
