"""What a client of the openai package lends, and that it reaches the wire."""

import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, Timeout
from openai._constants import DEFAULT_TIMEOUT

import turnlog
from turnlog.errors import ConfigurationError
from turnlog.lending import Lent, lent
from turnlog.ports import Timeouts
from turnlog.testing import text
from turnlog_transports.simulator import Simulator

from ..transports.servers import Asked, completed, created, event, stream, web_server

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-hush-hush"
HERE = "http://127.0.0.1:1/v1"
ACME = "https://acme.openai.azure.com"


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "OPENAI_ADMIN_KEY",
        "OPENAI_CUSTOM_HEADERS",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_AD_TOKEN",
        "AZURE_OPENAI_ENDPOINT",
        "OPENAI_API_VERSION",
    ):
        monkeypatch.delenv(name, raising=False)


async def later() -> str:
    return KEY


def azure(
    *,
    api_key: str | Callable[[], Awaitable[str]] | None = None,
    token: str | None = None,
    provider: Callable[[], str | Awaitable[str]] | None = None,
    deployment: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncAzureOpenAI:
    return AsyncAzureOpenAI(
        azure_endpoint=f"{ACME}/",
        api_version="2025-04-01-preview",
        api_key=api_key,
        azure_ad_token=token,
        azure_ad_token_provider=provider,
        azure_deployment=deployment,
        default_headers=headers,
        default_query={"team": "red"},
    )


# -- address and key -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AsyncOpenAI, OpenAI])
def test_a_client_lends_its_address_and_key(kind: type[AsyncOpenAI] | type[OpenAI]) -> None:
    client = kind(api_key=KEY, base_url=HERE)
    assert lent(client) == Lent(base_url=f"{HERE}/", key=KEY)


def test_without_a_client_nothing_is_lent() -> None:
    assert lent(None) == Lent()
    assert lent(None, base_url=HERE, api_key=KEY) == Lent(base_url=HERE, key=KEY)


def test_a_callable_key_stays_one() -> None:
    assert lent(AsyncOpenAI(api_key=later, base_url=HERE)).key is later
    assert lent(OpenAI(api_key=lambda: KEY, base_url=HERE)).key is not None


def test_a_client_without_a_key_lends_none() -> None:
    assert lent(AsyncOpenAI(admin_api_key="sk-admin", base_url=HERE)).key is None


def test_the_key_is_in_no_repr() -> None:
    found = lent(azure(api_key=KEY, headers={"Authorization": KEY}))
    assert KEY not in repr(found) and KEY not in repr(lent(AsyncOpenAI(api_key=KEY)))


@pytest.mark.parametrize("client", ["sk-key", 7, SimpleNamespace(base_url=HERE, api_key=KEY)])
def test_what_is_no_client_is_an_error_that_says_so(client: object) -> None:
    with pytest.raises(ConfigurationError, match=r"takes an openai\.AsyncOpenAI, not a"):
        lent(client)


def test_a_client_that_signs_in_by_other_means_cannot_be_lent() -> None:
    client = AsyncOpenAI(
        base_url=HERE,
        workload_identity={
            "identity_provider_id": "i",
            "service_account_id": "s",
            "provider": {"token_type": "jwt", "get_token": lambda: "t"},
        },
    )
    with pytest.raises(ConfigurationError, match=r"workload_identity=.*pass api_key="):
        lent(client)
    assert lent(client, api_key=KEY).key == KEY


@pytest.mark.parametrize("same", ["ws://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/"])
def test_a_websocket_may_be_where_all_else_is(same: str) -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=HERE, websocket_base_url=same)
    assert lent(client).base_url == f"{HERE}/"


def test_a_websocket_elsewhere_cannot_be_lent() -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=HERE, websocket_base_url="ws://127.0.0.1:2/v1")
    with pytest.raises(ConfigurationError, match="one address for both: pass base_url="):
        lent(client)
    assert lent(client, base_url=HERE).base_url == HERE


# -- headers and query ---------------------------------------------------------------------


def test_headers_that_somebody_chose_are_lent() -> None:
    client = AsyncOpenAI(
        api_key=KEY,
        base_url=HERE,
        organization="org_a",
        project="proj_a",
        default_headers={"X-Team": "red", "openai-project": "proj_b"},
        default_query={"team": "red", "trace": True, "n": 3, "unset": None},
    )
    found = lent(client)
    assert found.headers == {
        "OpenAI-Organization": "org_a",
        "X-Team": "red",
        "openai-project": "proj_b",
    }
    assert found.query == {"team": "red", "trace": "true", "n": "3"}


def test_an_explicit_key_is_stronger_than_one_in_a_header() -> None:
    client = AsyncOpenAI(
        api_key="k", base_url=HERE, default_headers={"Authorization": "Bearer x", "X-Team": "red"}
    )
    assert lent(client).headers == {"Authorization": "Bearer x", "X-Team": "red"}
    assert lent(client, api_key=KEY).headers == {"X-Team": "red"}


def test_a_query_that_is_no_text_is_an_error() -> None:
    client = AsyncOpenAI(api_key=KEY, base_url=HERE, default_query={"ids": ["a", "b"]})
    with pytest.raises(ConfigurationError, match="'ids', a list: only text and numbers"):
        lent(client)


