r"""Large parts of bodies, kept once for each conversation.

The one rule: `unpack(pack(body))` is the body, byte for byte, whatever its bytes are. What is
hashed is the whole body (design section 3); packing concerns storage alone.

A body of more than `LARGE` bytes is cut where its long JSON strings begin and end, and those move
to blobs by their SHA-256, so that the same image is one blob however often it is recorded (W-66).
What is left is text between references:

    packed    = %x00 *(reference / text)
    reference = %x00 digest(32)
    text      = bytes other than %x00

JSON never holds a zero byte, so that nothing else begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ..canonical import digest
from ..errors import StoreCorrupt

LARGE = 16 * 1024
"""How long a stored body may be, in bytes."""

LONG = 1024
"""How long a part must be to become a blob of its own, in bytes."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_DIGEST = 32


def pack(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """What is stored in the place of a body, and its blobs by their digests."""
    if len(body) <= LARGE and not body.startswith(b"\0"):
        return body, {}
    packed, blobs = _joined(_strings(body))
    if len(packed) > LARGE or b"\0" in body:
        packed, blobs = _joined(
            (part, len(part) >= LONG or b"\0" in part) for part, _ in _strings(body)
        )
    return packed, blobs


def unpack(packed: bytes, blobs: Mapping[bytes, bytes]) -> bytes:
    """The body again; raises StoreCorrupt where a blob is missing."""
    try:
        return b"".join(
            blobs[part] if is_reference else part for part, is_reference in _parts(packed)
        )
    except KeyError:
        raise StoreCorrupt("a large part of an event's body is missing: restore a backup") from None


def references(packed: bytes) -> set[bytes]:
    """The digests of the blobs that a stored body needs; none where it was not packed."""
    return {part for part, is_reference in _parts(packed) if is_reference}


def _strings(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """The body in parts, and whether each is the inside of a long string."""
    done = 0
    for match in _STRING.finditer(body):
        start, stop = match.start() + 1, match.end() - 1
        if stop - start >= LONG:
            yield body[done:start], False
            yield body[start:stop], True
            done = stop
    yield body[done:], False


def _joined(parts: Iterable[tuple[bytes, bool]]) -> tuple[bytes, dict[bytes, bytes]]:
    packed, blobs = [b"\0"], dict[bytes, bytes]()
    for part, is_blob in parts:
        if is_blob:
            name = digest(part)
            blobs[name] = part
            part = b"\0" + name
        packed.append(part)
    return b"".join(packed), blobs


def _parts(packed: bytes) -> Iterator[tuple[bytes, bool]]:
    if not packed.startswith(b"\0"):
        yield packed, False
        return
    place = 1
    while place < len(packed):
        reference = packed[place] == 0
        if reference:
            place += 1
            stop = place + _DIGEST
        else:
            found = packed.find(b"\0", place)
            stop = len(packed) if found < 0 else found
        yield packed[place:stop], reference
        place = stop
