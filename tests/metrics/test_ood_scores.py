"""Scores of images out of distribution, by hand, by symmetry and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import example, given
from scipy.stats import norm
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
    roc_curve,
)

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import quick, score_sets

OOD = [metrics.auroc, metrics.aupr_in, metrics.aupr_out, metrics.fpr_at_tpr]


def test_ood_by_hand():
    inside, outside = np.array([0.1, 0.2, 0.4]), np.array([0.3, 0.4])
    # Pairs: 0.3 beats 0.1 and 0.2; 0.4 beats these and ties with 0.4: (2 + 2.5) / 6.
    assert metrics.auroc(inside, outside) == pytest.approx(0.75)
    # Thresholds from the top: 0.4 finds 1 of 2 with precision 1/2, 0.3 finds 2 with 2/3.
    assert metrics.aupr_out(inside, outside) == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 3)
    # From the bottom: 0.1 and 0.2 find 1/3 each with precision 1, then 0.4 the last with 3/5.
    assert metrics.aupr_in(inside, outside) == pytest.approx((1 + 1 + 3 / 5) / 3)
    # 95 % of two images is two: the threshold is 0.3, which 0.4 alone reaches. Half of them: 0.4.
    assert metrics.fpr_at_tpr(inside, outside) == pytest.approx(1 / 3)
    assert metrics.fpr_at_tpr(inside, outside, tpr=0.5) == pytest.approx(1 / 3)
    assert metrics.fpr_at_tpr(inside, outside + 0.1, tpr=0.5) == 0.0


def test_fpr_needs_95_of_100_and_not_96():
    outside = np.arange(100.0)  # 95 of them are at least 5
    assert metrics.fpr_at_tpr(np.array([4.5]), outside) == 0.0
    assert metrics.fpr_at_tpr(np.array([5.0]), outside) == 1.0


@given(score_sets())
@quick
@example((np.array([0.0]), np.array([0.0])))
@example((np.array([0.0, 1.0]), np.array([1.0])))
def test_ood_against_scikit_learn(sets):
    inside, outside = sets
    scores = np.concatenate([inside, outside])
    is_out = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    assert metrics.auroc(inside, outside) == pytest.approx(roc_auc_score(is_out, scores))
    assert metrics.aupr_out(inside, outside) == pytest.approx(
        average_precision_score(is_out, scores)
    )
    assert metrics.aupr_in(inside, outside) == pytest.approx(
        average_precision_score(1 - is_out, -scores)
    )
    for tpr in (0.5, 0.95, 1.0):
        fpr, found, _ = roc_curve(is_out, scores, drop_intermediate=False)
        expected = fpr[found >= tpr - 1e-12].min()
        assert metrics.fpr_at_tpr(inside, outside, tpr) == pytest.approx(expected)


@given(score_sets())
@quick
def test_ood_symmetries(sets):
    inside, outside = sets
    for metric in OOD:
        value = metric(inside, outside)
        assert 0 <= value <= 1 + 1e-12
        assert metric(2 * inside, 2 * outside) == pytest.approx(value)  # ranks alone count
    assert metrics.auroc(outside, inside) == pytest.approx(1 - metrics.auroc(inside, outside))
    assert metrics.auroc(inside, inside) == pytest.approx(0.5)
    apart = outside + 30.0
    values = [metric(inside, apart) for metric in OOD]
    assert values == pytest.approx([1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("metric", OOD)
@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf], [[0.1]], ["a"]])
def test_refused_scores(metric, bad):
    with pytest.raises(MetricsError, match="out_scores"):
        metric([0.1, 0.2], bad)
    with pytest.raises(MetricsError, match="in_scores"):
        metric(bad, [0.1, 0.2])


@given(score_sets())
@quick
def test_parts_of_the_auroc_by_pairs(sets):
    inside, outside = sets
    wins = np.sign(outside[:, np.newaxis] - inside) / 2 + 0.5  # (num_out, num_in); one half a tie
    parts = metrics.auroc_parts(inside, outside)
    assert parts.of_out == pytest.approx(wins.mean(axis=1))
    assert parts.of_in == pytest.approx(wins.mean(axis=0))
    assert parts.interval().estimate == pytest.approx(metrics.auroc(inside, outside))


def test_the_interval_of_the_auroc_holds_the_true_one_19_times_of_20():
    rng = np.random.default_rng(0)
    true = norm.cdf(1 / np.sqrt(2))  # of normal scores, one standard deviation apart
    found = [
        metrics.auroc_parts(rng.normal(size=150), 1 + rng.normal(size=100)).interval()
        for _ in range(400)
    ]
    assert 0.92 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.98


def test_the_interval_of_an_auroc_of_one_pair_has_no_width():
    assert metrics.auroc_parts([0.0], [1.0]).interval() == (1.0, 1.0, 1.0)
