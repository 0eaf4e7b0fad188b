"""Numbers as the findings write them."""

from __future__ import annotations

import math


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent: ``12 %`` of 0.12."""
    return f"{100 * share:.{digits}f} %"


def number(value: float, digits: int = 4) -> str:
    """A number to so many digits, ``∞`` where it is infinite, ``unknown`` where it is NaN."""
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A difference with its sign, to four digits, with the minus sign of print."""
    if not math.isfinite(value):
        return ("+" if value == math.inf else "") + number(value)
    return f"{value:+.4f}".replace("-", "−")


def between(value: float, low: float, high: float, digits: int = 4) -> str:
    """A value and its interval: ``0.91 [0.90, 0.92]``; the value alone where none is known."""
    if math.isnan(low) or math.isnan(high):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"
