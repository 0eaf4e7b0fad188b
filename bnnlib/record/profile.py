"""Where a step's time went: data, compute, waiting for the slowest rank, negotiation, allreduce.

``profile.csv`` is made of two clocks. Inside the graph every rank stamps the borders between the
parts of a step (:class:`bnnlib.inference.step_clock.StepClock`). Between the end of its gradients
and the average it only sees one span; rank 0's Horovod timeline says how much of it the allreduce
itself took. The rest of the span is waiting for the last rank, which the stamps of all ranks show,
and Horovod's negotiation: the background thread's cycle, and telling rank 0 that a tensor is ready.

The parts of a step add up to its time on each rank.
"""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bnnlib.errors import RecordError
from bnnlib.record.files import write_text
from bnnlib.record.logs import StepLog

TABLE, TIMELINE = "profile.csv", "timeline.json"
# The borders that a rank stamps in each step, seconds since the epoch: the step begins, its images
# are gathered, its gradients computed, the average has come, the weights are updated.
STAMPS = ("began", "gathered", "computed", "averaged", "updated")
PARTS = ("data", "compute", "wait", "negotiation", "allreduce", "update")
COLUMNS = ("step", "rank", "host", "warmup", *(f"{part}_ms" for part in PARTS), "ms", "bytes")


@dataclasses.dataclass(frozen=True)
class Stamps:
    """The stamps of one rank.

    Attributes:
        host: the rank's node.
        steps: int64 ``(num_steps,)``, numbers of steps done after each.
        warmup: bool ``(num_steps,)``, whether the graph's first run is among them.
        times: float64 ``(num_steps, 5)``, the columns :data:`STAMPS`, by the node's own clock.
        bytes: that the rank gives to an allreduce each step.
    """

    host: str
    steps: np.ndarray
    warmup: np.ndarray
    times: np.ndarray
    bytes: int


