"""Bayesian layers: Flipout and reparameterization on TFP distributions, with stateless seeds.

A layer is called as ``layer(inputs, seed)`` with a seed tensor of shape ``(2,)``: two calls with
one seed give the same output, whatever was called between, which makes a resumed run repeat an
uninterrupted one bit by bit and lets ranks draw different noise from one program.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

tfd = tfp.distributions

Tensor = Any  # tf.Tensor; TensorFlow ships no types that mypy can use
# For functions without a loop or a branch over tensors: to rewrite them was most of a trace (of
# BNN_conv_flip's step 5 s of 6).
plain = tf.autograph.experimental.do_not_convert

# TFP's defaults of its variational layers (default_mean_field_normal_fn), as the seed study used.
POSTERIOR_MEAN_STDDEV = 0.1
POSTERIOR_RHO_MEAN = -3.0
POSTERIOR_RHO_STDDEV = 0.1
# Added to softplus(rho), as TFP does, so that log(scale) stays finite.
SCALE_FLOOR = float(np.finfo(np.float32).eps)

# What a layer draws of one seed; added to the seed's first number so that no two draws coincide.
KERNEL, SIGN_IN, SIGN_OUT = 0, 1, 2
DRAWS_PER_LAYER = 3
# Row b: the eight signs of the bits of byte b.
SIGNS_OF_BYTE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(
    np.float32
)
# A dropout mask in the place of a kernel's noise: no network has both.
MASK = KERNEL


def substream(seed: Tensor, index: int) -> Tensor:
    """The `index`-th seed derived from `seed` ``(2,)``, for one use of it."""
    return seed + tf.constant([index, 0], dtype=seed.dtype)


def random_signs(shape: Any, seed: Tensor) -> Tensor:
    """Independent +1 and -1 with probability 1/2 each, float32 of `shape`.

    A sign costs one random bit: random bytes look their eight signs up (drawing an integer a sign
    took a fifth of `BNN_FC_flip`'s step).
    """
    count = tf.reduce_prod(tf.stack(shape))
    words = tf.random.stateless_uniform([(count + 31) // 32], seed, None, None, tf.int32)
    octets = tf.cast(tf.reshape(tf.bitcast(words, tf.uint8), [-1]), tf.int32)
    signs = tf.reshape(tf.gather(tf.constant(SIGNS_OF_BYTE), octets), [-1])
    return tf.reshape(signs[:count], shape)


def standard_normal(shape: tuple[int, ...], seed: Tensor) -> Tensor:
    """Independent draws of N(0, 1), float32 of `shape`, by Box and Muller's transform (1958).

    TensorFlow's own draws use it too, one number at a time; here logarithm, sine and cosine are of
    whole arrays, which takes half as long.
    """
    count = math.prod(shape)
    uniform = tf.random.stateless_uniform([2, (count + 1) // 2], seed)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - uniform[0]))  # of (0, 1]: the logarithm is finite
    angle = 2.0 * math.pi * uniform[1]
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], 0)
    return tf.reshape(pairs[:count], shape)


@tf.custom_gradient
def softplus(x: Tensor) -> tuple[Tensor, Any]:
    """log(1 + exp(x)); one exponential serves value and gradient, exp(x) / (1 + exp(x))."""
    power = tf.exp(tf.minimum(x, 20.0))  # above 20 the function is x in float32

    def gradient(upstream: Tensor) -> Tensor:
        return upstream * (power / (1.0 + power))

    return tf.maximum(tf.math.log1p(power), x), gradient


def normal_kl(mean: Tensor, stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, stddev^2) || N(0, prior_stddev^2)) in nats, summed over entries; closed form.

    As ``tfp.distributions.kl_divergence`` (a test holds values and gradients equal), in a third of
    the passes over the entries. Kingma and Welling 2014, appendix B, for prior_stddev = 1.
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

    def __call__(self, inputs: Tensor, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``, of one weight draw a call.

        Args:
            inputs: ``(batch, …, channels in)``.
            seed: int64 ``(2,)``; the same seed gives the same output.
            stddev: of :meth:`stddev`, for a caller that needs it for the KL too.
        """
        return self.apply(inputs, self.sample(seed, stddev))

    def stddev(self) -> Tensor | None:
        """The posterior's standard deviations, of `kernel_shape`; None without a posterior."""
        return None

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The linear operation: matrix product, or convolution with SAME padding and stride 1."""
        if len(self.kernel_shape) == 2:
            return tf.matmul(inputs, kernel)
        return tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME")

    def sample(self, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """One draw of the kernel from the posterior, of `kernel_shape`."""
        raise NotImplementedError

    def batch_kernel(self, batch: Tensor, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The kernel that the examples of a training batch see.

        Args:
            batch: number of examples.
            seed: as for the call, of which this is the same draw.
            stddev: of :meth:`stddev`.

        Returns:
            Of `kernel_shape` if all see one kernel, else ``(batch, *kernel_shape)``.
        """
        return self.sample(seed, stddev)

    def kl(self, stddev: Tensor | None = None) -> Tensor:
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

    def sample(self, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
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
        self.prior_stddev = prior_stddev

    @property
    def prior(self) -> Any:
        """The prior of each kernel entry, a ``tfd.Normal``."""
        return tfd.Normal(0.0, self.prior_stddev)

    @property
    def posterior(self) -> Any:
        """The kernel's posterior, a ``tfd.Normal`` of batch shape `kernel_shape`."""
        return tfd.Normal(self.mean, self.stddev())

    def stddev(self) -> Tensor:
        """The posterior's standard deviations, softplus(rho), of `kernel_shape`."""
        return SCALE_FLOOR + softplus(self.rho)

    def sample(self, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """One draw of the kernel, of `kernel_shape`."""
        return self.mean + self._perturbation(seed, stddev)

    def kl(self, stddev: Tensor | None = None) -> Tensor:
        """KL(q||p) in nats, closed form, summed over the kernel's entries."""
        return normal_kl(self.mean, self.stddev() if stddev is None else stddev, self.prior_stddev)

    def _perturbation(self, seed: Tensor, stddev: Tensor | None) -> Tensor:
        noise = standard_normal(self.kernel_shape, substream(seed, KERNEL))
        return (self.stddev() if stddev is None else stddev) * noise


class Flipout(Reparameterization):
    """The same posterior, with perturbations that are uncorrelated between a batch's examples.

    Example n sees the kernel mean + perturbation * (s_n r_n^T) with random signs r_n a channel in
    and s_n a channel out (Wen et al. 2018, equation 4): output_n = x_n * mean +
    ((x_n r_n) * perturbation) s_n, the marginal distribution of every example unchanged.
    """

    def __call__(self, inputs: Tensor, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``; each example has signs of its own."""
        signs_in, signs_out = self._signs(tf.shape(inputs)[0], seed)
        perturbed = self.apply(inputs * signs_in, self._perturbation(seed, stddev))
        return self.apply(inputs, self.mean) + perturbed * signs_out

    def batch_kernel(self, batch: Tensor, seed: Tensor, stddev: Tensor | None = None) -> Tensor:
        """Each example's own kernel, ``(batch, *kernel_shape)``: mean + perturbation * (s r^T).

        The same numbers as the call's, up to rounding, with half its multiplications: worth it
        where a kernel meets many places of an image, as a convolution's does.
        """
        signs_in, signs_out = self._signs(batch, seed)
        signs = signs_in[..., tf.newaxis] * signs_out[..., tf.newaxis, :]
        return self.mean + self._perturbation(seed, stddev) * signs

    def _signs(self, batch: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        """The signs r ``(batch, 1…, channels in)`` and s ``(batch, 1…, channels out)``."""
        inner = [1] * (len(self.kernel_shape) - 2)
        return (
            random_signs([batch, *inner, self.kernel_shape[-2]], substream(seed, SIGN_IN)),
            random_signs([batch, *inner, self.kernel_shape[-1]], substream(seed, SIGN_OUT)),
        )


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
