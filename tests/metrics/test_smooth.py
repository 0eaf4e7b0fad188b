"""The smooth calibration error by hand, by the kernel itself, and by its laws."""

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import norm

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import predictions, quick, random_predictions


def two_classes(confidence, correct):
    probs = np.stack([confidence, 1.0 - np.asarray(confidence)], axis=1)
    return probs, 1 - np.asarray(correct)


def smoothed(confidence, residuals, width, points):
    """The integral of |E[K(t, f) (y - f)]| at the middles of `points` strips, K by its images."""
    middles = (np.arange(points) + 0.5) / points
    density = np.zeros(points)
    for turn in (-4, -2, 0, 2, 4):
        for mirrored in (confidence, -confidence):
            kernel = norm.pdf(middles[:, np.newaxis], turn + mirrored, width)
            density += (kernel * residuals).mean(axis=1)
    return float(np.abs(density).mean())


def test_one_confidence_is_its_own_gap():
    # Whatever the width, all is spread with one sign: smECE is the gap of accuracy and confidence.
    assert metrics.smooth_ece(*two_classes([0.75], [1])) == pytest.approx(0.25, abs=1e-9)
    assert metrics.smooth_ece(*two_classes([0.75] * 2, [1, 0])) == pytest.approx(0.25, abs=1e-9)
    assert metrics.smooth_ece(*two_classes([0.75] * 4, [1, 1, 1, 0])) == pytest.approx(0, abs=1e-9)
    assert metrics.smooth_ece(*two_classes([1.0] * 4, [0] * 4)) == pytest.approx(1, abs=1e-9)


@given(predictions())
@quick
def test_it_is_the_width_at_which_the_kernel_gives_it(data):
    probs, labels = data
    confidence = probs.max(axis=1)
    residuals = (probs.argmax(axis=1) == labels) - confidence
    found = metrics.smooth_ece(probs, labels)
    assert abs(residuals.mean()) - 1e-9 <= found <= np.abs(residuals).mean() + 1e-9
    if found > 2e-3:
        points = int(max(400, 8 / found))
        assert smoothed(confidence, residuals, found, points) == pytest.approx(found, rel=2e-3)


def test_it_falls_with_the_width_and_so_has_one_fixed_point():
    probs, labels = random_predictions(0)
    residuals = (probs.argmax(axis=1) == labels) - probs.max(axis=1)
    found = metrics.smooth_ece(probs, labels)
    widths = found * np.array([0.25, 0.5, 1.0, 2.0, 4.0]), [1.0]
    values = [smoothed(probs.max(axis=1), residuals, w, 2000) for w in np.concatenate(widths)]
    assert values == sorted(values, reverse=True)
    assert values[1] > found / 2
    assert values[3] < found * 2
    assert values[-1] == pytest.approx(abs(residuals.mean()), abs=1e-3)


def test_it_does_not_jump_where_the_ece_does():
    # 0.6 is an edge of fifteen bins: a step of 1e-6 over it parts right from wrong.
    before, after = (two_classes([0.6, 0.6 + step], [1, 0]) for step in (0.0, 1e-6))
    assert metrics.ece(*after) - metrics.ece(*before) == pytest.approx(0.4, abs=1e-5)
    assert metrics.smooth_ece(*after) == pytest.approx(metrics.smooth_ece(*before), abs=1e-5)


def test_a_calibrated_and_an_overconfident_model():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.6, 0.95, 20_000)
    right = rng.random(20_000)
    assert metrics.smooth_ece(*two_classes(confidence, right < confidence)) < 0.02
    over = metrics.smooth_ece(*two_classes(confidence, right < confidence - 0.1))
    assert over == pytest.approx(0.1, abs=0.01)


def test_no_bootstrap_covers_it():
    with pytest.raises(MetricsError, match="biased upwards"):
        metrics.bootstrap_interval(metrics.smooth_ece, *random_predictions(0))
