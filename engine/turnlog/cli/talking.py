"""Commands that let a turn run here: chat, resume.

The one rule: this thread owns the terminal and the loop's thread owns the log, so that connections
stay alive while somebody types, and an interrupt cancels the turn and nothing else.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Agents,
    AsJson,
    BaseUrl,
    By,
    Db,
    Id,
    ProfileName,
    Provider,
    ScriptFile,
    TranscriptFile,
    TransportName,
    TransportOption,
    WeightsFile,
)

if TYPE_CHECKING:
    from .opening import Way


def chat(
    db: Db,
    id: Id,
    message: Annotated[
        str | None,
        typer.Argument(
            metavar="MESSAGE",
            help="What to say. Left out, it is a conversation on a terminal, else stdin.",
        ),
    ] = None,
    *,
    agents: Agents = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of the agents; the first, if not said."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(envvar="TURNLOG_MODEL", help="The model to ask.")
    ] = None,
    instructions: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told first.")
    ] = None,
    by: By = "user",
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    provider: Provider = None,
    weights: WeightsFile = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a model.

    The conversation is made by its first message, or goes on. The answer streams to stdout; calls
    and what else happens are told on stderr. A call that needs an approval is asked about, where
    there is a terminal. Ctrl-C cancels the turn, Ctrl-D leaves. The key comes from OPENAI_API_KEY.
    """
    from .local import provided
    from .opening import Way
    from .screen import Screen
    from .session import Session, converse, say_once

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
    with provided(way, provider, weights) as (there, loaded):
        session = Session(
            screen,
            db,
            id,
            there,
            by=by,
            agent=agent,
            model=model or loaded,
            instructions=instructions,
        )
        if message is None and screen.asks:
            converse(session)
            return
        raise typer.Exit(say_once(session, sys.stdin.read() if message is None else message))


def resume(
    db: Db,
    id: Id,
    *,
    by: By = "user",
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    provider: Provider = None,
    weights: WeightsFile = None,
    as_json: AsJson = False,
) -> None:
    """Continue the open turn of a conversation.

    That is one that waited, or whose process died; its tools run here. Ctrl-C cancels the turn.
    """
    from .local import provided
    from .opening import Way

    way = Way(
        agents=agents,
        transport=transport,
        base_url=base_url,
        profile=profile,
        script=script,
        transcript=transcript,
        option=option,
    )
    with provided(way, provider, weights) as (there, _):
        go_on(db, id, there, by=by, as_json=as_json)


def go_on(db: str, id: str, way: Way, *, by: str, as_json: bool) -> None:
    """Continue the open turn, and exit with what it comes to."""
    from .opening import existing
    from .screen import Screen
    from .session import Session, continue_once

    session = Session(Screen(as_json=as_json), existing(db), id, way, by=by)
    raise typer.Exit(continue_once(session))
