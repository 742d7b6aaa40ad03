"""Compaction by the provider: the window begins anew, and nothing of what was before is lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import pytest

from turnlog import events as ev
from turnlog.canonical import JsonObject, obj
from turnlog.conversation import Conversation
from turnlog.errors import (
    Busy,
    InvalidInput,
    NotSupported,
    ProviderRefused,
    VersionConflict,
    Waiting,
)
from turnlog.ports import Compact, Frame, Profile, Request
from turnlog.testing import Reply, call, error, text
from turnlog_transports.replay import PROFILE, ReplayTransport

from .given import agent, all_of, opened, pay, said, tags, talking

COMPACTED: JsonObject = {
    "id": "resp_cmp",
    "object": "response.compaction",
    "output": [
        {"type": "message", "role": "user", "id": "msg_u", "content": "One?"},
        {"type": "compaction", "id": "cmp_1", "encrypted_content": "opaque"},
    ],
    "usage": {"input_tokens": 40, "output_tokens": 4, "total_tokens": 44},
}


def window() -> Reply:
    return Reply(body=COMPACTED, compacts=True)


async def begun(chat: Conversation) -> None:
    for question in ("One?", "Two?"):
        await chat.run(question)


async def test_the_next_request_begins_with_what_came_of_it() -> None:
    script = [text("1."), text("2."), window(), text("3."), text("4.")]
    async with talking(script) as (chat, way):
        await begun(chat)
        before = await chat.items()
        compaction = await chat.compact(by="user:7")
        assert [one["type"] for one in compaction.items] == ["message", "compaction"]
        assert obj({"usage": compaction.usage}, "usage")["total_tokens"] == 44
        assert (await chat.run("Three?")).output_text == "3."
        assert said(way.requests[-1]) == ["One?", "compaction", "Three?"]
        assert "previous_response_id" not in way.requests[-1]
        # What was compacted is still there, for people and for auditors.
        assert (await chat.items())[: len(before)] == before
        await chat.run("Four?")
        assert said(way.requests[-1]) == ["Four?"]


async def test_it_is_said_before_it_is_asked_and_its_usage_is_kept() -> None:
    async with talking([text("1."), text("2."), window()]) as (chat, _):
        await begun(chat)
        await chat.compact(by="user:7")
        assert (await tags(chat))[-4:] == [
            "provider.noted",
            "item.added",
            "item.added",
            "context.compacted",
        ]
        (compacted,) = await all_of(chat, ev.ContextCompacted)
        assert (compacted.ordinal, compacted.response) == (4, "resp_cmp")
        assert obj({"usage": compacted.usage}, "usage")["input_tokens"] == 40
        assert {one.actor for one in (await chat.events())[-4:]} == {"user:7"}


async def test_what_was_not_sent_so_far_comes_behind_it() -> None:
    async with talking([text("1."), text("2."), window(), text("3.")]) as (chat, way):
        await begun(chat)
        await chat.add("By the way.")
        await chat.compact()
        await chat.run("Three?")
        assert said(way.requests[-1]) == ["One?", "compaction", "By the way.", "Three?"]


async def test_a_place_that_was_emptied_is_no_part_of_the_window() -> None:
    async with talking([text("1."), text("2."), window(), text("3."), text("4.")]) as (chat, way):
        await begun(chat)
        await chat.add("Oops.")
        await chat.remove((await chat.items())[-1])
        await chat.compact()
        branch = await chat.fork("f")
        await branch.run("Three?")
        assert said(way.requests[-1]) == ["One?", "compaction", "Three?"]
        await chat.run("Four?")
        assert said(way.requests[-1]) == ["One?", "compaction", "Four?"]


async def test_a_stored_response_stands_for_the_window_and_an_unstored_one_does_not() -> None:
    async with talking([text("1."), text("2."), text("3.")], checks=False) as (chat, way):
        await begun(chat)
        await chat.compact()
        assert [one.data for one in await noted(chat)] == [
            {"model": "gpt-5", "previous_response_id": "resp_2"}
        ]
    unstored = agent(store=False, instructions="Be brief.")
    async with talking([text("1."), text("2.")], unstored) as (chat, way):
        await begun(chat)
        compaction = await chat.compact()
        assert [one.data for one in await noted(chat)] == [{"model": "gpt-5"}]
        assert compaction.items[-1]["type"] == "compaction"
        assert len(way.requests) == 2


async def noted(chat: Conversation) -> Sequence[ev.ProviderNoted]:
    return [one for one in await all_of(chat, ev.ProviderNoted) if one.kind == "compaction_asked"]


async def test_a_fork_and_an_older_version_see_the_window_that_they_had() -> None:
    async with talking([text("1."), text("2."), window(), text("3."), text("!")]) as (chat, way):
        await begun(chat)
        before = (await chat.state()).version
        await chat.compact()
        branch = await chat.fork("old", at=before)
        assert [one.text for one in await branch.items()] == ["One?", "1.", "Two?", "2."]
        await branch.run("Old?")
        assert said(way.requests[-1]) == ["Old?"]
        after = await chat.fork("new")
        await after.run("New?")
        assert said(way.requests[-1]) == ["One?", "compaction", "New?"]


# -- what cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (error(500), ProviderRefused),
        (error(429, retry_after=3), ProviderRefused),
        (Reply(body={"object": "response.compaction", "output": []}, compacts=True), None),
    ],
)
async def test_a_refusal_changes_nothing(
    answer: Reply, wrong: type[ProviderRefused] | None
) -> None:
    asked = Reply(**{**fields(answer), "compacts": True})  # type: ignore[arg-type]
    async with talking([text("1."), text("2."), asked, text("3.")]) as (chat, way):
        await begun(chat)
        with pytest.raises(ProviderRefused) as caught:
            await chat.compact()
        assert (await tags(chat))[-1] == "provider.noted"
        if wrong is not None:
            assert caught.value.status in (429, 500)
        await chat.run("Three?")
        assert said(way.requests[-1]) == ["Three?"]


def fields(reply: Reply) -> dict[str, object]:
    return {name: getattr(reply, name) for name in Reply.__slots__}


async def test_it_needs_a_provider_that_compacts_and_something_to_compact() -> None:
    plain = ReplayTransport([text("1.")], profile=Profile(name="plain", key_env=None))
    async with opened(plain, agent()) as log:
        with pytest.raises(NotSupported, match="no compaction"):
            await (await log.conversation("c", agent="test")).compact()
    async with talking([window()]) as (chat, _):
        await chat.add("Only this.")
        with pytest.raises(InvalidInput, match="nothing to compact"):
            await chat.compact()


async def test_it_waits_for_no_open_turn_and_no_output() -> None:
    async with talking([call("pay", amount=3), text("Paid.")], agent(pay)) as (chat, _):
        await chat.run("Pay.")
        with pytest.raises(Busy):
            await chat.compact()
        await (await chat.turn((await chat.turns())[0].turn)).cancel()
        with pytest.raises(Waiting, match="pay were not sent so far"):
            await chat.compact()


class Beside(ReplayTransport):
    """A provider that works for a while on a compaction, so that somebody else comes first."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Send, once somebody else has done what comes between."""
        if isinstance(request, Compact) and self.meanwhile is not None:
            await self.meanwhile()
        async for frame in super().send(request):
            yield frame


async def test_what_changed_meanwhile_is_not_overwritten() -> None:
    way = Beside([text("1."), text("2."), window()], profile=PROFILE)
    async with opened(way, agent()) as log:
        chat = await log.conversation("c", agent="test")
        await begun(chat)
        first = (await chat.items())[0]
        way.meanwhile = lambda: chat.edit(first, "Another.")
        with pytest.raises(VersionConflict):
            await chat.compact()
        assert "context.compacted" not in await tags(chat)
