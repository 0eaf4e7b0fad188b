"""What ranks add, from run records, and a model of what they should add.

A step of R ranks costs

    T(R) = compute(images a rank) + overhead + allreduce(bytes, R) [+ straggler(R)]

with the time of one rank without communication for the first term, Horovod's own cost of an average
for the second, and for the third the α-β model: α seconds a message, β seconds a byte.

- ring: 2 (R-1) α + 2 (R-1)/R n β, which no algorithm beats in bytes (Patarasuk and Yuan 2009,
  theorem 1 and section 4);
- recursive doubling: ceil(log2 R) (α + n β), fewest messages (Thakur, Rabenseifner and Gropp 2005,
  section 4.5).

The time of the additions, their γ, is held in β. ``mpiexec -n 2 python -m bnnlib ladder --out
FILE`` measures the ladder of message sizes that α and β are fitted to.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from bnnlib.analysis import runs as run_tables
from bnnlib.errors import RecordError
from bnnlib.record.logs import read_accuracy, read_steps
from bnnlib.record.profile import read_profile

# --- What was measured ---------------------------------------------------------------------------

# What makes two runs the same measurement; and what one of several ranks is held against.
_SAME = ("model", "dataset", "threads", "accumulate", "compression")


def timings(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs below a folder whose times are measurements, and those whose are not.

    Args:
        path: as for :func:`bnnlib.analysis.runs.load`.

    Returns:
        Both with the columns of :func:`bnnlib.analysis.runs.load` and ``ranks_a_host``,
        ``global_batch`` (images a step of all ranks) and ``why_not``: ranks that share cores (or
        records that do not tell how many there are), and runs that the profile's clock slowed, are
        no measurement of scaling.
    """
    table = run_tables.load(path)
    table = table[table.status == "finished"].copy()
    for name, value in (("accumulate", 1), ("compression", "none"), ("profile", False)):
        # Runs older than the parameter were made with what is its default now.
        table[name] = table[name].fillna(value) if name in table else value
    table["ranks_a_host"] = np.ceil(table.ranks / table.num_hosts.clip(lower=1)).astype(int)
    table["global_batch"] = (table.batch_size * table.accumulate * table.ranks).astype(int)
    shared = table.ranks_a_host * table.threads > table.cores.astype(float)
    reasons = np.select(
        [table.cores.isna(), shared, table.profile.astype(bool)],
        ["cores unknown", "ranks share cores", "profiled"],
        "",
    )
    table["why_not"] = reasons
    good = table.why_not == ""
    return table[good].reset_index(drop=True), table[~good].reset_index(drop=True)


