"""The table of a group of runs for people: what differs between them, and what came of each.

``python -m bnnlib table`` prints it: a row a run, or a row of means and standard deviations over
the seeds of runs that differ in nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnnlib.analysis.runs import load
from bnnlib.errors import RecordError
from bnnlib.experiment import UPKEEP, Experiment, unknown_name
from bnnlib.record.files import write_text
from bnnlib.record.schema import plain
from bnnlib.record.summary import speed

FORMATS = ("text", "csv", "markdown", "json")
# What came of a run; before it stands what differs between the runs.
RESULTS = (
    *("status", "accuracy", "nll", "brier", "ece", "images_per_second"),
    *("converged", "kl_change"),
)
# Of which the mean over seeds is taken; the deviation's column is the name with _sd.
AVERAGED = ("accuracy", "nll", "brier", "ece", "images_per_second")
# What tells a run that is alone, and differs from none.
IDENTITY = ("model", "dataset", "seed", "ranks")

# Of a posterior of which the rule (bnnlib.record.convergence) says nothing.
UNKNOWN = "unknown"

_SHOWN = dict.fromkeys(AVERAGED, "{:.4f}") | {"images_per_second": "{:.0f}", "kl_change": "{:.1%}"}


def differing(runs: pd.DataFrame) -> list[str]:
    """The parameters, and last ``ranks``, in which runs differ.

    The place of a run's record, and how the run is kept safe, are not among them. A run older than
    a parameter was made with what is its default now.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.
    """
    names = [name for name in Experiment.names() if name not in ("run_dir", *UPKEEP)]
    # Those of a run whose parameters were refused are not known.
    known = _parameters(runs[runs["model"].notna()], names)
    different = [name for name in names if len({str(row[name]) for row in known}) > 1]
    return different + ["ranks"] * (len(set(runs["ranks"])) > 1)


def _parameters(runs: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each run's values of parameters, or of ``ranks``; a run without a model has no others."""
    defaults, rows = Experiment().to_dict(), []
    for run in runs.to_dict("records"):
        values: dict[str, Any] = {}
        for name in names:
            value, default = run.get(name), defaults.get(name, 1)
            if name != "ranks" and _is_missing(run["model"]):
                value = None
            elif _is_missing(value):
                value = default
            elif isinstance(default, int) and isinstance(value, float) and value.is_integer():
                value = int(value)  # whole numbers are floats beside a run without them
            values[name] = value
        rows.append(values)
    return rows


