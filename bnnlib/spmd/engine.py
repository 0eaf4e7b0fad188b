"""papermill's engine `spmd`: runs a notebook's cells in this process, as every rank does.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from IPython.core.interactiveshell import InteractiveShell

from bnnlib import launcher
from bnnlib.errors import DistributedError, message_of
from bnnlib.process import abort, steady_terminal
from bnnlib.record import stopping
from bnnlib.session import Session
from bnnlib.spmd import start
from bnnlib.spmd.ending import Ending
from bnnlib.spmd.failures import Failure
from bnnlib.spmd.outputs import Recorder, Terminal, prefixed_writer, standard_output
from bnnlib.spmd.paths import RANK0_PREFIX, is_standard_output, local_path
from bnnlib.spmd.shell import Shell, environment, event_loop, interactive
from bnnlib.spmd.text import Lines

# Seconds that tasks of the event loop get between two cells, about as many as a kernel waits for
# the next one.
BETWEEN_CELLS = 0.01


class SpmdEngine:
    """papermill's engine `spmd`: the cells run in this very process, on every rank.

    It has the methods of `papermill.engines.Engine`, but cannot inherit from it: papermill looks
    this class up while that module is still being imported.
    """

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel's name in the notebook, else Python's: the cells run in this Python."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The notebook's language.

        Raises:
            DistributedError: It is not Python.
        """
        metadata = nb.metadata
        language = (
            language
            or metadata.get("language_info", {}).get("name")
            or metadata.get("kernelspec", {}).get("language")
            or "python"
        )
        if language.lower() not in ("python", "ipython"):
            raise DistributedError(
                f"the notebook's language is {language!r}, expected Python: the engine spmd runs "
                f"cells in its own Python process; use papermill's own engine"
            )
        return language

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: bool | dict[str, Any] = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        input_path: str = "",
        stdout_file: TextIO | None = None,
        stderr_file: TextIO | None = None,
        start_timeout: int | None = None,
        execution_timeout: int | None = None,
    ) -> Any:
        """Run the notebook; what papermill calls on every rank.

        Args:
            nb: The notebook, with its parameters injected.
            kernel_name: The kernel's name, for the parameters' language.
            output_path: Where papermill saves while cells run; None for only at the end.
            progress_bar: papermill's bar, shown by rank 0 only.
            log_output: Send output to papermill's log instead of the terminal, on rank 0 only.
            autosave_cell_every: Seconds between saves while a cell shows output; 0 for none.
            input_path: Where the notebook came from.
            stdout_file: An open file that gets rank 0's stdout too.
            stderr_file: An open file that gets rank 0's stderr too.
            start_timeout: Accepted and without effect: there is no kernel to start.
            execution_timeout: Not supported.

        Returns:
            The executed notebook. With several ranks, a failure ends the process instead.

        Raises:
            BnnlibError: The run cannot start as it was asked for; nothing has been written.
        """
        from papermill.engines import NotebookExecutionManager

        rank, size = launcher.rank(), launcher.size()
        target = nb.metadata.papermill.get("output_path")
        cls.nb_language(nb)
        if execution_timeout:
            raise DistributedError(
                f"--execution-timeout {execution_timeout} is not supported by the engine spmd, "
                f"which cannot interrupt one rank's cell: use the scheduler's time limit"
            )
        if InteractiveShell.initialized():
            raise DistributedError(
                "the engine spmd needs a process without IPython: use the papermill command in a "
                "terminal, or papermill's own engine here"
            )
        if size > 1 and target is not None and not str(target).startswith(RANK0_PREFIX):
            raise DistributedError(
                f"{size} ranks would all write {target}: give the output path as "
                f"{RANK0_PREFIX}{target}"
            )
        start.prepare(nb, kernel_name, input_path)
        session = Session.begin()
        with (
            contextlib.closing(session),
            steady_terminal(),
            standard_output(is_standard_output(target)) as give_back,
        ):
            log_output = log_output and rank == 0
            nb_man = NotebookExecutionManager(
                nb,
                output_path=None if is_standard_output(target) else output_path,
                progress_bar=progress_bar if rank == 0 else False,
                log_output=log_output,
                autosave_cell_every=autosave_cell_every,
            )
            if nb_man.pbar is not None:
                # Else tqdm would count it, and draw the cells' own bars one line below it.
                type(nb_man.pbar)._instances.discard(nb_man.pbar)
            files = {"stdout": stdout_file, "stderr": stderr_file} if rank == 0 else {}
            echoes = (log_output, files, give_back)
            try:
                Run(session, nb_man, target, rank, size, *echoes).run()
            except Exception:
                if size == 1:
                    raise
                # Not a cell's error: this rank cannot go on, and the others would wait for it.
                traceback.print_exc()
                abort()
        return nb_man.nb


