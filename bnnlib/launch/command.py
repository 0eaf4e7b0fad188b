"""A run without a notebook: the seed study's command line, with the notebook's record.

``horovodrun -n 2 -H localhost:2 python -m bnnlib.training --flagfile=config.cfg``
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bnnlib import launcher
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.record import provenance, stopping
from bnnlib.session import Session, abort


def train(argv: list[str] | None = None) -> None:
    """Trains, evaluates and records the run that a flagfile describes; ends all ranks on an error.

    Args:
        argv: the words after the program's name; of this process if not given.
    """
    parser = argparse.ArgumentParser(prog="python -m bnnlib.training", description=train.__doc__)
    parser.add_argument("--flagfile", required=True, help="the seed study's flags, one a line")
    arguments = parser.parse_args(argv)
    try:
        experiment, environment, verbose = Experiment.from_flags(
            arguments.flagfile, launcher.size()
        )
        stopping.stop_time()  # a mistyped deadline is told before MPI starts
    except BnnlibError as error:
        # Before MPI starts, on every rank alike: each can end by itself.
        parser.exit(1, f"{parser.prog}: {error}\n" if launcher.rank() == 0 else None)
    os.environ.update(environment)
    run(experiment, verbose)


def train_and_tell(
    session: Session,
    experiment: Experiment,
    origin: dict[str, object],
    verbose: bool = False,
    events: Sequence[tuple[str, str]] = (),
) -> None:
    """:func:`train_one`; rank 0 then prints the run's row and its directory."""
    from bnnlib.analysis import runs as run_tables

    directory = train_one(session, experiment, origin, verbose, events=events)
    if launcher.rank() == 0:
        run_tables.main([str(directory)])
        print(f"record: {directory}")


def run(
    experiment: Experiment,
    verbose: bool = False,
    attempt: Callable[[Session, Experiment, dict[str, object], bool], None] = train_and_tell,
) -> None:
    """Trains, evaluates and records one run in this process; ends all ranks on an error.

    Args:
        experiment: its parameters.
        verbose: whether rank 0 prints the network's layers.
        attempt: what trains, given the session, these and what
            :func:`bnnlib.record.provenance.collect` has collected.
    """
    with Session.begin() as session:
        origin = provenance.collect()
        with all_end_with(experiment, session):
            attempt(session, experiment, origin, verbose)


@contextlib.contextmanager
def all_end_with(experiment: Experiment, session: Session) -> Iterator[None]:
    """Ends the processes of all ranks when the run inside is stopped or fails, its record first."""
    from bnnlib.inference import distributed  # TensorFlow reads the environment when imported
    from bnnlib.record.failure import error_of
    from bnnlib.record.run import run_directory

    try:
        yield
    except stopping.Stopped as stopped:
        session.stop_runs(str(stopped))
        if launcher.rank() == 0:
            print(f"stopped: {stopped}")
        distributed.leave_together(stopping.EXIT_CODE)
    except Exception as error:
        try:
            session.fail(
                run_directory(experiment, launcher.size()),
                experiment.to_dict(),
                error_of(error),
            )
        except BnnlibError as problem:  # a full disk must not keep the other ranks waiting
            print(f"the run's record could not be written: {problem}", file=sys.stderr)
        abort(error)


def train_one(
    session: Session,
    experiment: Experiment,
    origin: dict[str, object],
    verbose: bool = False,
    quiet: bool = False,
    events: Sequence[tuple[str, str]] = (),
) -> Path:
    """Trains, evaluates and records one run on the ranks of this launch; all ranks call it.

    Args:
        session: of this process.
        experiment: of the run.
        origin: of :func:`bnnlib.record.provenance.collect`.
        verbose: print the network's layers.
        quiet: no progress bars.
        events: what has happened, and how, for the record's ``history``.

    Returns:
        The run's directory.
    """
    from tqdm import tqdm

    from bnnlib import data, networks
    from bnnlib.inference import distributed, evaluation
    from bnnlib.inference import trainer as training
    from bnnlib.record.run import Run

    ranks = distributed.init(session, experiment.threads, experiment.inter_threads)
    run = Run.open(session, experiment, ranks, origin, events)
    if run.is_finished:
        return run.directory
    dataset = distributed.on_first_local_rank(
        lambda: data.load(experiment.dataset, experiment.subtract_mean, experiment.holdout), ranks
    )
    # Before training, so that a mistyped name is not told after it.
    sets = distributed.on_first_local_rank(lambda: evaluation.sets(experiment, dataset), ranks)
    network = networks.build_for(experiment, dataset)
    if verbose and ranks.rank == 0:
        print(*networks.summary(network), sep="\n")
    trainer = training.Trainer(experiment, dataset, network, ranks, session)
    run.resume(trainer)
    with tqdm(
        total=trainer.num_steps,
        initial=trainer.step,
        unit="step",
        disable=quiet or ranks.rank > 0,
    ) as bar:
        for line in run.follow(trainer):
            bar.set_postfix(
                nll=f"{line.nll:.3f}", images_per_second=f"{line.images_per_second:.0f}"
            )
            bar.update(trainer.step - bar.n)
    with tqdm(total=len(sets), unit="set", disable=quiet or ranks.rank > 0) as bar:
        found = evaluation.evaluate(experiment, network, dataset, sets, ranks, bar.update, session)
    run.finish(found)
    return run.directory
