"""SWAG's moments of a path known by hand, its draws' covariance, and how it goes through a run."""

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import methods, schedules, swag
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer
from bnnlib.networks import Deterministic, Network, Stage

EPOCHS = 6


@pytest.fixture(autouse=True, scope="module")
def alone():
    hvd.init()


def small_network():
    """One dense layer from two inputs to one output: three weights."""
    layer = Deterministic("dense", (2, 1), tf.constant([0, 0], tf.int64))
    return Network("small", [Stage("dense", 1)], [layer])


def walked(path, start=0.0):
    """The posterior after the weights (kernel, kernel, bias) at the ends of a path's epochs."""
    network = small_network()
    weights = network.named_variables()
    own = swag.init(weights)
    for epoch, (first, second, bias) in enumerate(path, 1):
        network.layers[0].kernel.assign([[first], [second]])
        network.layers[0].bias.assign([bias])
        swag.epoch_ended(weights, own, epoch / len(path), start)
    network.posterior = swag.SwagPosterior(network, own)
    return network, own


def flat(draw):
    (layer,) = draw
    return np.concatenate([np.ravel(layer["kernel"]), layer["bias"]])


def expected_covariance(path):
    """Equation 1's covariance, written with the paper's moments in float64."""
    path = np.array(path, np.float64)
    means = np.array([path[: n + 1].mean(axis=0) for n in range(len(path))])
    variance = (path**2).mean(axis=0) - means[-1] ** 2
    columns = (path - means)[1:][-swag.COLUMNS :]
    return (np.diag(variance) + columns.T @ columns / (len(columns) - 1)) / 2


def test_moments_of_a_path_by_hand():
    # Weights 1, 3, 5 and 0, 0, 3: means 3 and 1, variances 8/3 and 2; the means before were 2, 0.
    network, own = walked([(1, 0, 7), (3, 0, 7), (5, 3, 7)])
    assert flat(network.means()) == pytest.approx([3, 1, 7])
    by_name = {name: i for i, name in enumerate(network.named_variables())}
    kernel = next(i for name, i in by_name.items() if name.endswith("kernel"))
    assert own[f"swag_squares/{kernel}"].numpy().ravel() / 3 == pytest.approx([8 / 3, 2])
    columns = own[f"swag_columns/{kernel}"].numpy()[:, :, 0]
    assert columns[:3] == pytest.approx(np.array([[1, 0], [2, 2], [0, 0]]))
    # Half of the variance, and half of the columns' squares over K - 1 = 1.
    expected = np.sqrt([8 / 6 + 5 / 2, 1 + 4 / 2, 0])
    assert flat(network.posterior.stddevs()) == pytest.approx(expected)


@pytest.mark.parametrize("epochs", [3, 8, 30])  # fewer than the columns, and more
def test_draws_have_the_paths_mean_and_covariance(epochs):
    path = np.random.default_rng(1).normal([5, -3, 1], [1, 0.1, 0.5], (epochs, 3)).cumsum(0) / 9
    network, _ = walked(path)
    assert flat(network.means()) == pytest.approx(path.mean(axis=0), rel=1e-5)
    sample = tf.function(network.sample)
    draws = [flat(sample(tf.constant([3, draw], tf.int64))) for draw in range(4000)]
    covariance = expected_covariance(path)
    stddevs = np.sqrt(np.diag(covariance))
    assert flat(network.posterior.stddevs()) == pytest.approx(stddevs, rel=1e-4)
    assert np.mean(draws, axis=0) == pytest.approx(path.mean(axis=0), abs=4 * stddevs.max() / 63)
    # A covariance of 4000 draws misses by about two in a hundred of the two deviations' product.
    scale = np.outer(stddevs, stddevs)
    assert np.cov(np.transpose(draws)) / scale == pytest.approx(covariance / scale, abs=0.1)
    again = flat(sample(tf.constant([3, 0], tf.int64)))
    assert np.array_equal(again, draws[0])


