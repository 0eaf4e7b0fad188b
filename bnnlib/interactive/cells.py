"""Cells on all ranks: what rank 0 shows of them, and the cell magic ``%%ranks``."""

from __future__ import annotations

import sys
from typing import Any, Literal, Protocol

from bnnlib.errors import DistributedError, rank_lost

# What a failed or interrupted cell does to its cluster.
OnError = Literal["close", "keep"]


def shell() -> Any:
    """The notebook's (or terminal's) IPython, None in a plain program."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


class Work:
    """A cell on its way on all ranks.

    Attributes:
        results: one ipyparallel result a rank, in order of rank.
    """

    def __init__(self, results: list[Any]) -> None:
        self.results = results
        self._shown = {"stdout": 0, "stderr": 0, "outputs": 0}

    def show(self) -> None:
        """Shows what rank 0 has printed and displayed since the last call."""
        for name in ("stdout", "stderr"):
            text = getattr(self.results[0], name)[self._shown[name] :]
            self._shown[name] += len(text)
            print(text, end="", file=getattr(sys, name), flush=True)
        for output in self.results[0].outputs[self._shown["outputs"] :]:
            self._shown["outputs"] += 1
            if shell() is not None:
                shell().display_pub.publish(output["data"], output.get("metadata"))

    def done(self) -> bool:
        """Whether every rank has ended the cell, with success or without."""
        return all(result.ready() for result in self.results)

    def errors(self) -> list[tuple[int, BaseException]]:
        """Rank and error of the ranks that have failed so far, causes before consequences."""
        failures = []
        for rank, result in enumerate(self.results):
            if result.ready() and not result.successful():
                error = result.exception()
                failures.append((rank, getattr(error, "elist", [error])[0]))

        def is_consequence(failure: tuple[int, BaseException]) -> bool:
            error = failure[1]
            name = getattr(error, "ename", type(error).__name__)  # as the engine says it
            return rank_lost(name, str(error)) != ""

        return sorted(failures, key=is_consequence)


class Runner(Protocol):
    """The part of a cluster that ``%%ranks`` uses."""

    on_error: OnError

    def submit(self, source: str) -> Work:
        """Sends a cell to all ranks."""

    def wait(self, work: Work | None = None) -> None:
        """Waits until all ranks have ended the cell."""

    def close(self) -> None:
        """Ends the ranks."""


class RanksMagic:
    """``%%ranks`` of one notebook: the last of its open clusters runs the cell.

    IPython holds it as the magic, so that it lives as long as the notebook's kernel.

    Attributes:
        clusters: those that are open, in the order of their start.
    """

    def __init__(self, ipython: Any) -> None:
        """Registers the magic, and what ends the clusters when a cell fails."""
        self.clusters: list[Runner] = []
        ipython.register_magic_function(self.run_cell, "cell", "ranks")
        ipython.events.register("post_run_cell", self._after_cell)

    @classmethod
    def of(cls, ipython: Any) -> RanksMagic:
        """The one that is registered there; made by the first cluster."""
        magic = getattr(ipython.find_cell_magic("ranks"), "__self__", None)
        return magic if isinstance(magic, cls) else cls(ipython)

    def run_cell(self, line: str, cell: str) -> None:
        """``%%ranks``: runs the cell on every rank and shows what rank 0 shows.

        ``%%ranks --no-wait`` leaves the waiting to the cluster's ``wait``.
        """
        if not self.clusters:
            raise DistributedError(
                "%%ranks: no cluster runs, start one with bnnlib.interactive.start"
            )
        if line.strip() not in ("", "--no-wait"):
            raise DistributedError(f"%%ranks {line}: expected nothing or --no-wait after %%ranks")
        cluster = self.clusters[-1]
        work = cluster.submit(cell)
        if not line.strip():
            cluster.wait(work)

    def _after_cell(self, result: Any) -> None:
        if result.success:
            return
        for cluster in [one for one in self.clusters if one.on_error == "close"]:
            cluster.close()
            print("the cell failed, and its cluster is closed: no engine runs", file=sys.stderr)
