"""What the figures of the test set show."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.findings.common import (
    best,
    by_seed,
    compared,
    is_unjudged,
    over_runs,
    seeds_told,
)
from bnnlib.analysis.tables import common
from bnnlib.analysis.words import (
    between,
    counted,
    listed,
    percent_between,
    side,
    signed_between,
    within,
)
from bnnlib.metrics import Interval
from bnnlib.names import in_order


def scores(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the table of scores.

    Args:
        table: of :func:`bnnlib.analysis.tables.scores`.
        differences: of :func:`bnnlib.analysis.tables.differences`.
    """
    names = set(table.score)
    text = (
        f"Most accurate: {best(table, 'accuracy', 'max')}; lowest NLL: {best(table, 'nll')}; "
        f"lowest debiased ECE: {best(table, 'ece_debiased')}."
    )
    if "nll_scaled" in names:
        text += f" After temperature scaling: lowest NLL {best(table, 'nll_scaled')}."
        temperatures = table[(table.score == "temperature") & table["mean"].notna()]
        text += _confident_by_temperature(temperatures.set_index("model"))
    infinite = table.model[(table.score == "nll") & np.isposinf(table["mean"])]
    if len(infinite):
        text += f" Infinite NLL, from a label of probability 0: {listed(infinite)}."
    text += f" {seeds_told(table.groupby('model').runs.max())}"
    for (model, other), pair in differences.groupby(["model", "other"], sort=False):
        parts = []
        for row in pair.itertuples():
            where = side(row.low, row.high) * (1 if row.score == "accuracy" else -1)
            verdict = {1: "better", -1: "worse", 0: "no difference shown"}[where]
            if np.isnan(row.difference):
                verdict = "since both are infinite"
            elif is_unjudged(Interval(row.difference, row.low, row.high)):
                verdict = "not judged"
            label = {"nll": "NLL", "ece": "debiased ECE", "aurc": "AURC"}.get(row.score, row.score)
            shown = signed_between(row.difference, row.low, row.high)
            parts.append(f"{label} {shown}, {verdict}")
        text += f"\n- **{model}** less {other}{by_seed(pair)}: " + "; ".join(parts) + "."
    return text


def _confident_by_temperature(temperatures: pd.DataFrame) -> str:
    """Names the over- and the underconfident models, by temperatures whose interval excludes 1."""
    text = ""
    shown = [
        f"{model} {between(row['mean'], row.low, row.high, 2)}"
        for model, row in temperatures.iterrows()
    ]
    # As the ends are written: a temperature of 1.00 is none that differs from 1.
    low, high = temperatures.low.round(2), temperatures.high.round(2)
    sides = {
        "overconfident": temperatures.index[low > 1],
        "underconfident": temperatures.index[high < 1],
    }
    for which, some in sides.items():
        if len(some):
            every = len(some) == len(temperatures) > 1
            verb = "is" if len(some) == 1 or every else "are"
            who = "every model" if every else listed(some)
            text += f" By the fitted temperature {who} {verb} {which}."
    if shown:
        text += f" The fitted temperatures: {', '.join(shown)}."
        if not any(map(len, sides.values())):
            text += " None differs from 1 by more than its interval."
    return text


def accuracy_against_nll(table: pd.DataFrame) -> str:
    """The paragraph under accuracy against NLL.

    Args:
        table: of :func:`bnnlib.analysis.tables.scores`.
    """
    accuracy, nll = (
        table[table.score == score].set_index("model") for score in ("accuracy", "nll")
    )
    order = in_order(accuracy.index)
    if len(order) == 1:
        return f"{order[0]} stands alone: there is no other model to compare it with."
    beaten = [
        model
        for model in order
        if ((accuracy.low > accuracy.high[model]) & (nll.high < nll.low[model])).any()
    ]
    unbeaten = [model for model in order if model not in beaten]
    text = "By intervals that do not overlap, "
    if len(unbeaten) == 1:
        text += f"{unbeaten[0]} is not beaten in both accuracy and NLL by another model"
    else:
        text += f"none of {listed(unbeaten)} is beaten in both accuracy and NLL by another model"
    if beaten:
        text += f"; {listed(beaten)} {'is' if len(beaten) == 1 else 'are'} beaten in both"
    return f"{text}. Bars: 95 % intervals. {seeds_told(table.groupby('model').runs.max())}"


