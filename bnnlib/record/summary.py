"""A run in one line, with which each front end ends it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnnlib.record.schema import read_file

# Fewer timed seconds measure no speed: what else the machine does in a moment changes it by more
# than what is compared.
ENOUGH_SECONDS = 1.0


def speed(metrics: Mapping[str, Any]) -> float | None:
    """Images per second of a run's training; None where it is unknown or was timed too shortly.

    Args:
        metrics: of a record. One that is older than ``timed_seconds`` has ``train_seconds``.
    """
    value, timed, trained = (
        metrics.get(name) for name in ("images_per_second", "timed_seconds", "train_seconds")
    )
    timed = trained if timed is None or timed != timed else timed
    if value is None or value != value or (timed is not None and timed < ENOUGH_SECONDS):
        return None
    return float(value)


def closing_line(directory: str | Path) -> str:
    """What came of a run: accuracy, NLL (nats), ECE, images per second, and where its record is.

    Args:
        directory: of the record; a score that is unknown, or not there yet, is a dash. A run that
            was timed too shortly (:func:`speed`) says so.

    Raises:
        RecordError: as :func:`bnnlib.record.schema.read_file`.
    """
    metrics = read_file(directory)["metrics"]
    accuracy, nll, ece = (
        "–" if metrics.get(name) is None else format(metrics[name], ".4f")
        for name in ("accuracy", "nll", "ece")
    )
    per_second = speed(metrics)
    said = "–" if per_second is None else f"{per_second:,.0f}"
    if per_second is None and metrics.get("images_per_second") is not None:
        said = "too short for"
    scores = f"accuracy {accuracy}, NLL {nll} nats, ECE {ece}, {said} images/s"
    return f"{scores}, record: {directory}"
