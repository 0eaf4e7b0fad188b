"""The advice of every error of the metrics, followed: it gives the right score, not any score.

A caller who gets an error does what it says. So each case is one mistake, with the error's own
words and what a reader of them does, and the score must be that of the input without the mistake.
"""

import numpy as np
import pytest
from scipy import special

from bnnlib import metrics
from bnnlib.errors import MetricsError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 200)
LOGITS = 2.0 * np.eye(5)[LABELS] + RNG.normal(size=(200, 5))
PROBS = special.softmax(LOGITS, axis=1)
BINARY = RNG.uniform(size=200)
TRUTH = (RNG.uniform(size=200) < BINARY).astype(int)
WITH_ZEROS = special.softmax(np.where(RNG.uniform(size=(200, 5)) < 0.2, -np.inf, LOGITS), axis=1)


def log(probs):
    with np.errstate(divide="ignore"):
        return np.log(probs)


def score(probs, labels=LABELS):
    return metrics.accuracy(probs, labels), metrics.brier(probs, labels), metrics.nll(probs, labels)


EXPECTED = score(PROBS)
PROBS_CASES = {
    "logits": (LOGITS, "If they are logits, apply softmax first", special.softmax),
    "positive logits": (LOGITS + 9, "If they are logits, apply softmax first", special.softmax),
    "log-probabilities": (log(PROBS), "These are log-probabilities: apply exp first", np.exp),
    "percent": (100 * PROBS, "divide each row by its sum, without softmax", "sum"),
    "sums of three draws": (3 * PROBS, "divide each row by its sum, without softmax", "sum"),
    "counts": (
        PROBS * (1 + np.arange(200)[:, None]),
        "of counts divide each row by its sum",
        "sum",
    ),
}


@pytest.mark.parametrize("case", PROBS_CASES)
def test_the_advice_on_probabilities_gives_their_scores(case):
    given, advice, act = PROBS_CASES[case]
    with pytest.raises(MetricsError) as error:
        metrics.accuracy(given, LABELS)
    assert advice in str(error.value)
    followed = given / given.sum(axis=1, keepdims=True) if act == "sum" else act(given)
    if act is special.softmax:
        followed = special.softmax(given, axis=1)
    assert score(followed) == pytest.approx(EXPECTED)


def test_rounded_probabilities_are_not_sent_through_a_softmax():
    rounded = np.round(PROBS, 2)
    with pytest.raises(MetricsError, match="divide each row by its sum, without softmax"):
        metrics.nll(rounded, LABELS)
    followed = rounded / rounded.sum(axis=1, keepdims=True)
    assert score(followed)[:2] == pytest.approx(EXPECTED[:2], abs=0.01)
    # What the error used to advise.
    assert score(special.softmax(rounded, axis=1))[1] > EXPECTED[1] + 0.1


def test_probabilities_a_rounding_below_zero_are_not_sent_through_a_softmax():
    probs = PROBS.copy()
    probs[3] = [-1e-6, 0.5, 0.3, 0.2, 1e-6]
    with pytest.raises(MetricsError, match="set what is below 0 to 0"):
        metrics.accuracy(probs, LABELS)
    assert metrics.accuracy(np.maximum(probs, 0), LABELS) == (probs.argmax(axis=1) == LABELS).mean()


def test_log_probabilities_of_classes_that_cannot_be():
    with pytest.raises(MetricsError, match="These are log-probabilities: apply exp first"):
        metrics.accuracy(log(WITH_ZEROS), LABELS)
    assert metrics.brier(np.exp(log(WITH_ZEROS)), LABELS) == pytest.approx(
        metrics.brier(WITH_ZEROS, LABELS)
    )


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
def test_probabilities_of_one_class_get_their_second_column_on_the_right_side(shape):
    with pytest.raises(MetricsError, match=r"numpy\.stack\(\[1 - p, p\], axis=1\)"):
        metrics.nll(BINARY.reshape(shape), TRUTH)
    p = BINARY.reshape(shape).reshape(-1)
    by_hand = -np.log(np.where(TRUTH == 1, p, 1 - p)).mean()
    assert metrics.nll(np.stack([1 - p, p], axis=1), TRUTH) == pytest.approx(by_hand)


def test_draws_are_averaged():
    draws = special.softmax(LOGITS + RNG.normal(size=(7, 200, 5)), axis=-1)
    with pytest.raises(MetricsError, match="Average draws with mean_probs first"):
        metrics.brier(draws, LABELS)
    assert metrics.brier(metrics.mean_probs(draws), LABELS) == metrics.brier(
        draws.mean(axis=0), LABELS
    )


