"""How many ranks make Flipout needless? Figures and sentences of notebook 06, and all its tables.

The law and the tables are :mod:`bnnlib.analysis.questions.gradient_variance_law`. Predictions are
drawn as lines, measurements as markers with 95 % intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions import gradient_variance_law as law
from bnnlib.analysis.questions import seeds
from bnnlib.analysis.style import PALETTE, legend_above, set_style, subplots
from bnnlib.analysis.words import between, number, percent, side, signed_between, span

PART = {"reparameterization": "nonflip", "flipout": "flip", "local": "local"}
MARKS = {"reparameterization": "v", "flipout": "^", "local": "<"}
NAMES = {
    ("BNN_FC", "first"): "dense, first layer",
    ("BNN_FC", "all"): "dense, all layers",
    ("BNN_conv", "first"): "convolution, first layer",
}
SCORES = ("accuracy", "nll", "ece")
STATES = {
    "initial": "at initialisation",
    "half-way": "half-way",
    "end": "at the end of a short training",
    "converged": "converged",
}


def make(
    records: Sequence[Mapping[str, Any]], variances: pd.DataFrame, bench: pd.DataFrame
) -> dict[str, tuple[pd.DataFrame, Callable[[pd.DataFrame], Figure] | None]]:
    """All tables of the question by name, each with what draws it.

    Args:
        records: compact records of ``jobs/studies/gradient_variance.yaml``.
        variances: ``figures/gradient_variance/variances.csv``.
        bench: ``figures/bench/bench.csv``.
    """
    variances = _in_order(variances)
    return {
        "noise_against_ranks": (law.against_law(variances), noise_against_ranks),
        "needless": (law.needless(variances), needless),
        "across_batches": (law.across_batches(variances), None),
        "per_rank": (law.per_rank(variances), per_rank),
        "one_stream": (law.one_stream(variances), None),
        "parts": (law.parts(variances), None),
        "step_times": (law.step_times(bench), None),
        "equal_time": (equal_time_table(records), equal_time),
    }


def _in_order(variances: pd.DataFrame) -> pd.DataFrame:
    """The cases by network, state, batch, estimator and ranks, whenever each was measured."""
    number = {key: index for index, key in enumerate(NAMES)}
    pairs = zip(variances.network, variances.bayesian_layers, strict=True)
    ordered = variances.assign(
        network_number=[number[pair] for pair in pairs],
        state_number=variances.state.map(law.STATES.index),
        estimator_number=variances.estimator.map(law.ESTIMATORS.index),
        own=variances.noise_streams != "own",
    )
    by = ["network_number", "state_number", "global_batch", "own", "estimator_number", "ranks"]
    return ordered.sort_values(by, kind="stable", ignore_index=True)[list(variances)]


def equal_time_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Reparameterization less Flipout after equal time, paired by seed.

    Args:
        records: compact records, of which those of the group ``equal_time`` count.

    Returns:
        A row a number of virtual ranks and score (accuracy, nll, ece of the test images): `flipout`
        and `reparameterization`, the means; `steps_flipout` and `steps_reparameterization`; and the
        `mean` of the differences with `low` and `high`, its 95 % interval over `seeds` pairs. No
        rows where there are no such records.
    """
    rows = [
        {
            "model": one["parameters"]["model"],
            "virtual_ranks": one["virtual_ranks"],
            "seed": one["parameters"]["seed"],
            "steps": one["parameters"]["steps"],
            "score": score,
            "value": row[score],
        }
        for one in records
        if str(one["run"]).startswith("equal_time/")
        for row in one["evaluation"]
        if row["set"] == "test"
        for score in SCORES
    ]
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    by = ["virtual_ranks", "score"]
    plain, flipout = (
        table[table.model == f"BNN_FC_{name}"].drop(columns="model") for name in ("nonflip", "flip")
    )
    apart = seeds.paired(plain.drop(columns="steps"), flipout.drop(columns="steps"), by)
    apart = apart.set_index(by).sort_index()
    for name, of_one in (("flipout", flipout), ("reparameterization", plain)):
        groups = of_one.groupby(by)
        apart[name], apart[f"steps_{name}"] = groups.value.mean(), groups.steps.first()
    return apart.reset_index()


# --- Figures -------------------------------------------------------------------------------------


