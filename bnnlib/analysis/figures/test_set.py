"""How the models compare on the test set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from bnnlib.analysis.style import (
    COLOURS,
    among,
    hide_unused,
    legend,
    legend_above,
    line,
    plain_log,
    set_style,
    subplots,
)
from bnnlib.analysis.words import between, labels, number
from bnnlib.names import in_order


def comparison_table(scores: pd.DataFrame) -> Styler:
    """The models' scores side by side; of a column the best is bold.

    So is each whose interval reaches into the best one's.

    An entry is the mean ± the standard deviation over runs; of one run, the score and its 95 %
    interval over the test images.

    Args:
        scores: of :func:`bnnlib.analysis.tables.scores`.
    """
    means = scores.pivot_table(index="model", columns="score", values="mean")
    order = in_order(scores.model)
    columns = [c for c in _COLUMNS if c in means and means[c].notna().any()]
    entries = scores.set_index(["model", "score"])

    def text(model: str, column: str) -> str:
        if (model, column) not in entries.index or pd.isna(means.loc[model, column]):
            return "–"
        entry, digits = entries.loc[(model, column)], _COLUMNS[column][2]
        if not pd.isna(entry.stddev):
            return f"{number(entry['mean'], digits)} ± {entry.stddev:.{digits}f}"
        return between(entry["mean"], entry.low, entry.high, digits)

    table = pd.DataFrame({_COLUMNS[c][0]: {m: text(m, c) for m in order} for c in columns})
    table = table.reindex(order)
    table.insert(0, "runs", scores.groupby("model").runs.first())
    table.index = [labels(order)[model] for model in order]
    table.index.name = "model"

    def bold(column: pd.Series) -> list[str]:
        named = {_COLUMNS[c][0]: c for c in columns if _COLUMNS[c][1]}
        if column.name not in named:
            return [""] * len(column)
        score = named[column.name]
        values = means.loc[order, score]
        best = values.idxmax() if _COLUMNS[score][1] == "max" else values.idxmin()
        rows = entries.xs(score, level="score").reindex(order)
        if _COLUMNS[score][1] == "max":
            apart = ~(rows.high >= rows.low.get(best, np.nan))
        else:
            apart = ~(rows.low <= rows.high.get(best, np.nan))
        # A value without an interval is as good as the best one only where it equals it.
        as_good = (values == values[best]) | ~apart
        return ["font-weight: bold" if each else "" for each in as_good]

    return table.style.apply(bold)


# Of a score: its heading, which end is best, and the digits shown.
_COLUMNS: dict[str, tuple[str, str, int]] = {
    "accuracy": ("accuracy", "max", 4),
    "nll": ("NLL", "min", 4),
    "brier": ("Brier", "min", 4),
    "ece": ("ECE", "", 4),
    "ece_debiased": ("ECE debiased", "min", 4),
    "ece_if_calibrated": ("ECE if calibrated", "", 4),
    "aurc": ("AURC", "min", 4),
    "temperature": ("T", "", 2),
    "nll_scaled": ("NLL at T", "min", 4),
    "brier_scaled": ("Brier at T", "min", 4),
    "ece_scaled": ("ECE at T", "", 4),
    "augrc": ("AUGRC", "", 4),
    "smooth_ece": ("smooth ECE", "", 4),
    "disagreement": ("disagreement", "", 4),
    "accuracy_vector_scaled": ("accuracy, vector scaling", "", 4),
    "nll_vector_scaled": ("NLL, vector scaling", "", 4),
    "ece_vector_scaled": ("ECE, vector scaling", "", 4),
    "coverage_thr": ("coverage, THR", "", 3),
    "set_size_thr": ("set size, THR", "", 2),
    "coverage_aps": ("coverage, APS", "", 3),
    "set_size_aps": ("set size, APS", "", 2),
    "coverage_raps": ("coverage, RAPS", "", 3),
    "set_size_raps": ("set size, RAPS", "", 2),
    "cross_entropy": ("cross-entropy to votes", "", 4),
    "soft_brier": ("Brier to votes", "", 4),
    "total_variation": ("total variation to votes", "", 4),
    "entropy_correlation": ("correlation with votes' entropy", "", 3),
    "images_per_second": ("images/s", "max", 0),
}


def accuracy_against_nll(scores: pd.DataFrame) -> Figure:
    """Each model's accuracy against its NLL, with the 95 % intervals of the table.

    A model whose NLL is infinite stands at the right edge, and the legend says so.

    Args:
        scores: of :func:`bnnlib.analysis.tables.scores`.
    """
    set_style()
    figure, axis = subplots(figsize=(9, 4.6), layout="constrained")
    models = in_order(scores.model)
    entries = scores.set_index(["model", "score"])
    for model in models:
        x, y = entries.loc[(model, "nll")], entries.loc[(model, "accuracy")]
        style = line(model, among(scores)) | {"linestyle": "none", "markersize": 11}
        place: dict[str, Any] = {"xerr": _ends(x)}
        if np.isposinf(x["mean"]):
            style["label"] += " (NLL ∞)"
            place = {"transform": axis.get_yaxis_transform(), "clip_on": False}
        at = 1.0 if np.isposinf(x["mean"]) else x["mean"]
        axis.errorbar(at, y["mean"], yerr=_ends(y), elinewidth=1, alpha=0.9, **place, **style)
    axis.set(xlabel="NLL on the test set (nats an image); lower is better", ylabel="accuracy")
    legend(axis)
    return figure


def _ends(entry: pd.Series) -> np.ndarray:
    """Lengths of an error bar ``(2, 1)`` that spans the interval; 0 where it is unknown."""
    ends = np.array([[entry.low], [entry.high]], dtype=float)
    known = np.isfinite(ends) & np.isfinite(entry["mean"])
    return np.where(known, np.abs(np.where(known, ends, 0.0) - entry["mean"]), 0.0)


def reliability_diagrams(bins: pd.DataFrame) -> Figure:
    """Accuracy less confidence against confidence, a panel a model; below, the bins' counts.

    Args:
        bins: of :func:`bnnlib.analysis.tables.reliability`; runs of one model are drawn over each
            other. Bins of fewer than :data:`ENOUGH` images are only counted. The bars are the bins'
            intervals for the accuracy at 95 %, the grey band is where a calibrated model's
            accuracies would lie. Temperature scaling is dashed, without intervals. The title gives
            the ECE and the debiased ECE, as predicted and at the fitted temperature T.
    """
    set_style()
    models = in_order(bins.model)
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(
        2 * rows,
        columns,
        figsize=(max(5.0, 2.9 * columns), 3.9 * rows + 0.4),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=[3, 1] * rows,
    )
    drawn = _well_filled(bins)
    most = bins["count"].max()
    for index, model in enumerate(models):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        style = line(model, among(bins))
        title = f"{style['label']}\n{_change(bins[bins.model == model], 'ece', 'ECE')}"
        title += f"\n{_change(bins[bins.model == model], 'ece_debiased', 'debiased')}"
        style |= {"label": "as predicted", "linestyle": "-", "linewidth": 1.4}
        style |= {"markerfacecolor": style["color"], "fillstyle": "full"}
        dashed = style | {"label": "after temperature scaling, at T", "linestyle": "--"}
        dashed |= {"markerfacecolor": "white", "alpha": 0.7}
        for (_, scaled), run in drawn[drawn.model == model].groupby(["run", "scaled"]):
            gap = run.accuracy - run.confidence
            if scaled:
                upper.plot(run.confidence, gap, **dashed)
                continue
            ends = np.stack([run.accuracy - run.accuracy_low, run.accuracy_high - run.accuracy])
            band = (run.calibrated_low - run.confidence, run.calibrated_high - run.confidence)
            upper.fill_between(run.confidence, *band, **_CALIBRATED)
            upper.errorbar(run.confidence, gap, yerr=ends, capsize=2, elinewidth=1, **style)
        for _, run in bins[(bins.model == model) & ~bins.scaled].groupby("run"):
            middle, width = (run.lower + run.upper) / 2, 0.9 * (run.upper - run.lower)
            lower.bar(middle, run["count"], width=width, color=style["color"], alpha=0.6)
        upper.axhline(0, color="0.3", linewidth=1, linestyle="--")
        upper.set_title(title, fontsize=11)
        upper.set_ylim(-_reach(drawn), _reach(drawn))
        for place, side in ((0.97, "underconfident"), (0.03, "overconfident")):
            where = {"transform": upper.transAxes, "va": "top" if place > 0.5 else "bottom"}
            upper.text(0.02, place, side, color="0.35", fontsize=11, **where)
        plain_log(lower, "y")
        lower.set_ylim(0.7, 2 * most)
        lower.axhline(ENOUGH, color="0.3", linewidth=1, linestyle=":")
        if index + columns >= len(models):  # the last panel of its column
            lower.set(xlabel="confidence")
            lower.xaxis.set_tick_params(labelbottom=True)
        if column == 0:
            upper.set_ylabel("accuracy −\nconfidence")
            lower.set_ylabel("images")
    hide_unused(axes, len(models), columns, 2)
    legend_above(figure, 3, f"above: the bins of at least {ENOUGH} images; below: all")
    return figure


# Images from which on a bin is drawn: of 10, the 95 % interval of its accuracy is ±0.26 already.
ENOUGH = 10


def _well_filled(bins: pd.DataFrame) -> pd.DataFrame:
    """The bins with enough images to be drawn; of a run that has none, all."""
    enough = bins["count"] >= ENOUGH
    any_enough = enough.groupby([bins.run, bins.model, bins.scaled]).transform("any")
    return bins[enough | ~any_enough]


def _reach(drawn: pd.DataFrame) -> float:
    """How far from 0 the panels reach: over all that is drawn, with a margin for the words."""
    ends = drawn[["accuracy", "calibrated_low", "calibrated_high"]]
    ends = ends.join(drawn[["accuracy_low", "accuracy_high"]].where(~drawn.scaled))
    return 1.25 * float(np.nanmax(ends.sub(drawn.confidence, axis=0).abs().to_numpy(float)))


def _change(bins: pd.DataFrame, score: str, name: str) -> str:
    """A score of the bins' table, mean over runs: ``ECE 0.016 → 0.041 at T``."""
    means = bins.groupby(["scaled", "run"])[score].first().groupby("scaled").mean()
    text = f"{name} {means[False]:.3f}"
    return f"{text} → {means[True]:.3f} at T" if True in means.index else text


