"""The predictive distribution against a plain loop over draws, and its limits."""

import dataclasses
import logging

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from bnnlib import data, metrics, networks
from bnnlib.inference import prediction
from bnnlib.inference.prediction import Predictor, predict
from bnnlib.networks import PREDICTION, stream_key

DRAWS = 5


@pytest.fixture(scope="module")
def dataset():
    return data.load("tiny")


def network_of(name, dataset, scale=-1.0, dropout=0.0):
    """A network of wide posteriors, whose draws disagree."""
    shape, classes = dataset.image_shape, dataset.num_classes
    network = networks.build(name, shape, classes, seed=1, dropout=dropout)
    for layer in network.layers:
        if layer.bayesian:
            layer.rho.assign(tf.fill(layer.rho.shape, scale))
    return network


def logits_of_draws(network, dataset, images, num_draws, seed):
    """`(num_draws, num_images, num_classes)` by the definition, in double precision."""
    inputs = images.astype(np.float32) * np.float32(dataset.scale)
    if dataset.mean_image is not None:
        inputs = inputs - dataset.mean_image
    key = stream_key(seed, PREDICTION)
    logits = [
        network.predict(tf.constant(inputs), network.sample(tf.constant([key, draw], tf.int64)))
        for draw in range(num_draws)
    ]
    return np.asarray(logits, np.float64)


def probs_of_draws(*arguments, **keywords):
    return scipy.special.softmax(logits_of_draws(*arguments, **keywords), axis=-1)


@pytest.mark.parametrize("subtract_mean", [False, True])
@pytest.mark.parametrize("name", ["BNN_conv_flip", "BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_local"])
def test_prediction_is_the_mean_over_draws(name, subtract_mean):
    dataset = data.load("tiny", subtract_mean)
    network = network_of(name, dataset)
    found = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    probs = probs_of_draws(network, dataset, dataset.x_test, DRAWS, seed=3)
    np.testing.assert_allclose(found.mean_probs, probs.mean(axis=0), atol=1e-5)
    entropies = scipy.stats.entropy(probs, axis=-1)
    np.testing.assert_allclose(found.expected_entropy, entropies.mean(axis=0), atol=1e-4)
    assert found.mean_probs.shape == (64, 10)
    assert found.mean_probs.dtype == found.expected_entropy.dtype == np.float32
    np.testing.assert_allclose(found.mean_probs.sum(axis=1), 1, atol=1e-6)
    # The draws disagree, so that a prediction of one draw would have failed.
    assert np.abs(probs[0] - probs.mean(axis=0)).max() > 0.01
    information = scipy.stats.entropy(found.mean_probs, axis=-1) - found.expected_entropy
    assert information.min() > 0


@pytest.mark.parametrize("name", ["BNN_conv_flip", "BNN_FC_flip", "CNN_FC"])
def test_logits_and_votes_are_those_of_the_draws(dataset, monkeypatch, name):
    monkeypatch.setattr(prediction, "BLOCK", 30)
    network = network_of(name, dataset)
    draws = DRAWS if network.is_stochastic else 1
    found = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    logits = logits_of_draws(network, dataset, dataset.x_test, draws, seed=3)
    np.testing.assert_allclose(found.mean_logits, logits.mean(axis=0), atol=1e-4)
    votes = np.eye(10, dtype=int)[logits.argmax(axis=-1)].sum(axis=0)
    np.testing.assert_array_equal(found.votes, votes)
    assert (found.mean_logits.dtype, found.votes.dtype) == (np.float32, np.uint8)
    disagreement = metrics.disagreement(found.votes).mean()
    assert disagreement > 0.01 if network.is_stochastic else disagreement == 0


def test_more_draws_than_a_byte_counts_are_counted(dataset):
    network = network_of("BNN_FC_flip", dataset)
    found = predict(network, dataset, dataset.x_test[:2], 300, seed=3)
    assert found.votes.sum(axis=1).tolist() == [300, 300]


@pytest.mark.parametrize("num_draws", [1, 30])
def test_a_deterministic_network_is_one_softmax(dataset, num_draws):
    network = networks.build("CNN_FC", dataset.image_shape, 10)
    found = predict(network, dataset, dataset.x_test, num_draws, seed=0)
    logits = network(networks.to_inputs(dataset.x_test, dataset), tf.constant([0, 0], tf.int64))
    np.testing.assert_allclose(found.mean_probs, scipy.special.softmax(logits, -1), atol=1e-6)
    # Nothing is uncertain about the weights.
    entropy = scipy.stats.entropy(found.mean_probs, axis=-1)
    np.testing.assert_allclose(found.expected_entropy, entropy, atol=1e-5)