# -- timeouts ------------------------------------------------------------------------------


def timeouts(given: float | Timeout | None) -> Timeouts:
    return lent(AsyncOpenAI(api_key=KEY, base_url=HERE, timeout=given)).timeouts


def test_openais_own_timeouts_count_as_not_set() -> None:
    assert lent(AsyncOpenAI(api_key=KEY, base_url=HERE)).timeouts == Timeouts()
    assert timeouts(DEFAULT_TIMEOUT) == Timeouts()


def test_timeouts_that_somebody_set_are_lent() -> None:
    assert timeouts(30) == Timeouts(connect=30, first_frame=30, idle=30)
    assert timeouts(Timeout(600, connect=2.0)) == Timeouts(connect=2)
    assert timeouts(Timeout(45.0, connect=5.0)) == Timeouts(first_frame=45, idle=45)
    assert timeouts(None) == timeouts(Timeout(None)) == Timeouts(first_frame=None, idle=None)


# -- Azure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("deployment", [None, "my-gpt"])
def test_azure_comes_out_at_its_v1_address(deployment: str | None) -> None:
    """A deployment is a model in the body, and `api-version` is refused there."""
    found = lent(azure(api_key=KEY, deployment=deployment))
    assert (found.base_url, found.profile) == (f"{ACME}/openai/v1", "azure")
    assert (found.key, found.headers, found.query) == (None, {"api-key": KEY}, {"team": "red"})


@pytest.mark.parametrize(
    ("base_url", "address"),
    [
        (f"{ACME}/openai/v1/", f"{ACME}/openai/v1"),
        (f"{ACME}/openai/deployments/my-gpt", f"{ACME}/openai/v1"),
        ("https://gateway.acme.example/llm/", "https://gateway.acme.example/llm"),
    ],
)
def test_azure_by_its_base_url(base_url: str, address: str) -> None:
    found = lent(AzureOpenAI(base_url=base_url, api_version="preview", api_key=KEY))
    assert (found.base_url, found.profile) == (address, "azure")


def test_an_entra_token_is_a_bearer_token() -> None:
    provided = lent(azure(provider=later))
    assert (provided.key, provided.headers) == (later, {})
    assert lent(azure(token="token")).key == "token"
    assert lent(azure(api_key=later)).key is later


def test_azures_explicit_arguments_are_stronger() -> None:
    found = lent(azure(api_key="k"), base_url=HERE, api_key=KEY)
    assert (found.base_url, found.key, found.headers, found.profile) == (HERE, KEY, {}, None)


# -- on the wire ---------------------------------------------------------------------------


async def turn(client: object, transport: str = "http", profile: str | None = None) -> str:
    """A turn through a client."""
    agent = turnlog.Agent("a", model="gpt-5.5")
    async with turnlog.open(
        ":memory:", agents=[agent], client=client, transport=transport, profile=profile
    ) as log:
        chat = await log.conversation("c", agent=agent)
        return (await chat.run("Hi.")).output_text


@pytest.mark.parametrize("transport", ["http", "auto", "websocket"])
async def test_a_turn_runs_with_what_a_client_lends(transport: str) -> None:
    async with Simulator([text("Hello.")], key=KEY) as simulator:
        async with AsyncOpenAI(base_url=simulator.base_url, api_key=KEY) as client:
            assert await turn(client, transport, "openai") == "Hello."


async def asked(client: Callable[[str], object], profile: str | None = None) -> Asked:
    """What a server hears of a turn."""
    answer = stream(event(created("resp_1")), event(completed("resp_1")))
    async with web_server(answer) as web:
        await turn(client(web.url.removesuffix("/v1")), profile=profile)
        return web.asked[0]


async def test_what_somebody_chose_reaches_the_wire() -> None:
    heard = await asked(
        lambda url: AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=later,
            organization="org_a",
            project="proj_a",
            default_headers={"X-Team": "red"},
            default_query={"team": "red"},
        )
    )
    assert heard.path == "/v1/responses?team=red"
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["openai-organization"] == "org_a"
    assert heard.headers["openai-project"] == "proj_a"
    assert heard.headers["x-team"] == "red"
    assert not [name for name in heard.headers if name.startswith("x-stainless")]


async def test_azure_on_the_wire() -> None:
    def keyed(url: str) -> AsyncAzureOpenAI:
        return AsyncAzureOpenAI(
            azure_endpoint=url, api_version="v", api_key=KEY, azure_deployment="d"
        )

    def with_token(url: str) -> AsyncAzureOpenAI:
        return AsyncAzureOpenAI(azure_endpoint=url, api_version="v", azure_ad_token_provider=later)

    heard = await asked(keyed)
    assert (heard.path, heard.headers["api-key"]) == ("/openai/v1/responses", KEY)
    assert "authorization" not in heard.headers
    heard = await asked(with_token)
    assert (heard.path, heard.headers["authorization"]) == (
        "/openai/v1/responses",
        f"Bearer {KEY}",
    )
    assert "api-key" not in heard.headers


def test_openai_is_never_imported() -> None:
    code = "import sys, turnlog.log; print('openai' in sys.modules)"
    path = f"{ROOT / 'engine'}"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path},
    )
    assert ran.stdout == "False\n"
