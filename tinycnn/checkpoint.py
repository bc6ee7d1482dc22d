"""Networks and training states as safetensors files: no pickle, readable by every framework.

A parameter is the tensor "weights/LAYER/NAME" ("weights/conv1/w"); a training state adds "optimizer/...",
"history/...", and where the weights are a running mean or the best so far, "raw/..." (and "best/...", "mean/...") for
what training goes on from. One metadata entry, "tinycnn", holds the rest as JSON, a `Header`. (One entry: the order of
several is not reproducible.)
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from . import layers as layer_specs
from .errors import InputError
from .files import parse, write_bytes
from .network import Network

FORMAT = 3
WEIGHTS = "weights/"
NORMALISATION = "uint8 / 255"
DTYPES = ("F32", "F64")  # as safetensors calls them


class Header(TypedDict):
    """What a file says besides its tensors; `sha256` is of all of it and of them (`_digest`)."""

    format: int
    sha256: str
    layers: list[dict[str, Any]]
    input_shape: list[int]
    dtype: Literal["float32", "float64"]
    normalisation: str
    meta: dict[str, Any]
    training: dict[str, Any]


class _Version(TypedDict):
    """What a header of any format says."""

    format: Annotated[int, msgspec.Meta(ge=0, lt=1000)]


def save_network(net, path, tensors=None, training=None):
    """Write a network to `path`, atomically.

    Parameters
    ----------
    net : Network
    path : str or Path
        Usually ending in ``.safetensors``.
    tensors : dict of numpy.ndarray, optional
        More arrays to keep in the file, float32 or float64.
    training : dict, optional
        More facts to keep in its metadata (must be JSON).

    Raises
    ------
    InputError
        The network's `meta` or a layer's name is nothing that JSON can hold.
    OSError
        The file cannot be written; what stood there is kept.
    """
    arrays = {WEIGHTS + k: net.ops.to_numpy(a) for k, a in net.arrays().items()}
    arrays = {k: np.ascontiguousarray(a) for k, a in (arrays | (tensors or {})).items()}
    facts = {**description(net), "meta": net.meta, "training": training or {}}
    try:
        header = parse(_text({"format": FORMAT, "sha256": "", **facts}), Header, path)
    except (AttributeError, TypeError, ValueError, RecursionError) as e:
        raise InputError(f"{path}: meta and the layers' names must be what JSON can hold: text, finite numbers") from e
    header["sha256"] = _digest(header, arrays)
    write_bytes(path, safetensors.numpy.save(arrays, {"tinycnn": _text(header)}))


def description(net):
    """Return what a header says of the network itself, but for its parameters."""
    specs = [{"type": type(spec).__name__, **dataclasses.asdict(spec)} for spec in net.layers]
    facts = {"layers": specs, "input_shape": net.input_shape, "dtype": str(net.dtype), "normalisation": NORMALISATION}
    return json.loads(_text(facts))


def _text(facts):
    """JSON, the same text for the same facts; NumPy's numbers are taken as Python's."""
    return json.dumps(facts, sort_keys=True, allow_nan=False, default=lambda value: value.item())


def _digest(header, tensors):
    """The SHA-256 (hex) of a header, but for that entry, and of tensors: their names, dtypes, shapes and bytes."""
    digest = hashlib.sha256(_text({**header, "sha256": ""}).encode())
    for name, a in sorted(tensors.items()):
        digest.update(f"{name} {a.dtype} {a.shape}\n".encode())
        digest.update(a)
    return digest.hexdigest()


def read(path):
    """Return (header, {tensor name: array}) of a file that `save_network` wrote; see `Header`.

    Raises
    ------
    InputError
        The file is missing, cut, changed, not safetensors, or not written by this version of tinycnn.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; train first, or check the path")
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            metadata = f.metadata() or {}
            names = f.keys()
            known = all(f.get_slice(name).get_dtype() in DTYPES for name in names)
            tensors = {name: f.get_tensor(name) for name in names if known}  # no larger than the file
    except safetensors.SafetensorError as e:
        raise InputError(f"{path}: not a whole safetensors file; copy it again, or remove it") from e
    if "tinycnn" not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one that tinycnn wrote (no 'tinycnn' metadata)")
    what = f"{path}: its 'tinycnn' metadata"
    version = parse(metadata["tinycnn"], _Version, what)["format"]
    if version != FORMAT:
        raise InputError(f"{path}: format {version}, this version reads format {FORMAT}; train again")
    header = parse(metadata["tinycnn"], Header, what)
    if not known or header["sha256"] != _digest(header, tensors):
        raise InputError(f"{path}: damaged, its contents have another SHA-256; copy it again, or remove it")
    return header, tensors


def load_network(path, backend="auto"):
    """Return the network in `path` on a backend.

    Raises InputError as `read` does, and for tensors that do not fit the layers, by name and shape.
    """
    header, tensors = read(path)
    try:
        specs = [layer_specs.TYPES[spec.pop("type")](**spec) for spec in header["layers"]]
        shapes = _shapes(specs, header["input_shape"])
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as e:
        raise InputError(f"{path}: its layers make no network of this version of tinycnn; copy it again") from e
    _check_shapes(shapes, tensors, path)  # before arrays of such shapes are made
    net = Network(specs, header["input_shape"], backend=backend, dtype=header["dtype"], meta=header["meta"])
    set_params(net, tensors, path)
    return net


def set_params(net, tensors, path):
    """Copy a file's tensors, as `read` returns them, into a network's parameters; those of training are passed over.

    A missing or unknown tensor, or one of another shape, is an InputError: the file is another network's.
    """
    _check_shapes({k: tuple(a.shape) for k, a in net.arrays().items()}, tensors, path)
    for k, a in net.arrays().items():
        a[...] = net.ops.asarray(tensors[WEIGHTS + k])


def _check_shapes(expected, tensors, path):
    """Raise unless the weights among a file's tensors have the expected names and shapes."""
    found = {k.removeprefix(WEIGHTS): a.shape for k, a in tensors.items() if k.startswith(WEIGHTS)}
    problems = [f"missing {k}" for k in expected if k not in found]
    problems += [f"unknown {k}" for k in found if k not in expected]
    problems += [
        f"{k} has shape {found[k]}, the network's is {shape}"
        for k, shape in expected.items()
        if k in found and found[k] != shape
    ]
    if problems:
        raise InputError(f"{path}: weights of another network: {'; '.join(problems)}")


class _Unmade:
    """Takes the place of a generator: the arrays that layers start with have their shapes, and no memory."""

    def uniform(self, low, high, shape):
        return np.broadcast_to(0.0, shape)


def _shapes(specs, shape):
    """{"LAYER/NAME": shape} of the parameters of layers on inputs of `shape`."""
    found = {}
    for spec in specs:
        after = spec.output_shape(tuple(shape))
        found |= {f"{spec.name}/{k}": a.shape for k, a in spec.init(tuple(shape), _Unmade()).items()}
        shape = after
    return found
