"""A trained network comes back from its record."""

import dataclasses
import json

import horovod.tensorflow as hvd
import numpy as np
import pandas as pd
import pytest

import bnnlib
from bnnlib import data, metrics, networks
from bnnlib.errors import DataError, DistributedError, ExperimentError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.restore import restore
from bnnlib.inference.trainer import Trainer
from bnnlib.metrics import judge
from bnnlib.record import provenance, source
from bnnlib.record.predictions import read_predictions
from bnnlib.record.run import Run
from bnnlib.session import Session


@pytest.fixture
def trained(tmp_path):
    """The network of a finished run that is recorded in `tmp_path`."""
    hvd.init()
    experiment = Experiment(
        model="BNN_FC_flip", dataset="tiny", batch_size=32, epochs=1, seed=5, run_dir=str(tmp_path)
    )
    tiny = data.load("tiny")
    trainer = Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())
    run = Run.open(Session(), experiment, Ranks(), provenance.collect())
    run.resume(trainer)
    list(run.follow(trainer))
    test = prediction.predict(trainer.network, tiny, tiny.x_test, 2, 0)
    run.finish(judge({"test": (test, tiny.y_test)}))
    return trainer.network


def test_restore_gives_the_trained_network(trained, tmp_path):
    experiment, dataset, network = restore(tmp_path)
    assert experiment.seed == 5
    assert dataset.name == "tiny"
    for name, value in trained.weights().items():
        assert np.array_equal(network.weights()[name], value)
    recorded = read_predictions(tmp_path)[0].mean_probs
    again = prediction.predict(network, dataset, dataset.x_test, 2, 0).mean_probs
    assert np.array_equal(again, recorded)


def test_restore_needs_no_file_that_the_run_was_judged_on(trained, tmp_path):
    record = json.loads((tmp_path / "run.json").read_text())
    record["data"] = data.content(data.load("tiny"))
    arrays = record["data"]["arrays"]
    arrays |= {name: arrays["x_test"] for name in ("ood/mine", "eval/mnist_c/fog")}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert restore(tmp_path)[1].name == "tiny"


def test_restore_without_a_checkpoint_says_so(trained, tmp_path):
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(RecordError, match="no readable checkpoint"):
        restore(tmp_path)


OWN = """
import tf_keras
from tf_keras import layers


def network(image_shape, num_classes):
    first = layers.Conv2D(2, 5, strides=4, activation="relu")
    return tf_keras.Sequential([first, layers.Flatten(), layers.Dense(num_classes)])
"""


@pytest.fixture
def own_run(tmp_path):
    """A run of a network from a file of the user's, two steps long, and that file."""
    hvd.init()
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    experiment = Experiment(
        model=f"{path}:network",
        dataset="tiny",
        batch_size=32,
        steps=2,
        test_draws=2,
        run_dir=str(tmp_path / "run"),
    )
    tiny = data.load("tiny")
    run = Run.open(Session(), experiment, Ranks(), provenance.collect())
    trainer = Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())
    run.resume(trainer)
    list(run.follow(trainer))
    run.finish(
        judge({"test": (prediction.predict(trainer.network, tiny, tiny.x_test, 2, 0), tiny.y_test)})
    )
    return experiment, path


def test_an_own_network_is_loaded_from_its_record_alone(own_run, tmp_path, caplog):
    _, path = own_run
    path.write_text("raise RuntimeError('this file has changed')\n")
    loaded = bnnlib.load_run(tmp_path / "run")
    assert "has changed since the run began" in caplog.text
    path.unlink()
    images = loaded.dataset.x_test
    recorded = read_predictions(tmp_path / "run")[0]
    predicted = bnnlib.load_run(tmp_path / "run").predict(images, draws=2, keep_draws=True)
    assert np.array_equal(predicted.mean_probs, recorded.mean_probs)
    assert np.array_equal(predicted.expected_entropy, recorded.expected_entropy)
    np.testing.assert_allclose(predicted.draw_probs.mean(0), predicted.mean_probs, atol=1e-6)

    one = loaded.predict(images[3], draws=2)
    np.testing.assert_allclose(one.mean_probs, predicted.mean_probs[3:4], atol=1e-6)
    predicted.to_npz(tmp_path / "out.npz")
    predicted.to_csv(tmp_path / "out.csv")
    with np.load(tmp_path / "out.npz") as arrays:
        assert np.array_equal(arrays["draw_probs"], predicted.draw_probs)
    table = pd.read_csv(tmp_path / "out.csv")
    assert list(table.columns[:4]) == ["image", "predicted", "entropy", "expected_entropy"]
    total = metrics.predictive_entropy(predicted.mean_probs)
    np.testing.assert_allclose(table["entropy"], total, rtol=1e-5)
    np.testing.assert_allclose(table.iloc[:, 4:], predicted.mean_probs, rtol=1e-6)
    assert (table["predicted"] == predicted.mean_probs.argmax(1)).all()


