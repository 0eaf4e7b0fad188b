"""Calibration errors, bins and temperatures against rows worked by hand, loops and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bnnlib import metrics
from tests.metrics.cases import LABELS, PROBS, predictions, quick, random_predictions


def test_calibration_errors_by_hand():
    # Fifteen bins part all four. Gaps accuracy - confidence: 0.1, -0.8, 0.3, -0.6.
    assert metrics.ece(PROBS, LABELS) == pytest.approx((0.1 + 0.8 + 0.3 + 0.6) / 4)
    assert metrics.mce(PROBS, LABELS) == pytest.approx(0.8)
    # Two bins: all confidences in (0.5, 1], mean 0.75, accuracy 0.5.
    assert metrics.ece(PROBS, LABELS, num_bins=2) == pytest.approx(0.25)
    assert metrics.mce(PROBS, LABELS, num_bins=2) == pytest.approx(0.25)
    # Two bins of two images: {0.6, 0.7} gap 0.5 - 0.65, {0.8, 0.9} gap 0.5 - 0.85.
    assert metrics.ece_equal_mass(PROBS, LABELS, num_bins=2) == pytest.approx((0.15 + 0.35) / 2)
    # Two bins, class 0: the low bin holds 0.3 with frequency 0; the high one 0.9 0.8 0.6 with
    # frequency 1/3: (0.3 + |1 - 2.3|) / 4 = 0.4. Class 1 mirrors it.
    assert metrics.classwise_ece(PROBS, LABELS, num_bins=2) == pytest.approx(0.4)


def test_bins_are_closed_on_the_right_and_zero_is_in_the_first():
    # Five bins, edges 0.2 0.4 0.6 0.8: an edge, as written, belongs to the bin below it.
    probs = np.array([[0.6, 0.4], [0.8, 0.2], [1.0, 0.0], [0.61, 0.39]])
    bins = metrics.reliability_bins(probs, np.zeros(4, int), num_bins=5)
    assert bins.count.tolist() == [0, 0, 1, 2, 1]
    assert bins.lower == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert bins.upper == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert bins.confidence[2:] == pytest.approx([0.6, 0.705, 1.0])
    assert np.isnan(bins.accuracy[:2]).all()
    # Classes 0 and 1 of the third row are at 1 and 0: bins 4 and 0. Class by class the gaps are
    # all positive for class 0 and negative for class 1, so nothing cancels: 2 (0.4+0.2+0+0.39) / 8.
    assert metrics.classwise_ece(probs, np.zeros(4, int), num_bins=5) == pytest.approx(0.99 / 4)


@pytest.mark.parametrize("num_bins", [3, 5, 10, 15, 20])
def test_every_edge_of_any_number_of_bins_is_in_the_bin_below(num_bins):
    edges = np.array([i / num_bins for i in range(1, num_bins + 1) if i / num_bins >= 0.5])
    probs = np.stack([edges, 1 - edges], axis=1)
    bins = metrics.reliability_bins(probs, np.zeros(len(edges), int), num_bins)
    assert bins.confidence[bins.count > 0] == pytest.approx(bins.upper[bins.count > 0])


@pytest.mark.parametrize("num_bins", [3, 5, 7, 10, 15, 20])
def test_an_edge_that_a_float32_record_holds_is_in_the_bin_below(num_bins):
    edges = np.arange(1, num_bins) / num_bins
    confidence = edges[edges > 0.5].astype(np.float32)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    bins = metrics.reliability_bins(probs, np.zeros(len(probs), int), num_bins)
    expected = [int(edge > 0.5 and edge < 1) for edge in np.arange(1, num_bins + 1) / num_bins]
    assert bins.count.tolist() == expected
    # The next number that float32 can hold is beyond the edge.
    beyond = np.nextafter(confidence, np.float32(1))
    probs = np.stack([beyond, 1 - beyond], axis=1)
    bins = metrics.reliability_bins(probs, np.zeros(len(probs), int), num_bins)
    assert bins.count.tolist() == [0, *expected[:-1]]


def test_equal_mass_bins_keep_ties_together():
    confidence = np.array([0.6, 0.7, 0.7, 0.7, 0.8, 0.9])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    # Two a bin would end the bins at 0.7, 0.7 and 0.9; the second is empty, its images tied. All
    # are right: the first bin misses 0.4 + 3 x 0.3, the last 0.2 + 0.1.
    labels = np.zeros(6, int)
    assert metrics.ece_equal_mass(probs, labels, num_bins=3) == pytest.approx((1.3 + 0.3) / 6)
    # Two wrong among those tied cancel with the others of their bin alone.
    labels[1:3] = 1
    assert metrics.ece_equal_mass(probs, labels, num_bins=3) == pytest.approx((0.7 + 0.3) / 6)


def test_against_tensorflow_probability():
    import tensorflow as tf
    import tensorflow_probability as tfp

    for seed in range(3):
        probs, labels = random_predictions(seed)
        logits = tf.constant(np.log(probs))
        theirs = tfp.stats.expected_calibration_error(
            15, logits=tf.cast(logits, tf.float32), labels_true=labels
        )
        assert metrics.ece(probs, labels) == pytest.approx(float(theirs), abs=1e-6)
        # Theirs leaves out the one that the label's own square adds.
        theirs = tf.reduce_mean(tfp.stats.brier_score(labels, logits)) + 1.0
        assert metrics.brier(probs, labels) == pytest.approx(float(theirs), rel=1e-6)


@given(predictions(), st.integers(1, 20))
@quick
def test_calibration_errors_against_plain_loops(data, num_bins):
    probs, labels = data
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels

    def gaps(values, happened):
        for low, high in zip(range(num_bins), range(1, num_bins + 1), strict=True):
            inside = (values > low / num_bins) & (values <= high / num_bins)
            if low == 0:
                inside |= values == 0
            if inside.any():
                yield inside.mean(), abs(happened[inside].mean() - values[inside].mean())

    pairs = list(gaps(confidence, correct))
    assert metrics.ece(probs, labels, num_bins) == pytest.approx(sum(w * g for w, g in pairs))
    assert metrics.mce(probs, labels, num_bins) == pytest.approx(max(g for _, g in pairs))
    classes = range(probs.shape[1])
    each = [sum(w * g for w, g in gaps(probs[:, c], labels == c)) for c in classes]
    assert metrics.classwise_ece(probs, labels, num_bins) == pytest.approx(np.mean(each), abs=1e-15)


@pytest.mark.parametrize("num_images", [7, 15, 100, 307])
def test_equal_mass_without_ties_against_split_arrays(num_images):
    probs, labels = random_predictions(num_images, num_images)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == labels
    parts = [part for part in np.array_split(np.argsort(confidence), 15) if len(part)]
    expected = sum(abs((correct[part] - confidence[part]).sum()) for part in parts) / num_images
    assert metrics.ece_equal_mass(probs, labels) == pytest.approx(expected)


def test_reliability_bins_add_up_to_the_calibration_error():
    probs, labels = random_predictions(3)
    bins = metrics.reliability_bins(probs, labels, level=0.9)
    filled = bins.count > 0
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    assert np.average(gaps, weights=bins.count[filled]) == pytest.approx(metrics.ece(probs, labels))
    for row in np.flatnonzero(filled):
        right = round(bins.accuracy[row] * bins.count[row])
        wilson = binomtest(right, bins.count[row]).proportion_ci(0.9, method="wilson")
        assert bins.accuracy_low[row] == pytest.approx(wilson.low, abs=1e-12)
        assert bins.accuracy_high[row] == pytest.approx(wilson.high, abs=1e-12)
