"""Time at thousands of nodes by simulation, beside the cost model and what was measured on Theta.

``jobs/simulation`` simulates training steps with SimGrid's SMPI on a dragonfly of Theta's size and
writes two tables, which this module reads: ``table.csv``, a row a simulation, and
``step_times.csv``, the measured steps that the simulated ones are drawn from.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bnnlib.analysis.scaling.cost_model import (
    ARIES,
    Interconnect,
    allreduce,
    recursive_doubling,
    ring,
)
from bnnlib.analysis.scaling.theta import THETA, THETA_BYTES, theta, theta_waiting
from bnnlib.errors import RecordError

# What SMPI calls them in --cfg=smpi/allreduce:…
SMPI_NAMES = {"recursive doubling": "rdb", "Rabenseifner": "rab_rdb", "ring": "lr"}
# The logs of step times; the first is what a rank of Theta computes, alone.
ALONE, TWO_NODES, HALF_BATCH, HERE = (
    "Theta, 1 node",
    "Theta, 2 nodes",
    "Theta, 2 nodes, batch 64",
    "this machine",
)
# How a simulated rank's computing time varies from step to step.
SPREADS = ("none", "normal", "as measured", "as on this machine")
# Horovod 0.18.1's default, which the original study ran: seconds between two agreements.
CYCLE = 0.005
# A pause this long is the end of an epoch, where all ranks shuffle their images at the same step.
EPOCH_PAUSE_MS = 500.0
# The original study's MPI profiles of two nodes (src/RUN_ScriptBNN/mpi_profile.126414.0 and
# BalsamJobCreation/…/mpi_profile.108902.0 of github.com/Himscipy/bnn_hvd): seconds of the run,
# number and seconds of the allreduces of eight bytes, and of the largest, one a step.
PROFILES = pd.DataFrame(
    [
        ("batch 64, 4,687 steps", 301.427, 58_324, 34.315, 4_687, 508_078, 2.082),
        ("batch 128, 250 steps", 44.219, 8_469, 8.620, 250, 508_160, 0.171),
    ],
    columns=[
        *("run", "seconds", "agreements", "agreement_seconds"),
        *("averages", "bytes", "average_seconds"),
    ],
)
# Milliseconds between two of those small allreduces, of each log's own profile; that of one node is
# BalsamJobCreation/…/mpi_profile.241298.0, 12,091 in 62.748 s.
CYCLES_MS = {ALONE: 62_748 / 12_091, TWO_NODES: 44_219 / 8_469, HALF_BATCH: 301_427 / 58_324}
_TABLE = (
    *("algorithm", "spread", "ranks", "steps", "bytes", "cycle", "seconds", "step_stddev"),
    *("agreements", "agreement_seconds", "average_seconds"),
)


def rabenseifner(num_bytes: float, ranks: int, interconnect: Interconnect) -> float:
    """Seconds of an allreduce by halving and doubling (Thakur et al. 2005, section 4.5).

    A number of ranks that is no power of two takes two messages of all bytes more.
    """
    power = ranks.bit_length() - 1
    size = 2**power
    seconds = 2 * power * interconnect.alpha + 2 * (size - 1) / size * num_bytes * interconnect.beta
    extra = 0 if size == ranks else 2 * (interconnect.alpha + num_bytes * interconnect.beta)
    return seconds + extra


COSTS = {
    "recursive doubling": recursive_doubling,
    "Rabenseifner": rabenseifner,
    "ring": ring,
}


def messages(algorithm: str, ranks: int, num_bytes: int) -> tuple[int, int]:
    """How many messages one average takes between all ranks, and how many bytes they carry.

    The ring's bytes must be divisible by its ranks. Of `ranks` that are no power of two,
    doubling and halving leave out as many as are too many, which give their bytes away before and
    get the mean back after (Thakur et al. 2005, section 4.5).
    """
    if algorithm == "ring":
        return 2 * ranks * (ranks - 1), 2 * (ranks - 1) * num_bytes
    power = ranks.bit_length() - 1
    size = 2**power
    extra = 2 * (ranks - size)
    if algorithm == "recursive doubling":
        return size * power + extra, (size * power + extra) * num_bytes
    return 2 * size * power + extra, (2 * (size - 1) + extra) * num_bytes


def read_table(path: str | Path) -> pd.DataFrame:
    """The simulations of ``table.csv``.

    Raises:
        RecordError: it is missing, or lacks a column.
    """
    return _read(path, _TABLE)


def read_step_times(path: str | Path) -> pd.DataFrame:
    """The measured steps of ``step_times.csv``, each with the pause before it.

    Raises:
        RecordError: it is missing, or lacks a column.
    """
    return _read(path, ("run", "step", "ms", "pause_ms"))


def _read(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: no readable table ({error}); python -m jobs.simulation.run writes it"
        ) from error
    if missing := [name for name in columns if name not in table]:
        raise RecordError(
            f"{path}: no column {', '.join(missing)}; expected those of python -m "
            "jobs.simulation.run, which writes the table anew"
        )
    return table


def intervals(step_times: pd.DataFrame, run: str) -> np.ndarray:
    """Seconds from the end of a step to the end of the next, without the ends of epochs."""
    own = step_times[(step_times.run == run) & (step_times.pause_ms < EPOCH_PAUSE_MS)]
    return (own.ms + own.pause_ms).to_numpy() / 1e3


def quantiles(step_times: pd.DataFrame, spread: str, count: int = 4096) -> np.ndarray:
    """The seconds that a simulated rank draws its computing times from, all equally likely.

    Args:
        step_times: of :func:`read_step_times`.
        spread: one of :data:`SPREADS`. All have the mean of :data:`ALONE`.
        count: of the normal law's quantiles.
    """
    alone = intervals(step_times, ALONE)
    if spread == "none":
        return np.array([alone.mean()])
    if spread == "normal":
        return stats.norm.ppf((np.arange(count) + 0.5) / count, alone.mean(), alone.std(ddof=1))
    if spread == "as measured":
        return np.sort(alone)
    here = intervals(step_times, HERE)
    return np.sort(here) * alone.mean() / here.mean()


def spreads(step_times: pd.DataFrame) -> pd.DataFrame:
    """Whether step times are normal or heavy-tailed: both laws fitted by maximum likelihood.

    Returns:
        A row a run: ``steps``, ``median_ms``, ``mean_ms``, ``stddev_ms``, ``largest_ms``,
        ``freedom``, ``middle`` and ``width`` of the fitted Student's t (of the distance to the
        median in standard deviations; below 4 degrees there is no fourth moment), both laws'
        Akaike criterion, and ``law``, the one with the smaller criterion.
    """
    rows = []
    for run in dict.fromkeys(step_times.run):
        times = 1e3 * intervals(step_times, run)
        scale = times.std(ddof=1)
        freedom, middle, width = stats.t.fit((times - np.median(times)) / scale)
        of_t = stats.t.logpdf((times - np.median(times)) / scale, freedom, middle, width)
        of_t = of_t.sum() - len(times) * math.log(scale)
        of_normal = stats.norm.logpdf(times, times.mean(), times.std()).sum()
        criteria = {"normal": 2 * 2 - 2 * of_normal, "heavy-tailed": 2 * 3 - 2 * of_t}
        rows.append(
            {
                "run": run,
                "steps": len(times),
                "median_ms": np.median(times),
                "mean_ms": times.mean(),
                "stddev_ms": scale,
                "largest_ms": times.max(),
                "freedom": freedom,
                "middle": middle,
                "width": width,
                "normal_aic": criteria["normal"],
                "heavy_tailed_aic": criteria["heavy-tailed"],
                "law": min(criteria, key=lambda name: criteria[name]),
            }
        )
    return pd.DataFrame(rows)


def step_table(simulations: pd.DataFrame, step_times: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds a step by simulation, by the cost model and as measured, by number of nodes.

    Each says how long a step of BNN_conv_flip takes whose computing takes one node as long as the
    original study's log says (:data:`ALONE`).

    Returns:
        A row a ``source`` and number of ``nodes``: ``kind`` (``simulated``, ``model`` or
        ``measured``), ``ms`` with its 95 % interval over steps (``low``, ``high``; of a model, and
        of points read by eye, there is none), ``speedup`` and ``efficiency``.
    """
    alone = float(intervals(step_times, ALONE).mean())
    rows: list[dict[str, Any]] = []

    def add(source: str, kind: str, nodes: int, seconds: float, half: float = math.nan) -> None:
        rows.append(
            {
                "source": source,
                "kind": kind,
                "nodes": nodes,
                "ms": 1e3 * seconds,
                "low": 1e3 * (seconds - half),
                "high": 1e3 * (seconds + half),
                "speedup": nodes * alone / seconds,
                "efficiency": alone / seconds,
            }
        )

    for row in simulations.itertuples():
        half = _half(row.step_stddev, row.steps) if row.spread != "none" else 0.0
        add(source_of(row), "simulated", row.ranks, row.seconds / row.steps, half)
    waiting = theta_waiting(theta())
    for nodes in sorted(set(simulations.ranks)):
        average = allreduce(THETA_BYTES["BNN"], nodes, ARIES)
        add("α-β", "model", nodes, alone + average)
        add(
            "α-β and a wait a doubling",
            "model",
            nodes,
            alone * (1 + waiting * math.log2(nodes)) + average,
        )
    for row in THETA[(THETA.network == "BNN") & (THETA.nodes > 1)].itertuples():
        add("published, by eye", "measured", row.nodes, row.nodes * alone / row.speedup)
    two = intervals(step_times, TWO_NODES)
    add("step log of 2 nodes", "measured", 2, two.mean(), _half(two.std(ddof=1), len(two)))
    return pd.DataFrame(rows)


