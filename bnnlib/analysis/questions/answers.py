"""The README's figure: three of the study's questions, a panel each, drawn from their tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from bnnlib.analysis.style import COLOURS, PALETTE, plain_log, set_style, subplots

# The tables below ``figures`` that :func:`table` is given, in its order.
TABLES = (
    "convergence/path.csv",
    "gradient_variance/noise_against_ranks.csv",
    "simulation/simulated.csv",
    "simulation/table.csv",
)
# A mean of fewer simulated steps has no interval: nearly each holds the longest step of the log.
ENOUGH_STEPS = 10
# Of each panel: its question, what its axes are.
PANELS = {
    "calibration": ("Is it calibrated once it is trained?", "epochs", "debiased ECE"),
    "noise": (
        "How many ranks replace Flipout?",
        "ranks that share 64 images",
        "gradient noise over Flipout's",
    ),
    "nodes": (
        "What do thousands of nodes cost?",
        "nodes, one rank each",
        "share of perfect speed-up",
    ),
}


def table(
    path: pd.DataFrame, noise: pd.DataFrame, simulated: pd.DataFrame, simulations: pd.DataFrame
) -> pd.DataFrame:
    """What the three panels show.

    Args:
        path: of :func:`bnnlib.analysis.questions.convergence.path`.
        noise: of ``figures/gradient_variance/noise_against_ranks.csv``.
        simulated: of :func:`bnnlib.analysis.scaling.simulation.step_table`.
        simulations: that it is made of, with how many steps each has.

    Returns:
        Columns ``panel``, ``series``, ``x``, ``value`` and the ends ``low`` and ``high`` of its
        95 % interval, unknown where there is none.
    """
    parts = [*_calibration(path), *noise_of_dense(noise), *_nodes(simulated, simulations)]
    return pd.concat(parts, ignore_index=True)


def _part(panel: str, series: str, rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Rows of one line of a panel; `columns` names or gives ``x``, ``value``, ``low``, ``high``."""
    values = {key: rows[of] if isinstance(of, str) else of for key, of in columns.items()}
    part = pd.DataFrame(values).reindex(columns=["x", "value", "low", "high"])
    return part.assign(panel=panel, series=series)[["panel", "series", "x", "value", "low", "high"]]


def _calibration(path: pd.DataFrame) -> list[pd.DataFrame]:
    rows = path[path.score == "ece_debiased"]
    dense = rows[(rows.model == "BNN_FC_flip") & (rows.prior == "1")]
    twin = rows[rows.model == "CNN_FC"]
    lines = {
        "Bayesian, a long training": dense[dense.group == "converged"],
        "Bayesian, ten epochs of the defaults": dense[dense.group == "ten_epochs"],
        "deterministic twin, a long training": twin[twin.group == "converged"],
        "deterministic twin, ten epochs": twin[twin.group == "ten_epochs"],
    }
    of = {"x": "epoch", "value": "mean", "low": "low", "high": "high"}
    return [_part("calibration", series, own, **of) for series, own in lines.items()]


def noise_of_dense(noise: pd.DataFrame) -> list[pd.DataFrame]:
    """The dense network's gradient noise over Flipout's where ranks share 64 images, by state.

    Args:
        noise: of ``figures/gradient_variance/noise_against_ranks.csv``.
    """
    dense = noise[(noise.network == "BNN_FC") & (noise.bayesian_layers == "first")]
    dense = dense[(dense.noise_streams == "own") & (dense.global_batch == 64)]
    parts = []
    for state, words in (("initial", "before training"), ("converged", "converged")):
        rows = dense[dense.state == state]
        own = rows[rows.estimator == "reparameterization"]
        flipout = rows[(rows.estimator == "flipout") & (rows.ranks == 1)].noise.iloc[0]
        low, high = (own[end] * own.predicted / flipout for end in ("low", "high"))
        given = own.given.astype(bool)  # the law is made of these rows: no interval of a ratio
        ends = {"low": low.mask(given), "high": high.mask(given)}
        parts.append(_part("noise", words, own, x="ranks", value=own.noise / flipout, **ends))
        law = own.predicted / flipout
        parts.append(_part("noise", f"{words}, predicted from one rank", own, x="ranks", value=law))
    return parts


