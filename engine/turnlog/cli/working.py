"""The command that goes on with whatever can go on, as a service: work.

The one rule: the first SIGINT or SIGTERM stops it in good order, and the second at once; either way
every turn that it ran has a recorded outcome, or can be recovered.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Agents,
    AsJson,
    BaseUrl,
    Db,
    ProfileName,
    ScriptFile,
    TranscriptFile,
    TransportName,
    TransportOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..working import WorkReport
    from .screen import Screen


def work(
    db: Db,
    *,
    most: Annotated[int, typer.Option(min=1, help="How many turns run at once.")] = 100,
    poll: Annotated[
        float, typer.Option(min=0.01, metavar="SECONDS", help="How often it looks by itself.")
    ] = 1.0,
    grace: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long it waits for turns at its end."),
    ] = 30.0,
    every: Annotated[
        float,
        typer.Option(min=0.01, metavar="SECONDS", help="How often it says what it has done."),
    ] = 60.0,
    agents: Agents = None,
    transport: TransportName = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    script: ScriptFile = None,
    transcript: TranscriptFile = None,
    option: TransportOption = None,
    as_json: AsJson = False,
) -> None:
    """Go on with whatever can go on.

    Turns whose process died are settled and resumed, those that waited go on when they were
    approved or answered, and queued ones begin: of the agents that are given, and of conversations
    without one. Any number of workers may share a database. It runs until it is interrupted
    (SIGINT, SIGTERM), and then waits for what runs; a second signal ends it at once, and what ran
    is settled by the next worker.
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

    async def worker() -> None:
        stop = asyncio.Event()

        def stopping() -> None:
            stop.set()
            screen.note(
                f"stopping: waits up to {grace:g} s for what runs; a second signal ends it at once"
            )

        _stop_on_signals(stopping)

        def report(done: WorkReport) -> None:
            _tell(screen, done, as_json=as_json)

        existing(db)
        await way.check()
        async with way.open(db) as opened:
            screen.note("at work until interrupted")
            if agents is None:
                screen.note("no --agents: only conversations without an agent go on here")
            await opened.work(
                stop=stop, most=most, poll=poll, grace=grace, every=every, report=report
            )

    run(worker())


def _stop_on_signals(stop: Callable[[], None]) -> None:
    """The first signal asks for the end; a second one is not held up."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    heard = (signal.SIGINT, signal.SIGTERM)

    def asked() -> None:
        for number in heard:
            loop.remove_signal_handler(number)
        stop()

    for number in heard:
        with suppress(NotImplementedError):  # Windows has no such handlers: Ctrl-C ends it at once
            loop.add_signal_handler(number, asked)


def _tell(screen: Screen, done: WorkReport, *, as_json: bool) -> None:
    if as_json:
        screen.data(done)
    else:
        screen.say(str(done))