def source_of(row: object) -> str:
    """What a simulation is called: its algorithm, how the computing varies, Horovod's cycle."""
    values = {name: getattr(row, name) for name in ("algorithm", "spread", "cycle")}
    words = [values["algorithm"]]
    if values["spread"] != "none":
        words.append(f"computing {values['spread']}".replace("computing as", "computing varies as"))
    if values["cycle"]:
        words.append(f"a cycle of {1e3 * values['cycle']:g} ms")
    return ", ".join(words)


def _half(stddev: float, count: int) -> float:
    """Half of the 95 % interval of a mean, by Student's t; NaN of one value."""
    if count < 2:
        return math.nan
    return float(stats.t.ppf(0.975, count - 1)) * stddev / math.sqrt(count)


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """How far each simulation and model is off the measured points.

    Args:
        table: of :func:`step_table`.

    Returns:
        A row a source that is not measured: the relative ``error`` at the step log of two nodes
        and at the published points, one column each, and ``root_mean_square`` of the latter.
    """
    measured = table[table.kind == "measured"]
    published = measured[measured.source == "published, by eye"].set_index("nodes").ms
    log = measured[measured.source != "published, by eye"].ms.iloc[0]
    rows = []
    for source, own in table[table.kind != "measured"].groupby("source", sort=False):
        ms = own.set_index("nodes").ms
        off = ms.reindex(published.index) / published - 1
        row = {"source": source, "kind": own.kind.iloc[0], "step log, 2 nodes": ms[2] / log - 1}
        row |= {f"published, {nodes} nodes": value for nodes, value in off.items()}
        rows.append(row | {"root_mean_square": float(np.sqrt((off**2).mean()))})
    return pd.DataFrame(rows)


