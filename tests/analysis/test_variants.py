"""Which runs may stand in one comparison."""

import re

import numpy as np
import pytest

from bnnlib.analysis import findings, load, tables, variants
from bnnlib.errors import RecordError
from tests.analysis.records import random_probs, write_run

LABELS = np.random.default_rng(0).integers(0, 3, 200)
NAMES = ["BNN_FC_flip prior_stddev(0.1)", "BNN_FC_flip prior_stddev(1.0)"]


def hinted(seed, sharpness):
    """Probabilities that know the label the better, the sharper they are; alike of one seed."""
    logits = np.random.default_rng(seed).normal(size=(3, 200, 3)) + sharpness * np.eye(3)[LABELS]
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture
def two_priors(tmp_path):
    """Two priors of three seeds each: the wider one knows more."""
    for prior, sharpness in ((0.1, 1.0), (1.0, 2.0)):
        for seed in range(3):
            sets = {
                "test": (hinted(seed, sharpness), LABELS),
                "rotate-30": (hinted(seed + 10, sharpness / 2), LABELS),
                "noise": (random_probs(seed, 200, 3, 0.5), None),
            }
            folder = tmp_path / "g" / f"p{prior}s{seed}"
            write_run(folder, "BNN_FC_flip", seed, sets, prior_stddev=prior)
    return tmp_path / "g"


def test_two_priors_are_compared_with_the_default_paired_by_seed(two_priors):
    group = tables.Group(two_priors)
    assert group.models == [*NAMES, *(f"{name} ensemble(3)" for name in NAMES)]
    table = tables.differences(group.predictions(), 100)
    assert table[
        ["kind", "model", "other", "runs", "paired"]
    ].drop_duplicates().to_numpy().tolist() == [["variant", *NAMES, 3, True]]
    text = findings.scores(tables.scores(group.predictions(), 50), table)
    assert f"- **{NAMES[0]}** less {NAMES[1]}, paired by seed (3 seeds): accuracy −" in text
    answers = (
        table,
        tables.shift_differences(group.by_set("shift"), 50),
        tables.ood_differences(group.predictions(), group.by_set("ood")),
    )
    severities = tables.shifts(group.predictions(), group.by_set("shift"), 20)
    detection = tables.ood(group.predictions(), group.by_set("ood"), 20)
    verdict = findings.verdict(
        tables.scores(group.predictions(), 50), severities, detection, answers
    )
    assert f" {NAMES[1]}, paired by seed (3 seeds). Over 1 shifted set, " in verdict
    # What a finding says of runs of one seed alone is not paired by several.
    assert "paired" not in findings.scores(*of_one_seed(two_priors))


def of_one_seed(group):
    test = tables.Group(group, "seed=0").predictions()
    return tables.scores(test, 50), tables.differences(test, 50)


def test_pairs_of_one_seed_leave_out_what_the_seeds_have_in_common():
    """Three seeds that move both variants alike: unpaired they would hide the difference."""
    labels = np.zeros(100, int)

    def run(name, seed, right):
        probs = np.where(np.arange(100)[:, None] < right, [[0.9, 0.1]], [[0.1, 0.9]])
        return tables.Predicted(name, probs, labels, run=f"{name} {seed}", seed=seed)

    predictions = [
        run(name, seed, right + shift)
        for name, shift in zip(NAMES, (0, 10), strict=True)
        for seed, right in enumerate((30, 50, 70))
    ]
    accuracy = tables.differences(predictions, 500).set_index("score").loc["accuracy"]
    assert accuracy.paired
    # The seeds' differences are all −0.1, so what is left is the images' part: 30 images differ in
    # one run each.
    assert accuracy.difference == pytest.approx(-0.1)
    assert -0.15 < accuracy.low < accuracy.high < -0.05
    # With seeds of their own the runs' spread of 0.2 comes in: t(4) 0.2 sqrt(2/3) = 0.45.
    others = [
        tables.Predicted(one.model, one.mean_probs, labels, run=one.run, seed=one.seed + 7 * n)
        for n, one in enumerate(predictions)
    ]
    unpaired = tables.differences(others, 500).set_index("score").loc["accuracy"]
    assert not unpaired.paired
    assert unpaired.high - unpaired.difference == pytest.approx(0.453, abs=0.01)


