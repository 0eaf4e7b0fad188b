"""What one process holds while it trains: made at the start, passed to what needs it, closed.

A program that trains makes one by :meth:`Session.begin`: ``python -m bnnlib``, papermill's engine
``spmd`` (whose notebooks find the session as ``session``) and the original study's command. A
notebook gets the session by :meth:`Session.of`; in a kernel that makes a new one. Code that only
computes needs no session, or an empty one.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bnnlib import process
from bnnlib.errors import (
    DataError,
    DistributedError,
    ExperimentError,
    JoiningError,
    MetricsError,
    MissingDataError,
    OtherRankError,
    RecordError,
    SiteError,
)
from bnnlib.record import startup, stopping
from bnnlib.record.failure import error_of, record_failure
from bnnlib.record.lock import LockedError
from bnnlib.record.run import Run
from bnnlib.record.watchdog import Watch

# Errors that refuse a start as long as no open run has come to its first step. Another one, such as
# a rank that was lost, is a failure, which is recorded.
REFUSALS = tuple(
    error.__name__
    for error in (
        *(ExperimentError, DataError, MissingDataError, MetricsError, RecordError, LockedError),
        *(SiteError, JoiningError, OtherRankError),
    )
)


class Session:
    """One process: its clock, what asks it to stop, its open runs, and how it ends when it hangs.

    Attributes:
        clock: of the stages of a run's start.
        requests: to stop; nothing asks unless the session was made by :meth:`begin`.
        runs: the runs that are open in this process.
        endings: what is done, in this order, before a process that hangs is ended.
    """

    def __init__(
        self, clock: startup.Clock | None = None, requests: stopping.Requests | None = None
    ) -> None:
        self.clock = clock or startup.Clock()
        self.requests = requests or stopping.Requests()
        self.runs: list[Run] = []
        self.endings: list[Callable[[DistributedError], object]] = [
            lambda error: self.fail_runs(error_of(error))
        ]
        self._leave_kernel: Callable[[], object] = lambda: None

    @classmethod
    def begin(cls) -> Session:
        """Makes the session of a program that trains: counts from its start, listens for signals.

        Raises:
            ExperimentError: the deadline of the environment is no time.
        """
        clock = startup.Clock(startup.process_start())
        return cls(clock, stopping.Listener(stopping.stop_time()))

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Session:
        """The session in a notebook's namespace, else a new one.

        A new session leaves signals to the kernel. In a kernel an error of a cell closes the open
        runs; papermill's engine `spmd` does so itself.
        """
        existing = namespace.get("session")
        if isinstance(existing, Session):
            return existing
        session = cls()
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        if shell is not None and hasattr(shell, "kernel"):
            after_cell = session._after_cell
            shell.events.register("post_run_cell", after_cell)
            session._leave_kernel = lambda: shell.events.unregister("post_run_cell", after_cell)
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives back what the session took of the process; open runs stay as their records are."""
        self.requests.close()
        self._leave_kernel()
        self._leave_kernel = lambda: None

    def watch(self, minutes: float, sign: str = "line of the log") -> Watch:
        """A watch that ends this process when nothing has happened for so long; 0: never."""
        return Watch(60 * minutes, self.end_process, sign)

    def end_process(self, error: DistributedError) -> NoReturn:
        """Ends this process, and with it the run, after :attr:`endings`."""
        try:
            for end in list(self.endings):
                try:
                    end(error)
                except Exception:  # the others, and the end itself, still come
                    traceback.print_exc()
        finally:
            process.fail(error)

    def stop_runs(self, reason: str) -> None:
        """Records that the open runs were stopped; for callers outside of training."""
        for run in list(self.runs):
            run.stop(reason)

    def fail_runs(self, error: Mapping[str, Any], runs: Sequence[Run] | None = None) -> None:
        """Records that open runs failed; an error that refuses their start undoes it instead.

        Args:
            error: of :func:`bnnlib.record.failure.error_of`.
            runs: which of them; all if not given.
        """
        runs = list(self.runs) if runs is None else runs
        if error["type"] in REFUSALS and not any(run.has_begun for run in runs):
            self.refuse_runs(runs)
            return
        for run in runs:
            run.fail(error)

    @property
    def is_starting(self) -> bool:
        """Whether no open run has come to its first step."""
        return not any(run.has_begun for run in self.runs)

    def refuse_runs(self, runs: Sequence[Run] | None = None) -> None:
        """Closes open runs whose start was refused, and leaves all as the start found it.

        A run that had no record leaves none, nor the folders that were made for it; a record that
        was there is as it was.

        Args:
            runs: which of them; all if not given.
        """
        for run in list(self.runs) if runs is None else runs:
            try:
                if run.found is not None:
                    run.found.put_back()  # while the lock is held
            finally:
                run.abandon()
                if run.found is not None:
                    run.found.remove_folders()

    def fail(
        self, directory: str | Path, parameters: Mapping[str, Any], error: Mapping[str, Any]
    ) -> None:
        """Records that a run failed, whether or not it had come as far as its record.

        A start that was refused, before its first step, leaves no record.

        Args:
            directory: where the record goes if no run is open.
            parameters: as they were given.
            error: of :func:`bnnlib.record.failure.error_of`.
        """
        if self.runs:
            self.fail_runs(error)
        elif error["type"] not in REFUSALS:
            record_failure(directory, parameters, error)

    def abandon_runs(self) -> list[int]:
        """Leaves the open runs as they are, for another start; their last lines' steps."""
        steps = []
        for run in list(self.runs):
            with contextlib.suppress(RecordError):  # the start finds the checkpoint before
                run.abandon()
            steps += [line.step for line in run.lines[-1:]]
        return steps

    def _after_cell(self, result: Any) -> None:
        error = result.error_in_exec or result.error_before_exec
        if isinstance(error, stopping.Stopped):
            self.stop_runs(str(error))
        elif error is not None:
            open_before = list(self.runs)
            self.fail_runs(error_of(error))
            for run in open_before:
                if run.found is not None and not run.directory.joinpath("run.json").exists():
                    print(
                        f"{run.directory}: the start was refused and leaves no record; once the "
                        "reason is gone, go on at the cell that opens the run"
                    )