def reliability(bins: pd.DataFrame) -> str:
    """The paragraph under the reliability diagrams.

    Args:
        bins: of :func:`bnnlib.analysis.tables.reliability`.
    """
    lines = []
    for model in in_order(bins.model):
        text = f"\n- **{model}**: "
        for scaled in sorted(bins[bins.model == model].scaled.unique()):
            selected = bins[(bins.model == model) & (bins.scaled == scaled)]
            runs = selected.groupby("run", sort=False)
            first = runs.first()
            debiased = over_runs(first, "ece_debiased", "ece_low", "ece_high")
            text += "; after temperature scaling " if scaled else ""
            text += (
                f"ECE {first.ece.mean():.4f}, debiased {between(*debiased)}; a calibrated model "
                f"would show {first.ece_if_calibrated.mean():.4f}, up to "
                f"{first.ece_if_calibrated_high.mean():.4f}"
            )
            gap = common.over_runs([_mean_gap(run) for _, run in runs])
            where = side(gap.low, gap.high)
            if where:
                text += f"; on average {'under' if where > 0 else 'over'}confident: accuracy less "
                text += f"confidence {signed_between(*gap)}"
            if not scaled:
                outside = (selected.accuracy < selected.calibrated_low) | (
                    selected.accuracy > selected.calibrated_high
                )
                text += (
                    f"; bins outside what a calibrated model would show: {int(outside.sum())} of "
                    f"{len(selected)}"
                )
                text += f" over {counted(len(runs), 'run')}" if len(runs) > 1 else ""
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def _mean_gap(run: pd.DataFrame) -> Interval:
    """Accuracy less confidence of one run, with its 95 % interval over images."""
    total = run["count"].sum()
    gap = float(np.average(run.accuracy - run.confidence, weights=run["count"]))
    # A calibrated model's variance where that is greater: a bin that is all right has none.
    chance = np.maximum(run.accuracy * (1 - run.accuracy), run.confidence * (1 - run.confidence))
    half = 1.96 * float(np.sqrt((run["count"] * chance).sum())) / total
    return Interval(gap, gap - half, gap + half)


def entropies(table: pd.DataFrame) -> str:
    """The paragraph under the entropies, of :func:`bnnlib.analysis.tables.entropies`."""
    lines = []
    for model in in_order(table.model):
        runs: dict[str, list[Interval]] = {"right": [], "wrong": [], "more": []}
        for _, run in table[table.model == model].groupby("run", sort=False):
            sides = {name: rows.to_numpy() for name, rows in run.groupby("outcome").entropy}
            for outcome, entropy in sides.items():
                runs[outcome].append(_median(entropy))
            if len(sides) == 2:
                parts = metrics.auroc_parts(sides["right"], sides["wrong"])
                runs["more"].append(parts.interval())
        if not runs["more"]:
            outcome = " or all ".join(name for name in ("right", "wrong") if runs[name])
            lines.append(f"\n- **{model}**: all predictions {outcome}.")
            continue
        right, wrong = (between(*common.over_runs(runs[name]), 3) for name in ("right", "wrong"))
        more = between(*within(common.over_runs(runs["more"])), 3)
        lines.append(
            f"\n- **{model}**: median {right} nats where right, {wrong} where wrong; a wrong "
            f"prediction has more entropy than a right one with probability {more}."
        )
    return "".join(lines).lstrip("\n")


def _median(values: np.ndarray) -> Interval:
    """The median and its 95 % interval, which two of the ordered values are.

    Conover, Practical Nonparametric Statistics (1999), section 3.2, by the normal approximation
    rounded outwards. Fewer than six values have no such interval.
    """
    ordered = np.sort(values)
    place = math.floor((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2)
    if place < 1:
        return Interval(float(np.median(ordered)), math.nan, math.nan)
    return Interval(
        float(np.median(ordered)), float(ordered[place - 1]), float(ordered[len(ordered) - place])
    )


def risk_coverage(table: pd.DataFrame, scores: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the risk-coverage curves.

    Args:
        table: of :func:`bnnlib.analysis.tables.risk_coverage`.
        scores: of :func:`bnnlib.analysis.tables.scores`.
        differences: of :func:`bnnlib.analysis.tables.differences`.
    """
    columns = ["coverage_at_1_percent", "coverage_low", "coverage_high"]
    runs = table.groupby(["model", "run"], sort=False)[columns].first()
    kept = ", ".join(
        f"{model} {percent_between(over_runs(selected, *columns), 1)}"
        for model, selected in runs.groupby("model", sort=False)
    )
    return (
        f"Lowest area under the curve: {best(scores, 'aurc')}. Of these images, with at most 1 % "
        f"wrong, can be kept: {kept}." + compared(differences[differences.score == "aurc"], "area")
    )
