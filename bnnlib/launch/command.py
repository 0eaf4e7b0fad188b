"""One run without a notebook, on the ranks of this launch, with the notebook's record."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bnnlib import launcher, parameters, process
from bnnlib.errors import (
    BnnlibError,
    DistributedError,
    ExperimentError,
    JoiningError,
    OtherRankError,
    message_of,
)
from bnnlib.experiment import Experiment
from bnnlib.record import branch, provenance, stopping
from bnnlib.record.failure import error_of
from bnnlib.record.identity import run_directory
from bnnlib.record.run import Run
from bnnlib.record.summary import closing_line
from bnnlib.record.watchdog import Watch
from bnnlib.session import Session

if TYPE_CHECKING:
    from bnnlib.data import Dataset
    from bnnlib.networks import Network

Origin = dict[str, Any]

# How long a rank whose start is refused waits for the others to say the same.
REFUSE_SECONDS = 20.0


def read(path: str | Path | None, pairs: Sequence[Sequence[str]] = ()) -> Experiment:
    """The experiment of a parameter file and of parameters given by name.

    Args:
        path: a YAML file of ``name: value`` lines; None: the defaults.
        pairs: names and values as typed, which win over the file's.

    Raises:
        ExperimentError: the file or a value cannot be read, or is no parameter's.
    """
    values: Any = {}
    if path is not None:
        values = parameters.read_file(path, "parameters") or {}
    if not isinstance(values, dict):
        raise ExperimentError(f"{path}: expected `name: value` lines, found {values!r:.60}")
    return Experiment.read(values | {name: value for name, value in pairs})


def run(
    experiment: Experiment,
    verbose: bool = False,
    train: Callable[[Session, Experiment, Origin, bool], Path] | None = None,
    prepare: Callable[[Session], object] = lambda session: None,
) -> Path:
    """Trains, evaluates and records one run in this process; ends all ranks on an error.

    Rank 0 prints the record's path first, and at the end what came of the run in one line.

    Args:
        experiment: its parameters.
        verbose: whether rank 0 prints the network's layers.
        train: what trains, given the session, these and the run's origin; :func:`train_one` if not
            given.
        prepare: called before, on all ranks; its errors are raised on all, and no record tells.

    Returns:
        The run's directory.
    """
    with Session.begin() as session:
        origin = provenance.collect()  # starts processes, which none may once MPI runs
        prepare(session)
        with all_end_with(experiment, session):
            directory = (train or train_one)(session, experiment, origin, verbose)
            if launcher.rank() == 0:
                print(closing_line(directory))
    return directory


@contextlib.contextmanager
def all_end_with(experiment: Experiment, session: Session) -> Iterator[None]:
    """Ends the processes of all ranks when the run inside is stopped or fails, its record first.

    The library's own error before the first step refuses the start (:meth:`Session.refuse_runs`):
    rank 0 says it in a line, and all is left as it was. Any other is a failure, with its traceback.
    """
    from bnnlib.inference import distributed  # TensorFlow reads the environment when imported

    try:
        yield
    except stopping.Stopped as stopped:
        session.stop_runs(str(stopped))
        if launcher.rank() == 0:
            print(f"stopped: {stopped}")
        distributed.leave_together(stopping.EXIT_CODE)
    except Exception as error:
        if isinstance(error, BnnlibError) and session.is_starting:
            _refuse(experiment, session, error)
        fail(experiment, session, error)


def _refuse(experiment: Experiment, session: Session, error: BnnlibError) -> None:
    """Ends all ranks where the start is refused: rank 0 says why in a line, the record is undone.

    Returns:
        Nothing, where ranks were lost or cannot talk: then the error is no refusal.
    """
    from bnnlib.inference import distributed

    if isinstance(error, JoiningError):  # this rank can ask no other, and holds no run yet
        rank = f"[rank {launcher.rank()}] " if launcher.size() > 1 else ""
        print(f"{rank}refused: {message_of(error)}", file=sys.stderr, flush=True)
        process.leave(process.ERROR_STATUS)
    try:
        # Ranks that have not failed never come here.
        with Watch(REFUSE_SECONDS, lambda late: fail(experiment, session, error)):
            errors = distributed.gather(error_of(error))
    except Exception:
        return
    causes = causes_of(errors)
    if not causes:
        return
    try:
        session.refuse_runs()
    except Exception as problem:
        print(f"the run's record could not be closed: {message_of(problem)}", file=sys.stderr)
    if launcher.rank() == 0:
        print(f"refused: {causes[0]['message']}", file=sys.stderr, flush=True)
    distributed.leave_together(process.ERROR_STATUS)


def causes_of(errors: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the ranks' errors those that are no consequence of another rank's.

    Args:
        errors: of :func:`bnnlib.record.failure.error_of`, on each rank.
    """
    consequences = (DistributedError.__name__, OtherRankError.__name__)
    return [one for one in errors if one["type"] not in consequences]


