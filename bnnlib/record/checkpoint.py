"""Training states on disk: written whole or not at all, read back to the same bits.

A checkpoint is ``checkpoints/step-<step>.npz``, the arrays of
:meth:`bnnlib.inference.trainer.Trainer.state` by name, written as :mod:`bnnlib.record.files` does.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bnnlib.errors import RecordError
from bnnlib.record.files import read_npz, write_npz

logger = logging.getLogger(__name__)

KEEP = 2  # the newest, and the one before in case the newest cannot be read


def save(directory: Path, state: dict[str, np.ndarray], keep: int = KEEP) -> Path:
    """Writes a state and removes all but it and the newest before it, `keep` in all.

    Args:
        directory: the run's ``checkpoints`` folder; made if missing.
        state: arrays by name; ``step`` among them names the file.
        keep: how many stay, this one among them.

    Returns:
        The file's path.

    Raises:
        RecordError: the file could not be written.
    """
    path = directory / f"step-{int(state['step']):09d}.npz"
    write_npz(path, state)
    # One that is newer is of a past that the run has left, and goes before older ones.
    others = sorted(
        (other for other in _newest_first(directory) if other != path),
        key=lambda other: other.name > path.name,
    )
    for old in others[keep - 1 :]:
        with contextlib.suppress(OSError):  # a checkpoint too many does no harm
            old.unlink(missing_ok=True)
    return path


class Writer:
    """Writes files one after another in a thread of its own while training goes on.

    An error of a write is raised by the next call, so that none is lost.
    """

    def __init__(self) -> None:
        self._thread = self._new_thread()
        self._last: Future[object] | None = None

    @staticmethod
    def _new_thread() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="bnnlib-checkpoint")

    def start(self, write: Callable[[], object]) -> None:
        """Waits for the write before, then begins `write`.

        Raises:
            RecordError: of the write before.
        """
        self.wait()
        self._last = self._thread.submit(write)

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
            RecordError: of the last write.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        """Ends the thread after the last write, which nothing waits for here."""
        self._thread.shutdown(wait=False)
        # A notebook can run its interrupted cell again, on the same run: another thread starts with
        # the first write.
        self._thread = self._new_thread()


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one checkpoint.

    Raises:
        RecordError: the file is missing or damaged, or holds no training state.
    """
    state = read_npz(path, "checkpoint")
    if "step" not in state:
        raise RecordError(f"{path}: no checkpoint of a run, it has no array `step`")
    return state


def latest(directory: Path, set_aside: bool = False) -> dict[str, np.ndarray] | None:
    """The newest state that can be read, None where there is none; a damaged one is logged.

    Args:
        directory: the run's ``checkpoints`` folder.
        set_aside: for the run's only writer: whether a damaged file is renamed, to
            ``damaged-step-<step>.npz``, so that it does not count among those that are kept.
    """
    for path in _newest_first(directory):
        try:
            return load(path)
        except RecordError as error:
            logger.warning("passed over: %s", error)
            if set_aside:
                with contextlib.suppress(OSError):  # a full or read-only disk is told later
                    path.rename(path.with_name(f"damaged-{path.name}"))
    return None


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.npz"), reverse=True)
