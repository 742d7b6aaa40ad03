"""What holds for every test."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

# A machine that is busy is no failure, and half of the examples are enough for every day.
settings.register_profile(
    "suite", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

UNMEASURED = (
    "tests/core/test_crash_model.py",
    "tests/core/test_laws.py",
    "tests/engine/test_kills.py",
    "tests/faults/test_cuts.py",
    "tests/faults/test_fuzz",
    "tests/faults/test_power.py::test_power_loses",
    "tests/faults/test_power.py::test_process_loses",
    "tests/faults/test_processes.py",
    "tests/faults/test_proxy.py",
    "tests/faults/test_stepping.py",
    "tests/kit/test_simulation.py::test_a_writer_that_acknowledges",
    "tests/kit/test_simulation.py::test_every_crash",
    "tests/soak/",
    "tests/test_examples.py",
    "tests/test_readme.py",
    "tests/test_template.py",
)
"""Proofs that go again and again where other tests go too: measured, they take twice as long."""


def pytest_configure() -> None:
    """Hear interrupts: whoever starts the tests in the background has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage in what stays until the end, neither now (a third of it) nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage where it only takes time, also in processes that a test starts."""
    coverage = Coverage.current()
    if coverage is None or not item.nodeid.startswith(UNMEASURED):
        return (yield)
    coverage.stop()
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    try:
        return (yield)
    finally:
        coverage.start()  # which sets the variable again
