"""The runs of a study file one after another on the ranks of this launch, each with its record.

Starting ranks costs seconds (imports of TensorFlow, MPI, the queue of a batch system), and many
runs of a study take less. ``mpiexec -n 2 python -m bnnlib plan FILE`` does all runs of the file
that are for two ranks. Started again, it goes on where it ended: finished runs are passed over,
failed ones tried again.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Sequence
from pathlib import Path

from bnnlib import launcher
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.launch import command, study_file
from bnnlib.record import provenance
from bnnlib.record.failure import error_of
from bnnlib.record.identity import refuse_other
from bnnlib.record.schema import is_finished, read_record
from bnnlib.record.summary import closing_line
from bnnlib.record.watchdog import Watch
from bnnlib.session import Session

# How long a rank whose run failed waits for the others to say the same. Ranks that fail alike do so
# within one step or one file; a rank that still trains waits for this one in an average.
AGREE_SECONDS = 60.0


def read(path: str | Path, runs: str | Path, repeat: int | None = None) -> list[Experiment]:
    """The runs of a study file that are for the number of ranks of this launch.

    Args:
        path: of the study file.
        runs: folder of the groups.
        repeat: only this one of equal runs, 0 for the first; None: all.

    Raises:
        ExperimentError: the file says what no run can do, or has no run for this launch.
    """
    ranks, local_ranks = launcher.size(), launcher.local_size()
    study = study_file.read(path, runs, any_ranks=ranks, ranks_per_node=local_ranks)
    chosen = [one for one in study if one.ranks == ranks]
    if not chosen:
        numbers = ", ".join(map(str, sorted({one.ranks for one in study})))
        raise ExperimentError(
            f"{path}: no run is for {ranks} rank(s), only for {numbers}; start it as "
            "mpiexec -n RANKS python -m bnnlib plan …"
        )
    threads = {(one.experiment.threads, one.experiment.inter_threads) for one in chosen}
    if len(threads) > 1:
        raise ExperimentError(
            f"{path}: threads, inter_threads = {', '.join(map(str, sorted(threads)))}: TensorFlow "
            "keeps the first it is given, so one launch has one; put the runs into several files"
        )
    experiments = [one.experiment for one in chosen if repeat in (None, one.repeat)]
    if not experiments:
        raise ExperimentError(f"{path}: --repeat {repeat}: the file has no such repeat")
    return experiments


def train_all(experiments: Sequence[Experiment]) -> int:
    """Trains, evaluates and records each run that is not finished; all ranks call it.

    Rank 0 says which run comes, about how long is left, and at its end what came of it, in a line.
    A run that fails alike on all ranks is recorded, and the next one follows; of one whose start is
    refused nothing is left. An error that leaves the ranks unequal, such as a lost rank, ends all.

    Returns:
        0; where runs have failed, it ends this process with 1 once all ranks have come here.
    """
    with Session.begin() as session:
        origin = provenance.collect()  # starts processes, which none may once MPI runs
        return _train_all(session, experiments, origin)


def _train_all(session: Session, experiments: Sequence[Experiment], origin: command.Origin) -> int:
    from bnnlib.inference import distributed  # TensorFlow reads the environment when imported

    failed = []
    spent: list[float] = []
    for number, experiment in enumerate(experiments, start=1):
        started = time.monotonic()
        with command.all_end_with(experiment, session):
            try:
                done = _is_finished(session, experiment)
                _say(experiments, number, spent, done)
                if not done:
                    directory = command.train_one(session, experiment, origin, quiet=True)
                    spent.append(time.monotonic() - started)
                    if launcher.rank() == 0:
                        print(f"  {closing_line(directory)}", flush=True)
            except Exception as error:
                reason = _failed_alike(session, experiment, error)
                failed.append(f"{experiment.run_dir}: {reason}")
        forget_graphs()
    if failed and launcher.rank() == 0:
        print(f"{len(failed)} of {len(experiments)} runs failed:", *failed, sep="\n  ", flush=True)
    if failed:
        distributed.leave_together(1)
    return 0


def _say(
    experiments: Sequence[Experiment], number: int, spent: Sequence[float], done: bool
) -> None:
    """Says on rank 0 which run comes, and how long it and those after it may take."""
    if launcher.rank() > 0:
        return
    text = f"{number} of {len(experiments)}"
    if done:
        text += ", finished before"
    else:
        text += told_left(
            spent, sum(not is_finished(one.run_dir) for one in experiments[number - 1 :])
        )
    print(f"{text}: {experiments[number - 1].run_dir}", flush=True)


def told_left(spent: Sequence[float], left: int) -> str:
    """Says how long the runs that are left may take: each as those before, in the mean.

    Args:
        spent: seconds of each run that has been trained.
        left: number of runs to train, this one included.

    Returns:
        Such as ``, about 4 minutes left``; empty as long as no run has told.
    """
    if not spent:
        return ""
    minutes = round(left * sum(spent) / len(spent) / 60)
    if minutes == 0:
        return ", less than a minute left"
    return f", about {minutes} minute{'s' if minutes > 1 else ''} left"


def _failed_alike(session: Session, experiment: Experiment, error: Exception) -> str:
    """Records a run that failed on all ranks, and says why; ends them where it failed on some.

    A start that was refused leaves no record (:meth:`Session.fail_runs`).

    Raises:
        Exception: `error` itself, where it says that ranks were lost.
    """
    from bnnlib.inference import distributed

    if distributed.loss_of_others(error):
        raise error
    # Ranks that have not failed never come here.
    with Watch(AGREE_SECONDS, lambda late: command.fail(experiment, session, error)):
        errors = distributed.gather(error_of(error))
    cause = (command.causes_of(errors) or errors)[0]
    # Rank 0 first: the others then find a record that has failed, and only close theirs.
    if launcher.rank() == 0:
        command.record_failure(experiment, session, cause)
    distributed.gather(None)
    if launcher.rank() > 0:
        command.record_failure(experiment, session, cause)
    distributed.gather(None)
    return f"{cause['type']} on rank {cause['rank']}: {cause['message']}"


def _is_finished(session: Session, experiment: Experiment) -> bool:
    """Gives rank 0's answer to all ranks: other nodes may see a shared file system later."""
    from bnnlib.inference import distributed

    ranks = distributed.init(session, experiment.threads, experiment.inter_threads)
    directory = Path(experiment.run_dir)

    def look() -> bool:
        if ranks.rank > 0 or not (directory / "run.json").exists():
            return False
        record = read_record(directory)
        refuse_other(directory, record, experiment, ranks.size)
        return bool(record["status"] == "finished")

    return distributed.gather(distributed.agree(look))[0]


def forget_graphs() -> None:
    """Gives back what TensorFlow keeps of the graphs traced so far, which no run uses again.

    A custom gradient in a graph, and the gradient of a function, are registered under a name of
    their own (``CustomGradient-123``) in a table that TensorFlow never clears. Each entry holds its
    graph, with the constants in it: 6 MB a run of BNN_FC_flip on tiny data.
    """
    from tensorflow.python.framework import ops  # TensorFlow has no public name for the table

    registered = ops.gradient_registry._registry
    for name in [name for name in registered if re.search(r"-\d+$", name)]:
        del registered[name]
    gc.collect()  # a graph and its operations hold one another
