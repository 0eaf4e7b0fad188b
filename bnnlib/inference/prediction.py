"""The Monte Carlo predictive distribution, sharded over ranks.

p(y | x) is estimated by the mean over draws w_d ~ q of softmax(f(x, w_d)). A draw is one set of
weights for all images, from (`seed`, draw) alone, and images are computed in fixed blocks, so that
the numbers do not depend on the number of ranks. With MC dropout a draw is a mask for each image,
from (`seed`, draw, the image's place in its set), and so does not depend on the ranks either.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset, Inputs, checked_for
from bnnlib.inference import distributed
from bnnlib.inference.distributed import Ranks
from bnnlib.metrics import DrawsCurve, Prediction
from bnnlib.networks import (
    PREDICTION,
    Draw,
    Network,
    Tensor,
    Windows,
    graph,
    plain,
    stream_key,
    to_inputs,
)
from bnnlib.session import Session

# Images of up to 32 x 32 pixels, fewer of larger ones: the memory of a block is bounded.
BLOCK = 500
DRAWS_AT_ONCE = 10  # whose weights are held while the blocks pass by
# Images of a pooled first convolution that all draws pass over before the next: what they make
# stays in the cache (BNN_conv_flip on MNIST, one core: 58 µs an image and draw, 86 of 500 at once).
CHUNK = 16


def draw_counts(num_draws: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, … up to `num_draws`, which is always the last."""
    steps = (digit * 10**power for power in range(len(str(num_draws))) for digit in (1, 2, 5))
    return [*(step for step in steps if step < num_draws), num_draws]


