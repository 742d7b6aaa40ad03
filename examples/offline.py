"""Whom the examples ask: OpenAI where there is a key, and otherwise a script."""

import os
from collections.abc import Callable

from turnlog import Transport
from turnlog.canonical import JsonObject
from turnlog.testing import Reply, scripted


def provider(*replies: Reply | Callable[[JsonObject], Reply]) -> str | Transport:
    """The transport for `turnlog.open`; the replies are for want of a key."""
    return "auto" if os.environ.get("OPENAI_API_KEY") else scripted(replies)
