"""The repository's own Slurm scripts on a real Slurm of one node, which the test starts and ends.

Skipped, with the reason, where Slurm is not installed; `.ci/run` installs it when it may.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from bnnlib.record.logs import read_steps
from bnnlib.record.schema import read_record

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATH = f"{BIN}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
MISSING = [name for name in NEEDED if shutil.which(name, path=PATH) is None]

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"no Slurm here ({', '.join(MISSING)} not on PATH): apt-get install munge "
        "slurmctld slurmd slurm-client",
    ),
]


class Slurm:
    """Commands in a copy of the repository, against the one-node cluster."""

    def __init__(self, root: Path, conf: Path) -> None:
        self.root = root
        outer = ("SLURM", "HOROVOD_", "PMI_", "BNN_RUN_DIR")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
        self.environment |= {"PATH": PATH, "SLURM_CONF": str(conf), "PYTHONPATH": str(ROOT)}

    def run(self, *words: str, **variables: str) -> str:
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                outputs = [file.read_text()[-3000:] for file in self.root.glob("slurm-*.out")]
                pytest.fail("\n".join([f"{what}: not within {seconds} s", self.queue(), *outputs]))
            time.sleep(0.5)

    def queue(self) -> str:
        return self.run("squeue", "-h", "-o", "%i %T %r")

    def ended(self, job: str) -> bool:
        return not any(line.split()[0] == job for line in self.queue().splitlines())

    def job(self, job: str) -> dict[str, str]:
        told = self.run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.partition("=")[::2] for word in told.split() if "=" in word)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    root = tmp_path_factory.mktemp("repository")
    for name in ("jobs", "notebooks"):
        shutil.copytree(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    cluster = [str(ROOT / "tests" / "slurm" / "cluster.sh")]
    started = subprocess.run(
        [*cluster, "start", str(folder)], capture_output=True, text=True, timeout=60
    )
    try:
        assert started.returncode == 0, started.stderr
        yield Slurm(root, folder / "slurm.conf")
    finally:
        subprocess.run([*cluster, "stop", str(folder)], timeout=120)


@pytest.fixture(autouse=True)
def open_queue(slurm) -> Iterator[None]:
    """What a failed test leaves in the queue, or shut, is no other test's."""
    yield
    slurm.run("scancel", "--me")
    slurm.run("scontrol", "update", "PartitionName=test", "State=UP")
    slurm.until("an empty queue", lambda: slurm.queue() == "", seconds=60)


