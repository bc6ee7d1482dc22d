"""tinycnn: a small convolutional network engine written by hand. See README.md for a tour."""

from . import data, gradcheck, layers, losses, models, optim, streams, train
from .errors import InputError
from .network import Network
from .ops import available, get_ops
from .walk import Trace

__version__ = "0.2.0"
__all__ = [
    "InputError", "Network", "Trace", "available", "data", "get_ops", "gradcheck", "layers", "losses", "models",
    "optim", "streams", "train",
]  # fmt: skip
