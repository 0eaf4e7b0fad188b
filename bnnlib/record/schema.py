"""What ``run.json`` holds: its keys and their types, and reading and writing it."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnnlib import launcher, metrics
from bnnlib.errors import RecordError
from bnnlib.record.files import write_atomically

STATUSES = ("running", "finished", "stopped", "failed")
Types = Mapping[str, tuple[type, ...]]
# Every key of run.json and its type; None stands for what could not be known.
KEYS: Types = {
    "schema": (int,),
    "parameters": (dict,),
    "status": (str,),
    "metrics": (dict,),
    "evaluation": (list,),
    "converged": (dict, type(None)),  # bnnlib.record.convergence; None: it has no posterior
    "error": (dict, type(None)),
    "history": (list,),
    "attempts": (list,),
    "data": (dict, type(None)),  # of bnnlib.data.content
    "source": (dict, type(None)),  # of a user's own network, of bnnlib.record.source
}
# What a record older than a key is read with.
ADDED: dict[str, Any] = {"data": None, "converged": None, "source": None}
# Every key of an attempt: one start of the run, on which machine and by what it was made.
ATTEMPT_KEYS: Types = {
    "ranks": (int,),
    "virtual_ranks": (int,),  # that each rank carried
    "hosts": (list,),
    "threads": (int,),
    "cores": (int, type(None)),  # that the ranks of a node may use
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
    "startup_seconds": (dict, type(None)),
    "first_step": (int, type(None)),  # from which the attempt trained; None: it trained nothing
}
# 8: `data` says what the network takes (bnnlib.data.Inputs); who predicts by an older record needs
# the data set beside it.
# 7: `num_draws` of a row, and the kind `reference`; before, all sets had all images and test_draws.
# 6: `converged`; older records are None there, since it was not asked.
# 5: `data`, and infinite values as text; before an infinite value was null.
# 4: `virtual_ranks` and `noise_streams`; 3 had `accumulate` and `noise`.
# 3: `attempts`; 2 had one start's keys beside the others, and a later start overwrote them.
# 2: `evaluation`, a row a set of :class:`bnnlib.metrics.Evaluation`; 1 had the test set alone.
SCHEMA = 8
INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}
# Metrics of schemas 1 and 2 by their present name: `steps` is a parameter.
RENAMED = {"steps": "steps_done"}


def new_record(
    parameters: Mapping[str, Any], status: str, attempts: list[dict[str, Any]]
) -> dict[str, Any]:
    """A record of a run of which nothing else is known yet."""
    return {
        "schema": SCHEMA,
        "parameters": dict(parameters),
        "status": status,
        "metrics": {},
        "evaluation": [],
        "error": None,
        "history": [],
        "attempts": attempts,
        **ADDED,
    }


def read_record(directory: str | Path) -> dict[str, Any]:
    """One run's record, with what is known of the attempt that trained it.

    Returns:
        The keys in :data:`KEYS`, and those in :data:`ATTEMPT_KEYS` of the last attempt that trained
        (of the last one, where none has): its machine is the one of the timings. But ``started`` is
        the first attempt's, and ``ended`` the last one's.

    Raises:
        RecordError: as :func:`read_file`.
    """
    record = read_file(directory)
    attempts = record["attempts"]
    trained = [attempt for attempt in attempts if attempt["first_step"] is not None] or attempts
    ends = {"started": attempts[0]["started"], "ended": attempts[-1]["ended"]}
    return record | trained[-1] | ends


def read_finished(directory: str | Path) -> dict[str, Any]:
    """The :func:`read_record` of a finished run.

    Raises:
        RecordError: there is no readable record, or the run has not finished.
    """
    record = read_record(directory)
    if record["status"] != "finished":
        raise RecordError(
            f"{directory}: status = {record['status']!r}: expected a finished run; the command "
            "that began it goes on with it"
        )
    return record


def is_finished(directory: str | Path) -> bool:
    """Whether a run has finished, as far as its record says; a damaged one's own turn tells."""
    with contextlib.suppress(RecordError):
        return bool(read_file(directory)["status"] == "finished")
    return False