@pytest.mark.parametrize("name", ["BNN_FC_flip", "BNN_conv_flip"])
def test_the_mean_alone_is_the_posterior_without_width(dataset, name):
    network, narrow = network_of(name, dataset), network_of(name, dataset, scale=-200.0)
    at_mean = Predictor(network, dataset, DRAWS, seed=3, at_mean=True)
    found = at_mean(dataset.x_test, draws_curve=True)
    expected = predict(narrow, dataset, dataset.x_test, 1, seed=3)
    np.testing.assert_allclose(found.mean_probs, expected.mean_probs, atol=1e-5)
    assert at_mean.num_draws == 1
    assert found.draws_curve.draws.tolist() == [1]
    drawn = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    assert np.abs(found.mean_probs - drawn.mean_probs).max() > 0.01


def test_a_deterministic_network_is_the_same_whatever_the_draws(dataset):
    network = networks.build("CNN_FC", dataset.image_shape, 10)
    one, many = (predict(network, dataset, dataset.x_test, n, seed=0) for n in (1, 1000))
    np.testing.assert_array_equal(one.mean_probs, many.mean_probs)
    np.testing.assert_array_equal(one.expected_entropy, many.expected_entropy)


@pytest.mark.parametrize("name", ["BNN_FC_flip", "BNN_conv_nonflip", "CNN_FC"])
@pytest.mark.parametrize("block", [1, 7, 32, 64])
def test_prediction_does_not_depend_on_the_blocks(dataset, monkeypatch, name, block):
    network = network_of(name, dataset)
    whole = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    monkeypatch.setattr(prediction, "BLOCK", block)
    parts = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    np.testing.assert_allclose(parts.mean_probs, whole.mean_probs, atol=1e-6)
    np.testing.assert_allclose(parts.expected_entropy, whole.expected_entropy, atol=1e-5)


