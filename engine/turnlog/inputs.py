"""What callers say to a model, as items: text, pictures, files, dicts and openai's models.

The one rule: everything is read, checked and copied here, once, before anything is written or
sent (law 13, W-07). A picture is encoded when its value is made, so that the same value is the
same bytes in every request (law 9, W-66).
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from pydantic import BaseModel

from .canonical import JsonObject, dumps, objects, text
from .errors import InvalidInput
from .items import check, type_of
from .ports import Profile
from .secrets import to_log

Source: TypeAlias = "str | os.PathLike[str] | bytes"
"""A path, an address (http, https or data), or the bytes themselves."""

PARTS = frozenset({"input_text", "input_image", "input_file", "input_audio"})
"""The parts of a user message (protocol section 2)."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)

# Python's own table, and not the machine's: the same file is the same bytes everywhere.
_TYPES = mimetypes.MimeTypes()
_OFFICE = "application/vnd.openxmlformats-officedocument."
_TYPES.add_type(f"{_OFFICE}wordprocessingml.document", ".docx")
_TYPES.add_type(f"{_OFFICE}spreadsheetml.sheet", ".xlsx")
_TYPES.add_type(f"{_OFFICE}presentationml.presentation", ".pptx")
_TYPES.add_type("text/markdown", ".md")
_TYPES.add_type("image/webp", ".webp")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message beside its text: what `image` and `file` return.

    `json` is the content part as the provider takes it; a repr shows the label instead.
    """

    label: str
    json: JsonObject = field(repr=False)


def image(source: Source, *, detail: str | None = None, media_type: str | None = None) -> Part:
    """A picture, for a message or as the result of a tool.

    `source` is a path, an address or bytes; a path is read now. `detail` is the provider's
    setting ("low", "high", "auto"). Raises InvalidInput where the file cannot be read or is not
    recognised as a picture.
    """
    if isinstance(source, str) and _is_address(source):
        url, label = source, _label("image", source)
    else:
        data, name = _read(source)
        kind = media_type or _media_type(data, name)
        if kind is None or not kind.startswith("image/"):
            raise InvalidInput(
                f"{name or 'these bytes'} cannot be recognised as a picture:"
                ' pass media_type="image/…", or use file()'
            )
        url, label = _data_url(data, kind), _label("image", name or kind)
    json: JsonObject = {"type": "input_image", "image_url": url}
    return Part(label, json if detail is None else {**json, "detail": detail})


def file(source: Source, *, name: str | None = None, media_type: str | None = None) -> Part:
    """A file, for a message or as the result of a tool.

    `source` is a path, an address, bytes, or the id of a file that the provider has (text that
    begins with `file-` and is no path here); a path is read now. `name` is what the model is
    told. Raises InvalidInput where the file cannot be read.
    """
    if isinstance(source, str) and _is_file_id(source):
        return Part(_label("file", source), {"type": "input_file", "file_id": source})
    if isinstance(source, str) and _is_address(source) and not source.startswith("data:"):
        return Part(_label("file", source), {"type": "input_file", "file_url": source})
    if isinstance(source, str) and source.startswith("data:"):
        url, found = source, None
    else:
        data, found = _read(source)
        url = _data_url(data, media_type or _media_type(data, found) or "application/octet-stream")
    filename = name or found or "file" + _extension(url)
    json: JsonObject = {"type": "input_file", "filename": filename, "file_data": url}
    return Part(_label("file", filename), json)


def to_items(*parts: object) -> tuple[JsonObject, ...]:
    """The items that an input stands for, in order, copied from what was passed.

    Text, `image()`, `file()` and content parts (dicts, openai's models) that stand together
    become one user message; dicts and models with a role or another type are items as they are;
    lists are their entries. Raises InvalidInput for an empty message, for what is no input, and
    for an item that cannot be part of a context.
    """
    found: list[JsonObject] = []
    content: list[JsonObject] = []
    for part in _flat(parts):
        piece = _piece(part)
        if text(piece, "type") in PARTS:
            content.append(piece)
            continue
        check(piece)
        found += [*_message(content), piece]
        content = []
    found += _message(content)
    if not found:
        raise InvalidInput("the message is empty: pass text, image(), file() or items")
    return tuple(found)


def check_parts(items: Sequence[JsonObject], profile: Profile) -> None:
    """Raise InvalidInput where an item holds a part that the provider cannot take (W-65)."""
    if not profile.unsupported:
        return
    for place, item in enumerate(items):
        for part in (*objects(item, "content"), *objects(item, "output")):
            kind = text(part, "type")
            if kind in profile.unsupported:
                raise InvalidInput(
                    f"{profile.name} cannot take an {kind}: it is in item {place + 1} of the"
                    f" input, a {type_of(item)}; leave it out or use another provider"
                )


def input_digest(items: Sequence[JsonObject], settings: JsonObject) -> str:
    """SHA-256 (hex) over an input and its settings: what an idempotency key is compared by."""
    return hashlib.sha256(dumps([list(items), settings])).hexdigest()


# -- pieces --------------------------------------------------------------------------------


def _flat(parts: Sequence[object]) -> list[object]:
    found: list[object] = []
    for part in parts:
        if isinstance(part, (list, tuple)):
            found += _flat(cast("Sequence[object]", part))
        else:
            found.append(part)
    return found


def _piece(part: object) -> JsonObject:
    match part:
        case str():
            if not part:
                raise InvalidInput("the message is empty: there is a text without a character")
            return {"type": "input_text", "text": part}
        case Part():
            return part.json
        case Mapping() | BaseModel():
            return cast("JsonObject", to_log(cast("object", part)))
        case _:
            raise InvalidInput(
                f"a {type(part).__name__} is no input: pass text, image(), file(), a dict,"
                " or a model of the openai package"
            )


def _message(content: Sequence[JsonObject]) -> list[JsonObject]:
    return [{"type": "message", "role": "user", "content": [*content]}] if content else []


# -- files ---------------------------------------------------------------------------------


def _is_address(source: str) -> bool:
    return source.lower().startswith(("http://", "https://", "data:"))


def _is_file_id(source: str) -> bool:
    return source.startswith("file-") and not os.path.exists(source)


def _read(source: Source) -> tuple[bytes, str | None]:
    """The bytes, and the name of the file they came from."""
    if isinstance(source, bytes):
        return source, None
    path = Path(source)
    try:
        return path.read_bytes(), path.name
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"cannot read the file {str(path)!r}: {reason}") from error


def _media_type(data: bytes, name: str | None) -> str | None:
    """By its first bytes, then by its name."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    known = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    # A zip is what office documents are made of: their names say more.
    named = _TYPES.guess_type(name)[0] if name else None
    return named if named and known in (None, "application/zip") else known


def _data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _extension(data_url: str) -> str:
    media_type = data_url.removeprefix("data:").partition(",")[0].partition(";")[0]
    return _TYPES.guess_extension(media_type) or ""


def _label(kind: str, what: str) -> str:
    shown = what if len(what) <= 60 else what[:57] + "…"
    return f"{kind}({shown!r})"
