"""One self-contained page of a network, to look inside with the mouse: `write`."""

from .export import layers, numbers, payload, write

__all__ = ["layers", "numbers", "payload", "write"]
