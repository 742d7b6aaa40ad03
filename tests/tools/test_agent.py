"""Agents: checked when they are made, frozen, and the same when they say the same."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from pydantic import BaseModel

from turnlog.agent import Agent, on_crash_of
from turnlog.canonical import dumps, obj
from turnlog.configuring import configured
from turnlog.errors import ConfigurationError, InvalidInput
from turnlog.log import register
from turnlog.settings import Settings
from turnlog.tools import ToolContext, tool


class Bank:
    async def refund(self, order: str, amount: float, *, key: str) -> str:
        return f"{order} {amount} {key}"


@dataclasses.dataclass
class Deps:
    bank: Bank


class Invoice(BaseModel):
    total: float


def is_large(amount: float) -> bool:
    return amount > 100


async def was_refunded(ctx: ToolContext[Deps], order: str) -> bool:
    return bool(order) and ctx.run > 1


def load_deps() -> Deps:
    return Deps(Bank())


# The example of the README, as far as agents go: type checkers have to be content with it.


@tool(needs_approval=is_large, on_crash="probe", probe=was_refunded, timeout=30)
async def refund(ctx: ToolContext[Deps], order: str, amount: float) -> str:
    """Pay an order back."""
    return await ctx.deps.bank.refund(order, amount, key=ctx.idempotency_key)


support = Agent(
    "support",
    model="gpt-5.5",
    instructions="Be brief.",
    deps=load_deps,
    tools=[refund, {"type": "web_search"}],
    max_requests=20,
)


def test_the_example_is_an_agent() -> None:
    configured = support.configured
    assert (configured.model, configured.instructions) == ("gpt-5.5", "Be brief.")
    assert configured.tools == (refund.definition(), {"type": "web_search"})
    assert configured.settings == {}
    assert support.toolset.get("refund") is refund
    assert (support.max_requests, support.max_parallel_tools) == (20, 8)
    assert support.deps is load_deps


def test_deps_may_be_made_in_three_ways() -> None:
    async def later() -> Deps:
        return load_deps()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Deps, None]:
        yield load_deps()

    ways: list[Callable[[], object]] = [load_deps, later, opened]
    for way in ways:
        assert Agent("a", deps=way).deps is way


def test_an_agent_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        support.model = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del support.model  # pyright: ignore[reportAttributeAccessIssue]


def test_agents_that_say_the_same_are_the_same() -> None:
    def made(**settings: object) -> Agent:
        rest = cast("Any", settings)
        return Agent("a", model="m", tools=[refund], **rest)

    assert made(temperature=1) == made(temperature=1)
    assert hash(made(temperature=1)) == hash(made(temperature=1))
    assert made(temperature=1).fingerprint == made(temperature=1).fingerprint
    assert made(temperature=1) != made(temperature=2)
    assert made(temperature=1).fingerprint != made(temperature=2).fingerprint
    assert made() != cast("object", "a")
    assert "model='m'" in repr(made())


def test_an_agent_goes_out_as_it_was_made_whatever_becomes_of_the_callers_dicts() -> None:
    search: dict[str, Any] = {"type": "web_search", "filters": {"allowed_domains": ["a.test"]}}
    first = Agent("a", tools=[search])
    search["filters"]["allowed_domains"] = ["b.test"]
    second = Agent("a", tools=[search])

    allowed = [
        [obj(tool, "filters")["allowed_domains"] for tool in agent.configured.tools]
        for agent in (first, second)
    ]
    assert allowed == [[["a.test"]], [["b.test"]]]
    assert first != second


def test_agents_that_are_equal_keep_their_own_bytes() -> None:
    one, true = (
        Agent("a", tools=[{"type": "function", "name": "f", "parameters": {"const": const}}])
        for const in (1, True)
    )
    known: dict[str, Agent] = {}
    register(known, one)

    assert (configured(true, {}).fingerprint, true.fingerprint) != (one.fingerprint,) * 2
    assert dumps(obj(configured(true, {}).tools[0], "parameters")) == b'{"const":true}'
    with pytest.raises(ConfigurationError, match="two different agents"):
        register(known, true)


def test_what_is_unset_is_absent() -> None:
    agent = Agent("a", model="", instructions="", temperature=None, reasoning={"effort": None})
    configured = agent.configured
    assert (configured.model, configured.instructions) == (None, None)
    assert (configured.tools, configured.settings) == ((), {})


def test_settings_are_kept_as_json() -> None:
    agent = Agent("a", tools=[refund], tool_choice=refund, include=("x",), extra={"y": (1,)})
    assert agent.settings == {"extra": {"y": [1]}, "include": ["x"], "tool_choice": "refund"}


def test_an_output_type_becomes_the_format() -> None:
    agent = Agent("a", output_type=Invoice, text={"verbosity": "low"})
    assert agent.output_type is Invoice
    text = obj(agent.settings, "text")
    assert text["verbosity"] == "low"
    assert obj(text, "format")["name"] == "Invoice"
    with pytest.raises(InvalidInput, match="pass one"):
        Agent("a", output_type=Invoice, text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"name": ""}, "1 to 64 characters"),
        ({"name": "  "}, "1 to 64 characters"),
        ({"name": "x" * 65}, "1 to 64 characters"),
        ({"name": 7}, "1 to 64 characters"),
        ({"model": 7}, "model= is text"),
        ({"instructions": ["x"]}, "instructions= is text"),
        ({"deps": Deps(Bank())}, "lambda"),
        ({"max_requests": 0}, "max_requests="),
        ({"max_requests": True}, "max_requests="),
        ({"max_parallel_tools": 1.5}, "max_parallel_tools="),
        ({"tools": [refund, refund]}, "two tools named 'refund'"),
        ({"tools": refund}, "tools= is a list"),
        ({"tools": "web_search"}, "tools= is a list"),
        ({"tool_choice": "required"}, "needs tools"),
        ({"output_type": object()}, "no JSON schema"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_what_cannot_be_an_agent_is_refused_when_it_is_made(
    arguments: dict[str, object], fix: str
) -> None:
    with pytest.raises(InvalidInput, match=fix):
        Agent(**cast("Any", {"name": "a", **arguments}))


def test_secrets_in_plain_text_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Secret"):
        Agent("a", tools=[{"type": "mcp", "server_label": "crm", "authorization": "sk-live"}])


def test_what_becomes_of_each_tool_after_a_crash_is_known_by_its_name() -> None:
    assert on_crash_of(support) == {"refund": "probe"}
    assert on_crash_of(None) == {}


def test_settings_of_a_type_checker() -> None:
    settings: Settings = {"temperature": 0.5}
    assert Agent("a", **settings).settings == {"temperature": 0.5}
