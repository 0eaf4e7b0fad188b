"""What is known of a notebook's run before its first cell: its folder, and whether it may start.

A start that is refused here leaves nothing behind: no notebook, no record, no folder.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bnnlib import launcher
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import PAPERMILLS_OWN, Experiment
from bnnlib.process import ERROR_STATUS, leave, let_rank_0_say_it
from bnnlib.record import lock, source
from bnnlib.record.identity import refuse_other, run_directory
from bnnlib.record.schema import read_record
from bnnlib.spmd.parameters import (
    as_typed,
    known_parameters,
    make_strict,
    papermills_command,
    unknown_parameters,
)
from bnnlib.spmd.paths import local_path, start_folder
from bnnlib.spmd.shell import environment

RUN_DIR_VARIABLE = "BNN_RUN_DIR"
# The folder that papermill was started in: under --cwd the cells run in another.
START_DIR_VARIABLE = "BNN_START_DIR"


def variables(target: str | None) -> dict[str, str]:
    """What the cells' environment says of who runs them, and of their run's place.

    Args:
        target: the output path as papermill was given it.
    """
    local = local_path(target)
    found = {launcher.PAPERMILL_VARIABLE: "1"}
    if local is not None:
        found[RUN_DIR_VARIABLE] = str(local.parent)
    if start_folder() != os.getcwd():
        found[START_DIR_VARIABLE] = start_folder()
    return found


def prepare(
    nb: Any,
    kernel_name: str,
    input_path: str,
    also: Callable[[], object] = lambda: None,
) -> None:
    """Gives the notebook its parameters as they were typed, or ends all ranks where they are wrong.

    Called before anything is written.

    Args:
        nb: the notebook, with its parameters injected.
        kernel_name: the kernel's name, for the parameters' language.
        input_path: where papermill read it from.
        also: what else may refuse the start.

    Raises:
        BnnlibError: alone: why the start is refused. Of several ranks the first says it.
    """
    target = nb.metadata.papermill.get("output_path")
    as_typed(nb, kernel_name)
    make_strict(nb)
    try:
        also()
        _refuse_parameters(nb, kernel_name, input_path)
        _refuse_place(nb, kernel_name, target)
    except BnnlibError as error:
        _end(error)


def _end(error: BnnlibError) -> None:
    """Ends all ranks with the error, which the first one says."""
    if launcher.size() == 1:
        if papermills_command() is not None:  # its user has no use for a traceback
            raise click.ClickException(f"{type(error).__name__}: {error}") from error
        raise error
    if launcher.rank() == 0:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    let_rank_0_say_it()
    leave(ERROR_STATUS)  # Hydra ends nobody before MPI has started: each leaves by itself


def _refuse_parameters(nb: Any, kernel_name: str, input_path: str) -> None:
    problem = unknown_parameters(nb, kernel_name, input_path)
    if problem is not None:
        raise ExperimentError(problem)
    _experiment(nb, kernel_name)


def _experiment(nb: Any, kernel_name: str) -> Experiment | None:
    """The experiment of a notebook that has an experiment's parameters; None of any other."""
    if not set(Experiment.names()) <= known_parameters(nb, kernel_name):
        return None
    given = nb.metadata.papermill.get("parameters") or {}
    return Experiment.read({k: v for k, v in given.items() if k not in PAPERMILLS_OWN})


def _refuse_place(nb: Any, kernel_name: str, target: str | None) -> None:
    """Refuses a folder where another run is being written, or that holds one of other parameters.

    Every rank must come to the same end: MPI has not started, so one that goes on alone would wait
    for the others for ever. Rank 0 may hold the lock before another rank looks, so of several ranks
    none looks; the run itself refuses a second writer then, on all ranks.

    Raises:
        BnnlibError: for that reason, or since the file of a user's own network cannot be read.
    """
    local = local_path(target)
    given = (nb.metadata.papermill.get("parameters") or {}).get("run_dir")
    places = (local.parent if local is not None else None, given) if launcher.size() == 1 else ()
    for directory in places:
        if directory and isinstance(directory, str | Path):
            with contextlib.suppress(OSError):  # not readable: the run itself says so
                lock.refuse_if_held(Path(start_folder(), directory), wait=2 * lock.BEAT)
    experiment = _experiment(nb, kernel_name)
    if experiment is None:
        return
    with environment(**variables(target)):
        directory = run_directory(experiment, launcher.size())
        if experiment.model.rpartition(":")[0].endswith(".py"):
            source.read(experiment.model)
    if (directory / "run.json").exists():
        record = read_record(directory)
        if record["status"] != "failed" or (directory / "checkpoints").exists():
            refuse_other(directory, record, experiment, launcher.size())
