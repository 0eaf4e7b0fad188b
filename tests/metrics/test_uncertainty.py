"""Entropies and their parts, worked by hand and by their laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

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
