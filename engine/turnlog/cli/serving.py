"""The command that runs a provider on this machine: serve-simulator.

The one rule: the simulator is found by entry point, like a transport; the engine never imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoints


class Running(Protocol):
    """A simulator that takes requests."""

    @property
    def base_url(self) -> str:
        """The address to give to clients."""
        ...


class Serve(Protocol):
    """What the entry point names: it serves until it is interrupted."""

    def __call__(
        self,
        host: str,
        port: int,
        *,
        script: str | None,
        transcript: str | None,
        key: str | None,
        connection_seconds: float | None,
        on_ready: Callable[[Running], None],
    ) -> None: ...


def serve_simulator(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    script: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON file with replies, in order.")
    ] = None,
    transcript: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON file with recorded exchanges.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="What clients must present, if anything.")] = None,
    connection_seconds: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="How long a WebSocket lives; for ever by default."),
    ] = None,
) -> None:
    """Run a provider on this machine.

    It takes HTTP and WebSocket, and echoes where it has no script. Prints its address, and serves
    until it is interrupted.
    """
    from importlib.metadata import entry_points

    from .opening import named

    serve = simulator(entry_points(group="turnlog.simulators", name="simulator"))
    with named(script or transcript):
        serve(
            host,
            port,
            script=script,
            transcript=transcript,
            key=key,
            connection_seconds=connection_seconds,
            on_ready=_announce,
        )


def _announce(running: Running) -> None:
    from .screen import Screen

    print(running.base_url, flush=True)
    Screen().note("serving until interrupted: give this address as --base-url")


def simulator(found: EntryPoints) -> Serve:
    """What the first of these entry points names; raises ConfigurationError where none is."""
    for entry in found:
        serve: Serve = entry.load()
        return serve
    raise ConfigurationError("no simulator is installed: install turnlog with its transports")
