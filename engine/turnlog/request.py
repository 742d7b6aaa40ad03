"""The body of a request, from the configuration in force, the settings of the turn, and items.

The one rule: the same facts give the same bytes (law 9). Pure; secrets stay by name until the
request goes out (law 15).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from hashlib import sha256

from . import events as ev
from .canonical import Json, JsonObject, array, text
from .errors import ConfigurationError, InvalidInput
from .inputs import check_parts
from .items import Encoded, Pair, encoded, legal, to_input
from .plan import Delta, Fork, Full
from .ports import Profile
from .secrets import KEY, to_wire
from .settings import check_supported, merge, request_fields

ENCRYPTED = "reasoning.encrypted_content"
OWN = ("model", "instructions")
"""Settings of a turn that are not fields of the settings, but stand beside them."""


def model_of(config: ev.ConversationConfigured, turn: JsonObject) -> str:
    """The model that a turn asks; raises ConfigurationError where nobody named one."""
    model = text(turn, "model") or config.model
    if model is None:
        raise ConfigurationError(
            "no model is configured: give one to the Agent, the conversation or the turn"
        )
    return model


def settings_of(config: ev.ConversationConfigured, turn: JsonObject) -> JsonObject:
    """The settings in force: the configuration's, then the turn's, which win (W-63)."""
    own = {key: value for key, value in turn.items() if key not in OWN}
    return merge(config.settings, own)


def is_stored(settings: JsonObject, profile: Profile) -> bool:
    """Whether the provider will keep the response, so that its id can be continued (W-13)."""
    return profile.stored_ids and settings.get("store", profile.store_default) is True


def is_background(settings: JsonObject) -> bool:
    """Whether the response goes on at the provider without anybody listening."""
    return settings.get("background") is True


def sendable(items: Sequence[JsonObject], asked: Collection[Pair]) -> list[JsonObject]:
    """What a request holds for items; `asked` are the calls of the chain that it continues.

    Nothing may be left of it, and an empty input is never sent (W-15).
    """
    return legal([to_input(item) for item in items], asked)


def body(
    config: ev.ConversationConfigured,
    turn: JsonObject,
    sent: Sequence[JsonObject],
    plan: Delta | Fork | Full,
    profile: Profile,
) -> JsonObject:
    """What `POST /v1/responses` takes, with secrets by name.

    `instructions` and `tools` go out with every request, since a continuation does not carry them
    (protocol 1.5). Raises ConfigurationError and InvalidInput before anything is sent.
    """
    settings, model = settings_of(config, turn), model_of(config, turn)
    found: dict[str, Json] = {"model": model}
    instructions = text(turn, "instructions") or config.instructions
    if instructions is not None:
        found["instructions"] = instructions
    found["input"] = Encoded(sent)
    if not isinstance(plan, Full):
        found["previous_response_id"] = plan.parent.response
    if config.tools:
        found["tools"] = Encoded(config.tools)
    fields = request_fields(settings, config.tools)
    found.update((name, value) for name, value in fields.items() if name != "tools")
    if _replays_reasoning(model, profile):
        asked = array(settings, "include")
        found["include"] = [*asked, *([] if ENCRYPTED in asked else [ENCRYPTED])]
    _check_background(settings, profile)
    check_supported(found, profile)
    check_parts(sent, profile)
    return found


def _check_background(settings: JsonObject, profile: Profile) -> None:
    if is_background(settings) and not profile.background:
        raise InvalidInput(
            f"the profile {profile.name!r} has no background responses: leave background= out, or"
            " give a profile whose provider has them"
        )


def _replays_reasoning(model: str, profile: Profile) -> bool:
    """Encrypted reasoning is asked for wherever it can be: a lost chain is rebuilt whole."""
    return profile.reasoning_replay and bool(re.match(profile.reasoning_models, model))


def revealed(body: JsonObject) -> JsonObject:
    """The body as it goes out, with the values of its secrets; never to be logged (law 15).

    What the conversation holds is sent as it is: a secret is named by who configures an agent, and
    never by who talks to it. Raises ConfigurationError where a secret cannot be looked up.
    """
    return {
        key: value if key == "input" or _is_plain(value) else to_wire(value)
        for key, value in body.items()
    }


def _is_plain(value: Json) -> bool:
    """Whether known bytes say that there is no secret in it: saves 40 us for ten tools."""
    return isinstance(value, Encoded) and KEY.encode() not in value.canonical


def sealed(body: JsonObject) -> tuple[str, int]:
    """SHA-256 (hex) of a body's canonical bytes, and how many they are; secrets stay by name."""
    raw = encoded(body)
    return sha256(raw).hexdigest(), len(raw)
