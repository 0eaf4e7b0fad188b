"""A run's curves for TensorBoard, read back with TensorFlow's own reader of events."""

import collections

import horovod.tensorflow as hvd
import numpy as np
import pytest
import tensorflow as tf

from bnnlib import data, networks
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.tensorboard import Scalars
from bnnlib.inference.trainer import Trainer
from bnnlib.record import provenance
from bnnlib.record.logs import read_accuracy, read_steps
from bnnlib.record.run import Run
from bnnlib.session import Session
from tests.record.small_runs import finish, start

ASKED = {"tensorboard": True, "epochs": 2, "evaluate_every": 1}


@pytest.fixture(scope="module")
def tiny():
    hvd.init()
    return data.load("tiny")


def event_files(directory):
    return sorted(directory.glob("events.out.tfevents.*"))


def curves(directory):
    """Of each scalar in a run's one file of events its steps and values, as they stand there."""
    (path,) = event_files(directory)
    found = collections.defaultdict(list)
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            found[value.tag].append((event.step, tf.make_ndarray(value.tensor).item()))
    return dict(found)


def logged(directory, num_images):
    """What the record's own files hold of the same."""
    steps, looks = read_steps(directory), read_accuracy(directory)
    taken = {name: [(s.step, getattr(s, name)) for s in steps] for name in ("loss", "nll")}
    taken["kl_per_image"] = [(s.step, s.kl / num_images) for s in steps]
    taken["learning_rate"] = [(s.step, s.learning_rate) for s in steps]
    taken["images_per_second"] = [(s.step, s.images_per_second) for s in steps if not s.warmup]
    for name in ("accuracy", "validation_nll"):
        taken[name] = [(look.step, getattr(look, name)) for look in looks]
    return taken


def assert_shown(directory, num_images):
    shown, expected = curves(directory), logged(directory, num_images)
    assert shown.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in shown[name]] == [step for step, _ in points], name
        np.testing.assert_allclose([v for _, v in shown[name]], [v for _, v in points], rtol=1e-6)


def test_every_line_of_the_log_is_a_point_of_each_curve(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, **ASKED)
    finish(run, trainer, tiny)
    assert_shown(tmp_path, tiny.num_train_examples)
    assert len(read_steps(tmp_path)) > 2
    # With kl_weight 1 the parts add up to the loss.
    shown = curves(tmp_path)
    loss, nll, kl = (np.array(shown[n])[:, 1] for n in ("loss", "nll", "kl_per_image"))
    np.testing.assert_allclose(nll + kl, loss, rtol=1e-5)


def test_a_run_that_is_not_asked_writes_none(tiny, tmp_path):
    finish(*start(tiny, tmp_path, epochs=1), tiny)
    assert event_files(tmp_path) == []


def test_each_line_is_there_while_the_run_trains_as_a_kill_would_leave_it(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, **ASKED)
    run.resume(trainer)
    seen = []
    for line in run.follow(trainer):
        seen.append(line.step)
        assert [step for step, _ in curves(tmp_path)["loss"]] == seen
    assert len(seen) > 2


def test_a_resumed_run_has_every_step_once(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, **ASKED)
    run.resume(trainer)
    for line in run.follow(trainer):
        if line.step > trainer.steps_per_epoch:
            break  # a line after the last checkpoint, which the next start writes again
    run.fail({"rank": 0, "type": "Stopped", "message": ""})
    before = curves(tmp_path)["loss"]
    finish(*start(tiny, tmp_path, **ASKED), tiny)
    assert_shown(tmp_path, tiny.num_train_examples)
    after = curves(tmp_path)["loss"]
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_a_run_begun_without_is_continued_with_all_of_its_curves(tiny, tmp_path):
    run, trainer = start(tiny, tmp_path, epochs=2)
    run.resume(trainer)
    for line in run.follow(trainer):
        if line.step == trainer.steps_per_epoch:
            break
    run.fail({"rank": 0, "type": "Stopped", "message": ""})
    users_own = tmp_path / "events.out.tfevents.1.mine"
    users_own.write_bytes(b"")
    finish(*start(tiny, tmp_path, epochs=2, tensorboard=True), tiny)
    users_own.unlink()  # it is still there
    shown = curves(tmp_path)
    assert [step for step, _ in shown["nll"]] == [s.step for s in read_steps(tmp_path)]
    assert "accuracy" not in shown


def test_other_ranks_write_nothing(tiny, tmp_path):
    experiment = Experiment(
        model="CNN_FC", dataset="tiny", epochs=1, tensorboard=True, run_dir=str(tmp_path / "run")
    )
    second = Ranks(rank=1)
    run = Run.open(Session(), experiment, second, provenance.collect())
    trainer = Trainer(experiment, tiny, networks.build_for(experiment, tiny), Ranks())
    assert list(run.follow(trainer))
    assert not (tmp_path / "run").exists()


def test_it_is_the_same_run_with_and_without():
    with_it, without = Experiment(tensorboard=True), Experiment()
    assert with_it.default_run_dir(2) == without.default_run_dir(2)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"file/run: TensorBoard's events could not be written"):
        Scalars(tmp_path / "file" / "run", 10)
