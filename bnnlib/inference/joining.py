"""How a rank finds the others: Horovod's start, and why it may find fewer than there are."""

from __future__ import annotations

import importlib
import os
from typing import Any

from bnnlib import launcher, process
from bnnlib.errors import JoiningError

# Milliseconds between Horovod's looks for something to average, where its own default of 1 is
# longer than a dense network's step (`make bench` compares them: figures/bench/horovod.csv).
# A site's own HOROVOD_CYCLE_TIME is left as it is.
CYCLE_MS = "0.1"


def start_horovod() -> tuple[Any, set[int]]:
    """Horovod, with this process among its launcher's ranks, and the threads that it has started.

    Raises:
        JoiningError: Horovod is missing, or sees other ranks than the launcher has started.
    """
    _refuse_lost_launcher()
    try:
        hvd = importlib.import_module("horovod.tensorflow")
    except ImportError as error:
        size = launcher.size()
        raise JoiningError(
            f"the launcher ({launcher.name()}) started {size} rank(s), which train together by "
            f"Horovod, and Horovod cannot be imported ({error}): build it into this Python with "
            "jobs/local/environment.sh (make env), or start one process without a launcher; with "
            f"virtual_ranks: {size} it trains the same run"
        ) from error
    before = _thread_ids()
    # Nothing is written until start_timeline, but without this Horovod refuses to start one later.
    os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")
    if launcher.size() > 1:  # one rank averages nothing, and each look takes time from its steps
        os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_MS)
    hvd.init()
    if launcher.size() != hvd.size():
        raise JoiningError(
            f"the launcher ({launcher.name()}) started {launcher.size()} ranks and Horovod sees "
            f"{hvd.size()}: {why_alone(launcher.name())}"
        )
    return hvd, _thread_ids() - before


def why_alone(name: launcher.Name) -> str:
    """Why Horovod sees other ranks than the launcher has started, and what to do."""
    if name == "slurm" and "PMI_FD" not in os.environ:
        return (
            "srun told the ranks nothing of one another that Horovod's MPI understands; start them "
            "with srun --mpi=pmi2 (`srun --mpi=list` shows what this Slurm has)"
        )
    if name in ("pals", "aprun") or "CRAY_LD_LIBRARY_PATH" in os.environ:
        return (
            "Horovod must find Cray's MPICH before its own: module load cray-mpich-abi, and "
            "LD_LIBRARY_PATH=$CRAY_LD_LIBRARY_PATH:$LD_LIBRARY_PATH (jobs/queue.sh does both)"
        )
    return (
        "Horovod was built for another MPI than the launcher's; use the mpiexec that lies beside "
        "this Python, or build Horovod against the system's MPI"
    )


def refuse_other_count() -> None:
    """Refuses a rank whose launcher says another number of ranks than its job script, BNN_RANKS.

    Eight ranks that each believe to be alone would train the same run eight times, side by side.
    """
    asked = os.environ.get("BNN_RANKS")
    if asked and asked != str(launcher.size()):
        raise JoiningError(
            f"BNN_RANKS = {asked}, the ranks that the job script starts, and the launcher "
            f"({launcher.name()}) says {launcher.size()}: {why_alone(launcher.name())}"
        )


def _refuse_lost_launcher() -> None:
    """Refuses a kernel under Hydra: MPI needs a descriptor that kernels do not inherit."""
    descriptor = os.environ.get("PMI_FD")
    if descriptor is None or process.horovod() is not None:
        return
    try:
        os.fstat(int(descriptor))
    except OSError:
        raise JoiningError(
            "this process was started by a rank of mpiexec and cannot join MPI itself (papermill's "
            "own engine starts a kernel a rank); run papermill with --engine spmd"
        ) from None


def _thread_ids() -> set[int]:
    if not os.path.isdir("/proc/self/task"):
        return set()
    return {int(name) for name in os.listdir("/proc/self/task")}
