"""Stateless noise: its distribution, and that no two uses share it.

The seeds are fixed, so a test that passes once passes always.
"""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bnnlib.networks import Flipout, seeds

# Standard errors: 5 is exceeded by chance once in 1.7 million comparisons, of some hundred here.
ERRORS = 5.0


def seed(first=11, second=0):
    return tf.constant([first, second], tf.int64)


@pytest.mark.parametrize("shape", [(50_001,), (5, 5, 1, 64)])
def test_draws_are_standard_normal(shape):
    draws = np.concatenate(
        [seeds.standard_normal(shape, seed(8, n)).numpy().ravel() for n in range(20)]
    )
    assert draws.dtype == np.float32
    assert np.isfinite(draws).all()
    assert scipy.stats.kstest(draws, "norm").pvalue > 1e-3
    # The transform makes them in pairs, the one's sine and the other's cosine.
    first, second = draws[: len(draws) // 2], draws[-(len(draws) // 2) :]
    for one, other in ((first, second), (first**2, second**2)):
        assert abs(np.corrcoef(one, other)[0, 1]) < ERRORS / np.sqrt(len(first))


def test_signs_are_fair_and_independent():
    signs = seeds.random_signs([20000, 3], seed()).numpy()
    assert set(np.unique(signs)) == {-1.0, 1.0}
    error = ERRORS / np.sqrt(20000)
    assert np.abs(signs.mean(axis=0)).max() < error
    assert np.abs(signs.T @ signs / 20000 - np.eye(3)).max() < error


@pytest.mark.parametrize("draw", [seeds.standard_normal, seeds.random_signs])
def test_the_noise_of_several_seeds_is_each_ones(draw):
    several = tf.stack([seed(3, 0), seed(3, 1), seed(4, 0)])
    together = draw((7, 5), several)
    assert together.shape == (3, 7, 5)
    for n in range(3):
        np.testing.assert_allclose(together[n], draw((7, 5), several[n]), rtol=1e-6)
    assert draw((7, 5), several[:1]).shape == (7, 5)
    np.testing.assert_array_equal(draw((7, 5), several[:1]), draw((7, 5), several[0]))


def test_noise_differs_by_run_purpose_rank_step_and_layer():
    layer = Flipout("a", (100, 100), seed(1, 1), prior_stddev=1.0)

    def noise(run=0, purpose=seeds.TRAINING, rank=0, step=0, place=0):
        at = seed(seeds.stream_key(run, purpose, rank), step)
        draw = layer.sample(seeds.substream(at, place * seeds.DRAWS_PER_LAYER))
        return ((draw - layer.mean) / layer.posterior.stddev()).numpy().ravel()

    variants = [
        noise(),
        noise(run=1),
        noise(purpose=seeds.PREDICTION),
        noise(purpose=seeds.INITIAL),
        noise(rank=1),
        noise(rank=2),
        noise(step=1),
        noise(place=1),
        noise(place=2),
    ]
    correlations = np.corrcoef(variants) - np.eye(len(variants))
    assert np.abs(correlations).max() < ERRORS / np.sqrt(100 * 100)
    for variant in variants:
        assert scipy.stats.kstest(variant, "norm").pvalue > 1e-4
    np.testing.assert_array_equal(noise(rank=1), variants[4])


def test_a_layers_kernel_and_signs_use_seeds_that_no_other_layer_has():
    uses = (seeds.KERNEL, seeds.SIGN_IN, seeds.SIGN_OUT)
    derived = [
        tuple(seeds.substream(seed(100, 3), place * seeds.DRAWS_PER_LAYER + use).numpy())
        for place in range(8)
        for use in uses
    ]
    assert len(set(derived)) == 8 * len(uses)
    assert {second for _, second in derived} == {3}


def test_stream_keys_are_all_different_and_leave_room():
    keys = [
        seeds.stream_key(run, purpose, rank)
        for run in (0, 1, 2, 2**31 - 1)
        for purpose in (seeds.INITIAL, seeds.TRAINING, seeds.PREDICTION)
        for rank in range(100)
    ]
    assert len(set(keys)) == len(keys)
    assert min(keys) >= 0
    assert max(keys) < 2**62
    # Written down, so that a run of today can be repeated by the library of tomorrow.
    assert seeds.stream_key(0, seeds.TRAINING, 1) == 777099559203371091
