"""An auditor reads a database: who said what, what the agent did about it, and whether it verifies.

    python examples/auditor.py agent.db              prints a report
    python examples/auditor.py agent.db report.md    writes it to a file

The database is opened read-only: no migration, no key, no agent. The status is 1 where something
does not verify, or cannot be read. It needs turnlog only.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, text
from turnlog.items import output_text
from turnlog.record import Recorded


async def audit(database: str) -> tuple[str, bool]:
    """The report, and whether everything verifies."""
    lines = [f"# What {Path(database).name} holds", ""]
    async with turnlog.open(database, readonly=True) as log:
        after: str | None = None
        while rows := await log.conversations(after=after):
            for row in rows:
                lines += [f"## {row.id}", "", *tell(await (await log.get(row.id)).events()), ""]
            after = rows[-1].id
        report = await log.verify()
    lines.append(
        f"{report.events} events of {report.conversations} conversation(s) were checked:"
        f" {len(report.findings)} finding(s)."
    )
    lines += [f"- {one.conversation}, {one.version}: {one.problem}" for one in report.findings]
    return "\n".join(lines) + "\n", report.ok


def tell(events: Sequence[Recorded]) -> Iterator[str]:
    """One conversation, a line for each thing that an auditor asks about."""
    items: dict[str, JsonObject] = {}
    calls: dict[str, str] = {}
    for one in events:
        match one.event:
            case ev.OutputRecorded(key=key, item=item):
                items[key] = item
            case ev.CallRequested(call=call, item=key):
                calls[call] = f"{text(items[key], 'name')}({text(items[key], 'arguments')})"
            case _:
                pass
        said = describe(one.event, calls)
        if said is not None:
            when = datetime.fromtimestamp(one.time / 1_000_000, UTC)
            yield f"- {when:%Y-%m-%d %H:%M:%S} v{one.version} {one.actor} {said}"


def describe(event: ev.Event, calls: Mapping[str, str]) -> str | None:
    """What happened, in words; None for what is of no interest here."""
    match event:
        case ev.ConversationConfigured(agent=agent, model=model):
            return f"configured the agent {agent} with {model}"
        case ev.ItemAdded(item=item) if output_text(item):
            return f"said: {output_text(item)}"
        case ev.OutputRecorded(item=item) if output_text(item):
            return f"recorded the answer: {output_text(item)}"
        case ev.CallRequested() | ev.CallStarted() | ev.CallUncertain() | ev.CallDeferred():
            return f"{ev.tag_of(event)}: {calls.get(event.call)}"
        case ev.CallApproved() | ev.CallRejected() | ev.CallAbandoned():
            why = f", because: {event.reason}" if event.reason else ""
            return f"{ev.tag_of(event)}: {calls.get(event.call)}{why}"
        case ev.CallAnswered():
            return f"call.answered: {calls.get(event.call)} with {text(event.item, 'output')}"
        case ev.TurnEnded(outcome=outcome):
            return f"ended the turn: {outcome}"
        case _:
            return None


def main(database: str, report: str | None = None) -> None:
    """Print the report, or write it."""
    said, ok = asyncio.run(audit(database))
    if report is None:
        print(said, end="")
    else:
        Path(report).write_text(said, encoding="utf-8")
    if not ok:
        sys.exit("not everything verifies")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Who said what, and whether it verifies.")
    parser.add_argument("database")
    parser.add_argument("report", nargs="?", help="the file to write; without it, it is printed")
    given = parser.parse_args()
    try:
        main(given.database, given.report)
    except (turnlog.TurnlogError, OSError) as problem:
        sys.exit(f"error: {problem}")
