"""Tools whose process dies, whose turn is cancelled, or who take too long (law 12).

A crash is the file as it was while the tool ran, opened by somebody else: `backup` copies it so.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import turnlog
from turnlog import events as ev
from turnlog.calling import NOT_DONE
from turnlog.canonical import JsonObject, objects
from turnlog.commands import DoubtCalls
from turnlog.conversation import Conversation
from turnlog.draft import Draft
from turnlog.errors import LateAnswer, NotPending
from turnlog.items import type_of
from turnlog.ports import Lease
from turnlog.testing import Scripted, call, calls, scripted, text
from turnlog.tools import HAPPENED, OnCrash

from ..transports.clock import advance, on_clock
from .given import agent, all_of, opened, recorded, tags, talking


class Bank:
    """The world outside: which keys were paid, and what the bank says when it is asked."""

    def __init__(self, says: object = None) -> None:
        self.runs: list[tuple[str, int, tuple[JsonObject, ...]]] = []
        self.asked: list[tuple[str, int, float, tuple[JsonObject, ...]]] = []
        self.says = says
        self.dies = asyncio.Event()

    def agent(self, on_crash: OnCrash = "probe", timeout: float | None = None) -> turnlog.Agent:
        """An agent that pays; the first run never comes back."""

        async def was_paid(ctx: turnlog.ToolContext[None], amount: float) -> object:
            self.asked.append((ctx.idempotency_key, ctx.run, amount, ctx.reported))
            if isinstance(self.says, BaseException):
                raise self.says
            if isinstance(self.says, asyncio.Event):
                await self.says.wait()
            return self.says

        probe = was_paid if on_crash == "probe" else None

        @turnlog.tool(on_crash=on_crash, probe=probe, timeout=timeout)
        async def pay(ctx: turnlog.ToolContext[None], amount: float) -> str:
            self.runs.append((ctx.idempotency_key, ctx.run, ctx.reported))
            await ctx.progress(step=ctx.run)
            if ctx.run == 1:
                self.dies.set()
                await asyncio.Event().wait()
            return f"paid {amount:g}"

        return agent(pay)


async def died(path: Path, bank: Bank, acting: turnlog.Agent) -> None:
    """Leave a file at `path` as a process left it that died while it paid."""
    async with opened([call("pay", amount=3)], acting, path=str(path) + ".lived") as log:
        chat = await log.conversation("c", agent=acting)
        await chat.send("Pay.")
        await bank.dies.wait()
        await log.backup(path)


@asynccontextmanager
async def after_a_crash(
    tmp_path: Path, bank: Bank, on_crash: OnCrash = "probe", limit: float | None = None
) -> AsyncGenerator[tuple[turnlog.Log, Conversation, Scripted]]:
    """The log and the conversation as the next process finds them, recovered."""
    acting = bank.agent(on_crash, limit)
    path = tmp_path / "a.db"
    await died(path, bank, bank.agent(on_crash))
    way = scripted([text("Done."), text("More.")])
    async with opened(way, acting, path=str(path)) as log:
        await log.recover()
        chat = await log.get("c")
        yield log, chat, way
        assert (await log.verify()).findings == ()


async def resumed(chat: Conversation) -> turnlog.TurnResult[str]:
    """The turn, resumed and waited for."""
    turn = await chat.turn((await chat.turns())[0].turn)
    await turn.resume()
    return await turn.result()


async def the_call(chat: Conversation) -> turnlog.Call:
    (found,) = (await chat.state()).pending
    return found


def told(way: Scripted, place: int = -1) -> list[object]:
    """What a request tells the model of its calls."""
    items = objects(way.requests[place], "input")
    return [one["output"] for one in items if type_of(one) == "function_call_output"]


async def noted(chat: Conversation, kind: str) -> list[JsonObject]:
    """What was noted of a kind."""
    return [one.data or {} for one in await all_of(chat, ev.ProviderNoted) if one.kind == kind]


# -- probe ---------------------------------------------------------------------------------


@pytest.mark.parametrize("says", [False, None])
async def test_a_call_that_did_not_happen_runs_again_with_the_same_key(
    tmp_path: Path, says: object
) -> None:
    bank = Bank(says)
    async with after_a_crash(tmp_path, bank) as (_, chat, way):
        assert (await resumed(chat)).output_text == "Done."
        key = bank.runs[0][0]
        assert bank.asked == [(key, 1, 3.0, ({"step": 1},))]
        assert bank.runs == [(key, 1, ()), (key, 2, ({"step": 1},))]
        assert told(way) == ["paid 3"]
        (approved,) = [one for one in await chat.events() if one.tag == "call.approved"]
        assert (approved.actor, approved.event) == (
            "turnlog",
            ev.CallApproved(call=key, reason=NOT_DONE),
        )
        life = [tag for tag in await tags(chat) if tag.startswith("call.")]
        assert life[-4:] == ["call.approved", "call.started", "call.progressed", "call.answered"]


@pytest.mark.parametrize(
    ("says", "output"),
    [
        (True, HAPPENED),
        ("paid on Monday", "paid on Monday"),
        ({"paid": 3}, '{"paid":3}'),
        (0, "0"),
        ("", ""),
        ([], "[]"),
    ],
)
async def test_a_call_that_happened_is_answered_and_does_not_run_again(
    tmp_path: Path, says: object, output: str
) -> None:
    bank = Bank(says)
    async with after_a_crash(tmp_path, bank) as (_, chat, way):
        assert (await resumed(chat)).output_text == "Done."
        assert told(way) == [output]
        assert (len(bank.runs), len(bank.asked)) == (1, 1)
        (answered,) = await all_of(chat, ev.CallAnswered)
        assert not answered.failed


async def test_a_probe_may_say_that_the_answer_comes_later(tmp_path: Path) -> None:
    bank = Bank(turnlog.Deferred())
    async with after_a_crash(tmp_path, bank) as (_, chat, way):
        result = await resumed(chat)
        assert (result.status, result.reason) == ("waiting", "deferred")
        await (await the_call(chat)).answer("paid by the bank")
        assert (await resumed(chat)).output_text == "Done."
        assert told(way) == ["paid by the bank"]
        assert len(bank.runs) == 1


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (OSError("no line"), "OSError: no line"),
        (object(), "InvalidInput: the tool returned a object"),
        (asyncio.CancelledError(), "RuntimeError: it was cancelled"),
        (asyncio.Event(), "timed out after 0.05 seconds"),
    ],
)
async def test_where_a_probe_fails_nobody_knows_and_it_is_asked_again_on_the_next_resume(
    tmp_path: Path, says: object, reason: str
) -> None:
    bank = Bank(says)
    async with after_a_crash(tmp_path, bank, limit=0.05) as (_, chat, way):
        result = await resumed(chat)
        assert (result.status, result.reason) == ("waiting", "uncertain")
        waiting = await the_call(chat)
        assert (waiting.status, waiting.waits_for) == ("uncertain", "uncertain")
        (failed,) = await noted(chat, "probe_failed")
        assert failed["call"] == waiting.id and str(failed["reason"]).startswith(reason)
        assert len(bank.asked) == 1
        bank.says = True
        assert (await resumed(chat)).output_text == "Done."
        assert (told(way), len(bank.asked), len(bank.runs)) == ([HAPPENED], 2, 1)


async def test_what_somebody_decided_while_a_probe_was_asked_stands(tmp_path: Path) -> None:
    bank = Bank(asyncio.Event())
    async with after_a_crash(tmp_path, bank) as (_, chat, way):
        turn = await chat.turn((await chat.turns())[0].turn)
        await turn.resume()
        while not bank.asked:
            await asyncio.sleep(0)
        await (await the_call(chat)).answer("as Ana says", by="ana")
        assert isinstance(bank.says, asyncio.Event)
        bank.says.set()
        assert (await turn.result()).output_text == "Done."
        assert told(way) == ["as Ana says"]


async def test_calls_are_probed_all_at_once(tmp_path: Path) -> None:
    both, dies = asyncio.Barrier(2), asyncio.Event()
    hangs = asyncio.Barrier(3)

    async def ask() -> bool:
        await both.wait()
        return True

    def order() -> str:
        raise turnlog.Deferred

    @turnlog.tool(on_crash="probe", probe=ask)
    async def pay() -> str:
        await hangs.wait()
        dies.set()
        return await asyncio.Event().wait() and "never"

    acting, path = agent(pay, order), tmp_path / "a.db"
    script = [calls(call("pay"), call("order"), call("pay"))]
    async with opened(script, acting, path=f"{path}.lived") as log:
        chat = await log.conversation("c", agent=acting)
        await chat.send("Pay twice.")
        await hangs.wait()
        await recorded(chat, "call.deferred")
        await log.backup(path)
    way = scripted([text("Done.")])
    async with opened(way, acting, path=str(path)) as log:
        await log.recover()
        chat = await log.get("c")
        assert (await resumed(chat)).reason == "deferred"
        await (await the_call(chat)).answer("ordered")
        assert (await resumed(chat)).output_text == "Done."
        assert told(way) == [HAPPENED, HAPPENED, "ordered"]


# -- rerun, ask, give_up -------------------------------------------------------------------


async def test_a_run_finds_what_the_run_before_reported(tmp_path: Path) -> None:
    bank = Bank()
    async with after_a_crash(tmp_path, bank, "rerun") as (_, chat, way):
        assert (await resumed(chat)).output_text == "Done."
        assert [run[1:] for run in bank.runs] == [(1, ()), (2, ({"step": 1},))]
        assert told(way) == ["paid 3"]
        reported = await all_of(chat, ev.CallProgressed)
        assert [one.data for one in reported] == [{"step": 1}, {"step": 2}]


async def test_what_is_uncertain_says_why_and_what_can_be_done(tmp_path: Path) -> None:
    async with after_a_crash(tmp_path, Bank(), "ask") as (log, chat, _):
        waiting = await the_call(chat)
        assert (waiting.status, waiting.waits_for) == ("uncertain", "uncertain")
        assert waiting.can == ("rerun", "answer", "abandon")
        assert waiting.why is not None and "nobody knows" in waiting.why
        (row,) = await log.pending()
        assert (row.call, row.status, row.name) == (waiting.id, "uncertain", "pay")
        for refused in (waiting.approve(), waiting.reject()):
            with pytest.raises(NotPending, match="uncertain"):
                await refused
        await waiting.rerun(by="ana")
        approved = await the_call(chat)
        assert (approved.status, approved.waits_for) == ("approved", None)
        assert approved.can == ("reject", "answer", "abandon")


async def test_a_call_whose_owner_may_wake_says_so_and_is_not_probed(tmp_path: Path) -> None:
    bank = Bank(True)
    acting, path = bank.agent(), tmp_path / "a.db"
    await died(path, bank, acting)
    async with opened([text("Done.")], acting, path=str(path)) as log:
        chat = await log.get("c")
        state = (await chat.state()).head

        async def doubt(draft: Draft) -> Lease:
            draft.do(DoubtCalls(calls=(state.calls[0].id,), reason="?", timed_out=True))
            return "acquire"

        engine = log._engine  # pyright: ignore[reportPrivateUsage]
        await engine.commit("c", doubt, epoch=(await engine.head("c")).epoch + 1)
        await log.recover()
        assert (await resumed(chat)).status == "waiting"
        assert bank.asked == []
        why = (await the_call(chat)).why
        assert why is not None and "may wake" in why


async def test_an_abandoned_call_that_had_started_is_not_called_undone(tmp_path: Path) -> None:
    async with after_a_crash(tmp_path, Bank(), "ask") as (_, chat, way):
        await (await the_call(chat)).abandon(reason="the bank is closed")
        await resumed(chat)
        (said,) = told(way)
        assert str(said).startswith("The call will not be answered: the bank is closed.")
        assert "its outcome is unknown" in str(said)


async def test_a_late_answer_replaces_an_abandonment_until_a_request_contains_it(
    tmp_path: Path,
) -> None:
    bank = Bank()
    async with after_a_crash(tmp_path, bank, "ask") as (log, chat, way):
        waiting = await the_call(chat)
        await waiting.abandon(reason="nobody is here")
        again = await chat.call(waiting.id)
        assert (again.status, again.can, again.waits_for) == ("abandoned", ("answer",), None)
        await again.answer("paid after all", by="ana")
        assert (await resumed(chat)).output_text == "Done."
        assert told(way) == ["paid after all"]
    async with opened([], bank.agent("ask"), path=str(tmp_path / "a.db")) as log:
        with pytest.raises(NotPending):
            await (await log.get("c")).call(waiting.id)


async def test_an_answer_behind_the_request_that_told_of_the_abandonment_is_late(
    tmp_path: Path,
) -> None:
    async with after_a_crash(tmp_path, Bank(), "ask") as (_, chat, _):
        waiting = await the_call(chat)
        await waiting.abandon()
        await resumed(chat)
        with pytest.raises(LateAnswer, match="add the answer as a message"):
            await waiting.answer("too late")


# -- approval, and answers that come later ---------------------------------------------------


@turnlog.tool(needs_approval=True)
async def spend(amount: float) -> str:
    """Spend an amount."""
    return f"spent {amount:g}"


async def test_an_approval_of_another_process_takes_effect_on_resume(tmp_path: Path) -> None:
    path, acting = str(tmp_path / "a.db"), agent(spend)
    async with opened([call("spend", amount=3)], acting, path=path) as log:
        chat = await log.conversation("c", agent=acting)
        assert (await chat.run("Spend.")).reason == "approval"
    async with turnlog.open(path, transport=scripted([])) as log:
        waiting = await the_call(await log.get("c"))  # without any tool
        assert (waiting.waits_for, waiting.can) == (
            "unbound",
            ("approve", "reject", "answer", "abandon"),
        )
        await waiting.approve(by="ana")
        (row,) = await log.pending()
        assert row.status == "approved"
    way = scripted([text("Done.")])
    async with opened(way, acting, path=path) as log:
        assert (await resumed(await log.get("c"))).output_text == "Done."
        assert told(way) == ["spent 3"]


async def test_a_deferred_call_is_not_made_uncertain_by_a_crash(tmp_path: Path) -> None:
    dies = asyncio.Event()

    async def order() -> str:
        raise turnlog.Deferred

    @turnlog.tool(on_crash="rerun")
    async def hang(ctx: turnlog.ToolContext[None]) -> str:
        if ctx.run == 1:
            dies.set()
            await asyncio.Event().wait()
        return "hung"

    acting, path = agent(order, hang), tmp_path / "a.db"
    script = [calls(call("order"), call("hang"))]
    async with opened(script, acting, path=f"{path}.lived") as log:
        chat = await log.conversation("c", agent=acting)
        await chat.send("Order.")
        await dies.wait()
        await recorded(chat, "call.deferred")
        await log.backup(path)
    way = scripted([text("Done.")])
    async with opened(way, acting, path=str(path)) as log:
        await log.recover()
        chat = await log.get("c")
        assert [one.status for one in (await chat.state()).pending] == ["deferred", "uncertain"]
        assert (await resumed(chat)).reason == "deferred"
        waiting = await the_call(chat)
        assert waiting.can == ("answer", "abandon")
        await waiting.answer("arrived")
        assert (await resumed(chat)).output_text == "Done."
        assert told(way) == ["hung", "arrived"] or told(way) == ["arrived", "hung"]


# -- cancelled -----------------------------------------------------------------------------


async def test_a_cancelled_tool_is_not_called_undone() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "never"

    async with talking([call("work"), text("I see.")], agent(work)) as (chat, way):
        turn = await chat.send("Work.")
        await started.wait()
        await turn.cancel(by="ana")
        assert ended.is_set()
        assert (await chat.run("And?")).output_text == "I see."
        assert "its outcome is unknown" in str(told(way)[0])
        assert "call.uncertain" in await tags(chat)
        assert await noted(chat, "late_tool_result") == []


@on_clock
async def test_a_tool_that_does_not_heed_a_cancellation_does_not_hang_the_turn() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn() -> str:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "all the same"

    async with talking([call("stubborn"), text("I see.")], agent(stubborn)) as (chat, way):
        turn = await chat.send("Go.")
        await started.wait()
        stopping = asyncio.create_task(turn.cancel())
        await recorded(chat, "turn.cancel_requested")
        await advance(5.1)
        await stopping
        assert (await turn.result()).status == "cancelled"
        release.set()
        await recorded(chat, "provider.noted")
        (late,) = await noted(chat, "late_tool_result")
        (asked,) = await all_of(chat, ev.CallRequested)
        assert late == {"call": asked.call, "run": 1, "output": "all the same", "failed": False}
        await chat.run("And?")
        assert "all the same" not in str(way.requests[-1])


async def test_a_thread_goes_on_behind_a_cancelled_turn_and_its_result_is_noted() -> None:
    started, release = threading.Event(), threading.Event()

    def slow() -> str:
        started.set()
        release.wait(10)
        raise OSError("no line")

    async with talking([call("slow")], agent(slow)) as (chat, _):
        turn = await chat.send("Go.")
        await asyncio.to_thread(started.wait, 10)
        await turn.cancel()
        assert (await turn.result()).status == "cancelled"
        release.set()
        await recorded(chat, "provider.noted")
        (late,) = await noted(chat, "late_tool_result")
        assert (late["output"], late["failed"]) == ("OSError: no line", True)


async def test_a_tool_that_cancels_itself_has_failed() -> None:
    async def odd() -> str:
        raise asyncio.CancelledError

    async with talking([call("odd"), text("Oh.")], agent(odd)) as (chat, way):
        assert (await chat.run("Go.")).output_text == "Oh."
        assert "it was cancelled" in str(told(way)[0])


# -- too late ------------------------------------------------------------------------------


async def test_a_thread_past_its_time_limit_has_an_unknown_outcome_and_is_noted() -> None:
    release = threading.Event()

    @turnlog.tool(timeout=0.01)
    def slow() -> str:
        release.wait(10)
        return "in the end"

    async with talking([call("slow"), text("Sorry."), text("Yes.")], agent(slow)) as (chat, way):
        assert (await chat.run("Go.")).output_text == "Sorry."
        assert "Timed out" in str(told(way)[0]) and "its outcome is unknown" in str(told(way)[0])
        release.set()
        await recorded(chat, "provider.noted")
        (late,) = await noted(chat, "late_tool_result")
        assert (late["output"], late["failed"]) == ("in the end", False)
        await chat.run("And?")
        assert "in the end" not in str(way.requests)


@on_clock
async def test_a_tool_that_does_not_heed_its_time_limit_is_left_behind() -> None:
    release = asyncio.Event()

    @turnlog.tool(timeout=1)
    async def stubborn() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise turnlog.Deferred

    async with talking([call("stubborn"), text("Sorry.")], agent(stubborn)) as (chat, way):
        turn = await chat.send("Go.")
        await recorded(chat, "call.started")
        await advance(1.1)
        assert len(way.requests) == 1  # it may still tidy up
        await advance(5.1)
        assert (await turn.result()).output_text == "Sorry."
        assert "its outcome is unknown" in str(told(way)[0])
        release.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert await noted(chat, "late_tool_result") == []  # nothing is known of it even now


@pytest.mark.parametrize(
    ("ends", "output", "failed"),
    [("returns", "just so", False), ("raises", "Timed out after 0.01 seconds.", True)],
)
async def test_what_a_tool_says_while_it_is_stopped_counts(
    ends: str, output: str, failed: bool
) -> None:
    @turnlog.tool(timeout=0.01)
    async def tidy() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ends == "raises":
                raise OSError("could not tidy up") from None
        return "just so"

    async with talking([call("tidy"), text("Fine.")], agent(tidy)) as (chat, way):
        await chat.run("Go.")
        assert told(way) == [output]
        (answered,) = await all_of(chat, ev.CallAnswered)
        assert answered.failed is failed


async def test_a_result_that_comes_when_the_log_is_closed_is_not_recorded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()

    @turnlog.tool(timeout=0.01)
    def slow() -> str:
        release.wait(10)
        return "secret"

    async with talking([call("slow"), text("Sorry.")], agent(slow)) as (chat, _):
        await chat.run("Go.")
    release.set()
    async with asyncio.timeout(10):
        while "was not recorded" not in caplog.text:
            await asyncio.sleep(0.001)
    assert "secret" not in caplog.text


async def test_what_a_tool_did_for_a_turn_that_was_taken_over_is_noted() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        started.set()
        await release.wait()
        return "done"

    async with talking([call("work")], agent(work)) as (chat, _):
        await chat.send("Go.")
        await started.wait()
        engine = chat._engine  # pyright: ignore[reportPrivateUsage]

        async def take(draft: Draft) -> Lease:
            draft.do(DoubtCalls(calls=(draft.state.calls[0].id,), reason="beat", timed_out=True))
            return "acquire"

        await engine.commit("c", take, epoch=(await engine.head("c")).epoch + 1)
        release.set()
        await recorded(chat, "provider.noted")
        (late,) = await noted(chat, "late_tool_result")
        assert late["output"] == "done"
        assert (await the_call(chat)).status == "uncertain"


async def test_a_call_that_was_abandoned_while_its_tool_deferred_it_stays_so() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def order() -> str:
        started.set()
        await release.wait()
        raise turnlog.Deferred

    async with talking([call("order"), text("I see.")], agent(order)) as (chat, way):
        turn = await chat.send("Order.")
        await started.wait()
        running = await the_call(chat)
        assert (running.waits_for, running.can) == ("running", ("abandon",))
        with pytest.raises(NotPending, match="cancel the turn"):
            await running.answer("no")
        await running.abandon(reason="not needed")
        release.set()
        assert (await turn.result()).output_text == "I see."
        assert "not needed" in str(told(way)[0])
