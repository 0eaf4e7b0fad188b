"""Checks what must hold before IPython engines start, and makes the command that starts them.

The words are those of the job scripts (``LAUNCH`` in ``jobs/<site>/site.sh``), so that a notebook's
ranks run as a batch job's do.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import MPIEngineSetLauncher
from traitlets.config import Config

from bnnlib import launcher
from bnnlib.errors import DistributedError
from bnnlib.interactive.place import SITE, repository
from bnnlib.launch import sites
from bnnlib.launch.sites import Site
from bnnlib.record import provenance

# Where this package lies, which the engines import.
ROOT = Path(__file__).resolve().parents[2]
LOCAL = "local"


def _root() -> Path:
    """Where the job scripts are that hold here: the notebook's repository, else this package's."""
    return repository() if (repository() / SITE).is_file() else ROOT


def own_site() -> str:
    """The site that started this kernel (``BNN_SITE``), ``local`` where none did."""
    return os.environ.get("BNN_SITE") or LOCAL


def site(name: str, ranks: int | None = None) -> Site:
    """The launch settings of a site for IPython engines.

    Args:
        name: one of :func:`bnnlib.launch.sites.names`.
        ranks: how many; None for what the site has in this job (its nodes times ``PPN``).

    Raises:
        SiteError: there is no such site, or its settings cannot be read.
        DistributedError: the machine is none of its compute nodes.
    """
    # A notebook's engines are MPI's, whatever the jobs of this shell are started with.
    root = _root()
    settings = sites.load(name, root, ranks or 0, LAUNCHER="mpiexec")
    if name != LOCAL and launcher.job_id() is None:
        raise DistributedError(
            f"site {name!r}: this process runs in no job, and its engines start inside one: submit "
            f"jobs/{name}/jupyter.sh and open its JupyterLab, open the site's JupyterHub "
            "on compute nodes, or use site 'local'"
        )
    # The scripts run from the repository; the engines, where the notebook's kernel does.
    inside = [str(root / word) if (root / word).is_file() else word for word in settings.launch]
    return dataclasses.replace(settings, launch=tuple(inside))


class Engines(MPIEngineSetLauncher):
    """ipyparallel's launcher, with the site's words as they are and this library's engine."""

    @property
    def program(self) -> list[str]:
        """The command of an IPython engine."""
        return list(self.engine_cmd)

    def find_args(self) -> list[str]:
        """The launcher's words, then the IPython engine's command."""
        return [*self.mpi_cmd, *self.program, *self.program_args]

    def _log_output(self, stop_data: Any = None) -> None:
        """Leaves the output where it is: the cluster shows what matters of it."""


def check(settings: Site) -> None:
    """Looks at launcher, cores and Horovod before anything starts.

    Raises:
        DistributedError: one of them will not do; the message says what to do.
    """
    _check_launcher(settings)
    _check_cores(settings)
    if settings.ranks > 1:
        _check_horovod()


def _check_launcher(settings: Site) -> None:
    if shutil.which(settings.launch[0], path=_path()) is None:
        raise DistributedError(
            f"{settings.launch[0]}: no such program on PATH, and site {settings.name!r} starts its "
            "engines with it: "
            + (
                "install MPI, for example with make env"
                if settings.name == LOCAL
                else f"run this inside a job of {settings.name}"
            )
        )


def _check_cores(settings: Site) -> None:
    cores = len(os.sched_getaffinity(0))
    if settings.name == LOCAL and settings.ranks > cores:
        raise DistributedError(
            f"engines = {settings.ranks}: this machine has {cores} core(s) for this process, and "
            f"ranks that share a core wait for each other busily; use {cores} or fewer"
        )


def _check_horovod() -> None:
    spec = importlib.util.find_spec("horovod")
    if spec is None or spec.origin is None:
        raise DistributedError("Horovod is not installed: make env builds it")
    record = Path(spec.origin).with_name("metadata.json")
    built_for = json.loads(record.read_text()).get("tensorflow") if record.exists() else None
    installed = provenance.version("tensorflow")
    if built_for != installed:
        raise DistributedError(
            f"Horovod was built for TensorFlow {built_for} and {installed} is installed: build it "
            "again, with make env"
        )


def _path() -> str:
    """PATH, behind this Python's own folder: a JupyterLab may run without its environment."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def engine_config(settings: Site) -> Config:
    """The settings of ipyparallel: the site's launcher and this library's IPython engine."""
    program = shutil.which(settings.launch[0], path=_path()) or settings.launch[0]
    config = Config()
    config.MPILauncher.mpi_cmd = [program, *settings.launch[1:]]
    config.EngineLauncher.engine_cmd = [sys.executable, "-m", "bnnlib.interactive.engine"]
    # What batch jobs have, also where JupyterLab was not started by jupyter.sh.
    own = {} if settings.name == LOCAL else sites.environment(settings.name, _root())
    # The engines import this library, from wherever the kernel has it.
    path = own.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
    places = [str(ROOT), *filter(None, [path])]
    config.BaseLauncher.environment = {
        "PATH": _path(),
        **own,
        "PYTHONPATH": os.pathsep.join(places),
    }
    return config


def quiet_log() -> logging.Logger:
    """A logger for ipyparallel's news; what goes wrong is raised here with its reason."""
    log = logging.getLogger("bnnlib.interactive.cluster.ipyparallel")
    log.setLevel(logging.CRITICAL)
    return log
