"""Networks and training states as safetensors files: no pickle, readable by every framework.

Tensors are called LAYER/NAME ("conv1/w"); a training state adds "optimizer/...", "history/...", and where the weights
are a running mean or the best so far, "raw/..." (and "best/...", "mean/...") for what training goes on from. One
metadata entry, "tinycnn", holds the rest as JSON: layers, input shape, pixel scaling, the network's `meta`, and for
training the settings. (One entry: the order of several is not reproducible.)
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from . import layers as layer_specs
from .errors import InputError
from .files import write_bytes
from .network import Network

FORMAT = 2
STATE = ("optimizer/", "raw/", "best/", "mean/", "history/")  # what a training state adds to the weights
NORMALISATION = "uint8 / 255"


def save_network(net, path, tensors=None, training=None):
    """Write a network to `path`, atomically.

    Parameters
    ----------
    net : Network
    path : str or Path
        Usually ending in ``.safetensors``.
    tensors : dict of numpy.ndarray, optional
        More arrays to keep in the file.
    training : dict, optional
        More facts to keep in its metadata (must be JSON).

    Raises
    ------
    OSError
        The file cannot be written; what stood there is kept.
    """
    header = {
        "format": FORMAT,
        "layers": [{"type": type(spec).__name__, **dataclasses.asdict(spec)} for spec in net.layers],
        "input_shape": net.input_shape,
        "dtype": str(net.dtype),
        "normalisation": NORMALISATION,
        "meta": net.meta,
    }
    if training is not None:
        header["training"] = training
    arrays = {k: net.ops.to_numpy(a) for k, a in net.arrays().items()}
    arrays |= {k: np.ascontiguousarray(a) for k, a in (tensors or {}).items()}
    write_bytes(path, safetensors.numpy.save(arrays, {"tinycnn": json.dumps(header, sort_keys=True)}))


def read(path):
    """Return (header dict, {tensor name: array}) of a file that `save_network` wrote.

    Raises
    ------
    InputError
        The file is missing, cut, not safetensors, or not written by tinycnn.
    """
    return read_header(path)[0], safetensors.numpy.load_file(path)


def read_header(path):
    """Return (header dict, {tensor name: shape}) of a file that `save_network` wrote; see `read`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; train first, or check the path")
    try:
        with safetensors.safe_open(path, framework="numpy") as f:
            metadata = f.metadata() or {}
            shapes = {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as e:
        raise InputError(f"{path}: not a whole safetensors file ({e}); copy it again, or remove it") from e
    if "tinycnn" not in metadata:
        raise InputError(f"{path}: a safetensors file, but not one that tinycnn wrote (no 'tinycnn' metadata)")
    try:
        header = json.loads(metadata["tinycnn"])
    except ValueError as e:
        raise InputError(f"{path}: its 'tinycnn' metadata are damaged ({e}); copy it again, or remove it") from e
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: format {header.get('format')}, this version reads format {FORMAT}")
    return header, shapes


def load_network(path, backend="auto"):
    """Return the network in `path` on a backend.

    Raises InputError as `read` does, and for tensors that do not fit the layers, by name and shape.
    """
    header, tensors = read(path)
    specs = []
    for spec in header["layers"]:
        kind = spec.pop("type")
        if kind not in layer_specs.TYPES:
            raise InputError(f"{path}: unknown layer type {kind!r}; this version knows {', '.join(layer_specs.TYPES)}")
        specs.append(layer_specs.TYPES[kind](**spec))
    net = Network(specs, header["input_shape"], backend=backend, dtype=header["dtype"], meta=header["meta"])
    set_params(net, tensors, path)
    return net


def set_params(net, tensors, path):
    """Copy a file's tensors, as `read` returns them, into a network's parameters; those of training are passed over.

    A missing or unknown tensor, or one of another shape, is an InputError: the file is another network's.
    """
    expected = net.arrays()
    found = {k: a for k, a in tensors.items() if not k.startswith(STATE)}
    problems = [f"missing {k}" for k in expected if k not in found]
    problems += [f"unknown {k}" for k in found if k not in expected]
    problems += [
        f"{k} has shape {found[k].shape}, the network's is {tuple(a.shape)}"
        for k, a in expected.items()
        if k in found and found[k].shape != tuple(a.shape)
    ]
    if problems:
        raise InputError(f"{path}: weights of another network: {'; '.join(problems)}")
    for k, a in expected.items():
        a[...] = net.ops.asarray(found[k])
