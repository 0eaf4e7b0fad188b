"""A study file as jobs of a site: what is submitted, and how a run's state is told."""

import json
import os
from pathlib import Path

import pytest
import yaml

from bnnlib import __main__ as program
from bnnlib.errors import ExperimentError, RecordError, SiteError
from bnnlib.launch import queue
from bnnlib.record.schema import ATTEMPT_KEYS, KEYS, SCHEMA

ROOT = Path(__file__).parents[2]
SMALL = {"group": "g", "ranks": [1, 2], "grid": {"model": ["CNN_FC", "BNN_FC_flip"], "seed": 3}}
FOUR = [f"runs/g/{model}-r{n}-seed=3" for n in (1, 2) for model in ("CNN_FC", "BNN_FC_flip")]


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Writes a study file and reads it, in a folder with the job scripts."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNN_SITE", raising=False)

    def run(told, site="local"):
        Path("study.yaml").write_text(yaml.safe_dump(told))
        return queue.read("study.yaml", site)

    return run


def test_a_job_a_run_of_the_study(read):
    jobs = read(SMALL)
    assert [str(job.directory) for job in jobs] == FOUR
    assert [(job.ranks, job.nodes, job.walltime) for job in jobs] == [
        *[(1, 1, "01:00:00")] * 2,
        *[(2, 1, "01:00:00")] * 2,
    ]


def test_nodes_and_node_hours_are_the_sites(read):
    told = {"walltime": "01:30:00"}
    by_ranks = read(told | {"ranks": 5}, "polaris")[0]
    assert (by_ranks.nodes, by_ranks.ranks_per_node, by_ranks.node_hours) == (2, 3, 3.0)
    by_nodes = read(told | {"nodes": 4}, "polaris")[0]
    assert (by_nodes.ranks, by_nodes.nodes, by_nodes.node_hours) == (16, 4, 6.0)


def test_the_repositorys_sweeps_can_be_read(read):
    for name in ("sweep", "node_sweep"):
        assert queue.read(ROOT / f"jobs/studies/{name}.yaml", "crux"), name


def test_a_job_that_the_queue_refuses_leaves_no_folder(read, tmp_path, monkeypatch):
    jobs = read(SMALL | {"ranks": 8, "grid": {"model": ["CNN_FC", "CNN_conv"]}}, "slurm")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'over the limits' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    jobs[0].directory.mkdir(parents=True)
    (jobs[0].directory / "mine.txt").touch()
    for job in jobs:
        with pytest.raises(SiteError, match="over the limits"):
            queue.submit([job], "slurm")
    assert [path.name for path in Path("runs").rglob("*") if path.is_file()] == ["mine.txt"]
    assert not jobs[1].directory.exists()


def test_a_sweep_on_gpus_takes_the_script_for_them(read, tmp_path, monkeypatch):
    read(SMALL | {"ranks": 8, "grid": {"model": "CNN_FC"}}, "slurm")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 8\necho $* GPUS=$GPUS >>submitted\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.delenv("GPUS", raising=False)
    (job,) = jobs = queue.read("study.yaml", "slurm", gpus="a100:4")
    assert (job.nodes, job.ranks_per_node) == (2, 4)
    queue.submit(jobs, "slurm")
    run, analysis = Path("submitted").read_text().splitlines()
    assert "--nodes=2 --ntasks-per-node=4 --gpus-per-node=a100:4 " in run
    assert run.endswith("jobs/slurm/train_gpu.sh GPUS=a100:4")
    assert "gpus" not in analysis  # it trains nothing
    assert analysis.endswith("jobs/slurm/analysis.sh GPUS=0")
    (by_default,) = queue.read("study.yaml", "slurm")
    assert by_default.script == "train.sh"


def test_gpus_that_a_site_has_not_are_refused(read):
    read(SMALL)
    with pytest.raises(SiteError, match="gpus = 4: the ranks of crux run on CPUs"):
        queue.read("study.yaml", "crux", gpus="4")
    with pytest.raises(ExperimentError, match="gpus = 'all': expected the GPUs of a node"):
        queue.read("study.yaml", "slurm", gpus="all")


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"nodes": 2}, "nodes = 2: local has only one; give ranks"),
        ({"group": "g"}, "expected either ranks or nodes"),
    ],
)
def test_what_a_site_cannot_do_is_refused(read, told, why):
    with pytest.raises(ExperimentError, match=why):
        read(told)


def write_record(job: queue.Job, status: str, **changes) -> None:
    job.directory.mkdir(parents=True, exist_ok=True)
    empty = {int: 0, str: "", dict: {}, list: []}
    record = {key: empty.get(types[0]) for key, types in KEYS.items()}
    attempt = {key: empty.get(types[0]) for key, types in ATTEMPT_KEYS.items()}
    attempt["ranks"] = changes.pop("ranks", job.ranks)
    parameters = job.experiment.to_dict() | changes.pop("parameters", {})
    record |= {"schema": SCHEMA, "parameters": parameters, "status": status, "attempts": [attempt]}
    (job.directory / "run.json").write_text(json.dumps(record | changes))


