"""`bnnlib.train`: the notebook's record by one call, in a kernel or a program, without Horovod."""

import inspect
import json
import os
import signal
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import bnnlib
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.record import stopping
from bnnlib.record.checkpoint import latest
from bnnlib.record.predictions import read_predictions
from bnnlib.record.schema import read_record

SMALL = {"model": "BNN_FC_flip", "dataset": "tiny", "steps": 3, "batch_size": 32, "test_draws": 2}
# A kernel whose environment has no Horovod, such as Colab's or a laptop's.
CELLS = [
    "import sys; sys.modules['horovod'] = None",
    "import bnnlib\n"
    f"run = bnnlib.train(progress=False, **{SMALL!r})\n"
    "again = bnnlib.train(progress=False, **{**run.experiment.to_dict(), 'keep_checkpoints': 3})",
    "twin = bnnlib.train(progress=False, model='CNN_FC', dataset='tiny', steps=3)\n"
    "predicted = run.predict(run.dataset.x_test)\n"
    "predicted.to_npz('out.npz'); twin.predict(run.dataset.x_test[0])",
    "import json\n"
    "json.dump([run.metrics, again.metrics, len(run.history), repr(run), repr(twin)], "
    "open('out.json', 'w'))\n"
    "assert 'horovod.tensorflow' not in sys.modules",
    "bnnlib.Experiment(modle='CNN_FC')",
]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The executed notebook of :data:`CELLS`, in a kernel of its own."""
    for name in [name for name in os.environ if name.startswith(("PMI_", "HOROVOD_", "BNN_RUN"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    client = NotebookClient(
        notebook, timeout=300, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    return client.execute()


def test_a_kernel_without_horovod_trains_twice_resumes_and_predicts(kernel, tmp_path):
    outputs = [cell.outputs for cell in kernel.cells]
    errors = [one for of_cell in outputs[:-1] for one in of_cell if one.output_type == "error"]
    assert not errors
    place = str(Experiment(**SMALL).default_run_dir(1))
    stdout = "".join(one.text for one in outputs[1] if one.get("name") == "stdout")
    assert stdout.startswith(f"record: {place}\n")  # when it begins
    record = read_record(tmp_path / place)
    assert (record["status"], record["ranks"], record["horovod"]) == ("finished", 1, {})
    assert len(record["attempts"]) == 1  # the second call found it finished
    metrics, again, lines, shown, twin = json.loads((tmp_path / "out.json").read_text())
    assert metrics == again
    assert {k: v for k, v in metrics.items() if v == v} == {
        k: v for k, v in record["metrics"].items() if v is not None
    }
    assert lines == len((tmp_path / place / "steps.jsonl").read_text().splitlines())
    assert f"<run {place}: BNN_FC_flip on tiny, finished, accuracy " in shown
    assert "CNN_FC on tiny, finished" in twin
    with np.load(tmp_path / "out.npz") as predicted:
        recorded = read_predictions(tmp_path / place)[0]
        assert np.array_equal(predicted["mean_probs"], recorded.mean_probs)
    assert outputs[-1][0].ename == "ExperimentError"
    assert "modle: no such parameter; did you mean model?" in outputs[-1][0].evalue


LONG = {"model": "CNN_FC", "dataset": "tiny", "steps": 800, "checkpoint_steps": 200}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has stopped."""
    return bnnlib.train(run_dir=str(tmp_path_factory.mktemp("whole")), progress=False, **LONG)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_stopped_goes_on_to_the_same_bits(whole, tmp_path, capsys, number):
    before = signal.getsignal(signal.SIGTERM)
    directory = tmp_path / "stopped"

    def send():
        while not any(directory.glob("checkpoints/step-*.npz")):
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        bnnlib.train(run_dir=str(directory), progress=False, **LONG)
    record = read_record(directory)
    assert record["status"] == "stopped"
    if number == signal.SIGTERM:
        assert ended.value.code == stopping.EXIT_CODE
        assert "stopped: SIGTERM, after step" in capsys.readouterr().out
    else:
        assert "interrupted from the keyboard" in record["history"][-1]["what"]
    assert signal.getsignal(signal.SIGTERM) is before

    run = bnnlib.train(run_dir=str(directory), progress=False, **LONG)
    assert run.record["history"][-1]["event"] == "continued"
    assert run.metrics["nll"] == whole.metrics["nll"]
    one, other = (latest(Path(r.path) / "checkpoints") for r in (whole, run))
    for name in (name for name in one if name.startswith("layer")):
        assert np.array_equal(one[name], other[name])


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parameters, told in (
        ({"modle": "CNN_FC"}, r"modle: no such parameter; did you mean model\?"),
        ({"model": "CNN_FX"}, r"model = 'CNN_FX': .*; did you mean CNN_FC\?"),
        ({"dataset": "digit"}, r"dataset = 'digit': .*; did you mean digits\?"),
        ({"epochs": 0}, "epochs = 0: expected greater than 0"),
    ):
        with pytest.raises(ExperimentError, match=told):
            bnnlib.train(**parameters)
    with pytest.raises(ExperimentError, match="expected one Experiment alone"):
        bnnlib.train(Experiment(), epochs=2)
    with pytest.raises(ExperimentError, match="expected one Experiment alone"):
        bnnlib.train("CNN_FC")
    assert not list(tmp_path.iterdir())


def test_a_refused_start_leaves_nothing_and_the_process_lives_on(tmp_path):
    run_dir = str(tmp_path / "run")
    with pytest.raises(Exception, match="no such file"):
        bnnlib.train(dataset=str(tmp_path / "none.npz"), run_dir=run_dir)
    assert not list(tmp_path.iterdir())
    with pytest.raises(Exception, match="learning_rate"):  # it diverges, and so has begun
        bnnlib.train(**SMALL | {"learning_rate": 1e30}, run_dir=str(tmp_path / "bad"))
    assert read_record(tmp_path / "bad")["status"] == "failed"
    run = bnnlib.train(Experiment(**SMALL, run_dir=run_dir), progress=False)
    assert run.record["status"] == "finished"
    with pytest.raises(RecordError, match="holds a run with other parameters: seed"):
        bnnlib.train(**SMALL, seed=1, run_dir=run_dir, progress=False)
    assert read_record(run_dir)["status"] == "finished"


def test_runs_inside_a_notebooks_run_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("BNN_RUN_DIR", str(tmp_path / "notebook"))
    monkeypatch.setenv("BNN_START_DIR", str(tmp_path))
    run = bnnlib.train(**SMALL, progress=False)
    assert run.path == tmp_path / run.experiment.default_run_dir(1)
    assert not (tmp_path / "notebook").exists()


def test_its_signature_shows_every_parameter():
    shown = inspect.signature(bnnlib.train).parameters
    assert list(shown) == ["experiment", "progress", *Experiment.names()]
    assert shown["batch_size"].default == 64
