"""An endpoint made definite: its address, its key, its options, and the life of a transport on it.

The one rule: a key is handed to the provider and to nobody else (law 15). It is not in a repr or
an error, it is not sent in the clear to anything but this machine, and it is masked in whatever
the provider says. The same holds for a proxy's password.

What a transport connects with: HTTP takes `tls`, `proxy` and `environment_proxies`; a WebSocket
takes `websocket_tls` and `websocket_proxy`, which are what `websockets.connect` calls `ssl` and
`proxy`. The query of the endpoint is in `url`, for both.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import re
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property, partial
from inspect import isawaitable
from ssl import SSLContext
from typing import Literal
from urllib.parse import urlsplit

from turnlog.errors import Closed, ConfigurationError, NotSent
from turnlog.ports import Endpoint, Profile

from . import wire
from .network import checked_proxy, environment_proxy, trusted
from .profiles import profile_for

CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key"})
"""Headers that carry a key: with one of them, no other key is needed."""

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Access:
    """How to reach one provider: addresses, headers and options, checked before they are used."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        given = endpoint.profile
        if not isinstance(given, Profile):
            given = profile_for(endpoint.base_url, given)
        self.profile: Profile = given

    def url(self, path: str = "responses", *, scheme: Literal["http", "ws"] = "http") -> str:
        """The address of a path; raises ConfigurationError where the base URL is not one."""
        base_url = self.endpoint.base_url or self.profile.base_url
        if base_url is None:
            raise ConfigurationError(
                f"the profile {self.profile.name!r} has no address of its own: give `base_url`"
            )
        address = wire.url(base_url, path, scheme=scheme)
        return wire.with_query(address, self.endpoint.query)

    @cached_property
    def loopback(self) -> bool:
        """Whether the address is on this machine, so that nothing on the way can listen."""
        return is_loopback(urlsplit(self.url()).hostname or "")

    @cached_property
    def tls(self) -> SSLContext | None:
        """Which certificates to trust; None for those that this machine trusts anyway.

        Made once. Raises ConfigurationError for a file that cannot be used.
        """
        tls = self.endpoint.tls
        return None if tls is None else trusted(tls)

    @property
    def websocket_tls(self) -> SSLContext | Literal[True] | None:
        """The argument `ssl` of `websockets.connect`: None where nothing is encrypted."""
        if urlsplit(self.url(scheme="ws")).scheme == "ws":
            return None
        return self.tls or True

    @property
    def proxy(self) -> str | None:
        """The proxy of the endpoint, this machine's own included; raises ConfigurationError."""
        proxy = self.endpoint.proxy
        return None if proxy is None else checked_proxy(proxy)

    @property
    def environment_proxies(self) -> bool:
        """Whether the proxies of the environment count.

        What goes to this machine goes there directly, or its key would leave it.
        """
        return self.endpoint.proxy is None and not self.loopback

    @property
    def websocket_proxy(self) -> str | None:
        """The argument `proxy` of `websockets.connect`, with those of the environment looked up.

        Raises ConfigurationError for what is not the URL of a proxy.
        """
        if not self.environment_proxies:
            return self.proxy
        return environment_proxy(self.url(scheme="ws"))

    def check(self) -> None:
        """Raise ConfigurationError where no request can go out.

        That is: no usable address, key, header, proxy or file of certificates.
        """
        for name, value in self.endpoint.headers.items():
            if not _FIELD_NAME.fullmatch(name) or not _fits_header(value):
                raise ConfigurationError(
                    f"the header {name!r} cannot be sent: names are tokens, values printable ASCII"
                )
        if self._found_key() is None and not self._own_credentials() and not self.loopback:
            raise ConfigurationError(self._missing())
        self._check_clear()
        _ = self.proxy, self.tls  # each says what is wrong with it

    async def headers(self) -> dict[str, str]:
        """The headers of one request or connection, with the key asked for anew.

        Raises ConfigurationError as `check` does, and NotSent where a key callable fails.
        """
        self.check()
        found = {"User-Agent": "turnlog", **self.endpoint.headers}
        key = None if self._own_credentials() else await self._ask()
        if key is not None:
            name = self.profile.key_header
            found[name] = f"Bearer {key}" if name.lower() == "authorization" else key
        return found

    def option(self, name: str, default: float) -> float:
        """A number among the options; raises ConfigurationError where it is no positive one."""
        value = self.endpoint.options.get(name, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if math.isfinite(value) and value > 0:
                return value
        raise ConfigurationError(f"the option {name!r} must be a number above zero")

    def count(self, name: str) -> int | None:
        """A number of things among the options, None where it is not given: no limit."""
        if self.endpoint.options.get(name) is None:
            return None
        return math.ceil(self.option(name, 1))

    def known_options(self, known: Collection[str]) -> None:
        """Raise ConfigurationError for an option that nobody reads."""
        for name in self.endpoint.options:
            if name not in known:
                raise ConfigurationError(
                    f"this transport has no option {name!r}: it has {', '.join(sorted(known))}"
                )

    def _own_credentials(self) -> bool:
        mine = self.profile.key_header
        return any(carries_key(name, mine) for name in self.endpoint.headers)

    def _found_key(self) -> object:
        # A server on this machine needs no key, so the one for the world stays out of its sight.
        if self.endpoint.key is not None or self.loopback:
            return self.endpoint.key
        return os.environ.get(self.profile.key_env or "") or None

    async def _ask(self) -> str | None:
        key = self._found_key()
        if key is None:
            return None
        return self._usable(await _called(key) if callable(key) else key)

    def _usable(self, key: object) -> str:
        if not isinstance(key, str) or not key:
            raise ConfigurationError(self._missing())
        if not _fits_header(key) or " " in key:
            raise ConfigurationError(
                "the key holds characters that no header can carry, such as a line break:"
                " check where it was read from"
            )
        return key

    def _missing(self) -> str:
        env = self.profile.key_env
        hint = f", or set {env}" if env else ""
        return f"no key for {self.profile.name}: pass api_key=, text or a callable{hint}"

    def _check_clear(self) -> None:
        given = self._found_key()
        if given is not None and not callable(given):
            self._usable(given)
        keyed = given is not None or self._own_credentials()
        clear = self._unencrypted and not self._direct
        if keyed and clear and not self.endpoint.allow_insecure:
            raise ConfigurationError(
                f"{urlsplit(self.url()).netloc} would get the key in the clear: use https or wss,"
                " or allow it with allow_insecure=True"
            )

    @cached_property
    def _unencrypted(self) -> bool:
        return urlsplit(self.url()).scheme == "http"

    @property
    def _direct(self) -> bool:
        # Behind a proxy, what is called this machine is another one.
        proxy = self.proxy
        return self.loopback and (proxy is None or is_loopback(urlsplit(proxy).hostname or ""))


def masked(said: bytes, headers: Mapping[str, str], key_header: str = "Authorization") -> bytes:
    """What a provider said, without the keys that went out in these headers."""
    for name, value in headers.items():
        if carries_key(name, key_header) and value:
            # The scheme, as in `Bearer`, is no secret, and providers echo the key alone.
            said = said.replace(value.split(" ")[-1].encode(), b"***")
    return said


def carries_key(name: str, key_header: str) -> bool:
    """Whether a header of this name carries a key, where a profile's own is `key_header`."""
    return name.lower() in CREDENTIALS or name.lower() == key_header.lower()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _called(key: Callable[..., object]) -> object:
    # The callable is the application's, so any error may come out of it; nothing was sent.
    try:
        found = key()
        return await found if isawaitable(found) else found
    except Exception as error:
        raise NotSent(f"the callable that gives the key failed: {type(error).__name__}") from error


def _fits_header(value: str) -> bool:
    return value.isascii() and value.isprintable()


class Life:
    """Whether a transport is open, and a way to end everything that waits when it closes."""

    def __init__(self) -> None:
        self._closed = False
        self._waits: set[asyncio.Timeout] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def check(self) -> None:
        """Raise Closed where the transport was closed."""
        if self._closed:
            raise Closed("the transport was closed: open another one")

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncGenerator[Callable[[float | None], None]]:
        """Wait no longer than `seconds`: raises TimeoutError then, and Closed on `close`.

        Gives a function that moves the end to another time of the loop.
        """
        self.check()
        try:
            async with asyncio.timeout(seconds) as wait:
                with self._noted(wait):
                    yield partial(self._move, wait)
        except TimeoutError:
            self.check()
            raise

    async def close(self) -> None:
        """End every wait with Closed, now and from now on, and return when they have ended."""
        self._closed = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time())
        await self._quiet.wait()

    def _move(self, wait: asyncio.Timeout, when: float | None) -> None:
        # A wait that is over, or that ends because the transport closes, is not taken up again.
        if not self._closed and not wait.expired():
            wait.reschedule(when)

    @contextmanager
    def _noted(self, wait: asyncio.Timeout) -> Generator[None]:
        self._waits.add(wait)
        self._quiet.clear()
        try:
            yield
        finally:
            self._waits.discard(wait)
            if not self._waits:
                self._quiet.set()
