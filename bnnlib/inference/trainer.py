"""The training page: what training changes, a step from its images to its update, and the loop.

:mod:`bnnlib.inference.objective` has the loss and its gradient. A step averages the gradients of
all virtual ranks (:mod:`bnnlib.inference.virtual_ranks`) on all ranks, and a method
(:mod:`bnnlib.inference.methods`) changes the weights by that average, alike on all ranks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset, epoch_batches, steps_per_epoch, told_waste
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference import evaluation, laplace, methods, schedules
from bnnlib.inference.distributed import Message, Ranks
from bnnlib.inference.state import TrainState
from bnnlib.inference.step_clock import StepClock
from bnnlib.inference.tensorboard import Scalars
from bnnlib.inference.virtual_ranks import VirtualRanks
from bnnlib.networks import Network, Tensor, graph, posterior
from bnnlib.record.logs import LayerLog, StepLog
from bnnlib.record.profile import STAMPS
from bnnlib.session import Session

logger = logging.getLogger(__name__)


class DivergedError(BnnlibError, ArithmeticError):
    """The loss or a weight is no finite number."""


class Trainer:
    """One run's training on one rank.

    Attributes:
        train_state: all that training changes.
        stopped: whether a rank was asked to stop (:mod:`bnnlib.record.stopping`), and so all have.
        virtual_ranks: that this rank carries.
        steps_per_epoch: steps a pass over the training set, the same on all ranks.
    """

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        network: Network,
        ranks: Ranks,
        session: Session | None = None,
    ) -> None:
        self.session = session or Session()
        self.session.clock.reached("data")
        self.experiment, self.dataset, self.ranks = experiment, dataset, ranks
        self.network = network
        self.method = methods.build_for(experiment, network, dataset.num_train_examples)
        self.train_state = TrainState(network, self.method)
        laplace.refuse_unfit(experiment, network, dataset.num_train_examples)
        self.message = Message(ranks.size, experiment.compression, num_scalars=2)
        self.validation_predictor = evaluation.validation_predictor(experiment, network, dataset)
        self.stopped, self.stamps = False, list[np.ndarray]()
        self.stop = tf.Variable(0.0, trainable=False)  # 1 once this rank is asked to
        # The data set stays where the steps run, in its own type: uint8 is a quarter of float32.
        self.images = tf.constant(dataset.x_train)
        self.labels = tf.constant(dataset.y_train.astype(np.int32))
        self._carry(experiment.virtual_ranks_of(ranks.size))
        if ranks.rank == 0 and (waste := self._told_waste()):
            logger.warning("%s", waste)
        # Ranks build equal weights from one seed, but builds of TensorFlow may differ between the
        # nodes of a cluster.
        self.broadcast()

    def _carry(self, count: int) -> None:
        """Goes on with `count` virtual ranks on this process, as on every other."""
        self.virtual_ranks = VirtualRanks(
            self.experiment, self.dataset, self.network, self.ranks, count
        )
        self.steps_per_epoch = steps_per_epoch(
            self.dataset.num_train_examples, self.experiment.batch_size, self.virtual_ranks.total
        )
        self.train_state.carry(self.virtual_ranks.total, self.steps_per_epoch)
        self._updates = graph(
            self.updates,
            input_signature=[
                tf.TensorSpec([None, self.virtual_ranks.images_a_step], tf.int32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([None], tf.float32),
            ],
        )

    def _told_waste(self) -> str:
        batch_size, total = self.experiment.batch_size, self.virtual_ranks.total
        return told_waste(self.dataset.num_train_examples, batch_size, total)

    # ----- the loop: from epochs to lines, from lines to steps

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
            self._updates.get_concrete_function()  # traced before the clock runs
            self.session.clock.reached("trace")
        while self.step < self.num_steps:
            epoch, first = divmod(self.position, self.steps_per_epoch)
            batches = epoch_batches(
                self.dataset.num_train_examples,
                self.virtual_ranks.images_a_step,  # a process' batches lie together in the order
                self.ranks.size,
                self.ranks.rank,
                self.experiment.seed,
                epoch,
            )
            every = self.experiment.log_every
            while first < self.steps_per_epoch and self.step < self.num_steps:
                last = min(
                    (first // every + 1) * every,
                    self.steps_per_epoch,
                    first + self.num_steps - self.step,
                )
                done, rate = self.train(batches[first:last])
                first += done
                if first == self.steps_per_epoch:
                    share = self.position / (self.num_steps + self.position - self.step)
                    state = self.train_state
                    self.method.epoch_ended(state.weights, state.optimizer, share)
                if first == last:
                    yield self._line(rate, warmup)
                    warmup = False
                if self.stopped or until():
                    return

    def train(self, batches: np.ndarray) -> tuple[int, float]:
        """Takes one step for each batch, fewer if a rank is asked to stop.

        Args:
            batches: int32 ``(num_steps, images a step)``, places of images in the training set.

        Returns:
            How many steps it took, and the last one's learning rate.

        Raises:
            DivergedError: see :meth:`run`.
        """
        state, steps = self.train_state, self.step + np.arange(len(batches))
        rates, kl_weights = self.learning_rate(steps), self.kl_weight(steps)
        started, before = time.perf_counter(), state.sums.numpy()
        sums, stop, stamps = (
            tensor.numpy()
            for tensor in self._updates(
                tf.constant(batches),
                tf.constant(rates, tf.float32),
                tf.constant(kl_weights, tf.float32),
            )
        )
        state.seconds.assign_add(time.perf_counter() - started)
        done, self.stopped = int(sums[3] - before[3]), bool(stop > 0)
        self.stamps += [stamps[:done]] if self.experiment.profile else []
        wrong = state.not_finite(*(float(term) for term in sums[:3] / sums[3]))
        if wrong:
            # The nll is an average over ranks and their weights are equal, so every rank raises.
            raise DivergedError(
                f"{wrong} within steps {self.step + 1} to "
                f"{self.step + done}: training diverged at learning rate {rates[done - 1]:.3g}, "
                f"{self.ranks.size} rank(s); lower learning_rate or lengthen warmup_epochs"
            )
        state.step.assign_add(done)
        return done, float(rates[done - 1])

    # ----- one step, from images to weights, inside a graph

    def updates(
        self, batches: Tensor, rates: Tensor, kl_weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Takes steps inside one graph, up to a stop; returns the line's sums, the stop, stamps."""
        state, profile = self.train_state, self.experiment.profile
        first, sums, stop = state.step.read_value(), state.sums.read_value(), tf.zeros([])
        count = tf.shape(batches)[0]
        stamps = tf.TensorArray(
            tf.float64, size=count if profile else 0, element_shape=[len(STAMPS)]
        )
        previous = tf.zeros([], tf.float64)
        for index in tf.range(count):
            clock = StepClock(profile)
            with clock.after(previous):
                step = first + tf.cast(index, tf.int64)
                terms, stop = self.update(
                    batches[index], step, rates[index], kl_weights[index], clock
                )
            sums += terms
            if profile:
                stamps = stamps.write(index, tf.stack(clock.stamps))
                previous = clock.stamps[-1]
            if stop > 0:
                break
        state.sums.assign(sums)
        return sums, stop, stamps.stack()

    def update(
        self, batch: Tensor, step: Tensor, rate: Tensor, kl_weight: Tensor, clock: StepClock
    ) -> tuple[Tensor, Tensor]:
        """One step: gather the images, differentiate, average over ranks, change the weights.

        Args:
            batch: int32 ``(images a step,)``, this rank's places in the training set.
            step: int64, steps done before.
            rate: float32, the learning rate.
            kl_weight: float32.
            clock: stamps the borders between the parts.

        Returns:
            Float32 ``(4,)``, what the step adds to the line's sums; and whether any rank was asked
            to stop, above 0 on all ranks at the same step.
        """
        state = self.train_state
        images, labels = tf.gather(self.images, batch), tf.gather(self.labels, batch)
        with clock.after(images, labels):
            batches = self.virtual_ranks.batches(images, labels, step)
            num_images = self.dataset.num_train_examples
            gradients, nll, kl = self.method.gradient(self.network, batches, kl_weight, num_images)
            sent = self.message.pack(gradients, [nll, self.stop.read_value()])
        with clock.after(*sent):
            received = self.message.average(sent)
        with clock.after(*received):
            gradients, (nll, stop) = self.message.unpack(received, gradients)
        count = tf.cast(step, tf.float32) + 1.0
        done = self.method.update(state.weights, state.optimizer, gradients, count, rate)
        with clock.after(*done):
            loss = nll + kl_weight * kl / self.dataset.num_train_examples
            return tf.stack([loss, nll, kl, 1.0]), stop

    # ----- schedules and lines

    def learning_rate(self, steps: np.ndarray) -> np.ndarray:
        """The rate at each of `steps` (numbers of steps done before)."""
        moved = self.position - self.step
        return schedules.learning_rates(
            self.experiment,
            steps + moved,
            self.experiment.learning_rate_factor(self.virtual_ranks.total),
            self.steps_per_epoch,
            self.num_steps + moved,
        )

    def kl_weight(self, steps: np.ndarray) -> np.ndarray:
        """The weight of KL/N at each of `steps`."""
        places = steps + self.position - self.step
        return schedules.kl_weights(self.experiment, places, self.steps_per_epoch)

    def _line(self, rate: float, warmup: bool) -> StepLog:
        """Makes the log line of the steps since the line before, and begins the next."""
        state = self.train_state
        loss, nll, kl, count = (float(term) for term in state.sums.numpy())
        seconds = float(state.seconds.numpy())
        state.sums.assign(tf.zeros(4))
        state.seconds.assign(0.0)
        return StepLog(
            step=self.step,
            epoch=self.position / self.steps_per_epoch,
            loss=loss / count,
            nll=nll / count,
            kl=kl / count,
            learning_rate=rate,
            images_per_second=count * self.virtual_ranks.images_a_step * self.ranks.size / seconds,
            seconds=seconds,
            warmup=warmup,
        )

    # ----- the state, and where the run is

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.train_state.step.numpy())

    @property
    def position(self) -> int:
        """Steps that these virtual ranks take from the first epoch's start to this place."""
        return self.step + int(self.train_state.offset.numpy())

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, those of other virtual ranks before included."""
        epochs = self.experiment.epochs * self.steps_per_epoch
        return self.experiment.steps or epochs - int(self.train_state.offset.numpy())

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that a checkpoint keeps."""
        return self.train_state.state()

    def broadcast(self) -> None:
        """Gives rank 0's state to every rank: rank 0 alone reads a checkpoint."""
        self.train_state.broadcast()
        self._keep_virtual_ranks()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets what :meth:`state` gave, on this rank alone; see :meth:`TrainState.restore`."""
        self.train_state.restore(state)
        self._keep_virtual_ranks()

    def _keep_virtual_ranks(self) -> None:
        """Carries as many virtual ranks as the run that was restored, where the ranks allow it."""
        total = int(self.train_state.virtual_ranks.numpy())
        count = self.experiment.virtual_ranks_of(self.ranks.size, total)
        steps = int(self.train_state.steps_per_epoch.numpy())
        present = (self.virtual_ranks.total, self.virtual_ranks.count, self.steps_per_epoch)
        if (total, count, steps) != present:
            self._carry(count)

    # ----- what others ask of a trainer

    @property
    def bytes_a_step(self) -> int:
        """The bytes that a rank gives to the average over ranks each step."""
        return self.message.bytes(self.method.sent(self.train_state.weights))

    def take_stamps(self) -> np.ndarray:
        """Returns the stamps of the steps since the last call; empty without `profile`.

        Returns:
            float64 ``(steps, 5)``, the columns :data:`bnnlib.record.profile.STAMPS`.
        """
        taken, self.stamps = self.stamps, []
        return np.concatenate([np.zeros((0, len(STAMPS))), *taken])

    def ask_to_stop(self) -> None:
        """Ends :meth:`run` on all ranks after their present step; any thread may call it."""
        self.stop.assign(1.0)

    def layer_logs(self) -> list[LayerLog]:
        """The present posterior of each Bayesian layer; none for a deterministic network."""
        return posterior.logs(self.network, self.step, self.position / self.steps_per_epoch)

    def accuracy_of_means(self) -> float:
        """The share of the test images that the posterior's means classify rightly."""
        return evaluation.accuracy_of_means(self.network, self.dataset)

    def validation_nll(self) -> float:
        """The NLL of the images held out, of the test images where none are; nats an image."""
        return evaluation.validation_nll(self.validation_predictor, self.dataset)

    def scalars(self, directory: Path) -> Scalars:
        """What writes this run's scalars for TensorBoard into its directory."""
        return Scalars(directory, self.dataset.num_train_examples)
