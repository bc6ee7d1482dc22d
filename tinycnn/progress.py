"""Progress bars, on standard error."""

import sys


def bar(*args, disable=None, **how):
    """Return tqdm's bar, by default shown on a terminal alone; never where there is no standard error (a service)."""
    from tqdm import tqdm

    return tqdm(*args, disable=True if sys.stderr is None else disable, **how)