def test_prediction_keeps_the_order_of_images(dataset, monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK", 10)
    network = network_of("BNN_FC_flip", dataset)
    forward = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    backward = predict(network, dataset, dataset.x_test[::-1], DRAWS, seed=3)
    np.testing.assert_allclose(backward.mean_probs[::-1], forward.mean_probs, atol=1e-6)


def test_draws_follow_from_the_seed(dataset):
    network = network_of("BNN_FC_flip", dataset)
    one, same, other = (
        predict(network, dataset, dataset.x_test, DRAWS, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.mean_probs, same.mean_probs)
    np.testing.assert_array_equal(one.expected_entropy, same.expected_entropy)
    assert (one.mean_probs != other.mean_probs).any(axis=1).all()


def test_more_draws_add_to_the_same_draws(dataset):
    network = network_of("BNN_FC_flip", dataset)
    two, three = (predict(network, dataset, dataset.x_test, n, seed=3) for n in (2, 3))
    third = probs_of_draws(network, dataset, dataset.x_test, 3, seed=3)[2]
    np.testing.assert_allclose(3 * three.mean_probs - 2 * two.mean_probs, third, atol=1e-5)


def test_a_posterior_without_width_has_no_uncertainty_of_weights(dataset):
    network = network_of("BNN_FC_flip", dataset, scale=-200.0)
    found = predict(network, dataset, dataset.x_test, DRAWS, seed=0)
    entropy = scipy.stats.entropy(found.mean_probs, axis=-1)
    np.testing.assert_allclose(found.expected_entropy, entropy, atol=1e-4)


def test_certain_predictions_have_no_entropy(dataset):
    # Logits so far apart that a probability underflows to 0: 0 log 0 must be 0.
    network = networks.build("CNN_FC", dataset.image_shape, 10)
    network.layers[1].kernel.assign(tf.zeros([64, 10]))
    network.layers[1].bias.assign([1e4] + [0.0] * 9)
    found = predict(network, dataset, dataset.x_test, 1, seed=0)
    np.testing.assert_array_equal(found.mean_probs, np.eye(10)[np.zeros(64, int)])
    np.testing.assert_array_equal(found.expected_entropy, 0)


def test_floating_images_and_no_images(dataset):
    network = network_of("BNN_FC_flip", dataset)
    floating = dataclasses.replace(
        dataset,
        scale=1.0,
        x_train=dataset.x_train.astype(np.float32) / 255,
        x_test=dataset.x_test.astype(np.float32) / 255,
    )
    bytes_, floats = (
        predict(network, which, images, DRAWS, seed=3)
        for which, images in (
            (dataset, dataset.x_test),
            (floating, dataset.x_test.astype(np.float32) / 255),
        )
    )
    np.testing.assert_allclose(bytes_.mean_probs, floats.mean_probs, atol=1e-5)
    nothing = Predictor(network, dataset, DRAWS, seed=3)(dataset.x_test[:0])
    assert nothing.mean_probs.shape == (0, 10)
    assert nothing.expected_entropy.shape == (0,)
    assert nothing.mean_logits.shape == nothing.votes.shape == (0, 10)


def test_prediction_leaves_the_network_alone(dataset):
    network = network_of("BNN_FC_flip", dataset)
    before = network.weights()
    predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    for key, value in network.weights().items():
        np.testing.assert_array_equal(value, before[key])


# ------------------------------------------------------------------------------------ draws curve


@pytest.mark.parametrize(
    ("num_draws", "expected"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (10, [1, 2, 5, 10]),
        (30, [1, 2, 5, 10, 20, 30]),
        (200, [1, 2, 5, 10, 20, 50, 100, 200]),
        (999, [1, 2, 5, 10, 20, 50, 100, 200, 500, 999]),
    ],
)
def test_draw_counts_by_hand(num_draws, expected):
    assert prediction.draw_counts(num_draws) == expected


@pytest.mark.parametrize(("name", "dropout"), [("BNN_FC_flip", 0.0), ("CNN_conv", 0.3)])
def test_a_point_of_the_draws_curve_is_a_prediction_with_so_many_draws(
    dataset, name, dropout, monkeypatch
):
    monkeypatch.setattr(prediction, "BLOCK", 30)
    network = network_of(name, dataset, dropout=dropout)
    found = prediction.Predictor(network, dataset, 7, seed=3)(dataset.x_test, draws_curve=True)
    curve = found.draws_curve
    assert curve.draws.tolist() == [1, 2, 5, 7]
    assert curve.mean_probs.shape == (4, 64, 10)
    assert curve.expected_entropy.shape == (4, 64)
    assert curve.draws.dtype == np.int64
    assert curve.mean_probs.dtype == curve.expected_entropy.dtype == np.float32
    for index, draws in enumerate(curve.draws):
        alone = predict(network, dataset, dataset.x_test, int(draws), seed=3)
        np.testing.assert_array_equal(curve.mean_probs[index], alone.mean_probs)
        np.testing.assert_array_equal(curve.expected_entropy[index], alone.expected_entropy)
    np.testing.assert_array_equal(curve.mean_probs[-1], found.mean_probs)
    np.testing.assert_array_equal(curve.expected_entropy[-1], found.expected_entropy)
    assert np.abs(curve.mean_probs[0] - curve.mean_probs[1]).max() > 1e-3


def test_without_draws_a_draws_curve_has_one_point(dataset):
    network = networks.build("CNN_FC", dataset.image_shape, 10)
    curve = prediction.Predictor(network, dataset, 30, seed=0)(
        dataset.x_test, draws_curve=True
    ).draws_curve
    assert curve.draws.tolist() == [1]


def test_one_predictor_serves_sets_of_several_sizes_and_later_weights(dataset):
    network = network_of("BNN_FC_flip", dataset)
    predictor = prediction.Predictor(network, dataset, DRAWS, seed=3)
    for count in (64, 1, 0, 33):
        images = dataset.x_train[:count]
        own = prediction.Predictor(network, dataset, DRAWS, seed=3)
        expected = own(images)
        np.testing.assert_allclose(predictor(images).mean_probs, expected.mean_probs, atol=1e-6)
    for layer in network.layers:
        layer.bias.assign_add(tf.range(layer.bias.shape[0], dtype=tf.float32))
    np.testing.assert_array_equal(
        predictor(dataset.x_test).mean_probs,
        predict(network, dataset, dataset.x_test, DRAWS, seed=3).mean_probs,
    )


# --------------------------------------------------------------------------------------- MC dropout


def test_mc_dropout_is_the_mean_over_masks_of_the_documented_seeds(dataset, monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK", 40)
    network = network_of("CNN_FC", dataset, dropout=0.4)
    found = predict(network, dataset, dataset.x_test, DRAWS, seed=3)
    key = stream_key(3, PREDICTION)
    kernels = network.sample(tf.constant([0, 0], tf.int64))
    probs = np.zeros((DRAWS, 64, 10))
    for draw in range(DRAWS):
        for start in (0, 40):
            inputs = dataset.x_test[start : start + 40] / np.float32(255)
            seed = tf.constant([key, draw * 2**32 + start], tf.int64)
            logits = network.predict(tf.constant(inputs), kernels, seed).numpy()
            probs[draw, start : start + 40] = scipy.special.softmax(logits, axis=-1)
    np.testing.assert_allclose(found.mean_probs, probs.mean(axis=0), atol=1e-5)
    entropies = scipy.stats.entropy(probs, axis=-1)
    np.testing.assert_allclose(found.expected_entropy, entropies.mean(axis=0), atol=1e-4)
    assert (np.ptp(probs, axis=0).max(axis=1) > 1e-3).all()  # every image's draws differ


def test_equal_images_have_masks_of_their_own_and_the_same_in_every_set(dataset):
    network = network_of("CNN_FC", dataset, dropout=0.4)
    equal = np.repeat(dataset.x_test[:1], 64, axis=0)
    found = predict(network, dataset, equal, 1, seed=3)
    assert len(np.unique(found.mean_probs, axis=0)) == 64
    again = predict(network, dataset, equal, 1, seed=3)
    np.testing.assert_array_equal(found.mean_probs, again.mean_probs)
    other = predict(network, dataset, equal, 1, seed=4)
    assert (found.mean_probs != other.mean_probs).any(axis=1).all()


def test_large_images_come_in_smaller_blocks():
    images = np.zeros((4, 64, 96, 1), np.uint8)
    labels = np.zeros(4, np.int64)
    large = data.Dataset("large", images, labels, images, labels, 10, scale=1 / 255)
    network = networks.build("CNN_FC", large.image_shape, 10)
    assert prediction.Predictor(network, large, 1, seed=0)._block == 83  # 500 / 6
    small = data.load("tiny")
    network = networks.build("CNN_FC", small.image_shape, 10)
    assert prediction.Predictor(network, small, 1, seed=0)._block == prediction.BLOCK


def test_how_many_draws_are_held_at_once_changes_nothing(dataset, monkeypatch):
    monkeypatch.setattr(prediction, "BLOCK", 7)
    network = network_of("BNN_FC_flip", dataset)
    whole = predict(network, dataset, dataset.x_test, 23, seed=3)
    monkeypatch.setattr(prediction, "DRAWS_AT_ONCE", 23)
    at_once = predict(network, dataset, dataset.x_test, 23, seed=3)
    np.testing.assert_array_equal(whole.mean_probs, at_once.mean_probs)


# ------------------------------------------------------------------------------------------ graphs


@pytest.fixture
def told():
    """What TensorFlow's logger tells."""
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    logger, keep = logging.getLogger("tensorflow"), Keep()
    logger.addHandler(keep)
    yield records
    logger.removeHandler(keep)


@pytest.mark.parametrize("name", ["BNN_FC_flip", "BNN_conv_flip", "CNN_FC"])
def test_all_sets_and_draws_share_one_graph(dataset, name):
    predictor = Predictor(network_of(name, dataset), dataset, 12, seed=3)
    predictor(dataset.x_test, draws_curve=True)  # 1, 1, 3, 5 and 2 draws at once
    for images in (dataset.x_test[:1], dataset.x_train[:33], dataset.x_test.astype(np.float64)):
        predictor(images)
    assert predictor._sums.experimental_get_tracing_count() == 1
    assert predictor._sample.experimental_get_tracing_count() == 1


def test_many_networks_in_one_process_are_no_retracing_but_a_users_own_is_told(dataset, told):
    for _ in range(6):
        predict(network_of("BNN_FC_flip", dataset), dataset, dataset.x_test[:2], 1, seed=3)
    assert not told

    def own(x):
        return x + 1

    for _ in range(6):
        tf.function(own)(tf.zeros(()))
    assert "triggered tf.function retracing" in told[0].getMessage()
    networks_own = networks.graph(own)
    before = len(told)
    for number in range(6):
        networks_own(number)  # a Python number is a graph of its own
    assert len(told) > before
