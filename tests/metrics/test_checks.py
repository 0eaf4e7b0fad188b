"""What no metric accepts."""

import math
from functools import partial

import numpy as np
import pytest

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import LABELS, PROBS, changed

LABELLED = [
    metrics.accuracy,
    metrics.nll,
    metrics.brier,
    metrics.ece,
    metrics.ece_debiased,
    metrics.ece_interval,
    metrics.ece_equal_mass,
    metrics.classwise_ece,
    metrics.mce,
    metrics.aurc,
    metrics.e_aurc,
    metrics.augrc,
    metrics.smooth_ece,
    metrics.summary,
    metrics.reliability_bins,
    metrics.risk_coverage,
    partial(metrics.coverage_at_risk, risk=0.1),
    partial(metrics.risk_at_coverage, coverage=0.8),
]


@pytest.mark.parametrize("metric", LABELLED, ids=lambda m: getattr(m, "func", m).__name__)
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (changed(PROBS, np.nan), LABELS, "not finite in 1 of 4 rows, the first in row 1"),
        (changed(PROBS, np.inf), LABELS, "not finite"),
        (changed(PROBS, -0.1), LABELS, "negative value -0.1 in row 1"),
        (changed(PROBS, 0.802), LABELS, r"sums to 1.002 in row 1, expected 1 within 0.001"),
        (np.log(PROBS), LABELS, "negative value"),
        (PROBS * 3, LABELS, "sums to 3"),
        (PROBS[:0], LABELS[:0], "no images"),
        (PROBS[:, 0], LABELS, r"shape \(4,\), expected \(num_images, num_classes\)"),
        (PROBS[np.newaxis], LABELS, "Average draws with mean_probs first"),
        (np.ones((4, 1)), LABELS, "1 classes, expected at least two"),
        ([[0.5, 0.5], [1.0]], LABELS, "not an array"),
        (PROBS.astype(str), LABELS, "expected real numbers"),
        (PROBS.astype(complex), LABELS, "expected real numbers"),
        (PROBS, LABELS[:3], r"labels has shape \(3,\), expected \(4,\)"),
        (PROBS, np.eye(2)[LABELS], "Apply argmax to one-hot labels"),
        (PROBS, LABELS + 1, "value 2 in row 1, expected 0 to 1"),
        (PROBS, LABELS - 1, "value -1 in row 0"),
        (PROBS, LABELS.astype(float), "dtype float64, expected integers"),
        (PROBS, LABELS.astype(bool), "dtype bool"),
    ],
)
def test_refused_input(metric, probs, labels, message):
    with pytest.raises(MetricsError, match=message):
        metric(probs, labels)


def test_rows_may_miss_one_by_the_tolerance():
    probs = changed(PROBS, 0.8009)
    assert metrics.nll(probs, LABELS) == pytest.approx(metrics.nll(PROBS, LABELS))
    assert metrics.ece([[1.0005, 0.0]], [0]) == pytest.approx(0.0005)  # as given, in the last bin


def test_refused_settings():
    for num_bins in (0, -1, 1.5, True):
        with pytest.raises(MetricsError, match="num_bins is"):
            metrics.ece(PROBS, LABELS, num_bins)
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(MetricsError, match="risk is"):
            metrics.coverage_at_risk(PROBS, LABELS, fraction)
    for fraction in (0.0, 1.1, math.nan):
        with pytest.raises(MetricsError, match="tpr is"):
            metrics.fpr_at_tpr([0.1], [0.2], fraction)
    with pytest.raises(MetricsError, match="uncertainty has shape"):
        metrics.aurc(PROBS, LABELS, np.zeros(3))
    with pytest.raises(MetricsError, match="2 classes and out_probs 3"):
        metrics.ood_summary(PROBS, None, np.full((2, 3), 1 / 3), None)
    with pytest.raises(MetricsError, match="give both or neither"):
        metrics.ood_summary(PROBS, np.zeros(4), PROBS, None)
