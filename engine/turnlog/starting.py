"""Starting a turn, and continuing one: from what a caller passed to a running owner.

The one rule: whatever can be wrong is found before anything is written, and the input, the turn and
its first request are one append (laws 1 and 13).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

from . import events as ev
from .agent import Agent
from .cancelling import cancel, drop_queued
from .canonical import Json, JsonObject
from .commands import BeginTurn, Configure, EndTurn, QueueTurn, ResumeTurn, Start
from .configuring import configured, overridden
from .context import turn_row
from .draft import Draft
from .engine import ENGINE, Act, Engine, Outgoing, is_elsewhere, is_left
from .errors import (
    Busy,
    IdempotencyMismatch,
    InvalidInput,
    ItemPresent,
    StaleEpoch,
    TooLarge,
    TooMany,
    Waiting,
)
from .held import Held
from .inputs import input_digest
from .items import ids_of
from .ports import Lease
from .record import NewEvent
from .recovery import Send
from .runner import Runner
from .settling import settle_left
from .state import Queued, State
from .unbroken import unbroken

IfBusy: TypeAlias = Literal["raise", "queue", "interrupt"]
Pending: TypeAlias = Literal["raise", "abandon"]

IF_BUSY: tuple[IfBusy, ...] = ("raise", "queue", "interrupt")
PENDING: tuple[Pending, ...] = ("raise", "abandon")

RESUMED = frozenset({"crashed", "closed", "stopped"})
"""Why a turn waits that nobody but its own process held up: the same send continues it."""

OTHER_INPUT = "the call was not carried out: another input came first"
"""What the model is told of the calls of a turn that was abandoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a caller sends: items, settings of the turn, and how it is to be taken.

    `turn` is the id of the turn that it begins, where the caller has made one.
    """

    items: tuple[JsonObject, ...]
    settings: JsonObject = field(default_factory=dict[str, Json])
    key: str | None = None
    actor: str
    manual: bool = False
    if_busy: IfBusy = "raise"
    pending: Pending = "raise"
    max_requests: int | None = None
    max_retries: int | None = None
    turn: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SameKey:
    """A turn that an idempotency key stands for already."""

    turn: str
    key: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a conversation's handle knows: its agent, what it says instead, its metadata.

    `config` is a whole configuration, where there is one already.
    """

    agent: Agent | None = None
    overrides: JsonObject = field(default_factory=dict[str, Json])
    metadata: JsonObject = field(default_factory=dict[str, Json])
    config: ev.ConversationConfigured | None = None

    async def wanted(self, engine: Engine, state: State) -> ev.ConversationConfigured | None:
        """The configuration that is asked for; None for the one that is recorded."""
        if self.config is not None or (self.agent is None and not self.overrides):
            return self.config
        if self.agent is not None:
            return configured(self.agent, self.overrides)
        recorded = await engine.configuration(state) if state.config is not None else None
        return overridden(recorded, self.overrides)


async def begin(engine: Engine, conversation: str, given: Input, setup: Setup) -> str:
    """Start a turn, durable when this returns; its id. The same key gives the same turn.

    Raises Busy, Waiting, IdempotencyMismatch, ItemPresent, InvalidInput, ConfigurationError.
    """
    engine.transport.check()
    digest = input_digest(given.items, given.settings)
    found = await _begin_at_once(engine, conversation, given, setup, digest)
    if found is None and given.key is not None:
        found = await _by_key(engine, await engine.state(conversation), given.key)
    if found is None:
        await make_way(engine, conversation, given.if_busy)
        found = await _begin_or_queue(engine, conversation, given, setup, digest)
    if isinstance(found, str):
        return found
    return await _known(engine, conversation, found, digest, setup)


async def _begin_at_once(
    engine: Engine, conversation: str, given: Input, setup: Setup, digest: str
) -> str | SameKey | None:
    """Begin a turn of a conversation that was idle when this process wrote to it last.

    None where something is in the way: others may have written since. Nothing is read for it where
    they have not, which saves two reads of the head.
    """
    known = engine.recent.get(conversation)
    if known is None or known.state.status != "idle" or conversation in engine.live:
        return None
    with suppress(Busy, Waiting):
        return await _begin(engine, conversation, given, setup, digest)
    return None


async def _by_key(engine: Engine, state: State, key: str | None) -> SameKey | None:
    """The turn that a key stands for already, begun or queued."""
    if key is None:
        return None
    row = await engine.store.turn(state.id, key=key)
    if row is not None:
        return SameKey(turn=row.turn, key=row.key, digest=row.digest)
    queued = state.in_queue(key=key)
    if queued is None:
        return None
    return SameKey(turn=queued.id, key=queued.key, digest=queued.digest)