class Predictor:
    """A network's predictive distribution of one set of images after another.

    The graph is traced once, for the first set; the sets may differ in size, type and number of
    draws. Memory does not grow with the number of draws.

    Attributes:
        num_draws: draws of each prediction; 1 for a network whose draws are all the same.
        at_mean: whether the posterior's mean, without dropout masks, takes the draws' place.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset | Inputs,
        num_draws: int,
        seed: int,
        ranks: Ranks | None = None,
        session: Session | None = None,
        at_mean: bool = False,
    ) -> None:
        """Takes the arguments of :func:`predict`, and the session, which may ask to stop."""
        self.session = session or Session()
        self.network, self.dataset, self.ranks = network, dataset, ranks or Ranks()
        self.at_mean = at_mean
        self.num_draws = num_draws if network.is_stochastic and not at_mean else 1
        self.key = stream_key(seed, PREDICTION)
        self.num_classes = network.num_classes
        # Of each image the sums of probabilities, their entropy, logits, and votes for each class.
        self._columns = 3 * self.num_classes + 1
        height, width, _ = dataset.image_shape
        self._block = max(1, min(BLOCK, BLOCK * 32 * 32 // (height * width)))
        self._unfolds = network.unfolds(tf.zeros([1, *dataset.image_shape]))
        self._chunk = min(CHUNK, self._block) if self._unfolds else self._block
        self._sample = graph(network.sample, autograph=False)
        self._sums: Any = None  # made when there are weights, whose shapes it is for

    def __call__(
        self,
        images: np.ndarray,
        draws_curve: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Prediction:
        """The predictive distribution of `images`, the same on every rank; all must call.

        Args:
            images: ``(num_images, height, width, channels)`` in the data set's own type.
            draws_curve: whether to keep the prediction after each of :func:`draw_counts` draws
                too.
            meanwhile: called every few draws, as a sign of life.

        Returns:
            The prediction, in the order of `images`.
        """
        ranks, size = self.ranks, self._block
        starts = range(ranks.rank * size, len(images), ranks.size * size)
        sums = [np.zeros((len(images[i : i + size]), self._columns)) for i in starts]
        curved = self.num_classes + 1  # columns whose means a draws curve keeps
        kept = draw_counts(self.num_draws) if draws_curve else [self.num_draws]
        means: list[list[np.ndarray]] = []  # by number of draws, then by block
        ends = sorted({*kept, *range(DRAWS_AT_ONCE, self.num_draws, DRAWS_AT_ONCE)})
        for first, end in zip([0, *ends], ends, strict=False):
            distributed.stop_if_asked(ranks, self.session)
            meanwhile()
            draws = range(first, end) if len(starts) > 0 else range(0)
            weights = self._weights(draws)
            for start, total in zip(starts, sums, strict=True):
                # In one type, whatever the set's: else each would have a graph of its own.
                block = tf.constant(images[start : start + size].astype(np.float32))
                places = (tf.constant(place, tf.int64) for place in (len(draws), first, start))
                total += self._graph(weights)(block, weights, *places).numpy()
            if end in kept:
                means.append([(total[:, :curved] / end).astype(np.float32) for total in sums])

        by_image = self._gathered(means, np.empty((len(means), len(images), curved), np.float32))
        rest = [[total[:, curved:] for total in sums]]
        logits, votes = np.split(
            self._gathered(rest, np.empty((1, len(images), 2 * self.num_classes)))[0], 2, axis=1
        )
        mean_probs, entropy = by_image[..., :-1], by_image[..., -1]
        return Prediction(
            np.ascontiguousarray(mean_probs[-1]),
            np.ascontiguousarray(entropy[-1]),
            DrawsCurve(np.array(kept, np.int64), mean_probs, entropy) if draws_curve else None,
            (logits / self.num_draws).astype(np.float32),
            votes.astype(np.min_scalar_type(self.num_draws)),
        )

    def with_draws(self, num_draws: int) -> Predictor:
        """Predicts by the first so many draws, however many, with the same graph."""
        other = copy.copy(self)
        other.num_draws = num_draws if self.network.is_stochastic and not self.at_mean else 1
        return other

    def _gathered(self, of_blocks: list[list[np.ndarray]], into: np.ndarray) -> np.ndarray:
        """Lays the blocks of all ranks into `(num_lists, num_images, …)`, in the images' order."""
        ranks, size = self.ranks, self._block
        parts = distributed.gather(of_blocks) if ranks.size > 1 else [of_blocks]
        for rank, part in enumerate(parts):
            for place, blocks in enumerate(part):
                for index, block in enumerate(blocks):
                    start = (index * ranks.size + rank) * size
                    into[place, start : start + size] = block
        return into

    def _varies(self, index: int) -> bool:
        """Whether the weights of layer `index` differ from draw to draw."""
        return not self.at_mean and self.network.is_drawn(index)

    def _weights(self, draws: range) -> list[Draw]:
        """The weights by layer: those of several draws, or the ones that all draws have."""
        sampled = [self._sample(tf.constant([self.key, draw], tf.int64)) for draw in draws]
        return [
            {name: tf.stack([of_draw[index][name] for of_draw in sampled]) for name in fixed}
            if self._varies(index) and sampled
            else fixed
            for index, fixed in enumerate(self.network.means())
        ]

    def _graph(self, weights: list[Draw]) -> Any:
        """The graph of :meth:`_sum_draws`, for any number of images and of draws."""
        if self._sums is None:
            number = tf.TensorSpec([], tf.int64)
            signature = [
                tf.TensorSpec([None, *self.dataset.image_shape], tf.float32),
                [
                    {
                        name: tf.TensorSpec(
                            [None, *value.shape[1:]] if self._varies(index) else value.shape,
                            value.dtype,
                        )
                        for name, value in of_layer.items()
                    }
                    for index, of_layer in enumerate(weights)
                ],
                *(number, number, number),
            ]
            self._sums = graph(self._sum_draws, input_signature=signature)
        return self._sums

    def _sum_draws(
        self, block: Tensor, weights: list[Draw], count: Tensor, first: Tensor, start: Tensor
    ) -> Tensor:
        """Sums over `count` draws what :meth:`_softmax` gives of each.

        Args:
            block: stored images as float32, the first of them the `start`-th of its set.
            weights: of :meth:`_weights`.
            count: number of draws, the first of them the `first`-th.
            first: see `count`.
            start: see `block`.

        Returns:
            float64 ``(num_images, 3 num_classes + 1)``.
        """
        inputs = to_inputs(block, self.dataset)
        chunks = (tf.shape(block)[0] + self._chunk - 1) // self._chunk
        sums = tf.TensorArray(tf.float64, chunks, element_shape=[None, self._columns])
        for index in tf.range(chunks):
            place = index * self._chunk
            images = inputs[place : place + self._chunk]
            total = tf.zeros([tf.shape(images)[0], self._columns], tf.float64)
            seen = self.network.windows(images) if self._unfolds else images
            for draw in tf.range(count):
                # The draw in the upper half of the number, the image's place in the lower.
                number = (first + draw) * 2**32 + start + tf.cast(place, tf.int64)
                total += tf.cast(
                    self._softmax(
                        seen,
                        [
                            {name: value[draw] for name, value in of_layer.items()}
                            if self._varies(index_of_layer)
                            else of_layer
                            for index_of_layer, of_layer in enumerate(weights)
                        ],
                        None if self.at_mean else tf.stack([self.key, number]),
                    ),
                    tf.float64,
                )
            sums = sums.write(index, total)
        return sums.concat()

    @plain
    def _softmax(
        self, images: Tensor | Windows, draw: list[Draw], mask_seed: Tensor | None
    ) -> Tensor:
        """One draw's probabilities, their entropy, logits and vote, by column."""
        logits = self.network.predict(images, draw, mask_seed)
        log_probs = tf.nn.log_softmax(logits)
        probs = tf.exp(log_probs)
        entropy = -tf.reduce_sum(probs * log_probs, axis=-1, keepdims=True)
        vote = tf.one_hot(tf.argmax(probs, axis=-1), self.num_classes)
        return tf.concat([probs, entropy, logits, vote], axis=-1)


def predict(
    network: Network,
    dataset: Dataset | Inputs,
    images: np.ndarray,
    num_draws: int,
    seed: int,
    ranks: Ranks | None = None,
) -> Prediction:
    """The predictive distribution of one set of images; :class:`Predictor` is for several.

    Args:
        network: in its present state; a deterministic one without dropout is computed once
            whatever `num_draws`.
        dataset: whose scale and mean image apply.
        images: ``(num_images, height, width, channels)`` in the data set's own type and range.
        num_draws: weight draws, or draws of dropout masks.
        seed: of the draws.
        ranks: all must call; alone if not given.

    Returns:
        The prediction, in the order of `images`.

    Raises:
        DataError: the images are of another shape, type or range than the training images.
    """
    checked = checked_for(dataset, images)
    return Predictor(network, dataset, num_draws, seed, ranks)(checked)
