"""Risk and coverage, worked by hand and in the limit."""

import math

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import roc_auc_score

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import LABELS, PROBS, predictions, quick


def test_risk_coverage_by_hand():
    # Most certain first: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 1/2.
    curve = metrics.risk_coverage(PROBS, LABELS)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert metrics.aurc(PROBS, LABELS) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    # The best order, errors last, has risks 0, 0, 1/3, 1/2: the excess is 1/2 / 4.
    assert metrics.e_aurc(PROBS, LABELS) == pytest.approx(1 / 8)
    assert metrics.coverage_at_risk(PROBS, LABELS, 0.0) == 0.25
    assert metrics.coverage_at_risk(PROBS, LABELS, 0.4) == 0.75
    assert metrics.coverage_at_risk(PROBS, LABELS, 1 / 3) == 0.75
    assert metrics.coverage_at_risk(PROBS, LABELS, 0.5) == 1.0
    # Ranked the other way: wrong, right, wrong, right. Risks 1, 1/2, 2/3, 1/2.
    turned = PROBS.max(axis=1)
    assert metrics.aurc(PROBS, LABELS, turned) == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    assert metrics.coverage_at_risk(PROBS, LABELS, 0.4, turned) == 0.0


def test_the_limit_of_the_perfect_ranking():
    # For many images the perfect ranking's area is r + (1 - r) log(1 - r), Geifman et al. (2019).
    correct = np.random.default_rng(0).random(200_000) > 0.2
    probs = np.tile([0.6, 0.4], (len(correct), 1))
    labels = np.where(correct, 0, 1)
    perfect = metrics.aurc(probs, labels, uncertainty=1.0 - correct)
    rate = 1 - correct.mean()
    assert perfect == pytest.approx(rate + (1 - rate) * math.log(1 - rate), abs=1e-4)
    assert metrics.e_aurc(probs, labels, uncertainty=1.0 - correct) == 0.0


@given(predictions())
@quick
def test_aurc_is_the_mean_over_random_orders_of_ties(data):
    probs, labels = data
    errors = (probs.argmax(axis=1) != labels).astype(float)
    confidence = probs.max(axis=1)
    # In expectation every image errs at the rate of those it is tied with.
    rate = np.array([errors[confidence == value].mean() for value in confidence])
    order = np.argsort(-confidence)
    risk = np.cumsum(rate[order]) / np.arange(1, len(rate) + 1)
    assert metrics.risk_coverage(probs, labels).risk == pytest.approx(risk)
    assert metrics.aurc(probs, labels) == pytest.approx(risk.mean())


def test_augrc_by_hand():
    # Kept and wrong of four: 0, 1/4, 1/4, 2/4, and 0 at coverage 0, by trapezoids.
    assert metrics.augrc(PROBS, LABELS) == pytest.approx((0 / 2 + 0 + 1 / 4 + 1 / 4 + 1 / 4) / 4)
    # Ranked the other way: 1/4, 1/4, 2/4, 2/4.
    turned = PROBS.max(axis=1)
    expected = (1 / 4 + 1 / 4 + 2 / 4 + 1 / 4) / 4
    assert metrics.augrc(PROBS, LABELS, turned) == pytest.approx(expected)


@given(predictions())
@quick
def test_augrc_is_the_papers_identity(data):
    probs, labels = data
    errors = probs.argmax(axis=1) != labels
    accuracy = 1 - errors.mean()
    expected = (1 - accuracy) ** 2 / 2
    if 0 < accuracy < 1:  # by scikit-learn, with its own treatment of ties
        auroc = roc_auc_score(errors, -probs.max(axis=1))
        expected += (1 - auroc) * accuracy * (1 - accuracy)
    found = metrics.augrc(probs, labels)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found <= 0.5
    # The perfect ranking and one that says nothing.
    assert metrics.augrc(probs, labels, errors.astype(float)) == pytest.approx(
        (1 - accuracy) ** 2 / 2
    )
    assert metrics.augrc(probs, labels, np.zeros(len(labels))) == pytest.approx((1 - accuracy) / 2)


def test_risk_at_coverage_by_hand():
    # Risks 0, 1/2, 1/3, 1/2 at coverages 1/4, 1/2, 3/4, 1.
    for coverage, risk in ((0.25, 0), (0.26, 1 / 2), (0.5, 1 / 2), (0.75, 1 / 3), (1.0, 1 / 2)):
        assert metrics.risk_at_coverage(PROBS, LABELS, coverage) == pytest.approx(risk)
    assert metrics.risk_at_coverage(PROBS, LABELS, 0.01) == 0.0  # one image at the least
    turned = PROBS.max(axis=1)
    assert metrics.risk_at_coverage(PROBS, LABELS, 0.25, turned) == 1.0
    for coverage in (0.0, 1.1):
        with pytest.raises(MetricsError, match="coverage is"):
            metrics.risk_at_coverage(PROBS, LABELS, coverage)