def fail(experiment: Experiment, session: Session, error: BaseException) -> NoReturn:
    """Records that the run failed on this rank, and ends the processes of all ranks."""
    record_failure(experiment, session, error_of(error))
    process.fail(error)


def record_failure(experiment: Experiment, session: Session, error: dict[str, Any]) -> None:
    """Records that the run failed; reports a record that cannot be written, and raises nothing.

    Args:
        experiment: of the run.
        session: of this process.
        error: of :func:`bnnlib.record.failure.error_of`, on this rank or another.
    """
    directory = run_directory(experiment, launcher.size())
    try:
        session.fail(directory, experiment.to_dict(), error)
    except Exception as problem:  # a full disk, or whatever, must not keep the other ranks waiting
        print(f"the run's record could not be written: {message_of(problem)}", file=sys.stderr)


def train_one(
    session: Session,
    experiment: Experiment,
    origin: Origin,
    verbose: bool = False,
    quiet: bool = False,
    events: Sequence[tuple[str, str]] = (),
    trained: bool = False,
) -> Path:
    """Trains, evaluates and records one run on the ranks of this launch; all ranks call it.

    Args:
        session: of this process.
        experiment: of the run.
        origin: of :func:`bnnlib.record.provenance.collect`.
        verbose: print the network's layers.
        quiet: no progress bars, and no word of the record.
        events: what has happened, and how, for the record's ``history``.
        trained: whether nothing is left to train, so that other ranks change nothing.

    Returns:
        The run's directory.
    """
    from tqdm import tqdm

    from bnnlib import data, networks
    from bnnlib.inference import distributed, evaluation, laplace
    from bnnlib.inference.trainer import Trainer

    ranks = distributed.init(session, experiment.threads, experiment.inter_threads)
    run = Run.open(session, experiment, ranks, origin, events, trained)
    if ranks.rank == 0 and not quiet:
        print(f"record: {run.directory}", flush=True)
    if run.is_finished:
        return run.directory
    dataset = distributed.on_first_local_rank(lambda: data.load_for(experiment), ranks)
    # Before training, so that a mistyped name is not told after it.
    sets = distributed.on_first_local_rank(lambda: evaluation.sets(experiment, dataset), ranks)
    run.note_data(evaluation.content(dataset, sets))
    network = networks.build_for(experiment, dataset)
    if verbose and ranks.rank == 0:
        print(*networks.summary(network), sep="\n")
    trainer = Trainer(experiment, dataset, network, ranks, session)
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
    laplace.attach(experiment, network, dataset, run)
    with tqdm(total=len(sets), unit="set", disable=quiet or ranks.rank > 0) as bar:
        judged = evaluation.evaluate(experiment, network, dataset, sets, ranks, bar.update, session)
    run.finish(judged)
    return run.directory


def laplace(source: str | Path, predict_with: str = "draws") -> Path:
    """Fits a last-layer Laplace posterior to a finished run, and records it beside that run.

    Args:
        source: the finished run's directory, which stays as it is.
        predict_with: ``draws`` or ``probit``.

    Returns:
        The new run's directory, ``<run>-laplace`` or ``<run>-laplace-probit``.

    Raises:
        BnnlibError: the run has not finished, or its network cannot have such a posterior; no
            directory is made then.
    """
    name = "laplace" if predict_with == "draws" else f"laplace-{predict_with}"
    experiment = branch.experiment_of(source, name, laplace=True, predict_with=predict_with)

    def check(network: Network, dataset: Dataset) -> None:
        from bnnlib.inference import refuse_unfit

        refuse_unfit(experiment, network, dataset.num_train_examples)

    event = ("laplace", f"of the network that {source} has trained")
    return branch_off(source, experiment, event, check)


def branch_off(
    source: str | Path,
    experiment: Experiment,
    event: tuple[str, str],
    check: Callable[[Network, Dataset], object],
) -> Path:
    """Evaluates the network of a finished run as a run of its own; all ranks call it.

    Args:
        source: the finished run's directory, which stays as it is.
        experiment: of the new run, of :func:`bnnlib.record.branch.experiment_of`.
        event: what has happened, and how, for the new record's ``history``.
        check: raises where the network cannot be evaluated so; no directory is made then.

    Returns:
        The new run's directory.
    """

    def prepare(session: Session) -> None:
        from bnnlib.inference import distributed, restore

        ranks = distributed.init(session, experiment.threads, experiment.inter_threads)

        def begin() -> None:
            _, dataset, network = restore(source)
            check(network, dataset)
            if ranks.rank == 0:
                branch.begin(source, experiment)

        ranks.agree(begin)

    def judge(session: Session, experiment: Experiment, origin: Origin, verbose: bool) -> Path:
        return train_one(session, experiment, origin, verbose, events=[event], trained=True)

    return run(experiment, train=judge, prepare=prepare)
