"""Numbers as the findings write them."""

from __future__ import annotations


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent: ``12 %`` of 0.12."""
    return f"{100 * share:.{digits}f} %"


def signed(value: float) -> str:
    """A difference with its sign, to four digits, with the minus sign of print."""
    return f"{value:+.4f}".replace("-", "−")
