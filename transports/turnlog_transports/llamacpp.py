"""The process that runs llama.cpp: `python -m turnlog_transports.llamacpp FILE.gguf`.

The one rule: it lives no longer than whoever started it. Its stdin is a pipe that nobody writes to,
and it leaves when that ends; a crash in here is the end of this process, not of the one with the
log. It needs the extra `local`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Protocol, cast

PACKAGE = "xllamacpp"


class _Model(Protocol):
    path: str


class _Params(Protocol):
    model: _Model


class _Server(Protocol):
    @property
    def listening_address(self) -> str: ...


class _Package(Protocol):
    """What is used of xllamacpp, which has no types."""

    def CommonParams(self) -> _Params: ...

    def Server(self, params: _Params, /) -> _Server: ...


def start(model: Path) -> _Server:
    """A server on loopback that has loaded its model; it answers until it is let go."""
    package = cast(_Package, import_module(PACKAGE))
    params = package.CommonParams()
    params.model.path = str(model)
    for name, value in {
        "hostnames": ["127.0.0.1"],
        "port": 0,
        "model_alias": {model.stem},
        # Any page in a browser can reach loopback, and is told nothing.
        "cors_origins": "",
        "ui": False,
        "endpoint_slots": False,
        # Prompts of other conversations; the default of 8 GiB is meant for servers.
        "cache_ram_mib": 256,
        "verbosity": 1,
    }.items():
        setattr(params, name, value)
    return package.Server(params)


def main(
    arguments: Sequence[str] | None = None,
    *,
    stdin: IO[bytes] | None = None,
    leave: Callable[[int], object] = os._exit,
) -> None:
    """Serve, print the address once the model is loaded, and leave at the end of stdin."""
    (model,) = sys.argv[1:] if arguments is None else arguments
    try:
        server = start(Path(model))
    except Exception as error:
        # Whatever it is, it ends this process; who started it shows the line.
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    print(server.listening_address, flush=True)
    (stdin or sys.stdin.buffer).read()
    # At once: the server's own way out waits until it has said everything, up to half a minute.
    leave(0)


if __name__ == "__main__":
    main()
