"""An event loop without sockets and threads, whose time leaps and whose order follows from a seed.

The one rule: nothing but the seed decides what runs next, so that the same seed leads to the same
run. Where nothing can run, it is at once the time of the next timer.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from functools import partial
from itertools import count
from random import Random
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HORIZON = 3600.0
"""After how many seconds of its time a simulation that is not over is taken for stuck."""

BLINK = 0.001
"""How long a call that blocks takes at most, in seconds."""

ROUNDS = 100
"""How often what is left in the end is cancelled, until it is taken for stuck."""

PLACE: ContextVar[object] = ContextVar("turnlog_simulation_place", default=None)
"""Where something runs: it is handed on to whatever is started there, and can be frozen."""


class Stuck(Exception):
    """Nothing is left to run, or too much time has passed, and the simulation is not over."""


class Crashed(BaseException):
    """The process in which this is raised is gone: nothing of it runs any more."""


class Due(asyncio.TimerHandle):
    """Something that can run at a time or later, and where."""

    def __init__(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        args: tuple[*Ts],
        loop: asyncio.AbstractEventLoop,
        context: Context,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.place = context.get(PLACE)

    def run(self) -> None:
        """Do it, unless it was cancelled."""
        if not self.cancelled():
            self._run()


class SimulatedLoop(asyncio.BaseEventLoop):
    """A loop for one run of a simulation. `problems` holds what nobody was there to be told of."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = Random(seed)
        self.problems: list[str] = []
        self._now = 0.0
        self._horizon = HORIZON
        self._ahead: list[Due] = []
        self._later: list[tuple[float, int, Due]] = []
        self._numbers = count()
        self._frozen: dict[object, list[Due]] = {}

    def call_exception_handler(self, context: Mapping[str, object]) -> None:
        """Note what went wrong where nobody waits."""
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    # -- what asyncio asks for ---------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the simulation began."""
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call something when it is its turn, before any time passes."""
        due = Due(self._now, callback, args, self, _or_own(context))
        self._add(due)
        return due

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """The same: there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something at a time."""
        due = Due(when, callback, args, self, _or_own(context))
        heapq.heappush(self._later, (when, next(self._numbers), due))
        return due

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Do what blocks here, after a moment: nobody can stop it, as in a thread."""
        future: asyncio.Future[T] = self.create_future()

        self.call_later(self.moment(), fulfil, future, partial(func, *args))
        return future

    def _run_once(self) -> None:
        """What `run_forever` does until it is told to stop."""
        self.turn()

    # -- one step ----------------------------------------------------------------------------

    def turn(self, until: float | None = None) -> None:
        """Run one thing that is ready; where nothing is, leap to the next timer, or to `until`."""
        if not self._ahead:
            self._leap(until)
        if self._ahead:
            place = self.random.randrange(len(self._ahead))
            self._ahead[place], last = self._ahead[-1], self._ahead[place]
            self._ahead.pop()
            last.run()

    def pass_time(self, seconds: float) -> None:
        """Let others run for so long, from within something that runs: it is not over meanwhile.

        Only for what is no task's: a task may not run within another.
        """
        end = self._now + seconds
        while self._now < end:
            self.turn(end)

    def moment(self) -> float:
        """How long something takes that blocks."""
        return self.random.uniform(0, BLINK)

    def _leap(self, until: float | None) -> None:
        while self._later and self._later[0][2].cancelled():
            heapq.heappop(self._later)
        due = self._later[0][0] if self._later else None
        if until is not None and (due is None or due > until):
            self._now = max(self._now, until)
            return
        if due is None:
            raise Stuck(f"nothing is left to run after {self._now:.3f} seconds")
        if due > self._horizon:
            raise Stuck(f"it is not over after {HORIZON:.0f} seconds")
        self._now = max(self._now, due)
        while self._later and self._later[0][0] <= self._now:
            self._add(heapq.heappop(self._later)[2])

    def _add(self, due: Due) -> None:
        self._frozen.get(due.place, self._ahead).append(due)

    # -- places ------------------------------------------------------------------------------

    def freeze(self, place: object) -> None:
        """Let nothing run at a place until it is thawed."""
        frozen = self._frozen.setdefault(place, [])
        frozen += [one for one in self._ahead if one.place is place]
        self._ahead = [one for one in self._ahead if one.place is not place]

    def thaw(self, place: object) -> None:
        """Let what is at a place go on."""
        self._ahead += self._frozen.pop(place, [])

    # -- the end -----------------------------------------------------------------------------

    def bury(self) -> None:
        """Cancel whatever is left, and close; raises Stuck where something does not end."""
        for place in list(self._frozen):
            self.thaw(place)
        self._horizon = math.inf
        for _ in range(ROUNDS):
            for task in asyncio.all_tasks(self):
                task.cancel()
            self.run_until_complete(asyncio.sleep(BLINK))
            if not asyncio.all_tasks(self):
                break
        self.run_until_complete(self.shutdown_asyncgens())
        left = sorted(repr(task.get_coro()) for task in asyncio.all_tasks(self))
        self.close()
        if left:
            raise Stuck(f"cancelled {ROUNDS} times, and it does not end: {', '.join(left)}")


def _or_own(context: Context | None) -> Context:
    """A context, or a copy of this one; an empty context is one, too."""
    return copy_context() if context is None else context


def fulfil(future: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Do something, and tell a future what it came to, unless nobody wants to know any more."""
    try:
        result = call()
    except Crashed:
        return
    except Exception as error:  # whoever waits is told, whatever it is
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)
