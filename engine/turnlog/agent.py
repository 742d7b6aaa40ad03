"""Agents: frozen, named settings, and never a loop.

The one rule: an agent is checked when it is made and never changes, so that a process that
registers it at `open` can finish what another has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final, Unpack, cast

from .canonical import JsonObject, obj
from .errors import InvalidInput
from .events import ConversationConfigured
from .recovery import MAX_RETRIES
from .schemas import output_format
from .settings import Settings, fingerprint, merge, request_fields, with_format
from .tools import OnCrash, Tool, ToolLike
from .toolset import Toolset, bind

MAX_REQUESTS: Final = 20
MAX_PARALLEL_TOOLS: Final = 8


@dataclass(frozen=True, init=False)
class Agent:
    """Who answers: a name, a model, instructions, tools, and settings that go with each request.

    `tools` are functions, what `tool` made of them, and dicts for the provider's own tools.
    `output_type` asks for an answer of that type. `deps` is called once for each turn, to make
    what tools get as `ToolContext.deps`: a function, async or not, or one that returns an async
    context manager. `max_requests` bounds the requests of a turn, `max_retries` how often it sends
    one of them again (law 10), `max_parallel_tools` the tools that run at once. Everything else is
    a setting (see `Settings`).

    Raises InvalidInput for a name, tool, limit or setting that cannot be, and ConfigurationError
    for a secret in plain text (law 15).
    """

    name: str
    model: str | None
    instructions: str | None = field(repr=False)
    tools: tuple[ToolLike, ...] = field(repr=False)
    output_type: object
    deps: Callable[[], object] | None = field(repr=False)
    max_requests: int
    max_retries: int
    max_parallel_tools: int
    settings: JsonObject
    toolset: Toolset = field(repr=False, compare=False)

    def __init__(
        self,
        name: str,
        *,
        model: str | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolLike] = (),
        output_type: object = None,
        deps: Callable[[], object] | None = None,
        max_requests: int = MAX_REQUESTS,
        max_retries: int = MAX_RETRIES,
        max_parallel_tools: int = MAX_PARALLEL_TOOLS,
        **settings: Unpack[Settings],
    ) -> None:
        put = partial(object.__setattr__, self)
        put("name", _checked_name(name))
        put("model", _text_or_none("model=", model))
        put("instructions", _text_or_none("instructions=", instructions))
        put("output_type", output_type)
        put("deps", _checked_deps(deps))
        put("max_requests", _checked_limit("max_requests", max_requests))
        put("max_retries", _checked_limit("max_retries", max_retries, least=0))
        put("max_parallel_tools", _checked_limit("max_parallel_tools", max_parallel_tools))
        given = _checked_tools(tools)
        put("toolset", bind(given))
        put("tools", tuple(map(_owned, given)))
        put("settings", _settled(settings, output_type))
        request_fields(self.settings, self.toolset.definitions())

    @cached_property
    def configured(self) -> ConversationConfigured:
        """What the log has of it, secrets by name: made once, for many tools take long to encode.

        Each agent has its own. One that is equal may have other bytes: True is 1.
        """
        said = (self.model, self.instructions, self.toolset.definitions(), self.settings)
        model, instructions, tools, settings = said
        return ConversationConfigured(
            agent=self.name,
            model=model,
            instructions=instructions,
            tools=tools,
            settings=settings,
            fingerprint=fingerprint(self.name, *said),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the name and the configuration."""
        return self.configured.fingerprint

    def __hash__(self) -> int:
        return hash((self.name, self.model, self.instructions))


def _settled(settings: Mapping[str, object], output_type: object) -> JsonObject:
    merged = merge(settings)
    if output_type is None:
        return merged
    if "format" in obj(merged, "text"):
        raise InvalidInput("output_type= and the format in text= say the same thing: pass one")
    return with_format(merged, output_format(output_type))


def _checked_name(name: object) -> str:
    if isinstance(name, str) and name.strip() and len(name) <= 64:
        return name
    raise InvalidInput(f"the name of an agent is text of 1 to 64 characters, not {name!r}")


def _text_or_none(what: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        # Nothing said is nothing set (W-64).
        return value or None
    raise InvalidInput(f"{what} is text, not a {type(value).__name__}")


def _checked_tools(tools: object) -> tuple[ToolLike, ...]:
    if isinstance(tools, (list, tuple)):
        return tuple(cast("Sequence[ToolLike]", tools))
    raise InvalidInput(f"tools= is a list of tools, not a {type(tools).__name__}")


def _owned(given: ToolLike) -> ToolLike:
    """A dict is copied, so that whoever made it may go on with it (W-07)."""
    return deepcopy(cast("dict[str, object]", given)) if isinstance(given, Mapping) else given


def _checked_deps(deps: object) -> Callable[[], object] | None:
    if deps is None or callable(deps):
        return deps
    raise InvalidInput(
        f"deps= is a function that makes them, not a {type(deps).__name__}: pass lambda: …"
    )


def _checked_limit(what: str, value: object, *, least: int = 1) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise InvalidInput(f"{what}= is a whole number, {least} or more, not {value!r}")


def on_crash_of(agent: Agent | None) -> dict[str, OnCrash]:
    """What becomes of each tool's call after a crash, by name; nothing where no agent is bound."""
    tools = agent.toolset.tools if agent is not None else dict[str, Tool]()
    return {name: tool.on_crash for name, tool in tools.items()}
