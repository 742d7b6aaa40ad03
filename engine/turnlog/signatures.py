"""The parameters of a Python function, as a JSON schema and as a reader of a model's arguments.

The one rule: what a model is shown is what is checked. A parameter that cannot be described is
refused when the tool is defined, with its name and the fix (law 13).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast, get_origin, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic_core import PydanticUndefined

from .canonical import JsonObject, dumps, loads_object, obj
from .errors import InvalidInput
from .schemas import UNDESCRIBABLE, PlainSchema, explain, first_line, plain

Parameter = inspect.Parameter
NAMEABLE = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
"""The kinds of parameters that can be passed by name."""

_create_model = cast("Callable[..., type[BaseModel]]", create_model)


class _Arguments(BaseModel):
    """The base of what a function is called with; its fields have the parameters as aliases.

    Parameters may have any name, `json` and `_x` too, which a model's own fields may not.
    """

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a function takes: its schema, whether it wants the context first, and its docstring.

    `names` are all parameters that can be passed by name, the context left out; `open` says that
    any other name is accepted too; `defaults` is what stands for those that a model leaves out.
    """

    parameters: JsonObject
    context: bool
    description: str | None
    names: tuple[str, ...]
    open: bool
    defaults: Mapping[str, object]
    _model: type[BaseModel] | None = field(repr=False)
    _function: Callable[..., object] = field(repr=False)

    def read(self, arguments: str) -> dict[str, object] | str:
        """The arguments that a model wrote, validated, by name; those it left out are absent.

        Where they do not fit, the answer is why not, in words for the model. No text at all
        stands for no arguments.
        """
        try:
            found = loads_object(arguments.strip() or "{}")
            if self._model is None:
                return self._bound(found)
            model = self._model.model_validate_json(dumps(found))
        except ValidationError as error:
            return explain(error)
        except InvalidInput as error:
            return str(error)
        places = {name: f"p{place}" for place, name in enumerate(self.names)}
        return {
            name: getattr(model, place)
            for name, place in places.items()
            if place in model.model_fields_set
        }

    def _bound(self, arguments: JsonObject) -> dict[str, object] | str:
        """What a raw schema describes is checked for its names only."""
        first = (None,) if self.context else ()
        try:
            inspect.signature(self._function).bind(*first, **arguments)
        except TypeError as error:
            return str(error)
        return dict(arguments)


def describe(
    function: Callable[..., object],
    *,
    tool: str,
    context: type,
    parameters: Mapping[str, object] | None = None,
) -> Signature:
    """The signature of a tool's function; `parameters` is a JSON schema to use as it is.

    `context` is the class by whose annotation the first parameter is told from an argument.
    Raises InvalidInput naming the tool, the parameter and the fix.
    """
    _check_function(function, tool)
    taken = _parameters(function, tool)
    wants = bool(taken) and is_context(taken[0].annotation, context)
    arguments = taken[1:] if wants else taken
    _check_context(arguments, tool, context)
    description, described = _docstring(function)
    model = None
    if parameters is None:
        model = _model(arguments, tool)
        schema = _schema(model, described)
    else:
        schema = _given(parameters, tool)
    return Signature(
        parameters=schema,
        context=wants,
        description=description,
        names=tuple(entry.name for entry in arguments if entry.kind in NAMEABLE),
        open=is_open(arguments),
        defaults={
            entry.name: entry.default for entry in arguments if entry.default is not Parameter.empty
        },
        _model=model,
        _function=function,
    )


def asked_for(check: Callable[..., object], context: type) -> tuple[bool, list[Parameter]]:
    """Whether an approval check wants the context first, and which arguments it takes."""
    parameters = list(inspect.signature(check).parameters.values())
    try:
        hints = get_type_hints(check)
    except (NameError, TypeError):
        # A lambda, a partial or an object need no annotations: they get the arguments alone.
        hints = {}
    wants = bool(parameters) and is_context(hints.get(parameters[0].name), context)
    return wants, parameters[1:] if wants else parameters


