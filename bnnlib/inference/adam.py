"""Adam on the ELBO: mean-field variational inference, or a point estimate without Bayesian layers.

Kingma and Ba 2015, algorithm 1. A Bayesian layer's means and scales are ordinary weights here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from bnnlib.inference.objective import gradient
from bnnlib.inference.state import Method
from bnnlib.networks import Tensor, plain

# Adam's constants (Kingma and Ba 2015), Keras' defaults.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


def build() -> Method:
    """Adam's three verbs, for a trainer."""
    return Method(init=init, gradient=gradient, update=update)


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
) -> list[Any]:
    """One step of Adam by TensorFlow's fused kernel; the same on all ranks.

    Args:
        weights: which it changes, by name.
        moments: of :func:`init`, which it changes too.
        gradients: one a weight, in their order.
        count: float32, 1 at the first step.
        rate: float32, the learning rate.

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
            lr=rate,
            beta1=BETA_1,
            beta2=BETA_2,
            epsilon=EPSILON,
            grad=its_gradient,
        )
        for index, (variable, its_gradient) in enumerate(
            zip(weights.values(), gradients, strict=True)
        )
    ]
