"""What the launcher that started this process says about it, read from the environment alone.

Every launcher (`mpiexec`, `srun`, `aprun`, `horovodrun`) tells each process its rank in variables
of its own. They can be read before MPI, Horovod or TensorFlow is imported, and before any of them
can fail: who writes the notebook, and which rank an error belongs to, must be known from the first
line on. With no launcher's variables a process is alone: rank 0 of 1.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bnnlib.errors import DistributedError

# Set by both of papermill's engines: papermill runs the notebook. JupyterLab's kernels lack it.
PAPERMILL_VARIABLE = "BNN_PAPERMILL"

Name = Literal["alone", "mpich", "slurm", "aprun", "horovodrun", "pals", "openmpi"]

# Slurm numbers the steps that are no `srun` of the user (interactive, batch, extern) from here on.
_FIRST_SPECIAL_SLURM_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class _Launcher:
    """The variables of one launcher; of several, the first that is set counts."""

    name: Name
    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    launch: tuple[str, ...]  # together the same on all ranks of a launch, and of no other
    started: Callable[[Mapping[str, str]], bool]


def _in_slurm_step(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process: the batch script itself has `SLURM_PROCID=0` too."""
    step = environ.get("SLURM_STEP_ID", environ.get("SLURM_STEPID", ""))
    return "SLURM_PROCID" in environ and step.isdigit() and int(step) < _FIRST_SPECIAL_SLURM_STEP


