"""Cores that ranks may use, by hand and under mpiexec with `taskset`."""

import json
import os
import subprocess
import sys

import pytest

from bnnlib.inference import cores

EIGHT = set(range(8, 16))  # of 64, say


@pytest.mark.parametrize(
    ("of_this_rank", "of_ranks", "threads"),
    [
        (EIGHT, [EIGHT] * 4, 2),  # a cpuset that four ranks share
        (EIGHT, [EIGHT] * 3, 2),
        ({8, 9}, [{8, 9}, {10, 11}, {12, 13}, {14, 15}], 2),  # bound by the launcher
        (EIGHT, [EIGHT], 8),
        ({0}, [{0}] * 4, 1),  # more ranks than cores
        ({0, 1, 2}, [{0, 1, 2}, {2, 3, 4}], 2),  # the one in the middle is shared
        (set(range(9)), [set(range(9))] * 3, 3),
    ],
)
def test_threads_by_hand(of_this_rank, of_ranks, threads):
    assert cores.threads_of(of_this_rank, of_ranks) == threads


def launched(folder, program, *bindings):
    """What `program`, given a fresh folder, prints as JSON on each rank; one for each binding."""
    folder.mkdir()
    words = []
    for binding in bindings:
        words += [":"] if words else []
        words += ["-n", "1", "taskset", "-c", binding, sys.executable, "-c", program, str(folder)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "PMI_"))}
    mpiexec = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    done = subprocess.run(
        [mpiexec, *words], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return sorted(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


PEERS = r"""
import json, os, pathlib, sys, time
from bnnlib import launcher
from bnnlib.inference import cores
folder = pathlib.Path(sys.argv[1])
def meet(what):
    (folder / f"{what}{launcher.rank()}").touch()
    while len(list(folder.glob(f"{what}*"))) < 2:
        time.sleep(0.05)
meet("begin")
found = sorted(map(sorted, cores.of_local_ranks()))
os.write(1, (json.dumps(found) + "\n").encode())
meet("end")
"""
PLACE = r"""
import json, os
import bnnlib
from bnnlib import process
from bnnlib.inference import distributed
from bnnlib.session import Session
ranks = distributed.init(Session())
nice = [os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")]
distributed.gather(None)
line = json.dumps([ranks.rank, ranks.cores, ranks.threads, max(nice)])
os.write(1, (line + "\n").encode())
process.shut_horovod_down()
"""
FIRST, *_, LAST = [str(core) for core in sorted(os.sched_getaffinity(0))] * 2

needs_two = pytest.mark.skipif(FIRST == LAST, reason="this process may use one core only")


@pytest.mark.ranks
@needs_two
def test_ranks_see_what_the_others_are_bound_to(tmp_path):
    bound = sorted([[int(FIRST)], [int(LAST)]])
    assert launched(tmp_path / "apart", PEERS, FIRST, LAST) == [bound, bound]
    both = sorted([int(FIRST), int(LAST)])
    assert (
        launched(tmp_path / "one in two", PEERS, FIRST, f"{FIRST},{LAST}")
        == [sorted([[int(FIRST)], both])] * 2
    )


@pytest.mark.ranks
@needs_two
def test_two_ranks_on_one_of_two_cores_have_one_core(tmp_path):
    """The record says one, so that their times count as no scaling; Horovod's thread gives way."""
    assert launched(tmp_path / "one", PLACE, FIRST, FIRST) == [[0, 1, 1, 19], [1, 1, 1, 19]]
    assert launched(tmp_path / "two", PLACE, FIRST, LAST) == [[0, 2, 1, 19], [1, 2, 1, 19]]
