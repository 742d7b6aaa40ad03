"""What lies between this machine and a provider: proxies, and certificates to trust.

The one rule: what cannot be used is an error before anything is sent, and the error names it
without the password that it may hold (law 15).
"""

from __future__ import annotations

import ssl
from importlib.util import find_spec
from urllib.parse import SplitResult, urlsplit

from websockets.proxy import get_proxy
from websockets.uri import parse_uri

from turnlog.errors import ConfigurationError

NO_CONNECTION_FREE = "no_connection_free"
"""The code of NotSent where the wait for a connection of the pool was over time."""

_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})


def checked_proxy(proxy: str) -> str:
    """The URL of a proxy as it is; raises ConfigurationError for what is not one."""
    parts = _parts(proxy)
    usable = parts is not None and parts.scheme in _PROXY_SCHEMES and bool(parts.hostname)
    if parts is None or not usable or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{shown_proxy(proxy)!r} is not the URL of a proxy:"
            " give one such as http://proxy.example.com:3128 or socks5://localhost:1080,"
            " as `proxy` or in the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY)"
        )
    if parts.username is not None and parts.password is None:
        raise ConfigurationError(f"the proxy {shown_proxy(proxy)!r} has a user name, no password")
    return proxy


def environment_proxy(address: str) -> str | None:
    """The proxy that the environment has for the address of a WebSocket, or None.

    Looked up here because `websockets.connect` would put a wrong one into its error, password
    and all. Raises ConfigurationError.
    """
    found = get_proxy(parse_uri(address))
    if found is None:
        return None
    return checked_proxy(found if "://" in found else f"http://{found}")


def shown_proxy(proxy: str) -> str:
    """The URL of a proxy for people to read: without its user name and password."""
    scheme, separator, _ = proxy.partition("://")
    _, at, host = proxy.rpartition("@")
    if not at:
        return proxy.partition("?")[0]
    return f"{scheme}://***@{host}" if separator else f"***@{host}"


def check_socks(proxy: str | None, module: str) -> None:
    """Raise ConfigurationError where a SOCKS proxy needs a module that is not installed."""
    if proxy is not None and urlsplit(proxy).scheme.startswith("socks") and not find_spec(module):
        raise ConfigurationError(
            f"the proxy {shown_proxy(proxy)!r} speaks SOCKS: install {module.replace('_', '-')}"
        )


def trusted(tls: ssl.SSLContext | str) -> ssl.SSLContext:
    """A context as it is, or a new one that trusts the certificates in a file and no others.

    Raises ConfigurationError, with the file's name, where it cannot be read or has none.
    """
    if not isinstance(tls, str):
        return tls
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"no certificates to trust in the file {tls!r} (tls): {why}"
        ) from error


def _parts(proxy: str) -> SplitResult | None:
    try:
        parts = urlsplit(proxy)
        in_range = parts.port != 0
    except ValueError:
        return None
    return parts if in_range and proxy.isascii() and proxy.isprintable() else None
