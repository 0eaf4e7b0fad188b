"""What training descends: the negative ELBO per training image, and its gradient on one rank.

With N training images, a batch of b images a rank and R ranks, the loss on a rank is

    mean over its b images of -log p(y | x, w)  +  kl_weight * KL(q || p) / N,    w ~ q

(Graves 2011, equation 8; Blundell et al. 2015, equation 3). Gradients are averaged over ranks, so
KL is divided by N, never by b R, R or the size of a shard: the expectation of the averaged gradient
is that of one rank with a batch of b R images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from bnnlib.networks import Network, Tensor, plain


class Method(NamedTuple):
    """How data become a posterior; each module of a method has a ``build`` that returns one.

    The verbs are those of the library `posteriors`. The trainer averages what `gradient` returns
    over a rank's batches and over ranks, and hands the average to `update`.

    Attributes:
        init: of the weights by name, the method's own variables by name: its state.
        gradient: of one batch, as :func:`gradient` below.
        update: of weights, own variables, averaged gradients, the step's number from 1, and the
            learning rate; changes the weights and returns the ops that do so.
    """

    init: Callable[[Mapping[str, tf.Variable]], dict[str, tf.Variable]]
    gradient: Callable[..., tuple[Sequence[Tensor], Tensor, Tensor]]
    update: Callable[..., list[Any]]


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

    Args:
        network: whose trainable variables the gradient is taken by.
        images: as for :func:`objective`.
        labels: likewise.
        seeds: likewise.
        kl_weight: likewise.
        num_train_examples: likewise.

    Returns:
        One tensor a variable, in the network's order; the scalars nll and kl.
    """
    variables = network.trainable_variables
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        loss, nll, kl = objective(network, images, labels, seeds, kl_weight, num_train_examples)
    return tape.gradient(loss, variables), nll, kl
