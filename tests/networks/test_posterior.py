"""The posterior's quantiles by hand, and single draws against the prediction that averages them."""

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.inference import prediction
from bnnlib.networks import posterior


@pytest.fixture(scope="module")
def tiny():
    hvd.init()
    return data.load("tiny")


def build(name, dataset, layers="auto", seed=0, dropout=0.0):
    shape, classes = dataset.image_shape, dataset.num_classes
    return networks.build(name, shape, classes, 1.0, layers, seed, dropout)


def softplus_inverse(value):
    return np.log(np.expm1(value))


def test_logs_by_hand(tiny):
    network = build("BNN_FC_flip", tiny)
    (layer,) = [one for one in network.layers if one.bayesian]
    entries = int(np.prod(layer.kernel_shape))
    means = np.linspace(-1.0, 1.0, entries, dtype=np.float32).reshape(layer.kernel_shape)
    layer.mean.assign(means)
    layer.rho.assign(np.full(layer.kernel_shape, softplus_inverse(0.5), np.float32))
    (log,) = posterior.logs(network, 30, 1.5)
    assert (log.step, log.epoch, log.entries, log.layer) == (30, 1.5, entries, "layer0_dense")
    # Evenly spaced means: the quantile at level p is 2 p - 1.
    assert log.mean == pytest.approx([2 * level - 1 for level in posterior.LEVELS], abs=1e-5)
    assert log.stddev == pytest.approx([0.5] * len(posterior.LEVELS), rel=1e-5)
    # abs(mean) is even on 0 to 1, and a standard deviation of 0.5 doubles it.
    assert log.snr == pytest.approx([2 * level for level in posterior.LEVELS], abs=1e-3)


def test_every_bayesian_layer_has_a_line_and_no_other(tiny):
    assert posterior.logs(build("CNN_conv", tiny), 0, 0.0) == []
    assert [log.layer for log in posterior.logs(build("BNN_conv_flip", tiny), 0, 0.0)] == [
        "layer0_convolution"
    ]
    both = posterior.logs(build("BNN_conv_flip", tiny, "all"), 0, 0.0)
    assert [log.layer for log in both] == ["layer0_convolution", "layer1_dense"]


def test_the_initial_posterior_is_the_one_of_the_design(tiny):
    mean, stddev = posterior.entries(build("BNN_FC_flip", tiny))["layer0_dense"]
    assert np.std(mean) == pytest.approx(0.1, rel=0.05)
    assert np.median(stddev) == pytest.approx(np.log1p(np.exp(-3.0)), rel=0.05)


@pytest.mark.parametrize(
    ("name", "dropout"), [("BNN_conv_flip", 0.0), ("BNN_FC_nonflip", 0.0), ("CNN_FC", 0.5)]
)
def test_draws_are_those_that_the_prediction_averages(tiny, name, dropout):
    network = build(name, tiny, dropout=dropout)
    images = tiny.x_test[:5]
    draws = posterior.draw_probs(network, tiny, images, 4, seed=3)
    assert draws.shape == (4, 5, tiny.num_classes)
    assert draws.sum(axis=-1) == pytest.approx(np.ones((4, 5)), abs=1e-5)
    assert np.abs(draws[0] - draws[1]).max() > 1e-3
    averaged = prediction.predict(network, tiny, images, 4, seed=3)
    assert draws.mean(axis=0) == pytest.approx(averaged.mean_probs, abs=1e-5)


def test_draws_of_a_deterministic_network_are_all_the_same(tiny):
    draws = posterior.draw_probs(build("CNN_FC", tiny), tiny, tiny.x_test[:2], 3, seed=0)
    assert np.ptp(draws, axis=0).max() == 0.0


def test_tensorflow_draws_no_seed_of_its_own(tiny):
    """Draws come from the seed alone, whatever TensorFlow's global one is."""
    network = build("BNN_FC_nonflip", tiny)
    tf.random.set_seed(1)
    first = posterior.draw_probs(network, tiny, tiny.x_test[:2], 2, seed=0)
    tf.random.set_seed(2)
    assert np.array_equal(posterior.draw_probs(network, tiny, tiny.x_test[:2], 2, seed=0), first)
