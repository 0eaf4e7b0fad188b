"""Files that are whole or not there: written beside their name, flushed to the disk, renamed.

Every record, checkpoint and table is written by this module. Arrays are kept in ``.npz`` files,
in which each array carries the zip format's checksum.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import itertools
import os
import secrets
import socket
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from bnnlib.errors import RecordError

# What numpy and zipfile raise on damaged bytes: RuntimeError for a bit that says "encrypted", its
# NotImplementedError for an unknown compression or version, MemoryError for a shape beyond all.
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(MemoryError, OverflowError, struct.error, SyntaxError, TypeError, tokenize.TokenError),
)
# What a file system without it says to an fsync of a folder.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Calls `write` with a new file, which replaces `path` once it is safely on the disk.

    Raises:
        RecordError: the disk is full, the folder is read-only or gone; `path` is as it was.
    """
    # Hosts share the folder, and process ids repeat between them.
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{writer}.tmp")
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
    """Flushes a folder's list of names to the disk: a file's own fsync flushes its content alone.

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
    """Flushes to the disk what was appended to a file; does nothing if the file is missing.

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


@dataclasses.dataclass(frozen=True)
class Found:
    """A file, and the folders above it, as they were before something was written there.

    Attributes:
        file: its path.
        content: its bytes; None where there was no file.
        missing: the folders above it that did not exist, the innermost first.
    """

    file: Path
    content: bytes | None
    missing: tuple[Path, ...]

    @classmethod
    def of(cls, file: Path) -> Found:
        """As they are now."""
        missing = tuple(itertools.takewhile(lambda path: not path.exists(), file.parents))
        return cls(file, file.read_bytes() if file.exists() else None, missing)

    def put_back(self) -> None:
        """Gives the file its bytes again, or removes it.

        Raises:
            RecordError: it cannot be written.
        """
        content = self.content
        if content is not None:
            write_atomically(self.file, lambda file: file.write(content))
        else:
            with contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)

    def remove_folders(self) -> None:
        """Removes the folders that were missing; one that holds something stays."""
        with contextlib.suppress(OSError):
            for folder in self.missing:
                folder.rmdir()


def remove_leftovers(directory: Path) -> None:
    """Removes temporary files of killed writers; only the run's writer may call it."""
    written = ("run.json", "run.lock", "predictions.npz", "laplace.npz", "profile.csv")
    for name in (*written, *(f"{kind}.jsonl" for kind in ("steps", "posterior", "accuracy"))):
        _unlink_all(directory.glob(f".{name}.*.tmp"))
    _unlink_all((directory / "checkpoints").glob(".step-*.npz.*.tmp"))


def _unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8.

    Raises:
        RecordError: as :func:`write_atomically`.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


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
