"""How noisy a step's averaged gradient is, and how much of that the draws of the weights add.

A step's gradient is the mean over the images of all ranks. It varies for two reasons: other images,
and other draws of the weights. With D the images of a step, the law of total variance splits it,

    Var(gradient) = Var_D(E[gradient | D]) + E_D(Var[gradient | D])

into the images' part and the noise's (Kingma, Salimans and Welling 2015, section 2.2). A gradient
has many entries; each variance here is the sum over them, the trace of the covariance.

What is measured is what is trained: the library's own layers, objective, virtual ranks and streams
of noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bnnlib.data import Dataset, epoch_batches
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.objective import gradient
from bnnlib.inference.virtual_ranks import VirtualRanks
from bnnlib.networks import Network, Tensor, graph

# The parts of a gradient: by the posterior's means, by its rho, by weights without a posterior.
MEANS, DEVIATIONS, POINTS, ALL = "means", "deviations", "points", "all"


class Variance(NamedTuple):
    """The variance of one part of a gradient, summed over its entries.

    Attributes:
        entries: how many.
        noise: the mean over image batches of the variance over weight draws; unbiased.
        noise_error: its standard error, over the batches.
        images: the variance over batches of the mean over weight draws; unbiased, so that it may
            come out below 0 where it is small.
        images_error: its standard error, by the jackknife over the batches.
        of_batches: the noise of each batch, so that two measurements on the same images can be
            compared batch by batch.
    """

    entries: int
    noise: float
    noise_error: float
    images: float
    images_error: float
    of_batches: tuple[float, ...]


def measure(
    experiment: Experiment, dataset: Dataset, network: Network, num_batches: int, num_draws: int
) -> dict[str, Variance]:
    """The variance of the gradient that a step of this experiment would average, in one process.

    Args:
        experiment: whose `batch_size`, `virtual_ranks`, `noise_streams`, `train_draws` and
            `kl_weight` a step has, and whose `seed` gives batches and noise.
        dataset: whose training images are drawn, each batch from the training's own order.
        network: at the weights to measure at; nothing changes them.
        num_batches: of images, 3 or more.
        num_draws: of the noise a batch, 2 or more.

    Returns:
        By part: :data:`MEANS`, :data:`DEVIATIONS`, :data:`POINTS`, those that the network has, and
        :data:`ALL`.

    Raises:
        DataError: a step's images are more than the training images.
        BnnlibError: too few batches or draws for a variance.
    """
    ranks = VirtualRanks(experiment, dataset, network, Ranks(), experiment.virtual_ranks)

    def flat(images: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        batches = ranks.batches(images, labels, step)
        weight = tf.constant(experiment.kl_weight)
        parts, _, _ = gradient(network, batches, weight, dataset.num_train_examples)
        return tf.concat([tf.reshape(part, [-1]) for part in parts], 0)

    step_of = graph(flat)

    def of_batch(number: int, places: np.ndarray) -> np.ndarray:
        images = tf.constant(dataset.x_train[places])
        labels = tf.constant(dataset.y_train[places].astype(np.int32))
        steps = range(number * num_draws, (number + 1) * num_draws)  # no noise is drawn twice
        return np.stack([step_of(images, labels, tf.constant(s, tf.int64)).numpy() for s in steps])

    orders = _batches(dataset.num_train_examples, ranks.images_a_step, experiment.seed, num_batches)
    return of_batches((of_batch(*pair) for pair in enumerate(orders)), parts_of(network))


def _batches(num_examples: int, images: int, seed: int, count: int) -> Iterable[np.ndarray]:
    """The first `count` global batches of a training with this seed, an epoch after another."""
    epoch = 0
    while count > 0:
        order = epoch_batches(num_examples, images, 1, 0, seed, epoch)[:count]
        yield from order
        count, epoch = count - len(order), epoch + 1


def parts_of(network: Network) -> dict[str, npt.NDArray[np.bool_]]:
    """Which entries of the network's flat gradient each part has; :data:`ALL` has every one."""
    kinds = {"mean": MEANS, "rho": DEVIATIONS}
    each = [
        np.full(int(np.prod(variable.shape)), kinds.get(name.partition("/")[2], POINTS))
        for name, variable in network.named_variables().items()
    ]
    kind = np.concatenate(each)
    found = {part: kind == part for part in (MEANS, DEVIATIONS, POINTS)}
    return {part: mask for part, mask in found.items() if mask.any()} | {ALL: kind != ""}


def of_batches(
    gradients: Iterable[npt.NDArray[np.floating]], parts: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, Variance]:
    """The two variances of gradients that were drawn in a nested way.

    This is the analysis of variance of one random factor (Searle, Casella and McCulloch 1992,
    chapter 3): the variance of the batches' means holds a share 1/draws of the noise's, which is
    taken off.

    Args:
        gradients: of each batch of images, ``(num_draws, entries)``; only one is held at a time.
        parts: names, and which of the entries belong to each.

    Returns:
        A variance for each part.

    Raises:
        BnnlibError: there are fewer than three batches, or fewer than two draws of one.
    """
    means, within = [], []
    for number, draws in enumerate(gradients):
        if len(draws) < 2:
            raise BnnlibError(f"weight draws of batch {number}: {len(draws)}, expected 2 or more")
        draws = np.asarray(draws, np.float64)
        mean = draws.mean(0)
        spread = np.square(draws - mean).sum(0) / (len(draws) - 1)
        within.append((len(draws), [spread[mask].sum() for mask in parts.values()]))
        means.append(mean)
    if len(means) < 3:  # the jackknife takes one away, and a variance needs two
        raise BnnlibError(f"batches of images: {len(means)}, expected 3 or more")
    of_means = np.stack(means)
    of_noise = np.array([values for _, values in within])
    shares = of_noise / np.array([[count] for count, _ in within])  # what noise adds to a mean
    return {
        part: Variance(
            int(mask.sum()),
            float(noise.mean()),
            float(noise.std(ddof=1)) / math.sqrt(len(noise)),
            *_between(of_means[:, mask], share),
            tuple(noise.tolist()),
        )
        for (part, mask), noise, share in zip(parts.items(), of_noise.T, shares.T, strict=True)
    }


def _between(means: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """The variance of `means` without the noise's share, and its jackknife standard error."""
    count = len(means)
    centred = means - means.mean(0)
    squares = np.square(centred).sum(1)
    total = squares.sum()
    # Without batch j the centre moves to -c_j / (count - 1), and the sum of squares about it is
    # total - |c_j|^2 count / (count - 1).
    without = (total - squares * count / (count - 1)) / (count - 2)
    without -= (shares.sum() - shares) / (count - 1)
    spread = np.square(without - without.mean()).sum() * (count - 1) / count
    return float(total / (count - 1) - shares.mean()), math.sqrt(spread)
