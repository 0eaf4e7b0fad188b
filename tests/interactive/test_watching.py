"""The live picture of a run that goes on from another, from records written by hand."""

import dataclasses
import json

import matplotlib.pyplot as plt
import numpy as np

from bnnlib import metrics
from bnnlib.experiment import Experiment
from bnnlib.interactive import watching
from bnnlib.record.logs import StepLog
from tests.analysis.records import random_probs, write_record


def write_run(folder, steps, **changes):
    probs = random_probs(0)
    entropy = metrics.predictive_entropy(probs)
    predictions = {"test": (metrics.Prediction(probs, entropy), np.zeros(len(probs), int))}
    write_record(folder, Experiment(dataset="tiny"), predictions, **changes)
    lines = [StepLog(step, step / 4, 3.0, 1.0, 20.0, 0.001, 100.0, 0.5, False) for step in steps]
    text = "".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in lines)
    (folder / "steps.jsonl").write_text(text)


def test_the_curves_of_a_run_lie_over_those_of_the_run_that_it_goes_on_from(tmp_path):
    plt.switch_backend("agg")
    first, second = tmp_path / "first", tmp_path / "second"
    # The first run went on after the second had taken its weights.
    write_run(first, [2, 4, 6, 8])
    write_run(second, [8, 10], continues={"run": str(first), "step": 6})
    assert watching.before(first) == []
    earlier = watching.before(second)
    assert [line.step for line in earlier] == [2, 4, 6]
    figure = watching.curves(watching.read(second), 3, 10, (), earlier)
    old, new = figure.axes[0].lines
    assert old.get_xdata().tolist() == [0.5, 1.0, 1.5]
    assert new.get_xdata().tolist() == [2.0, 2.5]
    assert new.get_zorder() >= old.get_zorder()  # drawn later, so above


def test_a_run_before_whose_record_has_gone_is_not_drawn(tmp_path):
    plt.switch_backend("agg")
    write_run(tmp_path / "second", [8], continues={"run": str(tmp_path / "gone"), "step": 6})
    assert watching.before(tmp_path / "second") == []
    figure = watching.curves(watching.read(tmp_path / "second"))
    assert [line.get_label() for line in figure.axes[0].lines] == ["training batches"]


def test_before_the_first_line_the_picture_is_empty():
    plt.switch_backend("agg")
    figure = watching.curves([], 20, 200)
    assert not any(line.get_xdata().size for axes in figure.axes for line in axes.lines)
