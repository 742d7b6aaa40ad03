"""turnlog: the durable record and continuation engine for LLM conversations.

    async with turnlog.open("agent.db", agents=[support]) as log:
        chat = await log.conversation("customer-42", agent=support)
        result = await chat.run("Where is my order?")

Names are loaded when they are first used. Errors are in `turnlog.errors`, events in
`turnlog.events`, and what tests are made of in `turnlog.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import Agent as Agent
    from .call import Call as Call
    from .checkpoints import Checkpoints as Checkpoints
    from .context import Item as Item
    from .conversation import Conversation as Conversation
    from .errors import TurnFailed as TurnFailed
    from .errors import TurnlogError as TurnlogError
    from .inputs import file as file
    from .inputs import image as image
    from .limits import Limits as Limits
    from .log import Log as Log
    from .log import open as open
    from .ports import Endpoint as Endpoint
    from .ports import Profile as Profile
    from .ports import Store as Store
    from .ports import Timeouts as Timeouts
    from .ports import Transport as Transport
    from .result import TurnResult as TurnResult
    from .running import Deferred as Deferred
    from .running import ToolContext as ToolContext
    from .secrets import Secret as Secret
    from .tools import Tool as Tool
    from .tools import tool as tool
    from .turn import Turn as Turn
    from .updates import Cursor as Cursor
    from .updates import Update as Update

_HOMES = {
    "Agent": "agent",
    "Call": "call",
    "Checkpoints": "checkpoints",
    "Conversation": "conversation",
    "Cursor": "updates",
    "Deferred": "running",
    "Endpoint": "ports",
    "Item": "context",
    "Limits": "limits",
    "Log": "log",
    "Profile": "ports",
    "Secret": "secrets",
    "Store": "ports",
    "Timeouts": "ports",
    "Tool": "tools",
    "ToolContext": "running",
    "Transport": "ports",
    "Turn": "turn",
    "TurnFailed": "errors",
    "TurnResult": "result",
    "TurnlogError": "errors",
    "Update": "updates",
    "file": "inputs",
    "image": "inputs",
    "open": "log",
    "tool": "tools",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
