"""Answers of a provider, encoded ahead of time, so that giving one is copying bytes.

The one rule: whatever differs between two answers has a mark of the same length in its place, so
that an answer is its pattern with the marks replaced, and frames keep the lengths they announce.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

Event = dict[str, Any]
Encode = Callable[[Event], bytes]

DIGITS = 18
"""How many digits a reading of `time.monotonic_ns` is given: leading zeros keep its length."""

ID_MARK = "@" * 50
RECEIVED_MARK = "#" * DIGITS
SENT_MARK = "~" * DIGITS
TEXT_MARK = "%"
"""Stands as often as the text has letters."""

FIRST = 3
"""How many deltas a `first` has."""

PIECE = 128 * 1024
"""About how many bytes are written at once."""

_WORDS = (" cross", " the", " road", " look", " left", " right", " then", " wait", " again", ".")
_PADDING = "Ui6T7ZRgUUHBz3Vbd90o7"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, by the name of its model.

    `deltas-N`: N deltas as fast as they are taken. `first`: three deltas, of which the first one
    says when the request was there, and when it was answered; `first-P` pauses for P milliseconds
    before it, as a provider does that has to think. `rate-R-S`: R deltas a second for S seconds,
    each of which says when it was sent.
    """

    model: str
    kind: str
    count: int
    rate: int = 0
    pause: float = 0.0

    @classmethod
    def parse(cls, model: str) -> Asked | None:
        """What a name asks for, or None for one that is not known."""
        match model.split("-"):
            case ["first"]:
                return cls(model, "first", FIRST)
            case ["first", pause] if pause.isdigit():
                return cls(model, "first", FIRST, pause=int(pause) / 1000)
            case ["deltas", count] if count.isdigit():
                return cls(model, "deltas", int(count))
            case ["rate", rate, seconds] if rate.isdigit() and seconds.isdigit():
                return cls(model, "rate", int(rate) * int(seconds), int(rate))
            case _:
                return None


# -- how a carrier has an event ---------------------------------------------------------------


def as_message(event: Event) -> bytes:
    """An event as a WebSocket frame of a server: text, whole, without a mask."""
    body = _dumps(event)
    return head_of(1, len(body)) + body


def head_of(opcode: int, length: int) -> bytes:
    """What stands before the payload of a WebSocket frame."""
    first = bytes((0x80 | opcode,))
    if length < 126:
        return first + bytes((length,))
    if length < 1 << 16:
        return first + b"\x7e" + length.to_bytes(2, "big")
    return first + b"\x7f" + length.to_bytes(8, "big")


def as_sent_event(event: Event) -> bytes:
    """An event as a server-sent one."""
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), _dumps(event))


def chunk(piece: bytes) -> bytes:
    """Bytes as a chunk of an HTTP body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _dumps(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


# -- patterns ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """An answer with its marks: what begins it, its deltas, and what ends it.

    The deltas are in large pieces, and of `rate` one by one.
    """

    begin: bytes
    deltas: tuple[bytes, ...]
    end: bytes


@lru_cache(maxsize=256)
def pattern(asked: Asked, encode: Encode, lane: str | None) -> Pattern:
    """The answer to what was asked, as it goes over a carrier and a lane."""
    texts = _texts(asked)
    whole = "".join(texts)
    text = TEXT_MARK * len(whole) if asked.kind == "rate" else whole
    encoded = [encode(_on(lane, event)) for event in answer(asked.model, texts, text)]
    first, last = BEFORE, BEFORE + asked.count
    deltas = encoded[first:last]
    return Pattern(
        begin=b"".join(encoded[:first]),
        deltas=tuple(deltas if asked.kind == "rate" else _pieces(deltas)),
        end=b"".join(encoded[last:]),
    )


def letters(asked: Asked) -> int:
    """How many characters the deltas of an answer have in all."""
    return sum(map(len, _texts(asked)))


def _texts(asked: Asked) -> list[str]:
    match asked.kind:
        case "first":
            return [f"t={RECEIVED_MARK};{SENT_MARK};", " Look left,", " then right."]
        case "rate":
            return [f"t={SENT_MARK};"] * asked.count
        case _:
            return list(islice(cycle(_WORDS), asked.count))


def _on(lane: str | None, event: Event) -> Event:
    return event if lane is None else {**event, "stream_id": lane}


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for part in parts:
        piece.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


# -- the events of an answer ------------------------------------------------------------------

BEFORE = 4
"""How many events come before the first delta."""


def answer(model: str, texts: list[str], text: str) -> list[Event]:
    """The events of a response whose one message comes in `texts`, and is `text` in the end."""
    item = f"msg_{ID_MARK}"
    place: Event = {"item_id": item, "output_index": 0, "content_index": 0}
    part: Event = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    message: Event = {"id": item, "type": "message", "role": "assistant", "phase": "final_answer"}
    done: Event = {**message, "status": "completed", "content": [part]}
    begun = _response(model, status="in_progress", output=[], usage=None, completed_at=None)
    over = _response(
        model, status="completed", output=[done], usage=_usage(len(texts)), completed_at=1785273856
    )
    events: list[Event] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**message, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, **_said(each)} for each in texts),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": over},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _said(text: str) -> Event:
    # Providers pad what they stream, so that its length does not say what it is.
    return {"delta": text, "logprobs": [], "obfuscation": _PADDING[: max(0, 16 - len(text))]}


def _usage(deltas: int) -> Event:
    return {
        "input_tokens": 147,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": deltas,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 147 + deltas,
    }


def _response(model: str, **said: object) -> Event:
    return {
        "id": f"resp_{ID_MARK}",
        "object": "response",
        "created_at": 1785273855,
        "background": False,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": model,
        "moderation": None,
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": "24h",
        "reasoning": {"context": "current_turn", "effort": "medium", "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 0.98,
        "truncation": "disabled",
        "user": None,
        "metadata": {},
        **said,
    }
