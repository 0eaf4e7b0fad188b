"""Figures and sentences of the scaling study, of the tables of :mod:`bnnlib.analysis.scaling`.

One function a figure and one a paragraph under it. What is predicted is drawn dashed and hollow,
what is measured solid and filled; no sentence is written in advance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.scaling import ALGORITHMS, Fit, Network, straggler
from bnnlib.analysis.style import COLOURS, legend, legend_below, line, set_style, subplots
from bnnlib.names import in_order, twin_of
from bnnlib.record.profile import PARTS

_NOTHING = "These records hold no runs for this; jobs/local/scaling.sh makes them."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


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
            mine = table[(table.kind == kind) & (table.model == model)]
            # Of several batches the largest; the table and the text have all.
            for _, runs in mine[mine.batch == mine.batch.max()].groupby("batch"):
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
    """Where an axis of efficiencies ends: above all points, whatever their intervals."""
    return 1.08 * max(1.0, float(efficiency.max()))


def _ends(table: pd.DataFrame, middle: str, low: str, high: str) -> np.ndarray:
    ends = np.stack([table[middle] - table[low], table[high] - table[middle]])
    return np.clip(np.nan_to_num(ends.astype(float)), 0, None)


def _rank_ticks(axis: object, ranks: pd.Series) -> None:
    values = sorted({int(number) for number in ranks})
    axis.set_xticks(values, [f"{value:,}" for value in values])  # type: ignore[attr-defined]
    axis.minorticks_off()  # type: ignore[attr-defined]


def efficiency_finding(table: pd.DataFrame, left_out: pd.DataFrame) -> str:
    """The paragraph under the efficiencies; it names the runs that were left out."""
    if table.empty:
        text = _NOTHING
    else:
        lines = []
        for (kind, ranks), mine in table[table.ranks > 1].groupby(["kind", "ranks"]):
            order = mine.sort_values("efficiency")
            parts = [
                f"{row.model} (batch {row.batch}) {row.efficiency:.2f}"
                + (
                    f" [{row.efficiency_low:.2f}, {row.efficiency_high:.2f}]"
                    if not np.isnan(row.efficiency_low)
                    else ""
                )
                for row in order.itertuples()
            ]
            lines.append(f"\n- **{kind}, {ranks} ranks**, efficiency: " + ", ".join(parts) + ".")
        text = "".join(lines).lstrip("\n")
        if table.repeats.max() == 1:
            text += "\n\nOne run of each: without repeats there are no intervals."
    counts = left_out.why_not.value_counts()
    if len(counts):
        told = ", ".join(f"{count} ({reason})" for reason, count in counts.items())
        text += f"\n\nFinished runs left out, since their times are no measurement: {told}."
    return text


def time_to_accuracy(table: pd.DataFrame) -> Figure:
    """Seconds to the target accuracy against ranks, a panel a way of growing.

    Args:
        table: of :func:`bnnlib.analysis.scaling.times_to_accuracy`.
    """
    set_style()
    ways = _ways(table)
    figure, axes = subplots(
        1, len(ways), figsize=(5.4 * len(ways), 4.4), sharey=True, layout="constrained"
    )
    names = in_order(table.model)
    for axis, (label, mine) in zip(np.atleast_1d(axes), ways.items(), strict=True):
        for model in names:
            means = mine[mine.model == model].groupby("ranks").seconds
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


def _ways(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of one rank with those that keep the global batch, and with those that scale."""
    one = table[table.ranks == 1]
    more = table[table.ranks > 1]
    batch = one.global_batch.min() if len(one) else more.global_batch.min()
    one = one[one.global_batch == batch]
    found = {}
    for label, rows in (
        ("the same global batch", more[more.global_batch == batch]),
        ("a batch a rank, learning rate in proportion", more[more.global_batch > batch]),
    ):
        if len(rows):
            found[label] = pd.concat([one, rows])
    return found or {"one rank": one}


