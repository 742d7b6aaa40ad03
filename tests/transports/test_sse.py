"""Server-sent events, in whatever pieces they come: the decoder of httpx2 is the measure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnlog_transports.sse import Events

BOM = b"\xef\xbb\xbf"
LARGE = 1 << 20

_scraps = st.lists(
    st.sampled_from(
        (
            *(b"data: x\n", b"data:", b"data", b"dat", b" ", b":", b"abc", b"\0", b"[DONE]"),
            *(b"\n", b"\r", b"\r\n", b"\n\n", b"event: e\n", b"id: 1\r", b"id:\0\n", b"retry: 5\n"),
            *(BOM, "€".encode(), b"\xe2", b"\xff", "\u2028".encode(), b"\x85", b"\x0b"),
            b'data: {"type":"response.output_text.delta","delta":"a"}\n\n',
        )
    ),
    max_size=16,
).map(b"".join)


def heard(pieces: Sequence[bytes], limit: int = LARGE) -> tuple[list[str], bool]:
    """The data of the events of a stream, and whether one of them was too large."""
    events, found = Events(limit), list[str]()
    for piece in pieces:
        found += events.feed(piece)
        if events.too_large:
            return found, True
    return found + events.end(), events.too_large


def measure(pieces: Sequence[bytes], limit: int = LARGE) -> tuple[list[str], bool]:
    """What httpx2 makes of it."""
    found: list[str] = []
    response = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=iter(pieces),
        request=httpx2.Request("GET", "http://localhost"),
    )
    response.encoding = "utf-8-sig"
    try:
        for event in httpx2.EventSource(response, max_event_size=limit):
            if event.data:
                found.append(event.data)
    except httpx2.SSEError:
        return found, True
    return found, False


@given(_scraps, st.lists(st.integers(0, 120), max_size=6), st.sampled_from((6, 12, 30, LARGE)))
@example(b"data: x\r", [], LARGE)  # what stands behind a return may be a line feed still to come
@example(b"data: x\r\n\r\n", [8, 9, 10], LARGE)
@example(BOM + b"data: \xe2\x82\xac\n\n", [1, 10], LARGE)
@example(b"data: x\ndata: 123456789\n\ndata: y\n\n", [], 12)
def test_the_same_is_heard_in_any_pieces(stream: bytes, cuts: list[int], limit: int) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:stop] for start, stop in pairwise(places)]
    assert heard(pieces, limit) == measure(pieces, limit)


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\ndata:b\r\rdata:  c\r\n\r\n", ["a", "b", " c"]),
        (b"data: a\ndata\ndata: b\n\n", ["a\n\nb"]),
        (b": hello\nevent: e\nid: 1\nretry: 2\ndata: a\nother: x\n\n", ["a"]),
        (b"event: e\n\ndata\n\ndata:\n\n", []),
        (b"data: a\n\ndata: half\n", ["a"]),
        (BOM + b"data: a\n\n" + BOM + b"data: b\n\n", ["a"]),
        (b"data: \xff\xe2\x82\n\n", ["\ufffd\ufffd"]),
    ],
)
def test_what_is_the_data_of_an_event(stream: bytes, data: list[str]) -> None:
    whole = heard([stream])
    assert whole == (data, False)
    assert heard([bytes((each,)) for each in stream]) == whole


def test_an_event_may_be_as_large_as_the_limit_and_no_larger() -> None:
    pieces = [b"data: 12", b"34", b"56\n\n", b": a comment is none of it, where it has an end\n"]
    assert heard(pieces, 12) == (["123456"], False) == measure([b"".join(pieces)], 12)
    assert heard(pieces[:2], 9) == ([], True)
    assert heard([b"data: a\n\n", b"data: 12345\ndata: 6\n\ndata: b\n\n"], 12) == (["a"], True)
