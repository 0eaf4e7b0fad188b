"""A rank that hangs: a watch on this rank that ends it when nothing has happened for too long.

A rank that waits for another in an allreduce waits for ever, and the one that hangs (a dead file
server, a stopped process) says nothing. Each rank watches itself and needs nobody's answer.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable

from bnnlib.errors import DistributedError

LOOKS = 20  # looks a limit


class Watch:
    """Calls `ended` from a thread once :meth:`alive` has not been called for `limit` seconds.

    Args:
        limit: seconds; 0 or less: never.
        ended: gets the error, which says where the main thread was, and ends the process.
        sign: of life, what :meth:`alive` is called after.
    """

    def __init__(
        self,
        limit: float,
        ended: Callable[[DistributedError], object],
        sign: str = "line of the log",
    ) -> None:
        self._limit, self._ended, self._sign = limit, ended, sign
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._main = threading.get_ident()
        if limit > 0:
            threading.Thread(target=self._watch, name="bnnlib-stall", daemon=True).start()

    def alive(self) -> None:
        """Tells the watch that the rank has got on."""
        self._last = time.monotonic()

    def pause(self) -> None:
        """Pauses the watch until :meth:`alive` is called."""
        self._last = math.inf

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._limit / LOOKS):
            seconds = time.monotonic() - self._last
            if seconds > self._limit:
                frame = sys._current_frames().get(self._main)
                stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
                error = DistributedError(
                    f"no {self._sign} for {seconds:.0f} s (stall_minutes = "
                    f"{self._limit / 60:g}): this rank hangs, or waits for one that does"
                )
                error.add_note(f"The main thread was at\n{stack}")
                self._ended(error)
                return
