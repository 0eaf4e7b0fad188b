"""Means over groups of sets by hand, and the reference that shifted and foreign sets have."""

import math

import numpy as np
import pandas as pd
import pytest

from bnnlib import data, metrics
from bnnlib.analysis import tables
from bnnlib.analysis.runs import load_evaluation
from bnnlib.errors import RecordError
from tests.analysis.records import random_probs, write_run

LABELS = np.array([0, 1, 1, 0])


def predicted(model, wrong, run=""):
    """A model that gives 0.8 to the right class, and 0.2 for the first `wrong` images."""
    right = np.where(np.arange(4) < wrong, 0.2, 0.8)
    probs = np.where(np.eye(2)[LABELS] > 0, right[:, np.newaxis], 1 - right[:, np.newaxis])
    return tables.given(model, probs, LABELS, run or model)


# ------------------------------------------------------------------------- means over corruptions


@pytest.fixture
def two_families(monkeypatch):
    """A group of two families, of two severities and of one."""
    members = ("fog-1", "fog-2", "stripe")
    monkeypatch.setattr(data, "GROUPS", {"small": members, "fog": members[:2]})
    return members


def test_means_over_corruptions_by_hand(two_families):
    wrong = {"good": (0, 1, 1), "base": (1, 2, 1)}
    shifted = {
        name: [predicted(model, of[place]) for model, of in wrong.items()]
        for place, name in enumerate(two_families)
    }
    table = tables.corruption_means(shifted, baseline="base", num_resamples=50)
    assert set(table.group) == {"small"}  # one family alone is no mean over corruptions
    assert set(table.sets) == {3}
    assert set(table.images) == {4}
    rows = table.set_index(["model", "score"])
    assert rows.value["good", "cA"] == pytest.approx(1 - 2 / 12)
    assert rows.value["base", "cA"] == pytest.approx(1 - 4 / 12)
    assert rows.value["good", "cNLL"] == pytest.approx(
        (-10 * math.log(0.8) - 2 * math.log(0.2)) / 12
    )
    # |accuracy - 0.8| of the one bin: 0.2, 0.05 and 0.05.
    assert rows.value["good", "cECE"] == pytest.approx(0.3 / 3)
    # Errors of fog over both severities 1 of 3, of stripe 1 of 1.
    assert rows.value["good", "mCE"] == pytest.approx((1 / 3 + 1) / 2)
    assert rows.value["base", "mCE"] == pytest.approx(1.0)
    for score in ("cA", "cNLL"):
        row = rows.loc[("good", score)]
        assert row.low <= row.value <= row.high
    assert rows.loc[("good", "mCE"), ["low", "high"]].isna().all()


def test_a_baseline_is_a_run_or_a_model_whose_runs_are_averaged(two_families):
    shifted = {
        name: [predicted("a", 1, "a0"), predicted("a", 3, "a1"), predicted("b", 1)]
        for name in two_families
    }
    for baseline, expected in (("a0", 1.0), ("a1", 1 / 3), ("a", 1 / 2)):
        table = tables.corruption_means(shifted, baseline, 10).set_index(["run", "score"])
        assert table.value["b", "mCE"] == pytest.approx(expected)
    with pytest.raises(RecordError, match="baseline = 'c': no such run or model; expected a, a0"):
        tables.corruption_means(shifted, "c")
    assert "mCE" not in set(tables.corruption_means(shifted).score)


def test_a_group_of_which_a_run_lacks_a_set_has_no_row_of_that_run(two_families):
    shifted = {name: [predicted("a", 1), predicted("b", 1)] for name in two_families}
    shifted["stripe"] = shifted["stripe"][:1]
    assert set(tables.corruption_means(shifted).model) == {"a"}
    del shifted["stripe"]
    assert tables.corruption_means(shifted).empty


def test_errors_where_the_baseline_has_none_and_labels_without_probability(two_families):
    sure = tables.given("a", np.eye(2)[LABELS], LABELS)
    wrong = tables.given("b", np.eye(2)[1 - LABELS], LABELS)
    shifted = {name: [sure, wrong] for name in two_families}
    rows = tables.corruption_means(shifted, "a", 10).set_index(["model", "score"])
    assert rows.value["b", "mCE"] == math.inf
    assert math.isnan(rows.value["a", "mCE"])
    assert rows.value["b", "cNLL"] == math.inf
    assert math.isnan(rows.low["b", "cNLL"])


def test_every_group_of_several_corruptions_is_averaged():
    names = data.GROUPS["shifts"]
    labels = np.arange(40) % 3
    shifted = {name: [tables.given("a", random_probs(i), labels)] for i, name in enumerate(names)}
    table = tables.corruption_means(shifted, num_resamples=10)
    assert set(table.group) == {"shifts"}
    # The route of uncertainty-baselines: the mean over corruptions first, then over severities.
    by_set = [metrics.accuracy(random_probs(i), labels) for i in range(len(names))]
    assert table.set_index("score").value["cA"] == pytest.approx(np.mean(by_set))


