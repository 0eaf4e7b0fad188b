"""jobs/balsam_jobs.py against a stand-in of Balsam 0.7; its command lines against the machines'."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "tests" / "stand_ins"
MPIEXEC = Path(sys.executable).parent / "mpiexec"


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "jobs", root / "jobs")
    # In place of papermill: says what a run would see.
    program = root / ".venv" / "bin" / "papermill"
    program.parent.mkdir(parents=True)
    names = "BNN_RANKS BNN_DEADLINE CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH BNN_GPUS"
    program.write_text(f'#!/bin/bash\nprintenv {names} | paste -sd " "\necho "$@"\n')
    program.chmod(0o755)
    (program.parent / "mpiexec").write_text("#!/bin/bash\necho the wrong one >&2; exit 1\n")
    (program.parent / "mpiexec").chmod(0o755)
    return root


def created(repository: Path, machine: str, queue: str) -> list[dict]:
    """What the script creates: its jobs, and the batch job last."""
    done = subprocess.run(
        [sys.executable, "jobs/balsam_jobs.py", machine, "mysite", "Catalyst", queue],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(STAND_INS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    *lines, said = done.stdout.splitlines()
    assert said.endswith(f"balsam job ls --tag sweep={machine} shows their states")
    return [json.loads(line) for line in lines]


def run(repository: Path, line: str, tmp_path: Path, **variables: str) -> str:
    """What a job's command line prints, on one node of the machine."""
    (tmp_path / "nodes").write_text("x3000\n")
    (tmp_path / "7.json").write_text('{"state": "running", "walltime": "01:00:00"}')
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env=os.environ
        | {"STAND_IN": str(tmp_path), "STAND_IN_MPIEXEC": str(MPIEXEC)}
        | {"CRAY_LD_LIBRARY_PATH": "/opt/cray/lib", "LD_LIBRARY_PATH": ""}
        | {"NCCL_PLUGIN": str(tmp_path)}
        | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_polaris_launcher_gets_words_that_it_takes_and_each_rank_its_gpu(repository, tmp_path):
    *jobs, batch = created(repository, "polaris", "prod")
    assert len(jobs) == 6 * 4
    assert batch == {"batch_nodes": 10, "queue": "prod", "project": "Catalyst"}
    job = jobs[0]
    assert (job["num_nodes"], job["ranks_per_node"], job["gpus_per_rank"]) == (1, 4, 1)
    path = f"{STAND_INS / 'pbs'}{os.pathsep}{os.environ['PATH']}"
    in_pbs = {"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_JOBID": "7", "PATH": path}
    told = run(repository, job["command_line"], tmp_path, **in_pbs).splitlines()
    seen = sorted(line.split() for line in told if line[0].isdigit())
    assert [words[2] for words in seen] == ["0", "1", "2", "3"]
    for ranks, deadline, _, libraries, gpus in seen:
        assert (ranks, gpus, deadline.isdigit()) == ("4", "1", True)
        assert "/opt/cray/lib" in libraries.split(":")
    (launched,) = (tmp_path / "launched").read_text().splitlines()
    assert launched.startswith("mpiexec -np 4 -ppn 4 --hosts x3000 --cpu-bind depth -d 8 env ")
    words = "notebooks/01_train.ipynb rank0:{0}/runs/polaris_balsam/CNN_FC-n1/train.ipynb "
    words += "--engine spmd -f {0}/jobs/params/digits.yaml -p model CNN_FC"
    assert sum(words.format(repository) in line for line in told) == 4


def test_thetas_launcher_gets_the_affinity(repository, tmp_path):
    *jobs, batch = created(repository, "theta", "default")
    assert (len(jobs), batch["batch_nodes"]) == (6 * 8, 128)
    path = f"{STAND_INS / 'cobalt'}{os.pathsep}{os.environ['PATH']}"
    told = run(repository, jobs[0]["command_line"], tmp_path, COBALT_JOBSIZE="1", PATH=path)
    assert told.startswith("1 ")
    (launched,) = (tmp_path / "launched").read_text().splitlines()
    assert launched.startswith("aprun -n 1 -N 1 -L x3000 -cc depth -d 128 -j 2 env BNN_RANKS=1 ")


@pytest.mark.parametrize(
    ("status", "state"),
    [("stopped", "RESTART_READY"), ("failed", "FAILED"), (None, "FAILED")],
)
def test_a_run_that_stopped_at_the_walltime_goes_on_and_one_that_failed_does_not(
    repository, status, state
):
    """By its record: both end with a code that is not 0, and Balsam keeps no code."""
    record = repository / "runs" / "polaris_balsam" / "CNN_FC-n1" / "run.json"
    record.parent.mkdir(parents=True)
    if status:
        record.write_text(json.dumps({"status": status}))
    code = (
        "import sys; sys.argv = ['', 'polaris', 'mysite', 'Catalyst', 'prod']\n"
        "sys.path.insert(0, 'jobs')\n"
        "import balsam_jobs\n"
        "from balsam.api import Job\n"
        "job = Job(balsam_jobs.Train(), parameters={'name': 'CNN_FC-n1'})\n"
        "balsam_jobs.Train(job).handle_error()\n"
        "print(job.state)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(STAND_INS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == state, done.stderr
