"""Fast operations: values and gradients of TensorFlow's, TFP's and by hand."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from bnnlib.networks import fast_ops


@pytest.mark.parametrize("prior_stddev", [0.1, 1.0, 3.0])
def test_kl_and_its_gradients_are_tfps(prior_stddev):
    rng = np.random.default_rng(0)
    mean = tf.constant(rng.normal(size=(40, 5)), tf.float32)
    stddev = tf.constant(np.exp(rng.normal(-2, 2, size=(40, 5))), tf.float32)
    results = []
    for kl in (
        lambda: fast_ops.normal_kl(mean, stddev, prior_stddev),
        lambda: tf.reduce_sum(
            tfp.distributions.kl_divergence(
                tfp.distributions.Normal(mean, stddev), tfp.distributions.Normal(0.0, prior_stddev)
            )
        ),
    ):
        with tf.GradientTape() as tape:
            tape.watch([mean, stddev])
            value = 3.0 * kl()
        results.append([value, *tape.gradient(value, [mean, stddev])])
    for fast, usual in zip(*results, strict=True):
        np.testing.assert_allclose(fast, usual, rtol=1e-4, atol=1e-4)


def test_softplus_and_its_gradient_are_tensorflows():
    x = tf.constant([-200.0, -90.0, -20.0, -3.0, 0.0, 3.0, 15.9, 19.9, 20.1, 90.0, 1e6])
    results = []
    for function in (fast_ops.softplus, tf.math.softplus):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        results.append([value, tape.gradient(value, x)])
    for fast, usual in zip(*results, strict=True):
        np.testing.assert_allclose(fast, usual, rtol=1e-6)


def test_the_largest_of_four_passes_its_gradient_to_the_first_of_equals():
    four = [
        tf.constant(x) for x in ([1.0, 0, 5, 2], [1.0, 3, 5, 2], [0.0, 3, 5, 4], [1.0, 1, 5, 4])
    ]
    with tf.GradientTape() as tape:
        tape.watch(four)
        largest = fast_ops.largest_of_four(*four)
        value = tf.reduce_sum(largest * [1.0, 2, 3, 4])
    np.testing.assert_array_equal(largest, [1, 3, 5, 4])
    np.testing.assert_array_equal(
        tape.gradient(value, four),
        [[1, 0, 3, 0], [0, 2, 0, 0], [0, 0, 0, 4], [0, 0, 0, 0]],
    )


def test_noise_of_a_given_variance_and_its_gradient():
    rng = np.random.default_rng(0)
    mean, noise, weights = (tf.constant(rng.normal(size=(4, 3)), tf.float32) for _ in range(3))
    variance = tf.constant(rng.uniform(0.1, 2, size=(4, 3)), tf.float32)
    results = []
    for function in (fast_ops.noisy, lambda m, v, e: m + tf.sqrt(v) * e):
        with tf.GradientTape() as tape:
            tape.watch([mean, variance])
            value = tf.reduce_sum(weights * function(mean, variance, noise))
        results.append([value, *tape.gradient(value, [mean, variance])])
    for fast, usual in zip(*results, strict=True):
        np.testing.assert_allclose(fast, usual, rtol=1e-5)


def test_without_variance_there_is_no_noise_and_no_gradient():
    mean, variance, noise = (tf.constant(v) for v in ([1.0, 2.0], [4.0, 0.0], [1.0, -1.0]))
    with tf.GradientTape() as tape:
        tape.watch(variance)
        value = fast_ops.noisy(mean, variance, noise)
    np.testing.assert_array_equal(value, [3.0, 2.0])
    np.testing.assert_array_equal(tape.gradient(value, variance), [0.25, 0.0])


def test_noisy_products_are_the_products_with_noise():
    rng = np.random.default_rng(1)
    x, mean, stddev, noise, weights = (
        tf.constant(rng.normal(size=shape), tf.float32)
        for shape in ((5, 4), (4, 3), (4, 3), (5, 3), (5, 3))
    )
    results = []
    for function in (
        fast_ops.noisy_product,
        lambda x, m, s, e: fast_ops.noisy(x @ m, tf.square(x) @ tf.square(s), e),
    ):
        with tf.GradientTape() as tape:
            tape.watch([x, mean, stddev])
            outputs = function(x, mean, stddev, noise)
            value = tf.reduce_sum(weights * outputs)
        results.append([outputs, *tape.gradient(value, [x, mean, stddev])])
    for fast, usual in zip(*results, strict=True):
        np.testing.assert_allclose(fast, usual, rtol=1e-4, atol=1e-5)
