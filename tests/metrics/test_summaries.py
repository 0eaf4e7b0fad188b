"""All metrics of one set: limits and laws that hold for every prediction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import LABELS, PROBS, predictions, quick, random_predictions


def test_perfect_predictions():
    probs, labels = np.eye(4), np.arange(4)
    result = metrics.summary(probs, labels, np.zeros(4), np.eye(4, dtype=int))
    assert result.pop("accuracy") == 1.0
    assert result == dict.fromkeys(result, 0.0)


def test_confident_and_wrong():
    probs, labels = np.eye(4), (np.arange(4) + 1) % 4
    result = metrics.summary(probs, labels)
    assert result["accuracy"] == 0.0
    assert result["nll"] == math.inf
    assert result["brier"] == 2.0
    assert result["ece"] == result["mce"] == result["ece_equal_mass"] == 1.0
    assert result["smooth_ece"] == pytest.approx(1.0)
    assert result["augrc"] == 0.5
    assert result["aurc"] == 1.0
    assert result["e_aurc"] == 0.0  # no ranking is better where all are wrong
    assert metrics.coverage_at_risk(probs, labels, 0.5) == 0.0


def test_uniform_predictions():
    probs, labels = np.full((4, 4), 0.25), np.arange(4)
    result = metrics.summary(probs, labels)
    assert result["accuracy"] == 0.25  # the lowest class is predicted for all
    assert result["nll"] == pytest.approx(math.log(4))
    assert result["entropy"] == pytest.approx(math.log(4))
    assert result["brier"] == pytest.approx(3 / 4)
    assert result["ece"] == pytest.approx(0.0)
    assert result["aurc"] == pytest.approx(0.75)  # all tied: the error rate at every coverage
    unknown = ("aleatoric", "epistemic")
    assert np.isnan([result[name] for name in unknown]).all()
    assert result["smooth_ece"] == pytest.approx(0.0, abs=1e-12)
    assert result["augrc"] == pytest.approx(0.75 / 2)


def test_one_image():
    result = metrics.summary([[0.25, 0.75]], [1], [0.5])
    assert result["nll"] == pytest.approx(-math.log(0.75))
    assert result["ece"] == result["ece_equal_mass"] == result["mce"] == pytest.approx(0.25)
    assert result["aurc"] == result["e_aurc"] == 0.0


@given(predictions())
@quick
def test_bounds_and_sums(data):
    probs, labels = data
    votes = np.random.default_rng(len(labels)).multinomial(7, probs)
    result = metrics.summary(probs, labels, metrics.predictive_entropy(probs), votes)
    for name in (
        *("accuracy", "ece", "ece_equal_mass", "classwise_ece", "mce", "aurc", "e_aurc", "augrc"),
        *("smooth_ece", "ece_debiased", "disagreement"),
    ):
        assert -1e-12 <= result[name] <= 1 + 1e-12, name
    assert result["nll"] >= 0
    assert 0 <= result["brier"] <= 2
    assert 0 <= result["entropy"] <= math.log(probs.shape[1]) + 1e-12
    assert result["epistemic"] == 0
    assert result["mce"] >= result["ece"] - 1e-12
    assert result["ece"] >= abs(result["accuracy"] - probs.max(axis=1).mean()) - 1e-12
    assert result["e_aurc"] <= result["aurc"]
    curve = metrics.risk_coverage(probs, labels)
    assert curve.risk[-1] == pytest.approx(1 - result["accuracy"])
    for risk in (0.0, 0.2, 1.0):
        coverage = metrics.coverage_at_risk(probs, labels, risk)
        if coverage > 0:
            kept = round(coverage * len(labels))
            assert curve.risk[kept - 1] <= risk + 1e-12
        else:
            assert (curve.risk > risk).all()


@given(predictions(), st.integers(0, 2**32 - 1), st.integers(1, 4))
@quick
def test_order_and_shards_of_images_do_not_matter(data, seed, ranks):
    probs, labels = data
    entropy = metrics.predictive_entropy(probs)
    votes = np.random.default_rng(seed).multinomial(7, probs)
    expected = metrics.summary(probs, labels, entropy, votes)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = metrics.summary(probs[order], labels[order], entropy[order], votes[order])
    assert shuffled == pytest.approx(expected, abs=1e-12)
    sharded = [
        np.concatenate([a[r::ranks] for r in range(ranks)]) for a in (probs, labels, entropy, votes)
    ]
    assert metrics.summary(*sharded) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_names_of_classes_do_not_matter(seed):
    probs, labels = random_predictions(seed, num_images=60)
    new = np.random.default_rng(seed).permutation(5)  # class c is now called new[c]
    renamed = np.empty_like(probs)
    renamed[:, new] = probs
    entropy = metrics.predictive_entropy(probs) / 2
    votes = np.random.default_rng(seed).multinomial(7, probs)
    renamed_votes = np.empty_like(votes)
    renamed_votes[:, new] = votes
    assert metrics.summary(renamed, new[labels], entropy, renamed_votes) == pytest.approx(
        metrics.summary(probs, labels, entropy, votes)
    )


def test_an_absent_class_changes_only_the_class_wise_error():
    probs, labels = random_predictions(5)
    wider = np.hstack([probs, np.zeros((len(probs), 1))])
    before, after = metrics.summary(probs, labels), metrics.summary(wider, labels)
    # Its gap is zero, and there are six classes instead of five to average over.
    assert after.pop("classwise_ece") == pytest.approx(before.pop("classwise_ece") * 5 / 6)
    assert after == pytest.approx(before, nan_ok=True)


def test_float32_is_computed_in_float64():
    probs, labels = random_predictions(6)
    single = probs.astype(np.float32)
    assert metrics.summary(single, labels) == pytest.approx(
        metrics.summary(single.astype(np.float64), labels), rel=0, abs=0, nan_ok=True
    )
    assert metrics.mean_probs(single[np.newaxis]).dtype == np.float64
    assert metrics.predictive_entropy(single).dtype == np.float64


def test_float32_records_of_a_deterministic_network_have_no_mutual_information():
    inside, _ = random_predictions(7, sharpness=8.0)
    outside, _ = random_predictions(8, sharpness=1.0)
    arrays = []
    for probs in (inside, outside):
        single = probs.astype(np.float32)
        arrays += [single, -(single * np.log(single)).sum(axis=1)]
    result = metrics.ood_summary(*arrays)
    assert result["auroc_mutual_information"] == 0.5
    assert result["fpr95_mutual_information"] == 1.0
    assert result["auroc_entropy"] > 0.8


def test_ood_summary_is_the_metrics_of_all_scores():
    rng = np.random.default_rng(0)
    draws_in = special.softmax(4 * rng.normal(size=(5, 80, 4)), axis=2)
    draws_out = special.softmax(2 * rng.normal(size=(5, 60, 4)), axis=2)
    pairs = [(metrics.mean_probs(d), metrics.expected_entropy(d)) for d in (draws_in, draws_out)]
    logits = [4 * rng.normal(size=(80, 4)), rng.normal(size=(60, 4))]
    votes = [metrics.count_votes(draws) for draws in (draws_in, draws_out)]
    result = metrics.ood_summary(*pairs[0], *pairs[1], *logits, *votes)
    scores = [
        {
            "max_probability": -mean.max(axis=1),
            "entropy": -(mean * np.log(mean)).sum(axis=1),
            "mutual_information": -(mean * np.log(mean)).sum(axis=1) - expected,
            "expected_entropy": expected,
            "variation_ratio": 1 - count.max(axis=1) / 5,
            "max_logit": -logit.max(axis=1),
            "energy": -np.log(np.exp(logit).sum(axis=1)),
        }
        for (mean, expected), logit, count in zip(pairs, logits, votes, strict=True)
    ]
    functions = {
        "auroc": metrics.auroc,
        "aupr_in": metrics.aupr_in,
        "aupr_out": metrics.aupr_out,
        "fpr95": metrics.fpr_at_tpr,
    }
    assert result == pytest.approx(
        {
            f"{name}_{score}": function(scores[0][score], scores[1][score])
            for name, function in functions.items()
            for score in scores[0]
        }
    )
    unknown = metrics.ood_summary(pairs[0][0], None, pairs[1][0], None)
    assert unknown.keys() == result.keys()
    assert {name for name, value in unknown.items() if math.isnan(value)} == {
        name for name in result if not name.endswith(("max_probability", "_entropy"))
    } | {name for name in result if name.endswith("expected_entropy")}
    for wrong, what in (({"in_logits": logits[0]}, "logits"), ({"out_votes": votes[1]}, "votes")):
        with pytest.raises(MetricsError, match=f"only one of the two sets has {what}"):
            metrics.ood_summary(*pairs[0], *pairs[1], **wrong)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ([0.1, 0.1, 0.1], r"shape \(3,\), expected \(4,\)"),
        ([0.1, np.nan, 0.1, 0.1], "nan in row 1"),
        ([0.1, 0.1, 5.0, 0.1], "5 in row 2, expected 0 to"),
        ([0.1, 0.1, 0.1, -0.5], "-0.5 in row 3"),
    ],
)
def test_refused_expected_entropy(expected, message):
    with pytest.raises(MetricsError, match=message):
        metrics.mutual_information(PROBS, expected)
    with pytest.raises(MetricsError, match=message):
        metrics.summary(PROBS, LABELS, expected)
    with pytest.raises(MetricsError, match=message):
        metrics.ood_summary(PROBS, expected, PROBS, np.zeros(4))
