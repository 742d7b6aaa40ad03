"""What a client of the openai package lends: its address, key, headers, query and timeouts.

The one rule: openai is never imported, and nothing of the client is called. What it was made with
is read from its attributes; its retries and its HTTP client stay its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from .errors import ConfigurationError
from .ports import Timeouts

T = TypeVar("T")

_CLIENTS = frozenset({"OpenAI", "AsyncOpenAI"})
_AZURE = "BaseAzureClient"
_CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key"})

_NO_KEY = frozenset({"", "<missing API key>"})
"""What stands in a client's `api_key` where it has none, or keeps a callable instead."""

_CONNECT, _READ = 5.0, 600.0
"""openai's own timeouts: a client that has these was not given any."""

_DEPLOYMENT = re.compile(r"/deployments/[^/]+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """What a client was made with; None or empty where it, or whoever made it, said nothing.

    `key` is text, or a callable that returns it. It never appears in a repr (law 15).
    """

    base_url: str | None = None
    key: object = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    profile: str | None = None


def lent(client: object, *, base_url: str | None = None, api_key: object = None) -> Lent:
    """What a client lends, where `base_url` and `api_key`, said by the caller, are stronger.

    Raises ConfigurationError for what is no such client, and for one whose way to the provider
    cannot be said by an address, a key and headers.
    """
    found = Lent() if client is None else _read(client, base_url, api_key)
    if base_url is not None:
        found = replace(found, base_url=base_url, profile=None)
    if api_key is None:
        return found
    return replace(found, key=api_key, headers=_without(found.headers, _CREDENTIALS))


def _read(client: object, base_url: str | None, api_key: object) -> Lent:
    ancestry = {kind.__name__ for kind in type(client).__mro__}
    if not ancestry & _CLIENTS:
        raise ConfigurationError(
            f"client= takes an openai.AsyncOpenAI, not a {type(client).__name__}"
        )
    if api_key is None:
        _check_key(client)
    if base_url is None:
        _check_address(client)
    plain = Lent(
        base_url=str(getattr(client, "base_url", "")),
        key=_key(client),
        headers=_headers(client),
        query=_query(client),
        timeouts=_timeouts(getattr(client, "timeout", None)),
    )
    return _azure(client, plain) if _AZURE in ancestry else plain


# -- the address ---------------------------------------------------------------------------


def _check_address(client: object) -> None:
    websocket: object = getattr(client, "websocket_base_url", None)
    if websocket is not None and _place(websocket) != _place(getattr(client, "base_url", "")):
        raise ConfigurationError(
            "the client has a websocket_base_url that is not its base_url, and turnlog takes one"
            " address for both: pass base_url="
        )


def _place(address: object) -> tuple[str, str]:
    parts = urlsplit(str(address))
    return parts.netloc.lower(), parts.path.rstrip("/")


# -- the key -------------------------------------------------------------------------------


def _check_key(client: object) -> None:
    for name in ("workload_identity", "_provider"):
        if getattr(client, name, None) is not None:
            raise ConfigurationError(
                f"the client signs in by {name.strip('_')}=, which cannot be lent: pass api_key=,"
                " text or a callable that returns a token"
            )


def _key(client: object) -> object:
    """The callable that gives the key, which a client keeps apart from it, or the key."""
    callable_: object = getattr(client, "_api_key_provider", None)
    if callable_ is not None:
        return callable_
    key: object = getattr(client, "api_key", None)
    return key if isinstance(key, str) and key not in _NO_KEY else None


# -- what goes with every request ----------------------------------------------------------


def _headers(client: object) -> dict[str, str]:
    """The headers that somebody chose: openai's own, such as `X-Stainless-Lang`, are not theirs."""
    named: dict[str, object] = {
        "OpenAI-Organization": getattr(client, "organization", None),
        "OpenAI-Project": getattr(client, "project", None),
    }
    chosen = cast("Mapping[str, object]", getattr(client, "_custom_headers", {}))
    found = {**_without(named, {name.lower() for name in chosen}), **chosen}
    # What is no text says that a header is to be left out.
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _without(headers: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: value for name, value in headers.items() if name.lower() not in names}


def _query(client: object) -> dict[str, str]:
    chosen = cast("Mapping[str, object]", getattr(client, "default_query", {}))
    return {name: _parameter(name, value) for name, value in chosen.items() if value is not None}


def _parameter(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ConfigurationError(
        f"the client's default_query has {name!r}, a {type(value).__name__}: only text and numbers"
        " can be lent"
    )


def _timeouts(given: object) -> Timeouts:
    """Where the client has openai's defaults, turnlog's own stay."""
    if given is None:
        return replace(Timeouts(), first_frame=None, idle=None)
    connect, read = _seconds(given, "connect"), _seconds(given, "read")
    found = Timeouts()
    if connect is not None and connect != _CONNECT:
        found = replace(found, connect=connect)
    if read != _READ:
        found = replace(found, first_frame=read, idle=read)
    return found


def _seconds(given: object, name: str) -> float | None:
    found: object = given if isinstance(given, (int, float)) else getattr(given, name, None)
    return float(found) if isinstance(found, (int, float)) else None


# -- Azure ---------------------------------------------------------------------------------


def _azure(client: object, plain: Lent) -> Lent:
    """The same, at the v1 address of the resource, with the credential that the client would use.

    v1 has no deployment in its path, and refuses an `api-version`.
    """
    token: object = getattr(client, "_azure_ad_token", None)
    if token is None:
        token = getattr(client, "_azure_ad_token_provider", None)
    key = plain.key if token is None else token
    headers = dict(plain.headers)
    if token is None and isinstance(key, str):
        headers = {**_without(headers, {"api-key"}), "api-key": key}
        key = None
    return replace(
        plain,
        base_url=_v1(plain.base_url or ""),
        key=key,
        headers=headers,
        query={name: value for name, value in plain.query.items() if name != "api-version"},
        profile="azure",
    )


def _v1(address: str) -> str:
    parts = urlsplit(address)
    path = _DEPLOYMENT.sub("", parts.path.rstrip("/"))
    if path.endswith("/openai"):
        path += "/v1"
    return urlunsplit(parts._replace(path=path))
