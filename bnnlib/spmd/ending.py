"""How a process ends when a rank has failed: the notebook saved first, and no rank left waiting."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nbformat

from bnnlib.errors import BnnlibError, DistributedError
from bnnlib.process import ERROR_STATUS, WAIT_FOR_END, leave, shut_horovod_down, world_size
from bnnlib.record import stopping
from bnnlib.session import Session
from bnnlib.spmd.failures import Failure, Failures, Watcher
from bnnlib.spmd.outputs import Recorder, prefixed_writer
from bnnlib.spmd.paths import RANK0_PREFIX, start_folder

# Seconds that rank 0 waits for the failure file of the rank whose error stopped Horovod.
WAIT_FOR_CAUSE = 5.0
# Seconds that rank 0's own cell has to fail too, once another rank has failed. Horovod's pending
# operations fail at once; a rank that waits in `hvd.init()` or computes alone never would.
WAIT_FOR_OWN_FAILURE = 3.0
# Seconds between looks at the failure files: one rank looks for all, all others for rank 0's.
RANK0_LOOKS_EVERY = 1.0
OTHERS_LOOK_EVERY = 5.0
# Tracebacks of other ranks in the notebook; a thousand ranks may each have their own.
MAX_TRACEBACKS = 8


class Ending:
    """How this rank's run of a notebook ends when a cell, or another rank, fails.

    The rank that fails leaves a failure file; a thread of every rank looks for the others'. Rank 0
    puts the cause into the notebook, saves it, and ends its process, with which the launcher ends
    all; the others wait for that.

    Args:
        session: of this process.
        nb_man: papermill's manager of the notebook.
        recorder: of the notebook's outputs.
        rank: this rank.
        size: number of ranks.
        run_dir: where the failure files lie; None if the notebook is not written to this disk.
        target: the output path as papermill was given it.
        give_standard_output_back: before the notebook is written there.
    """

    def __init__(
        self,
        session: Session,
        nb_man: Any,
        recorder: Recorder,
        rank: int,
        size: int,
        run_dir: Path | None,
        target: str | None,
        give_standard_output_back: Callable[[], None],
    ) -> None:
        self.session, self.nb_man, self.recorder = session, nb_man, recorder
        self.rank, self.size, self.run_dir, self.target = rank, size, run_dir, target
        self._give_standard_output_back = give_standard_output_back
        self.stderr = sys.stderr
        self._print = prefixed_writer(sys.stderr, rank)
        self._ending = threading.Lock()
        self._failures = Failures(run_dir)
        self._watcher = self._start_watcher()
        self.session.endings.insert(0, self._stalled)

    def _start_watcher(self) -> Watcher | None:
        if self.size == 1 or self.run_dir is None:
            return None
        if self.rank == 0:
            watcher = Watcher(self.others, self._take_over, RANK0_LOOKS_EVERY, WAIT_FOR_OWN_FAILURE)
        else:
            watcher = Watcher(lambda: self._failures.of(0), self._give_up, OTHERS_LOOK_EVERY, 0.0)
        watcher.start()
        return watcher

    def stop_watcher(self) -> None:
        """Look no longer for other ranks' failures: this rank's own cells have ended."""
        if self._watcher is not None:
            self._watcher.stop()
            # The watcher may be ending the process at this moment; then this waits for that.
            self._ending.acquire()

    def others(self) -> list[Failure]:
        """Other ranks' failures in this launch."""
        return self._failures.of_others(self.rank)

    def end(self, failure: Failure) -> None:
        """End all ranks; when alone, return for papermill to raise its own error.

        Args:
            failure: This rank's failure.
        """
        if max(self.size, world_size()) == 1:
            self._record(failure)
            return
        if self.rank == 0:
            others = self.others()
            deadline = time.monotonic() + WAIT_FOR_CAUSE
            while failure.is_consequence and time.monotonic() < deadline:
                if any(not other.is_consequence for other in others):
                    break
                time.sleep(0.1)
                others = self.others()
            self.conclude(failure, others)
        # Rank 0 shows the traceback, if the failure file can bring it there.
        in_brief = self._leave_file(failure) or failure.is_consequence
        for line in [failure.headline] if in_brief else failure.traceback or [failure.headline]:
            self._print(line)
        shut_horovod_down()
        # Until rank 0 has saved the notebook, after which the launcher ends this process; or, with
        # a launcher that does not, until the watcher would have seen rank 0's failure.
        deadline = time.monotonic() + WAIT_FOR_END
        while time.monotonic() < deadline:
            time.sleep(0.5)
            if self._failures.of(0):
                break
            if self.run_dir is not None:
                failure = dataclasses.replace(failure, beat=failure.beat + 1)
                with contextlib.suppress(BnnlibError):  # it is there already
                    failure.write(self.run_dir)
        else:
            if self.run_dir is not None:
                # Rank 0 had run its last cell before this rank failed.
                for line in ["rank 0 did not take this failure up:", *failure.traceback]:
                    self._print(line)
        leave(ERROR_STATUS)

    def leave_stopped(self, reason: str) -> NoReturn:
        """Save the notebook and leave with the status that tells a job script to resubmit."""
        from papermill.iorw import write_ipynb

        self._give_standard_output_back()
        if self.rank == 0:
            try:
                self.session.stop_runs(reason)
                if self.target is not None:
                    write_ipynb(self.nb_man.nb, self.target)
            except (OSError, BnnlibError) as problem:
                print(f"stopped, but not all was written: {problem}", file=self.stderr)
        distributed = sys.modules.get("bnnlib.inference.distributed")
        if distributed is not None:
            distributed.leave_together(stopping.EXIT_CODE)
        leave(stopping.EXIT_CODE)

    def _leave_file(self, failure: Failure) -> bool:
        """Whether this rank's failure lies in its file, where rank 0 finds it."""
        if self.run_dir is None:
            return False
        try:
            failure.write(self.run_dir)
        except BnnlibError as problem:  # a full disk
            self._print(str(problem))
            return False
        return True

    def _take_over(self, others: list[Failure]) -> None:
        """On rank 0, end the run from the watcher's thread: the main thread hangs in a cell."""
        if not self._ending.acquire(blocking=False):
            return
        nb_man, recorder = self.nb_man, self.recorder
        with recorder.lock:
            recorder.stop()
            cell = nb_man.nb.cells[recorder.cell_index]
            nb_man.cell_exception(cell, cell_index=recorder.cell_index)
            nb_man.cell_complete(cell, cell_index=recorder.cell_index)
            nb_man.notebook_complete()
            self.conclude(None, others)

    def _stalled(self, error: DistributedError) -> None:
        """End this rank from another thread: its main thread hangs, or waits for one that does."""
        frames = "".join(traceback.format_exception(error)).splitlines()
        index = self.recorder.cell_index
        failure_here = Failure.here(self.rank, type(error).__name__, str(error), frames, index)
        if self.rank != 0:
            self._leave_file(failure_here)
            self._print(failure_here.headline)
            time.sleep(WAIT_FOR_END)
            leave(ERROR_STATUS)
        if not self._ending.acquire(blocking=False):
            return
        time.sleep(WAIT_FOR_OWN_FAILURE)
        others = self.others()
        silent = sorted({*range(1, self.size)} - {other.rank for other in others})
        if silent and self.run_dir is not None:
            ranks = ", ".join(map(str, silent))
            failure_here = dataclasses.replace(
                failure_here, evalue=f"{failure_here.evalue}; no sign of life of rank {ranks}"
            )
        with self.recorder.lock:
            self.recorder.error(failure_here.ename, failure_here.evalue, failure_here.traceback)
            self.recorder.stop()
            self.nb_man.notebook_complete()
            if self.size == 1:
                self._record(failure_here)
                self.nb_man.save()
                print(*failure_here.traceback, sep="\n", file=self.stderr)
                leave(ERROR_STATUS)
            self.conclude(failure_here, others)

    def _give_up(self, failures: list[Failure]) -> None:
        """On another rank, follow rank 0, which has saved everything by now."""
        self._print(f"ends because of the failure on rank 0: {failures[0].headline}")
        leave(ERROR_STATUS)

    def conclude(self, failure_here: Failure | None, others: list[Failure]) -> NoReturn:
        """On rank 0 of several: put the cause into the notebook, save all, and end the process."""
        from papermill.exceptions import PapermillExecutionError
        from papermill.execute import raise_for_execution_errors

        failures = [failure for failure in (failure_here, *others) if failure is not None]
        causes = [failure for failure in failures if not failure.is_consequence]
        cause = (causes or failures)[0]
        nb, index = self.nb_man.nb, self.recorder.cell_index
        cell = nb.cells[index]
        self.nb_man.cell_exception(cell, cell_index=index)
        self._show_others(cell, failure_here, cause, causes)
        self._give_standard_output_back()
        try:
            raise_for_execution_errors(nb, self.target)
        except PapermillExecutionError:
            pass  # it has marked and saved the notebook; the summary below says the same shorter
        except Exception:
            traceback.print_exc()
        self._record(cause)
        self._summarize(cell, cause, causes)
        if self.run_dir is not None:
            # Last: the other ranks leave when they see it.
            with contextlib.suppress(BnnlibError):  # a full disk must not keep this process here
                dataclasses.replace(failure_here or cause, rank=0).write(self.run_dir)
        shut_horovod_down()
        leave(ERROR_STATUS)

    def _show_others(
        self, cell: Any, failure_here: Failure | None, cause: Failure, causes: list[Failure]
    ) -> None:
        """Add other ranks' errors to the cell, the cause before the cell's own error."""
        shown = (
            {(failure_here.ename, failure_here.evalue)}
            if failure_here is not None and failure_here is cause
            else set()
        )
        outputs: list[Any] = []
        for failure in causes or [cause]:
            if failure is failure_here or (failure.ename, failure.evalue) in shown:
                continue
            if len(outputs) == MAX_TRACEBACKS:
                break
            shown.add((failure.ename, failure.evalue))
            lines = failure.traceback or [failure.headline]
            outputs.append(
                nbformat.v4.new_output(
                    "error",
                    ename=failure.ename,
                    evalue=failure.evalue,
                    traceback=[f"rank {failure.rank}: {line}" for line in lines],
                )
            )
        errors = [i for i, output in enumerate(cell.outputs) if output.output_type == "error"]
        at = errors[0] if errors and failure_here is not cause else len(cell.outputs)
        cell.outputs[at:at] = outputs

    def _record(self, cause: Failure) -> None:
        """Mark the run's record as failed, or undo a refused start; if that fails, go on."""
        parameters = dict(self.nb_man.nb.metadata.papermill.get("parameters") or {})
        directory = parameters.get("run_dir") or self.run_dir
        if self.rank != 0 or (directory is None and not self.session.runs):
            return
        error = {
            "rank": cause.rank,
            "type": cause.ename,
            "message": cause.evalue,
            "traceback": cause.traceback,
            "ranks": max(self.size, world_size()),
        }
        try:
            self.session.fail(Path(start_folder(), directory or ""), parameters, error)
        except Exception as problem:  # whatever it is, the other ranks wait for this one's end
            print(f"the run's record could not be written: {problem!r}", file=self.stderr)

    def _summarize(self, cell: Any, cause: Failure, causes: list[Failure]) -> None:
        same = [f.rank for f in causes if (f.ename, f.evalue) == (cause.ename, cause.evalue)]
        ranks = f"rank {cause.rank}" if len(same) < 2 else f"ranks {', '.join(map(str, same))}"
        where = f"In [{cell.execution_count}]" if cell.execution_count else "its start"
        lines = [
            "",
            f"{ranks} of {max(self.size, world_size())} failed; rank 0 stopped in {where}:",
            *(cause.traceback or [cause.headline]),
            "",
        ]
        if self.target is not None:
            lines.append(f"The notebook up to here: {str(self.target).removeprefix(RANK0_PREFIX)}")
        print("\n".join(lines), file=self.stderr, flush=True)
