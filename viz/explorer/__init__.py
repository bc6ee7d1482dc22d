"""One self-contained page of a network, to look inside with the mouse: `write`."""

from .export import is_of, layers, numbers, payload, write

__all__ = ["is_of", "layers", "numbers", "payload", "write"]
