"""A network from a file outside the repository: trained at 2 ranks, resumed, and used elsewhere."""

import json
import shutil
import sys

import numpy as np
import pytest

import bnnlib
from bnnlib.names import REFERENCES
from bnnlib.record.predictions import read_predictions
from bnnlib.record.schema import read_record
from tests.end_to_end.test_end_to_end import assert_same_state, train

pytestmark = [pytest.mark.ranks, pytest.mark.long, pytest.mark.timeout(900)]

OWN = """
import tf_keras
from tf_keras import layers


def network(image_shape, num_classes):
    images = layers.Input(image_shape)
    x = layers.Conv2D(4, 5, strides=3, padding="valid", activation="relu", name="first")(images)
    y = layers.Conv2D(4, 3, padding="valid", name="second")(x)
    x = layers.Add()([y, layers.Cropping2D(1)(x)])
    x = layers.Activation("relu")(layers.GroupNormalization(2)(x))
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return tf_keras.Model(images, layers.Dense(num_classes, name="logits")(x))
"""


@pytest.mark.parametrize(
    "method",
    [
        ("estimator", "flipout"),
        ("estimator", "reparameterization"),
        ("estimator", "local"),
        ("inference", "ivon"),
    ],
    ids=lambda method: method[1],
)
def test_an_own_network_trains_resumes_bitwise_and_predicts_from_its_record(
    launch, tmp_path, method
):
    path, whole, resumed = tmp_path / "mine.py", tmp_path / "whole", tmp_path / "resumed"
    path.write_text(OWN)
    parameters = [("model", f"{path}:network"), ("steps", "4"), ("batch_size", "16"), method]
    parameters += [("checkpoint_steps", "2"), ("keep_checkpoints", "3"), ("log_every", "2")]
    done = train(launch, "mpiexec", whole, *parameters)
    assert done.returncode == 0, done.stderr

    shutil.copytree(whole, resumed)
    (resumed / "checkpoints" / "step-000000004.npz").unlink()
    record = json.loads((resumed / "run.json").read_text())
    (resumed / "run.json").write_text(json.dumps(record | {"status": "stopped"}))
    done = train(launch, "mpiexec", resumed, *parameters)
    assert done.returncode == 0, done.stderr
    assert "from step 2" in (resumed / "run.json").read_text()
    assert_same_state(whole, resumed)

    path.unlink()
    loaded = bnnlib.load_run(whole)
    recorded = read_predictions(whole)[0]
    draws = loaded.experiment.test_draws
    predicted = loaded.predict(loaded.dataset.x_test, draws)
    np.testing.assert_allclose(predicted.mean_probs, recorded.mean_probs, atol=1e-6)
    assert loaded.predict(loaded.dataset.x_test[0], draws).mean_probs.shape == (1, 10)


def test_the_fields_networks_train_at_two_ranks(launch, tmp_path):
    """Each reference network as Flipout, as reparameterization and as its twin, a few steps."""
    names = [
        name.format(reference)
        for reference in REFERENCES
        for name in ("BNN_{}_flip", "BNN_{}_nonflip", "CNN_{}")
    ]
    (tmp_path / "study.yaml").write_text(
        "group: references\nranks: 2\n"
        "common: {dataset: tiny_cifar10, steps: 2, batch_size: 4, test_draws: 1, threads: 1}\n"
        f"grid: {{model: [{', '.join(names)}]}}\n"
    )
    words = ("mpiexec", "-n", "2", sys.executable, "-m", "bnnlib", "plan", "study.yaml")
    done = launch(*words, cwd=tmp_path, timeout=850)
    assert done.returncode == 0, done.stderr
    for name in names:
        record = read_record(tmp_path / "runs" / "references" / f"{name}-r2")
        assert (record["status"], record["metrics"]["steps_done"]) == ("finished", 2)
        assert (record["metrics"]["kl"] > 0) == name.startswith("BNN")
