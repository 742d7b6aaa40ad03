"""Numbers in words, for people.

The one rule: as many digits as a figure is good for, which is three.
"""

from __future__ import annotations

import math


def short(value: float) -> str:
    """A number in three digits: 1,840, 16.2, 0.00317."""
    if not math.isfinite(value):
        return "∞"
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    places = 2 - math.floor(math.log10(abs(rounded)))
    text = f"{rounded:.{places}f}"
    return text.rstrip("0").rstrip(".")


def times(ratio: float) -> str:
    """A ratio: 1.05x."""
    return f"{short(ratio) if ratio >= 10 else f'{ratio:.2f}'}x"


def share(part: float) -> str:
    """A share of a whole: 16%."""
    return f"{part:.0%}"