# ------------------------------------------------------------------------------- OpenOOD's groups


def detection_of(**aurocs):
    return pd.DataFrame(
        {"run": "r", "model": "m", "set": name, "score": "entropy", "auroc": auroc}
        | {"aupr_in": auroc / 2, "aupr_out": auroc / 4, "fpr95": 1 - auroc}
        for name, auroc in aurocs.items()
    )


def test_means_over_groups_by_hand():
    detection = detection_of(fashion_mnist=0.9, kmnist=0.7, uniform_noise=1.0, letters=0.1)
    table = tables.ood_groups(detection, "mnist").set_index(["group", "protocol"])
    assert list(table.index) == [("near", "OpenOOD"), ("near", "all"), ("far", "all")]
    openood, both = table.loc[("near", "OpenOOD")], table.loc[("near", "all")]
    assert (openood.members, openood.missing, openood.sets) == ("fashion_mnist", "notmnist", 1)
    assert (both.members, both.missing, both.sets) == ("fashion_mnist, kmnist", "notmnist", 2)
    means = both[["auroc", "aupr_in", "aupr_out", "fpr95"]].tolist()
    assert means == pytest.approx([0.8, 0.4, 0.2, 0.2])
    assert openood.auroc == 0.9
    assert table.loc[("far", "all")].auroc == 1.0
    assert tables.ood_groups(detection, "tiny").empty
    assert tables.ood_groups(detection_of(letters=0.1), "mnist").empty


def test_a_group_is_averaged_for_each_run_and_score():
    labels = np.arange(40) % 3
    test = [tables.given(run, random_probs(i, 40, 5), labels, run) for i, run in enumerate("ab")]
    foreign = {
        name: [
            tables.given(run, random_probs(seed + i, 40, 5), run=run) for i, run in enumerate("ab")
        ]
        for seed, name in ((10, "mnist"), (20, "svhn"))
    }
    detection = tables.ood(test, foreign, 10)
    table = tables.ood_groups(detection, "cifar10")
    assert len(table) == 2 * len(set(detection.score))
    for row in table.itertuples():
        rows = detection[(detection.run == row.run) & (detection.score == row.score)]
        assert row.auroc == pytest.approx(rows.auroc.mean())
    assert set(table.missing) == {"textures, places365"}


# --------------------------------------------------------------------------------- the reference


@pytest.fixture
def runs(tmp_path):
    """A run with other draws for its foreign set, and one without."""
    labels = np.arange(40) % 3
    whole = {"test": (random_probs(1, 40, 6), labels), "noise": (random_probs(2, 40, 6), None)}
    part = {
        "test": (random_probs(3, 40, 6), labels),
        "reference": (random_probs(4, 20, 2), labels[:20]),
        "noise": (random_probs(5, 20, 2), None),
    }
    write_run(tmp_path / "a", "BNN_FC_flip", 0, whole)
    write_run(tmp_path / "b", "BNN_conv_flip", 0, part, eval_draws=2, eval_images=20)
    return tmp_path


def test_foreign_images_are_held_against_the_reference(runs):
    group = tables.Group(runs)
    reference = {one.model: one for one in group.reference()}
    test = {one.model: one for one in group.predictions()}
    assert len(reference["BNN_conv_flip"].mean_probs) == 20
    np.testing.assert_array_equal(
        reference["BNN_FC_flip"].mean_probs, test["BNN_FC_flip"].mean_probs
    )
    detection = tables.ood(group.reference(), group.by_set("ood"), 10)
    recorded = load_evaluation(runs).query("kind == 'ood'").set_index("model")
    for row in detection.itertuples():  # by another route: the record's own rows
        assert row.auroc == pytest.approx(recorded[f"auroc_{row.score}"][row.model], abs=1e-6)
    assert group.sets("shift") == []


def test_an_ensemble_has_the_reference_of_its_members(runs):
    labels = np.arange(40) % 3
    write_run(
        runs / "c",
        "BNN_conv_flip",
        1,
        {
            "test": (random_probs(6, 40, 6), labels),
            "reference": (random_probs(7, 20, 2), labels[:20]),
        },
        eval_draws=2,
        eval_images=20,
    )
    group = tables.Group(runs)
    (both,) = (one for one in group.reference() if "ensemble" in one.model)
    members = [one.mean_probs for one in group.reference() if one.model == "BNN_conv_flip"]
    np.testing.assert_allclose(both.mean_probs, np.mean(members, axis=0), rtol=1e-6)


def test_without_a_reference_the_test_set_is_it(tmp_path):
    write_run(tmp_path / "a", "CNN_FC", 0, {"test": (random_probs(1), np.arange(40) % 3)})
    group = tables.Group(tmp_path)
    assert group.reference() is group.predictions()
