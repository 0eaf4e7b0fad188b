"""What a step of several ranks should cost, and α and β of what joins them.

A step of R ranks costs

    T(R) = compute(images a rank) + overhead + allreduce(bytes, R) [+ straggler(R)]

with the time of one rank without communication for the first term, Horovod's own cost of an average
for the second, and for the third the α-β model: α seconds a message, β seconds a byte.

- ring: 2 (R-1) α + 2 (R-1)/R n β, which no algorithm beats in bytes (Patarasuk and Yuan 2009,
  theorem 1 and section 4);
- recursive doubling: ceil(log2 R) (α + n β), fewest messages (Thakur, Rabenseifner and Gropp 2005,
  section 4.5).

β includes the time of the additions (γ in the literature).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import optimize, stats

from bnnlib.errors import RecordError


@dataclasses.dataclass(frozen=True)
class Interconnect:
    """What joins the ranks, in the α-β model.

    Attributes:
        name: of the interconnect.
        alpha: seconds a message.
        beta: seconds a byte.
        source: where the numbers come from, and what is only quoted.
        algorithm: the key of :data:`ALGORITHMS` that α and β were fitted under, and hold for; empty
            where they were measured between two points.
    """

    name: str
    alpha: float
    beta: float
    source: str
    algorithm: str = ""


ARIES = Interconnect(
    "Aries",
    6.74e-6,
    (435.60 - 114.59) / (4194304 - 1048576) * 1e-6,
    "OSU latency tests of Open MPI over uGNI, H. Pritchard 2016. α between two KNL nodes, as "
    "Theta's: 6.74 µs at 8 B, of which 5.4 are the slow cores' (1.33 µs between Broadwells; "
    "github.com/ofi-cray/libfabric-cray/issues/1055). β between Haswell nodes of a Cray XC40, "
    "the slope from 1 to 4 MiB, 9.8 GB/s (gist 6a3acd0c192fcfd082bd543fc98e6fe6). Of Cray's own "
    "MPI no figure was found",
)
SLINGSHOT = Interconnect(
    "Slingshot 11",
    2.86e-6,
    (180.44 - 50.64) / (4194304 - 1048576) * 1e-6,
    "OSU latency test of Cray MPICH 8.1.32 between GPUs of two Grace Hopper nodes of Olivia, "
    "2.86 µs at 8 B, the slope from 1 to 4 MiB, 24.2 GB/s (EESSI/docs at 2eb7040, "
    "docs/blog/posts/2026/05/eessi-cray-slingshot11-part2.md). The CPUs of a node may be quicker",
)
PUBLISHED = (ARIES, SLINGSHOT)


def ring(num_bytes: float, ranks: int, interconnect: Interconnect) -> float:
    """Seconds of a ring allreduce (Patarasuk and Yuan 2009, section 4)."""
    return (
        2 * (ranks - 1) * interconnect.alpha
        + 2 * (ranks - 1) / ranks * num_bytes * interconnect.beta
    )


def recursive_doubling(num_bytes: float, ranks: int, interconnect: Interconnect) -> float:
    """Seconds of an allreduce by recursive doubling (Thakur et al. 2005, section 4.5)."""
    return math.ceil(math.log2(ranks)) * (interconnect.alpha + num_bytes * interconnect.beta)


ALGORITHMS: dict[str, Callable[[float, int, Interconnect], float]] = {
    "ring": ring,
    "recursive doubling": recursive_doubling,
}


def allreduce(num_bytes: float, ranks: int, interconnect: Interconnect) -> float:
    """Seconds of an average by the algorithm that `interconnect` was fitted under.

    α and β fitted under one algorithm do not hold for another: two ranks' ring is two messages and
    their doubling one, so doubling at the ring's α would take half of the time that was measured.
    Where α and β were measured between two points, the faster algorithm is taken, as MPI libraries
    choose by size.
    """
    if interconnect.algorithm:
        return ALGORITHMS[interconnect.algorithm](num_bytes, ranks, interconnect)
    return min(algorithm(num_bytes, ranks, interconnect) for algorithm in ALGORITHMS.values())


def straggler(stddev: float, ranks: int) -> float:
    """By how much the slowest of `ranks` steps exceeds the mean, for normal times of `stddev`.

    The expectation of the largest of R normal draws, to some per cent by Blom's formula (1958).
    """
    return stddev * float(stats.norm.ppf((ranks - 0.375) / (ranks + 0.25)))


@dataclasses.dataclass(frozen=True)
class Fit:
    """α and β of a ladder, with what the two of them cannot say.

    Attributes:
        interconnect: the fitted one, with its algorithm; α holds Horovod's cost of an average too.
        largest_error: of the fitted over the measured time, a factor, 1 for a perfect fit.
    """

    interconnect: Interconnect
    largest_error: float


def fit(ladder: pd.DataFrame, algorithm: str, name: str = "measured here") -> Fit:
    """The α and β, neither negative, that make the relative errors of a ladder least.

    Args:
        ladder: rows with ``bytes``, ``ranks`` and ``ms`` (the median).
        algorithm: a key of :data:`ALGORITHMS`.
        name: of the interconnect.

    Raises:
        RecordError: fewer than two sizes, which do not determine α and β.
    """
    if ladder.bytes.nunique() < 2:
        raise RecordError(
            f"a ladder with {ladder.bytes.nunique()} size(s): α and β need at least two"
        )
    cost = ALGORITHMS[algorithm]
    units = (Interconnect("", 1.0, 0.0, ""), Interconnect("", 0.0, 1.0, ""))
    # Scaled to numbers near 1: a message in microseconds, a byte in nanoseconds.
    scales = np.array([1e-6, 1e-9])
    matrix = np.array(
        [[cost(row.bytes, row.ranks, unit) for unit in units] for row in ladder.itertuples()]
    )
    seconds = ladder.ms.to_numpy() / 1e3
    (alpha, beta), _ = optimize.nnls(matrix * scales / seconds[:, None], np.ones(len(seconds)))
    alpha, beta = alpha * scales[0], beta * scales[1]
    ratios = matrix @ np.array([alpha, beta]) / seconds
    fitted = Interconnect(name, alpha, beta, "fitted", algorithm)
    return Fit(fitted, float(np.exp(np.abs(np.log(ratios)).max())))


def compute_term(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Seconds of a step of one rank, linear in its images, by model.

    Args:
        table: of :func:`bnnlib.analysis.scaling.timings`; its runs of one rank are used.

    Returns:
        By model, seconds at no images and seconds an image, neither negative. With runs of one
        batch size only, the first is 0.
    """
    terms = {}
    alone = table[table.ranks == 1]
    for model, selected in alone.groupby("model", sort=False):
        medians = selected.groupby("global_batch").step_ms_p50.median() / 1e3
        batches = medians.index.to_numpy(float)
        if len(medians) == 1:
            terms[str(model)] = (0.0, float(medians.iloc[0] / batches[0]))
            continue
        matrix = np.stack([np.ones(len(batches)), batches], axis=1)
        (constant, image), _ = optimize.nnls(
            matrix / medians.to_numpy()[:, None], np.ones(len(medians))
        )
        terms[str(model)] = float(constant), float(image)
    return terms


