"""The log: one database, the way to a provider, and the agents that are registered.

The one rule: `open` migrates and never recovers; nothing is asked of a provider, and no key needed,
before the first send.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points
from ssl import SSLContext
from types import TracebackType
from typing import Literal, TypeVar

from .agent import Agent
from .checkpoints import Checkpoints
from .configuring import check_id, check_text
from .context import PAGE
from .conversation import Conversation
from .draft import Ambient
from .engine import Engine
from .errors import Closed, ConfigurationError, InvalidInput, StoreError
from .exchange import Imported, Lines, export, import_lines
from .late import Latecomers
from .lending import lent
from .limits import Limits
from .ports import CallRow, ConversationRow, Endpoint, Profile, Store, Timeouts, Transport
from .record import Recorded
from .recovery import OnUnknown
from .secrets import to_log
from .settings import Settings, checked
from .settling import Recovered, recover
from .state import Status
from .store import open_store
from .verifying import Report, verify
from .warming import keep_trying
from .working import Worker, WorkReport, log_report


def find_transport(name: str, endpoint: Endpoint) -> Transport:
    """A transport by the name of its entry point; raises ConfigurationError for an unknown one."""
    found = entry_points(group="turnlog.transports", name=name)
    for entry in found:
        transport: Transport = entry.load()(endpoint)
        return transport
    known = ", ".join(sorted(entry_points(group="turnlog.transports").names))
    raise ConfigurationError(f"there is no transport {name!r}: installed are {known}")


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An event of the whole log, and the checkpoint behind it, from which to follow on."""

    checkpoint: str
    event: Recorded