def agreements(simulations: pd.DataFrame) -> pd.DataFrame:
    """Horovod's allreduces of eight bytes: in the published profiles, and simulated at two nodes.

    Returns:
        A row a profile or simulation: ``ms_between`` two of them, how many ``a_step``, ``ms_each``,
        ``ms_average`` of the gradients, and ``model_ms`` of that average by α-β.
    """
    simulated = simulations[(simulations.ranks == 2) & (simulations.cycle > 0)]
    return pd.DataFrame(
        [
            *(_counted(f"profile, {row.run}", row, row.averages) for row in PROFILES.itertuples()),
            *(
                _counted(f"simulated, {source_of(row)}", row, row.steps)
                for row in simulated.itertuples()
            ),
        ]
    )


def _counted(run: str, row: Any, averages: int) -> dict[str, Any]:
    """One row of :func:`agreements`; a step has one average."""
    return {
        "run": run,
        "ms_between": 1e3 * row.seconds / row.agreements,
        "a_step": row.agreements / averages,
        "ms_each": 1e3 * row.agreement_seconds / row.agreements,
        "ms_average": 1e3 * row.average_seconds / averages,
        "model_ms": 1e3 * allreduce(row.bytes, 2, ARIES),
    }


def rhythm(step_times: pd.DataFrame) -> pd.DataFrame:
    """Whether Theta's steps last whole numbers of Horovod's cycle: they do if they wait for it.

    Returns:
        A row a log of Theta: ``cycle_ms`` by its own profile, ``steps``, ``cycles`` of the median
        step, and ``on_time``, the share of steps within an eighth of a cycle of a whole number of
        them, which is a quarter where steps do not follow it.
    """
    rows = []
    for run, cycle in CYCLES_MS.items():
        cycles = 1e3 * intervals(step_times, run) / cycle
        rows.append(
            {
                "run": run,
                "cycle_ms": cycle,
                "steps": len(cycles),
                "cycles": float(np.median(cycles)),
                "on_time": float((np.abs(cycles - np.round(cycles)) < 1 / 8).mean()),
            }
        )
    return pd.DataFrame(rows)