def test_rows_of_equal_length():
    with pytest.raises(MetricsError, match="Give rows of equal length"):
        metrics.accuracy([[0.5, 0.5], [1.0]], [0, 0])
    assert metrics.accuracy([[0.5, 0.5], [1.0, 0.0]], [0, 0]) == 1.0


LABEL_CASES = {
    "a column": (LABELS[:, None], "Take labels.reshape(-1)", lambda y: y.reshape(-1)),
    "a row": (LABELS[None], "Take labels.reshape(-1)", lambda y: y.reshape(-1)),
    "one-hot": (np.eye(5)[LABELS], "argmax(axis=1)", lambda y: y.argmax(axis=1)),
    "one-hot integers": (np.eye(5, dtype=int)[LABELS], "argmax(", lambda y: y.argmax(axis=1)),
    "floats": (LABELS.astype(float), "Convert them with astype(int)", lambda y: y.astype(int)),
    "from one": (LABELS + 1, "Subtract 1 from labels that count from 1", lambda y: y - 1),
}


@pytest.mark.parametrize("case", LABEL_CASES)
def test_the_advice_on_labels_gives_their_scores(case):
    given, advice, follow = LABEL_CASES[case]
    with pytest.raises(MetricsError) as error:
        metrics.accuracy(PROBS, given)
    assert advice in str(error.value)
    np.testing.assert_array_equal(follow(given), LABELS)
    assert score(PROBS, follow(given)) == EXPECTED


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:100],
        special.softmax(LOGITS, axis=1),  # annotators' votes, whose argmax loses what they say
        np.eye(7)[LABELS],
        LABELS + 0.5,
        LABELS + 2,
    ],
    ids=["fewer", "votes", "of other classes", "halves", "from two"],
)
def test_where_no_advice_is_sure_none_is_given(labels):
    with pytest.raises(MetricsError) as error:
        metrics.accuracy(PROBS, labels)
    assert not any(word in str(error.value) for word in ("argmax", "astype", "Subtract", "Take"))


def test_bools_of_a_binary_problem():
    probs = np.stack([1 - BINARY, BINARY], axis=1)
    with pytest.raises(MetricsError, match=r"Convert them with astype\(int\)"):
        metrics.nll(probs, TRUTH.astype(bool))
    assert metrics.nll(probs, TRUTH.astype(bool).astype(int)) == metrics.nll(probs, TRUTH)


def test_a_biased_metric_names_the_interval_that_covers_it():
    with pytest.raises(MetricsError, match="Use ece_interval"):
        metrics.bootstrap_interval(metrics.ece, PROBS, LABELS)
    interval = metrics.ece_interval(PROBS, LABELS)
    assert interval.low <= interval.estimate <= interval.high


def test_separate_sets_of_images_get_groups():
    def difference(one, other):
        return one.mean() - other.mean()

    with pytest.raises(MetricsError, match=r"Give groups, for example \(0, 1\)"):
        metrics.bootstrap_interval(difference, BINARY, BINARY[:50], num_resamples=20)
    found = metrics.bootstrap_interval(
        difference, BINARY, BINARY[:50], num_resamples=20, groups=(0, 1)
    )
    assert found.low < found.high


def test_a_label_of_log_probability_minus_infinity_wants_logits():
    logits = np.array([[800.0, 0.0], [0.0, 3.0], [2.0, 0.0]])
    labels = np.array([1, 1, 0])
    rounded = log(special.softmax(logits.astype(np.float32), axis=1))
    with pytest.raises(MetricsError, match="Compute log-probabilities from logits"):
        metrics.fit_temperature(rounded, labels)
    assert metrics.fit_temperature(special.log_softmax(logits, axis=1), labels) > 1.0


def test_expected_entropies_are_in_nats_and_given_of_both_sets():
    draws = special.softmax(LOGITS + RNG.normal(size=(7, 200, 5)), axis=-1)
    mean, entropy = metrics.mean_probs(draws), metrics.expected_entropy(draws)
    with pytest.raises(MetricsError, match="Give nats, of the same images and draws"):
        metrics.mutual_information(mean, entropy / np.log(2.0))
    assert (metrics.mutual_information(mean, entropy) >= 0).all()
    with pytest.raises(MetricsError, match="give both or neither"):
        metrics.ood_summary(mean, entropy, mean, None)
    both = metrics.ood_summary(mean, entropy, mean, entropy)
    neither = metrics.ood_summary(mean, None, mean, None)
    assert both["auroc_entropy"] == neither["auroc_entropy"] == pytest.approx(0.5)
