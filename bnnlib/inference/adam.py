"""Adam on the ELBO: mean-field variational inference, or a point estimate without Bayesian layers.

Kingma and Ba 2015, algorithm 1. A Bayesian layer's means and scales are ordinary weights here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bnnlib.inference.objective import gradient
from bnnlib.inference.state import Method
from bnnlib.networks import Tensor, plain

# Adam's constants (Kingma and Ba 2015), Keras' defaults.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


def build(rho_rate: float = 1.0) -> Method:
    """Adam's three verbs, for a trainer.

    Args:
        rho_rate: factor on the learning rate of the posterior's rho. Adam moves an entry by at most
            about the rate a step, and a deviation of the prior's size is far from the initial one.
    """
    return Method(init, gradient, functools.partial(update, rho_rate=rho_rate))


def init(weights: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Zero moments of every weight: ``adam1/<index>`` the first, ``adam2/<index>`` the second."""
    return {
        f"adam{order}/{index}": tf.Variable(tf.zeros_like(variable), trainable=False)
        for order in (1, 2)
        for index, variable in enumerate(weights.values())
    }


@plain
def update(
    weights: Mapping[str, tf.Variable],
    moments: Mapping[str, tf.Variable],
    gradients: Sequence[Tensor],
    count: Tensor,
    rate: Tensor,
    rho_rate: float = 1.0,
) -> list[Any]:
    """One step of Adam by TensorFlow's fused kernel; the same on all ranks.

    Args:
        weights: which it changes, by name.
        moments: of :func:`init`, which it changes too.
        gradients: one a weight, in their order.
        count: float32, 1 at the first step.
        rate: float32, the learning rate.
        rho_rate: factor on it for the weights called ``…/rho``.

    Returns:
        The ops that change the weights.
    """
    powers = tf.pow([BETA_1, BETA_2], count)
    return [
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=moments[f"adam1/{index}"].handle,
            v=moments[f"adam2/{index}"].handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate * rho_rate if name.endswith("/rho") else rate,
            beta1=BETA_1,
            beta2=BETA_2,
            epsilon=EPSILON,
            grad=its_gradient,
        )
        for index, ((name, variable), its_gradient) in enumerate(
            zip(weights.items(), gradients, strict=True)
        )
    ]
