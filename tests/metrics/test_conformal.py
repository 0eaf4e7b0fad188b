"""Conformal sets by hand, by loops over the definitions, and the coverage that they promise."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import predictions, quick, random_predictions

ROW = np.array([[0.2, 0.5, 0.3]])


def test_scores_by_hand():
    u = np.random.default_rng(7).random((1, 1))[0, 0]
    assert metrics.conformal_scores(ROW, "thr") == pytest.approx(np.array([[0.8, 0.5, 0.7]]))
    aps = np.array([[0.8 + 0.2 * u, 0.5 * u, 0.5 + 0.3 * u]])
    assert metrics.conformal_scores(ROW, "aps", seed=7) == pytest.approx(aps)
    # Ranks 3, 1, 2: 0.1 for each beyond the first, or 0.25 for each beyond the second.
    raps = metrics.conformal_scores(ROW, "raps", seed=7)
    assert raps == pytest.approx(aps + np.array([[0.2, 0.0, 0.1]]))
    raps = metrics.conformal_scores(ROW, "raps", seed=7, penalty=0.25, free_classes=2)
    assert raps == pytest.approx(aps + np.array([[0.25, 0.0, 0.0]]))
    assert 0 <= u < 1
    assert metrics.conformal_scores(ROW, "aps", seed=8) != pytest.approx(aps)


@given(predictions(), st.sampled_from(["aps", "raps"]), st.integers(0, 5))
@quick
def test_scores_against_a_loop(data, method, seed):
    probs, _ = data
    uniform = np.random.default_rng(seed).random(len(probs))
    found = metrics.conformal_scores(probs, method, seed, penalty=0.3, free_classes=2)
    for image, row in enumerate(probs):
        for label, own in enumerate(row):
            # Of equal probabilities the lower class is ranked first.
            before = [
                other
                for index, other in enumerate(row)
                if other > own or (other == own and index < label)
            ]
            expected = sum(before) + uniform[image] * own
            if method == "raps":
                expected += 0.3 * max(0, len(before) + 1 - 2)
            assert found[image, label] == pytest.approx(expected)


def test_the_threshold_by_hand():
    scores = np.arange(1, 10) / 10  # nine of them, given in any order
    assert metrics.conformal_threshold(scores[::-1], alpha=0.1) == 0.9  # place 10 * 0.9 = 9
    assert metrics.conformal_threshold(scores, alpha=0.5) == 0.5
    assert metrics.conformal_threshold(scores, alpha=0.49) == 0.6  # place 5.1, which is the sixth
    assert metrics.conformal_threshold(scores, alpha=0.09) == math.inf  # place 9.1, the tenth
    assert metrics.conformal_threshold(scores[:8], alpha=0.1) == math.inf


@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
@quick
def test_the_threshold_is_numpys_quantile(num_images, seed, alpha):
    scores = np.random.default_rng(seed).random(num_images)
    level = math.ceil((num_images + 1) * (1 - alpha) - 1e-9) / num_images
    found = metrics.conformal_threshold(scores, alpha)
    if level > 1:
        assert found == math.inf
    else:
        assert found == np.quantile(scores, level, method="inverted_cdf")


def test_sets_by_hand():
    # Scores 1 - p of the labels held out: 0.1, 0.2, …, 0.9; half may be missed: up to 0.5.
    label_probs = 1 - np.arange(1, 10) / 10
    held_out = np.stack([label_probs, 1 - label_probs], axis=1)
    probs = [[0.52, 0.48], [0.5, 0.5], [0.9, 0.1]]
    found = metrics.conformal_sets(probs, held_out, np.zeros(9, int), "thr", alpha=0.5)
    assert found.threshold == pytest.approx(0.5)
    assert found.sets.tolist() == [[True, False], [True, True], [True, False]]
    assert metrics.set_coverage(found.sets, [1, 1, 0]) == pytest.approx(2 / 3)
    assert metrics.set_size(found.sets) == pytest.approx(4 / 3)
    by_class = metrics.sets_by_class(found.sets, [1, 1, 0])
    assert by_class.num_images.tolist() == [1, 2]
    assert by_class.coverage.tolist() == [1.0, 0.5]
    assert by_class.set_size.tolist() == [1.0, 1.5]
    absent = metrics.sets_by_class(found.sets, [1, 1, 1])
    assert np.isnan([absent.coverage[0], absent.set_size[0]]).all()


@pytest.mark.parametrize("method", metrics.CONFORMAL_METHODS)
def test_too_few_images_held_out_give_sets_of_all_classes(method):
    probs, labels = random_predictions(0, num_images=20)
    found = metrics.conformal_sets(probs, probs[:8], labels[:8], method)
    assert found.threshold == math.inf
    assert found.sets.all()
    assert not metrics.conformal_sets(probs, probs[:9], labels[:9], method).sets.all()


@pytest.fixture(scope="module")
def many():
    return random_predictions(1, num_images=20_000)


@pytest.mark.parametrize("method", metrics.CONFORMAL_METHODS)
@pytest.mark.parametrize("sharpness", [1.0, 6.0])  # honest, and far too sure of itself
def test_coverage_is_as_promised_whatever_the_network(many, method, sharpness):
    probs, labels = many
    probs = special.softmax(sharpness * np.log(probs), axis=1)
    covered = []
    for held_out in range(200):
        part = slice(held_out * 100, held_out * 100 + 49)
        test = slice(held_out * 100 + 49, held_out * 100 + 100)
        arrays = probs[test], probs[part], labels[part]
        found = metrics.conformal_sets(*arrays, method, seed=held_out)
        covered.append(metrics.set_coverage(found.sets, labels[test]))
    # The 45th of 49 gives nine of ten exactly, without ties; means of 200 times 51 scatter by .004.
    assert np.mean(covered) == pytest.approx(0.9, abs=0.012)


def test_one_hot_predictions_are_covered_as_promised_too():
    # All right and all sure: only the random number keeps aps from sets that always hold the label.
    probs, labels = np.eye(3)[np.arange(3000) % 3], np.arange(3000) % 3
    for method, expected in (("thr", 1.0), ("aps", 0.9), ("raps", 0.9)):
        sets = metrics.conformal_sets(probs, probs, labels, method).sets
        assert metrics.set_coverage(sets, labels) == pytest.approx(expected, abs=0.03)


@given(predictions(), st.sampled_from(metrics.CONFORMAL_METHODS))
@quick
def test_less_error_asks_for_greater_sets(data, method):
    probs, labels = data
    nested = [
        metrics.conformal_sets(probs, probs, labels, method, a).sets for a in (0.5, 0.2, 0.05)
    ]
    for smaller, greater in itertools.pairwise(nested):
        assert (greater >= smaller).all()
    sets = nested[1]
    by_class = metrics.sets_by_class(sets, labels)
    assert by_class.num_images.sum() == len(labels)
    total = np.nansum(by_class.num_images * by_class.coverage) / len(labels)
    assert metrics.set_coverage(sets, labels) == pytest.approx(total)
    total = np.nansum(by_class.num_images * by_class.set_size) / len(labels)
    assert metrics.set_size(sets) == pytest.approx(total)


def test_the_summary_is_that_of_the_sets():
    probs, labels = random_predictions(2)
    held_out, their_labels = random_predictions(3, num_images=100)
    found = metrics.conformal_summary(probs, labels, held_out, their_labels)
    assert tuple(found) == metrics.CONFORMAL_SCORES
    for method in metrics.CONFORMAL_METHODS:
        sets = metrics.conformal_sets(probs, held_out, their_labels, method).sets
        right = sets[np.arange(300), labels]
        assert found[f"coverage_{method}"] == right.mean()
        assert found[f"set_size_{method}"] == sets.sum() / 300
        of_classes = [right[labels == label].mean() for label in range(5)]
        assert found[f"least_class_coverage_{method}"] == pytest.approx(min(of_classes))
        sizes = [sets[labels == label].sum(axis=1).mean() for label in range(5)]
        assert found[f"greatest_class_set_size_{method}"] == pytest.approx(max(sizes))


def test_refused():
    probs, labels = random_predictions(0)
    with pytest.raises(MetricsError, match="method is 'lac', expected one of thr, aps, raps"):
        metrics.conformal_sets(probs, probs, labels, "lac")
    with pytest.raises(MetricsError, match="alpha is 1"):
        metrics.conformal_sets(probs, probs, labels, alpha=1.0)
    with pytest.raises(MetricsError, match="penalty is -1"):
        metrics.conformal_sets(probs, probs, labels, "raps", penalty=-1.0)
    with pytest.raises(MetricsError, match="probs has 2 classes and held_out_probs 5"):
        metrics.conformal_sets([[0.5, 0.5]], probs, labels)
    with pytest.raises(MetricsError, match="sets has shape"):
        metrics.set_size(probs)
    with pytest.raises(MetricsError, match="labels has shape"):
        metrics.set_coverage(probs > 0.5, labels[:3])
