"""Small notebooks for the tests of this folder: written, executed, and started on two ranks."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill

BIN = Path(sys.executable).parent


class Alone:
    """The one rank of a run, without TensorFlow: as much as a record's start asks of it."""

    rank, size, local_rank, local_size, threads, cores, hosts = 0, 1, 0, 1, 1, 1, ("here",)

    def agree(self, action: Callable[[], Any]) -> Any:
        return action()

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def build_info(self) -> dict[str, Any]:
        return {}


PARAMETERS = ("model = 'CNN_FC'  # a name\nsteps: int = 3  # a = b is no trap", "parameters")


def write_notebook(path: Path, *cells: str | tuple[str, ...]) -> Path:
    """Write a notebook of code cells, each its source or a tuple of source and tags."""
    v4 = nbformat.v4
    nodes = []
    for cell in cells:
        source, *tags = (cell,) if isinstance(cell, str) else cell
        nodes.append(v4.new_code_cell(source, metadata={"tags": tags}))
    metadata = {
        "kernelspec": {"name": "python3", "language": "python", "display_name": "Python"},
        "language_info": {"name": "python"},
    }
    nbformat.write(v4.new_notebook(cells=nodes, metadata=metadata), path)
    return path


def execute(source: Path, output: str | Path, engine: str = "spmd", **keywords: Any) -> Any:
    return papermill.execute_notebook(
        str(source), str(output), engine_name=engine, progress_bar=False, **keywords
    )


def outputs(cell: Any) -> list[dict[str, Any]]:
    """A cell's outputs with neighbours of one stream merged, which nbclient leaves apart."""
    merged: list[dict[str, Any]] = []
    for output in cell.outputs:
        output = dict(output)
        last = merged[-1] if merged else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def start(launch: list[str], source: Path, output: Path, *arguments: str) -> Any:
    command = [*launch, str(BIN / "papermill"), str(source), f"rank0:{output}", "--engine", "spmd"]
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def assert_nothing_left(marker: Path) -> None:
    """No process whose command line names `marker` is left, a moment after the launcher's end."""
    deadline = time.monotonic() + 10
    while True:
        left = []
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(marker).encode() in cmdline.read_bytes():
                    left.append(cmdline)
        if not left:
            return
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.2)