def test_images_of_another_type_or_shape_are_refused(own_run, tmp_path):
    loaded = bnnlib.load_run(tmp_path / "run")
    with pytest.raises(DataError, match=r"float64: expected \(num_images, 28, 28, 1\) of uint8"):
        loaded.predict(np.zeros((2, 28, 28, 1)))
    with pytest.raises(DataError, match=r"shape \(2, 14, 14, 1\)"):
        loaded.predict(np.zeros((2, 14, 14, 1), np.uint8))


def test_a_run_is_not_continued_with_a_changed_source(own_run):
    experiment, path = own_run
    path.write_text(OWN + "# changed\n")
    with pytest.raises(RecordError, match=r"mine\.py has changed since the run began.*put the old"):
        Run.open(Session(), experiment, Ranks(), provenance.collect())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "import no_such_module_here\n",
            "cannot be executed: ModuleNotFoundError.*mine.py, line 1",
        ),
        (
            "def networks(shape, classes): ...\n",
            "network: no such function .*did you mean networks",
        ),
        ("def network(shape, classes): return 3\n", "a builtins.int is no model of Keras 2"),
        ("def network(shape, classes): return 1 / 0\n", "raised ZeroDivisionError.*line 1"),
        (
            OWN.replace("num_classes)]", "3)]"),
            r"outputs of shape \(None, 3\), expected \(None, 10\)",
        ),
    ],
)
def test_a_function_that_makes_no_network_is_told(tmp_path, text, told):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ExperimentError, match=told):
        networks.build(f"{path}:network", (28, 28, 1), 10)


def test_ranks_with_different_files_are_refused(tmp_path):
    one, other = ({"file": "mine.py", "sha256": letter * 64} for letter in "ab")
    source.refuse_unequal([("here", one), ("there", one)])
    with pytest.raises(DistributedError, match=r"mine\.py on rank 1 \(there\) is another file"):
        source.refuse_unequal([("here", one), ("there", other)])


def test_a_posterior_starts_at_its_finished_twin(tmp_path, own_run):
    experiment, _ = own_run
    twin = dataclasses.replace(experiment, bayesian_layers="none", run_dir=str(tmp_path / "twin"))
    tiny = data.load("tiny")
    with pytest.raises(RecordError, match="no readable run record"):
        networks.build_for(dataclasses.replace(experiment, init_from=str(tmp_path / "no")), tiny)
    run = Run.open(Session(), twin, Ranks(), provenance.collect())
    trainer = Trainer(twin, tiny, networks.build_for(twin, tiny), Ranks())
    run.resume(trainer)
    list(run.follow(trainer))
    bayesian = dataclasses.replace(experiment, init_from=str(tmp_path / "twin"), init_scale=0.2)
    with pytest.raises(RecordError, match="the run is running, expected finished"):
        networks.build_for(bayesian, tiny)
    run.finish(
        judge({"test": (prediction.predict(trainer.network, tiny, tiny.x_test, 2, 0), tiny.y_test)})
    )
    network, weights = networks.build_for(bayesian, tiny), trainer.network.weights()
    assert np.array_equal(network.weights()["layer0/mean"], weights["layer0/kernel"])
    assert np.array_equal(network.weights()["layer1/bias"], weights["layer1/bias"])
    expected = 0.2 * np.abs(weights["layer1/kernel"])
    np.testing.assert_allclose(network.layers[1].stddev(), expected, rtol=1e-3, atol=2e-5)


