"""An estimate with its interval: over the runs of a model, and of the difference of two models."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from bnnlib.errors import MetricsError
from bnnlib.metrics.checks import check_fraction


class Interval(NamedTuple):
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float


def over_runs(intervals: Sequence[Interval], level: float = 0.95) -> Interval:
    """The mean over runs of one model that were judged on the same images.

    What the images add is the same for all runs, so the distances from estimate to end are
    averaged. What the seeds add is Student's t of the estimates. Both are independent, and add as
    squares. Of one run the seed's part is unknown, and its interval holds the images' part alone.

    Args:
        intervals: An interval over images for each run, all at this level.
        level: Confidence level.

    Returns:
        The mean and its interval.

    Raises:
        MetricsError: There is no interval.
    """
    level = check_fraction(level, "level", zero=False, one=False)
    if not intervals:
        raise MetricsError("over_runs got no intervals, expected one for each run.")
    if len(intervals) == 1:
        return Interval(*intervals[0])
    estimates, lows, highs = np.array(intervals, np.float64).T
    mean, runs = float(estimates.mean()), len(estimates)
    if not math.isfinite(mean):  # an infinite NLL has no spread
        return Interval(mean, float(lows.min()), float(highs.max()))
    t = float(special.stdtrit(runs - 1, 0.5 + level / 2.0))
    of_seeds = t * float(estimates.std(ddof=1)) / math.sqrt(runs)
    below = math.hypot(float((estimates - lows).mean()), of_seeds)
    above = math.hypot(float((highs - estimates).mean()), of_seeds)
    return Interval(mean, mean - below, mean + above)


def difference(first: Interval, second: Interval, correlation: float = 0.0) -> Interval:
    """One estimate less another, with the interval that follows from both of theirs.

    Zou & Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27
    (2008), eq. 7, and eq. 11 for estimates that are correlated. It keeps intervals that are not
    symmetric, as those of calibration errors near zero. Two models on the same images are
    correlated positively as a rule; 0 in its place makes the interval too wide, not too narrow.

    Args:
        first: An estimate and its interval.
        second: The one that is subtracted, at the same level.
        correlation: Of the two estimates, -1 to 1.

    Returns:
        The difference and its interval.
    """
    if not -1.0 <= correlation <= 1.0:
        raise MetricsError(f"correlation is {correlation!r}, expected -1 to 1.")
    below, above = first.estimate - first.low, first.high - first.estimate
    their_below, their_above = second.estimate - second.low, second.high - second.estimate
    middle = first.estimate - second.estimate
    low = below**2 + their_above**2 - 2.0 * correlation * below * their_above
    high = above**2 + their_below**2 - 2.0 * correlation * above * their_below
    return Interval(middle, middle - math.sqrt(max(low, 0.0)), middle + math.sqrt(max(high, 0.0)))
