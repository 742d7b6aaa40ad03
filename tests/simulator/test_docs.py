"""The examples of docs/simulator.md, run as they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from turnlog.testing import Reply
from turnlog_transports import script

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def examples_in(source: str) -> list[Callable[..., Awaitable[None]]]:
    names: dict[str, Callable[..., Awaitable[None]]] = {}
    exec(compile(source, str(PAGE), "exec"), names)
    return [found for name, found in names.items() if name.startswith("test_")]


@pytest.mark.parametrize(
    "source", [body for kind, name, body in BLOCKS if (kind, name) == ("python", None)]
)
async def test_an_example_passes(source: str) -> None:
    (test,) = examples_in(source)
    await test()


async def test_the_agents_test_passes(tmp_path: Path) -> None:
    (source,) = (body for _, name, body in BLOCKS if name == "agent")
    (test,) = examples_in(source)
    await test(tmp_path)


async def test_the_recording_is_served(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    path.write_text("[]", encoding="utf-8")
    (source,) = (body for _, name, body in BLOCKS if name == "recording")
    (test,) = examples_in(source)
    await test(path)


def test_the_script_in_json_is_one() -> None:
    (source,) = (body for kind, _, body in BLOCKS if kind == "json")
    replies = script.parse(json.loads(source))
    assert len(replies) == 13
    assert all(isinstance(reply, Reply) for reply in replies)