def predict(
    model: str,
    compute: tuple[float, float],
    num_bytes: int,
    batch: int,
    ranks: Sequence[int],
    interconnect: Interconnect,
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
        interconnect: between the nodes.
        overhead: seconds of Horovod's own cost of an average.
        waiting: for the slowest of ever more ranks, where measured points ask for it: share of a
            rank's computing that each doubling of the ranks adds.

    Returns:
        A row a number of ranks, kind and interconnect: ``seconds`` a step, ``images_per_second``,
        ``speedup`` and ``efficiency``.
    """
    rows = []
    alone = compute[0] + compute[1] * batch
    for kind in ("weak", "strong"):
        for size in ranks:
            batch_a_rank = batch if kind == "weak" else batch / size
            computing = seconds = compute[0] + compute[1] * batch_a_rank
            if size > 1:
                seconds += overhead + allreduce(num_bytes, size, interconnect)
                seconds += waiting * computing * math.log2(size)
            speed = batch_a_rank * size / seconds
            speedup = speed / (batch / alone)
            rows.append(
                {
                    "model": model,
                    "interconnect": interconnect.name,
                    "kind": kind,
                    "ranks": size,
                    "seconds": seconds,
                    "images_per_second": speed,
                    "speedup": speedup,
                    "efficiency": speedup / size,
                    # A rank needs an image.
                    "possible": batch_a_rank >= 1,
                }
            )
    return pd.DataFrame(rows)


def against_measured(
    table: pd.DataFrame,
    compute: dict[str, tuple[float, float]],
    num_bytes: dict[str, int],
    interconnect: Interconnect,
) -> pd.DataFrame:
    """Predicted and measured step time of every measured point of more than one rank.

    Args:
        table: of :func:`bnnlib.analysis.scaling.efficiencies`.
        compute: of :func:`compute_term`.
        num_bytes: by model.
        interconnect: fitted to a ladder measured on the same machine.

    Returns:
        A row a point: model, kind, batch, ranks, ``compute_ms``, ``allreduce_ms``,
        ``predicted_ms``, ``measured_ms``, ``difference_ms``.
    """
    rows = []
    for row in table[table.ranks > 1].itertuples():
        if row.model not in compute:
            continue
        constant, image = compute[row.model]
        batch_a_rank = row.batch if row.kind == "weak" else row.batch / row.ranks
        alone = constant + image * batch_a_rank
        average = allreduce(num_bytes[row.model], row.ranks, interconnect)
        measured = 1e3 * batch_a_rank * row.ranks / row.images_per_second
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
    """Predictions on the published interconnects, with and without waiting; and measured points.

    Args:
        measured: of :func:`bnnlib.analysis.scaling.efficiencies`.
        compute: of :func:`compute_term`.
        num_bytes: by model.
        batch: images of one rank alone.
        overhead: seconds of Horovod's own cost of an average.
        waiting: share of a rank's computing that each doubling of the nodes adds, of
            :func:`bnnlib.analysis.scaling.theta_waiting`.
        nodes: numbers of them.

    Returns:
        The columns of :func:`predict` with ``scenario`` and ``measured``.
    """
    parts = []
    for interconnect in PUBLISHED:
        name = interconnect.name
        for share, label in ((0.0, name), (waiting, f"{name} + waiting")):
            parts += [
                predict(
                    model, terms, num_bytes[model], batch, nodes, interconnect, overhead, share
                ).assign(scenario=label, measured=False)
                for model, terms in compute.items()
            ]
    points = measured[(measured.ranks > 1) & (measured.batch == batch)]
    shown = ["model", "kind", "ranks", "images_per_second", "speedup", "efficiency"]
    parts.append(points[shown].assign(interconnect="", scenario="", measured=True, possible=True))
    return pd.concat(parts, ignore_index=True)
