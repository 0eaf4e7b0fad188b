"""Accuracy and proper scores against rows worked by hand and second implementations."""

import math

import pytest
from sklearn.metrics import (
    brier_score_loss,
    log_loss,
)

from bnnlib import metrics
from tests.metrics.cases import LABELS, PROBS, random_predictions


def test_accuracy_nll_and_brier_by_hand():
    assert metrics.accuracy(PROBS, LABELS) == 0.5
    # The labels' probabilities are 0.9, 0.2, 0.7, 0.4; their product is 0.0504.
    assert metrics.nll(PROBS, LABELS) == pytest.approx(-math.log(0.0504) / 4, rel=1e-14)
    # Each class misses by 0.1, 0.8, 0.3, 0.6: 2 (0.01 + 0.64 + 0.09 + 0.36) / 4 = 2.2 / 4.
    assert metrics.brier(PROBS, LABELS) == pytest.approx(0.55, rel=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed):
    probs, labels = random_predictions(seed)
    assert metrics.nll(probs, labels) == pytest.approx(log_loss(labels, probs, labels=range(5)))
    ours = metrics.brier(probs, labels)
    assert ours == pytest.approx(
        brier_score_loss(labels, probs, labels=range(5), scale_by_half=False)
    )


def test_means_over_shards_are_means_over_images():
    probs, labels = random_predictions(4, num_images=301)
    for metric in (metrics.accuracy, metrics.nll, metrics.brier):
        parts = [(metric(probs[r::4], labels[r::4]), len(labels[r::4])) for r in range(4)]
        total = sum(value * count for value, count in parts) / 301
        assert total == pytest.approx(metric(probs, labels), rel=1e-13)
