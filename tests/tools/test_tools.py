"""Tools: what a function becomes, what a model may call it with, and what a run comes to."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import enum
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, cast

import pytest
from openai.types.responses import FunctionTool
from pydantic import AfterValidator, BaseModel, Field, field_validator

from turnlog.canonical import JsonObject, obj
from turnlog.errors import ConfigurationError, InvalidInput
from turnlog.inputs import file, image
from turnlog.running import Function
from turnlog.secrets import Secret
from turnlog.tools import (
    Deferred,
    OnCrash,
    Probed,
    Tool,
    ToolContext,
    ToolLike,
    ToolResult,
    flat,
    run_tool,
    to_output,
    tool,
)
from turnlog.toolset import bind

PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass
class Bank:
    paid: list[str] = dataclasses.field(default_factory=list[str])

    def balance(self, account: str) -> int:
        """What is left."""
        return len(account)


class Size(enum.Enum):
    SMALL = "small"


class Order(BaseModel):
    id: str
    size: Size = Size.SMALL


async def refund(ctx: ToolContext[Bank], order: str, amount: float) -> str:
    """Pay an order back.

    Only once.

    Args:
        order: Its number.
        amount: In euros.

    Returns:
        A receipt.
    """
    ctx.deps.paid.append(order)
    return f"{order}: {amount} by {ctx.idempotency_key}"


def context(deps: object = None) -> ToolContext[object]:
    return ToolContext(
        deps=deps, conversation="c", turn="t", tool="x", idempotency_key="key-1", call_id="call_1"
    )


def properties(made: Tool) -> JsonObject:
    return obj(made.parameters, "properties")


# -- describing ----------------------------------------------------------------------------


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    assert tool(refund).definition() == {
        "type": "function",
        "name": "refund",
        "description": "Pay an order back.\n\nOnly once.",
        "parameters": {
            "additionalProperties": False,
            "properties": {
                "order": {"type": "string", "description": "Its number."},
                "amount": {"type": "number", "description": "In euros."},
            },
            "required": ["order", "amount"],
            "type": "object",
        },
        "strict": True,
    }


def numpy_style(a: int) -> None:
    """Count.

    Parameters
    ----------
    a : int
        A number.
    """


def rest_style(a: int) -> None:
    """Count.

    :param a: A number.
    """


@pytest.mark.parametrize("function", [numpy_style, rest_style])
def test_docstrings_of_other_styles_are_read_too(function: Callable[[int], None]) -> None:
    assert properties(tool(function)) == {"a": {"type": "integer", "description": "A number."}}


def test_the_decorator_takes_arguments_and_the_function_stays_callable() -> None:
    @tool(name="add-up", description="Add.", timeout=1, on_crash="rerun", needs_approval=True)
    def add(a: int, b: int) -> int:
        """Not this."""
        return a + b

    assert (add.name, add.description, add.timeout, add.on_crash) == ("add-up", "Add.", 1, "rerun")
    assert add.needs_approval is True
    assert add.function(2, 3) == 5


def test_a_method_is_a_tool_and_a_docstring_is_not_needed() -> None:
    assert list(properties(tool(Bank().balance))) == ["account"]

    def silent() -> None: ...

    assert tool(silent).definition() == {
        "type": "function",
        "name": "silent",
        "parameters": {
            "additionalProperties": False,
            "properties": {},
            "required": [],
            "type": "object",
        },
        "strict": True,
    }


def test_a_docstring_of_no_style_is_the_description() -> None:
    def odd(a: int) -> None:
        """Odd.

        :param
        """

    assert tool(odd).description == "Odd.\n\n:param"


def test_parameters_of_any_name_and_an_annotation_has_the_last_word() -> None:
    def odd(json: str, _x: Annotated[int, Field(ge=0, description="own")], copy: Order) -> str:
        """Odd.

        Args:
            _x: docstring
            copy: a copy
        """
        return f"{json}{_x}{copy.size.value}"

    made = tool(odd)
    assert properties(made) == {
        "json": {"type": "string"},
        "_x": {"description": "own", "minimum": 0, "type": "integer"},
        "copy": {"$ref": "#/$defs/Order", "description": "a copy"},
    }


async def test_defaults_are_shown_where_they_are_json_and_keep_a_schema_from_being_strict() -> None:
    marker = object()

    def search(
        words: str, limit: int = 5, until: float = float("inf"), more: object = marker
    ) -> str:
        return f"{words} {limit} {until} {more is marker}"

    made = tool(search)
    assert properties(made)["limit"] == {"default": 5, "type": "integer"}
    assert "default" not in obj(properties(made), "until")
    assert not made.strict and made.note is not None and made.note.startswith("not strict:")
    assert (await run_tool(made, context(), '{"words": "a"}')).output == "a 5 inf True"


class Unknown:
    pass


def many(*words: str) -> None: ...
def any_of_them(**words: str) -> None: ...
def by_place(a: int, /) -> None: ...
def of_a_class(a: int, b: Unknown) -> None: ...
def of_context_second(a: int, ctx: ToolContext[Bank]) -> None: ...
def of_an_unannotated(a: int, b: int) -> None: ...
def of_nowhere(a: int) -> None: ...


# What a type checker would not let stand: as in code that nobody checked.
del of_an_unannotated.__annotations__["b"]
of_nowhere.__annotations__["a"] = "Nowhere"


def yielding(a: int) -> Iterator[int]:
    yield a


async def async_yielding(a: int) -> AsyncIterator[int]:
    yield a


@pytest.mark.parametrize(
    ("function", "named", "fix"),
    [
        (of_an_unannotated, "b", "say its type"),
        (many, r"\*words", "by name"),
        (any_of_them, r"\*\*words", "by name"),
        (by_place, "a", "by name"),
        (of_a_class, "b", "cannot be described"),
        (of_context_second, "ctx", "first parameter"),
        (of_nowhere, "Nowhere", "top level"),
        (yielding, "yielding", "return its result"),
        (async_yielding, "async_yielding", "return its result"),
        (functools.partial(many), "partial", "define a function"),
        (len, "len", "define a function"),
    ],
)
def test_what_cannot_be_described_is_named_with_the_fix(
    function: object, named: str, fix: str
) -> None:
    with pytest.raises(InvalidInput, match=fix) as caught:
        bind([cast("ToolLike", function)])
    with pytest.raises(InvalidInput, match=named):
        raise caught.value


def test_names_that_the_provider_refuses() -> None:
    for name in ("", "a b", "é", "x" * 65):
        with pytest.raises(InvalidInput, match="name="):
            tool(refund, name=name)
    with pytest.raises(InvalidInput, match="name="):
        tool(lambda: None)
    assert tool(lambda: None, name="x" * 64).name == "x" * 64


def test_arguments_of_the_decorator_are_checked() -> None:
    for timeout in (0, -1, float("nan")):
        with pytest.raises(InvalidInput, match="above 0"):
            tool(refund, timeout=timeout)
    with pytest.raises(InvalidInput, match="on_crash"):
        tool(refund, on_crash=cast("OnCrash", "panic"))
    with pytest.raises(InvalidInput, match="pass it as probe="):
        tool(refund, on_crash="probe")
    with pytest.raises(InvalidInput, match="never asked with on_crash='ask'"):
        tool(refund, probe=refund)
    with pytest.raises(InvalidInput, match="probe= is a function, not a bool"):
        tool(refund, on_crash="probe", probe=cast("Function", True))


# -- strict --------------------------------------------------------------------------------

STRICT: JsonObject = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
NEARLY: JsonObject = {**STRICT, "properties": {"a": {"type": "string", "minLength": 1}}}


def raw(**arguments: object) -> str:
    return f"{arguments}"


def test_w62_a_raw_schema_is_accepted_as_it_is_and_strict_only_where_it_satisfies() -> None:
    assert tool(raw, parameters=STRICT).strict
    nearly = tool(raw, parameters=NEARLY)
    assert nearly.parameters == NEARLY and not nearly.strict
    assert nearly.note == "not strict: a uses 'minLength'"
    loose: JsonObject = {"type": "object", "properties": {}}
    assert tool(raw, parameters=loose).parameters == loose
    assert not tool(raw, parameters=loose).strict


def test_w62_strict_as_asked() -> None:
    off = tool(refund, strict=False)
    assert not off.strict and off.note is None
    assert tool(refund, strict=True).strict
    with pytest.raises(InvalidInput, match=r"'raw' cannot be strict: a uses 'minLength'"):
        tool(raw, parameters=NEARLY, strict=True)


def test_w62_a_raw_definition_that_nearly_satisfies_is_left_non_strict_with_a_note() -> None:
    definition = {"type": "function", "name": "nearly", "parameters": NEARLY, "strict": True}
    toolset = bind([definition, {**definition, "name": "fits", "parameters": STRICT}])
    nearly, fits = toolset.definitions()
    assert nearly == {**definition, "strict": False}
    assert fits["strict"] is True
    assert toolset.notes == {"nearly": "not strict: a uses 'minLength'"}


def test_a_dict_of_anything_keeps_a_tool_from_being_strict() -> None:
    def count(words: dict[str, int]) -> None: ...

    made = tool(count)
    assert not made.strict and made.note == "not strict: words takes further properties"
    assert bind([made]).notes == {"count": made.note}


def test_raw_parameters_are_an_object() -> None:
    with pytest.raises(InvalidInput, match='"type": "object"'):
        tool(raw, parameters={"type": "string"})


# -- running -------------------------------------------------------------------------------


async def test_an_async_tool_runs_with_its_context() -> None:
    bank = Bank()
    result = await run_tool(tool(refund), context(bank), '{"order": "7", "amount": 2}')
    assert result == ToolResult(output="7: 2.0 by key-1")
    assert bank.paid == ["7"]


async def test_a_sync_tool_runs_in_a_thread_with_the_callers_variables() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    def where() -> list[object]:
        return [threading.get_ident() == threading.main_thread().ident, variable.get()]

    assert (await run_tool(tool(where), context(), "")).output == '[false,"set"]'


async def test_a_sync_function_that_returns_an_awaitable_is_awaited() -> None:
    async def later() -> str:
        return "done"

    def wrapped() -> object:
        return later()

    assert (await run_tool(tool(wrapped), context(), "{}")).output == "done"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"order": "7"}', "amount: Field required"),
        ('{"order": "7", "amount": "lots"}', "amount: Input should be a valid number"),
        ('{"order": "7", "amount": 1, "x": 1}', "x: Extra inputs"),
        ('{"order": "7", "order": "8", "amount": 1}', "twice"),
        ("[1]", "a JSON object is needed"),
        ('{"order"', "not readable as JSON"),
        ('{"order": "\\ud800", "amount": 1}', ""),
    ],
)
async def test_arguments_that_do_not_fit_are_an_output(arguments: str, reason: str) -> None:
    bank = Bank()
    result = await run_tool(tool(refund), context(bank), arguments)
    assert result.failed and isinstance(result.output, str) and not bank.paid
    assert result.output.startswith("The arguments do not fit: ") and reason in result.output
    assert "lots" not in result.output


async def test_raw_arguments_are_passed_by_name_and_checked_for_their_names() -> None:
    def plain(ctx: ToolContext[None], a: str) -> str:
        return a + ctx.idempotency_key

    made = tool(plain, parameters=STRICT)
    assert (await run_tool(made, context(), '{"a": "x"}')).output == "xkey-1"
    wrong = await run_tool(made, context(), '{"b": 1}')
    assert wrong.failed and "'a'" in str(wrong.output)
    assert (await run_tool(tool(raw, parameters=STRICT), context(), '{"function": 1}')) == (
        ToolResult(output="{'function': 1}")
    )


class Picky(BaseModel):
    a: int

    @field_validator("a")
    @classmethod
    def _check(cls, value: int) -> int:
        raise LookupError("validators may raise anything")


async def test_whatever_a_tool_raises_is_an_output() -> None:
    def fails() -> None:
        raise ValueError("no such order")

    def stops() -> None:
        raise StopIteration

    async def times_out_itself() -> None:
        raise TimeoutError("the bank is slow")

    def picky(picky: Picky) -> None: ...

    for function, arguments, said in (
        (fails, "{}", "ValueError: no such order"),
        (stops, "{}", "RuntimeError: the tool raised StopIteration"),
        (times_out_itself, "{}", "TimeoutError: the bank is slow"),
        (picky, '{"picky": {"a": 1}}', "LookupError: validators may raise anything"),
    ):
        result = await run_tool(tool(function, timeout=60), context(), arguments)
        assert result == ToolResult(failed=True, output=said)


async def test_a_time_limit_ends_an_async_tool() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    result = await run_tool(tool(endless, timeout=0.01), context(), "{}")
    assert result == ToolResult(failed=True, output="Timed out after 0.01 seconds.")
    assert ended.is_set()


async def test_a_time_limit_leaves_a_sync_tool_behind_and_drops_its_result() -> None:
    release, done = threading.Event(), threading.Event()

    def slow() -> str:
        release.wait(10)
        done.set()
        return "late"

    result = await run_tool(tool(slow, timeout=0.01), context(), "{}")
    assert result.failed and not done.is_set()
    release.set()
    assert await asyncio.to_thread(done.wait, 10)


@pytest.mark.parametrize("coroutine", [True, False])
async def test_what_a_thread_was_about_to_begin_is_not_begun_behind_its_time_limit(
    coroutine: bool,
) -> None:
    release, begun = threading.Event(), list[str]()
    late = list[ToolResult]()

    async def work() -> str:
        begun.append("work")
        return "never"

    class Lazy:
        def __await__(self) -> Iterator[object]:
            begun.append("lazy")
            yield None

    def slow() -> object:
        release.wait(10)
        return work() if coroutine else Lazy()

    result = await run_tool(tool(slow, timeout=0.01), context(), "{}", late.append)
    assert result.failed and "its outcome is unknown" in str(result.output)
    release.set()
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert (begun, late) == ([], [])


async def test_arguments_that_cannot_be_read_are_a_failed_output() -> None:
    def odd(n: Annotated[int, AfterValidator(lambda n: 1 // n)]) -> int:
        return n

    result = await run_tool(tool(odd), context(), '{"n": 0}')
    assert result.failed and str(result.output).startswith("ZeroDivisionError")


async def test_an_answer_that_comes_later() -> None:
    def later() -> None:
        raise Deferred

    assert await run_tool(tool(later), context(), "{}") == ToolResult(deferred=True)


async def test_cancellation_passes_through() -> None:
    started = asyncio.Event()

    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run_tool(tool(endless), context(), "{}"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_ends_the_process_passes_through() -> None:
    async def leave() -> None:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        await run_tool(tool(leave), context(), "{}")


async def test_progress_is_reported_as_json() -> None:
    heard: list[JsonObject] = []

    async def report(data: JsonObject) -> None:
        heard.append(data)

    async def work(ctx: ToolContext[None]) -> None:
        await ctx.progress(done=1, of=(2,))

    watched = dataclasses.replace(context(), report=report)
    assert not (await run_tool(tool(work), watched, "")).failed
    assert heard == [{"done": 1, "of": [2]}]
    assert not (await run_tool(tool(work), context(), "")).failed
    assert "report" not in repr(watched)


# -- results -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("text", "text"),
        ("", ""),
        (None, "null"),
        (7, "7"),
        ({"b": [1.5, True]}, '{"b":[1.5,true]}'),
        ((1, 2), "[1,2]"),
        ("é", "é"),
        (["é"], '["é"]'),
        (Order(id="7"), '{"id":"7","size":"small"}'),
        ([Order(id="7")], '[{"id":"7","size":"small"}]'),
        (Bank(["7"]), '{"paid":["7"]}'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (float("inf"), '"Infinity"'),
        ({Size.SMALL}, '["small"]'),
    ],
)
def test_results_as_text(value: object, output: str) -> None:
    assert to_output(value) == output


def test_results_with_pictures_and_files() -> None:
    picture, document = image(PNG), file(b"%PDF-1", name="a.pdf")
    assert to_output(picture) == [picture.json]
    assert to_output(["Look:", picture, {"a": 1}, document]) == [
        {"type": "input_text", "text": "Look:"},
        picture.json,
        {"type": "input_text", "text": '{"a":1}'},
        document.json,
    ]


async def test_a_result_that_has_no_json_form_is_a_failed_output() -> None:
    def odd() -> object:
        return object()

    result = await run_tool(tool(odd), context(), "{}")
    assert result.failed and "returned a object, which has no JSON form" in str(result.output)


# -- approval ------------------------------------------------------------------------------


def is_large(amount: float) -> bool:
    return amount > 100


async def is_expensive(ctx: ToolContext[Bank], amount: float, order: str = "") -> bool:
    return amount > 100 and order not in ctx.deps.paid


def knows_all(**arguments: object) -> bool:
    return arguments == {"order": "7", "amount": 101.0}


class Limit:
    def __call__(self, amount: float) -> bool:
        return amount > 100


def unannotated(amount: float) -> bool:
    return amount > 100


unannotated.__annotations__.clear()


@pytest.mark.parametrize("check", [True, is_large, is_expensive, knows_all, Limit(), unannotated])
async def test_approval_by_the_arguments(check: bool) -> None:
    made = tool(refund, needs_approval=check)
    assert await made.approval_needed(context(Bank()), '{"order": "7", "amount": 101}')
    small = await made.approval_needed(context(Bank()), '{"order": "7", "amount": 1}')
    assert small is (check is True)


async def test_arguments_that_do_not_fit_need_no_approval() -> None:
    made = tool(refund, needs_approval=is_large)
    assert not await made.approval_needed(context(), '{"order": "7"}')
    assert not await tool(refund).approval_needed(context(), "{}")


async def test_a_check_sees_the_defaults_of_the_tool() -> None:
    def pay(amount: float = 500.0) -> None: ...

    assert await tool(pay, needs_approval=is_large).approval_needed(context(), "{}")


async def test_a_check_that_fails_asks_somebody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(amount: float) -> bool:
        raise OSError("no rates today")

    made = tool(refund, needs_approval=broken)
    with caplog.at_level(logging.ERROR, "turnlog"):
        assert await made.approval_needed(context(), '{"order": "7", "amount": 1}')
    assert "refund" in caplog.text and "no rates today" in caplog.text


def test_a_check_that_asks_for_what_the_tool_has_not() -> None:
    def by_customer(customer: str) -> bool:
        return bool(customer)

    with pytest.raises(InvalidInput, match=r"'customer'.*order, amount"):
        tool(refund, needs_approval=by_customer)
    with pytest.raises(InvalidInput, match="True, False or a function"):
        tool(refund, needs_approval=cast("bool", "yes"))
    assert tool(raw, parameters=STRICT, needs_approval=by_customer).needs_approval is by_customer


# -- probe ---------------------------------------------------------------------------------


async def test_a_probe_is_given_the_arguments_that_it_names() -> None:
    asked = list[tuple[int, str]]()

    def was_paid(ctx: ToolContext[Bank], order: str) -> str:
        asked.append((ctx.run, order))
        return f"paid {order}"

    made = tool(refund, on_crash="probe", probe=was_paid)
    found = await made.probed(context(Bank()), '{"order": "7", "amount": 1}')
    assert found == Probed(result=ToolResult(output="paid 7"))
    assert asked == [(1, "7")]


async def test_with_arguments_that_do_not_fit_nothing_happened() -> None:
    made = tool(refund, on_crash="probe", probe=is_large)
    assert await made.probed(context(), '{"order": "7"}') == Probed()


def test_a_probe_that_asks_for_what_the_tool_has_not() -> None:
    def by_customer(customer: str) -> bool:
        return bool(customer)

    with pytest.raises(InvalidInput, match=r"probe of the tool 'refund' asks for 'customer'"):
        tool(refund, on_crash="probe", probe=by_customer)


# -- a set of tools ------------------------------------------------------------------------


def test_a_toolset_knows_what_it_can_run_and_what_it_only_surfaces() -> None:
    search: JsonObject = {"type": "web_search"}
    function: JsonObject = {"type": "function", "name": "elsewhere", "parameters": NEARLY}
    made = tool(refund)
    toolset = bind([made, is_large, search, function])
    assert toolset.get("refund") is made
    assert toolset.get("elsewhere") is None and toolset.get("nothing") is None
    found = toolset.get("is_large")
    assert found is not None and found.function is is_large
    assert toolset.definitions() == (made.definition(), found.definition(), search, function)
    assert bind([]).definitions() == ()


def test_tools_of_the_openai_package_are_accepted() -> None:
    given = FunctionTool(type="function", name="f", parameters=dict(STRICT), strict=True)
    (definition,) = bind([cast("ToolLike", given)]).definitions()
    assert definition == {"type": "function", "name": "f", "parameters": STRICT, "strict": True}


@pytest.mark.parametrize(
    "twice",
    [
        [refund, tool(refund)],
        [refund, {"type": "function", "name": "refund", "parameters": STRICT}],
        [{"type": "custom", "name": "refund"}, refund],
        [{"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}],
    ],
)
def test_a_name_that_is_there_twice(twice: list[ToolLike]) -> None:
    with pytest.raises(InvalidInput, match=r"two tools named '(refund|f)'"):
        bind(twice)


def test_names_within_a_namespace_are_its_own() -> None:
    inner: JsonObject = {"type": "function", "name": "refund", "parameters": STRICT}
    space: JsonObject = {"type": "namespace", "name": "crm", "tools": [inner]}
    assert bind([refund, space]).definitions()[1] == space


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ("web_search", "web_search"),
        (None, "pass a function"),
        ({"name": "x"}, '"type"'),
        ({"type": "function"}, "name="),
    ],
)
def test_what_is_no_tool(entry: object, fix: str) -> None:
    with pytest.raises(InvalidInput, match=fix):
        bind([cast("ToolLike", entry)])


def test_secrets_in_a_definition_are_names_and_plain_text_is_refused() -> None:
    server = {"type": "mcp", "server_label": "crm", "server_url": "https://x/mcp"}
    toolset = bind([{**server, "authorization": Secret("env:CRM")}])
    assert toolset.definitions() == ({**server, "authorization": {"$secret": "env:CRM"}},)
    with pytest.raises(ConfigurationError, match="crm"):
        bind([{**server, "authorization": "sk-live"}])


def test_definitions_in_the_shape_of_chat_completions_are_flattened() -> None:
    nested: JsonObject = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert flat(nested) == {"type": "function", "name": "f", "parameters": {}}
    for already in ({"type": "function", "name": "f"}, {"name": "f"}, {"type": "web_search"}):
        assert flat(cast("JsonObject", already)) == already
