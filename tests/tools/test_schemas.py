"""Output types, and when a schema may be called strict."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import pathlib
from collections.abc import Callable
from typing import Annotated, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from turnlog.canonical import Json, JsonObject, array, dumps, loads, loads_object, obj
from turnlog.errors import InvalidInput, OutputInvalid
from turnlog.schemas import output_format, parse_output, strict_fault, strict_schema


class Colour(enum.Enum):
    RED = "red"


class Line(BaseModel):
    text: str
    amount: float = Field(ge=0, description="In euros.")
    colour: Colour
    due: datetime.date | None


class Invoice(BaseModel):
    """An invoice."""

    lines: list[Line]
    first: Line = Field(description="The first line.")


class Tree(BaseModel):
    value: int
    children: list[Tree]


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Unbounded(BaseModel):
    limit: float = math.inf
    where: pathlib.Path | None = Field(default_factory=lambda: None)


class Loose(BaseModel):
    limit: int = 5


@dataclasses.dataclass
class Point:
    x: int
    y: int


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
LINE: JsonObject = {"text": "a", "amount": 1.5, "colour": "red", "due": None}


@pytest.mark.parametrize(
    ("output_type", "answer", "value"),
    [
        (Line, LINE, Line(text="a", amount=1.5, colour=Colour.RED, due=None)),
        (Point, {"x": 1, "y": 2}, Point(1, 2)),
        (list[int], {"value": [1, 2]}, [1, 2]),
        (Tree, {"value": {"value": 1, "children": []}}, Tree(value=1, children=[])),
        (Pet, {"value": {"kind": "dog"}}, Dog(kind="dog")),
        (int | None, {"value": None}, None),
        (str, {"value": "\U0001f600"}, "\U0001f600"),
        (bool, {"value": True}, True),
    ],
)
def test_an_output_type_is_asked_for_strictly_and_read_back(
    output_type: object, answer: JsonObject, value: object
) -> None:
    asked = output_format(output_type)
    schema = obj(asked, "schema")
    assert schema["type"] == "object"
    assert asked["strict"] is True and strict_fault(schema) is None
    jsonschema.validate(loads(dumps(answer)), loads_object(dumps(schema)))
    assert parse_output(output_type, dumps(answer).decode()) == value


def test_the_format_is_named_after_the_type() -> None:
    assert output_format(Line)["name"] == "Line"
    assert output_format(list[int])["name"] == "list"
    assert output_format(int | str)["name"] == "output"
    assert output_format(type("Überschrift" * 9, (Cat,), {}))["name"] == ("_berschrift" * 9)[:64]


def test_a_reference_keeps_its_description_in_the_strict_subset() -> None:
    properties = obj(obj(output_format(Invoice), "schema"), "properties")
    assert properties["first"] == {
        "description": "The first line.",
        "anyOf": [{"$ref": "#/$defs/Line"}],
    }
    assert properties["lines"] == {"type": "array", "items": {"$ref": "#/$defs/Line"}}


@pytest.mark.parametrize("output_type", [Loose, dict[str, int], tuple[int, str], list[object]])
def test_what_the_subset_cannot_say_is_left_as_it_is(output_type: object) -> None:
    asked = output_format(output_type)
    assert asked["strict"] is False
    assert asked["type"] == "json_schema"


@pytest.mark.parametrize("output_type", [Callable[[], int], object(), "Nowhere"])
def test_a_type_without_a_schema_is_named(output_type: object) -> None:
    with pytest.raises(InvalidInput, match="has no JSON schema") as caught:
        output_format(output_type)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("output_type", "text", "reason"),
    [
        (Line, "{}", "amount: Field required"),
        (Line, "I cannot say.", "Invalid JSON"),
        (list[int], '{"value": ["x"]}', "0: Input should be a valid integer"),
        (list[int], '{"value": [1], "more": 2}', '"value" alone'),
        (list[int], "[1]", "JSON object"),
    ],
)
def test_an_answer_that_does_not_fit_carries_its_text(
    output_type: object, text: str, reason: str
) -> None:
    with pytest.raises(OutputInvalid, match=reason) as caught:
        parse_output(output_type, text)
    assert caught.value.text == text


def _refused(value: int) -> int:
    raise ValueError("never")


class Refusing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    a: Annotated[int, AfterValidator(_refused)]


def test_at_most_ten_faults_are_listed() -> None:
    with pytest.raises(OutputInvalid, match="; and 1 more"):
        parse_output(Refusing, '{"a": 1,' + ",".join(f'"x{n}": 0' for n in range(10)) + "}")


# -- strict --------------------------------------------------------------------------------


def an_object(**properties: Json) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


NUMBER: JsonObject = {"type": "number"}


def nested(levels: int) -> JsonObject:
    schema: JsonObject = NUMBER
    for _ in range(levels):
        schema = an_object(a=schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (NUMBER, "the schema is not an object"),
        ({"anyOf": [an_object()]}, "the schema is not an object"),
        ({**an_object(a=NUMBER), "required": []}, "does not require 'a'"),
        ({**an_object(a=NUMBER), "additionalProperties": True}, "takes further properties"),
        (an_object(a={"type": "object"}), "a takes further properties"),
        (an_object(a={"type": ["object", "null"]}), "a takes further properties"),
        (an_object(a={}), "a accepts anything"),
        (an_object(a=True), "a accepts anything"),
        (an_object(a={"type": "string", "minLength": 1}), "a uses 'minLength'"),
        (an_object(a={"type": "string", "default": "x"}), "a uses 'default'"),
        (an_object(a={"type": "string", "format": "binary"}), "a uses the format 'binary'"),
        (an_object(a={"type": "string", "pattern": "^(?!x)"}), "a uses a pattern that looks"),
        (an_object(a={"type": "array"}), "a has no 'items'"),
        (an_object(a={"type": "array", "items": {}}), r"a\[\] accepts anything"),
        (an_object(a={"anyOf": [NUMBER, {"not": NUMBER}]}), "a uses 'not'"),
        (an_object(a={"$ref": "#/$defs/B", "description": "x"}), r"'\$ref'"),
        ({**an_object(a={"$ref": "#/$defs/B"}), "$defs": {"B": {}}}, "B accepts anything"),
        (an_object(a=an_object(b={"type": "object"})), r"a\.b takes further"),
        (nested(10), "more than 10 levels"),
        (an_object(**{f"p{n}": NUMBER for n in range(5001)}), "5000 properties"),
        (an_object(a={"enum": list(range(1001))}), "1000 enum values"),
    ],
)
def test_w62_why_a_schema_is_not_strict(schema: JsonObject, reason: str) -> None:
    fault = strict_fault(schema)
    assert fault is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(fault)


def test_a_strict_schema_passes_as_it_is() -> None:
    for schema in (an_object(), an_object(a={"enum": [1]}), an_object(a={"const": 1}), nested(9)):
        assert strict_schema(schema) == schema


def test_open_objects_are_closed_and_tagged_unions_are_any_of() -> None:
    tagged: JsonObject = {"oneOf": [nested(1)], "discriminator": {"propertyName": "a"}}
    loose: JsonObject = {"type": "object", "properties": {"a": tagged}, "required": ["a"]}
    assert strict_schema(loose) == an_object(a={"anyOf": [nested(1)]})
    empty: JsonObject = {"type": "object", "additionalProperties": False, "required": []}
    assert strict_schema({"type": "object"}) == empty
    assert strict_schema(an_object(a={"oneOf": [NUMBER]})) is None


leaves: st.SearchStrategy[Json] = st.sampled_from(
    [
        NUMBER,
        {"type": "string"},
        {"type": "string", "minLength": 2},
        {"enum": ["a", "b"]},
        {"$ref": "#/$defs/A", "description": "d"},
        {"$ref": "#/$defs/A"},
        {},
        True,
    ]
)


def any_object(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[JsonObject]:
    def made(properties: dict[str, Json], all_of_them: bool, further: Json) -> JsonObject:
        required = list(properties)[: None if all_of_them else 1]
        schema: JsonObject = {"type": "object", "properties": properties, "required": required}
        return schema if further is None else {**schema, "additionalProperties": further}

    properties = st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
    return st.builds(made, properties, st.booleans(), st.sampled_from([None, None, False, True]))


def any_array(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return inner.map(lambda items: {"type": "array", "items": items})


def any_union(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some})


schemas: st.SearchStrategy[Json] = st.recursive(
    leaves,
    lambda inner: any_object(inner) | any_array(inner) | any_union(inner),
    max_leaves=8,
)


@given(any_object(schemas), schemas)
def test_w62_a_strict_schema_satisfies_every_rule(root: JsonObject, definition: Json) -> None:
    schema: JsonObject = {**root, "$defs": {"A": definition}}
    before = dumps(schema)
    strict = strict_schema(schema)
    assert dumps(schema) == before
    if strict is not None:
        assert_strict(strict)
        assert strict_schema(strict) == strict
        jsonschema.Draft202012Validator.check_schema(loads_object(dumps(strict)))


def assert_strict(node: Json) -> None:
    """The provider's rules, written down a second time."""
    assert isinstance(node, dict) and node
    assert not set(node) & {"default", "oneOf", "minLength"}
    assert "$ref" not in node or len(node) == 1
    if node.get("type") == "object":
        assert node["additionalProperties"] is False
        assert set(array(node, "required")) == set(obj(node, "properties"))
    assert node.get("type") != "array" or "items" in node
    inner = [*obj(node, "properties").values(), *obj(node, "$defs").values()]
    for schema in (*inner, *array(node, "anyOf"), *([node["items"]] if "items" in node else [])):
        assert_strict(schema)


def test_a_default_that_is_no_json_is_left_out_of_the_schema() -> None:
    schema = obj(output_format(Unbounded), "schema")
    assert obj(schema, "properties") == {
        "limit": {"type": "number"},
        "where": {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]},
    }
