"""Commands that look at what became of a conversation: log, diff.

The one rule: they open read-only and change nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import NotFound
from .options import AsJson, Db, Id

if TYPE_CHECKING:
    from ..conversation import Conversation
    from ..diff import Difference
    from ..log import Log
    from ..record import Recorded
    from .screen import Screen

POLL = 0.5
"""How often `log --follow` looks again, in seconds."""


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
    from .timeline import Timeline

    screen = Screen(as_json=as_json)

    async def work() -> None:
        before = 0
        async with reading(db) as opened:
            if id and turn is not None:
                await (await opened.get(id)).turn(turn)
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
        if turn is not None and id is None and not before:
            raise NotFound(f"there is no turn {turn!r} in {db}")

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

    from ..diff import Kept
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
        counted = Counter[str]()
        for one in found:
            counted[type(one).__name__.lower()] += one.count if isinstance(one, Kept) else 1
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