def check_run(directory: Path, job: str) -> None:
    """A finished run of 2 ranks under srun, with its executed notebook."""
    record = read_record(directory)
    assert (record["status"], record["ranks"], record["launcher"]) == ("finished", 2, "slurm")
    assert record["job_id"] == job
    notebook = json.loads((directory / "train.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)


def test_one_run(slurm):
    """`sbatch jobs/slurm/train.sh`, as the README says."""
    told = slurm.run(
        "sbatch",
        "jobs/slurm/train.sh",
        MODEL="CNN_FC",
        PARAMS="jobs/params/tiny.yaml",
        RUN="runs/one/run",
    )
    job = told.split()[-1]
    slurm.until("the run", lambda: slurm.ended(job))
    assert slurm.job(job)["ExitCode"] == "0:0"
    check_run(slurm.root / "runs" / "one" / "run", job)


# The first job's walltime less the margin asks its run to stop 8 s after the job's start: on most
# machines before the first step, and it takes one. No machine has made so many epochs by then: a
# fast one makes 50 a second, once it has started. The margin is wide so that a slow start is not
# killed.
MARGIN = "592"
EPOCHS = 1000
SWEEP = f"""
group: sweep
walltime: "00:10:00"
ranks: [2]
grid: {{model: CNN_FC}}
common: {{dataset: tiny, epochs: {EPOCHS}, batch_size: 32, log_every: 1000, test_draws: 3}}
"""


def test_a_sweep_whose_run_outlives_its_walltime(slurm):
    """Sweep, dependent analysis, walltime mid-run, resubmission, continuation: one story."""
    directory = slurm.root / "runs" / "sweep" / "CNN_FC-r2"
    (slurm.root / "sweep.yaml").write_text(SWEEP)
    sweep = (sys.executable, "-m", "bnnlib", "sweep", "sweep.yaml", "--site", "slurm")
    assert "at most 0.17 node-hours" in slurm.run(*sweep, "--dry-run")
    told = slurm.run(*sweep, BNN_STOP_MARGIN=MARGIN)
    first = told.split("submitted as ")[1].split()[0]
    analysis = told.split("follows as ")[1].split()[0]
    assert slurm.job(first)["TimeLimit"] == "00:10:00"
    assert slurm.job(analysis)["Dependency"].startswith(f"afterok:{first}")

    # A queue that starts nothing new, so that the limit can be raised before the job runs again.
    slurm.until("the first job's start", lambda: slurm.job(first)["JobState"] == "RUNNING")
    slurm.run("scontrol", "update", "PartitionName=test", "State=DOWN")
    slurm.until("the walltime", lambda: slurm.job(first)["JobState"] == "PENDING")
    assert slurm.job(first)["Restarts"] == "1"
    record = read_record(directory)
    assert (record["status"], record["job_id"]) == ("stopped", first)
    # The same job, so that what waits for it goes on waiting.
    assert (directory / "job").read_text().strip() == first
    assert slurm.job(analysis)["Dependency"].startswith(f"afterok:{first}")
    assert "1 runs at slurm: 1 queued" in slurm.run(*sweep, "--status")

    slurm.run("scontrol", "update", f"JobId={first}", "TimeLimit=60", "StartTime=now")
    slurm.run("scontrol", "update", "PartitionName=test", "State=UP")
    slurm.until("the second start", lambda: slurm.ended(first))
    check_run(directory, first)
    assert read_steps(directory)[-1].epoch == pytest.approx(EPOCHS)

    notebook = slurm.root / "runs" / "sweep" / "02_calibration.ipynb"
    slurm.until("the analysis", lambda: slurm.queue() == "")
    assert "CNN_FC" in notebook.read_text()
    assert "1 runs at slurm: 1 finished" in slurm.run(*sweep, "--status")
    assert "submitted" not in slurm.run(*sweep)


def test_a_job_that_may_not_be_requeued_queues_its_successor(slurm):
    """The successor has the partition, the constraint and the shape of its job, and no more."""
    directory = slurm.root / "runs" / "successor"
    (slurm.root / "long.yaml").write_text(
        f"{{dataset: tiny, epochs: {EPOCHS}, batch_size: 32, log_every: 1000, test_draws: 3}}"
    )
    first = slurm.run(
        *("sbatch", "--parsable", "--no-requeue", "--constraint=cpu", "--time=00:10:00"),
        *("--partition=test", "jobs/slurm/train.sh"),
        MODEL="CNN_FC",
        PARAMS="long.yaml",
        RUN="runs/successor",
        BNN_STOP_MARGIN=MARGIN,
    ).strip()
    slurm.until("the first job's start", lambda: slurm.job(first)["JobState"] == "RUNNING")
    slurm.run("scontrol", "update", "PartitionName=test", "State=DOWN")
    slurm.until("the walltime", lambda: slurm.ended(first))
    assert slurm.job(first)["ExitCode"] == "0:0"  # so that what depends on it is not lost
    successor = (directory / "job").read_text().strip()
    told = slurm.job(successor)
    assert successor != first
    assert (told["Partition"], told["Features"], told["TimeLimit"]) == ("test", "cpu", "00:10:00")
    assert (told["NumTasks"], told["CPUs/Task"]) == ("2", "1")
    assert read_record(directory)["status"] == "stopped"
    slurm.run("scancel", successor)
    slurm.run("scontrol", "update", "PartitionName=test", "State=UP")


def test_an_array_is_repeats_by_seed(slurm):
    job = slurm.run(
        *("sbatch", "--parsable", "--array=3-4", "--ntasks-per-node=1", "jobs/slurm/train.sh"),
        MODEL="CNN_FC",
        PARAMS="jobs/params/tiny.yaml",
        RUN="runs/array/CNN_FC",
    ).strip()
    slurm.until("both jobs", lambda: not any(job in line for line in slurm.queue().splitlines()))
    for seed in (3, 4):
        record = read_record(slurm.root / "runs" / "array" / f"CNN_FC-s{seed}")
        assert (record["status"], record["ranks"]) == ("finished", 1)
        assert record["parameters"]["seed"] == seed


# A network whose run waits until the time to stop, so that its first part ends at its first step;
# and one that cannot be built.
NETWORKS = """
import os
import pathlib
import time

import tf_keras
from tf_keras import layers


def slow(image_shape, num_classes):
    stop_at = float(os.environ["BNN_DEADLINE"]) - float(os.environ["BNN_STOP_MARGIN"])
    while time.time() < stop_at and not pathlib.Path("go").exists():
        time.sleep(0.1)
    images = layers.Input(image_shape)
    return tf_keras.Model(images, layers.Dense(num_classes)(layers.Flatten()(images)))


def broken(image_shape, num_classes):
    raise ValueError("no such network")
"""
PACKED = """
common: {dataset: tiny, epochs: 1, batch_size: 64, test_draws: 2, ood_sets: []}
walltime: "00:10:00"
ranks: 1
parts:
- group: broken
  common: {model: "networks.py:broken"}
- group: slow
  common: {model: "networks.py:slow"}
  grid: {seed: [0, 1, 2]}
"""


def spans(directory: Path) -> list[tuple[float, float]]:
    """From when to when each start of a run lasted, in seconds since the epoch."""

    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    attempts = read_record(directory)["attempts"]
    return [(seconds(one["started"]), seconds(one["ended"])) for one in attempts]


@pytest.mark.timeout(1800)
def test_four_runs_packed_two_at_a_time_one_fails_and_a_successor_goes_on(slurm):
    """The runs share a job of two ranks; its walltime stops it, and it goes on under its id."""
    (slurm.root / "networks.py").write_text(NETWORKS)
    (slurm.root / "packed.yaml").write_text(PACKED)
    sweep = (sys.executable, "-m", "bnnlib", "sweep", "packed.yaml", "--site", "slurm")
    told = slurm.run(*sweep, "--packed", "--walltime", "00:10:00", BNN_STOP_MARGIN="540")
    assert (
        "4 of 4 runs to submit at slurm in one job of 1 node(s) with 2 ranks each: up to 2" in told
    )
    job = told.split("4 runs: submitted as ")[1].split()[0]

    # The walltime less the margin asks the runs to stop a minute after the job's start.
    slurm.until("the job's start", lambda: slurm.job(job)["JobState"] == "RUNNING")
    slurm.run("scontrol", "update", "PartitionName=test", "State=DOWN")
    slurm.until("the walltime", lambda: slurm.job(job)["JobState"] == "PENDING", seconds=600)
    assert slurm.job(job)["Restarts"] == "1"
    runs = sorted((slurm.root / "runs" / "slow").glob("networks*"))
    (broken,) = (slurm.root / "runs" / "broken").glob("networks*")
    begun = [path for path in runs if (path / "run.json").exists()]
    before = {path: read_record(path)["status"] for path in begun}
    stopped = [path for path in runs if before.get(path) == "stopped"]
    # Two, unless the machine was too slow to come to the second within a minute; never the third.
    assert 1 <= len(stopped) < len(runs), before
    assert set(before.values()) == {"stopped"}, before
    assert "4 queued" in slurm.run(*sweep, "--status")

    (slurm.root / "go").touch()
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now")
    slurm.run("scontrol", "update", "PartitionName=test", "State=UP")
    slurm.until("the second start", lambda: slurm.ended(job), seconds=600)
    assert slurm.job(job)["ExitCode"] == "1:0"  # since a run has failed
    # A start that is refused leaves no record, but what it printed.
    assert "4 runs at slurm: 3 finished, 1 ended" in slurm.run(*sweep, "--status")
    for directory in runs:
        record = read_record(directory)
        assert (record["job_id"], record["ranks"], record["launcher"]) == (job, 1, "slurm")
        assert (directory / "train.ipynb").exists()
        assert len(spans(directory)) == (2 if directory in stopped else 1)
    printed = (broken / "output.txt").read_text()
    assert "ValueError: no such network" in printed
    assert printed.count("Output Notebook:") == 1  # it was not tried again
    assert not (broken / "run.json").exists()

    # Two at once, in the first part and in the second, and never more.
    all_spans = [span for path in runs for span in spans(path)]
    at_once = [sum(start <= began < end for start, end in all_spans) for began, _ in all_spans]
    assert max(at_once) == 2
    (output,) = slurm.root.glob(f"slurm-{job}.out")
    assert "3 finished, 0 to go on with, 1 failed" in output.read_text()
