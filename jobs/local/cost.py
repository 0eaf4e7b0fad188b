"""What a study file costs, in core-hours, before anything starts.

    python -m jobs.local.cost jobs/studies/convergence.yaml [--runs runs/convergence]

`jobs/studies/seconds.csv` has the milliseconds of a step of one virtual rank, the seconds that a
run takes besides (start, evaluation), and those of a look on the way, on one core of the machine of
figures/bench. Another batch size takes the nearest row, in proportion.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from bnnlib.data import steps_per_epoch
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.launch import study_file
from bnnlib.launch.study_file import StudyRun
from bnnlib.record.schema import is_finished

ROOT = Path(__file__).parents[2]
SECONDS = ROOT / "jobs" / "studies" / "seconds.csv"
# Images to train on, before any are held out.
IMAGES = {"digits": 4000, "mnist": 60_000, "cifar10": 50_000, "tiny": 256, "tiny_cifar10": 256}


def seconds_of(
    experiment: Experiment, ranks: int, table: pd.DataFrame, epochs: Sequence[int] = ()
) -> float:
    """The seconds that one core needs for a run: training, evaluation and looks on the way.

    Args:
        experiment: of the run.
        ranks: number of processes; their seconds are added up.
        table: of :data:`SECONDS`.
        epochs: of the looks; those beyond its own length are none.

    Raises:
        ExperimentError: the table has no row for the network or the data set.
    """
    rows = table[table.model == experiment.model]
    if rows.empty or experiment.dataset not in IMAGES:
        raise ExperimentError(
            f"{experiment.model} on {experiment.dataset}: {SECONDS.name} has no seconds of it; "
            f"expected one of {', '.join(sorted(set(table.model)))} on {', '.join(IMAGES)}; "
            "measure a short run and add its row"
        )
    row = rows.loc[(rows.batch_size - experiment.batch_size).abs().idxmin()]
    step = row.ms_a_step / 1000 * experiment.batch_size / row.batch_size
    total = ranks * experiment.virtual_ranks_of(ranks)
    images = round(IMAGES[experiment.dataset] * (1 - experiment.holdout))
    images = experiment.train_images or images
    steps = steps_per_epoch(images, experiment.batch_size, total)
    steps = experiment.steps or experiment.epochs * steps
    steps *= experiment.train_draws  # at most: what a draw shares with others is not repeated
    looks = sum(epoch <= experiment.epochs for epoch in epochs)
    return float(steps * total * step + ranks * row.seconds_besides + looks * row.seconds_a_look)


def costs(
    study: Iterable[StudyRun], epochs: Sequence[int] = (), table: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A row a group and network: runs, those that have finished, core-hours in all and left."""
    table = pd.read_csv(SECONDS) if table is None else table
    rows = []
    for run in study:
        seconds = seconds_of(run.experiment, run.ranks, table, epochs)
        done = is_finished(run.directory)
        rows.append(
            {"group": run.directory.parent.name, "model": run.experiment.model, "runs": 1}
            | {"finished": int(done), "seconds_a_run": seconds}
            | {"core_hours": seconds / 3600, "core_hours_left": 0 if done else seconds / 3600}
        )
    by = pd.DataFrame(rows).groupby(["group", "model"], sort=False)
    sums = ["runs", "finished", "core_hours", "core_hours_left"]
    return by[sums].sum().assign(seconds_a_run=by.seconds_a_run.mean()).reset_index()


def told(study: Iterable[StudyRun], epochs: Sequence[int] = ()) -> str:
    """The table of :func:`costs` and its sum, as it is printed."""
    table = costs(study, epochs)
    shown = table.to_string(index=False, float_format="{:.2f}".format)
    left, total = table.core_hours_left.sum(), table.core_hours.sum()
    return f"{shown}\n{left:.2f} of {total:.2f} core-hours are left to do"


def main() -> int:
    """Prints what one study file costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="a study file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of the groups")
    arguments = parser.parse_args()
    try:
        print(told(study_file.read(arguments.file, arguments.runs, any_ranks=1)))
    except BnnlibError as error:
        print(f"cost: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
