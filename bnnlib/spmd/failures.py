"""The failure of a rank, in a file that the other ranks and the reader find beside the notebook."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bnnlib import launcher
from bnnlib.errors import OtherRankError, rank_lost
from bnnlib.process import ERROR_STATUS, leave
from bnnlib.record.files import write_text

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
    launch: str | None = None  # of `bnnlib.launcher.launch_id`
    beat: int = 0  # counts how often this was written: the rank that waits with it is alive

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
            launch=launcher.launch_id(),
        )

    @property
    def is_consequence(self) -> bool:
        """Whether another rank failed, and this one only says so or lost its connection to it."""
        told = self.ename == OtherRankError.__name__
        return told or rank_lost(self.ename, self.evalue) != ""

    @property
    def headline(self) -> str:
        """The exception in one line."""
        return f"{self.ename}: {self.evalue.strip().splitlines()[0] if self.evalue.strip() else ''}"

    def write(self, run_dir: Path) -> None:
        """Leave this failure in `run_dir` for the other ranks and the reader."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        write_text(failure_file(run_dir, self.rank), text)


def failure_file(run_dir: Path, rank: int) -> Path:
    """The file in which a rank leaves its failure."""
    return run_dir / "failures" / f"rank{rank}.json"


class Failures:
    """The failures of other ranks in this launch, as they appear in a run's folder.

    An earlier attempt's files may lie there, and none is deleted while another rank may be writing.
    A launcher that names its launch (:func:`bnnlib.launcher.launch_id`) tells them apart. MPICH's
    does not; then a file counts once it differs from what lay there when this object was made: a
    rank that failed before that writes its file again while it waits. No clock is asked, as those
    of two hosts may differ.

    Args:
        run_dir: the run's folder; None if the notebook is not written to this disk.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self._folder = None if run_dir is None else run_dir / "failures"
        self._launch = launcher.launch_id()
        self._unreadable: set[Path] = set()  # files that were reported
        self._before = {file: self._bytes(file) for file in self._files()}

    def of(self, rank: int) -> list[Failure]:
        """The failure of one rank, if there is one."""
        return [failure for failure in self._read() if failure.rank == rank]

    def of_others(self, rank: int) -> list[Failure]:
        """The failures of all ranks but one, oldest first."""
        return [failure for failure in self._read() if failure.rank != rank]

    def _files(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob("rank*.json"))

    @staticmethod
    def _bytes(file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError:
            return b""

    def _read(self) -> list[Failure]:
        failures = []
        for file in self._files():
            text = self._bytes(file)
            if self._launch is None and text == self._before.get(file):
                continue
            try:
                failure = Failure(**json.loads(text))
            except (ValueError, TypeError) as error:
                if file not in self._unreadable:  # this is called every second
                    self._unreadable.add(file)
                    print(f"{file} is no failure file: {error!r}", file=sys.__stderr__)
                continue
            if failure.launch == self._launch:
                failures.append(failure)
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
