"""Verifying a log: the chain, and everything that is stored beside it (law 2).

The one rule: nothing is believed, and nothing ends the report early. Every hash is computed again,
every head and index is compared with what the log says, and what is wrong, or cannot be read, is
named by conversation and version. It works while others write: each look is at one moment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from .engine import Engine
from .errors import NotFound, StoreCorrupt, StoreUnavailable
from .ports import Finding

WHOLE = ""
"""In the place of a conversation: what belongs to none, as `ports.Store.check` takes it."""

DAMAGE = (StoreCorrupt, StoreUnavailable)
"""What is said of a part that cannot be read; the others can be looked at all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was checked, and what is wrong with it; `ok` where nothing is."""

    conversations: int
    events: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything verified."""
        return not self.findings


Told = Callable[[Report], None]


async def verify(
    engine: Engine, conversation: str | None = None, *, told: Told | None = None
) -> Report:
    """Check one conversation, or all of them and the database; `told` hears of each as it is done.

    Raises NotFound, and StoreMoved where the file is not there any more.
    """
    if conversation is not None:
        report = await _one(engine, conversation)
        if report is None:
            raise NotFound(f"there is no conversation {conversation!r}")
        return report
    conversations, events = 0, 0
    findings: list[Finding] = []
    async for report in _all(engine):
        conversations += report.conversations
        events += report.events
        findings += report.findings
        if told is not None:
            told(report)
    return Report(conversations=conversations, events=events, findings=tuple(findings))


async def _one(engine: Engine, conversation: str) -> Report | None:
    """A conversation that was not listed; None where there is nothing of it, not even a part."""
    version, known = 0, True
    try:
        head = await engine.store.head(conversation)
        version, known = (0, False) if head is None else (head.state.version, True)
    except DAMAGE:
        pass  # the check says why
    report = await _looked_at(engine, conversation, version)
    return report if known or not report.ok else None


async def _all(engine: Engine) -> AsyncIterator[Report]:
    """The database, and every conversation that is listed, or of which there is a part."""
    whole = await _check(engine, WHOLE)
    yield Report(conversations=0, events=0, findings=whole)
    unseen, seen = {one.conversation for one in whole} - {WHOLE}, set[str]()
    after: str | None = None
    while True:
        try:
            rows = await engine.store.conversations(after=after, limit=100)
        except DAMAGE as error:
            problem = f"the conversations after {after!r} cannot be listed: {error}"
            unlisted = Finding(conversation=WHOLE, version=None, problem=problem)
            yield Report(conversations=0, events=0, findings=(unlisted,))
            unseen |= await _in_the_log(engine)
            break
        if not rows:
            break
        for row in rows:
            seen.add(row.id)
            yield await _looked_at(engine, row.id, row.version)
        after = rows[-1].id
    for conversation in sorted(unseen - seen):
        report = await _one(engine, conversation)
        if report is not None:
            yield report


async def _in_the_log(engine: Engine) -> frozenset[str]:
    """Whoever has events, as far as that can be read."""
    try:
        ends, _ = await engine.store.moved({})
        _, names = await engine.store.moved(dict.fromkeys(ends, 0))
    except DAMAGE:
        return frozenset()
    return names


async def _looked_at(engine: Engine, conversation: str, version: int) -> Report:
    found = await _check(engine, conversation)
    return Report(conversations=1, events=version, findings=found)


async def _check(engine: Engine, conversation: str) -> tuple[Finding, ...]:
    try:
        return tuple(await engine.store.check(conversation))
    except DAMAGE as error:
        problem = f"it cannot be checked: {error}"
        return (Finding(conversation=conversation, version=None, problem=problem),)
