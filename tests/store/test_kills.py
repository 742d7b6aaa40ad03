"""A process is killed while it appends: what it said was written is there (storage, section 1)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from turnlog.store import open_store
from turnlog.testing.store_contract import Author, begun

WRITER = """
import asyncio, sys
from turnlog.store import open_store
from turnlog.testing.store_contract import Author, added, begun

async def main(path, name):
    store = await open_store(path)
    async def write(author):
        await store.append(author.begin())
        await store.append(author.write(begun(), turn="t", lease="acquire", epoch=1))
        while True:
            append = author.write(added("a"), added("b"), turn="t", lease="keep", epoch=1)
            await store.append(append)
            print("ACK", *(one.id for one in append.events), flush=True)
    await asyncio.gather(*(write(Author(f"{name}-{n}")) for n in range(3)))

asyncio.run(main(*sys.argv[1:]))
"""

KILLS = 5


def killed_writer(path: Path, name: str, acks: int) -> set[str]:
    """The event ids that a writer acknowledged before it was killed."""
    command = [sys.executable, "-c", WRITER, str(path), name]
    acked: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            if number == acks:
                process.send_signal(signal.SIGKILL)
            if line.endswith("\n"):
                acked.update(line.split()[1:])
    return acked


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    acked: set[str] = set()
    for number in range(KILLS):
        acked |= killed_writer(path, f"w{number}", acks=1 + number * 3)
    store = await open_store(path)
    try:
        found: list[str] = []
        positions: list[int] = []
        while page := await store.follow({0: positions[-1] if positions else 0}):
            positions += [position for _, position, _ in page]
            found += [one.id for _, _, one in page]
        assert positions == list(range(1, len(positions) + 1))
        assert len(found) == len(set(found))
        assert acked and acked <= set(found)
        rows = await store.conversations()
        for row in rows:
            assert await store.check(row.id) == []
        assert await store.orphans() == [row.id for row in rows if row.orphaned]
        assert len(await store.orphans()) >= KILLS
        orphan = (await store.orphans())[0]
        head = await store.head(orphan)
        assert head is not None and not head.alive
        author = Author(orphan, made=10_000)
        author.state = head.state
        takeover = author.write(begun("next"), turn="u", lease="acquire", epoch=head.epoch + 1)
        await store.append(takeover)
        assert orphan not in await store.orphans()
    finally:
        await store.close()
