"""Asking the provider to stop a background response, which would go on by itself.

The one rule: it is asked for its own sake. Whatever the provider says, or does not say, changes
nothing about what is recorded.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from .engine import Engine
from .errors import Closed, ConfigurationError, NotSupported, ProviderError
from .ports import Cancel
from .state import Attempt

STOP_SECONDS = 10.0
"""How long a provider has to say that it will stop."""


async def stop(engine: Engine, attempt: Attempt | None) -> None:
    """Ask the provider to stop the response of an attempt, where it would go on without us."""
    if attempt is None or not attempt.background or attempt.response is None:
        return
    try:
        async with asyncio.timeout(STOP_SECONDS):
            async with aclosing(engine.transport.send(Cancel(response=attempt.response))) as frames:
                async for _ in frames:
                    pass
    except (ProviderError, NotSupported, ConfigurationError, Closed, TimeoutError):
        return
