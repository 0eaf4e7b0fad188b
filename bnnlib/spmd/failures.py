"""The failure of a rank, in a file that the other ranks and the reader find beside the notebook."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bnnlib.errors import rank_lost
from bnnlib.process import ERROR_STATUS, leave
from bnnlib.spmd.rank0 import write_atomically

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclasses.dataclass(frozen=True)
class Failure:
    """An error of a cell on one rank, as it stands in `<run dir>/failures/rank<r>.json`."""

    rank: int
    host: str
    pid: int
    time: str  # ISO 8601, UTC
    ename: str
    evalue: str
    traceback: list[str]  # lines, without colours
    cell_index: int

    @classmethod
    def here(cls, rank: int, ename: str, evalue: str, frames: list[str], cell: int) -> Failure:
        """The failure of this process, now.

        Args:
            rank: This rank.
            ename: The exception's class name.
            evalue: Its message.
            frames: IPython's traceback, blocks of coloured lines.
            cell: The cell's index in the notebook.
        """
        return cls(
            rank=rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            time=datetime.now(UTC).isoformat(),
            ename=ename,
            evalue=evalue,
            traceback=_ANSI.sub("", "\n".join(frames)).splitlines(),
            cell_index=cell,
        )

    @property
    def is_consequence(self) -> bool:
        """Whether this rank only lost its connection to another one that failed."""
        return rank_lost(self.ename, self.evalue) != ""

    @property
    def headline(self) -> str:
        """The exception in one line."""
        return f"{self.ename}: {self.evalue.strip().splitlines()[0] if self.evalue.strip() else ''}"

    def write(self, run_dir: Path) -> None:
        """Leave this failure in `run_dir` for the other ranks and the reader."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        write_atomically(failure_file(run_dir, self.rank), text + "\n")


def failure_file(run_dir: Path, rank: int) -> Path:
    """Where a rank leaves its failure."""
    return run_dir / "failures" / f"rank{rank}.json"


def _process_start() -> float:
    """When this process started, in seconds since the epoch."""
    try:
        # The 22nd field of the line; the second one, the command in parentheses, may hold spaces.
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(stat[22 - 3])
    except OSError:  # no Linux: this module is imported within the process's first seconds
        return _IMPORTED
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


_IMPORTED = time.time()
_TOLD: set[Path] = set()  # files that were reported as unreadable


def read_failures(files: list[Path]) -> list[Failure]:
    """The failures of this launch among `files`, oldest first.

    An earlier attempt's files may lie in the same folder. They are older than this process, while
    a rank of this launch needs its first second to start Python: the time tells them apart, and
    nothing has to be deleted while another rank may be writing.
    """
    failures = []
    for file in files:
        try:
            failure = Failure(**json.loads(file.read_text(encoding="utf-8")))
            if datetime.fromisoformat(failure.time).timestamp() > _process_start():
                failures.append(failure)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError) as error:
            if file not in _TOLD:  # this is called every second
                _TOLD.add(file)
                print(f"{file} is no failure file: {error!r}", file=sys.__stderr__)
    return sorted(failures, key=lambda failure: failure.time)


class Watcher(threading.Thread):
    """Looks for other ranks' failures while this rank's main thread may wait for ever."""

    def __init__(
        self,
        look: Callable[[], list[Failure]],
        act: Callable[[list[Failure]], None],
        every: float,
        grace: float,
    ) -> None:
        super().__init__(name="bnnlib-spmd-watcher", daemon=True)
        self._look, self._act, self._every, self._grace = look, act, every, grace
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Look no longer."""
        self._stopped.set()

    def run(self) -> None:
        """Look until there is a failure, and act on it."""
        while not self._stopped.wait(self._every):
            if self._look():
                if not self._stopped.wait(self._grace):
                    try:
                        self._act(self._look())
                    except Exception:
                        traceback.print_exc(file=sys.__stderr__)
                        leave(ERROR_STATUS)
                return
