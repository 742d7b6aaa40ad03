"""Streams that no provider should send: real ones, changed by rule, and how they are sent.

The one rule: a mutation is a value, and what it makes of a stream follows from nothing else, so
that a case can be shrunk and repeated. What should become of a stream is said by other code than
the project's own: `kind_of` reads a message, and `heard` the events of a server-sent stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from hypothesis import strategies as st

from turnlog.canonical import Json, JsonObject, loads, loads_object, obj, text
from turnlog.errors import InvalidInput
from turnlog.testing import Reply, call, calls, failed, incomplete, item, reasoning, refusal, reply
from turnlog.testing import text as says
from turnlog_transports import synthesis
from turnlog_transports.responses import Ids, build
from turnlog_transports.transcript import parse

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "transcripts"
LONGEST = 90
"""How many events a stream has at most that goes over sockets."""

How = Literal["text", "binary", "in pieces", "behind a ping"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One message, and how a WebSocket carries it."""

    raw: bytes
    how: How = "text"


# -- real streams --------------------------------------------------------------------------

REPLIES: Sequence[Reply] = (
    says("Hello there, how are you?"),
    calls(call("add", a=1, b=2), call("add", a=3, b=4)),
    reply(reasoning("Let me think.", encrypted="gAAAA"), says("Yes.")),
    reply(reasoning("Adding."), call("add", a=5, b=6)),
    refusal("I will not do that."),
    incomplete("max_output_tokens", "Half of"),
    failed(),
    item({"type": "mcp_call", "name": "look", "arguments": '{"q":1}', "output": "seen"}),
    item({"type": "code_interpreter_call", "code": "print(1)", "outputs": []}),
    reply(item({"type": "web_search_call", "action": {"type": "search"}}), says("Found.")),
    item({"type": "custom_tool_call", "name": "patch", "input": "*** Begin"}),
    item({"type": "image_generation_call", "result": "iVBORw0KGgo="}),
    item({"type": "something_new", "what": {"deep": [None, 1.5]}}),
)


def synthesised() -> list[list[Piece]]:
    """A stream of each kind of reply, as the simulator sends it."""
    body: JsonObject = {"model": "gpt-5", "input": "Hi.", "tools": []}
    whole = [build(body, one, Ids(), held=3, cached=0) for one in REPLIES]
    return [pieces(synthesis.events(response, chunk=8)) for response in whole]


def recorded() -> list[list[Piece]]:
    """The recorded streams; none where the recordings, which are kept elsewhere, are absent."""
    return [
        pieces(one.events)
        for path in sorted(RECORDINGS.glob("*.json"))
        for one in parse(loads(path.read_bytes())).replies
        if one.events
    ]


def pieces(events: Sequence[JsonObject]) -> list[Piece]:
    """One message for each event."""
    return [Piece(json.dumps(event).encode()) for event in events]


def short(streams: Sequence[list[Piece]]) -> list[list[Piece]]:
    """Those among them that are quickly sent."""
    return [stream for stream in streams if len(stream) <= LONGEST]


# -- mutations -----------------------------------------------------------------------------

DEEP = 900
ODD: Sequence[str] = (
    "null",
    "true",
    "-1",
    "0",
    "7",
    "1e308",
    "1e999",
    "NaN",
    str(2**63),
    "9" * 4300,
    "9" * 4301,
    '""',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"response.novelty"',
    '"response.completed"',
    '"error"',
    '"resp_other"',
    '"completed"',
    '"' + "x" * 20_000 + '"',
    "[]",
    "[[],null,3]",
    "{}",
    '{"type":"error","id":7}',
    '{"id":"a","id":"b"}',
    '{"":{"":null}}',
    "[" * 150 + "]" * 150,
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "[" * 100_000,
)
"""What a value is replaced by, as text: not all of it is JSON, and less of it can be read."""