def test_a_state_is_the_records(read):
    job = read(SMALL)[0]
    assert queue.state(job, "local") == ("absent", "")
    job.directory.mkdir(parents=True)
    (job.directory / "job").write_text("local\n")
    assert queue.state(job, "local") == ("ended", "local")  # there is no queue to wait in
    for status, shown in [
        ("finished", "finished"),
        ("failed", "failed"),
        ("stopped", "stopped"),
        ("running", "lost"),
    ]:
        write_record(job, status)
        assert queue.state(job, "local") == (shown, "local")
    (job.directory / "job").unlink()
    write_record(job, "running")
    assert queue.state(job, "local") == ("running", "")  # started by hand


def test_a_folder_with_another_run_is_refused(read):
    job = read(SMALL)[0]
    write_record(job, "finished", ranks=4)
    with pytest.raises(RecordError, match=r"ranks \(4 there, 1 now\)"):
        queue.state(job, "local")
    write_record(job, "finished", parameters={"epochs": 11})
    with pytest.raises(RecordError, match=r"epochs \(11 there, 10 now\)"):
        queue.state(job, "local")


def test_upkeep_may_change_as_it_may_for_a_run(read):
    """A run that is continued takes another `checkpoint_minutes`, so a sweep does, too."""
    job = read(SMALL | {"common": {"checkpoint_minutes": 5.0}})[0]
    write_record(job, "finished", parameters={"checkpoint_minutes": 0.0})
    assert queue.state(job, "local") == ("finished", "")


SITES = {
    "slurm": ("squeue", "slurm_load_jobs error: Invalid job id specified", 1),
    "crux": ("qstat", "qstat: Unknown Job Id 7", 153),
    "theta": ("qstat", "", 0),
}


@pytest.mark.parametrize("site", SITES)
def test_a_queue_that_cannot_be_asked_has_not_said_that_the_job_is_gone(
    read, tmp_path, monkeypatch, site
):
    command, gone, code = SITES[site]
    job = read(SMALL, site)[0]
    job.directory.mkdir(parents=True)
    (job.directory / "job").write_text("7\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()

    def answer(text: str, code: int) -> None:
        script = tmp_path / "bin" / command
        script.write_text(f"#!/bin/sh\necho '{text}' >&{1 if code == 0 else 2}\nexit {code}\n")
        script.chmod(0o755)

    answer("7  me  running", 0)
    assert queue.state(job, site) == ("queued", "7")
    answer("slurm_load_jobs error: Unable to contact slurm controller", 1)
    assert queue.state(job, site) == ("unknown", "7")
    answer(gone, code)
    if site == "slurm":
        assert queue.state(job, site) == ("ended", "7")
        (tmp_path / "bin" / command).write_text("#!/bin/sh\n")  # it knows the job, as ended
    assert queue.state(job, site) == ("ended", "7")


def test_nothing_is_submitted_while_a_job_may_still_be_there(read, tmp_path, monkeypatch, capsys):
    jobs = read(SMALL, "slurm")
    jobs[3].directory.mkdir(parents=True)
    (jobs[3].directory / "job").write_text("7\n")
    for name, text in (("squeue", "exit 1"), ("sbatch", "echo 8; touch submitted")):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(SiteError, match="cannot be asked about 7, so nothing was submitted"):
        queue.submit(jobs, "slurm")
    assert not Path("submitted").exists()
    assert program.main(["sweep", "study.yaml", "--site", "slurm"]) == 1
    assert "these jobs may still be there" in capsys.readouterr().err


def test_an_analysis_that_waits_is_not_submitted_again(read, tmp_path, monkeypatch, capsys):
    jobs = read(SMALL, "slurm")
    for name, text in (("squeue", "echo 8"), ("sbatch", "echo 8; echo $* >>submitted")):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    queue.submit(jobs, "slurm")
    submitted = Path("submitted").read_text().splitlines()
    assert [line.split("/")[-1] for line in submitted] == [*["train.sh"] * 4, "analysis.sh"]
    assert "--dependency=afterok:8:8:8:8" in submitted[-1]
    queue.submit(jobs, "slurm")
    assert Path("submitted").read_text().splitlines() == submitted
    assert "runs/g: the analysis waits as 8" in capsys.readouterr().out


def test_the_table_and_its_sum(read, capsys):
    jobs = read(SMALL | {"walltime": "00:30:00"})
    write_record(jobs[0], "finished")
    sweep = ["sweep", "study.yaml", "--site", "local"]
    assert program.main([*sweep, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "ranks", "nodes", "node_hours", "state", "job"]
    assert lines[1].split() == ["CNN_FC-r1-seed=3", "1", "1", "0.50", "finished"]
    assert lines[-1] == "3 of 4 runs to submit at local, at most 1.50 node-hours"
    assert program.main([*sweep, "--status"]) == 0
    assert capsys.readouterr().out.endswith("4 runs at local: 3 absent, 1 finished\n")


def test_an_error_is_one_line(read, capsys):
    read(SMALL)
    assert program.main(["sweep", "nowhere.yaml", "--site", "local"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("python -m bnnlib sweep: nowhere.yaml: no study file can be read")
    assert told.count("\n") == 1
