"""How a rank leaves so that no other rank waits for it, and how it outlives its terminal."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from bnnlib import launcher

# Seconds that a failed rank other than 0 waits for the launcher to end it. Rank 0 saves the
# notebook meanwhile: a launcher ends all ranks as soon as the first one leaves.
WAIT_FOR_END = 20.0
# Seconds by which rank 0 is ahead where every rank ends by itself, before MPI has started.
AFTER_RANK_0 = 4.0
# Seconds for Horovod to shut down, which waits for ever for a rank that is gone.
WAIT_FOR_SHUTDOWN = 5.0

ERROR_STATUS = 1


class Terminal:
    """A standard stream that ends no run: what the terminal does not take is lost.

    Its reader may have gone (``| head``), its disk may be full, its encoding may lack a character.

    Args:
        stream: of Python; None for one that was closed before the program started.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: SIM115
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def end(self) -> None:
        """Flushes for the last time; what is left goes nowhere, lest Python's exit fail on it."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def steady_terminal() -> Iterator[None]:
    """Inside, no output to the terminal raises an error; what cannot be written is lost."""
    _open_closed_descriptors()
    names = ("stdout", "stderr", "__stdout__", "__stderr__")
    before = {name: getattr(sys, name) for name in names}
    steady = {id(stream): Terminal(stream) for stream in before.values()}
    for name, stream in before.items():
        setattr(sys, name, steady[id(stream)])
    try:
        yield
    finally:
        for terminal in steady.values():
            terminal.end()
        for name, stream in before.items():
            setattr(sys, name, stream)


def namespace() -> tuple[str, int]:
    """Where this process' id is valid: the host, and on Linux its namespace of process ids."""
    try:
        return socket.gethostname(), os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return socket.gethostname(), 0


def _open_closed_descriptors() -> None:
    """Opens what was closed of 0, 1, 2: the next file would get the number, and others' output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def horovod() -> Any:
    """`horovod.tensorflow` if this process has it up, else None."""
    hvd = sys.modules.get("horovod.tensorflow")
    return hvd if hvd is not None and hvd.is_initialized() else None


def world_size() -> int:
    """How many ranks run, as the launcher or Horovod says."""
    hvd = horovod()
    return max(launcher.size(), hvd.size() if hvd is not None else 1)


def shut_horovod_down(limit: float = WAIT_FOR_SHUTDOWN) -> bool:
    """Make every operation that waits on any rank fail now, instead of waiting for ever.

    Args:
        limit: Seconds to wait for Horovod, which itself waits for ever for a rank that is gone.

    Returns:
        Whether Horovod is down; if not, a thread of this process still waits for it.
    """
    hvd = horovod()
    if hvd is None:
        return True
    shutdown = threading.Thread(target=hvd.shutdown, name="bnnlib-shutdown", daemon=True)
    shutdown.start()
    shutdown.join(limit)
    return not shutdown.is_alive()


def leave(exit_code: int) -> NoReturn:
    """End this process at once: Python's own exit would wait for MPI, Horovod and threads."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or a pipe without a reader
                stream.flush()
    os._exit(exit_code)


def fail(error: BaseException) -> NoReturn:
    """Print an error that ends this rank, and leave so that the launcher ends all ranks."""
    text = "".join(traceback.format_exception(error))
    lines = "".join(f"[rank {launcher.rank()}] {line}\n" for line in text.splitlines())
    Terminal(sys.stderr).write(lines)
    leave(ERROR_STATUS)


def let_rank_0_say_it() -> None:
    """Waits on all other ranks, which meet the same error before MPI has started.

    Horovod's launcher ends all ranks with the first: another would take rank 0's sentence with it.
    """
    if launcher.rank() != 0:
        time.sleep(AFTER_RANK_0)


def abort(exit_code: int = ERROR_STATUS) -> NoReturn:
    """End all ranks because of an error on this one; for code outside notebooks.

    Horovod's pending operations fail on all ranks, so that each gets to its own error handling.
    Ranks other than 0 then wait up to `WAIT_FOR_END` seconds for rank 0 to save what it has to and
    for the launcher to end them; rank 0 leaves at once. Print the error before calling this.

    Args:
        exit_code: This process's exit status, 1 to 255.

    Raises:
        ValueError: `exit_code` would look like success to the launcher.
    """
    if not 1 <= exit_code <= 255:
        raise ValueError(f"exit_code is {exit_code}, expected 1 to 255: 0 would tell of success")
    shut_horovod_down()
    if launcher.size() > 1 and launcher.rank() != 0:
        time.sleep(WAIT_FOR_END)
    leave(exit_code)
