"""Does the number of ranks change the uncertainty?

Runs of many virtual ranks are compared, paired by seed, with those of one rank that saw the same
number of images (groups ``images`` and ``ten_epochs``) or took the same number of steps
(``steps``); and runs whose noise is of fewer streams with those of one stream a virtual rank
(``streams``). A group's name may begin with the data set, such as ``digits_images``.

*Equivalent* is said where the 90 % interval over seeds of the difference lies within the margin
(two one-sided tests at 5 %: Schuirmann 1987), *different* where the 95 % interval excludes 0. Both
can hold. The margins were stated before anything was run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnnlib.analysis.questions.seeds import interval
from bnnlib.analysis.words import counted, side
from bnnlib.names import in_order

Records = Sequence[Mapping[str, Any]]
MARGINS = {"ece_debiased": 0.005, "nll": 0.003}
SCORES = ("accuracy", "nll", "ece_debiased", "temperature", "auroc_near", "auroc_far")
_WHOSE = ["group", "model"]
_COLUMNS = [*_WHOSE, "virtual_ranks", "noise_streams", "rule", "score"]


def make(records: Records) -> dict[str, tuple[pd.DataFrame, Any]]:
    """The tables of the question by name; none has a picture yet."""
    found = scores(records)
    return {"scores": (found, None), "differences": (differences(found), None)}


def scores(records: Records) -> pd.DataFrame:
    """A row a run and score: `_COLUMNS`, ``seed``, ``value``, ``converged``."""
    rows = []
    for record in records:
        parameters = record["parameters"]
        streams = parameters["noise_streams"] or record["virtual_ranks"]
        whose = {
            "group": record["run"].partition("/")[0],
            "model": parameters["model"],
            "virtual_ranks": record["virtual_ranks"] * record["ranks"],
            "noise_streams": streams,
            "rule": parameters["learning_rate_scaling"],
            "seed": parameters["seed"],
            "converged": (record["converged"] or {}).get("converged"),
        }
        values = {name: record["metrics"].get(name) for name in SCORES}
        for group in ("near", "far"):
            sets = [row for row in record["evaluation"] if row.get("ood_group") == group]
            if sets:
                values[f"auroc_{group}"] = float(np.mean([row["auroc_entropy"] for row in sets]))
        rows += [
            whose | {"score": name, "value": value}
            for name, value in values.items()
            if value is not None
        ]
    table = pd.DataFrame(rows, columns=[*_COLUMNS, "seed", "value", "converged"])
    places = {name: place for place, name in enumerate(in_order(table.model))}
    order = table.assign(model=table.model.map(places)).sort_values([*_COLUMNS, "seed"]).index
    return table.loc[order].reset_index(drop=True)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """Each number of ranks less one rank, and fewer streams less one a rank, paired by seed.

    Returns:
        `_COLUMNS`, ``mean``, ``low``, ``high`` (95 %), ``seeds``, ``margin``, ``equivalent`` (None
        where no margin was stated or there is one seed), ``different``.
    """
    is_streams = found.group.str.endswith("streams")
    beside = found[is_streams & (found.noise_streams == found.virtual_ranks)]
    one = pd.concat([found[~is_streams & (found.virtual_ranks == 1)], beside])
    of_one = one[[*_WHOSE, "score", "seed", "value"]]
    both = found.drop(index=one.index).merge(
        of_one, on=[*_WHOSE, "score", "seed"], suffixes=("", "_one")
    )
    rows = []
    for key, pairs in both.groupby(_COLUMNS, sort=False):
        row = dict(zip(_COLUMNS, key, strict=True))
        values = (pairs.value - pairs.value_one).to_numpy()
        mean, low, high = interval(values)
        margin = MARGINS.get(str(row["score"]))
        inner = interval(values, 0.9)
        row |= {"mean": mean, "low": low, "high": high, "seeds": len(values), "margin": margin}
        row["equivalent"] = None
        if margin is not None and len(values) > 1:
            row["equivalent"] = bool(-margin < inner.low and inner.high < margin)
        rows.append(row | {"different": bool(low > 0 or high < 0)})
    columns = [*_COLUMNS, "mean", "low", "high", "seeds", "margin", "equivalent", "different"]
    return pd.DataFrame(rows, columns=columns)


def told(records: Records, group: str = "images") -> str:
    """How many of one group's comparisons are equivalent, and how many differ."""
    table = differences(scores(records))
    rows = table[(table.group == group) & table.margin.notna() & (table.seeds > 1)]
    if rows.empty:
        return f"{group}: nothing to compare yet."
    equal = rows.equivalent.eq(True).sum()
    apart = sum(side(row.low, row.high) != 0 for row in rows.itertuples())
    return (
        f"{group}: of {counted(len(rows), 'comparison')} of NLL and debiased ECE with one rank "
        f"{equal} are equivalent within the margins and {apart} differ from 0."
    )
