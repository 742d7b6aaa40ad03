"""Which profile an address has, and what the two profiles promise."""

import re

import pytest

from turnlog.errors import ConfigurationError
from turnlog_transports.profiles import GENERIC, OPENAI, profile_for


@pytest.mark.parametrize(
    "base_url",
    [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1", "wss://API.openai.com"],
)
def test_openais_addresses_have_openais_profile(base_url: str | None) -> None:
    assert profile_for(base_url) is OPENAI


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:8080/v1", "https://notapi.openai.com.evil/v1", "nonsense", "http://[", ""],
)
def test_any_other_address_is_generic(base_url: str) -> None:
    assert profile_for(base_url) is GENERIC


def test_a_name_wins_over_the_address() -> None:
    assert profile_for("http://127.0.0.1:8080/v1", "openai") is OPENAI
    assert profile_for(None, "generic") is GENERIC


def test_a_name_that_is_none_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ConfigurationError, match="'opnai': use one of generic, openai"):
        profile_for(None, "opnai")


def test_a_generic_server_is_sent_full_requests_by_http() -> None:
    assert not (GENERIC.websocket or GENERIC.stored_ids or GENERIC.store_default)
    assert not (GENERIC.retrieve or GENERIC.background or GENERIC.lanes)
    assert GENERIC.base_url is None


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-5", True),
        ("gpt-5.5-mini", True),
        ("gpt-6", True),
        ("gpt-10", True),
        ("o3", True),
        ("o4-mini", True),
        ("codex-mini-latest", True),
        ("gpt-5-chat-latest", False),
        ("gpt-5.2-chat-latest", False),
        ("gpt-4o", False),
        ("gpt-4.1", False),
        ("omni", False),
    ],
)
def test_which_models_are_asked_for_encrypted_reasoning(model: str, reasons: bool) -> None:
    assert bool(re.match(OPENAI.reasoning_models, model)) is reasons
