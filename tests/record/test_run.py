"""A run's record from before training to its end, and the table of many runs."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnnlib import __main__ as program
from bnnlib import data, networks
from bnnlib.analysis import listing
from bnnlib.analysis import runs as run_tables
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference import prediction
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.trainer import Trainer
from bnnlib.metrics import DrawsCurve, Evaluation, Prediction, judge
from bnnlib.record import checkpoint, logs, provenance, stopping
from bnnlib.record.failure import record_failure
from bnnlib.record.identity import run_directory
from bnnlib.record.logs import StepLog, read_posterior, read_steps, training_metrics
from bnnlib.record.predictions import read_predictions
from bnnlib.record.run import Run
from bnnlib.record.schema import ATTEMPT_KEYS, KEYS, SCHEMA, read_record, to_json
from bnnlib.record.startup import Clock
from bnnlib.session import Session

ALONE = Ranks(hosts=("here",), threads=1)
SESSION = Session()
quick = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)


@pytest.fixture(autouse=True, scope="module")
def alone():
    """Horovod with one rank. MPI starts once in a process, so it is not left again."""
    hvd.init()


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    """Runs go to a folder of the test's own; no run stays open for the next test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNN_RUN_DIR", raising=False)
    yield
    SESSION.runs.clear()


def step_log(step: int, **changes: Any) -> StepLog:
    line = StepLog(
        step=step,
        epoch=step / 4,
        loss=2.0,
        nll=1.5,
        kl=30.0,
        learning_rate=1e-3,
        images_per_second=100.0,
        seconds=2.0,
        warmup=False,
    )
    return dataclasses.replace(line, **changes)


def read_json(directory: str | Path) -> dict[str, Any]:
    return json.loads((Path(directory) / "run.json").read_text())


def read(directory: str | Path) -> dict[str, Any]:
    return read_record(directory)


def open_run(directory: str = "runs/g/a", ranks: Ranks = ALONE, **parameters: Any) -> Run:
    experiment = Experiment(**{"dataset": "tiny", "run_dir": directory} | parameters)
    return Run.open(SESSION, experiment, ranks, provenance.collect())


def made_prediction(labels: np.ndarray, num_classes: int = 3) -> tuple[Prediction, np.ndarray]:
    """All right with probability 0.8."""
    probs = np.full((len(labels), num_classes), 0.2 / (num_classes - 1), np.float32)
    probs[np.arange(len(labels)), labels] = 0.8
    return Prediction(probs, np.full(len(labels), 0.1, np.float32)), labels


def finish(run: Run) -> dict[str, Any]:
    return run.finish(judge({"test": made_prediction(np.array([0, 1, 2, 0]))}))


# ------------------------------------------------------------------------------------ a run's life


def trainer_of(experiment: Experiment, session: Session | None = None) -> Trainer:
    dataset = data.load(experiment.dataset)
    return Trainer(experiment, dataset, networks.build_for(experiment, dataset), ALONE, session)


def test_a_run_that_is_interrupted_goes_on_from_its_checkpoint_to_the_same_bits():
    """Real training: two epochs at once, and the same run stopped in its second epoch."""
    experiment = Experiment(
        model="BNN_FC_flip", dataset="tiny", epochs=2, batch_size=8, log_every=2, run_dir="runs/g/a"
    )
    run = Run.open(SESSION, experiment, ALONE, provenance.collect())
    assert read("runs/g/a")["status"] == "running"
    trainer = trainer_of(experiment)
    assert run.resume(trainer) == 0
    lines = []
    for line in run.follow(trainer):
        lines.append(line)
        on_disk = read_steps("runs/g/a")  # already there for tail -f
        assert on_disk == lines
    values = run.finish(judge({"test": predict(trainer)}))
    assert values["steps_done"] == trainer.num_steps == lines[-1].step
    assert read("runs/g/a")["status"] == "finished"

    stopped = dataclasses.replace(experiment, run_dir="runs/g/b")
    run = Run.open(SESSION, stopped, ALONE, provenance.collect())
    interrupted = trainer_of(stopped)
    for line in run.follow(interrupted):
        if line.step > interrupted.steps_per_epoch:
            break
    assert line.step > interrupted.steps_per_epoch
    run._writer.wait()  # for the epoch's checkpoint, which a thread of its own writes
    del run, interrupted
    SESSION.runs.clear()  # the process was killed: nothing closed the record
    assert read("runs/g/b")["status"] == "running"

    run = Run.open(SESSION, stopped, ALONE, provenance.collect())
    again = trainer_of(stopped)
    assert run.resume(again) == again.steps_per_epoch
    kept = read_steps("runs/g/b")
    assert kept == run.lines
    assert kept[-1].step == again.steps_per_epoch  # the line of the lost steps is taken out
    list(run.follow(again))
    run.finish(judge({"test": predict(again)}))
    assert [line.step for line in run.lines] == [line.step for line in lines]
    assert [line.nll for line in run.lines] == [line.nll for line in lines]
    for name, value in trainer.state().items():
        assert np.array_equal(again.state()[name], value), name
    first, second = (read_predictions(f"runs/g/{run_id}") for run_id in "ab")
    assert np.array_equal(first[0].mean_probs, second[0].mean_probs)

    # A finished run that is started again has nothing to train.
    run = Run.open(SESSION, stopped, ALONE, provenance.collect())
    last = trainer_of(stopped)
    assert run.resume(last) == last.num_steps
    assert list(run.follow(last)) == []
    assert read("runs/g/b")["metrics"]["accuracy"] == read("runs/g/a")["metrics"]["accuracy"]


@pytest.mark.parametrize(
    ("upkeep", "steps"),
    [
        # 8 steps an epoch, and lines end at 3, 6, 8, 11, 14 and 16.
        ({}, [8, 16]),
        ({"checkpoint_steps": 3}, [3, 6, 11, 14, 16]),
        ({"checkpoint_steps": 4}, [6, 8, 14, 16]),
        ({"checkpoint_minutes": 1e-9}, [3, 6, 8, 11, 14, 16]),
        ({"checkpoint_minutes": 60.0}, [16]),
    ],
)
def test_checkpoints_come_when_asked(upkeep, steps):
    experiment = Experiment(
        **{"model": "CNN_FC", "dataset": "tiny", "epochs": 2, "batch_size": 32, "log_every": 3},
        **upkeep,
        keep_checkpoints=99,
        run_dir="runs/g/a",
    )
    run = Run.open(SESSION, experiment, ALONE, provenance.collect())
    list(run.follow(trainer_of(experiment)))
    found = sorted(Path("runs/g/a/checkpoints").iterdir())
    assert [int(path.stem.partition("-")[2]) for path in found] == steps


