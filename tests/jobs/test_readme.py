"""The README says what the tables say, and its figures are taken over with their tables."""

import json
import shutil

import pandas as pd
import pytest

from bnnlib.errors import RecordError
from jobs.local import publish, readme
from tests.conftest import ROOT


@pytest.fixture
def figures(tmp_path):
    """A copy of the published tables, to change."""
    return shutil.copytree(ROOT / "figures", tmp_path / "figures")


def change(path, **columns):
    """Writes a table again, with other values in some columns."""
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_the_readme_says_what_its_tables_say():
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- made: ") == text.count("<!-- end -->") == len(readme.BLOCKS)
    assert readme.fill(text) == text, "run `python -m jobs.local.readme`"


def test_ivons_table_says_what_its_tables_say(figures):
    name = "figures/ivon/README.md"
    text = (ROOT / name).read_text()
    assert text.count("<!-- made: ivon -->") == 1
    assert readme.fill(text, blocks=readme.FILES[name]) == text, "run `python -m jobs.local.readme`"
    change(figures / "ivon" / "official.csv", nll=0.5, start="torch")
    (row,) = (line for line in readme.ivon(figures).splitlines() if "ivon-opt" in line)
    assert row.startswith("| torch | ivon-opt 0.1.3 | 6 | 0.9")
    assert "| 0.5000 (0.5000 to 0.5000) |" in row


def test_every_picture_and_file_that_the_readme_links_exists():
    text = (ROOT / "README.md").read_text()
    links = [part.split(")")[0].split("#")[0] for part in text.split("](")[1:]]
    files = [link for link in links if link and not link.startswith("http")]
    assert files
    assert [link for link in files if not (ROOT / link).exists()] == []


def test_a_difference_whose_interval_holds_zero_is_none(figures):
    file = figures / "digits" / "differences.csv"
    change(file, difference=-0.25, low=-0.5, high=-0.125)
    clear = readme.digits(figures)
    assert "all have a lower debiased ECE than their twin: by 0.250 [0.125, 0.500] (" in clear
    assert "all lose accuracy beside their twin" in clear
    assert "no difference" not in clear
    change(file, high=0.125)
    unclear = readme.digits(figures)
    assert "no difference is shown for BNN_conv_flip, BNN_conv_nonflip, BNN_FC_flip" in unclear
    assert "lower" not in unclear
    change(file, low=0.0625, difference=0.09375)
    assert "all have a higher debiased ECE than their twin: by 0.094" in readme.digits(figures)


def test_a_posterior_that_has_not_converged_is_named(figures):
    file = figures / "digits" / "runs.csv"
    assert "have converged" in readme.digits(figures)
    change(file, converged=False, kl_change=0.031)
    assert "have not converged" in readme.digits(figures)
    assert "BNN_FC_flip (3.1 %)" in readme.digits(figures)


def test_the_distance_of_ranks_is_the_tables(tmp_path):
    (tmp_path / "scaling").mkdir()
    rows = [
        {"model": "CNN_FC", "ranks": ranks, "batch": batch, "noise": "independent", "seed": 0}
        | {"score": "ece", "value": value}
        for batch, values in (("global", (0.10, 0.13, 0.08)), ("per rank", (0.1, 0.1, 0.35)))
        for ranks, value in zip((1, 2, 4), values, strict=True)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "scaling/calibration_against_ranks.csv", index=False)
    text = readme.ranks(tmp_path)
    assert "2 to 4 ranks differs from that of one rank by at most 0.030" in text
    assert "up to 0.250" in text


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
