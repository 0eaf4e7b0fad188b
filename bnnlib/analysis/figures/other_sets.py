"""What the models predict on shifted images and on images out of distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bnnlib.analysis.style import (
    COLOURS,
    hide_unused,
    legend_below,
    line,
    panel_columns,
    set_style,
    subplots,
)
from bnnlib.names import in_order


def against_severity(shifts: pd.DataFrame) -> Figure:
    """Accuracy and calibration error against severity, a column a family of shifts.

    Args:
        shifts: of :func:`bnnlib.analysis.tables.shifts`; means over runs. The band is the interval
            over images of one run, or the range of several; the plain ECE of one run has none.
            Dotted is the mean ECE that a calibrated model with the same confidences would show.
    """
    set_style()
    models = in_order(shifts.model)
    families = list(dict.fromkeys(shifts.family))
    columns = min(5, len(families))
    rows = -(-len(families) // columns)
    figure, axes = subplots(
        2 * rows,
        columns,
        figsize=(max(6.0, 2.3 * columns), 4.6 * rows + 0.3 * -(-len(models) // 3)),
        squeeze=False,
        layout="constrained",
    )
    for index, family in enumerate(families):
        row, column = divmod(index, columns)
        for axis, score in zip(
            axes[2 * row : 2 * row + 2, column], ("accuracy", "ece"), strict=True
        ):
            family_rows = shifts[shifts.family == family]
            selected = family_rows[family_rows.score == score]
            for model in models:
                runs = selected[selected.model == model].groupby("severity")
                value, single = runs.value.mean(), runs.size().max() == 1
                low = runs.low.min() if single else runs.value.min()
                high = runs.high.max() if single else runs.value.max()
                style = line(model, models)
                axis.plot(value.index, value, **style)
                axis.fill_between(value.index, low, high, color=style["color"], alpha=0.12, lw=0)
                if score == "ece":
                    _calibrated_line(axis, family_rows[family_rows.model == model], style)
            severities = sorted(selected.severity.unique())
            if len(severities) <= 6:
                axis.set_xticks(severities, [str(severity) for severity in severities])
            axis.set_ylim(0, 1.02 if score == "accuracy" else max(0.1, 1.05 * _top(shifts, "ece")))
            if column > 0:
                axis.set_yticklabels([])
            else:
                axis.set_ylabel({"accuracy": "accuracy", "ece": "ECE"}[score])
        axes[2 * row, column].set_title(family.replace("_", " "), fontsize=12)
        axes[2 * row, column].set_xticklabels([])
        axes[2 * row + 1, column].set_xlabel(_SEVERITY_UNITS.get(family, "severity"))
    hide_unused(axes, len(families), columns, 2)
    legend_below(figure)
    return figure


def _calibrated_line(axis: Any, rows: pd.DataFrame, style: dict[str, Any]) -> None:
    """The ECE that a calibrated model with the same confidences would show, dotted."""
    mean = rows[rows.score == "ece_if_calibrated"].groupby("severity").value.mean()
    label = "a calibrated model with the same confidences"
    axis.plot(mean.index, mean, color=style["color"], linestyle=":", linewidth=1, label=label)


_SEVERITY_UNITS = {"rotate": "degrees", "translate": "pixels"}


def _top(shifts: pd.DataFrame, score: str) -> float:
    return float(shifts[shifts.score == score].groupby(["model", "set"]).value.mean().max())


def ood_histograms(histograms: pd.DataFrame) -> Figure:
    """Predictive entropy of test images and of foreign ones, a row a model, a column a set.

    Args:
        histograms: of :func:`bnnlib.analysis.tables.ood_histograms`.
    """
    set_style()
    models, sets = in_order(histograms.model), list(dict.fromkeys(histograms["set"]))
    figure, axes = subplots(
        len(models),
        len(sets),
        figsize=(max(5.5, 2.75 * len(sets)), 1.1 + 1.35 * len(models)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, model in enumerate(models):
        for column, name in enumerate(sets):
            axis = axes[row, column]
            selected = histograms[(histograms.model == model) & (histograms["set"] == name)]
            if len(selected):
                edges = [*selected.lower, selected.upper.iloc[-1]]
                axis.stairs(
                    selected.test, edges, fill=True, color="0.6", label="share of the test images"
                )
                axis.stairs(
                    selected.foreign,
                    edges,
                    color=_FOREIGN,
                    linewidth=2,
                    label="share of the foreign images",
                )
                axis.text(
                    0.97,
                    0.93,
                    f"AUROC {selected.auroc.iloc[0]:.3f}",
                    transform=axis.transAxes,
                    ha="right",
                    va="top",
                )
            # Most test images lie in the first bin; the root leaves the others to be seen.
            axis.set_yscale("function", functions=(np.sqrt, np.square))
            axis.set_ylim(0, 1)
            axis.set_yticks([0.1, 0.5, 1.0], ["10 %", "50 %", ""])
            if row == 0:
                axis.set_title(name, fontsize=12)
        axes[row, 0].set_ylabel(model.replace(" ", "\n").replace("NN_", "NN_\n", 1), fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("predictive entropy (nats)", fontsize=11)
    legend_below(figure, 2)
    return figure


_FOREIGN = COLOURS[3]


def roc_curves(curves: pd.DataFrame) -> Figure:
    """Foreign images found against test images taken for foreign, a column a set.

    Args:
        curves: of :func:`bnnlib.analysis.tables.roc`; a row for each score that the runs have.
    """
    set_style()
    models, sets = in_order(curves.model), list(dict.fromkeys(curves["set"]))
    scores = [s for s in ("entropy", "mutual_information") if s in set(curves.score)]
    figure, axes = subplots(
        len(scores),
        len(sets),
        figsize=(max(5.5, 2.75 * len(sets)), 2.6 * len(scores) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, score in enumerate(scores):
        for column, name in enumerate(sets):
            axis = axes[row, column]
            for model in models:
                selected = curves[
                    (curves.model == model) & (curves["set"] == name) & (curves.score == score)
                ]
                style = line(model, models) | {"marker": ""}
                axis.plot(selected.false_alarms, selected.found, **style)
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
            axis.set(xlim=(0, 1), ylim=(0, 1.02))
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            if row == 0:
                axis.set_title(name, fontsize=12)
        axes[row, 0].set_ylabel(f"foreign images found\nby {score.replace('_', ' ')}", fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("test images taken\nfor foreign", fontsize=11)
    legend_below(figure)
    return figure


def epistemic_against_aleatoric(uncertainties: pd.DataFrame) -> Figure:
    """The two parts of the entropy, a point a set of images, a panel a model.

    Args:
        uncertainties: of :func:`bnnlib.analysis.tables.uncertainties`.
    """
    set_style()
    models = in_order(uncertainties.model)
    columns = panel_columns(len(models))
    rows = -(-len(models) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(max(6.5, 3.7 * columns), 3.2 * rows + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    foreign = list(dict.fromkeys(uncertainties[uncertainties.kind == "ood"]["set"]))
    kinds = [
        ("test, right", "right", "o", COLOURS[2]),
        ("test, wrong", "wrong", "X", COLOURS[3]),
        ("shifted sets", "shift", ".", "0.45"),
    ]
    kinds += [(name, name, "^v<>Dsph*P"[i % 10], COLOURS[4]) for i, name in enumerate(foreign)]
    for index, model in enumerate(models):
        axis = axes[divmod(index, columns)]
        selected = uncertainties[uncertainties.model == model]
        for label, kind, marker, colour in kinds:
            points = selected[(selected["set"] if kind in foreign else selected.kind) == kind]
            if len(points):
                size = 60 if kind == "shift" else 90
                axis.scatter(
                    points.aleatoric,
                    points.epistemic,
                    s=size,
                    marker=marker,
                    color=colour,
                    label=label,
                    zorder=3,
                )
        axis.set_title(model, fontsize=12)
        # Networks differ by a factor of ten, and so do the sets of one network.
        axis.set(xscale="log", yscale="log")
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter("{x:g}")
            one.set_minor_formatter("")
        if index + columns >= len(models):
            axis.set_xlabel("aleatoric (nats)")
            axis.xaxis.set_tick_params(labelbottom=True)
        if index % columns == 0:
            axis.set_ylabel("epistemic (nats)")
    hide_unused(axes, len(models), columns)
    legend_below(figure, 4)
    return figure