def time_to_accuracy_finding(table: pd.DataFrame, target: float) -> str:
    """Of :func:`bnnlib.analysis.scaling.times_to_accuracy`."""
    if table.empty:
        return _NOTHING
    missed = table[table.seconds.isna()]
    text = f"Target: {target:g} of the test images right."
    if len(missed):
        shown = ", ".join(dict.fromkeys(f"{r.model} at {r.ranks}" for r in missed.itertuples()))
        text += f" Not reached by {len(missed)} of {len(table)} runs ({shown} rank(s))."
    for label, mine in _ways(table).items():
        parts = []
        for model in in_order(mine.model):
            means = mine[mine.model == model].groupby("ranks")[["seconds", "node_hours"]].mean()
            alone = means.seconds.get(1, np.nan)
            for ranks, row in means.iterrows():
                if ranks > 1 and not np.isnan(row.seconds):
                    parts.append(
                        f"{model} {alone:.2f} s alone, {row.seconds:.2f} s at {ranks} ranks "
                        f"({alone / row.seconds:.2f} times as fast, {row.node_hours:.2g} "
                        "node-hours)"
                    )
        if parts:
            text += f"\n- **{label}**: " + "; ".join(parts) + "."
    return text


_PART_COLOURS = dict(
    zip(PARTS, ("0.75", COLOURS[0], COLOURS[3], COLOURS[1], COLOURS[4], COLOURS[2]), strict=True)
)


def breakdown(table: pd.DataFrame) -> Figure:
    """Where the median step's time goes, a bar a model and number of ranks.

    Args:
        table: of :func:`bnnlib.analysis.scaling.profiles`.
    """
    set_style()
    means = _means_of_ranks(table)
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


def _means_of_ranks(table: pd.DataFrame) -> pd.DataFrame:
    means = table.groupby(["model", "ranks"], sort=False).mean(numeric_only=True).reset_index()
    order = in_order(means.model)
    return means.sort_values(
        ["model", "ranks"], key=lambda c: c.map(order.index) if c.name == "model" else c
    )