def averages(simulations: pd.DataFrame) -> pd.DataFrame:
    """The average alone: simulated, where all ranks come at once, and by each algorithm's formula.

    Returns:
        A row an algorithm and number of ranks: ``simulated_ms``, ``model_ms`` and their ``ratio``.
    """
    own = simulations[(simulations.spread == "none") & (simulations.cycle == 0)]
    table = pd.DataFrame(
        {
            "algorithm": own.algorithm,
            "ranks": own.ranks,
            "simulated_ms": 1e3 * own.average_seconds / own.steps,
            "model_ms": [
                1e3 * COSTS[row.algorithm](row.bytes, row.ranks, ARIES) for row in own.itertuples()
            ],
        }
    )
    return table.assign(ratio=table.simulated_ms / table.model_ms).reset_index(drop=True)


def exceedance(step_times: pd.DataFrame, fitted: pd.DataFrame) -> pd.DataFrame:
    """The share of steps that take longer than so many median steps, measured and by both laws.

    Args:
        step_times: of :func:`read_step_times`.
        fitted: of :func:`spreads`.

    Returns:
        A row a point of a curve: ``run``, ``law`` (``measured``, ``normal`` or ``heavy-tailed``),
        ``over_median`` and ``share``.
    """
    parts = []
    for row in fitted.itertuples():
        times = np.sort(1e3 * intervals(step_times, row.run))
        grid = np.linspace(times.min(), times.max(), 200)
        scaled = (grid - row.median_ms) / row.stddev_ms
        curves = {
            "measured": (times, 1 - (np.arange(len(times)) + 0.5) / len(times)),
            "normal": (grid, stats.norm.sf(grid, row.mean_ms, row.stddev_ms)),
            "heavy-tailed": (grid, stats.t.sf(scaled, row.freedom, row.middle, row.width)),
        }
        parts += [
            pd.DataFrame(
                {"run": row.run, "law": law, "over_median": x / row.median_ms, "share": share}
            )
            for law, (x, share) in curves.items()
        ]
    return pd.concat(parts, ignore_index=True)
