"""What a simulator heard, and how much went on at once.

The one rule: it is for the test that asks afterwards, and nothing of the simulator depends on it;
a simulator that runs for long keeps none of it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from turnlog.canonical import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One thing that a client asked.

    `method` is the HTTP method, `UPGRADE` where a WebSocket was asked for, or the type of a
    message on one; `body` is None where there was none that is a JSON object, and `size` counts
    its bytes as they came. `connection` numbers the WebSockets that were opened, from 1, and is
    None over HTTP and where an upgrade was refused; `lane` is the `stream_id` as it was named.
    """

    carrier: Literal["http", "websocket"]
    method: str
    path: str
    size: int = 0
    body: JsonObject | None = None
    connection: int | None = None
    lane: str | None = None


@dataclass(slots=True)
class Count:
    """How many of something there are `now`, were at `most` at once, and were there in `total`."""

    now: int = 0
    most: int = 0
    total: int = 0

    @contextmanager
    def one(self) -> Generator[None]:
        """Count one, for as long as the block runs."""
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1
