"""The paragraph under each figure of the scaling study, computed from the figure's table.

Each function has the name of its figure's function. No sentence is written in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.scaling.cost_model import Fit, Interconnect, straggler
from bnnlib.analysis.scaling.timings import means_of_ranks, ways_to_grow
from bnnlib.analysis.tables.common import FEWEST_RUNS
from bnnlib.analysis.words import counted, number, percent, signed, signed_between, span
from bnnlib.metrics import Interval
from bnnlib.names import in_order, twin_of
from bnnlib.record.profile import PARTS

_NOTHING = "These records hold no runs for this; jobs/local/scaling.sh makes them."


def efficiency(table: pd.DataFrame, left_out: pd.DataFrame) -> str:
    """The paragraph under the efficiencies; it names the runs that were left out."""
    if table.empty:
        text = _NOTHING
    else:
        lines = []
        for (kind, ranks), selected in table[table.ranks > 1].groupby(["kind", "ranks"]):
            order = selected.sort_values("efficiency")
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
        reasons = ", ".join(f"{count} ({reason})" for reason, count in counts.items())
        text += f"\n\nFinished runs left out, since their times are no measurement: {reasons}."
    return text


def time_to_accuracy(table: pd.DataFrame, target: float) -> str:
    """Time and node-hours to the target, for each way to grow; of `times_to_accuracy`' table."""
    if table.empty:
        return _NOTHING
    missed = table[table.seconds.isna()]
    text = f"Target: {target:g} of the test images right."
    if len(missed):
        shown = ", ".join(
            dict.fromkeys(f"{r.model} at {counted(r.ranks, 'rank')}" for r in missed.itertuples())
        )
        text += f" Not reached by {len(missed)} of {counted(len(table), 'run')} ({shown})."
    for label, selected in ways_to_grow(table).items():
        parts = []
        for model in in_order(selected.model):
            means = (
                selected[selected.model == model].groupby("ranks")[["seconds", "node_hours"]].mean()
            )
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


def breakdown(table: pd.DataFrame) -> str:
    """What part of a step communication takes, and which part of it; of `profiles`' table."""
    if table.empty:
        return "These records hold no profile; train with `profile: true`."
    means = means_of_ranks(table)
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
            f"is {percent(row.communication_share)} of the time, most of it {most} "
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
                row, twin_row = both[0].iloc[0], both[1].iloc[0]
                lines.append(
                    f"\n- {model} against {twin} at {counted(ranks, 'rank')}: "
                    f"{row.bytes / twin_row.bytes:.2f} times the bytes, "
                    f"{row.compute_ms / twin_row.compute_ms:.2f} times the computing, "
                    f"{row.ms / twin_row.ms:.2f} times the step."
                )
    return "".join(lines).lstrip("\n")


def ladder(fits: Sequence[Fit], interconnects: Sequence[Interconnect]) -> str:
    """How well each fit of the ladder holds, and where the published α and β come from."""
    lines = []
    for one in fits:
        alpha, beta = one.interconnect.alpha, one.interconnect.beta
        lines.append(
            f"\n- **{one.interconnect.algorithm}, fitted**: α = {1e6 * alpha:.1f} µs a message "
            f"(Horovod's cost of an average is in it), 1/β = {1e-9 / beta if beta else np.inf:.2f} "
            f"GB/s; the fit is off by a factor of {one.largest_error:.2f} at most."
        )
    lines += [
        f"\n- **{one.name}**: α = {1e6 * one.alpha:.1f} µs, 1/β = {1e-9 / one.beta:.1f} GB/s. "
        f"{one.source}."
        for one in interconnects
    ]
    return "".join(lines).lstrip("\n")


def predicted_steps(table: pd.DataFrame) -> str:
    """How far the cost model is off the measured steps; of `against_measured`' table."""
    if table.empty:
        return _NOTHING
    off = table.measured_ms / table.predicted_ms
    worst = table.loc[np.abs(np.log(off)).idxmax()]
    return (
        f"Measured over predicted: {span(number(off.min(), 2), number(off.max(), 2))}, median "
        f"{off.median():.2f}; "
        f"furthest off is {worst.model}, {worst.kind}, {counted(worst.ranks, 'rank')} "
        f"({worst.predicted_ms:.2f} ms predicted, {worst.measured_ms:.2f} ms measured)."
    )


