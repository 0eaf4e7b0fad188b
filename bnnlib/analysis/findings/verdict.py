"""The answer to the question of notebooks/02_calibration, in three sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bnnlib.analysis.findings.common import by_seed, is_unjudged, listed_with, over_runs
from bnnlib.analysis.tables.common import FEWEST_RUNS
from bnnlib.analysis.tables.pairs import ALL
from bnnlib.analysis.words import between, counted, listed, side, signed, span
from bnnlib.metrics import Interval
from bnnlib.names import in_order

# Of each question: the sets, the score, its name, whether more of it is better, and what is said
# without such sets.
_QUESTIONS = (
    ("test", "ece", "debiased ECE", False, ""),
    (
        *("shifted set", "ece", "mean debiased ECE", False),
        "Under shift nothing is known: these runs share no shifted set (`eval_sets`)",
    ),
    (
        *("foreign set", "auroc", "mean AUROC of the entropy", True),
        "Out of distribution nothing is known: these runs share no foreign set (`ood_sets`)",
    ),
)


def verdict(
    scores: pd.DataFrame,
    shifts: pd.DataFrame,
    ood: pd.DataFrame,
    differences: Sequence[pd.DataFrame],
) -> str:
    """Three sentences: on test images, on shifted ones, against foreign ones.

    They compare each Bayesian network with its twin; where no twin is there, the variants of a
    network with its usual one, or any models with the first; of one model they say how it does.

    Args:
        scores: of :func:`bnnlib.analysis.tables.scores`.
        shifts: of :func:`bnnlib.analysis.tables.shifts`.
        ood: of :func:`bnnlib.analysis.tables.ood`.
        differences: of :func:`bnnlib.analysis.tables.differences`, ``shift_differences`` and
            ``ood_differences``.
    """
    kinds = set(differences[0].kind)
    kind = next((one for one in ("twin", "variant", "model") if one in kinds), None)
    alone = (_of_scores(scores), _over_sets(shifts), _over_sets(ood))
    sentences = []
    for number, (what, score, name, greater, nothing) in enumerate(_QUESTIONS):
        table = differences[number]
        rows = table[(table.kind == kind) & (table.score == score)]
        rows = rows[rows["set"] == ALL] if number else rows
        sets, model, value, runs = alone[number]
        if kind is not None and len(rows):
            sentence = f"{_where(what, rows.sets)}, {_compared(rows, name, greater)}"
        elif kind is None and sets:
            sentence = f"{_where(what, [sets])}, the {name} of {model} is {between(*value)}"
            if runs > 1:
                few = ", too few for an interval" if runs < FEWEST_RUNS else ""
                sentence += f" (mean of {runs} runs{few})"
        else:
            sentence = nothing
        sentences.append(sentence + ".")
    return " ".join(sentences)


def _where(what: str, sets: Sequence[int]) -> str:
    if what == "test":
        return "On the test images"
    least, most = int(min(sets)), int(max(sets))
    if least == most:
        return f"Over {counted(most, what)}"
    return f"Over {span(str(least), str(most))} {what}s"


def _compared(rows: pd.DataFrame, name: str, greater: bool) -> str:
    """``a (…) and b (…) have a better ECE than their twins, and c (…) shows no difference``."""
    better: dict[str, Interval] = {}
    worse: dict[str, Interval] = {}
    same: dict[str, Interval] = {}
    unjudged: dict[str, Interval] = {}
    for row in rows.itertuples():
        where = side(row.low, row.high) * (1 if greater else -1)
        found = Interval(row.difference, row.low, row.high)
        chosen = unjudged if is_unjudged(found) else {1: better, -1: worse, 0: same}[where]
        chosen[row.model] = found
    others = list(dict.fromkeys(rows.other))
    parts: list[str] = []
    for some, word in ((better, "better"), (worse, "worse")):
        if some:
            has = "has" if len(some) == 1 else "have"
            what = "one" if parts else f"{name} than {_against(rows, len(some), others)}"
            parts.append(f"{_brief(some)} {has} a {word} {what}")
    if same:
        shows = "shows" if len(same) == 1 else "show"
        what = "" if parts else f" in {name} from {_against(rows, len(same), others)}"
        parts.append(f"{_brief(same)} {shows} no difference{what}")
    if unjudged:
        is_not = "is" if len(unjudged) == 1 else "are"
        what = "" if parts else f" in {name} beside {_against(rows, len(unjudged), others)}"
        parts.append(f"{_brief(unjudged)} {is_not} not judged{what}")
    *first, last = parts
    return (f"{', '.join(first)}, and {last}" if first else last) + by_seed(rows)


def _brief(intervals: dict[str, Interval]) -> str:
    """Models with their differences; of more than two the least and the greatest difference."""
    if len(intervals) <= 2:
        return listed_with(intervals)
    ends = [one.estimate for one in intervals.values()]
    return f"{listed(intervals)} ({span(signed(min(ends)), signed(max(ends)))})"


def _against(rows: pd.DataFrame, count: int, others: Sequence[str]) -> str:
    if rows.kind.iloc[0] == "twin":
        return (
            f"its twin {others[0]}"
            if len(rows) == 1
            else ("its twin" if count == 1 else "their twins")
        )
    return others[0] if len(others) == 1 else "the usual variant"


def _of_scores(scores: pd.DataFrame) -> tuple[int, str, Interval, int]:
    """The one model's debiased ECE, as of one set, and of how many runs it is."""
    rows = scores[scores.score == "ece_debiased"]
    if rows.empty:
        return 0, "", _UNKNOWN, 0
    row = rows.set_index("model").loc[in_order(rows.model)[0]]
    return 1, str(row.name), Interval(row["mean"], row.low, row.high), int(row.runs)


def _over_sets(table: pd.DataFrame) -> tuple[int, str, Interval, int]:
    """How many sets there are, the first model, its mean over them, and of how many runs.

    The mean's interval is the mean of the sets' intervals, as in
    :func:`bnnlib.analysis.tables.shift_differences`.
    """
    if table.empty:
        return 0, "", _UNKNOWN, 0
    if "auroc" in table:
        rows, columns = table[table.score == "entropy"], ["auroc", "auroc_low", "auroc_high"]
    else:
        rows = table[(table.score == "ece_debiased") & (table.severity > 0)]
        columns = ["value", "low", "high"]
    model = in_order(rows.model)[0]
    rows = rows[rows.model == model]
    means = rows.groupby("run")[columns].mean()
    return rows["set"].nunique(), model, over_runs(means, *columns), len(means)


_UNKNOWN = Interval(np.nan, np.nan, np.nan)
