"""Objective, gradients over ranks, Adam, schedules and resumption, against hand-worked numbers.

Ranks are simulated here in one process by giving a trainer another place; tests/test_distributed.py
starts real ones.
"""

import dataclasses
import itertools

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from bnnlib import data, networks
from bnnlib.data import Dataset, epoch_batches
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import adam, virtual_ranks
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.objective import objective
from bnnlib.inference.trainer import DivergedError, Trainer
from bnnlib.names import MODELS
from bnnlib.networks import Deterministic, Flipout, Network, Reparameterization, Stage
from tests.inference.small import dataset_of

NUM_TRAIN, SHAPE, CLASSES = 24, (4, 4, 1), 3
NO_WIDTH = -200.0  # of rho: a standard deviation of 2^-23, so that a draw is the mean


@pytest.fixture(autouse=True, scope="module")
def alone():
    hvd.init()


@pytest.fixture(scope="module")
def dataset():
    return dataset_of(NUM_TRAIN, SHAPE, CLASSES)


def trainer_of(dataset, rank=0, size=1, network=None, **parameters):
    """A trainer of CNN_FC on `dataset`, 6 steps an epoch alone, of the same rate throughout."""
    chosen = {
        "model": "CNN_FC",
        "batch_size": 4,
        "epochs": 2,
        "learning_rate_scaling": "none",
    } | parameters
    experiment = Experiment(**chosen)
    network = network or networks.build(
        experiment.model,
        dataset.image_shape,
        dataset.num_classes,
        prior_stddev=experiment.prior_stddev,
        seed=experiment.seed,
        dropout=experiment.dropout,
    )
    return Trainer(experiment, dataset, network, Ranks(rank=rank, size=size))


def all_equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def inputs_of(dataset, batch):
    images = networks.to_inputs(tf.gather(dataset.x_train, batch), dataset)
    return images, tf.constant(dataset.y_train[batch].astype(np.int32))


def gradient_of(network, dataset, batch, seeds, kl_weight=1.0, num_train=NUM_TRAIN):
    images, labels = inputs_of(dataset, batch)
    with tf.GradientTape() as tape:
        loss, _, _ = objective(network, images, labels, seeds, kl_weight, num_train)
    gradients = tape.gradient(loss, network.trainable_variables)
    return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)


# --- the objective --------------------------------------------------------------------------------


def two_class_network():
    """Input 1 to logits (log 3, 0), so to probabilities (3/4, 1/4), without noise."""
    layer = Reparameterization("dense", (1, 2), tf.constant([0, 0], tf.int64), prior_stddev=1.0)
    layer.mean.assign([[np.log(3.0), 0.0]])
    layer.rho.assign([[NO_WIDTH, NO_WIDTH]])
    return Network("two_classes", [Stage("dense", 2)], [layer])


def test_objective_by_hand():
    loss, nll, kl = objective(
        two_class_network(),
        tf.ones([2, 1, 1, 1]),
        tf.constant([0, 1]),
        [tf.constant([1, 2], tf.int64)],
        0.5,
        100,
    )
    assert nll.numpy() == pytest.approx(-(np.log(3 / 4) + np.log(1 / 4)) / 2, rel=1e-5)
    # log(1/s) + m^2/2 - 1/2 an entry, s = 2^-23.
    expected_kl = 2 * 23 * np.log(2) + np.log(3) ** 2 / 2 - 1
    assert kl.numpy() == pytest.approx(expected_kl, rel=1e-5)
    assert loss.numpy() == pytest.approx(0.836988 + 0.5 * expected_kl / 100, rel=1e-5)


def test_several_draws_are_averaged(dataset):
    network = networks.build("BNN_FC_flip", SHAPE, CLASSES)
    images, labels = inputs_of(dataset, np.arange(8))
    seeds = [tf.constant([4, draw], tf.int64) for draw in range(3)]
    single = [objective(network, images, labels, [seed], 1.0, NUM_TRAIN) for seed in seeds]
    loss, nll, kl = objective(network, images, labels, seeds, 1.0, NUM_TRAIN)
    nlls = [terms[1].numpy() for terms in single]
    assert len(set(nlls)) == 3
    assert nll.numpy() == pytest.approx(np.mean(nlls), rel=1e-5)
    assert kl.numpy() == single[0][2].numpy()
    assert loss.numpy() == pytest.approx(np.mean([terms[0].numpy() for terms in single]), rel=1e-5)


