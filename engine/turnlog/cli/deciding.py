"""Which call is meant, and what is done with it.

The one rule: what a call waits for says what approving and rejecting it mean.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..call import Call
from ..errors import InvalidInput, NotFound


async def decide(call: Call, *, allowed: bool, by: str, reason: str | None) -> None:
    """Settle what a call waits for."""
    started = call.status in ("uncertain", "deferred")
    if allowed and call.status == "uncertain":
        await call.rerun(by=by, reason=reason)
    elif allowed:
        await call.approve(by=by, reason=reason)
    elif started:
        await call.abandon(by=by, reason=reason or "rejected")
    else:
        await call.reject(by=by, reason=reason)


def the_call(calls: Sequence[Call], given: str | None, conversation: str) -> Call:
    """The call that is meant; raises NotFound where none is, InvalidInput where several are."""
    exact = [call for call in calls if given in (call.id, call.call_id)]
    meant = exact or [call for call in calls if given is None or _means(given, call)]
    # What is approved already is not meant by a name that others have too.
    found = [call for call in meant if call.status != "approved"] or meant
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{call.id} ({call.name or call.kind})" for call in found or calls)
    if found:
        raise InvalidInput(f"several calls of {conversation!r} wait: name one of {names}")
    raise NotFound(
        f"no call {given or ''} of {conversation!r} waits: there are {names or 'none'}".replace(
            "  ", " "
        )
    )


def _means(given: str, call: Call) -> bool:
    ids = (call.id, call.call_id or "")
    return bool(given) and (call.name == given or any(id.startswith(given) for id in ids))
