"""Which call is meant, and what is done with it.

The one rule: what a call waits for says what approving and rejecting it mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..call import Call
from ..canonical import loads
from ..conversation import Conversation
from ..decide_calls import Verb
from ..errors import AlreadyAnswered, InvalidInput, NotFound, NotPending
from ..events import CallAbandoned, CallAnswered, CallRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to become of a call, and the output that it gets, where it is answered."""

    verb: Verb
    output: object = None
    failed: bool = False
    reason: str | None = None


DONE: dict[Verb, str] = {
    "approve": "approved",
    "reject": "rejected",
    "rerun": "rerun",
    "answer": "answered",
    "abandon": "abandoned",
}
"""What was done, in a word."""


def done_words(verb: Verb, words: str) -> str:
    """What was done with a call, as a line."""
    return f"{'may run again:' if verb == 'rerun' else DONE[verb]} {words}"


def the_decision(
    *,
    flags: dict[Verb, bool],
    answer: str | None,
    answer_json: str | None,
    failed: bool,
    reason: str | None,
) -> Decision:
    """The one decision that a command line asks for; raises InvalidInput for none, and for two."""
    asked = list[Verb](verb for verb, wanted in flags.items() if wanted)
    for given in (answer, answer_json):
        if given is not None:
            asked.append("answer")
    if len(asked) != 1:
        raise InvalidInput(
            "say exactly one of --answer, --answer-json, --rerun, --abandon, --approve and --reject"
            f" ({len(asked) or 'none'} given)"
        )
    (verb,) = asked
    if failed and verb != "answer":
        raise InvalidInput(f"--failed goes with an answer, not with --{verb}")
    if reason is not None and verb == "answer":
        raise InvalidInput("--reason does not go with an answer: the answer says it")
    output = loads(answer_json) if answer_json is not None else answer
    return Decision(verb=verb, output=output, failed=failed, reason=reason)


async def carry_out(call: Call, decision: Decision, *, by: str) -> None:
    """Do with a call what was decided; raises NotPending, naming what can be done instead."""
    if decision.verb not in call.can:
        can = ", ".join(f"--{verb}" for verb in call.can)
        what = f"what can be done: {can}" if can else "nothing can be done about it"
        raise NotPending(f"call {call.id!r} is {call.status}, so no --{decision.verb}; {what}")
    match decision.verb:
        case "approve":
            await call.approve(by=by, reason=decision.reason)
        case "reject":
            await call.reject(by=by, reason=decision.reason)
        case "rerun":
            await call.rerun(by=by, reason=decision.reason)
        case "abandon":
            await call.abandon(by=by, reason=decision.reason or "abandoned")
        case _:
            await call.answer(decision.output, by=by, failed=decision.failed)


async def find_call(conversation: Conversation, given: str | None) -> Call:
    """The call that is meant, among those that wait; by its id also one that was abandoned.

    Raises NotFound, AlreadyAnswered, and InvalidInput where several are meant.
    """
    waiting = (await conversation.state()).pending
    try:
        return the_call(waiting, given, conversation.id)
    except NotFound:
        if given is None:
            raise
        try:
            return await conversation.call(given)
        except NotPending:
            await _check_open(conversation, given)
        raise


async def _check_open(conversation: Conversation, call: str) -> None:
    """Raise AlreadyAnswered where the log says what became of a call."""
    for one in reversed(await conversation.events()):
        match one.event:
            case (
                CallAnswered(call=settled)
                | CallRejected(call=settled)
                | CallAbandoned(call=settled)
            ) if settled == call:
                said = one.tag.removeprefix("call.")
                raise AlreadyAnswered(f"call {call!r} was {said} already, by {one.actor}")
            case _:
                pass


async def decide(call: Call, *, allowed: bool, by: str, reason: str | None) -> Verb:
    """Settle what a call waits for; what that was."""
    started = call.status in ("uncertain", "deferred")
    if allowed and call.status == "uncertain":
        await call.rerun(by=by, reason=reason)
        return "rerun"
    if allowed:
        await call.approve(by=by, reason=reason)
        return "approve"
    if started:
        await call.abandon(by=by, reason=reason or "rejected")
        return "abandon"
    await call.reject(by=by, reason=reason)
    return "reject"


def the_call(calls: Sequence[Call], given: str | None, conversation: str) -> Call:
    """The call that is meant; raises NotFound where none is, InvalidInput where several are."""
    exact = [call for call in calls if given in (call.id, call.call_id)]
    meant = exact or [call for call in calls if given is None or _means(given, call)]
    # What is approved already is not meant by a name that others have too.
    found = [call for call in meant if call.status != "approved"] or meant
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{call.id} ({call.name or call.kind})" for call in found or calls)
    if found:
        raise InvalidInput(f"several calls of {conversation!r} wait: name one of {names}")
    raise NotFound(
        f"no call {given or ''} of {conversation!r} waits: there are {names or 'none'}".replace(
            "  ", " "
        )
    )


def _means(given: str, call: Call) -> bool:
    ids = (call.id, call.call_id or "")
    return bool(given) and (call.name == given or any(id.startswith(given) for id in ids))