def by_run(runs: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """A row a run: its id, what differs between the runs, and :data:`RESULTS`.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.
        also: further columns of `runs`.
    """
    what = differing(runs) if len(runs) > 1 else list(IDENTITY)
    told = runs["converged"].astype(object).mask(_unknown(runs), UNKNOWN)
    runs = runs.assign(converged=told, images_per_second=_speeds(runs))
    values = pd.DataFrame(_parameters(runs, what), runs.index, what, dtype=object)
    ids = ["group", "run_id"] if len(set(runs["group"])) > 1 else ["run_id"]
    columns = dict.fromkeys([*ids, *what, *also, *RESULTS])
    return pd.concat([runs.drop(columns=what), values], axis=1)[list(columns)]


def _speeds(runs: pd.DataFrame) -> list[float]:
    """Images per second, NaN of a run that was timed too shortly."""
    found = [speed(run) for run in runs.to_dict("records")]
    return [np.nan if one is None else one for one in found]


def _unknown(runs: pd.DataFrame) -> pd.Series:
    """Whether a run has a posterior and its record does not say that it has converged, or not."""
    kl = pd.to_numeric(runs["kl"], errors="coerce") if "kl" in runs else pd.Series(0, runs.index)
    return runs["converged"].isna() & kl.fillna(0).ne(0)


def by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """A row of means over seeds for the finished runs that differ in nothing but the seed.

    Args:
        runs: of :func:`bnnlib.analysis.runs.load`.

    Returns:
        What differs between the rows (the model, if nothing does), ``seeds``, their number,
        ``converged`` (of how many the posterior has, and of how many that is unknown; None for
        networks without), and of each of :data:`AVERAGED` the mean and, with ``_sd``, the standard
        deviation (n - 1), which of one seed is NaN. Runs of one seed count as one, with their mean.
    """
    finished = runs[runs["status"] == "finished"].reset_index(drop=True)
    finished = finished.assign(images_per_second=_speeds(finished))
    what = [name for name in differing(runs) if name != "seed"] or ["model"]
    values, rows = _parameters(finished, what), []
    for _, of_row in finished.groupby(pd.Series(map(str, values), dtype=object), sort=False):
        each = of_row.groupby("seed")[list(AVERAGED)].mean().astype(float)
        asked = of_row["converged"].dropna()
        unknown = int(_unknown(of_row).sum())
        told = [f"{int(asked.sum())} of {len(asked)}"] if len(asked) else []
        told += [f"{unknown} {UNKNOWN}"] if unknown else []
        row = values[of_row.index[0]] | {"seeds": len(each), "converged": ", ".join(told) or None}
        with np.errstate(invalid="ignore"):  # an infinite NLL has no deviation
            for name in AVERAGED:
                row[name] = each[name].mean(skipna=False)
                row[f"{name}_sd"] = each[name].std(ddof=1, skipna=False)
        rows.append(row)
    scores = [column for name in AVERAGED for column in (name, f"{name}_sd")]
    return pd.DataFrame(rows, columns=[*what, "seeds", *scores, "converged"])


def ordered(table: pd.DataFrame, column: str, descending: bool = False) -> pd.DataFrame:
    """The table in order of a column; rows without a value come last.

    Raises:
        RecordError: no column has that name.
    """
    if column not in table:
        raise RecordError(unknown_name(column, list(table.columns), "column"))
    values = table[column].infer_objects()
    if not pd.api.types.is_numeric_dtype(values):
        values = values.map(str, na_action="ignore")
    return table.loc[values.sort_values(ascending=not descending, kind="stable").index]


def to_text(table: pd.DataFrame, form: str = "text") -> str:
    """The table as text.

    Args:
        table: of :func:`by_run` or :func:`by_seed`.
        form: ``text`` and ``markdown`` are to be read: numbers are rounded, and a mean stands with
            its deviation as ``mean ± deviation``. ``csv`` and ``json`` hold all digits; what is not
            known is empty in the one and null in the other, which is strict JSON.
    """
    if form in ("csv", "json"):
        known = table["converged"] != UNKNOWN
        table = table.assign(converged=table["converged"].where(known, None))
    if form == "csv":
        return table.to_csv(index=False).rstrip("\n")
    if form == "json":
        return json.dumps(plain(table.to_dict("records")), indent=2, allow_nan=False)
    cells = pd.DataFrame(
        {
            name: [
                _cell(name, value, deviation)
                for value, deviation in zip(table[name], _deviations(table, name), strict=True)
            ]
            for name in table
            if not str(name).endswith("_sd")
        },
        dtype=object,
    )
    if form == "text":
        return cells.to_string(index=False)
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _deviations(table: pd.DataFrame, name: Hashable) -> Sequence[Any]:
    return list(table.get(f"{name}_sd", [None] * len(table)))


def _cell(name: str, value: Any, deviation: Any) -> str:
    """One value to be read, with its deviation where there is one."""
    if _is_missing(value):
        return "-"
    if name in _SHOWN:
        shown = _SHOWN[name].format
        return shown(value) + ("" if _is_missing(deviation) else f" ± {shown(deviation)}")
    if name == "seeds":
        return f"{value}" if value > 1 else "1, no sd"
    if name == "converged" and not isinstance(value, str):
        return "yes" if value else "NO"
    if name == "dataset":
        return Path(str(value)).name
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN


def print_table(
    path: str | Path,
    csv: str | Path | None = None,
    form: str = "text",
    by: str | None = None,
    sort: str | None = None,
    descending: bool = False,
) -> None:
    """Prints a group's table, also beside damaged records.

    Args:
        path: as for :func:`bnnlib.analysis.runs.load`.
        csv: where the whole table is written, a row a run with every column; nowhere if not given.
        form: one of :data:`FORMATS`.
        by: ``seed`` for means over seeds; a row a run if not given.
        sort: the column to sort by; in order of path if not given.
        descending: whether the largest value comes first.

    Raises:
        RecordError: no run there, no such column, `csv` cannot be written, or, after the others'
            table, a damaged record.
    """
    damaged: dict[str, str] = {}
    runs = load(path, damaged)
    if by == "seed":
        table = by_seed(runs)
        table = ordered(table, sort, descending) if sort else table
    else:
        table = by_run(ordered(runs, sort, descending), [sort]) if sort else by_run(runs)
    if len(table) or form == "json":
        print(to_text(table, form))
    # Beside a table that a program reads, what is said to a person goes elsewhere.
    aside = sys.stdout if form == "text" else sys.stderr
    left_out = [str(one) for one in runs["run_id"][runs["status"] != "finished"]] if by else []
    if left_out:
        print(f"not finished, and so not counted: {', '.join(left_out)}", file=aside)
    if csv:
        write_text(Path(csv), runs.to_csv(index=False))
        print(f"written: {csv}", file=aside)
    if damaged:
        raise RecordError("; ".join(damaged.values()))
