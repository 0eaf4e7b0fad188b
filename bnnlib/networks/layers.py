"""Bayesian layers: Flipout, reparameterization, local reparameterization; their deterministic twin.

A layer is called as ``layer(inputs, seeds)`` with a seed tensor of :mod:`bnnlib.networks.seeds`;
two calls with one seed give the same output. With K seeds the batch is K equal parts, one a seed,
and the output is that of K calls in a row: so a process computes several virtual ranks side by
side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bnnlib.networks.fast_ops import (
    largest_of_four,
    noisy,
    noisy_product,
    normal_kl,
    softplus,
)
from bnnlib.networks.patches import patches_of, pooled_convolution, products
from bnnlib.networks.seeds import (
    KERNEL,
    OUTPUT,
    SIGN_IN,
    SIGN_OUT,
    Tensor,
    how_many,
    random_signs,
    standard_normal,
    substream,
    uniform,
)

tfd = tfp.distributions

# TFP's defaults of its variational layers (default_mean_field_normal_fn), which the original study
# used.
POSTERIOR_MEAN_STDDEV = 0.1
POSTERIOR_RHO_MEAN = -3.0
POSTERIOR_RHO_STDDEV = 0.1
# What a layer computes with: its ``kernel`` of `kernel_shape`, and its ``bias``.
Draw = dict[str, Tensor]

# Added to softplus(rho), as TFP does, so that log(scale) stays finite.
SCALE_FLOOR = float(np.finfo(np.float32).eps)


def _inverse_softplus(y: float) -> float:
    """The x with log(1 + exp(x)) = y, which is log(exp(y) - 1), without overflow."""
    return y + math.log(-math.expm1(-y))


def dropout(x: Tensor, rate: float, seeds: Tensor) -> Tensor:
    """Zeros each entry with probability `rate` and divides the others by 1 - rate.

    The mean over masks is `x` itself (Srivastava et al. 2014, section 10, inverted as is usual).

    Args:
        x: float32 ``(batch, …)``; each entry has a mask of its own.
        rate: 0 or more and less than 1.
        seeds: int64 ``(2,)`` or ``(K, 2)``; the same seed gives the same mask.

    Returns:
        Of the shape of `x`.
    """
    batch, *features = tf.unstack(tf.shape(x))
    draws = uniform([batch // how_many(seeds), *features], seeds)
    kept = tf.reshape(draws, tf.shape(x)) >= rate
    return tf.where(kept, x / (1.0 - rate), 0.0)


class Operation(NamedTuple):
    """What a layer does with its kernel.

    Attributes:
        apply: the linear operation, of inputs ``(batch, …, channels in)`` and one kernel.
        outputs: channels out.
        has_bias: whether a bias is added to what `apply` makes.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    outputs: int
    has_bias: bool = True


def plain_operation(kernel_shape: tuple[int, ...]) -> Operation:
    """The matrix product, or the convolution with SAME padding and stride 1; then bias."""
    if len(kernel_shape) == 2:
        return Operation(tf.matmul, kernel_shape[-1])
    return Operation(
        lambda inputs, kernel: tf.nn.conv2d(inputs, kernel, strides=1, padding="SAME"),
        kernel_shape[-1],
    )


