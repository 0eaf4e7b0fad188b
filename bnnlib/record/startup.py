"""Where the seconds from a process' start to its first training step go.

On a cluster thousands of ranks import from one file system, and a short run can spend more time
here than in training. A program that trains counts from its process' start; a kernel that waits
for its reader does not, and its records have no such times.
"""

from __future__ import annotations

import os
import time

# What ends when the clock is told of it, in this order.
STAGES = ("imports", "horovod", "data", "trace")


class Clock:
    """The stages of a run's start on this rank.

    Args:
        begun: seconds since the epoch from which the first stage counts; None: nothing is counted.
    """

    def __init__(self, begun: float | None = None) -> None:
        self._begun = begun
        self._ends: list[float] = []

    def reached(self, stage: str) -> None:
        """Notes a stage's end; only its first end counts, in the order of :data:`STAGES`."""
        if len(self._ends) == STAGES.index(stage):
            self._ends.append(time.time())

    def seconds(self) -> dict[str, float] | None:
        """Seconds of each stage; None where nothing is counted or before the last stage.

        ``imports`` is all before Horovod: Python, this library, TensorFlow, the notebook.
        ``horovod`` is its start, with the wait for the slowest rank; ``data`` the record, the
        training set and the evaluation sets; ``trace`` the network and the graph of a step.
        """
        if self._begun is None or len(self._ends) < len(STAGES):
            return None
        borders = [self._begun, *self._ends]
        return {
            stage: round(end - start, 3)
            for stage, start, end in zip(STAGES, borders, borders[1:], strict=False)
        }

    def restart(self) -> None:
        """Counts from now on: the next run of this process has its own start."""
        self._ends.clear()
        if self._begun is not None:
            self._begun = time.time()


def process_start() -> float:
    """When this process was started, in seconds since the epoch; now, where that is not told."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime", encoding="utf-8") as file:
            uptime = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
