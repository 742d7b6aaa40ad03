"""From the options of a command to an open log.

The one rule: a command that only looks opens read-only and without a transport, and none but `chat`
and `import` makes a database.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from secrets import token_hex
from typing import TypeVar, cast

from ..agent import Agent
from ..canonical import Json, loads
from ..errors import ConfigurationError, InvalidInput, NotFound, NotSupported
from ..limits import Limits
from ..log import Opening, find_transport
from ..log import open as open_log
from ..ports import Endpoint, Frame, Late, Profile, Request, Transport
from ..state import Parent
from ..store import IN_MEMORY
from .options import pairs

T = TypeVar("T")


def run(work: Coroutine[object, object, T]) -> T:
    """Run a command's work on a loop of its own."""
    return asyncio.run(work)


class Nowhere:
    """The transport of commands that ask no provider anything: it leads nowhere."""

    profile = Profile(name="none", key_env=None)

    def check(self) -> None:
        """Raise NotSupported: nothing can go out."""
        self._frame()

    def choose(
        self, *, before: str | None = None, failed: bool = False, background: bool = False
    ) -> str:
        """`none`."""
        return "none"

    def remembers(self, parent: Parent, *, via: str, conversation: str) -> bool:
        """Nothing is remembered."""
        return False

    def on_late(self, tell: Callable[[Late], None]) -> None:
        """Nothing can be late."""

    async def warm(self) -> None:
        """Nothing to connect to."""

    async def send(self, request: Request) -> AsyncGenerator[Frame]:
        """Raise NotSupported: nothing is sent."""
        yield self._frame()

    def _frame(self) -> Frame:
        raise NotSupported("this command asks no provider: use `turnlog chat` or `turnlog resume`")

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The options that say how to reach a provider, and which agents there are."""

    agents: str | None = None
    transport: str | None = None
    base_url: str | None = None
    profile: str | None = None
    script: str | None = None
    transcript: str | None = None
    option: Sequence[str] | None = None

    @property
    def offline(self) -> bool:
        """Whether a file answers, and no provider."""
        return self.script is not None or self.transcript is not None

    def options(self) -> dict[str, object]:
        """The transport's own options; a value that reads as JSON is that."""
        found: dict[str, object] = {
            name: _value(given) for name, given in pairs(self.option, "--option").items()
        }
        for name, path in (("script", self.script), ("transcript", self.transcript)):
            if path is not None:
                found[name] = path
        if self.offline:
            # The ids that a script makes up must not be those of an earlier run.
            found.setdefault("seed", token_hex(4))
        return found

    def name(self) -> str:
        """The transport; raises ConfigurationError where two options contradict each other."""
        if not self.offline:
            return self.transport or "auto"
        if self.transport not in (None, "replay"):
            raise ConfigurationError(
                f"--script and --transcript need --transport replay, not {self.transport}"
            )
        return "replay"

    def bound(self) -> list[Agent]:
        """The agents that `--agents` names."""
        return load_agents(self.agents) if self.agents is not None else []

    async def check(self) -> None:
        """Raise ConfigurationError where nothing can be sent: without a key, say."""
        if self.offline:
            return
        endpoint = self._opening("").endpoint
        profile, wrong = await self._wrong(endpoint)
        if wrong is None:
            return
        clear = replace(endpoint, allow_insecure=True)
        _, without = await self._wrong(clear)
        _, keyed = await self._wrong(replace(clear, key="some"))
        if without is not None and keyed is None and profile.key_env is not None:
            raise ConfigurationError(f"no key for {profile.name}: set {profile.key_env}") from wrong
        raise wrong

    async def _wrong(self, endpoint: Endpoint) -> tuple[Profile, ConfigurationError | None]:
        """What stands in the way of sending something there, if anything does."""
        transport = self._transport(endpoint)
        try:
            transport.check()
        except ConfigurationError as error:
            return transport.profile, error
        finally:
            await transport.close()
        return transport.profile, None

    def _transport(self, endpoint: Endpoint) -> Transport:
        with named(self.script or self.transcript):
            return find_transport(self.name(), endpoint)

    def open(self, db: str) -> Opening:
        """A log that can reach the provider."""
        opening = self._opening(db)
        return replace(opening, transport=self._transport(opening.endpoint))

    def _opening(self, db: str) -> Opening:
        return open_log(
            db,
            agents=self.bound(),
            transport=self.name(),
            base_url=self.base_url,
            profile=self.profile,
            options=self.options(),
        )


@contextmanager
def named(path: str | None) -> Generator[None]:
    """Have what is wrong with a file name the file, and once."""
    try:
        yield
    except InvalidInput as error:
        cause = error.__cause__
        if path is not None and isinstance(cause, OSError):
            raise InvalidInput(f"{path} cannot be read: {cause.strerror}") from error
        if path is None or path in str(error):
            raise
        raise InvalidInput(f"{path}: {error}") from error


def _value(given: str) -> Json:
    with suppress(InvalidInput):
        return loads(given)
    return given


def reading(db: str) -> Opening:
    """A log to look at; raises (when entered) NotFound where there is no such database."""
    return open_log(db, readonly=True, transport=Nowhere())


def writing(db: str) -> Opening:
    """A log to change, without a provider. Raises NotFound where there is no such database."""
    existing(db)
    return open_log(db, transport=Nowhere())


def making(db: str) -> Opening:
    """A log to change, without a provider; made where there is none.

    It takes in what another log held, whatever the limits there were.
    """
    return open_log(db, transport=Nowhere(), limits=Limits(item_bytes=None))


def is_new(db: str) -> bool:
    """Whether there is no such database so far."""
    return db not in IN_MEMORY and not os.path.exists(db)


def existing(db: str) -> str:
    """The database, which must be there; raises NotFound."""
    if is_new(db):
        raise NotFound(f"there is no database {db}: `turnlog chat {db} ID` makes one")
    return db


def load_agents(spec: str) -> list[Agent]:
    """The agents under `module:name`, from the current directory or what is installed.

    Raises ConfigurationError where there is no such module or name, or it holds something else;
    what the module itself raises comes through.
    """
    module_name, colon, name = spec.partition(":")
    if not module_name or not colon or not name:
        raise ConfigurationError(
            f"--agents takes MODULE:NAME, like app.agents:support; not {spec!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(
            f"there is no module {module_name!r} in {os.getcwd()} or installed: --agents takes"
            " MODULE:NAME"
        ) from error
    if not hasattr(module, name):
        raise ConfigurationError(f"{module_name} has no {name!r}: --agents takes MODULE:NAME")
    found: object = getattr(module, name)
    agents = _agents(found)
    if not agents:
        raise ConfigurationError(
            f"{spec} is no Agent and no list of them: it is {type(found).__name__}"
        )
    return agents


def _agents(found: object) -> list[Agent]:
    """The agents in what a module holds; none where anything else is among them."""
    many = cast("Sequence[object]", found) if isinstance(found, (list, tuple)) else [found]
    agents = [agent for agent in many if isinstance(agent, Agent)]
    return agents if len(agents) == len(many) else []
