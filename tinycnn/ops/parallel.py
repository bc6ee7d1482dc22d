"""How the CPU's kernels share the cores: fixed parts of the work, handed to threads as they become free.

A kernel is compiled for one thread, releases the interpreter's lock, and does part `part` of `parts`. The parts do not
depend on the number of threads and each owns what it writes, so neither do the results. (Numba's own `prange` would do
the same, but takes three times as long to compile.)

The number of threads is Numba's (environment variable NUMBA_NUM_THREADS; default: all cores this process may use).
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import numba

PARTS = 8  # pieces of a batch; sums over images are added up piece by piece
SMALL = 1 << 18


def threads():
    """Return how many threads compute."""
    return min(numba.config.NUMBA_NUM_THREADS, PARTS)


@functools.cache
def _helpers(count):
    return ThreadPoolExecutor(count, thread_name_prefix="tinycnn")


def run(kernel, *args, scratch=(), parts=PARTS, size=SMALL):
    """Call ``kernel(part, parts, *own, *args)`` for every part; own: ``a[t]`` of each scratch array a, for thread t.

    Work on fewer than SMALL elements (`size`) stays with the calling thread: waking another would take longer.
    """
    count = min(threads(), parts) if size >= SMALL else 1
    remaining = itertools.count()  # next() is atomic

    def work(thread):
        own = [a[thread] for a in scratch]
        while (part := next(remaining)) < parts:
            kernel(part, parts, *own, *args)

    futures = [_helpers(count - 1).submit(work, t) for t in range(1, count)]
    try:
        work(0)
    finally:
        for future in futures:
            future.result()
