"""The engine against a real kernel, and runs of two ranks that succeed and that fail.

The two-rank tests start the plain papermill command under MPICH's mpiexec and under horovodrun.
"""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io

from bnnlib import spmd
from bnnlib.errors import DistributedError

BIN = Path(sys.executable).parent
MPIEXEC = [str(BIN / "mpiexec"), "-n", "2"]
HOROVODRUN = [str(BIN / "horovodrun"), "--gloo", "-n", "2", "-H", "localhost:2"]

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


# ------------------------------------------------------------------------------------------ alone

# Everything a kernel can leave in a notebook. (Both streams in one cell are left out: a kernel
# loses their order.)
KINDS: list[str | tuple[str, ...]] = [
    ("x = 1  # a number", "parameters"),
    "print('a'); print('b', end=''); print('c')\nx",
    "import sys; print('to stderr', file=sys.stderr)",
    "from IPython.display import HTML, clear_output, display\n"
    "import pandas as pd\n"
    "display(pd.DataFrame({'a': [1, 2]}))\n"
    "handle = display('first', display_id='h')\n"
    "pd.DataFrame({'b': [x]})",
    "handle.update('second')\n"
    "other = display(HTML('<b>0</b>'), display_id=True, metadata={'isolated': True})\n"
    "for i in range(3): other.update(HTML(f'<b>{i}</b>'))",
    "import matplotlib.pyplot as plt\n"
    "fig, ax = plt.subplots(figsize=(2, 1)); ax.plot([1, 2]); print('before the figure')",
    "plt.figure(figsize=(2, 1)); plt.plot([1, 3]); plt.show(); print('after the figure')",
    "print('gone'); display('gone'); clear_output(wait=True); print('kept'); display('kept')",
    "print('gone'); clear_output(); print('kept')",
    "x;",
    "%%capture captured\nprint('captured')",
    "captured.stdout",
    "!echo from a shell",
    "__name__, get_ipython() is not None, _i2, sorted(Out), sys.argv[0] != ''",
    "class Picture:\n"
    "    def _repr_png_(self): return b'\\x89PNG'\n"
    "    def __repr__(self): return 'Picture()'\n"
    "Picture()",
    "import threading\n"
    "thread = threading.Thread(target=print, args=('from a thread',))\n"
    "thread.start(); thread.join()",
    "import logging; logging.warning('logged')",
    "from pathlib import Path; Path.cwd().name",
    ("1 / 0", "raises-exception"),
    ("print('skipped')", "skip-execution"),
    "def f():\n    raise ValueError('bad value')\nprint('before')\nf()",
    "print('never')",
]


