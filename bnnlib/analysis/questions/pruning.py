"""What of a trained network can be removed, and what goes with it?

``pruned.csv`` (:mod:`jobs.local.prune`) has a row a case: a run's network, pruned by one score at
one share and judged as the run was. ``speed.csv`` has the CPU seconds of predicting by some.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions.seeds import over_seeds, paired
from bnnlib.analysis.style import COLOURS, PALETTE, legend_above, plain_log, set_style, subplots

Records = Sequence[Mapping[str, Any]]
STATES = {"ten_epochs": "ten epochs", "converged": "converged"}  # the study's groups
FLIP, NONFLIP, BOTH, TWIN = "BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_flip, both layers", "CNN_FC"
CONV = "BNN_conv_flip"
NETWORKS = (FLIP, NONFLIP, BOTH, TWIN, CONV)
BY = {
    "signal_to_noise": "signal to noise",
    "kl": "KL",
    "magnitude": "|mean|",
    "random": "at random",
}
SCORES = {
    "error": "error (%)",
    "nll": "NLL (nats an image)",
    "ece_debiased": "debiased ECE",
    "auroc_near": "AUROC (near sets)",
}
# What is compared, said before anything was measured.
COMPARED = ("accuracy", "nll", "ece_debiased", "auroc_near")
_CASE = ["network", "state", "scope", "by", "removed", "share"]
# JavierAntoran/Bayesian-Neural-Networks: MNIST, 2,395,210 weights, 100 draws.
PUBLISHED = pd.DataFrame(
    {
        "share": [0, 0.6, 0.8, 0.9, 0.99, 0.995],
        "error_published": [2.66, 2.58, 2.63, 2.66, 2.75, 3.03],
        "nll_published": [0.109, 0.101, 0.095, 0.0945, 0.095, 0.104],
    }
)
# The original study's claim: 80 % removed for 7 points of accuracy.
CLAIMED_SHARE, CLAIMED_LOSS = 0.8, 0.07


def make(
    records: Records, pruned: pd.DataFrame, speed: pd.DataFrame
) -> dict[str, tuple[pd.DataFrame, Any]]:
    """The tables of the question by name, each with what draws it.

    Args:
        records: compact records of the runs that were pruned.
        pruned: of ``pruned.csv``.
        speed: of ``speed.csv``.
    """
    found = cases(records, pruned)
    curves = over_seeds(found, [*_CASE, "score"])
    return {
        "against_share": (curves, draw_against_share),
        "trap": (curves[curves.by.eq("signal_to_noise") & curves.scope.eq("global")], draw_trap),
        "differences": (differences(found), None),
        "published": (beside_published(curves), None),
        "gains": (gains(curves, speed, records), draw_gains),
    }


# --- Tables --------------------------------------------------------------------------------------


def cases(records: Records, pruned: pd.DataFrame) -> pd.DataFrame:
    """Every score of every case.

    Returns:
        Columns ``network``, ``state``, ``scope``, ``by``, ``removed``, ``share``, ``seed``,
        ``score``, ``value``. What was judged unpruned is share 0 of each way of pruning.

    Raises:
        KeyError: a run was pruned that has no record.
    """
    of_runs = {one["run"]: one for one in records}
    whose = pd.DataFrame(
        [
            {
                "run": run,
                "network": _network(of_runs[run]["parameters"]),
                "state": STATES[run.partition("/")[0]],
                "seed": of_runs[run]["parameters"]["seed"],
            }
            for run in dict.fromkeys(pruned.run)
        ],
        columns=["run", "network", "state", "seed"],
    )
    table = pruned.merge(whose, on="run").assign(error=lambda rows: 100 * (1 - rows.accuracy))
    ways = table[table.share > 0][["run", "scope", "by", "removed"]].drop_duplicates()
    whole = table[table.share == 0].drop(columns=["scope", "by", "removed"]).merge(ways, on="run")
    table = pd.concat([whole, table[table.share > 0]], ignore_index=True)
    order = {name: place for place, name in enumerate((*NETWORKS, *STATES.values(), *BY))}
    named = ["network", "state", "by"]
    keys = table[[*_CASE, "seed"]].assign(**{name: table[name].map(order) for name in named})
    table = table.loc[keys.sort_values([*_CASE, "seed"], kind="stable").index]
    kept = [*_CASE, "seed"]
    values = table.columns.drop([*kept, "run", "cpu_seconds"])
    long = table.melt(kept, list(values), "score").dropna(subset="value")
    return long.reset_index(drop=True)


def _network(parameters: Mapping[str, Any]) -> str:
    both = parameters["bayesian_layers"] == "all"
    return f"{parameters['model']}, both layers" if both else str(parameters["model"])


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """What is compared, paired by seed, at each share.

    Returns:
        Columns ``what``, ``network``, ``state``, ``by``, ``share``, ``score``, ``mean``, ``low``,
        ``high``, ``seeds``. ``what`` is `pruned less whole`, `trap less whole`, `trap less zero`,
        `by layer less globally`, or a score of :data:`BY` less signal to noise.
    """
    table = found[found.score.isin((*COMPARED, "of_a_draw"))]
    by = ["network", "state", "by", "share", "score"]
    plain = table[table.scope.eq("global") & table.removed.eq("zero")]
    trap = table[table.scope.eq("global") & table.removed.eq("trap")]
    layer = table[table.scope.eq("layer")]
    snr = plain[plain.by == "signal_to_noise"]
    made = [
        ("pruned less whole", plain, _whole(plain)),
        ("trap less whole", trap, _whole(trap)),
        ("trap less zero", trap, plain),
        ("by layer less globally", layer, plain),
    ]
    for other in ("kl", "magnitude", "random"):
        rows = plain[plain.by == other]
        made.append((f"{other} less signal_to_noise", rows, snr.drop(columns="by")))
    drop = ["scope", "removed"]
    parts = [
        paired(
            one[one.share > 0].drop(columns=drop), other.drop(columns=drop, errors="ignore"), by
        ).assign(what=what)
        for what, one, other in made
    ]
    columns = ["what", *by, "mean", "low", "high", "seeds"]
    parts = [part for part in parts if len(part)] or [pd.DataFrame(columns=columns)]
    return pd.concat(parts, ignore_index=True)[columns]


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of share 0, which stand beside all shares."""
    return table[table.share == 0].drop(columns="share")


