"""IVON against its equations in NumPy, the authors' package, its own pieces, and known limits."""

import dataclasses

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from bnnlib import data, networks
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import ivon, prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.restore import restore
from bnnlib.inference.trainer import Trainer
from bnnlib.metrics import judge
from bnnlib.networks import Deterministic, Network, Stage, posterior
from bnnlib.record import provenance
from bnnlib.record.run import Run
from bnnlib.session import Session
from tests.inference.small import dataset_of

NUM_TRAIN, SHAPE, CLASSES = 48, (4, 4, 1), 3
IVON = {
    "inference": "ivon",
    "learning_rate": 0.1,
    "ivon_h0": 0.1,
    "ivon_beta2": 0.9,
    "prior_stddev": 0.7,
}


@pytest.fixture(autouse=True, scope="module")
def alone():
    hvd.init()


@pytest.fixture(scope="module")
def dataset():
    return dataset_of(NUM_TRAIN, SHAPE, CLASSES)


def trainer_of(dataset, rank=0, size=1, network=None, **parameters):
    """A trainer of CNN_FC by IVON, 12 steps an epoch alone."""
    chosen = {"model": "CNN_FC", "batch_size": 4, "epochs": 2, "learning_rate_scaling": "none"}
    experiment = Experiment(**(chosen | IVON | parameters))
    network = network or networks.build(
        experiment.model, dataset.image_shape, dataset.num_classes, seed=experiment.seed
    )
    return Trainer(experiment, dataset, network, Ranks(rank=rank, size=size))


def all_equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def noise_of(trainer, key, step, draw, train_draws):
    """The documented noise of one draw, in the order of the weights' names."""
    seed = tf.constant([key, step * train_draws + draw], tf.int64)
    return [part.numpy() for part in trainer.network.posterior.noise(seed)]


# --- the equations --------------------------------------------------------------------------------


def softmax_regression():
    layer = Deterministic("dense", (16, CLASSES), tf.constant([0, 0], tf.int64))
    return Network("softmax_regression", [Stage("dense", CLASSES)], [layer])


def gradient_by_hand(bias, kernel, x, labels):
    """Of the mean nll of softmax(x kernel + bias), by bias and by kernel."""
    logits = x @ kernel + bias
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    error = (probs - np.eye(CLASSES)[labels]) / len(x)
    return [error.sum(axis=0), x.T @ error]


@pytest.mark.parametrize(
    ("virtual_ranks", "train_draws", "kl_weight"), [(1, 1, 1.0), (3, 2, 1.0), (2, 1, 0.25)]
)
def test_twenty_steps_are_the_equations_in_numpy(dataset, virtual_ranks, train_draws, kl_weight):
    trainer = trainer_of(
        dataset,
        network=softmax_regression(),
        virtual_ranks=virtual_ranks,
        train_draws=train_draws,
        kl_weight=kl_weight,
        batch_size=2,
        learning_rate_schedule="cosine",
        steps=20,
    )
    rng = np.random.default_rng(1)
    batches = rng.integers(0, NUM_TRAIN, (20, 2 * virtual_ranks)).astype(np.int32)
    rates = 0.1 * (1 + np.cos(np.pi * np.arange(20) / 20)) / 2
    h0, beta_1, beta_2 = 0.1, 0.9, 0.9
    ess = NUM_TRAIN / kl_weight  # the paper's lambda
    delta = 1 / (ess * 0.7**2)
    m = [w.numpy().astype(np.float64) for w in trainer.train_state.weights.values()]
    h = [np.full(w.shape, h0) for w in m]
    g = [np.zeros(w.shape) for w in m]
    for t, batch in enumerate(batches, start=1):
        sigma = [1 / np.sqrt(ess * (h_ + delta)) for h_ in h]
        g_hat, h_hat = [0.0, 0.0], [0.0, 0.0]
        for rank, key in enumerate(trainer.virtual_ranks.keys):
            own = batch[2 * rank : 2 * rank + 2]
            x = dataset.x_train[own].reshape(2, -1) / 255
            for draw in range(train_draws):
                noise = noise_of(trainer, key, t - 1, draw, train_draws)
                theta = [m_ + s * e for m_, s, e in zip(m, sigma, noise, strict=True)]
                gradients = gradient_by_hand(*theta, x, dataset.y_train[own])
                share = 1 / (virtual_ranks * train_draws)
                for i, gradient in enumerate(gradients):
                    g_hat[i] += share * gradient
                    h_hat[i] += share * gradient * (theta[i] - m[i]) / sigma[i] ** 2
        for i in range(2):
            g[i] = beta_1 * g[i] + (1 - beta_1) * g_hat[i]
            correction = 0.5 * (1 - beta_2) ** 2 * (h[i] - h_hat[i]) ** 2 / (h[i] + delta)
            h[i] = beta_2 * h[i] + (1 - beta_2) * h_hat[i] + correction
            g_bar = g[i] / (1 - beta_1**t)
            rate = rates[t - 1] * (h0 + delta)
            m[i] = m[i] - rate * (g_bar + delta * m[i]) / (h[i] + delta)
    before = trainer.network.weights()
    assert trainer.train(batches) == (20, pytest.approx(rates[-1]))
    state = trainer.state()
    for i, name in enumerate(("layer0/bias", "layer0/kernel")):
        np.testing.assert_allclose(state[name], m[i], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state[f"ivon_h/{i}"], h[i], rtol=1e-4)
        np.testing.assert_allclose(state[f"ivon_g/{i}"], g[i], rtol=1e-4, atol=1e-6)
        assert np.abs(m[i] - before[name]).max() > 0.03
        assert np.abs(h[i] / h0 - 1).max() > 0.5


