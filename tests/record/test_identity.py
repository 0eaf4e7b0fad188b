"""A run is its parameters and its data, by content and not by path."""

import dataclasses
import json
import logging
import re
import shutil
from pathlib import Path

import horovod.tensorflow as hvd
import numpy as np
import pytest

from bnnlib import data, networks
from bnnlib.data import EvaluationSet
from bnnlib.errors import DataError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.inference.distributed import Ranks
from bnnlib.inference.restore import restore
from bnnlib.inference.trainer import Trainer
from bnnlib.record import checkpoint
from bnnlib.record.identity import refuse_unequal
from bnnlib.record.run import Run
from bnnlib.record.schema import read_record
from bnnlib.session import Session

ROOT = Path(__file__).parents[2]
PROVENANCE = {
    **{"commit": None, "clean": None, "versions": {}, "launcher": "alone", "job_id": None},
    **{"environment": {}, "command": "test"},
}


@pytest.fixture(autouse=True, scope="module")
def alone():
    """Horovod with one rank. MPI starts once in a process, so it is not left again."""
    hvd.init()


@pytest.fixture
def tiny():
    return data.load("tiny")


def opened(folder, **parameters):
    experiment = Experiment(dataset="tiny", run_dir=str(folder / "run"), **parameters)
    return Run.open(Session(), experiment, Ranks(hosts=("here",)), PROVENANCE)


def begun(folder, content):
    """A run that has noted its data and trained a step."""
    run = opened(folder)
    run.note_data(content)
    checkpoint.save(run.directory / "checkpoints", {"step": np.asarray(1)})
    run.stop("for the test")
    return run


def changed(dataset, **lengths):
    """The data set with fewer images of some arrays."""
    arrays = {name: getattr(dataset, name)[:length] for name, length in lengths.items()}
    return dataclasses.replace(dataset, **arrays)


def test_the_content_is_shapes_types_checksums_and_classes(tiny):
    noise = EvaluationSet("noise", tiny.x_test[:4], None)
    found = data.content(tiny, [noise])
    assert (found["num_classes"], found["scale"], found["empty_classes"]) == (10, 1 / 255, [])
    arrays = found["arrays"]
    assert list(arrays) == ["x_train", "y_train", "x_test", "y_test", "ood/noise"]
    assert arrays["x_train"]["shape"] == [256, 28, 28, 1]
    assert (arrays["y_test"]["dtype"], arrays["ood/noise"]["dtype"]) == ("int64", "uint8")
    assert found == data.content(data.load("tiny"), [noise])
    other = dataclasses.replace(tiny, x_train=tiny.x_train.copy())
    other.x_train[200, 3, 3] ^= 1
    assert data.content(other)["arrays"]["x_train"]["sha256"] != arrays["x_train"]["sha256"]
    json.dumps(found, allow_nan=False)


def test_the_content_holds_what_is_held_out():
    found = data.content(data.load("tiny", holdout=0.25))["arrays"]
    assert found["x_holdout"]["shape"] == [64, 28, 28, 1]
    assert found["x_train"]["shape"] == [192, 28, 28, 1]


# ----------------------------------------------------------------------------------- over the ranks


def ranks_with(*contents):
    return [(f"node{rank}", one) for rank, one in enumerate(contents)]


def test_equal_data_on_all_ranks_are_taken(tiny):
    refuse_unequal(ranks_with(*[data.content(tiny)] * 3))


def test_other_data_on_a_rank_are_refused_with_rank_and_host(tiny):
    mine, fewer = data.content(tiny), data.content(changed(tiny, x_train=192, y_train=192))
    with pytest.raises(DataError) as error:
        refuse_unequal(ranks_with(mine, mine, fewer, fewer))
    text = str(error.value)
    assert text.startswith("rank(s) 2, 3 read other data than rank 0: x_train (256, 28, 28, 1) ")
    assert "on rank 0 (node0), x_train" not in text
    assert "(192, 28, 28, 1) uint8" in text
    assert "on rank 2 (node2)" in text
    assert "copy it to every node anew" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: changed(d, x_test=40, y_test=40), r"x_test \(64, .*y_test \(64,\)"),
        (lambda d: dataclasses.replace(d, num_classes=8), "10 classes on rank 0 .* 8 on rank 1"),
        (lambda d: dataclasses.replace(d, y_train=d.y_train[::-1].copy()), "y_train"),
        (lambda d: dataclasses.replace(d, scale=1.0), "pixels times 0.0039215[0-9]* on rank 0"),
    ],
    ids=["fewer to test", "other classes", "other order", "another scale"],
)
def test_each_part_of_the_data_is_compared(tiny, change, told):
    with pytest.raises(DataError, match=told):
        refuse_unequal(ranks_with(data.content(tiny), data.content(change(tiny))))


