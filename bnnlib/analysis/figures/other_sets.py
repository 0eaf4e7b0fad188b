"""What the models predict on shifted images and on images out of distribution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.style import (
    COLOURS,
    among,
    beside_twin,
    hide_unused,
    legend_above,
    legend_below,
    line,
    panel_columns,
    parts,
    plain_log,
    set_style,
    subplots,
)
from bnnlib.analysis.tables.common import over_runs
from bnnlib.metrics import Interval
from bnnlib.names import in_order, network_of


def against_severity(shifts: pd.DataFrame) -> Figure:
    """Accuracy and debiased ECE against severity, a column a family of shifts.

    Networks are drawn with their twin alone, so that few lines share a panel. Shifts of a single
    severity are better read in :func:`corruptions`.

    Args:
        shifts: of :func:`bnnlib.analysis.tables.shifts`; means over runs. The band is the 95 %
            interval, over images and, of three runs or more, over seeds; two runs have none.
    """
    set_style()
    models = in_order(shifts.model)
    families = list(dict.fromkeys(shifts.family))
    columns = min(5, len(families))
    rows = -(-len(families) // columns)
    groups = beside_twin(models)
    # Further rows are lower, so that the 15 kinds of cifar10_c stay within two screens.
    height = 3.7 + 3.1 * (rows - 1)
    figure, areas = parts(len(groups), figsize=(max(6.0, 2.2 * columns), height * len(groups)))
    scores = {"accuracy": "accuracy", "ece_debiased": "debiased ECE"}
    drawn = shifts[shifts.score.isin(list(scores))]
    top = {"accuracy": 1.0, "ece_debiased": _highest(drawn[drawn.score == "ece_debiased"])}
    for area, group in zip(areas, groups.values(), strict=True):
        axes = area.subplots(2 * rows, columns, squeeze=False, sharey="row")
        for index, family in enumerate(families):
            row, column = divmod(index, columns)
            of_family = drawn[(drawn.family == family) & drawn.model.isin(group)]
            for place, (score, label) in enumerate(scores.items()):
                axis = axes[2 * row + place, column]
                for model in group:
                    of_model = of_family[(of_family.model == model) & (of_family.score == score)]
                    _band(axis, of_model, line(model, among(shifts)))
                severities = sorted(of_family.severity.unique())
                if len(severities) <= 6:
                    axis.set_xticks(severities, [str(severity) for severity in severities])
                axis.set_ylim(-0.03 * top[score], 1.05 * top[score])
                if column == 0:
                    axis.set_ylabel(label)
            axes[2 * row, column].set_title(family.replace("_", " "), fontsize=12)
            axes[2 * row, column].tick_params(labelbottom=False)
            axes[2 * row + 1, column].set_xlabel(_SEVERITY_UNITS.get(family, "severity"))
        hide_unused(axes, len(families), columns, 2)
        legend_above(area)
    return figure


def _band(axis: Any, rows: pd.DataFrame, style: dict[str, Any]) -> None:
    """One model's mean over runs by severity, with its interval."""
    severities = sorted(rows.severity.unique())
    value, low, high = _over_runs(rows, "severity", severities)
    axis.plot(severities, value, **style)
    axis.fill_between(severities, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _over_runs(rows: pd.DataFrame, column: str, order: Iterable[Any]) -> np.ndarray:
    """Value, low and high ``(3, num_places)``: one model's means over runs in the order given."""
    means = {
        place: over_runs([Interval(*run) for run in runs[["value", "low", "high"]].to_numpy()])
        for place, runs in rows.groupby(column)
    }
    absent = (np.nan, np.nan, np.nan)
    return np.array([means.get(place, absent) for place in order], float).reshape(-1, 3).T


_SEVERITY_UNITS = {"rotate": "degrees", "translate": "pixels"}


def corruptions(shifts: pd.DataFrame) -> Figure:
    """Accuracy and debiased ECE of shifts that have one severity each, a row of dots a shift.

    Networks are drawn with their twin, and the shift whose debiased ECE is the twin's least stands
    first.

    Args:
        shifts: of :func:`bnnlib.analysis.tables.by_severities`, those of one severity; means over
            runs. The bar is the 95 % interval, as in :func:`against_severity`.
    """
    set_style()
    groups = beside_twin(shifts.model)
    drawn = shifts[shifts.severity > 0]  # 0 is the test set, which other figures show
    sets = list(dict.fromkeys(drawn["set"]))
    # A row is as high as its name, or as its models' markers below each other.
    heights = [1.2 + len(sets) * max(0.27, 0.1 * len(group)) for group in groups.values()]
    figure, areas = parts(len(groups), figsize=(9.0, sum(heights)), height_ratios=heights)
    scores = {"accuracy": "accuracy", "ece_debiased": "debiased ECE"}
    highest = {"accuracy": 1.0, "ece_debiased": _highest(drawn[drawn.score == "ece_debiased"])}
    for area, (twin, group) in zip(areas, groups.items(), strict=True):
        # The twin, or the first of its variants; of the user's own networks the first.
        first = max(group, key=lambda model: network_of(model) == twin)
        of_twin = drawn[(drawn.model == first) & (drawn.score == "ece_debiased")]
        order = of_twin.groupby("set").value.mean().reindex(sets).sort_values(kind="stable").index
        axes = area.subplots(1, 2, sharey=True)
        for axis, (score, label) in zip(axes, scores.items(), strict=True):
            for place, model in enumerate(group):
                selected = drawn[(drawn.model == model) & (drawn.score == score)]
                value, low, high = _over_runs(selected, "set", order)
                offset = 0.8 * ((place + 0.5) / len(group) - 0.5)
                style = line(model, among(shifts)) | {"linestyle": "none"}
                style |= {"markersize": 6, "elinewidth": 1.2}
                bars = np.abs([value - low, high - value])
                axis.errorbar(value, np.arange(len(order)) + offset, xerr=bars, **style)
            axis.set(xlabel=label, xlim=(-0.03 * highest[score], 1.05 * highest[score]))
        axes[0].set_yticks(range(len(order)), order)
        axes[0].set_ylim(len(order) - 0.5, -0.5)
        legend_above(area)
    return figure


def _highest(rows: pd.DataFrame) -> float:
    """What an axis must reach to show the values and the ends of their intervals."""
    return max(0.1, float(np.nanmax(rows[["value", "high"]].to_numpy(float), initial=0.0)))


def ood_histograms(histograms: pd.DataFrame) -> Figure:
    """Predictive entropy of test images and of foreign ones, a row a model, a column a set.

    Args:
        histograms: of :func:`bnnlib.analysis.tables.ood_histograms`.
    """
    set_style()
    models, sets = in_order(histograms.model), list(dict.fromkeys(histograms["set"]))
    # Of one set the models stand side by side, or the page would be as long as they are many.
    columns = len(sets) if len(sets) > 1 else panel_columns(len(models))
    rows = -(-len(models) * len(sets) // columns)
    figure, axes = subplots(
        rows,
        columns,
        figsize=(max(5.5, 3.0 * columns), 1.3 + 1.5 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    panels = [(model, name) for model in models for name in sets]
    for index, (model, name) in enumerate(panels):
        axis = axes[divmod(index, columns)]
        selected = histograms[(histograms.model == model) & (histograms["set"] == name)]
        if len(selected):
            edges = [*selected.lower, selected.upper.iloc[-1]]
            axis.stairs(selected.test, edges, fill=True, color="0.65", label="test images")
            axis.stairs(
                selected.foreign, edges, color=_FOREIGN, linewidth=2, label="foreign images"
            )
            text = f"{name}, AUROC {selected.auroc.iloc[0]:.3f}"
            place = {"transform": axis.transAxes, "ha": "right", "va": "top", "fontsize": 10.5}
            axis.text(0.98, 0.96, text, **place)
        # Most test images lie in the first bin; the root leaves the others to be seen.
        axis.set_yscale("function", functions=(np.sqrt, np.square))
        axis.set_ylim(0, 1.2)
        axis.set_yticks([0.0, 0.1, 0.5, 1.0], ["0 %", "10 %", "50 %", "100 %"])
        if name == sets[0]:  # a title has room for a whole name, which a row's height has not
            axis.set_title(line(model, among(histograms))["label"], fontsize=12, loc="left")
        if index + columns >= len(panels):  # the last panel of its column
            axis.set_xlabel("predictive entropy (nats)", fontsize=11)
            axis.xaxis.set_tick_params(labelbottom=True)
    hide_unused(axes, len(panels), columns)
    figure.supylabel("share of the images in a bin (root scale)", fontsize=12)
    legend_above(figure)
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
        figsize=(max(9.0, 2.9 * len(sets)), 2.6 * len(scores) + 1.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, score in enumerate(scores):
        for column, name in enumerate(sets):
            axis = axes[row, column]
            for place, model in enumerate(models):
                selected = curves[
                    (curves.model == model) & (curves["set"] == name) & (curves.score == score)
                ]
                # Markers at places of their own, along the curve's length: no model hides another.
                start = 0.02 + 0.2 * place / len(models)
                style = line(model, among(curves)) | {"markevery": (start, 0.2), "linewidth": 1.4}
                axis.plot(selected.false_alarms, selected.found, **style)
            chance = np.linspace(0, 1, 101)
            axis.plot(chance, chance, color="0.6", linewidth=1, linestyle=":")
            # A good detector rises where few test images are taken for foreign.
            axis.set_xscale("function", functions=(np.sqrt, np.square))
            axis.set(xlim=(0, 1), ylim=(0, 1.02))
            axis.set_xticks([0, 0.05, 0.2, 0.5, 1], ["0", "0.05", "0.2", "0.5", "1"])
            if row == 0:
                axis.set_title(name, fontsize=12)
        axes[row, 0].set_ylabel(f"foreign images found\nby {score.replace('_', ' ')}", fontsize=11)
    for axis in axes[-1]:
        axis.set_xlabel("test images taken for foreign\n(root scale)", fontsize=11)
    legend_above(figure)
    return figure


def epistemic_against_aleatoric(uncertainties: pd.DataFrame) -> Figure:
    """The two parts of the entropy, a point a set of images, a panel a model.

    The severities of a shift are joined by a line, which starts at the least severe one.

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
        figsize=(max(6.5, 3.7 * columns), 3.4 * rows + 1.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    looks_of = _looks_of_sets(uncertainties)
    by_severity = uncertainties.sort_values(
        "set", key=lambda sets: sets.map(_severity), kind="stable"
    )
    for index, model in enumerate(models):
        axis = axes[divmod(index, columns)]
        selected = by_severity[by_severity.model == model]
        for label, style in looks_of.items():
            points = selected[_names_of_sets(selected) == label]
            if len(points):
                axis.plot(points.aleatoric, points.epistemic, label=label, **style)
        axis.set_title(line(model, among(uncertainties))["label"], fontsize=12)
        # Networks differ by a factor of ten, and so do the sets of one network.
        plain_log(axis)
        if index + columns >= len(models):
            axis.set_xlabel("aleatoric (nats)")
            axis.xaxis.set_tick_params(labelbottom=True)
        if index % columns == 0:
            axis.set_ylabel("epistemic (nats)")
    hide_unused(axes, len(models), columns)
    legend_below(figure, 4)
    return figure


def _names_of_sets(rows: pd.DataFrame) -> pd.Series:
    """What the legend calls a row's set: of a shift the family, whose severities a line joins."""
    family = rows["set"].str.rpartition("-")[0].str.replace("_", " ")
    shift = (rows.kind == "shift") & (family != "")
    return rows["set"].where(~shift, family).rename("name")


def _severity(name: str) -> int:
    last = name.rpartition("-")[2]
    return int(last) if last.isdecimal() else 0


def _looks_of_sets(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Of each set's name its marker and colour: test images, then shifts, then foreign sets."""
    kinds = rows.kind.groupby(_names_of_sets(rows), sort=False).first()
    shifts, foreign = (kinds.index[kinds == kind] for kind in ("shift", "ood"))
    looks_of: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        style = {"linestyle": "none", "markersize": 9, "zorder": 4}
        if kind == "shift":
            place = list(shifts).index(name)
            style |= {"marker": "osd^v<>ph"[place % 9], "color": _SHIFTS[place % len(_SHIFTS)]}
            style |= {"linestyle": "-", "linewidth": 1, "markersize": 5, "zorder": 3}
        elif kind == "ood":
            place = list(foreign).index(name)
            style |= {"marker": "PD*Hv<>p8"[place % 9], "color": COLOURS[4]}
            style |= {"markeredgecolor": "black", "markeredgewidth": 0.6}
        else:
            style |= {"marker": "o" if kind == "right" else "X"}
            style |= {"color": COLOURS[2] if kind == "right" else COLOURS[3], "markersize": 11}
        looks_of[str(name)] = style
    return looks_of


_SHIFTS = (COLOURS[0], COLOURS[9], "#004488", COLOURS[7], "#000000")
