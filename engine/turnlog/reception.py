"""What is made of the frames of one attempt: deltas as they come, and facts at the end.

The one rule: what streams is provisional, the terminal frame decides (law 3). Sans-I/O: frames in,
updates out, and events when asked; nothing here waits or reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import events as ev
from .canonical import Json, JsonObject, integer, obj, objects, text
from .ports import Frame, Problem
from .recovery import CHAIN_LOST
from .updates import Cursor, Delta, DeltaType, HostedUpdate

_DELTAS: dict[str, DeltaType] = {
    "response.output_text.delta": "text.delta",
    "response.refusal.delta": "refusal.delta",
    "response.reasoning_text.delta": "reasoning.delta",
    "response.reasoning_summary_text.delta": "reasoning.delta",
}
_KINDS: dict[str, str] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "summary",
}
_HOSTED = re.compile(
    r"response\.(web_search_call|file_search_call|code_interpreter_call|code_interpreter_call_code"
    r"|image_generation_call|mcp_call|mcp_call_arguments|mcp_list_tools|shell_call_command"
    r"|shell_call_output_content|compaction)\."
)
_QUIET = re.compile(
    r"response\.(created|in_progress|queued|completed|incomplete|failed|cancelled"
    r"|output_item\.(added|done)|content_part\.(added|done)|output_text\.done"
    r"|output_text\.annotation\.added|refusal\.done|reasoning_text\.done"
    r"|reasoning_summary_text\.done|reasoning_summary_part\.(added|done)"
    r"|function_call_arguments\.(delta|done)|custom_tool_call_input\.(delta|done))|error"
)
_REPEATED = frozenset({"output", "instructions", "tools"})
_RETRYABLE_STATUS = frozenset({408, 409, 429})
_RETRYABLE_CODES = frozenset(
    {"server_error", "rate_limit_exceeded", "server_is_overloaded", "overloaded", "timeout"}
)


@dataclass(slots=True)
class _Part:
    item: str | None
    chunks: list[str] = field(default_factory=list[str])
    length: int = 0
    saved: int = 0


@dataclass(slots=True, kw_only=True)
class Reception:
    """The frames of one attempt. `version` is that of its `request.prepared`."""

    attempt: str
    version: int
    response: str | None = None
    connection: str | None = None
    lane: str | None = None
    terminal: Frame | None = None
    heard: int = 0
    unreadable: int = 0
    started: bool = False
    parts: dict[str, _Part] = field(default_factory=dict[str, _Part])
    notes: list[ev.Event] = field(default_factory=list[ev.Event])
    _items: dict[str | int, JsonObject] = field(default_factory=dict[str | int, JsonObject])

    def feed(self, frame: Frame) -> Delta | HostedUpdate | None:
        """Take a frame; the update that a watcher sees of it, if any."""
        self.heard += 1
        if self.connection is None:
            self.connection, self.lane = frame.connection, frame.lane
        kind = _DELTAS.get(frame.type)
        if kind is not None:
            return self._delta(kind, frame)
        if frame.terminal is not None:
            self.terminal = frame
        self._remember(frame)
        if _HOSTED.match(frame.type):
            cursor = Cursor(self.version, self.attempt)
            item = text(frame.data, "item_id")
            return HostedUpdate(cursor=cursor, raw=frame.data, event=frame.type, item=item)
        if not _QUIET.fullmatch(frame.type):
            self._note_unknown(frame)
        return None

    def _remember(self, frame: Frame) -> None:
        """Keep the response's id and the items, as far as they have streamed."""
        response = text(obj(frame.data, "response"), "id")
        if self.response is None and response is not None:
            self.response = response
            self.notes.append(
                ev.ResponseStarted(
                    attempt=self.attempt,
                    response=response,
                    connection=self.connection,
                    lane=self.lane,
                )
            )
        item = frame.data.get("item")
        if frame.type.startswith("response.output_item.") and isinstance(item, dict):
            self._items[_index(frame.data, text(item, "id"))] = item

    def _delta(self, kind: DeltaType, frame: Frame) -> Delta:
        data = frame.data
        item, delta = text(data, "item_id"), text(data, "delta") or ""
        place = _index(data, item)
        inner = integer(data, "content_index")
        if inner is None:
            inner = integer(data, "summary_index") or 0
        part = f"{_KINDS[frame.type]}:{place}:{inner}"
        so_far = self.parts.get(part)
        if so_far is None:
            so_far = self.parts[part] = _Part(item)
        so_far.chunks.append(delta)
        so_far.length += len(delta)
        cursor = Cursor(self.version, self.attempt, part, so_far.length)
        return Delta(cursor=cursor, raw=data, type=kind, delta=delta, part=part, item=item)

    def _note_unknown(self, frame: Frame) -> None:
        """Counted and kept: a frame is never swallowed (law 13, W-22)."""
        self.unreadable += frame.text is not None
        kind = "unreadable" if frame.text is not None else "unknown_frame"
        self.notes.append(
            ev.ProviderNoted(
                kind=kind, attempt=self.attempt, data=frame.data or None, text=frame.text
            )
        )

    # -- what goes to the log ----------------------------------------------------------------

    def shown(self, part: str) -> str:
        """The text of a part, as far as it has streamed."""
        return "".join(self.parts[part].chunks)

    def unsaved(self) -> int:
        """How many code points have streamed since the last checkpoint."""
        return sum(part.length - part.saved for part in self.parts.values())

    def take_notes(self) -> list[ev.Event]:
        """What is to be recorded without being awaited (law 1), each once."""
        notes, self.notes = self.notes, []
        return notes

    def take_checkpoints(self) -> list[ev.Event]:
        """The text that has streamed since the last checkpoint (law 1)."""
        found: list[ev.Event] = []
        for name, part in self.parts.items():
            if part.length == part.saved:
                continue
            part.chunks = ["".join(part.chunks)]
            found.append(
                ev.OutputCheckpointed(
                    attempt=self.attempt,
                    item=part.item,
                    part=name,
                    offset=part.saved,
                    text=part.chunks[0][part.saved :],
                )
            )
            part.saved = part.length
        return found

    def outputs(self) -> list[JsonObject]:
        """The output items: the terminal frame's, or what streamed where it has none (law 3)."""
        terminal: JsonObject = self.terminal.data if self.terminal is not None else {}
        decided = objects(obj(terminal, "response"), "output")
        if decided:
            return decided
        numbered = sorted(key for key in self._items if isinstance(key, int))
        named = [key for key in self._items if isinstance(key, str)]
        return [self._items[key] for key in [*numbered, *named]]

    def outcome(self) -> ev.OutcomeEvent | None:
        """The outcome that the terminal frame says, or None where there was none (law 5)."""
        frame = self.terminal
        if frame is None:
            return None
        response = obj(frame.data, "response")
        usage = response.get("usage")
        facts = _Facts(
            attempt=self.attempt,
            response=text(response, "id") or self.response,
            usage=usage if isinstance(usage, dict) else None,
            body={k: v for k, v in response.items() if k not in _REPEATED} or None,
        )
        return _outcome(frame, facts, heard=self.response is not None)

    def interrupted(self, reason: str) -> ev.OutcomeEvent:
        """The outcome of an attempt that ended without a terminal frame."""
        if self.heard == 0:
            return ev.ResponseUnknown(attempt=self.attempt, reason=reason)
        return ev.ResponseInterrupted(attempt=self.attempt, response=self.response, reason=reason)


