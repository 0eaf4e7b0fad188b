"""Functions that TensorFlow runs as graphs, each counted by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig
from tensorflow.python.eager import context


def graph(function: Callable[..., Any], **options: Any) -> Any:
    """`tf.function`, for a function that many objects have and that each of them traces once.

    TensorFlow counts tracings by the function's code. It warns of a plan, whose networks have a
    graph each, as of one function that is traced again and again. A `functools.partial` has no code
    of its own, so that each graph is counted by itself. A graph that is in fact traced again, of
    this library or of a user, is told as before.

    Its sums have one order: see :func:`keep_the_order_of_sums`.

    Args:
        function: such as a method.
        options: of `tf.function`.
    """
    keep_the_order_of_sums()
    return tf.function(functools.partial(function), **options)


def keep_the_order_of_sums() -> None:
    """Keeps TensorFlow from adding tensors in the order in which they happen to be ready.

    Its memory optimizer makes of a sum of three or more tensors a variable to which each is added
    when it comes, so that the last bit of the sum is another from run to run. A step by IVON has
    such sums; so have the gradients of a weight that is used thrice. `tf.config.optimizer` has no
    switch for this optimizer, hence the two private names; TensorFlow applies them at every call of
    a graph, also where it runs already.
    """
    tensorflow = context.context()
    config = tensorflow._config or tf.compat.v1.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    if rewrites.memory_optimization != RewriterConfig.NO_MEM_OPT:
        rewrites.memory_optimization = RewriterConfig.NO_MEM_OPT
        tensorflow._config = config
        tensorflow.function_call_options = None  # made anew, from the configuration
