"""The shell: read, fold, decide, append, act.

The one rule: nothing is sent, run or reported before the events that say so are committed (law 1),
and every append goes through `commit`, which folds, writes, and tells the watchers of this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias
from weakref import WeakValueDictionary

from . import events as ev
from .agent import Agent
from .appending import appended
from .canonical import JsonObject, text
from .checkpoints import Checkpoints
from .commands import Keyed, Prepare
from .context import every, requested
from .draft import Ambient, Draft
from .errors import (
    NotFound,
    StaleEpoch,
    StoreCorrupt,
    TooLarge,
    TurnlogError,
    VersionConflict,
)
from .fold_requests import FREE
from .items import FORMAT, already_present, has_hosted_effects, refused_output
from .limits import Limits
from .news import News
from .plan import Delta as DeltaPlan
from .plan import Fork, Full, Plan, Reach, can_fork, plan
from .ports import Head, Lease, Store, Transport
from .recent import Recent
from .record import NewEvent
from .recovery import OnUnknown, Send
from .request import body, is_background, is_stored, model_of, sealed, sendable, settings_of
from .state import Call, Parent, State, start, still_holds
from .unbroken import unbroken
from .updates import Delta
from .watchers import Watchers

Act: TypeAlias = Callable[[Draft], Awaitable[Lease | None]]
"""Puts commands into a draft, and says what becomes of the lease. Called anew on a conflict."""

Errand: TypeAlias = Callable[[], Coroutine[None, None, None]]
"""Something that nobody waits for."""

_MOMENT = 0.001

logger = logging.getLogger(__name__)

ENGINE = "turnlog"
"""The actor of what nobody asked for by name."""


@dataclass(slots=True, kw_only=True)
class Outgoing:
    """A request that is committed and may be sent: its body (secrets by name) and its parent.

    The body may be a whole context, and is kept no longer than until it is sent.
    """

    attempt: str
    version: int
    transport: str
    body: JsonObject
    parent: Parent | None
    background: bool

    def take(self) -> JsonObject:
        """The body, once."""
        body, self.body = self.body, {}
        return body


class Running(Protocol):
    """A turn that this process runs: what the rest of the engine may ask of its runner."""

    @property
    def turn(self) -> str:
        """The turn's id."""
        ...

    @property
    def watchers(self) -> Watchers:
        """Whoever watches it here."""
        ...

    @property
    def released(self) -> bool:
        """Whether it has let go of the turn, and only tidies up."""
        ...

    def release(self) -> None:
        """Be told that the lease was given back."""
        ...

    def overhear(self, head: Head) -> None:
        """Be told how the conversation stands where another process has written to it."""
        ...

    async def wait(self) -> None:
        """Wait until the turn ended or waits; raises what stopped the runner, if anything did."""
        ...

    async def stop(self, reason: str) -> None:
        """Stop what is under way; the turn is settled with a recorded outcome."""
        ...

    def streamed(self) -> list[Delta]:
        """What has streamed of the attempt under way, a delta for each part."""
        ...


