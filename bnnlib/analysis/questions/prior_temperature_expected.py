"""What was expected of prior and temperature before a run was made, beside what was measured.

``figures/prior_temperature/README.md`` has the expectations as they were committed; here each is a
rule on the tables of :mod:`bnnlib.analysis.questions.prior_temperature`. All are of `BNN_FC_flip`.
A bound on a difference is held against its mean, and a side of 0 or 1 against the whole interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bnnlib.analysis.questions.convergence import CONVERGED, STOPPED, TEN
from bnnlib.analysis.questions.prior_temperature import COLD
from bnnlib.analysis.words import between, side, signed_between

MODEL = "BNN_FC_flip"
NOTHING = "nothing"
Row = tuple[int, str, str, bool | None]


def expectations(table: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Each expectation, what was measured, and whether it held.

    Args:
        table: of :func:`bnnlib.analysis.questions.prior_temperature.settings`.
        compared: of :func:`bnnlib.analysis.questions.prior_temperature.differences`.

    Returns:
        Columns ``number`` (of the README), ``expected``, ``measured``, ``held`` (yes, no; "not
        measured" where runs are lacking).
    """
    tables = _Tables(table[table.model == MODEL], compared[compared.model == MODEL])
    found = [*_of_weight(tables), *_of_sureness(tables), *_of_the_others(tables)]
    made = pd.DataFrame(found, columns=["number", "expected", "measured", "held"])
    made["held"] = [{True: "yes", False: "no", None: "not measured"}[row[3]] for row in found]
    return made


def told(found: pd.DataFrame) -> str:
    """The table of :func:`expectations` as Markdown's, and how many held."""
    lines = ["| | expected | measured | held |", "|---|---|---|---|"]
    lines += [
        f"| {r.number} | {r.expected} | {r.measured} | {r.held} |" for r in found.itertuples()
    ]
    measured = found[found.held != "not measured"]
    yes = int((measured.held == "yes").sum())
    said = (
        f"{yes} of {len(measured)} measured held; "
        f"{len(found) - len(measured)} cannot be judged yet."
        if len(measured)
        else f"None of the {len(found)} expectations can be judged yet."
    )
    return "\n".join([*lines, f"\n{said}"])


class _Tables:
    """Looks values up; what is not there, or has no interval, is None."""

    def __init__(self, table: pd.DataFrame, compared: pd.DataFrame) -> None:
        self.table, self.compared = table, compared

    def level(self, score: str, setting: float, state: str = CONVERGED) -> Any:
        of = {"knob": "kl_weight", "score": score, "setting": setting, "state": state}
        return _row(self.table, of)

    def less(
        self,
        knob: str,
        setting: float,
        score: str,
        state: str = CONVERGED,
        what: str = "less defaults",
    ) -> Any:
        of = {"knob": knob, "setting": setting, "score": score, "state": state, "what": what}
        return _row(self.compared, of)

    def by_weight(self, score: str) -> pd.DataFrame:
        """Rows of a score at the end of training, the least weight first."""
        rows = self.table[(self.table.knob == "kl_weight") & (self.table.score == score)]
        return rows[rows.state == CONVERGED].dropna(subset="low").sort_values("setting")


def _row(table: pd.DataFrame, of: dict[str, Any]) -> Any:
    for name, value in of.items():
        table = table[table[name] == value]
    known = table.dropna(subset="low")
    return None if known.empty else known.iloc[0]


def _of_weight(tables: _Tables) -> Iterator[Row]:
    """1: whether there is an effect, where, and how large."""
    nll = tables.by_weight("nll")
    best = None if len(nll) < 2 else nll.loc[nll["mean"].idxmin()]
    yield (
        1,
        "the NLL is least at a KL weight between .03 and .3",
        NOTHING if best is None else f"least at {best.setting:g}: {_level(best)}",
        None if best is None else 0.03 <= best.setting <= 0.3,
    )
    for score, words, bound in (
        ("nll", "the NLL is lower there than at 1 by .01 or more", -0.01),
        ("accuracy", "accuracy is higher there by .002 or more", 0.002),
    ):
        row = None if best is None else tables.less("kl_weight", best.setting, score)
        sign = 1 if bound > 0 else -1
        yield 1, words, _difference(row), None if row is None else sign * row["mean"] >= abs(bound)