@pytest.fixture(autouse=True)
def fresh_matplotlib():
    """The engine runs cells in this process, whose style other tests have set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def test_the_executed_notebook_equals_a_kernels(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "kinds.ipynb", *KINDS)
    notebooks = []
    for engine in ("nbclient", "spmd"):
        output = tmp_path / f"{engine}.ipynb"
        with pytest.raises(PapermillExecutionError, match="bad value"):
            execute(source, output, engine, parameters={"x": 2}, cwd=tmp_path)
        notebooks.append(nbformat.read(output, as_version=4))
    kernel, ours = notebooks

    assert ours.metadata.language_info == kernel.metadata.language_info
    assert [cell.source for cell in ours.cells] == [cell.source for cell in kernel.cells]
    kinds = set()
    for expected, cell in zip(kernel.cells, ours.cells, strict=True):
        assert cell.metadata.tags == expected.metadata.tags
        if cell.cell_type == "code":
            assert cell.execution_count == expected.execution_count, cell.source
            assert outputs(cell) == outputs(expected), cell.source
            for key in ("status", "exception"):
                assert cell.metadata.papermill[key] == expected.metadata.papermill[key]
            kinds |= {output["output_type"] for output in outputs(cell)}
    assert kinds == {"stream", "display_data", "execute_result", "error"}


def test_progress_bars_are_text_and_keep_their_last_state_only(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "bar.ipynb",
        "from tqdm.auto import tqdm\n"
        "for _ in tqdm(range(3), bar_format='{n_fmt}/{total_fmt}', mininterval=0): pass",
    )
    # With papermill's own bar, below which tqdm would draw the cell's.
    nb = papermill.execute_notebook(
        str(source), str(tmp_path / "out.ipynb"), engine_name="spmd", progress_bar=True
    )
    assert outputs(nb.cells[0]) == [{"output_type": "stream", "name": "stderr", "text": "3/3\n"}]


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
def test_an_unknown_parameter_ends_the_run_before_any_cell(
    tmp_path: Path, parameters: dict[str, Any], words: list[str]
) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, "print('never')")
    output = tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError) as error:
        execute(source, output, parameters=parameters)
    for word in words:
        assert word in str(error.value)
    nb = nbformat.read(output, as_version=4)
    failed = next(c for c in nb.cells if "injected-parameters" in c.metadata.tags)
    assert failed.outputs[0].ename == "ExperimentError"
    assert failed.metadata.papermill.status == "failed"
    assert "papermill-error-cell" in nb.cells[nb.cells.index(failed) - 1].source
    assert not any(c.get("execution_count") for c in nb.cells)


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


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b.ipynb"
    monkeypatch.setenv("PMI_RANK", "1")
    papermill_io.write("one", f"rank0:{path}")
    assert not path.parent.exists()
    monkeypatch.setenv("PMI_RANK", "0")
    papermill_io.write("zero", f"rank0:{path}")
    assert path.read_text() == "zero"
    assert papermill_io.read(f"rank0:{path}") == "zero"
    assert papermill_io.listdir(f"rank0:{path.parent}") == [str(path)]
    assert papermill_io.pretty_path(f"rank0:{path}") == f"rank0:{path}"


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


def test_lines_pass_whole_and_as_a_terminal_shows_them() -> None:
    lines: list[str] = []
    writer = spmd._Lines(lines.append)
    for text in ("a", "b\nc", "\r1/2", "\r2/2\n", "crlf\r\n", "rest"):
        writer.write(text)
    assert lines == ["ab", "2/2", "crlf"]
    writer.close()
    assert lines[-1] == "rest"


def test_failures_of_an_earlier_attempt_do_not_count(tmp_path: Path) -> None:
    now = spmd.Failure.here(1, "ValueError", "new", ["\x1b[31mred\x1b[39m\nline"], 4)
    assert now.traceback == ["red", "line"]
    old = json.loads(json.dumps(vars(now))) | {
        "rank": 2,
        "time": (datetime.now(UTC) - timedelta(days=1)).isoformat(),
    }
    now.write(tmp_path)
    folder = tmp_path / "failures"
    (folder / "rank2.json").write_text(json.dumps(old))
    assert spmd._read_failures(sorted(folder.iterdir())) == [now]


def test_abort_refuses_a_status_that_means_success() -> None:
    with pytest.raises(ValueError, match="exit_code is 0"):
        spmd.abort(0)


# -------------------------------------------------------------------------------------- two ranks

START_HOROVOD = """\
import sys
import tensorflow as tf
import horovod.tensorflow as hvd
hvd.init()
print("rank", hvd.rank(), "of", hvd.size())
print("a warning", file=sys.stderr)
float(hvd.allreduce(tf.constant(1.0 + hvd.rank())))"""

FAIL_ON_RANK_1 = """\
if hvd.rank() == 1:
    raise ValueError("boom on one")
