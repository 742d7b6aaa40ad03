"""What tests are made of: scripted transports for agents, and contract suites for new parts.

`scripted([call("refund", order="7"), text("Done.")])` is a transport; `TransportContract` and
`StoreContract` are what a new transport or store must pass. What proves that nothing is lost and
nothing done twice lies in modules of its own, for any store:

    invariants  I1 to I9, to be checked after any fault   (rules, deeds: as values)
    torture     processes that are killed, again and again, until they are done
    power       what a power cut may leave on the disk    (needs strace)
    kernel      system calls that fail                    (needs strace)
    simulation  every crash, cancellation and order, on a loop of virtual time
    model       random histories against plain lists      (needs hypothesis)

The one rule: nothing is imported before it is asked for, so that a program that only scripts
replies needs no test runner.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scripts import Reply as Reply
    from .scripts import Script as Script
    from .scripts import Scripted as Scripted
    from .scripts import call as call
    from .scripts import calls as calls
    from .scripts import error as error
    from .scripts import failed as failed
    from .scripts import incomplete as incomplete
    from .scripts import item as item
    from .scripts import reasoning as reasoning
    from .scripts import refusal as refusal
    from .scripts import refuse_upgrade as refuse_upgrade
    from .scripts import reply as reply
    from .scripts import scripted as scripted
    from .scripts import text as text
    from .store_contract import StoreContract as StoreContract
    from .transport_contract import TransportContract as TransportContract

_HOMES = {
    "Reply": ".scripts",
    "Script": ".scripts",
    "Scripted": ".scripts",
    "StoreContract": ".store_contract",
    "TransportContract": ".transport_contract",
    "call": ".scripts",
    "calls": ".scripts",
    "error": ".scripts",
    "failed": ".scripts",
    "incomplete": ".scripts",
    "item": ".scripts",
    "reasoning": ".scripts",
    "refusal": ".scripts",
    "refuse_upgrade": ".scripts",
    "reply": ".scripts",
    "scripted": ".scripts",
    "text": ".scripts",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
