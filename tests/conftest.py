"""Shared fixtures: every backend, in both precisions."""

import hosted
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """An emulated device is there for the tests that ask for one, and for no other."""
    with hosted.visible_device(item.get_closest_marker("gpu") is not None):
        return (yield)


@pytest.fixture(params=hosted.NAMES)
def backend(request):
    """The name of each backend."""
    return request.param


@pytest.fixture
def ops64(backend):
    """Primitives of each backend, in float64, on NumPy arrays."""
    return hosted.get_ops(backend, "float64")


@pytest.fixture(params=hosted.BACKENDS, ids="-".join)
def ops(request):
    """Primitives of each backend, in each precision, on NumPy arrays."""
    return hosted.get_ops(*request.param)


@pytest.fixture(scope="module")
def chromium():
    """A headless browser."""
    from browsing import CHROMIUM, playwright

    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
