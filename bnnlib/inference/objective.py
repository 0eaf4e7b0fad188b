"""What training descends: the negative ELBO per training image, and its gradient on one rank.

With N training images, a batch of b images a rank and R ranks, the loss on a rank is

    mean over its b images of -log p(y | x, w)  +  kl_weight * KL(q || p) / N,    w ~ q

(Graves 2011, equation 8; Blundell et al. 2015, equation 3). Gradients are averaged over ranks, so
KL is divided by N, never by b R, R or the size of a shard: the expectation of the averaged gradient
is that of one rank with a batch of b R images.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bnnlib.networks import Network, Tensor, plain


def objective(
    network: Network,
    images: Tensor,
    labels: Tensor,
    seeds: Sequence[Tensor],
    kl_weight: Tensor,
    num_train_examples: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss on one rank.

    Args:
        network: whose posterior is q.
        images: float32 ``(batch, height, width, channels)``.
        labels: int ``(batch,)``.
        seeds: one int64 ``(2,)`` a weight draw; the likelihood term is the mean over the draws.
        kl_weight: factor on KL/N.
        num_train_examples: N, the size of the whole training set.

    Returns:
        Scalars: loss and nll (nats an image), kl (nats).
    """
    stddevs = network.stddevs()  # once, for the draws and for the KL
    nll = tf.add_n(
        [
            tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=network(images, seed, stddevs)
                )
            )
            for seed in seeds
        ]
    ) / len(seeds)
    kl = network.kl(stddevs)
    return nll + kl_weight * kl / num_train_examples, nll, kl


@plain
def gradient(
    network: Network,
    images: Tensor,
    labels: Tensor,
    seeds: Sequence[Tensor],
    kl_weight: Tensor,
    num_train_examples: int,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The gradient of :func:`objective` by each of the network's variables; nll and kl.

    Args as for :func:`objective`.

    Returns:
        One tensor a variable, in the network's order; the scalars nll and kl.
    """
    variables = network.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        loss, nll, kl = objective(network, images, labels, seeds, kl_weight, num_train_examples)
    return tape.gradient(loss, variables), nll, kl
