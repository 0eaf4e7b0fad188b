"""Vector scaling: a temperature as its special case, its optimum's equations, and known scales."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from bnnlib import metrics
from bnnlib.errors import MetricsError
from tests.metrics.cases import quick, random_predictions


def labelled(scales, biases, num_images=20_000, seed=0):
    """Logits, and labels drawn from what the scales and biases make of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_images, len(scales)))
    probs = special.softmax(logits * scales + biases, axis=1)
    drawn = (rng.random((num_images, 1)) > np.cumsum(probs, axis=1)).sum(axis=1)
    return logits, np.minimum(drawn, len(scales) - 1)


def test_equal_scales_without_biases_are_a_temperature():
    probs, _ = random_predictions(0)
    scaling = metrics.VectorScaling(np.full(5, 0.4), np.zeros(5))
    found = metrics.apply_vector_scaling(np.log(probs), scaling)
    assert found == pytest.approx(metrics.apply_temperature(np.log(probs), 2.5))


def test_by_hand():
    scaling = metrics.VectorScaling(np.array([1.0, 2.0]), np.log([1.0, 3.0]))
    # exp(log 0.5) = 1/2 against 3 (1/2)^2 = 3/4.
    found = metrics.apply_vector_scaling(np.log([[0.5, 0.5]]), scaling)
    assert found == pytest.approx(np.array([[0.4, 0.6]]))


def test_known_scales_and_biases_are_found_again():
    scales, biases = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.2, 0.8])
    found = metrics.fit_vector_scaling(*labelled(scales, biases))
    assert found.scales == pytest.approx(scales, abs=0.08)
    assert found.biases == pytest.approx(biases, abs=0.05)
    assert found.biases.sum() == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
@settings(quick, max_examples=10)
def test_the_optimum_satisfies_its_equations_and_is_no_worse_than_the_temperature(seed, classes):
    rng = np.random.default_rng(seed)
    truth = np.exp(0.3 * rng.normal(size=classes)), rng.normal(size=classes)
    logits, labels = labelled(*truth, num_images=400, seed=seed)
    scaling = metrics.fit_vector_scaling(logits, labels)
    probs = metrics.apply_vector_scaling(logits, scaling)
    at_temperature = metrics.apply_temperature(logits, metrics.fit_temperature(logits, labels))
    assert metrics.nll(probs, labels) <= metrics.nll(at_temperature, labels) + 1e-12
    # At the optimum every class has its frequency, and its logit its mean over the labels.
    true = np.eye(classes)[labels]
    if np.abs(scaling.biases).max() < 5 and scaling.scales.min() > 0.02:
        assert probs.mean(axis=0) == pytest.approx(true.mean(axis=0), abs=1e-4)
        assert (probs * logits).mean(axis=0) == pytest.approx(
            (true * logits).mean(axis=0), abs=1e-4
        )


def test_a_class_without_images_and_predictions_all_right_have_an_end():
    probs, labels = random_predictions(1)
    wider = np.hstack([probs * 0.99, np.full((len(probs), 1), 0.01)])
    found = metrics.fit_vector_scaling(np.log(wider), labels)
    assert np.isfinite(found.scales).all()
    assert found.biases.min() == found.biases[-1]
    assert np.ptp(found.biases) <= 20.0
    sure = metrics.fit_vector_scaling(np.log(probs), probs.argmax(axis=1))
    scaled = metrics.apply_vector_scaling(np.log(probs), sure)
    assert metrics.nll(scaled, probs.argmax(axis=1)) < 0.05
    assert sure.scales.max() <= 100.0


def test_a_class_that_is_impossible_stays_so():
    log_probs = np.array([[0.0, -1.0, -np.inf], [-1.0, 0.0, -2.0], [-0.5, 0.0, -1.0], [-2.0, 0, 0]])
    scaling = metrics.fit_vector_scaling(log_probs, [1, 0, 1, 2])
    assert metrics.apply_vector_scaling(log_probs, scaling)[0, 2] == 0.0
    with pytest.raises(MetricsError, match="-inf for the label of 1 images"):
        metrics.fit_vector_scaling(log_probs, [2, 0, 1, 2])


def test_refused():
    log_probs = np.log(random_predictions(0)[0])
    with pytest.raises(MetricsError, match=r"scales has shape \(3,\), expected \(5,\)"):
        metrics.apply_vector_scaling(log_probs, metrics.VectorScaling(np.ones(3), np.zeros(5)))
    with pytest.raises(MetricsError, match="scales has the value -1"):
        metrics.apply_vector_scaling(log_probs, metrics.VectorScaling(-np.ones(5), np.zeros(5)))
    with pytest.raises(MetricsError, match="biases has the value nan"):
        metrics.apply_vector_scaling(
            log_probs, metrics.VectorScaling(np.ones(5), np.full(5, np.nan))
        )
