"""`python -m bnnlib evaluate`: a finished run's network judged otherwise, as a run of its own."""

import hashlib
import sys

import horovod.tensorflow as hvd
import numpy as np
import pytest

from bnnlib import data
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.inference import Predictor, restore
from bnnlib.launch import evaluating
from bnnlib.record.predictions import read_all_predictions
from bnnlib.record.schema import read_file
from tests.record.small_runs import finish, start


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of BNN_FC_flip, by two draws, with a set out of distribution in its record."""
    hvd.init()
    tiny = data.load("tiny")
    directory = tmp_path_factory.mktemp("group") / "run"
    run, trainer = start(tiny, directory, epochs=1, test_draws=2)
    run.note_data(data.content(tiny))
    finish(run, trainer, tiny)
    return directory


def contents(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_posteriors_mean_of_a_finished_run_without_training(source, launch):
    before = contents(source)
    words = [sys.executable, "-m", "bnnlib", "evaluate", source]
    asked = ["-p", "predict_with=mean", "-p", "ood_sets=[uniform_noise]"]
    done = launch(*words, *asked, "-p", "eval_sets", "[test, rotate-30]")
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(source) == before
    (new,) = source.parent.glob("run-*")
    assert new.name == ("run-predict_with=mean-ood_sets=uniform_noise-eval_sets=test,rotate-30")
    old_record, record = read_file(source), read_file(new)
    assert record["status"] == "finished"
    differ = {n for n, v in record["parameters"].items() if v != old_record["parameters"][n]}
    assert differ == {"predict_with", "eval_sets", "ood_sets", "on_rank_change", "run_dir"}
    assert record["attempts"][-1]["first_step"] is None  # it trained nothing
    assert [event["event"] for event in record["history"]][:1] == ["evaluated again"]
    assert (new / "steps.jsonl").read_bytes() == (source / "steps.jsonl").read_bytes()
    predictions = read_all_predictions(new)
    assert list(predictions) == ["test", "rotate-30", "uniform_noise"]
    _, dataset, network = restore(source)
    mean = Predictor(network, dataset, 1, 0, at_mean=True)(dataset.x_test).mean_probs
    np.testing.assert_allclose(predictions["test"][0].mean_probs, mean, atol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "error", "told"),
    [
        ([], ExperimentError, "expected NAME=VALUE of test_draws"),
        ([["epochs", "9"]], ExperimentError, "epochs: no such parameter of evaluation; "),
        ([["predict_wit", "mean"]], ExperimentError, "did you mean predict_with?"),
        ([["predict_with", "means"]], ExperimentError, "expected one of draws, mean, probit"),
        ([["test_draws", "2"]], RecordError, "has test_draws = 2 already"),
    ],
)
def test_what_is_no_other_evaluation_is_refused(source, pairs, error, told):
    with pytest.raises(error, match=told):
        evaluating.evaluate(source, pairs)


def test_a_run_that_is_not_there_is_told_first(tmp_path):
    with pytest.raises(RecordError, match="nothing"):
        evaluating.evaluate(tmp_path / "nothing", [])


def test_what_cannot_be_evaluated_leaves_no_directory(source, launch):
    before = sorted(source.parent.iterdir())
    words = [sys.executable, "-m", "bnnlib", "evaluate", source, "-p", "eval_sets=rotat-30"]
    done = launch(*words)
    assert done.returncode == 1
    assert "did you mean 'rotate-30'?" in done.stderr
    assert sorted(source.parent.iterdir()) == before
