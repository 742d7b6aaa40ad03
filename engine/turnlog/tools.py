"""Tools: functions that a model may call, what it is told of them, and one run of one of them.

The one rule: whatever a tool does, its model gets an output (law 7). Arguments that do not fit, an
exception and a time limit become outputs that say so, and say that the outcome is unknown where
the tool may still be at work; only cancellation passes through. Whether and when a tool runs, and
that it runs at most once unasked (law 12), is the engine's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypedDict, Unpack, overload

from .canonical import JsonObject, text
from .errors import InvalidInput
from .running import D, Deferred, Function, ToolContext, ToolResult, Work, called, to_output
from .schemas import NAME, closed, strict_fault, strict_schema
from .signatures import NAMEABLE, Signature, asked_for, describe, is_open

__all__ = [
    "Deferred",
    "OnCrash",
    "Probed",
    "Tool",
    "ToolContext",
    "ToolLike",
    "ToolOptions",
    "ToolResult",
    "checked_name",
    "flat",
    "run_tool",
    "strict_schema",
    "to_output",
    "tool",
]

logger = logging.getLogger(__name__)

OnCrash = Literal["rerun", "probe", "ask", "give_up"]
"""What becomes of a call that started and has no result after a crash (law 12)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tool:
    """A function and what the model is told of it; made by `tool`.

    `function` is the plain function. `strict` says that the provider holds the model to
    `parameters`; `note` says why it does not (W-62). `timeout` is in seconds.
    """

    name: str
    description: str | None
    parameters: JsonObject
    strict: bool
    note: str | None
    function: Function
    needs_approval: bool | Function
    on_crash: OnCrash
    probe: Function | None
    timeout: float | None
    signature: Signature = field(repr=False)

    def definition(self) -> JsonObject:
        """The tool as the provider takes it."""
        head: JsonObject = {"type": "function", "name": self.name}
        if self.description is not None:
            head = {**head, "description": self.description}
        return {**head, "parameters": self.parameters, "strict": self.strict}

    async def approval_needed(self, context: ToolContext[D], arguments: str) -> bool:
        """Whether a person has to agree to this call before it runs; `arguments` as they came.

        Arguments that do not fit need no approval, since nothing will run. Where the check itself
        fails, somebody has to look: the exception is logged, and the answer is yes.
        """
        if isinstance(self.needs_approval, bool):
            return self.needs_approval
        try:
            return await _asked(self, self.needs_approval, context, arguments)
        except Exception:
            logger.exception("the approval check of the tool %s failed: the call waits", self.name)
            return True

    async def probed(self, context: ToolContext[D], arguments: str) -> Probed:
        """Ask the probe whether a call that had started was carried out; `arguments` as they came.

        With arguments that do not fit, nothing was. Never raises what the probe raises: then
        nobody knows. The tool's time limit is the probe's too.
        """
        try:
            return await _probed(self, context, arguments)
        except Deferred:
            return Probed(result=ToolResult(deferred=True))
        except Exception as error:
            return Probed(doubt=f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe came to: the call's result, or none where it did not happen.

    `doubt` says why nobody knows; then nothing else of it counts.
    """

    result: ToolResult | None = None
    doubt: str | None = None


HAPPENED = "It was carried out. Its result was lost when the process stopped."
"""What a model is told of a call of which only that is known."""


ToolLike: TypeAlias = "Tool | Function | Mapping[str, object]"
"""What an agent takes as a tool: a dict is a provider's tool, or a raw function to surface."""


class ToolOptions(TypedDict, total=False):
    """The arguments of `tool`."""

    name: str | None
    description: str | None
    needs_approval: bool | Function
    on_crash: OnCrash
    probe: Function | None
    timeout: float | None
    strict: bool | None
    parameters: Mapping[str, object] | None


@overload
def tool(function: Function, /, **options: Unpack[ToolOptions]) -> Tool: ...
@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Function], Tool]: ...
def tool(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    needs_approval: bool | Function = False,
    on_crash: OnCrash = "ask",
    probe: Function | None = None,
    timeout: float | None = None,
    strict: bool | None = None,
    parameters: Mapping[str, object] | None = None,
) -> Tool | Callable[[Function], Tool]:
    """Make a tool of a typed function; a decorator, with and without arguments.

    The schema comes from its signature and docstring, or is `parameters` as it is: then arguments
    are passed by name, unchecked but for their names. A sync function runs in a thread, which a
    `timeout` (seconds) cannot stop: the model is told that the outcome is unknown, and a late
    result goes to the log. `needs_approval` may be a function (async too) of the arguments it
    names, with the context first where it is annotated so. `on_crash="rerun"` says that running
    twice does no harm. `on_crash="probe"` asks `probe`, a function like `needs_approval`, whether
    a call that a crash cut off was carried out: False or None says that it was not, and the tool
    runs again; True says that it was; any other value is its output; raising Deferred says that
    the answer comes later, and any other exception that nobody knows. `strict=None` is strict
    where the schema can be.

    Raises InvalidInput for a function that cannot be described, for a name that the provider
    refuses, for a schema that cannot be `strict=True`, and for `on_crash="probe"` without `probe`
    or the other way round.
    """
    _check_crash(on_crash, probe)
    if timeout is not None and not timeout > 0:
        raise InvalidInput(f"a timeout is a number of seconds above 0, not {timeout!r}")

    def made(function: Function) -> Tool:
        own = str(getattr(function, "__name__", type(function).__name__))
        chosen = checked_name(own if name is None else name)
        signature = describe(function, tool=chosen, context=ToolContext, parameters=parameters)
        _check_asked("needs_approval", needs_approval, signature, chosen)
        _check_asked("probe", False if probe is None else probe, signature, chosen)
        form = signature.parameters if parameters is not None else closed(signature.parameters)
        fault = strict_fault(form) if strict is not False else None
        if fault is not None and strict:
            raise InvalidInput(f"the tool {chosen!r} cannot be strict: {fault}; leave strict= out")
        return Tool(
            name=chosen,
            description=signature.description if description is None else description,
            parameters=form if fault is None else signature.parameters,
            strict=strict is not False and fault is None,
            note=None if fault is None else f"not strict: {fault}",
            function=function,
            needs_approval=needs_approval,
            on_crash=on_crash,
            probe=probe,
            timeout=timeout,
            signature=signature,
        )

    return made if function is None else made(function)


