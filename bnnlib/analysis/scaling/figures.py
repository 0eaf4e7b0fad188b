"""Figures of the scaling study, one function each, of the tables of this package.

Predictions are drawn dashed and hollow, measurements solid and filled.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.scaling.timings import means_of_ranks, ways_to_grow
from bnnlib.analysis.style import COLOURS, legend, legend_below, line, set_style, subplots
from bnnlib.names import in_order
from bnnlib.record.profile import PARTS


def efficiency(table: pd.DataFrame) -> Figure:
    """Images/s and efficiency against ranks, weak and strong, with 95 % intervals.

    Args:
        table: of :func:`bnnlib.analysis.scaling.efficiencies`.
    """
    set_style()
    kinds = [kind for kind in ("weak", "strong") if kind in set(table.kind)]
    figure, axes = subplots(
        2, len(kinds), figsize=(5.6 * len(kinds), 7), layout="constrained", squeeze=False
    )
    names = in_order(table.model)
    for column, kind in enumerate(kinds):
        upper, lower = axes[:, column]
        for place, model in enumerate(names):
            selected = table[(table.kind == kind) & (table.model == model)]
            # Of several batches the largest; the table and the text have all.
            for _, runs in selected[selected.batch == selected.batch.max()].groupby("batch"):
                ends = runs.sort_values("ranks")
                style = line(model, names)
                upper.errorbar(
                    ends.ranks,
                    ends.images_per_second,
                    yerr=_ends(ends, "images_per_second", "low", "high"),
                    capsize=2,
                    **style,
                )
                # Beside each other, or the intervals would hide each other.
                shift = 1 + 0.02 * (place - len(names) / 2) * (ends.ranks > 1)
                lower.errorbar(
                    ends.ranks * shift,
                    ends.efficiency,
                    yerr=_ends(ends, "efficiency", "efficiency_low", "efficiency_high"),
                    capsize=2,
                    **style,
                )
        what = "the same images a rank" if kind == "weak" else "the same images of all ranks"
        upper.set_title(f"{kind}: {what}", fontsize=12)
        upper.set(yscale="log", xscale="log")
        lower.set(xscale="log", xlabel="ranks", ylim=(0, _top(table.efficiency)))
        lower.axhline(1, color="0.4", linewidth=1, linestyle=":")
        for axis in (upper, lower):
            _rank_ticks(axis, table.ranks)
    axes[0, 0].set_ylabel("images/s, all ranks")
    axes[1, 0].set_ylabel("efficiency against one rank\nwithout communication")
    legend_below(figure, 4)
    return figure


def _top(efficiency: pd.Series) -> float:
    """The end of an axis of efficiencies: above all points, whatever their intervals."""
    return 1.08 * max(1.0, float(efficiency.max()))


def _ends(table: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    ends = np.stack([table[middle] - table[low], table[high] - table[middle]])
    return np.clip(np.nan_to_num(ends.astype(float)), 0, None)


def _rank_ticks(axis: object, ranks: pd.Series) -> None:
    values = sorted({int(number) for number in ranks})
    axis.set_xticks(values, [f"{value:,}" for value in values])  # type: ignore[attr-defined]
    axis.minorticks_off()  # type: ignore[attr-defined]


def time_to_accuracy(table: pd.DataFrame) -> Figure:
    """Seconds to the target accuracy against ranks, a panel a way of growing.

    Args:
        table: of :func:`bnnlib.analysis.scaling.times_to_accuracy`.
    """
    set_style()
    ways = ways_to_grow(table)
    figure, axes = subplots(
        1, len(ways), figsize=(5.4 * len(ways), 4.4), sharey=True, layout="constrained"
    )
    names = in_order(table.model)
    for axis, (label, selected) in zip(np.atleast_1d(axes), ways.items(), strict=True):
        for model in names:
            means = selected[selected.model == model].groupby("ranks").seconds
            style = line(model, names)
            axis.errorbar(
                means.mean().index,
                means.mean(),
                yerr=[means.mean() - means.min(), means.max() - means.mean()],
                capsize=2,
                **style,
            )
        axis.set(xscale="log", yscale="log", xlabel="ranks")
        axis.set_title(label, fontsize=12)
        _rank_ticks(axis, table.ranks)
    np.atleast_1d(axes)[0].set_ylabel("seconds of training\nto the target accuracy")
    legend_below(figure, 4)
    return figure


_PART_COLOURS = dict(
    zip(PARTS, ("0.75", COLOURS[0], COLOURS[3], COLOURS[1], COLOURS[4], COLOURS[2]), strict=True)
)


def breakdown(table: pd.DataFrame) -> Figure:
    """Where the median step's time goes, a bar a model and number of ranks.

    Args:
        table: of :func:`bnnlib.analysis.scaling.profiles`.
    """
    set_style()
    means = means_of_ranks(table)
    figure, axis = subplots(figsize=(9, 0.42 * len(means) + 1.8), layout="constrained")
    labels = [f"{row.model}, {row.ranks} rank(s)" for row in means.itertuples()]
    left = np.zeros(len(means))
    for part in PARTS:
        values = means[f"{part}_ms"].fillna(0).to_numpy()
        axis.barh(labels, values, left=left, color=_PART_COLOURS[part], label=part)
        left = left + values
    axis.invert_yaxis()
    axis.set_xlabel("milliseconds of the median step, mean over ranks")
    legend(axis)
    return figure


def ladder(table: pd.DataFrame) -> Figure:
    """Time of an average against its size, with what the fits say.

    Args:
        table: the ladder's rows with columns of :func:`bnnlib.analysis.scaling.ladder_table`.
    """
    set_style()
    figure, axis = subplots(figsize=(8.5, 4.6), layout="constrained")
    axis.errorbar(
        table.bytes,
        table.ms,
        yerr=[table.ms - table.ms_min, table.ms_max - table.ms],
        color=COLOURS[0],
        marker="o",
        linestyle="none",
        capsize=2,
        label="measured (least to most)",
    )
    others = [column for column in table if column.startswith("predicted ")]
    for column, colour in zip(others, COLOURS[1:], strict=False):
        name = column.removeprefix("predicted ")
        axis.plot(table.bytes, table[column], color=colour, linestyle="--", label=name)
    axis.set(xscale="log", yscale="log", xlabel="bytes", ylabel="milliseconds an average")
    legend(axis)
    return figure


def predicted_steps(table: pd.DataFrame) -> Figure:
    """Predicted against measured step time of more than one rank.

    Args:
        table: a row a model, kind and ranks with ``predicted_ms`` and ``measured_ms``.
    """
    set_style()
    figure, axis = subplots(figsize=(7.5, 4.6), layout="constrained")
    names = in_order(table.model)
    for model in names:
        selected = table[table.model == model]
        style = line(model, names) | {"linestyle": "none"}
        axis.plot(selected.predicted_ms, selected.measured_ms, **style)
    ends = [table[["predicted_ms", "measured_ms"]].min().min() * 0.8]
    ends.append(table[["predicted_ms", "measured_ms"]].max().max() * 1.25)
    axis.plot(ends, ends, color="0.5", linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="predicted ms a step", ylabel="measured ms a step")
    legend(axis)
    return figure


def theta(table: pd.DataFrame) -> Figure:
    """Published speed-ups on Theta, and the model's.

    Args:
        table: of :func:`bnnlib.analysis.scaling.theta`.
    """
    set_style()
    figure, axes = subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    for axis, (name, selected) in zip(axes, table.groupby("network", sort=False), strict=True):
        axis.plot(
            selected.nodes, selected.speedup, color="0.1", marker="o", label="published (by eye)"
        )
        for column, label, colour in (
            ("model", "α-β on Aries, nothing fitted", COLOURS[0]),
            ("refined", "with a time a doubling, from 2 nodes", COLOURS[1]),
        ):
            axis.plot(
                selected.nodes,
                selected[column],
                color=colour,
                linestyle="--",
                marker="o",
                markerfacecolor="white",
                label=label,
            )
        axis.plot(
            selected.nodes, selected.nodes, color="0.6", linewidth=1, linestyle=":", label="perfect"
        )
        axis.set(xlabel="nodes of Theta")
        axis.set_title(str(name), fontsize=12)
        _rank_ticks(axis, selected.nodes)
    axes[0].set_ylabel("speed-up over one node")
    legend_below(figure, 2)
    return figure


def predictions(table: pd.DataFrame) -> Figure:
    """Predicted efficiency to thousands of nodes, dashed; nothing in it is measured but points.

    Args:
        table: of :func:`bnnlib.analysis.scaling.predict`, with ``scenario``; rows with
        ``measured`` true are
            measured points.
    """
    set_style()
    table = table[table.possible.astype(bool)]
    scenarios = list(dict.fromkeys(table[~table.measured].scenario))
    kinds = ["weak", "strong"]
    figure, axes = subplots(
        len(scenarios),
        2,
        figsize=(10.5, 2.9 * len(scenarios) + 1),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    names = in_order(table.model)
    for row, scenario in enumerate(scenarios):
        for column, kind in enumerate(kinds):
            axis = axes[row, column]
            for model in names:
                selected = table[(table.model == model) & (table.kind == kind)]
                style = line(model, names) | {"markerfacecolor": "white", "markersize": 5}
                drawn = selected[(selected.scenario == scenario) & ~selected.measured]
                axis.plot(drawn.ranks, drawn.efficiency, **style | {"linestyle": "--"})
                points = selected[selected.measured]
                style = line(model, names) | {"linestyle": "none", "label": "_"}
                axis.plot(points.ranks, points.efficiency, **style)
            axis.set(xscale="log", ylim=(0, _top(table.efficiency)))
            axis.set_title(f"PREDICTION: {kind}, {scenario}", fontsize=11)
            _rank_ticks(axis, pd.Series([1, 8, 64, 512, 4096]))
    for axis in axes[-1]:
        axis.set_xlabel("nodes, one rank each (filled: measured here)")
    for axis in axes[:, 0]:
        axis.set_ylabel("efficiency")
    legend_below(figure, 4)
    return figure


_CALIBRATION_LABELS = {"accuracy": "accuracy", "nll": "NLL (nats)", "ece": "ECE"}


def calibration(table: pd.DataFrame) -> Figure:
    """Scores against ranks, a row a score, a column a batch; shared noise dotted.

    Args:
        table: of :func:`bnnlib.analysis.scaling.calibration`.
    """
    set_style()
    scores = list(dict.fromkeys(table.score))
    batches = [batch for batch in ("per rank", "global") if batch in set(table.batch)]
    figure, axes = subplots(
        len(scores),
        len(batches),
        figsize=(5.4 * len(batches), 2.5 * len(scores) + 1),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    names = in_order(table.model)
    for row, score in enumerate(scores):
        for column, batch in enumerate(batches):
            axis = axes[row, column]
            for model in names:
                for noise in ("independent", "shared"):
                    selected = table[
                        (table.model == model)
                        & (table.score == score)
                        & (table.batch == batch)
                        & (table.noise == noise)
                    ]
                    means = selected.groupby("ranks").value.mean()
                    if len(means) < 2:
                        continue
                    style = line(model, names)
                    if noise == "shared":
                        style |= {"linestyle": ":", "markerfacecolor": "white", "label": "_"}
                    axis.plot(means.index, means, **style)
            axis.set(xscale="log")
            _rank_ticks(axis, table.ranks)
            if row == 0:
                axis.set_title(f"fixed {batch} batch", fontsize=12)
        axes[row, 0].set_ylabel(_CALIBRATION_LABELS.get(score, score.replace(" ", "\n", 1)))
    for axis in axes[-1]:
        axis.set_xlabel("virtual ranks (dotted, hollow: shared weight noise)")
    legend_below(figure, 3)
    return figure
