"""Whole runs at 2 ranks as a user starts them: those that succeed, and those that must end well.

`launch` starts the commands of the README and fails where one hangs or leaves a process behind. The
study of the fixture holds the runs under MPICH that others are compared with.
"""

import datetime
import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest

from bnnlib.experiment import Experiment
from bnnlib.record import checkpoint
from bnnlib.record.logs import read_steps
from bnnlib.record.predictions import read_predictions
from bnnlib.record.schema import read_record
from bnnlib.record.summary import closing_line

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "01_train.ipynb"
TINY = ROOT / "jobs" / "params" / "tiny.yaml"
RANKS = {
    "mpiexec": ("mpiexec", "-n", "2"),
    "horovodrun": ("horovodrun", "-n", "2", "-H", "localhost:2"),
}
SIX = ["CNN_FC", "BNN_FC_nonflip", "BNN_FC_flip", "CNN_conv", "BNN_conv_nonflip", "BNN_conv_flip"]
# From a rank's failure to the end of all processes, seconds.
WITHIN = 30

pytestmark = [pytest.mark.ranks, pytest.mark.long]


def train(launch, launcher, folder, *parameters, notebook=NOTEBOOK, **keywords):
    """The notebook at 2 ranks on tiny data, its record and executed copy in `folder`."""
    output = f"rank0:{folder / 'train.ipynb'}"
    words = [*RANKS[launcher], "papermill", notebook, output, "--engine", "spmd", "-f", TINY]
    for name, value in parameters:
        words += ["-p", name, value]
    return launch(*words, **keywords)


def plain(text: str) -> list[str]:
    """Lines of stderr without horovodrun's `[rank]<stderr>:` and the ranks' own `[rank r] `."""
    marks = r"\[\d\]<std(?:err|out)>:|^\[rank \d\] "
    return [re.sub(marks, "", line).strip() for line in re.split(r"[\n\r]", text)]


def final_state(directory: Path) -> dict[str, np.ndarray]:
    """Weights, Adam's moments and the step at the run's end."""
    state = checkpoint.latest(directory / "checkpoints")
    assert state is not None
    return state


def assert_same_state(one: Path, other: Path) -> None:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    assert any(name.startswith("layer") for name in first)
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes(), name


def files(directory: Path) -> dict[str, bytes]:
    """Everything of a record but the executed notebook and the notes on failures."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "train.ipynb" and path.parent.name != "failures"
    }


def marked(notebook: Path) -> nbformat.NotebookNode:
    """The failed cell of an executed notebook that papermill has marked as failed."""
    nb = nbformat.read(notebook, as_version=4)
    assert nb.metadata.papermill.exception is True
    assert "An Exception was encountered" in nb.cells[0].source
    assert sum('id="papermill-error-cell"' in cell.source for cell in nb.cells) == 1
    failed = [
        cell for cell in nb.cells if cell.metadata.get("papermill", {}).get("status") == "failed"
    ]
    assert len(failed) == 1
    return failed[0]


# ---------------------------------------------------------------------------------------- success


@pytest.fixture(scope="session")
def gloo(launch, tmp_path_factory) -> Path:
    """The study's BNN_conv_flip once more, under plain horovodrun."""
    folder = tmp_path_factory.mktemp("gloo")
    done = train(launch, "horovodrun", folder, ("model", "BNN_conv_flip"))
    assert done.returncode == 0, done.stderr
    return folder


