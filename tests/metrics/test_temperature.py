"""Temperatures by hand, by their laws, and how often their intervals hold the true one."""

import math

import numpy as np
import pytest
from hypothesis import given

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import predictions, quick, random_predictions


def test_temperature_by_hand():
    # Two classes with logit difference log 4 each time, right three times of four: the best
    # probability is 3/4, a difference of log 3, so T = log 4 / log 3.
    log_probs = np.log(np.tile([0.8, 0.2], (4, 1)))
    temperature = metrics.fit_temperature(log_probs, np.array([0, 0, 0, 1]))
    assert temperature == pytest.approx(math.log(4) / math.log(3), rel=1e-6)
    softened = metrics.apply_temperature(log_probs, temperature)
    assert softened == pytest.approx(np.tile([0.75, 0.25], (4, 1)), abs=1e-6)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_undoes_scaled_logits(factor):
    probs, labels = random_predictions(9, num_images=2000)
    base = metrics.fit_temperature(np.log(probs), labels)
    assert base == pytest.approx(1.0, abs=0.1)  # the labels were drawn from these probabilities
    # Logits instead of log-probabilities, and a constant a row, change nothing.
    scaled = factor * np.log(probs) + np.arange(2000.0)[:, np.newaxis]
    assert metrics.fit_temperature(scaled, labels) == pytest.approx(factor * base, rel=1e-5)


@given(predictions())
@quick
def test_temperature_never_raises_the_nll(data):
    probs, labels = data
    log_probs = np.log(0.99 * probs + 0.01 / probs.shape[1])
    temperature = metrics.fit_temperature(log_probs, labels)
    low, high = metrics.TEMPERATURE_RANGE
    assert low * (1 - 1e-9) <= temperature <= high * (1 + 1e-9)
    fitted = metrics.nll(metrics.apply_temperature(log_probs, temperature), labels)
    for other in (1.0, low, high, temperature * 0.9, temperature * 1.1):
        if low <= other <= high:
            rival = metrics.nll(metrics.apply_temperature(log_probs, other), labels)
            assert fitted <= rival + 1e-9


def test_temperature_at_the_ends():
    log_probs = np.log([[0.9, 0.1], [0.2, 0.8]])
    low, high = metrics.TEMPERATURE_RANGE
    assert metrics.fit_temperature(log_probs, [1, 0]) == pytest.approx(high)
    assert metrics.fit_temperature(np.log([[0.5, 0.5]]), [0]) == 1.0
    right = metrics.fit_temperature(log_probs, [0, 1])
    assert low <= right < 0.05  # the NLL is zero in float64 there
    # A class of probability zero is possible at no temperature, and harms nothing elsewhere.
    assert metrics.apply_temperature([[0.0, -np.inf]], 3.0).tolist() == [[1.0, 0.0]]
    with pytest.raises(MetricsError, match="infinite at every temperature"):
        metrics.fit_temperature([[0.0, -np.inf]], [1])
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MetricsError, match="temperature is"):
            metrics.apply_temperature(log_probs, bad)
    for bad_log_probs in ([[0.0, np.nan]], [[0.0, np.inf]], [[-np.inf, -np.inf]], [0.0], [[0.0]]):
        with pytest.raises(MetricsError, match="log_probs"):
            metrics.fit_temperature(bad_log_probs, [0])


@pytest.mark.parametrize(("num_images", "true_temperature"), [(200, 1.0), (400, 1.6), (1000, 0.6)])
def test_the_interval_holds_the_true_temperature_19_times_of_20(num_images, true_temperature):
    rng = np.random.default_rng(0)
    num_sets = 150
    logits = 2.5 * rng.normal(size=(num_sets, num_images, 5))
    noise = -np.log(rng.exponential(size=logits.shape))  # Gumbel's: the greatest sum is a draw
    labels = (logits + noise).argmax(axis=2)
    covered = 0
    for one, its_labels in zip(logits, labels, strict=True):
        found = metrics.temperature_interval(true_temperature * one, its_labels)
        covered += found.low <= true_temperature <= found.high
    assert 0.90 <= covered / num_sets <= 0.99


def test_the_interval_allows_for_labels_that_scatter_more_than_the_probabilities_say():
    # Ten copies of each image are 200 images and no more: the plain likelihood would take them for
    # 2,000. Here each group of ten copies is one image, so that the score's variance is the same
    # and the interval, too, but for the count.
    probs, labels = random_predictions(3, num_images=500)
    log_probs = np.log(probs)
    once = metrics.temperature_interval(log_probs, labels)
    many = metrics.temperature_interval(np.tile(log_probs, (10, 1)), np.tile(labels, 10))
    assert many.estimate == pytest.approx(once.estimate, rel=1e-5)
    widths = [math.log(one.high / one.low) for one in (once, many)]
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(10), rel=0.05)


def test_the_interval_at_the_ends():
    log_probs = np.log([[0.9, 0.1], [0.2, 0.8]])
    low, high = metrics.TEMPERATURE_RANGE
    # All right: the NLL falls to the least temperature, but 8 images allow greater ones.
    right = metrics.temperature_interval(np.tile(log_probs, (4, 1)), np.tile([0, 1], 4))
    assert right.low == pytest.approx(low, rel=0.2)
    assert 1.0 < right.high < high
    wrong = metrics.temperature_interval(np.tile(log_probs, (4, 1)), np.tile([1, 0], 4))
    assert wrong.high == pytest.approx(high)
    assert wrong.low > 1.0
    # Uniform rows say nothing of any temperature.
    assert metrics.temperature_interval(np.log([[0.5, 0.5]]), [0]) == (1.0, low, high)
    wide = metrics.temperature_interval(*_noisy(), level=0.99)
    narrow = metrics.temperature_interval(*_noisy(), level=0.9)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high
    with pytest.raises(MetricsError, match="level is"):
        metrics.temperature_interval(log_probs, [0, 1], level=1.0)


def _noisy():
    probs, labels = random_predictions(4)
    return np.log(probs), labels
