"""Commands that decide something: fork, approve, reject, resolve, recover.

The one rule: they record a decision and who took it; nothing goes on before somebody resumes.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from .options import (
    Agents,
    AsJson,
    BaseUrl,
    By,
    CallId,
    Db,
    Id,
    ProfileName,
    Reason,
    ScriptFile,
    TranscriptFile,
    TransportName,
    TransportOption,
)

PATIENCE_SECONDS = 3.0
"""How long a recovery says nothing."""
TAKES_LONG = "still at it: owners that only beat are watched for half a minute"

Resume = Annotated[bool, typer.Option("--resume", help="Then continue the turn here.")]


# -- fork ----------------------------------------------------------------------------------


def fork(
    db: Db,
    id: Id,
    new: Annotated[
        str | None,
        typer.Argument(metavar="NEW", help="The fork's id; made up, where left out."),
    ] = None,
    *,
    before: Annotated[
        str | None, typer.Option(metavar="TURN", help="As it was before this turn.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="VERSION", help="As it was at this version.")
    ] = None,
    by: By = "user",
    as_json: AsJson = False,
) -> None:
    """Branch off another future.

    From now, from before a turn, or from a version; nothing is copied. Prints the id of the fork.
    """
    from .opening import run, writing
    from .screen import Screen

    screen = Screen(as_json=as_json)

    async def work() -> None:
        async with writing(db) as opened:
            made = await (await opened.get(id)).fork(new, before=before, at=at, by=by)
        if as_json:
            screen.data({"id": made.id})
        else:
            screen.say(made.id)

    run(work())


# -- approve and reject --------------------------------------------------------------------


def approve(
    db: Db,
    id: Id,
    call: CallId = None,
    *,
    by: By = "user",
    reason: Reason = None,
    resume: Resume = False,
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    as_json: AsJson = False,
) -> None:
    """Let a call run that waits.

    One that waits for approval may run, and one that is uncertain may run again. Nothing runs
    before the turn is resumed: with --resume here, else by `turnlog resume`.
    """
    from .opening import Way
    from .talking import go_on

    _decide(db, id, call, allowed=True, by=by, reason=reason, as_json=as_json)
    if resume:
        way = Way(
            agents=agents,
            transport=transport,
            base_url=base_url,
            profile=profile,
            script=script,
            transcript=transcript,
            option=option,
        )
        go_on(db, id, way, by=by, as_json=as_json)


def reject(
    db: Db,
    id: Id,
    call: CallId = None,
    *,
    by: By = "user",
    reason: Reason = None,
    resume: Resume = False,
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a call that waits.

    The model is told so, with the reason. One that may have run already, or whose answer was to
    come later, is given up.
    """
    from .opening import Way
    from .talking import go_on

    _decide(db, id, call, allowed=False, by=by, reason=reason, as_json=as_json)
    if resume:
        way = Way(
            agents=agents,
            transport=transport,
            base_url=base_url,
            profile=profile,
            script=script,
            transcript=transcript,
            option=option,
        )
        go_on(db, id, way, by=by, as_json=as_json)


def _decide(
    db: str,
    id: str,
    given: str | None,
    *,
    allowed: bool,
    by: str,
    reason: str | None,
    as_json: bool,
) -> None:
    from .deciding import DONE, decide, done_words, the_call
    from .opening import run, writing
    from .screen import Screen
    from .words import call_words, given_to

    screen = Screen(as_json=as_json)

    async def work() -> None:
        async with writing(db) as opened:
            state = await (await opened.get(id)).state()
            call = the_call(state.pending, given, id)
            verb = await decide(call, allowed=allowed, by=by, reason=reason)
        if as_json:
            screen.data({"conversation": id, "call": call.id, "decision": DONE[verb], "by": by})
        else:
            words = call_words(call.name, call.kind, given_to(call.raw))
            screen.note(done_words(verb, words), style="green")

    run(work())


# -- resolve -------------------------------------------------------------------------------


def resolve(
    db: Db,
    id: Id,
    call: CallId = None,
    *,
    answer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Give it this output, as text.")
    ] = None,
    answer_json: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help='Give it this output; an object with a "type" is a whole item.'
        ),
    ] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="It is uncertain, and may run again.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Tell the model that no answer will come.")
    ] = False,
    approve: Annotated[bool, typer.Option("--approve", help="Let it run.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="The answer says that it failed.")
    ] = False,
    by: By = "user",
    reason: Reason = None,
    resume: Resume = False,
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    as_json: AsJson = False,
) -> None:
    """Settle a call that waits or is uncertain.

    Exactly one of the first six options says how; `turnlog show` says what can be done. Nothing
    runs before the turn is resumed: with --resume here, else by `turnlog resume`.
    """
    from .deciding import DONE, carry_out, done_words, find_call, the_decision
    from .opening import Way, run, writing
    from .screen import Screen
    from .talking import go_on
    from .words import call_words, given_to

    screen = Screen(as_json=as_json)
    decision = the_decision(
        flags={"rerun": rerun, "abandon": abandon, "approve": approve, "reject": reject},
        answer=answer,
        answer_json=answer_json,
        failed=failed,
        reason=reason,
    )

    async def work() -> None:
        async with writing(db) as opened:
            found = await find_call(await opened.get(id), call)
            await carry_out(found, decision, by=by)
        if as_json:
            done = DONE[decision.verb]
            screen.data({"conversation": id, "call": found.id, "decision": done, "by": by})
        else:
            words = call_words(found.name, found.kind, given_to(found.raw))
            screen.note(done_words(decision.verb, words), style="green")

    run(work())
    if resume:
        way = Way(
            agents=agents,
            transport=transport,
            base_url=base_url,
            profile=profile,
            script=script,
            transcript=transcript,
            option=option,
        )
        go_on(db, id, way, by=by, as_json=as_json)


# -- recover -------------------------------------------------------------------------------


def recover(
    db: Db,
    *,
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    as_json: AsJson = False,
) -> None:
    """Settle turns whose process died.

    What is known is recorded, and nothing is started. The provider may be asked what became of a
    response: that needs the --base-url, --profile and key that the turns had. Owners that only beat
    are watched for half a minute first. `turnlog resume` continues, and so does `turnlog work`.
    """
    import asyncio

    from .opening import Way, existing, run
    from .screen import Screen

    screen = Screen(as_json=as_json)
    way = Way(
        agents=agents,
        transport=transport,
        base_url=base_url,
        profile=profile,
        script=script,
        transcript=transcript,
        option=option,
    )

    async def work() -> None:
        async with way.open(existing(db)) as opened:
            note = partial(screen.note, TAKES_LONG)
            patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, note)
            try:
                done = await opened.recover()
            finally:
                patience.cancel()
        if as_json:
            for one in done:
                screen.data(one)
        elif done:
            screen.table(
                ("conversation", "turn", "action", "reason"),
                [(one.conversation, one.turn or "", one.action, one.reason) for one in done],
            )
            screen.note(f"turnlog show {db} ID  says what can be done about each", style="dim")
            screen.note(f"turnlog work {db} --agents MODULE:NAME  goes on with all", style="dim")
        else:
            screen.say("nothing was left behind", style="green")

    run(work())
