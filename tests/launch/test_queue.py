"""A sweep's file: what it expands to, what is refused, and how a run's state is told."""

import json
from pathlib import Path

import pytest
import yaml

from bnnlib import experiment
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.launch import queue as sweep
from bnnlib.record.schema import ATTEMPT_KEYS, KEYS, SCHEMA

ROOT = Path(__file__).parents[2]
SMALL = {"ranks": [1, 2], "vary": {"model": ["CNN_FC", "BNN_FC_flip"], "seed": [3]}}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Writes a sweep's file and reads it, in a folder with the job scripts."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNN_SITE", raising=False)

    def run(told, site="local"):
        Path("sweep.yaml").write_text(yaml.safe_dump(told))
        return sweep.Sweep.read("sweep.yaml", site)

    return run


def test_every_combination_once_and_only_differences(read):
    found = read(SMALL | {"group": "g", "parameters": {"epochs": 2, "dropout": 0.0}})
    assert [str(job.directory) for job in found.jobs] == [
        "runs/g/CNN_FC-digits-r1-s3",
        "runs/g/BNN_FC_flip-digits-r1-s3",
        "runs/g/CNN_FC-digits-r2-s3",
        "runs/g/BNN_FC_flip-digits-r2-s3",
    ]
    # BNN_conv_flip is the default model, dropout 0 the default.
    assert found.jobs[0].parameters == {"model": "CNN_FC", "epochs": 2, "seed": 3}


def test_another_varied_parameter_stands_in_the_name(read):
    found = read({"ranks": [1], "vary": {"learning_rate": [0.001, 0.01]}})
    assert [job.directory.name for job in found.jobs] == [
        "BNN_conv_flip-digits-r1-s0-learning_rate_0.001",
        "BNN_conv_flip-digits-r1-s0-learning_rate_0.01",
    ]
    assert [job.parameters for job in found.jobs] == [{}, {"learning_rate": 0.01}]


def test_nodes_and_node_hours_are_the_sites(read):
    told = {"vary": {"seed": [0]}, "walltime": "01:30:00"}
    by_ranks = read(told | {"ranks": [5]}, "polaris").jobs[0]
    assert (by_ranks.nodes, by_ranks.ranks_per_node, by_ranks.node_hours) == (2, 3, 3.0)
    by_nodes = read(told | {"nodes": [4]}, "polaris").jobs[0]
    assert (by_nodes.ranks, by_nodes.nodes, by_nodes.node_hours) == (16, 4, 6.0)


def test_a_walltime_that_yaml_reads_as_a_number(read):
    Path("sweep.yaml").write_text("ranks: [1]\nwalltime: 01:30:00\n")
    assert sweep.Sweep.read("sweep.yaml", "local").walltime == "01:30:00"


def test_the_repositorys_sweeps_can_be_read():
    for path in (ROOT / "jobs").rglob("sweep.yaml"):
        assert sweep.Sweep.read(path, "crux").jobs, path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rank": [1]}, "did you mean ranks"),
        ({"ranks": [0]}, "ranks = 0: expected 1 or more"),
        ({"nodes": [1]}, "either ranks or nodes"),
        ({"nodes": [2], "ranks": None}, "local has only this one"),
        ({"ranks": 2}, "expected a list"),
        ({"vary": {"modle": ["CNN_FC"]}}, "did you mean model"),
        ({"vary": {"seed": []}}, "seed = \\[\\]: expected a list"),
        ({"vary": {"seed": [1, 1]}}, "the same run twice"),
        ({"vary": {"seed": [1]}, "parameters": {"seed": 2}}, "seed: both in vary and"),
        ({"walltime": "1 hour"}, "expected .HH:MM:SS."),
        ({"group": "../x"}, "expected a folder's name"),
    ],
)
def test_a_mistake_is_refused(read, change, why):
    with pytest.raises(ExperimentError, match=why):
        read({key: v for key, v in (SMALL | change).items() if v is not None})


def write_record(job: sweep.Job, status: str, **changes) -> None:
    job.directory.mkdir(parents=True, exist_ok=True)
    empty = {int: 0, str: "", dict: {}, list: []}
    record = {key: empty.get(types[0]) for key, types in KEYS.items()}
    attempt = {key: empty.get(types[0]) for key, types in ATTEMPT_KEYS.items()}
    attempt["ranks"] = changes.pop("ranks", job.ranks)
    parameters = experiment.Experiment().to_dict() | job.parameters
    record |= {"schema": SCHEMA, "parameters": parameters, "status": status, "attempts": [attempt]}
    (job.directory / "run.json").write_text(json.dumps(record | changes))


def test_a_state_is_the_records(read):
    job = read(SMALL).jobs[0]
    assert sweep.state(job, "local") == ("absent", "")
    job.directory.mkdir(parents=True)
    (job.directory / "job").write_text("local\n")
    assert sweep.state(job, "local") == ("absent", "local")  # there is no queue to wait in
    for status, shown in [
        ("finished", "finished"),
        ("failed", "failed"),
        ("stopped", "stopped"),
        ("running", "lost"),
    ]:
        write_record(job, status)
        assert sweep.state(job, "local") == (shown, "local")
    (job.directory / "job").unlink()
    write_record(job, "running")
    assert sweep.state(job, "local") == ("running", "")  # started by hand


def test_a_folder_with_another_run_is_refused(read):
    job = read(SMALL).jobs[0]
    write_record(job, "finished", ranks=4)
    with pytest.raises(RecordError, match=r"ranks \(4 there, 1 in the sweep\)"):
        sweep.state(job, "local")


def test_the_table_and_its_sum(read, capsys):
    told = read(SMALL | {"walltime": "00:30:00"})
    write_record(told.jobs[0], "finished")
    assert sweep.main(["sweep.yaml", "--site", "local", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "ranks", "nodes", "node_hours", "state", "job"]
    assert lines[1].split() == ["CNN_FC-digits-r1-s3", "1", "1", "0.50", "finished"]
    last = "3 of 4 runs to submit at local, at most 1.50 node-hours in jobs of 00:30:00"
    assert lines[-1] == last
    assert sweep.main(["sweep.yaml", "--site", "local", "--status"]) == 0
    assert capsys.readouterr().out.endswith("4 runs at local: 3 absent, 1 finished\n")


def test_an_error_is_one_line(read, capsys):
    read(SMALL)
    assert sweep.main(["nowhere.yaml", "--site", "local"]) == 1
    assert capsys.readouterr().err.startswith(
        "python -m bnnlib.launch.queue: nowhere.yaml: no sweep"
    )