@pytest.mark.parametrize("whole_line", [True, False])
def test_a_run_goes_on_to_the_same_bits_from_the_middle_of_an_epoch(whole_line):
    common = {"model": "BNN_FC_flip", "dataset": "tiny", "epochs": 2, "batch_size": 32}
    common |= {"log_every": 3, "checkpoint_steps": 3}
    whole = Run.open(SESSION, Experiment(**common, run_dir="runs/g/a"), ALONE, provenance.collect())
    expected = trainer_of(whole.experiment)
    list(whole.follow(expected))

    experiment = Experiment(**common, run_dir="runs/g/b")
    run = Run.open(SESSION, experiment, ALONE, provenance.collect())
    first = trainer_of(experiment)
    for line in run.follow(first):
        if line.step == 11:
            break
    if not whole_line:
        first.ask_to_stop()
        assert list(first.run()) == []
        run.save(first)
    run._writer.wait()
    SESSION.runs.clear()
    again = trainer_of(experiment)
    run = Run.open(SESSION, experiment, ALONE, provenance.collect())
    assert run.resume(again) == (11 if whole_line else 12)
    *_, event = read("runs/g/b")["history"]
    assert (event["event"], event["what"]) == ("continued", f"from step {again.step}")
    list(run.follow(again))
    assert all_equal(again.state(), expected.state())
    assert [without_times(line) for line in run.lines] == [
        without_times(line) for line in whole.lines
    ]
    assert read_posterior("runs/g/a") == read_posterior("runs/g/b")


def all_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def without_times(line: StepLog) -> dict[str, Any]:
    return dataclasses.asdict(line) | {"images_per_second": 0, "seconds": 0, "warmup": None}


def test_a_stop_is_recorded_with_its_reason_and_raised():
    session = Session()
    experiment = Experiment(dataset="tiny", model="CNN_FC", run_dir="runs/g/a", log_every=1)
    run = Run.open(session, experiment, ALONE, provenance.collect())
    trainer = trainer_of(experiment)
    lines = run.follow(trainer)
    assert [next(lines).step, next(lines).step] == [1, 2]
    session.requests.ask("SIGUSR1")
    assert next(lines).step == 3  # the step's own line
    with pytest.raises(stopping.Stopped, match=r"^SIGUSR1, after step 3 of 40; the same command"):
        next(lines)
    record = read("runs/g/a")
    assert record["status"] == "stopped"
    assert [event["what"] for event in record["history"]] == ["SIGUSR1, after step 3 of 40"]
    assert checkpoint.latest(Path("runs/g/a/checkpoints"))["step"] == 3
    assert not Path("runs/g/a/run.lock").exists()


def test_evaluation_is_stopped_too():
    session = Session()
    trainer = trainer_of(Experiment(dataset="tiny", model="CNN_FC", run_dir="runs/g/a"))
    session.requests.ask("SIGTERM")
    with pytest.raises(stopping.Stopped, match=r"^SIGTERM; the same command started again goes on"):
        predict(trainer, session)


def test_a_failed_write_of_a_checkpoint_is_raised_by_what_comes_next(monkeypatch):
    run = open_run(checkpoint_steps=1)
    trainer = trainer_of(run.experiment)
    run.save(trainer)
    run._writer.wait()

    def no_space(*arguments: Any) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", no_space)
        trainer.train_state.step.assign(1)
        run.save(trainer)
        with pytest.raises(RecordError, match=r"step-000000001\.npz: could not be written \(No sp"):
            run.save(trainer)
    run.save(trainer)
    run._writer.wait()
    assert checkpoint.latest(run.directory / "checkpoints")["step"] == 1


def test_the_log_is_on_the_disk_before_the_checkpoint_that_relies_on_it(monkeypatch):
    run = open_run()
    run.log(step_log(1))
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    run.save(trainer_of(run.experiment))
    run._writer.wait()
    assert synced[0] == "steps.jsonl"
    assert synced[1].startswith(".step-000000000.npz.")
    assert synced[2] == "checkpoints"


def test_what_killed_writers_left_is_removed_and_nothing_else():
    run = open_run()
    left = [".run.json.12.tmp", "checkpoints/.step-000000001.npz.12.tmp", ".steps.jsonl.1.tmp"]
    kept = [".my.notes.tmp", "checkpoints/notes.tmp", "train.ipynb"]
    (run.directory / "checkpoints").mkdir()
    for name in [*left, *kept]:
        (run.directory / name).write_text("half")
    open_run()
    assert not any((run.directory / name).exists() for name in left)
    assert all((run.directory / name).exists() for name in kept)


def predict(trainer: Trainer, session: Session = SESSION) -> tuple[Prediction, np.ndarray]:
    predictor = prediction.Predictor(trainer.network, trainer.dataset, 2, 0, session=session)
    return predictor(trainer.dataset.x_test), trainer.dataset.y_test


def test_the_record_is_there_before_training():
    run = open_run()
    record = read(run.directory)
    # The keys that the design names, and what each holds now.
    design = {
        *(
            "parameters",
            "metrics",
            "status",
            "ranks",
            "hosts",
            "threads",
            "commit",
            "clean",
        ),
        *("versions", "horovod", "job_id", "started", "ended", "command"),
    }
    assert design <= set(record)
    on_disk = read_json(run.directory)
    assert set(on_disk) == set(KEYS)
    (attempt,) = on_disk["attempts"]
    assert set(ATTEMPT_KEYS) <= set(attempt)
    assert record["parameters"] == run.experiment.to_dict()
    assert (record["status"], record["metrics"], record["error"]) == ("running", {}, None)
    assert (record["ranks"], record["hosts"], record["threads"]) == (1, ["here"], 1)
    assert record["ended"] is None
    assert pd.Timestamp(record["started"]).tz is not None
    assert record == on_disk | attempt


def test_the_finished_record_has_metrics_by_hand_and_the_predictions():
    run = open_run()
    run.log(step_log(2, seconds=5.0, images_per_second=10.0, warmup=True))
    run.log(step_log(4, seconds=1.0, images_per_second=300.0))
    run.log(step_log(6, seconds=3.0, images_per_second=100.0, nll=0.25, kl=20.0))
    values = finish(run)
    assert values["accuracy"] == 1.0
    assert values["nll"] == pytest.approx(-math.log(0.8), rel=1e-6)
    assert values["brier"] == pytest.approx(0.2**2 + 2 * 0.1**2, rel=1e-6)
    assert values["ece"] == pytest.approx(0.2, rel=1e-6)
    assert values["images_per_second"] == pytest.approx((300 * 1 + 100 * 3) / 4)
    assert (values["train_seconds"], values["steps_done"]) == (9.0, 6)
    assert (values["train_nll"], values["kl"]) == (0.25, 20.0)
    record = read(run.directory)
    assert record["status"] == "finished"
    assert record["metrics"] == values
    assert record["started"] <= record["ended"]
    arrays = np.load(run.directory / "predictions.npz")
    assert {name: (arrays[name].dtype.name, arrays[name].shape) for name in arrays.files} == {
        "test/labels": ("int64", (4,)),
        "test/mean_probs": ("float32", (4, 3)),
        "test/expected_entropy": ("float32", (4,)),
    }
    found, labels = read_predictions(run.directory)
    assert labels.tolist() == [0, 1, 2, 0]
    assert found.mean_probs.argmax(axis=1).tolist() == [0, 1, 2, 0]
    assert run not in SESSION.runs


