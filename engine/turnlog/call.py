"""A client-owned call, as people hold it: what was asked for, and what can be done about it.

The one rule: settling a call needs no lease and starts nothing; `turn.resume` goes on (law 11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeGuard

from . import events as ev
from .agent import on_crash_of
from .canonical import JsonObject, dumps, loads_object, text
from .commands import Approve, Resolve
from .context import body_of
from .decide_calls import Verb, verbs
from .draft import Draft
from .engine import Engine
from .errors import InvalidInput
from .items import approval, call_id_of, function_output, refused_output, type_of
from .ports import Lease
from .recovery import Policy, verdict
from .running import to_output
from .secrets import to_log
from .state import Call as CallState
from .state import State

Settled: TypeAlias = Literal["answered", "rejected", "abandoned"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `id` is turnlog's idempotency key; `raw` the provider's item that holds it.

    `waits_for` is `approval`, `uncertain`, `deferred`, `unbound` (no tool of that name here),
    `running`, or None for a call that can run or is settled; `why` says the same in words. `can`
    names the verbs that can be used now: `approve`, `reject`, `rerun`, `answer`, `abandon`. `runs`
    counts how often its tool was started.
    """

    id: str
    conversation: str
    turn: str | None
    name: str | None
    kind: str
    status: str
    waits_for: str | None
    raw: JsonObject = field(repr=False)
    _engine: Engine = field(repr=False, compare=False)
    can: tuple[Verb, ...] = ()
    why: str | None = None
    runs: int = 0

    @property
    def call_id(self) -> str | None:
        """The provider's id, which pairs the call with its output."""
        return call_id_of(self.raw)

    @property
    def arguments(self) -> JsonObject:
        """The arguments as an object; empty where they are none (see `raw`)."""
        given = self.raw.get("arguments")
        if isinstance(given, dict):
            return given
        try:
            return loads_object(text(self.raw, "arguments") or "{}")
        except InvalidInput:
            return {}

    async def approve(self, *, by: str = "user", reason: str | None = None) -> None:
        """Let the call run once its turn is resumed. For an MCP approval request, answer it.

        Raises NotPending where the call is not waiting to be approved.
        """
        if self.kind == "mcp_approval_request":
            await self._resolve("answered", approval(self.raw, True, reason), by=by)
            return
        await self._do(Approve(call=self.id, reason=reason), by)

    async def rerun(self, *, by: str = "user", reason: str | None = None) -> None:
        """Let an uncertain call run again, with the same idempotency key (law 12).

        Raises NotPending where the call is not uncertain.
        """
        await self._do(Approve(call=self.id, reason=reason, rerun=True), by)

    async def reject(self, *, by: str = "user", reason: str | None = None) -> None:
        """Refuse the call; the model is told so, with the reason.

        Raises NotPending where it has run or may have run, AlreadyAnswered where it is settled.
        """
        if self.kind == "mcp_approval_request":
            await self._resolve("answered", approval(self.raw, False, reason), by=by)
            return
        said = "The call was rejected" + (f": {reason}" if reason else ".")
        await self._resolve("rejected", refused_output(self.raw, said), by=by, reason=reason)

    async def answer(self, output: object, *, by: str = "user", failed: bool = False) -> None:
        """Give the call its output: text, JSON, a model, an image, or a whole output item.

        The same answer again is a no-op. Raises AlreadyAnswered for another one, LateAnswer where
        a request has told the model that the call was abandoned, NotPending while its tool runs,
        and InvalidInput for an item that does not answer this call.
        """
        await self._resolve("answered", self._item(output), by=by, failed=failed)

    async def abandon(self, *, by: str = "user", reason: str = "abandoned") -> None:
        """Tell the model that the call will not be answered, and that nobody knows what became of
        it where its tool had been started.

        Raises AlreadyAnswered where it is settled.
        """
        said = f"The call will not be answered: {reason}."
        if self.runs:
            said += " It had been started: its outcome is unknown."
        item = refused_output(self.raw, said)
        await self._resolve("abandoned", item, by=by, reason=reason)

    def _item(self, output: object) -> JsonObject:
        if _is_whole(output):
            logged = loads_object(dumps(to_log(output)))
            return {"call_id": self.call_id, **logged} if _pairs_by_call_id(logged) else logged
        return function_output(self.raw, to_output(output))

    async def _resolve(
        self,
        how: Settled,
        item: JsonObject,
        *,
        by: str,
        reason: str | None = None,
        failed: bool = False,
    ) -> None:
        item_now, was = await self._earlier()
        command = Resolve(
            call=self.id,
            how=how,
            key=self._engine.ambient.id("itm"),
            item=item,
            reason=reason,
            failed=failed,
            earlier=item_now,
            was=was,
        )
        await self._do(command, by)

    async def _earlier(self) -> tuple[JsonObject | None, Settled | None]:
        """The output that the call has already, if any, and what it was: an answer or not."""
        store = self._engine.store
        for place in await store.find(self.conversation, call_id=self.call_id):
            for one in await store.pick(place.holder, [place.item_version]):
                was = _OUTPUTS.get(type(one.event))
                if was is not None:
                    return body_of(one.event), was
        return None, None

    async def _do(self, command: Approve | Resolve, by: str) -> None:
        async def act(draft: Draft) -> Lease | None:
            draft.do(command)
            return None

        await self._engine.commit(self.conversation, act, actor=by)