class Log:
    """One database, its transports, its agents. Made by `turnlog.open`."""

    def __init__(self, engine: Engine, *, warm: bool = False) -> None:
        self._engine = engine
        self._closed = False
        self._latecomers = Latecomers(engine)
        self._warming = asyncio.create_task(keep_trying(engine.transport)) if warm else None

    # -- conversations -----------------------------------------------------------------------

    async def conversation(
        self,
        id: str,
        *,
        agent: Agent | str | None = None,
        metadata: Mapping[str, object] | None = None,
        model: str | None = None,
        instructions: str | None = None,
        settings: Settings | None = None,
    ) -> Conversation:
        """A conversation by its id, which its first turn creates; nothing is written now.

        What is left out is as recorded. `metadata` counts where the conversation is new. Raises
        InvalidInput for an id or setting that cannot be, ConfigurationError for an unknown agent.
        """
        self._check_open()
        own = dict(checked(settings or {}))
        for name, said in (("model", model), ("instructions", instructions)):
            own |= {name: check_text(name, said)} if said is not None else {}
        known = to_log(dict(metadata or {}))
        assert isinstance(known, dict)
        return Conversation(check_id(id), self._engine, self._agent(agent), own, known)

    async def get(self, id: str) -> Conversation:
        """A conversation that exists, and whose next turn begins without reading it again.

        Raises NotFound.
        """
        self._check_open()
        head = await self._engine.head(check_id(id))
        self._engine.recent.put(head.state, head.epoch)
        config = head.state.config
        name = config.agent if config is not None else None
        return Conversation(id, self._engine, self._engine.agents.get(name or ""))

    def _agent(self, agent: Agent | str | None) -> Agent | None:
        if not isinstance(agent, Agent):
            if agent is not None and agent not in self._engine.agents:
                known = ", ".join(self._engine.agents) or "none"
                raise ConfigurationError(f"no agent {agent!r} is registered: there are {known}")
            return self._engine.agents[agent] if agent is not None else None
        register(self._engine.agents, agent)
        return agent

    async def conversations(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        status: Status | None = None,
        metadata: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[ConversationRow]:
        """Conversations by id, above `after`; times of the last event in Unix seconds."""
        return await self._engine.store.conversations(
            after=after,
            limit=limit,
            status=status,
            metadata=metadata,
            since=None if since is None else round(since * 1_000_000),
            until=None if until is None else round(until * 1_000_000),
        )

    async def pending(
        self, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[CallRow]:
        """The calls of all conversations that wait: an inbox, by (conversation, call)."""
        return await self._engine.store.pending(after=after, limit=limit)

    # -- the whole log -----------------------------------------------------------------------

    async def follow(
        self, after: str = "", *, wait: bool = True, poll: float = 1.0
    ) -> AsyncGenerator[Followed]:
        """Every event, once, behind a checkpoint; for ever, unless `wait` is off.

        Events of one conversation come in order. Raises InvalidInput for a text that is no
        checkpoint.
        """
        positions = _positions(after)
        while True:
            page = await self._engine.store.follow(positions, limit=PAGE)
            for partition, position, event in page:
                positions[partition] = position
                yield Followed(checkpoint=_checkpoint(positions), event=event)
            if not page:
                if not wait:
                    return
                await self._engine.store.changed(poll)

    async def recover(self) -> list[Recovered]:
        """Settle every turn that a dead owner left; starts no generation and no tool.

        What cannot be settled now, because the provider has to be asked and does not answer, is
        reported and left for the next time. May be called at any time, twice, and by several.
        """
        self._check_open()
        return await recover(self._engine)

    async def work(
        self,
        *,
        stop: asyncio.Event | None = None,
        most: int = 100,
        poll: float = 1.0,
        grace: float = 30.0,
        every: float = 60.0,
        report: Callable[[WorkReport], None] | None = None,
    ) -> WorkReport:
        """Go on with whatever can go on, until `stop` is set or for ever; what was done.

        Turns of dead owners are settled and resumed, those that waited for an answer go on when it
        has come, and queued ones begin: of agents that are registered here, at most `most` at
        once. It looks when something is appended, and every `poll` seconds. When it is told to
        stop it takes on nothing more, and waits `grace` seconds for what runs. Any number of
        processes may work on one database. `report` is called every `every` seconds, and at the
        end; without it a line is logged. Raises ConfigurationError without a key, and Closed.
        """
        self._check_open()
        self._engine.transport.check()
        for name, value in (("most", most), ("poll", poll), ("every", every)):
            if value <= 0:
                raise InvalidInput(f"{name} is a number above 0, not {value}")
        worker = Worker(self._engine, most, poll, every, report or log_report)
        await worker.run(stop or asyncio.Event())
        await worker.drain(grace)
        worker.report(worker.now())
        return worker.now()

    async def verify(
        self, conversation: str | None = None, *, told: Callable[[Report], None] | None = None
    ) -> Report:
        """Check the chain and everything beside the log, of one conversation or of all.

        With all of them goes what belongs to none, and the database's own check; `told` hears of
        each part as it is done. What cannot be read is a finding. Raises NotFound for a
        conversation that does not exist, and StoreMoved.
        """
        return await verify(self._engine, conversation, told=told)

    async def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the database to a new file, as it is at one moment, while others write to it.

        A turn that runs now is in the copy as one whose process is gone. Raises InvalidInput where
        there is something at `target` or it cannot be written, NotSupported for a log in memory.
        """
        self._check_open()
        await self._engine.store.backup(os.fspath(target))

    def export(self, *conversations: str) -> AsyncGenerator[str]:
        """Conversations, and what they were forked from, as lines of JSON (`exchange`).

        Raises NotFound, and StoreCorrupt where what is stored does not verify.
        """
        return export(self._engine.store, *conversations)

    async def import_(self, lines: Lines) -> Imported:
        """Write what `export` gave, under the same ids; all of it verifies, or nothing is written.

        Raises ImportFailed, which names the line.
        """
        return await import_lines(self._engine.store, lines, self._engine.limits)

    # -- closing -----------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop what runs here, each with a recorded outcome, and close the database.

        A stopped turn waits to be resumed. Idempotent.
        """
        if self._closed:
            return
        self._closed = True
        await self._engine.wind_up()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])
        await self._engine.transport.close()
        await self._latecomers.settle()
        await self._engine.store.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the log is closed: open it again")