class Run:
    """One run of a notebook on this rank."""

    def __init__(
        self,
        session: Session,
        nb_man: Any,
        target: str | None,
        rank: int,
        size: int,
        log_output: bool,
        files: dict[str, TextIO | None],
        give_standard_output_back: Callable[[], None],
    ) -> None:
        self.session = session
        self.nb_man, self.target = nb_man, target
        self.rank, self.size = rank, size
        local = local_path(target)
        self.run_dir = local.parent if local is not None else None
        self.terminal = Terminal(nb_man)
        self._lines: list[Lines] = []
        self.recorder = Recorder(nb_man, self._echoes(log_output, files))
        self._stopped = ""  # why, once the run was stopped
        self.ending = Ending(
            *(session, nb_man, self.recorder, rank, size, self.run_dir, target),
            give_standard_output_back,
        )

    def _echoes(
        self, log_output: bool, files: dict[str, TextIO | None]
    ) -> dict[str, Callable[[str], Any]]:
        """Where text goes besides the notebook, by stream."""
        from papermill.log import logger

        if self.rank != 0:
            prefixed = Lines(prefixed_writer(sys.stderr, self.rank))
            self._lines.append(prefixed)
            return {"stdout": lambda text: None, "stderr": prefixed.write}
        echoes: dict[str, Callable[[str], Any]] = {}
        for name, terminal, log in (
            ("stdout", sys.stdout, logger.info),
            ("stderr", sys.stderr, logger.warning),
        ):
            if log_output:
                lines = Lines(log)
                self._lines.append(lines)
                echo: Callable[[str], Any] = lines.write
            else:
                echo = self.terminal.writer(terminal)
            file = files.get(name)
            echoes[name] = echo if file is None else _both(echo, file)
        return echoes

    def run(self) -> None:
        """Run the cells; return after the last one, or after a failure when alone."""
        self.nb_man.notebook_start()
        try:
            with (
                environment(**start.variables(self.target)),
                interactive(self.recorder) as shell,
                event_loop() as loop,
            ):
                shell.user_ns["session"] = shell.user_ns_hidden["session"] = self.session
                failure = loop.run_until_complete(self._run_cells(shell))
        finally:
            self.ending.stop_watcher()
            self.recorder.finish()
            for lines in self._lines:
                lines.close()
            self.nb_man.cleanup_pbar()
            self.nb_man.notebook_complete()
        if failure is not None:
            self.ending.end(failure)
        elif self._stopped:
            self.ending.leave_stopped(self._stopped)
        elif self.rank == 0 and self.size > 1:
            others = self.ending.others()
            if others:
                self.ending.conclude(None, others)

    async def _run_cells(self, shell: Shell) -> Failure | None:
        nb_man, recorder = self.nb_man, self.recorder
        nb_man.nb.metadata["language_info"] = {
            "name": "python",
            "version": sys.version.split()[0],
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        }
        for index, cell in enumerate(nb_man.nb.cells):
            with recorder.lock:
                nb_man.cell_start(cell, index)
                recorder.start(cell, index)
            error = await self._run_cell(shell, cell)
            with recorder.lock:
                recorder.stop()
                if self.rank == 0:
                    self.terminal.end_cell()
                if error is not None:
                    nb_man.cell_exception(cell, cell_index=index, exception=error)
                nb_man.cell_complete(cell, cell_index=index)
            if error is None:
                continue
            if isinstance(error, SystemExit) and error.code in (None, 0, ""):
                return None  # sys.exit() in a cell stops the notebook; papermill calls it success
            if isinstance(error, stopping.Stopped):
                self._stopped = str(error)
                return None
            shown = [output for output in cell.outputs if output.output_type == "error"]
            frames = list(shown[-1].traceback) if shown else []
            message = message_of(error)
            return Failure.here(self.rank, type(error).__name__, message, frames, index)
        return None

    async def _run_cell(self, shell: Shell, cell: Any) -> BaseException | None:
        """Run one cell as nbclient does; the error that stops the notebook, if any."""
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or not cell.source.strip() or "skip-execution" in tags:
            return None
        cell.execution_count = shell.execution_count
        error = await shell.run_in_loop(cell.source, cell.get("id"))
        if len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(BETWEEN_CELLS)
        return None if "raises-exception" in tags else error


def _both(echo: Callable[[str], Any], file: TextIO) -> Callable[[str], None]:
    def write(text: str) -> None:
        echo(text)
        file.write(text)
        file.flush()

    return write
