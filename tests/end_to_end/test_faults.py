"""Runs that are killed, hang, lose their disk or meet a second writer, and what is left of them."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest

from bnnlib.record import checkpoint
from bnnlib.record.schema import read_record
from tests.end_to_end.test_end_to_end import NOTEBOOK, TINY

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tests" / "faults"


@pytest.mark.ranks
@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_runs_end_with_the_same_bits_as_one_that_was_not(launch):
    done = launch(sys.executable, FAULTS / "kills.py", "--kills", 10, "--seed", 2, timeout=880)
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.splitlines()[-1] == (
        "kills=10 resumes=10 bitwise_equal=10 lost_beyond_checkpoint=0 orphans=0"
    )


def test_every_crash_point_of_checkpoint_and_record(launch, tmp_path):
    done = launch(sys.executable, FAULTS / "crash_points.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.fullmatch(r"errors=\d+\ndeaths=\d+\n", done.stdout), done.stdout


# ------------------------------------------------------------------------------------- disks


WRITE = """
    import sys
    from pathlib import Path
    import numpy as np
    from bnnlib.record import checkpoint
    from bnnlib.errors import RecordError

    for step in range(1, 99):
        state = {"layer0/mean": np.full(1000 * step, step, np.float32), "step": np.asarray(step)}
        try:
            checkpoint.save(Path(sys.argv[1]), state)
        except RecordError as error:
            print(step, error)
            break
"""


def save_until_full(folder: Path, **options) -> tuple[int, str]:
    """The step whose checkpoint could not be written, and the error's text."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITE), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        **options,
    )
    step, _, text = done.stdout.strip().partition(" ")
    return int(step), text


def assert_the_one_before_is_whole(folder: Path, step: int, text: str, reason: str) -> None:
    assert text.startswith(f"{folder}/step-{step:09d}.npz: could not be written ({reason}); what")
    assert "Make room or choose another place" in text
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    state = checkpoint.latest(folder)
    assert state is not None
    assert int(state["step"]) == step - 1
    assert (state["layer0/mean"] == step - 1).all()


def test_a_full_disk_costs_only_the_checkpoint_that_does_not_fit(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk here; the next test has a limit of its own")
    try:
        step, text = save_until_full(tmp_path / "checkpoints")
        assert_the_one_before_is_whole(
            tmp_path / "checkpoints", step, text, "No space left on device"
        )
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_quota_costs_only_the_checkpoint_that_does_not_fit(tmp_path):
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    step, text = save_until_full(tmp_path / "checkpoints", preexec_fn=limit)
    assert step == 5
    assert_the_one_before_is_whole(tmp_path / "checkpoints", step, text, "File too large")


# --------------------------------------------------------------------------- whole runs of ranks

LONG = ["-p", "model", "CNN_FC", "-p", "steps", "1000000", "-p", "log_every", "1000"]


@pytest.mark.ranks
@pytest.mark.long
def test_a_second_writer_is_refused_and_a_hung_rank_ends_all(launch, tmp_path):
    """One run of two ranks is met by a second writer, and then loses a rank."""
    run, output = tmp_path / "run", f"rank0:{tmp_path / 'run' / 'train.ipynb'}"
    words = ["papermill", NOTEBOOK, output, "--engine", "spmd", "-f", TINY, *LONG]
    words += ["-p", "stall_minutes", "0.3", "-p", "checkpoint_minutes", "1"]
    command = " ".join(map(str, words))
    script = f"""
        mpiexec -n 2 {command} 2>{tmp_path}/first.txt & first=$!
        for i in $(seq 600); do [ -s {run}/steps.jsonl ] && break; sleep 0.1; done
        cp {run}/run.json {tmp_path}
        {command} 2>{tmp_path}/second.txt; echo second=$?
        cmp {run}/run.json {tmp_path}/run.json && kill -0 $first && echo first goes on
        for pid in $(pgrep -f {output}); do
            tr "\\\\0" "\\\\n" </proc/$pid/environ | grep -qx PMI_RANK=1 && kill -STOP $pid
        done
        date +%s >{tmp_path}/hung
        wait $first; echo first=$?
    """
    done = launch("bash", "-c", script)
    lines = done.stdout.splitlines()
    second = (tmp_path / "second.txt").read_text()
    assert "second=1" in lines, second
    assert "first goes on" in lines
    assert re.search(rf"LockedError: {run}: is being written by another run \(process", second)
    assert lines[-1].startswith("first=")
    assert lines[-1] != "first=0"
    assert done.ended - int((tmp_path / "hung").read_text()) < 18 + 60

    record = read_record(run)
    assert record["status"] == "failed"
    assert record["error"]["rank"] == 0
    assert "no line of the log for" in record["error"]["message"]
    assert "no sign of life of rank 1" in record["error"]["message"]
    assert any("bnnlib" in line for line in record["error"]["traceback"])
    nb = nbformat.read(run / "train.ipynb", as_version=4)
    shown = [o for cell in nb.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert [output.ename for output in shown] == ["DistributedError"]
    assert not (run / "run.lock").exists()


@pytest.mark.ranks
@pytest.mark.long
def test_a_rank_that_hangs_in_evaluation_ends_all(launch, tmp_path):
    run = tmp_path / "run"
    values = {"model": "BNN_FC_flip", "dataset": "digits", "steps": 1, "test_draws": 1_000_000}
    values |= {"stall_minutes": 0.4, "run_dir": str(run)}
    (tmp_path / "values").write_text(json.dumps(values))
    script = f"""
        mpiexec -n 2 {sys.executable} {FAULTS}/train.py "$(cat {tmp_path}/values)" & first=$!
        for i in $(seq 600); do ls {run}/checkpoints/* && break; sleep 0.1; done >{os.devnull} 2>&1
        sleep 2  # into the evaluation, of a million draws
        for pid in $(pgrep -f {run}); do
            tr "\\0" "\\n" </proc/$pid/environ | grep -qx PMI_RANK=1 && kill -STOP $pid
        done
        wait $first; echo first=$?
    """
    done = launch("bash", "-c", script)
    assert done.stdout.splitlines()[-1] == "first=1", done.stdout
    record = read_record(run)
    assert record["status"] == "failed"
    assert "no draw of the evaluation for" in record["error"]["message"]
    assert (run / "checkpoints").exists()