def register(agents: dict[str, Agent], agent: Agent) -> None:
    """Make an agent known by its name; raises ConfigurationError where another has that name."""
    known = agents.setdefault(agent.name, agent)
    same = known is agent or (known == agent and known.fingerprint == agent.fingerprint)
    if not same:
        raise ConfigurationError(
            f"two different agents are named {agent.name!r}: recovery finds agents by name"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A log that is about to be opened: `async with turnlog.open(…) as log`, or `await` it."""

    path: str
    agents: Sequence[Agent]
    transport: str | Transport
    endpoint: Endpoint
    readonly: bool
    durability: Literal["power", "process"]
    owners: Literal["locks", "beats"]
    on_unknown: OnUnknown | None
    limits: Limits
    checkpoints: Checkpoints
    warm: bool
    store: Store | None
    ambient: Ambient
    stack: AsyncExitStack

    def __await__(self) -> Generator[object, None, Log]:
        return self._open().__await__()

    async def __aenter__(self) -> Log:
        log = await self._open()
        self.stack.push_async_callback(log.close)
        return log

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stack.aclose()

    async def _open(self) -> Log:
        agents: dict[str, Agent] = {}
        for agent in self.agents:
            register(agents, agent)
        transport = self.transport
        if self.endpoint.base_url is not None and not self.endpoint.base_url.strip():
            raise ConfigurationError("base_url is empty: give an address, or leave it out")
        if isinstance(transport, str):
            transport = find_transport(transport, self.endpoint)
        try:
            store = self.store or await open_store(
                self.path,
                readonly=self.readonly,
                durability=self.durability,
                owners=self.owners,
            )
        except StoreError:
            await transport.close()
            raise
        return Log(
            Engine(
                store=store,
                transport=transport,
                agents=agents,
                ambient=self.ambient,
                on_unknown=self.on_unknown,
                limits=self.limits,
                checkpoints=self.checkpoints,
            ),
            warm=self.warm,
        )


def open(
    path: str | os.PathLike[str],
    *,
    agents: Sequence[Agent] = (),
    transport: str | Transport = "auto",
    base_url: str | None = None,
    api_key: object = None,
    client: object = None,
    headers: Mapping[str, str] | None = None,
    profile: Profile | str | None = None,
    readonly: bool = False,
    durability: Literal["power", "process"] = "power",
    owners: Literal["locks", "beats"] = "locks",
    on_unknown: OnUnknown | None = None,
    limits: Limits | None = None,
    checkpoints: Checkpoints | None = None,
    warm: bool = False,
    timeouts: Timeouts | None = None,
    proxy: str | None = None,
    tls: SSLContext | str | None = None,
    allow_insecure: bool = False,
    options: Mapping[str, object] | None = None,
    store: Store | None = None,
    ambient: Ambient | None = None,
) -> Opening:
    """Open a log: `async with turnlog.open("agent.db") as log`. Makes and migrates the file.

    `transport` is `auto` (a WebSocket, and HTTP behind it), the name of any that is installed, or
    one that was made. `profile` says what the provider can do, by name (`openai`, `azure`,
    `generic` …) or as a value; without it, the address suggests one. The key comes from `api_key`
    (text, or a callable that returns it), from `client` (an AsyncOpenAI or AsyncAzureOpenAI, which
    lends its address, key, headers, query and timeouts), or from the variable that the profile
    names, and is needed at the first send. It goes in the clear to loopback only, unless
    `allow_insecure`. `warm` connects ahead of the first send, in the background. `timeouts` bound
    every wait for the provider. `proxy` is the URL of one, and `tls` a context or the path of a
    file with the certificates to trust, for WebSocket and HTTP alike. `durability` names what an
    answered append survives: `power` a power cut, `process` the death of the process. `owners`
    says how processes know that others live: by `locks` on one machine, by `beats` where files
    cannot be locked (`store.open_store`). `on_unknown` is what to do where it is unknown whether a
    request was carried out (law 10): `resend`, or `stop`, the default with hosted tools that have
    effects. `limits` say how large items and requests may be, and how many turns run here at once;
    `checkpoints` how often text that streams is saved. `store` and `ambient` replace the database,
    and time and randomness.

    Raises (when entered or awaited) ConfigurationError, and what opening the database raises:
    NotFound, NotTurnlog, SchemaMismatch, StoreCorrupt, StoreReadOnly, StoreUnavailable.
    """
    found = lent(client, base_url=base_url, api_key=api_key)
    endpoint = Endpoint(
        base_url=found.base_url,
        key=found.key,
        headers={**found.headers, **(headers or {})},
        profile=profile if profile is not None else found.profile,
        query=found.query,
        timeouts=timeouts or found.timeouts,
        proxy=proxy,
        tls=tls,
        allow_insecure=allow_insecure,
        options=options or {},
    )
    return Opening(
        path=os.fspath(path),
        agents=tuple(agents),
        transport=transport,
        endpoint=endpoint,
        readonly=readonly,
        durability=durability,
        owners=owners,
        on_unknown=on_unknown,
        limits=_of(Limits, limits),
        checkpoints=_of(Checkpoints, checkpoints),
        warm=warm,
        store=store,
        ambient=ambient or Ambient(),
        stack=AsyncExitStack(),
    )


def _of(kind: type[T], given: T | None) -> T:
    """Settings that were given, or the usual ones; raises ConfigurationError."""
    if given is not None and not isinstance(given, kind):
        raise ConfigurationError(f"a turnlog.{kind.__name__}(…) is needed, not {given!r:.40}")
    return kind() if given is None else given


def _checkpoint(positions: Mapping[int, int]) -> str:
    return ",".join(f"{partition}:{position}" for partition, position in sorted(positions.items()))


def _positions(checkpoint: str) -> dict[int, int]:
    try:
        pairs = (entry.split(":") for entry in checkpoint.split(",") if entry)
        return {int(partition): int(position) for partition, position in pairs}
    except ValueError:
        raise InvalidInput(
            f"{checkpoint!r} is not a checkpoint: pass one that log.follow gave"
        ) from None
