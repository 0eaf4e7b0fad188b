"""Parameters on papermill's command line: text as typed, papermill's own names, strict JSON."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.spmd.notebooks import BIN, execute, write_notebook


def refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def strict(path: Path) -> Any:
    """A notebook, read by a parser that knows no NaN and Infinity."""
    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def shown(tmp_path: Path) -> Callable[..., str]:
    """Runs a notebook by papermill's command; what it shows of its parameters."""
    cell = "run_dir: str = ''\nrate: float = 0.1\nsteps: int = 1\nname = 'untyped'"
    write_notebook(tmp_path / "in.ipynb", (cell, "parameters"), "run_dir, rate, steps, name")

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(BIN / "papermill"), "in.ipynb", "out.ipynb", "--engine", "spmd", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        nb = strict(tmp_path / "out.ipynb")
        return "".join(nb["cells"][-1]["outputs"][0]["data"]["text/plain"])

    return run


@pytest.mark.parametrize("text", ["20241127", "2024_11_27", "007", "1e3", "True", "None", "x"])
def test_text_stays_as_typed(shown: Callable[..., str], tmp_path: Path, text: str) -> None:
    expected = f"('{text}', 0.1, 2, 'untyped')"
    assert shown("-p", "run_dir", text, "-p", "steps", "2") == expected
    parameters = strict(tmp_path / "out.ipynb")["metadata"]["papermill"]["parameters"]
    assert parameters == {"run_dir": text, "steps": 2}


def test_text_in_yaml_stays_as_typed_and_the_last_one_counts(
    shown: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "f.yaml").write_text("run_dir: 2024_11_27\nrate: 1.0e-3\n")
    assert shown("-f", "f.yaml") == "('2024_11_27', 0.001, 1, 'untyped')"
    assert shown("-f", "f.yaml", "-y", "run_dir: 12:30") == "('12:30', 0.001, 1, 'untyped')"
    assert shown("-f", "f.yaml", "-p", "run_dir", "07") == "('07', 0.001, 1, 'untyped')"
    assert shown("-p", "run_dir", "07", "-r", "run_dir", "08") == "('08', 0.1, 1, 'untyped')"


def test_papermills_own_names_pass(shown: Callable[..., str]) -> None:
    assert shown("--inject-paths") == "('', 0.1, 1, 'untyped')"


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_json_lacks_is_written_as_jupyter_does(
    shown: Callable[..., str], tmp_path: Path, number: str
) -> None:
    assert shown("-p", "rate", number) == f"('', {number}, 1, 'untyped')"
    parameters = strict(tmp_path / "out.ipynb")["metadata"]["papermill"]["parameters"]
    assert parameters == {"rate": number}


def test_a_notebook_that_another_tool_left_with_nan_becomes_strict(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", "1")
    nb = json.loads(source.read_text())
    nb["metadata"]["other"] = nb["cells"][0]["metadata"]["other"] = [{"x": float("nan")}]
    source.write_text(json.dumps(nb))
    execute(source, tmp_path / "out.ipynb")
    assert strict(tmp_path / "out.ipynb")["metadata"]["other"] == [{"x": "nan"}]


SHOWN = """
import datetime, enum, pathlib
import numpy as np
from IPython.display import JSON, display
class Colour(enum.IntEnum):
    RED = 1
try:
    display(JSON({{"value": {value}}}))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    "value",
    [
        "datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)",
        "datetime.date(2024, 1, 2)",
        "np.int64(3)",
        "np.float32(0.5)",
        "float('nan')",
        "[float('inf'), -np.inf]",
        "{1, 2}",
        "b'bytes'",
        "np.arange(3)",
        "Colour.RED",
        "range(2)",
        "{1: 'a'}",
        "1j",  # an error there, too
        "pathlib.Path('a')",
        "{1: 'a', '1': 'b'}",
    ],
)
def test_a_cell_shows_what_a_kernel_shows(
    tmp_path: Path, kernels: dict[str, Any], value: str
) -> None:
    source = write_notebook(tmp_path / "in.ipynb", SHOWN.format(value=value))
    execute(source, tmp_path / "out.ipynb")
    (cell,) = strict(tmp_path / "out.ipynb")["cells"]
    assert outcome(cell) == kernels[value]


def outcome(cell: dict[str, Any]) -> list[Any]:
    """What a cell displays, or the error's name."""
    return [o.get("data", o.get("text")) for o in cell["outputs"] if o.get("name") != "stderr"]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same by a kernel, all in one notebook."""
    (mark,) = (m for m in test_a_cell_shows_what_a_kernel_shows.pytestmark)
    values = mark.args[1]
    folder = tmp_path_factory.mktemp("kernel")
    cells = [SHOWN.format(value=value) for value in values]
    write_notebook(folder / "in.ipynb", *cells)
    execute(folder / "in.ipynb", folder / "out.ipynb", engine="nbclient")
    nb = json.loads((folder / "out.ipynb").read_text())
    return {v: outcome(cell) for v, cell in zip(values, nb["cells"], strict=True)}


def test_one_event_loop_serves_the_whole_notebook(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "in.ipynb",
        "import asyncio\nasync def late():\n    await asyncio.sleep(0.05)\n    return 7\n"
        "task = asyncio.ensure_future(late())\nqueue = asyncio.Queue()",
        "loop = asyncio.get_running_loop()\nloop.call_later(0.05, queue.put_nowait, 8)",
        "(await task, await queue.get(), asyncio.get_event_loop() is loop)",
    )
    nb = execute(source, tmp_path / "out.ipynb")
    assert nb.cells[-1].outputs[0].data["text/plain"] == "(7, 8, True)"
