"""By how much a context was too long for its model, as far as anybody can say.

The one rule: numbers are the provider's, read from its words, or counted from the log; none is
guessed.
"""

from __future__ import annotations

from . import events as ev
from .canonical import Json, JsonObject, dumps
from .context import every, requested
from .items import to_input
from .limits import counted
from .outcomes import TOO_LONG, excess, is_too_long
from .ports import Store
from .state import Outcome, State

FIX = (
    "Compact the conversation (chat.compact), remove items (chat.remove), go on from an earlier"
    ' place (chat.fork), or let the provider leave out the oldest (truncation="auto").'
)
FIX_IN_TURN = (
    "Go on from before this turn (chat.fork(before=…)) and compact there, shorten or remove items"
    ' (chat.edit, chat.remove), or let the provider leave out the oldest (truncation="auto").'
)
"""Where outputs were not sent so far there is no compaction: they belong to their calls."""


async def explained(store: Store, state: State, last: Outcome, error: JsonObject) -> JsonObject:
    """The error of a turn whose last request was refused, which says by how much it was too long.

    Any other error stays as it is.
    """
    refused = last.kind in ("failed", "rejected")
    if not (refused and is_too_long(last.status, last.code, last.message)):
        return error
    found: dict[str, Json] = {**error, "code": TOO_LONG}
    said = (last.message or "The context is too long for the model.").strip()
    known = excess(last.message or "")
    if known is not None:
        found |= {"limit": known.limit, "size": known.size, "over": known.over}
        told = (
            f"The context is too long by {known.over:,} tokens: {known.size:,}, where the model"
            f" takes {known.limit:,}."
        )
    else:
        count, size, parent = await _sent(store, state, last)
        found |= {"items": count, "bytes": size}
        behind = f", behind the response {parent}" if parent is not None else ""
        told = (
            f"The provider does not say by how much; the request had {counted(count, 'item')} of"
            f" {counted(size, 'byte')}{behind}."
        )
    fix = FIX_IN_TURN if state.calls else FIX
    return {**found, "message": f"{said} {told} {fix}"}


async def _sent(store: Store, state: State, last: Outcome) -> tuple[int, int, str | None]:
    """How many items a request had, how many bytes they were, and what it continued from."""
    assert state.turn is not None
    log = [one.event for one in await every(store, state.id, state.turn.version)]
    prepared = (event for event in log if isinstance(event, ev.RequestPrepared))
    asked = next(event for event in prepared if event.attempt == last.attempt)
    items = await requested(store, state, asked.ranges)
    return len(items), sum(len(dumps(to_input(item))) for item in items), asked.parent
