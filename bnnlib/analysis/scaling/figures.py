"""Figures of the scaling study, one function each, of the tables of this package.

Predictions are drawn dashed or dotted and hollow, measurements solid and filled. A line joins
measured points only where there are three or more: two do not say how a curve runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bnnlib import metrics
from bnnlib.analysis.scaling.timings import means_of_ranks, ways_to_grow
from bnnlib.analysis.style import (
    COLOURS,
    beside_twin,
    legend,
    legend_above,
    legend_below,
    line,
    plain_log,
    set_style,
    subplots,
)
from bnnlib.analysis.tables.common import FEWEST_RUNS, unknown
from bnnlib.analysis.words import counted
from bnnlib.names import in_order, network_of, twin_of
from bnnlib.record.profile import PARTS


def efficiency(table: pd.DataFrame) -> Figure:
    """Images/s and efficiency, weak and strong, a point a number of ranks, with 95 % intervals.

    Of several batches of a model the largest is drawn; the table has all.

    Args:
        table: of :func:`bnnlib.analysis.scaling.efficiencies`.
    """
    set_style()
    drawn = table[table.batch == table.groupby(["kind", "model"]).batch.transform("max")]
    kinds = [kind for kind in ("weak", "strong") if kind in set(table.kind)]
    ranks = sorted(drawn.ranks.unique())
    figure, axes = subplots(
        2, len(kinds), figsize=(5.6 * len(kinds), 7), sharey="row", layout="constrained",
        squeeze=False,
    )  # fmt: skip
    names = in_order(table.model)
    for (upper, lower), kind in zip(axes.T, kinds, strict=True):
        of_kind = [
            drawn[(drawn.kind == kind) & (drawn.model == model)].sort_values("ranks")
            for model in names
        ]
        styles = [line(model, names) for model in names]
        speeds = [rows.set_index("ranks")[["images_per_second", "low", "high"]] for rows in of_kind]
        # The efficiency of one rank is 1 by definition.
        shares = [
            rows[rows.ranks > 1].set_index("ranks")[
                ["efficiency", "efficiency_low", "efficiency_high"]
            ]
            for rows in of_kind
        ]
        _points(upper, speeds, styles, ranks)
        _points(lower, shares, styles, [number for number in ranks if number > 1])
        what = "a rank's" if kind == "weak" else "all ranks'"
        batches = "/".join(f"{batch}" for batch in sorted(drawn[drawn.kind == kind].batch.unique()))
        upper.set_title(f"{kind} scaling: {what} batch stays {batches}", fontsize=12)
        plain_log(upper, "y")
        lower.axhline(1, color="0.4", linewidth=1, linestyle=":")
        lower.set_xlabel("ranks")
    axes[0, 0].set_ylabel("images/s, all ranks")
    axes[1, 0].set_ylabel("efficiency against one rank\nwithout communication")
    ends = drawn[["efficiency", "efficiency_high"]].to_numpy(float)
    axes[1, 0].set_ylim(0, 1.05 * max(1.0, float(np.nanmax(ends))))
    repeats = int(drawn.repeats.max())
    legend_above(figure, title=f"mean and 95 % interval of {repeats} runs" if repeats > 1 else None)
    return figure


def _points(
    axis: Any,
    values: Sequence[pd.DataFrame],
    styles: Sequence[dict[str, Any]],
    ranks: Sequence[int],
    width: float = 0.7,
) -> None:
    """A point with its interval for each number of ranks; several series stand beside each other.

    Args:
        axis: a panel.
        values: of each series, by number of ranks, three columns: the point, and the interval's
            ends.
        styles: of each series.
        ranks: all numbers of ranks that the axis shows, at equal distances.
        width: of all series at one number of ranks, as a share of that distance.
    """
    for index, (one, style) in enumerate(zip(values, styles, strict=True)):
        shift = width * ((index + 0.5) / len(values) - 0.5)
        places = np.array([ranks.index(number) for number in one.index]) + shift
        middle, low, high = one.to_numpy(float).T
        ends = np.clip(np.nan_to_num([middle - low, high - middle]), 0, None)
        joined = {} if np.isfinite(middle).sum() > 2 else {"linestyle": "none"}
        bars = {"capsize": 2, "elinewidth": 1.2}
        axis.errorbar(places, middle, yerr=ends, **bars | style | joined)
    axis.set_xticks(range(len(ranks)), [f"{number:,}" for number in ranks])
    axis.set_xlim(-0.6, len(ranks) - 0.4)
    axis.grid(visible=False, axis="x")


def _rank_ticks(axis: Any, ranks: Sequence[int]) -> None:
    """Ticks at the numbers of ranks of a logarithmic axis, at most five of them."""
    values = sorted({int(number) for number in ranks})
    values = values[:: -(-(len(values) - 1) // 4) or 1]
    axis.set_xticks(values, [f"{value:,}" for value in values])
    axis.minorticks_off()


def time_to_accuracy(table: pd.DataFrame) -> Figure:
    """Seconds to the target accuracy, a point a number of ranks, a panel a way of growing.

    Args:
        table: of :func:`bnnlib.analysis.scaling.times_to_accuracy`.
    """
    set_style()
    ways = ways_to_grow(table)
    figure, axes = subplots(
        1, len(ways), figsize=(5.4 * len(ways), 4.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    names = in_order(table.model)
    for axis, (label, selected) in zip(axes[0], ways.items(), strict=True):
        values = [
            selected[selected.model == model].groupby("ranks").seconds.agg(["mean", "min", "max"])
            for model in names
        ]
        styles = [line(model, names) for model in names]
        _points(axis, values, styles, sorted(selected.ranks.unique()))
        plain_log(axis, "y")
        axis.set_title(label, fontsize=12)
        axis.set_xlabel("ranks")
    axes[0, 0].set_ylabel("seconds of training\nto the target accuracy")
    legend_above(figure, title="mean over repeats; bars from the fastest to the slowest")
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
    labels = [f"{row.model}, {counted(row.ranks, 'rank')}" for row in means.itertuples()]
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
    # Of two ranks both algorithms send the same: one line, with both names.
    curves: dict[tuple[float, ...], list[str]] = {}
    for column in table:
        if column.startswith("predicted "):
            key = tuple(table[column].round(9))
            curves.setdefault(key, []).append(column.removeprefix("predicted "))
    dashes = ((5, 2), (1, 1.5), (6, 1.5, 1, 1.5), (3, 1, 1, 1, 1, 1))
    for index, (values, names) in enumerate(curves.items()):
        style = {"color": COLOURS[(1, 3, 4, 2)[index % 4]], "linestyle": (0, dashes[index % 4])}
        axis.plot(table.bytes, values, label=" and\n".join(names), linewidth=2, **style)
    plain_log(axis)
    axis.xaxis.set_major_formatter(EngFormatter("B"))
    axis.set(xlabel="size of the message", ylabel="milliseconds an average")
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
    axis.plot(ends, ends, color="0.5", linestyle=":", linewidth=1, label="as predicted")
    plain_log(axis)
    axis.set(xlabel="predicted ms a step", ylabel="measured ms a step")
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
    """Predicted efficiency to thousands of nodes; nothing in it is measured but filled points.

    A column holds a twin, wide and pale, and its Bayesian networks. Of the interconnects the first
    is drawn, dashed for the average's cost alone and dotted with the waiting; the table has all.

    Args:
        table: of :func:`bnnlib.analysis.scaling.scenarios`; rows with ``measured`` true are
            measured points.
    """
    set_style()
    table = table[table.possible.astype(bool)].astype({"measured": bool})
    groups = beside_twin(table.model)
    # The first interconnect, and the same with the waiting.
    scenarios = dict(zip(dict.fromkeys(table[~table.measured].scenario), ("--", ":"), strict=False))
    figure, axes = subplots(
        2,
        len(groups),
        figsize=(max(6.5, 3.7 * len(groups)), 6.6),
        sharex="row",
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    names = in_order(table.model)
    for column, (twin, group) in enumerate(groups.items()):
        for axis, kind in zip(axes[:, column], ("weak", "strong"), strict=True):
            for model in group:
                style = line(model, names)
                own = table[(table.model == model) & (table.kind == kind)]
                for scenario, dash in scenarios.items():
                    drawn = own[(own.scenario == scenario) & ~own.measured]
                    look = style | {"linestyle": dash, "markerfacecolor": "white"}
                    look |= {"markersize": 4, "linewidth": 1.3}
                    if twin_of(network_of(model)) is None and len(group) > 1:
                        # As long as the others' dashes: matplotlib's grow with the line's width.
                        wide = (0, (1.6, 0.5) if dash == "--" else (0.4, 0.4))
                        look |= {"linewidth": 4, "marker": "", "alpha": 0.4, "linestyle": wide}
                        look |= {"zorder": 1}
                    axis.plot(drawn.ranks, drawn.efficiency, **look)
                points = own[own.measured]
                look = style | {"linestyle": "none", "label": "_"}
                axis.plot(points.ranks, points.efficiency, **look)
            axis.set(xscale="log", ylim=(0, 1.08 * max(1.0, float(table.efficiency.max()))))
            axis.set_title(f"PREDICTION, {kind}: {twin or 'own networks'}", fontsize=12)
            _rank_ticks(axis, table[(table.kind == kind) & ~table.measured].ranks)
    for axis in axes[1]:
        axis.set_xlabel("nodes, one rank each")
    for axis in axes[:, 0]:
        axis.set_ylabel("efficiency")
    what = "; ".join(
        f"{'dashed' if dash == '--' else 'dotted'}: {s}" for s, dash in scenarios.items()
    )
    legend_above(figure, title=f"{what}; filled points: measured on this machine")
    return figure


_CALIBRATION_LABELS = {"accuracy": "accuracy", "nll": "NLL (nats)", "ece": "ECE"}


def calibration(table: pd.DataFrame) -> Figure:
    """Scores against ranks, a row a score, a column a twin with its networks and a batch.

    The bars are 95 % intervals over seeds, of the accuracy also over the test images.

    Args:
        table: of :func:`bnnlib.analysis.scaling.calibration`.
    """
    set_style()
    scores = list(dict.fromkeys(table.score))
    batches = [batch for batch in ("global", "per rank") if batch in set(table.batch)]
    groups = beside_twin(table.model)
    columns = [(twin, batch) for twin in groups for batch in batches]
    figure, axes = subplots(
        len(scores),
        len(columns),
        figsize=(max(6.0, 2.9 * len(columns)), 1.45 * len(scores) + 1.6),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    names = in_order(table.model)
    ranks = sorted(table.ranks.unique())
    for column, (twin, batch) in enumerate(columns):
        for row, score in enumerate(scores):
            axis = axes[row, column]
            if batch != batches[0]:  # a twin's batches are compared, so they have one scale
                axis.sharey(axes[row, column - 1])
                axis.tick_params(labelleft=False)
            values, styles = [], []
            for model in groups[twin]:
                for noise, dash in (("independent", "-"), ("shared", ":")):
                    selected = table[
                        (table.model == model)
                        & (table.score == score)
                        & (table.batch == batch)
                        & (table.noise == noise)
                    ]
                    if selected.ranks.nunique() < 2:
                        continue
                    style = line(model, names) | {"linestyle": dash, "markersize": 5}
                    style |= {"capsize": 0, "elinewidth": 0.8}
                    if noise == "shared":
                        style |= {"markerfacecolor": "white", "fillstyle": "full", "label": "_"}
                    values.append(_over_seeds(selected))
                    styles.append(style)
            _points(axis, values, styles, ranks, width=0.4)
        axes[0, column].set_title(f"{twin or 'own networks'},\nfixed {batch} batch", fontsize=12)
    for axis, score in zip(axes[:, 0], scores, strict=True):
        axis.set_ylabel(_CALIBRATION_LABELS.get(score, score.replace(" ", "\n", 1)))
    for axis in axes[-1]:
        axis.set_xlabel("virtual ranks")
    seeds = int(table.groupby("model").seed.nunique().max())
    what = f"mean of {seeds} seeds and 95 % interval"
    if 1 < seeds < FEWEST_RUNS:
        what = f"mean of {seeds} seeds, too few for an interval"
    if seeds == 1:
        what = "one seed; bars: 95 % over the test images, of the accuracy alone"
    legend_above(figure, title=f"{what}; dotted, hollow: all ranks share their weight noise")
    return figure


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The mean of a score and its 95 % interval by ranks, of rows of one model and score.

    Of two seeds there is no interval.
    """
    intervals = {}
    for ranks, selected in rows.groupby("ranks"):
        mean, half = float(selected.value.mean()), 0.0
        if selected.score.iloc[0] == "accuracy":
            half = 1.96 * np.sqrt(mean * (1 - mean) / selected.num_images.max())
        of_images = metrics.Interval(mean, mean - half, mean + half)
        few = 1 < len(selected) < FEWEST_RUNS
        found = metrics.with_seeds(of_images, [selected.value])
        intervals[ranks] = unknown(mean) if few else found
    return pd.DataFrame.from_dict(intervals, orient="index")
