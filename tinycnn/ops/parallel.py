"""How the CPU's kernels share the cores: fixed parts of the work, handed to threads as they become free.

A kernel is compiled for one thread, releases the interpreter's lock, and does part `part` of `parts`. The parts do not
depend on the number of threads and each owns what it writes, so neither do the results. (Numba's own `prange` would do
the same, but takes three times as long to compile.) While kernels run, the BLAS keeps to the thread that calls it.

The number of threads is Numba's (environment variable NUMBA_NUM_THREADS; default: all cores this process may use).
"""

import contextlib
import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
from threadpoolctl import ThreadpoolController

PARTS = 8  # pieces of a batch; sums over images are added up piece by piece
SMALL = 1 << 18

_lock = threading.RLock()
_limited = []  # not empty while the BLAS is held to one thread; for whoever has the lock


def threads():
    """Return how many threads compute."""
    return min(numba.config.NUMBA_NUM_THREADS, PARTS)


@functools.cache
def _helpers(count):
    return ThreadPoolExecutor(count, thread_name_prefix="tinycnn")


@functools.cache
def _blas():
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def single_threaded_blas():
    """Context in which every BLAS of this process keeps to the thread that calls it; free inside another."""
    with _lock:
        if _limited:
            yield
            return
        _limited.append(True)
        try:
            with _blas().limit(limits=1):
                yield
        finally:
            _limited.pop()


def run(kernel, *args, scratch=(), parts=PARTS, size=SMALL, blas=True):
    """Call ``kernel(part, parts, *own, *args)`` for every part; own: ``a[t]`` of each scratch array a, for thread t.

    Work on fewer than SMALL elements (`size`) stays with the calling thread: waking another would take longer. A
    kernel that multiplies no matrices says so (`blas`): to hold the BLAS back takes some 30 microseconds.
    """
    count = min(threads(), parts) if size >= SMALL else 1
    remaining = itertools.count()  # next() is atomic

    def work(thread):
        own = [a[thread] for a in scratch]
        while (part := next(remaining)) < parts:
            kernel(part, parts, *own, *args)

    with single_threaded_blas() if blas else contextlib.nullcontext():
        futures = [_helpers(count - 1).submit(work, t) for t in range(1, count)]
        try:
            work(0)
        finally:
            for future in futures:
                future.result()
