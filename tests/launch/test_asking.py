"""`python -m bnnlib predict`: a trained run's network asked about images in a file."""

import horovod.tensorflow as hvd
import numpy as np
import pandas as pd
import pytest

from bnnlib import data, metrics
from bnnlib.__main__ import main
from bnnlib.errors import DataError, DistributedError, ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.inference import evaluation, load_run
from bnnlib.launch import asking
from bnnlib.record.predictions import read_predictions
from tests.record.small_runs import finish, start


@pytest.fixture(scope="module")
def tiny():
    hvd.init()
    return data.load("tiny")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run of BNN_FC_flip, whose record has the predictions of two draws."""
    directory = tmp_path_factory.mktemp("group") / "BNN_FC_flip"
    finish(*start(tiny, directory, epochs=1, test_draws=2), tiny)
    return directory


@pytest.fixture
def images(tiny, tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x=tiny.x_test, labels=tiny.y_test)
    return path


def test_the_test_images_are_predicted_as_in_the_record(run, images, tmp_path, capsys):
    out = tmp_path / "new" / "predictions.npz"
    assert main(["predict", str(run), str(images), "--out", str(out)]) == 0
    recorded = read_predictions(run)[0]
    with np.load(out) as arrays:
        np.testing.assert_array_equal(arrays["mean_probs"], recorded.mean_probs)
        np.testing.assert_array_equal(arrays["expected_entropy"], recorded.expected_entropy)
    entropy = metrics.predictive_entropy(recorded.mean_probs).mean()
    assert capsys.readouterr().out == (
        f"{len(recorded.mean_probs)} images predicted by BNN_FC_flip, 2 draws: mean total "
        f"entropy {entropy:.4f} nats; written: {out}\n"
    )


def test_draws_seed_and_a_csv(run, tiny, tmp_path):
    np.save(tmp_path / "few.npy", tiny.x_test[:3])
    for name, seed in (("one", 5), ("other", 6)):
        words = ["predict", run, tmp_path / "few.npy", "--out", tmp_path / f"{name}.csv"]
        assert main([*map(str, words), "--draws", "4", "--seed", str(seed)]) == 0
    one, other = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("one", "other"))
    expected = load_run(run).predict(tiny.x_test[:3], draws=4, seed=5)
    assert list(one)[:4] == ["image", "predicted", "entropy", "expected_entropy"]
    total = metrics.predictive_entropy(expected.mean_probs)  # what the printed line is the mean of
    np.testing.assert_allclose(one["entropy"], total, rtol=1e-6)
    np.testing.assert_allclose(one["expected_entropy"], expected.expected_entropy, rtol=1e-6)
    np.testing.assert_allclose(one.iloc[:, 4:], expected.mean_probs, rtol=1e-6)
    assert not np.allclose(one.iloc[:, 4:], other.iloc[:, 4:])


def test_the_mean_of_a_finished_run_is_what_training_with_mean_records(run, tiny, images, tmp_path):
    asking.predict(run, images, tmp_path / "mean.npz", predict_with="mean")
    loaded = load_run(run)
    asked = Experiment(**loaded.experiment.to_dict() | {"predict_with": "mean"})
    judged = evaluation.evaluate(asked, loaded.network, tiny, evaluation.sets(asked, tiny))
    with np.load(tmp_path / "mean.npz") as arrays:
        expected = judged.predictions["test"][0].mean_probs
        np.testing.assert_array_equal(arrays["mean_probs"], expected)
        assert not np.allclose(expected, read_predictions(run)[0].mean_probs)
    one_draw = loaded.predict(tiny.x_test, predict_with="mean", keep_draws=True)
    np.testing.assert_array_equal(one_draw.draw_probs, one_draw.mean_probs[np.newaxis])


def test_a_run_recorded_with_its_mean_answers_with_its_mean(tiny, tmp_path):
    """It answered with draws, which its record does not have."""
    given = {"epochs": 1, "predict_with": "mean"}
    finish(*start(tiny, tmp_path / "run", **given), tiny)
    loaded = load_run(tmp_path / "run")
    own = loaded.predict(tiny.x_test[:4])
    np.testing.assert_array_equal(
        own.mean_probs, loaded.predict(tiny.x_test[:4], predict_with="mean").mean_probs
    )
    by_draws = loaded.predict(tiny.x_test[:4], predict_with="draws")
    assert not np.allclose(own.mean_probs, by_draws.mean_probs)


def test_what_cannot_be_answered_is_refused(run, images, tmp_path, monkeypatch):
    out = tmp_path / "out.npz"
    with pytest.raises(ExperimentError, match="predict_with = 'probit'"):
        asking.predict(run, images, out, predict_with="probit")
    with pytest.raises(ExperimentError, match="predict_with = 'means': expected one of draws"):
        load_run(run).predict(np.zeros((1, 28, 28, 1), np.uint8), predict_with="means")
    with pytest.raises(DataError, match=r"out\.txt: expected a file that ends in \.npz or \.csv"):
        asking.predict(run, images, tmp_path / "out.txt")
    with pytest.raises(DataError, match="holds the images and would be replaced"):
        asking.predict(run, images, tmp_path / "." / "images.npz")
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setenv("HOROVOD_SIZE", "2")
    with pytest.raises(DistributedError, match="2 ranks: one process predicts"):
        asking.predict(run, images, out)
    assert not out.exists()
