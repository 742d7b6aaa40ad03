"""Addresses, keys and options of an endpoint, and the end of everything that waits on it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from turnlog.errors import Closed, ConfigurationError, NotSent
from turnlog.ports import Endpoint, Profile
from turnlog_transports import fallback, http, websocket
from turnlog_transports.endpoint import Access, Life, is_loopback, masked

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