@pytest.mark.parametrize(
    ("model", "compression", "expected"),
    [
        # 784 * 64 + 64 + 64 * 10 + 10 entries, and two numbers that ride along as float32.
        ("CNN_FC", "none", 4 * (50890 + 2)),
        ("CNN_FC", "fp16", 2 * 50890 + 4 * 2),
        # A posterior has its kernel's entries twice.
        ("BNN_FC_flip", "none", 4 * (50890 + 784 * 64 + 2)),
    ],
)
def test_the_record_tells_what_a_rank_gives_to_the_average(model, compression, expected):
    run = open_run(model=model, compression=compression, steps=1)
    list(run.follow(trainer_of(run.experiment)))
    finish(run)
    assert read(run.directory)["metrics"]["bytes_a_step"] == expected


def test_the_speed_is_that_of_the_attempt_whose_machine_the_record_names():
    laptop = [step_log(2, warmup=True), step_log(4, images_per_second=10.0, seconds=3.0)]
    node = [
        step_log(6, images_per_second=1.0, warmup=True),
        step_log(8, images_per_second=900.0, seconds=0.5),
    ]
    both = training_metrics([*laptop, *node], timed_from=4)
    assert (both["images_per_second"], both["step_ms_p50"]) == (900.0, 250.0)
    assert (both["train_seconds"], both["steps_done"]) == (2.0 + 3.0 + 2.0 + 0.5, 8)
    # The node has only begun: what there is.
    assert training_metrics([*laptop, node[0]], timed_from=4)["images_per_second"] == 10.0


def test_a_run_too_short_for_a_measurement_tells_its_speed_all_the_same():
    only = step_log(1, images_per_second=50.0, warmup=True)
    assert training_metrics([only])["images_per_second"] == 50.0
    assert training_metrics([]) == {}


def test_a_stopped_run_says_so():
    run = open_run()
    run.finish(judge({"test": made_prediction(np.array([0, 1]))}), status="stopped")
    assert read(run.directory)["status"] == "stopped"


def test_several_evaluation_sets_are_kept_apart():
    run = open_run()
    sets = {
        "test": made_prediction(np.array([0, 1])),
        "rotate-30": made_prediction(np.array([2, 2, 1])),
        "mnist_c/fog": made_prediction(np.array([1, 1, 2])),
    }
    run.finish(judge(sets))
    for name, (_, labels) in sets.items():
        assert read_predictions(run.directory, name)[1].tolist() == labels.tolist()


def test_only_rank_0_writes():
    run = open_run(ranks=Ranks(rank=1, size=2))
    run.log(step_log(1))
    values = finish(run)
    assert not Path("runs").exists()
    assert values["steps_done"] == 1  # metrics are known on every rank


def strict(constant: str) -> None:
    raise AssertionError(f"{constant} is not in strict JSON")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (math.nan, None),
        (np.float32(np.inf), None),
    ],
)
def test_infinite_and_unknown_stay_apart_in_strict_json(value, written):
    """An infinite NLL is a score; null stands for what is not known."""
    run = open_run()
    run.log(step_log(1, kl=value))
    finish(run)
    written = "Infinity" if isinstance(value, np.floating) else written
    found = json.loads((run.directory / "run.json").read_text(), parse_constant=strict)
    assert found["metrics"]["kl"] == written
    json.loads((run.directory / "steps.jsonl").read_text(), parse_constant=strict)
    for kl in (read_steps(run.directory)[0].kl, run_tables.load("runs/g").kl[0]):
        assert kl == value or (math.isnan(kl) and math.isnan(value))
    assert read(run.directory)["metrics"]["kl"] == (None if math.isnan(value) else value)


def test_infinite_scores_of_a_set_are_read_even_of_one_called_infinity():
    labels = np.array([0, 1, 0])
    surely_wrong = Prediction(np.eye(2, dtype=np.float32)[1 - labels], np.zeros(3, np.float32))
    rows = judge({"test": (surely_wrong, labels), "Infinity": (surely_wrong, None)})
    run = open_run()
    run.finish(rows)
    test, foreign = read(run.directory)["evaluation"]
    assert (test["set"], test["nll"], foreign["set"]) == ("test", math.inf, "Infinity")
    assert run_tables.load("runs").nll.tolist() == [math.inf]
    assert run_tables.load_evaluation("runs").nll.tolist()[0] == math.inf
    assert run.evaluation() is None
    again = open_run()
    assert again.evaluation().rows[0]["nll"] == math.inf


def test_a_posterior_of_no_width_has_an_infinite_signal_to_noise_ratio():
    run = open_run()
    nine = [1.0] * 9
    line = logs.LayerLog(0, 0.0, "layer0", 1, nine, [0.0] * 9, [math.inf] * 8 + [math.nan])
    logs.append(run.directory / logs.POSTERIOR, [line])
    found = logs.read_posterior(run.directory)[0]
    assert found.snr[:8] == [math.inf] * 8
    assert math.isnan(found.snr[8])


def test_the_record_holds_no_secret_and_no_place_but_the_runs_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2-e5b0c1")
    monkeypatch.setenv("HOME", "/home/somebody-9f3")
    command = ["/home/somebody-9f3/.venv/bin/python", "/home/somebody-9f3/.venv/bin/papermill", "a"]
    monkeypatch.setattr(sys, "orig_argv", command)
    run = open_run(directory=str(tmp_path / "runs" / "g" / "a"))
    finish(run)
    record = read(run.directory)
    assert record["command"] == "papermill a"
    assert record["parameters"]["run_dir"] == str(run.directory)
    record["parameters"].pop("run_dir")
    text = json.dumps(record)
    for trace in ("hunter2-e5b0c1", "somebody-9f3", str(tmp_path), str(Path.cwd()), sys.prefix):
        assert trace not in text


def test_a_recorded_traceback_does_not_name_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody-9f3")
    run = open_run()
    run.fail({"rank": 0, "type": "E", "message": "m", "traceback": ["/home/somebody-9f3/a.py, 1"]})
    assert read(run.directory)["error"]["traceback"] == ["~/a.py, 1"]


# --------------------------------------------------------------------------- a directory in use


def test_other_parameters_are_refused_by_name_and_value():
    run = open_run(epochs=2, learning_rate=1e-3)
    before = (run.directory / "run.json").read_bytes()
    with pytest.raises(RecordError) as error:
        open_run(epochs=3, learning_rate=0.5)
    assert str(error.value) == (
        "runs/g/a: holds a run with other parameters: epochs (2 there, 3 now), learning_rate "
        "(0.001 there, 0.5 now). Give another run_dir (or output notebook), or move the old run "
        "away"
    )
    assert (run.directory / "run.json").read_bytes() == before


