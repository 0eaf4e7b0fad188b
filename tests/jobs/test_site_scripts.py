"""Each site's job scripts run unmodified, end to end at 2 ranks, where the site itself cannot.

The queue and the launchers are stand-ins (tests/stand_ins) that refuse what the site's
documentation does not list; the ranks, the notebooks and the records are real.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from bnnlib import __main__ as program
from bnnlib.interactive import preparation
from bnnlib.launch import sites
from bnnlib.record.schema import read_record
from tests.conftest import Launched

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STAND_INS = ROOT / "tests" / "stand_ins"
QUEUES = {
    **{"theta": "cobalt", "perlmutter": "nersc"},
    **dict.fromkeys(("crux", "polaris", "aurora"), "pbs"),
}
TRAIN = {"PARAMS": "jobs/params/tiny.yaml", "MODEL": "CNN_FC", "PPN": "2", "THREADS": "1"}


@dataclasses.dataclass
class Machine:
    """One site in a copy of the repository: its commands on PATH, and its queue in a folder."""

    site: str
    root: Path
    queue: Path
    launch: Callable[..., Launched]

    @property
    def environment(self) -> dict[str, str]:
        commands = STAND_INS / QUEUES[self.site]
        return {
            "PATH": f"{commands}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
            "STAND_IN": str(self.queue),
            "STAND_IN_MPIEXEC": str(BIN / "mpiexec"),
            "BNN_SITE": self.site,
            "PROJECT": "Catalyst",
            # What the site's module sets; the stand-in for it is a program of its own.
            "CRAY_LD_LIBRARY_PATH": "/opt/cray/lib",
            "NCCL_PLUGIN": str(STAND_INS),  # a folder that is there
        }

    def jobs(self) -> list[dict]:
        return [json.loads(file.read_text()) for file in sorted(self.queue.glob("*.json"))]

    def launched(self) -> list[str]:
        return (self.queue / "launched").read_text().splitlines()

    def change(self, job: dict, **changes) -> dict:
        job |= changes
        (self.queue / f"{job['id'].split('.')[0]}.json").write_text(json.dumps(job))
        return job

    def submit(self, script: str, **variables: str) -> str:
        """As a user would: the job gets what `submit` of site.sh passes on, and nothing else."""
        command = f"source jobs/{self.site}/site.sh; submit jobs/{self.site}/{script}"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=os.environ | self.environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run_next(self, timeout: float = 240) -> dict:
        """Runs the first job that may run; with the variables the scheduler gives a job."""
        codes = {job["id"]: job["code"] for job in self.jobs()}
        waiting = [job for job in self.jobs() if job["state"] == "queued"]
        job = next(job for job in waiting if all(codes[one] == 0 for one in job["after"]))
        self.change(job, state="running")
        hours, minutes, seconds = map(int, job["walltime"].split(":"))
        now = int(time.time())
        environment = self.environment
        del environment["BNN_SITE"], environment["PROJECT"]  # passed on, or not there
        if QUEUES[self.site] == "pbs":
            nodes = self.queue / "nodes"
            nodes.write_text("".join(f"x300{i}\n" for i in range(job["nodes"])))
            environment |= {
                "PBS_JOBID": job["id"],
                "PBS_NODEFILE": str(nodes),
                "PBS_O_WORKDIR": job["directory"],
                "PBS_ACCOUNT": job["project"],
                "PBS_O_QUEUE": job["queue"],
            }
            start_in = self.queue  # PBS starts in the home folder
        elif QUEUES[self.site] == "nersc":
            environment |= {
                "SLURM_JOB_ID": job["id"],
                "SLURM_JOB_NUM_NODES": str(job["nodes"]),
                "SLURM_NTASKS_PER_NODE": str(job["ranks"]),
                "SLURM_CPUS_PER_TASK": str(job["cpus"]),
                "SLURM_JOB_END_TIME": str(now + hours * 3600 + minutes * 60 + seconds),
            }
            if job["gpus"]:
                environment["SLURM_GPUS_PER_NODE"] = job["gpus"]
            start_in = Path(job["directory"])
        else:
            environment |= {
                "COBALT_JOBID": job["id"],
                "COBALT_JOBSIZE": str(job["nodes"]),
                "COBALT_PARTSIZE": str(job["nodes"]),
                "COBALT_STARTTIME": str(now),
                "COBALT_ENDTIME": str(now + hours * 3600 + minutes * 60 + seconds),
            }
            start_in = Path(job["directory"])
        done = self.launch(
            "bash",
            Path(job["directory"]) / job["script"],
            cwd=start_in,
            environment=environment | job["variables"],
            timeout=timeout,
        )
        job = self.change(job, state="done", code=done.returncode)
        return job | {"stdout": done.stdout, "stderr": done.stderr}


@pytest.fixture
def machine(launch, tmp_path, request):
    """The site that the test names."""
    root, queue = tmp_path / "repository", tmp_path / "queue"
    queue.mkdir()
    for folder in ("jobs", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder)
    (root / ".venv").symlink_to(sys.prefix)
    return Machine(request.param, root, queue, launch)


def all_sites(*names: str):
    return pytest.mark.parametrize("machine", names, indirect=True)


def check_run(directory: Path, launcher: str) -> dict:
    """A finished run of 2 ranks with its executed notebook; its record."""
    record = read_record(directory)
    assert (record["status"], record["ranks"], record["launcher"]) == ("finished", 2, launcher)
    notebook = json.loads((directory / "train.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    return record


BOUND = {"aurora": "--cpu-bind list:1:53"}  # elsewhere by depth


@pytest.mark.ranks
@all_sites("crux", "polaris", "aurora")
def test_a_run_under_pbs(machine):
    """On Polaris as on its CPU: there is no GPU here."""
    machine.submit("train.sh", RUN="runs/pbs/one", GPUS="0", **TRAIN)
    job = machine.run_next()
    assert job["code"] == 0, job["stderr"]
    record = check_run(machine.root / "runs" / "pbs" / "one", "pals")
    assert record["job_id"] == job["id"]
    (line,) = machine.launched()
    bound = BOUND.get(machine.site, "--depth 1 --cpu-bind depth")
    assert line.startswith(
        f"mpiexec -n 2 --ppn 2 {bound} --env OMP_NUM_THREADS=1 --env BNN_RANKS=2"
    )
    assert "pin_gpu.sh" not in line
    assert record["environment"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.ranks
@all_sites("polaris")
def test_ranks_that_are_promised_gpus_refuse_to_train_without(machine):
    """Here, where TensorFlow is the index's without CUDA and there is no driver."""
    machine.submit("train.sh", RUN="runs/pbs/one", **TRAIN)
    job = machine.run_next()
    assert job["code"] not in (0, 75)
    (line,) = machine.launched()
    assert "--env BNN_GPUS=1 jobs/polaris/pin_gpu.sh papermill" in line
    lines = job["stderr"].splitlines()
    (told,) = [line for line in lines if line.startswith("SiteError: BNN_GPUS = 1")]
    assert "TensorFlow sees none: this TensorFlow is built without CUDA" in told
    assert "jobs/polaris/environment.sh" in told
    # A start that is refused leaves no record, and no job follows.
    assert not (machine.root / "runs" / "pbs" / "one" / "run.json").exists()
    assert len(machine.jobs()) == 1


