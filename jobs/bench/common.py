"""What the benchmark's scripts share: how workers start, and how tables and origins are written."""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
STARTED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def worker_command(module: str, *words: object) -> list[str]:
    """The command that runs a script of this folder as a worker."""
    return [sys.executable, "-m", module, "--worker", *map(str, words)]


def worker_environment() -> dict[str, str]:
    """This process' variables, and this checkout's code whatever .venv has installed."""
    beside = str(Path(sys.executable).parent)  # the launchers, also where `make bench` is all
    path = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def pin(threads: int) -> None:
    """Keeps this process on its first cores, one a thread."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and largest."""
    return statistics.median(values), min(values), max(values)


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows with the same keys as csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rows_there(path: Path, keys: Sequence[str]) -> set[tuple[str, ...]]:
    """The values of `keys`, as text, in each row that a csv of :func:`append_rows` has."""
    if not path.is_file():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[key] for key in keys) for row in csv.DictReader(file)}


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Adds rows to a csv, with its head where it is new.

    All in one write, so that a stop leaves none half there.

    Args:
        path: of the table.
        rows: with the same keys.
        columns: their order; that of the first row if not given.
    """
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(columns or rows[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def write_origin(path: Path, **more: object) -> None:
    """Writes commit, versions, hardware and command as json: a figure is worth nothing without."""
    # Only here: importing bnnlib sets TensorFlow's variables, which the workers must choose.
    from bnnlib.record import provenance

    origin = {"started": STARTED} | more | provenance.collect()
    origin |= {"hardware": provenance.hardware(), "load_at_end": os.getloadavg()[0]}
    path.write_text(json.dumps(origin, indent=2) + "\n")
