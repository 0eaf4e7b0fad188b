"""The runs below a folder as tables: one row a run, or a row a run and evaluation set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from bnnlib.errors import RecordError
from bnnlib.experiment import UPKEEP, Experiment
from bnnlib.names import UNCONVERGED
from bnnlib.record.schema import read_record

# The table's first columns; all others follow in the record's order.
COLUMNS = (
    "group",
    "run_id",
    "model",
    "dataset",
    "seed",
    "ranks",
    "status",
    "accuracy",
    "nll",
    "brier",
    "ece",
    "images_per_second",
)
# What the table holds beside parameters and metrics; no name of one is a name of another.
# `threads_used` of a rank, where the parameter `threads` may leave their number to the machine.
RECORD_COLUMNS = (
    *("group", "run_id", "path", "ranks", "threads_used", "cores", "status", "commit", "clean"),
    *("num_hosts", "command", "started", "ended", "converged", "kl_change"),
)
# The first columns of :func:`load_evaluation`: whose row it is, then of which set.
EVALUATION_COLUMNS = (
    "group",
    "run_id",
    "path",
    "model",
    "dataset",
    "seed",
    "ranks",
    "set",
    "kind",
    "num_images",
    "family",
    "severity",
    "ood_group",
)
# What may differ between runs of one variant of a network: nothing of it changes what a trained
# network predicts, but for the seed. Other evaluation sets leave those that all runs have.
MAY_DIFFER = {
    *("seed", "run_dir", "threads", "inter_threads", "log_every", "eval_sets", "ood_sets"),
    *UPKEEP,
}
# Parameters that make another method of a network: named wherever they are not the default, so that
# the network itself keeps its plain name, by which it is compared.
ALWAYS_NAMED = ("inference", "dropout", "weight_decay", "predict_with", "laplace")


def load(path: str | Path, damaged: dict[str, str] | None = None) -> pd.DataFrame:
    """All runs below a folder, one row each, in order of path.

    Args:
        path: a group (``runs/digits``), a single run's directory, or a folder of groups.
        damaged: if given, damaged records are left out, and their errors noted here by directory.

    Returns:
        The columns :data:`COLUMNS`, ``path`` and then every other parameter, metric and entry of
        the record; a metric that a run does not have is NaN.

    Raises:
        RecordError: no run there, or a damaged record that is not noted.
    """
    records = _read_all(path, damaged)
    table = pd.DataFrame([_row(*one) for one in records])
    table = table.reindex(columns=list(dict.fromkeys([*COLUMNS, *table.columns, *RECORD_COLUMNS])))
    # A number that no run knows is null in every record.
    scores = {name for _, record in records for name in record["metrics"]} - set(RECORD_COLUMNS)
    unknown = [name for name in (*scores, "kl_change") if table[name].isna().all()]
    return table.astype(dict.fromkeys(unknown, float))


def load_evaluation(path: str | Path, damaged: dict[str, str] | None = None) -> pd.DataFrame:
    """All evaluation sets of all runs below a folder, a row a run and set.

    Args:
        path: as for :func:`load`.
        damaged: as for :func:`load`.

    Returns:
        The columns :data:`EVALUATION_COLUMNS` and then the scores of the record's rows
        (:class:`bnnlib.metrics.Evaluation`), NaN where a set has none. A shift's ``family`` and
        ``severity`` are the two parts of its name, such as rotate and 30; ``ood_group`` names the
        group that has brought a set out of distribution. A run without a finished
        evaluation has no row.

    Raises:
        RecordError: no run there, or a damaged record.
    """
    rows = []
    for directory, record in _read_all(path, damaged):
        run = _row(directory, record)
        whose = {name: run.get(name) for name in EVALUATION_COLUMNS[:7]}
        rows += [whose | row for row in record["evaluation"]]
    for row in rows:
        if row["kind"] == "shift":
            row["family"], _, severity = row["set"].rpartition("-")
            row["severity"] = float(severity) if severity.isdecimal() else math.nan
    scores = dict.fromkeys(key for row in rows for key in row if key not in EVALUATION_COLUMNS)
    table = pd.DataFrame(rows, columns=[*EVALUATION_COLUMNS, *scores])
    numbers = ["severity", *scores]
    return table.astype(dict.fromkeys(numbers, float))


def _read_all(
    path: str | Path, damaged: dict[str, str] | None = None
) -> list[tuple[Path, dict[str, Any]]]:
    """The directory and record of each run below a folder, in order of path."""
    files = sorted(Path(path).rglob("run.json"))
    if not files:
        raise RecordError(
            f"{path}: no run records (run.json) below; train first, for example with make study"
        )
    records = []
    for file in files:
        try:
            records.append((file.parent, read_record(file.parent)))
        except RecordError as error:
            if damaged is None:
                raise
            damaged[str(file.parent)] = str(error)
    return records


def _row(directory: Path, record: dict[str, Any]) -> dict[str, Any]:
    """A run's row of :func:`load`."""
    place = directory.resolve()
    posterior = record["converged"] or {}
    change = posterior.get("change")
    # Older records say False also where the change of the KL, and so the answer, is unknown.
    converged = posterior.get("converged") if change is not None else None
    values = (
        *(place.parent.name, place.name, str(directory), record["ranks"], record["threads"]),
        *(record["cores"], record["status"], record["commit"], record["clean"]),
        *(len(record["hosts"]), record["command"], record["started"], record["ended"]),
        *(converged, change),
    )
    of_record = dict(zip(RECORD_COLUMNS, values, strict=True))
    return {"path": ""} | record["parameters"] | record["metrics"] | of_record


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with names that tell variants of a network apart, so that no mean mixes them.

    ``CNN_conv`` with dropout is ``CNN_conv dropout(0.1)``, by another method than Adam ``CNN_conv
    inference(ivon)``, and so are the other parameters in :data:`ALWAYS_NAMED`; where runs of one
    network and method differ in other parameters or in their number of ranks, these follow, as in
    ``CNN_FC kl_weight(0.5)``. Last stands ``converged(no)`` where the posterior has not converged.

    Args:
        runs: of :func:`load`.

    Returns:
        A copy with other names in the column `model`.
    """
    names, defaults = method_names(runs), Experiment().to_dict()
    same_network = {"model", *MAY_DIFFER, *ALWAYS_NAMED}
    parameters = [name for name in defaults if name in runs and name not in same_network]
    # A run older than a parameter was made with what is its default now.
    known = runs[[*parameters, "ranks"]].fillna({name: defaults[name] for name in parameters})
    # What a method needs otherwise than another, such as its learning rate, names neither.
    method = runs["inference"].fillna("adam") if "inference" in runs else runs["model"]
    for rows in known.groupby([runs["model"], method]).groups.values():
        for name, values in known.loc[rows].items():
            if values.astype(str).nunique() < 2:
                continue
            names[rows] += [f" {name}({value})" for value in values]
    names[runs["converged"].eq(False)] += UNCONVERGED
    return runs.assign(model=names)


def method_names(runs: pd.DataFrame) -> pd.Series:
    """The networks' names, and after each those of :data:`ALWAYS_NAMED` that are no default."""
    names, defaults = runs["model"].copy(), Experiment().to_dict()
    for name in ALWAYS_NAMED:
        for row, value in runs[name].dropna().items() if name in runs else ():
            names[row] += f" {name}({value})" if value != defaults[name] else ""
    return names