def test_another_number_of_ranks_is_refused():
    open_run()
    with pytest.raises(
        RecordError, match=r"parameters: ranks \(1 there, 2 now\)\. .* on_rank_change to continue"
    ):
        open_run(ranks=Ranks(size=2))
    with pytest.raises(
        RecordError, match=r"epochs \(10 there, 3 now\), ranks \(1 there, 2 now\)\. Give"
    ):
        open_run(ranks=Ranks(size=2), epochs=3)


def test_another_number_of_ranks_is_taken_where_it_is_asked_for_and_told(caplog):
    open_run()
    Path("runs/g/a/checkpoints").mkdir()
    run = open_run(ranks=Ranks(size=2), on_rank_change="continue")
    record = read(run.directory)
    assert record["ranks"] == 2
    (event,) = record["history"]
    assert event["event"] == "ranks changed"
    assert event["what"].startswith(
        "2 rank(s) x 1 virtual instead of 1 x 1: 2 does not divide 1, so"
    )
    assert event["what"] in caplog.text
    with pytest.raises(RecordError, match=r"ranks \(2 there, 1 now\)"):
        open_run()


def test_a_run_goes_on_with_its_virtual_ranks_however_many_processes_carry_them(caplog):
    open_run(ranks=Ranks(size=4), virtual_ranks=2)
    Path("runs/g/a/checkpoints").mkdir()
    run = open_run(ranks=Ranks(size=2), virtual_ranks=2, on_rank_change="continue")
    record = read(run.directory)
    assert (record["ranks"], record["virtual_ranks"]) == (2, 4)
    assert "still 8 virtual ranks" in record["history"][-1]["what"]
    # Said in the parameters it is the same run, too; another number in all is another run.
    run = open_run(ranks=Ranks(size=1), virtual_ranks=8, on_rank_change="continue")
    assert read(run.directory)["virtual_ranks"] == 8
    with pytest.raises(RecordError, match=r"virtual_ranks \(8 there, 3 now\)"):
        open_run(ranks=Ranks(size=1), virtual_ranks=3, on_rank_change="continue")


@pytest.mark.parametrize(("noise", "streams"), [("independent", 0), ("shared", 1)])
def test_a_record_of_accumulated_batches_is_read_as_virtual_ranks(noise, streams):
    record = json.loads(json.dumps(FINISHED))
    old = {"accumulate": 4, "noise": noise}
    new = ("virtual_ranks", "noise_streams")
    kept = {k: v for k, v in record["parameters"].items() if k not in new}
    folder = Path("runs/g/old")
    folder.mkdir(parents=True)
    text = json.dumps(record | {"schema": 2, "parameters": kept | old})
    (folder / "run.json").write_text(text)
    found = read_record(folder)
    assert [found["parameters"][name] for name in new] == [4, streams]
    assert found["virtual_ranks"] == 4
    Experiment.from_mapping(found["parameters"])


def test_how_a_run_is_kept_may_be_another_when_it_goes_on():
    open_run(checkpoint_steps=5)
    record = read(open_run(checkpoint_minutes=1.0, keep_checkpoints=9, stall_minutes=1).directory)
    assert record["parameters"]["checkpoint_steps"] == 0
    assert record["parameters"]["keep_checkpoints"] == 9


def test_another_spelling_of_the_same_directory_is_the_same_run():
    open_run("runs/g/a")
    open_run("./runs/../runs/g/a")
    open_run(str(Path("runs/g/a").resolve()))


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_the_same_parameters_go_on(status):
    run = open_run()
    run.log(step_log(1))
    if status != "running":
        run.finish(judge({"test": made_prediction(np.array([0, 1]))}), status=status)
    old = read_json(run.directory)
    old["attempts"][0]["started"] = "2020-01-01T00:00:00+00:00"
    (run.directory / "run.json").write_text(json.dumps(old))
    record = read(open_run().directory)
    assert record["status"] == "running"
    assert record["started"] == "2020-01-01T00:00:00+00:00"
    assert read_json(run.directory)["attempts"][0] == old["attempts"][0]
    assert len(read_json(run.directory)["attempts"]) == 2
    assert record["metrics"] == old["metrics"]  # until there are new ones
    assert record["ended"] is None


