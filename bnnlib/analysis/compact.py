"""Compact records: what a question's tables and pictures are drawn from, small enough for git.

A file ``records.jsonl.gz`` has a JSON object a run: its parameters, where it comes from, a line an
epoch of its training, the rows of its evaluation, and those of its looks on the way where there are
any (:mod:`jobs.local.looks`). It holds no weights and nothing of single images. Numbers have six
digits, and the same records always give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnnlib.errors import RecordError
from bnnlib.record.files import write_atomically
from bnnlib.record.logs import LayerLog, StepLog, read_posterior, read_steps
from bnnlib.record.schema import from_plain, plain, read_finished

FILE = "records.jsonl.gz"
DIGITS = 6
# Of the rows of an evaluation, what tables ask for; a finished run's own record has all.
SCORES = (
    *("set", "kind", "ood_group", "num_images", "num_draws", "accuracy", "nll", "brier", "ece"),
    *("ece_debiased", "aurc", "entropy", "epistemic", "nll_scaled", "ece_scaled"),
    *("auroc_entropy", "auroc_mutual_information"),
)
OF_STEPS = ("epoch", "loss", "nll", "kl")
# A small training set has thousands of epochs in a run of the usual length.
MOST_LINES = 400
OF_ATTEMPT = ("commit", "clean", "command", "started", "ended", "cores", "threads", "platform")


def of_run(
    directory: str | Path, runs: str | Path, machine: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The compact record of a finished run.

    Args:
        directory: of the run.
        runs: the folder that the run is named from: ``<group>/<run id>``.
        machine: of :func:`bnnlib.record.provenance.hardware`, where the run was made on it.

    Returns:
        ``run``, ``parameters``, ``ranks``, ``virtual_ranks``, ``origin`` (commit, command, machine,
        seconds), ``metrics``, ``converged``, ``steps`` (lists by name, a value an epoch),
        ``evaluation``, ``looks``, and ``posterior`` (a layer's quantiles at the looks, at the first
        epoch's start and at the end).

    Raises:
        RecordError: the record is damaged, or the run has not finished.
    """
    directory = Path(directory)
    record = read_finished(directory)
    origin = {name: record.get(name) for name in OF_ATTEMPT}
    metrics = record["metrics"]
    seconds = {name: metrics.get(f"{name}_seconds") for name in ("train", "evaluation")}
    looks = _looks(directory / "looks.json")
    made = {
        "run": directory.resolve().relative_to(Path(runs).resolve()).as_posix(),
        "parameters": {k: v for k, v in record["parameters"].items() if k != "run_dir"},
        "ranks": record["ranks"],
        "virtual_ranks": record["virtual_ranks"],
        "origin": origin | {"machine": dict(machine or {}), "seconds": seconds},
        "metrics": metrics,
        "converged": record["converged"],
        "steps": _by_epoch(read_steps(directory)),
        "evaluation": [_scores(row) for row in record["evaluation"]],
        "looks": looks,
        "posterior": _posterior(read_posterior(directory), {look["epoch"] for look in looks}),
    }
    return _rounded(plain(made))


def write(path: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes compact records, in the order of their names.

    Raises:
        RecordError: the file could not be written.
    """
    content = io.BytesIO()
    # Neither time nor name in the header, so that equal records are equal files.
    with gzip.GzipFile(fileobj=content, mode="wb", filename="", mtime=0) as file:
        for record in sorted(records, key=lambda one: str(one["run"])):
            line = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
            file.write(line.encode() + b"\n")
    write_atomically(Path(path), lambda out: out.write(content.getvalue()))


def read(path: str | Path) -> list[dict[str, Any]]:
    """The compact records of a file, in the order of their names.

    Raises:
        RecordError: it is missing, or holds no such records.
    """
    try:
        text = gzip.decompress(Path(path).read_bytes()).decode()
        records = [from_plain(json.loads(line)) for line in text.splitlines()]
    except (OSError, EOFError, ValueError) as error:
        raise RecordError(
            f"{path}: no readable compact records ({error}); jobs/local/compact.py makes them"
        ) from error
    for record in records:
        if not isinstance(record, dict) or "run" not in record:
            raise RecordError(f"{path}: expected an object a line with the key `run`")
    return records


def origin(path: str | Path, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where what is drawn from compact records comes from: the file, and of each run its start.

    Args:
        path: of the records, as a reader finds it from the repository's root.
        records: of :func:`read`.

    Returns:
        ``records``, ``made_by``, ``machines``, ``commits``, ``seconds`` of all runs together, and
        ``runs``: of each its name, seed, commit, command and seconds.
    """
    runs = [
        {
            "run": one["run"],
            "seed": one["parameters"]["seed"],
            "commit": one["origin"]["commit"],
            "clean": one["origin"]["clean"],
            "command": one["origin"]["command"],
            "started": one["origin"]["started"],
            "seconds": round(sum(filter(None, one["origin"]["seconds"].values())), 1),
        }
        for one in records
    ]
    machines = {json.dumps(one["origin"]["machine"], sort_keys=True) for one in records}
    return {
        "records": str(path),
        "made_by": "make figures",
        "machines": [json.loads(text) for text in sorted(machines)],
        "commits": sorted({str(one["commit"]) for one in runs}),
        "seconds": round(sum(one["seconds"] for one in runs), 1),
        "runs": runs,
    }


def _by_epoch(lines: Sequence[StepLog]) -> dict[str, list[float]]:
    """The last line of each epoch, as a list for each of :data:`OF_STEPS`.

    Of more than :data:`MOST_LINES` epochs one in so many is kept, and the last.
    """
    last = [*{-int(-line.epoch // 1): line for line in lines}.values()]
    every = -(-len(last) // MOST_LINES) or 1
    kept = last[::-every][::-1]
    return {name: [getattr(line, name) for line in kept] for name in OF_STEPS}


def _posterior(lines: Sequence[LayerLog], epochs: set[float]) -> list[dict[str, Any]]:
    ends = {0.0, *(line.epoch for line in lines[-1:])}
    return [
        {"epoch": line.epoch, "layer": line.layer, "stddev": line.stddev, "snr": line.snr}
        for line in lines
        if line.epoch in epochs | ends
    ]


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SCORES if row.get(name) is not None}


def _looks(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        looks = json.loads(path.read_text())
        return [
            {
                "epoch": look["epoch"],
                "step": look["step"],
                "temperature": look["metrics"].get("temperature"),
                "rows": [_scores(row) for row in look["rows"]],
            }
            for look in looks
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(
            f"{path}: no readable looks ({error}); remove it, and jobs/local/looks.py makes it anew"
        ) from error


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
