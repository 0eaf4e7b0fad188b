"""How a rank leaves: a Horovod that cannot shut down does not hold it."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = """
import os, signal, sys, time
import bnnlib
from bnnlib import process
from bnnlib.inference import distributed
from bnnlib.session import Session
ranks = distributed.init(Session(), threads=1)
pids = distributed.gather(os.getpid())
if ranks.rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)  # as a rank whose node hangs
    time.sleep(60)
    process.leave(0)
time.sleep(1)
began = time.monotonic()
print("down:", process.shut_horovod_down(limit=1.0))
print("seconds:", round(time.monotonic() - began))
if sys.argv[1] == "exec":
    os.execv(sys.executable, [sys.executable, "-c", f"import os; os.kill({pids[1]}, 9)"])
os.kill(pids[1], signal.SIGKILL)
process.leave(0)
"""


@pytest.mark.ranks
@pytest.mark.parametrize("way", ["leave", "exec"])
def test_a_rank_that_hangs_does_not_hold_the_shutdown_of_another(
    launch: Callable[..., Any], way: str
) -> None:
    done = launch("mpiexec", "-n", 2, sys.executable, "-c", SCRIPT, way)
    assert "down: False\nseconds: 1\n" in done.stdout, done.stdout + done.stderr
