"""Frozen values that are made by the thousand, as fast as plain ones.

The one rule: what is made is the same as the constructor makes; it is only made another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, cast

T = TypeVar("T")


def maker(of: type[T], **fixed: object) -> Callable[..., T]:
    """A function that makes values of a frozen dataclass with slots.

    It takes every field in its order, but for those that are `fixed` to one value, and calls no
    `__post_init__`. The constructor of a frozen dataclass sets each field by a function call, which
    takes 1.0 to 3.3 us. Here they are set the plain way, on an object with the same slots that
    becomes one of the class when it is whole: 0.35 to 0.5 us. As `dataclass` makes a constructor
    of the names of its fields, this does.
    """
    names = [one.name for one in fields(of)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    given = [name for name in names if name not in fixed]
    lines = [
        f"def __init__(self, {', '.join(given)}):",
        *(f"    self.{name} = {name}" for name in names),
        "    self.__class__ = of",
    ]
    made: dict[str, Any] = {**fixed, "of": of}
    exec("\n".join(lines), made)
    body = {"__slots__": names, "__init__": made["__init__"]}
    return cast("Callable[..., T]", type(f"{of.__name__}InTheMaking", (), body))