def test_a_set_out_of_distribution_is_compared(tiny):
    """`svhn_test.npz` and a user's own lie on each node, too."""
    own, stale = (EvaluationSet("mine", tiny.x_test[:n], None) for n in (4, 5))
    with pytest.raises(DataError, match=r"ood/mine \(4, 28, 28, 1\)"):
        refuse_unequal(ranks_with(data.content(tiny, [own]), data.content(tiny, [stale])))
    with pytest.raises(DataError, match=r"ood/mine missing on rank 0"):
        refuse_unequal(ranks_with(data.content(tiny), data.content(tiny, [stale])))


# ------------------------------------------------------------------------------- at a continuation


def test_the_record_holds_the_content_and_a_continuation_is_held_to_it(tiny, tmp_path):
    run = begun(tmp_path, data.content(tiny))
    assert read_record(run.directory)["data"] == data.content(tiny)
    opened(tmp_path).note_data(data.content(tiny))
    again = opened(tmp_path)
    with pytest.raises(DataError) as error:
        again.note_data(data.content(changed(tiny, x_train=192, y_train=192)))
    text = str(error.value)
    assert text.startswith(
        f"{run.directory}: its data have changed: x_train (256, 28, 28, 1) uint8"
    )
    assert "when the run began, (192, 28, 28, 1) uint8" in text
    assert text.endswith("give another run_dir (or output notebook) for a run with the new data")
    assert read_record(run.directory)["data"] == data.content(tiny)


def test_an_older_record_is_read_and_takes_what_it_goes_on_with(tiny, tmp_path):
    run = begun(tmp_path, data.content(tiny))
    path = run.directory / "run.json"
    record = json.loads(path.read_text()) | {"schema": 3}
    del record["data"]
    path.write_text(json.dumps(record))
    assert read_record(run.directory)["data"] is None
    opened(tmp_path).note_data(data.content(tiny))
    assert read_record(run.directory)["data"] == data.content(tiny)


@pytest.mark.parametrize(
    "damaged",
    [
        {"arrays": {}},
        {"num_classes": 10, "scale": 1.0, "arrays": []},
        {"num_classes": 10, "scale": 1.0, "arrays": {"x_train": {"shape": 3}}},
        {"num_classes": 10, "scale": 1.0, "arrays": {"x_train": "no"}},
        {"num_classes": None, "scale": "x", "arrays": {"x_train": {"shape": [], "dtype": 1}}},
    ],
)
def test_a_damaged_content_is_one_kind_of_error(tiny, tmp_path, damaged):
    run = begun(tmp_path, data.content(tiny))
    path = run.directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": damaged}))
    with pytest.raises(RecordError, match="key 'data' is no content of a data set"):
        opened(tmp_path).note_data(data.content(tiny))
    record = json.loads(path.read_text())
    del record["data"]  # the error's advice
    path.write_text(json.dumps(record))
    opened(tmp_path).note_data(data.content(tiny))
    assert read_record(run.directory)["data"] == data.content(tiny)


def test_a_network_is_not_restored_beside_other_data(tiny, tmp_path):
    own = tmp_path / "own.npz"
    save(own, tiny)
    experiment = Experiment(
        model="CNN_FC", dataset=str(own), steps=2, batch_size=32, run_dir=str(tmp_path / "run")
    )
    ranks, session = Ranks(hosts=("here",)), Session()
    run = Run.open(session, experiment, ranks, PROVENANCE)
    dataset = data.load_for(experiment)
    run.note_data(data.content(dataset, [EvaluationSet("noise", tiny.x_test, None)]))
    trainer = Trainer(experiment, dataset, networks.build_for(experiment, dataset), ranks, session)
    run.resume(trainer)
    assert len(list(run.follow(trainer))) == 1
    assert restore(run.directory)[0] == experiment
    save(own, changed(tiny, x_test=40, y_test=40))
    with pytest.raises(DataError, match=r"its data have changed: x_test \(64, "):
        restore(run.directory)


def test_a_run_that_failed_before_training_takes_other_data(tiny, tmp_path):
    run = opened(tmp_path)
    run.note_data(data.content(tiny))
    run.fail({"rank": 0, "type": "OSError", "message": "disk full"})
    fewer = data.content(changed(tiny, x_train=192, y_train=192))
    opened(tmp_path).note_data(fewer)
    assert read_record(run.directory)["data"] == fewer


def test_a_finished_run_is_not_given_out_as_that_of_other_data(tiny, tmp_path):
    run = begun(tmp_path, data.content(tiny))
    path = run.directory / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "finished"}))
    again = opened(tmp_path)
    assert again.is_finished
    again.note_data(data.content(tiny))
    before = path.read_bytes()
    with pytest.raises(DataError, match="its data have changed"):
        again.note_data(data.content(changed(tiny, x_test=40, y_test=40)))
    assert path.read_bytes() == before


