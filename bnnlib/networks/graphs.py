"""Functions that TensorFlow runs as graphs, each counted by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def graph(function: Callable[..., Any], **options: Any) -> Any:
    """`tf.function`, for a function that many objects have and that each of them traces once.

    TensorFlow counts tracings by the function's code. It warns of a plan, whose networks have a
    graph each, as of one function that is traced again and again. A `functools.partial` has no code
    of its own, so that each graph is counted by itself. A graph that is in fact traced again, of
    this library or of a user, is told as before.

    Args:
        function: such as a method.
        options: of `tf.function`.
    """
    return tf.function(functools.partial(function), **options)
