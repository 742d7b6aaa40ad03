"""The command that tries an endpoint: doctor.

The one rule: it prints what `checkup` found, and never the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import CONNECTION, AsJson, BaseUrl, ProfileName

if TYPE_CHECKING:
    from ..checks import Checkup
    from .screen import Screen


def doctor(
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model to try what cannot be tried for nothing: a few tokens are paid for.",
            show_default=False,
        ),
    ] = None,
    base_url: BaseUrl = None,
    profile: ProfileName = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The key, instead of the one in the profile's variable. Others on this machine"
            " can see the arguments of a command.",
            rich_help_panel=CONNECTION,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try what a provider can do.

    Looks at the address, the key, the WebSocket and what the profile promises, and says which
    transport would be used, and what to do about each problem. Nothing is paid for without
    --model. Exits with 1 where no turn would get through.
    """
    from ..checkup import check_up
    from ..log import find_transport
    from ..ports import Endpoint, Timeouts
    from .opening import run
    from .screen import Screen

    endpoint = Endpoint(
        base_url=base_url,
        key=key,
        profile=profile,
        timeouts=Timeouts(connect=10, queue=10, first_frame=30, idle=30, total=60),
    )
    found = run(check_up(endpoint, find_transport, model=model))
    show(Screen(as_json=as_json), found)
    raise typer.Exit(0 if found.usable else 1)


def show(screen: Screen, found: Checkup) -> None:
    """Print what was found, and what to do about it."""
    if screen.as_json:
        screen.data(found)
        return
    marks = {True: "ok", False: "wrong", None: "-"}
    screen.table(
        ("check", "", "found"), [(one.name, marks[one.ok], one.said) for one in found.checks]
    )
    for one in found.checks:
        if one.fix is not None:
            screen.say(f"{one.name}: {one.fix}")
