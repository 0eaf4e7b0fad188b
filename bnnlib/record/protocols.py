"""What a run needs from the floors above it: its process' session, its ranks and its trainer.

The record lies below what trains and communicates, so that it can be read without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from bnnlib.record.logs import LayerLog, Log, StepLog
from bnnlib.record.startup import Clock
from bnnlib.record.stopping import Requests
from bnnlib.record.watchdog import Watch

Value = TypeVar("Value")


class Session(Protocol):
    """:class:`bnnlib.session.Session`."""

    clock: Clock
    requests: Requests
    runs: list[Any]  # of bnnlib.record.run.Run

    def watch(self, minutes: float) -> Watch:
        """A watch that ends this process when nothing has happened for so long."""


class Ranks(Protocol):
    """:class:`bnnlib.inference.distributed.Ranks`."""

    @property
    def rank(self) -> int:
        """This process' number, 0 to size - 1."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    @property
    def threads(self) -> int:
        """TensorFlow threads inside an op."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The nodes' names, one a node."""

    @property
    def cores(self) -> int:
        """Cores of this node that the ranks may use."""

    def agree(self, action: Callable[[], Value]) -> Value:
        """Runs `action` on every rank; if it fails on any, every rank raises."""

    def gather(self, value: Value) -> list[Value]:
        """Every rank's `value`, in order of rank, on every rank."""

    def refuse_difference(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Holds arrays that must be the same on all ranks equal bit by bit."""

    def start_timeline(self, path: str) -> None:
        """The communication library writes its timeline to `path` from now on."""

    def stop_timeline(self) -> None:
        """Ends what `start_timeline` began."""

    def build_info(self) -> dict[str, Any]:
        """The communication library's build and settings."""


class Scalars(Protocol):
    """:class:`bnnlib.inference.tensorboard.Scalars`."""

    def write(self, lines: Iterable[Log]) -> None:
        """Appends what TensorBoard shows of some lines."""

    def close(self) -> None:
        """Closes the file."""


class Trainer(Protocol):
    """:class:`bnnlib.inference.trainer.Trainer`."""

    stopped: bool
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def position(self) -> int:
        """Steps from the first epoch's start to where the run is."""

    @property
    def bytes_a_step(self) -> int:
        """The bytes that a rank gives to the average each step."""

    def run(self, until: Callable[[], bool]) -> Iterator[StepLog]:
        """Trains, a log line at a time."""

    def ask_to_stop(self) -> None:
        """Ends `run` on all ranks after their present step; any thread may call it."""

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that a checkpoint keeps, by name."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the values that `state` returned, on this rank."""

    def broadcast(self) -> None:
        """Gives rank 0's state to all."""

    def take_stamps(self) -> np.ndarray:
        """The stamps of the steps since the last call."""

    def layer_logs(self) -> list[LayerLog]:
        """The present posterior of each Bayesian layer; none for a deterministic network."""

    def accuracy_of_means(self) -> float:
        """The test accuracy of the network of the posterior's means."""

    def validation_nll(self) -> float:
        """The NLL of images that training does not see."""

    def scalars(self, directory: Path) -> Scalars:
        """What writes scalars for TensorBoard into a run's directory."""
