"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Hear interrupts: whoever starts the tests in the background has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
