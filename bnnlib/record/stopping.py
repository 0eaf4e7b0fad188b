"""Stopping in good order: a signal or a deadline asks, all ranks agree on a step, status 75.

SIGTERM and SIGUSR1 are what batch systems send before they kill, SIGHUP comes when the terminal is
closed (unless `nohup` has the process ignore it); a deadline is known beforehand
(``BNN_DEADLINE``, seconds since the epoch). Any of them on any rank asks. The request rides on the
gradients' allreduce, so that all ranks see it after the same step; they write a checkpoint, the
record (status ``stopped``) and the notebook, and leave with :data:`EXIT_CODE`. The same command
started again goes on to the same bits as a run that was never stopped.

The owner of the process listens for signals: papermill's engine ``spmd`` or a command that trains.
A Jupyter kernel keeps its own handling of signals.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bnnlib.errors import ExperimentError

# EX_TEMPFAIL of sysexits.h: not done, and the same command again may do it. Job scripts resubmit.
EXIT_CODE = 75
DEADLINE = "BNN_DEADLINE"  # seconds since the epoch at which the run must have ended
MARGIN = "BNN_STOP_MARGIN"  # seconds before it at which the run begins to stop
DEFAULT_MARGIN = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class Stopped(BaseException):
    """The run has stopped as asked; no error, so that `except Exception` does not catch it."""


def stop_time(environ: Mapping[str, str] = os.environ) -> float:
    """When the run begins to stop, in seconds since the epoch; infinite without a deadline.

    Raises:
        ExperimentError: a variable is no number.
    """
    if not environ.get(DEADLINE):
        return math.inf
    return _seconds(environ, DEADLINE, "1800000000") - margin(environ)


def margin(environ: Mapping[str, str] = os.environ) -> float:
    """How long before the deadline the run begins to stop, in seconds.

    Raises:
        ExperimentError: the variable is no number.
    """
    return _seconds(environ, MARGIN, "60")


def _seconds(environ: Mapping[str, str], name: str, example: str) -> float:
    text = environ.get(name) or str(DEFAULT_MARGIN)
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and value >= 0:
            return value
    raise ExperimentError(
        f"the environment's {name} = {text!r}: expected seconds such as {example}"
        + (" (since the epoch: date +%s)" if name == DEADLINE else "")
    )


class Requests:
    """Requests to stop this rank, and through it all ranks.

    Attributes:
        reason: what asked first, such as ``SIGTERM``; empty while nothing has.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._calls: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        """Calls `action`, from another thread, if the stop is asked for inside; at once if it was.

        After the ``with`` nothing keeps `action` alive, nor the trainer and the data that it holds.
        """
        with self._lock:
            self._calls.append(action)
            asked = bool(self.reason)
        try:
            if asked:
                action()
            yield
        finally:
            with self._lock:
                self._calls.remove(action)

    def ask(self, reason: str) -> None:
        """Asks this rank, and through it all ranks, to stop."""
        with self._lock:
            if self.reason:
                return
            self.reason = reason
            calls = list(self._calls)
        for action in calls:
            action()

    def close(self) -> None:
        """Does nothing here; a :class:`Listener` gives the signals back."""


class Listener(Requests):
    """Hears signals and the clock on this rank, in a thread: the main one may be inside a graph.

    Args:
        stop_at: of :func:`stop_time`.
    """

    def __init__(self, stop_at: float) -> None:
        super().__init__()
        self._stop_at = stop_at
        self._closed = False
        # A byte a signal, written by the interpreter's C handler at once; Python's own handlers
        # would have to wait for the main thread.
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._before: dict[int, Any] = {}
        self._before_told = -1
        if threading.current_thread() is threading.main_thread():  # no other can take signals
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets SIGHUP
                    self._before[number] = signal.signal(number, _nothing)
            self._before_told = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="bnnlib-stopping", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Gives the signals back to who had them before."""
        if self._closed:
            return
        self._closed = True
        if self._before:
            signal.set_wakeup_fd(self._before_told)
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.write(self._told, b"\0")  # no signal has this number: it wakes the thread
        self._thread.join()
        os.close(self._heard)
        os.close(self._told)

    def _listen(self) -> None:
        while not self.reason and not self._closed:
            wait = min(self._stop_at - time.time(), 3600.0)
            if wait <= 0:
                self.ask(f"the deadline ({DEADLINE})")
                continue
            ready, _, _ = select.select([self._heard], [], [], wait)
            for number in os.read(self._heard, 1) if ready else b"":
                if number in SIGNALS:
                    self.ask(signal.Signals(number).name)


def _nothing(number: int, frame: object) -> None:
    """Takes a signal and does nothing: the thread hears of it through the pipe."""
