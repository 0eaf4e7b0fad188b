"""A run in one line, with which each front end ends it."""

from __future__ import annotations

from pathlib import Path

from bnnlib.record.schema import read_file


def closing_line(directory: str | Path) -> str:
    """What came of a run: accuracy, NLL (nats), ECE, images per second, and where its record is.

    Args:
        directory: of the record; a score that is unknown, or not there yet, is a dash.

    Raises:
        RecordError: as :func:`bnnlib.record.schema.read_file`.
    """
    metrics = read_file(directory)["metrics"]
    forms = {"accuracy": ".4f", "nll": ".4f", "ece": ".4f", "images_per_second": ",.0f"}
    accuracy, nll, ece, speed = (
        "–" if metrics.get(name) is None else format(metrics[name], form)
        for name, form in forms.items()
    )
    scores = f"accuracy {accuracy}, NLL {nll} nats, ECE {ece}, {speed} images/s"
    return f"{scores}, record: {directory}"
