"""Natural gradients for the Bayesian layers' means and precisions, Adam for all other weights.

The Bayesian learning rule (Khan and Rue 2023, section 4) for a normal posterior of one entry, with
mean m, deviation s and precision p = 1/s^2: with g_m and g_s the gradients of the loss, which is
the negative ELBO an image of N, by m and s,

    d = N g_s / s             the curvature of N nll, plus the prior's precision, less p
    p <- p + r d + (r d)^2 / (2 p)      which stays above 0 (Lin et al. 2020)
    m <- m - r' N M / p                 with M the mean of past g_m, as Adam debiases it

so an entry's step has the size of its posterior: entries that the data do not reach go to the prior
at once, others keep still. It is tried here and no method of the library: figures/convergence
says what it gains and what it does not.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bnnlib.inference import adam
from bnnlib.inference.objective import gradient
from bnnlib.inference.state import Method
from bnnlib.networks import Tensor, plain

MEAN, RHO = "/mean", "/rho"
# A mean moves by at most so much a step: the first precisions know little of the curvature.
LONGEST_MOVE = 0.1


def build(num_train_examples: int, precision_rate: float, mean_rate: float) -> Method:
    """The verbs, for a trainer.

    Args:
        num_train_examples: N.
        precision_rate: r as a multiple of the learning rate, which is Adam's of the other weights.
        mean_rate: r' likewise.
    """
    rates = {"precision_rate": precision_rate, "mean_rate": mean_rate}
    return Method(
        adam.init, gradient, functools.partial(update, size=float(num_train_examples), **rates)
    )


@plain
def update(
    weights: Mapping[str, tf.Variable],
    moments: Mapping[str, tf.Variable],
    gradients: Sequence[Tensor],
    count: Tensor,
    rate: Tensor,
    size: float,
    precision_rate: float,
    mean_rate: float,
) -> list[Any]:
    """One step; the same on all ranks.

    Args:
        weights: which it changes, by name.
        moments: of :func:`bnnlib.inference.adam.init`; a mean uses its first alone, a rho none.
        gradients: of the loss, one a weight, in their order.
        count: float32, 1 at the first step.
        rate: float32, the learning rate.
        size: N.
        precision_rate: see :func:`build`.
        mean_rate: see :func:`build`.

    Returns:
        The ops that change the weights.
    """
    by_name = dict(zip(weights, gradients, strict=True))
    others = {n: v for n, v in weights.items() if not n.endswith((MEAN, RHO))}
    index_of = {name: index for index, name in enumerate(weights)}
    done = adam.update(
        others,
        {
            f"adam{order}/{place}": moments[f"adam{order}/{index_of[name]}"]
            for order in (1, 2)
            for place, name in enumerate(others)
        },
        [by_name[name] for name in others],
        count,
        rate,
    )
    for name, mean in weights.items():
        if not name.endswith(MEAN):
            continue
        rho, moment = weights[name.removesuffix(MEAN) + RHO], moments[f"adam1/{index_of[name]}"]
        stddev = tf.math.softplus(rho)
        # softplus' derivative is the sigmoid.
        by_stddev = by_name[name.removesuffix(MEAN) + RHO] / tf.sigmoid(rho)
        precision, step = 1.0 / tf.square(stddev), rate * precision_rate * size * by_stddev / stddev
        precision += step + 0.5 * tf.square(step) / precision
        first = adam.BETA_1 * moment + (1.0 - adam.BETA_1) * by_name[name]
        move = rate * mean_rate * size * first / (1.0 - tf.pow(adam.BETA_1, count)) / precision
        move = tf.clip_by_value(move, -LONGEST_MOVE, LONGEST_MOVE)
        stddev = tf.math.rsqrt(precision)
        inverse = stddev + tf.math.log(-tf.math.expm1(-stddev))  # of softplus
        done += [moment.assign(first), mean.assign_sub(move), rho.assign(inverse)]
    return done
