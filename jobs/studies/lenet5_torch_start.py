"""LeNet-5 with 61,706 parameters on MNIST, started as PyTorch starts its layers.

The network of bnnlib.networks.reference.lenet5, whose weights start by Glorot's law and whose
biases at 0; here both are uniform in +-1/sqrt(fan_in). jobs/studies/ivon_lenet5.yaml trains it.
"""

import math
from typing import Any

import tf_keras
from tf_keras import layers as keras
from tf_keras.initializers import RandomUniform, VarianceScaling


def start(fan_in: int) -> dict[str, Any]:
    """The two initializers of a layer with `fan_in` inputs a unit."""
    bound = 1 / math.sqrt(fan_in)
    return {
        "kernel_initializer": VarianceScaling(1 / 3, "fan_in", "uniform"),
        "bias_initializer": RandomUniform(-bound, bound),
    }


def network(image_shape: tuple[int, int, int], num_classes: int) -> tf_keras.Model:
    """Images to logits."""
    return tf_keras.Sequential(
        [
            keras.Input(image_shape),
            keras.Conv2D(6, 5, padding="same", activation="relu", **start(25)),
            keras.MaxPooling2D(2),
            keras.Conv2D(16, 5, activation="relu", **start(150)),
            keras.MaxPooling2D(2),
            keras.Flatten(),
            keras.Dense(120, activation="relu", **start(400)),
            keras.Dense(84, activation="relu", **start(120)),
            keras.Dense(num_classes, **start(84)),
        ]
    )
