"""Memory that is used again from step to step."""

import math
import threading


class Workspace:
    """Arrays by name that outlive a call: asked for again with the same shape, the same memory comes back.

    Parameters
    ----------
    ops : Ops
        Whose arrays they are.
    exact : bool
        For pictures: a block's maxima are those of plain sums; see `Ops.conv_relu_pool`.
    """

    def __init__(self, ops, exact=False):
        self._ops, self._arrays, self.exact = ops, {}, exact
        self.generation = 0  # forward passes that have used it: those before the last have lost their arrays
        self.lock = threading.RLock()  # held while a pass uses it

    def __call__(self, key, shape, dtype):
        """Return an uninitialised array; its contents last until the same `key` is asked for again."""
        size = math.prod(shape)
        found = self._arrays.get(key)
        if found is None or found.size < size or found.dtype != dtype:
            found = self._arrays[key] = None  # given back before the larger one is asked for
            self._arrays[key] = self._ops.empty(size, dtype)
        return self._arrays[key][:size].reshape(shape)

    def scope(self, name):
        """Return a workspace in this one whose keys are its own: two steps never share an array."""
        return lambda key, shape, dtype: self((name, key), shape, dtype)
