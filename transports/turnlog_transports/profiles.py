"""What each provider can do, as values.

The one rule: a quirk of a provider is a field of its profile, never an `if` (design section 6).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from turnlog.errors import ConfigurationError
from turnlog.ports import Profile

OPENAI = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    websocket=True,
    lanes=True,
    stored_ids=True,
    store_default=True,
    retrieve=True,
    background=True,
    reasoning_replay=True,
    # To any other model, asking for encrypted reasoning is an error (400).
    reasoning_models=r"o\d|gpt-(?!\d[\d.]*-chat)(?:[5-9]|\d\d)|codex|computer-use",
)
"""The service itself, and what is faithful to it (the simulator)."""

GENERIC = Profile(
    name="generic",
    websocket=False,
    lanes=False,
    stored_ids=False,
    store_default=False,
    retrieve=False,
    background=False,
    reasoning_replay=False,
)
"""A server that takes `POST /v1/responses` and promises nothing else: full requests, always."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (OPENAI, GENERIC)}


def profile_for(base_url: str | None, name: str | None = None) -> Profile:
    """The profile with that name; without one, the profile that the address suggests.

    No address means the default one, OpenAI's; a host that nobody knows is `generic`. Raises
    ConfigurationError for a name that is not one.
    """
    if name is not None:
        return _named(name)
    if base_url is None:
        return OPENAI
    host = _host(base_url)
    ours = host == "api.openai.com" or host.endswith(".api.openai.com")
    return OPENAI if ours else GENERIC


def _named(name: str) -> Profile:
    try:
        return PROFILES[name]
    except KeyError as error:
        known = ", ".join(sorted(PROFILES))
        raise ConfigurationError(
            f"there is no profile {name!r}: use one of {known}, or a Profile of your own"
        ) from error


def _host(base_url: str) -> str:
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:
        return ""  # not a URL: whoever sends says so, with the address at hand
