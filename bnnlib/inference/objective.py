"""What training descends: the negative ELBO per training image, and its gradient on one rank.

With N training images, a batch of b images a virtual rank and R of these, the loss of one is

    mean over its b images of -log p(y | x, w)  +  kl_weight * KL(q || p) / N,    w ~ q

(Graves 2011, equation 8; Blundell et al. 2015, equation 3). Gradients are averaged over ranks, so
KL is divided by N, never by b R, R or the size of a shard: the expectation of the averaged gradient
is that of one rank with a batch of b R images.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from bnnlib.inference.virtual_ranks import Batches, Group
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
    nll = mean_nll(network, images, labels, seeds, stddevs)
    kl = network.kl(stddevs)
    return nll + kl_weight * kl / num_train_examples, nll, kl


def mean_nll(
    network: Network,
    images: Tensor,
    labels: Tensor,
    seeds: Sequence[Tensor],
    stddevs: list[Tensor | None],
) -> Tensor:
    """The loss's first term in nats an image, the mean over weight draws; see :func:`objective`."""
    return tf.add_n(
        [
            tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=network(images, seed, stddevs)
                )
            )
            for seed in seeds
        ]
    ) / len(seeds)


@plain
def gradient(
    network: Network, batches: Batches, kl_weight: Tensor, num_train_examples: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The gradient of :func:`objective` by each of the network's variables; nll and kl.

    Args:
        network: whose posterior is q.
        batches: of the virtual ranks of this process; the mean over them is returned.
        kl_weight: factor on KL/N.
        num_train_examples: N.

    Returns:
        One tensor a variable, in the network's order; the scalars nll and kl.
    """
    variables = network.trainable_variables
    if batches.ranks.num_groups == 1:
        images, labels, seeds = batches.group(0)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss, nll, kl = objective(network, images, labels, seeds, kl_weight, num_train_examples)
        return tape.gradient(loss, variables), nll, kl

    # KL and the standard deviations depend on no batch: they are computed once, and so is the way
    # from a standard deviation's gradient to rho's.
    with tf.GradientTape(watch_accessed_variables=False) as once:
        once.watch(variables)
        stddevs = network.stddevs()
        kl = network.kl(stddevs)
        scaled_kl = kl_weight * kl / num_train_examples
    drawn = [stddev for stddev in stddevs if stddev is not None]

    def of_group(group: Group) -> list[Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*variables, *drawn])
            nll = mean_nll(network, *group, stddevs)
        zero = tf.UnconnectedGradients.ZERO  # of rho, which reaches nll through stddev alone
        return [*tape.gradient(nll, [*variables, *drawn], unconnected_gradients=zero), nll]

    *of_nll, nll = batches.mean(of_group)
    direct, of_stddevs = of_nll[: len(variables)], of_nll[len(variables) :]
    indirect = once.gradient(
        [scaled_kl, *drawn], variables, output_gradients=[tf.ones([]), *of_stddevs]
    )
    gradients = [a if b is None else a + b for a, b in zip(direct, indirect, strict=True)]
    return gradients, nll, kl
