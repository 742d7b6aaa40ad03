"""Establishing what became of a turn whose owner is gone, or that was stopped here.

The one rule: settling asks and records; it starts no generation and no tool (design section 4). It
may be done at any time, twice, and by several processes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from . import events as ev
from .canonical import JsonObject
from .commands import DoubtCalls, EndTurn, Finish, Note, PauseTurn
from .context import PAGE
from .draft import Draft
from .engine import ENGINE, Engine, is_left
from .errors import (
    ConfigurationError,
    NotSupported,
    ProviderError,
    StaleEpoch,
    StoreCorrupt,
    TooLarge,
)
from .items import is_client_call
from .overrun import explained
from .ports import Head, Lease, Retrieve
from .reception import Reception, is_chain_lost
from .recovery import CRASHED, Ask, Doubt, End, Halt, Interrupt, Leave, Settled, Unknown, settle
from .secrets import values_in
from .state import Attempt, State
from .stopping import stop
from .unbroken import unbroken


@dataclass(frozen=True, slots=True, kw_only=True)
class _Last:
    """What is known of an owner's end: why, what it had heard, and whether it is surely over."""

    reason: str
    reception: Reception | None
    certain: bool


Established: TypeAlias = Leave | Interrupt | Unknown | Doubt | Halt | End | Settled
"""What can be recorded without asking anybody."""