async def _known(
    engine: Engine, conversation: str, known: SameKey, digest: str, setup: Setup
) -> str:
    """The turn that a key stands for already; it goes on where its process died."""
    if known.digest != digest:
        raise IdempotencyMismatch(
            f"the idempotency key {known.key!r} was used for another input, in turn {known.turn}:"
            " use a new key for a new input",
            turn=known.turn,
        )
    await settle_left(engine, conversation)
    head = await engine.head(conversation)
    open_ = head.state.turn
    if open_ is not None and open_.id == known.turn:
        if is_left(head, running=engine.runs(conversation)) or open_.paused in RESUMED:
            with suppress(Busy):  # another process has taken it on since
                await resume(engine, conversation, known.turn, setup.agent)
    elif head.state.in_queue(known.turn) is not None:
        await run_next(engine, conversation)
    return known.turn


async def _begin_or_queue(
    engine: Engine, conversation: str, given: Input, setup: Setup, digest: str
) -> str | SameKey:
    """Begin a turn; where one is in the way and that was asked for, queue it behind.

    A queue runs tools, which are the caller's own of a manual turn: that one is never queued.
    """
    while True:
        try:
            return await _begin(engine, conversation, given, setup, digest)
        except Busy:
            if given.if_busy == "raise" or given.manual:
                raise
        found = await _queue(engine, conversation, given, setup, digest)
        if found is not None:
            if given.if_busy == "interrupt":
                turn = found if isinstance(found, str) else found.turn
                await _interrupt(engine, conversation, turn)
            await run_next(engine, conversation)
            return found


async def _queue(
    engine: Engine, conversation: str, given: Input, setup: Setup, digest: str
) -> str | SameKey | None:
    """Put a turn behind the one that runs; None where nothing is in its way any more.

    A turn that waits before others is abandoned where that was asked for, and they go first.
    """
    turn = given.turn or engine.ambient.id("turn")
    known: SameKey | None = None
    queued = False

    async def act(draft: Draft) -> Lease | None:
        nonlocal known, queued
        known = await _by_key(engine, draft.state, given.key)
        waiting = draft.state.queued and draft.state.status == "waiting"
        if known is None and waiting and given.pending == "abandon":
            outputs = await engine.abandoned(draft.state, OTHER_INPUT)
            draft.do(EndTurn(outcome="cancelled", abandon=outputs, reason="abandoned"))
        queued = known is None and draft.state.status in ("busy", "queued")
        if queued:
            event = ev.TurnQueued(
                key=given.key or turn,
                digest=digest,
                settings=given.settings,
                items=given.items,
                config=await setup.wanted(engine, draft.state),
                max_requests=given.max_requests,
                max_retries=given.max_retries,
                first=given.if_busy == "interrupt",
            )
            draft.do(QueueTurn(turn=turn, queued=event))
        return None

    await engine.commit(conversation, act, actor=given.actor)
    return turn if queued else known


async def run_next(engine: Engine, conversation: str) -> str | None:
    """Begin the turn that is first in the queue, where no other one is open; its id.

    One that cannot begin any more is over, and the log says why. Raises ConfigurationError where
    nothing can be sent from here; then it stays queued.
    """
    while True:
        head = await engine.store.head(conversation)
        if head is None or head.state.turn is not None or not head.state.queued:
            return None
        engine.transport.check()
        waiting = head.state.queued[0]
        try:
            return await _begin_queued(engine, conversation, waiting)
        except Busy:
            return None
        except (InvalidInput, ItemPresent, IdempotencyMismatch) as error:
            await drop_queued(engine, conversation, waiting.id, "failed", str(error), ENGINE)


async def _begin_queued(engine: Engine, conversation: str, waiting: Queued) -> str:
    (recorded,) = await engine.store.pick(conversation, [waiting.version])
    queued = recorded.event
    assert isinstance(queued, ev.TurnQueued)
    given = Input(
        items=queued.items,
        settings=queued.settings,
        key=waiting.key,
        actor=recorded.actor,
        max_requests=queued.max_requests,
        max_retries=queued.max_retries,
        turn=waiting.id,
    )
    name = queued.config.agent if queued.config is not None else None
    setup = Setup(agent=engine.agents.get(name or ""), config=queued.config)
    found = await _begin(engine, conversation, given, setup, waiting.digest)
    return found if isinstance(found, str) else found.turn


