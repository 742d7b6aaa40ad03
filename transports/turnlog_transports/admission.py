"""Whose turn it is on one WebSocket: lanes, what waits in them, and how much may be under way.

The one rule: pure, and protocol section 1.4. A lane answers one create after the other, lanes
answer at the same time, and what is beyond the limit waits in the order in which it came.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from turnlog.canonical import Json, JsonObject

from .answer import Answer, frame, refusal

MAX_IN_FLIGHT = 16
MAX_LANES = 32

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a provider allows on one connection.

    Without `lanes` it answers one create at a time, and refuses a `stream_id`.
    """

    lanes: bool = True
    max_in_flight: int = MAX_IN_FLIGHT
    max_lanes: int = MAX_LANES


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A create that was accepted: its lane, None for the default one, and its body."""

    lane: str | None
    body: JsonObject


class Admission:
    """The lanes of one connection, and who is next. Names are never given back."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._most = rules.max_in_flight if rules.lanes else 1
        self._names: set[str] = set()
        self._waiting: deque[Waiting] = deque()
        self._busy: set[str | None] = set()

    def enter(self, name: Json) -> JsonObject | None:
        """Take a `stream_id` for one of this connection's, or say how it is refused."""
        if name is None:
            return None
        if not self._rules.lanes:
            return frame(_NO_LANES)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return frame(_BAD_NAME)
        if name not in self._names and len(self._names) >= self._rules.max_lanes:
            return {**frame(self._too_many()), "stream_id": name}
        self._names.add(name)
        return None

    def add(self, create: Waiting) -> None:
        """A create is accepted, and waits for its turn."""
        self._waiting.append(create)

    def next(self) -> Waiting | None:
        """The first create whose turn it is, which is under way from now on."""
        if len(self._busy) >= self._most:
            return None
        for place, create in enumerate(self._waiting):
            if create.lane not in self._busy:
                del self._waiting[place]
                self._busy.add(create.lane)
                return create
        return None

    def done(self, lane: str | None) -> None:
        """What was under way on a lane is over."""
        self._busy.remove(lane)

    def _too_many(self) -> Answer:
        return refusal(
            f"A connection has at most {self._rules.max_lanes} named streams.",
            param="stream_id",
            code="websocket_stream_limit_reached",
        )


_NO_LANES = refusal("Unknown parameter: 'stream_id'.", param="stream_id", code="unknown_parameter")
_BAD_NAME = refusal(
    "Invalid 'stream_id': 1 to 256 characters of A-Z, a-z, 0-9, '_', '.' and '-'.",
    param="stream_id",
    code="invalid_stream_id",
)
