"""An estimate with its interval: over the runs of a model, and of the difference of two models."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
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
    averaged; `with_seeds` adds what the seeds add.

    Args:
        intervals: An interval over images for each run, all at this level.
        level: Confidence level.

    Returns:
        The mean and its interval.

    Raises:
        MetricsError: There is no interval.
    """
    if not intervals:
        raise MetricsError("over_runs got no intervals, expected one for each run.")
    if len(intervals) == 1:
        return Interval(*intervals[0])
    estimates, lows, highs = np.array(intervals, np.float64).T
    mean = float(estimates.mean())
    if not math.isfinite(mean):  # an infinite NLL has no spread
        return Interval(mean, float(lows.min()), float(highs.max()))
    low, high = float((estimates - lows).mean()), float((highs - estimates).mean())
    return with_seeds(Interval(mean, mean - low, mean + high), [estimates], level)


def with_seeds(
    of_images: Interval, estimates: Sequence[npt.ArrayLike], level: float = 0.95
) -> Interval:
    """An interval over images, widened by what other seeds would have given.

    Images and seeds are independent, so their distances add as squares. What the seeds add is
    Student's t of the runs' estimates, for the difference of two models with Welch's degrees of
    freedom (Biometrika 34, 1947). Of a model with one run the seeds' part is unknown and left out.

    Args:
        of_images: A mean over runs, or a difference of such means, and its interval over images.
        estimates: For each model the estimates of its runs.
        level: Confidence level.

    Returns:
        The same estimate with its wider interval.
    """
    level = check_fraction(level, "level", zero=False, one=False)
    if not math.isfinite(of_images.estimate):  # an infinite NLL has no spread
        return of_images
    runs = [np.asarray(one, np.float64) for one in estimates]
    parts = [(float(one.var(ddof=1)) / len(one), len(one) - 1) for one in runs if len(one) > 1]
    variance = sum(part for part, _ in parts)
    if not variance > 0.0:
        return of_images
    freedom = variance**2 / sum(part**2 / its_freedom for part, its_freedom in parts)
    of_seeds = float(special.stdtrit(freedom, 0.5 + level / 2.0)) * math.sqrt(variance)
    middle, low, high = of_images
    below, above = math.hypot(middle - low, of_seeds), math.hypot(high - middle, of_seeds)
    return Interval(middle, middle - below, middle + above)


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
