"""The golden log: one recorded event of every tag with every field set, pinned byte for byte.

Tags and fields are for ever once they are released. Until then the log is written anew, with a
reason in the commit, by `python -m tests.core.golden_log` (from the project's root, with
`PYTHONPATH=engine`).
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from turnlog.canonical import GENESIS, Json, JsonObject, dumps
from turnlog.events import TAGS, Event
from turnlog.record import NewEvent, Recorded, Stamp, record

PATH = Path(__file__).parent / "golden" / "log.jsonl"
TIME = 1_767_225_600_000_000

ITEM: JsonObject = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "größe",
    "arguments": '{"n":1}',
    "unknown": [1, 2.5, 18446744073709551617, None, True, {"\ud800": "\U0001f600"}],
}


def full_event(tag: str) -> Event:
    """An event with every field set, the value following from the field's name and type."""
    return cast(Event, _filled(cast(Any, TAGS[tag])))


def _filled(kind: Any) -> object:
    hints = get_type_hints(kind, localns={"Sequence": Sequence, "Mapping": Mapping})
    return kind(**{one.name: _sample(one.name, hints[one.name]) for one in fields(kind)})


def _sample(name: str, hint: Any) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _sample(name, next(one for one in arguments if one is not types.NoneType))
    if is_dataclass(hint):
        return _filled(hint)
    if origin is tuple:
        return (_sample(name, arguments[0]), _sample(name, arguments[0]))
    if origin is Literal:
        return arguments[-1]
    if name == "extra":
        return {"x_newer": {"kept": [1, None]}}
    samples: dict[object, object] = {str: f"{name}-1", int: len(name), bool: True}
    return samples.get(hint, ITEM)


def golden() -> list[Recorded]:
    """The log: the tags in the order of their table, in one chain."""
    new = [
        NewEvent(event=full_event(tag), turn="turn-1" if at % 2 else None) for at, tag in _tags()
    ]
    stamp = Stamp(
        time=TIME,
        actor="user:42",
        epoch=7,
        ids=[f"evt-{at}" for at, _ in _tags()],
        salts=[at.to_bytes(16, "big") for at, _ in _tags()],
    )
    return record("conv-1", 0, GENESIS, new, stamp)


def _tags() -> list[tuple[int, str]]:
    return list(enumerate(TAGS, start=1))


def line(one: Recorded) -> bytes:
    """An event as a line of the file."""
    envelope: dict[str, Json] = {
        "conversation": one.conversation,
        "version": one.version,
        "id": one.id,
        "tag": one.tag,
        "schema": one.schema,
        "time": one.time,
        "actor": one.actor,
        "turn": one.turn,
        "epoch": one.epoch,
        "salt": one.salt.hex(),
        "hash": one.hash.hex(),
    }
    return dumps(envelope)[:-1] + b',"body":' + one.body + b"}\n"


def main(path: Path = PATH) -> None:
    """Write the file anew."""
    path.write_bytes(b"".join(map(line, golden())))


if __name__ == "__main__":
    main()
