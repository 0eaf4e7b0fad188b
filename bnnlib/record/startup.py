"""Where the seconds from a process' start to its first training step go.

On a cluster thousands of ranks import from one file system, and a short run can spend more time
here than in training. The program that runs a training calls :func:`begin`; a kernel that waits
for its reader does not, and its records have no such times.
"""

from __future__ import annotations

import os
import time

# What ends when :func:`reached` is told of it, in this order.
STAGES = ("imports", "horovod", "data", "trace")

_ends: list[float] = []
_begun: list[float] = []


def begin() -> None:
    """This process was started to train: its time counts from its start as the system knows it."""
    if not _begun:
        _begun.append(_process_start())


def reached(stage: str) -> None:
    """A stage of :data:`STAGES` has ended; only its first end counts, and only in order."""
    if len(_ends) == STAGES.index(stage):
        _ends.append(time.time())


def seconds() -> dict[str, float] | None:
    """Seconds of each stage on this rank; None without :func:`begin` or before the last stage.

    ``imports`` counts from the process' start: Python, this library, TensorFlow, the notebook.
    ``horovod`` is its start, with the wait for the slowest rank; ``data`` the record, the training
    set and the evaluation sets; ``trace`` the network and the graph of a training step.
    """
    if not _begun or len(_ends) < len(STAGES):
        return None
    borders = [_begun[0], *_ends]
    return {
        stage: round(end - start, 3)
        for stage, start, end in zip(STAGES, borders, borders[1:], strict=False)
    }


def _process_start() -> float:
    """Seconds since the epoch; now, where the system does not tell."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime", encoding="utf-8") as file:
            uptime = float(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
