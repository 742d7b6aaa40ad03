"""Secrets by name: what a tool definition or a setting needs, and no log may hold.

The one rule: a value exists only on the wire (law 15). The log and every repr hold the name, and
what a provider echoes is masked before it is recorded. `to_wire` is for tool definitions and
settings alone: what users and models say is never looked through for names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import BaseModel

from .canonical import Json, JsonObject, dumps, loads
from .errors import ConfigurationError, InvalidInput

MASK = "[secret]"
"""What stands in the log where a provider echoed the value of a secret."""

KEY = "$secret"
"""The one key of an object that names a secret."""

_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is looked up when a request goes out: `Secret("env:TOKEN")` (law 15).

    `reference` is what the log holds. Raises ConfigurationError for anything but `env:` and the
    name of an environment variable; what was passed is not repeated, since it may be the value.
    """

    reference: str

    def __post_init__(self) -> None:
        if not _REFERENCE.fullmatch(self.reference):
            raise ConfigurationError(
                "a secret is named, not given: put the value into an environment variable"
                ' and pass Secret("env:NAME")'
            )

    def reveal(self) -> str:
        """The value; raises ConfigurationError where the variable is unset or empty."""
        name = self.reference.removeprefix("env:")
        value = os.environ.get(name)
        if not value:
            raise ConfigurationError(f"the environment variable {name} is not set: a tool needs it")
        return value


def to_log(value: object) -> Json:
    """Plain JSON for the log: a secret becomes `{"$secret": "env:TOKEN"}`, a model a dict.

    The result shares nothing with the value (W-07). Raises InvalidInput for what is not JSON.
    """
    if value is None or isinstance(value, bool) or (type(value) is str and value.isascii()):
        return value  # what most settings are: saves 3 us for each
    try:
        plain = _plain(value)
    except RecursionError as error:
        raise InvalidInput("not a JSON value: it is nested too deeply, or holds itself") from error
    return loads(dumps(plain))


def to_wire(value: Json) -> Json:
    """The same JSON with the values of its secrets in their places; never to be logged.

    What holds none is handed back as it is, with its bytes where they are known. Raises
    ConfigurationError where a secret cannot be looked up.
    """
    return _revealed(value) if _secrets_in(value) else value


def values_in(value: Json) -> frozenset[str]:
    """The values of all secrets that stand in logged JSON: what `mask` has to look for.

    A secret that cannot be looked up has no value that could have been echoed.
    """
    return frozenset[str]().union(*map(_value_of, _secrets_in(value)))


def mask(value: Json, secrets: Collection[str]) -> Json:
    """The same JSON without these values, wherever in its text or keys they stand.

    A value is also found as JSON text spells it, since providers quote requests in their errors.
    """
    spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
    if not spellings:
        return value
    # The longest first: one secret may be a part of another.
    ordered = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
    return _masked(value, re.compile("|".join(map(re.escape, ordered))))


def check_plain(definition: Mapping[str, object]) -> None:
    """Raise ConfigurationError where an MCP tool holds a secret in plain text (law 15).

    `authorization` and every value of `headers` have to be a `Secret`.
    """
    if definition.get("type") != "mcp":
        return
    label = definition.get("server_label", "?")
    for place, entry in _sensitive(definition):
        if entry is not None and not _is_secret(entry):
            raise ConfigurationError(
                f"the MCP tool {label!r} has its {place} in plain text, which the log would keep:"
                ' pass turnlog.Secret("env:NAME")'
            )


def _sensitive(definition: Mapping[str, object]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [("authorization", definition.get("authorization"))]
    headers = definition.get("headers")
    if not isinstance(headers, Mapping):
        return [*found, ("headers", headers)]
    entries = cast("Mapping[object, object]", headers)
    if _is_secret(entries):
        return found
    return [*found, *((f"header {name!r}", entry) for name, entry in entries.items())]


def _is_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return _secret_in(cast("Mapping[str, Json]", value)) is not None
    return isinstance(value, Secret)


def _secret_in(value: JsonObject) -> Secret | None:
    """The secret that a logged object stands for; an object that merely resembles one is data."""
    reference = value.get(KEY)
    if len(value) != 1 or not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
        return None
    return Secret(reference)


def _secrets_in(value: Json) -> list[Secret]:
    """All secrets that stand in logged JSON, found without a call for each value in it."""
    found: list[Secret] = []
    rest = [value]
    for one in rest:  # which grows meanwhile
        if isinstance(one, (str, int, float)) or one is None:
            continue
        if not isinstance(one, (dict, Mapping)):  # a dict is found to be one sooner
            rest += one
        elif (secret := _secret_in(one)) is not None:
            found.append(secret)
        else:
            rest += one.values()
    return found


def _revealed(value: Json) -> Json:
    match value:
        case Mapping():
            secret = _secret_in(value)
            if secret is not None:
                return secret.reveal()
            return {key: _revealed(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_revealed(entry) for entry in value]
        case _:
            return value


def _value_of(secret: Secret) -> frozenset[str]:
    try:
        return frozenset((secret.reveal(),))
    except ConfigurationError:
        return frozenset()


def _plain(value: object) -> Json:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Secret():
            return {KEY: value.reference}
        case BaseModel():
            return _plain(value.model_dump(mode="json", by_alias=True, exclude_unset=True))
        case Mapping():
            entries = cast("Mapping[object, object]", value)
            return {_key(key): _plain(entry) for key, entry in entries.items()}
        case list() | tuple():
            return [_plain(entry) for entry in cast("list[object] | tuple[object, ...]", value)]
        case _:
            raise InvalidInput(f"a {type(value).__name__} is not JSON: pass dicts, lists and text")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"the keys of a JSON object are text, not {type(key).__name__}")
    return key


def _spellings(secret: str) -> set[str]:
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}


def _masked(value: Json, pattern: re.Pattern[str]) -> Json:
    match value:
        case str():
            return pattern.sub(MASK, value)
        case Mapping():
            return {pattern.sub(MASK, key): _masked(entry, pattern) for key, entry in value.items()}
        case list() | tuple():
            return [_masked(entry, pattern) for entry in value]
        case _:
            return value