def read_timeline(path: str | Path) -> np.ndarray:
    """The time of every allreduce of gradients, one a training step, from Horovod's timeline.

    Args:
        path: a file in Chrome's trace format. Horovod ends it in the middle of its list; a run that
            was killed, in the middle of an event.

    Returns:
        float64 ``(num_allreduces,)`` milliseconds from entering the operation to its end, without
        the negotiation before it; empty if the file is missing or holds none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return np.zeros(0)
    durations: list[float] = []
    scalars: set[int] = set()  # tensors of bnnlib.inference.distributed.Message beside gradients
    open_events: dict[int, list[tuple[str, float]]] = {}  # by tensor, a process of the trace
    for entry in re.findall(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\}", text):
        try:
            event = json.loads(entry)
        except json.JSONDecodeError:  # the last one, cut off
            continue
        tensor = event.get("pid", -1)
        stack = open_events.setdefault(tensor, [])
        if event.get("ph") == "B":
            stack.append((event["name"], float(event["ts"])))
        elif event.get("ph") == "M" and "scalars" in str(event.get("args", {}).get("name")):
            scalars.add(tensor)
        elif event.get("ph") == "E" and stack:
            what, began = stack.pop()
            if what == "ALLREDUCE" and tensor not in scalars:
                durations.append((float(event["ts"]) - began) / 1e3)
    return np.asarray(durations)


def tabulate(ranks: Sequence[Stamps], allreduces: np.ndarray) -> pd.DataFrame:
    """One row a step and rank, milliseconds in each part.

    The ranks of a host share its clock; the hosts' clocks may differ. An allreduce ends on all
    ranks at nearly the same moment, so another host's clock is set to that of rank 0's host by the
    median difference of those moments over its ranks and the steps.

    Args:
        ranks: what each rank stamped, in order of rank, the same steps on all.
        allreduces: of :func:`read_timeline`, milliseconds; the last ones belong to these steps.

    Returns:
        The columns :data:`COLUMNS`: ``wait_ms`` from the rank's own gradients to the last rank's,
        ``allreduce_ms`` by the timeline (where it has not all steps, its median; without any, NaN,
        and ``negotiation_ms`` then holds both), ``ms`` the sum, ``bytes`` of the rank a step.
    """
    if not ranks or not len(ranks[0].steps):
        return pd.DataFrame(columns=COLUMNS)
    times = np.stack([one.times for one in ranks])
    averaged = times[:, :, STAMPS.index("averaged")]
    hosts = [one.host for one in ranks]
    for host in {*hosts} - {hosts[0]}:
        its_ranks = [rank for rank, name in enumerate(hosts) if name == host]
        times[its_ranks] -= np.median(averaged[its_ranks] - averaged[:1])
    steps = times.shape[1]
    if len(allreduces) >= steps:
        reduce = allreduces[-steps:]
    else:
        reduce = np.full(steps, np.median(allreduces) if len(allreduces) else np.nan)
    began, gathered, computed, averaged, updated = np.moveaxis(times, 2, 0) * 1e3
    last = computed.max(axis=0)
    rows = []
    for rank, one in enumerate(ranks):
        wait = np.clip(np.minimum(last, averaged[rank]) - computed[rank], 0, None)
        rest = averaged[rank] - computed[rank] - wait
        # The timeline's clock ticks in microseconds, and its thread is another than TensorFlow's.
        operation = np.minimum(reduce, rest) if len(ranks) > 1 else np.zeros(steps)
        rows.append(
            pd.DataFrame(
                {
                    "step": one.steps,
                    "rank": rank,
                    "host": one.host,
                    "warmup": one.warmup,
                    "data_ms": gathered[rank] - began[rank],
                    "compute_ms": computed[rank] - gathered[rank],
                    "wait_ms": wait,
                    "negotiation_ms": rest - np.nan_to_num(operation),
                    "allreduce_ms": operation,
                    "update_ms": updated[rank] - averaged[rank],
                    "ms": updated[rank] - began[rank],
                    "bytes": one.bytes,
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    return table.sort_values(["step", "rank"], ignore_index=True)[list(COLUMNS)]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The median step of each rank of a run, without the graph's first run.

    Args:
        table: of :func:`tabulate`.

    Returns:
        A row a rank: the medians of the parts and of ``ms``; ``skew_ms``, by how much longer the
        rank computes than the fastest rank; ``spread_ms``, the standard deviation of its
        computing if that is normal (from the 10 % and 90 % quantiles); ``bytes``;
        ``communication_share``, of the sum of all steps' time what is neither data, compute nor
        update.
    """
    measured = table[~table.warmup.astype(bool)]
    measured = measured if len(measured) else table
    columns = [f"{part}_ms" for part in PARTS]
    medians = measured.groupby("rank")[[*columns, "ms", "bytes"]].median()
    medians["skew_ms"] = medians.compute_ms - medians.compute_ms.min()
    # Robust, since one interruption by the system would be all of a standard deviation.
    computing = measured.groupby("rank").compute_ms
    medians["spread_ms"] = (computing.quantile(0.9) - computing.quantile(0.1)) / 2.563
    sums = measured.groupby("rank")[[*columns, "ms"]].sum()
    local_ms = sums[["data_ms", "compute_ms", "update_ms"]].sum(axis=1)
    medians["communication_share"] = 1 - local_ms / sums.ms
    return medians.reset_index()


def stamps_of(stamped: Sequence[tuple[StepLog, np.ndarray]], bytes_a_step: int) -> Stamps:
    """This rank's stamps.

    Args:
        stamped: lines of the log, one after another, each with the stamps of its steps, float64
            ``(steps, 5)``.
        bytes_a_step: that the rank gives to an allreduce each step.
    """
    times = np.concatenate([stamps for _, stamps in stamped])
    counts = [len(stamps) for _, stamps in stamped]
    last = stamped[-1][0].step
    return Stamps(
        host=socket.gethostname(),
        steps=np.arange(last - len(times), last) + 1,
        warmup=np.repeat([line.warmup for line, _ in stamped], counts),
        times=times,
        bytes=bytes_a_step,
    )


def write(directory: Path, ranks: Sequence[Stamps]) -> None:
    """Writes ``profile.csv``, from all ranks' stamps and Horovod's timeline.

    Raises:
        RecordError: it could not be written.
    """
    steps, allreduces = len(ranks[0].steps), read_timeline(directory / TIMELINE)
    for _ in range(20):  # Horovod's thread writes behind
        if len(ranks) == 1 or len(allreduces) >= steps:
            break
        time.sleep(0.1)
        allreduces = read_timeline(directory / TIMELINE)
    text = tabulate(ranks, allreduces).to_csv(index=False, float_format="%.6g")
    write_text(directory / TABLE, text)


def read_profile(directory: str | Path) -> pd.DataFrame:
    """A run's ``profile.csv``, the table of :func:`tabulate`.

    Raises:
        RecordError: the run was not asked for a profile, or the file is damaged.
    """
    path = Path(directory) / TABLE
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path}: no readable profile ({error}); train with `profile: true`"
        ) from error
    if list(table.columns) != list(COLUMNS):
        raise RecordError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    return table