def breakdown_finding(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.scaling.profiles`."""
    if table.empty:
        return "These records hold no profile; train with `profile: true`."
    means = _means_of_ranks(table)
    lines = []
    for row in means[means.ranks > 1].itertuples():
        parts = {part: getattr(row, f"{part}_ms") for part in PARTS}
        skew = table[(table.model == row.model) & (table.ranks == row.ranks)].skew_ms.max()
        most = max(
            ("wait", "negotiation", "allreduce"), key=lambda part: np.nan_to_num(parts[part])
        )
        shared = table[(table.model == row.model) & (table.ranks == row.ranks)].cores_shared.any()
        lines.append(
            f"\n- **{row.model}, {row.ranks} ranks**: {row.bytes:,.0f} bytes a step; communication "
            f"is {_percent(row.communication_share)} of the time, most of it {most} "
            f"({parts[most]:.2f} ms of {row.ms:.2f}); the slowest rank computes {skew:.2f} ms "
            f"longer than the fastest. Waiting: {row.wait_ms:.2f} ms, where normal computing times "
            f"of their spread predict {straggler(row.spread_ms, row.ranks):.2f} ms."
            + (" Ranks shared cores." if shared else "")
        )
    for model in in_order(means.model):
        twin = twin_of(model)
        for ranks in sorted(set(means[means.model == model].ranks)):
            both = [means[(means.model == m) & (means.ranks == ranks)] for m in (model, twin)]
            if twin and all(len(one) for one in both):
                mine, other = both[0].iloc[0], both[1].iloc[0]
                lines.append(
                    f"\n- {model} against {twin} at {ranks} rank(s): "
                    f"{mine.bytes / other.bytes:.2f} times the bytes, "
                    f"{mine.compute_ms / other.compute_ms:.2f} times the computing, "
                    f"{mine.ms / other.ms:.2f} times the step."
                )
    return "".join(lines).lstrip("\n")


def ladder(table: pd.DataFrame) -> Figure:
    """Time of an average against its size, with what the fits say.

    Args:
        table: the ladder's rows with columns of :func:`ladder_table`.
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


def ladder_table(rows: pd.DataFrame, fits: list[Fit], networks: list[Network]) -> pd.DataFrame:
    """The ladder with the fits' and the published networks' prediction beside each size."""
    table = rows.copy()
    for one in fits:
        table[f"predicted {one.algorithm}, fitted"] = [
            1e3 * ALGORITHMS[one.algorithm](row.bytes, row.ranks, one.network)
            for row in rows.itertuples()
        ]
    for network in networks:
        table[f"predicted ring, {network.name}"] = [
            1e3 * ALGORITHMS["ring"](row.bytes, row.ranks, network) for row in rows.itertuples()
        ]
    return table


def ladder_finding(fits: list[Fit], networks: list[Network]) -> str:
    """Of the fits of a ladder, and where published numbers come from."""
    lines = [
        f"\n- **{one.algorithm}, fitted**: α = {1e6 * one.network.alpha:.1f} µs a message "
        f"(Horovod's cost of an average is in it), 1/β = "
        f"{1e-9 / one.network.beta if one.network.beta else np.inf:.2f} GB/s; the fit is off by "
        f"a factor of {one.largest_error:.2f} at most."
        for one in fits
    ]
    lines += [
        f"\n- **{network.name}**: α = {1e6 * network.alpha:.1f} µs, 1/β = "
        f"{1e-9 / network.beta:.1f} GB/s. {network.source}."
        for network in networks
    ]
    return "".join(lines).lstrip("\n")


def predicted_steps(table: pd.DataFrame) -> Figure:
    """Predicted against measured step time of more than one rank.

    Args:
        table: a row a model, kind and ranks with ``predicted_ms`` and ``measured_ms``.
    """
    set_style()
    figure, axis = subplots(figsize=(7.5, 4.6), layout="constrained")
    names = in_order(table.model)
    for model in names:
        mine = table[table.model == model]
        style = line(model, names) | {"linestyle": "none"}
        axis.plot(mine.predicted_ms, mine.measured_ms, **style)
    ends = [table[["predicted_ms", "measured_ms"]].min().min() * 0.8]
    ends.append(table[["predicted_ms", "measured_ms"]].max().max() * 1.25)
    axis.plot(ends, ends, color="0.5", linestyle=":", linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="predicted ms a step", ylabel="measured ms a step")
    legend(axis)
    return figure


def predicted_steps_finding(table: pd.DataFrame) -> str:
    """Of the same table: how far off the model is."""
    if table.empty:
        return _NOTHING
    off = table.measured_ms / table.predicted_ms
    worst = table.loc[np.abs(np.log(off)).idxmax()]
    return (
        f"Measured over predicted: {off.min():.2f} to {off.max():.2f}, median {off.median():.2f}; "
        f"furthest off is {worst.model}, {worst.kind}, {worst.ranks} ranks "
        f"({worst.predicted_ms:.2f} ms predicted, {worst.measured_ms:.2f} ms measured)."
    )


def theta(table: pd.DataFrame) -> Figure:
    """Published speed-ups on Theta, and the model's.

    Args:
        table: of :func:`bnnlib.analysis.scaling.theta`.
    """
    set_style()
    figure, axes = subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    for axis, (name, mine) in zip(axes, table.groupby("network", sort=False), strict=True):
        axis.plot(mine.nodes, mine.speedup, color="0.1", marker="o", label="published (by eye)")
        for column, label, colour in (
            ("model", "α-β on Aries, nothing fitted", COLOURS[0]),
            ("refined", "with a time a doubling, from 2 nodes", COLOURS[1]),
        ):
            axis.plot(
                mine.nodes,
                mine[column],
                color=colour,
                linestyle="--",
                marker="o",
                markerfacecolor="white",
                label=label,
            )
        axis.plot(mine.nodes, mine.nodes, color="0.6", linewidth=1, linestyle=":", label="perfect")
        axis.set(xlabel="nodes of Theta")
        axis.set_title(str(name), fontsize=12)
        _rank_ticks(axis, mine.nodes)
    axes[0].set_ylabel("speed-up over one node")
    legend_below(figure, 2)
    return figure


def theta_finding(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.scaling.theta`."""
    lines = []
    for name, mine in table.groupby("network", sort=False):
        tested = mine[mine.nodes > 2]
        extra = ", ".join(f"{row.extra_ms:.0f} ms at {row.nodes}" for row in mine.itertuples())
        lines.append(
            f"\n- **{name}**: α-β alone says {mine.model.iloc[-1]:.2f} at {mine.nodes.iloc[-1]} "
            f"nodes, published is {mine.speedup.iloc[-1]:.1f}, an error of "
            f"{100 * mine.error.iloc[-1]:+.0f} %. What a step takes beyond the model: {extra}. "
            f"A time of {mine.doubling_ms.iloc[0]:.1f} ms a doubling, from the point of two nodes, "
            "leaves errors of "
            + ", ".join(
                f"{100 * row.refined_error:+.1f} % at {row.nodes}" for row in tested.itertuples()
            )
            + " nodes, which it was not fitted to."
        )
    worst = table.error.max()
    lines.append(
        f"\n\nThe model says {100 * worst:.0f} % too much at worst. These networks' bytes take "
        "well under a millisecond on Aries, so what is missing is not bandwidth but waiting and "
        "software (the seed study's own profile shows thousands of allreduces of eight bytes). "
        "Points read by eye carry about 0.1 of speed-up."
    )
    return "".join(lines).lstrip("\n")


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
                mine = table[(table.model == model) & (table.kind == kind)]
                style = line(model, names) | {"markerfacecolor": "white", "markersize": 5}
                drawn = mine[(mine.scenario == scenario) & ~mine.measured]
                axis.plot(drawn.ranks, drawn.efficiency, **style | {"linestyle": "--"})
                points = mine[mine.measured]
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


def predictions_finding(table: pd.DataFrame) -> str:
    """Of the same table."""
    lines = []
    drawn = table[~table.measured & table.possible.astype(bool)]
    for (scenario, kind), mine in drawn.groupby(["scenario", "kind"], sort=False):
        largest = mine[mine.ranks == mine.ranks.max()].set_index("model").efficiency
        half = mine[mine.efficiency >= 0.5].groupby("model").ranks.max()
        reach = (
            f"all models {half.min():,} nodes"
            if half.min() == half.max()
            else f"{half.idxmin()} {half.min():,} nodes, {half.idxmax()} {half.max():,}"
        )
        lines.append(
            f"\n- **{kind}, {scenario}**, predicted at {mine.ranks.max():,} nodes: efficiency "
            f"{largest.min():.2f} ({largest.idxmin()}) to {largest.max():.2f} "
            f"({largest.idxmax()}). With an efficiency of a half or more: {reach}."
        )
    return "".join(lines).lstrip("\n")


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
                    mine = table[
                        (table.model == model)
                        & (table.score == score)
                        & (table.batch == batch)
                        & (table.noise == noise)
                    ]
                    means = mine.groupby("ranks").value.mean()
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
        axis.set_xlabel("ranks (dotted, hollow: shared weight noise)")
    legend_below(figure, 3)
    return figure


def calibration_finding(table: pd.DataFrame) -> str:
    """Of :func:`bnnlib.analysis.scaling.calibration`."""
    if table.empty:
        return _NOTHING
    lines = []
    most = table.ranks.max()
    for batch, mine in table.groupby("batch", sort=False):
        for score in dict.fromkeys(mine.score):
            pairs = mine[(mine.score == score) & (mine.noise == "independent")].pivot_table(
                index="model", columns="ranks", values="value"
            )
            if 1 not in pairs or most not in pairs:
                continue
            change = (pairs[most] - pairs[1]).dropna()
            if change.empty:
                continue
            noise = _binomial(mine, score)
            beyond = "" if noise is None else _beyond(change, noise)
            lines.append(
                f"\n- **fixed {batch} batch, {score}**, from 1 to {most} ranks: "
                f"{_signed(change.min())} ({change.idxmin()}) to {_signed(change.max())} "
                f"({change.idxmax()}).{beyond}"
            )
    both = table[table.ranks > 1].pivot_table(
        index=["model", "ranks", "batch", "score"], columns="noise", values="value"
    )
    if {"independent", "shared"} <= set(both.columns):
        both = both.dropna()
        for score, mine in both.groupby(level="score", sort=False):
            gap = mine.shared - mine.independent
            lines.append(
                f"\n- **shared less independent noise, {score}**: mean {_signed(gap.mean())} over "
                f"{len(gap)} pairs, {int((gap > 0).sum())} of them above 0."
            )
    seeds = table.groupby("model").seed.nunique().max()
    if seeds == 1:
        lines.append(
            "\n\nOne seed: a difference may be the luck of it. Only where many models and numbers "
            "of ranks agree does it say something."
        )
    return "".join(lines).lstrip("\n")


def _binomial(table: pd.DataFrame, score: str) -> float | None:
    """The standard error of a difference of two accuracies on that many images; for no other."""
    if score != "accuracy":
        return None
    accuracy = table[table.score == score].value.mean()
    return float(np.sqrt(2 * accuracy * (1 - accuracy) / table.num_images.max()))


def _beyond(change: pd.Series, error: float) -> str:
    beyond = in_order(change.index[change.abs() > 2 * error])
    what = ", ".join(beyond) if beyond else "no model"
    return f" More than two standard errors of the test images (±{2 * error:.3f}): {what}."


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
