"""What a client of the openai package lends: its address, its key and its headers.

The one rule: openai is never imported; what a client has is read from its public attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from .errors import ConfigurationError

_OWN = ("x-stainless", "authorization", "accept", "content-type", "user-agent")


def lent(client: object) -> tuple[str | None, object, dict[str, str]]:
    """The base URL, the key (text or a callable) and the headers that a client was made with.

    Raises ConfigurationError for what is no such client.
    """
    if client is None:
        return None, None, {}
    address: object = getattr(client, "base_url", None)
    if address is None:
        raise ConfigurationError(
            f"client= takes an openai.AsyncOpenAI, not a {type(client).__name__}"
        )
    key: object = getattr(client, "api_key", None)
    headers = cast("Mapping[str, object]", getattr(client, "default_headers", {}))
    return str(address), key or None, _own_headers(headers)


def _own_headers(headers: Mapping[str, object]) -> dict[str, str]:
    """The headers that somebody chose; those that the package adds by itself are left out."""
    return {
        name: value
        for name, value in headers.items()
        if isinstance(value, str) and not name.lower().startswith(_OWN)
    }
