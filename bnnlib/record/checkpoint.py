"""Training states on disk: written whole or not at all, read back to the same bits.

A checkpoint is ``checkpoints/step-<step>.npz``, the arrays of
:meth:`bnnlib.inference.trainer.Trainer.state`
by name. It is written beside its name, flushed to the disk and renamed, so that a reader sees the
whole file or none; each array carries the zip format's checksum.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np

from bnnlib.errors import RecordError

logger = logging.getLogger(__name__)

# What numpy and zipfile raise on damaged bytes: RuntimeError for a bit that says "encrypted", its
# NotImplementedError for an unknown compression or version, MemoryError for a shape beyond all.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, OverflowError, struct.error, SyntaxError, TypeError, tokenize.TokenError),
)

KEEP = 2  # the newest, and the one before in case the newest cannot be read
# What a file system without it says to an fsync of a folder.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Calls `write` with a file that takes the place of `path` once it is safely on the disk.

    Raises:
        RecordError: the disk is full, the folder is read-only or gone; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"{path}: could not be written ({error.strerror or error}); what was there before is "
            "unharmed. Make room or choose another place (run_dir, for a run), and start the same "
            "command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be what is missing
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on the disk, too: a file's own fsync is of its content alone.

    Raises:
        OSError: the disk has failed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Has what was appended to a file on the disk; nothing for a file that is not there.

    Raises:
        RecordError: the disk has failed.
    """
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(
            f"{path}: could not be written ({error.strerror or error}); checkpoints written before "
            "are unharmed"
        ) from error


def save(directory: Path, state: dict[str, np.ndarray], keep: int = KEEP) -> Path:
    """Writes a state and removes all but the newest `keep`.

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
    for old in _newest_first(directory)[keep:]:
        with contextlib.suppress(OSError):  # a checkpoint too many does no harm
            old.unlink(missing_ok=True)
    return path


class Writer:
    """Writes in a thread of its own, one file after another, while training goes on.

    An error of a write is raised by the next call, so that none is lost.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bnnlib-checkpoint")
        self._last: Future[object] | None = None

    def start(self, write: Callable[[], object]) -> None:
        """Begins `write` once the write before has ended.

        Raises:
            RecordError: of the write before.
        """
        self.wait()
        self._last = self._thread.submit(write)

    def wait(self) -> None:
        """Returns once all is written.

        Raises:
            RecordError: of the last write.
        """
        last, self._last = self._last, None
        if last is not None:
            last.result()


def remove_leftovers(directory: Path) -> None:
    """Removes the temporary files of writers that were killed; for the run's only writer."""
    written = ("run.json", "run.lock", "predictions.npz", "profile.csv")
    for name in (*written, *(f"{kind}.jsonl" for kind in ("steps", "posterior", "accuracy"))):
        _unlink_all(directory.glob(f".{name}.*.tmp"))
    _unlink_all((directory / "checkpoints").glob(".step-*.npz.*.tmp"))


def _unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, for :func:`read_npz`.

    Raises:
        RecordError: as :func:`write_atomically`.
    """
    content = io.BytesIO()  # a zip archive that is cut off by a full disk complains when collected
    np.savez(content, **arrays)
    write_atomically(path, lambda file: file.write(content.getbuffer()))


def read_npz(path: Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` that this library wrote; `what` names it in the error.

    Raises:
        RecordError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array without a name")
            # Written without compression: what is small on the disk is small in memory.
            if any(info.compress_type != zipfile.ZIP_STORED for info in file.zip.infolist()):
                raise ValueError("compressed, and so not written by this library")
            return {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise RecordError(f"{path}: no readable {what} ({error})") from error


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one checkpoint.

    Raises:
        RecordError: the file is missing or damaged, or holds no training state.
    """
    state = read_npz(path, "checkpoint")
    if "step" not in state:
        raise RecordError(f"{path}: no checkpoint of a run, it has no array `step`")
    return state


def latest(directory: Path) -> dict[str, np.ndarray] | None:
    """The newest state that can be read, None where there is none; a damaged one is logged."""
    for path in _newest_first(directory):
        try:
            return load(path)
        except RecordError as error:
            logger.warning("passed over: %s", error)
    return None


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.npz"), reverse=True)
