"""A clock inside the graph: each rank stamps the borders between the parts of a training step.

What the stamps say of a step's time is in :mod:`bnnlib.record.profile`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

Tensor = Any


class StepClock:
    """Stamps of one step inside a graph; without `on` it leaves the graph as it is.

    Attributes:
        stamps: float64 scalars so far, in the order of :data:`bnnlib.record.profile.STAMPS`.
    """

    def __init__(self, on: bool) -> None:
        self.on = on
        self.stamps: list[Tensor] = []

    def after(self, *tensors: Any) -> contextlib.AbstractContextManager[Any]:
        """Stamps the moment when `tensors` are there; ops made in the context come after it.

        Without such borders TensorFlow may draw noise before the images are gathered, say.
        """
        if not self.on:
            return contextlib.nullcontext()
        with tf.control_dependencies(list(tensors)):
            self.stamps.append(tf.timestamp())
        return tf.control_dependencies([self.stamps[-1]])
