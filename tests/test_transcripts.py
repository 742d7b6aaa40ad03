"""Every recorded exchange, driven through the engine and read back by another process.

The recordings are kept beside the project, in ../shared/transcripts; without them these tests are
skipped. Compactions and background responses are driven by tests of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import turnlog
from turnlog import events as ev
from turnlog.canonical import Json, JsonObject, dumps, loads, obj, objects, text
from turnlog.conversation import Conversation
from turnlog.items import CALL_OF, OUTPUT_OF, answers, call_id_of, is_client_call, type_of
from turnlog.ports import Endpoint, Transport
from turnlog.settings import Settings
from turnlog.state import replay
from turnlog.testing import text as says
from turnlog_transports import http, websocket
from turnlog_transports.profiles import OPENAI
from turnlog_transports.replay import ReplayTransport
from turnlog_transports.simulator import Simulator
from turnlog_transports.transcript import Transcript, parse

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "transcripts"
NAMES = (
    "client_tool_search",
    "code_interpreter_image",
    "compaction_chain",
    "function_call_turn",
    "long_reasoning",
    "mcp_server_tool",
    "previous_response_id_chain",
    "reasoning_pairing_error",
    "reasoning_tool_phase",
    "usage_only",
    "web_search",
)
TRANSPORTS = ("replay", "http", "websocket")
GOODBYE = "Goodbye."
"""What the provider says behind the end of each recording, to a turn that goes as a delta."""

_OWN = frozenset({"model", "instructions", "tools", "input", "previous_response_id", "stream"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded create: what was asked, and what came back."""

    asked: JsonObject
    status: int
    final: JsonObject

    @property
    def refused(self) -> bool:
        return self.status >= 400


def recorded(name: str) -> tuple[list[Exchange], Transcript]:
    """The creates of a recording, and a script of them."""
    usable = [one for one in raw(name) if _is_create(one)]
    found = parse(usable)
    goodbye = says(GOODBYE)
    return [_exchange(one) for one in usable], replace(found, replies=(*found.replies, goodbye))


def raw(name: str) -> list[JsonObject]:
    """Every exchange of a recording."""
    path = RECORDINGS / f"{name}.json"
    if not path.exists():
        pytest.skip("the recorded exchanges are not here: they are kept beside the project")
    found = loads(path.read_bytes())
    assert isinstance(found, list)
    return [one for one in found if isinstance(one, dict)]


def _is_create(exchange: JsonObject) -> bool:
    request = obj(exchange, "request")
    background = obj(request, "body").get("background")
    return text(request, "path") == "/v1/responses" and not background


def _exchange(exchange: JsonObject) -> Exchange:
    response = obj(exchange, "response")
    final = obj(response, "body")
    for event in objects(response, "events"):
        if text(event, "type") in ("response.completed", "response.failed", "response.incomplete"):
            final = obj(event, "response")
    status = response["status"]
    assert isinstance(status, int)
    return Exchange(obj(obj(exchange, "request"), "body"), status, final)


@asynccontextmanager
async def served(transcript: Transcript, way: str) -> AsyncGenerator[Transport]:
    """A transport on which the recording is answered."""
    async with AsyncExitStack() as stack:
        if way == "replay":
            yield ReplayTransport(transcript)
            return
        simulator = await stack.enter_async_context(Simulator(transcript))
        endpoint = Endpoint(base_url=simulator.base_url, profile=OPENAI)
        over = http if way == "http" else websocket
        yield over.open_transport(endpoint)


def agent_of(exchange: Exchange) -> turnlog.Agent:
    """An agent that asks what was asked in the recording."""
    asked = exchange.asked
    settings: Settings = {}
    own = {key: value for key, value in asked.items() if key not in _OWN and value is not None}
    known = {key: value for key, value in own.items() if key in Settings.__annotations__}
    settings.update(known)  # type: ignore[typeddict-item]
    return turnlog.Agent(
        "recorded",
        model=text(asked, "model"),
        instructions=text(asked, "instructions"),
        tools=objects(asked, "tools"),
        **settings,
    )