def assert_complete(directory: Path, model: str) -> None:
    record = read_record(directory)
    assert record["status"] == "finished"
    assert record["error"] is None
    assert record["ranks"] == 2
    assert list(record["parameters"]) == Experiment.names()
    assert (record["parameters"]["model"], record["parameters"]["dataset"]) == (model, "tiny")
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"] or "")
    assert all(record["versions"].values())
    started, ended = (datetime.datetime.fromisoformat(record[k]) for k in ("started", "ended"))
    assert datetime.timedelta(0) <= ended - started < datetime.timedelta(minutes=15)
    metrics = record["metrics"]
    assert metrics["steps_done"] == 8
    assert 0 <= metrics["accuracy"] <= 1
    assert metrics["images_per_second"] > 0
    assert (metrics["kl"] > 0) == model.startswith("BNN")
    assert [line.step for line in read_steps(directory)] == [2, 4, 6, 8]

    prediction, labels = read_predictions(directory)
    assert prediction.mean_probs.shape == (64, 10)
    assert prediction.mean_probs.dtype == np.float32
    np.testing.assert_allclose(prediction.mean_probs.sum(axis=1), 1, atol=1e-5)
    assert prediction.expected_entropy.shape == (64,)
    assert prediction.expected_entropy.dtype == np.float32
    assert (labels.shape, labels.dtype) == ((64,), np.int64)
    # The record's score is that of the stored predictions.
    right = prediction.mean_probs.argmax(axis=1) == labels
    assert metrics["accuracy"] == pytest.approx(right.mean())
    names = {"run.json", "steps.jsonl", "predictions.npz", "checkpoints", "train.ipynb"}
    found = {path.name for path in directory.iterdir()}
    assert names <= found
    assert "failures" not in found
    assert not [name for name in found if name.startswith(".")], "a temporary file was left"


@pytest.mark.parametrize("model", SIX)
def test_the_record_is_complete_under_mpich(study, model):
    assert_complete(study.runs / model, model)
    record = read_record(study.runs / model)
    assert (record["launcher"], record["horovod"]["controller"]) == ("mpich", "mpi")


def test_the_record_is_complete_under_plain_horovodrun(gloo):
    assert_complete(gloo, "BNN_conv_flip")
    record = read_record(gloo)
    assert (record["launcher"], record["horovod"]["controller"]) == ("horovodrun", "gloo")


def test_both_launchers_give_the_same_weights_and_predictions(study, gloo):
    mpich = study.runs / "BNN_conv_flip"
    assert_same_state(mpich, gloo)
    one, other = (read_predictions(path)[0] for path in (mpich, gloo))
    assert one.mean_probs.tobytes() == other.mean_probs.tobytes()
    assert one.expected_entropy.tobytes() == other.expected_entropy.tobytes()


