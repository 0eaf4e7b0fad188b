"""What other test images might have given: intervals by resampling the images."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnnlib.errors import MetricsError
from bnnlib.metrics import calibration, ood, scores, selective
from bnnlib.metrics.checks import check_count, check_fraction


class Interval(NamedTuple):
    """A metric and its confidence interval."""

    estimate: float
    low: float
    high: float


_RESAMPLED = scores.RESAMPLED | calibration.RESAMPLED | selective.RESAMPLED | ood.RESAMPLED
_TWO_SETS = tuple(ood.RESAMPLED)
# Sums of absolute deviations: noise adds to them and never cancels.
_BIASED = tuple(calibration.RESAMPLED)


def bootstrap_interval(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: Sequence[int] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A metric's confidence interval over images: the percentile bootstrap.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3: images are drawn with
    replacement, all arrays of a group alike. It says how the metric varies with the test images,
    not with the training seed. Its ends are values that occurred, so an infinite NLL stays one.

    Resampling adds noise, and noise adds to a calibration error, so that plain percentiles of
    `ece`, `ece_equal_mass`, `classwise_ece` and `mce` can all lie above the estimate. Theirs are
    shifted by the bootstrap's estimate of that bias (section 10.2), the mean of the resamples less
    the estimate, and kept within 0 and 1. The estimate's own bias, the same in kind, remains.

    The metrics of this module take milliseconds a resample or less. Any other function works too,
    for example the difference of two models on the same images.

    Args:
        metric: A function of the arrays that returns a number.
        *arrays: Its arguments, each with images first.
        groups: The set of images that each array belongs to; arrays of different sets are resampled
            independently. None: one set, except for the OOD metrics, whose two arrays are two.
        num_resamples: How often the images are drawn.
        level: Confidence level.
        seed: Seed of the draws; the same seed draws the same images for every metric.

    Returns:
        The metric of the arrays as given, and both ends of its interval.

    Raises:
        MetricsError: Arrays of a group differ in length, or the metric refuses them or gives NaN.
    """
    num_resamples = check_count(num_resamples, "num_resamples")
    level = check_fraction(level, "level", zero=False, one=False)
    if not arrays:
        raise MetricsError("bootstrap_interval got no arrays to resample, expected at least one.")
    named = metric.func if isinstance(metric, partial) else metric
    if groups is None:
        groups = range(len(arrays)) if named in _TWO_SETS else [0] * len(arrays)
    if len(groups) != len(arrays):
        raise MetricsError(f"groups has {len(groups)} entries for {len(arrays)} arrays.")

    make_rows, reduce = _RESAMPLED.get(metric, (lambda *given: given, metric))
    data = [np.asarray(array) for array in arrays]
    num_images: dict[int, int] = {}
    for array, group in zip(data, groups, strict=True):
        if array.ndim == 0 or len(array) == 0:
            raise MetricsError(f"an array has shape {array.shape}, expected images along axis 0.")
        if num_images.setdefault(group, len(array)) != len(array):
            raise MetricsError(
                f"arrays of one group have {num_images[group]} and {len(array)} images, expected "
                "equally many. Give groups, for example (0, 1), for separate sets of images."
            )
    estimate = float(metric(*data))
    rows = make_rows(*data)
    if len(num_images) > 1 and len(rows) != len(arrays):
        raise MetricsError(f"groups is {tuple(groups)}, expected one set of images for {named}.")
    # One set of images may have any number of rows; of several sets each array is one row.
    row_groups = list(groups) if len(num_images) > 1 else [groups[0]] * len(rows)

    rng = np.random.default_rng(seed)
    values = np.empty(num_resamples)
    for resample in range(num_resamples):
        picked = {group: rng.integers(count, size=count) for group, count in num_images.items()}
        values[resample] = reduce(
            *(row[picked[group]] for row, group in zip(rows, row_groups, strict=True))
        )
    if np.isnan(values).any() or math.isnan(estimate):
        raise MetricsError(f"{named} gave NaN on the images or on resamples of them.")
    tail = (1.0 - level) / 2.0
    # No interpolation: between a finite value and infinity there is none.
    low = float(np.quantile(values, tail, method="lower"))
    high = float(np.quantile(values, 1.0 - tail, method="higher"))
    if named in _BIASED:
        bias = float(values.mean()) - estimate
        low, high = max(0.0, low - bias), min(1.0, high - bias)
    return Interval(estimate, low, high)