# Where a calibrated model's bins would lie.
_CALIBRATED: dict[str, Any] = {
    "color": "0.6",
    "alpha": 0.35,
    "linewidth": 0,
    "label": "a calibrated model, 95 %",
}


def entropy_of_right_and_wrong(entropies: pd.DataFrame) -> Figure:
    """Distribution of the predictive entropy of right and of wrong predictions, a row a model.

    Args:
        entropies: of :func:`bnnlib.analysis.tables.entropies`.
    """
    set_style()
    models = in_order(entropies.model)
    figure, axis = subplots(figsize=(10, 1.1 + 0.75 * len(models)), layout="constrained")
    sns.boxplot(
        entropies,
        y="model",
        x="entropy",
        hue="outcome",
        order=models,
        hue_order=["right", "wrong"],
        palette={"right": COLOURS[2], "wrong": COLOURS[3]},
        whis=(5, 95),
        fliersize=0,
        gap=0.1,
        ax=axis,
    )
    counts = entropies.groupby("model").outcome.agg(lambda o: (o == "wrong").sum())
    shown = {model: line(model, among(entropies))["label"] for model in models}
    axis.set_yticks(range(len(models)), [f"{shown[m]}\n{counts[m]} wrong" for m in models])
    axis.set(xlabel="predictive entropy (nats); box: quartiles, whiskers: 5 % to 95 %", ylabel="")
    axis.legend(title="prediction", loc="lower right")
    return figure


def risk_against_coverage(curves: pd.DataFrame) -> Figure:
    """The error among the images kept when the least certain ones are handed back.

    Args:
        curves: of :func:`bnnlib.analysis.tables.risk_coverage`; runs of one model are averaged.
    """
    set_style()
    figure, axis = subplots(figsize=(10, 4.8), layout="constrained")
    models = in_order(curves.model)
    for place, model in enumerate(models):
        selected = curves[curves.model == model]
        risk = selected.groupby("coverage").risk.mean()
        style = line(model, among(curves)) | {"markevery": (2 * place, 20)}
        style["label"] += f"  ({1000 * selected.groupby('run').aurc.first().mean():.2f})"
        axis.plot(100 * risk.index, 100 * risk, **style)
    axis.set(xlabel="images kept (%), the most certain first", ylabel="wrong among them (%)")
    axis.set_ylim(bottom=0)
    legend(axis, title="area under the curve × 1000\nin brackets")
    return figure
