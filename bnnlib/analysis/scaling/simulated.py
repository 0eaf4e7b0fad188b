"""Figures of :mod:`bnnlib.analysis.scaling.simulation`'s tables, and the sentences under them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bnnlib.analysis.scaling import simulation
from bnnlib.analysis.style import COLOURS, legend_below, plain_log, set_style, subplots
from bnnlib.analysis.words import between, counted, number, percent

_MODEL, _SIMULATED, _MEASURED = "model", "simulated", "measured"


def spread(table: pd.DataFrame) -> Figure:
    """How much longer than their median steps take: measured, and by both fitted laws.

    Args:
        table: of :func:`bnnlib.analysis.scaling.simulation.exceedance`.
    """
    set_style()
    runs = list(dict.fromkeys(table.run))
    figure, axes = subplots(
        1, len(runs), figsize=(3.4 * len(runs), 3.8), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    looks = {
        "measured": {"color": "0.1", "marker": ".", "linestyle": "none", "markersize": 4},
        "normal": {"color": COLOURS[0], "linestyle": "--", "linewidth": 1.8},
        "heavy-tailed": {"color": COLOURS[1], "linestyle": "-", "linewidth": 1.8},
    }
    for axis, run in zip(axes[0], runs, strict=True):
        for law, look in looks.items():
            own = table[(table.run == run) & (table.law == law)]
            axis.plot(own.over_median, own.share, label=law, **look)
        axis.set(yscale="log", ylim=(0.5 / 1000, 1.2), xlabel="step over median step")
        axis.set_title(run, fontsize=11)
        axis.set_xlim(0.9, max(1.15, 1.03 * table[table.run == run].over_median.max()))
    axes[0, 0].set_ylabel("share of steps that take longer")
    legend_below(figure, 3)
    return figure


def step_times(table: pd.DataFrame) -> Figure:
    """Milliseconds a step against nodes: the measured points' range, and to thousands of nodes.

    Args:
        table: of :func:`bnnlib.analysis.scaling.simulation.step_table`.
    """
    set_style()
    figure, axes = subplots(1, 2, figsize=(11.5, 6.2), layout="constrained")
    measured = table[table.kind == _MEASURED]
    few = measured.nodes.max()
    sources = [s for s in dict.fromkeys(table.source) if s not in set(measured.source)]
    for axis, most in zip(axes, (few, table.nodes.max()), strict=True):
        for number_of, source in enumerate(sources):
            own = table[(table.source == source) & (table.nodes <= most)]
            model = own.kind.eq(_MODEL).all()
            colour = "0.45" if model else COLOURS[number_of % len(COLOURS)]
            dash = (":" if "doubling" in source.split()[-1] else "--") if model else "-"
            look = {"color": colour, "linestyle": dash, "label": source, "linewidth": 1.6}
            look |= {"marker": "" if model else "o", "markersize": 4, "markerfacecolor": "white"}
            axis.errorbar(own.nodes, own.ms, _bars(own), capsize=0, elinewidth=0.8, **look)
        for source, marker in zip(dict.fromkeys(measured.source), ("s", "D"), strict=False):
            own = measured[measured.source == source]
            look = {"color": "0.1", "linestyle": "none", "marker": marker, "label": source}
            axis.errorbar(own.nodes, own.ms, _bars(own), capsize=0, markersize=7, zorder=5, **look)
        axis.set_xlabel("nodes, one rank each")
    axes[0].set_title("The measured points", fontsize=12)
    axes[1].set_title("PREDICTION beyond them", fontsize=12)
    axes[0].set_xticks(sorted(measured.nodes.unique()))
    axes[0].set_ylabel("milliseconds a step")
    plain_log(axes[1], "x")
    axes[1].xaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, 2)
    return figure


def _bars(rows: pd.DataFrame) -> np.ndarray | None:
    ends = np.array([rows.ms - rows.low, rows.high - rows.ms])
    return None if np.isnan(ends).all() else np.nan_to_num(ends)


def spreads(table: pd.DataFrame) -> str:
    """Which law fits each log of step times; of `spreads`' table."""
    lines = []
    for row in table.itertuples():
        better = abs(row.normal_aic - row.heavy_tailed_aic)
        lines.append(
            f"\n- **{row.run}**, {counted(row.steps, 'step')}: median "
            f"{number(row.median_ms, 2)} ms, standard deviation {number(row.stddev_ms, 2)} ms, "
            f"the longest {number(row.largest_ms, 1)} ms. The **{row.law}** law fits better, by "
            f"{number(better, 0)} of Akaike's criterion (Student's t with "
            f"{number(row.freedom, 1)} degrees of freedom)."
        )
    return "".join(lines).lstrip("\n")


def averages(table: pd.DataFrame) -> str:
    """How far the network's part of the simulation is off the formulas; of `averages`' table."""
    lines = []
    for algorithm, own in table.groupby("algorithm", sort=False):
        last = own.iloc[-1]
        lines.append(
            f"\n- **{algorithm}**: the simulation takes {number(own.ratio.min(), 2)} to "
            f"{number(own.ratio.max(), 2)} times the formula's time; at "
            f"{counted(int(last.ranks), 'rank')} {number(last.simulated_ms, 2)} ms against "
            f"{number(last.model_ms, 2)}."
        )
    return "".join(lines).lstrip("\n")


