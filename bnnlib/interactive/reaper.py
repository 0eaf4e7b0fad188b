"""Ends processes when the process that asked for it has ended, however it ended.

A kernel that is killed runs no clean-up of its own, and what it started would go on, on a cluster
at the price of an allocation. A guard is a small process of its own that holds the other end of a
pipe: the system closes it with its owner, whatever the owner died of.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

# Seconds that a process has to end on SIGTERM before it is killed.
PATIENCE = 3.0


class Guard:
    """A guard process, as its owner sees it."""

    def __init__(self, folder: Path) -> None:
        """Starts the guard process.

        Args:
            folder: removed after the last process has ended.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bnnlib.interactive.reaper", str(folder)],
            stdin=subprocess.PIPE,
            text=True,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        )

    @property
    def pid(self) -> int:
        """The process id of the guard."""
        return self._process.pid

    def watch(self, pid: int) -> None:
        """Watches a process: the guard ends it, and what it starts, together with the owner."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid}\n")
        self._process.stdin.flush()

    def release(self) -> None:
        """Ends every watched process that still runs, and waits until it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate(timeout=6 * PATIENCE)


def end(processes: list[psutil.Process]) -> None:
    """Ends processes and all that they have started: SIGTERM, and SIGKILL for what stays."""
    family = dict.fromkeys(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            family |= dict.fromkeys(process.children(recursive=True))
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, staying = psutil.wait_procs(list(family), timeout=PATIENCE)
    for process in staying:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(staying, timeout=PATIENCE)


def main(folder: str) -> None:
    """The guard process: reads ids of processes until its owner is gone, then ends them."""
    watched = []
    for line in sys.stdin:
        with contextlib.suppress(psutil.NoSuchProcess):  # psutil knows a reused id by its time
            watched.append(psutil.Process(int(line)))
    end(watched)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