def _check_crash(on_crash: str, probe: Function | None) -> None:
    if on_crash not in ("rerun", "probe", "ask", "give_up"):
        raise InvalidInput(f'on_crash is "rerun", "probe", "ask" or "give_up", not {on_crash!r}')
    if on_crash == "probe" and probe is None:
        raise InvalidInput('on_crash="probe" needs a function to ask: pass it as probe=')
    if on_crash != "probe" and probe is not None:
        raise InvalidInput(f'probe= is never asked with on_crash={on_crash!r}: pass "probe"')
    if probe is not None and not callable(probe):
        raise InvalidInput(f"probe= is a function, not a {type(probe).__name__}")


def checked_name(name: str) -> str:
    """The name of a function; raises InvalidInput for one that the provider refuses."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a tool: 1 to 64 letters, digits, _ and -;"
            " pass another with name="
        )
    return name


def _check_asked(what: str, check: object, signature: Signature, name: str) -> None:
    """Raise InvalidInput where a function asks for what is no argument of its tool."""
    if isinstance(check, bool):
        return
    if not callable(check):
        raise InvalidInput(f"{what} of the tool {name!r} is True, False or a function")
    _, parameters = asked_for(check, ToolContext)
    for entry in parameters:
        needed = entry.kind in NAMEABLE and entry.default is entry.empty
        if needed and entry.name not in signature.names and not signature.open:
            known = ", ".join(signature.names) or "none"
            raise InvalidInput(
                f"{what} of the tool {name!r} asks for {entry.name!r}, which is no argument of the"
                f" tool (it has {known}); a context is annotated as turnlog.ToolContext"
            )


# -- running -------------------------------------------------------------------------------


async def run_tool(
    tool: Tool,
    context: ToolContext[D],
    arguments: str,
    late: Callable[[ToolResult], None] | None = None,
) -> ToolResult:
    """Run a tool once with the arguments that a model wrote, and say what it came to.

    Never raises what the tool raises: that is a failed result, in words for the model. Only
    cancellation, and what ends the process, passes through. A tool that is past its time limit or
    was cancelled may go on all the same: what it comes to then is for `late`.
    """
    try:
        found = tool.signature.read(arguments)
    except Exception as error:
        return _failed(error)
    if isinstance(found, str):
        return ToolResult(failed=True, output=f"The arguments do not fit: {found}")
    first = (context,) if tool.signature.context else ()
    work, heard = Work(tool.function, *first, **found), False
    try:
        in_time = await work.wait(tool.timeout)
        heard = work.over
    finally:
        if late is not None and not heard:
            work.then(lambda: late(_result(work)))
    if in_time:
        return _result(work)
    return _timed_out(tool, work)


def _timed_out(tool: Tool, work: Work) -> ToolResult:
    """What a tool came to that was past its time limit: it may have had an answer in the end."""
    over = f"Timed out after {tool.timeout} seconds"
    if not work.over:
        said = f"{over}. The tool may still be at work: its outcome is unknown."
        return ToolResult(failed=True, output=said)
    found = ToolResult(failed=True) if work.cancelled else _result(work)
    return replace(found, output=f"{over}.") if found.failed else found


def _result(work: Work) -> ToolResult:
    """What a tool came to by itself."""
    try:
        return ToolResult(output=to_output(work.value()))
    except Deferred:
        return ToolResult(deferred=True)
    except Exception as error:
        # The one place where whatever somebody's code raises becomes an output (law 7).
        return _failed(error)


def _failed(error: Exception) -> ToolResult:
    return ToolResult(failed=True, output=f"{type(error).__name__}: {error}")


async def _asked(tool: Tool, check: Function, context: ToolContext[D], arguments: str) -> bool:
    found = tool.signature.read(arguments)
    if isinstance(found, str):
        return False
    positional, named = _given_to(tool, check, context, found)
    return bool(await called(check, *positional, **named))


async def _probed(tool: Tool, context: ToolContext[D], arguments: str) -> Probed:
    found = tool.signature.read(arguments)
    if isinstance(found, str):
        return Probed()
    assert tool.probe is not None
    positional, named = _given_to(tool, tool.probe, context, found)
    work = Work(tool.probe, *positional, **named)
    if not await work.wait(tool.timeout):
        return Probed(doubt=f"timed out after {tool.timeout} seconds")
    value = work.value()
    if value is None or value is False:
        return Probed()
    return Probed(result=ToolResult(output=HAPPENED if value is True else to_output(value)))


def _given_to(
    tool: Tool, function: Function, context: ToolContext[D], found: Mapping[str, object]
) -> tuple[tuple[ToolContext[D], ...], dict[str, object]]:
    """What a function gets that is asked about a call: the context, and the arguments it names."""
    wants, parameters = asked_for(function, ToolContext)
    given = {**tool.signature.defaults, **found}
    if not is_open(parameters):
        given = {entry.name: given[entry.name] for entry in parameters if entry.name in given}
    return (context,) if wants else (), given


# -- shapes --------------------------------------------------------------------------------


def flat(value: JsonObject) -> JsonObject:
    """A tool or tool choice in the flat shape, from that of Chat Completions too (W-60)."""
    kind = text(value, "type")
    inner = value.get(kind) if kind else None
    if kind is None or not isinstance(inner, Mapping):
        return value
    return {**{key: entry for key, entry in value.items() if key != kind}, **inner}
