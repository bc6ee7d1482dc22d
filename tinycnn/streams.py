"""Random numbers: every purpose has a stream of its own, so that nothing drawn for one tells of another.

    rng(seed, purpose, *index)        SeedSequence(seed, spawn_key=(crc32 of the purpose, *index))

With one generator for all, or generators made from neighbouring seeds, the first layer's start and the order of the
batches can be one and the same sequence: ``default_rng(s)`` is ``default_rng([s, 0])``. NumPy's `SeedSequence` hashes
the seed with a key instead (O'Neill 2014, "PCG"; https://numpy.org/doc/stable/reference/random/parallel.html). A stream
of a step of training is made from the number of that step: nothing has to be remembered to go on after it.
"""

import zlib

import numpy as np

from .errors import check_seed


def _sequence(seed, purpose, index):
    return np.random.SeedSequence(check_seed(seed), spawn_key=(zlib.crc32(purpose.encode()), *map(int, index)))


def rng(seed, purpose, *index):
    """Return the generator for a purpose.

    Parameters
    ----------
    seed : int
        At least 0.
    purpose : str
        What the numbers are for: "weights", "batches", "dropout", "ascent", a stage's name, ...
    *index : int
        Which one of many: a layer, a step, a unit.

    Returns
    -------
    numpy.random.Generator

    Raises
    ------
    InputError
        A seed that is not a whole number of at least 0.
    """
    return np.random.default_rng(_sequence(seed, purpose, index))


def seed(seed, purpose, *index):
    """Return a seed of 128 bits (int) for what is itself made from a seed, like the network of a judge; see `rng`.

    It is no neighbour of another run's seed, and no number that a person chooses.
    """
    return int.from_bytes(_sequence(seed, purpose, index).generate_state(4).astype("<u4").tobytes(), "little")