class Layer(tf.Module):
    """A dense or convolutional layer: a linear operation with a kernel, then bias.

    Attributes:
        kernel_shape: dense ``(inputs, outputs)``; convolution ``(height, width, channels in,
            channels out)``.
        operation: :func:`plain_operation` unless another is given.
        bias: ``(outputs,)``, deterministic in every layer (TFP's default); None where the operation
            has none.
    """

    bayesian = False

    def __init__(
        self, name: str, kernel_shape: tuple[int, ...], operation: Operation | None = None
    ) -> None:
        super().__init__(name=name)
        self.kernel_shape = kernel_shape
        self.operation = operation or plain_operation(kernel_shape)
        self.bias: Any = None
        if self.operation.has_bias:
            self.bias = tf.Variable(tf.zeros([self.operation.outputs]), name="bias")

    def __call__(self, inputs: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``, of one weight draw a seed.

        Args:
            inputs: ``(batch, …, channels in)``.
            seeds: int64 ``(2,)`` or ``(K, 2)``; the same seed gives the same output.
            stddev: what :meth:`stddev` returns, if the caller has it already (for the KL).
        """
        return self.apply(inputs, self.sample(seeds, stddev))

    def stddev(self) -> Tensor | None:
        """The posterior's standard deviations, of `kernel_shape`; None without a posterior."""
        return None

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The linear operation.

        Args:
            inputs: ``(batch, …, channels in)``.
            kernel: of `kernel_shape`, or ``(K, *kernel_shape)``, one for each Kth of the batch.
        """
        if len(kernel.shape) > len(self.kernel_shape):
            if len(self.kernel_shape) == len(inputs.shape) == 2:
                parts = tf.reshape(inputs, [kernel.shape[0], -1, self.kernel_shape[0]])
                return tf.reshape(tf.matmul(parts, kernel), [-1, self.kernel_shape[1]])
            parts = tf.split(inputs, kernel.shape[0])
            pairs = zip(parts, tf.unstack(kernel), strict=True)
            return tf.concat([self.apply(part, its_own) for part, its_own in pairs], 0)
        return self.operation.apply(inputs, kernel)

    def sample(self, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """One draw of the kernel from the posterior, of `kernel_shape`.

        Draws of K > 1 seeds are ``(K, *kernel_shape)``.
        """
        raise NotImplementedError

    def draw(self, seed: Tensor) -> Draw:
        """One draw of the layer's weights; biases are deterministic."""
        return self._with_bias(self.sample(seed))

    def _with_bias(self, kernel: Tensor) -> Draw:
        return {"kernel": kernel} | ({} if self.bias is None else {"bias": self.bias})

    def mean_draw(self) -> Draw:
        """The posterior's mean of the layer's weights."""
        raise NotImplementedError

    def batch_kernel(self, batch: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The kernel that the examples of a training batch see.

        Args:
            batch: number of examples.
            seeds: the seeds of the call; both make the same draws.
            stddev: what :meth:`stddev` returns, if the caller has it already.

        Returns:
            Of `kernel_shape` if all see one kernel, else ``(batch, *kernel_shape)``.
        """
        return self._by_example(self.sample(seeds, stddev), batch)

    def pooled(self, images: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output of a first convolution before bias, and 2x2 max-pooling of it.

        Args:
            images: for which :func:`bnnlib.networks.patches.can_unfold` holds.
            seeds: as of the call.
            stddev: what :meth:`stddev` returns, if the caller has it already.

        Returns:
            ``(batch, height / 2, width / 2, outputs)``.
        """
        return pooled_convolution(images, self.batch_kernel(tf.shape(images)[0], seeds, stddev))

    def _by_example(self, draws: Tensor, batch: Tensor) -> Tensor:
        """One draw a seed as one for each example; a single draw as it is."""
        if len(draws.shape) == len(self.kernel_shape):
            return draws
        return tf.repeat(draws, batch // draws.shape[0], axis=0)

    def kl(self, stddev: Tensor | None = None) -> Tensor:
        """KL(q||p) of the kernel in nats, summed over its entries; 0 without a prior."""
        return tf.zeros(())


class Deterministic(Layer):
    """The twin of the Bayesian layers: a point estimate, Glorot-uniform as Keras' default.

    With a prior N(0, prior_stddev^2) training finds the kernel of the largest posterior density
    (MAP) instead of the largest likelihood.
    """

    def __init__(
        self,
        name: str,
        kernel_shape: tuple[int, ...],
        seed: Tensor,
        prior_stddev: float | None = None,
        operation: Operation | None = None,
    ) -> None:
        super().__init__(name, kernel_shape, operation)
        self.prior_stddev = prior_stddev
        receptive = int(np.prod(kernel_shape[:-2]))
        limit = (6.0 / (receptive * (kernel_shape[-2] + kernel_shape[-1]))) ** 0.5
        self.kernel = tf.Variable(
            tf.random.stateless_uniform(kernel_shape, seed, -limit, limit), name="kernel"
        )

    def sample(self, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The kernel itself, of `kernel_shape` whatever the seeds."""
        return self.kernel

    def mean_draw(self) -> Draw:
        """The weights themselves."""
        return self._with_bias(self.kernel)

    def kl(self, stddev: Tensor | None = None) -> Tensor:
        """-log p(kernel) in nats but for its constant: what a posterior's KL is to a point."""
        if self.prior_stddev is None:
            return tf.zeros(())
        return tf.reduce_sum(tf.square(self.kernel)) / (2.0 * self.prior_stddev**2)


class Reparameterization(Layer):
    """Mean-field normal posterior; one kernel draw for the whole batch (Blundell et al. 2015).

    The posterior of kernel entry i is N(mean_i, scale_i^2), scale_i = softplus(rho_i); the prior
    N(0, prior_stddev^2). A draw is mean + scale * noise (their section 3.2, step 2).
    """

    bayesian = True

    def __init__(
        self,
        name: str,
        kernel_shape: tuple[int, ...],
        seed: Tensor,
        prior_stddev: float,
        posterior_stddev: float = 0.0,
        operation: Operation | None = None,
    ) -> None:
        """Sets the initial posterior, its deviations about `posterior_stddev` (0: TFP's)."""
        super().__init__(name, kernel_shape, operation)
        mean = tf.random.stateless_normal(kernel_shape, seed)
        rho = tf.random.stateless_normal(kernel_shape, substream(seed, 1))
        self.mean = tf.Variable(POSTERIOR_MEAN_STDDEV * mean, name="mean")
        rho_mean = _inverse_softplus(posterior_stddev) if posterior_stddev else POSTERIOR_RHO_MEAN
        self.rho = tf.Variable(rho_mean + POSTERIOR_RHO_STDDEV * rho, name="rho")
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

    def sample(self, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """One draw of the kernel, of `kernel_shape`; ``(K, *kernel_shape)`` for K > 1 seeds."""
        return self.mean + self._perturbation(seeds, stddev)

    def mean_draw(self) -> Draw:
        """The posterior's mean of the kernel, and the bias."""
        return self._with_bias(self.mean)

    def kl(self, stddev: Tensor | None = None) -> Tensor:
        """KL(q||p) in nats, closed form, summed over the kernel's entries."""
        return normal_kl(self.mean, self.stddev() if stddev is None else stddev, self.prior_stddev)

    def _perturbation(self, seeds: Tensor, stddev: Tensor | None) -> Tensor:
        noise = standard_normal(self.kernel_shape, substream(seeds, KERNEL))
        return (self.stddev() if stddev is None else stddev) * noise


class Flipout(Reparameterization):
    """The same posterior, with perturbations that are uncorrelated between a batch's examples.

    Example n sees the kernel mean + perturbation * (s_n r_n^T) with random signs r_n a channel in
    and s_n a channel out (Wen et al. 2018, equation 4): output_n = x_n * mean +
    ((x_n r_n) * perturbation) s_n, the marginal distribution of every example unchanged.
    """

    def __call__(self, inputs: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``; each example has signs of its own."""
        places = len(inputs.shape) - 2
        signs_in, signs_out = self._signs(tf.shape(inputs)[0], seeds, places)
        perturbed = self.apply(inputs * signs_in, self._perturbation(seeds, stddev))
        return self.apply(inputs, self.mean) + perturbed * signs_out

    def batch_kernel(self, batch: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """Each example's own kernel, ``(batch, *kernel_shape)``: mean + perturbation * (s r^T).

        These kernels give the call's outputs up to rounding, with half its multiplications. They
        pay where a kernel meets many places of an image, as a convolution's does.
        """
        signs_in, signs_out = self._signs(batch, seeds, len(self.kernel_shape) - 2)
        signs = signs_in[..., tf.newaxis] * signs_out[..., tf.newaxis, :]
        return self.mean + self._by_example(self._perturbation(seeds, stddev), batch) * signs

    def _signs(self, batch: Tensor, seeds: Tensor, places: int) -> tuple[Tensor, Tensor]:
        """The signs r ``(batch, 1…, channels in)`` and s ``(batch, 1…, channels out)``.

        Args:
            batch: number of examples.
            seeds: of the call.
            places: axes between an example's and the channels', along which it has the same signs.
        """
        inner = [1] * places
        part = batch // how_many(seeds)
        r, s = (
            tf.reshape(
                random_signs([part, *inner, channels], substream(seeds, use)),
                [batch, *inner, channels],
            )
            for use, channels in (
                (SIGN_IN, self.kernel_shape[-2]),
                (SIGN_OUT, self.operation.outputs),
            )
        )
        return r, s


class LocalReparameterization(Reparameterization):
    """The same posterior, with noise drawn for the outputs in place of the weights.

    An output is a sum over kernel entries, so it is normal (Kingma, Salimans and Welling 2015,
    equation 6; * is the linear operation):

        output ~ N(x * mean, x^2 * stddev^2)

    Each example's outputs have noise of their own. A dense layer's then have exactly the
    distribution that a kernel of its own for each example gives them. A convolution's have it one
    by one: that all places of an image see one kernel is left out (as in Molchanov et al. 2017),
    while prediction draws kernels, which an image's places share.
    """

    def __call__(self, inputs: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """The output before bias, ``(batch, …, outputs)``."""
        stddev = self.stddev() if stddev is None else stddev
        part = tf.shape(inputs)[0] // how_many(seeds)

        def noise(shape: Any) -> Tensor:
            draws = standard_normal([part, *shape], substream(seeds, OUTPUT))
            return tf.reshape(draws, [-1, *shape])

        if len(self.kernel_shape) == len(inputs.shape) == 2:
            return noisy_product(inputs, self.mean, stddev, noise(self.kernel_shape[-1:]))
        mean = self.apply(inputs, self.mean)
        variance = self.apply(tf.square(inputs), tf.square(stddev))
        return noisy(mean, variance, noise(mean.shape[1:]))

    def pooled(self, images: Tensor, seeds: Tensor, stddev: Tensor | None = None) -> Tensor:
        """Convolution and 2x2 max-pooling: of an image's outputs, each with noise of its own."""
        stddev = self.stddev() if stddev is None else stddev
        patches = patches_of(images, self.kernel_shape[0])
        means = products(patches, self.mean)
        variances = products(tf.square(patches), tf.square(stddev))
        shape = means[0].shape[1:]
        part = tf.shape(images)[0] // how_many(seeds)
        # The place of four first, so that a place's noise is one piece of memory.
        noise = standard_normal([4, part, *shape], substream(seeds, OUTPUT))
        if how_many(seeds) > 1:
            noise = tf.reshape(tf.transpose(noise, [1, 0, 2, 3, 4]), [4, -1, *shape])
        four = map(noisy, means, variances, tf.unstack(noise))
        _, height, width, _ = images.shape
        return tf.reshape(largest_of_four(*four), [-1, height // 2, width // 2, shape[-1]])
