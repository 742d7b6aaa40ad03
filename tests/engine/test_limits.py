"""Limits through the engine: what is too large is named before it is written, sent or lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection

import turnlog
from turnlog import Limits
from turnlog import events as ev
from turnlog.canonical import JsonObject, dumps, integer, objects
from turnlog.conversation import Conversation
from turnlog.errors import (
    Busy,
    ImportFailed,
    InvalidInput,
    ItemPresent,
    StateError,
    TooLarge,
    TooMany,
    TurnFailed,
    Waiting,
)
from turnlog.store import MemoryStore
from turnlog.testing import Reply, Scripted, call, error, failed, scripted, text

from ..transports.servers import delta, frame, hear, stream, tell, web_server, websocket_server
from ..transports.servers import event as sse
from .given import agent, all_of, leaping, opened, pay, said, tags
from .test_compaction import window

BIG = "x" * 3000
SMALL = Limits(item_bytes=2000)
Script = Sequence[Reply | Callable[[JsonObject], Reply]]


@asynccontextmanager
async def limited(
    script: Script, limits: Limits, *tools: turnlog.Tool | Callable[..., object]
) -> AsyncGenerator[tuple[Conversation, Scripted]]:
    """A conversation `c` under limits, on a script; what it comes to verifies."""
    way, chosen = scripted(script), agent(*tools)
    async with turnlog.open(
        ":memory:", agents=[chosen], transport=way, ambient=leaping(), limits=limits
    ) as log:
        yield await log.conversation("c", agent=chosen), way
        assert (await log.verify()).findings == ()


def held(gate: asyncio.Event) -> Callable[[], Awaitable[str]]:
    """A tool `hold`, which keeps its turn busy until the gate is opened."""

    async def hold() -> str:
        """Wait."""
        await gate.wait()
        return "held"

    return hold


# -- items ---------------------------------------------------------------------------------


async def test_an_item_that_is_too_large_is_refused_before_anything_is_written() -> None:
    async with limited([text("Hi."), text("On.")], SMALL) as (chat, way):
        await chat.run("Hi.")
        item, before = (await chat.items())[0], await chat.events()
        verbs: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("item 1 of the input", lambda: chat.send(BIG)),
            ("item 2 of the input", lambda: chat.run("Small.", *messages("Fits.", BIG)[1:])),
            ("item 1 of the input", lambda: chat.add(BIG)),
            ("what is to stand at place 0", lambda: chat.edit(item, BIG)),
            ("item 1 of the input", lambda: chat.replace(messages(BIG))),
            ("item 1 of the input", lambda: chat.request(BIG)),
        ]
        for named, verb in verbs:
            with pytest.raises(TooLarge, match=rf"{named} .*bytes, .*conversation 'c'") as caught:
                await verb()
            assert (caught.value.setting, caught.value.limit) == ("item_bytes", 2000)
            assert caught.value.over == caught.value.size - 2000 > 1000
            assert await chat.events() == before
        assert way.left == 1
        assert (await chat.run("On.")).output_text == "On."


def messages(*said: str) -> list[JsonObject]:
    return [{"type": "message", "role": "user", "content": each} for each in said]


async def test_an_answer_that_is_too_large_leaves_the_call_open() -> None:
    async with limited([call("pay", amount=1), text("Paid.")], SMALL, pay) as (chat, _):
        turn = await chat.send("Pay.")
        assert (await turn.result()).status == "waiting"
        (pending,) = (await chat.state()).pending
        before = await chat.events()
        for verb in (pending.answer(BIG), pending.reject(reason=BIG)):
            with pytest.raises(TooLarge, match=rf"the output of call {pending.id}"):
                await verb
        assert await chat.events() == before
        await pending.answer("paid")
        await turn.resume()
        assert (await turn.result()).output_text == "Paid."


async def test_a_queued_input_is_measured_when_it_is_queued() -> None:
    gate = asyncio.Event()
    async with limited([call("hold"), text("Hi.")], SMALL, held(gate)) as (chat, _):
        turn = await chat.send("Hi.")
        with pytest.raises(TooLarge, match="item 1 of the input"):
            await chat.send(BIG, if_busy="queue")
        assert "turn.queued" not in await tags(chat)
        gate.set()
        assert (await turn.result()).output_text == "Hi."


def dump() -> str:
    """Read far too much."""
    return BIG


async def test_a_tool_that_says_too_much_loses_neither_the_turn_nor_the_truth() -> None:
    async with limited([call("dump"), text("Too much.")], SMALL, dump) as (chat, way):
        assert (await chat.run("Read.")).output_text == "Too much."
        (answered,) = await all_of(chat, ev.CallAnswered)
        assert answered.failed
        (output,) = objects(way.requests[1], "input")
        assert output == answered.item
        told = str(output["output"])
        assert "The tool ran" in told
        assert "more than the limit of 2,000" in told


async def test_what_the_model_says_is_kept_whatever_its_size() -> None:
    async with limited([text(BIG), text("On.")], SMALL) as (chat, _):
        assert (await chat.run("Say much.")).output_text == BIG
        assert (await chat.run("On.")).output_text == "On."


async def test_an_import_names_the_line_of_the_item() -> None:
    async with opened([text("Hi.")], agent()) as log:
        chat = await log.conversation("c", agent="test")
        await chat.run("Hi.", BIG)
        lines = [line async for line in log.export("c")]
    store = MemoryStore()
    async with turnlog.open(":memory:", transport=scripted([]), store=store, limits=SMALL) as log:
        with pytest.raises(
            ImportFailed, match=r"line \d: item 1 of the input .*3,\d+ bytes"
        ) as one:
            await log.import_(lines)
        assert isinstance(one.value.__cause__, TooLarge)
        assert await store.head("c") is None
    async with turnlog.open(
        ":memory:", transport=scripted([]), limits=Limits(item_bytes=None)
    ) as log:
        assert (await log.import_(lines)).written == len(lines) - 1


async def test_none_switches_a_limit_off() -> None:
    off = Limits(item_bytes=None, request_items=None, request_bytes=None, open_turns=None)
    async with limited([text("Hi.")], off) as (chat, _):
        assert (await chat.run(BIG)).output_text == "Hi."


# -- requests ------------------------------------------------------------------------------


async def test_a_first_request_that_is_too_large_was_never_written() -> None:
    async with limited([text("On.")], Limits(request_items=2)) as (chat, way):
        with pytest.raises(TooLarge, match=r"conversation 'c' would have 3 items, 1 more") as one:
            await chat.send(*messages("One.", "Two.", "Three."))
        assert (one.value.limit, one.value.size, one.value.over) == (2, 3, 1)
        assert await chat.events() == []
        assert (await chat.run(*messages("One.", "Two."))).output_text == "On."
        assert len(way.requests) == 1


async def test_a_body_that_is_too_large_was_never_written() -> None:
    async with limited([text("On.")], Limits(request_bytes=3000)) as (chat, _):
        with pytest.raises(TooLarge, match=r"3,\d\d\d bytes, .*Limits\(request_bytes=…\)"):
            await chat.run(BIG)
        assert await chat.events() == []


async def test_what_stands_there_already_is_told_before_what_is_too_much_with_it() -> None:
    async with limited([text("On.")], Limits(request_items=3)) as (chat, _):
        await chat.add({"type": "message", "role": "user", "content": "One.", "id": "msg_1"})
        echo = [one.raw for one in await chat.items()]
        with pytest.raises(ItemPresent, match=r"'msg_1' .*chat\.replace"):
            await chat.send(*echo, *messages("Two.", "Three.", "Four."))
        with pytest.raises(TooLarge):
            await chat.send(*messages("Two.", "Three.", "Four."))
        assert (await chat.run("Two.")).output_text == "On."
    async with limited([text("On.")], SMALL) as (chat, _):
        known: JsonObject = {"type": "message", "role": "user", "content": "One.", "id": "msg_1"}
        await chat.add(known)
        for verb in (chat.add, chat.send, chat.request):
            with pytest.raises(ItemPresent, match=r"'msg_1' .*chat\.replace"):
                await verb({**known, "content": BIG})


async def test_a_call_that_stands_there_already_is_no_input() -> None:
    script = [call("add", a=1, b=2), text("Three."), text("On.")]
    async with limited(script, Limits()) as (chat, _):
        await chat.run("Add.")
        asked = next(one.raw for one in await chat.items() if one.type == "function_call")
        with pytest.raises(ItemPresent, match=r"chat\.replace"):
            await chat.run(asked)
        with pytest.raises(InvalidInput, match="there is nothing to send"):
            await chat.run({**asked, "id": "fc_other", "call_id": "call_other"})
        assert (await chat.run("On?")).output_text == "On."


@pytest.mark.parametrize("mend", ["remove", "fork"])
async def test_a_turn_whose_next_request_is_too_large_ends_and_the_conversation_goes_on(
    mend: str,
) -> None:
    script = [text("Hi."), call("dump"), text("On.")]
    async with limited(script, Limits(request_bytes=3000), dump) as (chat, way):
        await chat.run("Hi.")
        with pytest.raises(TurnFailed, match="the next request of conversation 'c'") as caught:
            await chat.run("Read.")
        result = caught.value.result
        assert isinstance(result, turnlog.TurnResult)
        assert caught.value.code == "too_large"
        told = result.error or {}
        assert (told["setting"], told["limit"]) == ("request_bytes", 3000)
        assert integer(told, "over") == (integer(told, "size") or 0) - 3000
        assert (await tags(chat))[-2:] == ["call.answered", "turn.ended"]
        assert (await chat.state()).status == "idle"
        assert len(way.requests) == 2
        if mend == "remove":
            await chat.remove((await chat.items())[-1])
            other = chat
        else:
            other = await chat.fork(before=result.turn)
        assert (await other.run("Shorter.")).output_text == "On."
        assert said(way.requests[-1])[-1] == "Shorter."


async def test_a_chain_that_is_lost_may_leave_a_request_that_is_too_large() -> None:
    lost = error(400, "previous_response_not_found")
    async with limited([text("1."), text("2."), lost], Limits(request_items=4)) as (chat, _):
        await chat.run("One?")
        await chat.run("Two?")
        with pytest.raises(TurnFailed, match="would have 5 items, 1 more"):
            await chat.run("Three?")
        assert (await tags(chat))[-2:] == ["chain.lost", "turn.ended"]


async def test_a_manual_turn_stays_open_where_its_next_request_is_too_large() -> None:
    script = [call("add", a=1, b=2), text("3.")]
    async with limited(script, Limits(request_items=2)) as (chat, _):
        await chat.request("Add.")
        (pending,) = (await chat.state()).pending
        await pending.answer("3")
        before = await chat.events()
        with pytest.raises(TooLarge, match="would have 3 items"):
            await chat.request(*messages("And?", "Now?"))
        assert await chat.events() == before
        assert (await chat.request("And?")).output_text == "3."


# -- turns at once -------------------------------------------------------------------------


async def test_no_more_turns_begin_than_may_run_at_once() -> None:
    gate, slow = asyncio.Event(), text("Slow.")
    way = scripted([call("hold"), call("hold"), slow, slow, text("Then.")])
    chosen = agent(held(gate))
    async with turnlog.open(
        ":memory:", agents=[chosen], transport=way, limits=Limits(open_turns=2)
    ) as log:
        chats = [await log.conversation(f"c{n}", agent=chosen) for n in range(4)]
        begun = await asyncio.gather(
            *(chat.send("Hi.", idempotency_key="k") for chat in chats), return_exceptions=True
        )
        refused = [one for one in begun if isinstance(one, BaseException)]
        assert [type(one) for one in refused] == [TooMany, TooMany]
        turns = [one for one in begun if not isinstance(one, BaseException)]
        first = next(chat for chat in chats if chat.id == turns[0].conversation)
        late = next(chat for chat, one in zip(chats, begun, strict=True) if one is refused[0])
        assert await late.events() == []
        # What runs already is found by its key, and what is busy is busy, whatever the limit.
        assert await first.send("Hi.", idempotency_key="k") == turns[0]
        with pytest.raises(Busy):
            await first.send("More.")
        gate.set()
        for turn in turns:
            assert (await turn.result()).output_text == "Slow."
        assert (await late.run("Hi.", idempotency_key="k")).output_text == "Then."


async def test_a_turn_that_waits_takes_no_place_and_is_resumed_when_there_is_one() -> None:
    gate = asyncio.Event()
    script = [call("pay", amount=1), call("hold"), text("Slow."), text("Paid.")]
    way, chosen = scripted(script), agent(pay, held(gate))
    async with turnlog.open(
        ":memory:", agents=[chosen], transport=way, limits=Limits(open_turns=1)
    ) as log:
        waits = await log.conversation("waits", agent=chosen)
        turn = await waits.send("Pay.")
        assert (await turn.result()).status == "waiting"
        (pending,) = (await waits.state()).pending
        other = await (await log.conversation("other", agent=chosen)).send("Hi.")
        await pending.answer("paid")
        before = await waits.events()
        with pytest.raises(TooMany, match=r"runs 1 turn, .*'waits'.*open_turns") as caught:
            await turn.resume()
        assert isinstance(caught.value, StateError)
        assert await waits.events() == before
        gate.set()
        assert (await other.result()).output_text == "Slow."
        await turn.resume()
        assert (await turn.result()).output_text == "Paid."


# -- a context that is too long ------------------------------------------------------------

TOO_LONG = "context_length_exceeded"
NUMBERS = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in"
    " 130112 tokens."
)
NO_NUMBERS = "Your input exceeds the context window of this model."


async def failure(chat: Conversation) -> tuple[str, JsonObject]:
    """What is said of a turn that failed, and its error in the log."""
    with pytest.raises(TurnFailed) as caught:
        await chat.run("Two?")
    result = caught.value.result
    assert isinstance(result, turnlog.TurnResult)
    assert result.error is not None
    assert caught.value.code == result.error["code"]
    (ended,) = [one for one in await all_of(chat, ev.TurnEnded) if one.outcome == "failed"]
    assert ended.error == result.error
    return str(caught.value), result.error


@pytest.mark.parametrize(
    "answer",
    [error(400, TOO_LONG, NUMBERS), failed(TOO_LONG, NUMBERS), error(400, None, NUMBERS)],
    ids=["refused", "failed", "without a code"],
)
async def test_a_context_that_is_too_long_says_by_how_much(answer: Reply) -> None:
    async with limited([text("1."), answer, text("2.")], Limits()) as (chat, way):
        await chat.run("One?")
        message, told = await failure(chat)
        assert "too long by 2,112 tokens: 130,112, where the model takes 128,000" in message
        for fix in ("chat.compact", "chat.remove", "chat.fork", 'truncation="auto"'):
            assert fix in message
        assert (told["code"], told["limit"], told["size"], told["over"]) == (
            TOO_LONG,
            128_000,
            130_112,
            2112,
        )
        assert len(way.requests) == 2  # final: the same request would be refused again
        assert (await chat.run("Shorter?")).output_text == "2."


async def test_a_context_that_is_too_long_can_be_compacted() -> None:
    script = [text("1."), error(400, TOO_LONG, NUMBERS), window(), text("2.")]
    async with limited(script, Limits()) as (chat, way):
        await chat.run("One?")
        await failure(chat)
        await chat.compact()
        assert (await chat.run("And?")).output_text == "2."
        assert said(way.requests[-1]) == ["One?", "compaction", "Two?", "And?"]


async def test_in_the_middle_of_a_turn_a_fork_from_before_it_can_be_compacted() -> None:
    script = [text("1."), call("hold"), error(400, TOO_LONG, NUMBERS), window(), text("2.")]
    gate = asyncio.Event()
    gate.set()
    async with limited(script, Limits(), held(gate)) as (chat, way):
        await chat.run("One?")
        message, _ = await failure(chat)
        assert "Go on from before this turn (chat.fork(before=…)) and compact there" in message
        with pytest.raises(Waiting, match="hold were not sent so far"):
            await chat.compact()
        other = await chat.fork(before=(await chat.turns())[-1].turn)
        await other.compact()
        assert (await other.run("And?")).output_text == "2."
        assert said(way.requests[-1]) == ["One?", "compaction", "And?"]


async def test_without_numbers_it_says_what_the_request_was() -> None:
    refused = error(400, TOO_LONG, NO_NUMBERS)
    async with limited([refused, text("1."), refused], Limits()) as (chat, way):
        message, told = await failure(chat)
        (sent,) = objects(way.requests[0], "input")
        size = len(dumps(sent))
        assert f"does not say by how much; the request had 1 item of {size:,} bytes." in message
        assert (told["items"], told["bytes"]) == (1, size)
        assert "over" not in told
        await chat.remove((await chat.items())[0])
        await chat.run("One?")
        with pytest.raises(TurnFailed, match=r"1 item of .* bytes, behind the response resp_"):
            await chat.run("Two?")


async def test_a_turn_that_fails_otherwise_says_nothing_of_its_length() -> None:
    async with limited([error(400, "invalid_value", "No such thing.")], Limits()) as (chat, _):
        message, told = await failure(chat)
        assert message.endswith("failed: No such thing.")
        assert told == {
            "message": "No such thing.",
            "outcome": "rejected",
            "code": "invalid_value",
            "status": 400,
        }


# -- frames --------------------------------------------------------------------------------

CREATED = frame("response.created", response={"id": "resp_1", "status": "in_progress"})
LARGE = delta(BIG, item_id="m", output_index=0, content_index=0)


async def speak(connection: ServerConnection) -> None:
    """Begin to answer, and say too much at once."""
    await hear(connection)
    await tell(connection, CREATED, LARGE)
    await connection.wait_closed()


async def too_large_a_frame(way: str, url: str) -> str:
    """What is said of a turn in which a provider sends more in one piece than is taken."""
    chosen = agent()
    async with turnlog.open(
        ":memory:",
        agents=[chosen],
        transport=way,
        base_url=url,
        api_key="k",
        options={"max_frame_bytes": 1000},
    ) as log:
        chat = await log.conversation("c", agent=chosen)
        with pytest.raises(TurnFailed) as caught:
            await chat.run("Say much.", max_retries=0)
        assert (await chat.state()).status == "idle"
        assert (await all_of(chat, ev.ResponseInterrupted))[0].response == "resp_1"
        return str(caught.value)


async def test_a_frame_that_is_too_large_says_how_large_and_which_setting_it_is() -> None:
    async with websocket_server(speak) as url:
        said_ = await too_large_a_frame("websocket", url)
    assert "a frame with 3" in said_
    assert "exceeds limit of 1000 bytes: raise the option max_frame_bytes" in said_
    async with web_server(stream(sse(CREATED), sse(LARGE))) as web:
        said_ = await too_large_a_frame("http", web.url)
    assert "exceeded the 1000 byte limit: raise the option max_frame_bytes" in said_