PACKED = """
group: packed
walltime: "00:30:00"
common: {dataset: tiny, epochs: 1, batch_size: 32, test_draws: 2, ood_sets: []}
parts:
- ranks: [1, 2]
  grid: {model: CNN_FC, seed: [0, 1, 2]}
- ranks: 8
  grid: {model: CNN_FC}
"""
# A papermill that says where it is and ends when as many have begun as fit side by side.
PAPERMILL = """#!/bin/bash
touch "$STAND_IN/begun-$PMI_RANK-${2//[^a-zA-Z0-9]/_}"
for _ in $(seq 1200); do
  [ "$(ls -d "$STAND_IN"/begun-0-* | wc -l)" -lt "$SIDE_BY_SIDE" ] || exit 0
  sleep 0.1
done
exit 9
"""


def pack(machine: Machine, told: str, at_once: int, **variables: str) -> dict:
    """Submits a study's runs as one job, whose program is a script, and runs it."""
    (machine.root / "packed.yaml").write_text(told)
    (machine.root / ".venv").unlink()
    (machine.root / ".venv" / "bin").mkdir(parents=True)
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    for name, text in (("python", python), ("papermill", PAPERMILL)):
        (machine.root / ".venv" / "bin" / name).write_text(text)
        (machine.root / ".venv" / "bin" / name).chmod(0o755)
    words = [sys.executable, "-m", "bnnlib", "sweep", "packed.yaml", "--packed"]
    done = subprocess.run(
        [*words, "--nodes", variables.pop("NODES")],
        cwd=machine.root,
        env=os.environ | machine.environment | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert f"up to {at_once} at once" in done.stdout
    job = machine.jobs()[0]
    machine.change(job, variables=job["variables"] | {"SIDE_BY_SIDE": str(at_once)})
    return machine.run_next() | {"told": done.stdout}


def launched_for(machine: Machine) -> dict[str, str]:
    """The launcher's words by run."""
    found = {}
    for line in machine.launched():
        words, _, program = line.partition(" papermill notebooks/01_train.ipynb rank0:runs/packed/")
        assert "/train.ipynb --engine spmd -f runs/packed/" in program
        found[program.partition("/train.ipynb")[0]] = words
    return found


BIND = {
    # Four places of eight cores.
    "polaris": ["0-7", "8-15", "16-23", "24-31"],
    # Four places, two a socket: 1 to 47 of the first, 53 to 99 of the second.
    "aurora": ["1-23", "24-46", "53-75", "76-98"],
}


@all_sites("polaris", "aurora")
def test_packed_runs_lie_side_by_side_on_nodes_and_cores_of_their_own(machine):
    """Four nodes of four places: one run of eight ranks on two of them, five smaller beside it."""
    job = pack(machine, PACKED, at_once=6, PPN="4", NODES="4")
    assert job["code"] == 0, job["stdout"] + job["stderr"]
    assert job["stdout"].endswith("7 finished, 0 to go on with, 0 failed\n")
    first = machine.jobs()[0]
    assert (first["script"], first["nodes"]) == (f"jobs/{machine.site}/pack.sh", 4)
    assert machine.jobs()[1]["after"] == [first["id"]]
    cores = BIND[machine.site]
    threads = {"polaris": 8, "aurora": 23}[machine.site]
    places = {  # the largest first; those of one rank fill the node that has room
        "CNN_FC-r2-seed=0": ("x3002", [0, 1]),
        "CNN_FC-r2-seed=1": ("x3002", [2, 3]),
        "CNN_FC-r2-seed=2": ("x3003", [0, 1]),
        "CNN_FC-r1-seed=0": ("x3003", [2]),
        "CNN_FC-r1-seed=1": ("x3003", [3]),
    }
    found = launched_for(machine)
    for run, (host, slots) in places.items():
        hosts = machine.root / "runs" / "packed" / run / "hosts"
        assert hosts.read_text() == f"{host}\n"
        bound = ":".join(cores[slot] for slot in slots)
        assert found[run].startswith(
            f"mpiexec -n {len(slots)} --cpu-bind list:{bound} --hostfile runs/packed/{run}/hosts "
            f"--ppn {len(slots)} --env OMP_NUM_THREADS={threads} --env BNN_RANKS={len(slots)}"
        )
    # Whole nodes are bound as a job of its own binds them.
    large = "CNN_FC-r8"
    assert (machine.root / "runs" / "packed" / large / "hosts").read_text() == "x3000\nx3001\n"
    bind = {"polaris": "--depth 8 --cpu-bind depth", "aurora": f"--cpu-bind list:{':'.join(cores)}"}
    assert found[large].startswith(
        f"mpiexec -n 8 --hostfile runs/packed/{large}/hosts --ppn 4 {bind[machine.site]} "
        f"--env OMP_NUM_THREADS={threads} --env BNN_RANKS=8"
    )


NODES = """
group: packed
walltime: "00:30:00"
nodes: [1, 2]
common: {dataset: tiny, epochs: 1, batch_size: 32, test_draws: 2, ood_sets: []}
grid: {model: [CNN_FC, BNN_FC_flip]}
"""


@all_sites("theta")
def test_thetas_packed_runs_are_apruns_on_nodes_of_their_own(machine):
    """aprun takes free nodes itself, and refuses a run that finds none."""
    job = pack(machine, NODES, at_once=4, NODES="128")
    assert job["code"] == 0, job["stdout"] + job["stderr"]
    assert launched_for(machine) == {
        f"{model}-r{n}": f"aprun -n {n} -N 1 -cc depth -d 128 -j 2 -e OMP_NUM_THREADS=128 "
        f"-e BNN_RANKS={n} -e BNN_RANKS_PER_NODE=1 -b"
        for model in ("CNN_FC", "BNN_FC_flip")
        for n in (1, 2)
    }


@all_sites("crux")
def test_a_packed_job_at_its_walltime_is_continued_by_its_successor(machine):
    """Nothing was begun: the time to stop had come before the job."""
    (machine.root / "packed.yaml").write_text(PACKED)
    variables = {"STUDY": "packed.yaml", "BNN_STOP_MARGIN": "3600", "WALLTIME": "01:00:00"}
    machine.submit("pack.sh", NODES="1", **variables)
    job = machine.run_next()
    assert job["code"] == 0, job["stdout"] + job["stderr"]
    assert "0 finished, 7 to go on with, 0 failed" in job["stdout"]
    assert "runs/packed/packed: stopped at the walltime, continued by job 101" in job["stdout"]
    successor = machine.jobs()[1]
    assert successor["script"] == "jobs/crux/pack.sh"
    assert successor["variables"]["STUDY"] == "packed.yaml"
    assert (machine.root / "runs/packed/packed/job").read_text().strip() == successor["id"]


SWEEP = """
group: small
walltime: "00:30:00"
ranks: [2]
grid: {model: CNN_FC}
common: {dataset: tiny, epochs: 2, batch_size: 32, log_every: 2, test_draws: 3}
"""


@pytest.mark.ranks
@all_sites("theta")
def test_a_sweep_its_analysis_and_what_it_skips(machine, monkeypatch, capsys):
    monkeypatch.chdir(machine.root)
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    Path("small.yaml").write_text(SWEEP)

    assert program.main(["sweep", "small.yaml", "--dry-run"]) == 0
    told = capsys.readouterr().out
    # Theta's default is one rank a node: two nodes for half an hour.
    assert "1 of 1 runs to submit at theta, at most 1.00 node-hours" in told
    assert machine.jobs() == []

    assert program.main(["sweep", "small.yaml"]) == 0
    first, analysis = machine.jobs()
    assert (first["nodes"], first["walltime"], analysis["nodes"]) == (2, "00:30:00", 1)
    assert analysis["after"] == [first["id"]]
    assert program.main(["sweep", "small.yaml", "--status"]) == 0
    assert "1 runs at theta: 1 queued" in capsys.readouterr().out

    # The first is stopped by its walltime and submits its successor.
    machine.change(first, variables=first["variables"] | {"BNN_STOP_MARGIN": "1800"})
    job = machine.run_next()
    assert (job["id"], job["code"]) == (first["id"], 0), job["stderr"]
    record = read_record("runs/small/CNN_FC-r2")
    assert record["status"] == "stopped"
    successor = machine.jobs()[-1]
    assert successor["variables"]["RESUBMITS"] == "19"
    assert (successor["nodes"], successor["walltime"]) == (2, "00:30:00")
    assert program.main(["sweep", "small.yaml", "--status"]) == 0
    assert "1 runs at theta: 1 queued" in capsys.readouterr().out

    # A queue that does not answer has not lost the job.
    (machine.queue / "down").touch()
    assert program.main(["sweep", "small.yaml", "--status"]) == 0
    assert "1 runs at theta: 1 unknown" in capsys.readouterr().out
    assert program.main(["sweep", "small.yaml"]) == 1
    assert "nothing was submitted" in capsys.readouterr().err
    (machine.queue / "down").unlink()

    # The analysis, whose jobs have ended well, sees that a run has a new one, and waits for it.
    job = machine.run_next()
    assert (job["id"], job["code"]) == (analysis["id"], 0), job["stderr"]
    deferred = machine.jobs()[-1]
    assert deferred["after"] == [successor["id"]]
    assert not Path("runs/small/02_calibration.ipynb").exists()

    variables = dict(successor["variables"])
    del variables["BNN_STOP_MARGIN"]
    machine.change(successor, variables=variables)
    job = machine.run_next()
    assert (job["id"], job["code"]) == (successor["id"], 0), job["stderr"]
    check_run(Path("runs/small/CNN_FC-r2"), "aprun")
    job = machine.run_next()
    assert (job["id"], job["code"]) == (deferred["id"], 0), job["stderr"]
    assert Path("runs/small/02_calibration.ipynb").exists()

    assert program.main(["sweep", "small.yaml"]) == 0
    told = capsys.readouterr().out
    assert told.count(": finished") == 1
    assert "submitted" not in told


@pytest.mark.ranks
@all_sites("crux")
def test_a_run_that_never_gets_on_is_resubmitted_so_often_and_no_more(machine):
    machine.submit(
        "train.sh",
        RUN="runs/a",
        RESUBMITS="1",
        BNN_STOP_MARGIN="3600",
        WALLTIME="01:00:00",
        **TRAIN,
    )
    job = machine.run_next()
    assert job["code"] == 0, job["stderr"]
    assert "runs/a: stopped at the walltime, continued by job 101.pbs-01" in job["stdout"]
    job = machine.run_next()
    assert job["code"] == 75
    assert "RESUBMITS is used up: submit jobs/crux/train.sh yourself" in job["stderr"]
    assert len(machine.jobs()) == 2


def in_job(machine, command: str, **variables: str) -> subprocess.CompletedProcess:
    """A command of a site's scripts in a job, whose environment is what PBS gives it."""
    nodes = machine.queue / "nodes"
    nodes.write_text("x3001\n")
    (machine.queue / "099.json").write_text(
        '{"id": "099", "state": "running", "walltime": "01:00:00", "queue": "", "after": []}'
    )
    environment = os.environ | machine.environment
    del environment["PROJECT"]
    return subprocess.run(
        ["bash", "-c", f"source jobs/{machine.site}/site.sh; {command}"],
        cwd=machine.root,
        env=environment | {"PBS_JOBID": "099", "PBS_NODEFILE": str(nodes)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@all_sites("crux", "polaris", "aurora")
def test_a_successor_has_the_account_queue_and_variables_of_its_job(machine):
    queue = {"aurora": "capacity"}.get(machine.site, "preemptable")
    done = in_job(
        machine,
        f"resubmit jobs/{machine.site}/train.sh",
        PBS_ACCOUNT="Catalyst",
        PBS_O_QUEUE=queue,
        RUN="runs/a",
        MODEL="CNN_FC",
        BNN_PASS="HOROVOD_CYCLE_TIME",
        HOROVOD_CYCLE_TIME="2",
    )
    assert done.returncode == 0, done.stderr
    job = machine.jobs()[-1]
    assert (job["project"], job["queue"], job["nodes"]) == ("Catalyst", queue, 1)
    assert job["walltime"] == "01:00:00"
    assert job["variables"]["HOROVOD_CYCLE_TIME"] == "2"
    assert job["variables"]["BNN_PASS"] == "HOROVOD_CYCLE_TIME"


@all_sites("polaris", "aurora")
def test_a_job_of_a_debug_queue_queues_no_other(machine):
    """The site takes one job a user there: the successor would be the second."""
    done = in_job(
        machine,
        f"resubmit jobs/{machine.site}/train.sh",
        PBS_ACCOUNT="Catalyst",
        PBS_O_QUEUE="debug",
        RUN="runs/a",
    )
    assert done.returncode == 75
    assert "debug takes one job a user" in done.stderr
    assert "nearest: " in done.stderr
    assert len(machine.jobs()) == 1  # the job itself


@all_sites("crux", "polaris", "aurora", "theta")
def test_nothing_is_queued_without_an_account(machine):
    environment = os.environ | machine.environment
    del environment["PROJECT"]
    done = subprocess.run(
        ["jobs/submit.sh", f"jobs/{machine.site}/train.sh"],
        cwd=machine.root,
        env=environment | {"MODEL": "CNN_FC"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no project to charge; export PROJECT=NAME" in done.stderr
    assert machine.jobs() == []


@pytest.mark.parametrize(
    ("machine", "nodes", "walltime", "queue"),
    [
        ("polaris", "1", "01:00:00", "preemptable"),
        ("polaris", "10", "03:00:00", "prod"),
        ("polaris", "10", "03:00:01", "preemptable"),
        ("polaris", "496", "24:00:00", "prod"),
        ("polaris", "4", "100:00:00", "capacity"),
        ("aurora", "16", "24:00:00", "capacity"),
        ("aurora", "256", "06:00:00", "prod"),
        ("crux", "184", "24:00:00", "workq-route"),
    ],
    indirect=["machine"],
)
def test_node_count_and_walltime_choose_a_queue_that_takes_the_job(machine, nodes, walltime, queue):
    machine.submit("train.sh", NODES=nodes, WALLTIME=walltime)
    (job,) = machine.jobs()
    assert (job["queue"], job["nodes"], job["walltime"]) == (queue, int(nodes), walltime)
    assert job["state"] == "queued"  # not lost


@pytest.mark.parametrize(
    ("machine", "variables", "why"),
    [
        (
            "polaris",
            {"NODES": "9", "WALLTIME": "80:00:00"},
            "polaris: no queue takes 9 nodes for 80:00:00; nearest: preemptable takes 1 to 10 "
            "nodes for up to 72 hours\n",
        ),
        (
            "aurora",
            {"NODES": "250"},
            "aurora: no queue takes 250 nodes for 01:00:00; nearest: prod takes 256 to 512 nodes "
            "for up to 6 hours\n",
        ),
        (
            "crux",
            {"NODES": "20", "QUEUE": "preemptable"},
            "crux: preemptable does not take 20 nodes for 01:00:00; nearest: workq-route takes 1 "
            "to 184 nodes for up to 24 hours\n",
        ),
    ],
    indirect=["machine"],
)
def test_a_job_that_no_queue_takes_is_refused_with_the_nearest(machine, variables, why):
    done = subprocess.run(
        ["jobs/submit.sh", f"jobs/{machine.site}/train.sh"],
        cwd=machine.root,
        env=os.environ | machine.environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, why)
    assert machine.jobs() == []


@all_sites("polaris")
def test_the_stand_in_loses_a_job_that_fits_nowhere_as_the_site_does(machine):
    """Which is why jobs/submit.sh asks the table first."""
    done = subprocess.run(
        "qsub -A p -q prod -l select=2:system=polaris jobs/polaris/train.sh && qstat 100",
        shell=True,
        cwd=machine.root,
        env=os.environ | machine.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "100.pbs-01\n"
    assert "Job has finished" in done.stderr


SHOW = 'site_env; echo "$LD_LIBRARY_PATH|${http_proxy:-}|${LAUNCH[0]}|${MINE:-}"'


@all_sites("crux", "polaris")
def test_crays_libraries_come_first_and_a_users_own_file_last(machine):
    (machine.root / "jobs" / machine.site / "own.sh").write_text("export MINE=loaded\n")
    done = in_job(machine, SHOW, LD_LIBRARY_PATH="/usr/local/lib", GPUS="0")
    assert done.returncode == 0, done.stderr
    libraries, proxy, launcher, mine = done.stdout.strip().split("|")
    assert libraries == "/opt/cray/lib:/usr/local/lib"
    assert proxy == "http://proxy.alcf.anl.gov:3128"
    assert Path(launcher) == STAND_INS / "pbs" / "mpiexec"  # the site's, not the environment's
    assert mine == "loaded"


FABRIC = 'site_env; env -0 | grep -z "^FI_\\|^NCCL_\\|^LD_LIB\\|^MPI" | sort -z | tr "\\0" "\\n"'


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@all_sites("polaris")
def test_nccl_goes_over_the_sites_network_unless_told_otherwise(machine):
    """As docs.alcf.anl.gov/polaris/applications-and-libraries/libraries/nccl says."""
    done = in_job(machine, FABRIC, LD_LIBRARY_PATH="/mine", FI_CXI_DEFAULT_CQ_SIZE="7")
    assert done.returncode == 0, done.stderr
    told = settings(done.stdout)
    plugin = told.pop("NCCL_PLUGIN")
    assert told == {
        "NCCL_NET": "AWS Libfabric",
        "NCCL_NET_GDR_LEVEL": "PHB",
        "NCCL_CROSS_NIC": "1",
        "NCCL_COLLNET_ENABLE": "1",
        "FI_CXI_DISABLE_HOST_REGISTER": "1",
        "FI_MR_CACHE_MONITOR": "userfaultfd",
        "FI_CXI_DEFAULT_CQ_SIZE": "7",  # the user's own
        "MPICH_GPU_SUPPORT_ENABLED": "0",
        "LD_LIBRARY_PATH": f"/soft/libraries/hwloc/lib:{plugin}:/opt/cray/lib:/mine",
    }
    for switch in ({"BNN_FABRIC": "0"}, {"GPUS": "0"}):
        told = settings(in_job(machine, FABRIC, LD_LIBRARY_PATH="/mine", **switch).stdout)
        del told["NCCL_PLUGIN"]
        assert told == {"MPICH_GPU_SUPPORT_ENABLED": "0", "LD_LIBRARY_PATH": "/opt/cray/lib:/mine"}


@all_sites("polaris")
def test_a_plugin_that_has_moved_is_named_with_the_ways_out(machine):
    done = in_job(machine, FABRIC, NCCL_PLUGIN="/soft/gone")
    assert done.returncode == 1
    assert "/soft/gone: no such folder" in done.stderr
    assert "NCCL_PLUGIN=FOLDER" in done.stderr
    assert "BNN_FABRIC=0" in done.stderr


@all_sites("aurora")
def test_auroras_network_is_set_beyond_sixteen_nodes(machine):
    nodes = machine.queue / "many"
    for count, expected in ((16, set()), (17, {"131072", "8388608", "20"})):
        nodes.write_text("".join(f"x{i}\n" for i in range(count)))
        told = settings(in_job(machine, FABRIC, PBS_NODEFILE=str(nodes)).stdout)
        assert told["MPIR_CVAR_ENABLE_GPU"] == "0"
        assert {value for name, value in told.items() if name.startswith("FI_CXI")} == expected


@all_sites("crux")
def test_engines_of_a_notebook_have_the_environment_of_a_batch_job(machine, monkeypatch):
    """Also where JupyterLab was not started by jupyter.sh, which has it already."""
    (machine.root / "jobs" / "crux" / "own.sh").write_text("export MINE='a b'\n")
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/local/lib")
    monkeypatch.chdir(machine.root)
    settings = sites.load("crux", machine.root)
    told = preparation.engine_config(settings).BaseLauncher.environment
    assert told["LD_LIBRARY_PATH"] == "/opt/cray/lib:/usr/local/lib"
    assert told["https_proxy"] == "http://proxy.alcf.anl.gov:3128"
    assert told["MINE"] == "a b"
    assert told["PATH"].startswith(f"{sys.prefix}/bin:")
    assert not {"SHLVL", "PWD", "_"} & set(told)


@all_sites("crux")
def test_a_site_outside_of_a_job_is_told(machine):
    """Its launcher is on compute nodes alone."""
    done = in_job(machine, "LAUNCH[0]=no_mpiexec; site_env")
    assert done.returncode == 1
    assert "no_mpiexec: no such program here" in done.stderr
    assert "run this in a job" in done.stderr


@pytest.mark.ranks
@all_sites("crux")
def test_horovod_is_checked_by_the_ranks_and_the_environment_of_a_run(machine):
    nodes = machine.queue / "nodes"
    nodes.write_text("x3001\n")
    in_job(machine, "true")  # the queue knows the job
    done = machine.launch(
        "bash",
        "jobs/check.sh",
        "crux",
        cwd=machine.root,
        environment=machine.environment
        | {"PBS_JOBID": "099", "PBS_NODEFILE": str(nodes), "PPN": "2", "THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "crux: 2 rank(s) add up\n"
    (line,) = machine.launched()
    assert line.endswith("python jobs/local/check_horovod.py 2")


@all_sites("crux")
def test_a_module_that_names_no_libraries_ends_the_job(machine):
    """Each rank would be alone otherwise."""
    done = in_job(machine, SHOW, CRAY_LD_LIBRARY_PATH="")
    assert done.returncode == 1
    assert "CRAY_LD_LIBRARY_PATH is not set" in done.stderr


@all_sites("crux")
def test_an_environment_without_papermill_ends_the_job(machine):
    (machine.root / ".venv").unlink()
    done = in_job(machine, SHOW, CONDA_PREFIX="/no/conda")
    assert done.returncode == 1
    assert "BNN_ENV=/no/conda: no papermill there" in done.stderr


@pytest.mark.ranks
@all_sites("crux")
def test_a_failed_run_is_not_resubmitted(machine):
    machine.submit("train.sh", RUN="runs/a", **TRAIN | {"MODEL": "no_such_model"})
    job = machine.run_next()
    assert job["code"] not in (0, 75)
    assert len(machine.jobs()) == 1


@pytest.mark.parametrize(
    ("site", "command", "why"),
    [
        ("pbs", "qsub -l select=1:system=crux jobs/slurm/train.sh", "Account_Name is required"),
        ("pbs", "qsub -A p -l select=1 -l walltime=1:00 x", "expected one script"),
        ("pbs", "qsub -A p -q nosuch jobs/crux/train.sh", "unknown queue"),
        ("pbs", "qsub -A p -q debug -l walltime=09:00:00 jobs/crux/train.sh", "violates queue"),
        ("pbs", "qsub jobs/polaris/train.sh", "Account_Name is required"),
        ("cobalt", "qsub jobs/theta/train.sh", "-A is missing"),
        ("pbs", "qsub -A p --export=ALL jobs/crux/train.sh", "lists no such option"),
        ("pbs", "mpiexec -n 2 --ppn 2 --map-by node true", "lists no such option"),
        ("pbs", "mpiexec -n 3 --ppn 2 true", "do not fill"),
        ("pbs", "mpiexec -n 2 --ppn 2 --cpu-bind depth true", "needs --depth"),
        ("pbs", "mpiexec -n 2 --ppn 2 --cpu-bind list:1-4:4-8 true", "ranks share a core"),
        ("cobalt", "qsub -A p --walltime=10 jobs/theta/train.sh", "lists no such option"),
        ("cobalt", "qsub -n 16 -t 01:00:00 -A p -q default jobs/theta/train.sh", "takes 128"),
        (
            "pbs",
            "echo x9 >$STAND_IN/h; mpiexec -n 1 --ppn 1 --hostfile $STAND_IN/h true",
            "x9: no node of this job",
        ),
        ("cobalt", "aprun -n 2 -N 1 true", "claim exceeds reservation's node-count: 2 nodes, 0"),
        ("cobalt", "aprun -n 2 -N 2 -d 128 -j 2 -cc depth true", "more than a node's"),
        ("cobalt", "aprun -n 2 -N 2 -d 2 true", "always use -cc depth"),
        ("cobalt", "aprun -n 2 --ppn 2 true", "lists no such option"),
        ("nersc", "sbatch -A p -t 01:00:00 jobs/slurm/train.sh", "No architecture specified"),
        ("nersc", "sbatch -A p --partition=gpu_ss11 jobs/perlmutter/train.sh", "supported policy"),
        ("nersc", "sbatch -A p -q gpu_regular jobs/perlmutter/train_gpu.sh", "Invalid qos"),
        ("nersc", "sbatch -A p -q debug jobs/perlmutter/train.sh", "up to 8 nodes and 0.5 h"),
        ("nersc", "sbatch -A p -q shared jobs/perlmutter/train.sh", "more than a node's"),
        ("nersc", "sbatch -A p -C gpu -N 1 jobs/perlmutter/train.sh", "more than a node's 128"),
        ("nersc", "sbatch -A p -C cpu jobs/perlmutter/train_gpu.sh", "--gpus-per-node=4"),
        ("nersc", "sbatch jobs/perlmutter/train.sh", "Invalid account"),
    ],
)
def test_a_stand_in_refuses(tmp_path, site, command, why):
    (tmp_path / "nodes").write_text("x3001\n")
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env={
            "PATH": f"{STAND_INS / site}{os.pathsep}{os.environ['PATH']}",
            "STAND_IN": str(tmp_path),
            "STAND_IN_MPIEXEC": str(BIN / "mpiexec"),
            "PBS_NODEFILE": str(tmp_path / "nodes"),
            "COBALT_JOBSIZE": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert why in done.stderr


@pytest.mark.parametrize("site", QUEUES)
def test_a_full_nodes_launch_line_is_taken(tmp_path, site):
    """With the site's own numbers, such as Aurora's list of cores for twelve ranks."""
    nodes = tmp_path / "nodes"
    nodes.write_text("x3001\n")
    queue = QUEUES[site]
    where = {"PBS_NODEFILE": str(nodes), "PBS_JOBID": "1"} if queue == "pbs" else {}
    (tmp_path / "1.json").write_text('{"state": "running", "walltime": "01:00:00"}')
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'source jobs/{site}/site.sh; "${{LAUNCH[@]}}" true',
        ],
        cwd=ROOT,
        env={
            "PATH": f"{STAND_INS / queue}{os.pathsep}{os.environ['PATH']}",
            "STAND_IN": str(tmp_path),
            "STAND_IN_MPIEXEC": "/bin/true",
            "COBALT_JOBSIZE": "1",
        }
        | where,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert re.match(r"(aprun|mpiexec|srun) -n \d+ ", (tmp_path / "launched").read_text())


def test_polaris_gpus_are_counted_backwards():
    seen = [
        subprocess.run(
            ["jobs/polaris/pin_gpu.sh", "printenv", "CUDA_VISIBLE_DEVICES"],
            cwd=ROOT,
            env=os.environ | {"PMI_LOCAL_RANK": str(local_rank)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for local_rank in range(5)
    ]
    assert seen == ["3", "2", "1", "0", "3"]


def test_polaris_gpus_of_a_packed_run_are_those_beside_its_cores():
    """Places 2 and 3 of a node have the cores 16-31, next to GPUs 1 and 0."""
    environment = os.environ | {"PMI_LOCAL_RANK": "1", "BNN_SLOTS": "2,3"}
    done = subprocess.run(
        ["jobs/polaris/pin_gpu.sh", "printenv", "CUDA_VISIBLE_DEVICES"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("value", ["runs/lr=0.1,seed=1", "runs/a b", 'runs/it\'s "one"', "runs/ü"])
@all_sites("crux", "polaris", "aurora")
def test_a_value_that_holds_the_lists_separator_reaches_the_job_and_its_successor(machine, value):
    machine.submit("train.sh", RUN=value, BNN_DATA="/data,1", **TRAIN)
    (job,) = machine.jobs()
    assert (job["variables"]["RUN"], job["variables"]["BNN_DATA"]) == (value, "/data,1")
    assert set(job["variables"]) > {"RUN", "BNN_DATA", "PARAMS", "MODEL", "PPN"}

    # Within the job, whose environment holds these and nothing else.
    (machine.queue / "nodes").write_text("x3001\n")
    variables = {"PBS_JOBID": job["id"], "PBS_NODEFILE": str(machine.queue / "nodes")}
    done = subprocess.run(
        ["bash", "-c", f"source jobs/{machine.site}/site.sh; resubmit {job['script']}"],
        cwd=machine.root,
        env=os.environ | machine.environment | job["variables"] | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    successor = machine.jobs()[-1]
    assert successor["id"] != job["id"]
    assert successor["variables"] == job["variables"] | {"RESUBMITS": "19"}


@all_sites("theta")
def test_cobalt_refuses_a_value_with_its_separator_before_the_first_job(machine):
    """A comma is none there."""
    machine.submit("train.sh", RUN="runs/lr=0.1,seed=1", **TRAIN)
    (job,) = machine.jobs()
    assert job["variables"]["RUN"] == "runs/lr=0.1,seed=1"
    done = subprocess.run(
        ["bash", "-c", "source jobs/theta/site.sh; submit jobs/theta/train.sh"],
        cwd=machine.root,
        env=os.environ | machine.environment | TRAIN | {"RUN": "runs/12:30"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert done.stderr == (
        "RUN=runs/12:30: Cobalt cannot pass on a colon; choose a name without one\n"
    )
    assert len(machine.jobs()) == 1


@pytest.mark.ranks
@all_sites("perlmutter")
def test_a_run_at_nersc_and_its_shape(machine):
    machine.submit("train.sh", RUN="runs/nersc/one", **TRAIN)
    job = machine.run_next()
    assert job["code"] == 0, job["stderr"]
    assert (job["queue"], job["constraint"], job["project"]) == ("regular", "cpu", "Catalyst")
    assert check_run(machine.root / "runs" / "nersc" / "one", "slurm")["job_id"] == job["id"]
    (line,) = machine.launched()
    assert line.startswith("srun -n 2 --ntasks-per-node=2 --cpus-per-task=1 --kill-on-bad-exit=1")


def in_slurm(machine, command: str, submit: str, **variables: str) -> subprocess.CompletedProcess:
    """A command of the site's scripts in a job that `submit`, words after sbatch, has queued."""
    environment = os.environ | machine.environment
    done = subprocess.run(
        f"sbatch --parsable {submit}",
        shell=True,
        cwd=machine.root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (job,) = machine.jobs()
    machine.change(job, state="running")
    del environment["PROJECT"]
    of_the_job = {
        "SLURM_JOB_ID": job["id"],
        "SLURM_JOB_NUM_NODES": str(job["nodes"]),
        "SLURM_NTASKS_PER_NODE": str(job["ranks"]),
        "SLURM_CPUS_PER_TASK": str(job["cpus"]),
        "SLURM_JOB_END_TIME": str(int(time.time()) + 600),
    }
    if job["gpus"]:
        of_the_job["SLURM_GPUS_PER_NODE"] = job["gpus"]
    return subprocess.run(
        ["bash", "-c", f"source jobs/{machine.site}/site.sh; {command}"],
        cwd=machine.root,
        env=environment | of_the_job | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@all_sites("perlmutter")
def test_a_successor_at_nersc_asks_for_the_public_names_of_what_its_job_has(machine):
    """squeue says gpu_regular and gpu_ss11, which no job may ask for, and 30:00 for 30 minutes."""
    given = "-A Catalyst --no-requeue -C 'gpu&hbm80g' -N 2 -t 00:30:00"
    script = "jobs/perlmutter/train_gpu.sh"
    done = in_slurm(machine, f"resubmit {script}", f"{given} {script}", RUN="runs/a")
    assert done.returncode == 0, done.stderr
    job = machine.jobs()[-1]
    assert (job["queue"], job["constraint"], job["project"]) == (
        "regular",
        "gpu&hbm80g",
        "Catalyst",
    )
    assert (job["nodes"], job["ranks"], job["cpus"], job["gpus"]) == (2, 4, 32, "4")
    assert (job["walltime"], job["variables"]["RESUBMITS"]) == ("30:00", "19")


@all_sites("perlmutter")
def test_a_job_of_nerscs_debug_neither_queues_another_nor_goes_back(machine):
    script = "jobs/perlmutter/train.sh"
    done = in_slurm(
        machine, f"resubmit {script}", f"-A Catalyst -q debug -t 00:30:00 {script}", RUN="runs/a"
    )
    assert done.returncode == 75
    assert "perlmutter: debug takes one job a user, or allows no chain" in done.stderr
    assert len(machine.jobs()) == 1


@all_sites("perlmutter")
def test_the_successor_of_an_arrays_job_is_the_same_repeat(machine):
    """`train` has put the number behind the run's name, and does so again."""
    script = "jobs/perlmutter/train.sh"
    given = f"-A Catalyst --no-requeue --array=0-9 {script}"
    done = in_slurm(machine, f"resubmit {script}", given, RUN="runs/a-s3", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    job = machine.jobs()[-1]
    assert (job["array"], job["variables"]["RUN"]) == ("3", "runs/a")
    assert (machine.root / "runs" / "a-s3" / "job").read_text().strip() == job["id"]


@pytest.mark.parametrize(
    ("machine", "gpus", "launch"),
    [
        ("perlmutter", "0", "srun -n 64 --ntasks-per-node=32 --cpus-per-task=8 "),
        ("perlmutter", "4", "srun -n 8 --ntasks-per-node=4 --cpus-per-task=32 "),
    ],
    indirect=["machine"],
)
def test_ranks_fill_nerscs_nodes_with_their_hardware_threads(machine, gpus, launch):
    done = subprocess.run(
        ["bash", "-c", 'source jobs/perlmutter/site.sh; echo "${LAUNCH[*]}"'],
        cwd=machine.root,
        env=os.environ | machine.environment | {"GPUS": gpus, "NODES": "2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(launch)
    assert done.stdout.count("--cpu-bind=cores") == 1
    assert done.stdout.count("--gpu-bind=none") == (gpus == "4")


@all_sites("perlmutter")
def test_nerscs_gpus_are_shown_in_the_order_of_the_cores(machine):
    """And Cray's MPICH, whose GPU transport is not linked, is told to leave GPUs alone."""
    show = 'site_env; echo "$LD_LIBRARY_PATH|$MPICH_GPU_SUPPORT_ENABLED|${CUDA_VISIBLE_DEVICES:-}"'
    done = subprocess.run(
        ["bash", "-c", f"source jobs/perlmutter/site.sh; {show}"],
        cwd=machine.root,
        env=os.environ | machine.environment | {"GPUS": "4", "LD_LIBRARY_PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "/opt/cray/lib:|0|3,2,1,0", done.stderr


def environment_of_kernel(name: str, code: str) -> str:
    """What a kernel prints that Jupyter starts by its name, as a hub does."""
    manager, client = start_new_kernel(kernel_name=name, startup_timeout=60)
    said = []
    try:
        reply = client.execute_interactive(
            code,
            timeout=60,
            output_hook=lambda message: said.append(message["content"].get("text", "")),
        )
        assert reply["content"]["status"] == "ok", reply
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return "".join(said)


@all_sites("polaris")
def test_a_hubs_kernel_has_the_environment_of_the_sites_job_scripts(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    own = "export OWN='a b=$HOME' PE_LINK=-L/opt/cray/lib\n"
    (machine.root / "jobs" / "polaris" / "own.sh").write_text(own)
    # What this shell has already, the hub need not have.
    already = {"MPICH_GPU_SUPPORT_ENABLED": "0", "BNN_PASS": "MINE", "MINE": "1", "OTHER": "1"}
    done = subprocess.run(
        ["jobs/kernel.sh", "polaris"],
        cwd=machine.root,
        env=os.environ | machine.environment | already,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    spec = json.loads((tmp_path / "jupyter/kernels/bnnlib-polaris/kernel.json").read_text())
    assert spec["display_name"] == "bnnlib (polaris)"
    # Nor the shape of a job, which is the hub's to choose.
    assert not {"OTHER", "RANKS", "NODES", "PPN"} & set(spec["env"])

    # The hub's job, whose shell knows neither `module` nor the launcher's folder.
    monkeypatch.setenv("PBS_JOBID", "1.test")
    monkeypatch.chdir(machine.root / "notebooks")
    names = ("PROJECT", "BNN_SITE", "BNN_ENV", "http_proxy", "MPICH_GPU_SUPPORT_ENABLED", "OWN")
    names += ("PE_LINK", "MINE", "LD_LIBRARY_PATH", "PATH")
    found = json.loads(
        environment_of_kernel(
            "bnnlib-polaris",
            "import json, os\n"
            "from bnnlib.interactive import preparation\n"
            f"told = {{name: os.environ[name] for name in {names}}}\n"
            "settings = preparation.site(preparation.own_site(), 8)\n"
            "told['launch'] = settings.launch\n"
            "os.environ['PATH'] = '/usr/bin:/bin'\n"
            "preparation.engine_config(settings)\n"  # the kernel's is the engines' own, too
            "print(json.dumps(told))",
        )
    )
    assert found["launch"][:5] == [str(STAND_INS / "pbs" / "mpiexec"), "-n", "8", "--ppn", "4"]
    assert found["launch"][-1] == str(machine.root / "jobs" / "polaris" / "pin_gpu.sh")
    assert "/opt/cray/lib" in found["LD_LIBRARY_PATH"].split(":")
    assert found["PATH"].startswith(f"{machine.root}/.venv/bin:")
    assert {name: found[name] for name in names[:-2]} == {
        "PROJECT": "Catalyst",
        "BNN_SITE": "polaris",
        "BNN_ENV": f"{machine.root}/.venv",
        "http_proxy": "http://proxy.alcf.anl.gov:3128",
        "MPICH_GPU_SUPPORT_ENABLED": "0",
        "OWN": "a b=$HOME",
        "PE_LINK": "-L/opt/cray/lib",
        "MINE": "1",
    }
