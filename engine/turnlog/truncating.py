"""What the user really heard of an answer that was spoken, where it was cut short.

The one rule: what was said stays in the log, and what was heard is what the model goes on from: in
the answer's own place (`edit`, law 9), or as a note behind it, which keeps the chain (`note`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from . import events as ev
from .cancelling import cancel
from .canonical import Json, JsonObject, integer, objects, text
from .commands import AddItems, Command, EditItem, RemoveItem
from .configuring import check_actor, check_choice
from .context import Item, every, load, turn_row
from .draft import Draft
from .engine import Engine
from .errors import InvalidInput
from .items import type_of
from .ports import Lease
from .record import NewEvent, Recorded
from .replacing import edited

Mode: TypeAlias = Literal["edit", "note"]

SHOWN = 40
"""How many characters of an answer are repeated, to the model or in an error."""


async def truncate(
    engine: Engine, conversation: str, turn: str, *, heard: str, mode: Mode, actor: str
) -> None:
    """Record how much of a turn's last answer was heard; a turn that still speaks is cancelled.

    The same again changes nothing. Raises NotFound, InvalidInput where that was not said or is not
    in the context any more, and Busy while a request of a later turn is out.
    """
    told = _checked(heard)
    check_choice("mode", mode, get_args(Mode))
    by = check_actor(actor)
    await _silence(engine, conversation, turn, by)

    async def act(draft: Draft) -> Lease | None:
        view = await _view(engine, conversation, turn)
        if view.spoken is None:
            if told:
                raise InvalidInput(f"turn {turn} said nothing that could be heard")
            return None
        found = view.edit(engine, told) if mode == "edit" else view.note(engine, told)
        if found is not None:
            key, commands = found
            truncated = ev.OutputTruncated(key=key, heard=told, mode=mode)
            draft.take([NewEvent(event=truncated, turn=turn)])
            for command in commands:
                draft.do(command)
        return None

    await engine.commit(conversation, act, actor=by)


async def _silence(engine: Engine, conversation: str, turn: str, actor: str) -> None:
    """Cancel a turn that goes on; one that waits, and whose answer was completed, may wait."""
    open_ = (await engine.head(conversation)).state.turn
    if open_ is None or open_.id != turn:
        return
    if open_.paused is not None:
        spoken = (await _view(engine, conversation, turn)).spoken
        if spoken is None or spoken.key is not None:
            return
    await cancel(engine, conversation, turn, reason="truncated", actor=actor)


# -- what was said -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """What a turn said last. `key` and `item` are those of its message, if it has one.

    A response that was interrupted is not in the context, and what was heard of it has no message.
    """

    words: str
    key: str | None = None
    item: JsonObject = field(default_factory=dict[str, Json])


def spoken(log: Sequence[Recorded]) -> Spoken | None:
    """What the events of a turn say that it said last."""
    found: Spoken | None = None
    parts: dict[str, str] = {}
    outputs: list[ev.OutputRecorded] = []
    for one in log:
        event = one.event
        match event:
            case ev.RequestPrepared():
                parts, outputs = {}, []
            case ev.OutputCheckpointed():
                parts[event.part] = parts.get(event.part, "")[: event.offset] + event.text
            case ev.OutputRecorded():
                outputs.append(event)
            case ev.ResponseCompleted():
                found = _message(outputs) or (found if found and found.key else None)
            case ev.ResponseIncomplete() | ev.ResponseFailed() | ev.ResponseInterrupted():
                words = "".join(said(output.item) for output in outputs) or _streamed(parts)
                found = Spoken(words=words) if words else found
            case _:
                pass
    return found


def _message(outputs: Sequence[ev.OutputRecorded]) -> Spoken | None:
    """The last message of a response that says something."""
    for output in reversed(outputs):
        words = said(output.item)
        if words:
            return Spoken(words=words, key=output.key, item=output.item)
    return None


def _streamed(parts: dict[str, str]) -> str:
    """What streamed of an answer, in the order of its items and their parts."""
    places: list[tuple[int, int, str]] = []
    for name, words in parts.items():
        kind, item, part = name.split(":")
        if kind in ("text", "refusal"):
            places.append((int(item), int(part), words))
    return "".join(words for _, _, words in sorted(places))


def said(item: JsonObject) -> str:
    """What a message says aloud, its refusals too; empty for any other item."""
    if type_of(item) != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(text(part, _words_of(part)) or "" for part in objects(item, "content"))


def cut(item: JsonObject, heard: str) -> JsonObject:
    """A message that says no more than a beginning of what it said.

    A picture or the like stays where it comes before the cut, and an annotation where it ends
    before it.
    """
    if isinstance(item.get("content"), str):
        return {**item, "content": heard}
    left = len(heard)
    parts: list[JsonObject] = []
    for part in objects(item, "content"):
        if not left:
            break
        words = text(part, _words_of(part))
        kept = words[:left] if words is not None else None
        left -= len(kept or "")
        parts.append(part if kept == words else _shortened(part, kept or ""))
    return {**item, "content": parts}


def _shortened(part: JsonObject, kept: str) -> JsonObject:
    short = {name: value for name, value in part.items() if name != "logprobs"}
    if "annotations" in part:
        found = objects(part, "annotations")
        short["annotations"] = [one for one in found if _ends(one) <= len(kept)]
    return {**short, _words_of(part): kept}


def _ends(annotation: JsonObject) -> float:
    """Where what an annotation speaks of ends; one that does not say speaks of all."""
    end = integer(annotation, "end_index")
    return float("inf") if end is None else end


def _words_of(part: JsonObject) -> str:
    return "refusal" if text(part, "type") == "refusal" else "text"


# -- what was heard ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a turn said, what was recorded of its being heard, and what came behind it.

    `now` is the message in the context that holds the answer, or what was heard of it; `before` is
    what was said last of how much was heard; `behind` the ordinal of the first item that came after
    the turn, if any.
    """

    turn: str
    spoken: Spoken | None
    before: ev.OutputTruncated | None
    now: Item | None
    behind: int | None
    newer: bool

    def edit(self, engine: Engine, heard: str) -> tuple[str, list[Command]] | None:
        """The key of the message, and the commands that leave it with what was heard.

        None where it is so already.
        """
        assert self.spoken is not None
        whole = self._whole(heard)
        if self.now is not None:
            kept = _beginning(whole, heard)
            if kept == said(self.now.raw) or (heard and heard == said(self.now.raw).rstrip()):
                return None
            return self.now.key, [self._changed(self.now, kept)]
        if not heard and self.before is not None and not self.before.heard:
            return None
        if self.spoken.key is not None:
            raise InvalidInput(
                f"the answer of turn {self.turn} is not in the context any more: it was removed"
            )
        message: JsonObject = {"type": "message", "role": "assistant", "content": heard}
        (keyed,) = engine.keyed(message)
        added = AddItems(items=(keyed,), ordinal=self.behind)
        return keyed.key, [added] if heard else []

    def note(self, engine: Engine, heard: str) -> tuple[str, list[Command]] | None:
        """The key of the message, and the commands that tell the model how much was heard.

        None where that was told already, and where all of it was heard.
        """
        assert self.spoken is not None
        whole = self._whole(heard)
        if self.before is not None and (self.before.mode, self.before.heard) == ("note", heard):
            return None
        if self.newer:
            raise InvalidInput(
                f"another turn has begun behind turn {self.turn}, so that a note would come too"
                ' late: use mode="edit"'
            )
        commands: list[Command] = []
        key, there = self.spoken.key, "You were interrupted there: the user heard no more of it."
        if key is None:
            # What was heard enters the context first: an interrupted response is not in it.
            found = self.edit(engine, heard)
            key, commands = found if found is not None else (self._key(), [])
        elif heard == whole.rstrip():
            return None
        else:
            there = f"The user interrupted your answer, and heard it only up to: {_end(heard)}"
        if not heard:
            there = "The user interrupted your answer before hearing any of it."
        told: JsonObject = {"type": "message", "role": "developer", "content": there}
        return key, [*commands, AddItems(items=engine.keyed(told))]

    def _key(self) -> str:
        assert self.before is not None
        return self.before.key

    def _whole(self, heard: str) -> str:
        """All that was said, or what the caller made of it; raises where `heard` is no part."""
        assert self.spoken is not None
        known = [self.spoken.words] + ([said(self.now.raw)] if self.now is not None else [])
        for words in known:
            if words.startswith(heard):
                return words
        raise InvalidInput(
            f"heard= is not a beginning of what turn {self.turn} said:"
            f" {_differ(self.spoken.words, heard)}"
        )

    def _changed(self, now: Item, kept: str) -> Command:
        assert self.spoken is not None
        if not kept:
            return RemoveItem(ordinal=now.ordinal, key=now.key)
        whole = now.raw if said(now.raw).startswith(kept) else self.spoken.item or now.raw
        return EditItem(ordinal=now.ordinal, key=now.key, item=edited(now.raw, cut(whole, kept)))


