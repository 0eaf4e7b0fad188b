"""Intervals over images."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from bnnlib import metrics
from bnnlib.errors import MetricsError
from bnnlib.metrics import bootstrap
from tests.metrics.cases import random_predictions

RESAMPLED = [*bootstrap._RESAMPLED]


@pytest.mark.parametrize("metric", RESAMPLED, ids=lambda metric: metric.__name__)
def test_resampled_rows_give_what_resampled_arrays_give(metric):
    if metric in bootstrap._TWO_SETS:
        rng = np.random.default_rng(0)
        arrays, groups = (rng.normal(size=50), 1 + rng.normal(size=70)), (0, 1)
    else:
        arrays, groups = random_predictions(10, num_images=80), (0, 0)
    # An anonymous function is called on resampled arrays.
    slow = metrics.bootstrap_interval(
        lambda *given: metric(*given), *arrays, groups=groups, num_resamples=50, seed=3
    )
    fast = metrics.bootstrap_interval(metric, *arrays, num_resamples=50, seed=3)
    assert fast.estimate == slow.estimate == metric(*arrays)
    assert fast == pytest.approx(slow)


def test_the_resampled_ece_is_that_of_the_images_that_every_metric_gets():
    probs, labels = random_predictions(4, num_images=60)
    rng = np.random.default_rng(3)
    picked = [rng.integers(60, size=60) for _ in range(5)]
    found = metrics.ece_resampled(probs, labels, num_resamples=5, seed=3)
    assert found == pytest.approx([metrics.ece(probs[some], labels[some]) for some in picked])
    nll = metrics.bootstrap_values(metrics.nll, probs, labels, num_resamples=5, seed=3)
    assert nll == pytest.approx([metrics.nll(probs[some], labels[some]) for some in picked])


def test_correlation_by_hand():
    rising = np.array([0.0, 1.0, 2.0])
    assert metrics.correlation(rising, 3 * rising + 1) == pytest.approx(1.0)
    assert metrics.correlation(rising, -rising) == pytest.approx(-1.0)
    assert metrics.correlation(rising, np.array([0.0, 1.0, 0.0])) == pytest.approx(0.0)
    assert metrics.correlation(rising, np.ones(3)) == 0.0


def test_the_paired_difference_of_eces_covers_the_true_one():
    """60 sets of 500 images; taken as independent the interval covered all, twice as wide."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100_000, 5)) + 2 * np.eye(5)[rng.integers(0, 5, 100_000)]

    def softmax(values):
        odds = np.exp(values - values.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    drawn = softmax(logits).cumsum(axis=1) > rng.random((100_000, 1))
    labels = np.where(drawn.any(axis=1), drawn.argmax(axis=1), 4)
    models = softmax(1.6 * logits), softmax(1.4 * logits)
    true = metrics.ece(models[0], labels) - metrics.ece(models[1], labels)
    covered, widths = 0, []
    for _ in range(60):
        some = rng.integers(100_000, size=500)
        arrays = [(probs[some], labels[some]) for probs in models]
        alone = [metrics.ece_interval(*each) for each in arrays]
        values = [metrics.ece_resampled(*each, num_resamples=100) for each in arrays]
        paired = metrics.difference(*alone, metrics.correlation(*values))
        apart = metrics.difference(*alone)
        covered += paired.low <= true <= paired.high
        widths.append((paired.high - paired.low) / (apart.high - apart.low))
    assert covered >= 54  # of 60 at 95 %: 53 or fewer by chance in 1 of 70
    assert np.mean(widths) < 0.6


def test_interval_of_accuracy_is_the_binomial_one():
    rng = np.random.default_rng(1)
    labels = (rng.random(2000) > 0.9).astype(int)
    probs = np.tile([0.9, 0.1], (2000, 1))
    rate = 1 - labels.mean()
    found = metrics.bootstrap_interval(metrics.accuracy, probs, labels, level=0.9)
    half = norm.ppf(0.95) * math.sqrt(rate * (1 - rate) / 2000)
    assert found.estimate == pytest.approx(rate)
    assert found.low == pytest.approx(rate - half, abs=half / 5)
    assert found.high == pytest.approx(rate + half, abs=half / 5)
    # A wider level contains the narrower, another seed differs, the same repeats.
    wide = metrics.bootstrap_interval(metrics.accuracy, probs, labels, level=0.99)
    assert wide.low < found.low < found.high < wide.high
    again = metrics.bootstrap_interval(metrics.accuracy, probs, labels, level=0.9)
    assert again == found
    other = metrics.bootstrap_interval(metrics.nll, probs, labels, seed=1)
    assert other != metrics.bootstrap_interval(metrics.nll, probs, labels, seed=0)


def test_interval_of_a_difference_resamples_images_in_pairs():
    probs, labels = random_predictions(11)

    def difference(first, second, labels):
        return metrics.nll(first, labels) - metrics.nll(second, labels)

    same = metrics.bootstrap_interval(difference, probs, probs, labels, num_resamples=20)
    assert same == (0.0, 0.0, 0.0)


def test_interval_of_an_infinite_nll_and_of_one_image():
    probs, labels = np.array([[1.0, 0.0]] * 3 + [[0.5, 0.5]] * 3), np.array([0, 0, 1, 0, 0, 0])
    interval = metrics.bootstrap_interval(metrics.nll, probs, labels, num_resamples=200)
    assert interval.estimate == interval.high == math.inf
    assert 0.0 <= interval.low < math.inf  # the wrong one is missing in a third of the resamples
    one = metrics.bootstrap_interval(metrics.brier, [[0.5, 0.5]], [0], num_resamples=5)
    assert one == (0.5, 0.5, 0.5)


def test_bootstrap_refuses():
    probs, labels = random_predictions(12)
    interval = metrics.bootstrap_interval
    with pytest.raises(MetricsError, match="300 and 299 images"):
        interval(metrics.accuracy, probs, labels[1:])
    with pytest.raises(MetricsError, match="one set of images"):
        interval(metrics.accuracy, probs, labels, groups=(0, 1))
    with pytest.raises(MetricsError, match="groups has 1 entries for 2 arrays"):
        interval(metrics.accuracy, probs, labels, groups=(0,))
    with pytest.raises(MetricsError, match="num_resamples is 0"):
        interval(metrics.accuracy, probs, labels, num_resamples=0)
    for level in (0.0, 1.0, math.nan):
        with pytest.raises(MetricsError, match="level is"):
            interval(metrics.accuracy, probs, labels, level=level)
    with pytest.raises(MetricsError, match="gave NaN"):
        interval(lambda probs: math.nan, probs)
    with pytest.raises(MetricsError, match="no arrays"):
        interval(metrics.accuracy)
    with pytest.raises(MetricsError, match="sums to"):
        interval(metrics.accuracy, 2 * probs, labels)
    for metric in (metrics.ece, metrics.ece_equal_mass, metrics.classwise_ece, metrics.mce):
        with pytest.raises(MetricsError, match=f"{metric.__name__} is biased.*ece_interval"):
            interval(metric, probs, labels)


def test_resamples_of_two_models_are_paired():
    probs, labels = random_predictions(13)
    softer = metrics.apply_temperature(np.log(probs), 1.1)
    first, second = (
        metrics.bootstrap_values(metrics.nll, one, labels, num_resamples=100)
        for one in (probs, softer)
    )
    both = metrics.bootstrap_values(
        lambda ours, theirs, labels: metrics.nll(ours, labels) - metrics.nll(theirs, labels),
        probs,
        softer,
        labels,
        num_resamples=100,
    )
    assert first - second == pytest.approx(both, abs=1e-12)
    assert (first - second).std() < 0.5 * first.std()


def test_every_metric_has_its_kind_of_interval():
    probs, labels = random_predictions(14)
    assert metrics.interval(metrics.ece, probs, labels) == metrics.ece_interval(probs, labels)
    assert metrics.interval(metrics.nll, probs, labels, 50) == metrics.bootstrap_interval(
        metrics.nll, probs, labels, num_resamples=50
    )