async def make_way(engine: Engine, conversation: str, if_busy: IfBusy) -> None:
    """Settle what a dead owner left, and stop a running turn where that was asked for.

    What was queued and left alone goes on first.
    """
    head = await engine.look(conversation)
    if head is None:
        return
    if is_left(head, running=engine.runs(conversation)):
        await settle_left(engine, conversation)
    await engine.runner(conversation)
    if if_busy == "interrupt" and not head.state.queued:
        await _interrupt(engine, conversation)
    elif head.state.queued:
        await run_next(engine, conversation)


async def _interrupt(engine: Engine, conversation: str, turn: str | None = None) -> None:
    """Stop the turn that runs, unless it is `turn`."""
    open_ = (await engine.head(conversation)).state.turn
    if open_ is not None and open_.paused is None and open_.id != turn:
        await cancel(engine, conversation, open_.id, reason="interrupted", actor=ENGINE)


async def _begin(
    engine: Engine, conversation: str, given: Input, setup: Setup, digest: str
) -> str | SameKey:
    """Begin a turn; its id, or the turn that somebody began with the same key meanwhile."""
    turn = given.turn or engine.ambient.id("turn")
    outgoing: Outgoing | None = None
    config: ev.ConversationConfigured | None = None
    known: SameKey | None = None

    async def act(draft: Draft) -> Lease | None:
        nonlocal outgoing, config, known
        known = await _by_key(engine, draft.state, given.key)
        if known is not None and draft.state.in_queue(turn) is not None:
            _check_own(known, turn)
            known = None  # this is the one that begins now
        if known is not None:
            return None
        draft.do(Start(metadata=setup.metadata))
        wanted = await setup.wanted(engine, draft.state)
        if wanted is not None:
            _configure(draft, wanted, setup.agent)
        config = wanted or await engine.configuration(draft.state)
        draft.expect_new(given.items)
        draft.do(await _beginning(engine, draft.state, given, turn, digest))
        send, lacks = Send(cause="first"), "an output needs the call that it answers"
        outgoing = await requested_with(engine, draft, given, send, config, given.settings, lacks)
        return "acquire"

    def run(draft: Draft) -> None:
        if known is None and config is not None:
            runner = runner_for(engine, draft, turn, config, given.settings, setup.agent)
            runner.start(draft.state, outgoing)

    await acquiring(engine, conversation, act, given.actor, run)
    return known or turn


async def requested_with(
    engine: Engine,
    draft: Draft,
    given: Input,
    send: Send,
    config: ev.ConversationConfigured,
    settings: JsonObject,
    lacks: str,
) -> Outgoing:
    """The request that goes out with an input; `lacks` is what to do where there is none.

    Raises InvalidInput and TooLarge; but ItemPresent where an item of the input stands there
    already, which the store would find only behind that.
    """
    try:
        outgoing = await engine.prepare(draft, send, config, settings)
        if outgoing is None:
            raise InvalidInput(f"there is nothing to send: {lacks}")
    except (InvalidInput, TooLarge):
        await engine.check_new(draft.state.id, ids_of(given.items))
        raise
    return outgoing


def _check_own(known: SameKey, turn: str) -> None:
    """Raise IdempotencyMismatch where the key of a queued turn is that of another one.

    Only a log that was imported has such a turn, which could never begin.
    """
    if known.turn != turn:
        raise IdempotencyMismatch(
            f"the idempotency key {known.key!r} of turn {turn} is that of turn {known.turn}",
            turn=known.turn,
        )


async def _beginning(
    engine: Engine, state: State, given: Input, turn: str, digest: str
) -> BeginTurn:
    """The command that begins a turn, with the outputs of the calls that it abandons."""
    abandon = None
    if given.pending == "abandon":
        abandon = await engine.abandoned(state, OTHER_INPUT)
    return BeginTurn(
        turn=turn,
        key=given.key or turn,
        digest=digest,
        items=engine.keyed(*given.items),
        settings=given.settings,
        max_requests=given.max_requests,
        max_retries=given.max_retries,
        manual=given.manual,
        abandon=abandon,
    )


def _configure(draft: Draft, config: ev.ConversationConfigured, agent: Agent | None) -> None:
    """Put a configuration in force, and note which of its tools are not strict, and why (W-62)."""
    notes = dict(agent.toolset.notes) if agent is not None else {}
    if draft.do(Configure(config=config)) and notes:
        noted = ev.ProviderNoted(kind="tools_not_strict", data=notes)
        draft.take([NewEvent(event=noted)])


