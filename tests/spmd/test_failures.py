"""Runs of two ranks, under MPICH's mpiexec and under horovodrun, that succeed and that fail."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest

from bnnlib import spmd
from bnnlib.spmd.failures import Failures
from tests.spmd.notebooks import BIN, PARAMETERS, assert_nothing_left, start, write_notebook

MPIEXEC = [str(BIN / "mpiexec"), "-n", "2"]
HOROVODRUN = [str(BIN / "horovodrun"), "--gloo", "-n", "2", "-H", "localhost:2"]

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


def failed(rank: int, ename: str = "ValueError", evalue: str = "new") -> spmd.Failure:
    return spmd.Failure.here(rank, ename, evalue, ["\x1b[31mred\x1b[39m\nline"], 4)


def test_failures_of_an_earlier_attempt_do_not_count(tmp_path: Path) -> None:
    assert failed(1).traceback == ["red", "line"]
    failed(2).write(tmp_path)
    failures = Failures(tmp_path)
    failed(1).write(tmp_path)
    assert [failure.rank for failure in failures.of_others(0)] == [1]
    assert failures.of(2) == []


@pytest.mark.parametrize("hours", [-30, 30])
def test_no_clock_of_another_host_decides_whether_a_failure_counts(
    tmp_path: Path, hours: float
) -> None:
    there = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    dataclasses.replace(failed(2), time=there).write(tmp_path)
    failures = Failures(tmp_path)
    assert failures.of_others(0) == []  # of an earlier attempt, whatever its clock said
    late = dataclasses.replace(failed(1), host="other", time=there)
    late.write(tmp_path)
    assert failures.of_others(0) == [late]


def test_a_rank_that_failed_before_another_looked_shows_that_it_waits(tmp_path: Path) -> None:
    early = failed(1)
    early.write(tmp_path)
    failures = Failures(tmp_path)
    assert failures.of_others(0) == []
    dataclasses.replace(early, beat=1).write(tmp_path)
    assert [failure.evalue for failure in failures.of_others(0)] == ["new"]


def test_a_launcher_that_names_its_launch_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPS_APP_PE", "0")
    monkeypatch.setenv("ALPS_APP_ID", "7")
    ours = failed(1)
    ours.write(tmp_path)
    monkeypatch.setenv("ALPS_APP_ID", "6")
    failed(2).write(tmp_path)
    monkeypatch.setenv("ALPS_APP_ID", "7")
    assert Failures(tmp_path).of_others(0) == [ours]


@pytest.mark.parametrize(
    ("ename", "evalue", "consequence"),
    [
        ("HorovodInternalError", "Horovod has been shut down. This was caused by …", True),
        ("UnknownError", "[/gloo/pair.cc:598] Write error: Broken pipe", True),
        ("UnknownError", "Read error [127.0.1.1]:4040: Connection reset by peer", True),
        ("BrokenPipeError", "[Errno 32] Broken pipe", False),
        ("ConnectionResetError", "[Errno 104] Connection reset by peer", False),
        ("ValueError", "bad value", False),
    ],
)
def test_which_failure_is_the_loss_of_another_rank(
    ename: str, evalue: str, consequence: bool
) -> None:
    assert failed(1, ename, evalue).is_consequence is consequence


def test_abort_refuses_a_status_that_means_success() -> None:
    with pytest.raises(ValueError, match="exit_code is 0"):
        spmd.abort(0)


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
    assert stderr.count("ExperimentError: Parameter 'modle' is unknown: did you mean 'model'?") == 1
    assert not output.parent.exists()
