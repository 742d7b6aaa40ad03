"""What the tests of faults are given: a model that answers what it is asked, and the laws.

`sound` is what must hold of every conversation after every fault (storage section 2).
"""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import wraps
from itertools import count
from typing import ParamSpec

import turnlog
from turnlog import events as ev
from turnlog.canonical import JsonObject, objects, text
from turnlog.conversation import Conversation
from turnlog.draft import Ambient
from turnlog.items import is_client_call, output_text, type_of
from turnlog.ports import Append, Appended
from turnlog.record import Recorded
from turnlog.state import replay, start
from turnlog.store import MemoryStore
from turnlog.testing import Reply, call, calls
from turnlog.testing import text as says
from turnlog.updates import Delta, HostedUpdate, Retracted, Update

P = ParamSpec("P")

PATIENCE = 20.0
GRACE = 0.004
"""For how many seconds sockets are silent before a clock leaps: both ends are in one thread."""

SUM = "The sums are three and seven."
ASK = "Add one and two, then three and four."

OUTCOMES = (
    ev.ResponseCompleted,
    ev.ResponseIncomplete,
    ev.ResponseFailed,
    ev.ResponseRejected,
    ev.ResponseInterrupted,
    ev.ResponseUnknown,
)
ENDINGS = (ev.CallAnswered, ev.CallRejected, ev.CallAbandoned)


def leaping() -> Ambient:
    """A clock on which every look is a minute later, so that no delay is really waited for."""
    ticks = count(1_700_000_000, 60)
    return Ambient(now=lambda: next(ticks) * 1_000_000)


class Leaper(selectors.DefaultSelector):
    """Waits for sockets; where nothing comes from them, the time until the next timer is over."""

    ahead = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; `ahead` is by how much the clock leapt so far."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, GRACE))
        if not ready:
            self.ahead += timeout
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop on which nobody waits: when all sockets are silent, the next timer is due.

    For tests of which every part runs on this loop: what others do would look like silence.
    """

    def __init__(self) -> None:
        self._leaper = Leaper()
        super().__init__(self._leaper)

    def time(self) -> float:
        """Seconds of a clock that leaps."""
        return super().time() + self._leaper.ahead


def in_no_time(
    test: Callable[P, Coroutine[object, object, None]],
) -> Callable[P, None]:
    """Run a test on a loop of its own, whose clock leaps: `@in_no_time async def test_…`."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=LeapingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


class LateStore(MemoryStore):
    """A store whose answers come some steps of the loop after it has written, as a file's do."""

    async def append(self, append: Append) -> Appended:
        """Write, and answer later: whoever is cancelled between the two does not know."""
        await asyncio.sleep(0)
        appended = await super().append(append)
        await asyncio.sleep(0)
        return appended

    def late(self) -> LateStore:
        """Another owner over the same data, whose answers are late too."""
        return LateStore(shelf=self.shelf)


# -- a model -------------------------------------------------------------------------------

BOTH = calls(call("add", a=1, b=2), call("add", a=3, b=4))


def model(body: JsonObject) -> Reply:
    """Ask for two sums; say them once it has both; anything else is fine."""
    last = objects(body, "input")[-1]
    if type_of(last) == "function_call_output":
        return says(SUM)
    return BOTH if output_text(last) == ASK else says("Fine.")


def for_ever() -> Sequence[Callable[[JsonObject], Reply]]:
    """A script that is long enough for every test."""
    return [model] * 20


# -- what a watcher saw --------------------------------------------------------------------


def shown(updates: Sequence[Update]) -> dict[str, str]:
    """The text of each part of each attempt, without what was retracted."""
    texts: dict[str, dict[str, str]] = {}
    for update in updates:
        if isinstance(update, Retracted):
            texts.pop(update.attempt, None)
        elif isinstance(update, Delta) and update.type == "text.delta":
            parts = texts.setdefault(update.cursor.attempt, {})
            parts[update.part] = parts.get(update.part, "") + update.delta
    return {attempt: "".join(parts.values()) for attempt, parts in texts.items()}


def facts(updates: Sequence[Update]) -> list[tuple[str, int]]:
    """What was told beside the text, with the version that it was told of."""
    return [
        (update.type, update.cursor.version)
        for update in updates
        if not isinstance(update, Delta | HostedUpdate)
    ]


async def collect(updates: AsyncIterator[Update]) -> list[Update]:
    """All updates, with a limit to how long they may take."""
    async with asyncio.timeout(PATIENCE):
        return [update async for update in updates]


# -- the laws ------------------------------------------------------------------------------


async def sound(log: turnlog.Log, chat: Conversation, *, reruns: bool = False) -> list[Recorded]:
    """Everything that must be so of a conversation in which nothing is under way; its events.

    `reruns` says that its tools may be started again (`on_crash="rerun"`).
    """
    report = await log.verify(chat.id) if await chat.events() else None
    assert report is None or report.ok, report.findings
    events = await chat.events()
    assert [one.version for one in events] == list(range(1, len(events) + 1))
    assert len({one.id for one in events}) == len(events)
    if events:
        head = (await chat.state()).head
        assert replay(start(chat.id), events) == head
    told = [one.event for one in events]
    one_outcome_each(told)
    one_end_each(told, reruns=reruns)
    legal(await chat.items())
    return events


def one_outcome_each(facts: Sequence[ev.Event]) -> None:
    """Every attempt ends in exactly one recorded outcome, and no other has one (law 5)."""
    sent = [one.attempt for one in facts if isinstance(one, ev.RequestPrepared)]
    assert len(set(sent)) == len(sent)
    assert Counter(one.attempt for one in facts if isinstance(one, OUTCOMES)) == Counter(sent)


def one_end_each(facts: Sequence[ev.Event], *, reruns: bool) -> None:
    """Every call has one output, unless it was answered late, and none is started twice."""
    asked = [one.call for one in facts if isinstance(one, ev.CallRequested)]
    assert Counter(one.call for one in facts if isinstance(one, ENDINGS)) == Counter(asked)
    started = Counter(one.call for one in facts if isinstance(one, ev.CallStarted))
    assert reruns or all(times == 1 for times in started.values()), started


def legal(items: Sequence[object]) -> None:
    """Every call of the context has exactly one output, and every output its call (law 9)."""
    raws = [item.raw for item in items if isinstance(item, turnlog.Item)]
    asked = [text(raw, "call_id") for raw in raws if is_client_call(raw)]
    told = [text(raw, "call_id") for raw in raws if type_of(raw) == "function_call_output"]
    assert Counter(asked) == Counter(told)


def inputs(items: Sequence[turnlog.Item]) -> list[str]:
    """What the user said, in the order of the context."""
    return [output_text(item.raw) for item in items if text(item.raw, "role") == "user"]
