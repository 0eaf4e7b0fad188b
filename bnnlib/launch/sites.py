"""A machine's launch settings and queue, read from its one place: ``jobs/<site>/site.sh``.

The job scripts source that file; this module asks bash to do the same and reads what it sets, so
that a sweep or an interactive cluster cannot differ from a batch job. Nothing here imports
TensorFlow, and every process is started before MPI is.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bnnlib.errors import SiteError
from bnnlib.experiment import unknown_name

# A site's login nodes carry its name; NERSC's say it in NERSC_HOST, too.
_BY_HOST = ("theta", "polaris", "crux", "aurora", "perlmutter")
_SHELLS = ("_", "SHLVL", "PWD", "OLDPWD")


@dataclasses.dataclass(frozen=True)
class Site:
    """How a machine starts ranks.

    Attributes:
        name: the folder of ``jobs/``.
        launch: the launcher's words before the program, always ``<launcher> -n <ranks> …``.
        ranks: number of ranks in all.
        nodes: number of nodes.
        ranks_per_node: ranks on each.
        threads: cores (on Theta hardware threads) a rank; 0: the node's, shared evenly.
        gpus: of a node, each for one rank; 0: the ranks run on CPUs.
    """

    name: str
    launch: tuple[str, ...]
    ranks: int
    nodes: int
    ranks_per_node: int
    threads: int
    gpus: int


def names(root: str | Path = ".") -> list[str]:
    """The sites that have a folder, in order of the alphabet."""
    return sorted(path.parent.name for path in Path(root).glob("jobs/*/site.sh"))


def here() -> str:
    """The site of this machine: ``BNN_SITE``, else by its host's name, its queue, or ``local``."""
    if os.environ.get("BNN_SITE"):
        return os.environ["BNN_SITE"]
    host = f"{socket.getfqdn()} {os.environ.get('NERSC_HOST', '')}"
    by_host = (name for name in _BY_HOST if name in host)
    return next(by_host, "slurm" if _slurm_answers() else "local")


