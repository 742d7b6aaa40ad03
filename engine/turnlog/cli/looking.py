"""Commands that look at conversations as they are: ls, show.

The one rule: they open read-only and change nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInput
from .options import AsJson, Db, Id, moment, pairs

if TYPE_CHECKING:
    from rich.text import Text

    from ..call import Call
    from ..conversation import Conversation, ConversationState
    from ..log import Log
    from ..ports import ConversationRow
    from ..state import Status
    from .screen import Screen

# -- ls ------------------------------------------------------------------------------------


def ls(
    db: Db,
    *,
    status: Annotated[
        str | None, typer.Option(metavar="<idle|busy|waiting|queued>", help="Only those.")
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
    """List conversations, by their ids.

    A turn that was left is one whose process is gone: `turnlog recover` settles it.
    """
    from .opening import reading, run
    from .screen import Screen

    screen = Screen(as_json=as_json)
    only = _status(status)
    wanted = pairs(metadata, "--metadata")
    changed = moment(since, time.time())

    async def work() -> None:
        async with reading(db) as opened:
            rows = await opened.conversations(
                after=after, limit=limit, status=only, metadata=wanted, since=changed
            )
        if as_json:
            for row in rows:
                screen.data(row)
            return
        _list(screen, rows)
        if len(rows) == limit:
            screen.note(f"perhaps more: add --after {rows[-1].id}")

    run(work())


_STATUSES: dict[str, Status] = {
    "idle": "idle",
    "busy": "busy",
    "waiting": "waiting",
    "queued": "queued",
}


def _status(given: str | None) -> Status | None:
    """A status by its name; raises InvalidInput for another one."""
    if given is None or given in _STATUSES:
        return _STATUSES.get(given or "")
    raise InvalidInput(f"--status is one of {', '.join(_STATUSES)}, not {given!r}")


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
    from .hints import waiting
    from .opening import reading, run
    from .screen import Screen

    screen = Screen(as_json=as_json)

    async def work() -> None:
        async with reading(db) as opened:
            conversation = await opened.get(id)
            state = await conversation.state()
            left = await was_left(opened, state)
            if as_json:
                turns, items = (
                    await conversation.turns(last=last),
                    await conversation.items(last=last),
                )
                pending = [call_data(call) for call in state.pending]
                screen.data(state, pending=pending, orphaned=left)
                for kind, values in (("turn", turns), ("item", items)):
                    for value in values:
                        screen.data({kind: value})
                return
            _summary(screen, state, left=left)
            waiting(screen.show, db, state, left=left)
            await _turns(screen, conversation, last)
            await _items(screen, conversation, last)

    run(work())


async def was_left(log: Log, state: ConversationState, page: int = 200) -> bool:
    """Whether the open turn is busy, and nobody runs it; `page` rows are looked at at once."""
    after = state.id[:-1] or None
    while state.status == "busy":
        rows = await log.conversations(status="busy", after=after, limit=page)
        found = [row.orphaned for row in rows if row.id == state.id]
        if found or not rows or rows[-1].id > state.id:
            return any(found)
        after = rows[-1].id
    return False


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
        "why": call.why,
        "can": call.can,
        "runs": call.runs,
        "call_id": call.call_id,
        "arguments": call.arguments,
        "raw": call.raw,
    }


def _summary(screen: Screen, state: ConversationState, *, left: bool) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from .screen import safe
    from .words import counted, when

    head = state.head
    facts = {
        "status": styled_status(state.status, orphaned=left),
        "turn": f"{state.turn}: {state.paused}" if state.paused else state.turn,
        "queued": counted(len(state.queued), "turn") if state.queued else None,
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
