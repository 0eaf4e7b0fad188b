"""The posterior's quantiles by hand, and single draws against the prediction that averages them."""

import dataclasses
import json
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference import trainer as training
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.restore import restore
from bnnlib.metrics import judge
from bnnlib.networks import posterior
from bnnlib.record.logs import read_posterior
from bnnlib.record.predictions import read_predictions
from bnnlib.record.run import Run
from bnnlib.session import Session


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


# ---------------------------------------------------------------------------------- in the record

PROVENANCE: dict[str, Any] = {
    "commit": None,
    "clean": None,
    "versions": {},
    "launcher": "alone",
    "job_id": None,
    "environment": {},
    "command": "test",
}


def start(tiny, directory, **parameters):
    given = {"model": "BNN_FC_flip", "dataset": "tiny", "batch_size": 32, "log_every": 2}
    experiment = Experiment(**{**given, "run_dir": str(directory), **parameters})
    network = build(experiment.model, tiny)
    trainer = training.Trainer(experiment, tiny, network, Ranks())
    return Run.open(Session(), experiment, Ranks(), PROVENANCE), trainer


def finish(run, trainer, tiny):
    run.resume(trainer)
    list(run.follow(trainer))
    test = prediction.predict(trainer.network, tiny, tiny.x_test, 2, 0)
    run.finish(judge({"test": (test, tiny.y_test)}))


def test_a_run_logs_the_initial_posterior_and_every_epochs(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, epochs=2)
    initial = posterior.logs(trainer.network, 0, 0.0)
    finish(run, trainer, tiny)
    lines = read_posterior(tmp_path)
    assert [line.epoch for line in lines] == [0.0, 1.0, 2.0]
    assert [line.step for line in lines] == [n * trainer.steps_per_epoch for n in (0, 1, 2)]
    assert lines[0] == initial[0]
    assert lines[-1] == posterior.logs(trainer.network, trainer.step, 2.0)[0]
    assert lines[-1].mean != lines[0].mean


def test_a_deterministic_run_has_no_such_file(tiny, tmp_path):
    finish(*start(tiny, tmp_path, model="CNN_FC", epochs=1), tiny)
    assert not (tmp_path / "posterior.jsonl").exists()
    assert read_posterior(tmp_path) == []


def test_a_resumed_run_has_every_epoch_once(tiny, tmp_path):
    finish(*start(tiny, tmp_path / "whole", epochs=3), tiny)
    run, trainer = start(tiny, tmp_path / "cut", epochs=3)
    run.resume(trainer)
    for line in run.follow(trainer):
        if line.epoch >= 2:
            break  # its posterior and checkpoint are written
    with open(tmp_path / "cut" / "posterior.jsonl", "a", encoding="utf-8") as file:
        late = dataclasses.asdict(posterior.logs(trainer.network, trainer.step + 1, 2.5)[0])
        file.write(json.dumps(late) + "\n")  # as if ended before its checkpoint was written
        file.write(json.dumps(late)[:-9])  # and while the next line was written
    run.fail({"rank": 0, "type": "Stopped", "message": ""})
    finish(*start(tiny, tmp_path / "cut", epochs=3), tiny)
    cut = read_posterior(tmp_path / "cut")
    assert [line.epoch for line in cut] == [0, 1, 2, 3]
    assert cut == read_posterior(tmp_path / "whole")


def test_restore_gives_the_trained_network(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, epochs=1, seed=5)
    finish(run, trainer, tiny)
    experiment, dataset, network = restore(tmp_path)
    assert experiment.seed == 5
    assert dataset.name == "tiny"
    for name, value in trainer.network.weights().items():
        assert np.array_equal(network.weights()[name], value)
    recorded = read_predictions(tmp_path)[0].mean_probs
    again = prediction.predict(network, dataset, dataset.x_test, 2, 0).mean_probs
    assert np.array_equal(again, recorded)


def test_restore_without_a_checkpoint_says_so(tiny, tmp_path):
    finish(*start(tiny, tmp_path, epochs=1), tiny)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(RecordError, match="no readable checkpoint"):
        restore(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        '{"step": 1}',
        "[]",
        '{"step": 0, "epoch": 0, "layer": "l", "entries": 3, "mean": [1], "stddev": [], "snr": []}',
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    (tmp_path / "posterior.jsonl").write_text(damage + "\n")
    with pytest.raises(RecordError, match="line 1: no layer's posterior"):
        read_posterior(tmp_path)


def test_tensorflow_draws_no_seed_of_its_own(tiny):
    """Draws come from the seed alone, whatever TensorFlow's global one is."""
    network = build("BNN_FC_nonflip", tiny)
    tf.random.set_seed(1)
    first = posterior.draw_probs(network, tiny, tiny.x_test[:2], 2, seed=0)
    tf.random.set_seed(2)
    assert np.array_equal(posterior.draw_probs(network, tiny, tiny.x_test[:2], 2, seed=0), first)