def _of_sureness(tables: _Tables) -> Iterator[Row]:
    """2 to 4: temperature, calibration, foreign images, early stopping."""
    rows = tables.by_weight("temperature")
    yield (
        2,
        "the fitted temperature rises as the weight falls",
        ", ".join(f"{row.setting:g}: {_level(row, 2)}" for _, row in rows.iterrows()) or NOTHING,
        bool((rows["mean"].diff().dropna() < 0).all()) if len(rows) > 1 else None,
    )
    at = [tables.level("temperature", setting) for setting in (0.1, 0.01)]
    known = all(row is not None for row in at)
    yield (
        2,
        "it is below 1 at .1 and above 1 at .01",
        " and ".join(_level(row, 2) for row in at) if known else NOTHING,
        (side(at[0].low - 1, at[0].high - 1), side(at[1].low - 1, at[1].high - 1)) == (-1, 1)
        if known
        else None,
    )
    ece = tables.by_weight("ece_debiased")
    best = None if len(ece) < 2 else ece.loc[ece["mean"].idxmin()]
    last = tables.level("ece_debiased", 0.01)
    yield (
        2,
        "debiased ECE is least above a weight of .01, and below .006 there",
        NOTHING
        if best is None or last is None
        else f"least at {best.setting:g}: {_level(best)}; at 0.01: {_level(last)}",
        None if best is None or last is None else best.setting > 0.01 and best["mean"] < 0.006,
    )
    row = tables.less("kl_weight", 0.1, "auroc_near")
    words = "AUROC of near sets is higher at .1 than at 1, by .02 or more"
    yield 3, words, _difference(row), None if row is None else row["mean"] >= 0.02
    near = tables.by_weight("auroc_near")
    best = None if len(near) < 2 else near.loc[near["mean"].idxmax()]
    last = tables.level("auroc_near", 0.01)
    yield (
        3,
        "at .01 it is lower than at its best",
        NOTHING
        if best is None or last is None
        else f"best at {best.setting:g}: {_level(best)}; at 0.01: {_level(last)}",
        None if best is None or last is None else best.setting != 0.01,
    )
    row = tables.less("kl_weight", 0.01, "nll", STOPPED, "stopped less converged")
    yield 4, "early stopping lowers the NLL at .01", _difference(row), _below(row)


def _of_the_others(tables: _Tables) -> Iterator[Row]:
    """5 to 8: ten epochs, the prior cooled too, the start, the draws."""
    ten, end = (tables.less("kl_weight", 0.1, "nll", state) for state in (TEN, CONVERGED))
    yield (
        5,
        "after ten epochs a weight of .1 changes the NLL by less than .005",
        _difference(ten),
        _within(ten, 0.005),
    )
    known = ten is not None and end is not None
    yield (
        5,
        "that change is in the end's direction",
        f"ten epochs {_difference(ten)}, end {_difference(end)}" if known else NOTHING,
        bool(ten["mean"] * end["mean"] > 0) if known else None,
    )
    alone = "less KL weight alone"
    row = tables.less(COLD, 0.1, "nll", what=alone)
    words = "at T = .1 the NLL differs by less than .005 from that of the KL weight alone"
    yield 6, words, _difference(row), _within(row, 0.005)
    row = tables.less(COLD, 0.01, "nll", what=alone)
    words = "at T = .01 it is lower than that of the KL weight alone"
    yield 6, words, _difference(row), _below(row)
    for setting in (0.001, 1.0):
        for score, words, bound in (("nll", "NLL", 0.003), ("ece_debiased", "debiased ECE", 0.002)):
            row = tables.less("posterior_stddev", setting, score)
            said = (
                f"a first deviation of {setting:g} changes the end's {words} by less than {bound}"
            )
            yield 7, said, _difference(row), _within(row, bound)
    row = tables.less("posterior_stddev", 1.0, "temperature", TEN)
    said = "after ten epochs a start at the prior has a lower temperature"
    yield 7, said, _difference(row), _below(row)
    for state in (TEN, CONVERGED):
        for score, words in (("nll", "NLL"), ("ece_debiased", "debiased ECE")):
            row = tables.less("train_draws", 4.0, score, state)
            said = f"four draws a step change the {words} by less than .003 ({state})"
            yield 8, said, _difference(row), _within(row, 0.003)


def _level(row: Any, digits: int = 4) -> str:
    return between(row["mean"], row.low, row.high, digits)


def _difference(row: Any) -> str:
    return NOTHING if row is None else signed_between(row["mean"], row.low, row.high)


def _below(row: Any) -> bool | None:
    return None if row is None else side(row.low, row.high) < 0


def _within(row: Any, bound: float) -> bool | None:
    return None if row is None else bool(abs(row["mean"]) < bound)
