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
    hide_unused,
    legend,
    legend_below,
    line,
    panel_columns,
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
    """Each model's accuracy against its NLL, with its spread over runs or interval over images.

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
        style = line(model, models) | {"linestyle": "none", "markersize": 11}
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
    """Lengths of an error bar ``(2, 1)``: the standard deviation over runs, else the interval."""
    if not pd.isna(entry.stddev):
        return np.array([[entry.stddev], [entry.stddev]])
    ends = np.array([[entry.low], [entry.high]], dtype=float)
    known = np.isfinite(ends) & np.isfinite(entry["mean"])
    return np.where(known, np.abs(np.where(known, ends, 0.0) - entry["mean"]), 0.0)


def reliability_diagrams(bins: pd.DataFrame) -> Figure:
    """Accuracy less confidence against confidence, a panel a model; below, the bins' counts.

    Args:
        bins: of :func:`bnnlib.analysis.tables.reliability`; runs of one model are drawn over each
            other. The bars are the bins' intervals for the accuracy at 95 %, the grey band is where
            a calibrated model's accuracies would lie. Temperature scaling is dashed, without
            intervals. The title gives the ECE, and in brackets a calibrated model's.
    """
    set_style()
    models = in_order(bins.model)
    columns = panel_columns(len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(
        2 * rows,
        columns,
        figsize=(max(5.0, 3.7 * columns), 3.6 * rows),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=[3, 1] * rows,
    )
    for index, model in enumerate(models):
        row, column = divmod(index, columns)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        style = line(model, models) | {"label": "as predicted", "linestyle": "-"}
        style |= {"markerfacecolor": style["color"], "fillstyle": "full"}
        eces: dict[bool, list[float]] = {}
        dashed = style | {"label": "after temperature scaling, at T", "linestyle": "--"}
        dashed |= {"markerfacecolor": "white", "alpha": 0.7}
        for (_, scaled), run in bins[bins.model == model].groupby(["run", "scaled"]):
            gap = run.accuracy - run.confidence
            eces.setdefault(bool(scaled), []).append(run.ece.iloc[0])
            if scaled:
                upper.plot(run.confidence, gap, **dashed)
                continue
            ends = [run.accuracy - run.accuracy_low, run.accuracy_high - run.accuracy]
            band = (run.calibrated_low - run.confidence, run.calibrated_high - run.confidence)
            upper.fill_between(run.confidence, *band, **_CALIBRATED)
            upper.errorbar(run.confidence, gap, yerr=ends, capsize=2, elinewidth=1, **style)
            middle, width = (run.lower + run.upper) / 2, 0.9 * (run.upper - run.lower)
            lower.bar(middle, run["count"], width=width, color=style["color"], alpha=0.6)
        upper.axhline(0, color="0.3", linewidth=1, linestyle="--")
        calibrated = bins[(bins.model == model) & ~bins.scaled].groupby("run").first()
        title = f"{model}\nECE {np.mean(eces[False]):.3f}"
        title += f", at T {np.mean(eces[True]):.3f}" if True in eces else ""
        title += f"\n(calibrated: {calibrated.ece_if_calibrated.mean():.3f})"
        upper.set_title(title, fontsize=12)
        upper.margins(y=0.15)
        upper.text(0.02, 0.97, "too modest", transform=upper.transAxes, va="top", color="0.35")
        upper.text(0.02, 0.03, "too sure", transform=upper.transAxes, va="bottom", color="0.35")
        lower.set_yscale("log")
        lower.set_ylim(bottom=0.7)
        if index + columns >= len(models):  # the last panel of its column
            lower.set(xlabel="confidence")
            lower.xaxis.set_tick_params(labelbottom=True)
        if column == 0:
            upper.set_ylabel("accuracy −\nconfidence")
            lower.set_ylabel("images")
    hide_unused(axes, len(models), columns, 2)
    legend_below(figure, 3)
    return figure


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
    axis.set_yticks(range(len(models)), [f"{m}\n{counts[m]} wrong" for m in models])
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
    for model in models:
        selected = curves[curves.model == model]
        risk = selected.groupby("coverage").risk.mean()
        style = line(model, models) | {"markevery": (0, 20)}
        style["label"] = f"{model}  ({1000 * selected.groupby('run').aurc.first().mean():.2f})"
        axis.plot(100 * risk.index, 100 * risk, **style)
    axis.set(xlabel="images kept (%), the most certain first", ylabel="wrong among them (%)")
    axis.set_ylim(bottom=0)
    legend(axis, title="area under the curve × 1000\nin brackets")
    return figure
