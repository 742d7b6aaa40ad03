"""Every tag, field, body and hash is what it was: data that people have depends on it.

A failure here means that the format changed. See `golden_log.py` for how to write the log anew, and
for when that is allowed.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from turnlog.canonical import JsonObject, dumps, loads_object, obj, text
from turnlog.events import TAGS, tag_of
from turnlog.record import Recorded, decode, encode, envelope, first_broken

from .golden_log import PATH, full_event, golden, line, main

LINES = PATH.read_bytes().splitlines(keepends=True)


def read(data: bytes) -> Recorded:
    """A line of the file as the event that it was."""
    value = loads_object(data)
    tag, schema, body = str(value["tag"]), 1, dumps(value["body"])
    assert value["schema"] == schema
    turn, epoch = text(value, "turn"), value["epoch"]
    return envelope(
        conversation=str(value["conversation"]),
        version=int(str(value["version"])),
        id=str(value["id"]),
        tag=tag,
        schema=schema,
        time=int(str(value["time"])),
        actor=str(value["actor"]),
        turn=turn,
        epoch=None if epoch is None else int(str(epoch)),
        salt=bytes.fromhex(str(value["salt"])),
        body=body,
        previous=bytes(32),
        event=decode(tag, schema, body),
    )


def test_the_log_is_what_it_was() -> None:
    assert [line(one) for one in golden()] == LINES


def test_the_file_is_written_by_its_command(tmp_path: Path) -> None:
    main(tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_bytes() == PATH.read_bytes()


def test_the_hashes_in_the_file_verify() -> None:
    events = golden()
    assert first_broken(events) is None
    assert [text(loads_object(data), "hash") for data in LINES] == [
        one.hash.hex() for one in events
    ]


@pytest.mark.parametrize("data", LINES, ids=list(TAGS))
def test_every_body_is_read_and_written_again(data: bytes) -> None:
    value = loads_object(data)
    event = read(data).event
    assert tag_of(event) == value["tag"]
    assert encode(event) == dumps(value["body"])
    assert event == full_event(tag_of(event))


@pytest.mark.parametrize("tag", TAGS)
def test_every_field_of_every_tag_is_in_the_file(tag: str) -> None:
    written = {str(loads_object(data)["tag"]): body_of(data) for data in LINES}
    names = {one.name for one in fields(TAGS[tag])} - {"extra"}
    assert written[tag].keys() == names | {"x_newer"}


def body_of(data: bytes) -> JsonObject:
    return obj(loads_object(data), "body")


def test_no_tag_is_missing_and_none_is_new() -> None:
    assert [loads_object(data)["tag"] for data in LINES] == list(TAGS)
    assert len(set(TAGS.values())) == len(TAGS)
