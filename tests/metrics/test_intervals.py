"""Intervals over runs and of differences, by hand and by how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from bnnlib import metrics
from bnnlib.errors import MetricsError
from bnnlib.metrics import Interval


def test_one_run_keeps_its_interval():
    assert metrics.over_runs([Interval(0.2, 0.1, 0.4)]) == (0.2, 0.1, 0.4)


def test_runs_by_hand():
    # Two runs, 0.2 and 0.4: mean 0.3, standard deviation 0.1 sqrt(2), its error 0.1. Student's t
    # of one degree of freedom is 12.706. The images add 0.1 below and 0.3 above.
    found = metrics.over_runs([Interval(0.2, 0.1, 0.5), Interval(0.4, 0.3, 0.7)])
    assert found.estimate == pytest.approx(0.3)
    assert found.low == pytest.approx(0.3 - math.hypot(0.1, 1.2706), abs=1e-4)
    assert found.high == pytest.approx(0.3 + math.hypot(0.3, 1.2706), abs=1e-4)


def test_runs_that_agree_leave_the_interval_of_the_images():
    found = metrics.over_runs([Interval(0.2, 0.1, 0.4)] * 3)
    assert found == pytest.approx((0.2, 0.1, 0.4))


def test_an_infinite_run_makes_the_mean_infinite():
    found = metrics.over_runs([Interval(math.inf, 0.3, math.inf), Interval(0.4, 0.2, 0.5)])
    assert found == (math.inf, 0.2, math.inf)


def test_a_difference_by_hand():
    first, second = Interval(0.5, 0.2, 0.6), Interval(0.3, 0.2, 0.7)
    found = metrics.difference(first, second)
    assert found.estimate == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - math.hypot(0.3, 0.4))
    assert found.high == pytest.approx(0.2 + math.hypot(0.1, 0.1))
    # Wholly correlated, like ends move together.
    found = metrics.difference(first, second, correlation=1.0)
    assert found.low == pytest.approx(0.2 - 0.1)
    assert found.high == pytest.approx(0.2)


@pytest.mark.parametrize("runs", [2, 3, 8])
def test_the_interval_over_runs_holds_the_true_mean_19_times_of_20(runs):
    rng = np.random.default_rng(runs)
    of_images, of_seeds, num_sets = 0.02, 0.02, 1000
    half = stats.norm.ppf(0.975) * of_images
    covered = 0
    for _ in range(num_sets):
        # The same images are judged by every run, so that what they add is one number.
        estimates = of_images * rng.normal() + of_seeds * rng.normal(size=runs)
        found = metrics.over_runs([Interval(e, e - half, e + half) for e in estimates])
        covered += found.low <= 0.0 <= found.high
    assert 0.93 <= covered / num_sets <= 0.99


def test_refusals():
    with pytest.raises(MetricsError, match="no intervals"):
        metrics.over_runs([])
    with pytest.raises(MetricsError, match="correlation is 2"):
        metrics.difference(Interval(0, 0, 0), Interval(0, 0, 0), correlation=2)
