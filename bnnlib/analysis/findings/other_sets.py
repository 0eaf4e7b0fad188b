"""What the figures of shifted sets and of sets out of distribution show."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.findings.common import compared, judged, over_runs, range_of
from bnnlib.analysis.tables.common import FEWEST_RUNS
from bnnlib.analysis.words import (
    between,
    counted,
    listed,
    number,
    percent_between,
    side,
    signed_between,
)
from bnnlib.metrics import Interval
from bnnlib.names import in_order

# A change of the mean ECE by less than this share of it is called none, however sure it is.
_SMALL = 0.05


def shifts(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under accuracy and ECE against severity.

    Args:
        table: of :func:`bnnlib.analysis.tables.shifts`.
        differences: of :func:`bnnlib.analysis.tables.shift_differences`.
    """
    if table.empty:
        return (
            "These records hold no shifted sets; train with `eval_sets`, for example "
            "`[test, shifts]`."
        )
    lines = []
    for family, selected in table.groupby("family", sort=False):
        strongest = selected[selected.severity == selected.severity.max()]
        text = f"\n- **{family}**, at {selected.severity.max()}: accuracy "
        text += range_of(strongest[strongest.score == "accuracy"])
        text += f"; debiased ECE {range_of(strongest[strongest.score == 'ece_debiased'])}."
        here = differences[differences["set"].isin(strongest["set"])]
        for score, name in (("accuracy", "accuracy"), ("ece", "debiased ECE")):
            text += compared(here[here.score == score], name, greater=score == "accuracy")
        lines.append(text)
    if "ece_scaled" in set(table.score):
        lines.append(_what_the_temperature_does(table[table.severity > 0]))
    return "".join(lines).lstrip("\n")


def _what_the_temperature_does(shifted: pd.DataFrame) -> str:
    """What the temperature fitted on unshifted images does to the mean ECE of shifted ones."""
    values = shifted.pivot_table(index=["model", "run"], columns="score", values="value")
    change = (values.ece_scaled - values.ece).dropna()
    if change.empty:
        return ""
    means = values.loc[change.index].mean()
    zero = Interval(change.mean(), change.mean(), change.mean())
    interval = metrics.with_seeds(zero, [change])
    without, at_t = number(means.ece), number(means.ece_scaled)
    enough = len(change) >= FEWEST_RUNS
    sure = enough and side(interval.low, interval.high) != 0
    if sure and without != at_t and abs(change.mean()) >= _SMALL * means.ece:
        verb = "lowers" if interval.high < 0 else "raises"
        verdict = f"{verb} the mean ECE over models and runs"
    else:
        verdict = "is not shown to change the mean ECE over models and runs by much"
    shown = signed_between(*interval) if enough else f"of {counted(len(change), 'run')}"
    return (
        f"\n- Over all shifted sets the temperature fitted on unshifted images {verdict}: "
        f"{without} without it, {at_t} with it, {shown}."
    )


def corruptions(table: pd.DataFrame) -> str:
    """The mean scores over groups of corruptions, a line a group.

    Args:
        table: of :func:`bnnlib.analysis.tables.corruption_means`.
    """
    lines = []
    for group, selected in table.groupby("group", sort=False):
        parts = [
            f"{score} {range_of(rows, most=math.inf)}"
            for score, rows in selected[selected.value.notna()].groupby("score", sort=False)
        ]
        sets, images = int(selected.sets.max()), int(selected.images.max())
        lines.append(
            f"\n- **{group}**, means over {counted(sets, 'set')} of {counted(images, 'image')}: "
            + "; ".join(parts)
            + "."
        )
    return "".join(lines).lstrip("\n")