def efficiencies(table: pd.DataFrame) -> pd.DataFrame:
    """Weak and strong scaling against one rank without communication, with 95 % intervals.

    Weak: the same images a rank a step. Strong: the same images a step of all ranks together. The
    interval is over repeats, of the logarithm of the ratio of means (Welch's t, the two variances
    differ); of single runs there is none.

    Args:
        table: of :func:`timings`.

    Returns:
        A row a model, data set, kind (``weak`` or ``strong``), batch of the one rank and number of
        ranks, one rank among them: ``repeats``, ``images_per_second`` of all ranks, ``low`` and
        ``high`` of it, ``step_ms`` (median), ``speedup``, ``efficiency``, ``efficiency_low`` and
        ``efficiency_high``.
    """
    rows: list[dict[str, Any]] = []
    for same, mine in table.groupby(list(_SAME), sort=False):
        for batch, alone in mine[mine.ranks == 1].groupby("global_batch"):
            for kind, column in (("weak", "images_a_rank"), ("strong", "global_batch")):
                others = mine.assign(images_a_rank=mine.global_batch // mine.ranks)
                others = others[(others[column] == batch) & (others.ranks > 1)]
                groups = [(1, alone), *others.groupby("ranks")]
                if len(groups) < 2:
                    continue
                for ranks, runs in groups:
                    ratio, low, high = _ratio(runs.images_per_second, alone.images_per_second)
                    own, own_low, own_high = _ratio(runs.images_per_second, None)
                    rows.append(
                        dict(zip(_SAME, same, strict=True))
                        | {
                            "kind": kind,
                            "batch": int(batch),
                            "ranks": int(ranks),
                            "hosts": int(runs.num_hosts.max()),
                            "repeats": len(runs),
                            "images_per_second": own,
                            "low": own_low,
                            "high": own_high,
                            "step_ms": float(runs.step_ms_p50.median()),
                            "speedup": ratio,
                            "efficiency": ratio / ranks,
                            "efficiency_low": low / ranks if ranks > 1 else 1.0,
                            "efficiency_high": high / ranks if ranks > 1 else 1.0,
                        }
                    )
    return pd.DataFrame(rows, columns=EFFICIENCY_COLUMNS)


EFFICIENCY_COLUMNS = (
    *_SAME,
    *("kind", "batch", "ranks", "hosts", "repeats", "images_per_second", "low", "high", "step_ms"),
    *("speedup", "efficiency", "efficiency_low", "efficiency_high"),
)


def _ratio(values: pd.Series, base: pd.Series | None) -> tuple[float, float, float]:
    """The ratio of geometric means and its 95 % interval; NaN where a side has one value."""
    sides = [np.log(side.to_numpy(float)) for side in (values, base) if side is not None]
    means = [side.mean() for side in sides]
    ratio = means[0] - (means[1] if len(sides) > 1 else 0.0)
    if min(map(len, sides)) < 2:
        return math.exp(ratio), math.nan, math.nan
    parts = [side.var(ddof=1) / len(side) for side in sides]
    variance = sum(parts)
    if variance == 0:
        return math.exp(ratio), math.exp(ratio), math.exp(ratio)
    freedom = variance**2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    return math.exp(ratio), math.exp(ratio - half), math.exp(ratio + half)


def times_to_accuracy(table: pd.DataFrame, target: float) -> pd.DataFrame:
    """Training time until the test accuracy of the posterior's means first reaches `target`.

    The time is that of the steps; evaluation is left out, and the graph's first run counts as so
    many steps of the run's median.

    Args:
        table: of :func:`timings`, runs with `evaluate_every`.
        target: accuracy, 0 to 1.

    Returns:
        A row a run: model, dataset, ranks, global_batch, learning_rate_scaling, run_id,
        ``accuracy`` (the last), ``epochs`` and ``seconds`` to the target and ``node_hours``; NaN
        for a run that does not reach it.
    """
    rows = []
    for run in table.to_dict("records"):
        reached = read_accuracy(run["path"])
        if not reached:
            continue
        lines = read_steps(run["path"])
        counts = np.diff([0, *(line.step for line in lines)])
        times = np.array([line.seconds for line in lines])
        warm = np.array([line.warmup for line in lines])
        if not warm.all():
            times[warm] = counts[warm] * np.median(times[~warm] / counts[~warm])
        ends = dict(zip((line.step for line in lines), np.cumsum(times), strict=True))
        first = next((one for one in reached if one.accuracy >= target), None)
        seconds = math.nan if first is None else float(ends[first.step])
        rows.append(
            {
                key: run[key]
                for key in ("model", "dataset", "ranks", "global_batch", "learning_rate_scaling")
            }
            | {
                "run_id": run["run_id"],
                "accuracy": reached[-1].accuracy,
                "epochs": math.nan if first is None else first.epoch,
                "seconds": seconds,
                "node_hours": seconds * run["num_hosts"] / 3600,
            }
        )
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


ACCURACY_COLUMNS = (
    *("model", "dataset", "ranks", "global_batch", "learning_rate_scaling", "run_id"),
    *("accuracy", "epochs", "seconds", "node_hours"),
)


def profiles(path: str | Path) -> pd.DataFrame:
    """Where a step's time goes, of all profiled runs below a folder, a row a run and rank.

    Returns:
        model, ranks, batch_size, cores_shared (whether ranks shared cores) and the columns of
        :func:`bnnlib.inference.step_clock.summary`; empty without such runs.
    """
    from bnnlib.record import profile

    good, rest = timings(path)
    table = pd.concat([good, rest])
    rows = []
    for run in table[table.profile.astype(bool)].to_dict("records"):
        summary = profile.summary(read_profile(run["path"]))
        shared = not run["ranks_a_host"] * run["threads"] <= run["cores"]
        whose = {
            "model": run["model"],
            "ranks": run["ranks"],
            "batch_size": run["batch_size"],
            "cores_shared": shared,
        }
        rows.append(summary.assign(**whose))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def calibration(path: str | Path) -> pd.DataFrame:
    """Scores of the test set and OOD AUROC of all finished runs below a folder, by ranks.

    Returns:
        A row a run and score, tidy: model, ranks, ``batch`` (``per rank`` where a rank's batch is
        that of the run of one rank, ``global`` where the batch of all ranks is), noise, seed,
        score, value. A run of one rank stands in both batches and both noises.
    """
    runs = run_tables.load(path)
    runs = runs[runs.status == "finished"]
    sets = run_tables.load_evaluation(path).set_index(["run_id", "set"])
    rows = []
    for run in runs.to_dict("records"):
        alone = runs[(runs.model == run["model"]) & (runs.ranks == 1)]
        if alone.empty:
            continue
        own, base = int(run["batch_size"]), int(alone.batch_size.iloc[0])
        kinds = [
            kind
            for kind, holds in (
                ("per rank", own == base),
                ("global", own * run["ranks"] == base),
            )
            if holds
        ]
        noises = [run["noise"]] if run["ranks"] > 1 else ["independent", "shared"]
        scores = {name: run[name] for name in ("accuracy", "nll", "ece")}
        for name in sets.loc[run["run_id"]].query("kind == 'ood'").index:
            scores[f"AUROC {name}"] = sets.loc[(run["run_id"], name)].auroc_entropy
        rows += [
            {
                "model": run["model"],
                "ranks": run["ranks"],
                "batch": kind,
                "noise": noise,
                "seed": run["seed"],
                "num_images": sets.loc[(run["run_id"], "test")].num_images,
                "score": score,
                "value": value,
            }
            for kind in kinds
            for noise in noises
            for score, value in scores.items()
        ]
    columns = ["model", "ranks", "batch", "noise", "seed", "num_images", "score", "value"]
    return pd.DataFrame(rows, columns=columns)


# --- What it should cost -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in the α-β model.

    Attributes:
        name: of the network.
        alpha: seconds a message.
        beta: seconds a byte.
        source: where the numbers come from, and what is only quoted.
    """

    name: str
    alpha: float
    beta: float
    source: str


ARIES = Network(
    "Aries",
    6.74e-6,
    (435.60 - 114.59) / (4194304 - 1048576) * 1e-6,
    "OSU latency tests of Open MPI over uGNI, H. Pritchard 2016. α between two KNL nodes, as "
    "Theta's: 6.74 µs at 8 B, of which 5.4 are the slow cores' (1.33 µs between Broadwells; "
    "github.com/ofi-cray/libfabric-cray/issues/1055). β between Haswell nodes of a Cray XC40, "
    "the slope from 1 to 4 MiB, 9.8 GB/s (gist 6a3acd0c192fcfd082bd543fc98e6fe6). Of Cray's own "
    "MPI no figure was found",
)
SLINGSHOT = Network(
    "Slingshot 11",
    2.86e-6,
    (180.44 - 50.64) / (4194304 - 1048576) * 1e-6,
    "OSU latency test of Cray MPICH 8.1.32 between GPUs of two Grace Hopper nodes of Olivia, "
    "2.86 µs at 8 B, the slope from 1 to 4 MiB, 24.2 GB/s (EESSI/docs at 2eb7040, "
    "docs/blog/posts/2026/05/eessi-cray-slingshot11-part2.md). The CPUs of a node may be quicker",
)
PUBLISHED = (ARIES, SLINGSHOT)


def ring(num_bytes: float, ranks: int, network: Network) -> float:
    """Seconds of a ring allreduce (Patarasuk and Yuan 2009, section 4)."""
    return 2 * (ranks - 1) * network.alpha + 2 * (ranks - 1) / ranks * num_bytes * network.beta


def recursive_doubling(num_bytes: float, ranks: int, network: Network) -> float:
    """Seconds of an allreduce by recursive doubling (Thakur et al. 2005, section 4.5)."""
    return math.ceil(math.log2(ranks)) * (network.alpha + num_bytes * network.beta)


ALGORITHMS: dict[str, Callable[[float, int, Network], float]] = {
    "ring": ring,
    "recursive doubling": recursive_doubling,
}


def allreduce(num_bytes: float, ranks: int, network: Network) -> float:
    """Seconds of the faster algorithm, which MPI libraries choose by size."""
    return min(algorithm(num_bytes, ranks, network) for algorithm in ALGORITHMS.values())


def straggler(stddev: float, ranks: int) -> float:
    """By how much the slowest of `ranks` steps exceeds the mean, for normal times of `stddev`.

    The expectation of the largest of R normal draws, to some per cent by Blom's formula (1958).
    """
    return stddev * float(stats.norm.ppf((ranks - 0.375) / (ranks + 0.25)))


@dataclasses.dataclass(frozen=True)
class Fit:
    """α and β of a ladder, with what the two of them cannot say.

    Attributes:
        network: the fitted one; α holds Horovod's cost of an average too.
        algorithm: a key of :data:`ALGORITHMS`.
        largest_error: of the fitted over the measured time, a factor, 1 for a perfect fit.
    """

    network: Network
    algorithm: str
    largest_error: float


def fit(ladder: pd.DataFrame, algorithm: str, name: str = "measured here") -> Fit:
    """The α and β, neither negative, that make the relative errors of a ladder least.

    Args:
        ladder: rows with ``bytes``, ``ranks`` and ``ms`` (the median).
        algorithm: a key of :data:`ALGORITHMS`.
        name: of the network.

    Raises:
        RecordError: fewer than two sizes, which determine nothing.
    """
    if ladder.bytes.nunique() < 2:
        raise RecordError(
            f"a ladder with {ladder.bytes.nunique()} size(s): α and β need at least two"
        )
    cost = ALGORITHMS[algorithm]
    units = (Network("", 1.0, 0.0, ""), Network("", 0.0, 1.0, ""))
    # Scaled to numbers near 1: a message in microseconds, a byte in nanoseconds.
    scales = np.array([1e-6, 1e-9])
    matrix = np.array(
        [[cost(row.bytes, row.ranks, unit) for unit in units] for row in ladder.itertuples()]
    )
    seconds = ladder.ms.to_numpy() / 1e3
    (alpha, beta), _ = optimize.nnls(matrix * scales / seconds[:, None], np.ones(len(seconds)))
    found = Network(name, alpha * scales[0], beta * scales[1], "fitted")
    ratios = matrix @ np.array([found.alpha, found.beta]) / seconds
    return Fit(found, algorithm, float(np.exp(np.abs(np.log(ratios)).max())))


def compute_term(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Seconds of a step of one rank, linear in its images, by model.

    Args:
        table: of :func:`timings`; its runs of one rank are used.

    Returns:
        By model, seconds at no images and seconds an image, neither negative. With runs of one
        batch size only, the first is 0.
    """
    found = {}
    alone = table[table.ranks == 1]
    for model, mine in alone.groupby("model", sort=False):
        medians = mine.groupby("global_batch").step_ms_p50.median() / 1e3
        batches = medians.index.to_numpy(float)
        if len(medians) == 1:
            found[str(model)] = (0.0, float(medians.iloc[0] / batches[0]))
            continue
        matrix = np.stack([np.ones(len(batches)), batches], axis=1)
        (constant, image), _ = optimize.nnls(
            matrix / medians.to_numpy()[:, None], np.ones(len(medians))
        )
        found[str(model)] = float(constant), float(image)
    return found


def predict(
    model: str,
    compute: tuple[float, float],
    num_bytes: int,
    batch: int,
    ranks: Sequence[int],
    network: Network,
    overhead: float = 0.0,
    waiting: float = 0.0,
) -> pd.DataFrame:
    """Step time and efficiency by the cost model; a prediction, never a measurement.

    Args:
        model: its name, for the table.
        compute: of :func:`compute_term`.
        num_bytes: that a rank gives to the average each step.
        batch: of one rank alone; a rank's own in weak scaling, all ranks' in strong.
        ranks: one a node.
        network: between the nodes.
        overhead: seconds of Horovod's own cost of an average.
        waiting: for the slowest of ever more ranks, where measured points ask for it: share of a
            rank's computing that each doubling of the ranks adds.

    Returns:
        A row a number of ranks, kind and network: ``seconds`` a step, ``images_per_second``,
        ``speedup`` and ``efficiency``.
    """
    rows = []
    alone = compute[0] + compute[1] * batch
    for kind in ("weak", "strong"):
        for size in ranks:
            own = batch if kind == "weak" else batch / size
            computing = seconds = compute[0] + compute[1] * own
            if size > 1:
                seconds += overhead + allreduce(num_bytes, size, network)
                seconds += waiting * computing * math.log2(size)
            speed = own * size / seconds
            speedup = speed / (batch / alone)
            rows.append(
                {
                    "model": model,
                    "network": network.name,
                    "kind": kind,
                    "ranks": size,
                    "seconds": seconds,
                    "images_per_second": speed,
                    "speedup": speedup,
                    "efficiency": speedup / size,
                    # A rank needs an image.
                    "possible": own >= 1,
                }
            )
    return pd.DataFrame(rows)


def gradient_bytes(model: str, dataset: str = "tiny", compression: str = "none") -> int:
    """What a rank of a network gives to the average each step.

    Args:
        model: its name.
        dataset: that gives the images' shape; ``tiny`` has MNIST's, ``tiny_cifar10`` CIFAR-10's.
        compression: as in an experiment.
    """
    from bnnlib import data, networks

    shape = data.load(dataset)
    network = networks.build(model, shape.image_shape, shape.num_classes)
    entries = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
    return (2 if compression == "fp16" else 4) * (entries + 2)  # the nll and the stop ride along


def against_measured(
    table: pd.DataFrame,
    compute: dict[str, tuple[float, float]],
    num_bytes: dict[str, int],
    network: Network,
) -> pd.DataFrame:
    """Predicted and measured step time of every measured point of more than one rank.

    Args:
        table: of :func:`efficiencies`.
        compute: of :func:`compute_term`.
        num_bytes: by model.
        network: fitted to a ladder measured on the same machine.

    Returns:
        A row a point: model, kind, batch, ranks, ``compute_ms``, ``allreduce_ms``,
        ``predicted_ms``, ``measured_ms``, ``difference_ms``.
    """
    rows = []
    for row in table[table.ranks > 1].itertuples():
        if row.model not in compute:
            continue
        constant, image = compute[row.model]
        own = row.batch if row.kind == "weak" else row.batch / row.ranks
        alone = constant + image * own
        average = allreduce(num_bytes[row.model], row.ranks, network)
        measured = 1e3 * own * row.ranks / row.images_per_second
        rows.append(
            {
                "model": row.model,
                "kind": row.kind,
                "batch": row.batch,
                "ranks": row.ranks,
                "compute_ms": 1e3 * alone,
                "allreduce_ms": 1e3 * average,
                "predicted_ms": 1e3 * (alone + average),
                "measured_ms": measured,
                "difference_ms": measured - 1e3 * (alone + average),
            }
        )
    columns = ["model", "kind", "batch", "ranks", "compute_ms", "allreduce_ms"]
    return pd.DataFrame(rows, columns=[*columns, "predicted_ms", "measured_ms", "difference_ms"])


def scenarios(
    measured: pd.DataFrame,
    compute: dict[str, tuple[float, float]],
    num_bytes: dict[str, int],
    batch: int,
    overhead: float,
    waiting: float,
    nodes: Sequence[int],
) -> pd.DataFrame:
    """Predictions on the published networks, with and without waiting; and the measured points.

    Args:
        measured: of :func:`efficiencies`.
        compute: of :func:`compute_term`.
        num_bytes: by model.
        batch: images of one rank alone.
        overhead: seconds of Horovod's own cost of an average.
        waiting: share of a rank's computing that each doubling of the nodes adds, of :func:`theta`.
        nodes: numbers of them.

    Returns:
        The columns of :func:`predict` with ``scenario`` and ``measured``.
    """
    parts = []
    for network in PUBLISHED:
        for share, label in ((0.0, network.name), (waiting, f"{network.name} + waiting")):
            parts += [
                predict(
                    model, own, num_bytes[model], batch, nodes, network, overhead, share
                ).assign(scenario=label, measured=False)
                for model, own in compute.items()
            ]
    points = measured[(measured.ranks > 1) & (measured.batch == batch)]
    shown = ["model", "kind", "ranks", "images_per_second", "speedup", "efficiency"]
    parts.append(points[shown].assign(network="", scenario="", measured=True, possible=True))
    return pd.concat(parts, ignore_index=True)


# The seed study on Theta, read by eye from its README's figures: seconds on one node, and speed-up.
THETA = pd.DataFrame(
    [
        ("BNN", 1, 1.0),
        ("BNN", 2, 1.8),
        ("BNN", 4, 3.3),
        ("BNN", 6, 4.7),
        ("BNN", 8, 6.1),
        ("CNN", 1, 1.0),
        ("CNN", 2, 1.8),
        ("CNN", 4, 3.5),
        ("CNN", 6, 5.1),
        ("CNN", 8, 6.6),
    ],
    columns=["network", "nodes", "speedup"],
)
# Its logs: BNN_conv_flip, 128 images a rank, 1690 images/s on one rank.
THETA_BATCH, THETA_IMAGES_PER_SECOND = 128, 1690.0


def theta(num_bytes: dict[str, int]) -> pd.DataFrame:
    """The cost model held against the seed study's points.

    Args:
        num_bytes: of the gradients of its ``BNN`` and ``CNN``.

    Returns:
        A row a network and number of nodes: ``speedup`` published; ``model``, what α-β on Aries
        says from one node's time alone; ``extra_ms``, what each step takes beyond the model;
        ``refined``, with a time for each doubling of the nodes, fitted to the point of two nodes
        only, so that the points of 4, 6 and 8 nodes test it; and both errors, relative.
    """
    rows = []
    for name, mine in THETA.groupby("network", sort=False):
        # The CNN's own rate was not logged; its time on one node was 2365 s, the BNN's 2275 s.
        alone = THETA_BATCH / THETA_IMAGES_PER_SECOND * {"BNN": 1.0, "CNN": 2365 / 2275}[str(name)]
        two = float(mine[mine.nodes == 2].speedup.iloc[0])
        doubling = alone * (2 / two - 1) - allreduce(num_bytes[str(name)], 2, ARIES)
        for row in mine[mine.nodes > 1].itertuples():
            modelled = alone + allreduce(num_bytes[str(name)], row.nodes, ARIES)
            refined = modelled + doubling * math.log2(row.nodes)
            rows.append(
                {
                    "network": name,
                    "nodes": row.nodes,
                    "speedup": row.speedup,
                    "model": row.nodes * alone / modelled,
                    "refined": row.nodes * alone / refined,
                    "extra_ms": 1e3 * (alone * row.nodes / row.speedup - modelled),
                    "doubling_ms": 1e3 * doubling,
                }
            )
    table = pd.DataFrame(rows)
    table["error"] = table.model / table.speedup - 1
    table["refined_error"] = table.refined / table.speedup - 1
    return table


# --- The ladder ----------------------------------------------------------------------------------


def read_ladder(path: str | Path) -> pd.DataFrame:
    """The rows of a ladder's file.

    Raises:
        RecordError: it is missing or no ladder.
    """
    try:
        return pd.DataFrame(json.loads(Path(path).read_text(encoding="utf-8"))["rows"])[
            ["bytes", "ranks", "ms", "ms_min", "ms_max"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path}: no readable ladder ({error}); measure one with mpiexec -n 2 python -m "
            "bnnlib ladder --out FILE"
        ) from error
