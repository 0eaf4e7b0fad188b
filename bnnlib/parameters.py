"""Reads parameters as people write them: the one reader behind every front end.

A parameter comes as text, from a command line or a YAML file, or as a value that another reader has
made of such text, from papermill's namespace. What it means depends on the type of its field alone:
text stays as typed, ``2024_11_27`` and ``no`` too; a list may be one value; a number may be written
``1e-3``, which YAML 1.1 takes for text, or ``10``, ``1e1`` and ``1_000`` for a whole one.
"""

from __future__ import annotations

import contextlib
import math
import re
import typing
from pathlib import Path
from typing import Any

import yaml

from bnnlib.errors import ExperimentError

_NUMBER = re.compile(r"[+-]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?\.?(nan|inf|infinity)", re.IGNORECASE)
_MAX_DIGITS = 400  # of a whole number; Python itself refuses to read 4,301
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_EXPECTED = {
    int: "a whole number, such as 10 or 1e3",
    float: "a number, such as 0.001 or 1e-3",
    bool: "true or false",
}


class Typed(str):
    """A value of a YAML file, as it is typed there; messages show a number without quotes."""

    def __repr__(self) -> str:
        return str(self) if _NUMBER.fullmatch(self) else super().__repr__()


class _Loader(yaml.SafeLoader):
    """Leaves scalars as text, but for null; refuses a key that stands twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] in ("null", "merge")]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        for key in keys:
            if keys.count(key) > 1:  # YAML would take the last without a word
                problem = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_constructor(
    "tag:yaml.org,2002:str", lambda loader, node: Typed(loader.construct_scalar(node))
)


def read(name: str, value: Any, expected: Any) -> Any:
    """A parameter's value by the type of its field, from what a front end has.

    Args:
        name: for the error.
        value: text, or what another reader has made of it.
        expected: the field's type: str, int, float, bool, a list of one of them, or object for text
            that may be a list of text.

    Returns:
        A value of that type, or `value` itself where that is no text to be read:
        :class:`bnnlib.experiment.Experiment` refuses it.

    Raises:
        ExperimentError: the text is none of the type's, or was lost on its way here.
    """
    if value is None:
        raise ExperimentError(f"{name} = {value}: expected a value; left out, the default holds")
    if typing.get_origin(expected) is list:
        return _list(name, value, typing.get_args(expected)[0])
    if expected is object:  # text, or a list of text
        is_text = isinstance(value, str) and not value.strip().startswith("[")
        return _text(name, value) if is_text else _list(name, value, str)
    if expected is str:
        return _text(name, value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if expected is bool and text.lower() in _TRUTH:
        return _TRUTH[text.lower()]
    if expected is float and _NOT_FINITE.fullmatch(text):
        return float(text.lower().replace(".", ""))
    if expected is not bool and _NUMBER.fullmatch(text) and len(text) <= _MAX_DIGITS:
        if expected is int and not re.search("[.eE]", text):
            return int(text)
        number = float(text)
        if expected is float or number.is_integer():
            return expected(number)
    raise ExperimentError(f"{name} = {value!r}: expected {_EXPECTED[expected]}")


def typed(name: str, value: Any, expected: Any) -> Any:
    """`value` as the type of its field; refuses what would lose something or hide a mistake."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        value = value.item()  # a program of the user's counts in numpy.int64
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an int that no float can hold
            if math.isfinite(value):
                return float(value)
        raise ExperimentError(f"{name} = {value!r}: expected a finite number")
    if expected is int and isinstance(value, float) and value.is_integer():
        return int(value)  # YAML's and the command line's 1e3
    if expected is int and isinstance(value, bool):
        raise ExperimentError(f"{name} = {value!r}: expected an int, got a bool")
    if typing.get_origin(expected) is list:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return list(value)
        raise ExperimentError(
            f"{name} = {value!r}: expected a list of text, on papermill's command line "
            f"-y '{name}: [first, second]'"
        )
    if expected is object:
        return list(value) if isinstance(value, tuple) else value
    if not isinstance(value, expected):
        raise ExperimentError(
            f"{name} = {value!r}: expected {expected.__name__}, got {type(value).__name__}"
        )
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # papermill makes a number of a run's folder 20241127
    if isinstance(value, float | bool):
        raise ExperimentError(
            f"{name} = {value!r}: expected text, and papermill has made a value of it that may no "
            f"longer be what was typed; -r {name} TEXT, or quotes in YAML, keep the text"
        )
    return typing.cast(str, value)


def _list(name: str, value: Any, item_type: Any) -> Any:
    if isinstance(value, str):
        value = parse(value, name) if value.strip().startswith("[") else [value]
    if not isinstance(value, list | tuple):
        return value
    return [read(name, item, item_type) for item in value]


def read_file(path: str | Path, what: str) -> Any:
    """What a YAML file holds, each scalar as :class:`Typed` text and an empty one as None.

    Args:
        path: of the file, UTF-8.
        what: it should be, for the error.

    Raises:
        ExperimentError: it cannot be read, or a key stands twice.
    """
    return parse(text_of(path, what), f"{path}: no {what} can be read")


def text_of(path: str | Path, what: str) -> str:
    """A file's text, without the byte-order mark that some editors put before it.

    Raises:
        ExperimentError: the file is missing, or no UTF-8.
    """
    try:
        content = Path(path).read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        reason = f"line {line} is no UTF-8; save it in that encoding"
    except OSError as error:
        reason = str(error.strerror)
    except ValueError as error:  # a path with a NUL
        reason = str(error)
    raise ExperimentError(f"{path}: no {what} can be read ({reason})")


def parse(text: str, where: str) -> Any:
    """What a YAML text holds, as :func:`read_file`; `where` begins the error's sentence."""
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        reason = f"{line}{error.problem or error.context}"
    except yaml.reader.ReaderError as error:
        reason = f"character {error.position + 1}, #x{error.character:04x}: {error.reason}"
    except (RecursionError, ValueError) as error:
        reason = str(error)
    raise ExperimentError(f"{where} ({reason})")
