"""Every write, fsync, link and rename of a run's files fails once, and kills the process once.

    python tests/faults/crash_points.py <folder>

A short life of a record is lived again and again, each time cut at the next operation: first by an
error of the disk, which must come back as the library's own error that names the file, then by the
end of the process, after which nothing more happens to the files, half a write included. Whatever
was saved before must be there. Prints the number of operations; a fault is an AssertionError.
"""

from __future__ import annotations

import builtins
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import horovod.tensorflow as hvd
import numpy as np

import bnnlib  # noqa: F401  chooses Keras 2, before TensorFlow is imported
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.metrics import Prediction, judge
from bnnlib.record import checkpoint, files, lock, logs
from bnnlib.record.logs import StepLog, read_steps
from bnnlib.record.run import Run
from bnnlib.record.schema import read_record
from bnnlib.session import Session

ALONE = Ranks(hosts=("here",), threads=1)
SESSION = Session()
PROVENANCE = {
    **{"commit": None, "clean": None, "versions": {}, "launcher": "alone", "job_id": None},
    **{"environment": {}, "command": "crash_points"},
}


class Died(BaseException):
    """The process is gone: nothing that it would have done after this happens."""


class State:
    """What :meth:`bnnlib.record.run.Run.save` takes of a trainer."""

    def __init__(self, step: int) -> None:
        self.step = step

    def state(self) -> dict[str, np.ndarray]:
        return {"layer0/mean": np.full(3, self.step, np.float32), "step": np.asarray(self.step)}


def live(directory: Path, saved: list[int], logged: list[int]) -> None:
    """A record's life; `saved` and `logged` grow by what the caller may rely on."""
    experiment = Experiment(dataset="tiny", run_dir=str(directory), checkpoint_steps=1)
    run = Run.open(SESSION, experiment, ALONE, PROVENANCE)
    for step in (1, 2, 3):
        run.log(StepLog(step, step / 4, 2.0, 1.5, 30.0, 1e-3, 100.0, 2.0, False))
        logged.append(step)
        run.save(State(step))  # type: ignore[arg-type]
        run._writer.wait()
        saved.append(step)
    probs = np.full((4, 2), 0.5, np.float32)
    prediction = Prediction(probs, np.full(4, 0.1, np.float32))
    run.finish(judge({"test": (prediction, np.array([0, 1, 0, 1]))}))


class Cut:
    """Counts operations on files, and ends them at one."""

    def __init__(self, at: int, dies: bool) -> None:
        self.at, self.dies, self.count, self.dead = at, dies, 0, False
        self.what = ""

    def __call__(self, what: str, half: Callable[[], object] = lambda: None) -> None:
        if self.dead:
            raise Died
        self.count += 1
        if self.count == self.at:
            self.what = what
            half()
            if self.dies:
                self.dead = True
                raise Died
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class File:
    """A file whose writes count; one that is cut has written half."""

    def __init__(self, file: Any, cut: Cut) -> None:
        self._file, self._cut = file, cut

    def write(self, data: Any) -> int:
        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self.flush()

        self._cut("write", half=half)
        return int(self._file.write(data))

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@contextmanager
def cut_at(number: int, dies: bool) -> Iterator[Cut]:
    """All file operations of the library go through a :class:`Cut`."""
    cut = Cut(number, dies)

    def opened(path: Any, mode: str = "r", **options: Any) -> Any:
        if not set(mode) & set("wa"):
            return builtins.open(path, mode, **options)
        cut("open")
        return File(builtins.open(path, mode, **options), cut)

    def counted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            cut(name)
            return function(*arguments, **options)

        return call

    def gone(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if cut.dead:
                raise Died
            return function(*arguments, **options)

        return call

    write_text = counted(Path.write_text, "write")
    with (
        mock.patch.object(files, "open", opened, create=True),
        mock.patch.object(logs, "open", opened, create=True),
        mock.patch.object(os, "fsync", counted(os.fsync, "fsync")),
        mock.patch.object(os, "replace", counted(os.replace, "rename")),
        mock.patch.object(os, "link", counted(os.link, "link")),
        mock.patch.object(Path, "write_text", write_text),
        mock.patch.object(Path, "unlink", gone(Path.unlink)),
        mock.patch.object(Path, "mkdir", gone(Path.mkdir)),
    ):
        yield cut


def check(directory: Path, saved: list[int], logged: list[int], where: str) -> None:
    """What was saved before is there, and the same command goes on to a finished record."""
    newest = checkpoint.latest(directory / "checkpoints")
    if saved:
        assert newest is not None, where
        step = int(newest["step"])
        assert step >= saved[-1], where
        assert (newest["layer0/mean"] == step).all(), where
        lines = [line.step for line in read_steps(directory)]
        assert lines[: len(logged)] == logged, where
        assert lines[-1] >= step, f"{where}: a checkpoint is further than its log"
    if (directory / "run.json").exists():
        read_record(directory)
    path = directory / lock.NAME
    if path.exists():  # the process that held it has ended, in this program's tale
        path.write_text(path.read_text().replace(f"pid={os.getpid()}", f"pid={2**22 + 1}"))
    (directory / "steps.jsonl").unlink(missing_ok=True)
    live(directory, [], [])
    assert read_record(directory)["status"] == "finished", where
    left = [p.name for p in [*directory.iterdir(), *(directory / "checkpoints").iterdir()]]
    assert not [name for name in left if name.startswith(".") or name in (lock.NAME, lock.JOB)], (
        where,
        left,
    )


def main(folder: Path) -> None:
    """Cuts at one operation after another until a life is lived to its end."""
    hvd.init()
    for dies in (False, True):
        number = 0
        while True:
            number += 1
            directory = folder / f"{'died' if dies else 'failed'}-{number}"
            saved: list[int] = []
            logged: list[int] = []
            told = ""
            with cut_at(number, dies) as cut:
                try:
                    live(directory, saved, logged)
                except Died:
                    told = "died"
                except RecordError as error:
                    told = str(error)
            SESSION.runs.clear()
            where = f"{'end' if dies else 'error'} at operation {number} ({cut.what})"
            if not cut.what:
                break
            assert told, f"{where}: nothing was told"
            if not dies:
                assert str(directory) in told, (where, told)
                assert "No space left on device" in told, (where, told)
            check(directory, saved, logged, where)
        print(f"{'deaths' if dies else 'errors'}={number - 1}", flush=True)
        assert number > 30


if __name__ == "__main__":
    main(Path(sys.argv[1]))
