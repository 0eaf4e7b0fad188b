"""Bayesian layers: Flipout and reparameterization on TFP distributions, with stateless seeds.

A layer is called as ``layer(inputs, seed)`` with a seed tensor of shape ``(2,)``: two calls with
one seed give the same output, whatever was called between, which makes a resumed run repeat an
uninterrupted one bit by bit and lets ranks draw different noise from one program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

Tensor = Any  # tf.Tensor; TensorFlow ships no types that mypy can use

# TFP's defaults of its variational layers (default_mean_field_normal_fn), as the seed study used.
POSTERIOR_MEAN_STDDEV = 0.1
POSTERIOR_RHO_MEAN = -3.0
POSTERIOR_RHO_STDDEV = 0.1
# Added to softplus(rho), as TFP does, so that log(scale) stays finite.
SCALE_FLOOR = float(np.finfo(np.float32).eps)

# What a layer draws of one seed; added to the seed's first number so that no two draws coincide.
KERNEL, SIGN_IN, SIGN_OUT = 0, 1, 2
DRAWS_PER_LAYER = 3
# A dropout mask in the place of a kernel's noise: no network has both.
MASK = KERNEL


def substream(seed: Tensor, index: int) -> Tensor:
    """The `index`-th seed derived from `seed` ``(2,)``, for one use of it."""
    return seed + tf.constant([index, 0], dtype=seed.dtype)


def random_signs(shape: Any, seed: Tensor) -> Tensor:
    """Independent +1 and -1 with probability 1/2 each, float32 of `shape`."""
    bits = tf.random.stateless_uniform(shape, seed, minval=0, maxval=2, dtype=tf.int32)
    return tf.cast(2 * bits - 1, tf.float32)


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


def dropout(x: Tensor, rate: float, seed: Tensor) -> Tensor:
    """Zeros each entry with probability `rate` and divides the others by 1 - rate.

    The mean over masks is `x` itself (Srivastava et al. 2014, section 10, inverted as is usual).

    Args:
        x: float32 ``(batch, features)``; each entry has a mask of its own.
        rate: 0 or more and less than 1.
        seed: int64 ``(2,)``; the same seed gives the same mask.

    Returns:
        Of the shape of `x`.
    """
    kept = tf.random.stateless_uniform(tf.shape(x), seed) >= rate
    return tf.where(kept, x / (1.0 - rate), 0.0)


class Layer(tf.Module):
    """A dense or convolutional layer: a linear operation with a kernel, then bias.

    Attributes:
        kernel_shape: dense ``(inputs, outputs)``; convolution ``(height, width, channels in,
            channels out)``.
        bias: ``(outputs,)``, deterministic in every layer (TFP's default).
    """

    bayesian = False

    def __init__(self, name: str, kernel_shape: tuple[int, ...]) -> None:
        super().__init__(name=name)
        self.kernel_shape = kernel_shape
        self.bias = tf.Variable(tf.zeros(kernel_shape[-1:]), name="bias")

    def __call__(self, inputs: Tensor, seed: Tensor) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``, of one weight draw a call."""
        return self.apply(inputs, self.sample(seed))

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The linear operation: matrix product, or convolution with SAME padding and stride 1."""
        if len(self.kernel_shape) == 2:
            return tf.matmul(inputs, kernel)
        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME")

    def sample(self, seed: Tensor) -> Tensor:
        """One draw of the kernel from the posterior, of `kernel_shape`."""
        raise NotImplementedError

    def kl(self) -> Tensor:
        """KL(q||p) of the kernel in nats, summed over its entries; 0 without a posterior."""
        return tf.zeros(())


class Deterministic(Layer):
    """The twin of the Bayesian layers: a point estimate, Glorot-uniform as Keras' default."""

    def __init__(self, name: str, kernel_shape: tuple[int, ...], seed: Tensor) -> None:
        super().__init__(name, kernel_shape)
        receptive = int(np.prod(kernel_shape[:-2]))
        limit = (6.0 / (receptive * (kernel_shape[-2] + kernel_shape[-1]))) ** 0.5
        self.kernel = tf.Variable(
            tf.random.stateless_uniform(kernel_shape, seed, -limit, limit), name="kernel"
        )

    def sample(self, seed: Tensor) -> Tensor:
        """The kernel itself."""
        return self.kernel


class Reparameterization(Layer):
    """Mean-field normal posterior; one kernel draw for the whole batch (Blundell et al. 2015).

    The posterior of kernel entry i is N(mean_i, scale_i^2), scale_i = softplus(rho_i); the prior
    N(0, prior_stddev^2). A draw is mean + scale * noise (their section 3.2, step 2).
    """

    bayesian = True

    def __init__(
        self, name: str, kernel_shape: tuple[int, ...], seed: Tensor, prior_stddev: float
    ) -> None:
        super().__init__(name, kernel_shape)
        mean = tf.random.stateless_normal(kernel_shape, seed)
        rho = tf.random.stateless_normal(kernel_shape, substream(seed, 1))
        self.mean = tf.Variable(POSTERIOR_MEAN_STDDEV * mean, name="mean")
        self.rho = tf.Variable(POSTERIOR_RHO_MEAN + POSTERIOR_RHO_STDDEV * rho, name="rho")
        self.prior = tfd.Normal(0.0, prior_stddev)

    @property
    def posterior(self) -> Any:
        """The kernel's posterior, a ``tfd.Normal`` of batch shape `kernel_shape`."""
        return tfd.Normal(self.mean, SCALE_FLOOR + tf.math.softplus(self.rho))

    def sample(self, seed: Tensor) -> Tensor:
        """One draw of the kernel, of `kernel_shape`."""
        return self.mean + self._perturbation(seed)

    def kl(self) -> Tensor:
        """KL(q||p) in nats, closed form, summed over the kernel's entries."""
        return tf.reduce_sum(tfd.kl_divergence(self.posterior, self.prior))

    def _perturbation(self, seed: Tensor) -> Tensor:
        noise = tf.random.stateless_normal(self.kernel_shape, substream(seed, KERNEL))
        return self.posterior.stddev() * noise


class Flipout(Reparameterization):
    """The same posterior, with perturbations that are uncorrelated between a batch's examples.

    Example n sees the kernel mean + perturbation * (s_n r_n^T) with random signs r_n a channel in
    and s_n a channel out (Wen et al. 2018, equation 4): output_n = x_n * mean +
    ((x_n r_n) * perturbation) s_n, the marginal distribution of every example unchanged.
    """

    def __call__(self, inputs: Tensor, seed: Tensor) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``; each example has signs of its own."""
        batch = tf.shape(inputs)[0]
        inner = [1] * (len(self.kernel_shape) - 2)
        signs_in = random_signs([batch, *inner, self.kernel_shape[-2]], substream(seed, SIGN_IN))
        signs_out = random_signs([batch, *inner, self.kernel_shape[-1]], substream(seed, SIGN_OUT))
        perturbed = self.apply(inputs * signs_in, self._perturbation(seed))
        return self.apply(inputs, self.mean) + perturbed * signs_out


# What a stream of weight noise is for; a number of the seed, so that no two purposes share noise.
INITIAL, TRAINING, PREDICTION = 0, 1, 2


def stream_key(seed: int, purpose: int, rank: int = 0) -> int:
    """The first number of the seed tensors of one stream of noise; the second counts draws.

    Args:
        seed: the run's seed.
        purpose: :data:`INITIAL`, :data:`TRAINING` or :data:`PREDICTION`.
        rank: whose noise; the streams of different ranks are independent.

    Returns:
        An integer below 2^62, so that :func:`substream` cannot overflow an int64.
    """
    state = np.random.SeedSequence([seed, purpose, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))
