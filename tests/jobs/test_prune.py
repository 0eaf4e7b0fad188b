"""Which cases a run is pruned in, and what they make of a trained one; tables that go on."""

import csv

import numpy as np
import pytest

from bnnlib.experiment import Experiment
from bnnlib.networks import pruning
from bnnlib.record.schema import read_record
from jobs.local import prune


def test_every_run_of_the_study_has_its_cases_each_once():
    counts = {}
    for model, layers in (*prune.ORDER, ("BNN_FC_nonflip", "auto")):
        found = list(prune.cases(Experiment(model=model, bayesian_layers=layers)))
        assert len(found) == len(set(found))
        assert found[0] == prune.Case()
        assert {case.share for case in found[1:]} == set(prune.SHARES)
        counts[model, layers] = {(case.scope, case.by, case.removed) for case in found[1:]}
    every = {("global", by, "zero") for by in pruning.SCORES}
    trap = {("global", "signal_to_noise", "trap")}
    assert counts["BNN_FC_flip", "auto"] == every | trap
    assert ("layer", "signal_to_noise", "zero") in counts["BNN_FC_flip", "all"]
    assert {by for _, by, _ in counts["CNN_FC", "auto"]} == {"magnitude", "random"}


@pytest.fixture(scope="module")
def runs(launch, tmp_path_factory):
    """One Bayesian run on tiny data, finished."""
    folder = tmp_path_factory.mktemp("pruning")
    words = "model=BNN_FC_flip dataset=tiny epochs=1 test_draws=3 holdout=0.25 threads=1"
    pairs = [word for one in words.split() for word in ("-p", one)]
    run = folder / "runs" / "ten_epochs" / "one"
    done = launch("python", "-m", "bnnlib", "train", *pairs, "-p", f"run_dir={run}")
    assert done.returncode == 0, done.stderr
    return folder / "runs"


@pytest.mark.ranks
def test_a_run_is_pruned_and_judged_and_a_table_goes_on_where_it_ended(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(prune, "SHARES", (0.5, 1.0))
    monkeypatch.setattr(prune, "NEAR", [])
    monkeypatch.setattr(prune.common, "write_origin", lambda *_, **__: None)
    prune.judge(runs, tmp_path)
    text = (tmp_path / "pruned.csv").read_text()
    with (tmp_path / "pruned.csv").open(newline="") as file:
        rows = {tuple(row[key] for key in prune.KEYS[1:]): row for row in csv.DictReader(file)}
    metrics = read_record(runs / "ten_epochs" / "one")["metrics"]
    whole = rows["global", "none", "zero", "0.0"]
    for name in ("accuracy", "nll", "ece_debiased"):  # no pruning: the run's own evaluation
        assert float(whole[name]) == pytest.approx(metrics[name], rel=1e-5)
    half, none, trap = (
        rows["global", "signal_to_noise", *which]
        for which in (("zero", "0.5"), ("zero", "1.0"), ("trap", "0.5"))
    )
    entries = int(whole["weights"])
    assert (int(half["weights"]), int(none["weights"])) == (entries // 2, 0)
    assert int(trap["weights"]) == entries
    assert (int(none["units"]), int(none["inputs"])) == (0, 0)
    assert int(half["bytes"]) < 0.7 * int(whole["bytes"])
    assert len(rows) == 1 + 2 * 5
    lines = text.splitlines(keepends=True)
    (tmp_path / "pruned.csv").write_text("".join(lines[:-2]))
    prune.judge(runs, tmp_path)
    again = (tmp_path / "pruned.csv").read_text()
    assert [line.rsplit(",", 1)[0] for line in again.splitlines()] == [
        line.rsplit(",", 1)[0] for line in text.splitlines()
    ]


@pytest.mark.ranks
def test_a_shrunk_network_is_timed_beside_the_whole(runs, monkeypatch):
    monkeypatch.setattr(prune, "SPEED_ROUNDS", 3)
    monkeypatch.setattr(prune, "SPEED_SHARES", (0.95,))
    rows = prune.speed_of(runs / "ten_epochs" / "one", "ten_epochs/one")
    assert [(row["share"], row["way"]) for row in rows] == [
        (0.0, "whole"), (0.95, "whole"), (0.95, "shrunk"),
    ]  # fmt: skip
    assert all(float(row["quarter"]) <= float(row["median"]) for row in rows)


def test_a_unit_goes_with_the_last_of_its_weights():
    """Two units of three pixels: the first has the three least ratios, the second the others."""
    mean, stddev = np.float32([[0, 1], [0.1, 2], [-0.2, -8]]), np.float32([[1, 1], [1, 1], [1, 4]])
    first = pruning.Weights({"kernel": mean, "bias": np.float32([-9, 1])}, stddev)
    second = pruning.Weights(
        {"kernel": np.float32([[0.1, -0.2], [3, 1]]), "bias": np.float32([0, 0])}, None
    )
    assert prune.units_of([first, second]) == [
        {"unit": 0, "goes_at": "0.5", "greatest": "0.2", "stddev": "1", "bias": "-9",
         "outgoing": "0.2"},
        {"unit": 1, "goes_at": "1", "greatest": "2", "stddev": "1", "bias": "1", "outgoing": "3"},
    ]  # fmt: skip
    stays = pruning.kept(pruning.scores(*prune.SNR, [mean], [stddev], [1.0]), 0.5)
    left, _ = pruning.shrunk([pruning.without([first], stays)[0], second])
    assert left[0].mean["bias"].tolist() == [1]