def beside_published(curves: pd.DataFrame) -> pd.DataFrame:
    """The published table beside the same shares here, by state: error (%) and NLL."""
    rows = curves[
        matching(curves, network=FLIP, scope="global", by="signal_to_noise", removed="zero")
    ]
    made = PUBLISHED
    for state in STATES.values():
        for score in ("error", "nll"):
            here = rows[(rows.state == state) & (rows.score == score)]
            name = f"{score}_{state.replace(' ', '_')}"
            columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
            here = here[["share", *columns]].rename(columns=columns)
            made = made.merge(here, on="share", how="left")
    return made


def gains(curves: pd.DataFrame, speed: pd.DataFrame, records: Records) -> pd.DataFrame:
    """What is left at each share by signal to noise: weights, units, inputs, bytes, time.

    Returns:
        Columns ``network``, ``state``, ``share``, ``score``, ``mean``, ``low``, ``high``,
        ``seeds``. The scores are those of ``pruned.csv`` and ``time_whole`` and ``time_shrunk``, of
        one seed: CPU seconds over those of the unpruned network, quartiles in the interval's place.
    """
    which = matching(curves, scope="global", by="signal_to_noise", removed="zero")
    rows = curves[which & curves.network.isin((FLIP, CONV))]
    rows = rows[rows.score.isin(("weights", "units", "inputs", "bytes"))]
    columns = ["network", "state", "share", "score", "mean", "low", "high", "seeds"]
    made = [rows[columns]]
    networks = {one["run"]: _network(one["parameters"]) for one in records}
    for run, taken in speed.groupby("run", sort=False):
        if networks.get(str(run)) not in (FLIP, CONV):
            continue
        whole = taken[taken.share == 0]["median"].iloc[0]
        made.append(
            pd.DataFrame(
                {
                    "network": networks[str(run)],
                    "state": STATES[str(run).partition("/")[0]],
                    "share": taken.share,
                    "score": "time_" + taken.way,
                    "mean": taken["median"] / whole,
                    "low": taken.quarter / whole,
                    "high": taken.three_quarters / whole,
                    "seeds": 1,
                }
            )
        )
    return pd.concat(made, ignore_index=True)


