"""Images made to excite a unit: the ascent, what keeps its images natural, and recipes that are known to work."""

from .recipes import Recipe

__all__ = ["Recipe"]
