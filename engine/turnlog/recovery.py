"""What must happen next, for a turn found at start as for one that runs (design section 4).

The one rule: the next step is computed from the state and never stored beside it, so that a crash,
a drop in a living process and an ordinary step take the same path. `settle` looks at what an owner
left behind and only establishes facts; `proceed` continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias, assert_never

from .events import Cause, TurnOutcome
from .fold_requests import CHAIN_LOST, FREE
from .state import Attempt, Call, Outcome, State, Turn

OnUnknown = Literal["resend", "stop"]
OnCrash = Literal["rerun", "probe", "ask", "give_up"]

MAX_TRIES = 4
"""How often one request is sent at the most (law 10)."""

MAX_RETRIES = 8
"""How often a turn sends a request again, over all its requests, unless it says otherwise."""

FIRST_DELAY_MS = 500
LONGEST_DELAY_MS = 20_000

MANUAL = "manual"
"""Why a turn waits whose caller runs the tools and asks for each request."""

CRASHED = "crashed"
"""Why a turn is settled whose process died."""

OUR_OWN = frozenset({CRASHED, "closed"})
"""Reasons of an outcome that lie with our own process: the provider is not spared by waiting."""

# -- settling what a dead owner left -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Ask the provider what became of this response."""

    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """The provider goes on with this response by itself: whoever resumes the turn hears it."""

    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """The response was heard from and cannot be asked about: it is interrupted."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """The request was possibly sent, and nothing was heard."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """These calls had started and have no output: nobody knows."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """The facts are settled; the turn waits for `resume`."""

    reason: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The turn is over; calls without an output are abandoned."""

    outcome: TurnOutcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """There is nothing to settle."""


Settlement: TypeAlias = Ask | Leave | Interrupt | Unknown | Doubt | Halt | End | Settled


def settle(state: State, *, retrieve: bool, reason: str = "crashed") -> Settlement:
    """What is to be established first about a turn whose owner is gone.

    `retrieve` says that the provider can be asked about a stored response, and was not yet.
    """
    turn, attempt = state.turn, state.attempt
    if turn is None or (turn.paused is not None and turn.cancel is None):
        return Settled()
    if attempt is not None:
        return _settle_attempt(turn, attempt, retrieve=retrieve, reason=reason)
    started = tuple(call.id for call in state.pending if call.status == "started")
    if started:
        return Doubt(calls=started)
    step = proceed(state, Policy())
    if isinstance(step, End):
        # Nothing is left to do, whatever tools are bound: the end is a fact to record.
        return step
    return Halt(reason=reason, calls=tuple(call.id for call in state.pending))


def _settle_attempt(turn: Turn, attempt: Attempt, *, retrieve: bool, reason: str) -> Settlement:
    if turn.cancel == "now":
        return Interrupt(reason="cancelled")
    if attempt.response is None:
        return Unknown(reason=reason)
    if (attempt.store or attempt.background) and retrieve:
        return Ask(response=attempt.response)
    if attempt.background and reason != CRASHED:
        return Leave(response=attempt.response)
    return Interrupt(reason=reason)


# -- going on ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a request. `full` rules a parent out; `not_before` is a time in microseconds."""

    cause: Cause
    try_number: int = 1
    not_before: int = 0
    delay_ms: int = 0
    full: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCalls:
    """Run these calls, as many at once as the agent allows."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Tell the model of these calls that their outcome is unknown (law 12)."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Ask the application of these calls whether they were carried out (law 12)."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Nothing can run until somebody answers; the lease is released."""

    reason: str
    calls: tuple[str, ...]


