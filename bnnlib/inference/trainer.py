"""Distributed variational training, the whole of it: objective, data order, Horovod's steps, loop.

With N training images, a batch of b images a rank and R ranks, the loss on a rank is

    mean over its b images of -log p(y | x, w)  +  kl_weight * KL(q || p) / N,    w ~ q,

the negative ELBO per training image (Graves 2011, equation 8; Blundell et al. 2015, equation 3).
Gradients are averaged over ranks, so KL is divided by N, never by b R, R or the size of a shard:
the expectation of the averaged gradient is that of one rank with a batch of b R images.

The seed study's command line runs here: ``python -m bnnlib.training --flagfile=config.cfg``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset, epoch_batches, steps_per_epoch
from bnnlib.errors import BnnlibError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.step_clock import StepClock
from bnnlib.networks import TRAINING, Network, Tensor, plain, stream_key, to_inputs
from bnnlib.record import startup
from bnnlib.record.logs import StepLog
from bnnlib.record.profile import STAMPS

# Adam's constants (Kingma and Ba 2015), Keras' defaults.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


class DivergedError(BnnlibError, ArithmeticError):
    """The loss or a weight is no finite number."""


def objective(
    network: Network,
    images: Tensor,
    labels: Tensor,
    seeds: list[Tensor],
    kl_weight: Tensor,
    num_train_examples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss on one rank.

    Args:
        network: whose posterior is q.
        images: float32 ``(batch, height, width, channels)``.
        labels: int ``(batch,)``.
        seeds: one int64 ``(2,)`` a weight draw; the likelihood term is the mean over the draws.
        kl_weight: factor on KL/N.
        num_train_examples: N, the size of the whole training set.

    Returns:
        Scalars: loss and nll (nats an image), kl (nats).
    """
    stddevs = network.stddevs()  # once, for the draws and for the KL
    nll = tf.add_n(
        [
            tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=network(images, seed, stddevs)
                )
            )
            for seed in seeds
        ]
    ) / len(seeds)
    kl = network.kl(stddevs)
    return nll + kl_weight * kl / num_train_examples, nll, kl