def test_a_users_own_images_train_alone(launch, tmp_path):
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, size=(3, 12, 12))

    def draw(count):
        labels = np.arange(count) % 3
        noise = random.integers(-40, 41, size=(count, 12, 12))
        return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = draw(300), draw(40)
    source = tmp_path / "mine.npz"
    np.savez(source, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    folder = tmp_path / "run"
    words = [
        "papermill",
        NOTEBOOK,
        f"rank0:{folder / 'train.ipynb'}",
        "--engine",
        "spmd",
        "-p",
        "dataset",
    ]
    done = launch(*words, source, "-p", "steps", "60", "-p", "batch_size", "30")
    assert done.returncode == 0, done.stderr
    record = read_record(folder)
    assert (record["status"], record["ranks"]) == ("finished", 1)
    prediction, labels = read_predictions(folder)
    assert prediction.mean_probs.shape == (40, 3)
    np.testing.assert_array_equal(labels, y_test)
    assert record["metrics"]["accuracy"] > 0.9  # three patterns under a little noise


# --------------------------------------------------------------------------------------- failures


# These end before Horovod starts: what is to be seen is that each launcher ends with the ranks.
@pytest.mark.parametrize(
    ("launcher", "name", "value", "sentence"),
    [
        ("horovodrun", "modle", "x", "Parameter 'modle' is unknown: did you mean 'model'?"),
        ("mpiexec", "batch_size", "0", "batch_size = 0: expected greater than 0"),
    ],
    ids=["unknown", "bad"],
)
def test_a_wrong_parameter_ends_all_ranks_and_leaves_nothing(
    launch, tmp_path, launcher, name, value, sentence
):
    done = train(launch, launcher, tmp_path / "new", (name, value))
    assert done.returncode != 0
    told = [line for line in plain(done.stderr) if sentence in line]
    assert len(told) == 1
    assert told[0].startswith(f"ExperimentError: {sentence}")
    assert not (tmp_path / "new").exists()


# A cell before the training: the rank that a variable names fails once it has logged step 6, when
# the checkpoint of step 4 lies on the disk and the others wait for it in step 7.
FAIL_IN_TRAINING = """\
import os

if os.environ.get("FAILING_RANK") == str(ranks.rank):
    log = run.log

    def log_and_fail(line):
        log(line)
        if line.step >= 6:
            raise OSError("the disk of one rank is gone")

    run.log = log_and_fail
"""


@pytest.fixture(scope="session")
def failing_notebook(tmp_path_factory) -> Path:
    """The training notebook with a cell that lets one rank fail."""
    nb = nbformat.read(NOTEBOOK, as_version=4)
    at = next(i for i, cell in enumerate(nb.cells) if "Trainer(" in cell.source)
    nb.cells.insert(at, nbformat.v4.new_code_cell(FAIL_IN_TRAINING))
    path = tmp_path_factory.mktemp("failing") / "01_train.ipynb"
    nbformat.write(nb, path)
    return path


def train_failing(launch, launcher, notebook, folder, **environment):
    return train(
        launch,
        launcher,
        folder,
        ("model", "BNN_FC_flip"),
        notebook=notebook,
        environment=environment,
    )


def assert_rank_1_failed(done, folder: Path) -> None:
    assert done.returncode != 0
    sentence = "OSError: the disk of one rank is gone"
    assert sentence in plain(done.stderr)
    assert "rank 1 of 2 failed; rank 0 stopped in In" in done.stderr

    failure = json.loads((folder / "failures" / "rank1.json").read_text())
    failed = datetime.datetime.fromisoformat(failure["time"]).timestamp()
    assert 0 < done.ended - failed < WITHIN
    record = read_record(folder)
    assert record["status"] == "failed"
    error = record["error"]
    assert (error["rank"], f"{error['type']}: {error['message']}") == (1, sentence)
    cell = marked(folder / "train.ipynb")
    assert "Trainer(" in cell.source
    cause = next(o for o in cell.outputs if o.output_type == "error")
    assert f"{cause.ename}: {cause.evalue}" == sentence
    assert all(line.startswith("rank 1: ") for line in cause.traceback)
    steps = [line.step for line in read_steps(folder)]
    assert steps in ([2, 4], [2, 4, 6])  # rank 0 may have stood on either side of step 6
    assert int(final_state(folder)["step"]) == 4


def test_a_failure_on_one_rank_ends_all_under_horovodrun(launch, failing_notebook, tmp_path):
    done = train_failing(launch, "horovodrun", failing_notebook, tmp_path, FAILING_RANK="1")
    assert_rank_1_failed(done, tmp_path)


def test_a_failure_on_one_rank_ends_all_under_mpiexec_and_the_same_command_goes_on(
    launch, study, failing_notebook, tmp_path
):
    done = train_failing(launch, "mpiexec", failing_notebook, tmp_path, FAILING_RANK="1")
    assert_rank_1_failed(done, tmp_path)
    record = read_record(tmp_path)
    steps = {line.step: line for line in read_steps(tmp_path)}

    # From the checkpoint to the end, and no step twice.
    done = train_failing(launch, "mpiexec", failing_notebook, tmp_path)
    assert done.returncode == 0, done.stderr
    again = read_record(tmp_path)
    assert (again["status"], again["error"]) == ("finished", None)
    assert again["started"] == record["started"]
    resumed = read_steps(tmp_path)
    assert [line.step for line in resumed] == [2, 4, 6, 8]
    assert resumed[:2] == [steps[2], steps[4]]  # times and all: these were not trained again
    assert re.search(r" 4/8 \[00:00<", done.stderr), "the bar does not start at the checkpoint"
    nb = nbformat.read(tmp_path / "train.ipynb", as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    # Bit for bit what a run without the failure gives.
    assert_same_state(tmp_path, study.runs / "BNN_FC_flip")


def test_a_directory_with_other_parameters_is_refused_unharmed(launch, study, tmp_path):
    folder = tmp_path / "CNN_FC"
    shutil.copytree(study.runs / "CNN_FC", folder)
    before, notebook = files(folder), (folder / "train.ipynb").read_bytes()
    done = train(launch, "mpiexec", folder, ("model", "CNN_FC"), ("seed", "1"))
    assert done.returncode != 0
    sentence = f"{folder}: holds a run with other parameters: seed (0 there, 1 now). "
    assert any(line.startswith(f"RecordError: {sentence}") for line in plain(done.stderr))
    assert files(folder) == before
    assert (folder / "train.ipynb").read_bytes() == notebook
    assert not (folder / "failures").exists()


# -------------------------------------------------------------------- the original study's command


def flagfile(folder: Path, **changes: str) -> Path:
    """The sample config with some of its flags changed."""
    text = (ROOT / "jobs" / "local" / "original_study.cfg").read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"^--{name}=.*$", f"--{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, name
    path = folder / "config.cfg"
    path.write_text(text)
    return path


def start_flagfile(launch, path: Path):
    words = ["python", "-m", "bnnlib.training", f"--flagfile={path}"]
    return launch(*RANKS["horovodrun"], *words)


def test_the_original_studys_command_leaves_the_notebooks_record(launch, study, tmp_path):
    path = flagfile(
        tmp_path,
        bnnConv="BNN_FC_flip",
        data_dir="tiny",
        model_data=str(tmp_path / "runs"),
        epochs="2",
        batch_size="32",
        print_step="2",
    )
    done = start_flagfile(launch, path)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "runs" / "BNN_FC_flip"
    ours, notebooks = (read_record(d) for d in (directory, study.runs / "BNN_FC_flip"))
    assert ours["status"] == "finished"
    assert ours["ranks"] == 2
    for key in (None, "parameters", "metrics", "versions", "horovod"):
        one, other = (record[key] if key else record for record in (ours, notebooks))
        assert list(one) == list(other)
    expected = files(study.runs / "BNN_FC_flip")
    assert files(directory).keys() == expected.keys()
    with (
        np.load(directory / "predictions.npz") as one,
        np.load(study.runs / "BNN_FC_flip" / "predictions.npz") as other,
    ):
        # The notebook's group has more evaluation sets; the original study had the test set alone.
        of_test = {name: other[name].dtype for name in other if name.startswith("test/")}
        assert {name: one[name].dtype for name in one} == of_test
        assert one["test/mean_probs"].shape == other["test/mean_probs"].shape == (64, 10)
    assert [line.step for line in read_steps(directory)] == [2, 4, 6, 8]
    # It begins with the record's path and ends with what came of the run.
    told = [line.removeprefix("[0]<stdout>:") for line in done.stdout.splitlines() if line]
    assert told[0] == f"record: {directory}"
    assert told[-1] == closing_line(directory)


def test_a_wrong_flag_ends_all_ranks(launch, tmp_path):
    """Rank 0 says why, also where it comes after another rank."""
    path = flagfile(tmp_path, data_dir="tiny", model_data=str(tmp_path / "runs"))
    path.write_text(f"{path.read_text()}--bacth_size=64\n")
    late = ("bash", "-c", '[ "$HOROVOD_RANK" != 0 ] || sleep 2; exec "$@"', "bash")
    words = ("python", "-m", "bnnlib.training", f"--flagfile={path}")
    done = launch(*RANKS["horovodrun"], *late, *words)
    assert done.returncode != 0
    sentence = f"--flagfile={path}: bacth_size: no such flag; did you mean batch_size?"
    start = f"python -m bnnlib.training: {sentence}"
    assert sum(told.startswith(start) for told in plain(done.stderr)) == 1
    assert not (tmp_path / "runs").exists()
