"""Entropies and their parts, worked by hand and by their laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import PROBS, changed, quick


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


@pytest.mark.parametrize("function", [metrics.mean_probs, metrics.expected_entropy])
def test_refused_draws(function):
    with pytest.raises(MetricsError, match=r"shape \(4, 2\)"):
        function(PROBS)
    with pytest.raises(MetricsError, match="no draws"):
        function(np.empty((0, 4, 2)))
    with pytest.raises(MetricsError, match=r"draw_probs\[1\] has a value that is not finite"):
        function(np.stack([PROBS, changed(PROBS, np.nan)]))


# ------------------------------------------------------------------------------ votes and logits


def test_votes_by_hand():
    # Four draws of three images: three against one, two against two, and all alike.
    classes = np.array([[0, 0, 2], [0, 1, 2], [0, 1, 2], [1, 0, 2]])
    draws = 0.9 * np.eye(3)[classes] + 0.1 / 3
    votes = metrics.count_votes(draws)
    assert votes.tolist() == [[3, 1, 0], [2, 2, 0], [0, 0, 4]]
    assert metrics.variation_ratio(votes) == pytest.approx([1 / 4, 1 / 2, 0])
    # Six pairs: three of the first image differ, four of the second.
    assert metrics.disagreement(votes) == pytest.approx([3 / 6, 4 / 6, 0])
    # A draw that is undecided votes for the lowest class, as a prediction does.
    assert metrics.count_votes([[[0.5, 0.5]]]).tolist() == [[1, 0]]
    # Nothing contradicts a single draw.
    assert metrics.disagreement([[0, 1]]).tolist() == metrics.variation_ratio([[0, 1]]).tolist()
    assert metrics.disagreement([[0, 1]]).tolist() == [0.0]


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 10), st.integers(2, 6))
@quick
def test_votes_against_pairs_and_scipys_mode(seed, num_draws, num_images, num_classes):
    rng = np.random.default_rng(seed)
    draws = special.softmax(3 * rng.normal(size=(num_draws, num_images, num_classes)), axis=2)
    classes = draws.argmax(axis=2)
    votes = metrics.count_votes(draws)
    assert (votes.sum(axis=1) == num_draws).all()
    of_mode = stats.mode(classes, axis=0).count
    assert metrics.variation_ratio(votes) == pytest.approx(1 - of_mode / num_draws)
    pairs = list(itertools.combinations(classes, 2))
    expected = np.mean([one != other for one, other in pairs], axis=0)
    assert metrics.disagreement(votes) == pytest.approx(expected)
    summary = metrics.summary(metrics.mean_probs(draws), np.zeros(num_images, int), votes=votes)
    assert summary["disagreement"] == pytest.approx(expected.mean())


def test_scores_by_hand():
    probs, entropies = [[0.75, 0.25], [0.5, 0.5]], [0.3, 0.6]
    logits, votes = np.log([[3.0, 1.0], [2.0, 2.0]]), [[4, 0], [2, 2]]
    found = metrics.uncertainty_scores(probs, entropies, logits, votes)
    assert tuple(sorted(found)) == tuple(sorted(metrics.OOD_SCORES))
    assert found["max_probability"] == pytest.approx([0.25, 0.5])
    assert found["entropy"][1] == pytest.approx(math.log(2))
    assert found["mutual_information"] == pytest.approx(found["entropy"] - entropies)
    assert found["expected_entropy"].tolist() == entropies
    assert found["variation_ratio"].tolist() == [0.0, 0.5]
    assert found["max_logit"] == pytest.approx([-math.log(3), -math.log(2)])
    assert found["energy"] == pytest.approx([-math.log(4), -math.log(4)])
    assert list(metrics.uncertainty_scores(probs)) == ["max_probability", "entropy"]


@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
@quick
def test_laws_of_max_logit_and_energy(seed, shift):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(20, 4))
    probs = special.softmax(logits, axis=1)
    scores = metrics.uncertainty_scores(probs, mean_logits=logits)
    # Of one draw: log of the greatest probability = max_logit's logit + energy.
    assert np.log(probs.max(axis=1)) == pytest.approx(scores["energy"] - scores["max_logit"])
    # Softmax does not see a shift; these two do, one for one.
    shifted = metrics.uncertainty_scores(probs, mean_logits=logits + shift)
    for name in ("max_logit", "energy"):
        assert shifted[name] == pytest.approx(scores[name] - shift)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"votes": [[4, 0]] * 3}, r"votes has shape \(3, 2\), expected \(4, 2\)"),
        ({"votes": [[4, 0], [3, 0], [4, 0], [4, 0]]}, r"votes has \[3 0\] in row 1"),
        ({"votes": [[4, 0], [5, -1], [4, 0], [4, 0]]}, r"votes has \[ 5 -1\] in row 1"),
        ({"votes": [[0.9, 0.1]] * 4}, "votes has .* in row 0, .* count_votes"),
        ({"votes": [[0, 0]] * 4}, "in row 0"),
        ({"mean_logits": np.zeros((4, 3))}, r"mean_logits has shape \(4, 3\), .* \(4, 2\)"),
        ({"mean_logits": [[0, 0], [0, np.nan], [0, 0], [0, 0]]}, "not finite in row 1"),
    ],
)
def test_refused_votes_and_logits(arrays, message):
    with pytest.raises(MetricsError, match=message):
        metrics.uncertainty_scores(PROBS, **arrays)
