"""Judges the checkpoints that runs have kept: how good each network was on the way.

    python -m jobs.local.looks runs/convergence --epochs 1 3 10 30 100

evaluates every finished run below the folder at those of the epochs whose checkpoint is there, as
the run's own evaluation does, and writes ``looks.json`` beside its record. A run that has it is
passed over. A run keeps its checkpoints where `keep_checkpoints` says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnnlib import data
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, evaluation, methods
from bnnlib.inference.restore import dataset_of
from bnnlib.inference.state import TrainState
from bnnlib.launch.here import forget_graphs
from bnnlib.networks import build_for
from bnnlib.record import checkpoint
from bnnlib.record.files import write_atomically
from bnnlib.record.schema import read_record, to_json

FILE = "looks.json"
# About equal steps of the logarithm: a posterior moves most at first.
EPOCHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)


def take(runs: Path, epochs: Sequence[int] = EPOCHS) -> int:
    """Judges the checkpoints of all finished runs below a folder; says on each what it cost.

    Returns:
        The number of runs that were judged now.
    """
    taken = 0
    for file in sorted(runs.rglob("run.json")):
        directory = file.parent
        if (directory / FILE).exists() or read_record(directory)["status"] != "finished":
            continue
        started = time.process_time()
        looks = list(of_run(directory, epochs))
        write_atomically(directory / FILE, lambda out, looks=looks: out.write(to_json(looks)))  # type: ignore[misc]
        seconds = time.process_time() - started
        print(f"{directory}: {len(looks)} looks, {seconds:.0f} CPU seconds", flush=True)
        forget_graphs()
        taken += 1
    return taken


def of_run(directory: Path, epochs: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The looks at one run, by epoch.

    Yields:
        ``epoch``, ``step``, and ``metrics`` and ``rows`` of :class:`bnnlib.metrics.Evaluation`.
    """
    record = read_record(directory)
    experiment = Experiment.from_mapping(record["parameters"])
    dataset = dataset_of(directory, record)
    sets = evaluation.sets(experiment, dataset)
    network = build_for(experiment, dataset, record["source"], start=False)
    state = TrainState(network, methods.build_for(experiment, network, dataset.num_train_examples))
    total = record["ranks"] * record["virtual_ranks"]
    steps = data.steps_per_epoch(dataset.num_train_examples, experiment.batch_size, total)
    for epoch in epochs:
        path = directory / "checkpoints" / f"step-{epoch * steps:09d}.npz"
        if path.exists():
            state.restore(checkpoint.load(path))
            judged = evaluation.evaluate(experiment, network, dataset, sets)
            step = epoch * steps
            yield {"epoch": epoch, "step": step, "metrics": judged.metrics, "rows": judged.rows}


def main() -> int:
    """Judges what is below one folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="a folder of runs, such as runs/convergence")
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS, help="at whose ends")
    arguments = parser.parse_args()
    distributed.set_threads()
    try:
        take(arguments.runs, arguments.epochs)
    except BnnlibError as error:
        print(f"looks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
