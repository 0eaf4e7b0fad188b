"""The README says what the tables say, and its figures are taken over with their tables."""

import json
import shutil

import pandas as pd
import pytest

from bnnlib.analysis.questions import uncertainty_decomposition
from bnnlib.errors import RecordError
from jobs.local import publish, readme
from tests.analysis.test_uncertainty_question import table as uncertainties
from tests.conftest import ROOT


@pytest.fixture
def figures(tmp_path):
    """A copy of the published tables, to change."""
    return shutil.copytree(ROOT / "figures", tmp_path / "figures")


def change(path, **columns):
    """Writes a table again, with other values in some columns."""
    pd.read_csv(path, dtype={"prior": str}).assign(**columns).to_csv(path, index=False)


@pytest.mark.parametrize("name", readme.FILES)
def test_a_file_says_what_its_tables_say(name):
    text, blocks = (ROOT / name).read_text(), readme.FILES[name]
    assert text.count("<!-- made: ") == text.count("<!-- end -->") == len(blocks)
    assert readme.fill(text, blocks=blocks) == text, "run `python -m jobs.local.readme`"


def test_ivons_table_is_of_its_tables(figures):
    change(figures / "ivon" / "official.csv", nll=0.5, start="torch")
    (row,) = (line for line in readme.ivon(figures).splitlines() if "ivon-opt" in line)
    assert row.startswith("| torch | ivon-opt 0.1.3 | 6 | 0.9")
    assert "| 0.5000 (0.5000 to 0.5000) |" in row


def test_a_trap_that_costs_nothing_is_not_told_as_one(figures):
    path = figures / "pruning" / "differences.csv"
    told = readme.removed(figures)
    assert told.startswith(
        "**80 % of the weights can go for at most 0.7 points of accuracy, but some"
    )
    assert "with them; after ten epochs they must be exactly 0.**" in told
    change(path, high=0.1)
    assert "points of accuracy.**" in readme.removed(figures)
    change(path, low=-0.2, high=-0.1)
    told = readme.removed(figures)
    assert told.startswith("**80 % of the weights can go for at most 20.0 points of accuracy, but")
    assert "after the long training and after ten epochs they must be exactly 0.**" in told


def test_a_setting_that_was_tried_has_a_row(figures):
    change(figures / "convergence" / "mnist.csv", loss=0.25, kl_change=0.5, natural="0.1/0.2")
    *_, row = readme.tried_mnist(figures).splitlines()
    assert row.startswith(
        "| `BNN_FC_flip` | 100 | 0.003 | 10 | natural step 0.1/0.2 | 0.2500 | 50.0 %"
    )


def test_what_uncertainty_says_is_counted_from_its_table(figures):
    """Of the rows that the table lacks an interval of, nothing is said."""
    table = uncertainty_decomposition.differences(uncertainties())
    path = figures / "uncertainty_decomposition" / "differences.csv"
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False)
    beside = uncertainty_decomposition.beside_ensemble(uncertainties())
    beside.to_csv(path.with_name("beside_ensemble.csv"), index=False)
    more = len(beside.dropna(subset="low"))
    assert more > 0
    told = readme.unsure(figures)
    assert told.startswith(
        "**More data lower the epistemic part on 1 of 5 kinds of image and raise it on 4; the "
        "aleatoric part, which should stay, falls on 5.**"
    )
    assert "epistemic +0.2990 [" in told
    twins = "; five twins' ensemble lowers its own on 5"
    assert f"{twins} (3 seeds; of {36 + more} comparisons)" in told
    change(path, low=table.low.where(table.method == "BNN_FC_nonflip"))
    assert f"of {12 + more} comparisons" in readme.unsure(figures)
    assert "twins" not in readme.unsure(figures)
    assert "The 540 images had 10,500 steps and the 54,000 had 42,100: whether" in told
    change(figures / "uncertainty_decomposition" / "runs.csv", steps=100)
    assert readme.unsure(figures).endswith(" comparisons).")


def test_every_picture_and_file_that_the_readme_links_exists():
    text = (ROOT / "README.md").read_text()
    links = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
    files = [link for link in links if link and not link.startswith("http")]
    assert files
    assert [link for link in files if not (ROOT / link).exists()] == []


def test_a_block_within_a_line_stays_there(figures):
    made = {"ivon": lambda folder: folder.name}
    row = "| a | <!-- made: ivon -->old<!-- end --> and more |"
    assert readme.fill(row, figures, made) == row.replace("old", "figures")
    lines = "<!-- made: ivon -->\nold\nlines\n<!-- end -->"
    assert readme.fill(lines, figures, made) == lines.replace("old\nlines", "figures")


def test_the_first_answer_is_the_paired_difference_s(figures):
    file = figures / "convergence" / "differences.csv"
    assert "worse than after ten epochs, but under a narrow prior better.**" in (
        readme.calibrated(figures)
    )
    change(file, mean=-0.01, low=-0.02, high=-0.005)
    assert (
        "stands still, a posterior is calibrated better than after ten epochs.**"
        in readme.calibrated(figures)
    )
    change(file, high=0.005)
    assert "is calibrated no differently, as far as is shown, than after" in readme.calibrated(
        figures
    )
    change(file, mean=0.01, low=0.005, high=0.015)
    assert (
        "stands still, a posterior is calibrated worse than after ten epochs.**"
        in readme.calibrated(figures)
    )
    change(figures / "convergence" / "side_by_side.csv", mean=1.5, low=1.25, high=1.75)
    said = readme.calibrated(figures)
    assert "It is too sure (temperature 1.50 [1.25, 1.75]). The deterministic twin" in said
    assert "the ECE's change is +0.0100 [+0.0050, +0.0150] under N(0, 1), +0.0100" in said
    change(figures / "convergence" / "side_by_side.csv", mean=1.0, low=0.75, high=1.25)
    assert "It is as sure as it is right (temperature 1.00" in readme.calibrated(figures)