@pytest.mark.parametrize("train_draws", [1, 3])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("model", "dropout"), [("BNN_FC_flip", 0.0), ("CNN_FC", 0.5)])
def test_a_trainers_steps_are_the_objective_with_the_documented_seeds(
    dataset, monkeypatch, model, dropout, train_draws, size
):
    monkeypatch.setattr(
        "bnnlib.inference.distributed.average", lambda tensor, name, compression: tensor
    )
    trainer = trainer_of(
        dataset,
        rank=size - 1,
        size=size,
        model=model,
        dropout=dropout,
        train_draws=train_draws,
        kl_weight=0.3,
        log_every=1,
        epochs=1,
        seed=5,
    )
    batches = epoch_batches(NUM_TRAIN, 4, size, size - 1, 5, 0)
    steps = trainer.run()
    for step, batch in enumerate(batches):
        seeds = [
            tf.constant([trainer.virtual_ranks.keys[0], step * train_draws + draw], tf.int64)
            for draw in range(train_draws)
        ]
        images, labels = inputs_of(dataset, batch)
        expected = [
            term.numpy()
            for term in objective(trainer.network, images, labels, seeds, 0.3, NUM_TRAIN)
        ]
        line = next(steps)
        assert [line.loss, line.nll, line.kl] == pytest.approx(expected, rel=1e-4)
    assert next(steps, None) is None


@pytest.mark.parametrize(("batch_size", "size"), [(2, 1), (8, 1), (4, 2), (2, 4)])
def test_kl_is_divided_by_the_whole_training_set_whatever_the_batch_and_the_ranks(
    dataset, monkeypatch, batch_size, size
):
    monkeypatch.setattr(
        "bnnlib.inference.distributed.average", lambda tensor, name, compression: tensor
    )
    trainer = trainer_of(
        dataset, size=size, model="BNN_FC_flip", batch_size=batch_size, kl_weight=0.5, steps=1
    )
    kl = trainer.network.kl().numpy()
    (line,) = trainer.run()
    assert line.kl == pytest.approx(kl, rel=1e-5)
    assert line.loss - line.nll == pytest.approx(0.5 * kl / NUM_TRAIN, rel=1e-4)


# --- the gradient does not depend on the number of ranks ------------------------------------------