def read_file(directory: str | Path) -> dict[str, Any]:
    """What one run's ``run.json`` holds, in the present schema: the keys in :data:`KEYS`.

    A record of schema 1 or 2 knows one start, which becomes its one attempt.

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
    if "attempts" not in record:
        record = _upgraded(record)
    if record.get("schema") in (1, 2, 3):
        record = _with_virtual_ranks(record)
    record = ADDED | record
    if record.get("schema") in range(SCHEMA):
        record["schema"] = SCHEMA
    _check_types(path, record, KEYS)
    if not record["attempts"]:
        raise RecordError(f"{path}: key 'attempts': expected at least one, found []")
    for attempt in record["attempts"]:
        if not isinstance(attempt, dict):
            raise RecordError(f"{path}: key 'attempts': expected objects, found {attempt!r:.60}")
        _check_types(path, attempt, ATTEMPT_KEYS)
    if record["status"] not in STATUSES:
        raise RecordError(
            f"{path}: status = {record['status']!r}: expected one of {', '.join(STATUSES)}"
        )
    record["metrics"] = from_plain(record["metrics"])
    record["converged"] = from_plain(record["converged"])
    record["evaluation"] = list(map(_row, record["evaluation"]))
    for key, value in record["metrics"].items():
        if not is_number(value) and value is not None:
            raise RecordError(f"{path}: metric {key!r}: expected a number, found {value!r:.60}")
    for row in record["evaluation"]:
        _check_row(path, row)
    return record


def _upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """Brings a record of schema 1 or 2 to the present schema."""
    record = {"evaluation": [], "history": []} | {k: v for k, v in old.items() if k in KEYS}
    if isinstance(old.get("metrics"), dict):
        names = {name: RENAMED.get(name, name) for name in old["metrics"]}
        record["metrics"] = {names[name]: value for name, value in old["metrics"].items()}
    attempt = {"cores": None, "startup_seconds": None, "first_step": 0}
    attempt |= {key: value for key, value in old.items() if key not in (*KEYS, "seed")}
    return record | {"schema": 3, "attempts": [attempt]}


def _with_virtual_ranks(old: dict[str, Any]) -> dict[str, Any]:
    """Brings a record of schema 3 to schema 4: parameters that were renamed, and attempts."""
    parameters = old["parameters"] if isinstance(old.get("parameters"), dict) else {}
    count = parameters.get("accumulate", 1)
    noise = {"independent": 0, "shared": 1}.get(parameters.get("noise", "independent"), 0)
    kept = {k: v for k, v in parameters.items() if k not in ("accumulate", "noise")}
    attempts = [
        {"virtual_ranks": count} | attempt if isinstance(attempt, dict) else attempt
        for attempt in old.get("attempts") or []
    ]
    return old | {
        "schema": 4,
        "parameters": kept | {"virtual_ranks": count, "noise_streams": noise},
        "attempts": attempts,
    }


def _check_types(path: Path, values: Mapping[str, Any], keys: Types) -> None:
    for key, types in keys.items():
        value = values.get(key, ...)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            read = repr(value)[:60] if key in values else "nothing"
            expected = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise RecordError(f"{path}: key {key!r}: expected {expected}, found {read}")


_TEXTS = ("set", "kind", "ood_group")  # of a row, the last where there is one; others are numbers


def _row(row: Any) -> Any:
    """A row of the file with its infinite values; a set may be called Infinity."""
    return (
        from_plain(row) | {k: row[k] for k in _TEXTS if k in row} if isinstance(row, dict) else row
    )


def _check_row(path: Path, row: Any) -> None:
    """Refuses a value that is no row of :class:`bnnlib.metrics.Evaluation`."""
    texts = {"ood_group": ""} | row if isinstance(row, dict) else {}
    if not all(isinstance(texts.get(key), str) for key in _TEXTS):
        raise RecordError(f"{path}: evaluation: expected rows with set and kind, found {row!r:.60}")
    if row["kind"] not in metrics.KINDS:
        expected = ", ".join(metrics.KINDS)
        raise RecordError(
            f"{path}: evaluation of {row['set']!r}: kind = {row['kind']!r}: expected one of "
            f"{expected}"
        )
    for key, value in row.items():
        if key not in _TEXTS and not is_number(value) and value is not None:
            raise RecordError(
                f"{path}: evaluation of {row['set']!r}: {key!r}: expected a number, found "
                f"{value!r:.60}"
            )


def from_plain(value: Any) -> Any:
    """Numbers as :func:`plain` wrote them, also inside of lists and objects; infinity is one."""
    if isinstance(value, dict):
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return INFINITE.get(value, value) if isinstance(value, str) else value


def now() -> str:
    """The time in a record, ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def event_of(event: str, what: str) -> dict[str, Any]:
    """A line of the record's ``history``: what happened to the run beside its training."""
    return {"time": now(), "event": event, "what": what, "job_id": launcher.job_id()}


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
    """A value that strict JSON can hold, which knows neither NaN nor infinity.

    NaN, which stands for unknown, becomes null; infinity, which is a value such as an NLL can have,
    becomes the text ``Infinity`` or ``-Infinity``; types that JSON lacks become text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return next((text for text, number in INFINITE.items() if number == value), None)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)  # such as a date in a refused parameter file