POLL_SECONDS = 0.5
POLL_FOR_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One thing that recovery did, and why; with `settled` off, what it could not do."""

    conversation: str
    turn: str | None
    action: str
    reason: str
    settled: bool = True


async def recover(engine: Engine) -> list[Recovered]:
    """Settle every turn that nobody runs; what cannot be settled now is left, and reported.

    One conversation that is damaged does not keep the others from it.
    """
    found: list[Recovered] = []
    async for conversation in left_behind(engine):
        try:
            found += await settle_left(engine, conversation)
        except (ProviderError, ConfigurationError, StoreCorrupt) as error:
            left = Recovered(
                conversation=conversation,
                turn=None,
                action="left it for the next time",
                reason=str(error),
                settled=False,
            )
            found.append(left)
    return found


async def left_behind(engine: Engine) -> AsyncGenerator[str]:
    """The conversations whose open turn nobody runs: its owner is dead, or has let go of it."""
    dead = await engine.store.orphans()
    for conversation in dead:
        yield conversation
    after, known = "", frozenset(dead)
    while rows := await engine.store.conversations(status="busy", after=after, limit=PAGE):
        after = rows[-1].id
        for row in rows:
            if row.orphaned and row.id not in known and not engine.runs(row.id):
                yield row.id


async def settle_left(engine: Engine, conversation: str) -> list[Recovered]:
    """Take over a turn that was left and settle it; nothing where somebody runs it.

    Raises ProviderError where the provider has to be asked and cannot be reached: then nothing is
    recorded, and it can be tried again.
    """
    async with engine.settling(conversation):
        return await _settle_left(engine, conversation)


async def _settle_left(engine: Engine, conversation: str) -> list[Recovered]:
    while True:
        head = await engine.head(conversation)
        if not is_left(head, running=engine.runs(conversation)):
            return []
        if head.state.turn is not None and head.state.turn.cancel == "now":
            await stop(engine, head.state.attempt)
        found = await _fetched(engine, head.state)
        if found is not None and found.terminal is None:
            return [_left(head.state)]
        done = await unbroken(_take_over(engine, head, found))
        if done is not None:
            return done


async def _fetched(engine: Engine, state: State) -> Reception | None:
    """What became of the open response, where the provider knows it; no end, where it still runs.

    It is asked before the lease is taken: where it does not answer, the turn stays with its dead
    owner, and the next recovery finds it again.
    """
    step = settle(state, retrieve=engine.transport.profile.retrieve)
    if not isinstance(step, Ask) or state.attempt is None:
        return None
    if not state.attempt.background:
        return await ask(engine, state.id, state.attempt, step.response)
    found = await retrieved(engine, state.id, state.attempt, step.response)
    return found if found is None or not _refused(found, step.response) else None


def _left(state: State) -> Recovered:
    return Recovered(
        conversation=state.id,
        turn=state.turn.id if state.turn is not None else None,
        action="left the turn as it is: resume it to hear the response on",
        reason="the provider still works on its background response",
        settled=False,
    )


def _refused(reception: Reception, response: str) -> bool:
    """Whether the provider does not know a response; raises ProviderError for another refusal."""
    problem = reception.problem
    if problem is None or reception.gone:
        return reception.gone
    raise ProviderError(f"the provider was asked about {response} and refused: {problem.message}")


async def _take_over(engine: Engine, head: Head, found: Reception | None) -> list[Recovered] | None:
    """Take the lease and settle; None where somebody was there since the head was read."""
    conversation, epoch, taken = head.state.id, head.epoch + 1, False

    async def act(draft: Draft) -> Lease | None:
        nonlocal taken
        taken = draft.state.version == head.state.version and not engine.runs(conversation)
        return "acquire" if taken else None

    try:
        await engine.commit(conversation, act, epoch=epoch)
    except StaleEpoch:
        return []
    if not taken:
        return None
    done: list[Recovered] = []
    if found is not None and head.state.turn is not None:
        await _record(engine, conversation, epoch, found)
        action = "fetched the response, which had finished"
        turn = head.state.turn.id
        done = [Recovered(conversation=conversation, turn=turn, action=action, reason=CRASHED)]
    return done + await settle_here(engine, conversation, epoch, certain=head.certain)


async def settle_here(
    engine: Engine,
    conversation: str,
    epoch: int,
    *,
    reason: str = CRASHED,
    reception: Reception | None = None,
    certain: bool = True,
) -> list[Recovered]:
    """Settle a turn under a lease that is held, until nothing is left to establish.

    `reception` holds what was heard of the open attempt, where this process heard it. `certain` is
    off where the owner before may still live.
    """
    done: list[Recovered] = []
    while True:
        state = await engine.state(conversation)
        step = settle(state, retrieve=False, reason=reason)
        assert not isinstance(step, Ask)
        turn = state.turn.id if state.turn is not None else None
        heard = _of(state.attempt, reception)
        last = _Last(reason=reason, reception=heard, certain=certain)
        action = await _establish(engine, conversation, epoch, step, last)
        if action:
            done.append(
                Recovered(conversation=conversation, turn=turn, action=action, reason=reason)
            )
        if isinstance(step, (Leave, Halt, End, Settled)):
            return done


def _of(attempt: Attempt | None, reception: Reception | None) -> Reception | None:
    """What was heard of this attempt, and not of the one before it."""
    if attempt is None or reception is None or reception.attempt != attempt.id:
        return None
    return reception


async def _establish(
    engine: Engine,
    conversation: str,
    epoch: int,
    step: Established,
    last: _Last,
) -> str:
    """Record one settlement; what was done, in words."""
    reason, reception = last.reason, last.reception
    said = reception.take_notes() + reception.take_checkpoints() if reception is not None else []

    async def act(draft: Draft) -> Lease | None:
        attempt = draft.state.attempt
        match step:
            case Interrupt() | Unknown():
                assert attempt is not None
                draft.do(Note(events=tuple(said)))
                draft.do(Finish(outcome=_outcome(step, attempt, reception)))
            case Doubt():
                doubt = _DOUBTS.get(reason, reason) if last.certain else _SILENT
                command = DoubtCalls(calls=step.calls, reason=doubt, timed_out=not last.certain)
                draft.do(command)
            case Halt():
                draft.do(PauseTurn(reason=step.reason, calls=step.calls))
                return "release"
            case End():
                draft.do(await ending(engine, draft.state, step))
                return "release"
            case Leave():
                draft.do(Note(events=tuple(said)))
                # Who closes is dead soon, and recovery looks for what the dead left.
                return "keep" if reason == "closed" else "release"
            case Settled():
                return "release"
            case _:
                assert_never(step)
        return "keep"

    await engine.commit(conversation, act, actor=ENGINE, epoch=epoch)
    return _in_words(step)


async def ending(engine: Engine, state: State, step: End) -> EndTurn:
    """The end of a turn: what it came to and why, and an output for every call that has none."""
    last = state.turn.last if state.turn is not None else None
    error: JsonObject = {}
    if step.outcome == "limited" and step.reason is not None:
        error = {"message": step.reason}
    elif step.outcome == "failed" and last is not None:
        known = {"code": last.code, "status": last.status}
        error = {"message": step.reason or last.kind, "outcome": last.kind}
        error |= {name: value for name, value in known.items() if value}
        error = await explained(engine.store, state, last, error)
    why = f"the call was not carried out: the turn was {step.outcome}"
    return EndTurn(
        outcome=step.outcome,
        reason=step.reason,
        abandon=await engine.abandoned(state, why),
        error=error or None,
    )


async def overfull(engine: Engine, state: State, error: TooLarge) -> EndTurn:
    """The end of a turn whose next request is larger than is allowed; nothing of it was sent."""
    why = "the call was not carried out: the turn was failed"
    told: JsonObject = {"message": str(error), "code": "too_large", "setting": error.setting}
    return EndTurn(
        outcome="failed",
        reason=str(error),
        abandon=await engine.abandoned(state, why),
        error={**told, "limit": error.limit, "size": error.size, "over": error.over},
    )


_DOUBTS = {
    CRASHED: "the process stopped while the tool ran",
    "closed": "the log was closed while the tool ran",
    "cancelled": "the turn was cancelled while the tool ran",
    "stopped": "the turn was stopped by an error while the tool ran",
}
"""Why nobody knows what became of a call."""

_SILENT = "the process that ran the tool was not heard from any more; it may still run it"


def _in_words(step: Established) -> str:
    match step:
        case Interrupt():
            return "recorded the response as interrupted"
        case Unknown():
            return "recorded the outcome of the request as unknown"
        case Doubt():
            return f"marked {len(step.calls)} started call(s) as uncertain"
        case Halt():
            return "left the turn to be resumed"
        case End():
            return f"ended the turn as {step.outcome}"
        case Leave():
            return "left the response to be heard later"
        case Settled():
            return ""
        case _:
            assert_never(step)


def _outcome(
    step: Interrupt | Unknown, attempt: Attempt, reception: Reception | None
) -> ev.OutcomeEvent:
    if isinstance(step, Unknown) and reception is None and step.reason != CRASHED:
        error = {"message": f"the turn was {step.reason} before the request was sent"}
        return ev.ResponseRejected(
            attempt=attempt.id, reason="not_sent", retryable=True, error=error
        )
    if isinstance(step, Unknown) and (reception is None or reception.heard == 0):
        return ev.ResponseUnknown(attempt=attempt.id, reason=step.reason)
    response = attempt.response or (reception.response if reception is not None else None)
    return ev.ResponseInterrupted(attempt=attempt.id, response=response, reason=step.reason)


async def ask(
    engine: Engine,
    conversation: str,
    attempt: Attempt,
    response: str,
    *,
    every: float = POLL_SECONDS,
    seconds: float = POLL_FOR_SECONDS,
) -> Reception | None:
    """Ask the provider what became of a response; None where it does not know it any more.

    One that still runs is polled until a deadline. Raises ProviderError where nobody answers.
    """
    for _ in range(round(seconds / every)):
        reception = await retrieved(engine, conversation, attempt, response)
        if reception is None or _refused(reception, response):
            return None
        if reception.terminal is not None:
            return reception
        await asyncio.sleep(every)
    return None


async def retrieved(
    engine: Engine, conversation: str, attempt: Attempt, response: str
) -> Reception | None:
    """What the provider says of a response now; None where it cannot be asked.

    Raises what the transport raises.
    """
    config = await engine.configuration(await engine.state(conversation))
    reception = Reception(
        attempt=attempt.id,
        version=attempt.version,
        secrets=values_in([*config.tools, config.settings]),
    )
    try:
        async with aclosing(engine.transport.send(Retrieve(response=response))) as frames:
            async for frame in frames:
                reception.feed(frame)
    except NotSupported:
        return None
    return reception


async def _record(engine: Engine, conversation: str, epoch: int, reception: Reception) -> None:
    async def act(draft: Draft) -> Lease:
        draft.do(finish(engine, reception))
        return "keep"

    await engine.commit(conversation, act, epoch=epoch)


def finish(engine: Engine, reception: Reception) -> Finish:
    """The end of an attempt that was heard to its terminal frame, or was cut off."""
    outcome = reception.outcome() or reception.interrupted("the stream ended without an outcome")
    items = reception.outputs() if reception.terminal is not None else []
    outputs = tuple(
        ev.OutputRecorded(
            attempt=reception.attempt,
            response=reception.response,
            index=index,
            key=engine.ambient.id("itm"),
            item=item,
        )
        for index, item in enumerate(items)
    )
    calls = [output.key for output in outputs if is_client_call(output.item)]
    return Finish(
        outcome=outcome,
        outputs=outputs,
        calls=tuple((key, engine.ambient.id("call")) for key in calls),
        chain_lost=is_chain_lost(outcome),
    )
