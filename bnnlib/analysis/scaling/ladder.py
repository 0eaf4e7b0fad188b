"""The ladder: times of an average at growing message sizes, to which α and β are fitted.

``mpiexec -n 2 python -m bnnlib ladder --out FILE`` measures one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bnnlib.analysis.scaling.cost_model import Fit, Interconnect, allreduce, ring
from bnnlib.errors import RecordError


def read_ladder(path: str | Path) -> pd.DataFrame:
    """The rows of a ladder's file.

    Raises:
        RecordError: it is missing or no ladder.
    """
    try:
        return pd.DataFrame(json.loads(Path(path).read_text(encoding="utf-8"))["rows"])[
            ["bytes", "ranks", "ms", "ms_min", "ms_max"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path}: no readable ladder ({error}); measure one with mpiexec -n 2 python -m "
            "bnnlib ladder --out FILE"
        ) from error


def ladder_table(
    rows: pd.DataFrame, fits: Sequence[Fit], interconnects: Sequence[Interconnect]
) -> pd.DataFrame:
    """The ladder with the fits' and the published interconnects' prediction beside each size."""
    table = rows.copy()
    for one in fits:
        table[f"predicted {one.interconnect.algorithm}, fitted"] = [
            1e3 * allreduce(row.bytes, row.ranks, one.interconnect) for row in rows.itertuples()
        ]
    for interconnect in interconnects:
        table[f"predicted ring, {interconnect.name}"] = [
            1e3 * ring(row.bytes, row.ranks, interconnect) for row in rows.itertuples()
        ]
    return table
