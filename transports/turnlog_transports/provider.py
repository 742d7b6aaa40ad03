"""The simulated provider: a state machine for the Responses protocol, faithful to its refusals.

The one rule: pure. It is told what was asked, where it came from and what became of the answer, and
says what is sent; it does no I/O and reads no clock. The HTTP and WebSocket simulator and the
replay transport are two shells around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeGuard

from turnlog.canonical import JsonObject, integer, objects, text
from turnlog.testing.scripts import Reply, Script

from . import answer as answers
from . import chain, responses, synthesis
from .answer import Answer, refusal
from .asked import Asked, final, not_found, read_input, refused
from .chain import Link
from .echo import echo
from .generation import Generation, steps
from .job import Job, View
from .memory import CONTINUABLE, KEEP, Memory
from .responses import Ids
from .transcript import Transcript

Playable: TypeAlias = "Script | Transcript | None"
"""What a provider can answer from; None is the echo, which answers anything for ever."""

Given: TypeAlias = "Answer | Generation | View"
"""What is given back: a whole answer, or a stream of a response that is made while one listens
(a generation) or in any case (a view)."""

_Entry: TypeAlias = "Reply | Callable[[JsonObject], Reply]"


class Provider:
    """Answers requests from a script, a transcript, or as an echo.

    With `checks` it refuses what the real service refuses; a transcript is answered in order
    whatever was asked, unless `checks` says otherwise. `seed` stands in the ids it makes up, and
    of the responses, the newest `keep` are remembered. `started` is told of every background
    response that takes time, and has to make it.
    """

    def __init__(
        self,
        script: Playable = (),
        *,
        checks: bool | None = None,
        seed: str = "",
        keep: int = KEEP,
        started: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._ids = Ids(seed)
        self._memory = Memory(keep)
        self._always = checks
        self._started = started
        self._number = 0
        self.play(script)

    def play(self, script: Playable) -> None:
        """Answer from this from now on; what is stored stays."""
        recorded = isinstance(script, Transcript)
        if isinstance(script, Transcript):
            entries: Sequence[_Entry] = script.replies
            compactions: Sequence[Reply] = script.compactions
            self._retrievals = dict(script.retrievals)
        else:
            entries = [entry for entry in script or () if not _compacts(entry)]
            compactions = [entry for entry in script or () if _compacts(entry)]
            self._retrievals = {}
        self._entries = deque(entries)
        self._compactions = deque(compactions)
        self._echoes = script is None
        self._checks = not recorded if self._always is None else self._always

    @property
    def left(self) -> int:
        """How many entries of the script are still to be answered, compactions apart."""
        return len(self._entries)

    # -- what is asked ---------------------------------------------------------------------

    def upgrade(self) -> Answer | None:
        """A WebSocket is asked for: how the script refuses it, or None where it may open."""
        head = self._entries[0] if self._entries else None
        if not isinstance(head, Reply) or head.refuse_upgrade is None:
            return None
        self._entries.popleft()
        return refusal("The upgrade is refused.", status=head.refuse_upgrade)

    def create(
        self, body: JsonObject, *, connection: str | None = None, lane: str | None = None
    ) -> Given:
        """Answer a create. `connection` is None over HTTP, where nothing is remembered.

        What it continues from is read now: creates that wait for their turn come here when they
        have it.
        """
        self._number += 1
        asked = self._read(body, connection, lane)
        refusing = refused(asked) if self._checks else None
        answer = refusing or self._answer(asked)
        if isinstance(answer, Answer) and answer.status >= 400:
            self._memory.evict(connection, lane, asked.parent)
        return answer

    def compact(self, body: JsonObject) -> Answer:
        """Answer a compaction: from the script, or with the user's messages of the whole chain."""
        asked = self._read(body, None, None)
        refusing = refused(asked) if self._checks else None
        if refusing is not None:
            return refusing
        if self._compactions:
            return _plain(self._compactions.popleft())
        items = [*chain.whole(asked.parent), *asked.given]
        window = responses.compacted(items, self._ids, held=asked.held, cached=asked.cached)
        return Answer(body=window)

    def retrieve(
        self, response: str, *, stream: bool = False, starting_after: int | None = None
    ) -> Given:
        """Answer a `GET` of a response, from behind a sequence number where it is streamed."""
        after = -1 if starting_after is None else starting_after
        recorded = self._retrievals.get(response)
        if stream and recorded is not None:
            return _recorded(recorded, after)
        answer, job = self._memory.retrieve(response), self._memory.job(response)
        if not stream or answer.status != 200:
            return answer
        if job is None or not job.streams:
            return refusal(
                "This response cannot be streamed: it was not made with background=true and"
                " stream=true."
            )
        if job.expires:
            return refusal("The stream of this response has expired: retrieve it without stream.")
        return job.resume(after)

    def cancel(self, response: str) -> Answer:
        """Stop a background response; one that is over stays as it is."""
        answer, job = self._memory.retrieve(response), self._memory.job(response)
        if answer.status == 200 and job is None:
            return refusal("Cannot cancel a synchronous response.")
        if job is None or job.over:
            return answer
        job.cancel()
        return Answer(body=job.snapshot)

    def delete(self, response: str) -> Answer:
        """Forget a stored response."""
        return self._memory.delete(response)

    def input_items(self, response: str) -> Answer:
        """What a stored response was asked, its chain included, the latest first."""
        return self._memory.input_items(response)

    def remembers(self, connection: str, response: str) -> bool:
        """Whether an unstored response can still be continued from on a connection."""
        return self._memory.cached(connection, response) is not None

    def disconnect(self, connection: str) -> None:
        """A connection is gone, and what it remembered with it."""
        self._memory.disconnect(connection)

    def release(self, events: int | None = None) -> None:
        """Let background responses that are held go on, for so many events or to their end."""
        for job in self._memory.jobs():
            job.release(events)

    def wake(self) -> None:
        """Have everybody who waits for a background response look again."""
        for job in self._memory.jobs():
            job.tell()

    # -- what is answered ------------------------------------------------------------------

    def _read(self, body: JsonObject, connection: str | None, lane: str | None) -> Asked:
        previous, items = text(body, "previous_response_id"), read_input(body)
        self._ids.take([previous, *(text(item, "id") for item in objects(body, "input"))])
        parent = None if previous is None else self._memory.find(previous, connection)
        return Asked(
            body=body,
            items=None if items is None else tuple(map(self._memory.resolve, items)),
            parent=parent,
            connection=connection,
            lane=lane,
            forks=self._memory.newest(connection, lane) is not parent,
        )

    def _answer(self, asked: Asked) -> Given:
        if asked.warms:
            return self._generate(asked, Reply())
        reply = self._next(asked.body)
        if reply is None:
            return refusal(
                f"The script has no more entries: this is request {self._number}.",
                code="script_exhausted",
            )
        if reply.body is not None and reply.body.get("object") != "response":
            return _plain(reply)
        return self._generate(asked, reply)

    def _next(self, body: JsonObject) -> Reply | None:
        if self._echoes:
            return echo(body)
        while self._entries:
            entry = self._entries.popleft()
            reply = entry if isinstance(entry, Reply) else entry(body)
            if reply.refuse_upgrade is None:
                return reply
        return None

    def _generate(self, asked: Asked, reply: Reply) -> Given:
        if reply.events is not None:
            response, events = final(reply.events), reply.events
        else:
            response = reply.body or responses.build(
                asked.body, reply, self._ids, held=asked.held, cached=asked.cached
            )
            events = tuple(synthesis.events(response, chunk=reply.chunk))
        # A stream that never says what it ends with is still a response, of which nothing is kept.
        link = asked.link(response or {})
        self._ids.take([link.id, *(text(item, "id") for item in chain.output_of(link.response))])
        if asked.background:
            return self._run(asked, reply, link, events)
        if reply.finishes:
            self._memory.begin(link)
        return Generation(
            steps(events, reply),
            response=response,
            delay=reply.delay,
            ended=lambda finished: self._ended(asked, reply, link, finished),
            lost=lambda: self._lost(asked),
        )

    def _ended(self, asked: Asked, reply: Reply, link: Link, finished: bool) -> None:
        self._memory.over(link)
        if finished and link.id and link.status in CONTINUABLE:
            self._memory.advance(asked.connection, asked.lane, link)
        else:
            self._memory.evict(asked.connection, asked.lane, asked.parent)
        if link.id and (finished or reply.finishes) and asked.stores(link.response):
            self._memory.store(link, polls=0 if finished else reply.polls)
        self._memory.age(link)

    def _lost(self, asked: Asked) -> JsonObject | None:
        """What a fork is told before it is in progress, if its parent's lane moved on by then.

        The parent is read when the response starts, and not when it is asked for (protocol 1.5).
        """
        if asked.parent is None or not asked.forks or not self._checks:
            return None
        if self._memory.find(asked.parent.id, asked.connection) is asked.parent:
            return None
        return answers.frame(not_found(asked.parent.id))

    def _run(self, asked: Asked, reply: Reply, link: Link, events: Sequence[JsonObject]) -> Given:
        streams = asked.body.get("stream") is True

        def ended(finished: bool) -> None:
            stored = finished and asked.stores(link.response)
            self._memory.store(link, polls=reply.polls, stored=stored)
            self._memory.age(link)

        job = Job(events, reply, response=link.response, streams=streams, ended=ended)
        self._memory.run(link.id, job)
        first = job.open() if streams else Answer(body=job.snapshot)
        job.at_once()
        if job.delay > 0:
            self._started(job)
        return first


def _compacts(entry: _Entry) -> TypeGuard[Reply]:
    return isinstance(entry, Reply) and entry.compacts


def _plain(reply: Reply) -> Answer:
    """A reply that is a whole answer: an error, or a compacted window."""
    headers = dict(reply.headers)
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    return Answer(status=reply.status, body=reply.body or {}, headers=headers)


def _recorded(reply: Reply, after: int) -> Generation:
    """A recorded stream from behind a sequence number; events without one are all sent."""
    events = [
        event
        for event in reply.events or ()
        if (number := integer(event, "sequence_number")) is None or number > after
    ]
    return Generation(
        steps(events, reply), response=final(events), delay=reply.delay, ended=lambda _: None
    )
