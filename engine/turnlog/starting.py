"""Starting a turn, and continuing one: from what a caller passed to a running owner.

The one rule: whatever can be wrong is found before anything is written, and the input, the turn and
its first request are one append (laws 1 and 13).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from . import events as ev
from .agent import Agent
from .cancelling import cancel
from .canonical import Json, JsonObject
from .commands import BeginTurn, Configure, Start
from .context import turn_row
from .draft import Draft
from .engine import ENGINE, Act, Engine, Outgoing
from .errors import Busy, IdempotencyMismatch, InvalidInput, NotSupported, StaleEpoch
from .held import Held
from .inputs import input_digest
from .ports import Lease, TurnRow
from .record import NewEvent
from .recovery import Send
from .runner import Runner
from .settling import is_left, settle_left
from .state import State
from .unbroken import unbroken

IfBusy: TypeAlias = Literal["raise", "queue", "interrupt"]
Pending: TypeAlias = Literal["raise", "abandon"]

IF_BUSY: tuple[IfBusy, ...] = ("raise", "queue", "interrupt")
PENDING: tuple[Pending, ...] = ("raise", "abandon")

RESUMED = frozenset({"crashed", "closed", "stopped"})
"""Why a turn waits that nobody but its own process held up: the same send continues it."""


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
class Setup:
    """What a conversation's handle knows: its agent, its configuration, its metadata."""

    agent: Agent | None
    config: ev.ConversationConfigured | None
    metadata: JsonObject = field(default_factory=dict[str, Json])


async def begin(engine: Engine, conversation: str, given: Input, setup: Setup) -> str:
    """Start a turn, durable when this returns; its id. The same key gives the same turn.

    Raises Busy, Waiting, IdempotencyMismatch, ItemPresent, InvalidInput, ConfigurationError.
    """
    if given.if_busy == "queue":
        raise NotSupported('if_busy="queue" comes with a later version: use "raise"')
    engine.transport.check()
    digest = input_digest(given.items, given.settings)
    found: str | TurnRow | None = await _by_key(engine, conversation, given.key)
    if found is None:
        await make_way(engine, conversation, given.if_busy)
        found = await _begin(engine, conversation, given, setup, digest)
    return found if isinstance(found, str) else await _known(engine, found, digest, setup)


async def _by_key(engine: Engine, conversation: str, key: str | None) -> TurnRow | None:
    """The turn that a key stands for already."""
    return await engine.store.turn(conversation, key=key) if key is not None else None


async def _known(engine: Engine, known: TurnRow, digest: str, setup: Setup) -> str:
    """The turn that a key stands for already; it goes on where its process died."""
    if known.digest != digest:
        raise IdempotencyMismatch(
            f"the idempotency key {known.key!r} was used for another input, in turn {known.turn}:"
            " use a new key for a new input",
            turn=known.turn,
        )
    await settle_left(engine, known.conversation)
    head = await engine.head(known.conversation)
    open_ = head.state.turn
    if open_ is not None and open_.id == known.turn:
        left = is_left(head, running=engine.runs(known.conversation))
        if left or open_.paused in RESUMED:
            await resume(engine, known.conversation, known.turn, setup.agent)
    return known.turn


async def make_way(engine: Engine, conversation: str, if_busy: IfBusy) -> None:
    """Settle what a dead owner left, and stop a running turn where that was asked for."""
    if await engine.store.head(conversation) is None:
        return
    await settle_left(engine, conversation)
    running = await engine.runner(conversation) is not None
    if if_busy != "interrupt":
        return
    head = await engine.head(conversation)
    turn = head.state.turn
    if turn is not None and (running or is_left(head, running=running)):
        await cancel(engine, conversation, turn.id, reason="interrupted", actor=ENGINE)


