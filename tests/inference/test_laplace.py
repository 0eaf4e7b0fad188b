"""Last-layer Laplace against a logistic regression worked by hand, autodiff and laplace-torch."""

import dataclasses

import horovod.tensorflow as hvd
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.data import Dataset
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed, laplace, prediction
from bnnlib.inference.laplace import LastLayer, Probit
from bnnlib.networks import Deterministic, Network, Stage

# An image is its features: two pixels, and one dense layer alone makes logits of them.
PIXELS = 2


@pytest.fixture(autouse=True, scope="module")
def alone():
    hvd.init()


def regression(features, labels, kernel, bias):
    """A network of one dense layer, and the data set of its features."""
    features, kernel = np.float32(features), np.float32(kernel)
    inputs, classes = kernel.shape
    layer = Deterministic("dense", (inputs, classes), tf.constant([0, 0], tf.int64))
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    images, labels = features.reshape(-1, inputs, 1, 1), np.array(labels)
    dataset = Dataset("regression", images, labels, images, labels, classes, scale=1.0)
    return Network("regression", [Stage("dense", classes)], [layer]), dataset


@pytest.fixture
def by_hand():
    """Two images that the network gives the probabilities (3/4, 1/4) and (1/2, 1/2)."""
    return regression([[1], [0]], [0, 1], [[np.log(3), 0]], [0, 0])


def test_the_curvature_of_a_logistic_regression_by_hand(by_hand):
    network, dataset = by_hand
    posterior = laplace.fit(network, dataset)
    values, vectors = posterior.arrays["values"], posterior.arrays["vectors"]
    # p (1 - p) is 3/16 and 1/4, and phi is (1, 1) and (0, 1): over the classes [[1, -1], [-1, 1]].
    of_inputs = 3 / 16 * np.array([[1, 1], [1, 1]]) + 1 / 4 * np.array([[0, 0], [0, 1]])
    expected = np.kron(of_inputs, [[1, -1], [-1, 1]])
    assert vectors * values @ vectors.T == pytest.approx(expected, abs=1e-7)


def test_the_curvature_is_the_hessian_of_the_nll():
    rng = np.random.default_rng(0)
    network, dataset = regression(
        rng.normal(size=(7, 3)), rng.integers(0, 4, 7), rng.normal(size=(3, 4)), rng.normal(size=4)
    )
    last = network.layers[-1]
    theta = tf.Variable(tf.concat([last.kernel, last.bias[None]], 0))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            logits = dataset.x_train[:, :, 0, 0] @ theta[:-1] + theta[-1]
            nll = tf.reduce_sum(
                tf.nn.sparse_softmax_cross_entropy_with_logits(dataset.y_train, logits)
            )
        gradient = inner.gradient(nll, theta)
    hessian = tf.reshape(outer.jacobian(gradient, theta), [16, 16])
    arrays = laplace.fit(network, dataset).arrays
    h = arrays["vectors"] * arrays["values"] @ arrays["vectors"].T
    assert h == pytest.approx(hessian.numpy(), abs=1e-6)


def test_the_marginal_likelihood_by_hand(by_hand):
    network, dataset = by_hand
    arrays = laplace.fit(network, dataset).arrays
    # Eigenvalues: twice those of [[3, 3], [3, 7]] / 16, which are (5 +- sqrt 13) / 16, and two 0.
    values = [(5 - np.sqrt(13)) / 8, (5 + np.sqrt(13)) / 8]
    assert sorted(arrays["values"]) == pytest.approx([0, 0, *values], abs=1e-7)

    def log_marginal_likelihood(precision):
        occam = sum(np.log(precision / (value + precision)) for value in values) / 2
        return np.log(3 / 4) + np.log(1 / 2) - precision * np.log(3) ** 2 / 2 + occam

    precision = float(arrays["prior_precision"])
    assert arrays["log_marginal_likelihood"] == pytest.approx(log_marginal_likelihood(precision))
    grid = np.exp(np.linspace(-8, 8, 4001))
    best = grid[np.argmax([log_marginal_likelihood(each) for each in grid])]
    assert precision == pytest.approx(best, rel=0.005)
    gamma = sum(value / (value + precision) for value in values)
    assert arrays["effective_parameters"] == pytest.approx(gamma)
    assert precision == pytest.approx(gamma / np.log(3) ** 2, rel=1e-6)  # MacKay's fixed point


def reference_case():
    """The features, labels and weights of :data:`LAPLACE_TORCH`, and three test images."""
    rng = np.random.default_rng(11)
    features, labels = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    theta = rng.normal(size=(5, 3))
    network, dataset = regression(features, labels, theta[:-1], theta[-1])
    return network, dataset, np.float32(2 * rng.normal(size=(3, 4)))


