"""Runs side by side in one job: how many at once, what a failure and a stop leave, what is refused.

The launcher is a shell script, so that a run takes no time; the ranks are real in
tests/jobs/test_slurm.py.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bnnlib import __main__ as program
from bnnlib.errors import ExperimentError
from bnnlib.launch import pack, queue, sites

ROOT = Path(__file__).parents[2]
FOUR = {"group": "g", "ranks": 1, "grid": {"model": "CNN_FC", "seed": [0, 1, 2, 3]}}
NAMES = [f"runs/g/CNN_FC-r1-seed={seed}" for seed in range(4)]
# Each of two runs waits until the other has begun: alone it fails.
SIDE_BY_SIDE = """
echo start >>log
touch begun-$seed
for _ in $(seq 400); do
  [ -e begun-$((seed ^ 1)) ] && break
  sleep 0.05
done
[ -e begun-$((seed ^ 1)) ] || exit 9
echo end >>log
"""


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Callable[..., None]:
    """A folder with a study of four runs, and a launcher that does what the test says."""
    for name in ("jobs", "notebooks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for name in ("BNN_SITE", "BNN_DEADLINE", "BNN_STOP_MARGIN", "RANKS", "SLURM_JOB_ID", "NODES"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PBS_JOBID", "PBS_NODEFILE", "COBALT_JOBID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pack, "PAUSE", 0.0)
    monkeypatch.setattr(pack, "LOOK", 0.01)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def prepare(does: str, told: dict = FOUR, command: str = "mpiexec") -> None:
        Path("study.yaml").write_text(yaml.safe_dump(told))
        script = tmp_path / "bin" / command
        script.write_text(f"#!/bin/bash\nall=$* seed=${{all##*seed=}} seed=${{seed%%/*}}\n{does}\n")
        script.chmod(0o755)

    return prepare


def begun() -> list[str]:
    return sorted(file.name for file in Path().glob("begun-*"))


def test_two_runs_at_once_and_never_more(machine, capsys):
    machine(SIDE_BY_SIDE)
    assert pack.run("study.yaml", "local", "runs") == 0
    running, most = 0, 0
    for line in Path("log").read_text().split():
        running += 1 if line == "start" else -1
        most = max(most, running)
    assert (most, len(begun())) == (2, 4)
    told = capsys.readouterr().out
    starts = re.findall(r"seed=(\d): starts on node\(s\) 0, place\(s\) (\d)", told)
    assert starts[:2] == [("0", "0"), ("1", "1")]
    assert told.endswith("4 finished, 0 to go on with, 0 failed\n")


def test_a_run_is_started_as_a_job_of_its_own_would_start_it(machine):
    """The notebook, the parameter file and the folder are those of ``sweep``; cores its own."""
    machine('echo "$*|$BNN_SLOTS|$(taskset -cp $$)"')
    assert pack.run("study.yaml", "local", "runs") == 0
    words, slots, _ = (Path(NAMES[3]) / pack.OUTPUT).read_text().strip().split("|")
    cores = words.split()[4]
    assert words == (
        f"-n 1 taskset -c {cores} papermill notebooks/01_train.ipynb rank0:{NAMES[3]}/train.ipynb "
        f"--engine spmd -f {NAMES[3]}/parameters.yaml"
    )
    assert yaml.safe_load((Path(NAMES[3]) / "parameters.yaml").read_text())["seed"] == 3
    allowed = sorted(os.sched_getaffinity(0))
    each = len(allowed) // 2 or len(allowed)
    mine = int(slots)
    assert cores == ",".join(map(str, allowed[mine * each : (mine + 1) * each]))


def test_a_failed_run_leaves_the_others_alone(machine, capsys):
    machine('echo "no such thing" >&2; [ $seed != 1 ] || exit 3')
    assert pack.run("study.yaml", "local", "runs") == 1
    told = capsys.readouterr().out
    assert f"{NAMES[1]}: failed, exit code 3, see {NAMES[1]}/output.txt" in told
    assert told.endswith(
        f"3 finished, 0 to go on with, 1 failed\n  failed: {NAMES[1]}: see {NAMES[1]}/output.txt\n"
    )
    assert (Path(NAMES[1]) / "output.txt").read_text() == "no such thing\n"


def test_a_launcher_that_is_not_there_fails_the_run_and_no_more(machine, monkeypatch, capsys):
    machine("", command="unused")
    monkeypatch.setenv("PATH", f"{Path('bin').resolve()}:/usr/bin:/bin")
    assert pack.run("study.yaml", "local", "runs") == 1
    told = capsys.readouterr().out
    assert told.count("failed, [Errno 2] No such file or directory: 'mpiexec'") == 4


def started(environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """``python -m bnnlib pack`` as a process, once two of its runs have begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bnnlib", "pack", "study.yaml", "--site", "local"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(2400):
        if len(begun()) >= 2:
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no two runs have begun within two minutes")


