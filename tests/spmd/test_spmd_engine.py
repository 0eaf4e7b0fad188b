"""The engine alone: what papermill gets from it, and what it refuses."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io

from bnnlib import spmd
from bnnlib.errors import DistributedError, ExperimentError
from tests.spmd.notebooks import PARAMETERS, execute, write_notebook


def test_a_failed_cell_alone_has_papermills_marks_and_leaves_the_process_as_it_was(
    tmp_path: Path,
) -> None:
    before = (sys.stdout, sys.stderr, sys.stdin, sys.path, sys.displayhook, dict(os.environ))
    main = sys.modules["__main__"]
    source = write_notebook(tmp_path / "in.ipynb", "1 + 1", "int('x')", "print('never')")
    output = tmp_path / "new" / "folder" / "out.ipynb"
    with pytest.raises(PapermillExecutionError, match="invalid literal"):
        execute(source, f"rank0:{output}")
    nb = nbformat.read(output, as_version=4)
    assert "An Exception was encountered at" in nb.cells[0].source
    assert "papermill-error-cell" in nb.cells[2].source
    assert nb.metadata.papermill.exception is True
    assert [c.metadata.papermill.status for c in nb.cells if c.cell_type == "code"] == [
        "completed",
        "failed",
        "pending",
    ]
    assert nb.cells[3].metadata.papermill.duration >= 0
    record = json.loads((output.parent / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"]["type"] == "ValueError"
    after = (sys.stdout, sys.stderr, sys.stdin, sys.path, sys.displayhook, dict(os.environ))
    assert after == before
    assert sys.modules["__main__"] is main


def test_leaving_a_cell_with_status_0_is_success_as_for_papermill(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", "import sys; sys.exit(0)", "print('never')")
    nb = execute(source, tmp_path / "out.ipynb")
    assert nb.cells[1].outputs == []
    source = write_notebook(tmp_path / "in.ipynb", "import sys; sys.exit(3)")
    with pytest.raises(PapermillExecutionError, match="SystemExit"):
        execute(source, tmp_path / "out.ipynb")


def test_cells_know_the_runs_folder_and_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "own_module_here.py").write_text("value = 5\n")
    source = write_notebook(
        tmp_path / "in.ipynb",
        "import os; print(os.environ['BNN_RUN_DIR']); print(os.getcwd())",
        "import own_module_here; own_module_here.value",
    )
    with contextlib.chdir(tmp_path):
        nb = execute(source, "rank0:runs/demo/train.ipynb", cwd=tmp_path / "elsewhere")
    assert nb.cells[0].outputs[0].text.split() == [
        str(tmp_path / "runs" / "demo"),
        str(tmp_path / "elsewhere"),
    ]
    assert nb.cells[1].outputs[0].data["text/plain"] == "5"
    assert (tmp_path / "runs" / "demo" / "train.ipynb").exists()
    assert not list((tmp_path / "runs" / "demo").glob(".*")), "a temporary file was left"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"modle": "x"}, ["'modle' is unknown", "did you mean 'model'?", "--help-notebook"]),
        ({"zzz": 1, "steps": 2}, ["'zzz' is unknown.", "--help-notebook"]),
    ],
)
def test_an_unknown_parameter_ends_the_run_before_anything_is_written(
    tmp_path: Path, parameters: dict[str, Any], words: list[str]
) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, "print('never')")
    with pytest.raises(ExperimentError) as error:
        execute(source, tmp_path / "out.ipynb", parameters=parameters)
    for word in words:
        assert word in str(error.value)
    assert os.listdir(tmp_path) == ["in.ipynb"]


def test_known_parameters_pass(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, "model, steps")
    nb = execute(source, tmp_path / "out.ipynb", parameters={"model": "m", "steps": 4})
    assert nb.cells[2].outputs[0].data["text/plain"] == "('m', 4)"


def test_what_the_engine_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_notebook(tmp_path / "in.ipynb", "1")
    with pytest.raises(DistributedError, match="execution-timeout 5 is not supported"):
        execute(source, tmp_path / "out.ipynb", execution_timeout=5)
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(DistributedError, match=r"2 ranks would all write .* as rank0:"):
        execute(source, tmp_path / "out.ipynb")


def test_papermill_finds_both_by_their_entry_points() -> None:
    engines = importlib.metadata.entry_points(group="papermill.engine")
    handlers = importlib.metadata.entry_points(group="papermill.io")
    assert engines["spmd"].load() is spmd.SpmdEngine
    assert handlers["rank0:"].load() is spmd.Rank0Handler
    assert papermill_io.get_handler("rank0:some.ipynb") is spmd.Rank0Handler


def test_no_process_is_started(tmp_path: Path) -> None:
    # A process started after MPI is up breaks MPI on a Cray.
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, "print(model)", "1 / 0")
    code = f"""
import sys, papermill
started = []
names = ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "subprocess.Popen")
sys.addaudithook(lambda event, args: started.append(args) if event in names else None)
try:
    papermill.execute_notebook({str(source)!r}, None, engine_name="spmd", progress_bar=False)
except papermill.exceptions.PapermillExecutionError as error:
    assert error.ename == "ZeroDivisionError"
else:
    raise AssertionError("the cell did not fail")
assert not started, started
import os
os.system("true")
assert started, "the hook sees nothing"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
