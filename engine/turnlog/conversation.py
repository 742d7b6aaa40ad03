"""A conversation, as people hold it: one history under an id.

The one rule: handles are cheap and plural; opening one writes nothing, and every verb reads the log
before it decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, Unpack, overload

from .agent import Agent
from .call import Call, describe
from .canonical import Json, JsonObject
from .commands import AddItems, Configure, EditItem, RemoveItem, Start
from .compacting import Compaction, compact
from .configuring import (
    check_actor,
    check_choice,
    check_id,
    check_key,
    check_limit,
    check_text,
)
from .context import Item, every, load, state_at, turn_row, version_before
from .decide_calls import find
from .diff import Difference, diff
from .draft import Draft
from .engine import Act, Engine
from .errors import InvalidInput
from .forking import config_at, fork_point, make_fork
from .inputs import to_items
from .manual import continue_manual, manual_turn
from .ports import Lease, TurnRow
from .record import Recorded
from .replacing import as_raw, edited, place_of, replacement
from .request import OWN
from .result import TurnResult
from .schemas import output_format
from .settings import Settings, checked, with_format
from .starting import IF_BUSY, PENDING, IfBusy, Input, Pending, Setup, begin
from .state import State, Status
from .turn import Turn, failure
from .updates import Cursor, Update
from .warming import warm
from .watching import watch

T = TypeVar("T")


class TurnOptions(Settings, total=False):
    """How a turn is to be taken, beside its settings, which win over all others (W-63).

    `by` is who sends it. `if_busy` is what to do while a turn runs: `raise` Busy, `queue` behind
    it, or `interrupt` it; `pending` while one waits for an answer: `raise` Waiting, or `abandon`
    it.
    """

    by: str
    idempotency_key: str | None
    if_busy: IfBusy
    pending: Pending
    max_requests: int | None
    max_retries: int | None
    model: str
    instructions: str


_TAKEN = frozenset(TurnOptions.__annotations__) - frozenset(Settings.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationState:
    """A conversation at a version: what is open, and which calls wait for somebody.

    `queued` holds the turns that wait for the open one, in order.
    """

    id: str
    version: int
    status: Status
    turn: str | None
    paused: str | None
    agent: str | None
    model: str | None
    parent: str | None
    items: int
    turns: int
    metadata: JsonObject
    pending: tuple[Call, ...]
    queued: tuple[str, ...]
    head: State = field(repr=False)

    @property
    def cursor(self) -> Cursor:
        """Where a watcher goes on that has seen everything up to here."""
        return Cursor(self.version)


@dataclass(frozen=True, slots=True)
class View:
    """A conversation as it was at a version."""

    conversation: str
    version: int
    state: State = field(repr=False)
    _engine: Engine = field(repr=False, compare=False)

    async def items(self, *, last: int | None = None) -> list[Item]:
        """The context as it was, in order; the tail is part of it."""
        return await self._engine.store.items(self.conversation, version=self.version, last=last)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One history under an id. Get one from `log.conversation(id)` or `log.get(id)`."""

    id: str
    _engine: Engine = field(repr=False, compare=False)
    _agent: Agent | None = field(default=None, repr=False, compare=False)
    _overrides: JsonObject = field(default_factory=dict[str, Json], repr=False, compare=False)
    _metadata: JsonObject = field(default_factory=dict[str, Json], repr=False, compare=False)

    # -- turns -------------------------------------------------------------------------------

    @overload
    async def run(
        self, *input: object, output_type: type[T], **options: Unpack[TurnOptions]
    ) -> TurnResult[T]: ...
    @overload
    async def run(self, *input: object, **options: Unpack[TurnOptions]) -> TurnResult[Any]: ...
    async def run(
        self,
        *input: object,
        output_type: type[object] | None = None,
        **options: Unpack[TurnOptions],
    ) -> TurnResult[Any]:
        """`send`, then wait. Cancelling the await cancels the turn.

        Returns with status `waiting` where a call needs somebody. Raises what `send` and
        `turn.result` raise: TurnFailed for a turn that failed, and nothing for any other outcome.
        """
        async with self._attended(input, output_type, options) as turn:
            return await turn.result()

    @asynccontextmanager
    async def stream(
        self,
        *input: object,
        output_type: type[object] | None = None,
        **options: Unpack[TurnOptions],
    ) -> AsyncGenerator[Turn[Any]]:
        """`send`, then watch: iterate the turn. Leaving the block early cancels the turn."""
        async with self._attended(input, output_type, options) as turn:
            yield turn

    async def send(
        self,
        *input: object,
        output_type: type[object] | None = None,
        **options: Unpack[TurnOptions],
    ) -> Turn[Any]:
        """Start a turn; it is durable when this returns, and runs whether anybody watches or not.

        The same `idempotency_key` with the same input gives the same turn. Raises Busy or Waiting
        where a turn is open (see `if_busy` and `pending`), IdempotencyMismatch, ItemPresent,
        InvalidInput for an input that cannot be sent, and ConfigurationError without a key or a
        model; then nothing was written.
        """
        return await self._send(input, output_type, options)

    @asynccontextmanager
    async def _attended(
        self, input: Sequence[object], output_type: object, options: TurnOptions
    ) -> AsyncGenerator[Turn[Any]]:
        """A turn that is cancelled where its caller leaves, also while it begins."""
        turn = self._turn(self._engine.ambient.id("turn"), output_type)
        try:
            turn = await self._send(input, output_type, options, turn.id)
            yield turn
        finally:
            queued = options.get("if_busy", "raise") != "raise"
            await asyncio.shield(turn.leave(queued=queued))

    async def _send(
        self,
        input: Sequence[object],
        output_type: object,
        options: TurnOptions,
        new: str | None = None,
    ) -> Turn[Any]:
        given = replace(self._input(input, options, output_type=output_type), turn=new)
        turn = await begin(self._engine, self.id, given, self._setup())
        return self._turn(turn, output_type)

    def _turn(self, id: str, output_type: object) -> Turn[Any]:
        wanted = output_type or (self._agent.output_type if self._agent is not None else None)
        return Turn(id, self.id, self._engine, self._agent, wanted)

    async def request(self, *input: object, **options: Unpack[TurnOptions]) -> TurnResult[str]:
        """One request, one response, and no tool run: for callers with a loop of their own.

        Opens a turn, or continues the one that waits for the caller's answers; the turn ends when
        a response asks for no call. Answer the pending calls of `chat.state()`, then ask again.
        Raises what `send` raises, and Waiting while a call has no output. It is never queued, so
        that it raises Busy behind turns that are, `if_busy="interrupt"` or not.
        """
        if options.get("if_busy") == "queue":
            raise InvalidInput("a request of your own loop cannot be queued: use send, or wait")
        while (turn := await self._request(input, options)) is None:
            pass
        handle: Turn[str] = Turn(turn, self.id, self._engine)
        result = await handle.peek()
        if result.status == "failed":
            raise failure(result)
        return result

    async def _request(self, input: Sequence[object], options: TurnOptions) -> str | None:
        """The turn in which a request was sent; None where it ended since it was looked at."""
        waiting = await manual_turn(self._engine, self.id)
        if waiting is None:
            given = self._input(input, options, manual=True)
            return await begin(self._engine, self.id, given, self._setup())
        items = to_items(*input) if input else ()
        given = Input(items=items, actor=check_actor(options.get("by", "user")))
        return await continue_manual(self._engine, waiting, given, self._agent)

    def _input(
        self,
        input: Sequence[object],
        options: TurnOptions,
        *,
        output_type: object = None,
        manual: bool = False,
    ) -> Input:
        limit = options.get("max_requests")
        if limit is None and self._agent is not None and not manual:
            limit = self._agent.max_requests
        retries = options.get("max_retries")
        if retries is None and self._agent is not None:
            retries = self._agent.max_retries
        own = {name: value for name, value in options.items() if name not in _TAKEN}
        settings = checked(own)
        if output_type is not None:
            settings = with_format(settings, output_format(output_type))
        said = {name: check_text(name, value) for name, value in options.items() if name in OWN}
        return Input(
            items=to_items(*input),
            settings={**said, **settings},
            key=check_key(options.get("idempotency_key")),
            actor=check_actor(options.get("by", "user")),
            manual=manual,
            if_busy=check_choice("if_busy", options.get("if_busy", "raise"), IF_BUSY),
            pending=check_choice("pending", options.get("pending", "raise"), PENDING),
            max_requests=check_limit("max_requests", limit),
            max_retries=check_limit("max_retries", retries, least=0),
        )

    def _setup(self) -> Setup:
        return Setup(agent=self._agent, overrides=self._overrides, metadata=self._metadata)

    async def warm(self, *, by: str = "user") -> bool:
        """Connect, and have the provider read instructions, tools and context ahead of a turn.

        It reads only where the provider can (`generate: false`) and no response can be continued
        from; that costs input tokens. Whether the next turn begins warm: a warm-up that fails
        fails nothing else, and may be tried again. Raises ConfigurationError without a key or a
        model, and InvalidInput for settings that cannot be sent.
        """
        return await warm(self._engine, self.id, self._setup(), check_actor(by))

    async def compact(self, *, by: str = "user") -> Compaction:
        """Have the provider compact the context; what was compacted stays in the log.

        The next request begins with what came of it. Raises NotSupported where the profile has no
        compaction, Busy while a turn is open, Waiting where an output was not sent so far,
        InvalidInput where there is nothing to compact, VersionConflict where the context changed
        meanwhile, and ProviderError; then nothing changed.
        """
        return await compact(self._engine, self.id, actor=check_actor(by))

    # -- watching ----------------------------------------------------------------------------

    def attach(self, after: Cursor | str | None = None) -> AsyncGenerator[Update]:
        """Updates behind a cursor, then live, until no turn runs here: for a page that reloads.

        Without a cursor it begins where the open turn began. Raises InvalidInput for a text that
        is no cursor.
        """
        cursor = Cursor.parse(after) if isinstance(after, str) else after
        return watch(self._engine, self.id, cursor)

    # -- reading -----------------------------------------------------------------------------

    async def state(self) -> ConversationState:
        """What is open, and which calls wait for somebody. Raises NotFound."""
        head = (await self._engine.head(self.id)).state
        calls = [
            describe(self._engine, head, call, await self._engine.call_item(head, call))
            for call in head.pending
        ]
        return summary(head, tuple(calls))

    async def call(self, id: str) -> Call:
        """A call that is not settled so far, by turnlog's id (as `log.pending` has it).

        Raises NotPending.
        """
        head = (await self._engine.head(self.id)).state
        call = find(head, id)
        return describe(self._engine, head, call, await self._engine.call_item(head, call))

    async def items(self, *, last: int | None = None) -> list[Item]:
        """The context that the model is given, in order; what is not sent so far is part of it."""
        return await self._engine.store.items(self.id, last=last)

    async def turns(self, *, last: int = 20) -> list[TurnRow]:
        """The latest turns, in order, without what was said in them (see `turn`)."""
        return (await self._engine.store.turns(self.id, limit=last))[::-1]

    async def turn(self, id: str) -> Turn[str]:
        """A turn by its id. Raises NotFound."""
        head = await self._engine.head(self.id)
        if head.state.in_queue(id) is None:
            await turn_row(self._engine.store, self.id, id)
        return Turn(id, self.id, self._engine, self._agent)

    async def events(self, *, after: int = 0) -> list[Recorded]:
        """The conversation's own log, above a version."""
        return await every(self._engine.store, self.id, after)

    async def at(
        self, *, version: int | None = None, turn: str | None = None, time: float | None = None
    ) -> View:
        """The conversation as it was: at a version, at a turn's end, or at a time (Unix seconds).

        Raises NotFound for a version or turn that does not exist, and InvalidInput where not
        exactly one of the three is given.
        """
        found = await version_at(self._engine, self.id, version=version, turn=turn, time=time)
        state = await state_at(self._engine.store, self.id, found)
        return View(self.id, found, state, self._engine)

    async def diff(self, before: int, after: int | None = None) -> list[Difference]:
        """What differs between the contexts at two versions; the second is now where absent."""
        if after is None:
            after = (await self._engine.head(self.id)).state.version
        old = await (await self.at(version=before)).items()
        new = await (await self.at(version=after)).items()
        return diff([item.raw for item in old], [item.raw for item in new])

    # -- changing the context ------------------------------------------------------------------

    async def add(
        self, *input: object, by: str = "user", expected_version: int | None = None
    ) -> int:
        """Add items without a turn; they go along with the next request. The new version.

        Raises ItemPresent for an item that is in the context already, InvalidInput for one that
        cannot be, and VersionConflict where the conversation is not at `expected_version`.
        """
        items = to_items(*input)
        setup = self._setup()

        async def act(draft: Draft) -> Lease | None:
            draft.do(Start(metadata=setup.metadata))
            config = await setup.wanted(self._engine, draft.state)
            if config is not None:
                draft.do(Configure(config=config))
            draft.expect_new(items)
            draft.do(AddItems(items=self._engine.keyed(*items)))
            return None

        return await self._change(act, by, expected_version)

    async def edit(
        self,
        item: Item | str,
        new: object,
        *,
        by: str = "user",
        expected_version: int | None = None,
    ) -> int:
        """Put another item in the place of one (by key, or by the provider's id).

        The next request forks from the last unaffected response, or is full (law 9). Raises
        NotFound, InvalidInput, and Busy while a request is out.
        """
        (wanted,) = to_items(new)

        async def act(draft: Draft) -> Lease | None:
            place = await place_of(self._engine, self.id, item)
            (now,) = await load(self._engine.store, [place])
            command = EditItem(ordinal=place.ordinal, key=place.key, item=edited(now.raw, wanted))
            draft.do(command)
            return None

        return await self._change(act, by, expected_version)

    async def remove(
        self, item: Item | str, *, by: str = "user", expected_version: int | None = None
    ) -> int:
        """Take an item out of the context; the log keeps it. Raises NotFound and Busy."""

        async def act(draft: Draft) -> Lease | None:
            place = await place_of(self._engine, self.id, item)
            draft.do(RemoveItem(ordinal=place.ordinal, key=place.key))
            return None

        return await self._change(act, by, expected_version)

    async def replace(
        self,
        items: Sequence[Item | Mapping[str, object] | object],
        *,
        by: str = "user",
        expected_version: int | None = None,
    ) -> list[Difference]:
        """Make the context equal a list, and record the difference, which is returned.

        Items are the same by their provider's id; those without one by equality and order. Raises
        InvalidInput where an item is added whose id stands there already, and Busy while a request
        is out.
        """
        wanted = to_items(*as_raw(items)) if items else ()
        found: list[Difference] = []

        async def act(draft: Draft) -> Lease | None:
            now = await self.items()
            found[:] = diff([item.raw for item in now], wanted)
            for command in replacement(self._engine, now, found):
                draft.do(command)
            return None

        await self._change(act, by, expected_version)
        return found

    async def _change(self, act: Act, by: str, expected: int | None) -> int:
        draft = await self._engine.commit(self.id, act, actor=check_actor(by), expected=expected)
        return draft.state.version

    # -- another future ------------------------------------------------------------------------

    async def fork(
        self,
        id: str | None = None,
        *,
        before: str | None = None,
        at: int | None = None,
        by: str = "user",
    ) -> Conversation:
        """Another future of the same past: from now, from before a turn, or from a version.

        Nothing is copied. Raises NotFound, RequestOpen where a request is out at that version, and
        InvalidInput for an id that is taken.
        """
        source = await fork_point(self._engine, self.id, before=before, at=at)
        new = check_id(id) if id is not None else f"{self.id}~{self._engine.ambient.id('f')[2:14]}"
        config = await config_at(self._engine, source)
        await make_fork(self._engine, source, new, config, check_actor(by))
        return Conversation(new, self._engine, self._agent, self._overrides)


