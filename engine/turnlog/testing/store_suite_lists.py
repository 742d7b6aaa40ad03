"""What a store promises of its lists: turns, calls and conversations, in order and in pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import events as ev
from ..errors import (
    InvalidInput,
)
from .store_author import Author, added, answered, begun, called, message, prepared, raises
from .store_suite import Opens


class ListSuite(Opens):
    """Turns, calls and lists."""

    # -- turns, calls, lists ---------------------------------------------------------------

    async def test_turns_are_read_by_id_by_key_and_in_pages(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(author.begin())
            for number in range(5):
                await store.append(author.write(begun(f"key{number}"), turn=f"t{number}"))
                if number < 4:
                    ended = ev.TurnEnded(outcome="completed")
                    await store.append(author.write(ended, turn=f"t{number}"))
            turn = await store.turn("c", id="t3")
            assert turn is not None and turn == await store.turn("c", key="key3")
            assert (turn.started, turn.ended, turn.outcome) == (8, 9, "completed")
            assert turn.state is not None and turn.state.version == 9 and turn.state.turns == 4
            assert (turn.key, turn.digest, turn.conversation) == ("key3", "digest", "c")
            open_turn = await store.turn("c", id="t4")
            assert open_turn is not None
            assert (open_turn.ended, open_turn.outcome, open_turn.state) == (None, None, None)
            latest = await store.turns("c", limit=2)
            assert [one.turn for one in latest] == ["t4", "t3"]
            earlier = await store.turns("c", before=latest[-1].started)
            assert [one.turn for one in earlier] == ["t2", "t1", "t0"]
            assert await store.turn("c", id="none") is None
            assert await store.check("c") == []

    async def test_a_turn_begins_once_and_may_end_without_having_begun(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(author.begin())
            await store.append(author.write(ev.TurnEnded(outcome="cancelled"), turn="queued"))
            assert await store.turns("c") == []
            await store.append(author.write(begun(), turn="t"))
            state = author.state
            await raises(InvalidInput, store.append(author.write(begun("two"), turn="t")))
            author.state = state
            await store.append(author.write(begun("two"), turn="u"))
            assert [one.turn for one in await store.turns("c")] == ["u", "t"]
            assert await store.check("c") == []

    async def test_open_calls_are_in_an_inbox(self) -> None:
        async with self.one() as store:
            for name in ("a", "b"):
                author = Author(name)
                await store.append(author.begin())
                await store.append(author.write(begun(), prepared("1"), turn="t"))
                await store.append(author.write(*called("1", "x", "y", "z"), turn="t"))
                await store.append(author.write(ev.CallStarted(call="call-y"), turn="t"))
                await store.append(author.write(answered("z"), turn="t"))
            calls = await store.pending()
            assert [(one.conversation, one.call, one.status) for one in calls] == [
                ("a", "call-x", "requested"),
                ("a", "call-y", "started"),
                ("b", "call-x", "requested"),
                ("b", "call-y", "started"),
            ]
            assert (calls[0].name, calls[0].kind, calls[0].turn) == ("look", "function_call", "t")
            paged = [*await store.pending(limit=3)]
            paged += await store.pending(after=(paged[-1].conversation, paged[-1].call))
            assert paged == calls
            assert await store.check("a") == []

    async def test_conversations_are_listed_and_selected(self) -> None:
        async with self.one() as store:
            for number in range(6):
                author = Author(f"c{number}", now=number * 1_000_000)
                configured = ev.ConversationConfigured(agent="support", model="m", fingerprint="f")
                await store.append(author.begin(team="red" if number % 2 else "blue"))
                await store.append(author.write(configured, added("k")))
                if number > 3:
                    await store.append(author.write(begun(), turn="t"))
                if number == 5:
                    await store.append(author.write(ev.TurnPaused(reason="asked"), turn="t"))

            async def ids(**wanted: Any) -> list[str]:
                return [row.id for row in await store.conversations(**wanted)]

            assert await ids() == [f"c{number}" for number in range(6)]
            assert await ids(limit=2) == ["c0", "c1"]
            assert await ids(after="c3") == ["c4", "c5"]
            assert await ids(status="busy") == ["c4"]
            assert await ids(status="waiting") == ["c5"]
            assert await ids(metadata={"team": "red"}) == ["c1", "c3", "c5"]
            assert await ids(metadata={"team": "red"}, limit=2) == ["c1", "c3"]
            assert await ids(metadata={"team": "green"}) == []
            assert await ids(since=2_500_000) == ["c3", "c4", "c5"]
            assert await ids(until=2_500_000) == ["c0", "c1", "c2"]
            row = (await store.conversations(after="c3"))[0]
            assert (row.agent, row.model, row.turns, row.items) == ("support", "m", 1, 1)
            assert (row.version, row.status, row.turn) == (4, "busy", "t")
            assert row.metadata == {"team": "blue"}
            assert (row.created, row.updated) == (4_001_000, 4_003_000)
            assert (row.fork_of, row.orphaned) == (None, True)  # nobody holds its lease

    async def test_those_that_are_not_idle_are_listed_by_status(self) -> None:
        async with self.one() as store:
            authors = [Author(f"c{number}") for number in range(9)]
            for number, author in enumerate(authors):
                await store.append(author.begin(team="red" if number % 2 else "blue"))
                if number > 2:
                    queued = ev.TurnQueued(key="k", digest="d", items=(message("Hi."),))
                    await store.append(author.write(queued, turn="later"))
            for author in authors[6:]:
                await store.append(author.write(begun(), turn="t"))

            async def ids(**wanted: Any) -> list[str]:
                return [row.id for row in await store.conversations(**wanted)]

            assert await ids(status="idle") == ["c0", "c1", "c2"]
            assert await ids(status="queued") == ["c3", "c4", "c5"]
            assert await ids(status="busy") == ["c6", "c7", "c8"]
            assert await ids(status="waiting") == []
            assert await ids(status="queued", after="c3", limit=1) == ["c4"]
            assert await ids(status="queued", metadata={"team": "red"}) == ["c3", "c5"]
            assert await ids(status="busy", since=authors[7].now + 1) == []
            ended = authors[6].write(ev.TurnEnded(outcome="completed"), turn="t")
            await store.append(ended)
            assert await ids(status="queued") == ["c3", "c4", "c5", "c6"]
            for author in authors:
                assert await store.check(author.id) == []

    async def test_a_head_that_the_events_do_not_give_is_found(self) -> None:
        async with self.one() as store:
            author = Author("c")
            await store.append(author.begin())
            append = author.write(begun(), added("k"), turn="t")
            await store.append(replace(append, head=replace(append.head, turns=7), changes=[]))
            findings = await store.check("c")
            assert findings and {one.conversation for one in findings} == {"c"}