def matching(table: pd.DataFrame, **where: str) -> Any:
    """Which rows have these values."""
    parts = [table[name] == value for name, value in where.items()]
    return functools.reduce(lambda one, other: one & other, parts)


# --- Pictures ------------------------------------------------------------------------------------

_LOOKS = {
    "signal_to_noise": {"color": COLOURS[0], "marker": "o"},
    "kl": {"color": COLOURS[1], "marker": "s"},
    "magnitude": {"color": COLOURS[2], "marker": "^"},
    "random": {"color": COLOURS[7], "marker": "X"},
}
_COLOURS = {FLIP: PALETTE["BNN_FC_flip"], NONFLIP: PALETTE["BNN_FC_nonflip"], BOTH: "#770000"}


def draw_against_share(table: pd.DataFrame) -> Figure:
    """Scores of `BNN_FC_flip` against the share removed, a line a score that chose the weights.

    Args:
        table: of means over seeds. Bands are 95 % intervals over seeds; dashed is the twin, whose
            weights of the same layer go by magnitude.
    """
    table = table[matching(table, scope="global", removed="zero")]

    def lines(shown: pd.DataFrame) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
        made = [
            (shown[matching(shown, network=FLIP, by=by)], looks | {"label": BY[by]})
            for by, looks in _LOOKS.items()
        ]
        twin = {
            "color": "black",
            "linestyle": (0, (4, 2)),
            "marker": "D",
            "label": "twin: |weight|",
        }
        return [*made, (shown[matching(shown, network=TWIN, by="magnitude")], twin)]

    return _panels(table, list(SCORES), lines, "weights go by")


def draw_trap(table: pd.DataFrame) -> Figure:
    """Weights that are exactly 0 beside the trap, in which they keep a deviation of 0.69.

    Args:
        table: of means over seeds, by signal to noise. Bands are 95 % intervals over seeds.
    """

    def lines(shown: pd.DataFrame) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
        return [
            (
                shown[matching(shown, network=network, removed=removed)],
                {"color": colour, "label": f"{network}: {words}", **looks},
            )
            for network, colour in _COLOURS.items()
            for removed, words, looks in (
                ("zero", "exactly 0", {"marker": "o"}),
                (
                    "trap",
                    "mean and ρ = 0",
                    {"marker": "s", "linestyle": (0, (4, 2)), "mfc": "white"},
                ),
            )
        ]

    return _panels(table, ["error", "nll", "ece_debiased"], lines, None, columns=2)


