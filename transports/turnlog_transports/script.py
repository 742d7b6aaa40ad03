"""Replies, for those who start from the transports: the same values as in `turnlog.testing`.

The one rule: nothing is defined here twice. A reply is a value of `turnlog.testing.scripts`; this
module reads them from JSON.
"""

from __future__ import annotations

from turnlog.testing.scripts import (
    Reply,
    Script,
    call,
    calls,
    error,
    failed,
    incomplete,
    item,
    reasoning,
    refusal,
    refuse_upgrade,
    reply,
    text,
)

__all__ = [
    "Reply",
    "Script",
    "call",
    "calls",
    "error",
    "failed",
    "incomplete",
    "item",
    "reasoning",
    "refusal",
    "refuse_upgrade",
    "reply",
    "text",
]
