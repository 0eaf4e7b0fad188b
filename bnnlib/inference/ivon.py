"""IVON: a normal posterior over all weights of a deterministic network, for one gradient a step.

Shen et al. 2024, "Variational Learning is Effective for Large Deep Networks" (arXiv 2402.17641),
algorithm 1, with the weights' mean m and per weight a running estimate h of the loss's expected
second derivative. The posterior of a weight is

    q = N(m, stddev^2),    stddev = 1 / sqrt(ess (h + delta))                        (line 8)

and step t of an allreduce of two numbers a weight is, entry by entry,

    theta = m + stddev noise,    g_hat = gradient of the batch's nll at theta         (line 2)
    h_hat = g_hat (theta - m) / stddev^2 = g_hat noise sqrt(ess (h + delta))          (line 3)
    g <- beta_1 g + (1 - beta_1) g_hat                                                (line 4)
    h <- beta_2 h + (1 - beta_2) h_hat + ((1 - beta_2) (h - h_hat))^2 / (2 (h + delta))    (line 5)
    m <- m - rate (h0 + delta) (g / (1 - beta_1^t) + delta m) / (h + delta)         (lines 6, 7)

g_hat and g_hat noise are means over the draws of all virtual ranks, each with noise of its own;
h, which all ranks keep alike, need not travel. The factor h0 + delta is the algorithm's optional
one: the first steps are those of gradient descent with momentum at `rate`.

What is minimised is the loss of :mod:`bnnlib.inference.objective`, nll + kl_weight KL(q||p) / N,
with the prior p = N(0, prior_stddev^2) on every weight. Its two numbers here are

    ess = N / kl_weight,    delta = kl_weight / (N prior_stddev^2) = 1 / (ess prior_stddev^2)

so that a network by IVON and one of Bayesian layers that have the same prior are one model. The
paper gives its prior by delta ("weight decay"): prior_stddev = 1 / sqrt(N delta) is its setting.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from bnnlib.errors import ExperimentError
from bnnlib.inference.state import Method, by_layer
from bnnlib.inference.virtual_ranks import Batches, Group
from bnnlib.networks import Draw, Network, Tensor, plain, standard_normal

BETA_1 = 0.9  # the paper's, for all of its experiments


class Settings(NamedTuple):
    """What IVON's equations need to know beside the state.

    Attributes:
        ess: the effective number of training examples.
        delta: the prior's precision an example; 1 / (ess prior_stddev^2).
        initial_h: h0, the first estimate of the second derivative.
        beta_2: what of h a step keeps.
    """

    ess: float
    delta: float
    initial_h: float
    beta_2: float

    @property
    def prior_stddev(self) -> float:
        """Standard deviation of the normal prior on each weight."""
        return 1.0 / math.sqrt(self.ess * self.delta)

    def stddev(self, h: Tensor) -> Tensor:
        """The posterior's standard deviation, line 8."""
        return tf.math.rsqrt(self.ess * (h + self.delta))


def build(
    num_train_examples: int,
    prior_stddev: float = 1.0,
    kl_weight: float = 1.0,
    initial_h: float = 1.0,
    beta_2: float = 0.99999,
) -> Method:
    """IVON's verbs, for a trainer.

    Args:
        num_train_examples: N.
        prior_stddev: standard deviation of the normal prior on each weight, biases included.
        kl_weight: factor on KL/N in the loss; 1: the ELBO.
        initial_h: h0. The posterior begins with the deviation 1 / sqrt(ess (h0 + delta)).
        beta_2: what of h a step keeps; h forgets h0 in about 1 / (1 - beta_2) steps.

    Raises:
        ExperimentError: `kl_weight` is 0, and the posterior without a width.
    """
    if kl_weight <= 0:
        raise ExperimentError(
            f"kl_weight = {kl_weight}: IVON needs a value above 0, since its posterior's variances "
            "are proportional to it; a point estimate is inference: adam"
        )
    ess = num_train_examples / kl_weight
    settings = Settings(ess, 1.0 / (ess * prior_stddev**2), initial_h, beta_2)
    return Method(
        init=functools.partial(init, initial_h=initial_h),
        gradient=gradient,
        update=functools.partial(update, settings=settings),
        sent=lambda weights: [*weights.values(), *weights.values()],
        posterior=functools.partial(NormalPosterior, settings=settings),
    )


def init(weights: Mapping[str, tf.Variable], initial_h: float) -> dict[str, tf.Variable]:
    """The state of every weight: ``ivon_h/<index>`` at h0 and ``ivon_g/<index>`` at zero."""
    return {
        f"ivon_{name}/{index}": tf.Variable(tf.fill(variable.shape, value), trainable=False)
        for name, value in (("g", 0.0), ("h", initial_h))
        for index, variable in enumerate(weights.values())
    }


