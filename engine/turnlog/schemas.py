"""JSON schemas: of what a model may answer, and whether a provider will hold it to them.

The one rule: `strict` is claimed only where a schema satisfies the provider's subset (W-62). A
schema that nearly does is left as it is, with the reason; nothing is made nullable or required
behind its author's back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError

from .canonical import Json, JsonObject, array, dumps, loads_object, obj, text
from .errors import InvalidInput, OutputInvalid

UNDESCRIBABLE = (PydanticUserError, PydanticSchemaGenerationError, NameError)
"""What pydantic raises for a type that it cannot describe as a JSON schema."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""The names that the provider accepts for tools and formats."""

_STRICT_KEYWORDS = frozenset(
    "$defs $ref additionalProperties anyOf const definitions description enum exclusiveMaximum"
    " exclusiveMinimum format items maxItems maximum minItems minimum multipleOf pattern"
    " properties required title type".split()
)
_STRICT_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid")
)
_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_SHAPES = ("type", "anyOf", "$ref", "enum", "const")
_MOST_PROPERTIES, _MOST_LEVELS, _MOST_CHOICES = 5000, 10, 1000

_NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains")


class PlainSchema(GenerateJsonSchema):
    """pydantic's schemas without the titles that it derives from names: a model gains nothing."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Never: only a title that somebody wrote is kept."""
        return False

    def encode_default(self, dft: object) -> Json:
        """A default as JSON; one that is none (infinity, any object) is left out."""
        try:
            found = cast("Json", super().encode_default(dft))
            dumps(found)
        except InvalidInput as error:
            raise PydanticSerializationError(str(error)) from error
        return found

    def emit_warning(self, kind: object, detail: str) -> None:
        """Say nothing: that a default is left out is as it should be."""


# -- what the model answers ----------------------------------------------------------------


def output_format(output_type: object) -> JsonObject:
    """The `text.format` that asks for an `output_type`; its root is always an object.

    A type that is no object itself (a list, a number, a union) is wrapped as `{"value": …}`, which
    `parse_output` takes off again. Raises InvalidInput for a type that has no JSON schema.
    """
    schema, _ = _output_schema(output_type)
    strict = strict_schema(schema)
    return {
        "type": "json_schema",
        "name": _format_name(output_type),
        "schema": schema if strict is None else strict,
        "strict": strict is not None,
    }


def parse_output(output_type: object, text: str) -> object:
    """The validated value that an answer holds; raises OutputInvalid, which carries the text."""
    _, wrapped = _output_schema(output_type)
    try:
        data = dumps(_unwrap(text)) if wrapped else text
        return _adapter(output_type).validate_json(data)
    except ValidationError as error:
        reason = explain(error)
        raise OutputInvalid(f"the answer does not fit output_type: {reason}", text=text) from error
    except InvalidInput as error:
        raise OutputInvalid(f"the answer does not fit output_type: {error}", text=text) from error


