"""Training states on disk: written whole or not at all, read back to the same bits.

A checkpoint is ``checkpoints/step-<step>.npz``, the arrays of :meth:`bnnlib.training.Trainer.state`
by name. It is written beside its name, flushed to the disk and renamed, so that a reader sees the
whole file or none; each array carries the zip format's checksum.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from bnnlib.errors import RecordError

logger = logging.getLogger(__name__)

# What numpy and zipfile raise on damaged bytes: RuntimeError for a bit that says "encrypted", its
# NotImplementedError for an unknown compression or version.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)

KEEP = 2  # the newest, and the one before in case the newest cannot be read


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
    except OSError as error:
        raise RecordError(
            f"{path}: could not be written ({error.strerror or error}); what was there before is "
            "unharmed. Make room or choose another place (run_dir, for a run), and start the same "
            "command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be what is missing
            temporary.unlink(missing_ok=True)


def save(directory: Path, state: dict[str, np.ndarray]) -> Path:
    """Writes a state and removes all but the newest :data:`KEEP`.

    Args:
        directory: the run's ``checkpoints`` folder; made if missing.
        state: arrays by name; ``step`` among them names the file.

    Returns:
        The file's path.

    Raises:
        RecordError: the file could not be written.
    """
    path = directory / f"step-{int(state['step']):09d}.npz"
    write_npz(path, state)
    for old in _newest_first(directory)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


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