def shards(ranks, global_batch=8):
    """Step 0's batches of every rank; together the same images for any number of ranks."""
    return [
        epoch_batches(NUM_TRAIN, global_batch // ranks, ranks, rank, seed=2, epoch=0)[0]
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("model", ["CNN_FC", "BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_local"])
def test_without_noise_the_ranks_averaged_gradient_is_the_global_batchs(dataset, model, ranks):
    network = networks.build(model, SHAPE, CLASSES, prior_stddev=0.1)
    for layer in network.layers:
        if layer.bayesian:
            layer.rho.assign(tf.fill(layer.rho.shape, NO_WIDTH))
    seeds = [[tf.constant([rank, 0], tf.int64)] for rank in range(ranks)]
    (whole,) = shards(1)
    assert set(np.concatenate(shards(ranks))) == set(whole)
    one = gradient_of(network, dataset, whole, seeds[0])
    averaged = np.mean(
        [
            gradient_of(network, dataset, shard, seed)
            for shard, seed in zip(shards(ranks), seeds, strict=True)
        ],
        axis=0,
    )
    # To rounding, of sums of numbers up to 1.
    np.testing.assert_allclose(averaged, one, atol=1e-6)
    assert np.abs(one).max() > 0.01


@pytest.mark.parametrize("model", ["CNN_FC", "BNN_FC_nonflip", "BNN_FC_local"])
def test_virtual_ranks_give_the_gradient_of_one_larger_batch(dataset, monkeypatch, model):
    network = networks.build(model, SHAPE, CLASSES, prior_stddev=0.1)
    for layer in network.layers:
        if layer.bayesian:
            layer.rho.assign(tf.fill(layer.rho.shape, NO_WIDTH))
    found = []
    for batch_size, count, at_once in ((8, 1, 8), (4, 2, 8), (2, 4, 8), (2, 4, 4), (1, 8, 1)):
        monkeypatch.setattr(virtual_ranks, "IMAGES_AT_ONCE", at_once)
        trainer = trainer_of(
            dataset, network=network, model=model, batch_size=batch_size, virtual_ranks=count
        )
        assert trainer.virtual_ranks.side_by_side == min(count, at_once // batch_size)
        found.append(gradient_of_virtual_ranks(trainer, 0))
    for gradients, nll, kl in found[1:]:
        assert float(nll) == pytest.approx(float(found[0][1]), rel=1e-5)
        assert float(kl) == float(found[0][2])
        for gradient, whole in zip(gradients, found[0][0], strict=True):
            np.testing.assert_allclose(gradient, whole, atol=1e-6)


def gradient_of_virtual_ranks(trainer, step):
    """Of the first images of the data set, at `step`."""
    count = trainer.virtual_ranks.images_a_step
    images = tf.constant(trainer.dataset.x_train[:count])
    labels = tf.constant(trainer.dataset.y_train[:count], tf.int32)
    batches = trainer.virtual_ranks.batches(images, labels, tf.constant(step, tf.int64))
    return trainer.method.gradient(trainer.network, batches, tf.constant(0.7), NUM_TRAIN)


def test_an_epoch_of_virtual_ranks_sees_each_image_once(dataset):
    trainer = trainer_of(dataset, batch_size=4, virtual_ranks=2, epochs=1)
    (line,) = trainer.run()
    assert (trainer.steps_per_epoch, line.step) == (3, 3)
    assert line.images_per_second * line.seconds == pytest.approx(24)


@pytest.mark.parametrize("noise_streams", [0, 1, 2])
@pytest.mark.parametrize("at_once", [1, 8, 16])
@pytest.mark.parametrize(
    "model", ["BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_local", "BNN_conv_flip", "BNN_conv_local"]
)
def test_virtual_ranks_are_the_ranks_of_other_processes(
    dataset, monkeypatch, model, at_once, noise_streams
):
    monkeypatch.setattr(virtual_ranks, "IMAGES_AT_ONCE", at_once)
    chosen = {"model": model, "batch_size": 4, "seed": 5, "train_draws": 2}
    chosen |= {"noise_streams": noise_streams}
    carrier = trainer_of(dataset, virtual_ranks=4, **chosen)
    several, nll, kl = gradient_of_virtual_ranks(carrier, 3)
    # A process each: rank r's trainer holds the images that the carrier gives its r-th.
    singles = []
    for rank in range(4):
        alone = trainer_of(dataset, rank, 4, network=carrier.network, **chosen)
        images, labels = (
            tf.constant(array[rank * 4 : rank * 4 + 4])
            for array in (dataset.x_train, dataset.y_train.astype(np.int32))
        )
        batches = alone.virtual_ranks.batches(images, labels, tf.constant(3, tf.int64))
        singles.append(alone.method.gradient(carrier.network, batches, tf.constant(0.7), NUM_TRAIN))
    assert float(nll) == pytest.approx(np.mean([float(one[1]) for one in singles]), rel=1e-5)
    assert float(kl) == float(singles[0][2])
    for index, gradient in enumerate(several):
        mean = np.mean([one[0][index] for one in singles], axis=0)
        np.testing.assert_allclose(gradient, mean, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_counts_all_virtual_ranks(dataset):
    scaled = {"learning_rate_scaling": "linear", "warmup_epochs": 0.0, "batch_size": 2}
    rates = [
        trainer_of(dataset, size=size, virtual_ranks=count, **scaled).learning_rate(np.array([0]))
        for size, count in ((4, 1), (2, 2), (1, 4))
    ]
    assert [rate.tolist() for rate in rates] == [[pytest.approx(4e-3)]] * 3


def test_a_run_keeps_its_virtual_ranks_on_other_processes(dataset, monkeypatch):
    monkeypatch.setattr(
        "bnnlib.inference.distributed.average", lambda tensor, name, compression: tensor
    )
    monkeypatch.setattr("bnnlib.inference.distributed.broadcast", lambda variables, name: None)
    chosen = {"model": "BNN_FC_flip", "batch_size": 1, "epochs": 4}
    before = trainer_of(dataset, size=4, virtual_ranks=2, **chosen)  # 8 in all
    list(before.run(until=lambda: before.step == 3))
    for size, carried in ((1, 8), (2, 4), (8, 1)):
        after = trainer_of(dataset, size=size, virtual_ranks=2, **chosen)
        after.restore(before.state())
        assert (after.virtual_ranks.count, after.virtual_ranks.total) == (carried, 8)
        assert (after.step, after.position, after.steps_per_epoch) == (3, 3, 3)
    third = trainer_of(dataset, size=3, virtual_ranks=2, **chosen)
    third.restore(before.state())  # 3 do not divide 8: as many as the parameter says
    assert (third.virtual_ranks.count, third.virtual_ranks.total) == (2, 6)
    assert (third.steps_per_epoch, third.position) == (4, 4)


NOISE_SEEDS = 1000


def averaged_gradients(network, dataset, ranks, num_train=NUM_TRAIN):
    """Mean and standard error over noise seeds of the gradient averaged over `ranks` ranks.

    The streams are those of the ranks' trainers, a step a noise seed. Each number of ranks takes
    steps of its own, so that the estimates are independent.
    """
    keys = [
        trainer_of(
            dataset, rank, ranks, network, model=network.name, batch_size=8 // ranks
        ).virtual_ranks.keys[0]
        for rank in range(ranks)
    ]

    @tf.function
    def moments():
        total = squares = tf.zeros([sum(tf.size(v) for v in network.trainable_variables)])
        for step in tf.range(NOISE_SEEDS, dtype=tf.int64):
            parts = [
                gradient_of(
                    network,
                    dataset,
                    shard,
                    [tf.stack([key, ranks * NOISE_SEEDS + step])],
                    num_train=num_train,
                )
                for key, shard in zip(keys, shards(ranks), strict=True)
            ]
            gradient = tf.add_n(parts) / ranks
            total += gradient
            squares += gradient**2
        return total / NOISE_SEEDS, squares / NOISE_SEEDS

    mean, square = (part.numpy().astype(np.float64) for part in moments())
    return mean, np.sqrt(np.maximum(square - mean**2, 0) / NOISE_SEEDS)


def standardized_difference(one, other):
    (mean, error), (other_mean, other_error) = one, other
    # The entries that noise does not reach agree to rounding, hence the added 1e-7.
    return (mean - other_mean) / np.hypot(np.hypot(error, other_error), 1e-7)


@pytest.mark.parametrize("model", ["BNN_FC_flip", "BNN_FC_nonflip", "BNN_FC_local"])
def test_the_expected_gradient_is_the_same_for_1_2_and_4_ranks(dataset, model):
    network = networks.build(model, SHAPE, CLASSES, bayesian_layers="all", seed=3)
    for layer in network.layers:  # noise that matters: standard deviations near 0.3
        layer.rho.assign(tf.fill(layer.rho.shape, -1.0))
    estimates = {ranks: averaged_gradients(network, dataset, ranks) for ranks in (1, 2, 4)}
    for one, other in itertools.combinations(estimates.values(), 2):
        z = standardized_difference(one, other)
        # 5 standard errors: by chance once in 230, for three comparisons of 2,499 entries.
        assert np.abs(z).max() < 5
        assert np.mean(z**2) < 1.5
    # One draw shared by the batch becomes four; Flipout's and local noise differ by image already.
    fall = np.median(estimates[4][1]) / np.median(estimates[1][1])
    assert fall < 0.8 if model == "BNN_FC_nonflip" else 0.8 < fall < 1.2

    # The comparison sees the error that it is here for: KL divided by a shard's size.
    wrong = averaged_gradients(network, dataset, 2, num_train=NUM_TRAIN // 2)
    assert np.abs(standardized_difference(estimates[1], wrong)).max() > 20


# --- Adam -----------------------------------------------------------------------------------------


def test_adam_is_keras_adam():
    kernel = Deterministic("dense", (3, 2), tf.constant([0, 0], tf.int64))
    network = Network("one_layer", [Stage("dense", 2)], [kernel])
    images = np.zeros((4, 3, 1, 1), np.uint8)
    labels = np.zeros(4, np.int64)
    trainer = trainer_of(
        Dataset("none", images, labels, images, labels, 2, scale=1.0), network=network
    )
    state = trainer.train_state
    variables = list(state.weights.values())
    twins = [tf.Variable(variable) for variable in variables]
    keras = tf_keras.optimizers.Adam(1.0)
    rng = np.random.default_rng(0)
    for step, rate in enumerate([1e-3, 1e-3, 0.5, 2e-3, 1e-4, 1e-3]):
        # From far below epsilon to far above.
        gradients = [
            tf.constant(
                rng.normal(size=v.shape) * 10.0 ** rng.integers(-10, 3, v.shape), tf.float32
            )
            for v in variables
        ]
        count = tf.constant(step + 1.0)
        adam.update(state.weights, state.optimizer, gradients, count, tf.constant(rate))
        keras.learning_rate = rate
        keras.apply_gradients(zip(gradients, twins, strict=True))
        for variable, twin in zip(variables, twins, strict=True):
            np.testing.assert_allclose(variable, twin, rtol=1e-5, atol=1e-7)


def test_rho_moves_at_its_own_rate(dataset):
    plain = trainer_of(dataset, model="BNN_FC_flip", learning_rate=1e-3, steps=1)
    fast = trainer_of(dataset, model="BNN_FC_flip", learning_rate=1e-3, steps=1, rho_rate=10.0)
    before = plain.network.weights()
    for trainer in (plain, fast):
        list(trainer.run())
    moved, moved_fast = (
        {name: value - before[name] for name, value in trainer.network.weights().items()}
        for trainer in (plain, fast)
    )
    for name in before:
        factor = 10.0 if name == "layer0/rho" else 1.0
        # To the rounding of weights near 3.
        np.testing.assert_allclose(moved_fast[name], factor * moved[name], rtol=1e-4, atol=5e-7)
    # Adam's first step is the rate, whatever the gradient.
    assert np.median(np.abs(moved_fast["layer0/rho"])) == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.parametrize("weight_decay", ["none", "prior"])
def test_a_prior_on_a_twin_is_its_log_density_over_the_training_set(dataset, weight_decay):
    network = networks.build("CNN_FC", SHAPE, CLASSES, prior_stddev=0.5, weight_decay=weight_decay)
    batch, seeds = np.arange(4), [tf.zeros([2], tf.int64)]
    kernel, kl = network.layers[0].kernel.numpy(), network.kl().numpy()
    with_prior, without = (
        gradient_of(network, dataset, batch, seeds, kl_weight=weight) for weight in (0.3, 0.0)
    )
    added = (with_prior - without).numpy()
    # -log N(kernel; 0, 0.5^2) = kernel^2 / (2 0.5^2) + constant; of the first layer's kernel alone,
    # which is the one that is Bayesian in BNN_FC_flip.
    decay = weight_decay == "prior"
    assert kl == pytest.approx(2.0 * np.sum(kernel**2) if decay else 0.0, rel=1e-5)
    expected = {"layer0/kernel": 0.3 * decay * 4.0 * kernel / NUM_TRAIN}
    parts = [
        np.ravel(expected.get(name, np.zeros(v.shape)))
        for name, v in network.named_variables().items()
    ]
    np.testing.assert_allclose(added, np.concatenate(parts), atol=1e-7)
    (line,) = trainer_of(dataset, network=network, kl_weight=0.3, steps=1).run()
    assert line.loss - line.nll == pytest.approx(0.3 * kl / NUM_TRAIN, abs=1e-6)


def test_a_deterministic_run_is_keras_own(dataset):
    trainer = trainer_of(dataset, learning_rate=0.01, batch_size=8, epochs=3, seed=1)
    keras = tf_keras.layers
    twin = tf_keras.Sequential(
        [
            keras.InputLayer(SHAPE),
            keras.Rescaling(1 / 255),
            keras.Flatten(),
            keras.Dense(64, activation="relu"),
            keras.Dense(CLASSES),
        ]
    )
    twin.set_weights(
        [weight for layer in trainer.network.layers for weight in (layer.kernel, layer.bias)]
    )
    twin.compile(
        tf_keras.optimizers.Adam(0.01),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = [
        [
            twin.train_on_batch(dataset.x_train[b], dataset.y_train[b], reset_metrics=True)
            for b in batches
        ]
        for batches in (epoch_batches(NUM_TRAIN, 8, 1, 0, seed=1, epoch=e) for e in range(3))
    ]
    lines = list(trainer.run())
    assert [line.nll for line in lines] == pytest.approx(np.mean(losses, axis=1), rel=1e-4)
    own = [weight for layer in trainer.network.layers for weight in (layer.kernel, layer.bias)]
    for weight, other in zip(own, twin.get_weights(), strict=True):
        # Nine steps of 0.01; Adam divides by the root of small squares, which magnifies rounding.
        np.testing.assert_allclose(weight, other, atol=2e-4)


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scaling", "size", "warmup_epochs", "factors"),
    [
        ("sqrt", 1, 2.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("none", 2, 2.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        # Two ranks, three steps an epoch, two epochs of warm-up: a sixth of the way a step.
        ("linear", 2, 2.0, [7 / 6, 8 / 6, 9 / 6, 10 / 6, 11 / 6, 2, 2, 2]),
        ("linear", 2, 0.0, [2, 2, 2, 2, 2, 2, 2, 2]),
        # Six ranks, one step an epoch.
        ("linear", 6, 5.0, [2, 3, 4, 5, 6, 6, 6, 6]),
        ("sqrt", 6, 0.0, [2.449490] * 8),
    ],
)
def test_learning_rates_by_hand(dataset, scaling, size, warmup_epochs, factors):
    trainer = trainer_of(
        dataset,
        size=size,
        learning_rate=0.01,
        learning_rate_scaling=scaling,
        warmup_epochs=warmup_epochs,
    )
    rates = trainer.learning_rate(np.arange(8))
    assert rates == pytest.approx([0.01 * factor for factor in factors], rel=1e-6)


@pytest.mark.parametrize(
    ("epochs", "size", "weights"),
    [
        (0.0, 1, [0.5] * 8),
        (1.0, 1, [0.5 / 6, 1 / 6, 0.25, 2 / 6, 2.5 / 6, 0.5, 0.5, 0.5]),
        (1.5, 3, [0.5 / 3, 1 / 3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        (0.1, 1, [0.5] * 8),  # less than a step
    ],
)
def test_kl_weights_by_hand(dataset, epochs, size, weights):
    trainer = trainer_of(dataset, size=size, kl_weight=0.5, kl_annealing_epochs=epochs)
    assert trainer.kl_weight(np.arange(8)) == pytest.approx(weights, rel=1e-6)


def test_schedules_reach_the_steps(dataset, monkeypatch):
    monkeypatch.setattr(
        "bnnlib.inference.distributed.average", lambda tensor, name, compression: tensor
    )
    trainer = trainer_of(
        dataset,
        size=3,
        model="BNN_FC_flip",
        batch_size=4,
        learning_rate=0.01,
        learning_rate_scaling="linear",
        warmup_epochs=1.0,
        kl_annealing_epochs=2.0,
        epochs=3,
        log_every=1,
    )
    lines = list(trainer.run())
    assert [line.learning_rate for line in lines] == pytest.approx([0.02] + [0.03] * 5)
    weights = [(line.loss - line.nll) * NUM_TRAIN / line.kl for line in lines]
    assert weights == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1], rel=1e-3)


def test_adams_first_step_is_the_learning_rate(dataset):
    # The first step of Adam is rate * g / (|g| + epsilon): the rate itself for g >> 1e-7.
    trainer = trainer_of(dataset, learning_rate=0.02, steps=1)
    before = trainer.network.weights()["layer1/kernel"]
    list(trainer.run())
    change = np.abs(trainer.network.weights()["layer1/kernel"] - before)
    assert np.median(change[change > 0]) == pytest.approx(0.02, rel=1e-3)


# --- the loop -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "size", "ends"),
    [
        ({"epochs": 2, "log_every": 4}, 1, [4, 6, 10, 12]),
        ({"epochs": 2, "log_every": 50}, 1, [6, 12]),
        ({"epochs": 1, "log_every": 2}, 1, [2, 4, 6]),
        ({"epochs": 2, "log_every": 50}, 3, [2, 4]),
        ({"epochs": 1, "log_every": 50, "batch_size": 5}, 1, [4]),  # four images are left out
        # steps instead of epochs, fewer and more than the epochs would be.
        ({"epochs": 2, "steps": 3, "log_every": 2}, 1, [2, 3]),
        ({"epochs": 1, "steps": 8, "log_every": 4}, 1, [4, 6, 8]),
    ],
)
def test_lines_end_at_log_every_and_at_epochs_ends(dataset, monkeypatch, parameters, size, ends):
    monkeypatch.setattr(
        "bnnlib.inference.distributed.average", lambda tensor, name, compression: tensor
    )
    trainer = trainer_of(dataset, size=size, **parameters)
    assert trainer.num_steps == ends[-1]
    lines = list(trainer.run())
    assert [line.step for line in lines] == ends
    assert [line.epoch for line in lines] == [end / trainer.steps_per_epoch for end in ends]
    assert [line.warmup for line in lines] == [True] + [False] * (len(ends) - 1)
    images = np.diff([0, *ends]) * parameters.get("batch_size", 4) * size
    rates = [line.images_per_second * line.seconds for line in lines]
    assert rates == pytest.approx(list(images), rel=1e-6)
    assert trainer.step == trainer.num_steps
    assert list(trainer.run()) == []


def test_a_line_holds_means_over_its_steps(dataset):
    one, three = (
        list(trainer_of(dataset, model="BNN_FC_flip", epochs=1, log_every=every).run())
        for every in (1, 3)
    )
    for index, line in enumerate(three):
        steps = one[3 * index : 3 * index + 3]
        for term in ("loss", "nll", "kl"):
            mean = np.mean([getattr(step, term) for step in steps])
            assert getattr(line, term) == pytest.approx(mean, rel=1e-5)


def test_until_ends_the_run_after_a_line(dataset):
    trainer = trainer_of(dataset, log_every=2)
    assert [line.step for line in trainer.run(until=lambda: trainer.step >= 4)] == [2, 4]
    assert [line.step for line in trainer.run()] == [6, 8, 10, 12]


@pytest.mark.parametrize("model", ["BNN_FC_flip", "BNN_conv_nonflip", "BNN_conv_local", "CNN_FC"])
def test_a_run_repeats_bit_by_bit(dataset, model):
    one, same, other = (trainer_of(dataset, model=model, seed=seed) for seed in (1, 1, 2))
    for trainer in (one, same, other):
        list(trainer.run())
    assert all_equal(one.state(), same.state())
    assert not all_equal(one.state(), other.state())


@pytest.mark.parametrize(
    ("model", "stop", "log_every"),
    [("BNN_FC_flip", 4, 2), ("BNN_FC_nonflip", 7, 1), ("BNN_FC_local", 8, 2), ("CNN_FC", 6, 3)],
)
def test_a_resumed_run_gives_bitwise_the_weights_of_an_uninterrupted_one(
    dataset, model, stop, log_every
):
    common = {
        "model": model,
        "train_draws": 2,
        "warmup_epochs": 1.5,
        "kl_annealing_epochs": 1.0,
    }
    whole = trainer_of(dataset, **common, log_every=5)
    list(whole.run())

    first = trainer_of(dataset, **common, log_every=log_every)
    list(first.run(until=lambda: first.step == stop))
    state = first.state()
    assert int(state["step"]) == stop
    # Another process: its weights, its moments and its graph are new.
    second = trainer_of(
        dataset,
        **common,
        log_every=log_every,
        network=networks.build(model, SHAPE, CLASSES, seed=99),
    )
    second.restore(state)
    assert all_equal(second.state(), state)
    lines = list(second.run())
    assert lines[0].step > stop
    assert lines[0].warmup
    assert all_equal(second.state(), whole.state())

    # Each part of the state matters.
    third = trainer_of(dataset, **common)
    third.restore({**state, "adam2/0": np.zeros_like(state["adam2/0"])})
    list(third.run())
    assert not all_equal(third.state(), whole.state())


@pytest.mark.parametrize("model", ["BNN_FC_flip", "CNN_FC"])
def test_a_run_that_is_cut_anywhere_ends_with_the_same_bits_and_lines(dataset, model):
    common = {"model": model, "log_every": 5, "warmup_epochs": 1.5}
    whole = trainer_of(dataset, **common)
    expected = [without_times(line) for line in whole.run()]

    trainer, lines, cuts = trainer_of(dataset, **common), [], []
    while trainer.step < trainer.num_steps:
        trainer.ask_to_stop()  # each part is one step: within lines, at their ends, at epochs' ends
        lines += [without_times(line) for line in trainer.run()]
        assert trainer.stopped
        cuts.append(trainer.step)
        state = trainer.state()
        trainer = trainer_of(
            dataset, **common, network=networks.build(model, SHAPE, CLASSES, seed=9)
        )
        trainer.restore(state)
        if trainer.step == 8:
            lines += [without_times(line) for line in trainer.run()]  # and the rest at once
            assert not trainer.stopped
    assert cuts == [1, 2, 3, 4, 5, 6, 7, 8]
    assert lines == expected
    assert all_equal(trainer.state(), whole.state())


def without_times(line):
    """What of a line is the same in every run of the same parameters and ranks."""
    values = dataclasses.asdict(line)
    return {k: v for k, v in values.items() if k in ("step", "epoch", "loss", "nll", "kl")}


def test_a_state_from_before_lines_were_cut_is_one_at_a_lines_end(dataset):
    trainer = trainer_of(dataset, log_every=4)
    list(trainer.run(until=lambda: trainer.step == 4))
    state = trainer.state()
    old = {name: value for name, value in state.items() if not name.startswith("line/")}
    again = trainer_of(dataset, log_every=4)
    again.restore(old)
    assert all_equal(again.state(), state)


def test_a_state_holds_weights_moments_step_and_the_unfinished_line(dataset):
    trainer = trainer_of(dataset, model="BNN_FC_flip")
    list(trainer.run(until=lambda: True))
    state = trainer.state()
    assert int(state["step"]) == 6
    weights = {name: value for name, value in state.items() if name.startswith("layer")}
    assert all_equal(weights, trainer.network.weights())
    assert len(state) == 3 * len(weights) + 6
    assert (int(state["offset"]), int(state["steps_per_epoch"])) == (0, 6)
    assert not state["line/sums"].any()  # this line is finished
    kept = state["layer0/mean"].copy()
    list(trainer.run())
    np.testing.assert_array_equal(state["layer0/mean"], kept)  # no view of what trains on


def test_another_number_of_ranks_goes_on_at_the_same_part_of_the_epochs(dataset):
    """By hand: 6 steps an epoch with batches of 4 stand for 3 of 8, as for two ranks."""
    few = trainer_of(dataset, batch_size=4, epochs=3)
    list(few.run(until=lambda: few.step == 6))
    for _ in range(3):  # half the second epoch
        few.ask_to_stop()
        list(few.run())
    assert (few.step, few.position) == (9, 9)

    more = trainer_of(dataset, batch_size=8, epochs=3, log_every=1)
    more.restore(few.state())
    # 1.5 epochs are 4.5 steps of 3: the half step is taken again, none is left out.
    assert (more.step, more.position, more.num_steps) == (9, 4, 14)
    rates = trainer_of(dataset, batch_size=8, epochs=3, warmup_epochs=2).learning_rate(np.arange(9))
    again = trainer_of(dataset, batch_size=8, epochs=3, warmup_epochs=2)
    again.restore(few.state())
    assert again.learning_rate(np.array([9]))[0] == rates[4]
    lines = list(more.run())
    assert [line.step for line in lines] == [10, 11, 12, 13, 14]
    assert lines[-1].epoch == 3
    # And back, at the end of an epoch.
    back = trainer_of(dataset, batch_size=4, epochs=4)
    back.restore(more.state())
    assert (back.step, back.position, back.num_steps) == (14, 18, 20)
    assert [line.epoch for line in back.run()] == [4]


def test_steps_that_were_asked_for_are_as_many_with_another_number_of_ranks(dataset):
    few = trainer_of(dataset, batch_size=4, steps=7, log_every=1)
    list(few.run(until=lambda: few.step == 4))
    more = trainer_of(dataset, batch_size=8, steps=7, log_every=1)
    more.restore(few.state())
    assert (more.step, more.position, more.num_steps) == (4, 2, 7)
    assert [line.step for line in more.run()] == [5, 6, 7]


def test_noise_streams_of_ranks(dataset):
    independent = {
        trainer_of(dataset, rank, 4, batch_size=1).virtual_ranks.keys[0] for rank in range(4)
    }
    shared = {
        trainer_of(dataset, rank, 4, batch_size=1, noise_streams=1).virtual_ranks.keys[0]
        for rank in range(4)
    }
    assert len(independent) == 4
    assert shared == {trainer_of(dataset).virtual_ranks.keys[0]}
    assert trainer_of(dataset, seed=1).virtual_ranks.keys[0] not in independent


# --- divergence -----------------------------------------------------------------------------------


def test_divergence_names_the_term_and_the_steps(dataset):
    trainer = trainer_of(dataset, learning_rate=1e30, log_every=3)
    with pytest.raises(DivergedError, match=r"^nll = (nan|inf) within steps 1 to 3: .*1e\+30"):
        list(trainer.run())
    assert isinstance(DivergedError(), ArithmeticError)


def test_divergence_of_kl(dataset):
    trainer = trainer_of(dataset, model="BNN_FC_nonflip", log_every=2)
    weights = trainer.network.weights()
    list(trainer.run(until=lambda: True))
    # Squares overflow float32, logits do not.
    weights["layer0/mean"] = np.full_like(weights["layer0/mean"], 1e25)
    trainer.network.load_weights(weights)
    with pytest.raises(DivergedError, match=r"^kl = inf within steps 3 to 4: "):
        list(trainer.run())


def test_divergence_that_a_fused_relu_hides_from_the_loss(dataset):
    # NaN in, 0 out of the hidden layer: the loss is the finite one of the last bias alone.
    images = np.full((NUM_TRAIN, *SHAPE), np.nan, np.float32)
    broken = dataclasses.replace(dataset, x_train=images, scale=1.0)
    trainer = trainer_of(broken, log_every=2)
    with pytest.raises(DivergedError, match=r"^(nll|layer0/kernel) = nan within steps 1 to 2: "):
        list(trainer.run())


# --- it learns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS[:8])
def test_the_loss_falls(model):
    tiny = data.load("tiny")
    trainer = trainer_of(
        tiny, model=model, batch_size=16, epochs=3, learning_rate=3e-3, kl_weight=0.01
    )
    lines = list(trainer.run())
    assert lines[-1].nll < 0.5 * lines[0].nll
    assert lines[-1].loss < lines[0].loss


def test_the_posterior_moves_to_the_prior_where_kl_rules(dataset):
    # With kl_weight huge only KL counts, and it falls although the images say otherwise.
    trainer = trainer_of(
        dataset, model="BNN_FC_flip", kl_weight=1e4, learning_rate=0.1, epochs=30, log_every=6
    )
    before = trainer.network.kl().numpy()
    list(trainer.run())
    assert trainer.network.kl().numpy() < 0.1 * before
    assert isinstance(trainer.network.layers[0], Flipout)


@pytest.mark.parametrize("missing", ["adam1/0", "step"])
def test_an_incomplete_state_is_refused_and_nothing_is_set(dataset, missing):
    source = trainer_of(dataset, model="BNN_FC_flip", steps=1)
    list(source.run())
    state = source.state()
    del state[missing]
    trainer = trainer_of(dataset, model="BNN_FC_flip", seed=1)
    before = trainer.state()
    with pytest.raises(RecordError, match=missing):
        trainer.restore(state)
    assert all_equal(trainer.state(), before)


def test_virtual_ranks_that_leave_an_epoch_one_step_are_told(caplog):
    tiny = data.load("tiny")
    for count, told in ((8, 1), (1, 0)):
        caplog.clear()
        experiment = Experiment(dataset="tiny", batch_size=32, virtual_ranks=count)
        Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())
        assert caplog.text.count("so an epoch is 1 step and leaves out 0 images") == told