def explain(error: ValidationError) -> str:
    """What does not fit, field by field, without the values; at most ten fields."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" if detail["loc"] else detail["msg"]
        for detail in details
    ]
    more = [f"and {len(lines) - 10} more"] if len(lines) > 10 else []
    return "; ".join([*lines[:10], *more])


def first_line(error: Exception) -> str:
    """What an error says, without the advice to library authors that pydantic adds."""
    return next(iter(str(error).splitlines()), "")


def _output_schema(output_type: object) -> tuple[JsonObject, bool]:
    """The schema of a type, and whether it had to be wrapped into an object."""
    try:
        schema = plain(_adapter(output_type).json_schema(schema_generator=PlainSchema))
    except UNDESCRIBABLE as error:
        raise InvalidInput(
            f"output_type {output_type!r} has no JSON schema: {first_line(error)}"
        ) from error
    if schema.get("type") == "object":
        return schema, False
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    wrapped: dict[str, Json] = {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
    }
    if "$defs" in schema:
        wrapped["$defs"] = schema["$defs"]
    return wrapped, True


def _unwrap(answer: str) -> Json:
    value = loads_object(answer)
    if set(value) != {"value"}:
        raise InvalidInput('an object with "value" alone is needed')
    return value["value"]


def _adapter(output_type: object) -> TypeAdapter[object]:
    return TypeAdapter(cast("type[object]", output_type))


def _format_name(output_type: object) -> str:
    name = getattr(output_type, "__name__", "output")
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", str(name))[:64]


# -- strict --------------------------------------------------------------------------------


def plain(schema: Mapping[str, object]) -> JsonObject:
    """A schema as canonical JSON of our own; raises InvalidInput where it is not JSON."""
    return loads_object(dumps(cast("JsonObject", schema)))


def strict_schema(schema: JsonObject) -> JsonObject | None:
    """The same schema in the provider's strict subset, or None where it does not fit (W-62).

    The form is that of `closed`. For one that does not fit, `strict_fault` of it says why.
    """
    form = closed(schema)
    return form if strict_fault(form) is None else None


def closed(schema: JsonObject) -> JsonObject:
    """A schema in the words of the strict subset, as far as they go.

    It accepts the same values, except that objects which left open whether they take further
    properties do not take any.
    """
    return cast("JsonObject", _closed(schema))


def strict_fault(schema: JsonObject, root: str = "the schema") -> str | None:
    """Why a schema, as it stands, cannot be strict; None where it can. `root` is what it is of."""
    if schema.get("type") != "object":
        return f"{root} is not an object"
    nodes = list(_nodes(schema, "", 1))
    for path, node, level in nodes:
        fault = _fault(node, level)
        if fault is not None:
            return f"{path or root} {fault}"
    if sum(len(obj(node, "properties")) for _, node, _ in nodes) > _MOST_PROPERTIES:
        return f"{root} has more than {_MOST_PROPERTIES} properties"
    if sum(len(array(node, "enum")) for _, node, _ in nodes) > _MOST_CHOICES:
        return f"{root} has more than {_MOST_CHOICES} enum values"
    return None


def _fault(node: JsonObject, level: int) -> str | None:
    unknown = sorted(set(node) - _STRICT_KEYWORDS)
    if unknown:
        return f"uses {unknown[0]!r}"
    if "$ref" in node and len(node) > 1:
        return "has a '$ref' with other keywords beside it"
    if not any(key in node for key in _SHAPES):
        return "accepts anything"
    if level > _MOST_LEVELS:
        return f"is nested more than {_MOST_LEVELS} levels deep"
    return _object_fault(node) or _value_fault(node)


def _object_fault(node: JsonObject) -> str | None:
    if not _is_a(node, "object"):
        return None
    if node.get("additionalProperties") is not False:
        return "takes further properties"
    optional = [name for name in obj(node, "properties") if name not in array(node, "required")]
    return f"does not require {optional[0]!r}" if optional else None


def _value_fault(node: JsonObject) -> str | None:
    if _is_a(node, "array") and not isinstance(node.get("items"), Mapping):
        return "has no 'items'"
    if "format" in node and node["format"] not in _STRICT_FORMATS:
        return f"uses the format {node['format']!r}"
    if _LOOKAROUND.search(text(node, "pattern") or ""):
        return "uses a pattern that looks around"
    return None


def _is_a(node: JsonObject, kind: str) -> bool:
    return node.get("type") == kind or kind in array(node, "type")


def _nodes(node: JsonObject, path: str, level: int) -> Iterator[tuple[str, JsonObject, int]]:
    """Every schema within a schema, with a path for people and its level of nesting."""
    yield path, node, level
    for name, entry in _named(node, "properties"):
        yield from _nodes(entry, f"{path}.{name}" if path else name, level + 1)
    for choice in array(node, "anyOf"):
        yield from _nodes(_as_object(choice), path, level)
    if isinstance(node.get("items"), Mapping):
        yield from _nodes(obj(node, "items"), f"{path}[]", level)
    for key in ("$defs", "definitions"):
        for name, entry in _named(node, key):
            yield from _nodes(entry, name, 1)


def _named(node: JsonObject, key: str) -> Iterator[tuple[str, JsonObject]]:
    for name, entry in obj(node, key).items():
        yield name, _as_object(entry)


def _as_object(schema: Json) -> JsonObject:
    """`true` is the schema that accepts anything, as is `{}`."""
    return schema if isinstance(schema, Mapping) else {}


def _closed(schema: Json) -> Json:
    if not isinstance(schema, Mapping):
        return schema
    node = {key: _closed_at(key, value) for key, value in schema.items()}
    if node.get("type") == "object":
        node.setdefault("additionalProperties", False)
        node.setdefault("required", [])
    if "oneOf" in node and "discriminator" in node:
        # The alternatives exclude each other already, by their tag.
        node["anyOf"] = node.pop("oneOf")
        del node["discriminator"]
    if "$ref" in node and len(node) > 1:
        node["anyOf"] = [{"$ref": node.pop("$ref")}]
    return node


def _closed_at(key: str, value: Json) -> Json:
    if key in _SINGLE:
        return _closed(value)
    if key in _NAMED and isinstance(value, Mapping):
        return {name: _closed(entry) for name, entry in value.items()}
    if key in _LISTED and isinstance(value, (list, tuple)):
        return [_closed(entry) for entry in value]
    return value
