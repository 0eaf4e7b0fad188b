"""The job scripts of jobs/: each is correct bash, and the local study runs from end to end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib.analysis import listing
from bnnlib.record.schema import read_record
from bnnlib.record.summary import ENOUGH_SECONDS, closing_line

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / "jobs").rglob("*.sh"))
# In the order of training.
EIGHT = [
    *("CNN_FC", "CNN_FC_ivon", "BNN_FC_nonflip", "BNN_FC_flip"),
    *("CNN_conv", "CNN_conv_ivon", "BNN_conv_nonflip", "BNN_conv_flip"),
]


def test_there_are_scripts():
    assert Path("jobs/local/study.sh") in SCRIPTS
    assert Path("jobs/local/environment.sh") in SCRIPTS
    for site in ("theta", "polaris", "crux", "aurora", "perlmutter", "slurm", "local"):
        for name in ("site.sh", "train.sh", "analysis.sh"):
            assert Path("jobs") / site / name in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_is_correct_bash_and_stops_at_an_error(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    text = (ROOT / script).read_text()
    assert text.startswith("#!/usr/bin/env bash\n") or text.startswith("#!/bin/bash")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)
    assert (ROOT / script).stat().st_mode & 0o100, "not executable"


@pytest.mark.ranks
def test_the_study_says_what_it_is_at(study):
    headings = re.findall(r"^=== (.*) ===$", study.launched.stdout, re.MULTILINE)
    left = r", (?:about \d+ minutes?|less than a minute) left$"
    # The first step has nothing to tell by, each later one says how long is left.
    steps = [heading for heading in headings if re.match(r"\d+ of 10: ", heading)]
    assert [bool(re.search(left, heading)) for heading in steps] == [False, *[True] * 9]
    headings = [re.sub(left, "", heading) for heading in headings]
    expected = [f"{i} of 10: {name}, 2 ranks" for i, name in enumerate(EIGHT, start=1)]
    expected += ["9 of 10: comparison", "10 of 10: what ranks add"]
    scaling = [*(f"times: repeat 1 of 1, {n} rank(s)" for n in (1, 2))]
    scaling += [f"calibration: {n} rank(s)" for n in (1, 2)]
    assert headings == [*expected, *scaling, "the table"]
    # Training's own bar from 0 to its end, 8 steps, for each model.
    assert len(re.findall(r" 0/8 \[00:00<\?, \?step/s\]", study.launched.stderr)) == len(EIGHT)
    assert len(re.findall(r"100%\|█+\| 8/8 \[", study.launched.stderr)) >= len(EIGHT)


@pytest.mark.ranks
def test_the_study_says_nothing_that_is_not_its_own(study):
    lines = re.split(r"[\n\r]", study.launched.stdout + study.launched.stderr)
    noise = (
        r"tensorflow|TensorFlow|CUDA|cuda|absl|WARNING|retracing|IPKernelApp|Notebook:|^[EWI]0000"
    )
    assert [line for line in lines if re.search(noise, line)] == []


@pytest.mark.ranks
def test_each_run_of_the_study_begins_with_its_record_and_ends_with_its_line(study):
    parts = re.split(r"^=== \d+ of 10: .*\n", study.launched.stdout, flags=re.MULTILINE)
    for name, part in zip(EIGHT, parts[1:9], strict=True):
        told = part.strip().splitlines()
        directory = study.runs / name
        assert told[0] == f"record: {directory}"
        assert told[-1] == closing_line(directory)
    of_plan = re.findall(r"^  (accuracy .* record: (.*))$", parts[10], re.MULTILINE)
    assert len(of_plan) >= 8
    for told, directory in of_plan:
        assert told == closing_line(study.root / directory).replace(f"{study.root}/", "")


@pytest.mark.ranks
def test_the_study_ends_with_the_table_of_eight_and_the_paths(study):
    end = study.launched.stdout.split("=== the table ===\n")[1]
    table, paths = end.split("executed notebooks:\n")
    notebooks, figures = (part.split() for part in paths.split("figures:\n"))

    header, *lines = table.splitlines()
    # What differs between the eight, and nothing else.
    differing = ["run_id", "model", "inference", "learning_rate", "ivon_h0", "ivon_beta2"]
    assert header.split() == [*differing, *listing.RESULTS]
    rows = [dict(zip(header.split(), line.split(), strict=True)) for line in lines]
    assert sorted(row["run_id"] for row in rows) == sorted(EIGHT)
    for row in rows:
        assert row["status"] == "finished"
        record = read_record(study.runs / row["run_id"])
        assert (record["parameters"]["dataset"], record["ranks"]) == ("tiny", 2)
        for name in ("accuracy", "nll", "brier", "ece"):
            assert row[name] == f"{record['metrics'][name]:.4f}"
        # A tiny run's timed steps last less than a second, mostly: too short for a speed.
        speed, seconds = row["images_per_second"], record["metrics"]["timed_seconds"]
        assert speed == "-" if seconds < ENOUGH_SECONDS else float(speed) > 0

    runs, scaling = Path("runs/tiny"), Path("runs/scaling_tiny")
    executed = [runs / "02_calibration.ipynb", *(runs / name / "train.ipynb" for name in EIGHT)]
    executed.append(scaling / "03_scaling.ipynb")
    assert sorted(notebooks) == sorted(map(str, executed))
    assert len(figures) >= 10
    for path in [*notebooks, *figures]:
        assert (study.root / path).stat().st_size > 0
    assert {Path(path).parent for path in figures} == {runs / "figures", scaling / "figures"}


@pytest.mark.ranks
def test_a_group_without_parameters_is_refused(launch):
    done = launch("jobs/local/study.sh", "no_such_group")
    assert done.returncode != 0
    assert "jobs/params/no_such_group.yaml" in done.stderr
    assert not (ROOT / "runs" / "no_such_group").exists()


SWEEP = """
group: small
walltime: "00:10:00"
ranks: [2]
grid: {model: CNN_FC}
common: {dataset: tiny, epochs: 2, batch_size: 32, log_every: 2, test_draws: 3}
"""


@pytest.mark.ranks
def test_a_sweep_on_this_machine_with_horovods_launcher(launch, tmp_path):
    for folder in ("jobs", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "small.yaml").write_text(SWEEP)
    command = (sys.executable, "-m", "bnnlib", "sweep", "small.yaml", "--site", "local")
    environment = {"LAUNCHER": "horovodrun", "PYTHONPATH": str(ROOT)}
    done = launch(*command, cwd=tmp_path, environment=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "runs" / "small" / "CNN_FC-r2")
    assert (record["status"], record["ranks"]) == ("finished", 2)
    assert record["launcher"] == "horovodrun"
    assert (tmp_path / "runs" / "small" / "02_calibration.ipynb").exists()
