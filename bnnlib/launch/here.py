"""Many runs in one launch: the runs of a plan one after another, each with a record of its own.

Starting ranks costs seconds (imports of TensorFlow, MPI, the queue of a batch system), and many
runs of a scaling study take less. ``mpiexec -n 2 python -m bnnlib.launch.here PLAN.yaml
runs/scaling``
does all runs of the plan at two ranks; run again, it goes on where it ended, finished runs are
passed over. A plan is a list of parts such as ::

    - common: {dataset: digits, epochs: 10}     # the same in all runs of this part
      grid: {model: [CNN_FC, BNN_FC_flip], noise: [independent, shared]}   # every combination
      ranks: [1, 2]                             # left out at other numbers of ranks
      group: weak                               # records in <runs>/<group>/

with the names of :class:`bnnlib.experiment.Experiment` in ``common`` and ``grid``, and beside them
``global_batch`` in place of ``batch_size``: images a step of all ranks together.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bnnlib import launcher
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.record import provenance, stopping
from bnnlib.session import Session

_KEYS = {"common", "grid", "ranks", "group"}


def read_plan(path: str | Path, ranks: int, runs: str | Path, repeat: int = 0) -> list[Experiment]:
    """The experiments of a plan at a number of ranks, in the plan's order.

    Args:
        path: of the plan.
        ranks: that run them.
        runs: folder of the records, ``<runs>/<group>/<name>``.
        repeat: a number that tells repeats of the same runs apart, in their directories' names.

    Raises:
        ExperimentError: the plan cannot be read, or what it says is no experiment.
    """
    try:
        parts = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"{path}: no readable plan ({error})") from error
    if not isinstance(parts, list):
        raise ExperimentError(f"{path}: expected a list of parts, found {parts!r:.60}")
    found = []
    for part in parts:
        if not isinstance(part, Mapping) or set(part) - _KEYS or "group" not in part:
            raise ExperimentError(
                f"{path}: a part has a group and may have {', '.join(sorted(_KEYS - {'group'}))}; "
                f"found {part!r:.80}"
            )
        if ranks not in part.get("ranks", [ranks]):
            continue
        grid = part.get("grid", {})
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            found.append(_experiment(path, part, chosen, ranks, Path(runs), repeat))
    return found


def _experiment(
    path: str | Path,
    part: Mapping[str, Any],
    chosen: dict[str, Any],
    ranks: int,
    runs: Path,
    repeat: int,
) -> Experiment:
    words = [str(chosen.get("model", "run")), f"r{ranks}"]
    words += [f"{name}={value}" for name, value in chosen.items() if name != "model"]
    words += [f"repeat{repeat}"] if repeat else []
    values = dict(part.get("common", {})) | chosen
    images = values.pop("global_batch", None)
    if images is not None:
        if images % ranks:
            raise ExperimentError(
                f"{path}: global_batch = {images}: expected a multiple of the ranks, {ranks}"
            )
        values["batch_size"] = images // ranks
    directory = runs / str(part["group"]) / "-".join(words)
    return Experiment.from_mapping({**values, "run_dir": str(directory)})


def main(argv: list[str] | None = None) -> None:
    """Trains, evaluates and records every run of a plan that is not finished."""
    parser = argparse.ArgumentParser(prog="python -m bnnlib.launch.here", description=main.__doc__)
    parser.add_argument("plan", help="a YAML file, such as jobs/plans/scaling.yaml")
    parser.add_argument("runs", help="folder of the records")
    parser.add_argument("--models", nargs="+", help="leave out the plan's other models")
    parser.add_argument("--repeat", type=int, default=0, help="number of this repeat")
    arguments = parser.parse_args(argv)
    try:
        experiments = read_plan(arguments.plan, launcher.size(), arguments.runs, arguments.repeat)
        stopping.stop_time()  # a mistyped deadline is told before MPI starts
    except BnnlibError as error:
        # Before MPI starts, on every rank alike: each can end by itself.
        parser.exit(1, f"{parser.prog}: {error}\n" if launcher.rank() == 0 else None)
    if arguments.models:
        experiments = [one for one in experiments if one.model in arguments.models]
    with Session.begin() as session:
        origin = provenance.collect()  # starts processes, which none may once MPI runs
        _train_all(session, experiments, origin)


def _train_all(session: Session, experiments: list[Experiment], origin: dict[str, Any]) -> None:
    from bnnlib.launch import command

    for number, experiment in enumerate(experiments, start=1):
        with command.all_end_with(experiment, session):
            done = _is_finished(session, experiment)
            if launcher.rank() == 0:
                what = "finished before" if done else "training"
                print(f"{number}/{len(experiments)} {experiment.run_dir}: {what}", flush=True)
            if not done:
                command.train_one(session, experiment, origin, quiet=True)


def _is_finished(session: Session, experiment: Experiment) -> bool:
    """Rank 0's answer on all ranks: other nodes may see a shared file system later."""
    from bnnlib.inference import distributed
    from bnnlib.record.schema import read_record

    ranks = distributed.init(session, experiment.threads, experiment.inter_threads)
    answer = None
    if ranks.rank == 0:
        directory = Path(experiment.run_dir)
        answer = (directory / "run.json").exists() and (
            read_record(directory)["status"] == "finished"
        )
    return bool(distributed.gather(answer)[0])


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    main()
