"""What every store promises, as a suite: subclass `StoreContract`, and run it.

The one rule: the suite sees only what the engine sees, `ports.Store`, so that a store of somebody
else passes exactly what ours do. It needs a test runner for `async` methods (pytest with
pytest-asyncio in its `auto` mode, or the like), and imports none.
"""

from __future__ import annotations

from .store_author import (
    Author,
    added,
    answered,
    begun,
    called,
    keys,
    message,
    prepared,
    raises,
)
from .store_suite_context import ContextSuite
from .store_suite_leases import LeaseSuite
from .store_suite_lists import ListSuite
from .store_suite_log import LogSuite

__all__ = [
    "Author",
    "StoreContract",
    "added",
    "answered",
    "begun",
    "called",
    "keys",
    "message",
    "prepared",
    "raises",
]


class StoreContract(LogSuite, LeaseSuite, ContextSuite, ListSuite):
    """The suite. A subclass says how stores are opened."""
