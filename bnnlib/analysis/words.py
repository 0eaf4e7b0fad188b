"""Words and numbers as the findings, tables and figures write them.

A model has a full name in every table, such as ``BNN_FC_flip prior_stddev(0.1) ensemble(3)``.
:func:`labels` gives what is shown in its place, of which only as much is left as tells the models
of one comparison apart: ``prior 0.1 ensemble of 3``.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Iterable

from bnnlib.metrics import Interval
from bnnlib.names import in_order, network_of, settings_of, variant_of

# Parameters that are said in fewer words than their names hold.
_SHORT = {
    "prior_stddev": "prior",
    "posterior_stddev": "posterior",
    "kl_weight": "KL weight",
    "batch_size": "batch",
    "learning_rate": "rate",
    "learning_rate_scaling": "rate scaling",
    "learning_rate_schedule": "rate schedule",
}
_METHODS = {"adam": "Adam", "ivon": "IVON", "swag": "SWAG"}
# What runs of one variant may differ in.
_OF_RUNS = ("ensemble", "converged")
_UNCONVERGED = "(not converged)"


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent: ``12 %`` of 0.12."""
    return f"{number(100 * share, digits)} %"


def number(value: float, digits: int = 4) -> str:
    """A number to so many digits, with the minus of print; ``∞`` or ``unknown`` for NaN."""
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus at 0


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign, to so many digits, with the minus sign of print."""
    if not math.isfinite(value):
        return ("+" if value == math.inf else "") + number(value)
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def between(value: float, low: float, high: float, digits: int = 4) -> str:
    """A value and its interval: ``0.91 [0.90, 0.92]``; the value alone where none is known."""
    if math.isnan(low) or math.isnan(high):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def percent_between(interval: Interval, digits: int = 0) -> str:
    """A share and its interval in per cent: ``12 % [10 %, 15 %]``."""
    value, low, high = (percent(part, digits) for part in within(interval))
    return value if math.isnan(interval.low) else f"{value} [{low}, {high}]"


def within(interval: Interval, least: float = 0.0, most: float = 1.0) -> Interval:
    """An interval of a share or a probability, cut off where none can be."""
    middle, low, high = interval
    return Interval(middle, max(low, least), min(high, most))  # an unknown end stays unknown


def signed_between(value: float, low: float, high: float, digits: int = 4) -> str:
    """A difference and its interval; the difference alone where none is known."""
    if math.isnan(low) or math.isnan(high):
        return signed(value, digits)
    return f"{signed(value, digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def side(low: float, high: float, digits: int = 4) -> int:
    """Which side of zero an interval lies on: 1 above, −1 below, 0 where it holds zero.

    The ends count as they are written: an interval whose end is written 0.0000 holds zero, so that
    no sentence claims what its own numbers do not show. An unknown interval claims nothing.
    """
    if math.isnan(low) or math.isnan(high):
        return 0
    if round(low, digits) > 0:
        return 1
    return -1 if round(high, digits) < 0 else 0


def counted(count: int, noun: str) -> str:
    """A number and its noun: ``1 draw``, ``2 draws``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def span(first: str, last: str) -> str:
    """``first to last``; the one of them where both are written alike."""
    return first if first == last else f"{first} to {last}"


def listed(names: Iterable[str], nothing: str = "no model") -> str:
    """Names as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    *others, last = in_order(names) or [nothing]
    return f"{', '.join(others)} and {last}" if others else last


# --- Names of models -----------------------------------------------------------------------------


def labels(models: Iterable[str]) -> dict[str, str]:
    """What is shown in place of the names of models that are compared with one another.

    A setting is said in words. Where all are variants of one network, it is not said; nor is a
    setting that all variants have, where others tell them apart.

    Returns:
        The label of each name, no two alike.
    """
    present = in_order(models)
    settings = {name: settings_of(name) for name in present}
    several = len({variant_of(name) for name in present}) > 1
    shared = set.intersection(*map(set, settings.values())) if several else set()
    shared.discard(("converged", "no"))
    own = {name: [one for one in settings[name] if one not in shared] for name in present}
    if not all(any(key not in _OF_RUNS for key, _ in left) for left in own.values()):
        own = settings  # a model would look as if it had no setting at all
    one_network = several and len({network_of(name) for name in present}) == 1
    made = {}
    for name in present:
        words = [_said(*setting) for setting in own[name]]
        enough = one_network and words and words[0] != _UNCONVERGED
        network = [] if enough else [network_of(name).rpartition("/")[2]]
        said = " ".join([*network, *words])
        made[name] = said.replace(f"{_UNCONVERGED} ", f"{_UNCONVERGED}, ")
    return made if len(set(made.values())) == len(made) else {name: name for name in present}


def shared(models: Iterable[str]) -> str:
    """What :func:`labels` leaves out since all models have it; empty where that is nothing."""
    present = in_order(models)
    if len({network_of(name) for name in present}) != 1:
        return ""
    by_name, network = labels(present), network_of(present[0])
    if any(network.rpartition("/")[2] in label for label in by_name.values()):
        return ""
    settings = set.intersection(*(set(settings_of(name)) for name in present))
    words = [_said(*one) for one in sorted(settings) if one[0] not in _OF_RUNS]
    said = [word for word in words if not all(word in label for label in by_name.values())]
    return f"All are variants of {' '.join([network, *said])}; the names below say what differs."


def with_labels(text: str, models: Collection[str]) -> str:
    """A finding with the models' labels in place of their names."""
    if not models:
        return text
    by_name = labels(models)
    names = "|".join(map(re.escape, sorted(by_name, key=len, reverse=True)))
    return re.sub(rf"(?<![\w/])(?:{names})(?!\w)", lambda match: by_name[match[0]], text)


def _said(key: str, value: str) -> str:
    """A setting in words."""
    if key == "ensemble":
        return f"ensemble of {value}"
    if key == "converged":
        return _UNCONVERGED
    if key == "inference":
        return _METHODS.get(value, value)
    word = _SHORT.get(key, key.replace("_", " "))
    if value in ("True", "False"):
        return word if value == "True" else f"no {word}"
    with contextlib.suppress(ValueError):
        value = f"{float(value):.12g}"
    return f"{word} {value}" if value else f"no {word}"
