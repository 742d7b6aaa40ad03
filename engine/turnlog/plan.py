"""What the next request holds: a delta behind its parent, a fork, or the full context.

The one rule: a delta holds exactly what the server lacks (law 7). `plan` is a pure function of the
state and of what the transport remembers; it names ranges, and the shell loads them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from .events import Range
from .state import Parent, State, still_holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Continue from the newest response: send the tail alone."""

    parent: Parent
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Continue from an older response, which an edit did not touch: send all that came after."""

    parent: Parent
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Continue from nothing: send the whole window; `why` says what ruled a parent out."""

    ranges: tuple[Range, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing can be sent while these calls have no output."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing new to send."""


Plan: TypeAlias = Delta | Fork | Full | Wait | Nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What can be continued from where the request will go.

    `stored_ids`: the provider keeps responses by id, for `stored_for` seconds. `remembers` are the
    unstored responses that the transport still holds (law 8). `model` is the one that the
    request asks. `now` is in microseconds.
    """

    now: int
    model: str | None
    stored_ids: bool = True
    stored_for: float = 30 * 24 * 3600.0
    remembers: Collection[str] = ()


def plan(state: State, reach: Reach, older: Parent | None = None) -> Plan:
    """What to send next.

    `older` is what may be continued from where the parent may not: a response from before an edit,
    or one that a warm-up left.
    """
    if state.pending:
        return Wait(calls=tuple(call.id for call in state.pending))
    tail = tuple(
        Range(of="tail", start=run.version, stop=run.version + run.count) for run in state.tail
    )
    if not tail:
        return Nothing()
    why = ruled_out(state, state.parent, reach)
    if why is None and state.parent is not None:
        return Delta(parent=state.parent, ranges=tail)
    if older is not None and can_fork(state, older, reach):
        return Fork(parent=older, ranges=(*_context(older.end, state.committed), *tail))
    return Full(ranges=(*_context(state.window, state.committed), *tail), why=why or "")


def can_fork(state: State, older: Parent, reach: Reach) -> bool:
    """Whether a response that is not the parent can be continued from.

    Behind one that asked for calls, an edit may have taken away their outputs (law 7); and one
    from before the window lacks what a compaction made of it.
    """
    if older.calls or older.end < state.window:
        return False
    return ruled_out(state, older, reach) is None


def _context(start: int, stop: int) -> tuple[Range, ...]:
    return (Range(of="context", start=start, stop=stop),) if start < stop else ()


def ruled_out(state: State, parent: Parent | None, reach: Reach) -> str | None:
    """Why a response cannot be continued from, or None where it can (laws 4 and 8, W-13, W-16)."""
    if parent is None:
        return "there is no response to continue from"
    if not still_holds(state, parent):
        return "the context was edited or compacted before its end"
    if parent.model != reach.model:
        return f"the model changed from {parent.model} to {reach.model}"
    if not parent.store:
        return (
            None
            if parent.response in reach.remembers
            else "it was not stored, and its connection is gone"
        )
    if not reach.stored_ids:
        return "the provider keeps no responses"
    if reach.now - parent.time > reach.stored_for * 1_000_000:
        return "it has expired"
    return None