def load(name: str, root: str | Path = ".", ranks: int = 0, **variables: object) -> Site:
    """A site's launch settings.

    Args:
        name: the folder of ``jobs/``.
        root: the repository's top folder.
        ranks: ranks in all, on as few nodes as hold them, evenly; 0: one full node, in a batch
            job all its nodes.
        variables: others that ``site.sh`` reads, such as PPN or THREADS.

    Raises:
        SiteError: no such site, or its ``site.sh`` fails.
    """
    settings = {key: str(value) for key, value in variables.items()}
    if ranks > 0:
        full = int(_ask(name, root, 'echo "$PPN"', settings))
        settings.setdefault("NODES", str(-(-ranks // full)))
        settings |= {"RANKS": str(ranks), "PPN": str(-(-ranks // int(settings["NODES"])))}
    shape = '"$RANKS" "$NODES" "$PPN" "$THREADS" "${GPUS##*:}"'  # a type may stand before it
    command = f': "${{GPUS:=0}}"; printf "%s\\0" {shape} "${{LAUNCH[@]}}"'
    words = _ask(name, root, command, settings).split("\0")[:-1]
    numbers, launch = [int(word) for word in words[:5]], words[5:]
    if name != "local":
        launch[0] = _outside_environment(launch[0])
    return Site(name, tuple(launch), *numbers)


def train_script(site: Site, root: str | Path = ".") -> str:
    """The job script of one run: ``train_gpu.sh`` where ranks have GPUs and the site has one."""
    on_gpus = Path(root) / "jobs" / site.name / "train_gpu.sh"
    return on_gpus.name if site.gpus and on_gpus.exists() else "train.sh"


def environment(name: str, root: str | Path = ".") -> dict[str, str]:
    """The variables that a site's ``site_env`` changes: what its batch jobs have, for other ranks.

    None where this process has them: its job script, or ``jobs/kernel.sh``, has set them. A hub's
    kernel could not set them again, since it knows no ``module``.

    Raises:
        SiteError: no such site, or its environment cannot be had here, such as outside of a job.
    """
    if os.environ.get("BNN_SITE_ENV") == name:
        return {}
    # The ranks run this Python.
    told = _ask(name, root, "site_env >&2 && env -0", {"BNN_ENV": sys.prefix})
    pairs = (line.partition("=") for line in told.split("\0"))
    # The shell's own names and its functions are not the site's.
    return {
        key: value
        for key, _, value in pairs
        if key.isidentifier() and key not in _SHELLS and os.environ.get(key) != value
    }


def submit(name: str, script: str, variables: Mapping[str, object], root: str | Path = ".") -> str:
    """Queues ``jobs/<name>/<script>`` with `variables` and returns the job's id.

    On ``local`` the script has run to its end when this returns ``local``.

    Args:
        name: the site.
        script: such as ``train.sh``.
        variables: what the script is to do; the names are explained in ``jobs/queue.sh``.
        root: the repository's top folder.

    Raises:
        SiteError: the queue refuses the job, or on ``local`` the job fails.
    """
    settings = {key: str(value) for key, value in variables.items()}
    words = _ask(name, root, f"submit jobs/{name}/{script}", settings).split()
    if not words:
        raise SiteError(f"{name}: no job id from the queue for jobs/{name}/{script}")
    return words[-1]


def shares_nodes(name: str, root: str | Path = ".") -> bool:
    """Whether the site's launcher can start several runs on one node."""
    return _ask(name, root, 'echo "${SHARES_NODES:-yes}"', {}).strip() == "yes"


def words_on_slice(
    name: str,
    nodes: Sequence[int],
    slots: Sequence[int],
    places: int,
    variables: Mapping[str, object],
    root: str | Path = ".",
) -> list[str]:
    """The command that trains one run on a part of this job.

    Args:
        name: the site.
        nodes: numbers of the part's nodes among those of the job, from 0.
        slots: numbers of its ranks' places on a node that it shares; empty: whole nodes.
        places: for ranks on a node.
        variables: what the run is; the names are explained in ``jobs/queue.sh``.
        root: the repository's top folder.

    Raises:
        SiteError: the site's ``on_slice`` fails, or it has none.
    """
    settings = {key: str(value) for key, value in variables.items()}
    part = shlex.join([",".join(map(str, nodes)), ",".join(map(str, slots)), str(places)])
    command = f"on_slice {part} && run_words {name} && "
    command += 'printf "%s\\0" "${LAUNCH[@]}" "${WORDS[@]}"'
    words = _ask(name, root, command, settings).split("\0")[:-1]
    if name != "local":
        words[0] = _outside_environment(words[0])
    return words


def is_waiting(name: str, job: str, root: str | Path = ".") -> bool | None:
    """Whether a job is still queued or runs; None where the site's queue cannot be asked."""
    state = _ask(name, root, f"job_state {shlex.quote(job)}", {}).strip()
    return {"queued": True, "gone": False}.get(state)


def _outside_environment(launcher: str) -> str:
    """The site's own `mpiexec`, not the one that may lie beside this Python."""
    here = Path(sys.executable).parent
    path = os.pathsep.join(
        folder for folder in os.get_exec_path() if Path(folder).resolve() != here.resolve()
    )
    return shutil.which(launcher, path=path) or launcher


def _slurm_answers() -> bool:
    """Whether a Slurm answers here: a laptop may have its commands without a queue."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True).returncode == 0


def _ask(name: str, root: str | Path, command: str, variables: Mapping[str, str]) -> str:
    if name not in names(root):
        raise SiteError(unknown_name(name, names(root), "site"))
    done = subprocess.run(
        # Two lines: before && bash would pass over what fails in site.sh.
        ["bash", "-c", f"source jobs/{name}/site.sh\n{command}"],
        cwd=root,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=None if name == "local" else subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        why = (done.stderr or "see above").strip()
        raise SiteError(f"{name}: {command} ended with code {done.returncode}: {why}")
    return done.stdout