ASKED = "trap 'touch asked-$seed; exit 75' USR1; touch begun-$seed; while :; do sleep 0.05; done"


def test_a_stop_is_passed_on_and_a_successor_goes_on_without_what_failed(machine, monkeypatch):
    """The second start is the job's successor: its id is the one that the first has noted."""
    machine(f"[ $seed != 0 ] || exit 3; {ASKED}")
    process = started({"PBS_JOBID": "1.pbs"})
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGTERM: 2 runs are asked to stop" in told
    assert sorted(file.name for file in Path().glob("asked-*")) == ["asked-1", "asked-2"]
    assert "0 finished, 3 to go on with, 1 failed" in told
    assert not Path("begun-3").exists()

    Path("runs/packed/study/job").write_text("2.pbs\n")
    monkeypatch.setenv("PBS_JOBID", "2.pbs")
    machine("echo again >>again")
    assert pack.run("study.yaml", "local", "runs") == 1
    assert Path("again").read_text() == 3 * "again\n"
    # Each run knows the job that has it now, and a job that the user starts tries all of them.
    assert {queue.job_id(Path(name)) for name in NAMES} == {"2.pbs"}
    monkeypatch.setenv("PBS_JOBID", "3.pbs")
    assert pack.run("study.yaml", "local", "runs") == 0


def test_a_run_that_does_not_stop_is_killed_before_the_deadline(machine):
    machine(
        "trap '' TERM USR1; echo $$ >pid-$seed; touch begun-$seed; while :; do sleep 0.05; done"
    )
    ends = time.time() + 3600
    process = started({"BNN_DEADLINE": str(ends), "BNN_STOP_MARGIN": "2"})
    process.send_signal(signal.SIGUSR1)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "0 finished, 4 to go on with, 0 failed" in told
    assert [
        one for one in Path().glob("pid-*") if Path("/proc", one.read_text().strip()).exists()
    ] == []


def test_runs_end_with_the_process_that_started_them(machine):
    """However it ended: here the system kills it."""
    machine(ASKED)
    process = started()
    process.kill()
    process.communicate()
    for _ in range(400):
        if len(list(Path().glob("asked-*"))) == 2:
            return
        time.sleep(0.05)
    raise AssertionError("a run has outlived the process that started it")


def test_nothing_starts_after_the_time_to_stop(machine, monkeypatch, capsys):
    machine("touch begun-$seed")
    monkeypatch.setenv("BNN_DEADLINE", str(time.time() + 10))
    assert pack.run("study.yaml", "local", "runs") == 75
    assert begun() == []
    assert "0 finished, 4 to go on with" in capsys.readouterr().out


def test_a_run_too_large_is_refused_before_anything_starts(machine, capsys):
    machine("touch begun-$seed", FOUR | {"ranks": [1, 3]})
    assert program.main(["pack", "study.yaml", "--site", "local"]) == 1
    assert begun() == []
    assert capsys.readouterr().err == (
        "python -m bnnlib pack: runs/g/CNN_FC-r3-seed=0: its 3 ranks need 2 node(s) with 2 ranks "
        "each, and the job has 1 node(s) with 2 each; give the job more, or the run a job of its "
        "own\n"
    )


def test_finished_runs_and_those_with_a_job_of_their_own_are_left(machine, monkeypatch, capsys):
    machine("touch begun-$seed")
    machine("touch begun-$seed", command="srun")
    machine("[ $3 != 7 ] || echo 7; [ $3 != 9 ] || echo 'x|1:00:00|a|q|p|c'", command="squeue")
    machine("echo n1", command="scontrol")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "9999999999")
    for number, job_id in ((0, "7"), (1, "8")):
        Path(NAMES[number]).mkdir(parents=True)
        (Path(NAMES[number]) / "job").write_text(f"{job_id}\n")
    monkeypatch.setattr(
        queue, "status", lambda job: "finished" if "seed=2" in str(job.directory) else "absent"
    )
    assert pack.run("study.yaml", "slurm", "runs") == 0
    assert begun() == ["begun-1", "begun-3"]
    told = capsys.readouterr().out
    assert f"{NAMES[0]}: left to its own job 7" in told
    assert f"{NAMES[2]}: finished before" in told


