"""The natural-gradient step against the rule worked by hand, and where it must go."""

import numpy as np
import pytest
import tensorflow as tf

from bnnlib.inference import adam
from jobs.bench import natural

N = 100.0


def step(mean, stddev, by_mean, by_stddev, rate=0.1, count=1.0, moments=None):
    """One step of a single entry: its mean and deviation after it."""
    rho = stddev + np.log(-np.expm1(-stddev))
    weights = {
        "layer0/bias": tf.Variable([0.5]),
        "layer0/mean": tf.Variable([mean], dtype=tf.float32),
        "layer0/rho": tf.Variable([rho], dtype=tf.float32),
    }
    moments = moments or adam.init(weights)
    # The gradient by rho is that by the deviation times the sigmoid of rho.
    gradients = [[0.2], [by_mean], [by_stddev / (1 + np.exp(-rho))]]
    gradients = [tf.constant(values, tf.float32) for values in gradients]
    natural.update(weights, moments, gradients, tf.constant(count), tf.constant(rate), N, 1.0, 1.0)
    after = [variable.numpy()[0] for variable in weights.values()]
    return after[0], after[1], np.log1p(np.exp(after[2]))


@pytest.mark.parametrize("by_stddev", [0.03, -0.03])
def test_a_step_by_hand(by_stddev):
    bias, mean, stddev = step(1.0, 0.5, 0.002, by_stddev)
    # p = 4; r d = 0.1 * 100 * by_stddev / 0.5 = +-0.6, (r d)^2 / (2 p) = 0.045.
    precision = 4 + np.sign(by_stddev) * 0.6 + 0.045
    assert stddev == pytest.approx(precision**-0.5, rel=1e-5)
    # At the first step the debiased mean of gradients is the gradient: 0.1 * 100 * 0.002 / p.
    assert mean == pytest.approx(1.0 - 0.02 / precision, rel=1e-5)
    assert bias == pytest.approx(0.5 - 0.1, rel=1e-5)  # Adam's first step is the rate


def test_a_precision_stays_above_zero_whatever_the_gradient():
    for by_stddev in (-1e3, -10.0, -0.1):
        *_, stddev = step(0.0, 0.5, 0.0, by_stddev)
        assert np.isfinite(stddev)
        assert stddev > 0


def test_a_mean_moves_by_a_tenth_at_most():
    assert step(1.0, 0.5, 1e3, 0.0)[1] == pytest.approx(0.9)
    assert step(1.0, 0.5, -1e3, 0.0)[1] == pytest.approx(1.1)


def test_an_entry_that_the_data_do_not_reach_goes_to_the_prior():
    mean, stddev = 0.3, 0.05
    for _ in range(200):
        # KL/N alone, prior N(0, 1): gradients mean/N and (stddev - 1/stddev)/N.
        _, mean, stddev = step(mean, stddev, mean / N, (stddev - 1 / stddev) / N)
    assert mean == pytest.approx(0.0, abs=1e-3)
    assert stddev == pytest.approx(1.0, abs=1e-3)
