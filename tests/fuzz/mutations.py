"""Bytes made wrong at random: what a cut copy, a bad disk, an editor or a stranger leaves of a file."""

import json

import numpy as np

ODD = [None, True, 0, -1, 10**30, 1e308, "", "x", [], [[]], {}, {"a": 1}, [1, "x"], "\x00", "\n"]  # in another's place


def flip(rng, data):
    i = rng.integers(len(data))
    return data[:i] + bytes([data[i] ^ 1 << rng.integers(8)]) + data[i + 1 :]


def cut(rng, data):
    return data[: rng.integers(len(data))]


def insert(rng, data):
    i = rng.integers(len(data) + 1)
    return data[:i] + rng.bytes(rng.integers(1, 20)) + data[i:]


def remove(rng, data):
    i, n = rng.integers(len(data)), rng.integers(1, 20)
    return data[:i] + data[i + n :]


def swap(rng, data):
    """Two pieces change places."""
    n = int(rng.integers(1, max(2, len(data) // 4)))
    i, j = sorted(rng.integers(0, max(1, len(data) - n), 2))
    j = max(j, i + n)
    return data[:i] + data[j : j + n] + data[i + n : j] + data[i : i + n] + data[j + n :]


def overwrite(rng, data):
    i, n = rng.integers(len(data)), rng.integers(1, 20)
    return data[:i] + bytes([rng.choice([0, 255, 0x7B, 0x5B])]) * min(n, len(data) - i) + data[i + n :]


BYTES = (flip, flip, cut, insert, remove, swap, overwrite)


def of_bytes(data, count, seed=0):
    """Yield `count` mutants of bytes, some mutated more than once."""
    for i in range(count):
        rng, mutant = np.random.default_rng([seed, i]), data
        for _ in range(rng.integers(1, 4)):
            mutant = BYTES[rng.integers(len(BYTES))](rng, mutant) if mutant else mutant
        yield mutant


def places(value, path=()):
    """The paths of all values within JSON."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def retyped(rng, value):
    """JSON with one value of another type, left out, nested without end, or changed with another one."""
    value = json.loads(json.dumps(value))
    paths = list(places(value))[1:]
    path = paths[rng.integers(len(paths))]
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    kind = rng.integers(10)
    if kind == 0 and isinstance(inner, dict):
        del inner[path[-1]]
    elif kind == 1:
        inner[path[-1]] = json.loads("[" * 500 + "]" * 500)
    elif kind == 2:
        others = [k for k in (inner if isinstance(inner, dict) else range(len(inner)))]
        other = others[rng.integers(len(others))]
        inner[path[-1]], inner[other] = inner[other], inner[path[-1]]
    else:
        inner[path[-1]] = ODD[rng.integers(len(ODD))]
    return value


def of_json(data, count, seed=0):
    """Yield `count` mutants of a JSON text: half of them of its bytes, half of its values."""
    yield from of_bytes(data, count - count // 2, seed)
    for i in range(count // 2 - 2):
        yield json.dumps(retyped(np.random.default_rng([seed, 1, i]), json.loads(data)), indent=1).encode() + b"\n"
    yield b"[" * 10**6
    yield b'{"a":' * 10**6