def summary(head: State, pending: tuple[Call, ...]) -> ConversationState:
    """The head of a conversation, in words for people."""
    turn, config, parent = head.turn, head.config, head.parent
    return ConversationState(
        id=head.id,
        version=head.version,
        status=head.status,
        turn=turn.id if turn is not None else None,
        paused=turn.paused if turn is not None else None,
        agent=config.agent if config is not None else None,
        model=config.model if config is not None else None,
        parent=parent.response if parent is not None else None,
        items=head.next,
        turns=head.turns,
        metadata=head.metadata,
        pending=pending,
        queued=tuple(one.id for one in head.queued),
        head=head,
    )


async def version_at(
    engine: Engine,
    conversation: str,
    *,
    version: int | None,
    turn: str | None,
    time: float | None,
) -> int:
    """The version that is meant: itself, where a turn ended, or the last before a time."""
    if (version is not None) + (turn is not None) + (time is not None) != 1:
        raise InvalidInput("say exactly one of version=, turn= and time=")
    if version is not None:
        return version
    if turn is not None:
        row = await turn_row(engine.store, conversation, turn)
        head = await engine.head(conversation)
        return row.ended if row.ended is not None else head.state.version
    return await version_before(engine.store, conversation, round((time or 0.0) * 1_000_000))