class NormalPosterior:
    """The posterior N(m, stddev^2) of every weight, as the state has it at the moment of a call."""

    def __init__(
        self, network: Network, own: Mapping[str, tf.Variable], settings: Settings
    ) -> None:
        self.settings = settings
        self.weights = network.named_variables()
        self.h = [own[f"ivon_h/{index}"] for index in range(len(self.weights))]

    def sample(self, seed: Tensor) -> list[Draw]:
        """One draw of every layer's weights; the same seed, int64 ``(2,)``, gives the same."""
        return self.by_layer(self.at(self.noise(seed), self.flat_stddevs()))

    def means(self) -> list[Draw]:
        """The mean m of every layer's weights."""
        return self.by_layer(list(self.weights.values()))

    def stddevs(self) -> list[Draw]:
        """The standard deviation of every layer's weights, in the shape of a draw."""
        return self.by_layer(self.flat_stddevs())

    def kl(self, stddevs: Sequence[Tensor]) -> Tensor:
        """KL(q||p) in nats over all weights; `stddevs` are those of :meth:`flat_stddevs`.

        With the prior's deviation s, the sum over weights of (m^2 + stddev^2) / (2 s^2)
        - log(stddev / s) - 1/2. Nothing differentiates it, so it takes fewer passes than
        :func:`bnnlib.networks.fast_ops.normal_kl`.
        """
        prior_stddev = self.settings.prior_stddev
        halves = tf.add_n([tf.nn.l2_loss(t) for t in (*self.weights.values(), *stddevs)])
        logs = tf.add_n([tf.reduce_sum(tf.math.log(stddev)) for stddev in stddevs])
        count = sum(math.prod(h.shape) for h in self.h)
        return halves / prior_stddev**2 - logs + count * (math.log(prior_stddev) - 0.5)

    def flat_stddevs(self) -> list[Tensor]:
        """The standard deviations, one tensor a weight in the order of the network's names."""
        return [self.settings.stddev(h) for h in self.h]

    def noise(self, seed: Tensor) -> list[Tensor]:
        """Standard normal numbers, one tensor a weight."""
        sizes = [math.prod(h.shape) for h in self.h]
        parts = tf.split(standard_normal((sum(sizes),), seed), sizes)
        return [tf.reshape(part, h.shape) for part, h in zip(parts, self.h, strict=True)]

    def at(self, noise: Sequence[Tensor], stddevs: Sequence[Tensor]) -> list[Tensor]:
        """The weights theta, line 2."""
        parts = zip(self.weights.values(), stddevs, noise, strict=True)
        return [mean + stddev * its_noise for mean, stddev, its_noise in parts]

    def by_layer(self, tensors: Sequence[Tensor]) -> list[Draw]:
        """Tensors in the order of the network's names as a draw: by layer, then by name."""
        return by_layer(dict(zip(self.weights, tensors, strict=True)))


@plain
def gradient(
    network: Network, batches: Batches, kl_weight: Tensor, num_train_examples: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Line 2: the gradient at draws of the weights, and its product with their noise.

    Args:
        network: whose posterior is a :class:`NormalPosterior`.
        batches: of the virtual ranks of this process; the mean over them is returned.
        kl_weight: unused; `ess` has it.
        num_train_examples: unused; `ess` has it.

    Returns:
        g_hat, a tensor a weight, then g_hat noise; the scalars nll and kl.
    """
    posterior = network.posterior
    assert isinstance(posterior, NormalPosterior)
    stddevs = posterior.flat_stddevs()

    def of_draw(group: Group, seed: Tensor) -> list[Tensor]:
        noise = posterior.noise(seed)
        theta = posterior.at(noise, stddevs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            logits = network.logits(group.images, posterior.by_layer(theta), seed)
            nll = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=group.labels, logits=logits)
            )
        gradients = tape.gradient(nll, theta)
        return [*gradients, *(g * n for g, n in zip(gradients, noise, strict=True)), nll]

    def of_group(group: Group) -> list[Tensor]:
        draws = [of_draw(group, seed) for seed in group.seeds]
        return (
            draws[0]
            if len(draws) == 1
            else [tf.add_n(p) / len(p) for p in zip(*draws, strict=True)]
        )

    *averages, nll = batches.mean(of_group)
    return averages, nll, posterior.kl(stddevs)


@plain
def update(
    weights: Mapping[str, tf.Variable],
    own: Mapping[str, tf.Variable],
    averages: Sequence[Tensor],
    count: Tensor,
    rate: Tensor,
    settings: Settings,
) -> list[Any]:
    """Lines 3 to 7 for all weights; the same on all ranks.

    Args:
        weights: the means m by name, which it changes.
        own: of :func:`init`, which it changes too.
        averages: what :func:`gradient` returns, the mean over ranks.
        count: float32, t, 1 at the first step.
        rate: float32, the learning rate.
        settings: of :func:`build`.

    Returns:
        The ops that change the weights and the state.
    """
    ess, delta = settings.ess, settings.delta
    rate = rate * (settings.initial_h + delta)
    of_momentum = rate / (1.0 - tf.pow(BETA_1, count))
    done: list[Any] = []
    pairs = zip(averages[: len(weights)], averages[len(weights) :], strict=True)
    for index, (mean, (g_hat, g_hat_noise)) in enumerate(zip(weights.values(), pairs, strict=True)):
        g, h = own[f"ivon_g/{index}"], own[f"ivon_h/{index}"]
        old_h = h.read_value()
        curvature = old_h + delta
        h_hat = g_hat_noise * tf.sqrt(ess * curvature)
        change = (1.0 - settings.beta_2) * (h_hat - old_h)
        new_h = old_h + (change + 0.5 * tf.square(change) / curvature)
        new_g = BETA_1 * g + (1.0 - BETA_1) * g_hat
        step = (of_momentum * new_g + (rate * delta) * mean) / (new_h + delta)
        done += [g.assign(new_g), h.assign(new_h), mean.assign_sub(step)]
    return done