@pytest.mark.parametrize("train_draws", [1, 2])
def test_twenty_steps_are_those_of_the_authors_package(dataset, monkeypatch, train_draws):
    torch = pytest.importorskip("torch")
    official = pytest.importorskip("ivon")
    trainer = trainer_of(dataset, train_draws=train_draws)
    rng = np.random.default_rng(1)
    batches = rng.integers(0, NUM_TRAIN, (20, 4)).astype(np.int32)
    theirs = [
        torch.tensor(w.numpy(), requires_grad=True) for w in trainer.train_state.weights.values()
    ]
    optimizer = official.IVON(
        theirs,
        lr=0.1,
        ess=NUM_TRAIN,
        weight_decay=1 / (NUM_TRAIN * 0.7**2),
        hess_init=0.1,
        beta2=0.9,
        mc_samples=train_draws,
    )
    key, count = trainer.virtual_ranks.keys[0], 0

    def same_noise(*shape, **_):
        nonlocal count
        noise = noise_of(trainer, key, *divmod(count, train_draws), train_draws)
        count += 1
        return torch.tensor(np.concatenate([part.ravel() for part in noise]))

    monkeypatch.setattr(torch, "randn", same_noise)
    for batch in batches:
        x = torch.tensor(dataset.x_train[batch].reshape(4, -1).astype(np.float32) / 255)
        labels = torch.tensor(dataset.y_train[batch])
        for _ in range(train_draws):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                bias0, kernel0, bias1, kernel1 = theirs
                hidden = torch.relu(x @ kernel0 + bias0)
                torch.nn.functional.cross_entropy(hidden @ kernel1 + bias1, labels).backward()
        optimizer.step()
    trainer.train(batches)
    for own, weight in zip(trainer.train_state.weights.values(), theirs, strict=True):
        np.testing.assert_allclose(own.numpy(), weight.detach().numpy(), rtol=1e-3, atol=1e-5)
    flat = np.concatenate([trainer.state()[f"ivon_h/{i}"].ravel() for i in range(4)])
    np.testing.assert_allclose(flat, optimizer.param_groups[0]["hess"].numpy(), rtol=1e-3)
    assert count == 20 * train_draws


def test_the_logged_kl_is_tfps_between_posterior_and_prior(dataset):
    trainer = trainer_of(dataset, steps=5, log_every=1)
    list(trainer.run(until=lambda: trainer.step == 4))
    means, stddevs = trainer.network.means(), trainer.network.posterior.stddevs()
    expected = sum(
        tf.reduce_sum(
            tfp.distributions.kl_divergence(
                tfp.distributions.Normal(mean[name], stddev[name]),
                tfp.distributions.Normal(0.0, 0.7),
            )
        ).numpy()
        for mean, stddev in zip(means, stddevs, strict=True)
        for name in ("kernel", "bias")
    )
    (line,) = trainer.run()
    assert line.kl == pytest.approx(expected, rel=1e-5)
    assert line.loss == pytest.approx(line.nll + line.kl / NUM_TRAIN, rel=1e-5)


