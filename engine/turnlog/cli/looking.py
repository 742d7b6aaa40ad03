"""Commands that look: ls, show, log, diff.

The one rule: they open read-only and change nothing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .options import AsJson, Db, Id, moment, pairs

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.text import Text

    from ..call import Call
    from ..conversation import Conversation, ConversationState
    from ..diff import Difference
    from ..log import Log
    from ..ports import ConversationRow
    from ..record import Recorded
    from .screen import Screen

POLL = 0.5
"""How often `log --follow` looks again, in seconds."""


# -- ls ------------------------------------------------------------------------------------


def ls(
    db: Db,
    *,
    status: Annotated[
        Literal["idle", "busy", "waiting"] | None, typer.Option(help="Only those.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only those with this entry; may be repeated."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only those that changed since: 2026-01-31, 2h, 7d."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those behind this id: the next page.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list at the most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List conversations, by their ids."""
    from .opening import reading, run
    from .screen import Screen

    screen = Screen(as_json=as_json)
    wanted = pairs(metadata, "--metadata")
    changed = moment(since, time.time())

    async def work() -> None:
        async with reading(db) as opened:
            rows = await opened.conversations(
                after=after, limit=limit, status=status, metadata=wanted, since=changed
            )
        if as_json:
            for row in rows:
                screen.data(row)
            return
        _list(screen, rows)
        if len(rows) == limit:
            screen.note(f"perhaps more: add --after {rows[-1].id}")

    run(work())


def _list(screen: Screen, rows: list[ConversationRow]) -> None:
    from .words import when

    if not rows:
        screen.note("no conversations")
        return
    screen.table(
        ("id", "status", "turns", "items", "agent", "model", "changed", "forked from"),
        [
            (
                row.id,
                styled_status(row.status, orphaned=row.orphaned),
                str(row.turns),
                str(row.items),
                row.agent or "",
                row.model or "",
                when(row.updated),
                row.fork_of or "",
            )
            for row in rows
        ],
    )


_STYLES = {"idle": "green", "busy": "cyan", "waiting": "yellow"}


def styled_status(status: str, *, orphaned: bool = False) -> Text:
    """A status in its colour; a busy turn whose owner is dead waits for `turnlog recover`."""
    from rich.text import Text

    said = f"{status} (left: recover)" if orphaned else status
    return Text(said, style="red" if orphaned else _STYLES.get(status, ""))


# -- show ----------------------------------------------------------------------------------


