"""Stopping in good order: a signal or a deadline asks, all ranks agree on a step, status 75.

SIGTERM and SIGUSR1 are what batch systems send before they kill; a deadline is known beforehand
(``BNN_DEADLINE``, seconds since the epoch). Any of them on any rank asks. The request rides on the
gradients' allreduce, so that all ranks see it after the same step; they write a checkpoint, the
record (status ``stopped``) and the notebook, and leave with :data:`EXIT_CODE`. The same command
started again goes on to the same bits as a run that was never stopped.

Who owns the process listens: the engine ``spmd``, ``python -m bnnlib.training`` and ``python -m
bnnlib.launch.elastic``. In a Jupyter kernel signals stay the kernel's own.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from bnnlib.errors import ExperimentError

# EX_TEMPFAIL of sysexits.h: not done, and the same command again may do it. Job scripts resubmit.
EXIT_CODE = 75
DEADLINE = "BNN_DEADLINE"  # seconds since the epoch at which the run must have ended
MARGIN = "BNN_STOP_MARGIN"  # seconds before it at which the run begins to stop
DEFAULT_MARGIN = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(BaseException):
    """The run was asked to stop, and has; no error, so that no `except Exception` takes it."""


def stop_time(environ: Mapping[str, str] = os.environ) -> float:
    """When the run begins to stop, in seconds since the epoch; infinite without a deadline.

    Raises:
        ExperimentError: a variable is no number.
    """
    if not environ.get(DEADLINE):
        return math.inf
    return _seconds(environ, DEADLINE, "1800000000") - _seconds(environ, MARGIN, "60")


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


class Listener:
    """Hears signals and the clock on this rank, in a thread: the main one may be inside a graph.

    Attributes:
        reason: what asked first, such as ``SIGTERM``; empty while nothing has.
    """

    def __init__(self, stop_at: float) -> None:
        self.reason = ""
        self._stop_at = stop_at
        self._calls: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        # A byte a signal, written by the interpreter's C handler at once; Python's own handlers
        # would have to wait for the main thread.
        self._heard, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._before: dict[int, object] = {}
        if _may_take_signals():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, _nothing)
            signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="bnnlib-stopping", daemon=True).start()

    def call(self, action: Callable[[], object]) -> None:
        """Calls `action`, from another thread, once the run is asked to stop; at once if it was."""
        with self._lock:
            self._calls.append(action)
            if not self.reason:
                return
        action()

    def ask(self, reason: str) -> None:
        """Asks this rank, and through it all ranks, to stop."""
        with self._lock:
            if self.reason:
                return
            self.reason = reason
            calls = list(self._calls)
        for action in calls:
            action()

    def _listen(self) -> None:
        while not self.reason:
            wait = min(self._stop_at - time.time(), 3600.0)
            if wait <= 0:
                self.ask(f"the deadline ({DEADLINE})")
                continue
            ready, _, _ = select.select([self._heard], [], [], wait)
            for number in os.read(self._heard, 1) if ready else b"":
                if number in SIGNALS:
                    self.ask(signal.Signals(number).name)


_LISTENER: Listener | None = None


def listen() -> Listener:
    """This process' listener, started by the first call.

    Raises:
        ExperimentError: the deadline of the environment is no time.
    """
    global _LISTENER
    if _LISTENER is None:
        _LISTENER = Listener(stop_time())
    return _LISTENER


def asked() -> str:
    """What has asked this rank to stop; empty if nothing has, or nobody listens."""
    return _LISTENER.reason if _LISTENER is not None else ""


def when_asked(action: Callable[[], object]) -> None:
    """Calls `action` once this rank is asked to stop, from another thread; at once if it was."""
    if _LISTENER is not None:
        _LISTENER.call(action)


def _nothing(number: int, frame: object) -> None:
    """The thread hears of it through the pipe."""


def _may_take_signals() -> bool:
    """A Jupyter kernel needs SIGTERM for itself; only a main thread can take any."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    main = threading.current_thread() is threading.main_thread()
    return main and not hasattr(shell, "kernel")
