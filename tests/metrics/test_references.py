"""Other libraries' numbers, kept in references.json by make_references.py, against ours."""

import json
from pathlib import Path

import numpy as np
import pytest

from bnnlib import metrics
from tests.metrics.cases import random_draws, random_predictions

REFERENCES = json.loads(Path(__file__).with_name("references.json").read_text())


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_predictions(seed):
    probs, labels = random_predictions(seed)
    theirs = REFERENCES["predictions"][seed]
    for name in ("nll", "brier", "ece", "mce"):
        assert getattr(metrics, name)(probs, labels) == pytest.approx(theirs[name], rel=1e-5), name
    assert metrics.risk_at_coverage(probs, labels, 0.8) == pytest.approx(theirs["risk_at_coverage"])
    found = metrics.coverage_at_risk(probs, labels, 0.2)
    assert found == pytest.approx(theirs["coverage_at_risk"], abs=1e-6)
    # Their areas are trapezoids from the first point on, over 1 - 1 / n.
    curve = metrics.risk_coverage(probs, labels)
    share, first = 1 - 1 / len(labels), curve.risk[0]
    trapezoids = metrics.aurc(probs, labels) - (first + curve.risk[-1]) / 2 / len(labels)
    assert trapezoids / share == pytest.approx(theirs["aurc"], rel=1e-5)
    trapezoids = metrics.augrc(probs, labels) - first / 2 / len(labels) ** 2
    assert trapezoids / share == pytest.approx(theirs["augrc"], rel=1e-5)
    # Both search the width in steps of 1 / 1024, and count the ends of their grid like its middle.
    for name in ("smooth_ece", "smooth_ece_relplot"):
        assert metrics.smooth_ece(probs, labels) == pytest.approx(theirs[name], abs=2e-3), name


@pytest.mark.parametrize("seed", range(3))
def test_conformal_sets(seed):
    probs, labels = random_predictions(seed)
    held_out, their_labels = random_predictions(seed + 100, num_images=100)
    sets = metrics.conformal_sets(probs, held_out, their_labels, "thr").sets
    theirs = REFERENCES["predictions"][seed]
    assert metrics.set_coverage(sets, labels) == pytest.approx(theirs["coverage_thr"])
    assert metrics.set_size(sets) == pytest.approx(theirs["set_size_thr"])


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_draws(seed):
    probs, logits = random_draws(seed)
    mean, votes = metrics.mean_probs(probs), metrics.count_votes(probs)
    expected = metrics.expected_entropy(probs)
    scores = metrics.uncertainty_scores(mean, expected, logits.mean(axis=0), votes)
    theirs = REFERENCES["draws"][seed]
    for name in ("entropy", "mutual_information", "max_logit", "energy"):
        assert scores[name].mean() == pytest.approx(theirs[name], rel=1e-5), name
    assert metrics.disagreement(votes).mean() == pytest.approx(theirs["disagreement"], rel=1e-5)
    # Theirs counts against the class of the mean, which now and then is not the most voted one.
    of_mean = votes[np.arange(len(votes)), mean.argmax(axis=1)]
    assert (1 - of_mean / len(probs)).mean() == pytest.approx(theirs["variation_ratio"], rel=1e-5)
    assert scores["variation_ratio"].mean() == pytest.approx(theirs["variation_ratio"], abs=0.01)