@pytest.mark.parametrize(
    ("models", "pairs"),
    [
        # Variants of a Bayesian network have its twin, with their setting where that is here.
        (
            [*NAMES, "CNN_FC"],
            [*(("twin", name, "CNN_FC") for name in NAMES), ("variant", *NAMES)],
        ),
        (
            [NAMES[0], "CNN_FC", "CNN_FC prior_stddev(0.1)"],
            [
                ("twin", NAMES[0], "CNN_FC prior_stddev(0.1)"),
                ("variant", "CNN_FC prior_stddev(0.1)", "CNN_FC"),
            ],
        ),
        # A method is compared with its twin once, and ensembles are not.
        (
            ["CNN_FC", "CNN_FC inference(ivon)", "CNN_FC ensemble(2)"],
            [("twin", "CNN_FC inference(ivon)", "CNN_FC")],
        ),
        (["CNN_FC", "CNN_FC dropout(0.1)"], [("variant", "CNN_FC dropout(0.1)", "CNN_FC")]),
        # Runs of one variant that have converged and others: those that have.
        ([*NAMES, NAMES[0] + " converged(no)"], [("variant", *NAMES)]),
        # Nothing else to compare: each with the first.
        (["CNN_conv", "CNN_FC"], [("model", "CNN_FC", "CNN_conv")]),
        (["CNN_conv"], []),
    ],
)
def test_which_models_are_compared(models, pairs):
    predictions = [
        tables.given(name, random_probs(n, 20), LABELS[:20]) for n, name in enumerate(models)
    ]
    table = tables.differences(predictions, 10)
    found = table[["kind", "model", "other"]].drop_duplicates().itertuples(index=False)
    assert [tuple(one) for one in found] == pairs


def test_the_mean_over_sets_by_hand():
    """Two shifted sets: accuracies 3/4 and 1/4 less 1/4 and 1/4, so +1/4 on the mean."""
    labels = np.array([0, 0, 0, 0])

    def of(model, right, run):
        probs = np.where(np.arange(4)[:, None] < right, [[1.0, 0.0]], [[0.0, 1.0]])
        return tables.Predicted(model, probs, labels, run=run)

    shifted = {
        "a-1": [of("BNN_FC_flip", 3, "b"), of("CNN_FC", 1, "c")],
        "b-1": [of("BNN_FC_flip", 1, "b"), of("CNN_FC", 1, "c")],
    }
    table = tables.shift_differences(shifted, 100)
    rows = table[table.score == "accuracy"].set_index("set")
    mean = rows.loc[tables.ALL]
    assert (mean.difference, mean.sets) == (0.25, 2)
    assert mean.low == (rows.low["a-1"] + rows.low["b-1"]) / 2
    # A run that was asked of one set alone does not stand for the mean of both.
    shifted["a-1"].append(of("BNN_FC_flip", 4, "other seed"))
    rows = tables.shift_differences(shifted, 100)
    rows = rows[(rows.score == "accuracy") & (rows["set"] == tables.ALL)]
    assert rows.sets.tolist() == [1]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("", 6),
        ("prior_stddev=0.1", 3),
        (" prior_stddev = 0.1 , 1 ; seed=0,2", 4),
        ("prior_stddev=1.0; run_id=p1.0s1", 1),
        ("dataset=tiny; ranks=1", 6),
        ("laplace=False", 6),
    ],
)
def test_runs_are_chosen_by_their_parameters(two_priors, condition, kept):
    assert len(tables.Group(two_priors, condition).runs) == kept
    assert len(variants.chosen(load(two_priors), condition)) == kept


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("prior_stdev=1", "no run has a parameter 'prior_stdev'; did you mean prior_stddev?"),
        ("prior_stddev", "'prior_stddev' is no condition; expected a parameter and its values"),
        ("prior_stddev=0.3", "no run has prior_stddev = 0.3; the runs have 0.1, 1"),
        ("prior_stddev=0.1; run_id=p1.0s0", "no run meets all of these"),
    ],
)
def test_a_choice_that_chooses_nothing_says_what_there_is(two_priors, condition, message):
    with pytest.raises(RecordError, match=re.escape(message)):
        tables.Group(two_priors, condition)


def test_too_many_variants_are_refused_before_a_figure_mixes_them_up(tmp_path):
    sets = {"test": (random_probs(0, 20), LABELS[:20])}
    for number in range(1, 14):
        write_run(tmp_path / f"r{number}", "CNN_FC", 0, sets, learning_rate=number / 1000)
    with pytest.raises(RecordError, match=r"13 variants .*learning_rate=0\.001,0\.002"):
        tables.Group(tmp_path)
    assert len(tables.Group(tmp_path, "learning_rate=0.001,0.002").models) == 2


def test_one_common_seed_of_more_runs_is_said(two_priors):
    test = [
        one
        for one in tables.Group(two_priors).predictions()
        if " ensemble" not in one.model and (one.model != NAMES[0] or one.seed == 0)
    ]
    table = tables.differences(test, 50)
    assert set(zip(table.runs, table.left_out, strict=True)) == {(1, 2)}
    text = findings.scores(tables.scores(test, 50), table)
    assert (
        f"less {NAMES[1]}, paired by seed (1 common seed, 2 of 4 runs left out; the luck of the "
        "seed is not in the interval): accuracy"
    ) in text
