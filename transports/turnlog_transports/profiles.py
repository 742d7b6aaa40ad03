"""What each provider can do, as values.

The one rule: a quirk of a provider is a field of its profile, never an `if` (design section 6).
What nobody could check is a `claim:`, and where a wrong one would cost money or a turn, it is off.
Whoever knows better says so: `dataclasses.replace(AZURE, lanes=True)`, or a Profile of one's own.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from turnlog.errors import ConfigurationError
from turnlog.ports import Profile

_OPENAI_REASONING = r"o\d|gpt-(?!\d[\d.]*-chat)(?:[5-9]|\d\d)|codex|computer-use"
"""To any other model, asking for encrypted reasoning is an error (400)."""

_STATELESS = "nothing is kept, so there is nothing to continue from, to ask about or to resume"

OPENAI = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    hosts=("api.openai.com", ".api.openai.com"),
    websocket=True,
    lanes=True,
    retrieve=True,
    background=True,
    compact=True,
    warm_by=frozenset({"websocket"}),
    reasoning_replay=True,
    reasoning_models=_OPENAI_REASONING,
    sources={
        "base_url": "the openai package: the default of `base_url`",
        "hosts": "the openai package: `data_residency` puts a region before api.openai.com",
        "websocket": "the guide websocket-mode",
        "lanes": "the guide websocket-mode: `stream_id`",
        "max_in_flight": "the guide websocket-mode: 16 at once, more are queued",
        "max_lanes": "the guide websocket-mode: 32 names for each connection",
        "connection_seconds": "the guide websocket-mode: 60 minutes",
        "stored_ids": "the guide conversation-state: `previous_response_id`",
        "store_default": "the openai package: `store` is true by default",
        "stored_for": "the guide your-data: 30 days",
        "retrieve": "the openai package: `responses.retrieve` and `responses.delete`",
        "background": "the guide background, and `starting_after` in the openai package",
        "compact": "the openai package: `responses.compact`",
        "warm_by": "the guide websocket-mode: `generate: false`",
        "reasoning_replay": "the guide reasoning: `reasoning.encrypted_content`",
        "reasoning_models": "claim: the names of models that take `reasoning.encrypted_content`",
        "key_env": "the openai package",
    },
)
"""The service itself, and what is faithful to it (the simulator)."""

AZURE = Profile(
    name="azure",
    hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
    websocket=True,
    retrieve=True,
    background=True,
    reasoning_replay=True,
    reasoning_models=_OPENAI_REASONING,
    key_env="AZURE_OPENAI_API_KEY",
    sources={
        "hosts": "Microsoft's pages on endpoints; the base URL ends in /openai/v1",
        "websocket": "Microsoft's guide `websockets`: wss://…/openai/v1/responses",
        "lanes": "claim: Microsoft's guide names no `stream_id`, so off",
        "connection_seconds": "claim: as OpenAI's",
        "stored_ids": "Microsoft's guide `responses`: chaining by `previous_response_id`",
        "store_default": "Microsoft's guide `responses`: stored unless `store` is false",
        "stored_for": "Microsoft's guide `responses`: 30 days",
        "retrieve": "Microsoft's guide `responses`: retrieve and delete",
        "background": "Microsoft's guide `responses`: background tasks, resumed by"
        " `starting_after`",
        "compact": "claim: nobody could check whether every region has it, so off",
        "reasoning_replay": "Microsoft's guide `responses`: encrypted reasoning items",
        "reasoning_models": "claim: deployments are named after their models",
        "key_env": "Microsoft's guide `responses`, and the openai package",
        "key_header": "Microsoft's guides `responses` and `websockets`: a key goes as a Bearer"
        " token, and so does an Entra token (`api-key` takes keys only)",
    },
)
"""Azure OpenAI, by its v1 address; a model is named by its deployment."""

XAI = Profile(
    name="xai",
    base_url="https://api.x.ai/v1",
    hosts=("api.x.ai", ".api.x.ai"),
    connection_seconds=1500.0,
    stored_ids=False,
    retrieve=True,
    reasoning_replay=True,
    reasoning_models=r"grok-4(?!.*non-reasoning)",
    key_env="XAI_API_KEY",
    unsupported=frozenset({"background"}),
    sources={
        "base_url": "xAI's guide `generate-text`",
        "hosts": "xAI's guide `generate-text`; claim: regions stand before api.x.ai",
        "websocket": "xAI's guide `websocket-mode` has it; off for the same reason as stored_ids",
        "lanes": "claim: xAI's guide names no `stream_id`, so off",
        "connection_seconds": "claim: clients of others rotate after 24 minutes",
        "stored_ids": "xAI's reference: `instructions` cannot be used with `previous_response_id`,"
        " and turnlog sends them with every request, so off (the whole history is billed anyway)",
        "store_default": "xAI's guide `comparison`: `store` is true by default",
        "stored_for": "xAI's guide `generate-text`: 30 days",
        "retrieve": "xAI's guide `generate-text`: retrieve and delete",
        "background": "xAI's reference: unsupported",
        "compact": "claim: xAI's reference lists it, and nobody could check it, so off",
        "reasoning_replay": "xAI's reference: `include` takes `reasoning.encrypted_content`",
        "reasoning_models": "claim: the names of models that reason",
        "key_env": "xAI's guide `generate-text`",
        "unsupported": "xAI's reference: `background`",
    },
)
"""xAI: stored, and asked in full each time."""

OPENROUTER = Profile(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    hosts=("openrouter.ai", ".openrouter.ai"),
    stored_ids=False,
    store_default=False,
    key_env="OPENROUTER_API_KEY",
    unsupported=frozenset({"previous_response_id"}),
    sources={
        "base_url": "OpenRouter's reference",
        "hosts": "OpenRouter's reference",
        "websocket": "claim: OpenRouter's reference names none, so off",
        "stored_ids": f"OpenRouter's reference, `responses`: stateless; {_STATELESS}",
        "store_default": "OpenRouter's reference, `responses`: `store: true` is refused (400)",
        "retrieve": "OpenRouter's reference, `responses`: stateless",
        "background": "OpenRouter's reference, `responses`: stateless",
        "reasoning_replay": "claim: depends on the model behind it, so off",
        "key_env": "OpenRouter's reference",
        "unsupported": "OpenRouter's reference, `responses`: `previous_response_id` is refused",
    },
)
"""OpenRouter's Responses API, a beta that keeps nothing: full requests, always."""

