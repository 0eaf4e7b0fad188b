"""posterior.jsonl: the lines that a run writes, keeps when it is continued, and reads back."""

import dataclasses
import json

import horovod.tensorflow as hvd
import pytest

from bnnlib import data
from bnnlib.errors import RecordError
from bnnlib.networks import posterior
from bnnlib.record.logs import AccuracyLog, read_accuracy, read_posterior
from tests.record.small_runs import finish, start


@pytest.fixture(scope="module")
def tiny():
    hvd.init()
    return data.load("tiny")


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


def test_a_look_in_training_is_a_line_with_accuracy_and_validation_nll(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, epochs=2, evaluate_every=1)
    finish(run, trainer, tiny)
    lines = read_accuracy(tmp_path)
    assert [line.epoch for line in lines] == [1.0, 2.0]
    last = AccuracyLog(trainer.step, 2.0, trainer.accuracy_of_means(), trainer.validation_nll())
    assert lines[-1] == last
    # A line of before the key.
    (tmp_path / "accuracy.jsonl").write_text('{"step": 1, "epoch": 0.5, "accuracy": 0.5}\n')
    assert read_accuracy(tmp_path) == [AccuracyLog(1, 0.5, 0.5, None)]


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
