"""A trained network comes back from its record."""

import horovod.tensorflow as hvd
import numpy as np
import pytest

from bnnlib import data, networks
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.restore import restore
from bnnlib.inference.trainer import Trainer
from bnnlib.metrics import judge
from bnnlib.record import provenance
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


def test_restore_without_a_checkpoint_says_so(trained, tmp_path):
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(RecordError, match="no readable checkpoint"):
        restore(tmp_path)