def agreements(table: pd.DataFrame) -> str:
    """What the published profile's small allreduces are; of `agreements`' table."""
    published = table[table.run.str.startswith("profile")]
    own = table[~table.run.str.startswith("profile")]
    each = ", ".join(f"{number(value, 2)} ms" for value in published.ms_between)
    text = (
        f"The published profiles have one allreduce of eight bytes every {each}: the cycle of "
        f"Horovod's background thread ({1e3 * simulation.CYCLE:g} ms), which runs all the time, "
        "also while the ranks compute. There are "
        f"{' and '.join(number(value, 1) for value in published.a_step)} of them a step, of which "
        "it waits for the last one only."
    )
    if len(own):
        text += (
            f" Simulated, there is one every {number(own.ms_between.max(), 2)} ms; each takes "
            f"{number(own.ms_each.min(), 3)} ms, where the profiles say "
            + " and ".join(number(value, 2) for value in published.ms_each)
            + " ms. What they have more is no network's time: the threads do not wake together."
        )
    slow = published.ms_average / published.model_ms
    return text + (
        f" The average of the gradients itself takes {number(published.ms_average.min(), 2)} to "
        f"{number(published.ms_average.max(), 2)} ms in the profiles, {number(slow.min(), 0)} to "
        f"{number(slow.max(), 0)} times what α-β says"
        + (f" and the simulation ({number(own.ms_average.min(), 3)} ms)" if len(own) else "")
        + "."
    )


def rhythm(table: pd.DataFrame) -> str:
    """Whether steps last whole numbers of Horovod's cycle; of `rhythm`'s table."""
    return "Within an eighth of a cycle of a whole number of cycles (a quarter by chance): " + (
        "; ".join(
            f"**{row.run}** {percent(row.on_time)} of {counted(row.steps, 'step')}, whose median "
            f"is {number(row.cycles, 2)} cycles of {number(row.cycle_ms, 2)} ms"
            for row in table.itertuples()
        )
        + "."
    )


def step_findings(table: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Where the two disagree, and which the measured points favour."""
    most = int(table[table.kind == _SIMULATED].nodes.max())
    log = table[(table.kind == _MEASURED) & ~table.source.str.startswith("published")].iloc[0]
    text = _network_alone(table) + "\n\n"
    text += (
        f"**Two nodes.** The original study's log has {between(log.ms, log.low, log.high, 2)} ms a "
        "step (mean, 95 % over steps). "
    )
    near = errors.reindex(errors["step log, 2 nodes"].abs().sort_values().index)
    text += (
        "Off it are "
        + "; ".join(
            f"{row.source} by {_signed_percent(row[1])}"
            for row in near[["source", "step log, 2 nodes"]].itertuples(index=False)
        )
        + "."
    )
    best = errors.loc[errors.root_mean_square.idxmin()]
    rest = errors[errors.kind != best.kind]
    next_best = rest.loc[rest.root_mean_square.idxmin()]
    fitted = (
        ", which was fitted to the first of them"
        if "doubling" in best.source.split()[-1] and (best.kind == _MODEL)
        else ""
    )
    text += (
        f"\n\n**The published points** ({_listed(table)} nodes) are met best by {best.source} "
        f"({percent(best.root_mean_square, 1)} root mean square error){fitted}; the best "
        f"{'simulation' if next_best.kind == _SIMULATED else 'model'} is {next_best.source} "
        f"({percent(next_best.root_mean_square, 1)})."
    )
    last = table[(table.nodes == most) & (table.kind != _MEASURED)].sort_values("efficiency")
    text += (
        f"\n\n**At {most:,} nodes** the predicted efficiencies are "
        + ", ".join(f"{number(row.efficiency, 2)} ({row.source})" for row in last.itertuples())
        + ". No point is measured there."
    )
    return text


def _network_alone(table: pd.DataFrame) -> str:
    """Whether the measured points can tell the model's network from the simulation's."""
    ms = table.pivot_table(index="nodes", columns="source", values="ms", sort=False)
    apart = (ms["recursive doubling"] / ms["α-β"] - 1).abs().sort_index()
    measured = table[table.kind == _MEASURED]
    longer = measured.ms.to_numpy() / ms["α-β"].reindex(measured.nodes).to_numpy() - 1
    near = apart[apart.index <= measured.nodes.max()].max()
    text = (
        f"**The network alone.** Where the computing does not vary, the simulation and α-β differ "
        f"by at most {percent(near, 1)} of a step on the nodes that were measured, and by "
        f"{percent(apart.iloc[-1], 1)} on {apart.index[-1]:,}. Measured steps are "
        f"{percent(longer.min())} to {percent(longer.max())} longer than α-β says: "
    )
    if longer.min() > near:
        return text + "they favour neither; what both lack is not in the network."
    return text + "they are near enough to tell."


def _listed(table: pd.DataFrame) -> str:
    nodes = [str(n) for n in table[table.source.str.startswith("published")].nodes]
    return ", ".join(nodes[:-1]) + f" and {nodes[-1]}" if len(nodes) > 1 else "".join(nodes)


def _signed_percent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")