def ood_groups(table: pd.DataFrame, asked: Collection[str] = ()) -> str:
    """The mean detection over OpenOOD's groups near and far, a line a group and protocol.

    Args:
        table: of :func:`bnnlib.analysis.tables.ood_groups`.
        asked: the groups that runs were asked for. Of another group whose members make no mean,
            since one alone was evaluated, there is no line.
    """
    lines = []
    by_entropy = table[table.score == "entropy"].assign(low=math.nan, high=math.nan)
    for (group, protocol), selected in by_entropy.groupby(["group", "protocol"], sort=False):
        if group not in asked and selected.sets.max() == 1:
            continue
        members, missing = selected.members.iloc[0], selected.missing.iloc[0]
        whose = "the sets of OpenOOD's benchmark"
        whose += "" if protocol == "OpenOOD" else " and those that bnnlib adds"
        lines.append(
            f"\n- **{group}** ({whose}): mean over {members} of the AUROC "
            f"{range_of(selected, 'auroc')} and of the false positive rate at 95 % true positive "
            f"rate {range_of(selected, 'fpr95')}"
            + (f"; not evaluated: {missing}" if missing else "")
            + "."
        )
    return "".join(lines).lstrip("\n")


def ood(table: pd.DataFrame, differences: pd.DataFrame) -> str:
    """The paragraph under the histograms of sets out of distribution.

    Args:
        table: of :func:`bnnlib.analysis.tables.ood`.
        differences: of :func:`bnnlib.analysis.tables.ood_differences`.
    """
    if table.empty:
        return (
            "These records hold no sets out of distribution; train with `ood_sets`, for example "
            "`[uniform_noise]`."
        )
    lines = []
    for name, selected in table.groupby("set", sort=False):
        by_entropy = selected[selected.score == "entropy"]
        text = f"\n- **{name}**: the entropy tells it from the test images with an AUROC "
        text += range_of(by_entropy, "auroc", "auroc_low", "auroc_high") + "."
        here = differences[differences["set"] == name]
        lines.append(text + compared(here, "AUROC", greater=True))
    return "".join(lines).lstrip("\n")


def false_alarms(table: pd.DataFrame) -> str:
    """The paragraph under the ROC curves.

    Args:
        table: of :func:`bnnlib.analysis.tables.ood`.
    """
    if table.empty:
        return "Without sets out of distribution there is no such curve."
    lines = []
    for name, selected in table.groupby("set", sort=False):
        by_entropy = selected[selected.score == "entropy"]
        text = (
            f"\n- **{name}**: to find 95 % of it by the entropy takes a share of the test images "
            f"for foreign {range_of(by_entropy, 'fpr95', 'fpr95_low', 'fpr95_high')}"
        )
        gains = {
            model: over_runs(rows, "gain", "gain_low", "gain_high")
            for model, rows in selected[selected.score == "mutual_information"].groupby("model")
        }
        if gains:
            text += f"; AUROC of the mutual information less the entropy's: {judged(gains, True)}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


def uncertainties(table: pd.DataFrame) -> str:
    """The paragraph under the parts, of :func:`bnnlib.analysis.tables.uncertainties`."""
    if table.empty:
        return "No run loaded draws weights or dropout masks: none has an epistemic part."
    lines = []
    for model in in_order(table.model):
        selected = table[table.model == model].set_index("set")
        total = selected.aleatoric + selected.epistemic
        shares = {
            name: Interval(*selected.loc[name, ["share", "share_low", "share_high"]])
            for name in selected.index
        }
        right = selected[selected.kind == "right"].index
        text = f"\n- **{model}**: the epistemic share of the entropy is "
        text += (
            f"{percent_between(shares[right[0]])} where it is right"
            if len(right)
            else "unknown where right"
        )
        wrong = selected[selected.kind == "wrong"].index
        text += f", {percent_between(shares[wrong[0]])} where it is wrong" if len(wrong) else ""
        others = selected[selected.kind.isin(["shift", "ood"])]
        if len(others):
            # Shares of next to nothing say nothing, so the set with the most nats is named.
            most = others.epistemic.idxmax()
            row = others.loc[most]
            text += (
                f"; it is largest in nats on {most} "
                f"({between(row.epistemic, row.epistemic_low, row.epistemic_high, 3)} of "
                f"{total[most]:.3f} nats, {percent_between(shares[most])})"
            )
            near = others.index[
                (others.epistemic_high >= row.epistemic_low) & (others.index != most)
            ]
            if len(near):
                which = listed(near) if len(near) <= 3 else counted(len(near), "other set")
                text += f", not told apart from {which}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")