def test_where_the_images_say_nothing_the_posterior_goes_to_the_prior(dataset):
    black = dataclasses.replace(dataset, x_train=np.zeros_like(dataset.x_train))
    trainer = trainer_of(black, epochs=60, ivon_beta2=0.95, learning_rate=0.5)
    before = trainer.network.weights()["layer0/kernel"]
    list(trainer.run())
    mean, stddev = posterior.entries(trainer.network)["layer0_dense"]
    np.testing.assert_allclose(stddev, 0.7, rtol=1e-3)
    assert np.abs(mean).max() < 1e-3 * np.abs(before).max()


# --- ranks ----------------------------------------------------------------------------------------


def averages_of(trainer, images, labels, step):
    batches = trainer.virtual_ranks.batches(
        tf.constant(images), tf.constant(labels.astype(np.int32)), tf.constant(step, tf.int64)
    )
    return trainer.method.gradient(trainer.network, batches, tf.constant(1.0), NUM_TRAIN)


@pytest.mark.parametrize("model", ["CNN_FC", "CNN_conv"])
@pytest.mark.parametrize("noise_streams", [0, 1])
def test_eight_virtual_ranks_are_eight_processes(dataset, model, noise_streams):
    chosen = {"model": model, "train_draws": 2, "seed": 5, "noise_streams": noise_streams}
    carrier = trainer_of(dataset, virtual_ranks=8, **chosen)
    several, nll, kl = averages_of(carrier, dataset.x_train[:32], dataset.y_train[:32], 3)
    singles = []
    for rank in range(8):
        single = trainer_of(dataset, rank, 8, network=carrier.network, **chosen)
        part = slice(4 * rank, 4 * rank + 4)
        singles.append(averages_of(single, dataset.x_train[part], dataset.y_train[part], 3))
    assert float(nll) == pytest.approx(np.mean([float(one[1]) for one in singles]), rel=1e-5)
    assert float(kl) == float(singles[0][2])
    assert len(several) == 2 * len(carrier.train_state.weights)
    for index, average in enumerate(several):
        mean = np.mean([one[0][index] for one in singles], axis=0)
        np.testing.assert_allclose(average, mean, rtol=1e-5, atol=1e-6)
    noises = [noise_of(carrier, key, 0, 0, 2)[1] for key in carrier.virtual_ranks.keys]
    assert len({noise.tobytes() for noise in noises}) == (8 if noise_streams == 0 else 1)


def test_a_step_sends_two_numbers_a_weight_and_two_scalars(dataset):
    trainer = trainer_of(dataset)
    weights = sum(v.size for v in trainer.network.weights().values())
    assert weights == 16 * 64 + 64 + 64 * 3 + 3
    assert trainer.bytes_a_step == 4 * (2 * weights + 2)


# --- the state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["CNN_FC", "CNN_conv"])
def test_a_resumed_run_gives_bitwise_the_uninterrupted_one(dataset, model):
    common = {"model": model, "train_draws": 2, "virtual_ranks": 2, "log_every": 5}
    common |= {"learning_rate_schedule": "cosine"}
    whole = trainer_of(dataset, **common)
    list(whole.run())

    first = trainer_of(dataset, **common)
    for _ in range(4):  # within a line
        first.ask_to_stop()
        list(first.run())
    state = first.state()
    assert int(state["step"]) == 4
    second = trainer_of(dataset, **common, network=networks.build(model, SHAPE, CLASSES, seed=99))
    second.restore(state)
    list(second.run())
    assert all_equal(second.state(), whole.state())

    for part in ("ivon_h/1", "ivon_g/1"):  # each matters
        other = trainer_of(dataset, **common)
        other.restore({**state, part: state[part] + 0.01})
        list(other.run())
        assert not all_equal(other.state(), whole.state())
    with pytest.raises(RecordError, match="ivon_h/0"):
        second.restore({name: value for name, value in state.items() if name != "ivon_h/0"})