def show(
    db: Db,
    id: Id,
    *,
    last: Annotated[int, typer.Option(min=1, help="How many items and turns.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show one conversation.

    Its state, the calls that wait and what can be done about them, its last turns and items.
    """
    from .opening import reading, run
    from .screen import Screen

    screen = Screen(as_json=as_json)

    async def work() -> None:
        async with reading(db) as opened:
            conversation = await opened.get(id)
            state = await conversation.state()
            if as_json:
                turns, items = (
                    await conversation.turns(last=last),
                    await conversation.items(last=last),
                )
                screen.data(state, pending=[call_data(call) for call in state.pending])
                for kind, values in (("turn", turns), ("item", items)):
                    for value in values:
                        screen.data({kind: value})
                return
            _summary(screen, state)
            waiting(screen.show, db, state)
            await _turns(screen, conversation, last)
            await _items(screen, conversation, last)

    run(work())


def call_data(call: Call) -> dict[str, object]:
    """A call as data, with what its properties say."""
    return {
        "id": call.id,
        "conversation": call.conversation,
        "turn": call.turn,
        "name": call.name,
        "kind": call.kind,
        "status": call.status,
        "waits_for": call.waits_for,
        "call_id": call.call_id,
        "arguments": call.arguments,
        "raw": call.raw,
    }


def _summary(screen: Screen, state: ConversationState) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from .screen import safe
    from .words import counted, when

    head = state.head
    facts = {
        "status": styled_status(state.status),
        "turn": f"{state.turn}: {state.paused}" if state.paused else state.turn,
        "version": state.version,
        "agent": state.agent,
        "model": state.model,
        "continues": state.parent,
        "context": f"{counted(state.items, 'item')}, {counted(state.turns, 'turn')}",
        "began": when(head.created),
        "changed": when(head.updated),
        "forked from": f"{head.fork.conversation} at {head.fork.version}" if head.fork else None,
        **{f"metadata {key}": value for key, value in state.metadata.items()},
    }
    known = {safe(name): _text(value) for name, value in facts.items() if value is not None}
    if not screen.out.is_terminal:
        for name, said in {"id": Text(state.id), **known}.items():
            screen.say(f"{name:<12} {said.plain}")
        return
    grid = Table.grid(padding=(0, 2))
    for name, said in known.items():
        grid.add_row(Text(name, style="dim"), said)
    screen.show(Panel(grid, title=Text(state.id, style="bold"), title_align="left", expand=False))


def _text(value: object) -> Text:
    from rich.text import Text

    from .screen import safe

    return value if isinstance(value, Text) else Text(safe(str(value)))


_WHAT_CAN_BE_DONE = {
    "approval": "turnlog approve {db} {id} {call}, or reject",
    "uncertain": "turnlog approve {db} {id} {call} runs it again; or reject",
    "deferred": "turnlog reject {db} {id} {call} gives it up",
}
_GO_ON = "turnlog resume {db} {id} --agents MODULE:NAME"


def waiting(show: Callable[[Text], None], db: str, state: ConversationState) -> None:
    """The calls that wait, and what can be done about each."""
    from rich.text import Text

    from .screen import safe
    from .words import call_words, given_to

    for call in state.pending:
        what = waits_for(state, call)
        words = safe(call_words(call.name, call.kind, given_to(call.raw)))
        show(Text.assemble(("? ", "yellow"), (words, "bold"), (f"  waits: {what}", "yellow")))
        hint = _WHAT_CAN_BE_DONE.get(what, _GO_ON)
        said = hint.format(db=db, id=call.conversation, call=call.id)
        show(Text(safe(f"  {said}"), style="dim"))


def waits_for(state: ConversationState, call: Call) -> str:
    """What a call waits for, where nobody has bound its tool: what its turn was paused for."""
    if call.waits_for != "unbound":
        return call.waits_for or "to be resumed"
    if call.status == "requested" and "approval" in (state.paused or ""):
        return "approval"
    return "to be resumed with its tool"


async def _turns(screen: Screen, conversation: Conversation, last: int) -> None:
    from .words import when

    rows = await conversation.turns(last=last)
    if rows:
        screen.say("\nturns", style="bold")
        screen.table(
            ("turn", "began", "outcome", "versions"),
            [
                (
                    row.turn,
                    when(row.time),
                    row.outcome or "open",
                    f"{row.started}-{row.ended or ''}",
                )
                for row in rows
            ],
        )


async def _items(screen: Screen, conversation: Conversation, last: int) -> None:
    from rich.text import Text

    from .words import item_words

    items = await conversation.items(last=last)
    if items:
        screen.say("\nitems", style="bold")
    for item in items:
        words = item_words(item.raw, 400)
        screen.row(Text.assemble((f"{item.ordinal:>5}  ", "dim"), words))


# -- log -----------------------------------------------------------------------------------


def log(
    db: Db,
    id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The conversation; all of them, where left out."),
    ] = None,
    *,
    after: Annotated[int, typer.Option(metavar="VERSION", help="Only what came behind it.")] = 0,
    turn: Annotated[str | None, typer.Option(metavar="TURN", help="Only this turn.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the timeline.

    Every event: when it was recorded, by whom, and what it says. Times are UTC.
    """
    from .opening import reading, run
    from .screen import Screen
    from .words import Timeline

    screen = Screen(as_json=as_json)

    async def work() -> None:
        before = 0
        async with reading(db) as opened:
            events = _of_one(opened, id, after, follow) if id else _of_all(opened, follow)
            timeline = Timeline()
            async for one in events:
                words = timeline.words(one.event)
                if turn is not None and one.turn != turn:
                    continue
                if as_json:
                    screen.data(one)
                else:
                    _tell(screen, one, words, before, named=id is None)
                before = one.time

    run(work())


async def _of_one(opened: Log, id: str, after: int, follow: bool) -> AsyncIterator[Recorded]:
    import asyncio

    conversation = await opened.get(id)
    while True:
        for one in await conversation.events(after=after):
            yield one
            after = one.version
        if not follow:
            return
        await asyncio.sleep(POLL)


async def _of_all(opened: Log, follow: bool) -> AsyncIterator[Recorded]:
    async for followed in opened.follow(wait=follow, poll=POLL):
        yield followed.event


_COLOURS = {
    "conversation": "magenta",
    "item": "blue",
    "turn": "bold",
    "request": "cyan",
    "response": "green",
    "output": "green",
    "call": "yellow",
}
_ALARMS = frozenset(
    {
        "response.failed",
        "response.rejected",
        "response.interrupted",
        "response.unknown",
        "chain.lost",
        "call.uncertain",
        "transport.switched",
    }
)


def _tell(screen: Screen, one: Recorded, words: str, before: int, *, named: bool) -> None:
    from rich.text import Text

    from .screen import one_line, safe
    from .words import clock, day

    date = day(one.time)
    if not screen.out.is_terminal:
        time_ = f"{date}T{clock(one.time)}Z"
    else:
        if date != day(before) or not before:
            screen.row(Text(f"  {date} (UTC)", style="bold dim"))
        time_ = clock(one.time)
    colour = "red" if one.tag in _ALARMS else _COLOURS.get(one.tag.partition(".")[0], "")
    name = f"{safe(one.conversation)}  " if named else ""
    screen.row(
        Text.assemble(
            (f"{name}{one.version:>5}  ", "dim"),
            (f"{time_}  ", "dim"),
            f"{one_line(one.actor, 24):<8}  ",
            (f"{one.tag:<23} ", colour),
            one_line(words, 400),
        )
    )


# -- diff ----------------------------------------------------------------------------------


def diff(
    db: Db,
    id: Id,
    before: Annotated[str, typer.Argument(help="A version, or a turn: how it was at its end.")],
    after: Annotated[
        str | None, typer.Argument(help="Another; now, where left out.", show_default=False)
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two versions.

    Lines with + were added, with - removed, and with ~ edited: as it was, and as it is.
    """
    from collections import Counter

    from .opening import reading, run
    from .screen import Screen

    screen = Screen(as_json=as_json)

    async def work() -> None:
        async with reading(db) as opened:
            conversation = await opened.get(id)
            old = await _version(conversation, before)
            new = await _version(conversation, after) if after is not None else None
            found = await conversation.diff(old, new)
        if as_json:
            for one in found:
                screen.data({"type": type(one).__name__.lower()}, **_fields(one))
            return
        for one in found:
            _difference(screen, one)
        counted = Counter(type(one).__name__.lower() for one in found)
        screen.note(
            ", ".join(f"{count} {kind}" for kind, count in counted.items()) or "both are empty"
        )

    run(work())


def _fields(one: Difference) -> dict[str, object]:
    return {name: getattr(one, name) for name in type(one).__slots__}


async def _version(conversation: Conversation, given: str) -> int:
    if given.isdecimal():
        return int(given)
    return (await conversation.at(turn=given)).version


def _difference(screen: Screen, one: Difference) -> None:
    from rich.text import Text

    from ..diff import Added, Edited, Removed
    from .words import item_words

    match one:
        case Added():
            screen.row(Text(f"+ {one.new:>4}  {item_words(one.item, 400)}", style="green"))
        case Removed():
            screen.row(Text(f"- {one.old:>4}  {item_words(one.item, 400)}", style="red"))
        case Edited():
            screen.row(Text(f"~ {one.old:>4}  {item_words(one.before, 400)}", style="yellow"))
            screen.row(Text(f"  {one.new:>4}  {item_words(one.item, 400)}", style="yellow"))
        case _:
            pass
