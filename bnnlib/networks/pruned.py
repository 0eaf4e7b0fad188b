"""A network whose weights have been pruned: its draws, its means, and how it is made.

    weights = pruned.weights_of(network)
    stays = pruning.kept(pruned.scores_of(network, "signal_to_noise"), share=0.8)
    network.posterior = pruned.PrunedPosterior(pruning.without(weights, stays))

predicts and evaluates from then on as any network does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bnnlib.errors import ExperimentError
from bnnlib.networks import pruning
from bnnlib.networks.layers import Draw
from bnnlib.networks.networks import Network
from bnnlib.networks.pruning import Weights
from bnnlib.networks.seeds import DRAWS_PER_LAYER, KERNEL, Tensor, standard_normal, substream


def weights_of(network: Network) -> list[Weights]:
    """A network's weights as arrays, a layer each.

    Raises:
        ExperimentError: the method of training has made its posterior, of biases too.
    """
    if network.posterior is not None:
        raise ExperimentError(
            f"{network.name}: its posterior is of all weights together, biases too; expected a "
            "network whose layers have their own (inference: adam)"
        )
    return [
        Weights(
            {name: np.asarray(value) for name, value in mean.items()},
            None if stddev is None else np.asarray(stddev),
        )
        for mean, stddev in zip(network.means(), network.stddevs(), strict=True)
    ]


def scores_of(
    network: Network, layers: Sequence[int], by: str, seed: int = 0
) -> list[npt.NDArray[np.float64]]:
    """:func:`bnnlib.networks.pruning.scores` of some of a network's layers.

    Args:
        network: trained.
        layers: numbers of the layers that are pruned.
        by: one of :data:`bnnlib.networks.pruning.SCORES`.
        seed: of ``random``.
    """
    weights = weights_of(network)
    return pruning.scores(
        by,
        [weights[index].mean["kernel"] for index in layers],
        [weights[index].stddev for index in layers],
        [getattr(network.layers[index], "prior_stddev", None) or 1.0 for index in layers],
        seed,
    )


class PrunedPosterior:
    """Normal weights of given means and deviations, as :class:`bnnlib.networks.Posterior` is.

    A draw has the noise of the network's own layers, so that what stays is drawn as before, to the
    bit, and networks pruned at several shares share their noise.
    """

    def __init__(self, weights: Sequence[Weights]) -> None:
        self._means = [
            {name: tf.constant(value) for name, value in layer.mean.items()} for layer in weights
        ]
        self._stddevs = [
            None if layer.stddev is None else tf.constant(layer.stddev) for layer in weights
        ]

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights; the same seed, int64 ``(2,)``, gives the same."""
        drawn = []
        for index, (mean, stddev) in enumerate(zip(self._means, self._stddevs, strict=True)):
            of_layer = dict(mean)
            if stddev is not None:
                own = substream(substream(seed, index * DRAWS_PER_LAYER), KERNEL)
                of_layer["kernel"] += stddev * standard_normal(tuple(stddev.shape), own)
            drawn.append(of_layer)
        return drawn

    def means(self) -> list[Draw]:
        """The mean of every layer's weights."""
        return [dict(mean) for mean in self._means]

    def stddevs(self) -> list[Draw]:
        """The standard deviation of every layer's kernel; none of what has no posterior."""
        return [{} if stddev is None else {"kernel": stddev} for stddev in self._stddevs]
