"""The Monte Carlo predictive distribution, sharded over ranks.

p(y | x) is estimated by the mean over draws w_d ~ q of softmax(f(x, w_d)). A draw is one set of
weights for all images, from (`seed`, draw) alone, and images are computed in fixed blocks, so that
the numbers do not depend on the number of ranks.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from bnnlib import distributed
from bnnlib.data import Dataset
from bnnlib.distributed import Ranks
from bnnlib.layers import PREDICTION, Tensor, stream_key
from bnnlib.models import Network, to_inputs

BLOCK = 500  # images; the activations of a block stay small beside the caches


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Predictive distribution of a set of images.

    Attributes:
        mean_probs: float32 ``(num_images, num_classes)``, the mean over draws.
        expected_entropy: float32 ``(num_images,)``, nats; the mean over draws of each draw's
            entropy. The entropy of `mean_probs` less this is the mutual information between label
            and weights (Depeweg et al. 2018, equation 2).
    """

    mean_probs: np.ndarray
    expected_entropy: np.ndarray


def predict(
    network: Network,
    dataset: Dataset,
    images: np.ndarray,
    num_draws: int,
    seed: int,
    ranks: Ranks | None = None,
) -> Prediction:
    """The predictive distribution of `images`, the same on every rank.

    Args:
        network: in its present state; a deterministic one is computed once whatever `num_draws`.
        dataset: whose scale and mean image apply.
        images: ``(num_images, height, width, channels)`` in the data set's own type.
        num_draws: weight draws.
        seed: of the weight draws.
        ranks: all must call; alone if not given.

    Returns:
        The prediction, in the order of `images`. Memory does not grow with `num_draws`.
    """
    ranks = ranks or Ranks()
    draws = num_draws if network.is_bayesian else 1
    key = stream_key(seed, PREDICTION)
    starts = range(ranks.rank * BLOCK, len(images), ranks.size * BLOCK)
    blocks = [tf.constant(images[start : start + BLOCK]) for start in starts]

    @tf.function(reduce_retracing=True)
    def one_draw(block: Tensor, kernels: list[Tensor]) -> tuple[Tensor, Tensor]:
        log_probs = tf.nn.log_softmax(network.predict(to_inputs(block, dataset), kernels))
        probs = tf.exp(log_probs)
        return probs, -tf.reduce_sum(probs * log_probs, axis=-1)

    sample = tf.function(network.sample)
    sums: list[tuple[np.ndarray, np.ndarray]] = [
        (np.zeros((len(block), network.layers[-1].kernel_shape[-1])), np.zeros(len(block)))
        for block in blocks
    ]
    for draw in range(draws if blocks else 0):
        kernels = sample(tf.constant([key, draw], tf.int64))
        for block, (probs_sum, entropy_sum) in zip(blocks, sums, strict=True):
            probs, entropy = one_draw(block, kernels)
            probs_sum += probs.numpy()
            entropy_sum += entropy.numpy()

    num_classes = network.layers[-1].kernel_shape[-1]
    mean_probs = np.empty((len(images), num_classes), np.float32)
    expected_entropy = np.empty(len(images), np.float32)
    for rank, part in enumerate(distributed.gather(sums) if ranks.size > 1 else [sums]):
        for index, (probs_sum, entropy_sum) in enumerate(part):
            start = (index * ranks.size + rank) * BLOCK
            mean_probs[start : start + BLOCK] = probs_sum / draws
            expected_entropy[start : start + BLOCK] = entropy_sum / draws
    return Prediction(mean_probs, expected_entropy)
