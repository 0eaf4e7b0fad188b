"""Metrics against rows worked by hand, limits, second implementations, and laws that hold."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.stats import binomtest, norm
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from bnnlib import metrics
from bnnlib.errors import MetricsError

# Four images, two classes. Predictions 0 0 1 0, labels 0 1 1 1: right, wrong, right, wrong.
# Confidences 0.9 0.8 0.7 0.6.
PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
LABELS = np.array([0, 1, 1, 1])

LABELLED = [
    metrics.accuracy,
    metrics.nll,
    metrics.brier,
    metrics.ece,
    metrics.ece_equal_mass,
    metrics.classwise_ece,
    metrics.mce,
    metrics.aurc,
    metrics.e_aurc,
    metrics.summary,
    metrics.brier_decomposition,
    metrics.reliability_bins,
    metrics.risk_coverage,
    partial(metrics.coverage_at_risk, risk=0.1),
    partial(metrics.risk_at_coverage, coverage=0.5),
]
OOD = [metrics.auroc, metrics.aupr_in, metrics.aupr_out, metrics.fpr_at_tpr]
quick = settings(max_examples=40, deadline=None, derandomize=True)


def random_predictions(seed, num_images=300, num_classes=5, sharpness=2.0):
    rng = np.random.default_rng(seed)
    probs = special.softmax(sharpness * rng.normal(size=(num_images, num_classes)), axis=1)
    labels = np.array([rng.choice(num_classes, p=row) for row in probs])
    return probs, labels


@st.composite
def predictions(draw):
    """Few or many images, classes missing, tied and one-hot rows, all right, all wrong."""
    num_images = draw(st.integers(1, 40))
    num_classes = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "tied", "one-hot", "uniform"]))
    if kind == "smooth":
        probs = special.softmax(3 * rng.normal(size=(num_images, num_classes)), axis=1)
    elif kind == "tied":  # eighths are exact, so ties are
        probs = rng.multinomial(8, np.full(num_classes, 1 / num_classes), size=num_images) / 8
    elif kind == "one-hot":
        probs = np.eye(num_classes)[rng.integers(num_classes, size=num_images)]
    else:
        probs = np.full((num_images, num_classes), 1 / num_classes)
    labels = {
        "any": rng.integers(num_classes, size=num_images),
        "one class": np.full(num_images, rng.integers(num_classes)),
        "all right": probs.argmax(axis=1),
        "all wrong": (probs.argmax(axis=1) + 1) % num_classes,
    }[draw(st.sampled_from(["any", "one class", "all right", "all wrong"]))]
    return probs, labels


@st.composite
def score_sets(draw):
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10))
    sets = [draw(st.lists(values, min_size=1, max_size=30)) for _ in range(2)]
    return np.array(sets[0]), np.array(sets[1])


# --- Worked by hand ------------------------------------------------------------------------------


def test_accuracy_nll_and_brier_by_hand():
    assert metrics.accuracy(PROBS, LABELS) == 0.5
    # The labels' probabilities are 0.9, 0.2, 0.7, 0.4; their product is 0.0504.
    assert metrics.nll(PROBS, LABELS) == pytest.approx(-math.log(0.0504) / 4, rel=1e-14)
    # Each class misses by 0.1, 0.8, 0.3, 0.6: 2 (0.01 + 0.64 + 0.09 + 0.36) / 4 = 2.2 / 4.
    assert metrics.brier(PROBS, LABELS) == pytest.approx(0.55, rel=1e-14)


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


def test_brier_decomposition_by_hand():
    # One bin a class. Class 0: mean 0.65, frequency 0.25. Reliability 0.4² = 0.16, resolution 0,
    # uncertainty 0.25 · 0.75 = 0.1875; deviations 0.25 0.15 -0.35 -0.05: variance
    # (0.0625 + 0.0225 + 0.1225 + 0.0025) / 4 = 0.0525; surprises 0.75 -0.25 -0.25 -0.25: covariance
    # (0.1875 - 0.0375 + 0.0875 + 0.0125) / 4 = 0.0625. Class 1 mirrors it, so everything twice.
    parts = metrics.brier_decomposition(PROBS, LABELS, num_bins=1)
    assert parts == pytest.approx((0.32, 0.0, 0.375, 2 * (0.0525 - 0.125)))
    # Two bins, class 0: {0.3} with frequency 0, and {0.9 0.8 0.6}, mean 23/30, frequency 1/3.
    # Reliability (0.09 + 3 (13/30)²) / 4, resolution (0.25² + 3 (1/12)²) / 4.
    parts = metrics.brier_decomposition(PROBS, LABELS, num_bins=2)
    assert parts.reliability == pytest.approx(2 * (0.09 + 3 * (13 / 30) ** 2) / 4)
    assert parts.resolution == pytest.approx(2 * (0.25**2 + 3 / 144) / 4)


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


def test_equal_mass_bins_keep_ties_together():
    confidence = np.array([0.6, 0.7, 0.7, 0.7, 0.8, 0.9])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    bins = metrics.reliability_bins(probs, np.zeros(6, int), num_bins=3, equal_mass=True)
    # Two a bin would end the bins at 0.7, 0.7 and 0.9; the second is empty, its images tied.
    assert bins.upper.tolist() == [0.7, 0.7, 1.0]
    assert bins.count.tolist() == [4, 0, 2]


def test_uncertainty_by_hand():
    # Two draws of one image, (1, 0) and (0, 1): the mean is uniform, each draw is certain, so all
    # log 2 nats are epistemic. Two equal uniform draws: all are aleatoric.
    draws = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])
    mean = metrics.mean_probs(draws)
    expected = metrics.expected_entropy(draws)
    assert mean.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert expected == pytest.approx([0.0, math.log(2)])
    assert metrics.predictive_entropy(mean) == pytest.approx([math.log(2)] * 2)
    assert metrics.mutual_information(mean, expected) == pytest.approx([math.log(2), 0.0])
    # Entropy of (1/2, 1/4, 1/4) is 1.5 bits.
    assert metrics.predictive_entropy([[0.5, 0.25, 0.25]]) == pytest.approx([1.5 * math.log(2)])


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
    assert metrics.risk_at_coverage(PROBS, LABELS, 0.75) == pytest.approx(1 / 3)
    assert metrics.risk_at_coverage(PROBS, LABELS, 0.51) == pytest.approx(1 / 3)
    assert metrics.risk_at_coverage(PROBS, LABELS, 0.01) == 0.0
    # Ranked the other way: wrong, right, wrong, right. Risks 1, 1/2, 2/3, 1/2.
    turned = PROBS.max(axis=1)
    assert metrics.aurc(PROBS, LABELS, turned) == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    assert metrics.coverage_at_risk(PROBS, LABELS, 0.4, turned) == 0.0


def test_ood_by_hand():
    inside, outside = np.array([0.1, 0.2, 0.4]), np.array([0.3, 0.4])
    # Pairs: 0.3 beats 0.1 and 0.2; 0.4 beats these and ties with 0.4: (2 + 2.5) / 6.
    assert metrics.auroc(inside, outside) == 0.75
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


# --- Limits --------------------------------------------------------------------------------------


def test_perfect_predictions():
    probs, labels = np.eye(4), np.arange(4)
    result = metrics.summary(probs, labels, np.zeros(4))
    assert result.pop("accuracy") == 1.0
    assert result == dict.fromkeys(result, 0.0)


def test_confident_and_wrong():
    probs, labels = np.eye(4), (np.arange(4) + 1) % 4
    result = metrics.summary(probs, labels)
    assert result["accuracy"] == 0.0
    assert result["nll"] == math.inf
    assert result["brier"] == 2.0
    assert result["ece"] == result["mce"] == result["ece_equal_mass"] == 1.0
    assert result["aurc"] == 1.0
    assert result["e_aurc"] == 0.0  # no ranking is better where all are wrong
    assert metrics.coverage_at_risk(probs, labels, 0.5) == 0.0


def test_uniform_predictions():
    probs, labels = np.full((4, 4), 0.25), np.arange(4)
    result = metrics.summary(probs, labels)
    assert result["accuracy"] == 0.25  # the lowest class is predicted for all
    assert result["nll"] == pytest.approx(math.log(4))
    assert result["entropy"] == pytest.approx(math.log(4))
    assert result["brier"] == pytest.approx(3 / 4)
    assert result["ece"] == pytest.approx(0.0)
    assert result["aurc"] == pytest.approx(0.75)  # all tied: the error rate at every coverage
    assert np.isnan([result["aleatoric"], result["epistemic"]]).all()


def test_one_image():
    result = metrics.summary([[0.25, 0.75]], [1], [0.5])
    assert result["nll"] == pytest.approx(-math.log(0.75))
    assert result["ece"] == result["ece_equal_mass"] == result["mce"] == pytest.approx(0.25)
    assert result["aurc"] == result["e_aurc"] == 0.0


def test_the_limit_of_the_perfect_ranking():
    # For many images the perfect ranking's area is r + (1 - r) log(1 - r), Geifman et al. (2019).
    correct = np.random.default_rng(0).random(200_000) > 0.2
    probs = np.tile([0.6, 0.4], (len(correct), 1))
    labels = np.where(correct, 0, 1)
    perfect = metrics.aurc(probs, labels, uncertainty=1.0 - correct)
    rate = 1 - correct.mean()
    assert perfect == pytest.approx(rate + (1 - rate) * math.log(1 - rate), abs=1e-4)
    assert metrics.e_aurc(probs, labels, uncertainty=1.0 - correct) == 0.0


# --- Second implementations ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed):
    probs, labels = random_predictions(seed)
    assert metrics.nll(probs, labels) == pytest.approx(log_loss(labels, probs, labels=range(5)))
    ours = metrics.brier(probs, labels)
    assert ours == pytest.approx(
        brier_score_loss(labels, probs, labels=range(5), scale_by_half=False)
    )


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

    # TFP groups images by predicted class, we by the probability of one class at a time. With one
    # forecast a predicted class, whose entries fall into different bins, the groups are the same.
    # The labels are equally frequent, since TFP 0.25 subtracts the mean frequencies along the
    # wrong axis in its resolution, which shows wherever they differ.
    forecasts = np.array([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.1, 0.3, 0.6]])
    counts = np.array([[50, 30, 20], [10, 40, 60], [60, 50, 40]])  # rows predicted, columns true
    predicted, labels = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices((3, 3)))
    uncertainty, resolution, reliability = tfp.stats.brier_decomposition(
        labels, tf.constant(np.log(forecasts[predicted]))
    )
    ours = metrics.brier_decomposition(forecasts[predicted], labels)
    assert ours == pytest.approx(
        (float(reliability), float(resolution), float(uncertainty) + 1.0, 0.0), abs=1e-6
    )


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
    bins = metrics.reliability_bins(probs, labels, equal_mass=True)
    assert np.ptp(bins.count) <= 1
    assert bins.count.sum() == num_images


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_bins_add_up_to_the_calibration_error(equal_mass):
    probs, labels = random_predictions(3)
    bins = metrics.reliability_bins(probs, labels, equal_mass=equal_mass, level=0.9)
    filled = bins.count > 0
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    ece = metrics.ece_equal_mass if equal_mass else metrics.ece
    assert np.average(gaps, weights=bins.count[filled]) == pytest.approx(ece(probs, labels))
    for row in np.flatnonzero(filled):
        right = round(bins.accuracy[row] * bins.count[row])
        wilson = binomtest(right, bins.count[row]).proportion_ci(0.9, method="wilson")
        assert bins.accuracy_low[row] == pytest.approx(wilson.low, abs=1e-12)
        assert bins.accuracy_high[row] == pytest.approx(wilson.high, abs=1e-12)


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


# --- Laws ----------------------------------------------------------------------------------------


@given(predictions())
@quick
def test_bounds_and_sums(data):
    probs, labels = data
    result = metrics.summary(probs, labels, metrics.predictive_entropy(probs))
    for name in ("accuracy", "ece", "ece_equal_mass", "classwise_ece", "mce", "aurc", "e_aurc"):
        assert -1e-12 <= result[name] <= 1 + 1e-12, name
    assert result["nll"] >= 0
    assert 0 <= result["brier"] <= 2
    assert 0 <= result["entropy"] <= math.log(probs.shape[1]) + 1e-12
    assert result["epistemic"] == 0
    assert result["mce"] >= result["ece"] - 1e-12
    assert result["ece"] >= abs(result["accuracy"] - probs.max(axis=1).mean()) - 1e-12
    assert result["e_aurc"] <= result["aurc"]
    for num_bins in (1, 4, 15):
        parts = metrics.brier_decomposition(probs, labels, num_bins)
        total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
        assert total == pytest.approx(result["brier"], abs=1e-13)
        assert min(parts[:3]) >= 0
    curve = metrics.risk_coverage(probs, labels)
    assert curve.risk[-1] == pytest.approx(1 - result["accuracy"])
    for risk in (0.0, 0.2, 1.0):
        coverage = metrics.coverage_at_risk(probs, labels, risk)
        if coverage > 0:
            assert metrics.risk_at_coverage(probs, labels, coverage) <= risk + 1e-12
        else:
            assert (curve.risk > risk).all()


@given(predictions(), st.integers(0, 2**32 - 1), st.integers(1, 4))
@quick
def test_order_and_shards_of_images_do_not_matter(data, seed, ranks):
    probs, labels = data
    entropy = metrics.predictive_entropy(probs)
    expected = metrics.summary(probs, labels, entropy)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = metrics.summary(probs[order], labels[order], entropy[order])
    assert shuffled == pytest.approx(expected, abs=1e-12)
    sharded = [
        np.concatenate([a[r::ranks] for r in range(ranks)]) for a in (probs, labels, entropy)
    ]
    assert metrics.summary(*sharded) == pytest.approx(expected, abs=1e-12)
    bins = metrics.brier_decomposition(probs[order], labels[order])
    assert bins == pytest.approx(metrics.brier_decomposition(probs, labels), abs=1e-12)


def test_means_over_shards_are_means_over_images():
    probs, labels = random_predictions(4, num_images=301)
    for metric in (metrics.accuracy, metrics.nll, metrics.brier):
        parts = [(metric(probs[r::4], labels[r::4]), len(labels[r::4])) for r in range(4)]
        total = sum(value * count for value, count in parts) / 301
        assert total == pytest.approx(metric(probs, labels), rel=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_names_of_classes_do_not_matter(seed):
    probs, labels = random_predictions(seed, num_images=60)
    new = np.random.default_rng(seed).permutation(5)  # class c is now called new[c]
    renamed = np.empty_like(probs)
    renamed[:, new] = probs
    entropy = metrics.predictive_entropy(probs) / 2
    assert metrics.summary(renamed, new[labels], entropy) == pytest.approx(
        metrics.summary(probs, labels, entropy)
    )
    assert metrics.brier_decomposition(renamed, new[labels]) == pytest.approx(
        metrics.brier_decomposition(probs, labels)
    )


def test_an_absent_class_changes_only_the_class_wise_error():
    probs, labels = random_predictions(5)
    wider = np.hstack([probs, np.zeros((len(probs), 1))])
    before, after = metrics.summary(probs, labels), metrics.summary(wider, labels)
    # Its gap is zero, and there are six classes instead of five to average over.
    assert after.pop("classwise_ece") == pytest.approx(before.pop("classwise_ece") * 5 / 6)
    assert after == pytest.approx(before, nan_ok=True)


@given(score_sets())
@quick
def test_ood_symmetries(sets):
    inside, outside = sets
    for metric in OOD:
        value = metric(inside, outside)
        assert 0 <= value <= 1
        assert metric(2 * inside, 2 * outside) == pytest.approx(value)  # ranks alone count
    assert metrics.auroc(outside, inside) == pytest.approx(1 - metrics.auroc(inside, outside))
    assert metrics.auroc(inside, inside) == pytest.approx(0.5)
    apart = outside + 30.0
    values = [metric(inside, apart) for metric in OOD]
    assert values == [1.0, 1.0, 1.0, 0.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 10), st.integers(2, 6))
@quick
def test_entropy_is_the_sum_of_its_parts(seed, num_draws, num_images, num_classes):
    rng = np.random.default_rng(seed)
    draws = special.softmax(3 * rng.normal(size=(num_draws, num_images, num_classes)), axis=2)
    mean, aleatoric = metrics.mean_probs(draws), metrics.expected_entropy(draws)
    assert mean == pytest.approx(draws.mean(axis=0))
    epistemic = metrics.mutual_information(mean, aleatoric)
    assert (epistemic >= 0).all()
    assert epistemic + aleatoric == pytest.approx(
        metrics.predictive_entropy(mean), abs=metrics.MUTUAL_INFORMATION_RESOLUTION
    )
    # The mutual information is the mean divergence of the draws from their mean.
    divergence = special.rel_entr(draws, mean).sum(axis=2).mean(axis=0)
    assert epistemic == pytest.approx(divergence, abs=metrics.MUTUAL_INFORMATION_RESOLUTION)
    result = metrics.summary(mean, np.zeros(num_images, int), aleatoric)
    assert result["aleatoric"] + result["epistemic"] == pytest.approx(result["entropy"], abs=1e-6)


def test_float32_is_computed_in_float64():
    probs, labels = random_predictions(6)
    single = probs.astype(np.float32)
    assert metrics.summary(single, labels) == pytest.approx(
        metrics.summary(single.astype(np.float64), labels), rel=0, abs=0, nan_ok=True
    )
    assert metrics.mean_probs(single[np.newaxis]).dtype == np.float64
    assert metrics.predictive_entropy(single).dtype == np.float64


def test_float32_records_of_a_deterministic_network_have_no_mutual_information():
    inside, _ = random_predictions(7, sharpness=8.0)
    outside, _ = random_predictions(8, sharpness=1.0)
    arrays = []
    for probs in (inside, outside):
        single = probs.astype(np.float32)
        arrays += [single, -(single * np.log(single)).sum(axis=1)]
    result = metrics.ood_summary(*arrays)
    assert result["auroc_mutual_information"] == 0.5
    assert result["fpr95_mutual_information"] == 1.0
    assert result["auroc_entropy"] > 0.8


def test_ood_summary_is_the_metrics_of_the_three_scores():
    rng = np.random.default_rng(0)
    draws_in = special.softmax(4 * rng.normal(size=(5, 80, 4)), axis=2)
    draws_out = special.softmax(2 * rng.normal(size=(5, 60, 4)), axis=2)
    pairs = [(metrics.mean_probs(d), metrics.expected_entropy(d)) for d in (draws_in, draws_out)]
    result = metrics.ood_summary(*pairs[0], *pairs[1])
    scores = [
        {
            "max_probability": -mean.max(axis=1),
            "entropy": -(mean * np.log(mean)).sum(axis=1),
            "mutual_information": -(mean * np.log(mean)).sum(axis=1) - expected,
        }
        for mean, expected in pairs
    ]
    functions = {
        "auroc": metrics.auroc,
        "aupr_in": metrics.aupr_in,
        "aupr_out": metrics.aupr_out,
        "fpr95": metrics.fpr_at_tpr,
    }
    assert result == pytest.approx(
        {
            f"{name}_{score}": function(scores[0][score], scores[1][score])
            for name, function in functions.items()
            for score in scores[0]
        }
    )
    unknown = metrics.ood_summary(pairs[0][0], None, pairs[1][0], None)
    assert unknown.keys() == result.keys()
    assert {name for name, value in unknown.items() if math.isnan(value)} == {
        name for name in result if name.endswith("mutual_information")
    }


# --- Temperature ---------------------------------------------------------------------------------


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


# --- Bootstrap -----------------------------------------------------------------------------------

RESAMPLED = [*metrics._RESAMPLED]


@pytest.mark.parametrize("metric", RESAMPLED, ids=lambda metric: metric.__name__)
def test_resampled_rows_give_what_resampled_arrays_give(metric):
    if metric in OOD:
        rng = np.random.default_rng(0)
        arrays, groups = (rng.normal(size=50), 1 + rng.normal(size=70)), (0, 1)
    else:
        arrays, groups = random_predictions(10, num_images=80), (0, 0)
    # An anonymous function is called on resampled arrays, and its interval is not shifted.
    slow = metrics.bootstrap_interval(
        lambda *given: metric(*given), *arrays, groups=groups, num_resamples=50, seed=3
    )
    fast = metrics.bootstrap_interval(metric, *arrays, num_resamples=50, seed=3)
    assert fast.estimate == slow.estimate == metric(*arrays)
    if metric in metrics._BIASED:
        assert fast.low <= fast.estimate <= fast.high
        assert fast.low < slow.low  # resamples are biased upwards
        assert fast.low > 0 or metric is metrics.mce
        if fast.low > 0:
            assert fast.high - fast.low == pytest.approx(slow.high - slow.low)
    else:
        assert fast == pytest.approx(slow)


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


# --- Refusals ------------------------------------------------------------------------------------


def changed(array, value):
    array = np.array(array, dtype=np.float64)
    array[1, 0] = value
    return array


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


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ([0.1, 0.1, 0.1], r"shape \(3,\), expected \(4,\)"),
        ([0.1, np.nan, 0.1, 0.1], "nan in row 1"),
        ([0.1, 0.1, 5.0, 0.1], "5 in row 2, expected 0 to"),
        ([0.1, 0.1, 0.1, -0.5], "-0.5 in row 3"),
    ],
)
def test_refused_expected_entropy(expected, message):
    with pytest.raises(MetricsError, match=message):
        metrics.mutual_information(PROBS, expected)
    with pytest.raises(MetricsError, match=message):
        metrics.summary(PROBS, LABELS, expected)
    with pytest.raises(MetricsError, match=message):
        metrics.ood_summary(PROBS, expected, PROBS, np.zeros(4))


@pytest.mark.parametrize("function", [metrics.mean_probs, metrics.expected_entropy])
def test_refused_draws(function):
    with pytest.raises(MetricsError, match=r"shape \(4, 2\)"):
        function(PROBS)
    with pytest.raises(MetricsError, match="no draws"):
        function(np.empty((0, 4, 2)))
    with pytest.raises(MetricsError, match=r"draw_probs\[1\] has a value that is not finite"):
        function(np.stack([PROBS, changed(PROBS, np.nan)]))


@pytest.mark.parametrize("metric", OOD)
@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf], [[0.1]], ["a"]])
def test_refused_scores(metric, bad):
    with pytest.raises(MetricsError, match="out_scores"):
        metric([0.1, 0.2], bad)
    with pytest.raises(MetricsError, match="in_scores"):
        metric(bad, [0.1, 0.2])


def test_refused_settings():
    for num_bins in (0, -1, 1.5, True):
        with pytest.raises(MetricsError, match="num_bins is"):
            metrics.ece(PROBS, LABELS, num_bins)
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(MetricsError, match="risk is"):
            metrics.coverage_at_risk(PROBS, LABELS, fraction)
    for fraction in (0.0, 1.1, math.nan):
        with pytest.raises(MetricsError, match="coverage is"):
            metrics.risk_at_coverage(PROBS, LABELS, fraction)
        with pytest.raises(MetricsError, match="tpr is"):
            metrics.fpr_at_tpr([0.1], [0.2], fraction)
    with pytest.raises(MetricsError, match="uncertainty has shape"):
        metrics.aurc(PROBS, LABELS, np.zeros(3))
    with pytest.raises(MetricsError, match="2 classes and out_probs 3"):
        metrics.ood_summary(PROBS, None, np.full((2, 3), 1 / 3), None)
    with pytest.raises(MetricsError, match="give both or neither"):
        metrics.ood_summary(PROBS, np.zeros(4), PROBS, None)
