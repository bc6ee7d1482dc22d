"""Memory that is used again from step to step."""

import math


class Workspace:
    """Arrays by name that outlive a call: asked for again with the same shape, the same memory comes back.

    Parameters
    ----------
    ops : Ops
        Whose arrays they are.
    """

    def __init__(self, ops):
        self._ops, self._arrays = ops, {}

    def __call__(self, key, shape, dtype):
        """Return an uninitialised array; its contents last until the same `key` is asked for again."""
        size = math.prod(shape)
        found = self._arrays.get(key)
        if found is None or found.size < size or found.dtype != dtype:
            found = self._arrays[key] = None  # given back before the larger one is asked for
            self._arrays[key] = self._ops.empty(size, dtype)
        return self._arrays[key][:size].reshape(shape)
