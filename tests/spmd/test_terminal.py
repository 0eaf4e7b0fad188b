"""No terminal ends a notebook's run or changes its exit code; papermill's output `-` is JSON."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.spmd.notebooks import BIN, write_notebook

CELLS = (
    "import os, subprocess, sys\nprint('réels \\udcff →')\nprint('first', flush=True)",
    "for line in range(2000):\n    print(line, flush=True)",
    "print('réels →', file=sys.stderr)\nsys.stderr.flush()",
    "subprocess.run(['echo', 'a child'])\nimport contextlib\n"
    "with contextlib.suppress(OSError):\n    os.write(1, b'C++\\n')\nprint('last')",
)
PAPERMILL = str(BIN / "papermill")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Runs the cells by a line of bash, in which $RUN is papermill's command."""
    write_notebook(tmp_path / "in.ipynb", *CELLS)

    def bash(line: str, **variables: str) -> Any:
        command = f"{PAPERMILL} in.ipynb rank0:out.ipynb --engine spmd"
        return subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env=os.environ | {"RUN": command, "PAPERMILL": PAPERMILL} | variables,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return bash


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("$RUN | head -n1; exit ${PIPESTATUS[0]}", {}),
        ("$RUN 2>&1 >/dev/null | head -n1; exit ${PIPESTATUS[0]}", {}),
        ("$RUN >/dev/full", {}),  # a full disk
        ("$RUN >/dev/full 2>&1", {}),
        ("$RUN 2>&-", {}),  # closed
        ("$RUN", {"PYTHONIOENCODING": "ascii"}),
        ("$RUN", {"PYTHONIOENCODING": "utf-8"}),  # which lacks half a character
    ],
)
def test_what_the_terminal_does_not_take_is_lost_and_the_run_goes_on(
    run: Callable[..., Any], tmp_path: Path, line: str, variables: dict[str, str]
) -> None:
    done = run(line, **variables)
    assert done.returncode == 0, done.stderr
    nb = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert nb.cells[-1].outputs[-1].text == "last\n"
    assert nb.cells[1].outputs[0].text.endswith("\n1999\n")


def test_a_failing_run_still_fails_without_a_reader(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    write_notebook(tmp_path / "in.ipynb", *CELLS, "1 / 0")
    assert run("$RUN 2>&1 | head -n1; exit ${PIPESTATUS[0]}").returncode == 1
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["error"]["type"]) == ("failed", "ZeroDivisionError")


def test_half_a_character_costs_no_notebook(run: Callable[..., Any], tmp_path: Path) -> None:
    """A file's name that is no UTF-8 has some; a kernel's client shows the sign for it."""
    write_notebook(
        *(tmp_path / "in.ipynb", "print('a\\udcff')", "from IPython.display import display"),
        "display({'text/plain': 'b\\udcff'}, raw=True)",
        "raise ValueError('c\\ud800')",
    )
    assert run("$RUN", PYTHONIOENCODING="utf-8").returncode == 1
    nb = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    assert "a\ufffd\n" in [output.get("text") for output in outputs]
    assert "b\ufffd" in [output.get("data", {}).get("text/plain") for output in outputs]
    assert outputs[-1].evalue == "c\ufffd"


def test_an_encoding_that_lacks_characters_gets_their_escapes(run: Callable[..., Any]) -> None:
    done = run("$RUN", PYTHONIOENCODING="ascii")
    assert r"r\xe9els \udcff \u2192" in done.stdout
    assert r"r\xe9els \u2192" in done.stderr


@pytest.mark.parametrize("output", ["-", "rank0:-"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_notebook_on_standard_output_stands_there_alone(
    run: Callable[..., Any], tmp_path: Path, output: str, fails: bool
) -> None:
    """What cells, their children and C++ print belongs to stderr."""
    write_notebook(tmp_path / "in.ipynb", *CELLS, "1 / 0" if fails else "1")
    done = run(f"$PAPERMILL in.ipynb {output} --engine spmd")
    assert done.returncode == int(fails)
    nb = nbformat.reads(done.stdout, as_version=4)
    # papermill puts two cells on an error above the others.
    assert [o.text for c in nb.cells for o in c.get("outputs", []) if "text" in o][-1] == "last\n"
    for text in ("first\n", "1999\n", "a child\n", "C++\n"):
        assert text in done.stderr


@pytest.mark.ranks
@pytest.mark.parametrize("fails", [False, True])
def test_a_notebook_of_two_ranks_on_standard_output_stands_there_alone(
    run: Callable[..., Any], tmp_path: Path, fails: bool
) -> None:
    write_notebook(tmp_path / "in.ipynb", *CELLS, "1 / 0" if fails else "1")
    done = run(f"{BIN}/mpiexec -n 2 $PAPERMILL in.ipynb rank0:- --engine spmd")
    text = done.stdout[: done.stdout.rindex("}") + 1]  # mpiexec adds words on a failure
    nb = nbformat.reads(text, as_version=4)
    assert [o.text for c in nb.cells for o in c.get("outputs", []) if "text" in o][-1] == "last\n"
    assert (done.returncode != 0) == fails
    assert any(o.output_type == "error" for c in nb.cells for o in c.get("outputs", [])) == fails


def test_a_relative_run_dir_lies_beside_the_notebook_under_another_working_folder(
    tmp_path: Path,
) -> None:
    """papermill's own output path is one of the folder that it was started in, under --cwd too."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    source = write_notebook(
        tmp_path / "in.ipynb",
        ("run_dir: str = ''", "parameters"),
        "from bnnlib.experiment import Experiment\nfrom bnnlib.record.run import run_directory\n"
        "import os\nprint(run_directory(Experiment(run_dir=run_dir), 1), os.getcwd())",
        "1 / 0",
    )
    words = [str(source), "rank0:runs/a/out.ipynb", "--engine", "spmd", "-p", "run_dir", "runs/a"]
    done = subprocess.run(
        [PAPERMILL, *words, "--cwd", str(tmp_path / "there")],
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=60,
    )
    run_dir = tmp_path / "here" / "runs" / "a"
    assert f"{run_dir} {tmp_path / 'there'}" in done.stdout
    assert json.loads((run_dir / "run.json").read_text())["status"] == "failed"
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_the_commands_of_python_m_bnnlib_outlive_their_reader(stream: str) -> None:
    """A broken pipe in the last flush would make Python's exit code 120."""
    script = (
        "import sys\nfrom bnnlib import __main__ as program\n"
        f"program._table = lambda arguments: print('y' * 100_000, file=sys.{stream})\n"
        "sys.exit(program.main(['table', 'x']))\n"
    )
    line = f'{sys.executable} -c "$SCRIPT" 2>&1 | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", line], env=os.environ | {"SCRIPT": script}, capture_output=True, timeout=60
    )
    assert done.returncode == 0
