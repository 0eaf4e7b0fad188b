"""What training changes, and the verbs of a method that changes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bnnlib.errors import RecordError
from bnnlib.inference import distributed
from bnnlib.networks import Network, Tensor


class Method(NamedTuple):
    """The verbs by which data become a posterior; each method's module has a ``build`` for them.

    The verbs are those of the library `posteriors`. The trainer averages what `gradient` returns
    over a rank's batches and over ranks, and hands the average to `update`.

    Attributes:
        init: of the weights by name, the method's own variables by name: its state.
        gradient: of one batch, as :func:`bnnlib.inference.objective.gradient`.
        update: of weights, own variables, averaged gradients, the step's number from 1, and the
            learning rate; changes the weights and returns the ops that do so.
    """

    init: Callable[[Mapping[str, tf.Variable]], dict[str, tf.Variable]]
    gradient: Callable[..., tuple[Sequence[Tensor], Tensor, Tensor]]
    update: Callable[..., list[Any]]


class TrainState:
    """All that training changes: data order and weight noise are functions of the step.

    Attributes:
        weights: the network's variables, by name.
        optimizer: the method's own variables, by name.
        step: int64, steps done.
        offset: int64; `step` + `offset` is how many steps the present number of ranks takes from
            the first epoch's start to this place. 0 unless the number of ranks has changed.
        steps_per_epoch: int64, of the present number of ranks.
        sums: float32 ``(4,)``, of the unfinished log line: the sums of loss, nll and kl, and its
            number of steps. They grow one step after another wherever a run is cut, so that a
            resumed run logs the same bits.
        seconds: float64, time that the unfinished line's steps took.
        variables: all of these, by the names that a checkpoint gives them.
    """

    def __init__(self, network: Network, method: Method, steps_per_epoch: int) -> None:
        self.network, self.weights = network, network.named_variables()
        self.optimizer = method.init(self.weights)
        self.step, self.offset, self.steps_per_epoch = (
            tf.Variable(number, trainable=False, dtype=tf.int64)
            for number in (0, 0, steps_per_epoch)
        )
        self.sums = tf.Variable(tf.zeros(4), trainable=False)
        self.seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)
        self.variables: dict[str, tf.Variable] = {
            **self.weights,
            **self.optimizer,
            "line/sums": self.sums,
            "line/seconds": self.seconds,
            "offset": self.offset,
            "steps_per_epoch": self.steps_per_epoch,
            "step": self.step,
        }

    def state(self) -> dict[str, np.ndarray]:
        """Every variable's value by its name: what a checkpoint keeps."""
        return {name: variable.numpy() for name, variable in self.variables.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the values that :meth:`state` returned, on this rank alone.

        A state of another number of ranks is set to the same part of the epochs, to a step.

        Raises:
            RecordError: something of a training state is missing; nothing has been set then.
            ExperimentError: the weights are not this network's; nothing has been set then.
        """
        # Older checkpoints lack these: they were made at lines' ends, and by one number of ranks.
        values: dict[str, np.ndarray] = {
            "line/sums": np.zeros(4, np.float32),
            "line/seconds": np.zeros(()),
            "offset": np.zeros((), np.int64),
            "steps_per_epoch": self.steps_per_epoch.numpy(),
            **state,
        }
        needed = self.variables.keys() - self.weights.keys()
        missing = sorted(needed - values.keys())
        if missing:
            raise RecordError(
                f"no training state: {', '.join(missing)} missing; only what Trainer.state gave "
                "can be restored"
            )
        weights = {name: value for name, value in values.items() if name.startswith("layer")}
        self.network.load_weights(weights)
        step, offset, before = (int(values[name]) for name in ("step", "offset", "steps_per_epoch"))
        values["steps_per_epoch"] = self.steps_per_epoch.numpy()
        values["offset"] = (step + offset) * values["steps_per_epoch"] // before - step
        for name, variable in self.variables.items():
            variable.assign(values[name])

    def broadcast(self) -> None:
        """Sets every variable on all ranks to rank 0's value."""
        distributed.broadcast(self.variables.values(), "state")

    def not_finite(self, loss: float, nll: float, kl: float) -> str:
        """The first of the loss, its terms and the weights that is not finite; empty if all are."""
        if not math.isfinite(loss):
            return f"kl = {kl}" if math.isfinite(nll) else f"nll = {nll}"
        # In a graph TensorFlow fuses matrix product, bias and ReLU to an op that makes NaN 0: the
        # loss of weights that are NaN is finite.
        for name, variable in self.weights.items():
            value = variable.numpy()
            if not np.isfinite(value).all():
                return f"{name} = {value[~np.isfinite(value)][0]}"
        return ""
