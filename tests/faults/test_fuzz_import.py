"""Files from a fuzzer: exports changed by rule, and changed and signed again as a forger would.

Either ImportFailed, and nothing was written; or it was imported, all of it verifies, exports to the
same again, and the engine can go on with it. TURNLOG_FUZZ=<examples> says how many files each test
tries; without it, a few, the same on every run.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import turnlog
from turnlog.canonical import GENESIS, Json, dumps
from turnlog.draft import Ambient
from turnlog.errors import ImportFailed, StoreCorrupt, TurnlogError
from turnlog.exchange import export, import_lines
from turnlog.exchange_lines import Listed, event_line, header, json_line, recorded
from turnlog.record import Recorded, decode
from turnlog.store import MemoryStore, open_store
from turnlog.store.migrating import upgrade
from turnlog.testing import call, calls, scripted, text

MANY = int(os.environ.get("TURNLOG_FUZZ", 0))


def cases(few: int) -> settings:
    """How many cases are tried: the same few on every run, or as many as were asked for."""
    return settings(
        max_examples=MANY or few,
        derandomize=not MANY,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@turnlog.tool(needs_approval=True)
def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"


@turnlog.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


AGENT = turnlog.Agent("support", model="gpt-5.5", tools=[add, pay])


@cache
def events() -> list[Recorded]:
    """What is exported: a conversation with calls, its fork, and one that waits for an answer."""
    replies = [
        calls(call("add", a=1, b=2), call("add", a=3, b=4)),
        text("3 and 7."),
        text("Otherwise."),
        call("pay", amount=5),
    ]
    ticks = count(1_700_000_000_000_000, 1000)
    ambient = Ambient(now=lambda: next(ticks), token=lambda size: next(ticks).to_bytes(size, "big"))

    async def main() -> list[str]:
        store = MemoryStore()
        async with turnlog.open(
            "", agents=[AGENT], transport=scripted(replies), store=store, ambient=ambient
        ) as log:
            chat = await log.conversation("c1", agent=AGENT, metadata={"customer": "7"})
            await chat.run("Add.")
            fork = await chat.fork("c2")
            await chat.add({"role": "user", "content": "one"}, {"role": "user", "content": "two"})
            await chat.edit((await chat.items())[0], {"role": "user", "content": "zero"})
            await fork.run("And otherwise?")
            await (await log.conversation("c3", agent=AGENT)).run("Pay 5.")
            return [line async for line in export(store, "c2", "c1", "c3")]

    # Without epochs, which nobody has given out where it is imported.
    lines = asyncio.run(main())
    return [replace(recorded(json.loads(line)), epoch=None) for line in lines[1:]]


def signed(changed: list[Recorded]) -> list[str]:
    """An export of these events with hashes that fit, whatever they say."""
    lines, ends = list[str](), dict[str, Listed]()
    hashes: dict[tuple[str, int], bytes] = {}
    for one in changed:
        fork = getattr(one.event, "fork", None)
        if fork is not None:
            now = hashes.get((fork.conversation, fork.version))
            if now is not None:
                body = one.body.replace(fork.hash.encode(), now.hex().encode())
                one = replace(one, body=body)
                hashes[one.conversation, 0] = now
        previous = hashes.get((one.conversation, one.version - 1), GENESIS)
        one = replace(one, hash=one.expected_hash(previous))
        hashes[one.conversation, one.version] = one.hash
        ends[one.conversation] = Listed(one.conversation, one.version, one.hash.hex())
        lines.append(event_line(one))
    return [header(list(ends.values())), *lines]


# -- what is done to a file ----------------------------------------------------------------

Damage = Callable[[bytes, int, int], bytes]
"""What becomes of a file, by two numbers."""

ODD = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b" ", b'"', b"\\", b"\\ud800",
    b"{", b"[" * 5000, b"9" * 5000, b"1e999", b"-0", b"NaN", b"null", b"true", b"{}",
    b"\xed\xa0\x80", b'"id":"x",', b"\x1b[2J", b"\xe2\x80\xa8",
)  # fmt: skip


def _lines(change: Callable[[list[bytes], int, int], list[bytes]]) -> Damage:
    def damage(raw: bytes, at: int, by: int) -> bytes:
        lines = raw.split(b"\n")
        return b"\n".join(change(lines, at % len(lines), by % len(lines)))

    return damage


def _put(raw: bytes, at: int, by: int) -> bytes:
    at %= len(raw) + 1
    return raw[:at] + ODD[by % len(ODD)] + raw[at + by % 3 :]


def _flip(raw: bytes, at: int, by: int) -> bytes:
    at %= max(1, len(raw))
    return raw[:at] + bytes(byte ^ (1 << by % 8) for byte in raw[at : at + 1]) + raw[at + 1 :]


def _swap(lines: list[bytes], at: int, by: int) -> list[bytes]:
    lines[at], lines[by] = lines[by], lines[at]
    return lines


def _field(lines: list[bytes], at: int, by: int) -> list[bytes]:
    """A field is left out, or has another value."""
    try:
        value = json.loads(lines[at])
    except ValueError:
        return lines
    name = sorted(value)[by % len(value)]
    values: list[Json] = [None, "", 0, -1, 2**63, 2**200, 1.5, True, [], {}, "\ud800", "x" * 99]
    value[name] = values[by % len(values)]
    lines[at] = json.dumps(value).encode()
    return lines


DAMAGES: list[Damage] = [
    _put,
    _put,
    _flip,
    lambda raw, at, by: raw[: at % (len(raw) + 1)],
    lambda raw, at, by: raw[at % (len(raw) + 1) :],
    _lines(lambda lines, at, by: [*lines[:at], *lines[at + 1 :]]),
    _lines(lambda lines, at, by: [*lines[:by], lines[at], *lines[by:]]),
    _lines(_swap),
    _lines(_field),
    _lines(_field),
    lambda raw, at, by: gzip.compress(raw, mtime=0) if by % 9 == 0 else raw,
    lambda raw, at, by: raw.decode("utf-8", "replace").encode(("utf-16", "utf-32")[by % 2]),
    lambda raw, at, by: raw.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b"\x00")[by % 4]),
    lambda raw, at, by: raw + raw[at % (len(raw) + 1) :],
]

damages = st.lists(
    st.tuples(st.sampled_from(range(len(DAMAGES))), st.integers(0, 2**20), st.integers(0, 2**20)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("split", [False, True])
def test_a_damaged_file_is_refused_or_says_the_same(split: bool) -> None:
    whole = signed(events())
    raw = "\n".join(whole).encode()
    ran = Counter[str]()

    async def check(file: bytes) -> None:
        store = MemoryStore()
        lines = file.splitlines(keepends=True) if split else file.split(b"\n")
        try:
            done = await import_lines(store, lines)
        except ImportFailed as error:
            assert await store.follow({}) == []
            assert error.line is None or 1 <= error.line <= len(lines)
            ran["refused"] += 1
            return
        there = [line async for line in export(store, *done.conversations)]
        assert sorted(there[1:]) == sorted(whole[1:]), "it was imported, and says something else"
        assert (await import_lines(store, lines)).written == 0
        ran["imported"] += 1

    @cases(60)
    @given(damages)
    def fuzz(changes: list[tuple[int, int, int]]) -> None:
        file = raw
        for kind, at, by in changes:
            file = DAMAGES[kind](file, at, by)
        asyncio.run(check(file))

    fuzz()
    print(f"\nfuzz, damaged files: {dict(ran)}")
    assert ran["refused"]


# -- what a forger does --------------------------------------------------------------------

VALUES: list[Json] = [
    None, "", "x", "call_1", "\ud800", "a\x00b", 0, 1, -1, 2, 7, 2**31, 2**63, 2**70, True, 1.5, [],
    {}, [1], {"type": "x"}, {"role": "user", "content": "x"}, "completed", "started", "A" * 20_000,
]  # fmt: skip


def paths(value: Json, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where there is something in a body."""
    inner: list[tuple[str | int, Json]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [here, *(path for name, part in inner for path in paths(part, (*here, name)))]


def put(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    """The value with something else there."""
    if not path:
        return new
    name, *rest = path
    if isinstance(value, dict):
        assert isinstance(name, str)
        return {**value, name: put(value[name], tuple(rest), new)}
    assert isinstance(value, list) and isinstance(name, int)
    return [*value[:name], put(value[name], tuple(rest), new), *value[name + 1 :]]


def forge(one: Recorded, where: int, what: int) -> Recorded:
    """The event with another value somewhere, where it can still be read."""
    body: Json = json.loads(one.body)
    found = paths(body)
    raw = dumps(put(body, found[where % len(found)], VALUES[what % len(VALUES)]))
    try:
        return replace(one, body=raw, event=decode(one.tag, one.schema, raw))
    except StoreCorrupt:
        return one


Forgery = tuple[str, int, int, int]
forgeries = st.lists(
    st.tuples(
        st.sampled_from(["value", "value", "value", "drop", "twice", "swap", "turn"]),
        st.integers(0, 200),
        st.integers(0, 200),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=3,
)


def forged(changes: list[Forgery]) -> list[str]:
    """The export with these changes, its hashes made anew."""
    now = list(events())
    for what, at, where, value in changes:
        at %= len(now)
        match what:
            case "value":
                now[at] = forge(now[at], where, value)
            case "drop":
                del now[at]
            case "twice":
                now.insert(where % len(now), replace(now[at], id=f"again-{value}"))
            case "turn":
                now[at] = replace(now[at], turn=(None, "other")[value % 2])
            case _:
                where %= len(now)
                now[at], now[where] = now[where], now[at]
    versions = Counter[str]()
    for place, one in enumerate(now):
        versions[one.conversation] += 1
        now[place] = replace(one, version=versions[one.conversation])
    now.sort(key=lambda one: one.conversation)
    return signed(now)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "log.db"
    upgrade(lambda: sqlite3.connect(path, isolation_level=None))
    return path


async def goes_on(path: Path, ids: tuple[str, ...]) -> None:
    """The engine reads what was imported, and answers with one of its own errors or goes on."""
    replies = [text("On.")] * 9
    async with turnlog.open(path, agents=[AGENT], transport=scripted(replies)) as log:
        report = await log.verify()
        assert report.ok, report.findings
        await log.recover()
        for id in ids:
            chat = await log.get(id)
            await chat.items()
            await chat.state()
            await chat.turns()
            try:
                await chat.run("Go on.", pending="abandon")
            except TurnlogError:
                continue
        assert (await log.verify()).ok


def test_a_forged_history_is_refused_or_can_be_gone_on_with(tmp_path: Path, empty: Path) -> None:
    ran = Counter[str]()
    numbers = count()

    async def check(lines: list[str]) -> None:
        path = tmp_path / str(next(numbers)) / "log.db"
        path.parent.mkdir()
        shutil.copy(empty, path)
        store = await open_store(path, durability="process")
        try:
            done = await import_lines(store, lines)
            there = [line async for line in export(store, *done.conversations)]
            assert there[1:] == lines[1:] and done.written == len(lines) - 1
            assert (await import_lines(store, lines)).already == done.written
        except ImportFailed:
            assert await store.follow({}) == []
            ran["refused"] += 1
            return
        finally:
            await store.close()
        await goes_on(path, done.conversations)
        ran["imported"] += 1
        shutil.rmtree(path.parent)

    @cases(25)
    @given(forgeries)
    def fuzz(changes: list[Forgery]) -> None:
        asyncio.run(check(forged(changes)))

    fuzz()
    print(f"\nfuzz, forged histories: {dict(ran)}")
    assert ran["refused"] and ran["imported"]


def test_what_was_not_forged_is_imported(tmp_path: Path) -> None:
    lines = signed(events())
    store = MemoryStore()
    assert asyncio.run(import_lines(store, lines)).written == len(lines) - 1
    assert [json_line(json.loads(line)) for line in lines] == lines
