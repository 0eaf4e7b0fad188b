"""The cores that the ranks of a host may use: what the launcher, a container or `taskset` leaves.

``os.cpu_count()`` is the machine's number, of which a process may have a part.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from fractions import Fraction

import psutil

from bnnlib import launcher


def threads_of(of_this_rank: Iterable[int], of_ranks: Iterable[Iterable[int]]) -> int:
    """How many threads a rank may take so that a host's ranks together take each core once.

    A launcher that binds gives each rank its own cores; one that does not, the same to all.

    Args:
        of_this_rank: numbers of the cores that this rank may use.
        of_ranks: the same of every rank of the host, this one included.

    Returns:
        The rank's share of each of its cores, summed up and rounded down; at least 1.
    """
    users = collections.Counter(core for cores in of_ranks for core in set(cores))
    return max(1, int(sum(Fraction(1, max(1, users[core])) for core in set(of_this_rank))))


def of_this_process() -> set[int]:
    """The cores that this process may use; all of the machine, where its system binds none."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def of_local_ranks() -> list[set[int]]:
    """The cores that each rank of this host may use, in any order; needs no communication.

    TensorFlow's threads must be set before it runs, and Horovod exchanges nothing before that. So
    this function looks the other ranks up among the system's processes: those that the same process
    of the launcher has started. A rank that cannot be seen, in a container of its own, is taken to
    share this rank's cores.

    Returns:
        One set a rank of this host, as many as the launcher says.
    """
    own_cores, local_size = of_this_process(), launcher.local_size()
    if local_size == 1:
        return [own_cores]
    cores_of_rank: dict[int, set[int]] = {}
    parent = _starter(psutil.Process())
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if launcher.name(environ) == "alone" or _starter(process) != parent:
                continue
            rank, cores = launcher.rank(environ), os.sched_getaffinity(process.pid)
        except (psutil.Error, OSError):  # it has just ended, or is another user's
            continue
        # A rank may have several processes, such as a shell and, bound to less, what it started.
        cores_of_rank[rank] = cores_of_rank.get(rank, cores) & cores
    cores_of_rank[launcher.rank()] = own_cores
    return [*cores_of_rank.values(), *[own_cores] * (local_size - len(cores_of_rank))]


def _starter(process: psutil.Process) -> psutil.Process | None:
    """The process of the launcher that started this one's rank: the first without a rank's name."""
    for above in process.parents():
        try:
            if launcher.name(above.environ()) == "alone":
                return above
        except psutil.AccessDenied:  # Slurm's and ALPS' own are the system's
            return above
    return None