VERCEL = Profile(
    name="vercel",
    base_url="https://ai-gateway.vercel.sh/v1",
    hosts=("ai-gateway.vercel.sh",),
    websocket=True,
    stored_ids=False,
    store_default=False,
    key_env="AI_GATEWAY_API_KEY",
    sources={
        "base_url": "Vercel's guide `responses`",
        "hosts": "Vercel's guide `responses`",
        "websocket": "Vercel's guide `responses/websockets`: OpenAI's protocol, at the same path",
        "lanes": "claim: Vercel's guide names no `stream_id`, so off",
        "connection_seconds": "claim: as OpenAI's",
        "stored_ids": "claim: depends on the provider behind it, so off",
        "store_default": "claim: depends on the provider behind it, so off",
        "retrieve": "claim: depends on the provider behind it, so off",
        "background": "claim: depends on the provider behind it, so off",
        "compact": "claim: depends on the provider behind it, so off",
        "reasoning_replay": "claim: depends on the model behind it, so off",
        "key_env": "Vercel's guide `responses`",
    },
)
"""Vercel's AI Gateway: a WebSocket, whose connection remembers, and nothing stored."""

GENERIC = Profile(
    name="generic",
    stored_ids=False,
    store_default=False,
    sources={
        "stored_ids": f"claim: of a server that nobody knows; {_STATELESS}",
        "store_default": "claim: of a server that nobody knows",
        "key_env": "what clients of such servers are used to",
    },
)
"""A server that takes `POST /v1/responses` and promises nothing else: full requests, always."""

LOCAL = Profile(
    name="local",
    base_url="http://127.0.0.1:8080/v1",
    stored_ids=False,
    store_default=False,
    key_env=None,
    unsupported=frozenset({"previous_response_id", "input_file"}),
    sources={
        "base_url": "llama.cpp: the default port of its server",
        "websocket": "llama.cpp: its server answers by server-sent events only",
        "stored_ids": f"llama.cpp: `previous_response_id` is refused (400); {_STATELESS}",
        "store_default": "llama.cpp: nothing is stored",
        "retrieve": "llama.cpp: its server has no such path",
        "key_env": "llama.cpp: no key, unless its server is started with one",
        "unsupported": "llama.cpp: `previous_response_id` and `input_file` are refused",
    },
)
"""llama.cpp's server on this machine; several hosts are one, so it is chosen by name."""

PROFILES: dict[str, Profile] = {
    profile.name: profile for profile in (OPENAI, AZURE, XAI, OPENROUTER, VERCEL, GENERIC, LOCAL)
}


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
    return next((found for found in PROFILES.values() if _is_at(found, host)), GENERIC)


def _named(name: str) -> Profile:
    try:
        return PROFILES[name]
    except KeyError as error:
        known = ", ".join(sorted(PROFILES))
        raise ConfigurationError(
            f"there is no profile {name!r}: use one of {known}, or a Profile of your own"
        ) from error


def _is_at(profile: Profile, host: str) -> bool:
    return any(
        host.endswith(known) if known.startswith(".") else host == known for known in profile.hosts
    )


def _host(base_url: str) -> str:
    try:
        return urlsplit(base_url).hostname or ""
    except ValueError:
        return ""  # not a URL: whoever sends says so, with the address at hand
