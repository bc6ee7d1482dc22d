"""Shared fixtures: every backend that is present, in both precisions."""

import pytest

from tinycnn import available, get_ops


@pytest.fixture(params=available())
def backend(request):
    """The name of each backend present."""
    return request.param


@pytest.fixture
def ops64(backend):
    """Primitives of each backend, in float64."""
    return get_ops(backend, "float64")


@pytest.fixture(params=[(b, d) for b in available() for d in ("float32", "float64")], ids="-".join)
def ops(request):
    """Primitives of each backend, in each precision."""
    return get_ops(*request.param)
