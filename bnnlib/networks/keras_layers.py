"""What each Keras layer is here: a linear operation with a kernel, a scaling, or a plain function.

One table says how each supported layer is taken (:data:`KERNELS`, :data:`SCALINGS`,
:data:`FUNCTIONS`), another why a layer is refused and what stands in its place (:data:`REFUSED`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers as keras

from bnnlib.errors import ExperimentError
from bnnlib.networks.layers import Draw, Layer, Operation
from bnnlib.networks.seeds import Tensor


@tf_keras.utils.register_keras_serializable("bnnlib")
class FilterResponseNormalization(keras.Layer):
    """Filter response normalization with a thresholded linear unit (Singh and Krishnan 2020).

    Each channel of each image is divided by the root of its mean square over the image's places,
    and y = max(gamma x / sqrt(mean(x^2) + epsilon) + beta, tau), their equations 1 to 3 and 5. No
    statistic is of other images, so that a weight draw's network is one function of an image.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        """Makes gamma, beta and tau, ``(channels,)``."""
        for name, initial in (("gamma", "ones"), ("beta", "zeros"), ("tau", "zeros")):
            setattr(self, name, self.add_weight(name, (input_shape[-1],), initializer=initial))
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        """The normalized images, of the shape of `inputs` ``(batch, height, width, channels)``."""
        weights = {"gamma": self.gamma, "beta": self.beta, "tau": self.tau}
        return _filter_response(inputs, weights, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """What the layer was made with."""
        return {**super().get_config(), "epsilon": self.epsilon}


def _filter_response(x: Tensor, weights: Draw, epsilon: float) -> Tensor:
    squares = tf.reduce_mean(tf.square(x), axis=[1, 2], keepdims=True)
    scaled = weights["gamma"] * x * tf.math.rsqrt(squares + epsilon) + weights["beta"]
    return tf.maximum(scaled, weights["tau"])


class Scaling(Layer):
    """A layer without kernel that has weights, always deterministic: a normalization of one image.

    Attributes:
        function: of inputs and the weights by name, its output.
        weights: by name.
    """

    def __init__(
        self,
        name: str,
        weights: dict[str, np.ndarray],
        function: Callable[[Tensor, Draw], Tensor],
    ) -> None:
        tf.Module.__init__(self, name=name)
        self.kernel_shape, self.bias, self.function = (), None, function
        self.weights = {name: tf.Variable(value, name=name) for name, value in weights.items()}

    def draw(self, seed: Tensor) -> Draw:
        """The weights themselves."""
        return self.mean_draw()

    def mean_draw(self) -> Draw:
        """The weights themselves."""
        return dict(self.weights)


class Part(NamedTuple):
    """One layer with a kernel that a Keras layer is made of.

    Attributes:
        kernel: the name of its kernel among the Keras layer's weights.
        operation: what it does with it.
    """

    kernel: str
    operation: Operation


def _padded_convolution(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    strides, dilations = list(layer.strides), list(layer.dilation_rate)
    padding, ahead = layer.padding.upper(), 0
    if padding == "CAUSAL":
        padding, ahead = "VALID", dilations[0] * (layer.kernel_size[0] - 1)

    def apply(x: Tensor, kernel: Tensor) -> Tensor:
        x = tf.pad(x, [[0, 0], [ahead, 0], [0, 0]]) if ahead else x
        return tf.nn.convolution(x, kernel, strides, padding, dilations=dilations)

    return apply


def _depthwise(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    strides, dilations = [1, *layer.strides, 1], list(layer.dilation_rate)
    return lambda x, kernel: tf.nn.depthwise_conv2d(
        x, kernel, strides, layer.padding.upper(), dilations=dilations
    )


def _convolution(layer: Any) -> list[Part]:
    if layer.groups > 1:
        raise _refusal(layer, f"it has groups={layer.groups}", "take DepthwiseConv2D, or groups=1")
    return [Part("kernel", Operation(_padded_convolution(layer), layer.filters, layer.use_bias))]


def _dense(layer: Any) -> list[Part]:
    return [Part("kernel", Operation(tf.matmul, layer.units, layer.use_bias))]


def _depthwise_convolution(layer: Any) -> list[Part]:
    outputs = int(np.prod(layer.depthwise_kernel.shape[-2:]))
    return [Part("depthwise_kernel", Operation(_depthwise(layer), outputs, layer.use_bias))]


def _separable_convolution(layer: Any) -> list[Part]:
    def mixed(x: Tensor, kernel: Tensor) -> Tensor:
        return tf.nn.conv2d(x, kernel, strides=1, padding="VALID")

    outputs = int(np.prod(layer.depthwise_kernel.shape[-2:]))
    return [
        Part("depthwise_kernel", Operation(_depthwise(layer), outputs, False)),
        Part("pointwise_kernel", Operation(mixed, layer.filters, layer.use_bias)),
    ]


# The layers with a kernel, which may have a posterior, and the parts that each is made of.
KERNELS: dict[type, Callable[[Any], list[Part]]] = {
    keras.Dense: _dense,
    keras.Conv1D: _convolution,
    keras.Conv2D: _convolution,
    keras.DepthwiseConv2D: _depthwise_convolution,
    keras.SeparableConv2D: _separable_convolution,
}


def _layer_normalization(layer: Any) -> Callable[[Tensor, Draw], Tensor]:
    axes = list(layer.axis)  # from 0, once the layer is built

    def normalized(x: Tensor, weights: Draw) -> Tensor:
        along = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        mean, variance = tf.nn.moments(x, axes, keepdims=True)
        beta, gamma = (
            tf.reshape(weights[name], along) if name in weights else None
            for name in ("beta", "gamma")
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, layer.epsilon)

    return normalized


def _group_normalization(layer: Any) -> Callable[[Tensor, Draw], Tensor]:
    rank = layer.input_spec.ndim
    if layer.axis % rank != rank - 1:
        raise _refusal(layer, f"its channels stand on axis {layer.axis}", "take axis=-1")

    def normalized(x: Tensor, weights: Draw) -> Tensor:
        *places, channels = x.shape[1:]
        grouped = tf.reshape(x, [-1, *places, layer.groups, channels // layer.groups])
        axes = [*range(1, rank - 1), rank]
        mean, variance = tf.nn.moments(grouped, axes, keepdims=True)
        beta, gamma = (
            tf.reshape(weights[name], grouped.shape[-2:]) if name in weights else None
            for name in ("beta", "gamma")
        )
        y = tf.nn.batch_normalization(grouped, mean, variance, beta, gamma, layer.epsilon)
        return tf.reshape(y, [-1, *places, channels])

    return normalized


# The layers whose weights are no kernel: what they make of inputs and of their weights by name.
SCALINGS: dict[type, Callable[[Any], Callable[[Tensor, Draw], Tensor]]] = {
    keras.LayerNormalization: _layer_normalization,
    keras.GroupNormalization: _group_normalization,
    FilterResponseNormalization: lambda layer: functools.partial(
        _filter_response, epsilon=layer.epsilon
    ),
}

# The layers without weights and without noise, which are called as they are.
FUNCTIONS: tuple[type, ...] = (
    *(keras.Activation, keras.ReLU, keras.LeakyReLU, keras.ELU, keras.ThresholdedReLU),
    *(keras.Softmax, keras.Lambda, keras.Rescaling, keras.UnitNormalization),
    *(keras.Flatten, keras.Reshape, keras.Permute, keras.RepeatVector),
    *(keras.ZeroPadding1D, keras.ZeroPadding2D, keras.Cropping1D, keras.Cropping2D),
    *(keras.UpSampling1D, keras.UpSampling2D),
    *(keras.MaxPooling1D, keras.MaxPooling2D, keras.AveragePooling1D, keras.AveragePooling2D),
    *(keras.GlobalMaxPooling1D, keras.GlobalMaxPooling2D),
    *(keras.GlobalAveragePooling1D, keras.GlobalAveragePooling2D),
    *(keras.Add, keras.Subtract, keras.Multiply, keras.Average, keras.Maximum, keras.Minimum),
    *(keras.Concatenate, keras.Dot),
)
# An operation of TensorFlow on a tensor of Keras, such as `x * 2`, becomes one of these.
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")

_STATISTICS = (
    "its statistics are of one batch on one rank and of other weights than any draw's, so that an "
    "image's prediction would depend on its neighbours and on the ranks",
    "take GroupNormalization or LayerNormalization, which see one image alone, or "
    "bnnlib.networks.FilterResponseNormalization",
)
_RECURRENT = (
    "it is recurrent, and no estimator here holds a weight draw over a sequence",
    "take Conv1D over the sequence",
)
_NOISE = (
    "its noise does not follow from the run's seed, so that ranks, draws and a resumed run would "
    "not be what the record says",
    "take Dropout, or change the images of the data set",
)
# Why a layer is refused, and what may take its place: by classes, those below them included.
REFUSED: dict[tuple[type, ...], tuple[str, str]] = {
    (keras.BatchNormalization,): _STATISTICS,
    (keras.RNN, keras.Bidirectional): _RECURRENT,
    (
        *(keras.GaussianNoise, keras.GaussianDropout, keras.AlphaDropout),
        *(keras.SpatialDropout1D, keras.SpatialDropout2D),
        *(keras.RandomFlip, keras.RandomRotation, keras.RandomZoom, keras.RandomCrop),
        *(keras.RandomTranslation, keras.RandomContrast, keras.RandomBrightness),
        *(keras.RandomHeight, keras.RandomWidth),
    ): _NOISE,
}


def check(layer: Any) -> None:
    """Refuses a Keras layer that has no meaning here, or an option of it.

    Raises:
        ExperimentError: with the layer's name, the reason and the alternative.
    """
    for classes, (reason, remedy) in REFUSED.items():
        if isinstance(layer, classes):
            raise _refusal(layer, reason, remedy)
    known = (*KERNELS, *SCALINGS, *FUNCTIONS, keras.Dropout)
    if type(layer) not in known and type(layer).__name__ not in OPERATIONS:
        names = ", ".join(sorted(one.__name__ for one in known))
        raise _refusal(layer, "no rule says what it is here", f"take of {names}")
    for option in ("regularizer", "constraint"):
        given = [name for name in vars(layer) if name.endswith(option) and getattr(layer, name)]
        if given:
            raise _refusal(
                layer,
                f"{given[0]} would change the objective, which is the ELBO",
                "leave it out: the prior (prior_stddev) is what regularizes, and a deterministic "
                "network has weight_decay",
            )
    if not layer.trainable and layer.weights:
        raise _refusal(
            layer,
            "it is frozen (trainable=False), and all weights are trained here",
            "leave trainable=True, or put what it computes into the data set",
        )
    if getattr(layer, "data_format", None) == "channels_first":
        raise _refusal(layer, "its channels stand first", "take data_format='channels_last'")
    if getattr(layer, "noise_shape", None) is not None:
        raise _refusal(layer, "it has a noise_shape", "leave it out: each entry has its own mask")
    if layer.compute_dtype != "float32":
        raise _refusal(layer, f"it computes in {layer.compute_dtype}", "take float32")


def _refusal(layer: Any, reason: str, remedy: str) -> ExperimentError:
    return ExperimentError(
        f"layer {layer.name!r} ({type(layer).__name__}) is refused: {reason}; {remedy}"
    )
