"""Addresses, keys and options of an endpoint, and the end of everything that waits on it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from turnlog.errors import Closed, ConfigurationError, NotSent
from turnlog.ports import Endpoint, Profile
from turnlog_transports import fallback, http, websocket
from turnlog_transports.endpoint import Access, Life, is_loopback, masked
from turnlog_transports.network import check_socks

from .clock import settle

SECRET = "sk-hush-hush"
OPEN = [fallback.open_transport, http.open_transport, websocket.open_transport]


def access(
    base_url: str | None = None,
    *,
    key: object = None,
    headers: Mapping[str, str] | None = None,
    profile: Profile | None = None,
    allow_insecure: bool = False,
) -> Access:
    return Access(
        Endpoint(
            base_url=base_url,
            key=key,
            headers=headers or {},
            profile=profile,
            allow_insecure=allow_insecure,
        )
    )


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


# -- keys ----------------------------------------------------------------------------------


def later(key: object) -> Callable[[], Awaitable[object]]:
    async def give() -> object:
        return key

    return give


@pytest.mark.parametrize("key", [SECRET, lambda: SECRET, later(SECRET)])
async def test_a_key_is_text_or_a_callable(key: object) -> None:
    found = access(key=key)
    found.check()
    assert (await found.headers())["Authorization"] == f"Bearer {SECRET}"


async def test_a_callable_is_asked_anew_each_time() -> None:
    keys = iter(["one", "two"])
    found = access(key=lambda: next(keys))
    assert [(await found.headers())["Authorization"] for _ in "ab"] == ["Bearer one", "Bearer two"]


async def test_the_environment_has_the_key_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    assert (await access().headers())["Authorization"] == "Bearer sk-env"
    assert (await access(key="own").headers())["Authorization"] == "Bearer own"


@pytest.mark.parametrize("open_transport", OPEN)
def test_a_missing_key_is_an_error_before_anything_is_sent(
    open_transport: Callable[[Endpoint], http.HttpTransport],
) -> None:
    with pytest.raises(ConfigurationError, match=r"no key for openai.*OPENAI_API_KEY"):
        open_transport(Endpoint()).check()


def test_a_profile_without_a_variable_names_none() -> None:
    profile = Profile(name="own", base_url="https://h/v1", key_env=None)
    with pytest.raises(ConfigurationError, match=r"no key for own: .* callable$"):
        access(profile=profile).check()


@pytest.mark.parametrize("key", ["", 7, lambda: None, later("")])
async def test_what_is_no_key_is_an_error(key: object) -> None:
    with pytest.raises(ConfigurationError, match="no key for openai"):
        await access(key=key).headers()


@pytest.mark.parametrize("key", [f"{SECRET}\n", f"{SECRET} x", f"{SECRET}é"])
def test_a_key_that_no_header_carries_is_an_error_that_does_not_say_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="no header can carry") as caught:
        access(key=key).check()
    assert SECRET not in str(caught.value)


async def test_a_callable_that_fails_sent_nothing() -> None:
    def fail() -> str:
        raise RuntimeError(SECRET)

    with pytest.raises(NotSent, match="RuntimeError") as caught:
        await access(key=fail).headers()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["Authorization", "api-key"])
async def test_headers_may_carry_the_key_themselves(name: str) -> None:
    found = access(headers={name: f"Bearer {SECRET}"}, key="unused")
    found.check()
    sent = await found.headers()
    assert sent[name] == f"Bearer {SECRET}"
    assert "unused" not in repr(sent)


@pytest.mark.parametrize(
    ("name", "value"), [("X Y", "a"), ("X", "a\r\nB: c"), ("X", "é"), ("", "")]
)
def test_a_header_that_cannot_be_sent_is_an_error(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent"):
        access(key="k", headers={name: value}).check()


def test_no_key_is_in_a_repr() -> None:
    endpoint = Endpoint(key=SECRET, headers={"api-key": SECRET})
    for shown in (endpoint, Access(endpoint), *(open_it(endpoint) for open_it in OPEN)):
        assert SECRET not in repr(shown)


def test_what_a_provider_repeats_of_a_key_is_masked() -> None:
    sent = {"Authorization": f"Bearer {SECRET}", "api-key": "", "X-Other": "wrong"}
    said = f"wrong key {SECRET}: Bearer {SECRET}".encode()
    assert masked(said, sent) == b"wrong key ***: Bearer ***"


# -- in the clear, and on this machine -----------------------------------------------------


@pytest.mark.parametrize("base_url", ["http://example.com/v1", "ws://10.0.0.1/v1"])
def test_a_key_does_not_go_out_in_the_clear_unless_that_is_allowed(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="in the clear"):
        access(base_url, key=SECRET).check()
    with pytest.raises(ConfigurationError, match="in the clear"):
        access(base_url, headers={"api-key": SECRET}).check()
    access(base_url, key=SECRET, allow_insecure=True).check()
    access("https://example.com/v1", key=SECRET).check()


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8080/v1", "ws://[::1]/v1"])
async def test_this_machine_needs_no_key_and_is_not_shown_the_one_for_the_world(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    found = access(base_url)
    found.check()
    assert await found.headers() == {"User-Agent": "turnlog"}
    assert (await access(base_url, key="own").headers())["Authorization"] == "Bearer own"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


# -- addresses and options -----------------------------------------------------------------


def test_the_default_address_is_the_profiles() -> None:
    assert access().url() == "https://api.openai.com/v1/responses"
    assert access().url(scheme="ws") == "wss://api.openai.com/v1/responses"


def test_a_profile_may_be_given_by_its_name() -> None:
    base_url = "http://127.0.0.1:8080/v1"
    assert Access(Endpoint(base_url=base_url, profile="openai")).profile.name == "openai"
    assert Access(Endpoint(base_url=base_url)).profile.name == "generic"


def test_a_profile_without_an_address_needs_one() -> None:
    with pytest.raises(ConfigurationError, match="give `base_url`"):
        access(profile=Profile(name="own")).check()


@pytest.mark.parametrize("open_transport", OPEN)
def test_an_address_that_is_none_is_an_error_before_anything_is_sent(
    open_transport: Callable[[Endpoint], http.HttpTransport],
) -> None:
    transport = open_transport(Endpoint(base_url="nonsense", key="k"))
    with pytest.raises(ConfigurationError, match="'nonsense' is not a base URL"):
        transport.check()


@pytest.mark.parametrize("open_transport", OPEN)
def test_an_option_that_nobody_reads_is_an_error(
    open_transport: Callable[[Endpoint], http.HttpTransport],
) -> None:
    with pytest.raises(ConfigurationError, match=r"no option 'max_size'.*max_frame_bytes"):
        open_transport(Endpoint(options={"max_size": 1}))


@pytest.mark.parametrize("value", [0, -1, True, "9", None, float("nan"), float("inf")])
def test_an_option_is_a_number_above_zero(value: object) -> None:
    with pytest.raises(ConfigurationError, match="'max_frame_bytes' must be a number"):
        http.open_transport(Endpoint(options={"max_frame_bytes": value}))


# -- the end -------------------------------------------------------------------------------


async def test_a_wait_ends_in_time() -> None:
    life = Life()
    with pytest.raises(TimeoutError):
        async with life.within(0):
            await asyncio.Event().wait()
    async with life.within(None):
        pass


async def test_closing_ends_every_wait_and_returns_behind_them() -> None:
    life, ended = Life(), list[str]()

    async def wait() -> None:
        with pytest.raises(Closed):
            async with life.within(60):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    ended.append("ended")

    tasks = [asyncio.create_task(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    await life.close()
    assert ended == ["ended"] * 3
    await asyncio.gather(*tasks)
    with pytest.raises(Closed):
        async with life.within(None):
            pass
    with pytest.raises(Closed):
        life.check()


async def test_the_end_of_a_wait_moves_unless_the_transport_closes() -> None:
    life, moves = Life(), list[Callable[[float | None], None]]()

    async def wait() -> None:
        async with life.within(0) as move:
            move(None)
            moves.append(move)
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await settle()
    assert not waiting.done()
    closing = asyncio.create_task(life.close())
    await asyncio.sleep(0)
    moves[0](None)
    with pytest.raises(Closed):
        await waiting
    await closing


async def test_closing_waits_for_a_wait_that_is_over_time_too() -> None:
    life, expired, go = Life(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        async with life.within(0):
            try:
                await asyncio.Event().wait()
            finally:
                expired.set()
                await go.wait()

    waiting = asyncio.create_task(wait())
    await expired.wait()
    closing = asyncio.create_task(life.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await closing
    with pytest.raises(Closed):
        await waiting


# -- what lies on the way ------------------------------------------------------------------


def test_the_query_of_the_endpoint_goes_behind_every_address() -> None:
    own = Endpoint(base_url="https://h/v1?a=1&b=2%20", query={"a": "3 &", "c": "ü"})
    found = Access(own)
    query = "b=2%20&a=3+%26&c=%C3%BC"
    assert found.url() == f"https://h/v1/responses?{query}"
    assert found.url(scheme="ws") == f"wss://h/v1/responses?{query}"
    assert Access(Endpoint(base_url="https://h", query={"a": "1"})).url("x") == "https://h/x?a=1"


async def test_a_profile_says_which_header_carries_the_key() -> None:
    own = Profile(name="own", base_url="https://h", key_header="X-Own-Key", key_env=None)
    found = access(profile=own, key=SECRET)
    assert await found.headers() == {"User-Agent": "turnlog", "X-Own-Key": SECRET}
    said = masked(f"wrong {SECRET}".encode(), await found.headers(), own.key_header)
    assert said == b"wrong ***"
    given = access(profile=own, headers={"x-own-key": SECRET}, key="unused")
    given.check()
    assert "unused" not in repr(await given.headers())


def reached(
    base_url: str = "https://h/v1",
    *,
    proxy: str | None = None,
    tls: ssl.SSLContext | str | None = None,
) -> Access:
    return Access(Endpoint(base_url=base_url, key="k", proxy=proxy, tls=tls))


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("nonsense", "nonsense"),
        ("ftp://h", "ftp://h"),
        ("http://", "http://"),
        ("http://h:0", "http://h:0"),
        ("http://h:99999", "http://h:99999"),
        ("http://h/path", "http://h/path"),
        (f"http://h?key={SECRET}", "http://h"),
        ("http://ü", "http://ü"),
        (f"u:{SECRET}@h", "***@h"),
        (f"ftp://u:{SECRET}@h", "ftp://***@h"),
        (f"http://{SECRET}@h", "http://***@h"),
    ],
)
@pytest.mark.parametrize("open_transport", OPEN)
def test_a_proxy_that_is_none_is_an_error_without_its_password(
    proxy: str, shown: str, open_transport: Callable[[Endpoint], http.HttpTransport]
) -> None:
    transport = open_transport(Endpoint(base_url="https://h/v1", key="k", proxy=proxy))
    with pytest.raises(ConfigurationError) as caught:
        transport.check()
    assert repr(shown) in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
def test_a_proxy_is_taken_as_it_is(scheme: str) -> None:
    proxy = f"{scheme}://user:{SECRET}@proxy.example.com:3128"
    found = reached(proxy=proxy)
    found.check()
    assert (found.proxy, found.websocket_proxy, found.environment_proxies) == (proxy, proxy, False)
    assert SECRET not in repr(found.endpoint)


@pytest.mark.parametrize("value", ["http://proxy:3128", "proxy:3128"])
def test_the_proxies_of_the_environment_count_except_for_this_machine(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "wss_proxy", "socks_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    world, machine = reached("https://example.com/v1"), reached("http://127.0.0.1/v1")
    assert (world.websocket_proxy, world.environment_proxies) == (None, True)
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert (world.proxy, world.websocket_proxy) == (None, "http://proxy:3128")
    assert (machine.websocket_proxy, machine.environment_proxies) == (None, False)
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert world.websocket_proxy is None


def test_behind_a_proxy_this_machine_is_another() -> None:
    base_url = "http://127.0.0.1/v1"
    reached(base_url, proxy="http://localhost:3128").check()
    with pytest.raises(ConfigurationError, match="in the clear"):
        reached(base_url, proxy="http://proxy.example.com:3128").check()


def test_a_socks_proxy_needs_a_module() -> None:
    proxy = f"socks5://u:{SECRET}@h:1080"
    check_socks(proxy, "ssl")
    check_socks("http://h", "no_such_module")
    check_socks(None, "no_such_module")
    with pytest.raises(ConfigurationError, match="install no-such-module") as caught:
        check_socks(proxy, "no_such_module")
    assert SECRET not in str(caught.value)


def test_certificates_are_those_of_a_context() -> None:
    own = ssl.create_default_context()
    found = reached(tls=own)
    assert (found.tls, found.websocket_tls) == (own, own)
    assert (reached().tls, reached().websocket_tls) == (None, True)
    assert reached("http://127.0.0.1", tls=own).websocket_tls is None


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nno\n"])
def test_a_file_without_certificates_is_an_error_that_names_it(
    content: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "own-ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"own-ca\.pem"):
        reached(tls=str(path)).check()
    with pytest.raises(ConfigurationError, match="certificates"):
        reached(tls="a\0b").check()