async def _begin(
    engine: Engine, conversation: str, given: Input, setup: Setup, digest: str
) -> str | TurnRow:
    """Begin a turn; its id, or the turn that somebody began with the same key meanwhile."""
    turn = given.turn or engine.ambient.id("turn")
    outgoing: Outgoing | None = None
    config = setup.config
    known: TurnRow | None = None

    async def act(draft: Draft) -> Lease | None:
        nonlocal outgoing, config, known
        known = await _by_key(engine, conversation, given.key)
        if known is not None:
            return None
        _check_not_running(engine, draft.state)
        draft.do(Start(metadata=setup.metadata))
        if setup.config is not None:
            _configure(draft, setup.config, setup.agent)
        config = setup.config or await engine.configuration(draft.state)
        draft.do(await _beginning(engine, draft.state, given, turn, digest))
        outgoing = await engine.prepare(draft, Send(cause="first"), config, given.settings)
        if outgoing is None:
            raise InvalidInput("there is nothing to send: an output needs the call that it answers")
        return "acquire"

    def run(draft: Draft) -> None:
        if known is None and config is not None:
            runner = runner_for(engine, draft, turn, config, given.settings, setup.agent)
            runner.start(draft.state, outgoing)

    await acquiring(engine, conversation, act, given.actor, run)
    return known or turn


def _check_not_running(engine: Engine, state: State) -> None:
    """Raise Busy for a turn that runs here again, though the log still says that it waits."""
    if state.turn is not None and engine.runs(state.id):
        raise Busy(
            f"turn {state.turn.id} is running: wait for it or cancel it before the next input",
            turn=state.turn.id,
        )


async def _beginning(
    engine: Engine, state: State, given: Input, turn: str, digest: str
) -> BeginTurn:
    """The command that begins a turn, with the outputs of the calls that it abandons."""
    abandon = None
    if given.pending == "abandon":
        why = "the call was not carried out: another input came first"
        abandon = await engine.abandoned(state, why)
    return BeginTurn(
        turn=turn,
        key=given.key or turn,
        digest=digest,
        items=tuple(engine.keyed(item) for item in given.items),
        settings=given.settings,
        max_requests=given.max_requests,
        max_retries=given.max_retries,
        manual=given.manual,
        present=await engine.present(state.id, given.items),
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
    return Runner(held, config=config, settings=settings, agent=agent or registered)


async def acquiring(
    engine: Engine, conversation: str, act: Act, actor: str, run: Callable[[Draft], None]
) -> None:
    """Commit what takes the lease and run what follows, or neither; nothing comes between them.

    Where another process was first, it looks again. Raises Busy where a living owner of another
    process holds the lease.
    """
    await unbroken(_acquire(engine, conversation, act, actor, run))


async def _acquire(
    engine: Engine, conversation: str, act: Act, actor: str, run: Callable[[Draft], None]
) -> None:
    while True:
        head = await engine.store.head(conversation)
        epoch = head.epoch + 1 if head is not None else 1
        try:
            draft = await engine.commit(conversation, act, actor=actor, epoch=epoch)
        except StaleEpoch:
            await _check_free(engine, conversation)
        else:
            run(draft)
            return


async def _check_free(engine: Engine, conversation: str) -> None:
    """Raise Busy where a living owner of another process holds the lease."""
    head = await engine.head(conversation)
    if head.owner is not None and head.alive and not head.mine:
        turn = head.state.turn.id if head.state.turn is not None else None
        raise Busy(f"another process runs turn {turn} of {conversation!r}: wait for it", turn=turn)


# -- going on ------------------------------------------------------------------------------


async def resume(engine: Engine, conversation: str, turn: str, agent: Agent | None = None) -> None:
    """Continue a paused or settled turn here, where anything of it can go on.

    Raises NotFound, Busy (another process runs it), ConfigurationError.
    """
    if await engine.runner(conversation) is not None:
        return
    engine.transport.check()
    await settle_left(engine, conversation)
    head = await engine.head(conversation)
    state = head.state
    if state.turn is None or state.turn.id != turn:
        await turn_row(engine.store, conversation, turn)
        return
    if state.turn.paused is None:
        await _check_free(engine, conversation)
    config = await engine.configuration(state)
    settings = await engine.turn_settings(state)

    free = False

    async def act(draft: Draft) -> Lease | None:
        nonlocal free
        open_ = draft.state.turn
        free = not engine.runs(conversation) and open_ is not None and open_.id == turn
        return "acquire" if free else None

    def run(draft: Draft) -> None:
        if free:
            runner_for(engine, draft, turn, config, settings, agent).start(draft.state)

    await acquiring(engine, conversation, act, "turnlog", run)