def runner_for(
    engine: Engine,
    draft: Draft,
    turn: str,
    config: ev.ConversationConfigured,
    settings: JsonObject,
    agent: Agent | None,
) -> Runner:
    """The runner of a turn whose lease a draft has taken; its agent is found by name."""
    assert draft.epoch is not None
    registered = engine.agents.get(config.agent) if config.agent is not None else None
    held = Held(engine, draft.state.id, turn, draft.epoch)
    return Runner(
        held,
        config=config,
        settings=settings,
        agent=agent or registered,
        then=partial(_next, engine, draft.state.id),
    )


async def _next(engine: Engine, conversation: str) -> None:
    """Begin what is queued; where no more turns may run here, when one of them is over."""
    while True:
        try:
            await run_next(engine, conversation)
        except TooMany:
            # Another one may have ended since.
            with suppress(TooMany):
                engine.limits.check_turns(conversation, engine.live.keys(), engine.starting)
                continue
            engine.postponed[conversation] = partial(_next, engine, conversation)
        return


def go_on(engine: Engine, conversation: str) -> None:
    """Begin what is queued where the turn before it is over, though nobody waits for that."""
    engine.run_errand(_next(engine, conversation), "next turn")


async def acquiring(
    engine: Engine, conversation: str, act: Act, actor: str, run: Callable[[Draft], None]
) -> None:
    """Commit what takes the lease and run what follows, or neither; nothing comes between them.

    Where another process was first, it looks again. Raises Busy where a living owner of another
    process holds the lease, and TooMany where no more turns may run here.
    """
    await unbroken(_acquire(engine, conversation, act, actor, run))


async def _acquire(
    engine: Engine, conversation: str, act: Act, actor: str, run: Callable[[Draft], None]
) -> None:
    async def admitted(draft: Draft) -> Lease | None:
        lease = await act(draft)
        if lease == "acquire":
            engine.limits.check_turns(conversation, engine.live.keys(), engine.starting)
            engine.starting.add(conversation)
        return lease

    while True:
        epoch = await engine.epoch(conversation) + 1
        try:
            draft = await engine.commit(conversation, admitted, actor=actor, epoch=epoch)
            run(draft)
            await _stop_if_closing(engine, conversation)
        except StaleEpoch:
            engine.recent.forget(conversation)
            await _check_free(engine, conversation)
        else:
            return
        finally:
            taken = conversation in engine.starting
            engine.starting.discard(conversation)
            if taken and conversation not in engine.live:
                engine.make_room()


async def _stop_if_closing(engine: Engine, conversation: str) -> None:
    """A turn that begins while the log is closed is stopped like those that ran before."""
    runner = engine.live.get(conversation)
    if engine.closing and runner is not None:
        await runner.stop("closed")


async def _check_free(engine: Engine, conversation: str) -> None:
    """Raise Busy where a living owner of another process holds the lease."""
    head = await engine.head(conversation)
    if is_elsewhere(head):
        turn = head.state.turn.id if head.state.turn is not None else None
        raise Busy(f"another process runs turn {turn} of {conversation!r}: wait for it", turn=turn)


# -- going on ------------------------------------------------------------------------------


async def resume(
    engine: Engine,
    conversation: str,
    turn: str,
    agent: Agent | None = None,
    *,
    actor: str = ENGINE,
    reason: str | None = None,
) -> None:
    """Continue a paused or settled turn here, where anything of it can go on.

    One that is queued begins, where nothing is in its way. Raises NotFound, Busy (another process
    runs it), ConfigurationError.
    """
    if await engine.runner(conversation) is not None:
        return
    engine.transport.check()
    await settle_left(engine, conversation)
    head = await engine.head(conversation)
    state = head.state
    if state.turn is None or state.turn.id != turn:
        if state.in_queue(turn) is None:
            await turn_row(engine.store, conversation, turn)
        await run_next(engine, conversation)
        return
    if state.turn.paused is None:
        await _check_free(engine, conversation)
    config = await engine.configuration(state)
    settings = await engine.turn_settings(state)

    free = moved = False

    async def act(draft: Draft) -> Lease | None:
        nonlocal free, moved
        open_ = draft.state.turn
        free = not engine.runs(conversation) and open_ is not None and open_.id == turn
        # Somebody may have taken it on since it was looked at, and died: that is settled first.
        moved = free and draft.state.version != state.version
        if not free or moved:
            return None
        draft.do(ResumeTurn(reason=reason))
        return "acquire"

    def run(draft: Draft) -> None:
        if free and not moved:
            runner_for(engine, draft, turn, config, settings, agent).start(draft.state)

    await acquiring(engine, conversation, act, actor, run)
    if moved:
        await resume(engine, conversation, turn, agent, actor=actor, reason=reason)