def _is_whole(output: object) -> TypeGuard[Mapping[str, object]]:
    """Whether an output is a whole item, and not what is to be put into one."""
    return isinstance(output, Mapping) and "type" in output


def _pairs_by_call_id(item: JsonObject) -> bool:
    return type_of(item) not in ("mcp_approval_response", "local_shell_call_output")


_OUTPUTS: dict[type[ev.Event], Settled] = {
    ev.CallAnswered: "answered",
    ev.CallRejected: "rejected",
    ev.CallAbandoned: "abandoned",
}


def describe(engine: Engine, state: State, call: CallState, raw: JsonObject) -> Call:
    """The call as people hold it."""
    waits_for = _waits_for(engine, state, call)
    return Call(
        id=call.id,
        conversation=state.id,
        turn=call.turn,
        name=call.name,
        kind=call.kind,
        status=call.status,
        waits_for=waits_for,
        raw=raw,
        can=verbs(call.status),
        why=_why(call, waits_for),
        runs=call.runs,
        _engine=engine,
    )


def _waits_for(engine: Engine, state: State, call: CallState) -> str | None:
    """What a call waits for; of one whose probe can be asked, what it waits for if that fails."""
    if call.settled:
        return None
    name = state.config.agent if state.config is not None else None
    agent = engine.agents.get(name or "")
    tool = agent.toolset.get(call.name or "") if agent is not None else None
    asks = frozenset({call.id} if tool is None or tool.needs_approval else ())
    found = verdict(call, Policy(tools=on_crash_of(agent), approval=asks))
    return _WAITS.get(found, found)


_WAITS = {"run": None, "give_up": None, "probe": "uncertain"}
_WHY = {
    "approval": "it needs approval",
    "unbound": "no tool is bound here that could run it",
    "deferred": "its tool said that the answer comes later",
    "running": "its tool is at work, or its process died",
    "uncertain": "its tool had started when the process stopped: nobody knows whether it was"
    " carried out",
}
_MAY_WAKE = (
    "its tool had started, and its process is only taken for dead: it may wake and finish, and"
    " nobody knows whether it was carried out"
)


def _why(call: CallState, waits_for: str | None) -> str | None:
    """Why a call waits, in words, as far as the head knows."""
    if waits_for == "uncertain" and call.timed_out:
        return _MAY_WAKE
    return _WHY.get(waits_for or "")
