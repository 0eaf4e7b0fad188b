"""The job scripts of jobs/: each is correct bash, and the local study runs from end to end."""

import re
import subprocess
from pathlib import Path

import pytest

from bnnlib import results

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.relative_to(ROOT) for path in (ROOT / "jobs").rglob("*.sh"))
# In the order of training.
SIX = ["CNN_FC", "BNN_FC_nonflip", "BNN_FC_flip", "CNN_conv", "BNN_conv_nonflip", "BNN_conv_flip"]

# The first test that asks for the study waits for six trainings.
pytestmark = pytest.mark.timeout(960)


def test_there_are_scripts():
    assert Path("jobs/local/study.sh") in SCRIPTS
    assert Path("jobs/local/environment.sh") in SCRIPTS


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
    expected = [f"{i} of 6: {model}, 2 ranks" for i, model in enumerate(SIX, start=1)]
    assert headings == [*expected, "comparison"]
    # Training's own bar from 0 to its end, 8 steps, for each model.
    assert len(re.findall(r" 0/8 \[00:00<\?, \?step/s\]", study.launched.stderr)) == len(SIX)
    assert len(re.findall(r"100%\|█+\| 8/8 \[", study.launched.stderr)) >= len(SIX)


@pytest.mark.ranks
def test_the_study_ends_with_the_table_of_six_and_the_paths(study):
    end = study.launched.stdout.split("=== comparison ===\n")[1]
    table, paths = end.split("executed notebooks:\n")
    notebooks, figures = (part.split() for part in paths.split("figures:\n"))

    header, *rows = (line.split() for line in table.splitlines())
    assert header == list(results.TABLE_COLUMNS)
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert sorted(shown) == sorted(SIX)
    for model, row in shown.items():
        assert (row["dataset"], row["ranks"], row["status"]) == ("tiny", "2", "finished")
        record = results.read_record(study.runs / model)
        for name in ("accuracy", "nll", "brier", "ece"):
            assert row[name] == f"{record['metrics'][name]:.4f}"
        assert float(row["images_per_second"]) > 0

    runs = Path("runs/tiny")
    executed = [runs / "02_calibration.ipynb", *(runs / model / "train.ipynb" for model in SIX)]
    assert sorted(notebooks) == sorted(map(str, executed))
    assert len(figures) >= 3
    for path in [*notebooks, *figures]:
        assert (study.root / path).stat().st_size > 0
    assert {Path(path).parent for path in figures} == {runs / "figures"}


@pytest.mark.ranks
def test_a_group_without_parameters_is_refused(launch):
    done = launch("jobs/local/study.sh", "no_such_group")
    assert done.returncode != 0
    assert "jobs/params/no_such_group.yaml" in done.stderr
    assert not (ROOT / "runs" / "no_such_group").exists()