def test_weights_before_the_start_do_not_count():
    network, own = walked([(100, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)], start=0.5)
    assert int(own["swag_count"]) == 3
    assert flat(network.means()) == pytest.approx([2, 2, 2])


def test_before_any_weights_count_the_means_are_the_weights():
    network, _ = walked([(1, 2, 3)], start=1.5)
    assert flat(network.means()) == pytest.approx([1, 2, 3])
    assert network.posterior.stddevs() == [{"kernel": None, "bias": None}]
    assert networks.posterior.logs(network, 0, 0.0) == []


# --- a run ----------------------------------------------------------------------------------------


def trainer_of(tiny, **parameters):
    values = {"model": "CNN_FC", "dataset": "tiny", "inference": "swag", "epochs": EPOCHS}
    experiment = Experiment(**{"batch_size": 32, "log_every": 1, **values} | parameters)
    return Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())


def test_a_run_takes_its_twins_steps_and_counts_from_the_start_on():
    tiny = data.load("tiny")
    by_swag, by_adam = trainer_of(tiny), trainer_of(tiny, inference="adam")
    ends = []
    for _ in by_adam.run():
        if by_adam.position % by_adam.steps_per_epoch == 0:
            ends.append(by_adam.network.weights())
    list(by_swag.run())
    for name, value in by_swag.network.weights().items():
        assert np.array_equal(value, by_adam.network.weights()[name])
    counted = ends[2:]  # epochs 3, 4, 5 and 6 of 6
    assert int(by_swag.train_state.optimizer["swag_count"]) == len(counted) == 4
    mean = np.mean([weights["layer0/kernel"] for weights in counted], axis=0)
    assert by_swag.network.means()[0]["kernel"].numpy() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("steps", [3, 9, 11])  # before the start, at an epoch's end, after it
def test_a_resumed_run_has_bitwise_the_same_moments(steps):
    tiny = data.load("tiny")
    whole, cut, resumed = (trainer_of(tiny) for _ in range(3))
    list(whole.run())
    list(cut.run(until=lambda: cut.step >= steps))
    resumed.restore(cut.state())
    list(resumed.run())
    one, other = whole.state(), resumed.state()
    assert int(one["swag_count"]) > 2
    for name in one.keys() - {"line/seconds"}:
        assert np.array_equal(one[name], other[name]), name


def test_the_rate_is_constant_from_the_start_on():
    experiment = Experiment(
        inference="swag", learning_rate=0.1, learning_rate_schedule="cosine", swag_rate=0.5
    )
    rates = schedules.learning_rates(experiment, np.arange(20), 2.0, 2, 20)
    cosine = Experiment(learning_rate=0.1, learning_rate_schedule="cosine")
    assert rates[:10] == pytest.approx(schedules.learning_rates(cosine, np.arange(10), 2.0, 2, 20))
    assert rates[10:] == pytest.approx([0.1] * 10)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"model": "BNN_FC_flip"}, "BNN_FC_flip has Bayesian layers.* take model: CNN_FC"),
        ({"dropout": 0.1}, "dropout = 0.1: not together with inference = 'swag'"),
        ({"steps": 9}, "steps = 9"),
        ({"epochs": 4, "swag_start": 0.6}, "2 of epochs = 4 end at or after swag_start = 0.6"),
    ],
)
def test_what_has_no_posterior_by_swag_is_refused(parameters, told):
    tiny = data.load("tiny")
    experiment = Experiment(
        **{"model": "CNN_FC", "dataset": "tiny", "inference": "swag"} | parameters
    )
    with pytest.raises(ExperimentError, match=told):
        methods.build_for(experiment, networks.build_for(experiment, tiny), 64)


def test_laplace_is_refused_beside_it():
    with pytest.raises(ExperimentError, match="CNN_FC has a posterior already"):
        trainer_of(data.load("tiny"), laplace=True)