def new_input(exchange: Exchange, known: list[JsonObject]) -> Sequence[JsonObject | str]:
    """What the user says in an exchange, without the history that the recording sent again."""
    items = objects(exchange.asked, "input")
    users = [item for item in items if item.get("role") in ("user", "system", "developer")]
    seen = sum(item.get("role") in ("user", "system", "developer") for item in known)
    if "previous_response_id" in exchange.asked and not known:
        return users
    return users[seen:] if len(users) > seen else []


def answer_to(call: JsonObject, exchanges: list[Exchange]) -> JsonObject:
    """The output that the recording gave to a call; a plain one where it ends before."""
    for exchange in exchanges:
        for item in objects(exchange.asked, "input"):
            if type_of(item) in CALL_OF and answers(item, type_of(call), call_id_of(call)):
                return item
    return {"type": OUTPUT_OF[type_of(call)], "call_id": call_id_of(call), "output": "42"}


async def answered(chat: Conversation, exchanges: list[Exchange]) -> None:
    """Answer every call as in the recording."""
    for call in (await chat.state()).pending:
        await call.answer(answer_to(call.raw, exchanges))


async def driven(chat: Conversation, exchanges: list[Exchange]) -> list[Exchange]:
    """Say what was said in the recording, turn by turn; the exchanges that came to an answer."""
    completed: list[Exchange] = []
    for exchange in exchanges:
        known = [one.raw for one in await chat.items()]
        open_ = (await chat.state()).turn if known else None
        said = [] if open_ else new_input(exchange, known) or ["And now?"]
        if exchange.refused:
            with pytest.raises(turnlog.TurnFailed) as caught:
                await chat.request(*said)
            assert caught.value.status == exchange.status
            assert str(obj(exchange.final, "error")["message"]) in str(caught.value)
            assert (await chat.state()).status == "idle"
            continue
        await chat.request(*said)
        completed.append(exchange)
        await answered(chat, exchanges)
    return completed


READER = """
import asyncio, json, sys
import turnlog

async def read(path):
    async with turnlog.open(path, transport="replay", readonly=True,
                            options={"script": []}) as log:
        chat = await log.get("recorded")
        events = await chat.events()
        return {
            "outputs": [[one.event.response, one.event.item] for one in events
                        if one.tag == "output.recorded"],
            "completed": [[one.event.response, one.event.usage] for one in events
                          if one.tag == "response.completed"],
            "context": [one.raw for one in await chat.items()],
            "verified": (await log.verify()).findings == (),
        }

for line in sys.stdin:
    print(json.dumps(asyncio.run(read(line.strip()))), flush=True)
"""


class Reader:
    """Another process, which opens the files that it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, path: Path) -> JsonObject:
        """What it finds in a file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        parsed: Json = json.loads(self._process.stdout.readline())
        assert isinstance(parsed, dict)
        return parsed

    def close(self) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    found = Reader()
    yield found
    found.close()


@pytest.mark.parametrize("way", TRANSPORTS)
@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_exchange_survives_the_engine(
    name: str, way: str, tmp_path: Path, reader: Reader
) -> None:
    exchanges, script = recorded(name)
    path = tmp_path / "agent.db"
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(served(script, way))
        chosen = agent_of(exchanges[0])
        log = await stack.enter_async_context(
            turnlog.open(str(path), agents=[chosen], transport=transport, durability="process")
        )
        chat = await log.conversation("recorded", agent=chosen)
        completed = await driven(chat, exchanges)
        if (await chat.state()).turn is None:
            result = await chat.request("Bye.")
        else:
            result = await chat.request()
        assert result.output_text == GOODBYE
        events = await chat.events()
        prepared = [one.event for one in events if isinstance(one.event, ev.RequestPrepared)]
        assert (prepared[-1].kind, prepared[-1].parent) == ("delta", completed[-1].final["id"])
        assert replay((await chat.at(version=1)).state, events[1:]) == (await chat.state()).head
        assert (await log.verify()).ok
    check_read_back(reader.read(path), completed)


