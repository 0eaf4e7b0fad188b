"""What ``run.json`` holds: its keys and their types, and reading and writing it."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnnlib import metrics
from bnnlib.errors import RecordError
from bnnlib.record.files import write_atomically

STATUSES = ("running", "finished", "stopped", "failed")
# Every key of run.json and its type; None stands for what could not be known.
KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "parameters": (dict,),
    "status": (str,),
    "metrics": (dict,),
    "evaluation": (list,),
    "error": (dict, type(None)),
    "ranks": (int,),
    "hosts": (list,),
    "threads": (int,),
    "cores": (int, type(None)),
    "seed": (int,),
    "commit": (str, type(None)),
    "clean": (bool, type(None)),
    "versions": (dict,),
    "horovod": (dict,),
    "launcher": (str,),
    "job_id": (str, type(None)),
    "environment": (dict,),
    "command": (str,),
    "started": (str,),
    "ended": (str, type(None)),
    "history": (list,),
    "startup_seconds": (dict, type(None)),
}
# 2: `evaluation`, a row a set of :class:`bnnlib.metrics.Evaluation`; 1 had the test
# set alone.
SCHEMA = 2


def read_record(directory: str | Path) -> dict[str, Any]:
    """One run's ``run.json``.

    Raises:
        RecordError: it is missing, no JSON, or a key is missing or of another type.
    """
    path = Path(directory) / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: no readable run record ({error})") from error
    if not isinstance(record, dict):
        raise RecordError(f"{path}: no run record, expected an object with the key `parameters`")
    record.setdefault("evaluation", [])  # schema 1
    record.setdefault("history", [])  # runs older than it
    for key in ("cores", "startup_seconds"):
        record.setdefault(key, None)  # records older than the key
    for key, types in KEYS.items():
        value = record.get(key, ...)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            found = repr(record[key])[:60] if key in record else "nothing"
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise RecordError(f"{path}: key {key!r}: expected {expected}, found {found}")
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{path}: status = {record['status']!r}: expected one of {', '.join(STATUSES)}"
        )
    for key, value in record["metrics"].items():
        if not is_number(value) and value is not None:
            raise RecordError(f"{path}: metric {key!r}: expected a number, found {value!r:.60}")
    for row in record["evaluation"]:
        _check_row(path, row)
    return record


def _check_row(path: Path, row: Any) -> None:
    """Refuses what is no row of :class:`bnnlib.metrics.Evaluation`."""
    texts = ("set", "kind")
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
        raise RecordError(f"{path}: evaluation: expected rows with set and kind, found {row!r:.60}")
    if row["kind"] not in metrics.KINDS:
        expected = ", ".join(metrics.KINDS)
        raise RecordError(
            f"{path}: evaluation of {row['set']!r}: kind = {row['kind']!r}: expected one of "
            f"{expected}"
        )
    for key, value in row.items():
        if key not in texts and not is_number(value) and value is not None:
            raise RecordError(
                f"{path}: evaluation of {row['set']!r}: {key!r}: expected a number, found "
                f"{value!r:.60}"
            )


def now() -> str:
    """The time in a record, ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_record(directory: str | Path, record: Mapping[str, Any]) -> None:
    """Writes one run's ``run.json``, whole or not at all.

    Raises:
        RecordError: it could not be written.
    """
    write_atomically(Path(directory) / "run.json", lambda file: file.write(to_json(record)))


def to_json(record: Mapping[str, Any]) -> bytes:
    """The content of ``run.json``."""
    return (json.dumps(plain(record), indent=2, allow_nan=False) + "\n").encode()


def plain(value: Any) -> Any:
    """JSON's values: no NaN, for which null stands, and text for what JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)  # such as a date in a refused parameter file
