"""What was expected of convergence before a run was made, beside what was measured.

Each is a sentence of *What we expect* in ``notebooks/10_convergence.ipynb`` as a rule on the states
of :mod:`bnnlib.analysis.questions.convergence`, under the priors it names, of all mean-field
networks at once. It is judged by whole 95 % intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnnlib.analysis.questions.convergence import CONVERGED, LONG, TEN, states
from bnnlib.analysis.questions.seeds import over_seeds, paired
from bnnlib.analysis.words import between, side, signed_between

HELD, FAILED, OPEN = "held", "did not hold", "not decided"
NOT_REFUTED, UNKNOWN = "not refuted", "not measured"
OF_TEN = "1"  # the prior of which something was expected after ten epochs
_BY = ["model", "prior"]


def expectations(found: pd.DataFrame) -> pd.DataFrame:
    """Each expectation, what was measured, and whether it held.

    Args:
        found: of :func:`bnnlib.analysis.questions.convergence.looks`.

    Returns:
        Columns ``expected``, ``prior``, ``measured``, ``held``: `held`, `did not hold` (an interval
        lies on the other side), `not decided` (an interval holds the bound), `not refuted` (of an
        expected zero: all intervals hold it), or `not measured`.
    """
    table = states(found)
    table = table[table.prior != ""]
    return pd.DataFrame(_rows(table), columns=["expected", "prior", "measured", "held"])


def told(judged: pd.DataFrame) -> str:
    """The table of :func:`expectations` as Markdown's, and how many came out how."""
    if judged.empty:
        return "No expectation can be judged yet."
    lines = ["| expected | prior | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {r.expected} | {r.prior} | {r.measured} | {r.held} |" for r in judged.itertuples()
    ]
    counts = judged.held.value_counts()
    said = ", ".join(
        f"{counts[kind]} {kind}"
        for kind in (HELD, NOT_REFUTED, OPEN, FAILED, UNKNOWN)
        if kind in counts
    )
    return "\n".join([*lines, f"\nOf {len(judged)} rows: {said}."])


def told_within(found: pd.DataFrame, model: str = "BNN_FC_flip", prior: str = "1") -> str:
    """The debiased ECE on the way of the long training alone, from epoch 10 on."""
    rows = found[(found.group == LONG) & (found.score == "ece_debiased") & (found.epoch >= 10)]
    rows = over_seeds(rows[(rows.model == model) & (rows.prior == prior)], ["epoch"])
    each = [
        f"{between(row.mean, row.low, row.high)} at epoch {row.epoch}"
        for row in rows.sort_values("epoch").itertuples()
    ]
    whose = f"Within the long training the debiased ECE of {model} under prior {prior}"
    return f"{whose} is {', '.join(each)}." if each else f"{whose} is not known."


def _rows(table: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    def of(state: str, score: str) -> pd.DataFrame:
        rows = table[(table.state == state) & (table.score == score)]
        return rows.drop(columns=["state", "score"])

    priors = sorted(set(table.prior), key=float, reverse=True)
    kl = paired(of(CONVERGED, "kl_per_image"), of(TEN, "kl_per_image"), _BY)
    accuracy = paired(of(CONVERGED, "accuracy"), of(TEN, "accuracy"), _BY)
    end = of(CONVERGED, "temperature")
    temperature = over_seeds(end, _BY)
    if OF_TEN in priors:
        rows = kl[kl.prior == OF_TEN]
        words = "KL/N is not at its end after ten epochs: converged less ten epochs is below 0"
        yield words, OF_TEN, _measured(rows), _below(rows)
        rows = accuracy[accuracy.prior == OF_TEN]
        words = "accuracy has settled by then: converged less ten epochs is 0"
        yield words, OF_TEN, _measured(rows), _zero(rows)
    for prior in priors:
        rows = temperature[temperature.prior == prior]
        measured = "; ".join(
            f"{row.model} {between(row.mean, row.low, row.high, 2)}" for row in rows.itertuples()
        )
        words = "trained, the network is less sure than right: temperature below 1"
        yield words, prior, measured or "nothing", _below(rows, 1.0, 2)
    if len(priors) > 1:
        wide, narrow = (
            end[end.prior == prior].drop(columns="prior") for prior in (priors[0], priors[-1])
        )
        rows = paired(wide, narrow, ["model"])
        words = "more so under a wide prior: temperature, wide less narrow, is below 0"
        yield words, f"{priors[0]} less {priors[-1]}", _measured(rows), _below(rows)


def _measured(rows: pd.DataFrame) -> str:
    each = (f"{r.model} {signed_between(r.mean, r.low, r.high)}" for r in rows.itertuples())
    return "; ".join(each) or "nothing"


def _below(rows: pd.DataFrame, bound: float = 0.0, digits: int = 4) -> str:
    if rows.empty or rows.low.isna().any():
        return UNKNOWN
    sides = {side(row.low - bound, row.high - bound, digits) for row in rows.itertuples()}
    return FAILED if 1 in sides else OPEN if 0 in sides else HELD


def _zero(rows: pd.DataFrame) -> str:
    if rows.empty or rows.low.isna().any():
        return UNKNOWN
    return NOT_REFUTED if all(side(r.low, r.high) == 0 for r in rows.itertuples()) else FAILED
