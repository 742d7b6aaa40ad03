"""What an auditor makes of a log: a timeline, a difference, and what a request would have cost."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.table import Table
from rich.text import Text

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, dumps, text
from turnlog.diff import Added, Difference, Kept
from turnlog.items import legal, output_text, to_input, type_of
from turnlog.record import Recorded


async def full_size(database: Path, sent: JsonObject) -> int:
    """How many bytes a request takes that holds the whole context, instead of `sent`."""
    async with turnlog.open(str(database), readonly=True) as log:
        (row,) = await log.conversations()
        chat = await log.get(row.id)
        prepared = [one for one in await chat.events() if one.tag == "request.prepared"][-1]
        items = await (await chat.at(version=prepared.version)).items()
    rest = {key: value for key, value in sent.items() if key != "previous_response_id"}
    context = legal([to_input(item.raw) for item in items])
    return len(dumps({"type": "response.create", **rest, "input": context}))


def timeline(events: Sequence[Recorded]) -> Table:
    """A line for each turn, and below it one for each request and call, with its whole life."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    lines: dict[str, tuple[str, str, list[str]]] = {}
    began = events[0].time
    names = _names(events)
    for one in events:
        subject, step = _step(one)
        if subject is None:
            continue
        at = f"{one.version:>5} {(one.time - began) / 1e6:6.2f} s"
        _, _, life = lines.setdefault(subject, (at, names.get(subject, ""), []))
        life.append(step if one.actor in ("user", "turnlog") else f"{step} by {one.actor}")
    for at, name, life in lines.values():
        style = "bold" if name.startswith("turn") else ""
        table.add_row(Text(at, "dim"), Text(name, style or "cyan"), Text("→".join(life)))
    return table


def _step(one: Recorded) -> tuple[str | None, str]:
    """Whose life an event belongs to, and the step in it."""
    match one.event:
        case ev.TurnStarted():
            return one.turn, "started"
        case ev.TurnPaused() as paused:
            return one.turn, f"paused ({paused.reason})"
        case ev.TurnEnded() as ended:
            return one.turn, ended.outcome
        case ev.RequestPrepared() as request:
            return request.attempt, f"{request.kind} by {request.transport}"
        case ev.CallRequested() | ev.CallApproved() | ev.CallStarted() as call:
            return call.call, one.tag.removeprefix("call.")
        case ev.CallAnswered() | ev.CallUncertain() as call:
            return call.call, one.tag.removeprefix("call.")
        case ev.ResponseCompleted() | ev.ResponseRejected() as outcome:
            return outcome.attempt, one.tag.removeprefix("response.")
        case _:
            return None, ""


def _names(events: Sequence[Recorded]) -> dict[str, str]:
    """A name for people for each turn, request and call."""
    names: dict[str, str] = {}
    items: dict[str, JsonObject] = {}
    for one in events:
        match one.event:
            case ev.TurnStarted():
                names[one.turn or ""] = f"turn {sum(n.startswith('turn') for n in names) + 1}"
            case ev.RequestPrepared() as request:
                names[request.attempt] = "  request"
            case ev.OutputRecorded() as output:
                items[output.key] = output.item
            case ev.CallRequested() as call:
                names[call.call] = f"  {text(items[call.item], 'name')}"
            case _:
                pass
    return names


def forge_approval(original: Path, copy: Path) -> None:
    """Copy a database, and change in the copy who approved a call."""
    with closing(sqlite3.connect(original)) as source, closing(sqlite3.connect(copy)) as forged:
        source.backup(forged)
        forged.execute("UPDATE events SET actor = 'bob' WHERE tag = 'call.approved'")
        forged.commit()


def difference(differences: Sequence[Difference]) -> Text:
    """Two contexts, like a patch: what was kept in one line, the rest item by item."""
    kept = sum(one.count for one in differences if isinstance(one, Kept))
    shown = Text(f"    = {kept} items kept\n", "dim")
    for one in differences:
        match one:
            case Kept():
                pass
            case Added(item=item):
                shown.append(f"    + {type_of(item):<22}{_gist(item)}\n", "green")
            case _:
                shown.append(f"    ~ {one}\n", "yellow")
    shown.rstrip()
    return shown


def _gist(item: JsonObject) -> str:
    said = output_text(item) or text(item, "output") or text(item, "arguments") or ""
    return said if len(said) <= 70 else f"{said[:69]}…"