async def _view(engine: Engine, conversation: str, turn: str) -> _View:
    store = engine.store
    row = await turn_row(store, conversation, turn)
    log = await every(store, conversation, row.started - 1)
    own = [one for one in log if one.turn == turn]
    found = spoken(own)
    facts = [one.event for one in own if isinstance(one.event, ev.OutputTruncated)]
    before = facts[-1] if facts else None
    key = (found.key if found is not None else None) or (before.key if before is not None else None)
    later = [one.event for one in log if row.ended is not None and one.version > row.ended]
    return _View(
        turn=turn,
        spoken=found,
        before=before,
        now=await _item(engine, conversation, key) if key is not None else None,
        behind=await _behind(engine, conversation, [fact.key for fact in facts], later),
        newer=any(isinstance(event, ev.TurnStarted) for event in later),
    )


async def _item(engine: Engine, conversation: str, key: str) -> Item | None:
    """An item of the context by its key; None where it is not in it."""
    places = await engine.store.find(conversation, key=key)
    return (await load(engine.store, places[-1:]))[0] if places else None


async def _behind(
    engine: Engine, conversation: str, own: Sequence[str], later: Sequence[ev.Event]
) -> int | None:
    """Where the first item stands that came after a turn, and not of it."""
    for event in later:
        if isinstance(event, ev.ItemAdded) and event.key not in own:
            places = await engine.store.find(conversation, key=event.key)
            if places:
                return places[-1].ordinal
    return None


def _checked(heard: object) -> str:
    """What was heard, without white space at its end; raises InvalidInput for what is no text."""
    if not isinstance(heard, str):
        raise InvalidInput(f"heard= is the text that was heard, not a {type(heard).__name__}")
    return heard.rstrip()


def _beginning(whole: str, heard: str) -> str:
    """What is kept: all of it, where only white space is missing."""
    return whole if heard and whole.rstrip() == heard else heard


def _end(heard: str) -> str:
    return f'"{heard}"' if len(heard) <= SHOWN else f'"…{heard[-SHOWN:]}"'


def _differ(whole: str, heard: str) -> str:
    """Where two texts part ways, shown briefly."""
    pairs = zip(whole, heard, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(whole), len(heard)))
    start = max(0, place - SHOWN // 2)
    ours, theirs = whole[start : place + SHOWN // 2], heard[start : place + SHOWN // 2]
    return f"from character {place} on it said {ours!r}, and {theirs!r} is given"
