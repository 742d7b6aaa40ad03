"""What a turn costs beside the floors under it, measured in one run on one machine.

    python benchmarks/turns.py [turns]

Three tables, each a ratio against a floor of the same run: a turn over loopback against the bare
request (httpx2 with server-sent events, the `websockets` client), events written against raw
sqlite3 with one commit for each turn (WAL, synchronous=FULL), and the bytes that a turn adds to the
file against the same raw rows. Read ratios and not figures, and run nothing else meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from websockets.asyncio.client import connect

import turnlog

ANSWER = "Lorem ipsum dolor sit amet, consectetur. " * 15
QUESTION = "Where is my order, and when will it come? " * 5


@contextmanager
def provider() -> Generator[str]:
    """The simulator in a process of its own, saying back what it hears; its address."""
    command = [sys.executable, "-m", "turnlog_transports.simulator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def median(what: Callable[[], Awaitable[object]], turns: int) -> float:
    """The median time of a call, in milliseconds, after a tenth of them as a warm-up."""
    times: list[float] = []
    for _ in range(turns + turns // 10):
        begin = time.perf_counter()
        await what()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[turns // 10 :])


# -- a turn over loopback ------------------------------------------------------------------


async def raw_sse(base_url: str, turns: int) -> float:
    """One streamed request, read to its end."""
    body = {"model": "m", "input": QUESTION, "stream": True}
    async with httpx2.AsyncClient() as client:

        async def ask() -> None:
            async with client.sse(f"{base_url}/responses", method="POST", json=body) as events:
                async for _ in events:
                    pass

        return await median(ask, turns)


async def raw_websocket(base_url: str, turns: int) -> float:
    """One `response.create`, read to its terminal frame."""
    body = json.dumps({"type": "response.create", "model": "m", "input": QUESTION})
    url = base_url.replace("http", "ws", 1) + "/responses"
    async with connect(url, compression=None, max_size=None) as socket:

        async def ask() -> None:
            await socket.send(body)
            while b'"type":"response.completed"' not in await socket.recv(decode=False):
                pass

        return await median(ask, turns)


async def durable(folder: Path, base_url: str, transport: str, turns: int) -> float:
    """The same as a turn of a conversation, every event durable."""
    opening = turnlog.open(
        folder / f"{transport}.db", base_url=base_url, transport=transport, profile="openai"
    )
    async with opening as log:
        chat = await log.conversation("bench", model="m")
        return await median(lambda: chat.run(QUESTION), turns)


# -- events --------------------------------------------------------------------------------


def raw_sqlite(path: Path, bodies: list[list[bytes]]) -> float:
    """Rows with the same bytes, one commit for each turn; rows in a second."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE events (version INTEGER PRIMARY KEY, body BLOB)")
    begin = time.perf_counter()
    for rows in bodies:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events (body) VALUES (?)", [(row,) for row in rows])
        connection.execute("COMMIT")
    took = time.perf_counter() - begin
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return sum(map(len, bodies)) / took


async def added(folder: Path, turns: int) -> tuple[float, list[list[bytes]]]:
    """Four items a turn, in one append; events in a second, and what their bodies were."""
    async with turnlog.open(folder / "items.db", transport="replay", options={"script": []}) as log:
        chat = await log.conversation("bench", model="m")
        call = {"type": "function_call", "name": "f", "arguments": "{}"}
        output = {"type": "function_call_output", "output": "x" * 400}
        begin = time.perf_counter()
        for turn in range(turns):
            id = {"call_id": f"call_{turn}"}
            said = {"role": "assistant", "content": ANSWER}
            await chat.add(QUESTION, {**call, **id}, {**output, **id}, said)
        took = time.perf_counter() - begin
        bodies = [event.body for event in await chat.events(after=2)]
        return turns * 4 / took, [bodies[at : at + 4] for at in range(0, len(bodies), 4)]


def row(what: str, ours: float, floor: float, unit: str) -> None:
    """One line of a table."""
    print(f"{what:<34}{ours:>12,.2f}{floor:>12,.2f} {unit:<10}{ours / floor:>8.2f}")


async def main(turns: int) -> None:
    """Measure, and print the tables."""
    print(f"{turns} turns; {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, WAL/FULL")
    print(f"{'':<34}{'turnlog':>12}{'floor':>12} {'':<10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with provider() as url:
            floor = await raw_sse(url, turns)
            row("turn by HTTP", await durable(folder, url, "http", turns), floor, "ms")
            floor = await raw_websocket(url, turns)
            row("turn by WebSocket", await durable(folder, url, "websocket", turns), floor, "ms")
        events, bodies = await added(folder, turns)
        row("events, four items an append", events, raw_sqlite(folder / "raw.db", bodies), "per s")
        grown = (folder / "items.db").stat().st_size / turns
        raw = (folder / "raw.db").stat().st_size / turns
        row("bytes a turn of four items", grown, raw, "bytes")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
