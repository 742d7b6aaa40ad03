"""Which profile an address has, what each promises, and where that comes from."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from turnlog.errors import ConfigurationError
from turnlog.ports import Profile
from turnlog_transports.profiles import (
    AZURE,
    GENERIC,
    LOCAL,
    OPENAI,
    OPENROUTER,
    PROFILES,
    VERCEL,
    XAI,
    profile_for,
)

ROOT = Path(__file__).parent.parent.parent
ALL = sorted(PROFILES)


# -- which one -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "profile"),
    [
        (None, OPENAI),
        ("https://api.openai.com/v1", OPENAI),
        ("https://eu.api.openai.com/v1", OPENAI),
        ("wss://API.openai.com", OPENAI),
        ("https://acme.openai.azure.com/openai/v1", AZURE),
        ("https://acme.services.ai.azure.com/openai/v1/", AZURE),
        ("https://acme.cognitiveservices.azure.com/openai/v1", AZURE),
        ("wss://api.x.ai/v1/responses", XAI),
        ("https://openrouter.ai/api/v1", OPENROUTER),
        ("https://ai-gateway.vercel.sh/v1", VERCEL),
    ],
)
def test_an_address_suggests_a_profile(base_url: str | None, profile: Profile) -> None:
    assert profile_for(base_url) is profile


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8080/v1",
        "https://notapi.openai.com.evil/v1",
        "https://evilapi.openai.com/v1",
        "https://evilopenai.azure.com/openai/v1",
        "https://openai.azure.com.evil/v1",
        "https://max.ai/v1",
        "https://.openai.azure.com@evil/v1",
        "nonsense",
        "http://[",
        "",
    ],
)
def test_any_other_address_is_generic(base_url: str) -> None:
    """Also one that only looks like a provider's: a name ends where a dot is."""
    assert profile_for(base_url) is GENERIC


def test_a_name_wins_over_the_address() -> None:
    assert profile_for("http://127.0.0.1:8080/v1", "openai") is OPENAI
    assert profile_for("https://api.openai.com/v1", "generic") is GENERIC
    assert {name: profile_for(None, name) for name in ALL} == PROFILES


def test_a_name_that_is_none_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ConfigurationError, match="'opnai': use one of azure, generic, local, open"):
        profile_for(None, "opnai")


# -- what they promise ---------------------------------------------------------------------


@pytest.mark.parametrize("profile", [GENERIC, LOCAL, OPENROUTER], ids=lambda each: each.name)
def test_a_server_that_keeps_nothing_is_sent_full_requests_by_http(profile: Profile) -> None:
    assert not (profile.websocket or profile.stored_ids or profile.store_default)
    assert not (profile.retrieve or profile.background or profile.lanes or profile.compact)


@pytest.mark.parametrize("name", ALL)
def test_every_address_of_its_own_is_at_its_own_host(name: str) -> None:
    profile = PROFILES[name]
    if profile.base_url is not None and profile is not LOCAL:
        assert profile_for(profile.base_url) is profile


@pytest.mark.parametrize("name", ALL)
def test_what_needs_something_else_is_promised_with_it(name: str) -> None:
    profile = PROFILES[name]
    assert profile.websocket or not profile.lanes
    assert profile.retrieve or not profile.background
    assert bool(profile.reasoning_models) == profile.reasoning_replay


def test_a_local_server_needs_no_key() -> None:
    assert LOCAL.key_env is None
    assert len({each.key_env for each in PROFILES.values()}) == len(PROFILES) - 1  # two: OpenAI's


@pytest.mark.parametrize("name", ALL)
def test_every_promise_that_is_not_the_default_says_where_it_comes_from(name: str) -> None:
    profile = PROFILES[name]
    default = Profile(name=name)
    facts = [one.name for one in fields(Profile) if one.name not in ("name", "sources")]
    told = {fact for fact in facts if getattr(profile, fact) != getattr(default, fact)}
    assert told <= profile.sources.keys()
    assert profile.sources.keys() <= set(facts)
    assert all(source.strip() for source in profile.sources.values())


def test_a_profile_can_be_replaced_in_part() -> None:
    own = replace(OPENAI, name="own", lanes=False)
    assert (own.lanes, own.websocket, OPENAI.lanes) == (False, True, True)


@pytest.mark.parametrize(
    ("profile", "model", "reasons"),
    [
        (OPENAI, "gpt-5", True),
        (OPENAI, "gpt-5.5-mini", True),
        (OPENAI, "gpt-6", True),
        (OPENAI, "gpt-10", True),
        (OPENAI, "o3", True),
        (OPENAI, "o4-mini", True),
        (OPENAI, "codex-mini-latest", True),
        (OPENAI, "gpt-5-chat-latest", False),
        (OPENAI, "gpt-5.2-chat-latest", False),
        (OPENAI, "gpt-4o", False),
        (OPENAI, "gpt-4.1", False),
        (OPENAI, "omni", False),
        (XAI, "grok-4.5", True),
        (XAI, "grok-4-1-fast-reasoning", True),
        (XAI, "grok-4-1-fast-non-reasoning", False),
        (XAI, "grok-3", False),
    ],
)
def test_which_models_are_asked_for_encrypted_reasoning(
    profile: Profile, model: str, reasons: bool
) -> None:
    assert bool(re.match(profile.reasoning_models, model)) is reasons


def test_the_page_about_them_is_current() -> None:
    script = ROOT / "scripts" / "providers_md.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True, cwd=ROOT)