NOISE: Sequence[bytes] = (
    b"",
    b" ",
    b"null",
    b"[]",
    b"3",
    b'"text"',
    b"{}",
    b"[DONE]",
    b"\x00",
    b"\xff\xfe{}",
    b"\xed\xa0\x80",
    b'{"type":"response.output_text.delta","delta":"\xc3("}',
    b'{"type":null}',
    b'{"type":"response.novelty"}',
    b'{"type":"response.output_text.delta","delta":"?"}',
    b'{"type":"response.completed"}',
    b'{"type":"response.completed","response":{"id":"resp_1","status":"failed"}}',
    b'{"type":"error","error":{"code":null,"message":null}}',
    b'{"type":"error","status":"many","retry_after":-1,"error":[]}',
    b'{"type":"response.failed","response":{"error":{"message":{}}},"headers":{"retry-after":"-"}}',
    b'{"type":"error","error":{"code":"websocket_connection_limit_reached"}}',
    b"[" * 100_000,
)
"""Messages of nobody's."""

Path_: TypeAlias = "tuple[str | int, ...]"
Kind = Literal[
    "drop",
    "double",
    "swap",
    "truncate",
    "replace",
    "remove",
    "exchange",
    "twice",
    "cut",
    "flip",
    "noise",
    "random",
    "lane",
    "how",
]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change to a stream. Numbers count modulo whatever there is to choose from."""

    kind: Kind
    at: int
    where: int
    what: int
    noise: bytes = b""


_MARK = "@@odd@@"
_DEEPEST = 12
_LANES = ('"lane-01"', '"lane-02"', '""', "null", "7", '"\\ud800"', '"' + "z" * 300 + '"')
_HOWS: Sequence[How] = ("binary", "in pieces", "behind a ping")


def mutated(stream: Sequence[Piece], mutations: Sequence[Mutation]) -> list[Piece]:
    """The stream with all of these changes, one after the other."""
    found = list(stream)
    for one in mutations:
        at = one.at % (len(found) + 1)
        if one.kind in ("noise", "random"):
            raw = NOISE[one.what % len(NOISE)] if one.kind == "noise" else one.noise
            found.insert(at, Piece(raw, how=("text", "binary")[one.where % 2]))
        elif at < len(found):
            found[at : at + 1] = _CHANGES[one.kind](found, at, one)
    return found


_Change: TypeAlias = "Callable[[list[Piece], int, Mutation], list[Piece]]"


def _swap(stream: list[Piece], at: int, one: Mutation) -> list[Piece]:
    other = one.where % len(stream)
    found, stream[other] = stream[other], stream[at]
    return [found]


def _truncate(stream: list[Piece], at: int, one: Mutation) -> list[Piece]:
    del stream[at + 1 :]
    return []


def _raw(change: Callable[[bytes, Mutation], bytes]) -> _Change:
    """A change to the bytes of a message."""
    return lambda stream, at, one: [replace(stream[at], raw=change(stream[at].raw, one))]


def _cut(raw: bytes, one: Mutation) -> bytes:
    return raw[: one.where % (len(raw) + 1)]


def _flip(raw: bytes, one: Mutation) -> bytes:
    at = one.where % (len(raw) or 1)
    return raw[:at] + bytes((one.what % 256,)) + raw[at + 1 :]


def _twice(raw: bytes, one: Mutation) -> bytes:
    """A key that stands twice in one object, with two values."""
    return raw.replace(b"{", b'{"type":%s,' % ODD[one.what % len(ODD)].encode(), 1)


def _lane(raw: bytes, one: Mutation) -> bytes:
    lane = _LANES[one.what % len(_LANES)].encode()
    return raw.replace(b"{", b'{"stream_id":%s,' % lane, 1) if raw != b"{}" else raw


def _inside(by: Callable[[list[Piece], Mutation], str | None]) -> _Change:
    """A change to one value of a message; None removes it. What is no object stays as it is."""

    def change(stream: list[Piece], at: int, one: Mutation) -> list[Piece]:
        piece = stream[at]
        try:
            value = loads_object(piece.raw)
        except InvalidInput:
            return [piece]
        paths = list(places(value))
        if not paths:
            return [piece]
        odd = by(stream, one)
        made = changed(value, paths[one.where % len(paths)], () if odd is None else (_MARK,))
        raw = json.dumps(made).replace(f'"{_MARK}"', odd or "")
        return [replace(piece, raw=raw.encode())]

    return change


def _another(stream: list[Piece], one: Mutation) -> str:
    """A value from another message: an id that belongs elsewhere, a number that was there."""
    found = [value for piece in stream for value in _NAMED.findall(piece.raw[:5000])]
    return found[one.what % len(found)].decode("utf-8", "replace") if found else "null"


_NAMED = re.compile(
    rb'"(?:id|item_id|response_id|output_index|sequence_number|call_id)": ("[^"]*"|\d+)'
)
_CHANGES: Mapping[Kind, _Change] = {
    "drop": lambda stream, at, one: [],
    "double": lambda stream, at, one: [stream[at], stream[at]],
    "swap": _swap,
    "truncate": _truncate,
    "replace": _inside(lambda stream, one: ODD[one.what % len(ODD)]),
    "remove": _inside(lambda stream, one: None),
    "exchange": _inside(_another),
    "twice": _raw(_twice),
    "cut": _raw(_cut),
    "flip": _raw(_flip),
    "lane": _raw(_lane),
    "how": lambda stream, at, one: [replace(stream[at], how=_HOWS[one.what % len(_HOWS)])],
}
KINDS: Sequence[Kind] = (*_CHANGES, "noise", "random")


def places(value: Json, path: Path_ = ()) -> Iterator[Path_]:
    """The path to every value inside another, as far as one would look by hand."""
    if path:
        yield path
    if len(path) == _DEEPEST:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from places(inner, (*path, place))


def changed(value: Json, path: Path_, to: Sequence[Json]) -> Json:
    """The value with others in place of the one at a path; with none, that one is left out."""
    step, rest = path[0], path[1:]

    def made(here: str | int, old: Json) -> Sequence[Json]:
        if here != step:
            return (old,)
        return (changed(old, rest, to),) if rest else to

    if isinstance(value, Mapping):
        return {key: new for key, old in value.items() for new in made(key, old)}
    assert isinstance(value, list)
    return [new for place, old in enumerate(value) for new in made(place, old)]


numbers = st.integers(0, 1 << 16)
mutations: st.SearchStrategy[list[Mutation]] = st.lists(
    st.builds(Mutation, st.sampled_from(KINDS), numbers, numbers, numbers, st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)


# -- what a message is, said by other means ------------------------------------------------

Verdict = Literal["unreadable", "unknown", "known", "terminal"]
ENDS = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
SEEN = re.compile(
    r"response\.(created|in_progress|queued|output_item\.(added|done)|content_part\.(added|done)"
    r"|output_text\.(delta|done|annotation\.added)|refusal\.(delta|done)"
    r"|reasoning_text\.(delta|done)|reasoning_summary_text\.(delta|done)"
    r"|reasoning_summary_part\.(added|done)|function_call_arguments\.(delta|done)"
    r"|custom_tool_call_input\.(delta|done))"
    r"|response\.(web_search_call|file_search_call|code_interpreter_call(_code)?|mcp_call"
    r"|image_generation_call|mcp_call_arguments|mcp_list_tools|shell_call_command"
    r"|shell_call_output_content|compaction)\..*",
    re.DOTALL,
)


def kind_of(raw: bytes) -> Verdict:
    """What a message is to whoever waits for the end of a response."""
    try:
        tag = text(loads_object(raw), "type") or ""
    except InvalidInput:
        return "unreadable"
    if tag in ENDS or tag == "error":
        return "terminal"
    return "known" if SEEN.fullmatch(tag) else "unknown"


def expected(stream: Sequence[bytes]) -> list[bytes]:
    """The messages up to and with the first that ends the response."""
    for number, raw in enumerate(stream, start=1):
        if kind_of(raw) == "terminal":
            return list(stream[:number])
    return list(stream)


def mine(sent: Sequence[bytes], lane: str | None) -> list[bytes]:
    """Those of the messages on a new WebSocket that belong to the response on a lane."""
    own: str | None = None
    found: list[bytes] = []
    for raw in sent:
        named, response = named_by(raw)
        if (named and named != lane) or (None not in (own, response) and response != own):
            continue
        own = own or response
        found.append(raw)
        if kind_of(raw) == "terminal":
            break
    return found


def named_by(raw: bytes) -> tuple[str | None, str | None]:
    """The lane and the response that a message names."""
    try:
        data = loads_object(raw)
    except InvalidInput:
        return None, None
    return (
        text(data, "stream_id"),
        text(obj(data, "response"), "id") or text(data, "response_id"),
    )


# -- server-sent events --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dress:
    """How messages are written as server-sent events, and how their bytes are chunked.

    `extras` stand before the messages, by turns; `split` cuts each message into that many lines.
    """

    end: bytes = b"\n"
    mark: bytes = b""
    extras: Sequence[bytes] = (b"",)
    split: int = 1
    space: bytes = b" "
    sizes: Sequence[int] = (1 << 16,)
    done: bool = False

    def written(self, messages: Sequence[bytes]) -> bytes:
        """The whole body."""
        events = [
            self.extras[place % len(self.extras)].replace(b"\n", self.end) + self._event(raw)
            for place, raw in enumerate(messages)
        ]
        if self.done:
            events.append(self._event(b"[DONE]"))
        if self.end == b"\r":
            events.append(b":")  # else the last line end may be the first half of another
        return self.mark + b"".join(events)

    def chunks(self, body: bytes) -> Iterator[bytes]:
        """The body in chunks of these sizes, over and over."""
        at = place = 0
        while at < len(body):
            # Small chunks of what is large would take for ever.
            size = max(self.sizes[place % len(self.sizes)], len(body) // 100)
            yield body[at : at + size]
            at, place = at + size, place + 1

    def _event(self, raw: bytes) -> bytes:
        size = -(-len(raw) // self.split) or 1
        lines = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
        return b"".join(b"data:" + self.space + line + self.end for line in lines) + self.end


EXTRAS: Sequence[bytes] = (
    b"",
    b": a comment\n",
    b":\n\n",
    b"event: response.created\n",
    b"event: only\n\n",
    b"id: 7\n",
    b"id\n\n",
    b"id: \x00\n",
    b"retry: 3000\n\n",
    b"retry: soon\n",
    b"data\n\n",
    b"data:\n\n",
    b"nothing: known\n\n",
    b"\n\n\n",
    b": " + b"c" * 3000 + b"\n",
    "\u2028data: x\x85\x0b\x0c\u00e9\n\n".encode(),
    b"data: {}\n",
    b"data:  {}\n\n",
    b"\xff\xfe\n",
)
dresses: st.SearchStrategy[Dress] = st.builds(
    Dress,
    end=st.sampled_from((b"\n", b"\r\n", b"\r")),
    mark=st.sampled_from((b"", b"\xef\xbb\xbf")),
    extras=st.lists(st.sampled_from(EXTRAS), min_size=1, max_size=4),
    split=st.sampled_from((1, 1, 1, 2, 3)),
    space=st.sampled_from((b" ", b"", b"  ")),
    sizes=st.lists(st.sampled_from((1, 2, 3, 7, 64, 1 << 16)), min_size=1, max_size=3),
    done=st.booleans(),
)


def heard(body: bytes) -> list[bytes]:
    """The data of every complete event, as the standard has it, up to `[DONE]`."""
    found: list[bytes] = []
    lines: list[str] = []
    said = body.decode("utf-8", "replace").removeprefix("\ufeff")
    for line in re.split("\r\n|\n|\r", said)[:-1]:
        name, _, value = line.partition(":")
        if name == "data":
            lines.append(value.removeprefix(" "))
        elif not line:
            data = "\n".join(lines)
            lines = []
            if data == "[DONE]":
                break
            if data:
                found.append(data.encode("utf-8", "surrogatepass"))
    return found