def _panels(
    table: pd.DataFrame,
    scores: Sequence[str],
    lines: Callable[[pd.DataFrame], list[tuple[pd.DataFrame, dict[str, Any]]]],
    title: str | None,
    columns: int = 5,
) -> Figure:
    """A row a score and a column a state, against the share removed."""
    set_style()
    figure, axes = subplots(
        len(scores), len(STATES), figsize=(10.5, 2.5 * len(scores) + 1.2), squeeze=False,
        sharex=True, sharey="row", layout="constrained",
    )  # fmt: skip
    for row, score in enumerate(scores):
        for column, state in enumerate(STATES.values()):
            axis = axes[row, column]
            shown = table[(table.state == state) & (table.score == score)]
            for rows, looks in lines(shown):
                rows = rows[np.isfinite(rows["mean"])]
                if rows.empty:
                    continue
                left = 1 - rows.share
                axis.plot(left, rows["mean"], markersize=5, linewidth=1.6, **looks)
                band = {"color": looks["color"], "alpha": 0.18, "linewidth": 0}
                axis.fill_between(left, rows.low, rows.high, **band)
            if score == "ece_debiased":
                _log_from_zero(axis)
            elif score != "auroc_near":
                plain_log(axis, "y")
            _share_axis(axis)
            if row == 0:
                axis.set_title(state, fontsize=12)
            if row == len(scores) - 1:
                axis.set_xlabel("removed, %")
        # By the means: the widest bands are of what nobody would use.
        values = table[(table.score == score) & (table["mean"] > 0)]["mean"]
        if len(values):
            factor = 1.3 if score != "auroc_near" else 1.05
            least = 0 if score == "ece_debiased" else values.min() / factor
            axes[row, 0].set_ylim(least, values.max() * factor)
        axes[row, 0].set_ylabel(SCORES[score].replace(" (", "\n("))
    legend_above(figure, columns=columns, title=title)
    return figure


def _log_from_zero(axis: Any) -> None:
    """Logarithmic above 0.01 and linear below it: an interval may hold 0."""
    axis.set_yscale("symlog", linthresh=0.01, linscale=0.6)
    ticks = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def _share_axis(axis: Any) -> None:
    """The share removed; each step that halves what is left takes the same width."""
    shares = (0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
    axis.set_xscale("log")
    axis.set_xlim(1.15, 0.0043)
    axis.set_xticks([1 - share for share in shares], [f"{100 * share:g}" for share in shares])
    axis.minorticks_off()


def draw_gains(table: pd.DataFrame) -> Figure:
    """Bytes, units, pixels and filters, and time left at each share by signal to noise.

    Args:
        table: of :func:`gains`. Bands are 95 % intervals over seeds; of the time, quartiles.
    """
    set_style()
    figure, axes = subplots(1, 3, figsize=(13, 5), layout="constrained")
    panels = {
        "file (kB)": [(FLIP, "bytes", "dense", COLOURS[0], "o")],
        "left (%)": [
            (FLIP, "units", "dense: units", COLOURS[0], "o"),
            (FLIP, "inputs", "dense: pixels", COLOURS[1], "^"),
            (CONV, "units", "convolution: filters", COLOURS[2], "s"),
        ],
        "CPU time of a prediction\n(%, one seed; band: quartiles)": [
            (FLIP, "time_whole", "dense, zeros left in place", "0.5", "X"),
            (FLIP, "time_shrunk", "dense, units and pixels out", COLOURS[0], "o"),
            (CONV, "time_whole", "convolution, zeros left in place", "0.5", "D"),
            (CONV, "time_shrunk", "convolution, filters out", COLOURS[2], "s"),
        ],
    }
    for axis, (label, shown) in zip(axes, panels.items(), strict=True):
        for network, score, words, colour, marker in shown:
            for state, dashes in (("ten epochs", (0, (4, 2))), ("converged", "-")):
                rows = table[matching(table, network=network, score=score, state=state)]
                if rows.empty:
                    continue
                whole = rows["mean"][rows.share == 0]
                unit = {"file (kB)": 1000.0, "left (%)": whole.max() / 100}.get(label, 0.01)
                left, band = 1 - rows.share, {"color": colour, "alpha": 0.18, "linewidth": 0}
                looks = {"color": colour, "marker": marker, "linestyle": dashes}
                axis.plot(left, rows["mean"] / unit, label=f"{words}, {state}", **looks)
                axis.fill_between(left, rows.low / unit, rows.high / unit, **band)
        _share_axis(axis)
        axis.tick_params(axis="x", labelrotation=60)
        axis.set_xlabel("removed, %")
        axis.set_title(label, fontsize=12)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.25)}
        axis.legend(frameon=False, fontsize=9, handlelength=3.6, **below)
    plain_log(axes[0], "y")
    for axis in axes[1:]:
        axis.set_ylim(0, None)
    return figure
