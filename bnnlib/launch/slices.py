"""Slices of an allocation: which runs of a study lie side by side on its nodes, and in which order.

A node has as many *slots* as the site puts ranks on it, each with its own cores. A run that needs
fewer ranks takes slots of one node, which it shares with other runs; a larger one takes whole
nodes. Nothing here starts anything: :mod:`bnnlib.launch.pack` runs what this module places, and a
dry run plays it through.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from bnnlib.errors import ExperimentError


@dataclasses.dataclass(frozen=True)
class Need:
    """What a run takes of an allocation.

    Attributes:
        ranks: in all.
        nodes: that they lie on.
        ranks_per_node: on each, at most.
        shares: whether other runs may have the rest of its node.
    """

    ranks: int
    nodes: int
    ranks_per_node: int
    shares: bool


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part of an allocation, for one run.

    Attributes:
        nodes: their numbers, from 0.
        slots: numbers of the slots on its one node; empty: all of each node.
    """

    nodes: tuple[int, ...]
    slots: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """How runs would lie in an allocation if each took its whole walltime.

    Attributes:
        at_once: runs side by side, at most.
        waves: how often runs start.
        seconds: from the first start to the last end.
    """

    at_once: int
    waves: int
    seconds: int


def need_of(ranks: int, nodes: int, slots: int, shared: bool) -> Need:
    """What a run needs at a site.

    Args:
        ranks: of the run in all.
        nodes: that its study asks for; 0: as few as hold the ranks, evenly.
        slots: ranks a node at the site.
        shared: whether the site's launcher can start several runs on one node.
    """
    if nodes == 0 and ranks < slots and shared:
        return Need(ranks, 1, ranks, shares=True)
    nodes = nodes or -(-ranks // slots)
    return Need(ranks, nodes, -(-ranks // nodes), shares=False)


class Room:
    """The slots of an allocation, and which of them are free.

    Args:
        nodes: number of nodes.
        slots: of each.
    """

    def __init__(self, nodes: int, slots: int) -> None:
        self.nodes, self.slots = nodes, slots
        self._free = [set(range(slots)) for _ in range(nodes)]

    def refuse(self, name: object, need: Need) -> None:
        """Refuses a run that the empty allocation could not hold.

        Raises:
            ExperimentError: with the run's name, what it needs, and what there is.
        """
        if need.nodes > self.nodes or need.ranks_per_node > self.slots:
            raise ExperimentError(
                f"{name}: its {need.ranks} ranks need {need.nodes} node(s) with "
                f"{need.ranks_per_node} ranks each, and the job has {self.nodes} node(s) with "
                f"{self.slots} each; give the job more, or the run a job of its own"
            )

    def take(self, need: Need) -> Slice | None:
        """Takes a slice for a run; None where there is no room for it now."""
        if need.shares:
            # The fullest node that has room, so that whole nodes stay free for others.
            fitting = [node for node in range(self.nodes) if len(self._free[node]) >= need.ranks]
            if not fitting:
                return None
            node = min(fitting, key=lambda node: len(self._free[node]))
            slots = sorted(self._free[node])[: need.ranks]
            self._free[node] -= set(slots)
            return Slice((node,), tuple(slots))
        empty = [node for node in range(self.nodes) if len(self._free[node]) == self.slots]
        if len(empty) < need.nodes:
            return None
        chosen = tuple(empty[: need.nodes])
        for node in chosen:
            self._free[node] = set()
        return Slice(chosen, ())

    def give(self, back: Slice) -> None:
        """Gives back what :meth:`take` took."""
        for node in back.nodes:
            self._free[node] |= set(back.slots or range(self.slots))


def in_order(needs: Sequence[Need]) -> list[int]:
    """The numbers of runs in the order in which they are tried: the largest first, then the file's.

    So a large run never waits for ever behind small ones: what starts before it is as large, and
    leaves room for it when it ends.
    """
    size = [(need.nodes, need.ranks) if not need.shares else (0, need.ranks) for need in needs]
    return sorted(range(len(needs)), key=lambda number: size[number], reverse=True)


def place_next(waiting: list[int], needs: Sequence[Need], room: Room) -> tuple[int, Slice] | None:
    """Removes from `waiting` the first run that has room now, and takes its slice.

    Args:
        waiting: numbers of runs, in the order in which they are tried.
        needs: of all runs.
        room: of the allocation.
    """
    for number in waiting:
        place = room.take(needs[number])
        if place is not None:
            waiting.remove(number)
            return number, place
    return None


def forecast(needs: Sequence[Need], seconds: Sequence[int], room: Room) -> Forecast:
    """Plays runs through, each with its walltime.

    Args:
        needs: of the runs, each of which fits.
        seconds: their walltimes.
        room: an empty allocation, which is empty again afterwards.
    """
    waiting, running = in_order(needs), list[tuple[int, int, Slice]]()
    now, at_once, starts = 0, 0, set[int]()
    while waiting or running:
        while (placed := place_next(waiting, needs, room)) is not None:
            heapq.heappush(running, (now + seconds[placed[0]], *placed))
            starts.add(now)
        at_once = max(at_once, len(running))
        now, _, place = heapq.heappop(running)
        room.give(place)
        while running and running[0][0] == now:
            room.give(heapq.heappop(running)[2])
    return Forecast(at_once, len(starts), now)
