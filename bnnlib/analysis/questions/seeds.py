"""What several questions share: means over seeds with intervals, pairs of seeds, a run's end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.tables.common import FEWEST_RUNS
from bnnlib.analysis.words import counted, number, side, signed_between
from bnnlib.metrics import Interval


def interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """The mean over seeds and its interval (Student's t), unknown of fewer than three seeds.

    Of two, t's interval reaches 12.7 standard errors to each side: it holds nearly everything and
    says nothing.
    """
    known = np.asarray(values, np.float64)
    mean = float(known.mean())
    if len(known) < FEWEST_RUNS:
        return Interval(mean, math.nan, math.nan)
    return metrics.with_seeds(Interval(mean, mean, mean), [known], level)


def over_seeds(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, interval and number of seeds of each group.

    Args:
        table: columns `by`, ``seed`` and ``value``; a row a seed.
        by: columns that tell the groups apart.

    Returns:
        Columns `by`, ``mean``, ``low``, ``high``, ``seeds``, in the groups' first order.
    """
    rows = [
        dict(zip(by, key, strict=True))
        | dict(zip(("mean", "low", "high"), interval(group.value), strict=True))
        | {"seeds": group.seed.nunique()}
        for key, group in table.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "seeds"])


def paired(first: pd.DataFrame, second: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The differences first − second of the seeds that both have, as :func:`over_seeds`.

    Args:
        first: columns `by`, ``seed`` and ``value``; a row a seed.
        second: likewise; it may lack columns of `by`, and then stands beside all their values.
        by: columns that tell the groups apart.
    """
    shared = [name for name in by if name in second]
    both = first.merge(second, on=[*shared, "seed"], suffixes=("", "_second"))
    return over_seeds(both.assign(value=both.value - both.value_second), by)


def by_side(rows: pd.DataFrame, names: Sequence[str]) -> str:
    """Which differences are above 0, which below, of which neither is shown, or too few seeds are.

    Args:
        rows: of :func:`paired`.
        names: of the rows, in their order.
    """
    higher, lower, neither, few = "higher", "lower", "no difference shown", "too few seeds"
    kinds: dict[str, list[str]] = {higher: [], lower: [], neither: [], few: []}
    for row, name in zip(rows.itertuples(), names, strict=True):
        kind = {1: higher, -1: lower, 0: neither}[side(row.low, row.high)]
        kind = few if math.isnan(row.low) else kind
        kinds[kind].append(f"{name} {signed_between(row.mean, row.low, row.high)}")
    return "; ".join(f"{kind} for {', '.join(named)}" for kind, named in kinds.items() if named)


def once(table: pd.DataFrame) -> pd.DataFrame:
    """The comparisons that repeat no other: those not marked in the column ``repeats``."""
    return table[~table.repeats.astype(bool)].drop(columns="repeats").reset_index(drop=True)


def comparisons(table: pd.DataFrame) -> str:
    """How many comparisons were made, each counted once, and how many would differ by chance.

    Args:
        table: of :func:`paired`, with a column ``repeats``. What has no interval is not counted.
    """
    known = table[np.isfinite(table[["mean", "low"]].astype(float)).all(axis=1)]
    own = once(known)
    apart = sum(side(row.low, row.high) != 0 for row in own.itertuples())
    said = (
        f"These are {counted(len(own), 'comparison')}, of which {apart} exclude 0; of as many true "
        f"zeros {number(0.05 * len(own), 0)} would."
    )
    more = len(known) - len(own)
    return said + (
        f" {more} more compare a network with itself or repeat another, because the networks in "
        "them did not stop early: stopped and converged are one network."
        if more
        else ""
    )


def how_many(rows: pd.DataFrame) -> str:
    """The number of seeds, or from how few to how many, as a sentence has it."""
    least, most = int(rows.seeds.min()), int(rows.seeds.max())
    return counted(most, "seed") if least == most else f"{least} to {most} seeds"


def end_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """How a run ended: whether its posterior stands still, its last scores, seconds and commit.

    Args:
        record: compact, of :mod:`bnnlib.analysis.compact`.
    """
    posterior, last, origin = record["converged"] or {}, record["metrics"], record["origin"]
    return (
        {"converged": posterior.get("converged"), "kl_change": posterior.get("change")}
        | {name: last.get(name) for name in ("kl", "train_nll", "accuracy", "nll", "ece")}
        | {"seconds": sum(filter(None, origin["seconds"].values())), "commit": origin["commit"]}
    )
