"""What a record says of a failure: the error, and a record for a run that had none yet."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnnlib import launcher
from bnnlib.errors import message_of
from bnnlib.record.schema import new_record, now, read_file, write_record


def error_of(error: BaseException) -> dict[str, Any]:
    """An exception on this rank as :func:`record_failure` takes it."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return {
        "rank": launcher.rank(),
        "type": type(error).__name__,
        "message": message_of(error),
        "traceback": lines,
    }


def record_failure(
    directory: str | Path, parameters: Mapping[str, Any], error: Mapping[str, Any]
) -> None:
    """Records the failure of a run that is not open in this process.

    Args:
        directory: where the record goes.
        parameters: as they were given.
        error: of :func:`error_of`: ``rank``, ``type``, ``message``, ``traceback`` (lines).

    A record of another run in that directory, one that trained or may be training, is left as it
    is, so that a mistyped parameter does not cost the run that it was meant to continue.
    """
    directory, attempts = Path(directory), []
    if (directory / "run.json").exists():
        old = read_file(directory)
        if old["status"] != "failed" or (directory / "checkpoints").exists():
            return
        attempts = old["attempts"]
    attempt = {
        "ranks": int(error.get("ranks", 1)),
        "virtual_ranks": 1,
        "hosts": [],
        "threads": 0,
        "cores": None,
        "commit": None,
        "clean": None,
        "versions": {},
        "horovod": {},
        "launcher": "",
        "job_id": None,
        "environment": {},
        "command": "",
        "started": now(),
        "ended": now(),
        "startup_seconds": None,
        "first_step": None,
    }
    record = new_record(parameters, "failed", [*attempts, attempt])
    record["error"] = without_home(dict(error))
    write_record(directory, record)


def without_home(value: Any) -> Any:
    """Texts with ``~`` for the user's home: a traceback names the place of every file."""
    home = os.path.expanduser("~").rstrip("/")
    if not os.path.isabs(home):  # HOME is not set, and the user has no entry
        return value
    if isinstance(value, Mapping):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(item) for item in value]
    return value.replace(home, "~") if isinstance(value, str) and home else value
