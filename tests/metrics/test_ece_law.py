"""Bias and interval of the ECE, and a calibrated model's ECE, by hand and by simulation."""

import functools

import numpy as np
import pytest
from scipy import special, stats

from bnnlib import metrics
from bnnlib.metrics import ece_law
from tests.metrics.cases import random_predictions

NUM_SETS = 200


@functools.cache
def population(sharpness, temperature, favoured, seed=0, size=200_000):
    """Confidences of a network and the chance that each is right, and the true binned ECE."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(size, 10))
    logits[:, 0] += favoured
    true = special.softmax(logits, axis=1)
    claimed = special.softmax(logits / temperature, axis=1)
    best = claimed.argmax(axis=1)
    confidence, chance = claimed.max(axis=1), true[np.arange(size), best]
    bins = np.ceil(15 * confidence)
    sums = np.bincount(bins.astype(int), weights=chance - confidence)
    return confidence, chance, np.abs(sums).sum() / size


def two_classes(confidence, right):
    """Probabilities and labels of such confidences, of a second class that is never predicted."""
    probs = np.zeros((len(confidence), 11))
    probs[:, 0] = confidence
    probs[:, 1:] = ((1 - confidence) / 10)[:, np.newaxis]
    return probs, np.where(right, 0, 1)


def samples(case, num_images, num_sets=NUM_SETS):
    confidence, chance, _ = population(*case)
    rng = np.random.default_rng(2)
    for _ in range(num_sets):
        drawn = rng.integers(len(confidence), size=num_images)
        right = rng.random(num_images) < chance[drawn]
        yield two_classes(confidence[drawn], right)


# Sharpness, temperature and by how much one class is favoured; 61, 93 or 96 % accurate.
CALIBRATED = [(2.5, 1.0, 0.0), (4.0, 1.0, 14.0)]
MISCALIBRATED = [(2.5, 1.1, 8.75), (4.0, 0.7, 14.0)]  # a little too modest, much too sure


@pytest.mark.parametrize("num_images", [1000, 10_000])
@pytest.mark.parametrize("case", CALIBRATED + MISCALIBRATED)
def test_the_interval_holds_the_true_error(case, num_images):
    true = population(*case)[2]
    assert (true < 5e-4) == (case in CALIBRATED)  # what 200,000 images leave of a zero
    true = 0.0 if case in CALIBRATED else true
    found = [metrics.ece_interval(*one) for one in samples(case, num_images)]
    assert 0.90 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.99
    assert all(one.low <= one.estimate <= one.high for one in found)


@pytest.mark.parametrize("case", CALIBRATED)
def test_debiasing_halves_the_bias_of_a_calibrated_model(case):
    plain, debiased = [], []
    for probs, labels in samples(case, 1000):
        plain.append(metrics.ece(probs, labels))
        debiased.append(metrics.ece_debiased(probs, labels))
    assert np.mean(debiased) < 0.65 * np.mean(plain)


def test_debiasing_leaves_a_great_error_as_it_is():
    probs, labels = two_classes(np.full(1000, 0.9), np.arange(1000) < 600)
    assert metrics.ece_debiased(probs, labels) == pytest.approx(0.3, abs=1e-12)
    found = metrics.ece_interval(probs, labels)
    # One bin: the interval is Wilson's of an accuracy of 0.6, less the confidence of 0.9.
    wilson = stats.binomtest(600, 1000).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((0.3, 0.9 - wilson.high, 0.9 - wilson.low), abs=1e-4)


def test_debiasing_by_hand():
    # One bin of 100 images, accuracy 0.8, confidence 0.8: what is subtracted is the mean of
    # |N(0, 0.04)|, 0.04 sqrt(2 / pi), and no error is below zero.
    probs, labels = two_classes(np.full(100, 0.8), np.arange(100) < 80)
    assert metrics.ece_debiased(probs, labels) == 0.0
    # Accuracy 0.75, a gap of 0.05 and a standard deviation of sqrt(0.75 x 0.25 / 100) = 0.0433:
    # the mean of |N(0.05, 0.0433)|, drawn here, is what the gap grows to.
    probs, labels = two_classes(np.full(100, 0.8), np.arange(100) < 75)
    drawn = np.abs(np.random.default_rng(0).normal(0.05, 0.0433013, size=1_000_000)).mean()
    assert metrics.ece_debiased(probs, labels) == pytest.approx(0.05 - (drawn - 0.05), abs=3e-4)


def test_a_model_that_is_sure_and_right_has_no_error():
    probs, labels = np.eye(4), np.arange(4)
    assert metrics.ece_interval(probs, labels).estimate == 0.0
    assert metrics.ece_interval(probs, labels).low == 0.0
    # Four images that are sure and wrong: no calibrated model does that.
    wrong = metrics.ece_interval(probs, (labels + 1) % 4)
    assert wrong.estimate == wrong.high == 1.0
    assert wrong.low > 0.1


def test_a_higher_level_is_a_wider_interval():
    probs, labels = random_predictions(1)
    narrow = metrics.ece_interval(probs, labels, level=0.8)
    wide = metrics.ece_interval(probs, labels, level=0.99)
    assert wide.low <= narrow.low <= narrow.high < wide.high


# --- A calibrated model --------------------------------------------------------------------------


def test_a_calibrated_model_by_hand():
    # 100 images of confidence 0.8: right are Binomial(100, 0.8) of them, and the ECE is the
    # distance from 80 over 100.
    probs, _ = two_classes(np.full(100, 0.8), np.ones(100, bool))
    found = metrics.if_calibrated(probs, num_resamples=20_000)
    law = stats.binom(100, 0.8)
    right = np.arange(101)
    assert found.ece == pytest.approx(law.expect(lambda k: abs(k - 80) / 100), rel=0.02)
    assert [found.accuracy_low[11], found.accuracy_high[11]] == [
        end / 100 for end in law.interval(0.95)
    ]
    assert np.isnan(np.delete(found.accuracy_low, 11)).all()
    distance = np.sort(np.repeat(np.abs(right - 80), np.round(1e5 * law.pmf(right)).astype(int)))
    assert found.ece_high == pytest.approx(np.quantile(distance, 0.975) / 100)
    assert found.ece_low == pytest.approx(np.quantile(distance, 0.025) / 100)


def test_one_calibrated_model_of_twenty_is_outside():
    outside = 0
    sets = list(samples(CALIBRATED[1], 1000))
    for index, (probs, labels) in enumerate(sets):
        found = metrics.if_calibrated(probs, num_resamples=300, seed=index)
        outside += not found.ece_low <= metrics.ece(probs, labels) <= found.ece_high
    assert 0.02 <= outside / len(sets) <= 0.09


def test_the_calibrated_model_depends_on_the_seed_alone():
    probs, _ = random_predictions(2)
    first = metrics.if_calibrated(probs, num_resamples=50)
    order = np.random.default_rng(0).permutation(len(probs))
    again = metrics.if_calibrated(probs[order], num_resamples=50)
    np.testing.assert_equal(again, first)
    assert metrics.if_calibrated(probs, num_resamples=50, seed=1).ece != first.ece


def test_draws_in_parts_are_the_draws(monkeypatch):
    probs, _ = random_predictions(3)
    whole = metrics.if_calibrated(probs, num_resamples=50)
    monkeypatch.setattr(ece_law, "_DRAWN_AT_ONCE", 7 * len(probs))
    np.testing.assert_equal(metrics.if_calibrated(probs, num_resamples=50), whole)