def test_a_tenth_of_the_weight_is_told_by_its_differences(tmp_path):
    (tmp_path / "prior_temperature").mkdir()
    file = tmp_path / "prior_temperature" / "differences.csv"
    table = pd.DataFrame({"score": ["nll", "accuracy", "ece_debiased", "auroc_near"]})
    table = table.assign(what="less defaults", knob="kl_weight", setting=0.1, seeds=5)
    table = table.assign(
        model="BNN_FC_flip", state="ten epochs", mean=-0.01, low=-0.02, high=-0.005
    )
    table.to_csv(file, index=False)
    said = readme.cooled(tmp_path)
    assert said.startswith(
        "**A tenth of the KL term's weight lowers the NLL and calibrates better, but is less "
        "accurate and tells near images worse; the end of training is not measured.**"
    )
    assert (
        "after ten epochs of the defaults: in place of the whole weight it changes the NLL" in said
    )
    assert "debiased ECE by −0.0100 [−0.0200, −0.0050] and the AUROC" in said
    assert "near sets by −0.0100 [−0.0200, −0.0050] (5 seeds; four of 4 comparisons)." in said
    end = table.assign(state="converged")
    end.loc[end.score == "accuracy", ["mean", "low", "high"]] = 0.01, 0.005, 0.02
    pd.concat([table, end]).to_csv(file, index=False)
    said = readme.cooled(tmp_path)
    assert said.startswith(
        "**A tenth of the KL term's weight lowers the NLL, is more accurate and calibrates "
        "better, but tells near images worse.**"
    )
    assert "at the end of training: " in said
    assert "four of 8 comparisons" in said
    table.assign(low=float("nan")).to_csv(file, index=False)
    assert readme.cooled(tmp_path).startswith("Too few seeds are trained")


def test_the_second_answer_claims_of_single_batches_only_what_is_measured(figures):
    assert "not where each keeps its own.**" in readme.replaced(figures)
    change(figures / "gradient_variance" / "per_rank.csv", ratio=1.25, low=1.03125, high=1.5)
    assert "where they share a batch.**" in readme.replaced(figures)
    assert "1.25 [1.03, 1.50] times Flipout's noise on one rank" in readme.replaced(figures)
    change(figures / "gradient_variance" / "needless.csv", ranks=6.5, ranks_low=6, ranks_high=7.1)
    assert "from 7 [6, 8] ranks on before training" in readme.replaced(figures)
    assert "Measured on 16 ranks, it has 1.05 [1.04, 1.07] and 1.06 [" in readme.replaced(figures)


def test_the_third_answer_weighs_waiting_against_the_network(figures):
    file = figures / "simulation" / "simulated.csv"
    told = readme.nodes(figures)
    assert "costs more than the network, but the simulation misses most of the loss" in told
    assert "the first is of 2 steps" in told
    change(file, efficiency=0.5, ms=10.0, low=8.0, high=12.5)
    told = readme.nodes(figures)
    assert "waiting costs no more than the network.**" in told
    assert "keeps 0.50 [0.40, 0.62] of a perfect speed-up" in told


def as_of(folder, commit, clean=True):
    """Makes records say that a commit made them."""
    for file in folder.rglob("run.json"):
        record = json.loads(file.read_text())
        for attempt in record["attempts"]:
            attempt |= {"commit": commit, "clean": clean}
        file.write_text(json.dumps(record))


def test_the_study_is_taken_over_with_its_tables(study, tmp_path):
    runs = shutil.copytree(study.runs, tmp_path / "runs" / "digits")
    tiny = shutil.copytree(study.runs, tmp_path / "runs" / "tiny")
    target = tmp_path / "figures"
    target.mkdir()
    (target / "reliability.png").write_bytes(b"an older picture")
    as_of(runs, "a" * 40)
    as_of(tiny, "b" * 40)
    with pytest.raises(RecordError, match=f"{'a' * 40}, {'b' * 40}"):
        publish.publish(runs, tiny, target)
    as_of(tiny, "a" * 40, clean=False)
    with pytest.raises(RecordError, match="of changed files"):
        publish.publish(runs, tiny, target)
    as_of(tiny, "a" * 40)
    publish.publish(runs, tiny, target)
    picture = runs / "figures" / "reliability.png"
    assert (target / "reliability.png").read_bytes() == picture.read_bytes()
    table = pd.read_csv(target / "runs.csv")
    assert list(table.columns) == publish.COLUMNS
    assert table[["num_train", "num_test"]].notna().all(axis=None)
    assert set(pd.read_csv(target / "differences.csv").score) >= {"accuracy", "ece", "nll"}
    assert len(pd.read_csv(target / "numbers.csv")) == len(table) == 8
