"""The table of a group of runs."""

import numpy as np

from bnnlib.analysis import load
from bnnlib.analysis.runs import RECORD_COLUMNS
from bnnlib.experiment import Experiment
from bnnlib.record.logs import StepLog, training_metrics
from tests.analysis.records import random_probs, write_run


def metric_names(folder):
    """The names of all metrics of a run, with images held out and without."""
    labels = np.array([0, 1, 2, 0])
    write_run(folder / "g" / "a", "CNN_FC", 0, {"test": (random_probs(0, 4), labels)})
    judged = set(load(folder / "g" / "a").columns) - set(Experiment.names()) - set(RECORD_COLUMNS)
    line = StepLog(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, False)
    return judged | set(training_metrics([line])) | {"bytes_a_step", "evaluation_seconds"}


def test_no_column_stands_for_two_things(tmp_path):
    parameters, metrics = set(Experiment.names()), metric_names(tmp_path)
    assert {"accuracy", "nll_scaled", "steps_done", "train_seconds"} <= metrics
    assert not parameters & metrics
    assert not set(RECORD_COLUMNS) & (parameters | metrics)


def test_the_parameters_steps_and_threads_are_shown_beside_what_was_done_and_used(tmp_path):
    """They were hidden: a run of one epoch and no limit was named CNN_FC epochs(1) steps(4)."""
    labels = np.array([0, 1, 2, 0])
    sets = {"test": (random_probs(0, 4), labels)}
    write_run(tmp_path / "g" / "a", "CNN_FC", 0, sets, steps=7, threads=0)
    path = tmp_path / "g" / "a" / "run.json"
    text = path.read_text()
    path.write_text(text.replace('"images_per_second"', '"steps": 4, "images_per_second"'))
    run = load(tmp_path / "g").iloc[0]
    assert (run.steps, run.steps_done, run.threads, run.threads_used) == (7, 4, 0, 1)