@pytest.fixture
def own_data(tmp_path):
    """A finished run on a file of floating images of the user's, with its mean subtracted."""
    rng = np.random.default_rng(0)
    path, labels = tmp_path / "mine.npz", np.arange(48) % 3
    images = rng.uniform(0, 1, size=(48, 8, 8, 3)).astype(np.float32)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6])
    return bnnlib.train(
        model="BNN_FC_flip",
        dataset=str(path),
        subtract_mean=True,
        steps=3,
        batch_size=8,
        test_draws=4,
        predict_with="mean",
        run_dir=str(tmp_path / "run"),
        progress=False,
    )


def test_a_run_predicts_without_its_training_file(own_data, tmp_path):
    images = own_data.dataset.x_test
    expected = {how: own_data.predict(images, predict_with=how).mean_probs for how in HOW}
    (tmp_path / "mine.npz").unlink()
    loaded = bnnlib.load_run(tmp_path / "run")
    for how, probs in expected.items():
        found = loaded.predict(images, predict_with=how, keep_draws=True)
        assert np.array_equal(found.mean_probs, probs)
        np.testing.assert_allclose(found.draw_probs.mean(0), probs, atol=1e-6)
    assert loaded.metrics == own_data.metrics
    assert loaded.inputs.image_shape == (8, 8, 3)
    with pytest.raises(DataError, match="divide them by 255"):
        loaded.predict(255 * images)
    with pytest.raises(DataError, match="no such file"):
        loaded.dataset  # noqa: B018


HOW = ("draws", "mean")


def test_a_run_predicts_as_its_record_says_or_as_asked(own_data, tmp_path):
    images = own_data.dataset.x_test
    recorded = read_predictions(tmp_path / "run")[0].mean_probs
    assert np.array_equal(own_data.predict(images).mean_probs, recorded)  # at the mean
    drawn = own_data.predict(images, predict_with="draws").mean_probs
    assert not np.allclose(drawn, recorded, atol=1e-3)
    by_hand = prediction.predict(own_data.network, own_data.dataset, images, 4, 0).mean_probs
    assert np.array_equal(drawn, by_hand)
    other = own_data.predict(images, predict_with="draws", seed=1).mean_probs
    assert not np.array_equal(drawn, other)
    with pytest.raises(ExperimentError, match="expected one of draws, mean, probit"):
        own_data.predict(images, predict_with="median")
    with pytest.raises(ExperimentError, match="the run has no Laplace posterior"):
        own_data.predict(images, predict_with="probit")
    with pytest.raises(ExperimentError, match="test_draws = 0"):
        own_data.predict(images, draws=0)


def test_an_older_record_predicts_beside_its_data_set_alone(own_data, tmp_path):
    images = own_data.dataset.x_test
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_text())
    for key in ("pixels", "pixel_range", "mean_image"):
        del record["data"][key]
    path.write_text(json.dumps(record | {"schema": 6}))
    loaded = bnnlib.load_run(tmp_path / "run")
    assert np.array_equal(loaded.predict(images).mean_probs, own_data.predict(images).mean_probs)
    (tmp_path / "mine.npz").unlink()
    with pytest.raises(
        DataError, match=r"run is older than .* only beside its data set: .*no such"
    ):
        bnnlib.load_run(tmp_path / "run")


def test_a_loaded_run_knows_its_numbers(own_data, tmp_path):
    assert own_data.path == tmp_path / "run"
    assert set(own_data.metrics) == set(own_data.record["metrics"])
    assert all(type(value) is float for value in own_data.metrics.values())
    assert np.isnan(own_data.metrics["temperature"])  # nothing is held out
    assert list(own_data.history["step"]) == [3]
    assert list(own_data.evaluation["set"]) == ["test"]
    assert own_data.evaluation["nll"][0] == own_data.metrics["nll"]


def test_every_way_to_predict_refuses_images_of_another_range(own_data):
    network, dataset = own_data.network, own_data.dataset
    for images in (255 * dataset.x_test, dataset.x_test / 255, dataset.x_test * np.nan):
        with pytest.raises(DataError, match=r"divide|twice|finite"):
            own_data.predict(images)
        with pytest.raises(DataError, match=r"divide|twice|finite"):
            prediction.predict(network, dataset, images, 2, 0)
        with pytest.raises(DataError, match=r"divide|twice|finite"):
            networks.draw_probs(network, dataset, images, 2, 0)
