"""What the value of a parameter may be, and how it is told where it is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bnnlib import names

# Whether a value holds, and what was expected: a text, or one made of the value.
Check = tuple[Callable[[Any], bool], str | Callable[[Any], str]]

ANY: Check = (lambda value: True, "")
POSITIVE: Check = (lambda value: value > 0, "greater than 0")
NOT_NEGATIVE: Check = (lambda value: value >= 0, "0 or more")
NAME: Check = (lambda value: value != "" and value == value.strip(), "a name without outer spaces")
NAMES: Check = (
    lambda value: all(map(NAME[0], value)) and len(set(value)) == len(value),
    "names without outer spaces, none twice",
)


def one_of(*choices: str) -> Check:
    """One of a few words."""
    return (lambda value: value in choices, "one of " + ", ".join(choices))


def known_or_own(known: Sequence[str], is_own: Callable[[str], bool], what: str) -> Check:
    """A known name, or what has the form of a user's own; an unknown one is told the nearest."""
    return (
        lambda value: NAME[0](value) and (value in known or is_own(value)),
        lambda value: what + names.guess(value, known),
    )


def all_of(check: Check) -> Check:
    """A list of what `check` holds of, none twice."""
    holds, expected = check
    assert callable(expected)

    def told(value: Any) -> str:
        wrong = next((each for each in value if not holds(each)), None)
        return str(NAMES[1]) if wrong is None else f"for {wrong!r} {expected(wrong)}"

    return lambda value: NAMES[0](value) and all(map(holds, value)), told


def _is_npz(text: str) -> bool:
    return text.lower().endswith(".npz")


MODEL = known_or_own(
    names.ALL_MODELS, lambda text: ":" in text, "a network's name or path/to/file.py:function"
)
DATASET = known_or_own(names.DATASETS, _is_npz, "a data set's name or a path that ends in .npz")
OOD_SETS = all_of(
    known_or_own(
        (*names.OOD_GROUPS, *names.OOD_SETS), _is_npz, "a set's name or a path that ends in .npz"
    )
)

LAYER_WORDS = ("auto", "none", "first", "last", "all")
LAYERS: Check = (
    lambda value: (
        value in LAYER_WORDS
        if isinstance(value, str)
        else isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    ),
    "one of " + ", ".join(LAYER_WORDS) + ", or a list of layers' names, none twice",
)