Step: TypeAlias = Send | RunCalls | GiveUp | Probe | Pause | End


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the engine was told: how to treat unknown outcomes, and each tool that is bound here.

    `tools` maps a tool's name to its `on_crash`; a name that is absent is not bound. `approval`
    holds the ids of calls that need one and have none, `asked` those whose probe was asked already
    and did not know.
    """

    on_unknown: OnUnknown = "resend"
    tools: Mapping[str, OnCrash] = field(default_factory=dict[str, OnCrash])
    approval: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()


def proceed(state: State, policy: Policy) -> Step:
    """The next step of an open turn that has no attempt under way.

    A turn that is to be cancelled ends here. With `after_request` the request that was under way
    has been heard, so that an end which it led to by itself stands, and only what would have
    followed is cut off.
    """
    turn = state.turn
    assert turn is not None and state.attempt is None
    if turn.cancel == "now":
        return End(outcome="cancelled")
    step = _calls(state, turn, policy) if state.pending else _onward(state, turn, policy)
    if turn.cancel is not None and not isinstance(step, End):
        return End(outcome="cancelled")
    return step


def _onward(state: State, turn: Turn, policy: Policy) -> Step:
    """What follows the last outcome, where every call has an output."""
    last = turn.last
    if last is None:
        return Send(cause="first")
    match last.kind:
        case "completed":
            return _after_completed(state, turn)
        case "incomplete":
            return End(outcome="incomplete", reason=last.reason)
        case "rejected" | "failed":
            return _after_refusal(turn, last)
        case "interrupted" if last.reason == "cancelled":
            return End(outcome="cancelled")
        case "unknown" if policy.on_unknown == "stop":
            return End(outcome="failed", reason=_unknown(last))
        case "interrupted" | "unknown":
            return _again(turn, last)
        case _:
            assert_never(last.kind)


def _after_completed(state: State, turn: Turn) -> Step:
    if not any(call.turn == turn.id for call in state.calls):
        return End(outcome="completed")
    if turn.manual:
        return Pause(reason=MANUAL, calls=())
    if exhausted(turn):
        return End(outcome="limited", reason=_limit(turn))
    return Send(cause="tools_answered")


def exhausted(turn: Turn) -> bool:
    """Whether the turn has made all the requests that it may (retries are not counted)."""
    return turn.max_requests is not None and turn.requests >= turn.max_requests


def _limit(turn: Turn) -> str:
    return f"the turn has made {turn.requests} requests, which is its max_requests"


def _calls(state: State, turn: Turn, policy: Policy) -> Step:
    """What to do about the calls that have no output.

    Those of a manual turn are the caller's, who asks for each request too (`chat.request`).
    """
    if turn.manual:
        return Pause(reason=MANUAL, calls=tuple(call.id for call in state.pending))
    if exhausted(turn):
        return End(outcome="limited", reason=_limit(turn))
    sorted_out = {call.id: verdict(call, policy) for call in state.pending}
    for kind, step in _STEPS.items():
        calls = tuple(id for id, found in sorted_out.items() if found == kind)
        if calls:
            return step(calls=calls)
    reasons = sorted(set(sorted_out.values()))
    return Pause(reason=", ".join(reasons), calls=tuple(sorted_out))


_STEPS: Mapping[str, type[Probe | RunCalls | GiveUp]] = {
    "probe": Probe,
    "run": RunCalls,
    "give_up": GiveUp,
}
"""What is done about calls, in this order: what a probe lets run again runs beside the others."""


def verdict(call: Call, policy: Policy) -> str:
    """What is to be done about an unsettled call: probe, run, give_up, or why it waits (law 12).

    `running` is a call whose tool is at work: it is never started beside itself.
    """
    on_crash = policy.tools.get(call.name or "") if call.kind == "function_call" else None
    match call.status:
        case "started":
            return "running"
        case "deferred":
            return "deferred"
        case "uncertain":
            return _in_doubt(call, on_crash, policy)
        case _ if call.kind == "mcp_approval_request":
            return "approval"
        case _ if on_crash is None:
            return "unbound"
        case "requested" if call.id in policy.approval:
            return "approval"
        case _:
            return "run"


def _in_doubt(call: Call, on_crash: OnCrash | None, policy: Policy) -> str:
    """Nobody can be asked about a call whose owner may wake and finish it, nor twice in a run."""
    match on_crash:
        case "rerun":
            return "run"
        case "give_up":
            return "give_up"
        case "probe" if not call.timed_out and call.id not in policy.asked:
            return "probe"
        case _:
            return "uncertain"


def _unknown(last: Outcome) -> str:
    return (
        f"it is unknown whether the request was carried out ({last.reason});"
        " on_unknown='stop' keeps it from being sent again"
    )


def _after_refusal(turn: Turn, last: Outcome) -> Step:
    if last.code == CHAIN_LOST:
        if turn.chains_lost > 1:
            return End(outcome="failed", reason="the chain was lost twice for one request (W-12)")
        return Send(cause="chain_lost", try_number=last.try_number, full=True)
    if last.code in FREE and turn.limits_hit <= MAX_TRIES:
        return Send(cause="retry", try_number=last.try_number)
    if not last.retryable:
        return End(outcome="failed", reason=last.message or last.reason)
    return _again(turn, last)


def _again(turn: Turn, last: Outcome) -> Step:
    said = last.message or last.reason or last.kind
    if last.try_number >= MAX_TRIES:
        return End(outcome="failed", reason=f"given up after {MAX_TRIES} tries: {said}")
    budget = MAX_RETRIES if turn.max_retries is None else turn.max_retries
    if turn.retries >= budget:
        why = f"given up after {turn.retries} retries in this turn, which is its max_retries"
        return End(outcome="failed", reason=f"{why}: {said}")
    delay = backoff_ms(last)
    return Send(
        cause="recovery" if last.reason in OUR_OWN else "retry",
        try_number=last.try_number + 1,
        not_before=last.time + delay * 1000,
        delay_ms=delay,
    )


def backoff_ms(last: Outcome) -> int:
    """How long to wait behind an outcome: exponential with full jitter, at least `Retry-After`.

    The jitter is drawn from the attempt's id, so that the delay is a fact of the log: whoever
    continues after a crash waits until the same time (law 10, W-35).
    """
    if last.reason in OUR_OWN:
        return 0
    ceiling = min(LONGEST_DELAY_MS, FIRST_DELAY_MS << (last.try_number - 1))
    draw = int.from_bytes(sha256(last.attempt.encode()).digest()[:8], "big") / 2**64
    return max(last.retry_after_ms or 0, round(ceiling * draw))
