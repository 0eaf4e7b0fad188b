"""papermill's own engine, whose cells run in a kernel, where `rank0:` writes the notebook."""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from bnnlib.errors import DistributedError, ExperimentError, RecordError
from bnnlib.experiment import Experiment
from bnnlib.record.failure import record_failure
from tests.conftest import ROOT
from tests.spmd.notebooks import BIN, PARAMETERS, execute, write_notebook

# As the training notebook has it: the engine checks the parameters of an experiment.
EXPERIMENT = (Experiment.parameters_cell(), "parameters")
SHOW = "import os; print(os.environ.get('BNN_RUN_DIR'), os.environ.get('BNN_START_DIR'))"
ENGINES = ["spmd", "nbclient"]


def papermill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "papermill"), "in.ipynb", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def shown(path: Path) -> str:
    nb = nbformat.read(path, as_version=4)
    return "".join(output.text for output in nb.cells[-1].outputs)


def test_the_command_tells_the_kernel_the_notebooks_folder_and_says_nothing_else(
    tmp_path: Path,
) -> None:
    write_notebook(tmp_path / "in.ipynb", SHOW)
    done = papermill(tmp_path, "rank0:runs/mine/conv/train.ipynb", "--no-progress-bar")
    assert done.returncode == 0, done.stderr
    assert shown(tmp_path / "runs/mine/conv/train.ipynb") == f"{tmp_path}/runs/mine/conv None\n"
    # jupyter_client interrupts the idle kernel at its end, and ipykernel sometimes says so.
    said = [line for line in done.stderr.splitlines() if "KeyboardInterrupt caught in" not in line]
    assert said == [
        "Input Notebook:  in.ipynb",
        "Output Notebook: rank0:runs/mine/conv/train.ipynb",
        "Executing notebook with kernel: python3",
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_one_process_tells_each_notebook_its_own_folder(tmp_path: Path, engine: str) -> None:
    source, elsewhere = write_notebook(tmp_path / "in.ipynb", SHOW), tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = dict(os.environ)
    with contextlib.chdir(tmp_path):
        execute(source, "rank0:a/out.ipynb", engine=engine)
        execute(source, "rank0:b/out.ipynb", engine=engine, cwd=elsewhere)
    assert dict(os.environ) == before
    assert shown(tmp_path / "a" / "out.ipynb") == f"{tmp_path}/a None\n"
    assert shown(tmp_path / "b" / "out.ipynb") == f"{tmp_path}/b {tmp_path}\n"


def test_without_rank0_papermills_own_engine_is_left_as_it_is(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, SHOW)
    execute(source, f"rank0:{tmp_path / 'first' / 'out.ipynb'}", engine="nbclient")
    execute(source, tmp_path / "out.ipynb", engine="nbclient", parameters={"modle": "x"})
    assert shown(tmp_path / "out.ipynb") == "None None\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_under_papermill_paths_stay_those_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """With `rank0:` and without; JupyterLab's kernels go to the repository's top instead."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "jobs" / "local").mkdir(parents=True)
    (tmp_path / "jobs" / "local" / "site.sh").touch()
    (folder := tmp_path / "notebooks").mkdir()
    settle = "from bnnlib.interactive.place import settle_paths\nsettle_paths()"
    source = write_notebook(tmp_path / "in.ipynb", f"import os\n{settle}\nprint(os.getcwd())")
    for prefix in ("", "rank0:"):
        execute(source, f"{prefix}{tmp_path / 'out.ipynb'}", engine=engine, cwd=folder)
        assert shown(tmp_path / "out.ipynb") == f"{folder}\n"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"modle": "CNN_FC"}, "'modle' is unknown: did you mean 'model'?"),
        ({"batch_size": 0}, "batch_size = 0: expected greater than 0"),
        ({"model": "missing.py:network"}, "'missing.py:network': no readable file"),
    ],
    ids=["name", "value", "file"],
)
def test_a_refused_start_leaves_nothing(
    tmp_path: Path, engine: str, parameters: dict[str, Any], message: str
) -> None:
    source = write_notebook(tmp_path / "in.ipynb", EXPERIMENT, "print('never')")
    output = f"rank0:{tmp_path / 'new' / 'out.ipynb'}"
    with pytest.raises(ExperimentError) as error:
        execute(source, output, engine=engine, parameters=parameters)
    assert message in str(error.value)
    assert os.listdir(tmp_path) == ["in.ipynb"]


@pytest.mark.parametrize("engine", [["--engine", "spmd"], []], ids=ENGINES)
def test_the_command_says_in_one_line_why_it_refuses(tmp_path: Path, engine: list[str]) -> None:
    write_notebook(tmp_path / "in.ipynb", EXPERIMENT, "print('never')")
    done = papermill(tmp_path, "rank0:new/out.ipynb", *engine, "-p", "epochs", "many")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[2:]  # after papermill's own two
    assert line.startswith("Error: ExperimentError: epochs = 'many': expected a whole number")
    assert os.listdir(tmp_path) == ["in.ipynb"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_of_other_parameters_keeps_its_notebook_too(tmp_path: Path, engine: str) -> None:
    source = write_notebook(tmp_path / "in.ipynb", EXPERIMENT, "print('never')")
    (run := tmp_path / "run").mkdir()
    (run / "train.ipynb").write_text("the executed one")
    record_failure(run, Experiment(seed=3).to_dict(), {"rank": 0, "type": "", "message": ""})
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "finished"}))
    with pytest.raises(RecordError, match=r"other parameters: seed \(3 there, 0 now\)"):
        execute(source, f"rank0:{run / 'train.ipynb'}", engine=engine)
    assert (run / "train.ipynb").read_text() == "the executed one"
    assert sorted(os.listdir(run)) == ["run.json", "train.ipynb"]


OPEN = """
from bnnlib.experiment import Experiment
from bnnlib.record import provenance
from bnnlib.record.run import Run
from bnnlib.session import Session
from tests.spmd.notebooks import Alone

session = Session.of(globals())
run = Run.open(session, Experiment.from_namespace(globals()), Alone(), provenance.collect())
print(run.directory)
"""
REFUSE = "from bnnlib.errors import DataError\nraise DataError('no such file')"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_start_that_a_cell_refuses_leaves_the_executed_notebook_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """papermill keeps what it has executed, with the error; no record says that a run began."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = write_notebook(tmp_path / "in.ipynb", EXPERIMENT, OPEN, REFUSE)
    output = tmp_path / "new" / "out.ipynb"
    for parameters in ({}, {"run_dir": str(tmp_path / "elsewhere")}):
        with pytest.raises(PapermillExecutionError, match="no such file"):
            execute(source, f"rank0:{output}", engine=engine, parameters=parameters)
        assert "DataError" in output.read_text()
        assert sorted(os.listdir(tmp_path)) == ["in.ipynb", "new"]
        assert os.listdir(tmp_path / "new") == ["out.ipynb"]


def test_a_kernel_that_cannot_join_mpi_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_notebook(tmp_path / "in.ipynb", "print('never')")
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_FD", "5")

    def left(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("bnnlib.spmd.start.leave", left)
    with pytest.raises(SystemExit):
        execute(source, f"rank0:{tmp_path / 'new' / 'out.ipynb'}", engine="nbclient")
    assert f"{DistributedError.__name__}: 2 ranks of MPI" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.ipynb"]
