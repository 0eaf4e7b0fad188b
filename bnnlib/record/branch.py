"""A run that goes on from where a finished one ends, in a directory of its own."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.record import checkpoint, logs
from bnnlib.record.files import write_atomically
from bnnlib.record.schema import read_file, read_finished, write_record


def experiment_of(source: str | Path, name: str, **changes: Any) -> Experiment:
    """The parameters of a branch of a finished run: the run's own but for `changes`.

    Args:
        source: the finished run's directory.
        name: of the branch, which lies beside the run: ``<run>-<name>``.
        changes: parameters. `on_rank_change` is ``continue``: nothing is left to train, and other
            ranks change nothing.

    Raises:
        RecordError: there is no record, or the run has not finished, or is a branch already.
        ExperimentError: a change that is no parameter's.
    """
    source = Path(source)
    record = read_finished(source)
    experiment = Experiment.from_mapping(record["parameters"])
    equal = [n for n, value in changes.items() if getattr(experiment, n, None) != value]
    if not equal:
        told = ", ".join(f"{n} = {value!r}" for n, value in changes.items())
        raise RecordError(f"{source}: has {told} already; expected a run without")
    return dataclasses.replace(
        experiment,
        **changes,
        on_rank_change="continue",
        run_dir=str(source.with_name(f"{source.resolve().name}-{name}")),
    )


def begin(source: str | Path, experiment: Experiment) -> None:
    """Gives the branch's directory what the finished run has trained; the run stays as it is.

    The directory then holds a run whose training is done and whose evaluation is still to be made.
    A directory that was begun before stays as it is, too. One process calls it.

    Args:
        source: the finished run's directory.
        experiment: of :func:`experiment_of`.

    Raises:
        RecordError: the run has no readable checkpoint, or the directory cannot be written.
    """
    source, directory = Path(source), Path(experiment.run_dir)
    if (directory / "run.json").exists() and (directory / "checkpoints").exists():
        return
    state = checkpoint.latest(source / "checkpoints")
    if state is None:
        raise RecordError(
            f"{source}: no readable checkpoint; the network is made by training it again"
        )
    # The checkpoint after the lines that lead to it, and the record when all is there.
    for name in (logs.STEPS, logs.POSTERIOR, logs.ACCURACY):
        if (source / name).exists():
            with open(source / name, "rb") as lines:
                write_atomically(directory / name, functools.partial(shutil.copyfileobj, lines))
    checkpoint.save(directory / "checkpoints", state)
    record = read_file(source)
    unmade: dict[str, Any] = {"status": "stopped", "metrics": {}, "evaluation": []}
    if experiment.ood_sets != record["parameters"].get("ood_sets"):
        unmade["data"] = None  # of other images: what trains anew is held to its source before
    write_record(directory, record | unmade | {"parameters": experiment.to_dict()})
