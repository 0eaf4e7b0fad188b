"""What training changes, and the verbs of a method that changes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bnnlib.errors import RecordError
from bnnlib.inference import distributed
from bnnlib.inference.virtual_ranks import Batches
from bnnlib.networks import Draw, Network, Posterior, Tensor


class Method(NamedTuple):
    """The verbs by which data become a posterior; each method's module has a ``build`` for them.

    The verbs are those of the library `posteriors`. The trainer averages what `gradient` returns
    over ranks, and hands the average to `update`.

    Attributes:
        init: of the weights by name, the method's own variables by name: its state.
        gradient: of one step's batches on this process, as
            :func:`bnnlib.inference.objective.gradient`: tensors to average, nll, kl.
        update: of weights, own variables, averaged tensors, the step's number from 1, and the
            learning rate; changes the weights and returns the ops that do so.
        sent: of the weights by name, tensors of the shapes that `gradient` returns.
        posterior: of the network and the method's own variables, what the network's draws come
            from; None where each Bayesian layer has its posterior.
        epoch_ended: of weights, own variables and the share of the run's epochs that are over;
            changes own variables at an epoch's end, on each rank for itself.
    """

    init: Callable[[Mapping[str, tf.Variable]], dict[str, tf.Variable]]
    gradient: Callable[[Network, Batches, Tensor, int], tuple[list[Tensor], Tensor, Tensor]]
    update: Callable[..., list[Any]]
    sent: Callable[[Mapping[str, tf.Variable]], list[Any]] = lambda weights: list(weights.values())
    posterior: Callable[[Network, Mapping[str, tf.Variable]], Posterior | None] = (
        lambda network, own: None
    )
    epoch_ended: Callable[[Mapping[str, tf.Variable], Mapping[str, tf.Variable], float], None] = (
        lambda weights, own, share: None
    )


def by_layer(weights: Mapping[str, Tensor]) -> list[Draw]:
    """Tensors by the names of a network's variables, such as ``layer0/kernel``, as a draw."""
    layers: dict[str, Draw] = {}
    for name, tensor in weights.items():
        layer, _, of_layer = name.partition("/")
        layers.setdefault(layer, {})[of_layer] = tensor
    return list(layers.values())


class TrainState:
    """All that training changes: data order and weight noise are functions of the step.

    Attributes:
        weights: the network's variables, by name.
        optimizer: the method's own variables, by name.
        step: int64, steps done.
        offset: int64; `step` + `offset` is how many steps the present number of virtual ranks takes
            from the first epoch's start to this place. 0 unless that number has changed.
        steps_per_epoch: int64, of the present number of virtual ranks.
        virtual_ranks: int64, on all processes.
        sums: float32 ``(4,)``, of the unfinished log line: the sums of loss, nll and kl, and its
            number of steps. They grow one step after another wherever a run is cut, so that a
            resumed run logs the same bits.
        seconds: float64, time that the unfinished line's steps took.
        variables: all of these, by the names that a checkpoint gives them.
    """

    def __init__(self, network: Network, method: Method) -> None:
        self.network, self.weights = network, network.named_variables()
        self.optimizer = method.init(self.weights)
        network.posterior = method.posterior(network, self.optimizer)
        self.step, self.offset, self.steps_per_epoch, self.virtual_ranks = (
            tf.Variable(0, trainable=False, dtype=tf.int64) for _ in range(4)
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
            "virtual_ranks": self.virtual_ranks,
        }

    def state(self) -> dict[str, np.ndarray]:
        """Every variable's value by its name: what a checkpoint keeps."""
        return {name: variable.numpy() for name, variable in self.variables.items()}

    def carry(self, virtual_ranks: int, steps_per_epoch: int) -> None:
        """Goes on with so many virtual ranks on all processes, at the same part of the epochs."""
        before = int(self.steps_per_epoch.numpy())
        if before not in (0, steps_per_epoch):
            step, position = (int(v.numpy()) for v in (self.step, self.step + self.offset))
            self.offset.assign(position * steps_per_epoch // before - step)
        self.steps_per_epoch.assign(steps_per_epoch)
        self.virtual_ranks.assign(virtual_ranks)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets the values that :meth:`state` returned, on this rank alone.

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
            "virtual_ranks": self.virtual_ranks.numpy(),
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