# laplace-torch 0.3 with torch 2.14.1, float64, on :func:`reference_case`:
#   model = nn.Sequential(nn.Identity(), nn.Linear(5, 3, bias=False)), weight = theta.T, on features
#   with a 1 at their end, since that package gives a bias a Kronecker factor of its own;
#   la = Laplace(model, "classification", subset_of_weights="last_layer", hessian_structure=...)
#   la.fit(one batch of all); la.log_marginal_likelihood(prior_precision=0.5, then 3.0), and its
#   maximum by scipy's bounded search; with la.prior_precision = 3.0 the diagonal of the variance of
#   la._glm_predictive_distribution(x), and la(x, pred_type="glm", link_approx="probit").
LAPLACE_TORCH = {
    "full": {
        "log_marginal_likelihood": {0.5: -85.43244183059626, 3.0: -89.16296368107818},
        "best": 0.9595258690840214,
        "variances": [
            [6.0563728703, 5.5007762502, 5.623937329],
            [4.728535367, 3.9074810234, 4.0863538221],
            [1.6203622338, 1.3450698803, 1.3909699357],
        ],
        "probit": [
            [0.6849634723, 0.2709540023, 0.0440825253],
            [0.0051189262, 0.8976892816, 0.0971917922],
            [0.0060758103, 0.9739741714, 0.0199500183],
        ],
    },
    "kron": {
        "log_marginal_likelihood": {0.5: -86.39531255002007, 3.0: -89.70517150789206},
        "best": 1.0050171438252924,
        "variances": [
            [5.7393243326, 5.1085089505, 5.1987500698],
            [4.2314060415, 3.7633315471, 3.8302918139],
            [1.2410782861, 1.106994157, 1.1261755248],
        ],
        "probit": [
            [0.6903026912, 0.2681678346, 0.0415294741],
            [0.0045048596, 0.9004228438, 0.0950722967],
            [0.0049294408, 0.9775006088, 0.0175699504],
        ],
    },
}


@pytest.mark.parametrize("structure", LAPLACE_TORCH)
def test_it_is_laplace_torchs(structure, monkeypatch):
    expected = LAPLACE_TORCH[structure]
    monkeypatch.setattr(laplace, "FULL", 2_000 if structure == "full" else 0)
    network, dataset, test = reference_case()
    arrays = laplace.fit(network, dataset).arrays
    assert ("values" in arrays) == (structure == "full")
    assert arrays["prior_precision"] == pytest.approx(expected["best"], rel=1e-5)

    values = arrays["values"] if structure == "full" else laplace._products(arrays)
    square = sum(float((w.numpy() ** 2).sum()) for w in network.layers[0].mean_draw().values())
    logits = network.predict(dataset.x_train, network.means()).numpy().astype(np.float64)
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    log_likelihood = log_probs[np.arange(40), dataset.y_train].sum()
    for precision, value in expected["log_marginal_likelihood"].items():
        occam = np.log(precision / (values + precision)).sum() / 2
        found = log_likelihood - precision * square / 2 + occam
        assert found == pytest.approx(value, rel=1e-6)

    network.posterior = LastLayer(network, arrays | {"prior_precision": np.array(3.0)})
    assert network.posterior.variances(test).numpy() == pytest.approx(
        np.array(expected["variances"]), rel=2e-5
    )
    logits = Probit(network).predict(test.reshape(3, 4, 1, 1), network.means())
    assert tf.nn.softmax(logits).numpy() == pytest.approx(np.array(expected["probit"]), abs=1e-6)


def test_the_kronecker_form_is_the_full_one_where_images_are_equally_uncertain(monkeypatch):
    # Without weights every image has the same Lambda, and the sum of products is a product.
    features = np.random.default_rng(1).normal(size=(9, 3))
    network, dataset = regression(features, [0, 1, 2] * 3, np.zeros((3, 3)), [0.1, 0.0, 0.0])
    full = laplace.fit(network, dataset).arrays
    monkeypatch.setattr(laplace, "FULL", 0)
    kronecker = laplace.fit(network, dataset).arrays
    assert np.sort(laplace._products(kronecker)) == pytest.approx(full["values"], abs=1e-5)
    assert kronecker["log_marginal_likelihood"] == pytest.approx(full["log_marginal_likelihood"])


def test_fewer_images_than_inputs_give_the_same_posterior_by_their_singular_vectors(monkeypatch):
    rng = np.random.default_rng(2)
    network, dataset = regression(
        rng.normal(size=(5, 12)), [0, 1, 2, 0, 1], rng.normal(size=(12, 3)), [0.3, 0, -0.2]
    )
    monkeypatch.setattr(laplace, "FULL", 0)
    few = laplace.fit(network, dataset)
    assert few.arrays["vectors_in"].shape == (13, 5)
    # The same images three times have as many rows as inputs, and A is their mean as before.
    many = dataclasses.replace(
        dataset, x_train=np.tile(dataset.x_train, (3, 1, 1, 1)), y_train=np.tile(dataset.y_train, 3)
    )
    whole = laplace.fit(network, many)
    assert whole.arrays["vectors_in"].shape == (13, 13)
    whole.arrays["values_out"] /= 3
    whole = LastLayer(network, whole.arrays | {"prior_precision": few.arrays["prior_precision"]})
    test = tf.constant(rng.normal(size=(4, 12)), tf.float32)
    assert few.variances(test).numpy() == pytest.approx(whole.variances(test).numpy(), rel=1e-4)
    noise = tf.constant(rng.normal(size=(13, 3)), tf.float32)
    assert few.spread(noise).numpy() == pytest.approx(whole.spread(noise).numpy(), abs=1e-4)