def _nodes(simulated: pd.DataFrame, simulations: pd.DataFrame) -> list[pd.DataFrame]:
    varied = simulations[simulations.spread == "as measured"]
    few = set(varied.ranks[varied.steps < ENOUGH_STEPS])
    lines = {
        "simulated, computing as measured": "recursive doubling, computing varies as measured",
        "simulated, computing does not vary": "recursive doubling",
        "cost model, fitted to two nodes": "α-β and a wait a doubling",
        "measured by the original study": "published, by eye",
    }
    parts = []
    for series, source in lines.items():
        own = simulated[simulated.source == source]
        # The interval is of the time, of which the efficiency is a part.
        ends = {
            "low": (own.efficiency * own.ms / own.high).mask(own.nodes.isin(few)),
            "high": (own.efficiency * own.ms / own.low).mask(own.nodes.isin(few)),
        }
        parts.append(_part("nodes", series, own, x="nodes", value="efficiency", **ends))
    return parts


_LOOKS: dict[str, dict[str, Any]] = {
    "Bayesian, a long training": {"color": PALETTE["BNN_FC_flip"]},
    "Bayesian, ten epochs of the defaults": {"color": PALETTE["BNN_FC_flip"], "linestyle": "--"},
    "deterministic twin, a long training": {"color": "0.45"},
    "deterministic twin, ten epochs": {"color": "0.45", "linestyle": "--"},
    "before training": {"color": COLOURS[0], "marker": "o", "linestyle": "none"},
    "before training, predicted from one rank": {"color": COLOURS[0]},
    "converged": {"color": PALETTE["BNN_FC_flip"], "marker": "s", "linestyle": "none"},
    "converged, predicted from one rank": {"color": PALETTE["BNN_FC_flip"]},
    "simulated, computing as measured": {"color": COLOURS[2]},
    "simulated, computing does not vary": {"color": COLOURS[2], "linestyle": "--"},
    "cost model, fitted to two nodes": {"color": "0.45", "linestyle": ":"},
    "measured by the original study": {
        "color": "black",
        "marker": "s",
        "linestyle": "none",
        "zorder": 4,
    },
}


def draw(table: pd.DataFrame) -> Figure:
    """The three panels, each with its question above it; bands and bars are 95 % intervals.

    Args:
        table: of :func:`table`.
    """
    set_style()
    figure, axes = subplots(1, 3, figsize=(13.5, 5.0), layout="constrained")
    for axis, (panel, (question, across, up)) in zip(axes, PANELS.items(), strict=True):
        for series, own in table[table.panel == panel].groupby("series", sort=False):
            look = {"label": series, "linewidth": 2.2, "markersize": 7} | _LOOKS[str(series)]
            known = own.dropna(subset=["low", "high"])
            if look.get("marker"):
                ends = np.array([known.value - known.low, known.high - known.value])
                at = known[["x", "value"]].to_numpy().T
                axis.errorbar(*at, ends, fmt="none", ecolor=look["color"])
            else:
                band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
                axis.fill_between(known.x, known.low, known.high, **band)
            axis.plot(own.x, own.value, **look)
        if panel == "noise":
            axis.axhline(1.05, color="0.4", linewidth=1.2, linestyle="--", label="within 5 %")
        plain_log(axis, "x")
        axis.set(xlabel=across, ylabel=up)
        axis.set_title(question, fontsize=14, fontweight="bold", pad=12)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=12.5)
    words = "Dense network, MNIST, prior N(0, 1), 5 seeds"
    at = {"transform": axes[0].transAxes, "ha": "right", "va": "top"}
    axes[0].text(0.98, 0.98, words, fontsize=9.5, color="0.3", **at)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(bottom=0.5)
    axes[2].set_ylim(0, 1.05)
    axes[2].yaxis.set_major_formatter(PercentFormatter(1))
    return figure
