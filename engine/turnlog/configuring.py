"""What goes with every request: the agent's configuration, under the conversation's.

The one rule: the later layer wins, and what is unset is absent (W-63, W-64). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .agent import Agent
from .canonical import JsonObject, text
from .errors import InvalidInput
from .events import ConversationConfigured
from .request import OWN
from .settings import fingerprint, merge

T = TypeVar("T")

MAX_ID = 256
"""The longest id of a conversation, in characters."""


def configured(agent: Agent, overrides: JsonObject) -> ConversationConfigured:
    """The configuration of an agent, with what the conversation's handle says instead."""
    return overridden(agent.configured, overrides) if overrides else agent.configured


def overridden(
    recorded: ConversationConfigured | None, overrides: JsonObject
) -> ConversationConfigured:
    """The recorded configuration, or none, with what the conversation's handle says instead."""
    if recorded is None:
        return _made(None, None, None, (), {}, overrides)
    return _made(
        recorded.agent,
        recorded.model,
        recorded.instructions,
        recorded.tools,
        recorded.settings,
        overrides,
    )


def _made(
    agent: str | None,
    model: str | None,
    instructions: str | None,
    tools: tuple[JsonObject, ...],
    settings: JsonObject,
    overrides: JsonObject,
) -> ConversationConfigured:
    own = {key: value for key, value in overrides.items() if key not in OWN}
    model = text(overrides, "model") or model
    instructions = text(overrides, "instructions") or instructions
    merged = merge(settings, own)
    return ConversationConfigured(
        agent=agent,
        model=model,
        instructions=instructions,
        tools=tools,
        settings=merged,
        fingerprint=fingerprint(agent, model, instructions, tools, merged),
    )


def check_id(id: object) -> str:
    """A conversation's id; raises InvalidInput for one that is empty, too long or not text."""
    if not isinstance(id, str) or not id:
        raise InvalidInput(f"a conversation's id is text that is not empty, not {id!r}")
    if len(id) > MAX_ID:
        raise InvalidInput(f"a conversation's id has at most {MAX_ID} characters, not {len(id)}")
    if not id.isprintable() or id != id.strip():
        raise InvalidInput(f"a conversation's id is printable, without spaces around it: {id!r}")
    return id


def check_key(key: object) -> str | None:
    """An idempotency key, or None; raises InvalidInput like `check_id`."""
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= MAX_ID):
        raise InvalidInput(f"an idempotency key is text of 1 to {MAX_ID} characters: {key!r:.40}")
    return key


def check_actor(by: object) -> str:
    """Who does it: text that is not empty. Raises InvalidInput."""
    if not isinstance(by, str) or not 0 < len(by) <= MAX_ID:
        raise InvalidInput(f"by= is text of 1 to {MAX_ID} characters, like 'user:42': {by!r:.40}")
    return by


def check_limit(what: str, limit: object, *, least: int = 1) -> int | None:
    """A limit of a turn, or None; raises InvalidInput for what is no number of at least `least`."""
    if limit is None or (type(limit) is int and limit >= least):
        return limit
    raise InvalidInput(f"{what}= is a whole number, {least} or more, not {limit!r:.40}")


def check_choice(name: str, value: T, choices: Sequence[T]) -> T:
    """One of a few words; raises InvalidInput, naming them, for any other value."""
    if value not in choices:
        known = " or ".join(f'"{choice}"' for choice in choices)
        raise InvalidInput(f"{name}= is {known}, not {value!r:.40}")
    return value


def check_text(name: str, value: object) -> str | None:
    """A model or instructions, or None; raises InvalidInput for what is not text."""
    if value is None or isinstance(value, str):
        return value
    raise InvalidInput(f"{name}= is text, not a {type(value).__name__}")
