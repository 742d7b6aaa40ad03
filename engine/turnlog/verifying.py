"""Verifying a log: the chain, and everything that is cached beside it (law 2).

The one rule: nothing is believed. Every hash is computed again, every head and index is compared
with what the log says, and what is wrong is named by conversation and version.
"""

from __future__ import annotations

from dataclasses import dataclass

from .engine import Engine
from .ports import Finding


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


async def verify(engine: Engine, conversation: str | None = None) -> Report:
    """Check one conversation, or all of them. Raises NotFound."""
    if conversation is not None:
        head = await engine.head(conversation)
        found = await engine.store.check(conversation)
        return Report(conversations=1, events=head.state.version, findings=tuple(found))
    conversations, events = 0, 0
    findings: list[Finding] = []
    after: str | None = None
    while rows := await engine.store.conversations(after=after, limit=100):
        for row in rows:
            findings += await engine.store.check(row.id)
            events += row.version
        conversations += len(rows)
        after = rows[-1].id
    return Report(conversations=conversations, events=events, findings=tuple(findings))