@pytest.mark.parametrize("full", [2_000, 0])
def test_draws_have_the_posteriors_mean_and_covariance(full, monkeypatch):
    monkeypatch.setattr(laplace, "FULL", full)
    network, dataset, test = reference_case()
    posterior = laplace.fit(network, dataset)
    # The root of the covariance, column by column: its square is the inverse of H + delta I.
    columns = [tf.reshape(posterior.spread(tf.reshape(c, (5, 3))), [-1]) for c in tf.eye(15)]
    root = tf.stack(columns, 1).numpy()
    arrays = posterior.arrays
    if full:
        h = arrays["vectors"] * arrays["values"] @ arrays["vectors"].T
    else:
        a, g = (
            arrays[f"vectors_{side}"] * arrays[f"values_{side}"] @ arrays[f"vectors_{side}"].T
            for side in ("in", "out")
        )
        h = np.kron(a, g)
    precision = h + posterior.precision * np.eye(15)
    assert root @ root.T == pytest.approx(np.linalg.inv(precision), abs=1e-5)
    (stddevs,) = posterior.stddevs()
    flat = np.concatenate([stddevs["kernel"], [stddevs["bias"]]]).ravel()
    assert flat == pytest.approx(np.sqrt(np.diag(root @ root.T)), rel=1e-4)

    network.posterior = posterior
    draws = [network.sample(tf.constant([7, draw], tf.int64)) for draw in range(400)]
    again = network.sample(tf.constant([7, 0], tf.int64))
    assert np.array_equal(again[0]["kernel"], draws[0][0]["kernel"])
    logits = np.stack([(test @ draw[0]["kernel"] + draw[0]["bias"])[0, 0] for draw in draws])
    variance = posterior.variances(test).numpy()[0, 0]
    mean = float((test @ network.layers[0].kernel + network.layers[0].bias)[0, 0])
    assert scipy.stats.kstest(logits, "norm", (mean, variance**0.5)).pvalue > 0.01


def test_only_the_last_layer_is_drawn():
    tiny = data.load("tiny")
    network = networks.build("CNN_FC", tiny.image_shape, 10, seed=2)
    network.posterior = laplace.fit(network, tiny)
    first, second = (network.sample(tf.constant([3, d], tf.int64)) for d in (0, 1))
    assert np.array_equal(first[0]["kernel"], network.layers[0].kernel)
    assert not np.array_equal(first[1]["kernel"], second[1]["kernel"])
    assert not np.array_equal(first[1]["bias"], second[1]["bias"])
    found = prediction.predict(network, tiny, tiny.x_test, 4, 1)
    assert (found.expected_entropy < -(found.mean_probs * np.log(found.mean_probs)).sum(1)).all()


def test_the_posterior_does_not_depend_on_the_blocks(monkeypatch):
    tiny = data.load("tiny")
    network = networks.build("CNN_conv", tiny.image_shape, 10, seed=2)
    whole = laplace.fit(network, tiny).arrays
    monkeypatch.setattr(prediction, "BLOCK", 30)
    parts = laplace.fit(network, tiny).arrays
    for name in ("values_in", "values_out", "prior_precision", "log_marginal_likelihood"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"model": "BNN_FC_flip", "laplace": True}, "BNN_FC_flip has a posterior already"),
        ({"model": "CNN_FC", "dropout": 0.1, "laplace": True}, "CNN_FC has dropout masks"),
        ({"model": "CNN_FC", "predict_with": "probit"}, "set laplace: true"),
        ({"model": "CNN_LeNet5", "laplace": True}, "CNN_LeNet5 is a Keras model's graph"),
    ],
)
def test_other_networks_are_refused_before_training(parameters, told):
    tiny = data.load("tiny")
    experiment = Experiment(**{"dataset": "tiny"} | parameters)
    network = networks.build_for(experiment, tiny)
    with pytest.raises(ExperimentError, match=told):
        laplace.refuse_unfit(experiment, network, tiny.num_train_examples)


def test_a_last_layer_beyond_the_memory_is_refused():
    experiment = Experiment(model="CNN_conv", dataset="cifar10", laplace=True)
    network = networks.build("CNN_conv", (32, 32, 3), 10)
    laplace.refuse_unfit(experiment, network, 1_437)
    with pytest.raises(ExperimentError, match=r"16,384 inputs, whose 16,385 eigenv.* 1\.0 GiB"):
        laplace.refuse_unfit(experiment, network, 50_000)


def test_a_network_without_curvature_is_refused():
    network, dataset = regression([[1], [1]], [0, 0], [[4e3, 0]], [0, 0])
    with pytest.raises(ExperimentError, match="no prior precision is best"):
        laplace.fit(network, dataset)


def test_a_sum_over_one_rank_is_itself():
    array = np.arange(3.0)
    assert np.array_equal(distributed.total(array, "alone"), array)
