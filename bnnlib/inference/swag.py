"""SWAG: a normal posterior over all weights, fitted to the path that training takes.

Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning" (arXiv
1902.02476), algorithm 1. Once a share `swag_start` of the epochs is over, the learning rate stays
at one value, and the weights theta_i at each epoch's end count: of n of them the mean, the
variances, and the last :data:`COLUMNS` deviations from the mean as it was then,

    mean_n = mean of theta_1 to theta_n,    d_n = theta_n - mean_n,    n > 1
    variance = mean of (theta_i - mean_n)^2, entry by entry

    q = N(mean_n, (diag(variance) + D D^T / (K - 1)) / 2),    D = K columns d_i
    a draw is mean_n + sqrt(variance / 2) z_1 + D z_2 / sqrt(2 (K - 1))           (their equation 1)

with standard normal z_1, one a weight, and z_2, one a column. The paper keeps the mean of theta^2;
here the squared deviations are summed as they come (Welford 1962), the same number without the
difference of two large ones. Weights are equal on all ranks, so nothing travels.

The steps are Adam's. The paper takes momentum's, whose noise its argument is about; but SWAG asks
of the path only that it stays in one valley at a rate that does not fall, and so a run shares rate,
first epochs and last weights with its twin by Adam (where `swag_rate` is 1), and differs from it
by the posterior alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import adam
from bnnlib.inference.state import Method, by_layer
from bnnlib.networks import Draw, Network, Tensor, standard_normal
from bnnlib.networks.seeds import substream

COLUMNS = 20  # the paper's K
FEWEST = 3  # ends of epochs: two columns, since one has no spread
COLUMN_NOISE = 1  # the use of a draw's seed for z_2; z_1 has use 0


def build(experiment: Experiment) -> Method:
    """Adam's verbs, with SWAG's moments in the state and its posterior.

    Raises:
        ExperimentError: fewer than :data:`FEWEST` epochs end at or after `swag_start`.
    """
    start, epochs = experiment.swag_start, experiment.epochs
    if experiment.steps or experiment.until != "epochs":
        raise ExperimentError(
            f"inference = 'swag': steps = {experiment.steps}, until = {experiment.until!r}: its "
            "posterior is of the weights at the ends of so many epochs; set epochs, with steps 0 "
            "and until: epochs"
        )
    ends = sum(counts(epoch / epochs, start) for epoch in range(1, epochs + 1))
    if ends < FEWEST:
        raise ExperimentError(
            f"inference = 'swag': {ends} of epochs = {epochs} end at or after swag_start = {start} "
            f"and its posterior is of {FEWEST} or more; raise epochs or lower swag_start"
        )
    method = adam.build(experiment.rho_rate)
    return method._replace(
        init=lambda weights: method.init(weights) | init(weights),
        posterior=SwagPosterior,
        epoch_ended=functools.partial(epoch_ended, start=start),
    )


def init(weights: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """No moments yet: ``swag_count``; of each weight ``swag_mean/<index>``, and of its deviations.

    ``swag_squares/<index>`` is the sum of their squares, ``swag_columns/<index>`` the last ones,
    ``(COLUMNS, …)``.
    """
    state = {"swag_count": tf.Variable(0, trainable=False, dtype=tf.int64)}
    for index, weight in enumerate(weights.values()):
        state |= {
            f"swag_mean/{index}": tf.Variable(tf.zeros_like(weight), trainable=False),
            f"swag_squares/{index}": tf.Variable(tf.zeros_like(weight), trainable=False),
            f"swag_columns/{index}": tf.Variable(
                tf.zeros([COLUMNS, *weight.shape]), trainable=False
            ),
        }
    return state


def counts(share: float, start: float) -> bool:
    """Whether the weights count after a share of the epochs; rounding decides nothing."""
    return share >= start - 1e-9


def epoch_ended(
    weights: Mapping[str, tf.Variable], own: Mapping[str, tf.Variable], share: float, start: float
) -> None:
    """Lets the present weights count, if the time has come; on each rank for itself.

    Args:
        weights: by name.
        own: the state, whose parts of :func:`init` it changes.
        share: of the run's epochs that are over.
        start: `swag_start`.
    """
    if not counts(share, start):
        return
    before = int(own["swag_count"].numpy())
    own["swag_count"].assign_add(1)
    for index, weight in enumerate(weights.values()):
        mean = own[f"swag_mean/{index}"]
        from_old = weight - mean
        mean.assign_add(from_old / (before + 1))
        own[f"swag_squares/{index}"].assign_add(tf.square(from_old) * (before / (before + 1)))
        if before > 0:
            own[f"swag_columns/{index}"][(before - 1) % COLUMNS].assign(weight - mean)


class SwagPosterior:
    """The posterior q, as the state has it at the moment of a call."""

    def __init__(self, network: Network, own: Mapping[str, tf.Variable]) -> None:
        self.weights = network.named_variables()
        self.count = own["swag_count"]
        self.mean, self.squares, self.columns = (
            [own[f"swag_{what}/{index}"] for index in range(len(self.weights))]
            for what in ("mean", "squares", "columns")
        )

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights; the same seed, int64 ``(2,)``, gives the same."""
        sizes = [math.prod(mean.shape) for mean in self.mean]
        parts = tf.split(standard_normal((sum(sizes),), seed), sizes)
        of_columns = standard_normal((COLUMNS,), substream(seed, COLUMN_NOISE)) * self._scale()
        return self._by_layer(
            [
                mean
                + tf.sqrt(0.5 * variance) * tf.reshape(z, mean.shape)
                + tf.tensordot(of_columns, columns, 1)
                for mean, variance, columns, z in zip(
                    self.means_by_name(), self._variances(), self.columns, parts, strict=True
                )
            ]
        )

    def means(self) -> list[Draw]:
        """The mean of every layer's weights; the weights themselves before any count."""
        return self._by_layer(self.means_by_name())

    def stddevs(self) -> list[Draw]:
        """The standard deviation of every layer's weights; None before :data:`FEWEST` count."""
        if int(self.count.numpy()) < FEWEST:
            return [dict.fromkeys(draw) for draw in self.means()]
        return self._by_layer(
            [
                tf.sqrt(0.5 * variance + tf.reduce_sum(tf.square(columns * self._scale()), 0))
                for variance, columns in zip(self._variances(), self.columns, strict=True)
            ]
        )

    def means_by_name(self) -> list[Tensor]:
        """As :meth:`means`, one tensor a weight in the order of the network's names."""
        pairs = zip(self.mean, self.weights.values(), strict=True)
        return [tf.where(self.count > 0, mean, weight) for mean, weight in pairs]

    def _variances(self) -> list[Tensor]:
        number = tf.cast(tf.maximum(self.count, 1), tf.float32)
        return [squares / number for squares in self.squares]

    def _scale(self) -> Tensor:
        """1 / sqrt(2 (K - 1)) of the columns that there are; those that are not are 0."""
        columns = tf.clip_by_value(self.count - 1, 2, COLUMNS)
        return tf.math.rsqrt(2.0 * tf.cast(columns - 1, tf.float32))

    def _by_layer(self, tensors: Sequence[Tensor]) -> list[Draw]:
        return by_layer(dict(zip(self.weights, tensors, strict=True)))
