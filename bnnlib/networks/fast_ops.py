"""Operations that take less time than TensorFlow's own, with the same values and gradients.

Tests hold each equal to the plain formula; ``make bench`` measures what they save.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from bnnlib.networks.seeds import Tensor

# Decorates functions without loops or branches over tensors, so that AutoGraph does not rewrite
# them: rewriting took 5 of the 6 seconds of tracing BNN_conv_flip's step.
plain = tf.autograph.experimental.do_not_convert


@tf.custom_gradient
def softplus(x: Tensor) -> tuple[Tensor, Any]:
    """log(1 + exp(x)); one exponential serves value and gradient, exp(x) / (1 + exp(x))."""
    power = tf.exp(tf.minimum(x, 20.0))  # above 20 the function is x in float32

    def gradient(upstream: Tensor) -> Tensor:
        return upstream * (power / (1.0 + power))

    return tf.maximum(tf.math.log1p(power), x), gradient


def normal_kl(mean: Tensor, stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, stddev^2) || N(0, prior_stddev^2)) in nats, summed over entries; closed form.

    It has the values and gradients of ``tfp.distributions.kl_divergence`` and needs a third of the
    passes over the entries. Kingma and Welling 2014, appendix B, for prior_stddev = 1.
    """

    @tf.custom_gradient
    def divergence(mean: Tensor, stddev: Tensor) -> tuple[Tensor, Any]:
        precision = 1.0 / prior_stddev**2
        squares = (tf.square(mean) + tf.square(stddev)) * (0.5 * precision)
        entropies = tf.math.log(stddev) + (0.5 - math.log(prior_stddev))

        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
            scale = upstream * precision
            return scale * mean, scale * stddev - upstream / stddev

        return tf.reduce_sum(squares - entropies), gradient

    return divergence(mean, stddev)


def max_pool(x: Tensor) -> Tensor:
    """The maximum of each 2x2 block of ``(batch, height, width, channels)``, SAME padding.

    TensorFlow's CPU gradient of max-pooling searches each block's maximum again, one number at a
    time (two thirds of `CNN_conv`'s step). Comparing with the maximum instead, in whole arrays,
    takes half as long. Entries that tie share the gradient evenly, a subgradient like TensorFlow's
    own, which gives all of it to the first.
    """
    height, width, channels = x.shape[1:]
    if height % 2 or width % 2:
        return tf.nn.max_pool2d(x, ksize=2, strides=2, padding="SAME")

    @tf.custom_gradient
    def compared(x: Tensor) -> tuple[Tensor, Any]:
        pooled = tf.nn.max_pool2d(x, ksize=2, strides=2, padding="SAME")

        def gradient(upstream: Tensor) -> Tensor:
            blocks = tf.reshape(x, [-1, height // 2, 2, width // 2, 2, channels])
            largest = tf.cast(tf.equal(blocks, pooled[:, :, None, :, None, :]), x.dtype)
            ties = 4.0 * tf.nn.avg_pool2d(tf.reshape(largest, tf.shape(x)), 2, 2, padding="SAME")
            shared = (upstream / ties)[:, :, None, :, None, :]
            return tf.reshape(largest * shared, tf.shape(x))

        return pooled, gradient

    return compared(x)


@tf.custom_gradient
def largest_of_four(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Any]:
    """The entrywise maximum of four tensors: 2x2 max-pooling where the four places lie apart.

    The gradient goes to the first of equals, as in TensorFlow's max-pooling.
    """
    ab, cd = tf.maximum(a, b), tf.maximum(c, d)

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Products with 0 and 1: TensorFlow's `where` takes four times as long.
        to_ab = upstream * tf.cast(ab >= cd, upstream.dtype)
        to_cd = upstream - to_ab
        to_a = to_ab * tf.cast(a >= b, upstream.dtype)
        to_c = to_cd * tf.cast(c >= d, upstream.dtype)
        return to_a, to_ab - to_a, to_c, to_cd - to_c

    return tf.maximum(ab, cd), gradient


@tf.custom_gradient
def noisy(mean: Tensor, variance: Tensor, noise: Tensor) -> tuple[Tensor, Any]:
    """Draws of N(mean, variance): mean + sqrt(variance) * noise, all of one shape.

    The gradient by the variance is noise / (2 sqrt(variance)), and 0 where the variance is 0: there
    the inputs are 0, and the variance's own gradient by the weights is.
    """
    stddev = tf.sqrt(variance)

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        return upstream, tf.math.divide_no_nan(upstream * noise, 2.0 * stddev), None

    return mean + stddev * noise, gradient


@tf.custom_gradient
def noisy_product(x: Tensor, mean: Tensor, stddev: Tensor, noise: Tensor) -> tuple[Tensor, Any]:
    """:func:`noisy` of the products x mean and x^2 stddev^2, with fewer passes in the gradient.

    Args:
        x: ``(batch, inputs)``.
        mean: ``(inputs, outputs)``.
        stddev: likewise.
        noise: ``(batch, outputs)``.
    """
    squares, variances = tf.square(x), tf.square(stddev)
    width = tf.sqrt(tf.matmul(squares, variances))

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        by_width = tf.math.divide_no_nan(upstream * noise, width)  # twice that by the variance
        to_x = tf.matmul(upstream, mean, transpose_b=True)
        to_x += x * tf.matmul(by_width, variances, transpose_b=True)
        to_mean = tf.matmul(x, upstream, transpose_a=True)
        to_stddev = stddev * tf.matmul(squares, by_width, transpose_a=True)
        return to_x, to_mean, to_stddev, None

    return tf.matmul(x, mean) + width * noise, gradient
