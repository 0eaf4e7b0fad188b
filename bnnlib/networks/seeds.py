"""Stateless noise: every random number follows from a seed tensor, whatever was drawn before.

A seed tensor is int64 ``(2,)``. Its first number says whose noise it is (:func:`stream_key`) and
which use of it (:func:`substream`); the second counts draws. So a resumed run repeats an
uninterrupted one bit by bit, and ranks draw different noise from one program.

Seeds of several virtual ranks that are computed side by side are the rows of one tensor ``(K, 2)``,
K known when the graph is made: each row's numbers are those of that seed alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any  # tf.Tensor; TensorFlow ships no types that mypy can use

# What a layer draws of one seed; added to the seed's first number so that no two draws coincide.
KERNEL, SIGN_IN, SIGN_OUT = 0, 1, 2
# An output's noise takes the seed of a kernel's, since no call draws both.
OUTPUT = KERNEL
DRAWS_PER_LAYER = 3
# A dropout mask takes the seed of a kernel's noise, since no network has both.
MASK = KERNEL
# What a stream of noise is for: a part of the seed, so that no two purposes share noise.
INITIAL, TRAINING, PREDICTION = 0, 1, 2
# Row b holds the eight signs of the bits of byte b.
SIGNS_OF_BYTE = 1.0 - 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(
    np.float32
)


def stream_key(seed: int, purpose: int, rank: int = 0) -> int:
    """The first number of the seed tensors of one stream of noise; the second counts draws.

    Args:
        seed: the run's seed.
        purpose: :data:`INITIAL`, :data:`TRAINING` or :data:`PREDICTION`.
        rank: the rank that draws; the streams of different ranks are independent.

    Returns:
        An integer below 2^62, so that :func:`substream` cannot overflow an int64.
    """
    state = np.random.SeedSequence([seed, purpose, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))


def substream(seed: Tensor, index: int) -> Tensor:
    """The `index`-th seed derived from `seed`, ``(2,)`` or each row of ``(K, 2)``, for one use."""
    return seed + tf.constant([index, 0], dtype=seed.dtype)


def how_many(seeds: Tensor) -> int:
    """The number of seeds: K of ``(K, 2)``, and 1 of ``(2,)``."""
    return 1 if len(seeds.shape) == 1 else int(seeds.shape[0])


def uniform(shape: Any, seeds: Tensor, dtype: Any = tf.float32) -> Tensor:
    """Independent numbers from [0, 1), or all integers of an integer type.

    Args:
        shape: of what one seed draws; its first number may be a tensor.
        seeds: int64 ``(2,)`` or ``(K, 2)``.
        dtype: of the numbers.

    Returns:
        Of `shape` for one seed; ``(K, *shape)`` for more.
    """
    ends = (0, 1) if dtype.is_floating else (None, None)
    rows = [seeds] if len(seeds.shape) == 1 else tf.unstack(seeds)
    draws = [tf.random.stateless_uniform(shape, seed, *ends, dtype) for seed in rows]
    return draws[0] if len(draws) == 1 else tf.stack(draws)


def random_signs(shape: Any, seeds: Tensor) -> Tensor:
    """Independent +1 and -1 with probability 1/2 each, float32; shapes as of :func:`uniform`.

    A sign costs one random bit: random bytes look their eight signs up (drawing an integer a sign
    took a fifth of `BNN_FC_flip`'s step).
    """
    count = tf.reduce_prod(tf.stack(shape))
    words = uniform([(count + 31) // 32], seeds, tf.int32)
    octets = tf.cast(tf.bitcast(words, tf.uint8), tf.int32)
    several = [how_many(seeds)] if how_many(seeds) > 1 else []
    signs = tf.reshape(tf.gather(tf.constant(SIGNS_OF_BYTE), octets), [*several, -1])
    return tf.reshape(signs[..., :count], [*several, *shape])


def standard_normal(shape: Any, seeds: Tensor) -> Tensor:
    """Independent draws of N(0, 1), float32, by Box and Muller's transform (1958).

    Shapes as of :func:`uniform`. TensorFlow's own draws use the transform too, one number at a
    time; here logarithm, sine and cosine are of whole arrays, which takes half as long.
    """
    count = tf.reduce_prod(tf.stack(shape))
    both = uniform([2, (count + 1) // 2], seeds)
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - both[..., 0, :]))  # of (0, 1]: the log is finite
    angle = 2.0 * math.pi * both[..., 1, :]
    pairs = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], -1)
    several = [how_many(seeds)] if how_many(seeds) > 1 else []
    return tf.reshape(pairs[..., :count], [*several, *shape])
