"""Images, a seed and biases that the tests of this folder give to networks."""

import numpy as np
import tensorflow as tf

GREY, COLOUR = (28, 28, 1), (32, 32, 3)
SEED = tf.constant([5, 6], tf.int64)


def images_of(shape, batch=4):
    return np.random.default_rng(2).uniform(size=(batch, *shape)).astype(np.float32)


def set_biases(network):
    """Biases of both signs, without which the order of pooling, bias and ReLU hardly shows."""
    rng = np.random.default_rng(4)
    for layer in network.layers:
        layer.bias.assign(rng.normal(0.0, 0.5, size=layer.bias.shape))
