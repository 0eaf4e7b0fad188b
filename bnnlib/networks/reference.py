"""Networks of the field, each defined once as a Keras model: images to logits.

VGG16 and ResNet18 are published with batch normalization. Here group normalization stands in its
place (Wu and He 2018, 32 groups): batch statistics belong to one batch on one rank and to one draw
of the weights, so that a prediction would depend on an image's neighbours, and no running mean is
right for the next draw. The numbers of parameters stay the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tf_keras
from tf_keras import layers as keras

from bnnlib.networks.keras_layers import FilterResponseNormalization

VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
RESNET18_STAGES = (64, 128, 256, 512)
RESNET20_STAGES = (16, 32, 64)

Shape = tuple[int, int, int]


def lenet5(image_shape: Shape, num_classes: int) -> tf_keras.Model:
    """LeNet-5 with ReLU and max-pooling (LeCun et al. 1998): 61,706 parameters on MNIST.

    These are the 60K of uncertainty-baselines' table. The code beside that table pads the second
    and the third layer, too, and has 545,546.
    """
    return tf_keras.Sequential(
        [
            keras.Input(image_shape),
            keras.Conv2D(6, 5, padding="same", activation="relu"),
            keras.MaxPooling2D(2),
            keras.Conv2D(16, 5, activation="relu"),
            keras.MaxPooling2D(2),
            keras.Flatten(),
            keras.Dense(120, activation="relu"),
            keras.Dense(84, activation="relu"),
            keras.Dense(num_classes),
        ],
        name="LeNet5",
    )


def vgg16(image_shape: Shape, num_classes: int) -> tf_keras.Model:
    """VGG16 in its CIFAR form, one dense layer at its end: 14,728,266 parameters on CIFAR-10."""
    x = images = keras.Input(image_shape)
    for filters, convolutions in VGG16_BLOCKS:
        for _ in range(convolutions):
            x = keras.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)
            x = keras.ReLU()(keras.GroupNormalization(32)(x))
        x = keras.MaxPooling2D(2, padding="same")(x)
    return tf_keras.Model(images, keras.Dense(num_classes)(keras.Flatten()(x)), name="VGG16")


def resnet18(image_shape: Shape, num_classes: int) -> tf_keras.Model:
    """ResNet-18 in its CIFAR form, 3x3 at its entry: 11,173,962 parameters on CIFAR-10."""
    x = images = keras.Input(image_shape)
    x = _convolution(x, 64, 3, 1, bias=False)
    x = keras.ReLU()(keras.GroupNormalization(32)(x))
    for stage, filters in enumerate(RESNET18_STAGES):
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _residual(x, filters, strides, lambda: keras.GroupNormalization(32), bias=False)
    logits = keras.Dense(num_classes)(keras.GlobalAveragePooling2D()(x))
    return tf_keras.Model(images, logits, name="ResNet18")


def resnet20_frn(image_shape: Shape, num_classes: int) -> tf_keras.Model:
    """ResNet-20 with filter response normalization: 274,042 parameters on CIFAR-10.

    The network of Izmailov et al. 2021 (arXiv 2104.14421), whose posterior Hamiltonian Monte Carlo
    has sampled: biases in all convolutions, projections at both changes of size.
    """
    x = images = keras.Input(image_shape)
    x = keras.ReLU()(FilterResponseNormalization()(_convolution(x, 16, 3, 1, bias=True)))
    for stage, filters in enumerate(RESNET20_STAGES):
        for block in range(3):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _residual(x, filters, strides, FilterResponseNormalization, bias=True)
    x = keras.GlobalAveragePooling2D()(x)
    logits = keras.Dense(num_classes, kernel_initializer="he_normal")(x)
    return tf_keras.Model(images, logits, name="ResNet20_FRN")


def _convolution(x: Any, filters: int, size: int, strides: int, bias: bool) -> Any:
    options = {"padding": "same", "use_bias": bias, "kernel_initializer": "he_normal"}
    return keras.Conv2D(filters, size, strides=strides, **options)(x)


def _residual(
    x: Any, filters: int, strides: int, normalization: Callable[[], Any], bias: bool
) -> Any:
    """Two 3x3 convolutions beside the identity, or a projection where the size changes."""
    y = normalization()(_convolution(x, filters, 3, strides, bias))
    y = normalization()(_convolution(keras.ReLU()(y), filters, 3, 1, bias))
    if strides > 1:
        x = normalization()(_convolution(x, filters, 1, strides, bias))
    return keras.ReLU()(keras.Add()([x, y]))


# By the name in bnnlib.names.REFERENCES.
MODELS: dict[str, Callable[[Shape, int], tf_keras.Model]] = {
    "LeNet5": lenet5,
    "VGG16": vgg16,
    "ResNet18": resnet18,
    "ResNet20_FRN": resnet20_frn,
}