# --------------------------------------------------------------------------- classes without images


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (lambda y: y + 1, "the label 0: .* 11 outputs.* count from 1, subtract 1"),
        (lambda y: np.where(y == 4, 5, y), "the label 4: the network has 10 outputs"),
        (lambda y: np.where(y == 9, 30, y), r"the label 9, 10, .*, 18, …: the network has 31 out"),
    ],
    ids=["from one", "a gap", "an ignored label of 30"],
)
def test_a_class_without_a_training_image_is_said_once(tiny, tmp_path, caplog, labels, told):
    y_train, y_test = labels(tiny.y_train), labels(tiny.y_test)
    own = dataclasses.replace(
        tiny, y_train=y_train, y_test=y_test, num_classes=int(y_train.max()) + 1
    )
    with caplog.at_level(logging.WARNING):
        run = begun(tmp_path, data.content(own))
        opened(tmp_path).note_data(data.content(own))
    assert len(caplog.records) == 1
    assert re.search(told, caplog.text)
    assert read_record(run.directory)["data"]["empty_classes"] == own.empty_classes


def test_a_class_that_only_the_test_set_has_is_said(tiny, tmp_path, caplog):
    own = dataclasses.replace(tiny, y_train=np.where(tiny.y_train == 9, 8, tiny.y_train))
    with caplog.at_level(logging.WARNING):
        opened(tmp_path).note_data(data.content(own))
    assert "no training image has the label 9: " in caplog.text
    assert "subtract" not in caplog.text


# -------------------------------------------------- members of groups that are not on this machine


def test_a_missing_member_of_a_group_is_said_once_and_in_the_record(tiny, tmp_path, caplog):
    digits = dataclasses.replace(tiny, name="digits")
    groups = {
        "near": ["fashion_mnist", "kmnist"],
        "far": list(data.OOD_GROUPS["mnist"]["far"].members),
    }
    found = data.content(digits, [], groups)
    with caplog.at_level(logging.WARNING):
        run = begun(tmp_path, found)
        opened(tmp_path).note_data(found)
    (record,) = caplog.records
    assert "the group 'near' without notmnist, which are not on this machine" in record.message
    assert data.ood_remedy("notmnist") in record.message
    assert "'far'" not in record.message  # it is whole
    noted = read_record(run.directory)["data"]["ood_groups"]
    assert noted["near"] == {
        "members": groups["near"],
        "missing": {"notmnist": data.ood_remedy("notmnist")},
    }
    assert noted["far"]["missing"] == {}


# ------------------------------------------------------------------------------------ real launches

QUICK = {
    **{"model": "CNN_FC", "epochs": 2, "batch_size": 32, "log_every": 2, "test_draws": 2},
    **{"dataset": "data.npz"},
}


def save(path, dataset):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez_compressed(path, **{name: getattr(dataset, name) for name in names})


@pytest.mark.ranks
@pytest.mark.parametrize("through", ["notebook", "command"])
def test_two_nodes_with_other_files_refuse_before_training(launch, tiny, tmp_path, through):
    save(tmp_path / "n0" / "data.npz", tiny)
    save(tmp_path / "n1" / "data.npz", changed(tiny, x_train=192, y_train=192))
    (tmp_path / "q.yaml").write_text(json.dumps(QUICK | {"run_dir": str(tmp_path / "run")}))
    words = {
        "notebook": [
            *("papermill", ROOT / "notebooks" / "01_train.ipynb"),
            *(f"rank0:{tmp_path}/run/train.ipynb", "--engine", "spmd", "-f", tmp_path / "q.yaml"),
        ],
        "command": ["python", "-m", "bnnlib", "train", "-f", tmp_path / "q.yaml"],
    }[through]
    nodes = [("-n", 1, "-wdir", tmp_path / name, *words) for name in ("n0", "n1")]
    done = launch("mpiexec", *nodes[0], ":", *nodes[1], environment={"PYTHONPATH": str(ROOT)})
    assert done.returncode != 0
    told = "rank(s) 1 read other data than rank 0: x_train (256,"
    if through == "command":
        assert f"refused: {told}" in done.stderr
        assert not (tmp_path / "run").exists()
    else:
        assert f"DataError: {told}" in done.stderr
        # The executed notebook says it, too; there is no record of what never began.
        assert told in (tmp_path / "run" / "train.ipynb").read_text()
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"failures", "train.ipynb"}
    # Its advice, followed: one file for all.
    shutil.copy(tmp_path / "n0" / "data.npz", tmp_path / "n1" / "data.npz")
    done = launch("mpiexec", *nodes[0], ":", *nodes[1], environment={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "run")["status"] == "finished"
