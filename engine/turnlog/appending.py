"""Appending where the store may not know whether it happened.

The one rule: what may have been written is asked about by appending the same events again, which
every store answers with what it did (design section 5).
"""

from __future__ import annotations

from .errors import OutcomeUnknown
from .ports import Append, Appended, Store

TRIES = 5
"""How often a commit is tried whose outcome the store does not know."""


async def appended(store: Store, append: Append) -> Appended:
    """Append, once; raises what `Store.append` raises, OutcomeUnknown only after so many tries."""
    for _ in range(TRIES - 1):
        try:
            return await store.append(append)
        except OutcomeUnknown:
            continue
    return await store.append(append)