def theta(table: pd.DataFrame) -> str:
    """How far the cost model is off the published speed-ups; of `theta`'s table."""
    lines = []
    for name, selected in table.groupby("network", sort=False):
        tested = selected[selected.nodes > 2]
        extra = ", ".join(f"{row.extra_ms:.0f} ms at {row.nodes}" for row in selected.itertuples())
        lines.append(
            f"\n- **{name}**: α-β alone says {selected.model.iloc[-1]:.2f} at "
            f"{selected.nodes.iloc[-1]} nodes, published is {selected.speedup.iloc[-1]:.1f}, "
            f"an error of {100 * selected.error.iloc[-1]:+.0f} %. "
            f"What a step takes beyond the model: {extra}. "
            f"A time of {selected.doubling_ms.iloc[0]:.1f} ms a doubling, "
            "from the point of two nodes, leaves errors of "
            + ", ".join(
                f"{100 * row.refined_error:+.1f} % at {row.nodes}" for row in tested.itertuples()
            )
            + " nodes, which it was not fitted to."
        )
    worst = table.error.max()
    lines.append(
        f"\n\nThe model says {100 * worst:.0f} % too much at worst. These networks' bytes take "
        "well under a millisecond on Aries, so what is missing is not bandwidth but waiting and "
        "software (the original study's own profile shows thousands of allreduces of eight bytes). "
        "Points read by eye carry about 0.1 of speed-up."
    )
    return "".join(lines).lstrip("\n")


def predictions(table: pd.DataFrame) -> str:
    """The predicted efficiencies and how far each model scales; of `scenarios`' table."""
    lines = []
    drawn = table[~table.measured & table.possible.astype(bool)]
    for (scenario, kind), selected in drawn.groupby(["scenario", "kind"], sort=False):
        largest = selected[selected.ranks == selected.ranks.max()].set_index("model").efficiency
        half = selected[selected.efficiency >= 0.5].groupby("model").ranks.max()
        reach = (
            f"all models {counted(half.min(), 'node')}"
            if half.min() == half.max()
            else f"{half.idxmin()} {counted(half.min(), 'node')}, {half.idxmax()} {half.max():,}"
        )
        lines.append(
            f"\n- **{kind}, {scenario}**, predicted at "
            f"{counted(selected.ranks.max(), 'node')}: efficiency "
            f"{_range(largest, '{:.2f}'.format)}. With an efficiency of a half or more: {reach}."
        )
    return "".join(lines).lstrip("\n")


def calibration(table: pd.DataFrame) -> str:
    """How each score changes with the ranks and with shared noise; of `calibration`'s table."""
    if table.empty:
        return _NOTHING
    lines = []
    most = table.ranks.max()
    for batch, selected in table.groupby("batch", sort=False):
        for score in dict.fromkeys(selected.score):
            pairs = selected[
                (selected.score == score) & (selected.noise == "independent")
            ].pivot_table(index="model", columns="ranks", values="value")
            if most == 1 or 1 not in pairs or most not in pairs:
                continue
            change = (pairs[most] - pairs[1]).dropna()
            if change.empty:
                continue
            noise = _binomial(selected, score)
            beyond = "" if noise is None else _beyond(change, noise)
            lines.append(
                f"\n- **fixed {batch} batch, {score}**, from 1 to {most} ranks: "
                f"{_range(change, signed)}.{beyond}"
            )
    both = table[table.ranks > 1].pivot_table(
        index=["model", "ranks", "batch", "score"], columns="noise", values="value"
    )
    if {"independent", "shared"} <= set(both.columns):
        both = both.dropna()
        for score, selected in both.groupby(level="score", sort=False):
            gap = selected.shared - selected.independent
            lines.append(
                f"\n- **shared less independent noise, {score}**: mean {_mean(gap)} over "
                f"{counted(len(gap), 'pair')}, {int((gap > 0).sum())} of them above 0."
            )
    seeds = table.groupby("model").seed.nunique().max()
    if seeds == 1:
        lines.append(
            "\n\nOne seed: a difference may be the luck of it. Only where many models and numbers "
            "of ranks agree does it say something."
        )
    return "".join(lines).lstrip("\n")


def _range(values: pd.Series, shown: Callable[[float], str]) -> str:
    """The least and the greatest of the models' values; one where they are written alike."""
    least, most = shown(values.min()), shown(values.max())
    if least == most:
        return least if len(values) > 1 else f"{least} ({values.index[0]})"
    return f"{least} ({values.idxmin()}) to {most} ({values.idxmax()})"


def _mean(values: pd.Series) -> str:
    """The mean of pairs with its 95 % interval over them; of two pairs there is none."""
    middle = float(values.mean())
    interval = metrics.with_seeds(Interval(middle, middle, middle), [values])
    return signed_between(*interval) if len(values) >= FEWEST_RUNS else signed(middle)


def _binomial(table: pd.DataFrame, score: str) -> float | None:
    """The standard error of a difference of two accuracies; None for any other score."""
    if score != "accuracy":
        return None
    accuracy = table[table.score == score].value.mean()
    return float(np.sqrt(2 * accuracy * (1 - accuracy) / table.num_images.max()))


def _beyond(change: pd.Series, error: float) -> str:
    beyond = in_order(change.index[change.abs() > 2 * error])
    what = ", ".join(beyond) if beyond else "no model"
    return f" More than two standard errors of the test images (±{2 * error:.3f}): {what}."