def test_a_record_gives_back_the_posterior_and_its_predictions(tmp_path):
    tiny = data.load("tiny")
    experiment = Experiment(
        **(IVON | {"model": "CNN_FC", "dataset": "tiny", "epochs": 1, "run_dir": str(tmp_path)})
    )
    trainer = Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())
    run = Run.open(Session(), experiment, Ranks(), provenance.collect())
    run.resume(trainer)
    list(run.follow(trainer))
    test = prediction.predict(trainer.network, tiny, tiny.x_test, 3, 0)
    run.finish(judge({"test": (test, tiny.y_test)}))

    _, _, network = restore(tmp_path)
    assert network.is_bayesian
    again = prediction.predict(network, tiny, tiny.x_test, 3, 0)
    assert np.array_equal(again.mean_probs, test.mean_probs)
    for name, (mean, stddev) in posterior.entries(trainer.network).items():
        np.testing.assert_array_equal(posterior.entries(network)[name], (mean, stddev))


# --- the posterior --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["CNN_FC", "CNN_conv"])
def test_draws_have_the_posteriors_mean_and_deviation(dataset, model):
    trainer = trainer_of(dataset, model=model)
    list(trainer.run())
    network, state = trainer.network, trainer.state()
    sample = tf.function(network.sample)
    draws = [sample(tf.constant([7, number], tf.int64)) for number in range(400)]
    assert not np.array_equal(draws[0][1]["bias"], draws[1][1]["bias"])
    names = list(network.weights())
    for index, name in enumerate(names):
        layer, of_layer = int(name[5]), name.split("/")[1]
        values = np.array([draw[layer][of_layer] for draw in draws], np.float64)
        delta = 1 / (NUM_TRAIN * 0.7**2)
        stddev = 1 / np.sqrt(NUM_TRAIN * (state[f"ivon_h/{index}"] + delta))
        z = (values.mean(axis=0) - state[name]) / (stddev / np.sqrt(400))
        assert np.abs(z).max() < 5.5
        # The relative error of a deviation of 400 draws is 1 / sqrt(800) = 0.035.
        assert np.abs(values.std(axis=0) / stddev - 1).max() < 0.2
        assert np.mean(values.std(axis=0) / stddev) == pytest.approx(1, abs=0.08)
        if of_layer == "kernel":
            mean, shown = posterior.entries(network)[network.layers[layer].name]
            np.testing.assert_allclose(shown, stddev.ravel(), rtol=1e-5)
            np.testing.assert_array_equal(mean, state[name].ravel())
    assert [log.entries for log in trainer.layer_logs()] == [
        int(np.prod(layer.kernel_shape)) for layer in network.layers
    ]


def test_a_prediction_averages_its_draws(dataset):
    trainer = trainer_of(dataset)
    list(trainer.run())
    drawn = posterior.draw_probs(trainer.network, dataset, dataset.x_test, 5, 3)
    assert np.std(drawn, axis=0).max() > 0.01
    predicted = prediction.predict(trainer.network, dataset, dataset.x_test, 5, 3)
    np.testing.assert_allclose(predicted.mean_probs, drawn.mean(axis=0), atol=1e-6)


# --- refusals -------------------------------------------------------------------------------------


def test_a_bayesian_network_is_refused_with_its_twins_name(dataset):
    with pytest.raises(ExperimentError, match=r"BNN_FC_flip has Bayesian layers.*model: CNN_FC"):
        trainer_of(dataset, model="BNN_FC_flip")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"dropout": 0.1}, "dropout = 0.1: not together with inference = 'ivon'"),
        ({"kl_annealing_epochs": 2.0}, "kl_annealing_epochs = 2.0: not together"),
        ({"posterior_stddev": 0.1}, "posterior_stddev = 0.1: not together"),
        ({"weight_decay": "prior"}, "weight_decay = 'prior': not together"),
        ({"kl_weight": 0.0}, "kl_weight = 0.0: IVON needs a value above 0"),
    ],
)
def test_parameters_without_meaning_are_refused(dataset, parameters, named):
    with pytest.raises(ExperimentError, match=f"^{named}"):
        trainer_of(dataset, **parameters)


def test_the_papers_settings_are_a_prior():
    # delta 2e-4 on MNIST's 60,000 images is a prior precision of 12.
    method = ivon.build(60_000, prior_stddev=1 / np.sqrt(12), initial_h=0.5)
    network = networks.build("CNN_FC", SHAPE, CLASSES)
    network.posterior = method.posterior(network, method.init(network.named_variables()))
    stddev = network.posterior.stddevs()[0]["kernel"]
    np.testing.assert_allclose(stddev, 1 / np.sqrt(60_000 * (0.5 + 2e-4)), rtol=1e-5)