hvd.allreduce(tf.ones(2))"""


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


@pytest.mark.ranks
def test_two_ranks_one_notebook_with_live_output(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "in.ipynb",
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from bnnlib import launcher\n"
        "print('hello from', launcher.rank())\n"
        "print('warned', file=sys.stderr)\n"
        f"if launcher.rank() == 1: Path({str(tmp_path / 'one')!r}).write_text(sys.executable)\n"
        f"while not Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.05)",
    )
    output = tmp_path / "run" / "out.ipynb"
    # A failure of an earlier attempt does not stop this one.
    stale = output.parent / "failures" / "rank1.json"
    stale.parent.mkdir(parents=True)
    old = spmd.Failure(1, "h", 1, "2020-01-01T00:00:00+00:00", "ValueError", "old", [], 0)
    stale.write_text(json.dumps(vars(old)))
    with start(MPIEXEC, source, output) as process:
        # The cell waits for this file, so its text came while it was running.
        assert process.stdout.readline() == "hello from 0\n"
        (tmp_path / "go").touch()
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "hello" not in stdout
    assert "[rank 1] warned\n" in stderr
    assert (tmp_path / "one").exists(), "rank 1 did not run the cell"
    nb = nbformat.read(output, as_version=4)
    assert [dict(o) for o in nb.cells[0].outputs] == [
        {"output_type": "stream", "name": "stdout", "text": "hello from 0\n"},
        {"output_type": "stream", "name": "stderr", "text": "warned\n"},
    ]
    assert sorted(p.name for p in output.parent.iterdir()) == ["failures", "out.ipynb"]
    assert stderr.count("Executing:") > 0


@pytest.mark.ranks
@pytest.mark.parametrize("launch", [MPIEXEC, HOROVODRUN], ids=["mpiexec", "horovodrun"])
def test_a_failure_on_rank_1_ends_all_and_is_told(tmp_path: Path, launch: list[str]) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, START_HOROVOD, FAIL_ON_RANK_1)
    output = tmp_path / "run" / "out.ipynb"
    with start(launch, source, output, "-p", "steps", "4") as process:
        stdout, stderr = process.communicate(timeout=90)
    assert process.returncode != 0
    assert_nothing_left(source)

    nb = nbformat.read(output, as_version=4)
    assert "An Exception was encountered" in nb.cells[0].source
    assert any(o.output_type == "execute_result" for o in nb.cells[3].outputs)
    assert nb.cells[3].outputs[-1].data["text/plain"] == "1.5"
    assert "papermill-error-cell" in nb.cells[4].source
    cause, own = nb.cells[5].outputs
    assert (cause.ename, cause.evalue) == ("ValueError", "boom on one")
    assert all(line.startswith("rank 1: ") for line in cause.traceback)
    assert any('raise ValueError("boom on one")' in line for line in cause.traceback)
    assert "Horovod has been shut down" in own.evalue
    assert nb.cells[5].metadata.papermill.status == "failed"

    failures = {p.name for p in (output.parent / "failures").iterdir()}
    assert failures == {"rank0.json", "rank1.json"}
    failure = json.loads((output.parent / "failures" / "rank1.json").read_text())
    assert (failure["rank"], failure["cell_index"]) == (1, 3)
    # From rank 1's error to the end of rank 0, when everything is saved.
    ended = datetime.fromtimestamp((output.parent / "failures" / "rank0.json").stat().st_mtime, UTC)
    assert ended - datetime.fromisoformat(failure["time"]) < timedelta(seconds=30)
    record = json.loads((output.parent / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"]["rank"] == 1
    assert record["parameters"] == {"steps": 4}

    assert "rank 1 of 2 failed; rank 0 stopped in In [4]:" in stderr
    assert "[rank 1] ValueError: boom on one" in stderr
    assert "[rank 1] a warning" in stderr
    assert "rank 0 of 2" in stdout
    assert "rank 1 of 2" not in stdout


@pytest.mark.ranks
def test_a_failure_before_horovod_is_up_ends_the_rank_that_waits(tmp_path: Path) -> None:
    source = write_notebook(
        tmp_path / "in.ipynb",
        "import time\n"
        "from bnnlib import launcher\n"
        "if launcher.rank() == 1: raise OSError('no data here')\n"
        "time.sleep(120)",
    )
    output = tmp_path / "run" / "out.ipynb"
    with start(MPIEXEC, source, output) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert_nothing_left(source)
    nb = nbformat.read(output, as_version=4)
    error = nb.cells[-1].outputs[0]
    assert (error.ename, error.evalue) == ("OSError", "no data here")
    assert all(line.startswith("rank 1: ") for line in error.traceback)
    assert "rank 1 of 2 failed; rank 0 stopped in In [1]:" in stderr


@pytest.mark.ranks
def test_an_unknown_parameter_ends_all_ranks(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "in.ipynb", PARAMETERS, "print('never')")
    output = tmp_path / "run" / "out.ipynb"
    with start(MPIEXEC, source, output, "-p", "modle", "x") as process:
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode != 0
    assert_nothing_left(source)
    assert "never" not in stdout
    assert stderr.count("Parameter 'modle' is unknown: did you mean 'model'?") == 1
    nb = nbformat.read(output, as_version=4)
    assert any(o.ename == "ExperimentError" for o in nb.cells[3].outputs)