@dataclass(slots=True)
class Engine:
    """What the objects that people hold share: one store, one transport, the agents.

    `heads` are the newest of conversations whose turn runs here: its lease keeps others away.
    Of any other conversation there is no more than a hint, in `recent`.
    """

    store: Store
    transport: Transport
    agents: dict[str, Agent]
    ambient: Ambient
    on_unknown: OnUnknown | None = None
    limits: Limits = field(default_factory=Limits)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    live: dict[str, Running] = field(default_factory=dict[str, "Running"])
    starting: set[str] = field(default_factory=set[str])
    heads: dict[str, State] = field(default_factory=dict[str, State])
    warmed: dict[str, Parent] = field(default_factory=dict[str, Parent])
    postponed: dict[str, Errand] = field(default_factory=dict[str, "Errand"])
    recent: Recent = field(default_factory=Recent)
    news: News = field(init=False)
    closing: bool = False
    _errands: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[str, asyncio.Lock]
    )
    _settling: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[str, asyncio.Lock]
    )

    def __post_init__(self) -> None:
        self.news = News(self.store)

    # -- who runs ----------------------------------------------------------------------------

    async def is_left(self, head: Head) -> bool:
        """Whether nobody runs the open turn of a head that was just read, nor is about to."""
        conversation = head.state.id
        if not is_left(head, running=self.runs(conversation)):
            return False
        if not head.mine:
            return True
        # Whoever has taken the lease a moment ago runs the turn before the lock is free.
        async with _lock_in(self._locks, conversation):
            return is_left(await self.head(conversation), running=self.runs(conversation))

    def runs(self, conversation: str) -> bool:
        """Whether this process runs a turn of the conversation, under a lease."""
        runner = self.live.get(conversation)
        return runner is not None and not runner.released

    async def runner(self, conversation: str) -> Running | None:
        """Who runs a turn here; one that has let go of it is waited for, and is none."""
        while (runner := self.live.get(conversation)) is not None and runner.released:
            await runner.stop("released")
        return runner

    def run_errand(self, errand: Coroutine[None, None, None], name: str) -> None:
        """Do something that nobody waits for, unless the log is being closed."""
        if self.closing:
            errand.close()
            return
        task = asyncio.create_task(errand, name=f"turnlog {name}")
        self._errands.add(task)
        task.add_done_callback(self._errand_done)

    def make_room(self) -> None:
        """There may be room for a turn again: what was postponed until then is tried."""
        postponed, self.postponed = self.postponed, {}
        for errand in postponed.values():
            self.run_errand(errand(), "next turn")

    def _errand_done(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("%s went wrong: %s", task.get_name(), error)

    async def wind_up(self) -> None:
        """Stop what runs here, each with a recorded outcome, and what nobody waits for."""
        self.closing = True
        await self.news.close()
        while self._errands or self.live or self.starting:
            if self._errands:
                await asyncio.wait(self._errands)
            await asyncio.gather(*(runner.stop("closed") for runner in list(self.live.values())))
            if self.starting:  # what is being written now runs in a moment, and is stopped then
                await asyncio.sleep(_MOMENT)

    # -- reading -----------------------------------------------------------------------------

    async def head(self, conversation: str) -> Head:
        """The head of a conversation; raises NotFound where there is none."""
        head = await self.store.head(conversation)
        if head is None:
            raise NotFound(
                f"there is no conversation {conversation!r}: the first turn of"
                " log.conversation(id), or of `turnlog chat`, makes it"
            )
        return head

    async def look(self, conversation: str) -> Head | None:
        """Read a head for what is about to be written, which then need not read it again.

        That there is none yet is remembered too: a new conversation is read once, not three times.
        """
        head = await self.store.head(conversation)
        state, epoch = (head.state, head.epoch) if head is not None else (start(conversation), 0)
        self.recent.put(state, epoch)
        return head

    async def state(self, conversation: str) -> State:
        """The state of a conversation, as far as this process knows; fresh where it has none."""
        known = self.heads.get(conversation)
        if known is not None:
            return known
        head = await self.store.head(conversation)
        return head.state if head is not None else start(conversation)

    async def epoch(self, conversation: str) -> int:
        """The last epoch that was given out, as far as this process knows; 0 before the first."""
        known = self.recent.get(conversation)
        if known is not None and known.epoch is not None:
            return known.epoch
        head = await self.look(conversation)
        return head.epoch if head is not None else 0

    async def configuration(self, state: State) -> ev.ConversationConfigured:
        """The configuration in force; raises NotFound where there is none."""
        if state.config is None:
            raise NotFound(f"conversation {state.id!r} was never configured: give it an agent")
        config = self.recent.config(state)
        if config is None:
            (recorded,) = await self.store.pick(state.id, [state.config.version])
            assert isinstance(recorded.event, ev.ConversationConfigured)
            config = recorded.event
            self.recent.put_config(state, config)
        return config

    async def turn_settings(self, state: State) -> JsonObject:
        """The settings of the open turn, from the event that started it."""
        assert state.turn is not None
        (recorded,) = await self.store.pick(state.id, [state.turn.version])
        assert isinstance(recorded.event, ev.TurnStarted)
        return recorded.event.settings

    async def call_item(self, state: State, call: Call) -> JsonObject:
        """The item that asked for a call, as it was recorded (in a fork, an ancestor may have it).

        What the caller has made of it in the context since does not matter.
        """
        holder, fork = state.id, state.fork
        while True:
            for one in await self.store.pick(holder, [call.version]):
                if isinstance(one.event, ev.OutputRecorded) and one.event.key == call.item:
                    return one.event.item
            if fork is None:
                raise StoreCorrupt(f"conversation {state.id!r} lacks call {call.id!r}: verify it")
            holder, fork = fork.conversation, (await self.head(fork.conversation)).state.fork

    async def abandoned(self, state: State, why: str) -> tuple[Keyed, ...]:
        """An output for each call that has none, which tells the model why (law 7)."""
        outputs: list[JsonObject] = []
        for call in state.pending:
            item = await self.call_item(state, call)
            said = why if call.runs == 0 else f"{why}; it had been started: its outcome is unknown"
            outputs.append(refused_output(item, said))
        return self.keyed(*outputs)

    def keyed(self, *items: JsonObject) -> tuple[Keyed, ...]:
        """Items, each with a new key."""
        return tuple(map(Keyed, self.ambient.ids("itm", len(items)), items))

    # -- writing -----------------------------------------------------------------------------

    async def commit(
        self,
        conversation: str,
        act: Act,
        *,
        actor: str = ENGINE,
        epoch: int | None = None,
        expected: int | None = None,
        initial: State | None = None,
    ) -> Draft:
        """Read, fold, decide, append, and tell. On a conflict everything is done again.

        A caller that is cancelled while the store writes is told of it behind the answer.
        Raises what `act` and the store raise; VersionConflict only with `expected` (law 11).
        """
        async with _lock_in(self._locks, conversation):
            hint = self._hint(conversation) if initial is None else None
            if hint is not None:
                draft = Draft(hint, self.ambient, actor, epoch)
                if await self._on_hint(draft, act, expected):
                    return draft
            while True:
                state = initial or await self.state(conversation)
                draft = Draft(state, self.ambient, actor, epoch)
                lease = await self._decide(draft, act, expected)
                if not draft.events and lease in (None, "keep"):
                    return draft
                try:
                    await unbroken(self._record(draft, lease))
                except VersionConflict:
                    await self._catch_up(conversation)
                    if expected is not None or initial is not None:
                        raise
                    continue
                return draft

    def _hint(self, conversation: str) -> State | None:
        """What a conversation that nobody runs here was when this process wrote it last."""
        known = self.recent.get(conversation) if conversation not in self.heads else None
        return known.state if known is not None else None

    async def _on_hint(self, draft: Draft, act: Act, expected: int | None) -> bool:
        """Commit what is decided on a remembered head, without reading it: 0.2 ms less.

        False where it has to be decided on what is stored: others may have written since.
        """
        try:
            lease = await self._decide(draft, act, expected)
        except TurnlogError:
            return False
        if not draft.events:
            return False
        try:
            await unbroken(self._record(draft, lease))
        except (VersionConflict, StaleEpoch):
            self.recent.forget(draft.state.id)
            return False
        return True

    async def _decide(self, draft: Draft, act: Act, expected: int | None) -> Lease | None:
        """Have `act` put into a draft what it decides on the draft's state."""
        state = draft.state
        if expected is not None and state.version != expected:
            raise VersionConflict(state.id, expected=expected, actual=state.version)
        lease = await act(draft)
        if draft.actor != ENGINE:
            try:
                self.limits.check_items(state.id, draft.events)
            except TooLarge:
                await self.check_new(state.id, draft.absent)
                raise
        return lease

    async def check_new(self, conversation: str, ids: Iterable[str]) -> None:
        """Raise ItemPresent where one of these items is there already.

        The store looks inside the transaction; this is for what is refused before that.
        """
        for id in sorted(ids):
            if await self.store.find(conversation, item_id=id):
                raise already_present(id) from None

    async def catch_up(self, conversation: str) -> None:
        """Take in what another process has written to a conversation that is run here."""
        async with _lock_in(self._locks, conversation):
            await self._catch_up(conversation)

    async def _catch_up(self, conversation: str) -> None:
        runner, known = self.live.get(conversation), self.heads.get(conversation)
        if runner is None or known is None:
            return
        head = await self.head(conversation)
        if self.live.get(conversation) is not runner:
            return  # it ended while this was read: what nobody keeps up is not kept
        if head.state.version > known.version:
            self.heads[conversation] = head.state
            last = head.state.version
            runner.watchers.tell(await every(self.store, conversation, known.version, last))
        runner.overhear(head)

    async def note(
        self, conversation: str, noted: ev.ProviderNoted, *, actor: str = ENGINE
    ) -> None:
        """Record something beside any turn; of a conversation that was never written, nothing."""

        async def act(draft: Draft) -> Lease | None:
            if draft.state.version:
                draft.take([NewEvent(event=noted)])
            return None

        await self.commit(conversation, act, actor=actor)

    def settling(self, conversation: str) -> asyncio.Lock:
        """Held by who settles a turn here: of one process, they would take it from each other."""
        return _lock_in(self._settling, conversation)

    async def _record(self, draft: Draft, lease: Lease | None) -> None:
        await appended(self.store, draft.append(lease))
        self.recent.put(draft.state, draft.epoch if lease is not None else None)
        runner = self.live.get(draft.state.id)
        if runner is not None:
            self.heads[draft.state.id] = draft.state
            if lease == "release":
                runner.release()
            runner.watchers.tell(draft.events)
        self.news.tell(draft.state.id)

    # -- requests ----------------------------------------------------------------------------

    async def prepare(
        self, draft: Draft, send: Send, config: ev.ConversationConfigured, turn: JsonObject
    ) -> Outgoing | None:
        """Plan a request, build its body, and put its intent into the draft (law 1).

        None where there is nothing to send. Raises what `request.body` raises, and TooLarge.
        """
        settings = settings_of(config, turn)
        via = self.way(draft.state, background=is_background(settings))
        reach = self.reach(draft.state, model_of(config, turn), via)
        state = draft.state if not send.full else _without_parent(draft.state)
        found: Plan = plan(state, reach, await self._older(state, send, reach))
        if not isinstance(found, (DeltaPlan, Fork, Full)):
            return None
        items = await requested(self.store, state, found.ranges, draft.events)
        asked = {(call.kind, call.call_id) for call in state.calls}
        sent = sendable(items, () if isinstance(found, Full) else asked)
        if not sent:
            return None
        built = body(config, turn, sent, found, self.transport.profile)
        digest, size = sealed(built)
        self.limits.check_request(state.id, items=len(sent), size=size)
        self._note_switch(draft, via)
        prepared = self._prepared(send, found, built, digest, settings, via)
        (recorded,) = draft.do(Prepare(request=prepared))
        parent = None if isinstance(found, Full) else found.parent
        return Outgoing(
            attempt=prepared.attempt,
            version=recorded.version,
            transport=prepared.transport,
            body=built,
            parent=parent,
            background=prepared.background,
        )

    def way(self, state: State, *, background: bool = False) -> str:
        """The way that the next request takes; a turn does not go back to one that failed it."""
        last = state.turn.last if state.turn is not None else None
        return self.transport.choose(
            before=state.transport if last is not None else None,
            failed=last is not None and not last.sent and last.code not in FREE,
            background=background,
        )

    def reach(self, state: State, model: str, via: str | None = None) -> Reach:
        """What can be continued from where a request will go; `via` is None where nothing is."""
        profile, known = self.transport.profile, (state.parent, self.warmed.get(state.id))
        return Reach(
            now=self.ambient.now(),
            model=model,
            stored_ids=profile.stored_ids,
            stored_for=profile.stored_for,
            remembers={
                parent.response
                for parent in known
                if parent is not None
                and via is not None
                and self.transport.remembers(parent, via=via, conversation=state.id)
            },
        )

    async def _older(self, state: State, send: Send, reach: Reach) -> Parent | None:
        """What may be continued from where the parent may not, and holds the most.

        What a warm-up left, or the last response that no edit touched, where an edit took the
        parent away (law 9).
        """
        if send.full:
            return None
        found = [self.warmed.get(state.id), await self._unedited(state)]
        usable = [one for one in found if one is not None and can_fork(state, one, reach)]
        return max(usable, key=lambda one: one.end, default=None)

    async def _unedited(self, state: State) -> Parent | None:
        if state.parent is not None or not state.edits:
            return None
        edited = state.edits[-1].ordinal
        for row in await self.store.turns(state.id, limit=50):
            older = row.state.parent if row.state is not None else None
            if older and older.store and older.end <= edited and still_holds(state, older):
                return older
        return None

    def _note_switch(self, draft: Draft, after: str) -> None:
        """Say that requests go another way now (design section 6)."""
        before = draft.state.transport
        turn = draft.state.turn
        if before is None or before == after or turn is None:
            return
        reason = (
            turn.last.message
            if turn.last is not None and turn.last.message
            else "the first choice again"
        )
        switched = ev.TransportSwitched(before=before, after=after, reason=reason)
        draft.take([NewEvent(event=switched, turn=turn.id)])

    def _prepared(
        self,
        send: Send,
        found: DeltaPlan | Fork | Full,
        built: JsonObject,
        digest: str,
        settings: JsonObject,
        via: str,
    ) -> ev.RequestPrepared:
        parent = None if isinstance(found, Full) else found.parent
        placed = parent if parent is not None and not parent.store else None
        return ev.RequestPrepared(
            attempt=self.ambient.id("att"),
            cause=send.cause,
            try_number=send.try_number,
            delay_ms=send.delay_ms,
            kind="full" if parent is None else "delta",
            parent=parent.response if parent is not None else None,
            ranges=found.ranges,
            format=FORMAT,
            digest=digest,
            transport=via,
            connection=placed.connection if placed is not None else None,
            lane=placed.lane if placed is not None else None,
            store=is_stored(settings, self.transport.profile),
            model=text(built, "model"),
            background=is_background(settings),
        )

    def on_unknown_for(self, config: ev.ConversationConfigured) -> OnUnknown:
        """What to do where it is unknown whether a request was carried out (law 10)."""
        if self.on_unknown is not None:
            return self.on_unknown
        return "stop" if has_hosted_effects(config.tools) else "resend"


def is_left(head: Head, *, running: bool) -> bool:
    """Whether the open turn of a head has no owner that runs it.

    `running` says that this process does; a lease that is ours and not run is left over.
    """
    turn = head.state.turn
    if turn is None or turn.paused is not None or running:
        return False
    return head.owner is None or head.mine or not head.alive


def is_elsewhere(head: Head) -> bool:
    """Whether a living owner of another process holds the lease."""
    return head.owner is not None and head.alive and not head.mine


def _without_parent(state: State) -> State:
    return replace(state, parent=None)


def _lock_in(locks: WeakValueDictionary[str, asyncio.Lock], name: str) -> asyncio.Lock:
    lock = locks.get(name)
    if lock is None:
        lock = locks[name] = asyncio.Lock()
    return lock