def check_read_back(found: JsonObject, completed: list[Exchange]) -> None:
    """Each output item equals what the terminal frame carried, in order, in canonical form."""
    assert found["verified"] is True
    outputs, ended = found["outputs"], found["completed"]
    assert isinstance(outputs, list) and isinstance(ended, list)
    wanted = [
        [exchange.final["id"], item]
        for exchange in completed
        for item in objects(exchange.final, "output")
    ]
    assert [dumps(one) for one in outputs[:-1]] == [dumps(one) for one in wanted]
    usages = [[exchange.final["id"], exchange.final.get("usage")] for exchange in completed]
    assert [dumps(one) for one in ended[:-1]] == [dumps(one) for one in usages]
    said = [dumps(item) for _, item in wanted]
    context = [dumps(item) for item in objects(found, "context")]
    places = [context.index(item) for item in said]
    assert places == sorted(places)


async def test_the_recorded_refusal_of_unpaired_reasoning_is_final(tmp_path: Path) -> None:
    exchanges, _ = recorded("reasoning_pairing_error")
    refusals = [one for one in exchanges if one.refused]
    assert len(refusals) == 1
    transcript = recorded("reasoning_pairing_error")[1]
    async with turnlog.open(":memory:", transport=ReplayTransport(transcript)) as log:
        chat = await log.conversation("c", agent=agent_of(exchanges[0]))
        await chat.run("Hi.")
        with pytest.raises(turnlog.TurnFailed, match="without its required following item"):
            await chat.run("Again.")
        tried = [one for one in await chat.events() if one.tag == "request.prepared"]
        assert len(tried) == 2
        assert (await chat.run("And again.")).status == "completed"


def test_every_client_call_of_the_recordings_has_an_answer() -> None:
    calls = 0
    for name in NAMES:
        for exchange in map(_exchange, _creates(name)):
            calls += sum(is_client_call(item) for item in objects(exchange.final, "output"))
    assert calls == 7


def _creates(name: str) -> list[JsonObject]:
    return [one for one in raw(name) if _is_create(one)]


# -- what HTTP alone has -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["replay", "http"])
@pytest.mark.parametrize("frames", [1, 3, 9, 16])
async def test_the_recorded_background_response_is_resumed_as_it_was(way: str, frames: int) -> None:
    recording = raw("background_resume")
    script = parse(recording)
    (first,) = script.replies
    cut = replace(script, replies=(first.but(cut_after=frames),))
    exchange = _exchange(recording[0])
    async with served(cut, way) as transport:
        async with turnlog.open(":memory:", transport=transport) as log:
            chat = await log.conversation("c", agent=agent_of(exchange))
            result = await chat.run(*new_input(exchange, []))
            assert [dumps(item.raw) for item in (await chat.items())[1:]] == [
                dumps(item) for item in objects(exchange.final, "output")
            ]
            assert result.usage.total_tokens == obj(exchange.final, "usage")["total_tokens"]
            assert [one.tag for one in await chat.events()].count("request.prepared") == 1
            assert (await log.verify()).ok


@pytest.mark.parametrize("way", ["replay", "http"])
async def test_the_recorded_compaction_becomes_the_window_as_it_came(way: str) -> None:
    recording = raw("compaction_chain")
    exchanges = [_exchange(one) for one in recording if _is_create(one)]
    asked = [one for one in recording if text(obj(one, "request"), "path") != "/v1/responses"]
    script = parse(recording)
    script = replace(script, replies=(says("Before."), *script.replies))
    async with served(script, way) as transport:
        async with turnlog.open(":memory:", transport=transport) as log:
            chat = await log.conversation("c", agent=agent_of(exchanges[0]))
            await chat.run("Begin.")
            before = len(await chat.items())
            await chat.compact()
            window = objects(obj(obj(asked[0], "response"), "body"), "output")
            assert [dumps(item.raw) for item in (await chat.items())[before:]] == [
                dumps(item) for item in window
            ]
            assert (await chat.run("And now?")).status == "completed"
            assert (await log.verify()).ok
