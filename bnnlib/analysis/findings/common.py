"""Phrases that several findings share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bnnlib.analysis.tables import common
from bnnlib.analysis.tables.common import FEWEST_RUNS
from bnnlib.analysis.words import (
    between,
    counted,
    listed,
    number,
    side,
    signed_between,
    span,
    within,
)
from bnnlib.metrics import Interval
from bnnlib.names import in_order


def over_runs(rows: pd.DataFrame, value: str, low: str, high: str) -> Interval:
    """The mean over rows, a row a run, with its interval over images and seeds."""
    return common.over_runs([Interval(*row) for row in rows[[value, low, high]].to_numpy()])


def seeds_told(runs: pd.Series) -> str:
    """Of how many seeds the intervals of models are, in one or two sentences.

    Args:
        runs: number of runs, by model.
    """
    if runs.max() == 1:
        return "One run a model: the intervals do not hold the luck of the seed."
    by_number = {number: list(some.index) for number, some in runs.groupby(runs)}
    several = {number: some for number, some in by_number.items() if number >= FEWEST_RUNS}
    text = []
    if several:
        told = [f"{number} runs of {listed(some)}" for number, some in several.items()]
        if len(by_number) == 1:
            told = [f"{number} runs a model" for number in several]
        text.append(f"Intervals are over images and seeds: {'; '.join(told)}.")
    if 1 in by_number:
        text.append(f"Of {listed(by_number[1])} there is one run, without the luck of the seed.")
    if 2 in by_number:
        who = "Two runs a model are"
        if len(by_number) > 1:
            who = f"Of {listed(by_number[2])} there are two runs,"
        text.append(
            f"{who} too few for an interval over seeds: none is given, and nothing is claimed."
        )
    return " ".join(text)


def best(table: pd.DataFrame, score: str, which: str = "min") -> str:
    """The best model in bold with its interval, and those whose intervals reach into it.

    The intervals are the models' own: a comparison in pairs may tell apart what they do not.
    """
    rows = table[(table.score == score) & table["mean"].notna()].set_index("model")
    if rows.empty or np.isinf(rows["mean"]).all():
        return "unknown" if rows.empty else "infinite for every model"
    rows = rows.loc[in_order(rows.index)]
    top = rows["mean"].idxmax() if which == "max" else rows["mean"].idxmin()
    first = rows.loc[top]
    apart = rows.low > first.high if which == "min" else rows.high < first.low
    others = [model for model in rows.index[~apart] if model != top]
    text = f"**{top}** {between(first['mean'], first.low, first.high)}"
    return text + (
        f", not told apart from {listed(others)} by their own intervals" if others else ""
    )


def range_of(
    rows: pd.DataFrame,
    value: str = "value",
    low: str = "low",
    high: str = "high",
    most: float = 1.0,
) -> str:
    """The least and the greatest of the models' means over runs, each with its interval.

    Args:
        rows: a row a model and run.
        value: the column of the values, which are 0 or more.
        low: of the lower ends.
        high: of the upper ends.
        most: that a value can be.

    Returns:
        ``from 0.1 [0, 0.2] (a) to 0.5 [0.4, 0.6] (b)``, or ``of …`` where there is one value.
    """
    intervals = {
        model: within(over_runs(selected, value, low, high), most=most)
        for model, selected in rows.groupby("model")
    }
    first, last = (
        pick(in_order(intervals), key=lambda model: intervals[model].estimate)
        for pick in (min, max)
    )
    lowest, highest = (f"{between(*intervals[model], 3)} ({model})" for model in (first, last))
    if len(intervals) == 1:
        return f"of {lowest}"
    if number(intervals[first].estimate, 3) == number(intervals[last].estimate, 3):
        return f"of {number(intervals[first].estimate, 3)} for every model"
    return f"from {lowest} to {highest}"


def judged(intervals: Mapping[str, Interval], greater: bool) -> str:
    """Models by what their differences show, each with its interval.

    Args:
        intervals: the difference of each model.
        greater: whether a greater value is the better one.

    Returns:
        ``better for a (−0.1 [−0.2, −0.05]); no difference shown for b (…)``; ``not judged for …``
        where there is no interval.
    """
    words = ("better", "worse", _NONE, _UNJUDGED)
    sides: dict[str, dict[str, Interval]] = {word: {} for word in words}
    for model in in_order(intervals):
        where = side(*intervals[model][1:]) * (1 if greater else -1)
        word = {1: "better", -1: "worse", 0: _NONE}[where]
        word = _UNJUDGED if is_unjudged(intervals[model]) else word
        sides[word][model] = intervals[model]
    return "; ".join(f"{word} for {listed_with(some)}" for word, some in sides.items() if some)


def compared(differences: pd.DataFrame, name: str, greater: bool = False) -> str:
    """What the pairs of one score and set show, a sentence for each model that is subtracted.

    Args:
        differences: of :func:`bnnlib.analysis.tables.differences`.
        name: of the score.
        greater: whether a greater value is the better one.
    """
    text = ""
    title = name[0].upper() + name[1:]
    twins = differences[differences.kind == "twin"]
    if len(twins):
        text += f" {title} less the twin's{by_seed(twins)}: "
        text += f"{judged(_intervals(twins), greater)}."
    for other, rows in differences[differences.kind != "twin"].groupby("other", sort=False):
        text += f" {title} less that of {other}{by_seed(rows)}: "
        text += f"{judged(_intervals(rows), greater)}."
    return text


_NONE, _UNJUDGED = "no difference shown", "not judged"


def is_unjudged(interval: Interval) -> bool:
    """Whether a difference is known and its interval is not: of two runs there is none."""
    return math.isfinite(interval.estimate) and math.isnan(interval.low)


def by_seed(rows: pd.DataFrame) -> str:
    """How pairs were made: ``, paired by seed (3 seeds)``, ``, 3 runs a model``; empty of one run.

    Runs that were left out are counted, and one seed of several does not pass for all of them:
    ``, paired by seed (1 common seed, 3 of 5 runs left out; the luck of the seed is not in the
    interval)``.
    """
    partly = rows[rows.paired.astype(bool)].assign(all_runs=2 * rows.runs + rows.left_out)
    partly = partly[partly.left_out > 0]
    least, most = int(rows.runs.min()), int(rows.runs.max())
    unjudged = rows.low.isna() & np.isfinite(rows.difference.astype(float))
    few = "; 2 are too few for an interval" if unjudged.any() else ""
    every = rows.paired.all()
    if most < 2 and (partly.empty or not every):
        return ""
    if not every:
        return f", {span(str(least), str(most))} runs a model{few}"
    noun = "seed" if partly.empty else "common seed"
    seeds = counted(most, noun) if least == most else f"{least} to {most} {noun}s"
    if len(partly):
        row = partly.loc[partly.left_out.idxmax()]
        up_to = "up to " if len(set(partly.left_out)) > 1 else ""
        seeds += f", {up_to}{row.left_out} of {row.all_runs} runs left out"
        if least == 1:
            which = "" if most == 1 else " of the pairs of 1 seed"
            seeds += f"; the luck of the seed is not in the interval{which}"
    return f", paired by seed ({seeds}{few})"


def _intervals(rows: pd.DataFrame) -> dict[str, Interval]:
    return {
        model: Interval(*values)
        for model, values in rows.drop_duplicates("model")
        .set_index("model")[["difference", "low", "high"]]
        .iterrows()
    }


def listed_with(intervals: Mapping[str, Interval]) -> str:
    """Models, each with its difference: ``a (−0.1 [−0.2, −0.05]) and b (…)``."""
    *others, last = [
        f"{model} ({signed_between(*intervals[model])})" for model in in_order(intervals)
    ]
    return f"{', '.join(others)} and {last}" if others else last