def contents(directory: str) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(Path(directory).rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_finished_run_returns_its_results_and_is_not_touched(monkeypatch):
    """On another machine, from another commit: make study a second time, say."""
    experiment = Experiment(
        model="BNN_FC_flip", dataset="tiny", steps=4, log_every=2, profile=True, run_dir="runs/g/a"
    )
    run = Run.open(SESSION, experiment, ALONE, provenance.collect())
    assert not run.is_finished
    assert run.evaluation() is None
    trainer = trainer_of(experiment)
    run.resume(trainer)
    assert [line.step for line in run.follow(trainer)] == [2, 4]
    judged = judge({"test": predict(trainer)})
    values = run.finish(judged)

    before = contents("runs/g/a")
    elsewhere = Ranks(hosts=("laptop",), threads=7, cores=8)
    origin = provenance.collect() | {"commit": "0" * 40, "command": "another"}
    again = Run.open(SESSION, experiment, elsewhere, origin, [("connection lost", "x")])
    assert again.is_finished
    assert SESSION.runs == []
    second = trainer_of(experiment)
    assert again.resume(second) == 4
    assert all_equal(second.state(), trainer.state())
    assert list(again.follow(second)) == []
    assert again.lines == run.lines
    kept = again.evaluation()
    assert kept is not None
    assert kept.rows == judged.rows
    assert again.finish(kept) == kept.metrics == read("runs/g/a")["metrics"]
    assert kept.metrics == json.loads(json.dumps(values))
    assert np.array_equal(
        kept.predictions["test"][0].mean_probs, judged.predictions["test"][0].mean_probs
    )
    again.fail(ERROR)  # of a later cell
    SESSION.fail_runs(ERROR)
    assert contents("runs/g/a") == before
    with pytest.raises(RecordError, match=r"steps \(4 there, 5 now\)"):
        Run.open(SESSION, dataclasses.replace(experiment, steps=5), ALONE, provenance.collect())


def test_each_start_is_an_attempt_that_no_later_one_changes():
    """A timing made on one machine does not become one of another."""
    origin = provenance.collect()
    experiment = Experiment(model="CNN_FC", dataset="tiny", steps=8, log_every=2, run_dir="runs/a")
    clock = Clock(0.0)
    for stage in ("imports", "horovod"):
        clock.reached(stage)
    first = Run.open(
        Session(clock), experiment, ALONE, origin | {"commit": "1" * 40, "job_id": "1"}
    )
    trainer = trainer_of(experiment, first.session)
    first.resume(trainer)
    for line in first.follow(trainer, lambda: trainer.step == 4):
        assert line.step <= 4
    first.stop("SIGTERM")
    (before,) = read_json("runs/a")["attempts"]
    assert (before["first_step"], before["commit"], before["hosts"]) == (0, "1" * 40, ["here"])
    assert before["startup_seconds"]["imports"] > 1e9
    assert before["ended"] is not None

    there = Ranks(hosts=("there",), threads=3, cores=64)
    idle = Run.open(SESSION, experiment, there, origin | {"commit": "2" * 40})
    idle.stop("SIGTERM")  # before it had trained
    assert read("runs/a")["commit"] == "1" * 40
    assert read("runs/a")["hosts"] == ["here"]

    last = Run.open(SESSION, experiment, there, origin | {"commit": "3" * 40})
    again = trainer_of(experiment)
    assert last.resume(again) == 4
    list(last.follow(again))
    finish(last)
    attempts = read_json("runs/a")["attempts"]
    assert attempts[0] == before
    assert [one["first_step"] for one in attempts] == [0, None, 4]
    assert [one["startup_seconds"] is None for one in attempts] == [False, True, True]
    record = read("runs/a")
    assert (record["commit"], record["hosts"]) == ("3" * 40, ["there"])
    assert (record["started"], record["ended"]) == (before["started"], attempts[2]["ended"])
    row = run_tables.load("runs/a").iloc[0]
    assert (row.commit, row.cores, row.threads_used) == ("3" * 40, 64, 3)
    timed = [line for line in last.lines if line.step > 4 and not line.warmup]
    assert len(timed) < len([line for line in last.lines if not line.warmup])
    assert row.images_per_second == pytest.approx(
        sum(line.images_per_second * line.seconds for line in timed)
        / sum(line.seconds for line in timed)
    )


@pytest.mark.parametrize("schema", [1, 2])
def test_a_record_of_an_older_schema_is_one_attempt(schema):
    old = json.loads(json.dumps(FINISHED)) | {"schema": schema, "commit": "4" * 40}
    old["metrics"]["steps"] = 40  # that was the parameter's name
    old["parameters"]["steps"] = 0
    Path("runs/g/a").mkdir(parents=True)
    Path("runs/g/a/run.json").write_text(json.dumps(old))
    record = read("runs/g/a")
    assert (record["schema"], record["commit"], record["first_step"]) == (SCHEMA, "4" * 40, 0)
    assert record["converged"] is None
    assert (record["hosts"], len(record["attempts"])) == (["here"], 1)
    row = run_tables.load("runs").iloc[0]
    assert (row.steps, row.steps_done) == (0, 40)


def test_a_run_that_failed_before_training_is_replaced():
    run = open_run(epochs=2)
    run.fail({"rank": 0, "type": "DataError", "message": "no file"})
    assert read(run.directory)["status"] == "failed"
    record = read(open_run(epochs=3).directory)
    assert record["parameters"]["epochs"] == 3
    assert (record["status"], record["error"]) == ("running", None)


def test_a_run_that_failed_in_training_is_not_replaced_and_goes_on():
    run = open_run(epochs=2)
    checkpoint.save(run.directory / "checkpoints", {"step": np.asarray(1)})
    run.fail({"rank": 0, "type": "OSError", "message": "disk full"})
    with pytest.raises(RecordError, match=r"epochs \(2 there, 3 now\)"):
        open_run(epochs=3)
    assert read(open_run(epochs=2).directory)["status"] == "running"


def test_a_damaged_record_is_not_overwritten():
    Path("runs/g/a").mkdir(parents=True)
    Path("runs/g/a/run.json").write_text("{")
    with pytest.raises(RecordError, match="no readable run record"):
        open_run()
    assert Path("runs/g/a/run.json").read_text() == "{"


def test_the_place_is_run_dir_else_the_notebooks_folder_else_a_name(monkeypatch):
    given_dir, none = Experiment(run_dir="here"), Experiment(model="CNN_FC")
    assert run_directory(none, 2) == Path("runs/single/digits/CNN_FC-r2-s0")
    monkeypatch.setenv("BNN_RUN_DIR", "/the/notebooks")
    assert run_directory(none, 2) == Path("/the/notebooks")
    assert run_directory(given_dir, 2) == Path("here")


# ---------------------------------------------------------------------------------------- resumed


class FakeTrainer:
    """A trainer as far as :meth:`Run.resume` asks it, without a network."""

    def __init__(self) -> None:
        self.step = 0

    def restore(self, state: dict[str, np.ndarray]) -> None:
        if "layer0/mean" in state:
            raise ExperimentError("of another network")
        self.step = int(state["step"])

    def broadcast(self) -> None:
        pass


def resumed(run: Run) -> int:
    return run.resume(FakeTrainer())  # type: ignore[arg-type]


def test_lines_after_the_checkpoint_are_taken_out():
    run = open_run()
    for step in (2, 4, 6, 8):
        run.log(step_log(step))
    checkpoint.save(run.directory / "checkpoints", {"step": np.asarray(6)})
    with (run.directory / "steps.jsonl").open("a") as file:
        file.write('{"step": 10, "epo')  # the process was killed here
    again = open_run()
    assert resumed(again) == 6
    assert [line.step for line in again.lines] == [2, 4, 6]
    assert read_steps(run.directory) == again.lines
    again.log(step_log(8))
    assert [line.step for line in read_steps(run.directory)] == [2, 4, 6, 8]


def test_without_a_checkpoint_no_line_is_kept():
    run = open_run()
    run.log(step_log(2))
    again = open_run()
    assert resumed(again) == 0
    assert again.lines == read_steps(run.directory) == []


def test_a_checkpoint_of_another_network_is_refused_and_the_lines_stay():
    run = open_run()
    run.log(step_log(2))
    state = {"step": np.asarray(2), "layer0/mean": np.zeros(1)}
    checkpoint.save(run.directory / "checkpoints", state)
    again = open_run()
    with pytest.raises(ExperimentError, match="of another network"):
        resumed(again)
    assert [line.step for line in read_steps(run.directory)] == [2]


def test_a_full_disk_while_logging_is_told(monkeypatch):
    run = open_run()
    (run.directory / "steps.jsonl").mkdir()
    with pytest.raises(RecordError, match=r"steps\.jsonl: could not be written \(Is a directory\)"):
        run.log(step_log(1))


# --------------------------------------------------------------------------------------- failures

ERROR = {
    "rank": 1,
    "type": "ValueError",
    "message": "bad",
    "traceback": ["line 1", "line 2"],
    "ranks": 2,
}


def test_fail_keeps_the_error_with_its_traceback():
    run = open_run()
    run.fail(ERROR)
    record = read(run.directory)
    assert (record["status"], record["error"]) == ("failed", ERROR)
    assert record["ended"] is not None
    assert run not in SESSION.runs


def test_a_failure_of_an_open_run_closes_its_record_wherever_it_is():
    run = open_run("runs/g/a")
    SESSION.fail("runs/g/elsewhere", {}, ERROR)
    assert read("runs/g/a")["error"] == ERROR
    assert read("runs/g/a")["parameters"] == run.experiment.to_dict()
    assert not Path("runs/g/elsewhere").exists()


def test_a_failure_before_the_record_is_recorded_with_the_parameters_as_given():
    import datetime

    given_values = {"modle": "x", "epochs": math.nan, "day": datetime.date(2020, 1, 2), 3: [None]}
    record_failure("runs/g/a", given_values, ERROR)
    record = read_record("runs/g/a")
    assert record["parameters"] == {"modle": "x", "epochs": None, "day": "2020-01-02", "3": [None]}
    assert (record["status"], record["error"], record["ranks"]) == ("failed", ERROR, 2)
    record_failure("runs/g/a", {"epochs": 0}, ERROR)  # the next try is no better
    assert read("runs/g/a")["parameters"] == {"epochs": 0}
    assert read(open_run("runs/g/a").directory)["status"] == "running"  # and then a good one


@pytest.mark.parametrize("status", ["running", "finished", "stopped", "failed"])
def test_a_failure_of_another_start_leaves_a_trained_run_alone(status):
    run = open_run()
    checkpoint.save(run.directory / "checkpoints", {"step": np.asarray(1)})
    if status == "failed":
        run.fail(ERROR)
    elif status != "running":
        run.finish(judge({"test": made_prediction(np.array([0, 1]))}), status=status)
    SESSION.runs.clear()
    before = (run.directory / "run.json").read_bytes()
    record_failure(run.directory, {"batch_size": 0}, ERROR | {"message": "another"})
    assert (run.directory / "run.json").read_bytes() == before
    open_run()  # so that the right parameters still continue it


def test_in_a_kernel_a_cells_error_closes_the_record(monkeypatch, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.kernel = object()  # as ipykernel's
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    session = Session.of({})
    assert Session.of({"session": session}) is session
    experiment = Experiment(dataset="tiny", run_dir="runs/g/a")
    run = Run.open(session, experiment, ALONE, provenance.collect())
    shell.run_cell("x = 1")
    assert read(run.directory)["status"] == "running"
    shell.run_cell("raise ValueError('bad')", silent=False)
    record = read(run.directory)
    assert record["status"] == "failed"
    assert (record["error"]["type"], record["error"]["message"]) == ("ValueError", "bad")
    shell.run_cell("raise KeyError('later')")
    assert read(run.directory) == record
    # An error that refuses the start, before the first step, leaves none; it is said in the cell.
    refused = Experiment(dataset="tiny", run_dir="runs/g/refused")
    Run.open(session, refused, ALONE, provenance.collect())
    shell.run_cell("from bnnlib.errors import DataError\nraise DataError('no such file')")
    assert not os.path.exists("runs/g/refused")
    assert "the start was refused and leaves no record" in capsys.readouterr().out
    again = Run.open(session, experiment, ALONE, provenance.collect())
    session.close()
    shell.run_cell("raise ValueError('of another session')")
    assert read(again.directory)["status"] == "running"


# ---------------------------------------------------------------------------------------- reading


@pytest.fixture
def group():
    """A finished run of one seed, a second seed, a failed run and one that still runs."""
    for run_id, parameters in [("a", {"seed": 0}), ("b", {"seed": 1, "model": "CNN_FC"})]:
        run = open_run(f"runs/g/{run_id}", **parameters)
        run.log(step_log(4))
        finish(run)
    record_failure("runs/g/c", {"modle": "x"}, ERROR)
    open_run("runs/g/d", seed=3)
    SESSION.runs.clear()
    return Path("runs/g")


def test_load_gives_a_row_a_run(group):
    table = run_tables.load(group)
    assert tuple(table.columns[: len(run_tables.COLUMNS)]) == run_tables.COLUMNS
    assert table.columns.is_unique
    assert table.run_id.tolist() == ["a", "b", "c", "d"]
    assert table.group.tolist() == ["g"] * 4
    assert table.status.tolist() == ["finished", "finished", "failed", "running"]
    assert table.model[[0, 1, 3]].tolist() == ["BNN_conv_flip", "CNN_FC", "BNN_conv_flip"]
    assert pd.isna(table.model[2])
    assert set(Experiment.names()) <= set(table.columns)
    assert {"path", "threads", "commit", "started", "num_hosts", "command"} <= set(table.columns)
    for path in table.path:
        assert (Path(path) / "run.json").exists()
    for metric in ("accuracy", "nll", "brier", "ece", "images_per_second"):
        assert table[metric].dtype == float
        assert table[metric].isna().tolist() == [False, False, True, True]
    assert table.ranks.tolist() == [1, 1, 2, 1]
    finished = run_tables.load(group / "a")
    assert len(finished) == 1
    assert finished.ranks.dtype == finished.seed.dtype == finished.steps_done.dtype == np.int64
    assert finished.group[0] == "g"


def test_load_of_several_groups_tells_them_apart(group):
    open_run("runs/h/a", seed=7)
    table = run_tables.load("runs")
    assert list(zip(table.group, table.run_id, strict=True)) == [
        *(("g", run_id) for run_id in "abcd"),
        ("h", "a"),
    ]


def test_load_of_runs_without_any_metric_has_the_columns_all_the_same():
    open_run()
    table = run_tables.load("runs")
    assert table.accuracy.isna().all()
    assert table.columns[: len(run_tables.COLUMNS)].tolist() == list(run_tables.COLUMNS)


@pytest.mark.parametrize("path", ["missing", "."])
def test_load_where_no_run_is(path):
    with pytest.raises(RecordError, match=r"no run records \(run\.json\) below; train first"):
        run_tables.load(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("status", "done", "status = 'done': expected one of running, finished, stopped, failed"),
        ("status", 1, "key 'status': expected str, found 1"),
        ("ranks", "2", "key 'ranks': expected int, found '2'"),
        ("ranks", True, "key 'ranks': expected int, found True"),
        ("clean", 1, "key 'clean': expected bool or null, found 1"),
        ("parameters", [], "key 'parameters': expected dict, found []"),
        ("parameters", ..., "key 'parameters': expected dict, found nothing"),
        ("ended", ..., "key 'ended': expected str or null, found nothing"),
        ("metrics", {"accuracy": "high"}, "metric 'accuracy': expected a number, found 'high'"),
        ("attempts", [], "key 'attempts': expected at least one, found []"),
        ("attempts", [1], "key 'attempts': expected objects, found 1"),
        ("metrics", {"nll": [1]}, "metric 'nll': expected a number, found [1]"),
    ],
)
def test_a_damaged_record_is_named_with_its_key(key, value, message):
    record = read_json(open_run().directory)
    holder = record if key in KEYS else record["attempts"][0]
    if value is ...:
        del holder[key]
    else:
        holder[key] = value
    Path("runs/g/a/run.json").write_text(json.dumps(record))
    for reader in (read_record, run_tables.load):
        with pytest.raises(RecordError) as error:
            reader("runs/g/a")
        assert str(error.value) == f"runs/g/a/run.json: {message}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def load_or_refuse(content: bytes) -> None:
    """Whatever run.json holds, load and the printed table work or end in a RecordError."""
    path = Path("runs/x/run.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        table = run_tables.load("runs")
    except RecordError as refused:
        assert str(path) in str(refused)  # noqa: PT017 - the other outcome is as good
        assert program.main(["table", "runs"]) == 1
    else:
        assert len(table) == 1
        assert program.main(["table", "runs"]) == 0


@quick
@given(st.binary())
def test_arbitrary_bytes_are_refused(content):
    load_or_refuse(content)


@quick
@given(JSON)
def test_arbitrary_json_is_refused(value):
    load_or_refuse(json.dumps(value).encode())


@quick
@given(st.data())
def test_a_record_with_arbitrary_values_is_loaded_or_refused(data):
    record = json.loads(json.dumps(FINISHED))
    for key in data.draw(st.lists(st.sampled_from(sorted(record)), max_size=3)):
        record[key] = data.draw(JSON)
    for part in ("parameters", "metrics"):
        if isinstance(record[part], dict) and record[part]:
            name = data.draw(st.sampled_from(sorted(record[part])))
            record[part][name] = data.draw(JSON)
    load_or_refuse(json.dumps(record).encode())


FINISHED: dict[str, Any] = {
    "schema": 1,
    "parameters": Experiment().to_dict(),
    "status": "finished",
    "metrics": {"accuracy": 0.5, "nll": 1.0, "brier": 0.5, "ece": 0.1, "images_per_second": 9.5},
    "error": None,
    "ranks": 1,
    "hosts": ["here"],
    "threads": 1,
    "seed": 0,
    "commit": None,
    "clean": None,
    "versions": {},
    "horovod": {},
    "launcher": "alone",
    "job_id": None,
    "environment": {},
    "command": "",
    "started": "2020-01-01T00:00:00+00:00",
    "ended": None,
    "startup_seconds": None,
}


def test_a_half_written_last_line_is_left_out():
    run = open_run()
    run.log(step_log(2))
    run.log(step_log(4))
    path = run.directory / "steps.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        assert [line.step for line in read_steps(run.directory)] == [2]
    path.write_bytes(whole)
    assert read_steps(run.directory) == [step_log(2), step_log(4)]


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"{}",
        b"null",
        b"[1]",
        b'{"step": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(dataclasses.asdict(step_log(1)) | {"extra": 1}).encode(),
        json.dumps(dataclasses.asdict(step_log(1)) | {"step": "1"}).encode(),
    ],
    ids=[*("text", "empty", "null", "list", "short", "bytes", "deep", "long", "text step")],
)
def test_another_line_that_is_no_step_is_an_error(line):
    run = open_run()
    run.log(step_log(2))
    with (run.directory / "steps.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(RecordError, match=r"steps\.jsonl"):
        read_steps(run.directory)


def test_without_steps_there_are_no_lines(tmp_path):
    assert read_steps(tmp_path) == []


def test_predictions_that_are_not_there():
    run = open_run()
    with pytest.raises(RecordError, match=r"predictions\.npz: no readable predictions \(.*No such"):
        read_predictions(run.directory)
    finish(run)
    with pytest.raises(RecordError, match=r"no evaluation set 'rotate-30'; it holds test"):
        read_predictions(run.directory, "rotate-30")
    path = run.directory / "predictions.npz"
    np.savez(path, **{"test/labels": np.zeros(2), "test/mean_probs": np.zeros((2, 3))})
    with pytest.raises(RecordError, match=r"'test' has no expected_entropy"):
        read_predictions(run.directory)
    path.write_bytes(b"PK")
    with pytest.raises(RecordError, match="no readable predictions"):
        read_predictions(run.directory)


# ----------------------------------------------------------------------------------- command line


def test_the_command_prints_the_table_and_writes_it(group):
    csv = Path("table.csv")
    command = [sys.executable, "-m", "bnnlib", "table", str(group), "--csv", str(csv)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    header, *rows, last = done.stdout.splitlines()
    assert header.split() == ["run_id", "model", "seed", "ranks", *listing.RESULTS]
    scores = ["1.0000", "0.2231", "0.0600", "0.2000", "100", "unknown", "-"]
    assert [row.split() for row in rows] == [
        ["a", "BNN_conv_flip", "0", "1", "finished", *scores],
        ["b", "CNN_FC", "1", "1", "finished", *scores],
        ["c", "-", "-", "2", "failed", *"-------"],
        ["d", "BNN_conv_flip", "3", "1", "running", *"-------"],
    ]
    assert last == f"written: {csv}"
    table = pd.read_csv(csv)
    assert tuple(table.columns[: len(run_tables.COLUMNS)]) == run_tables.COLUMNS
    pd.testing.assert_frame_equal(
        table[list(run_tables.COLUMNS)], run_tables.load(group)[list(run_tables.COLUMNS)]
    )


def test_the_command_tells_what_is_wrong_and_fails(capsys):
    assert program.main(["table", "missing"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("python -m bnnlib table: missing: no run records")


def test_a_dataset_by_path_is_shown_by_its_name(capsys):
    open_run(dataset="/a/long/way/to/mine.npz")
    assert program.main(["table", "runs"]) == 0
    told = capsys.readouterr().out
    assert "mine.npz" in told
    assert "/a/long" not in told


def test_a_csv_that_cannot_be_written_is_told(group, capsys):
    Path("file").write_text("")
    assert program.main(["table", str(group), "--csv", "file/table.csv"]) == 1
    assert "file/table.csv: could not be written" in capsys.readouterr().err


# ------------------------------------------------------------------------------ evaluation by set

LABELS = np.array([0, 1, 2, 0])


def judged_by_hand() -> Evaluation:
    """All right at 0.8 but one rotated image; out of distribution it is as sure."""
    rotated = made_prediction(np.array([0, 1, 2, 1]))[0], LABELS
    outside = made_prediction(np.array([0, 0]))[0], None
    return judge(
        {
            "test": made_prediction(LABELS),
            "holdout": (rotated[0], LABELS),
            "rotate-30": rotated,
            "mine": outside,
        }
    )


def test_every_set_has_its_row_and_its_predictions():
    run = open_run()
    judged = judged_by_hand()
    values = run.finish(judged)
    record = read(run.directory)
    assert record["schema"] == SCHEMA == 8
    assert record["evaluation"] == json.loads(to_json(judged.rows))  # NaN is null
    assert [row["set"] for row in record["evaluation"]] == ["test", "holdout", "rotate-30", "mine"]
    # Right three times of four at (0.8, 0.1, 0.1): softened to 0.75, 8^(1/T) = 6.
    assert values["temperature"] == pytest.approx(math.log(8) / math.log(6), rel=1e-5)
    assert values["nll_scaled"] == pytest.approx(-math.log(0.75), rel=1e-5)
    assert record["metrics"] == values
    arrays = np.load(run.directory / "predictions.npz")
    labelled = {f"{name}/labels" for name in ("test", "holdout", "rotate-30")}
    assert {name for name in arrays.files if name.endswith("labels")} == labelled
    found_outside, labels = read_predictions(run.directory, "mine")
    assert labels is None
    assert found_outside.mean_probs.tolist() == judged.predictions["mine"][0].mean_probs.tolist()


def test_logits_votes_and_soft_labels_are_kept_with_their_set():
    run = open_run()
    kept = {
        "mean_logits": np.arange(12, dtype=np.float32).reshape(4, 3),
        "votes": np.array([[2, 1, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]], np.uint8),
        "soft_labels": np.full((4, 3), 1 / 3, np.float32),
    }
    one = dataclasses.replace(made_prediction(LABELS)[0], **kept)
    values = run.finish(judge({"test": (one, LABELS), "rotate-30": made_prediction(LABELS)}))
    found, plain = (read_predictions(run.directory, name)[0] for name in ("test", "rotate-30"))
    for name, array in kept.items():
        np.testing.assert_array_equal(getattr(found, name), array)
        assert getattr(found, name).dtype == array.dtype
        assert getattr(plain, name) is None
    # Two of three pairs of draws differ on the first image of four, none on the others.
    assert values["disagreement"] == pytest.approx(2 / 3 / 4)
    assert values["total_variation"] == pytest.approx(
        (0.8 - 1 / 3 + 2 * (1 / 3 - 0.1)) / 2, rel=1e-6
    )


def test_a_draws_curve_is_kept_with_its_set():
    run = open_run()
    curve = DrawsCurve(
        np.array([1, 2], np.int64),
        np.full((2, 4, 3), 1 / 3, np.float32),
        np.full((2, 4), 0.5, np.float32),
    )
    one = dataclasses.replace(made_prediction(LABELS)[0], draws_curve=curve)
    run.finish(judge({"test": (one, LABELS), "rotate-30": made_prediction(LABELS)}))
    arrays = np.load(run.directory / "predictions.npz")
    assert arrays["test/ladder_draws"].tolist() == [1, 2]
    assert arrays["test/ladder_mean_probs"].shape == (2, 4, 3)
    assert arrays["test/ladder_expected_entropy"].shape == (2, 4)
    assert not any(name.startswith("rotate-30/ladder") for name in arrays.files)
    kept = read_predictions(run.directory)[0].draws_curve
    assert kept is not None
    for field in dataclasses.fields(DrawsCurve):
        np.testing.assert_array_equal(getattr(kept, field.name), getattr(curve, field.name))
    assert read_predictions(run.directory, "rotate-30")[0].draws_curve is None


def test_load_evaluation_gives_a_row_a_run_and_set():
    for run_id, seed in [("a", 0), ("b", 1)]:
        open_run(f"runs/g/{run_id}", seed=seed).finish(judged_by_hand())
    open_run("runs/g/c", seed=2)  # still running
    table = run_tables.load_evaluation("runs/g")
    assert tuple(table.columns[:13]) == run_tables.EVALUATION_COLUMNS
    assert table.columns.is_unique
    assert table.run_id.tolist() == ["a"] * 4 + ["b"] * 4
    assert table.seed.tolist() == [0] * 4 + [1] * 4
    assert table.path.tolist() == ["runs/g/a"] * 4 + ["runs/g/b"] * 4
    assert set(zip(table.group, table.model, table.dataset, table.ranks, strict=True)) == {
        ("g", "BNN_conv_flip", "tiny", 1)
    }
    first = table[table.run_id == "a"].set_index("set")
    assert first.kind.tolist() == ["test", "holdout", "shift", "ood"]
    assert first.num_images.tolist() == [4, 4, 4, 2]
    assert (
        first.family.isna().tolist() == first.severity.isna().tolist() == [True, True, False, True]
    )
    assert (first.family["rotate-30"], first.severity["rotate-30"]) == ("rotate", 30)
    assert first.accuracy["rotate-30"] == 0.75
    assert math.isnan(first.accuracy["mine"])
    assert first.auroc_entropy["mine"] == 0.5
    assert math.isnan(first.auroc_entropy["test"])
    scores = table.columns[12:]
    assert {"nll_scaled", "ece_scaled", "brier_scaled", "e_aurc", "fpr95_entropy"} <= set(scores)
    assert all(table[name].dtype == float for name in [*scores, "severity"])


def test_load_evaluation_without_any_row_has_the_columns_all_the_same():
    open_run()
    table = run_tables.load_evaluation("runs")
    assert len(table) == 0
    assert tuple(table.columns) == run_tables.EVALUATION_COLUMNS


def test_the_table_of_runs_has_the_temperature_as_a_number():
    open_run("runs/g/a").finish(judge({"test": made_prediction(LABELS)}))
    table = run_tables.load("runs")
    scaled = ("temperature", "nll_scaled", "brier_scaled", "ece_scaled")
    assert all(table[name].dtype == float for name in scaled)
    assert table.temperature.isna().all()
    open_run("runs/g/b", seed=1).finish(judged_by_hand())
    assert run_tables.load("runs").temperature.isna().tolist() == [True, False]


def test_a_record_of_the_first_schema_is_read_and_continued():
    run = open_run(seed=3)
    finish(run)
    old = read(run.directory)  # its start's keys beside the others
    for name in ("attempts", "evaluation", "first_step"):
        del old[name]
    old |= {"schema": 1, "status": "stopped"}
    for name in ("holdout", "dropout", "eval_sets", "ood_sets"):
        del old["parameters"][name]
    (run.directory / "run.json").write_text(json.dumps(old))
    assert read_record(run.directory)["evaluation"] == []
    assert len(run_tables.load_evaluation("runs")) == 0
    assert run_tables.load("runs").accuracy.tolist() == [1.0]
    with pytest.raises(RecordError, match=r"holdout \(0\.0 there, 0\.1 now\)\. "):
        open_run(seed=3, holdout=0.1)
    open_run(seed=3)
    assert read(run.directory)["parameters"]["holdout"] == 0.0
    assert [one["first_step"] for one in read_json(run.directory)["attempts"]] == [0, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "key 'evaluation': expected list, found {}"),
        ([1], "evaluation: expected rows with set and kind, found 1"),
        ([{"set": "test"}], "evaluation: expected rows with set and kind, found {'set': 'test'}"),
        (
            [{"set": "a", "kind": "b"}],
            "evaluation of 'a': kind = 'b': expected one of test, holdout, train, reference, "
            "shift, ood",
        ),
        (
            [{"set": "test", "kind": "test", "nll": "low"}],
            "evaluation of 'test': 'nll': expected a number, found 'low'",
        ),
    ],
)
def test_damaged_evaluation_rows_are_named(rows, message):
    record = read(open_run().directory) | {"evaluation": rows}
    Path("runs/g/a/run.json").write_text(json.dumps(record))
    with pytest.raises(RecordError) as error:
        run_tables.load_evaluation("runs/g")
    assert str(error.value) == f"runs/g/a/run.json: {message}"


@quick
@given(JSON)
def test_arbitrary_evaluation_rows_are_loaded_or_refused(value):
    rows = [{"set": "rotate-30", "kind": "shift"}, {"set": "a", "kind": "ood", "x": value}]
    content = json.dumps(FINISHED | {"evaluation": rows})
    load_or_refuse(content.encode())
    try:
        table = run_tables.load_evaluation("runs")
    except RecordError:
        assert not isinstance(value, int | float) or isinstance(value, bool)
    else:
        assert len(table) == 2
