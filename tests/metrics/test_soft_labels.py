"""Scores against annotators' votes by hand, by SciPy, and where all annotators agree."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from scipy.spatial import distance

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import PROBS, predictions, quick, random_predictions

SOFT = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.4, 0.6]])


def test_by_hand():
    logs = [math.log(0.9), (math.log(0.8) + math.log(0.2)) / 2]
    logs += [(math.log(0.3) + math.log(0.7)) / 2, 0.4 * math.log(0.6) + 0.6 * math.log(0.4)]
    assert metrics.cross_entropy(PROBS, SOFT) == pytest.approx(-sum(logs) / 4)
    assert metrics.soft_brier(PROBS, SOFT) == pytest.approx(2 * (0.01 + 0.09 + 0.04 + 0.04) / 4)
    assert metrics.total_variation(PROBS, SOFT) == pytest.approx((0.1 + 0.3 + 0.2 + 0.2) / 4)
    # Tied votes give the lowest class.
    assert metrics.modal_labels(SOFT).tolist() == [0, 0, 0, 1]


@given(predictions())
@quick
def test_where_annotators_agree_the_scores_are_those_of_hard_labels(data):
    probs, labels = data
    hard = np.eye(probs.shape[1])[labels]
    assert metrics.cross_entropy(probs, hard) == pytest.approx(metrics.nll(probs, labels))
    assert metrics.soft_brier(probs, hard) == pytest.approx(metrics.brier(probs, labels))
    of_label = probs[np.arange(len(labels)), labels]
    assert metrics.total_variation(probs, hard) == pytest.approx(1 - of_label.mean())
    assert metrics.modal_labels(hard).tolist() == labels.tolist()
    assert math.isnan(metrics.entropy_correlation(probs, hard))  # no annotator is unsure


@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(2, 6))
@quick
def test_against_scipy_and_by_inequalities(seed, num_images, num_classes):
    rng = np.random.default_rng(seed)
    probs, soft = special.softmax(2 * rng.normal(size=(2, num_images, num_classes)), axis=2)
    entropy = scipy.stats.entropy(soft, axis=1)
    divergence = scipy.stats.entropy(soft, probs, axis=1)
    assert metrics.cross_entropy(probs, soft) == pytest.approx((entropy + divergence).mean())
    assert metrics.cross_entropy(soft, soft) == pytest.approx(entropy.mean())  # and none is less
    assert metrics.soft_brier(soft, soft) == metrics.total_variation(soft, soft) == 0.0
    pairs = list(zip(probs, soft, strict=True))
    variation = np.array([distance.cityblock(*pair) / 2 for pair in pairs])
    assert metrics.total_variation(probs, soft) == pytest.approx(variation.mean())
    assert (variation**2 <= divergence / 2 + 1e-12).all()  # Pinsker
    squares = [distance.sqeuclidean(*pair) for pair in pairs]
    assert metrics.soft_brier(probs, soft) == pytest.approx(np.mean(squares))
    unsure = scipy.stats.entropy(probs, axis=1)
    expected = scipy.stats.pearsonr(unsure, entropy).statistic
    assert metrics.entropy_correlation(probs, soft) == pytest.approx(expected)
    assert metrics.entropy_correlation(soft, soft) == pytest.approx(1.0)


def test_a_class_that_someone_chose_at_probability_zero_is_infinitely_bad():
    assert metrics.cross_entropy([[1.0, 0.0]], [[0.9, 0.1]]) == math.inf
    assert metrics.cross_entropy([[1.0, 0.0]], [[1.0, 0.0]]) == 0.0


def test_a_constant_entropy_has_no_correlation():
    probs, _ = random_predictions(0)
    assert math.isnan(metrics.entropy_correlation(probs, np.full(probs.shape, 0.2)))
    assert math.isnan(metrics.entropy_correlation(np.full(probs.shape, 0.2), probs))


def test_the_summary_has_them_all():
    assert metrics.soft_summary(PROBS, SOFT) == {
        name: getattr(metrics, name)(PROBS, SOFT)
        for name in ("cross_entropy", "soft_brier", "total_variation", "entropy_correlation")
    }


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        (SOFT[:3], r"soft_labels has shape \(3, 2\), expected that of probs, \(4, 2\)"),
        (51 * SOFT, "soft_labels sums to 51 in row 0, .* divide each row by its sum"),
        (SOFT - [[0.0, 0.1]], "soft_labels has the negative value -0.1 in row 0"),
        ([0, 1, 1, 1], r"soft_labels has shape \(4,\)"),
    ],
)
@pytest.mark.parametrize(
    "score",
    [
        metrics.cross_entropy,
        metrics.soft_brier,
        metrics.total_variation,
        metrics.entropy_correlation,
        metrics.soft_summary,
    ],
)
def test_refused(score, soft, message):
    with pytest.raises(MetricsError, match=message):
        score(PROBS, soft)
