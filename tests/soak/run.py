"""One soak: the provider and the client as processes of their own, and what both found.

    python -m tests.soak.run <seed> <load> <seconds> <database> <how many conversations to look at>

The one rule: it prints one JSON object, `client` and `provider`, and judges nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

ROOT = Path(__file__).parents[2]


ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""What glibc is told, so that what is resident is what is in use, and not what was once.

It keeps a heap for each thread, each with what was freed in it: one has one such rest, and not five
that grow to the largest each in its time. And from the first large block that is freed it puts
blocks of that size on the heap (up to 32 MiB), where small ones stay behind between them: 9 MiB in
an hour. With a threshold that is given it does not, and the system has them back at once.
"""


def environment() -> dict[str, str]:
    """Ours, without what would have the processes measured: that takes memory and time."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return ALLOCATOR | ours


@contextmanager
def provider(seed: str, load: str) -> Generator[Popen[str]]:
    """A provider that runs until its input is closed."""
    command = [sys.executable, "-m", "tests.soak.provider", seed, load]
    process = Popen(command, cwd=ROOT, env=environment(), text=True, stdin=PIPE, stdout=PIPE)
    with process:
        try:
            yield process
        finally:
            process.kill()


def soak(
    seed: str, load: str, seconds: float, path: Path, looked_at: int, *, patience: float | None
) -> tuple[str, str]:
    """Run both, and return what the client and the provider printed, each a JSON object.

    Raises RuntimeError, CalledProcessError and TimeoutExpired.
    """
    with provider(seed, load) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError("the provider did not start: it says why above")
        command = [sys.executable, "-m", "tests.soak.client"]
        command += [seed, load, str(seconds), str(path.absolute()), base_url, str(looked_at)]
        client = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            text=True,
            stdout=PIPE,
            timeout=patience,
            check=True,
        )
        counted, _ = process.communicate(timeout=60)
    return client.stdout, counted


if __name__ == "__main__":
    given = sys.argv[1:]
    said = soak(given[0], given[1], float(given[2]), Path(given[3]), int(given[4]), patience=None)
    print(f'{{"client": {said[0].strip()}, "provider": {said[1].strip()}}}', flush=True)
