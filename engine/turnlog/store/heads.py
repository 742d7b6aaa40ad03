"""The head as bytes, and back.

The one rule: a stored head is a hint. One of another format, damaged, or not of the version and
hash that the log has is folded again from the log (law 2).
"""

from __future__ import annotations

from ..canonical import dumps, loads
from ..errors import InvalidInput
from ..record import from_json, to_json
from ..state import FORMAT, State


def pack(state: State) -> bytes:
    """The canonical JSON of a state."""
    return dumps(to_json(state))


def unpack(data: bytes, format: int, *, version: int) -> State | None:
    """The state again, or None where it must be folded from the log."""
    if format != FORMAT:
        return None
    try:
        state = from_json(State, loads(data))
    except InvalidInput:
        return None
    return state if state.version == version else None