def is_open(parameters: Iterable[Parameter]) -> bool:
    """Whether arguments of any name are taken."""
    return any(entry.kind is Parameter.VAR_KEYWORD for entry in parameters)


def is_context(annotation: object, context: type) -> bool:
    """Whether an annotation is the context class, with or without the type of its `deps`."""
    return annotation is context or get_origin(annotation) is context


# -- the function --------------------------------------------------------------------------


def _check_function(function: object, tool: str) -> None:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise InvalidInput(
            f"the tool {tool!r} is a {type(function).__name__}, which cannot be described:"
            " define a function or a method"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(f"the tool {tool!r} yields: return its result instead")


def _parameters(function: Callable[..., object], tool: str) -> list[Parameter]:
    """The parameters with their annotations resolved."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise InvalidInput(
            f"the annotations of the tool {tool!r} cannot be resolved: {error};"
            " define their types at the top level of the module"
        ) from error
    return [
        parameter.replace(annotation=hints.get(name, Parameter.empty))
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def _check_context(arguments: list[Parameter], tool: str, context: type) -> None:
    for parameter in arguments:
        if is_context(parameter.annotation, context):
            raise InvalidInput(
                f"the tool {tool!r} takes its {context.__name__} as {parameter.name!r}:"
                " make it the first parameter"
            )


def _docstring(function: Callable[..., object]) -> tuple[str | None, dict[str, str]]:
    """What the docstring says of the function and of its parameters (Google, NumPy, reST)."""
    written = inspect.getdoc(function)
    if not written:
        return None, {}
    # Of all styles the one that makes most of it; NumPy's refuses nothing.
    parsed = docstring_parser.parse(written)
    described = {entry.arg_name: entry.description for entry in parsed.params}
    return parsed.description or None, {key: text for key, text in described.items() if text}


# -- the schema ----------------------------------------------------------------------------


def _given(parameters: Mapping[str, object], tool: str) -> JsonObject:
    schema = plain(parameters)
    if schema.get("type") != "object":
        raise InvalidInput(f'the parameters of the tool {tool!r} need to be of "type": "object"')
    return schema


def _model(arguments: list[Parameter], tool: str) -> type[BaseModel]:
    for parameter in arguments:
        _check_parameter(parameter, tool)
    fields = {
        f"p{place}": (parameter.annotation, Field(_default(parameter), alias=parameter.name))
        for place, parameter in enumerate(arguments)
    }
    return _create_model(tool, __base__=_Arguments, **fields)


def _check_parameter(parameter: Parameter, tool: str) -> None:
    fix = None
    if parameter.kind not in NAMEABLE:
        fix = "cannot be passed by name: give it a name, or pass parameters= with a JSON schema"
    elif parameter.annotation is Parameter.empty:
        fix = "has no annotation: say its type"
    else:
        reason = _indescribable(parameter.annotation)
        if reason is not None:
            fix = f"cannot be described: {reason}; use a type that pydantic knows as JSON"
    if fix is not None:
        raise InvalidInput(f"the parameter {str(parameter)!r} of the tool {tool!r} {fix}")


def _indescribable(annotation: object) -> str | None:
    try:
        adapter: TypeAdapter[object] = TypeAdapter(cast("type[object]", annotation))
        adapter.json_schema(schema_generator=PlainSchema)
    except UNDESCRIBABLE as error:
        return first_line(error)
    return None


def _default(parameter: Parameter) -> object:
    return PydanticUndefined if parameter.default is Parameter.empty else parameter.default


def _schema(model: type[BaseModel], described: Mapping[str, str]) -> JsonObject:
    found = plain(model.model_json_schema(by_alias=True, schema_generator=PlainSchema))
    properties = {
        name: _documented(cast("JsonObject", entry), described.get(name))
        for name, entry in obj(found, "properties").items()
    }
    rest = {key: value for key, value in found.items() if key not in ("title", "description")}
    return {**rest, "properties": properties}


def _documented(entry: JsonObject, description: str | None) -> JsonObject:
    """An entry with its docstring's words, unless its annotation has words of its own."""
    if description is None or "description" in entry:
        return entry
    return {**entry, "description": description}
