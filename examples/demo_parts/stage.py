"""The stage of the demo: what is printed, what is expected, and the processes on it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.rule import Rule

from turnlog.canonical import JsonObject

EXAMPLES = Path(__file__).resolve().parent.parent
console = Console(highlight=False, soft_wrap=True)


class Unexpected(Exception):
    """Something that the demo promises was not so, or a process of its own died."""


def scene(number: int, title: str) -> None:
    """Open a scene."""
    console.print()
    console.print(Rule(f"[bold]{number}  {title}[/]", align="left", style="dim"))


def tell(text: str) -> None:
    """What happens, and why."""
    console.print(f"  {text}")


def expect(holds: bool, what: str) -> None:
    """Say that something is so; raises Unexpected where it is not."""
    if not holds:
        raise Unexpected(f"not so: {what}")
    console.print(f"  [bold green]✓[/] {what}")


async def until(worker: asyncio.subprocess.Process, holds: Callable[[], bool]) -> None:
    """Wait for something that a worker does, for half a minute; raises Unexpected if it dies."""
    for _ in range(3_000):
        if holds():
            return
        if worker.returncode is not None:
            raise _died(worker)
        await asyncio.sleep(0.01)


def _died(worker: asyncio.subprocess.Process) -> Unexpected:
    return Unexpected(f"worker {worker.pid} died with status {worker.returncode}: see above")


class Heard(TypedDict):
    """A request that the provider got, and its size in bytes."""

    carrier: str
    method: str
    size: int
    body: JsonObject | None


@dataclass(frozen=True)
class Provider:
    """The simulator, in a process of its own."""

    base_url: str
    process: asyncio.subprocess.Process

    async def heard(self, command: str = "heard") -> list[Heard]:
        """The creates that reached it so far."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{command}\n".encode())
        requests: list[Heard] = json.loads(await self.process.stdout.readline())
        return [one for one in requests if one["method"] in ("POST", "response.create")]

    async def take_websocket_away(self) -> None:
        """Close the open WebSockets, and refuse new ones."""
        await self.heard("websocket off")


@asynccontextmanager
async def provider() -> AsyncGenerator[Provider]:
    """Run the provider until the block ends."""
    process = await _start("demo_parts.provider", piped=True)
    try:
        assert process.stdin is not None and process.stdout is not None
        base_url = (await process.stdout.readline()).decode().strip()
        if not base_url:
            raise Unexpected("the simulator died: see above")
        yield Provider(base_url, process)
        process.stdin.close()
    except BaseException:
        process.kill()
        raise
    finally:
        await process.wait()


@dataclass(frozen=True)
class Workplace:
    """Where workers work: the database, the provider, and the file with the effects."""

    database: Path
    effects: Path
    base_url: str

    @asynccontextmanager
    async def worker(
        self, *verb: str, **environment: str
    ) -> AsyncGenerator[asyncio.subprocess.Process]:
        """A worker at work; it does not outlive the block."""
        where = (str(self.database), self.base_url, str(self.effects))
        process = await _start("demo_parts.worker", *where, *verb, environment=environment)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *verb: str) -> None:
        """Run a worker to its end; raises Unexpected where it fails."""
        async with self.worker(*verb) as process:
            if await process.wait() != 0:
                raise _died(process)


async def _start(
    module: str, *arguments: str, piped: bool = False, environment: dict[str, str] | None = None
) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE if piped else None
    # In a session of its own, Ctrl-C reaches the demo alone, which then ends the others.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=pipe,
        stdout=pipe,
        cwd=EXAMPLES,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
