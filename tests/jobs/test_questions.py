"""A question's way: study file, runs, looks, compact records, figures; and what git keeps of it."""

import dataclasses
import gzip
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from bnnlib.analysis import compact
from bnnlib.analysis.questions import convergence
from bnnlib.errors import ExperimentError, RecordError
from bnnlib.launch import study_file
from bnnlib.record.schema import read_record
from jobs.local import answers, cost, figures, questions, reproduce
from jobs.local import compact as taking_over
from tests.conftest import ROOT

KEPT = sorted(
    name for name in questions.QUESTIONS if (ROOT / "figures" / name / compact.FILE).exists()
)
STUDIES = sorted({study for one in questions.QUESTIONS.values() for study in one.studies})
# What `make reproduce` does to a question's study file, in one process.
MAKE = """
import sys
from pathlib import Path
from bnnlib.launch import here
from jobs.local import looks
here.train_all(here.read(sys.argv[1], sys.argv[2]))
looks.take(Path(sys.argv[2]), (1, 2, 5))
"""
STUDY = """
ranks: 1
common: {dataset: tiny, holdout: 0.25, threads: 1, batch_size: 16, test_draws: 3,
  keep_checkpoints: 9}
parts:
- group: converged
  common: {epochs: 2}
  grid: {model: BNN_FC_flip, seed: [0, 1]}
- group: ten_epochs
  common: {epochs: 1}
  grid: {model: BNN_FC_flip, seed: [0, 1]}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Four tiny runs of a question, with their looks."""
    folder = tmp_path_factory.mktemp("question")
    (folder / "study.yaml").write_text(STUDY)
    words = [sys.executable, "-c", MAKE, folder / "study.yaml", folder / "runs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    for file in (folder / "runs").rglob("run.json"):  # as if by a commit, whatever this tree is
        record = json.loads(file.read_text())
        record["attempts"][0] |= {"commit": "a" * 40, "clean": True}
        file.write_text(json.dumps(record))
    return folder / "runs"


@pytest.fixture(scope="module")
def records(runs, tmp_path_factory) -> list:
    path = tmp_path_factory.mktemp("figures") / compact.FILE
    assert taking_over.take_over(runs, path) == (4, 4)
    return compact.read(path)


def test_the_last_look_is_the_runs_own_evaluation(runs):
    directory = runs / "converged" / "BNN_FC_flip-r1-seed=1"
    looks = json.loads((directory / "looks.json").read_text())
    assert [(look["epoch"], look["step"]) for look in looks] == [(1, 12), (2, 24)]
    record = json.loads((directory / "run.json").read_text())
    assert looks[-1]["rows"] == record["evaluation"]
    assert looks[0]["rows"] != record["evaluation"]


def test_a_compact_record_says_what_the_run_does(runs, records):
    made = next(one for one in records if one["run"] == "converged/BNN_FC_flip-r1-seed=1")
    record = read_record(runs / made["run"])
    assert made["parameters"]["holdout"] == 0.25
    assert "run_dir" not in made["parameters"]
    assert made["origin"]["commit"] == "a" * 40
    assert made["origin"]["machine"]["processor"]
    assert made["steps"]["epoch"] == [1.0, 2.0]
    assert made["metrics"]["nll"] == pytest.approx(record["metrics"]["nll"], rel=1e-5)
    sets = [row["set"] for row in record["evaluation"]]
    assert [row["set"] for row in made["evaluation"]] == sets == ["test", "holdout"]
    assert [line["epoch"] for line in made["posterior"]] == [0, 1, 2]


def test_of_very_many_epochs_one_in_so_many_is_kept_and_the_last(monkeypatch):
    lines = [types.SimpleNamespace(epoch=e / 2, loss=e, nll=0, kl=0) for e in range(1, 15)]
    assert compact._by_epoch(lines)["loss"] == [2, 4, 6, 8, 10, 12, 14]
    monkeypatch.setattr(compact, "MOST_LINES", 3)
    assert compact._by_epoch(lines)["loss"] == [2, 8, 14]
    assert compact._by_epoch([])["loss"] == []


def test_records_of_elsewhere_stay_and_those_of_here_are_made_anew(runs, records, tmp_path):
    path = tmp_path / compact.FILE
    old = [records[0] | {"metrics": {}}, records[0] | {"run": "converged/elsewhere"}]
    compact.write(path, old)
    assert taking_over.take_over(runs, path) == (4, 5)
    found = {one["run"]: one for one in compact.read(path)}
    assert found[records[0]["run"]] == records[0]
    assert "converged/elsewhere" in found


def test_a_run_of_changed_files_is_refused(runs, tmp_path):
    record = json.loads(next(runs.rglob("run.json")).read_text())
    record["attempts"][0]["clean"] = False
    (tmp_path / "g" / "one").mkdir(parents=True)
    (tmp_path / "g" / "one" / "run.json").write_text(json.dumps(record))
    with pytest.raises(RecordError, match="no commit holds; commit, and make the run"):
        taking_over.take_over(tmp_path, tmp_path / compact.FILE)


def test_the_same_records_are_the_same_bytes_in_any_order(records, tmp_path):
    compact.write(tmp_path / "1.gz", records)
    compact.write(tmp_path / "2.gz", records[::-1])
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()
    assert compact.read(tmp_path / "1.gz") == records


def test_damaged_records_are_told(tmp_path):
    file = tmp_path / compact.FILE
    for content in (gzip.compress(b"{"), gzip.compress(b"[1]\n"), b"no gzip"):
        file.write_bytes(content)
        with pytest.raises(RecordError, match=re.escape(str(file))):
            compact.read(file)
    with pytest.raises(RecordError, match=r"jobs/local/compact\.py makes them"):
        compact.read(tmp_path / "none.gz")


def test_a_questions_figures_are_the_same_bytes_each_time(records, tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        compact.write(folder / compact.FILE, records)
        made.append(figures.draw("convergence", folder, folder))
    assert {path.name for path in made[0]} >= {"path.png", "path.svg", "path.csv", "path.json"}
    for one, other in zip(*made, strict=True):
        assert one.read_bytes() == other.read_bytes(), one
    origin = json.loads((tmp_path / "a" / "path.json").read_text())
    assert origin["commits"] == ["a" * 40]
    assert len(origin["runs"]) == 4
    table = pd.read_csv(tmp_path / "a" / "side_by_side.csv")
    assert set(table.state) == {"ten epochs", "stopped", "converged"}
    assert set(table.seeds) == {2}


def test_a_question_may_read_the_records_of_another_along(records, tmp_path):
    for name, some in (("prior_temperature", records[:2]), ("convergence", records[2:])):
        (tmp_path / name).mkdir()
        compact.write(tmp_path / name / compact.FILE, some)
    folder = tmp_path / "prior_temperature"
    figures.draw("prior_temperature", folder, folder)
    assert len(pd.read_csv(folder / "runs.csv")) == 4
    origin = json.loads((folder / "runs.json").read_text())
    assert len(origin["runs"]) == 2  # its own
    assert origin["beside"] == ["figures/convergence/records.jsonl.gz"]


@pytest.mark.parametrize("name", [*KEPT, "answers"])
def test_what_git_keeps_is_what_make_figures_makes(name, tmp_path):
    kept = ROOT / "figures" / name
    if name == "answers":
        made = answers.draw(ROOT / "figures", tmp_path)
    else:
        made = figures.draw(name, kept, tmp_path)
    lock = re.search(r"^matplotlib==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert lock
    same = mpl.__version__ == lock[1]
    for path in made:
        if path.suffix in (".csv", ".json") or same:
            told = f"{path.name}: run `make figures`"
            assert (kept / path.name).read_bytes() == path.read_bytes(), told


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_has_its_price(study):
    question = next(one for one in questions.QUESTIONS.values() if study in one.studies)
    expanded = study_file.read(ROOT / "jobs" / "studies" / f"{study}.yaml", "nowhere", any_ranks=1)
    table = cost.costs(expanded, question.epochs)
    assert table.runs.sum() == len(expanded)
    assert (table.core_hours_left > 0).all()
    assert "core-hours are left to do" in cost.told(expanded, question.epochs)


def test_a_price_is_steps_times_their_seconds_and_what_comes_besides():
    experiment = study_file.Experiment(
        model="CNN_FC", dataset="mnist", holdout=0.1, epochs=3, batch_size=32, virtual_ranks=4
    )
    row = {"model": "CNN_FC", "batch_size": 64, "ms_a_step": 2.0}
    table = pd.DataFrame([row | {"seconds_besides": 5.0, "seconds_a_look": 7.0}])
    steps = 3 * (54_000 // (32 * 4)) * 4  # of one virtual rank, on 32 images: 1 ms each
    assert cost.seconds_of(experiment, 1, table, (1, 3, 10)) == pytest.approx(steps / 1e3 + 5 + 14)
    draws = cost.seconds_of(dataclasses.replace(experiment, train_draws=4), 1, table)
    assert draws == pytest.approx(4 * steps / 1e3 + 5)
    part = dataclasses.replace(experiment, train_images=540)
    assert cost.seconds_of(part, 1, table) == pytest.approx(3 * (540 // 128) * 4 / 1e3 + 5)
    with pytest.raises(ExperimentError, match=r"BNN_FC_flip on mnist: seconds\.csv has no"):
        cost.seconds_of(study_file.Experiment(model="BNN_FC_flip", dataset="mnist"), 1, table)


def test_a_question_is_made_by_plan_and_then_looked_at():
    first, looks, *_ = reproduce.commands("convergence")
    assert first[1:] == [
        *("-m", "bnnlib", "plan", "jobs/studies/convergence.yaml"),
        *("--runs", "runs/convergence"),
    ]
    assert looks[1:4] == ["-m", "jobs.local.looks", "runs/convergence"]
    assert reproduce.commands("gradient_variance")[-1][1:] == [
        *("-m", "jobs.bench.gradient_variance"),
        *("runs/gradient_variance", "figures/gradient_variance"),
    ]
    with pytest.raises(ExperimentError, match="convergense: no such question; did you mean conv"):
        reproduce.commands("convergense")


def test_a_dry_run_says_the_price_of_each_study_file_and_starts_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce", "convergence", "--dry-run"])
    monkeypatch.setattr(subprocess, "run", lambda *_: pytest.fail("a run was started"))
    assert reproduce.main() == 0
    told = capsys.readouterr().out
    assert told.count("core-hours are left to do") == 2
    assert "jobs/studies/convergence_conv.yaml\n" in told
    monkeypatch.setattr(sys, "argv", ["reproduce", "nothing"])
    assert reproduce.main() == 1
    assert "nothing: no such question" in capsys.readouterr().err


def test_without_records_the_sentences_say_so():
    assert convergence.seeds([]) == "No run has finished yet."
    assert "Nothing is known" in convergence.told_calibrated([])
    assert "nothing to compare yet" in convergence.told_differences(
        [], "stopped less stopped twin", "nll"
    )
