"""How the CPU's kernels share the cores: fixed parts of the work, handed to threads as they become free.

A kernel is compiled for one thread, releases the interpreter's lock, and does part `part` of `parts`, whatever the
number of threads; each part owns what it writes. (Numba's own `prange` takes three times as long to compile.)

The number of threads is Numba's (environment variable NUMBA_NUM_THREADS; default: all cores this process may use).

Compiled code is kept on disk where Numba finds a place: NUMBA_CACHE_DIR, beside this file, or the user's cache. Where
there is none, or no room in it, each process compiles for itself and says so once.
"""

import functools
import itertools
import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

PARTS = 8  # pieces of a batch; sums over images are added up piece by piece
SMALL = 1 << 18
UNREADABLE = OSError, EOFError, pickle.UnpicklingError  # what a cache without room, or a torn file in it, raises


def threads():
    """Return how many threads compute."""
    return min(numba.config.NUMBA_NUM_THREADS, PARTS)


class _Cache(FunctionCache):
    """Numba's, which would use compiled code again until the function's own file changes: kernels share their parts."""

    def __init__(self, function):
        super().__init__(function)
        base = self._impl.filename_base
        self._cache_file = IndexDataCacheFile(cache_path=self._cache_path, filename_base=base, source_stamp=_stamp())

    def _index_key(self, sig, codegen):
        """Without what a kernel closes over: it looks new to each process. Kernels of one factory differ in name."""
        return sig, codegen.magic_tuple()

    def load_overload(self, sig, target_context):
        """The compiled code on disk; None if there is none, or none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except UNREADABLE as e:
            _without(e)

    def save_overload(self, sig, data):
        """Keep compiled code, if there is room."""
        try:
            super().save_overload(sig, data)
        except UNREADABLE as e:
            _without(e)


@functools.cache
def _stamp():
    """Age and size of every file of this package, looked at once."""
    files = [(path, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py"))]
    return tuple((path.name, stat.st_mtime, stat.st_size) for path, stat in files)


_said = []


def _without(error):
    """Say once, on stderr unless the program logs elsewhere, why compiled code is not kept."""
    if not _said:
        _said.append(error)
        why = " ".join(str(error).split()) or type(error).__name__
        logging.getLogger("tinycnn").warning(
            "tinycnn: compiled code cannot be kept on disk, each process compiles again (%s); set NUMBA_CACHE_DIR to "
            "a folder that can be written to",
            why,
        )


def kernel(function):
    """Compile a function for one thread, without the interpreter's lock, and keep the code on disk if that can be."""
    compiled = numba.njit(nogil=True)(function)
    try:
        compiled._cache = _Cache(function)
    except (OSError, RuntimeError) as e:  # RuntimeError: Numba finds no folder that it may write to
        _without(e)
    return compiled


def inner(function):
    """Compile a part of kernels, once for all constants that it is called with: Numba takes each for a type."""
    compiled = numba.njit(function)
    resolve = compiled.get_call_template

    def get_call_template(args, kws):
        return resolve([*map(numba.types.unliteral, args)], {k: numba.types.unliteral(v) for k, v in kws.items()})

    compiled.get_call_template = get_call_template
    return compiled


@functools.cache
def _helpers(count):
    return ThreadPoolExecutor(count, thread_name_prefix="tinycnn")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_helpers.cache_clear)


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
