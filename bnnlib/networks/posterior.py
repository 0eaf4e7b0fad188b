"""What a trained posterior is: its entries layer by layer, and what single draws of it predict.

A Bayesian layer's kernel entry has the posterior N(mean, stddev^2), and so has every layer's where
the method of training makes the posterior (:class:`bnnlib.networks.Posterior`). Over training its
entries are followed by quantiles, a few numbers a layer and epoch, since checkpoints of all epochs
would take a thousand times the space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bnnlib.data import Dataset, Inputs, checked_for
from bnnlib.networks.graphs import graph
from bnnlib.networks.networks import Network, to_inputs
from bnnlib.networks.seeds import PREDICTION, stream_key
from bnnlib.record.logs import LEVELS, LayerLog


def entries(network: Network) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Posterior means and standard deviations of all kernel entries that have a posterior.

    Returns:
        A pair (means, standard deviations) for each layer's name, both float32
        ``(num_entries,)``; empty for a deterministic network.
    """
    if network.posterior is not None:
        stddevs = [draw.get("kernel") for draw in network.posterior.stddevs()]
    else:
        stddevs = network.stddevs()
    return {
        layer.name: (np.ravel(mean["kernel"]), np.ravel(stddev))  # a normalization has no kernel
        for layer, mean, stddev in zip(network.layers, network.means(), stddevs, strict=True)
        if stddev is not None
    }


def logs(network: Network, step: int, epoch: float) -> list[LayerLog]:
    """The lines of ``posterior.jsonl`` for a network in its present state.

    One is of a layer that has a posterior.
    """
    return [
        LayerLog(
            step=step,
            epoch=epoch,
            layer=name,
            entries=len(mean),
            mean=_quantiles(mean),
            stddev=_quantiles(stddev),
            snr=_quantiles(np.abs(mean) / stddev),
        )
        for name, (mean, stddev) in entries(network).items()
    ]


def draw_probs(
    network: Network,
    dataset: Dataset | Inputs,
    images: Sequence[np.ndarray] | np.ndarray,
    num_draws: int,
    seed: int,
    any_range: bool = False,
) -> np.ndarray:
    """Class probabilities of single draws, the ones that a prediction averages.

    Every draw is one set of weights for all images; with MC dropout it is a mask for each image,
    which depends on the image's place. Take few images: memory grows with draws times images.

    Args:
        network: in its present state.
        dataset: the data set whose scale and mean image apply.
        images: ``(num_images, height, width, channels)`` in the data set's own type and range.
        num_draws: weight draws.
        seed: seed of the weight draws; a run's seed gives the draws of its record.
        any_range: as for :meth:`bnnlib.data.Inputs.checked`.

    Returns:
        float32 ``(num_draws, num_images, num_classes)``.

    Raises:
        DataError: the images are of another shape, type or range than the training images.
    """
    key = stream_key(seed, PREDICTION)
    checked = checked_for(dataset, images, any_range)
    inputs = to_inputs(tf.constant(checked), dataset)
    sample, predict = (graph(f, autograph=False) for f in (network.sample, network.predict))
    probs = []
    for draw in range(num_draws):
        kernels = sample(tf.constant([key, draw], tf.int64))
        mask_seed = tf.constant([key, draw << 32], tf.int64)  # as prediction.Predictor's
        probs.append(tf.nn.softmax(predict(inputs, kernels, mask_seed)).numpy())
    return np.stack(probs)


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values.astype(np.float64), LEVELS)]
