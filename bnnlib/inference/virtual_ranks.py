"""The virtual ranks that a process carries: whose noise each draws, and the loop over them.

A virtual rank is a batch a step and a stream of weight noise. Virtual rank v of V a process and R
processes is the v-th of V R, whichever process carries it: its images, its noise, the learning rate
and the number of steps follow from v and V R alone. So a run of V R = 64 is one run on 1, 2 or 64
processes, up to the rounding of the average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from bnnlib.data import Dataset
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.networks import TRAINING, Network, Tensor, plain, stream_key, to_inputs

# Images of a network without convolutions that are computed at once: more gain nothing (`make
# bench`), and the memory of their activations and kernels grows.
IMAGES_AT_ONCE = 1024


class Group(NamedTuple):
    """Virtual ranks that are computed side by side.

    Attributes:
        images: float32 ``(size * batch_size, height, width, channels)``, a rank's after another.
        labels: int ``(size * batch_size,)``.
        seeds: of each weight draw, int64 ``(size, 2)``, a row a virtual rank; of a group of one
            ``(2,)``.
    """

    images: Tensor
    labels: Tensor
    seeds: list[Tensor]


class VirtualRanks:
    """The virtual ranks of one process.

    Attributes:
        count: on this process, V.
        total: on all processes, V R.
        side_by_side: how many are computed at once; a divisor of `count`.
        keys: the first number of each one's seeds (:func:`bnnlib.networks.stream_key`).
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset, network: Network, ranks: Ranks, count: int
    ) -> None:
        self.experiment, self.dataset = experiment, dataset
        self.count, self.total = count, count * ranks.size
        self.keys = [
            stream_key(experiment.seed, TRAINING, stream(number, experiment.noise_streams))
            for number in range(ranks.rank * count, (ranks.rank + 1) * count)
        ]
        self.draws = experiment.train_draws if network.is_stochastic else 1
        self.side_by_side = side_by_side(network, count, experiment.batch_size)

    @property
    def num_groups(self) -> int:
        """How many groups follow one another in a step."""
        return self.count // self.side_by_side

    @property
    def images_a_step(self) -> int:
        """Images that this process sees in a step."""
        return self.count * self.experiment.batch_size

    def batches(self, images: Tensor, labels: Tensor, step: Tensor) -> Batches:
        """One step's images, on this process."""
        return Batches(self, images, labels, step)


class Batches(NamedTuple):
    """What the virtual ranks of a process see and draw in one step.

    Attributes:
        ranks: the virtual ranks.
        images: as stored, ``(images_a_step, height, width, channels)``, a batch after another.
        labels: int ``(images_a_step,)``.
        step: int64, steps done before; noise follows it.
    """

    ranks: VirtualRanks
    images: Tensor
    labels: Tensor
    step: Tensor

    @plain
    def group(self, index: int | Tensor) -> Group:
        """The virtual ranks of one group, the `index`-th."""
        ranks, size = self.ranks, self.ranks.side_by_side
        num_images = size * ranks.experiment.batch_size
        first = index * num_images
        numbers = [self.step * ranks.draws + draw for draw in range(ranks.draws)]
        keys = tf.constant(ranks.keys, tf.int64)[index * size : (index + 1) * size]
        if size == 1:
            seeds = [tf.stack([keys[0], number]) for number in numbers]
        else:
            seeds = [tf.stack([keys, tf.repeat(number, size)], axis=1) for number in numbers]
        # With the size told to the graph, every group is computed by the same operations.
        images = tf.ensure_shape(
            self.images[first : first + num_images], [num_images, *self.images.shape[1:]]
        )
        return Group(
            to_inputs(images, ranks.dataset),
            self.labels[first : first + num_images],
            seeds,
        )

    @plain
    def mean(self, of_group: Callable[[Group], Sequence[Tensor]]) -> list[Tensor]:
        """The mean over groups of tensors that `of_group` makes of one.

        Groups follow one another in a loop of the graph: the memory of activations is one group's.
        """
        groups = self.ranks.num_groups
        sums = list(of_group(self.group(0)))
        if groups == 1:
            return sums

        def add(index: Tensor, sums: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
            more = of_group(self.group(index))
            return index + 1, [a + b for a, b in zip(sums, more, strict=True)]

        _, sums = tf.while_loop(
            lambda index, _: index < groups,
            add,
            (tf.constant(1), sums),
            parallel_iterations=1,
        )
        return [total / groups for total in sums]


def stream(number: int, noise_streams: int) -> int:
    """The stream of weight noise that a virtual rank draws from.

    Args:
        number: of the virtual rank among all, from 0.
        noise_streams: 0: each has one of its own; G: the numbers that are equal modulo G share one.
    """
    return number % noise_streams if noise_streams else number


def side_by_side(network: Network, count: int, batch_size: int) -> int:
    """How many of `count` virtual ranks are computed at once.

    Dense layers of several batches are one matrix product; a convolution's step takes as long a
    batch at once as one after another, and more memory. So it is with draws of all weights.
    """
    if network.posterior is not None or not network.is_dense:
        return 1
    most = max(1, IMAGES_AT_ONCE // batch_size)
    return max(size for size in range(1, min(count, most) + 1) if count % size == 0)