def _index(data: JsonObject, item: str | None) -> int | str:
    """The place of an item: its index, or where there is none, its id (some leave it out)."""
    index = integer(data, "output_index")
    if index is None:
        return item or ""
    return index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    attempt: str
    response: str | None
    usage: JsonObject | None
    body: JsonObject | None


def _outcome(frame: Frame, facts: _Facts, *, heard: bool) -> ev.OutcomeEvent:
    response = facts.response
    attempt, usage, body = facts.attempt, facts.usage, facts.body
    match frame.terminal:
        case "completed":
            return ev.ResponseCompleted(attempt=attempt, response=response, usage=usage, body=body)
        case "incomplete":
            details = obj(obj(frame.data, "response"), "incomplete_details")
            reason = text(details, "reason")
            return ev.ResponseIncomplete(
                attempt=attempt, response=response, usage=usage, body=body, reason=reason
            )
        case "cancelled":
            return ev.ResponseInterrupted(
                attempt=attempt, response=response, usage=usage, body=body, reason="cancelled"
            )
        case _:
            problem = frame.problem or Problem(message="the provider reported a failure")
            if heard or frame.terminal == "failed":
                return ev.ResponseFailed(
                    attempt=attempt,
                    response=response,
                    usage=usage,
                    body=body,
                    error=error_of(problem),
                    retryable=is_retryable(problem),
                )
            return rejected(attempt, problem)


def rejected(attempt: str, problem: Problem) -> ev.ResponseRejected:
    """The outcome of a request that was refused before any output."""
    after = problem.retry_after
    return ev.ResponseRejected(
        attempt=attempt,
        error=error_of(problem),
        reason="refused",
        status=problem.status,
        retryable=is_retryable(problem),
        retry_after_ms=round(after * 1000) if after is not None else None,
    )


def error_of(problem: Problem) -> JsonObject:
    """A problem as JSON, without what the provider left out."""
    fields: dict[str, Json] = {
        "status": problem.status,
        "code": problem.code,
        "type": problem.type,
        "message": problem.message,
        "param": problem.param,
    }
    return {key: value for key, value in fields.items() if value is not None}


def is_retryable(problem: Problem) -> bool:
    """Whether the same request may be sent again (law 10, W-33)."""
    if problem.status is not None:
        return problem.status in _RETRYABLE_STATUS or problem.status >= 500
    return problem.code in _RETRYABLE_CODES or (
        problem.code is None and problem.type == "server_error"
    )


def is_chain_lost(outcome: ev.OutcomeEvent) -> bool:
    """Whether the provider does not know the parent any more (law 8)."""
    return text(outcome.error or {}, "code") == CHAIN_LOST


def final_parts(outputs: Sequence[JsonObject]) -> dict[str, tuple[str, str]]:
    """The final text of each part of the answer, by its name: (item id, text)."""
    found: dict[str, tuple[str, str]] = {}
    for index, item in enumerate(outputs):
        for inner, part in enumerate(objects(item, "content")):
            for kind, key in (("text", "text"), ("refusal", "refusal")):
                said = text(part, key)
                if said is not None and text(part, "type") in ("output_text", "refusal"):
                    found[f"{kind}:{index}:{inner}"] = (text(item, "id") or "", said)
    return found
