"""Training by one call, and the original study's command line; both leave the notebook's record.

``bnnlib.train(model="BNN_FC_flip", dataset="digits")``, or
``horovodrun -n 2 -H localhost:2 python -m bnnlib.training --flagfile=config.cfg``
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bnnlib import launcher, process
from bnnlib.errors import BnnlibError, ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.launch import command, elastic, original_study_flags
from bnnlib.record import provenance, stopping
from bnnlib.record.failure import error_of
from bnnlib.record.identity import run_directory
from bnnlib.record.summary import closing_line
from bnnlib.session import Session

if TYPE_CHECKING:
    from bnnlib.inference.loading import LoadedRun


def train(
    experiment: Experiment | None = None, *, progress: bool = True, **parameters: Any
) -> LoadedRun:
    """Trains, evaluates and records one run in this process, and gives it back for use.

    The record is the one that the notebook and ``python -m bnnlib train`` leave. The same call
    again goes on where the run was stopped, and gives a finished run back at once. One process
    needs no Horovod. Under a launcher (``mpiexec -n 2 python my_program.py``) all ranks call this,
    train together, and end together on an error, as the command does.

    Args:
        experiment: the parameters, where they are at hand as one object.
        progress: whether bars show how far training has come, and a line at the end the result.
        parameters: those of :class:`Experiment` (``bnnlib.Experiment?`` lists them with meaning
            and unit), such as ``model="BNN_FC_flip", dataset="digits", epochs=3``.

    Returns:
        The run: ``.metrics``, ``.history``, ``.predict(images)``, ``.path``.

    Raises:
        ExperimentError: an unknown parameter, model or data set, with the nearest one, or a value
            that cannot be; nothing is written then.
        BnnlibError: the data cannot be read, or the record's folder holds another run.
    """
    if experiment is None:
        experiment = Experiment.from_mapping(parameters)
    elif parameters or not isinstance(experiment, Experiment):
        raise ExperimentError(
            f"bnnlib.train({experiment!r:.40}, …): expected one Experiment alone, or parameters by "
            "name, such as bnnlib.train(model='CNN_FC', dataset='digits')"
        )
    stopping.stop_time()  # a mistyped deadline is told before MPI starts
    origin = provenance.collect()  # starts processes, which none may once MPI runs
    if not experiment.run_dir and "BNN_RUN_DIR" in os.environ:
        # The folder of the notebook around is for one run, and this may be called twice.
        place = experiment.default_run_dir(launcher.size())
        experiment = dataclasses.replace(experiment, run_dir=str(place))
    with _session() as session:
        several = launcher.size() > 1
        ending = command.all_end_with(experiment, session) if several else _ending_with(session)
        with ending:
            if elastic.is_elastic():
                directory = elastic.train(session, experiment, origin)
            else:
                if launcher.rank() == 0 and not progress:  # else it is said with the bars
                    print(f"record: {run_directory(experiment, launcher.size())}", flush=True)
                directory = command.train_one(session, experiment, origin, quiet=not progress)
            if launcher.rank() == 0 and progress:
                print(closing_line(directory))
            from bnnlib.inference import distributed, load_run

            return distributed.agree(lambda: load_run(directory))


def _signature() -> inspect.Signature:
    """The signature of :func:`train` with each parameter by name, for who asks ``train?``."""
    first, progress, _ = inspect.signature(train).parameters.values()
    named = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(Experiment).parameters.values()
    ]
    return inspect.Signature([first, progress, *named], return_annotation="LoadedRun")


train.__signature__ = _signature()  # type: ignore[attr-defined]


def _shell() -> Any:
    """IPython's shell, where this process is one: a kernel, a terminal, or papermill's `spmd`."""
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


@contextlib.contextmanager
def _session() -> Iterator[Session]:
    """The session of a training: it hears signals in a program, and leaves them to a kernel."""
    shell = _shell()
    around = shell.user_ns.get("session") if shell is not None else None
    if isinstance(around, Session) and isinstance(around.requests, stopping.Listener):
        yield around  # papermill's engine has made it and closes it
        return
    listens = stopping.Listener(stopping.stop_time()) if shell is None else None
    with Session(requests=listens) as session:
        yield session


@contextlib.contextmanager
def _ending_with(session: Session) -> Iterator[None]:
    """Closes the record of a run that is stopped or fails in a process alone, which lives on."""
    before = list(session.runs)
    try:
        yield
    except (stopping.Stopped, KeyboardInterrupt) as stopped:
        reason = str(stopped) or "interrupted from the keyboard"
        for run in [run for run in session.runs if run not in before]:
            run.stop(reason)
        if isinstance(stopped, stopping.Stopped) and _shell() is None:
            print(f"stopped: {reason}")
            raise SystemExit(stopping.EXIT_CODE) from None
        raise
    except Exception as error:
        session.fail_runs(error_of(error), [run for run in session.runs if run not in before])
        raise


def main(argv: list[str] | None = None) -> None:
    """Trains, evaluates and records the run that a flagfile describes; ends all ranks on an error.

    Args:
        argv: the words after the program's name; of this process if not given.
    """
    with process.steady_terminal():
        _run(argv)


def _run(argv: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bnnlib.training", description=main.__doc__)
    parser.add_argument("--flagfile", required=True, help="the original study's flags, one a line")
    arguments = parser.parse_args(argv)
    try:
        experiment, environment, verbose = original_study_flags.read(
            arguments.flagfile, launcher.size()
        )
        stopping.stop_time()  # a mistyped deadline is told before MPI starts
    except BnnlibError as error:
        # Before MPI starts, on every rank alike: each can end by itself.
        process.let_rank_0_say_it()
        parser.exit(1, f"{parser.prog}: {error}\n" if launcher.rank() == 0 else None)
    os.environ.update(environment)
    command.run(experiment, verbose)


if __name__ == "__main__":
    main()
