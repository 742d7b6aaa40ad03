"""The whole log, read once from its beginning: what was counted in it, and what is wrong with it.

The one rule: it keeps what is open and nothing else, so that it reads a log of any length.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import turnlog
from turnlog import events as ev
from turnlog.items import output_text
from turnlog.record import Recorded

from ..faults.given import ENDINGS, OUTCOMES
from .story import name_of, origin, tokens


@dataclass(slots=True)
class Book:
    """What is known of one conversation, as far as it was read."""

    version: int = 0
    parent: str | None = None
    turn: str | None = None
    attempt: ev.RequestPrepared | None = None
    calls: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Ledger:
    """Every conversation's book, and the sums over all."""

    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    _books: dict[str, Book] = field(default_factory=dict[str, Book])

    async def read(self, log: turnlog.Log) -> None:
        """Take down everything, and see that nothing is open at the end."""
        async for followed in log.follow(wait=False):
            self.take(followed.event)
        self.close()

    def close(self) -> None:
        """There is no more: nothing may be open."""
        for name, book in self._books.items():
            if book.turn is not None or book.attempt is not None or book.calls:
                self.wrong.append(f"{name} was left open: {book}")

    def take(self, one: Recorded) -> None:
        """One more event."""
        book = self._books.get(one.conversation) or self._begin(one)
        self.counts["events"] += 1
        self.counts[one.tag] += 1
        book.version += 1
        self._check(one, one.version == book.version, "came out of order")
        match one.event:
            case ev.TurnStarted() | ev.TurnEnded():
                self._turn(book, one, one.event)
            case ev.RequestPrepared():
                self._request(book, one, one.event)
            case ev.ProviderNoted():
                self.counts[one.event.kind] += 1
            case ev.ItemAdded() | ev.OutputRecorded():
                own = {name_of(found) for found, _ in tokens(output_text(one.event.item))}
                self._check(one, own <= {origin(one.conversation)}, "holds the text of another")
            case ev.CallRequested() | ev.CallStarted():
                self._call(book, one, one.event)
            case _:
                self._end(book, one)

    def _begin(self, one: Recorded) -> Book:
        """A new book; that of a fork goes on where its source stands."""
        book = self._books[one.conversation] = Book()
        if isinstance(one.event, ev.ConversationStarted) and one.event.fork is not None:
            source = self._books[one.event.fork.conversation]
            self._check(
                one, one.event.fork.version <= source.version, "forks from what is not there"
            )
            book.parent = source.parent
        return book

    def _turn(self, book: Book, one: Recorded, event: ev.TurnStarted | ev.TurnEnded) -> None:
        begins = isinstance(event, ev.TurnStarted)
        self._check(one, (book.turn is None) == begins, "began or ended a turn twice")
        self._check(one, book.attempt is None and not book.calls, "left something open")
        book.turn = one.turn if begins else None
        if isinstance(event, ev.TurnEnded):
            self.counts[f"turns {event.outcome}"] += 1

    def _request(self, book: Book, one: Recorded, event: ev.RequestPrepared) -> None:
        self._check(one, book.attempt is None, "has two attempts under way")
        self._check(one, event.parent in (None, book.parent), "continues from no newest response")
        self.counts[f"requests {event.kind}"] += 1
        if event.parent is not None and not event.store:
            self.counts["requests from memory"] += 1
        book.attempt = event

    def _call(self, book: Book, one: Recorded, event: ev.CallRequested | ev.CallStarted) -> None:
        before = book.calls.get(event.call)
        expected = None if isinstance(event, ev.CallRequested) else "call.requested"
        self._check(one, before == expected, "is not the next step of its call")
        book.calls[event.call] = one.tag

    def _end(self, book: Book, one: Recorded) -> None:
        event = one.event
        if isinstance(event, OUTCOMES):
            own = book.attempt is not None and book.attempt.attempt == event.attempt
            self._check(one, own, "is not the outcome of the attempt under way")
            book.attempt = None
        if isinstance(event, ev.ResponseCompleted):
            book.parent = event.response
        carried = one.conversation != origin(one.conversation) and book.turn is None
        if isinstance(event, ENDINGS) and not carried:
            before = book.calls.pop(event.call, None)
            self._check(one, before is not None, "ends no open call")
            ran = not isinstance(event, ev.CallAnswered) or before == "call.started"
            self._check(one, ran, "answers a call that did not run")

    def _check(self, one: Recorded, holds: bool, what: str) -> None:
        if not holds and len(self.wrong) < 20:
            self.wrong.append(f"{one.conversation} {one.version} {one.tag} {what}")