def noise_against_ranks(table: pd.DataFrame) -> Figure:
    """The noise at a fixed global batch against the ranks that share it, dense network.

    Args:
        table: of :func:`~bnnlib.analysis.questions.gradient_variance_law.against_law`; its rows of
            64 and 512 images and the first layer are drawn.
    """
    set_style()
    table = table[(table.network == "BNN_FC") & (table.bayesian_layers == "first")]
    batches = [batch for batch in (64, 512) if batch in set(table.global_batch)]
    states = [state for state in law.STATES if state in set(table.state)]
    figure, axes = subplots(
        len(batches), len(states), figsize=(3.1 * len(states) + 0.6, 3.1 * len(batches) + 0.8),
        sharex=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for row, batch in enumerate(batches):
        for column, state in enumerate(states):
            axis = axes[row, column]
            shown = table[(table.global_batch == batch) & (table.state == state)]
            for streams in ("own", "one"):
                for estimator in law.ESTIMATORS:
                    _against_ranks(axis, shown, estimator, streams)
            _rank_axis(axis, 512 if 512 in batches else 64)
            axis.set_ylim(0, None)
            axis.set_visible(len(shown) > 0)
            if row == 0:
                axis.set_title(_wrapped(STATES[state]), fontsize=12)
            if column == 0:
                axis.set_ylabel(f"noise, {batch} images a step")
            if row == len(batches) - 1:
                axis.set_xlabel("ranks")
    legend_above(figure, columns=3, title="markers: measured; lines: predicted from one rank")
    return figure


def _wrapped(text: str) -> str:
    return text.replace(" of a ", " of\na ")


def _against_ranks(axis: Any, shown: pd.DataFrame, estimator: str, streams: str) -> None:
    rows = shown[(shown.estimator == estimator) & (shown.noise_streams == streams)]
    if rows.empty:
        return
    rows = rows.sort_values("ranks")
    colour, shared = PALETTE[f"BNN_FC_{PART[estimator]}"], streams == "one"
    predicted, low, noise, high, at = (
        rows[name].to_numpy(float) for name in ("predicted", "low", "noise", "high", "ranks")
    )
    axis.errorbar(
        at, noise, yerr=[noise - predicted * low, predicted * high - noise], color=colour,
        marker="o" if shared else MARKS[estimator], markersize=6, linestyle="none", capsize=2,
        markerfacecolor="white" if shared else colour,
        label=f"{estimator}, {'one stream for all' if shared else 'a stream a rank'}",
    )  # fmt: skip
    start = shown[shown.given].set_index("estimator").noise
    first = start["local" if estimator == "local" else "flipout"]
    batch = int(rows.global_batch.iloc[0])
    ranks = 2 ** np.arange(0, math.log2(batch) + 0.01, 0.25)
    factors = [law.weights_of_law(estimator, streams, batch, number) for number in ranks]
    curve = [a * first + b * start["reparameterization"] for a, b in factors]
    axis.plot(ranks, curve, color=colour, linewidth=1.3, linestyle=":" if shared else "--")


def _rank_axis(axis: Any, most: int) -> None:
    axis.set_xscale("log", base=2)
    ticks = [1, 8, 64, 512] if most > 64 else [1, 4, 16, 64]
    axis.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(0.75, most * 1.4)


def needless(table: pd.DataFrame) -> Figure:
    """The ranks from which on reparameterization is as good as Flipout, of every place.

    Args:
        table: of :func:`~bnnlib.analysis.questions.gradient_variance_law.needless`; its rows of 64
            and 512 images are drawn.
    """
    set_style()
    table = table[table.global_batch.isin((64, 512))]
    batches = sorted(table.global_batch.unique())
    keys = [
        (*name, state)
        for name in NAMES
        for state in law.STATES
        if ((table[["network", "bayesian_layers", "state"]] == [*name, state]).all(axis=1)).any()
    ]
    figure, axes = subplots(
        1, len(batches), figsize=(11, 0.42 * len(keys) + 2.1), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, batch in zip(axes[0], batches, strict=True):
        rows = table[table.global_batch == batch].set_index(law.PLACE)
        for name, label, shift, colour, face in (
            ("ranks", "noise of the weights alone", -0.15, "#0072B2", "#0072B2"),
            ("ranks_in_all", "noise and images together", 0.15, "#555555", "white"),
        ):
            found = [(index, rows.loc[key]) for index, key in enumerate(keys) if key in rows.index]
            places = np.array([index + shift for index, _ in found])
            values = np.array(
                [one[[name, f"{name}_low", f"{name}_high"]] for _, one in found], float
            )
            ends = np.clip([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0, None)
            axis.errorbar(
                values[:, 0], places, xerr=ends, color=colour, marker="o", markersize=6,
                markerfacecolor=face, linestyle="none", capsize=2, label=label,
            )  # fmt: skip
        _rank_axis(axis, batch)
        axis.set_title(f"{batch} images a step of all ranks", fontsize=12)
        axis.set_xlabel("ranks from which on it is within 5 %")
    labels = [f"{NAMES[key[0], key[1]]}, {key[2]}" for key in keys]
    axes[0, 0].set_yticks(range(len(keys)), labels)
    axes[0, 0].invert_yaxis()
    legend_above(figure, columns=2)
    return figure


def per_rank(table: pd.DataFrame) -> Figure:
    """Reparameterization's noise over Flipout's where every rank keeps its 64 images.

    Args:
        table: of :func:`~bnnlib.analysis.questions.gradient_variance_law.per_rank`.
    """
    set_style()
    figure, axis = subplots(figsize=(7.5, 4.2), layout="constrained")
    looks = {
        ("BNN_FC", "first"): ("#C44601", "^"),
        ("BNN_FC", "all"): ("#770000", "D"),
        ("BNN_conv", "first"): ("#0072B2", "o"),
    }
    table = table[table.state.isin(("initial", "end"))]
    groups = table.groupby(law.PLACE, sort=False)
    for shift, (key, rows) in zip(np.linspace(0.92, 1.08, len(groups)), groups, strict=True):
        (colour, marker), state = looks[key[0], key[1]], key[2]
        rows = rows.sort_values("ranks")
        axis.errorbar(
            shift * rows.ranks, rows.ratio, yerr=[rows.ratio - rows.low, rows.high - rows.ratio],
            color=colour, marker=marker, markersize=6, linestyle="none", capsize=2,
            markerfacecolor=colour if state == "initial" else "white",
            label=f"{NAMES[key[0], key[1]]}, {STATES[state].removesuffix(' of a short training')}",
        )  # fmt: skip
        axis.axhline(rows.predicted.iloc[0], color=colour, linewidth=1, linestyle="--")
    axis.axhline(1, color="0.4", linewidth=1)
    _rank_axis(axis, int(table.ranks.max()))
    axis.set_xlabel("ranks, of 64 images each")
    axis.set_ylabel("noise of reparameterization\nover Flipout's")
    axis.set_ylim(0, None)
    legend_above(figure, columns=2, title="markers: measured; dashed: as on one rank")
    return figure


def equal_time(table: pd.DataFrame) -> Figure:
    """Reparameterization less Flipout after equal time, by virtual ranks.

    Args:
        table: of :func:`equal_time_table`.
    """
    set_style()
    shown = {"accuracy": "accuracy", "nll": "NLL, nats an image", "ece": "ECE"}
    figure, axes = subplots(1, len(shown), figsize=(11, 3.6), layout="constrained")
    for axis, (score, label) in zip(axes, shown.items(), strict=True):
        rows = table[table.score == score].sort_values("virtual_ranks")
        places = np.arange(len(rows))
        axis.errorbar(
            places, rows["mean"], yerr=[rows["mean"] - rows.low, rows.high - rows["mean"]],
            color="#0072B2", marker="o", linestyle="none", capsize=3,
        )  # fmt: skip
        axis.axhline(0, color="0.4", linewidth=1)
        axis.set_xticks(places, [f"{ranks}" for ranks in rows.virtual_ranks])
        axis.set_xlim(-0.6, len(rows) - 0.4)
        axis.set_xlabel("virtual ranks")
        axis.set_title(label, fontsize=12)
    axes[0].set_ylabel("reparameterization\nless Flipout")
    return figure


# --- Sentences -----------------------------------------------------------------------------------


def of_law(table: pd.DataFrame) -> str:
    """What the measurements say of the law's predictions."""
    own, one = (table[table.noise_streams == streams] for streams in ("own", "one"))
    text = f"Reparameterization, Flipout and local with a stream a rank: {_agreement(own)}"
    if len(one):
        text += f" One stream for all ranks: {_agreement(one)}"
    return text


def _agreement(rows: pd.DataFrame) -> str:
    found = law.agreement(rows)
    return (
        f"of {found['rows']} predictions, {found['inside']} lie in the measured 95 % interval; "
        f"measured over predicted has the median {number(found['median'], 2)}, and nine in ten "
        f"lie between {number(found['low'], 2)} and {number(found['high'], 2)}."
    )


def of_needless(table: pd.DataFrame) -> str:
    """From how many ranks on Flipout is needless, a line a network and global batch."""
    lines = []
    for (network, layers, batch), rows in table.groupby(
        ["network", "bayesian_layers", "global_batch"], sort=False
    ):
        if batch not in (64, 512):
            continue
        said = [
            f"{row.state} {_ranks(row.ranks, row.ranks_low, row.ranks_high)} "
            f"({_ranks(row.ranks_in_all, row.ranks_in_all_low, row.ranks_in_all_high)} with the "
            "images)"
            for row in rows.itertuples()
        ]
        lines.append(f"- **{NAMES[network, layers]}, {batch} images a step**: {'; '.join(said)}")
    return "\n".join(lines)


def _ranks(value: float, low: float, high: float) -> str:
    """Ranks with their interval, each rounded up: a part of a rank is a whole one."""
    whole = [f"{math.ceil(one - 1e-9):,}" for one in (value, low, high)]
    return f"{whole[0]} [{whole[1]}, {whole[2]}]"


def of_images(table: pd.DataFrame) -> str:
    """What Flipout on one rank saves of the whole variance, noise and images."""
    said = []
    for row in table.itertuples():
        if row.global_batch in (64, 512) and (row.network, row.bayesian_layers) == (
            "BNN_FC",
            "first",
        ):
            share = (row.excess - 1) * row.flipout / (row.excess * row.flipout + row.image)
            said.append(f"{percent(share)} {row.state} at {row.global_batch} images")
    return (
        "On one rank, Flipout takes from the whole variance of the dense network's gradient "
        + ", ".join(said)
        + "."
    )


def of_one_stream(table: pd.DataFrame) -> str:
    """What one noise for all ranks costs, beside a stream for each."""
    lines = []
    for (estimator, batch, ranks), rows in table.groupby(
        ["estimator", "global_batch", "ranks"], sort=False
    ):
        said = [
            f"{between(row.ratio, row.low, row.high, 2)} {row.state}" for row in rows.itertuples()
        ]
        lines.append(f"- **{estimator}, {ranks} ranks, {batch} images a step**: {', '.join(said)}")
    return (
        "The noise with one stream for all ranks over that with a stream a rank:\n\n"
        + "\n".join(sorted(lines))
    )


def of_batches(table: pd.DataFrame) -> str:
    """Whether the law's two numbers are the same at 512 images as at 64."""
    lines = [
        f"- **{NAMES[row.network, row.bayesian_layers]}, {row.state}**: v "
        f"{between(row.v, row.v_low, row.v_high, 2)}, c {between(row.c, row.c_low, row.c_high, 2)}"
        for row in table.itertuples()
    ]
    return "At 512 images a step over at 64, predicted 1:\n\n" + "\n".join(lines)


def of_per_rank(table: pd.DataFrame) -> str:
    """Whether the ratio changes with the ranks where each keeps its batch."""
    lines = []
    for key, rows in table.groupby(law.PLACE, sort=False):
        network, layers, state = key
        one, more = rows[rows.ranks == 1].iloc[0], rows[rows.ranks > 1]
        inside = int(((more.low <= one.high) & (more.high >= one.low)).sum())
        ratios = span(number(more.ratio.min(), 2), number(more.ratio.max(), 2))
        lines.append(
            f"- **{NAMES[network, layers]}, {state}**: {between(one.ratio, one.low, one.high, 2)} "
            f"on one rank, {ratios} on {span(str(more.ranks.min()), str(more.ranks.max()))}; "
            f"{inside} of {len(more)} intervals overlap with one rank's"
        )
    return "\n".join(lines)


def of_step_times(table: pd.DataFrame) -> str:
    """What Flipout's second product costs."""
    said = [
        f"{row.model} {between(row.ratio, row.low, row.high, 2)} times {row.against}'s"
        for row in table.itertuples()
    ]
    return "A step with Flipout takes, in the benchmark: " + "; ".join(said) + "."


def of_equal_time(table: pd.DataFrame) -> str:
    """Which estimator is better after equal time, with intervals over seeds."""
    if table.empty:
        return (
            "No run of equal time is here: `make reproduce QUESTION=gradient_variance` makes them."
        )
    words = {1: "above 0", -1: "below 0", 0: "no difference shown"}
    lines = []
    for ranks, rows in table.groupby("virtual_ranks"):
        said = [
            f"{row.score} {signed_between(row.mean, row.low, row.high)} "
            f"({words[side(row.low, row.high)]})"
            for row in rows.itertuples()
        ]
        first = rows.iloc[0]
        lines.append(
            f"- **{ranks} virtual rank{'s' if ranks > 1 else ''}** "
            f"({int(first.steps_reparameterization):,} steps less {int(first.steps_flipout):,} of "
            f"Flipout, {int(first.seeds)} pairs of seeds): {'; '.join(said)}"
        )
    return "\n".join(lines)