# The order matters where one launcher runs inside another's allocation: horovodrun and Hydra start
# their processes through whatever the machine has, so their variables are the inner, true ones.
_LAUNCHERS = (
    _Launcher(
        "horovodrun",
        rank=("HOROVOD_RANK",),
        size=("HOROVOD_SIZE",),
        local_rank=("HOROVOD_LOCAL_RANK",),
        local_size=("HOROVOD_LOCAL_SIZE",),
        launch=("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
        started=lambda environ: "HOROVOD_RANK" in environ,
    ),
    _Launcher(
        "openmpi",
        rank=("OMPI_COMM_WORLD_RANK",),
        size=("OMPI_COMM_WORLD_SIZE",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        launch=("PMIX_NAMESPACE",),
        started=lambda environ: "OMPI_COMM_WORLD_RANK" in environ,
    ),
    _Launcher(
        "pals",
        rank=("PALS_RANKID", "PMI_RANK"),
        size=("PMI_SIZE", "PALS_SIZE", "BNN_RANKS"),
        local_rank=("PALS_LOCAL_RANKID", "PMI_LOCAL_RANK", "MPI_LOCALRANKID"),
        local_size=("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE", "MPI_LOCALNRANKS", "BNN_RANKS_PER_NODE"),
        launch=("PALS_APID",),
        started=lambda environ: "PALS_RANKID" in environ,
    ),
    _Launcher(
        "aprun",  # says the rank and nothing else
        rank=("ALPS_APP_PE",),
        size=("PMI_SIZE", "BNN_RANKS"),
        local_rank=("PMI_LOCAL_RANK",),
        local_size=("PMI_LOCAL_SIZE", "BNN_RANKS_PER_NODE"),
        launch=("ALPS_APP_ID",),
        started=lambda environ: "ALPS_APP_PE" in environ,
    ),
    _Launcher(
        "slurm",
        rank=("SLURM_PROCID",),
        size=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
        local_rank=("SLURM_LOCALID",),
        local_size=(),
        launch=("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
        # Hydra inside a Slurm allocation starts its proxies with srun; its own variables are right.
        started=lambda environ: _in_slurm_step(environ) and "HYDI_CONTROL_FD" not in environ,
    ),
    _Launcher(
        "mpich",
        rank=("PMI_RANK",),
        size=("PMI_SIZE", "BNN_RANKS"),
        local_rank=("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        local_size=("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "BNN_RANKS_PER_NODE"),
        launch=(),
        started=lambda environ: "PMI_RANK" in environ,
    ),
)


def _launcher(environ: Mapping[str, str]) -> _Launcher | None:
    return next((launcher for launcher in _LAUNCHERS if launcher.started(environ)), None)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    """The first of `names` that is set, as an integer."""
    for name in names:
        if name in environ:
            try:
                return int(environ[name])
            except ValueError:
                raise DistributedError(
                    f"the launcher's variable {name} is {environ[name]!r}, expected an integer: "
                    f"unset it if no launcher started this process"
                ) from None
    return None


def name(environ: Mapping[str, str] = os.environ) -> Name:
    """The launcher that started this process, or `alone`.

    Args:
        environ: The environment variables.

    Returns:
        One of `alone`, `mpich`, `slurm`, `aprun`, `horovodrun`, `pals`, `openmpi`.
    """
    launcher = _launcher(environ)
    return launcher.name if launcher else "alone"


def rank(environ: Mapping[str, str] = os.environ) -> int:
    """This process's number among all ranks; 0 when alone.

    Args:
        environ: The environment variables.

    Raises:
        DistributedError: The launcher's variable is no integer.
    """
    launcher = _launcher(environ)
    return (_first(environ, launcher.rank) or 0) if launcher else 0


def size(environ: Mapping[str, str] = os.environ) -> int:
    """How many ranks the launcher started; 1 when alone.

    Args:
        environ: The environment variables.

    Raises:
        DistributedError: The launcher does not say (`aprun`), and `BNN_RANKS` is not set.
    """
    launcher = _launcher(environ)
    if launcher is None:
        return 1
    ranks = _first(environ, launcher.size)
    if ranks is None:
        raise DistributedError(
            f"{launcher.name} does not say how many ranks it started (none of "
            f"{', '.join(launcher.size)} is set): pass the number on, "
            f"for example `aprun -n 128 -e BNN_RANKS=128 …`"
        )
    return ranks


def local_rank(environ: Mapping[str, str] = os.environ) -> int:
    """This process's number among the ranks of its node; 0 when alone.

    Where the launcher does not say, consecutive ranks are taken to fill a node, as `aprun` and
    `mpiexec` place them unless told otherwise.

    Args:
        environ: The environment variables.

    Raises:
        DistributedError: Neither the local rank nor the number of ranks a node is known.
    """
    launcher = _launcher(environ)
    if launcher is None:
        return 0
    number = _first(environ, launcher.local_rank)
    return rank(environ) % local_size(environ) if number is None else number


def local_size(environ: Mapping[str, str] = os.environ) -> int:
    """How many ranks run on this node; 1 when alone.

    Args:
        environ: The environment variables.

    Raises:
        DistributedError: The launcher does not say, and `BNN_RANKS_PER_NODE` is not set.
    """
    launcher = _launcher(environ)
    if launcher is None:
        return 1
    ranks = _first(environ, launcher.local_size)
    if ranks is None and launcher.name == "slurm":
        ranks = _slurm_tasks_on_node(environ)
    if ranks is None and size(environ) == 1:
        ranks = 1
    if ranks is None:
        raise DistributedError(
            f"{launcher.name} does not say how many ranks run on a node: pass the number on, "
            f"for example `aprun -N 2 -e BNN_RANKS_PER_NODE=2 …`"
        )
    return ranks


def _slurm_tasks_on_node(environ: Mapping[str, str]) -> int | None:
    """This node's entry of Slurm's list of tasks a node, in which `2(x3),1` means 2, 2, 2, 1."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE"))
    if text is None:
        return None
    tasks: list[int] = []
    for entry in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry)
        if match is None:
            return None
        tasks += [int(match[1])] * int(match[2] or 1)
    node = _first(environ, ("SLURM_NODEID",)) or 0
    return tasks[node] if node < len(tasks) else None


def launch_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """A text that only the ranks of this launch share; None if the launcher gives none.

    MPICH's `mpiexec` gives none, and a process alone needs none.

    Args:
        environ: The environment variables.
    """
    launcher = _launcher(environ)
    if launcher is None or not all(name in environ for name in launcher.launch[:2]):
        return None
    parts = [environ.get(name, "") for name in launcher.launch]
    return "/".join([launcher.name, *parts]) if parts else None


def job_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """The scheduler's job id (Cobalt, PBS or Slurm), or None outside a job.

    Args:
        environ: The environment variables.
    """
    for variable in ("COBALT_JOBID", "PBS_JOBID", "SLURM_JOB_ID"):
        if environ.get(variable):
            return environ[variable]
    return None