@pytest.mark.parametrize(
    ("nodes", "slots", "gpus", "words"),
    [
        ((0, 2), (), "0", "srun -n 2 --exact --mem=0 --nodelist=n1,n3 --ntasks-per-node=1"),
        ((1,), (2, 3), "0", "srun -n 2 --exact --mem=0 --nodelist=n2 --ntasks-per-node=2"),
        # Else the first step on a node would take all of its GPUs.
        ((1,), (2, 3), "a100:4", "srun -n 2 --exact --mem=0 --gpus-per-node=2 --nodelist=n2 --nt"),
    ],
)
def test_slurm_gives_a_step_no_more_than_it_asks_for(
    machine, monkeypatch, nodes, slots, gpus, words
):
    machine("printf 'n1\nn2\nn3\n'", command="scontrol")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-3]")
    ranks = {"RANKS": 2, "PPN": 2 // len(nodes), "THREADS": 3, "ENDS": "none", "GPUS": gpus}
    run = {"RUN": "runs/g/a", "PARAMS": "study.yaml"}
    found = sites.words_on_slice("slurm", nodes, slots, 4, run | ranks)
    launch = found[: found.index("papermill")]
    assert Path(launch[0]).name == "srun"
    assert " ".join(["srun", *launch[1:]]).startswith(words)
    assert "--cpus-per-task=3" in launch


def submitted(machine, told: dict = FOUR) -> None:
    """A Slurm that takes each job as number 8, and knows it as long as there is a file."""
    machine('echo 8; echo "$PPN $RANKS $STUDY $RUNS $RUN $*" >>submitted', told, "sbatch")
    machine("[ ! -e waits ] || echo 8", told, "squeue")


def test_one_job_is_submitted_and_each_run_is_in_it(machine, capsys):
    submitted(machine)
    sweep = ["sweep", "study.yaml", "--packed", "--site", "slurm", "--nodes", "2"]
    assert program.main([*sweep, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith(
        "4 of 4 runs to submit at slurm in one job of 2 node(s) with 2 ranks each: up to 4 at "
        "once, in 1 wave(s), within 1.00 hours, at most 2.00 node-hours\n"
    )
    assert not Path("submitted").exists()

    assert program.main([*sweep, "--walltime", "00:30:00"]) == 0
    told = capsys.readouterr().out
    assert "in 2 jobs of 00:30:00, one after another" in told
    job, analysis = Path("submitted").read_text().splitlines()
    assert job.startswith("2 4 runs/packed/study/study.yaml runs runs/packed/study ")
    for word in ("--nodes=2", "--ntasks-per-node=2", "--time=00:30:00", "jobs/slurm/pack.sh"):
        assert word in job.split()
    assert "--dependency=afterok:8" in analysis.split()
    Path("waits").touch()
    assert program.main([*sweep[:2], "--site", "slurm", "--status"]) == 0
    assert "4 runs at slurm: 4 queued" in capsys.readouterr().out
    assert program.main(sweep) == 0
    assert len(Path("submitted").read_text().splitlines()) == 2  # nothing more

    # The job's successor, whose id stands in the job's folder, is every run's.
    Path("runs/packed/study/job").write_text("9\n")
    assert {queue.job_id(Path(name)) for name in NAMES} == {"9"}

    # A run that is submitted by itself again has a job of its own, and the others keep theirs.
    Path("waits").unlink()
    queue.submit(queue.read("study.yaml", "slurm")[:1], "slurm")
    assert [queue.job_id(Path(name)) for name in NAMES[:2]] == ["8", "9"]


def test_runs_new_in_the_study_wait_until_its_packed_job_has_ended(machine, capsys):
    submitted(machine)
    assert program.main(["sweep", "study.yaml", "--packed", "--site", "slurm"]) == 0
    Path("waits").touch()
    Path("study.yaml").write_text(yaml.safe_dump(FOUR | {"repeats": 2}))
    assert program.main(["sweep", "study.yaml", "--packed", "--site", "slurm"]) == 1
    assert (
        "runs/packed/study: its job 8 still waits or runs, and goes without "
        "runs/g/CNN_FC-r1-seed=0-repeat1; submit this when it has ended"
    ) in capsys.readouterr().err
    # The job goes by the file as it was submitted.
    assert yaml.safe_load(Path("runs/packed/study/study.yaml").read_text()) == FOUR


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--nodes", "2"], "--nodes and --walltime are of one job for all runs: add --packed"),
        (["--packed", "--nodes", "2"], "--nodes 2: local has 1 here"),
        (["--packed", "--walltime", "1:00"], "walltime = '1:00': expected \"HH:MM:SS\""),
    ],
)
def test_what_sweep_cannot_pack_is_refused(machine, capsys, words, why):
    machine("")
    assert program.main(["sweep", "study.yaml", "--site", "local", *words]) == 1
    assert why in capsys.readouterr().err


def test_the_default_is_a_job_for_the_largest_run(machine):
    machine("", FOUR | {"ranks": [1, 9]})
    assert pack.read("study.yaml", "polaris", "runs").room.nodes == 3
    with pytest.raises(ExperimentError, match=r"r9-seed=0: its 9 ranks need 3 node\(s\)"):
        pack.told(pack.read("study.yaml", "polaris", "runs", 2), [4])