class Trainer:
    """A network in training on one rank: weights, Adam's moments, and the number of steps done.

    Attributes:
        step: steps done; with the weights, the moments and the sums of an unfinished line the whole
            state, since data order and weight noise are functions of it.
        offset: by how many steps the run is further in its epochs than its steps say; 0 unless it
            was continued with another number of ranks, which take another number of steps.
        stopped: whether a rank was asked to stop (:mod:`bnnlib.record.stopping`), and so all have.
        num_steps: steps of the whole run.
        steps_per_epoch: steps a pass over the training set, the same on all ranks.
        images_a_step: of this rank; batch_size times accumulate.
        stamps: with `profile`, of each step since :meth:`take_stamps`, the borders of
            :data:`bnnlib.record.profile.STAMPS`.
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset, network: Network, ranks: Ranks
    ) -> None:
        self.experiment, self.dataset, self.network, self.ranks = (
            experiment,
            dataset,
            network,
            ranks,
        )
        startup.reached("data")
        self.step, self.offset, self.stopped = 0, 0, False
        self.stamps: list[np.ndarray] = []
        # A rank's batches of one step lie together in the epoch's order.
        self.images_a_step = experiment.batch_size * experiment.accumulate
        self.steps_per_epoch = steps_per_epoch(
            dataset.num_train_examples, self.images_a_step, ranks.size
        )
        self.num_steps = experiment.steps or experiment.epochs * self.steps_per_epoch
        self.variables = network.trainable_variables
        self.moments = [
            tf.Variable(tf.zeros_like(variable), trainable=False)
            for _ in range(2)
            for variable in self.variables
        ]
        # Of the unfinished line: sums of loss, nll and kl, and its steps. Summed up one step after
        # another wherever a run is cut, so that a resumed one logs the same bits.
        self.sums = tf.Variable(tf.zeros(4), trainable=False)
        self.line_seconds = 0.0
        self.stop = tf.Variable(0.0, trainable=False)  # 1 once this rank is asked to
        # `noise: shared` gives all ranks rank 0's stream: same perturbation, other images.
        noise_rank = ranks.rank if experiment.noise == "independent" else 0
        self.noise_key = stream_key(experiment.seed, TRAINING, noise_rank)
        # The data set stays where the steps run, in its own type: uint8 is a quarter of float32.
        self.images = tf.constant(dataset.x_train)
        self.labels = tf.constant(dataset.y_train.astype(np.int32))
        self._run_steps = tf.function(
            self._steps,
            input_signature=[
                tf.TensorSpec([None, self.images_a_step], tf.int32),
                tf.TensorSpec([], tf.int64),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ],
        )
        self.broadcast()

    def broadcast(self) -> None:
        """Horovod's step 1: every rank starts from rank 0's weights and optimizer state.

        Ranks build equal weights from one seed already; a checkpoint, though, is read by rank 0
        alone, and builds of TensorFlow may differ between the nodes of a cluster.
        """
        place = tf.Variable([self.step, self.offset, self.num_steps], dtype=tf.int64)
        distributed.broadcast([*self.variables, *self.moments, self.sums, place], "state")
        self.step, self.offset, self.num_steps = map(int, place.numpy())

    @property
    def position(self) -> int:
        """Steps of this number of ranks from the first epoch's start to where the run is."""
        return self.step + self.offset

    def run(self, until: Callable[[], bool] = lambda: False) -> Iterator[StepLog]:
        """Trains to the end, a log line at a time; lines end at `log_every` and at epochs' ends.

        Args:
            until: asked after each line; True ends the run there. All ranks must answer alike.

        Yields:
            A line; on all ranks the same numbers, but for its times. Steps between the last line
            and a stop are in the state: their line comes when the run is resumed.

        Raises:
            DivergedError: the loss or a weight is not finite, on all ranks at one line.
        """
        warmup, self.stopped = True, False
        if self.step < self.num_steps:
            self._run_steps.get_concrete_function()  # traced before the clock runs
            startup.reached("trace")
        while self.step < self.num_steps:
            epoch, first = divmod(self.position, self.steps_per_epoch)
            batches = epoch_batches(
                self.dataset.num_train_examples,
                self.images_a_step,
                self.ranks.size,
                self.ranks.rank,
                self.experiment.seed,
                epoch,
            )
            while first < self.steps_per_epoch and self.step < self.num_steps:
                last = min(
                    self._next_line(first), self.steps_per_epoch, first + self.num_steps - self.step
                )
                done, rate = self.train(batches[first:last])
                first += done
                if first == last:
                    yield self._line(rate, warmup)
                    warmup = False
                if self.stopped or until():
                    return

    @property
    def bytes_a_step(self) -> int:
        """What a rank gives to the average each step: the gradients, the nll and the stop."""
        entry = 2 if self.experiment.compression == "fp16" else 4
        return entry * (2 + sum(math.prod(variable.shape) for variable in self.variables))

    def take_stamps(self) -> np.ndarray:
        """The stamps since the last call, float64 ``(steps, 5)``; needs `profile`."""
        taken, self.stamps = self.stamps, []
        return np.concatenate([np.zeros((0, len(STAMPS))), *taken])

    def ask_to_stop(self) -> None:
        """Ends :meth:`run` on all ranks after the step that they are at; for any thread."""
        self.stop.assign(1.0)

    def state(self) -> dict[str, np.ndarray]:
        """Everything a checkpoint needs: weights, both Adam moments, step, an unfinished line."""
        weights = self.network.weights()
        names = [f"adam{order}/{index}" for order in (1, 2) for index in range(len(self.variables))]
        moments = {name: moment.numpy() for name, moment in zip(names, self.moments, strict=True)}
        line = {"line/sums": self.sums.numpy(), "line/seconds": np.asarray(self.line_seconds)}
        place = {"offset": self.offset, "steps_per_epoch": self.steps_per_epoch, "step": self.step}
        return {**weights, **moments, **line, **{k: np.asarray(v) for k, v in place.items()}}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Sets what :meth:`state` gave, on this rank; :meth:`broadcast` gives it to the others.

        Raises:
            RecordError: something of a training state is missing; nothing has been set then.
            ExperimentError: the weights are not this network's; nothing has been set then.
        """
        count = len(self.variables)
        names = [f"adam{1 + index // count}/{index % count}" for index in range(2 * count)]
        missing = [name for name in [*names, "step"] if name not in state]
        if missing:
            raise RecordError(
                f"no training state: {', '.join(missing)} missing; only what Trainer.state gave "
                "can be restored"
            )
        weights = {name: value for name, value in state.items() if name.startswith("layer")}
        self.network.load_weights(weights)
        for name, moment in zip(names, self.moments, strict=True):
            moment.assign(state[name])
        self.step = int(state["step"])
        # Of another number of ranks: the same part of the epochs is done, to a step.
        before = int(state.get("steps_per_epoch", self.steps_per_epoch))
        position = self.step + int(state.get("offset", 0))
        self.offset = position * self.steps_per_epoch // before - self.step
        if not self.experiment.steps:
            self.num_steps = self.experiment.epochs * self.steps_per_epoch - self.offset
        # Checkpoints were made at lines' ends only before they held these two.
        self.sums.assign(state.get("line/sums", np.zeros(4, np.float32)))
        self.line_seconds = float(state.get("line/seconds", 0.0))

    def learning_rate(self, steps: np.ndarray) -> np.ndarray:
        """The rate at each of `steps` (numbers of steps done before): warm-up, then constant."""
        factor = self.experiment.learning_rate_factor(self.ranks.size)
        share = _ramp(steps + self.offset, self.experiment.warmup_epochs * self.steps_per_epoch)
        return self.experiment.learning_rate * (1 + (factor - 1) * share)

    def kl_weight(self, steps: np.ndarray) -> np.ndarray:
        """The weight of KL/N at each of `steps`: annealed linearly from 0, then constant."""
        share = _ramp(
            steps + self.offset, self.experiment.kl_annealing_epochs * self.steps_per_epoch
        )
        return self.experiment.kl_weight * share

    def _next_line(self, first: int) -> int:
        every = self.experiment.log_every
        return (first // every + 1) * every

    def train(self, batches: np.ndarray) -> tuple[int, float]:
        """Takes a step a batch, fewer if a rank is asked to stop: how many, and the last's rate."""
        steps = np.arange(self.step, self.step + len(batches))
        rates = self.learning_rate(steps)
        started, before = time.perf_counter(), self.sums.numpy()
        sums, stop, stamps = (
            tensor.numpy()
            for tensor in self._run_steps(
                tf.constant(batches),
                tf.constant(self.step, tf.int64),
                tf.constant(rates, tf.float32),
                tf.constant(self.kl_weight(steps), tf.float32),
            )
        )
        self.line_seconds += time.perf_counter() - started
        done, self.stopped = int(sums[3] - before[3]), bool(stop > 0)
        self.stamps += [stamps[:done]] if self.experiment.profile else []
        wrong = self._not_finite(*(float(term) for term in sums[:3] / sums[3]))
        if wrong:
            # The nll is an average over ranks and their weights are equal, so every rank raises.
            raise DivergedError(
                f"{wrong} within steps {self.step + 1} to "
                f"{self.step + done}: training diverged at learning rate {rates[done - 1]:.3g}, "
                f"{self.ranks.size} rank(s); lower learning_rate or lengthen warmup_epochs"
            )
        self.step += done
        return done, float(rates[done - 1])

    def _line(self, rate: float, warmup: bool) -> StepLog:
        """The line of the steps summed up since the one before."""
        loss, nll, kl, count = (float(term) for term in self.sums.numpy())
        seconds, self.line_seconds = self.line_seconds, 0.0
        self.sums.assign(tf.zeros(4))
        return StepLog(
            step=self.step,
            epoch=self.position / self.steps_per_epoch,
            loss=loss / count,
            nll=nll / count,
            kl=kl / count,
            learning_rate=rate,
            images_per_second=count * self.images_a_step * self.ranks.size / seconds,
            seconds=seconds,
            warmup=warmup,
        )

    def _not_finite(self, loss: float, nll: float, kl: float) -> str:
        """What is no finite number, with its value; empty if all is well."""
        if not math.isfinite(loss):
            return f"kl = {kl}" if math.isfinite(nll) else f"nll = {nll}"
        # In a graph TensorFlow fuses matrix product, bias and ReLU to an op that makes NaN 0: the
        # loss of weights that are NaN is finite.
        for name, value in self.network.weights().items():
            if not np.isfinite(value).all():
                return f"{name} = {value[~np.isfinite(value)][0]}"
        return ""

    def _steps(
        self, batches: Tensor, first_step: Tensor, rates: Tensor, kl_weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Several steps inside one graph, up to a stop: the line's sums, the stop, and stamps."""
        sums, stop = tf.identity(self.sums), tf.zeros([])
        count = tf.shape(batches)[0]
        kept = count if self.experiment.profile else 0
        stamps = tf.TensorArray(tf.float64, size=kept, element_shape=[len(STAMPS)])
        previous = tf.zeros([], tf.float64)
        for index in tf.range(count):
            step = first_step + tf.cast(index, tf.int64)
            clock = StepClock(self.experiment.profile)
            with clock.after(previous):
                terms, stop = self._one_step(
                    batches[index], step, rates[index], kl_weights[index], clock
                )
            sums += terms
            if self.experiment.profile:
                stamps = stamps.write(index, tf.stack(clock.stamps))
                previous = clock.stamps[-1]
            if stop > 0:
                break
        self.sums.assign(sums)
        return sums, stop, stamps.stack()

    def _one_step(
        self, batch: Tensor, step: Tensor, rate: Tensor, kl_weight: Tensor, clock: StepClock
    ) -> tuple[Tensor, Tensor]:
        images, labels = tf.gather(self.images, batch), tf.gather(self.labels, batch)
        with clock.after(images, labels):
            gradients, nll, kl = self._gradients(images, labels, step, kl_weight)
            stop = self.stop.read_value()
        if self.ranks.size > 1:
            # Horovod's step 2: average the gradients. Packed in one tensor, since a step's cost is
            # the negotiation of each tensor, not its bytes; the nll rides along for the log, and
            # the wish of any rank to stop, which so all see at one step.
            packed = tf.concat([*(tf.reshape(g, [-1]) for g in gradients), [nll, stop]], 0)
            with clock.after(packed):
                packed = distributed.average(packed, "gradients", self.experiment.compression)
            with clock.after(packed):
                sizes = [math.prod(variable.shape) for variable in self.variables]
                *parts, last = tf.split(packed, [*sizes, 2])
                nll, stop = last[0], last[1]
                gradients = [
                    tf.reshape(part, variable.shape)
                    for part, variable in zip(parts, self.variables, strict=True)
                ]
        elif self.experiment.profile:
            for _ in range(2):  # the same stamps without an average between them
                with clock.after(*gradients):
                    gradients = [tf.identity(gradient) for gradient in gradients]
        updates = self._adam(gradients, tf.cast(step, tf.float32) + 1.0, rate)
        with clock.after(*updates):
            loss = nll + kl_weight * kl / self.dataset.num_train_examples
            return tf.stack([loss, nll, kl, 1.0]), stop

    def _gradients(
        self, images: Tensor, labels: Tensor, step: Tensor, kl_weight: Tensor
    ) -> tuple[Sequence[Tensor], Tensor, Tensor]:
        """This rank's gradient of the loss; nll and kl. The mean over the batches it accumulates.

        Every batch draws weights of its own, as it would on another rank; its part of KL/N is the
        same each time, so that the mean over batches counts it once.
        """
        count = self.experiment.accumulate
        gradients, nll, kl = self._batch_gradients(
            images[: self.experiment.batch_size],
            labels[: self.experiment.batch_size],
            step * count,
            kl_weight,
        )
        if count > 1:
            # One after another in a loop: the memory of activations is that of one batch.
            for index in tf.range(1, count):
                first = index * self.experiment.batch_size
                more, more_nll, kl = self._batch_gradients(
                    images[first : first + self.experiment.batch_size],
                    labels[first : first + self.experiment.batch_size],
                    step * count + tf.cast(index, tf.int64),
                    kl_weight,
                )
                gradients = tuple([a + b for a, b in zip(gradients, more, strict=True)])
                nll += more_nll
            gradients = tuple([gradient / count for gradient in gradients])
            nll /= count
        return gradients, nll, kl

    @plain
    def _batch_gradients(
        self, images: Tensor, labels: Tensor, index: Tensor, kl_weight: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        draws = self.experiment.train_draws if self.network.is_stochastic else 1
        seeds = [tf.stack([self.noise_key, index * draws + draw]) for draw in range(draws)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.variables)
            loss, nll, kl = objective(
                self.network,
                to_inputs(images, self.dataset),
                labels,
                seeds,
                kl_weight,
                self.dataset.num_train_examples,
            )
        return tape.gradient(loss, self.variables), nll, kl

    @plain
    def _adam(self, gradients: Sequence[Tensor], count: Tensor, rate: Tensor) -> list[Any]:
        """One step of Adam by TensorFlow's fused kernel; the same on all ranks. Returns its ops."""
        powers = tf.pow([BETA_1, BETA_2], count)
        first, second = self.moments[: len(self.variables)], self.moments[len(self.variables) :]
        return [
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=m.handle,
                v=v.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=gradient,
            )
            for variable, m, v, gradient in zip(
                self.variables, first, second, gradients, strict=True
            )
        ]


def _ramp(steps: np.ndarray, length: float) -> np.ndarray:
    """From 1/length at step 0 to 1 at `length` and after; 1 throughout for length 0."""
    return np.minimum(1.0, (steps + 1) / length) if length > 0 else np.ones(len(steps))
